//! Moves a secret's file to another folder. It copies the file's bytes, so that no passphrase is needed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use keyway_domain::ports::{Clock, Random, StoreError};
use keyway_ownership::FOLDER_MODE;
use zeroize::Zeroizing;

use crate::folder::{Folder, Lock, identity_of, kill_point};
use crate::format::Content;
use crate::{FileError, checked};

/// A move of a secret's file, while both folders hold it. Both folders are locked until this is dropped, so that moves
/// between the same folders run one after the other.
pub struct SecretMove {
    name: String,
    from: Folder,
    text: Zeroizing<Vec<u8>>,
    _locks: [Lock; 2],
}

/// What happened to the file in the old folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Left {
    /// It was renamed to this path, which no store reads.
    Renamed(PathBuf),
    /// It stays, because the old folder is the one in use.
    StillNamed,
    /// It was gone already.
    Absent,
}

impl SecretMove {
    /// Locks both folders and copies the secret's file from `from` into `to`, durably. Returns `None` if both paths name
    /// the same folder; then nothing moves.
    ///
    /// The folder `to` is made with mode 0700 if it is missing; an empty one is given that mode.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when `to` holds another secret of that name; [`StoreError::Failed`] with a [`FileError`]
    /// when a folder must not hold secrets, or the secret is absent.
    pub fn begin(
        name: &str,
        from: &Path,
        to: &Path,
        random: &dyn Random,
    ) -> Result<Option<Self>, StoreError> {
        let name = checked(name)?;
        let source = Folder::open(from)?;
        let absent = || FileError::Absent {
            path: source.path_of(&name),
        };
        if !source.has(&name) {
            // Checked before a folder is made.
            return match identity_of(to) {
                Some(found) if found == source.identity() => Ok(None),
                _ => Err(absent().into()),
            };
        }
        tighten(to).map_err(|source| FileError::Io {
            path: to.to_owned(),
            source,
        })?;
        let target = Folder::open(to)?;
        if target.identity() == source.identity() {
            return Ok(None);
        }
        kill_point("the folder is made");
        // All moves lock in the same order, so that two in opposite directions do not deadlock.
        let (first, second) = if source.identity() < target.identity() {
            (&source, &target)
        } else {
            (&target, &source)
        };
        let locks = [first.lock()?, second.lock()?];
        kill_point("the folders are locked");
        let text = source.read(&name)?.ok_or_else(absent)?;
        Content::parse(&text, &source.path_of(&name))?;
        match target.read(&name)? {
            // After a crash, the file may be there without its name being durable.
            Some(kept) if *kept == *text => target.flush()?,
            Some(_) => return Err(StoreError::Conflict),
            None => target.write(&name, &text, false, random)?,
        }
        kill_point("the folder holds the file");
        Ok(Some(Self {
            name,
            from: source,
            text,
            _locks: locks,
        }))
    }

    /// Renames the file in the old folder durably, if `named`, the folder that is used from now on, is another one and
    /// holds the same file.
    ///
    /// This blocks.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when `named` does not hold the file, or it cannot be renamed. Then nothing has changed.
    pub fn leave(&self, named: &Path, clock: &dyn Clock) -> Result<Left, StoreError> {
        let name = &self.name;
        let named = Folder::open_existing(named)?;
        if named.identity() == self.from.identity() {
            return Ok(Left::StillNamed);
        }
        for folder in [&named, &self.from] {
            let path = folder.path_of(name);
            let Some(kept) = folder.read(name)? else {
                if folder.identity() == self.from.identity() {
                    return Ok(Left::Absent);
                }
                return Err(FileError::Absent { path }.into());
            };
            Content::parse(&kept, &path)?;
            if *kept != *self.text {
                return Err(FileError::Other { path }.into());
            }
        }
        kill_point("the file was read back");
        Ok(match self.from.set_aside(name, clock)? {
            Some(path) => Left::Renamed(path),
            None => Left::Absent,
        })
    }
}

/// Copies the secret's file durably into the folder `to`, which is made with mode 0700 if it is missing. If `to` holds
/// the same file already, that counts as written. Returns the copy's path.
///
/// This blocks.
///
/// # Errors
/// [`StoreError::Conflict`] when `to` is the same folder, or holds another secret of that name; [`StoreError::Failed`]
/// with a [`FileError`] when a folder must not hold secrets, or the secret is absent.
pub fn save_secret(
    name: &str,
    from: &Path,
    to: &Path,
    random: &dyn Random,
) -> Result<PathBuf, StoreError> {
    let name = checked(name)?;
    let source = Folder::open_existing(from)?;
    let path = source.path_of(&name);
    let Some(text) = source.read(&name)? else {
        return Err(FileError::Absent { path }.into());
    };
    Content::parse(&text, &path)?;
    let target = Folder::open(to)?;
    if target.identity() == source.identity() {
        return Err(StoreError::Conflict);
    }
    let _lock = target.lock()?;
    match target.read(&name)? {
        Some(kept) if *kept == *text => target.flush()?,
        Some(_) => return Err(StoreError::Conflict),
        None => target.write(&name, &text, false, random)?,
    }
    Ok(target.path_of(&name))
}

/// Gives an empty folder mode 0700. A folder with files keeps its mode, because the files may need it.
fn tighten(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() && fs::read_dir(folder)?.next().is_none() => {
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
        }
        _ => Ok(()),
    }
}
