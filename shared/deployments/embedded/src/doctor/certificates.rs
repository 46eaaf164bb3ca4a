//! Findings about the files that an operator names: certificates, and a backup.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use keyway_auth::certificate::Validity;
use keyway_domain::doctor::{Code, Finding};

/// A certificate that ends earlier has to be renewed now.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);
/// The largest file of certificates, in bytes.
const LARGEST: u64 = 1024 * 1024;

/// What the certificates of a file are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The first one is a listener's, the others are its chain.
    Listener,
    /// They are authorities whose clients are accepted.
    Authority,
}

/// Findings about the certificates in this PEM file.
pub fn certificate_findings(path: &Path, purpose: Purpose, now: Timestamp) -> Vec<Finding> {
    let subject = path.display().to_string();
    let unreadable = |why: String| vec![Finding::new(Code::CertificateUnreadable, &subject, why)];
    let text = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > LARGEST => {
            return unreadable("it is too large".to_owned());
        }
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) => return unreadable(error.to_string()),
    };
    match Validity::of_pem(&text) {
        Ok(found) => {
            let judged = found
                .iter()
                .map(|validity| judge(&subject, purpose, validity, now));
            judged.collect()
        }
        Err(error) => unreadable(error.to_string()),
    }
}

/// A finding about one certificate.
pub(super) fn judge(
    subject: &str,
    purpose: Purpose,
    validity: &Validity,
    now: Timestamp,
) -> Finding {
    let Validity {
        subject: holder,
        begins,
        ends,
    } = validity;
    let what = match purpose {
        Purpose::Listener => "the certificate of",
        Purpose::Authority => "the authority",
    };
    let (code, seen) = if *begins > now {
        (
            Code::CertificateInvalid,
            format!("is valid from {begins:.0} on only"),
        )
    } else if *ends <= now {
        (Code::CertificateInvalid, format!("expired at {ends:.0}"))
    } else if ends.duration_since(now) < SOON {
        (Code::CertificateExpires, format!("expires at {ends:.0}"))
    } else {
        (Code::CertificateOk, format!("is valid until {ends:.0}"))
    };
    Finding::new(code, subject, format!("{what} `{holder}` {seen}"))
}

/// A weekly backup may be a day late.
const BACKUP_OLD: SignedDuration = SignedDuration::from_hours(8 * 24);

/// A finding about the age of the backup in this file, by its date of modification.
pub fn backup_finding(path: Option<&Path>, now: Timestamp) -> Finding {
    let Some(path) = path else {
        return Finding::new(Code::BackupUnknown, "backup", "none is named");
    };
    let subject = path.display().to_string();
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let modified = match modified.map(Timestamp::try_from) {
        Ok(Ok(modified)) => modified,
        Ok(Err(error)) => return Finding::failed(subject, error.to_string()),
        Err(error) => return Finding::failed(subject, error.to_string()),
    };
    let code = match now.duration_since(modified) > BACKUP_OLD {
        true => Code::BackupOld,
        false => Code::BackupOk,
    };
    Finding::new(code, subject, format!("it was written at {modified:.0}"))
}
