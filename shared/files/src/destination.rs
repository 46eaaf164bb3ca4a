//! Outputs that have their name only when they are complete.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that is written under a temporary name in the folder of its final name, with mode 0600. Dropping it removes it.
pub struct NewFile {
    temporary: NamedTempFile,
    path: PathBuf,
    replace: bool,
}

impl NewFile {
    /// Makes the temporary file. With `replace`, a plain file may have the final name already.
    ///
    /// # Errors
    /// [`DestinationError`] if the name is taken, or the folder cannot be written.
    pub fn create(path: &Path, replace: bool) -> Result<Self, DestinationError> {
        match path.symlink_metadata() {
            // A device or link would be lost under the new file.
            Ok(found) if !found.is_file() => return Err(DestinationError::NotPlain),
            Ok(_) if !replace => return Err(DestinationError::Exists),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(DestinationError::Io(error)),
        }
        if path.file_name().is_none() {
            return Err(DestinationError::NotPlain);
        }
        let temporary = tempfile::Builder::new()
            .prefix(".keyway-")
            .suffix(".tmp")
            .rand_bytes(12)
            .tempfile_in(folder(path))?;
        Ok(Self {
            temporary,
            path: path.to_owned(),
            replace,
        })
    }

    /// The file to write to.
    ///
    /// # Errors
    /// The system's error.
    pub fn writer(&self) -> io::Result<File> {
        self.temporary.as_file().try_clone()
    }

    /// Gives the file its name, durably.
    ///
    /// # Errors
    /// [`DestinationError`]; the file is then removed, unless only the folder could not be made durable.
    pub fn finish(self) -> Result<(), DestinationError> {
        self.temporary.as_file().sync_all()?;
        let named = if self.replace {
            self.temporary.persist(&self.path)
        } else {
            self.temporary.persist_noclobber(&self.path)
        };
        named.map_err(|failed| match failed.error.kind() {
            ErrorKind::AlreadyExists => DestinationError::Exists,
            _ => DestinationError::Io(failed.error),
        })?;
        Ok(File::open(folder(&self.path))?.sync_all()?)
    }
}

/// Why an output cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum DestinationError {
    /// A file has this name.
    #[error("it exists; --force replaces it")]
    Exists,
    /// A folder, link or device has this name.
    #[error("it is not a plain file")]
    NotPlain,
    /// The system refuses.
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
}

/// Whether both are one file, perhaps under two names.
#[must_use]
pub fn is_same_file(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// The folder of a path.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}
