//! Imports keys. Each is compared with the existing key of its name, and none is overwritten.
//!
//! A report names the keys and never repeats their values.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use keyway_domain::access::{Caller, Grant};
use keyway_domain::keys::{Compared, HmacKey, Keys, NewImport};
use keyway_domain::migration::Progress;
use keyway_domain::ports::SecretStore;
use keyway_domain::{KmsError, one_line};
use serde::Serialize;

use crate::files::read_key_file;
use crate::{Unreadable, is_key_name, key};

/// Imports keys, one after the other.
pub struct KeyImport<P> {
    keys: Keys,
    caller: Caller,
    on_progress: P,
    progress: Progress,
    report: KeyReport,
}

/// The results of an import, by the keys' names.
#[derive(Debug, Default, Serialize)]
pub struct KeyReport {
    /// Whether nothing was written, and `imported` lists what would be imported.
    pub dry_run: bool,
    /// Keys that did not exist before.
    pub imported: Vec<String>,
    /// The details of the imported keys, in the same order.
    #[serde(skip)]
    pub details: Vec<KeyDetails>,
    /// Keys that exist already, with the same value.
    pub already_there: Vec<String>,
    /// Keys whose name another key here has already.
    pub conflicts: Vec<NotImported>,
    /// Files and secrets that should be keys and cannot be imported.
    pub refused: Vec<NotImported>,
    /// Secrets that are not keys, as is to be expected in a store with other secrets.
    pub skipped: Vec<NotImported>,
}

/// An imported key.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyDetails {
    /// Its name.
    pub name: String,
    /// Its algorithm.
    pub algorithm: &'static str,
    /// Whether it comes with an HMAC key.
    pub has_hmac_key: bool,
}

/// A key, file or secret that was not imported, and why.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct NotImported {
    /// Its name.
    pub name: String,
    /// Why it was not imported.
    pub reason: String,
}

/// Why an import stopped early. Keys that were imported before stay.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The folder cannot be listed.
    #[error("the folder {folder} cannot be read")]
    Folder {
        /// The folder's path.
        folder: String,
        /// The cause.
        source: io::Error,
    },
    /// No key can be imported at this time.
    #[error("stopped; what was done stays done, run it again to go on: {}", .0.for_operator())]
    Stopped(KmsError),
}

/// A file, secret or value that was read.
enum Found {
    Key(NewImport),
    /// It is not a key, and need not be one. The text says why.
    Other(String),
    /// It should be a key and is not. The text says why.
    Unfit(String),
}

impl<P: FnMut(Progress) + Send> KeyImport<P> {
    /// An import into `keys`. With `dry_run` it writes nothing. `on_progress` is called before and after each key.
    pub fn new(keys: Keys, dry_run: bool, on_progress: P) -> Self {
        Self {
            keys,
            caller: Caller::new("operator", Arc::new(Grant::Owner)),
            on_progress,
            progress: Progress::default(),
            report: KeyReport {
                dry_run,
                ..KeyReport::default()
            },
        }
    }

    /// Imports the keys in this folder, which is KES's file system store, whose names begin with `prefix`. Every file in
    /// that folder should be a key.
    ///
    /// # Errors
    /// [`ImportError`] when the folder cannot be listed, or no key can be imported now.
    pub async fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), ImportError> {
        let names = names(folder, prefix).map_err(|source| ImportError::Folder {
            folder: folder.display().to_string(),
            source,
        })?;
        self.progress.total = names.len() as u64;
        for name in names {
            let found = match name.to_str() {
                Some(name) => in_file(&folder.join(name), name),
                None => Found::Unfit(Unreadable::Name.to_string()),
            };
            let name = name.to_string_lossy().escape_debug().to_string();
            self.take(name, found).await?;
        }
        Ok(())
    }

    /// Imports the keys in the secrets of these names. The store may hold other secrets; one whose name is not a key's is
    /// not read.
    ///
    /// # Errors
    /// [`ImportError::Stopped`] when no key can be imported now.
    pub async fn secrets(
        &mut self,
        secrets: &dyn SecretStore,
        names: Vec<String>,
    ) -> Result<(), ImportError> {
        self.progress.total = names.len() as u64;
        for name in names {
            let found = if is_key_name(&name) {
                match secrets.get(&name).await {
                    Ok(Some((value, _))) => in_secret(&name, value.expose()),
                    Ok(None) => Found::Other("it has no value".to_owned()),
                    Err(error) => Found::Unfit(one_line(&error)),
                }
            } else {
                Found::Other(Unreadable::Name.to_string())
            };
            self.take(name.escape_debug().to_string(), found).await?;
        }
        Ok(())
    }

    /// Imports one key.
    ///
    /// # Errors
    /// [`ImportError::Stopped`] when no key can be imported now.
    pub async fn key(&mut self, new: NewImport) -> Result<(), ImportError> {
        let name = new.id.as_str().to_owned();
        self.take(name, Found::Key(new)).await
    }

    /// The results so far.
    pub fn into_report(self) -> KeyReport {
        self.report
    }

    async fn take(&mut self, name: String, found: Found) -> Result<(), ImportError> {
        (self.on_progress)(self.progress);
        match found {
            Found::Other(reason) => self.report.skipped.push(NotImported { name, reason }),
            Found::Unfit(reason) => self.report.refused.push(NotImported { name, reason }),
            Found::Key(new) => self.compare(name, &new).await?,
        }
        self.progress.done += 1;
        (self.on_progress)(self.progress);
        Ok(())
    }

    async fn compare(&mut self, name: String, new: &NewImport) -> Result<(), ImportError> {
        let report = &mut self.report;
        let compared = self
            .keys
            .import_or_compare(&self.caller, new, report.dry_run)
            .await;
        match compared {
            Ok(Compared::New) => {
                report.details.push(KeyDetails {
                    name: name.clone(),
                    algorithm: new.algorithm.as_str(),
                    has_hmac_key: !matches!(new.hmac_key, HmacKey::Absent),
                });
                report.imported.push(name);
            }
            Ok(Compared::Same) => report.already_there.push(name),
            Ok(Compared::Different(why)) => report.conflicts.push(NotImported {
                name,
                reason: why.to_owned(),
            }),
            Err(KmsError::KeyExists(_)) => report.conflicts.push(NotImported {
                name,
                reason: "Vault holds a sealed copy of a key of this name; restore it first"
                    .to_owned(),
            }),
            // An error that would stop every key ends the import.
            Err(
                error @ (KmsError::Unavailable(_) | KmsError::Throttled | KmsError::NotConfigured),
            ) => return Err(ImportError::Stopped(error)),
            Err(error) => report.refused.push(NotImported {
                name,
                reason: error.for_operator(),
            }),
        }
        Ok(())
    }
}

/// The sorted names in the folder that begin with `prefix`.
fn names(folder: &Path, prefix: &str) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.push(entry?.file_name());
    }
    names.retain(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
    names.sort_unstable();
    Ok(names)
}

fn in_file(path: &Path, name: &str) -> Found {
    let found = read_key_file(path)
        .and_then(|value| key(name, &value).map_err(|unreadable| unreadable.to_string()));
    match found {
        Ok(new) => Found::Key(new),
        Err(why) => Found::Unfit(why),
    }
}

/// Most secrets are not keys and are skipped. A secret in a key's format that cannot be imported is refused.
fn in_secret(name: &str, value: &[u8]) -> Found {
    match key(name, value) {
        Ok(new) => Found::Key(new),
        Err(why @ (Unreadable::Form | Unreadable::TooLong | Unreadable::Name)) => {
            Found::Other(why.to_string())
        }
        Err(why) => Found::Unfit(why.to_string()),
    }
}
