//! The time in which certificates are valid.

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::time::Time;

use super::{LONGEST_CHAIN, parse};

/// The time in which a certificate is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// The certificate's subject.
    pub subject: String,
    /// From when on.
    pub begins: Timestamp,
    /// Until when.
    pub ends: Timestamp,
}

/// Why the validity of certificates is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoValidity {
    /// The text holds no certificate.
    #[error("it holds no certificate in PEM")]
    Missing,
    /// One of them is no certificate.
    #[error("it holds something that is no X.509 certificate")]
    Malformed,
}

impl Validity {
    /// Of each certificate in a PEM text, at most ten.
    ///
    /// # Errors
    /// [`NoValidity`].
    pub fn of_pem(text: &[u8]) -> Result<Vec<Self>, NoValidity> {
        let found = CertificateDer::pem_slice_iter(text)
            .take(LONGEST_CHAIN)
            .map(|der| Self::of_der(&der.map_err(|_| NoValidity::Malformed)?))
            .collect::<Result<Vec<_>, _>>()?;
        match found.is_empty() {
            true => Err(NoValidity::Missing),
            false => Ok(found),
        }
    }

    /// Of a certificate in DER.
    ///
    /// # Errors
    /// [`NoValidity::Malformed`].
    pub fn of_der(der: &[u8]) -> Result<Self, NoValidity> {
        let parsed = parse(der).map_err(|_| NoValidity::Malformed)?;
        let certificate = parsed.tbs_certificate();
        let validity = certificate.validity();
        Ok(Self {
            subject: certificate.subject().to_string(),
            begins: timestamp(&validity.not_before)?,
            ends: timestamp(&validity.not_after)?,
        })
    }
}

fn timestamp(time: &Time) -> Result<Timestamp, NoValidity> {
    let since = time.to_unix_duration();
    let seconds = i64::try_from(since.as_secs()).map_err(|_| NoValidity::Malformed)?;
    Timestamp::from_second(seconds).map_err(|_| NoValidity::Malformed)
}
