//! The certificate of a listener on loopback for which the operator gives none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use keyway_certificates::CertifiedKey;

use crate::lock_file;

const CERTIFICATE: &str = "kes-listener.crt";
const KEY: &str = "kes-listener.key";

/// The file of the certificate that [`loopback_certificate`] made in the data folder, if there is one.
pub fn listener_certificate(folder: &Path) -> Option<PathBuf> {
    let certificate = folder.join(CERTIFICATE);
    certificate.exists().then_some(certificate)
}

/// The files of the certificate and its key in the data folder, made if they are missing. Servers that start at the
/// same time over one folder make one certificate.
///
/// # Errors
/// When a file cannot be written, locked or made.
pub fn loopback_certificate(folder: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join(CERTIFICATE), folder.join(KEY));
    let lock = lock_file(&key.with_extension("lock"))?;
    lock.lock()?;
    if !certificate.exists() {
        // A key without a certificate is left from an interrupted start, and no client knows it.
        if key.exists() {
            fs::remove_file(&key).with_context(|| key.display().to_string())?;
        }
        CertifiedKey::for_loopback()?.write(&certificate, &key)?;
    }
    Ok((certificate, key))
}
