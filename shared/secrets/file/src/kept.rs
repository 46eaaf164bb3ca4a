//! Keeps a secret's file in memory, so that this process can write it again if somebody removes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyway_domain::ports::{Random, StoreError};
use zeroize::Zeroizing;

use crate::folder::{Folder, Lock, kill_point};
use crate::format::Content;
use crate::{FileError, checked};

/// The bytes of a secret's file as this process last read them. Writing them again needs no passphrase.
pub struct KeptSecret {
    name: String,
    seen: Mutex<Option<Zeroizing<Vec<u8>>>>,
}

/// A folder that is locked against other writers until this is dropped.
pub struct LockedFolder {
    folder: Folder,
    _lock: Lock,
}

impl KeptSecret {
    /// Keeps the secret of this name, which is not read yet.
    ///
    /// # Errors
    /// [`FileError::Name`].
    pub fn new(name: &str) -> Result<Self, FileError> {
        Ok(Self {
            name: checked(name)?,
            seen: Mutex::default(),
        })
    }

    /// Reads the secret's file in the folder and keeps it. Returns `false` if the file or the folder is missing.
    ///
    /// If the file differs from the one kept before, its version must be later, as after a change of passphrase.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// When the folder or the file must not be used, or the file is not a secret's, or is another one than before.
    pub fn look(&self, folder: &Path) -> Result<bool, FileError> {
        if is_absent(folder) {
            return Ok(false);
        }
        let folder = Folder::open_existing(folder)?;
        let Some(text) = folder.read(&self.name)? else {
            return Ok(false);
        };
        let path = folder.path_of(&self.name);
        let found = count(&Content::parse(&text, &path)?);
        let mut seen = self.seen();
        if let Some(seen) = seen.as_deref()
            && *seen != *text
            && found <= count(&Content::parse(seen, &path)?)
        {
            return Err(FileError::Other { path });
        }
        *seen = Some(text);
        Ok(true)
    }

    /// Locks the folder, and first makes it if it is missing and `make` is set.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// When the folder must not be used, or is missing.
    pub fn lock(folder: &Path, make: bool) -> Result<LockedFolder, FileError> {
        let folder = if make {
            Folder::open(folder)?
        } else {
            Folder::open_existing(folder)?
        };
        let lock = folder.lock()?;
        Ok(LockedFolder {
            folder,
            _lock: lock,
        })
    }

    /// Writes the kept file if the folder has none, and never over another file. Returns its path, or `None` if there is
    /// a file. The file is durable once this returns.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// [`FileError::Absent`] when the file was never read; or when it cannot be written.
    pub fn restore(
        &self,
        locked: &LockedFolder,
        random: &dyn Random,
    ) -> Result<Option<PathBuf>, StoreError> {
        let path = locked.folder.path_of(&self.name);
        let seen = self.seen();
        let Some(text) = seen.as_deref() else {
            return Err(FileError::Absent { path }.into());
        };
        match locked.folder.write(&self.name, text, false, random) {
            Ok(()) => {
                kill_point("the file is restored");
                Ok(Some(path))
            }
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Option<Zeroizing<Vec<u8>>>> {
        // A panic cannot leave it half changed: every change is one assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The path of a file of this secret that a move to another folder renamed in this one.
///
/// This blocks.
///
/// # Errors
/// When the folder must not be used.
pub fn moved_away(name: &str, folder: &Path) -> Result<Option<PathBuf>, FileError> {
    let name = checked(name)?;
    if is_absent(folder) {
        return Ok(None);
    }
    Folder::open_existing(folder)?.aside(&name)
}

/// How often the secret was written.
fn count(content: &Content<'_>) -> Option<u64> {
    content.version.split('.').next()?.parse().ok()
}

fn is_absent(folder: &Path) -> bool {
    fs::symlink_metadata(folder).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}
