//! Checks that the open files still have the table's paths.
//!
//! A process that has a file open can go on using it after it was deleted or replaced, but what it writes is lost.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use keyway_domain::ports::StoreError;

use crate::OpenError;

/// The suffixes of the table's write-ahead log and of that log's index.
pub(crate) const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Identifies a file, whichever path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

pub(crate) struct Watch {
    path: PathBuf,
    /// The table's file and those beside it.
    files: Vec<(PathBuf, Identity)>,
    told: AtomicBool,
}

enum Found {
    Same,
    Nothing,
    Another,
}

impl Watch {
    /// Watches the table's file, which had the identity `before` when it was opened, and SQLite's files beside it.
    pub(crate) fn start(path: &Path, before: Identity) -> Result<Self, OpenError> {
        let mut files = vec![(path.to_owned(), before)];
        for ending in BESIDE {
            let path = beside(path, ending);
            match fs::symlink_metadata(&path) {
                Ok(metadata) => files.push((path, Identity::of(&metadata))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(OpenError::Io { path, source }),
            }
        }
        let watch = Self {
            path: path.to_owned(),
            files,
            told: AtomicBool::new(false),
        };
        match watch.first_gone(watch.files.len()) {
            None => Ok(watch),
            Some((path, _)) => Err(OpenError::Io {
                path: path.to_owned(),
                source: io::Error::other("it was replaced while it was opened; start again"),
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails if the table or its log is not the opened file. It succeeds again once the file is put back.
    pub(crate) fn check_for_read(&self) -> Result<(), StoreError> {
        self.check_first(2)
    }

    /// As [`Watch::check_for_read`], and checks the log's index as well.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.check_first(self.files.len())
    }

    fn check_first(&self, files: usize) -> Result<(), StoreError> {
        let Some((path, found)) = self.first_gone(files) else {
            if self.told.load(Ordering::Relaxed) && self.told.swap(false, Ordering::Relaxed) {
                tracing::warn!("the table's files are back where they were");
            }
            return Ok(());
        };
        let done = match found {
            Found::Another => "was replaced",
            Found::Nothing | Found::Same => "was deleted or moved",
        };
        let text = format!(
            "{} {done} while this process had it open; put it back, or restart this process",
            path.display()
        );
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!("no request is served from the table: {text}");
        }
        Err(StoreError::Away(text))
    }

    /// Whether SQLite may close its files. Closing removes the log by its path, which may be another table's by now.
    pub(crate) fn may_close(&self) -> bool {
        self.files
            .iter()
            .enumerate()
            .all(|(position, (path, opened))| match found(path, *opened) {
                Found::Same => true,
                // A deleted log can still be checkpointed into the table.
                Found::Nothing => position > 0,
                Found::Another => false,
            })
    }

    fn first_gone(&self, files: usize) -> Option<(&Path, Found)> {
        self.files
            .iter()
            .take(files)
            .map(|(path, opened)| (path.as_path(), found(path, *opened)))
            .find(|(_, found)| !matches!(found, Found::Same))
    }
}

/// The path of a file that SQLite keeps beside the table.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

fn found(path: &Path, opened: Identity) -> Found {
    match fs::symlink_metadata(path) {
        Ok(metadata) if Identity::of(&metadata) == opened => Found::Same,
        Ok(_) => Found::Another,
        Err(_) => Found::Nothing,
    }
}
