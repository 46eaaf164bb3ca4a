//! A certificate, its key and its clients' authorities in files.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Clients, TlsError};

#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) clients: Clients,
}

/// What changes about files whenever their content does, and none of the content.
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
        // Of what a link leads to: that is how mounted secrets are exchanged. The time of change, for a copy may
        // bring its time of modification along.
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
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| unusable(&self.key, &error.to_string()))?;
        super::config(chain, key, &self.clients)
    }
}

/// The certificates in a PEM file, of which there is one at least.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| unusable(path, &error.to_string()))?;
    if found.is_empty() {
        return Err(unusable(path, "there is no certificate in it"));
    }
    Ok(found)
}

pub(super) fn unusable(path: &Path, why: &str) -> TlsError {
    TlsError::File {
        path: path.display().to_string(),
        why: why.to_owned(),
    }
}
