//! Makes and checks the file before SQLite opens it: it is plain, and only its owner, or a volume's fsGroup, has access.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keyway_ownership::{FILE_MODE, check_file, check_folder, make_folder};

use crate::OpenError;
use crate::watch::{BESIDE, Identity, beside};

/// SQLite's smallest page size, in bytes.
const SMALLEST_DATABASE: u64 = 512;

/// Held while the file is made. Closing any handle of a file drops all POSIX locks of this process on it, also
/// SQLite's. So nothing in this process may open the file before the handle that made it is closed.
static MAKING: Mutex<()> = Mutex::new(());

/// Makes the file and its folder if they are missing, and checks their owners and modes. Returns the file's full path
/// and identity.
pub(crate) fn prepare(path: &Path) -> Result<(PathBuf, Identity), OpenError> {
    checked(path, Missing::IsMade)
}

/// As [`prepare`], for a file that must exist.
pub(crate) fn existing(path: &Path) -> Result<(PathBuf, Identity), OpenError> {
    checked(path, Missing::IsAnError)
}

/// What happens if the file or its folder is missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsMade,
    IsAnError,
}

fn checked(path: &Path, missing: Missing) -> Result<(PathBuf, Identity), OpenError> {
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
    if missing == Missing::IsMade {
        make_folder(folder).map_err(failed(folder))?;
    }
    // A full path is never a name with a special meaning to SQLite, such as ":memory:".
    let folder = folder.canonicalize().map_err(failed(folder))?;
    let metadata = fs::metadata(&folder).map_err(failed(&folder))?;
    let volume = check_folder(&folder, &metadata)?;

    let path = folder.join(name);
    if missing == Missing::IsMade {
        make(&path, &folder).map_err(failed(&path))?;
    }
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
    // SQLite would treat such a short file as an empty database and overwrite it.
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
        // SQLite gives its log and the log's index the same mode.
        .mode(FILE_MODE)
        .open(path)
    {
        Ok(file) => drop(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error),
    }
    // Flush this entry: SQLite flushes the folder only when it makes its log.
    File::open(folder)?.sync_all()
}
