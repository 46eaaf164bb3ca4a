//! A secret's file as this process last saw it, to be written again if somebody removes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyway_domain::ports::{Random, StoreError};
use zeroize::Zeroizing;

use crate::folder::{Folder, Lock, kill_point};
use crate::format::Content;
use crate::{FileError, checked};

/// A secret's file as this process last saw it: as it is, so that no passphrase is needed to write it again.
pub struct KeptSecret {
    name: String,
    seen: Mutex<Option<Zeroizing<Vec<u8>>>>,
}

/// A folder in which nobody else writes a secret's file until this is dropped.
pub struct LockedFolder {
    folder: Folder,
    _lock: Lock,
}

impl KeptSecret {
    /// Nothing was seen yet of the secret of this name.
    ///
    /// # Errors
    /// [`FileError::Name`].
    pub fn new(name: &str) -> Result<Self, FileError> {
        Ok(Self {
            name: checked(name)?,
            seen: Mutex::default(),
        })
    }

    /// Looks at the secret's file in the folder and keeps what is in it. `false`: there is none, or no such folder.
    ///
    /// A file that differs from the one before is kept if its version is a later one, as after a change of passphrase.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// When the folder or the file is not fit to be used, is not a secret's file, or is another one.
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

    /// Locks the folder, which is made first if it is missing and `make` says so.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// When the folder is not fit to be used, or is missing.
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

    /// Writes the file as it was last seen, if there is none; never over another file. Gives its path, or `None` where
    /// there is a file. Durable once it returns.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// [`FileError::Absent`] when it was never seen, else when it cannot be written.
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
        // Every change is one assignment.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of this secret that a move to another folder left in this one under another name.
///
/// This blocks.
///
/// # Errors
/// When the folder is not fit to be used.
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
