//! The file before SQLite opens it: it exists, it is plain, and only its owner may use it, or the group of a volume with fsGroup.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::OpenError;
use crate::watch::{BESIDE, Identity, beside};

/// SQLite gives its log and index the mode of the database, so this one decides for all three.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;
/// A folder's files get the group of the folder.
const SET_GROUP_ID: u32 = 0o2000;
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

/// Makes the folder and those above it that are missing, each flushed into the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let above = folder
        .parent()
        .filter(|above| !above.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_folder(above)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => File::open(above)?.sync_all(),
    }
}

fn make(path: &Path, folder: &Path) -> io::Result<()> {
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match OpenOptions::new()
        .write(true)
        .create_new(true)
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

/// Checks the folder; gives its group where that group may use it.
///
/// Its owner alone may use a folder, with one exception: a volume with Kubernetes's fsGroup, which is its group's (set-group-ID,
/// mode 2770) and root's or ours. The operator gave it to that group, of which this process is.
fn check_folder(path: &Path, metadata: &Metadata) -> Result<Option<u32>, OpenError> {
    let mode = metadata.mode();
    let is_volume = mode & SET_GROUP_ID != 0
        && mode & 0o070 != 0
        && mode & 0o007 == 0
        && (metadata.uid() == 0 || metadata.uid() == user())
        && is_our_group(metadata.gid());
    if is_volume {
        return Ok(Some(metadata.gid()));
    }
    check(path, metadata, FOLDER_MODE).map(|()| None)
}

/// Checks a file. On a volume, Kubernetes lets the volume's group use every file whenever it mounts it.
fn check_file(path: &Path, metadata: &Metadata, volume: Option<u32>) -> Result<(), OpenError> {
    match volume == Some(metadata.gid()) && metadata.mode() & 0o117 == 0 {
        true => check_owner(path, metadata),
        false => check(path, metadata, FILE_MODE),
    }
}

fn check(path: &Path, metadata: &Metadata, wanted: u32) -> Result<(), OpenError> {
    check_owner(path, metadata)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o777 & !wanted != 0 {
        return Err(OpenError::Loose {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    let (owner, user) = (metadata.uid(), user());
    if owner != user {
        return Err(OpenError::Owner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    Ok(())
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process is of the group. Groups that cannot be asked for are none of ours.
fn is_our_group(group: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    group == rustix::process::getegid().as_raw()
        || others.iter().any(|other| other.as_raw() == group)
}
