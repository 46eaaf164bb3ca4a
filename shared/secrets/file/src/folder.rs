//! The folder and its files: who may use them, and writing them whole.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use keyway_domain::ports::{Random, StoreError};
use zeroize::Zeroizing;

use crate::{FileError, random_digits};

const FILE_MODE: u32 = 0o600;
pub(crate) const FOLDER_MODE: u32 = 0o700;

/// Room for the largest secret, sealed and in base64.
pub(crate) const MAX_FILE_BYTES: usize = 96 * 1024;

const LOCK_ATTEMPTS: u32 = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

pub(crate) struct Folder {
    path: PathBuf,
}

/// Held while a file is written; let go when dropped, or when the process ends in any way.
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        // Without a slash at its end, which would have a symbolic link followed.
        let path: PathBuf = path.components().collect();
        let failed = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        make_folder(&path).map_err(failed)?;
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(FileError::NotPlain {
                path,
                wanted: "folder",
            });
        }
        check(&path, &metadata, FOLDER_MODE)?;

        let folder = Self { path };
        // Whoever holds the lock now is alive, and what a dead process left can wait for the next start.
        if let Some(_lock) = folder.try_lock()? {
            folder.remove_leftovers()?;
        }
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.secret"))
    }

    /// Waits until no other writer, in this process or another, is at work.
    pub(crate) fn lock(&self) -> Result<Lock, FileError> {
        for _ in 0..LOCK_ATTEMPTS {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            thread::sleep(LOCK_PAUSE);
        }
        Err(FileError::Locked {
            path: self.lock_path(),
        })
    }

    fn try_lock(&self) -> Result<Option<Lock>, FileError> {
        let path = self.lock_path();
        let failed = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        // Opened anew each time: the lock belongs to the open file, so threads exclude each other too.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.path.join(".lock")
    }

    /// The whole file of this secret, if there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
        let path = self.path_of(name);
        let failed = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => {}
            Ok(_) => {
                return Err(FileError::NotPlain {
                    path,
                    wanted: "file",
                });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        let file = File::open(&path).map_err(failed)?;
        check(&path, &file.metadata().map_err(failed)?, FILE_MODE)?;

        // Room for all of it from the start: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 64));
        let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        file.take(limit.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(failed)?;
        if text.len() > MAX_FILE_BYTES {
            return Err(FileError::Garbled {
                path,
                what: "it is larger than any secret's file",
            });
        }
        Ok(Some(text))
    }

    /// Gives the text the secret's name, durably; a conflict if it is to be new and the name is taken.
    pub(crate) fn write(
        &self,
        name: &str,
        text: &[u8],
        replace: bool,
        random: &dyn Random,
    ) -> Result<(), StoreError> {
        let path = self.path_of(name);
        let failed = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        // No secret's name begins with a dot.
        let temporary = self.path.join(format!(
            ".{name}.{}.tmp",
            random_digits(random).map_err(FileError::from)?
        ));
        let named = write_new(&temporary, text).and_then(|()| {
            if replace {
                fs::rename(&temporary, &path)
            } else {
                fs::hard_link(&temporary, &path)
            }
        });
        // A rename that took place left nothing to remove.
        if (!replace || named.is_err())
            && let Err(error) = fs::remove_file(&temporary)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %temporary.display(), error = %error, "not removed; the next start will");
        }
        match named {
            Ok(()) => {}
            Err(error) if !replace && error.kind() == ErrorKind::AlreadyExists => {
                return Err(StoreError::Conflict);
            }
            Err(error) => return Err(failed(error).into()),
        }
        Ok(sync(&self.path).map_err(failed)?)
    }

    /// Removes what processes that died in the middle of a write left behind; the caller holds the lock.
    fn remove_leftovers(&self) -> Result<(), FileError> {
        let failed = |source| FileError::Io {
            path: self.path.clone(),
            source,
        };
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name
                .to_str()
                .is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
            {
                fs::remove_file(self.path.join(name)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Makes the folder and those above it that are missing, each flushed into the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    // A link that leads nowhere exists too, and is refused later.
    if fs::symlink_metadata(folder).is_ok() {
        return Ok(());
    }
    let above = folder
        .parent()
        .filter(|above| !above.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_folder(above)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => sync(above),
    }
}

fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn check(path: &Path, metadata: &Metadata, wanted: u32) -> Result<(), FileError> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(FileError::Owner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o777 & !wanted != 0 {
        return Err(FileError::Loose {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}
