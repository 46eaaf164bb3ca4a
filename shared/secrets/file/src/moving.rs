//! A secret's file in another folder: copied as it is, so that no passphrase is needed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyway_domain::ports::{Random, StoreError};

use crate::folder::{FOLDER_MODE, Folder, sync};
use crate::{FileError, checked};

/// Has the folder `to` hold the secret's file as `from` does. The folder is made with mode 0700 if it is missing; an
/// empty one is given that mode. Durable once it returns.
///
/// This blocks.
///
/// # Errors
/// [`StoreError::Conflict`] when `to` holds another secret of that name; [`StoreError::Failed`] with a [`FileError`]
/// when a folder is not fit to keep secrets, or the secret is absent.
pub fn copy_secret(
    name: &str,
    from: &Path,
    to: &Path,
    random: &dyn Random,
) -> Result<(), StoreError> {
    let name = checked(name)?;
    let source = Folder::open(from)?;
    let text = source.read(&name)?.ok_or_else(|| FileError::Absent {
        path: source.path_of(&name),
    })?;
    tighten(to).map_err(|source| FileError::Io {
        path: to.to_owned(),
        source,
    })?;
    let target = Folder::open(to)?;
    let _lock = target.lock()?;
    match target.read(&name)? {
        Some(kept) if *kept == *text => Ok(()),
        Some(_) => Err(StoreError::Conflict),
        None => target.write(&name, &text, false, random),
    }
}

/// Takes an empty folder away from everybody but its owner. What is in a folder that is not empty may need it as it is.
fn tighten(folder: &Path) -> io::Result<()> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_dir() && fs::read_dir(folder)?.next().is_none() => {
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE))
        }
        _ => Ok(()),
    }
}

/// Removes the secret's file from the folder; one that is absent counts as removed.
///
/// This blocks.
///
/// # Errors
/// [`StoreError::Failed`] when it cannot be removed.
pub fn remove_secret(name: &str, folder: &Path) -> Result<(), StoreError> {
    let name = checked(name)?;
    let folder = Folder::open(folder)?;
    let _lock = folder.lock()?;
    let path = folder.path_of(&name);
    let removed = match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync(folder.path()),
    };
    Ok(removed.map_err(|source| FileError::Io { path, source })?)
}
