//! The SecretStore port on files: one file for each secret, mode 0600, in a folder of mode 0700. With a passphrase,
//! secrets are sealed under it.
//!
//! Any number of processes on one machine may share the folder. A write locks the folder before it checks the version
//! that it replaces, and unlocks it when the new file has its name. Reads need no lock, because a file appears and
//! changes as a whole.
//!
//! **Invariant:** no error repeats what a secret's file holds.

mod folder;
mod format;
mod kept;
mod moving;
mod passphrase;
mod protection;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use async_trait::async_trait;
use keyway_crypto::{ContextError, PassphraseError, SealError, SecretBytes};
use keyway_domain::ports::{Random, RandomError, SecretStore, SecretVersion, StoreError};
use tokio::task;

use crate::folder::Folder;
pub use crate::kept::{KeptSecret, LockedFolder, moved_away};
pub use crate::moving::{Left, SecretMove, save_secret};
pub use crate::passphrase::Passphrase;
use crate::protection::{Opened, Protection};

/// The size of the largest secret.
const MAX_SECRET_BYTES: usize = 64 * 1024;
const MAX_NAME_BYTES: usize = 64;

/// Secrets in the files of one folder.
pub struct FileSecrets {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Folder,
    protection: Protection,
    random: Arc<dyn Random>,
}

impl FileSecrets {
    /// Opens the folder, and makes it with mode 0700 if it is missing.
    ///
    /// With a passphrase, secrets are sealed under it, and a secret in the clear is refused. Without one, secrets are
    /// in the clear, and a sealed secret is refused. Secrets are first read when they are asked for.
    ///
    /// # Errors
    /// [`OpenError`], with a text that tells the operator what to do.
    pub fn open(
        folder: &Path,
        passphrase: Option<SecretBytes>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::open_under(folder, passphrase.map(Passphrase::from), random)
    }

    /// As [`FileSecrets::open`], with a passphrase that an operator gave.
    ///
    /// # Errors
    /// As [`FileSecrets::open`].
    pub fn open_under(
        folder: &Path,
        passphrase: Option<Passphrase>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::new(Folder::open(folder), passphrase, random)
    }

    /// As [`FileSecrets::open_under`], for a folder that must exist. Opening and reading change nothing in it.
    ///
    /// # Errors
    /// As [`FileSecrets::open`].
    pub fn inspect(
        folder: &Path,
        passphrase: Option<Passphrase>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        Self::new(Folder::inspect(folder), passphrase, random)
    }

    fn new(
        folder: Result<Folder, FileError>,
        passphrase: Option<Passphrase>,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        if passphrase.as_ref().is_some_and(Passphrase::is_empty) {
            return Err(OpenError::EmptyPassphrase);
        }
        let inner = Inner {
            folder: folder?,
            protection: Protection::new(passphrase),
            random,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Writes the secret again, sealed under another passphrase, or in the clear if that is `None`.
    ///
    /// This store keeps its own passphrase, so it refuses the secret afterwards: open another store.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when the secret is absent, cannot be read or cannot be written.
    pub async fn change_passphrase(
        &self,
        name: &str,
        new: Option<Passphrase>,
    ) -> Result<SecretVersion, StoreError> {
        if new.as_ref().is_some_and(Passphrase::is_empty) {
            return Err(FileError::Passphrase(PassphraseError::Empty).into());
        }
        let name = checked(name)?;
        self.run(move |inner| {
            inner.read(&name)?; // Derives the key before the lock is taken.
            let _lock = inner.folder.lock()?;
            let absent = || FileError::Absent {
                path: inner.folder.path_of(&name),
            };
            let current = inner.read(&name)?.ok_or_else(absent)?;
            // The salt belongs to the old passphrase.
            let unsalted = Opened {
                settings: None,
                ..current
            };
            inner.write(
                &name,
                &unsalted.value,
                Some(&unsalted),
                &Protection::new(new),
            )
        })
        .await
    }

    /// Runs the work on a thread that may block, for files and for a key derivation of a tenth of a second.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| StoreError::Failed {
                what: WHAT,
                source: error.into(),
            })?
    }
}

#[async_trait]
impl SecretStore for FileSecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        let name = checked(name)?;
        let found = self.run(move |inner| Ok(inner.read(&name)?)).await?;
        Ok(found.map(|secret| (secret.value, SecretVersion(secret.version))))
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        let name = checked(name)?;
        if value.len() > MAX_SECRET_BYTES {
            return Err(FileError::SecretTooLarge.into());
        }
        let (value, seen) = (SecretBytes::from(value.expose().to_vec()), seen.cloned());
        self.run(move |inner| {
            let Some(seen) = seen else {
                let _lock = inner.folder.lock()?;
                return inner.write(&name, &value, None, &inner.protection);
            };
            inner.read(&name)?; // Derives the key before the lock is taken.
            let _lock = inner.folder.lock()?;
            // Decrypt it, not only read its version: a process that cannot read a secret must not replace it.
            let current = inner
                .read(&name)?
                .filter(|current| current.version == seen.0);
            let current = current.ok_or(StoreError::Conflict)?;
            inner.write(&name, &value, Some(&current), &inner.protection)
        })
        .await
    }
}

impl Inner {
    fn read(&self, name: &str) -> Result<Option<Opened>, FileError> {
        let Some(text) = self.folder.read(name)? else {
            return Ok(None);
        };
        self.protection
            .open(name, &text, &self.folder.path_of(name))
            .map(Some)
    }

    /// Writes the version that follows `current`, which is the newest; the caller holds the folder's lock.
    fn write(
        &self,
        name: &str,
        value: &SecretBytes,
        current: Option<&Opened>,
        protection: &Protection,
    ) -> Result<SecretVersion, StoreError> {
        let path = self.folder.path_of(name);
        // Writing the file would fail too, but only after a slow key derivation.
        if current.is_none() && self.folder.has(name) {
            return Err(StoreError::Conflict);
        }
        let next = self.version_after(current, &path)?;
        let settings = current.and_then(|secret| secret.settings);
        let text = protection.protect(name, &next, value, settings, &*self.random)?;
        self.folder
            .write(name, &text, current.is_some(), &*self.random)?;
        Ok(SecretVersion(next))
    }

    /// A count for the operator, and random digits. After a restore from a backup the count repeats, and the digits
    /// keep the new version from being taken for the earlier one with the same count.
    fn version_after(&self, current: Option<&Opened>, path: &Path) -> Result<String, FileError> {
        let count = current.map_or(Some(0), |secret| {
            secret.version.split('.').next()?.parse::<u64>().ok()
        });
        let next = count
            .and_then(|count| count.checked_add(1))
            .ok_or_else(|| FileError::Garbled {
                path: path.to_owned(),
                what: "its version has no count",
            })?;
        Ok(format!("{next}.{}", random_digits(&*self.random)?))
    }
}

fn checked(name: &str) -> Result<String, FileError> {
    let plain = name
        .bytes()
        .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        Ok(name.to_owned())
    } else {
        Err(FileError::Name)
    }
}

fn random_digits(random: &dyn Random) -> Result<String, RandomError> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

impl fmt::Debug for FileSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSecrets")
            .field("folder", &self.inner.folder.path())
            .finish_non_exhaustive()
    }
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// An empty passphrase protects nothing.
    #[error("the passphrase for the secrets is empty; give one, or none at all")]
    EmptyPassphrase,
    /// The folder is not fit to keep secrets.
    #[error(transparent)]
    Folder(#[from] FileError),
}

/// What is wrong with a file or the folder. The texts are for the operator: they name the file and what to do, and
/// repeat nothing of its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A symbolic link, or a folder where a file should be, or the other way round.
    #[error("{} is not a plain {wanted}; name the {wanted} itself", path.display())]
    NotPlain {
        /// What the path names.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
    /// Other users than the owner have access to it.
    #[error(transparent)]
    Unfit(#[from] keyway_ownership::Unfit),
    /// Another process held the folder's lock for too long.
    #[error("{} was locked by another process for 10 seconds; see what it does, then try again", path.display())]
    Locked {
        /// The file that is locked.
        path: PathBuf,
    },
    /// The file is not one that this store wrote.
    #[error("{} is not a secret's file: {what}; restore it from a backup", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A newer release of Keyway wrote the file.
    #[error(
        "{} has format {found}, and this release knows format 1; run the later release, or restore the backup from before \
         the upgrade (docs/upgrading.md)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The secret is in the clear and the store has a passphrase.
    #[error(
        "{} is in the clear, but a passphrase is given; start without it, or first put the secret under it",
        path.display()
    )]
    InTheClear {
        /// The file.
        path: PathBuf,
    },
    /// The secret is sealed and the store has no passphrase.
    #[error("{} is sealed under a passphrase, and none is given; give the passphrase", path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
    },
    /// The passphrase does not open it.
    #[error("{} does not open: the passphrase is wrong, or the file was altered", path.display())]
    DoesNotOpen {
        /// The file.
        path: PathBuf,
    },
    /// A new passphrase has a control character.
    #[error(
        "the passphrase has a control character, such as a tab or a line break in the middle; choose one without (a single \
         line break at its end does no harm)"
    )]
    ControlCharacter,
    /// There is no such secret.
    #[error("{} does not exist", path.display())]
    Absent {
        /// The file.
        path: PathBuf,
    },
    /// The file is not the one that this process opened or moved.
    #[error("{} is another file than the one that this process has used; put that one back, or restart", path.display())]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The name is not 1 to 64 of `[a-z0-9-]`.
    #[error("the name of a secret is 1 to 64 of a-z, 0-9 and -")]
    Name,
    /// The secret is over 64 KiB.
    #[error("a secret is at most 64 KiB")]
    SecretTooLarge,
    /// The key could not be derived from the passphrase.
    #[error("the key could not be derived from the passphrase: {0}")]
    Passphrase(#[from] PassphraseError),
    /// The secret's encryption context is too large.
    #[error("the secret could not be bound to its name and version: {0}")]
    Context(#[from] ContextError),
    /// The secret could not be sealed.
    #[error("the secret could not be sealed: {0}")]
    Seal(#[from] SealError),
    /// The secret could not be written as text.
    #[error("the secret could not be written as text: {0}")]
    Text(#[from] serde_json::Error),
    /// The system's random generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
}

const WHAT: &str = "use the folder of secrets";

impl From<FileError> for StoreError {
    fn from(error: FileError) -> Self {
        Self::Failed {
            what: WHAT,
            source: Box::new(error),
        }
    }
}
