//! Reads the certificate, its key and the clients' authorities from files.
//!
//! **Invariant:** no error repeats what a file holds. The parser's own errors repeat whole lines, and in a file that lost
//! its line breaks one line is the whole key.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{Clients, TlsError};

#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) clients: Clients,
}

/// Metadata of files that changes whenever their content does, without the content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamps(Vec<Option<Stamp>>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

impl Files {
    pub(super) fn stamps(&self) -> Stamps {
        let mut paths = vec![&self.certificate, &self.key];
        if let Clients::IssuedBy(path) = &self.clients {
            paths.push(path);
        }
        // `metadata` follows links, because mounted secrets are exchanged by changing a link. ctime, because a copy
        // may keep the mtime of its original.
        let stamp = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some(Stamp {
                place: (found.dev(), found.ino()),
                size: found.size(),
                changed: (found.ctime(), found.ctime_nsec()),
            })
        };
        Stamps(paths.into_iter().map(stamp).collect())
    }

    pub(super) fn load(&self) -> Result<ServerConfig, TlsError> {
        let chain = certificates(&self.certificate)?;
        let text = read(&self.key)?;
        if is_encrypted(&text) {
            return Err(unusable(
                &self.key,
                "holds a key under a passphrase, and none can be given: decrypt it, such as by `openssl pkey -in FILE -out NEW`",
            ));
        }
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
            pem::Error::NoItemsFound => unusable(&self.key, "there is no key in it in PEM"),
            error => unusable(&self.key, kind(&error)),
        })?;
        super::config(chain, key, &self.clients)
    }
}

/// The certificates in a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| unusable(path, kind(&error)))?;
    if found.is_empty() {
        return Err(unusable(path, "there is no certificate in it"));
    }
    Ok(found)
}

/// The longest file, in bytes. Chains and bundles of authorities are shorter.
const LONGEST: u64 = 4 << 20;

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let cannot = |error: std::io::Error| unusable(path, &format!("cannot be read: {error}"));
    let file = File::open(path).map_err(cannot)?;
    // Reserve enough at once: a buffer that grows leaves copies of the key behind.
    let length = file.metadata().map_err(cannot)?.len().min(LONGEST);
    let mut text = Zeroizing::new(Vec::with_capacity(
        usize::try_from(length).unwrap_or(0) + 64,
    ));
    file.take(LONGEST + 1)
        .read_to_end(&mut text)
        .map_err(cannot)?;
    if text.len() as u64 > LONGEST {
        return Err(unusable(path, "is longer than 4 MiB"));
    }
    Ok(text)
}

/// Whether the key is encrypted under a passphrase, in either of PEM's two ways.
fn is_encrypted(text: &[u8]) -> bool {
    let has = |words: &[u8]| text.windows(words.len()).any(|found| found == words);
    has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"\nProc-Type: 4,ENCRYPTED")
}

/// Says what is wrong with a PEM file, and repeats nothing from it.
fn kind(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => {
            "is not PEM: a section that begins (-----BEGIN ...-----) does not end; it may have been cut off"
        }
        pem::Error::IllegalSectionStart { .. } => {
            "is not PEM: the line that begins a section (-----BEGIN ...-----) does not end as it must; its line breaks may have been lost"
        }
        pem::Error::Base64Decode(_) => "is not PEM: a section's content is not base64",
        pem::Error::SectionTooLarge => "is not PEM: a section is too long",
        pem::Error::NoItemsFound => "there is nothing of what it should hold in it in PEM",
        _ => "is not PEM",
    }
}

pub(super) fn unusable(path: &Path, why: &str) -> TlsError {
    TlsError::File {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}
