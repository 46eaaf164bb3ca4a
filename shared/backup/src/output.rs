//! Where a bundle is written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

/// Takes a bundle's bytes. What it writes has the final name only after [`Output::finish`].
#[async_trait]
pub trait Output: Send {
    /// Writes the next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything durable under the final name.
    ///
    /// # Errors
    /// When that fails. There is nothing under the final name then.
    async fn finish(&mut self) -> io::Result<()>;

    /// Removes what was written.
    async fn abandon(&mut self);
}

/// A file of mode 0600. It has a temporary name beside its own until it is complete.
pub struct FileOutput {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl FileOutput {
    /// Makes the temporary file. `drawn` are random bytes for its name.
    ///
    /// # Errors
    /// When there is a file of the final name, or the temporary one cannot be made.
    pub fn create(path: &Path, drawn: [u8; 8]) -> io::Result<Self> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}.part", hex::encode(drawn)));
        let temporary = path.with_file_name(temporary);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: BufWriter::with_capacity(1 << 18, file),
        })
    }

    fn folder(&self) -> &Path {
        let parent = self.path.parent();
        parent
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."))
    }
}

#[async_trait]
impl Output for FileOutput {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        // A hard link, unlike a rename, never replaces a file that another process has made meanwhile.
        match fs::hard_link(&self.temporary, &self.path) {
            Ok(()) => fs::remove_file(&self.temporary)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
            // Some file systems have no hard links.
            Err(_) => fs::rename(&self.temporary, &self.path)?,
        }
        File::open(self.folder())?.sync_all()
    }

    async fn abandon(&mut self) {
        // The file may be gone already, and the error that led here is the one to be told.
        fs::remove_file(&self.temporary).ok();
    }
}
