//! The root keyring, and the signatures of records.

use jiff::SignedDuration;

use super::{Code, Doctor, Finding, list};
use crate::error::one_line;
use crate::keyring::{OpenError, RootKeyring, kms_error};
use crate::records::verify_all;
use crate::roots::count_references;

/// Older roots are worth a notice.
const OLD: SignedDuration = SignedDuration::from_hours(366 * 24);

const SUBJECT: &str = "root keyring";

impl Doctor {
    /// Returns whether the keyring is open and belongs to the table.
    pub(super) async fn examine_keyring(&self, findings: &mut Vec<Finding>) -> bool {
        if let Err(error) = self.keyring.must_be_own().await {
            let code = match error {
                OpenError::TableNewer { .. } => Code::TableNewer,
                _ => Code::KeyringUnusable,
            };
            findings.push(Finding::new(code, SUBJECT, one_line(&error)));
            return false;
        }
        findings.push(Finding::new(Code::KeyringOk, SUBJECT, "it opens"));
        match self.keyring.own_keyring().await {
            Ok(keyring) => findings.extend(self.root_age(&keyring)),
            Err(error) => findings.push(Finding::failed("root age", one_line(&error))),
        }
        true
    }

    fn root_age(&self, keyring: &RootKeyring) -> Option<Finding> {
        let (id, made_at) = keyring.roots().last()?;
        let age = self.clock.now().duration_since(made_at);
        let code = if age > OLD {
            Code::RootOld
        } else {
            Code::RootAgeOk
        };
        let days = age.as_hours() / 24;
        let seen = format!("it was made at {made_at:.0}, {days} days ago");
        Some(Finding::new(code, format!("root key {id}"), seen))
    }

    /// Findings about the roots that were rotated away and are still in the keyring.
    pub(super) async fn examine_roots(&self, findings: &mut Vec<Finding>) {
        let counted = async {
            let keyring = self.keyring.own_keyring().await;
            let keyring = keyring.map_err(|error| kms_error("the root keyring", error))?;
            count_references(self.stored.as_ref(), &keyring).await
        };
        let status = match counted.await {
            Ok(status) => status,
            Err(error) => {
                findings.push(Finding::failed("former roots", error.for_operator()));
                return;
            }
        };
        let former = status.roots.iter().filter(|root| root.id != status.current);
        findings.extend(former.map(|root| {
            let (subject, records) = (format!("root key {}", root.id), root.records);
            let seen = format!(
                "{} wraps now; {records} records refer to this one",
                status.current
            );
            Finding::new(Code::RootFormer, subject, seen)
        }));
    }

    pub(super) async fn examine_records(&self, findings: &mut Vec<Finding>) {
        let found = match verify_all(self.stored.as_ref(), &self.keyring).await {
            Ok(found) => found,
            Err(error) => {
                findings.push(Finding::failed("records", error.for_operator()));
                return;
            }
        };
        let refused = found.refused.iter();
        let refused = refused.map(|(kind, id, why)| (kind.as_str(), id, why.as_str()));
        let unsigned = found.unsigned.iter();
        let unsigned = unsigned.map(|(kind, id)| (kind.as_str(), id, "it has no signature"));
        let refused: Vec<_> = match found.marked {
            true => refused.chain(unsigned).collect(),
            false => refused.collect(),
        };
        let named = refused
            .into_iter()
            .map(|(kind, id, why)| (format!("{kind}/{id}"), why.to_owned()));
        let named: Vec<_> = named.collect();
        if named.is_empty() && found.marked {
            let seen = format!("{} records verify", found.verified);
            findings.push(Finding::new(Code::RecordsOk, "records", seen));
        }
        list(findings, Code::RecordRefused, named);
        if !found.marked {
            let seen = format!(
                "{} records verify, {} have no signature",
                found.verified,
                found.unsigned.len()
            );
            findings.push(Finding::new(Code::RecordsUnsigned, "records", seen));
        }
    }
}
