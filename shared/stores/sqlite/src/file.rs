//! The file before SQLite opens it: it exists, it is plain, and only its owner may use it, or the group of a volume with fsGroup.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keyway_ownership::{FILE_MODE, check_file, check_folder, make_folder};

use crate::OpenError;
use crate::watch::{BESIDE, Identity, beside};

/// One page of the smallest size that SQLite knows.
const SMALLEST_DATABASE: u64 = 512;

/// Held while the file is made. Closing any handle of a file drops this process's POSIX locks on it,
/// SQLite's included, so nobody in this process may open the file before the handle that made it closed.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes the file and its folder if they are missing and checks their owners and modes; gives the file's full path, and
/// which file it is.
pub(crate) fn prepare(path: &Path) -> Result<(PathBuf, Identity), OpenError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let name = path.file_name().ok_or_else(|| OpenError::NotAFile {
        path: path.to_owned(),
    })?;
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_folder(folder).map_err(failed(folder))?;
    // A full path is never one of the names that mean something else to SQLite, such as ":memory:".
    let folder = folder.canonicalize().map_err(failed(folder))?;
    let metadata = fs::metadata(&folder).map_err(failed(&folder))?;
    let volume = check_folder(&folder, &metadata)?;

    let path = folder.join(name);
    make(&path, &folder).map_err(failed(&path))?;
    let metadata = fs::symlink_metadata(&path).map_err(failed(&path))?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile { path });
    }
    check_file(&path, &metadata, volume)?;
    for ending in BESIDE {
        let beside = beside(&path, ending);
        match fs::symlink_metadata(&beside) {
            Ok(metadata) if metadata.is_file() => check_file(&beside, &metadata, volume)?,
            Ok(_) => return Err(OpenError::NotAFile { path: beside }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&beside)(error)),
        }
    }
    // SQLite would take so short a file for an empty database and overwrite it.
    if (1..SMALLEST_DATABASE).contains(&metadata.len()) {
        return Err(OpenError::NotOurs { path });
    }
    Ok((path, Identity::of(&metadata)))
}

fn make(path: &Path, folder: &Path) -> io::Result<()> {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        // SQLite gives its log and index the mode of the database, so this one decides for all three.
        .mode(FILE_MODE)
        .open(path)
    {
        Ok(file) => drop(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    // SQLite flushes the folder when it makes its log, but this entry is ours.
    File::open(folder)?.sync_all()
}
