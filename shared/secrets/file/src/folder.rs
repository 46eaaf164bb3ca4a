//! The folder and its files: checks of their owners and modes, and writes of whole files.
//!
//! A folder is opened once, and its files are opened relative to it, so that a folder that is put in its place later
//! is not used.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use keyway_domain::ports::{Clock, Random, StoreError};
use keyway_ownership::{FILE_MODE, Owned, Volume, check_file, check_folder, make_folder};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::{FileError, random_digits};

/// The largest file, in bytes. It has room for the largest secret, sealed and in base64.
pub(crate) const MAX_FILE_BYTES: usize = 96 * 1024;

const LOCK: &str = ".lock";
const LOCK_ATTEMPTS: u32 = 1_000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How many files of one name may be set aside within one second.
const ASIDE_ATTEMPTS: u32 = 100;

pub(crate) struct Folder {
    path: PathBuf,
    opened: File,
    identity: Identity,
    /// Set where the group may use the folder and its files.
    volume: Option<Volume>,
}

/// Identifies a folder, whichever path names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// The lock for writing. It is released when this is dropped, or when the process ends in any way.
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// Opens the folder, and makes it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let path = plain(path);
        make_folder(&path).map_err(|source| FileError::Io {
            path: path.clone(),
            source,
        })?;
        Self::open_plain(path)
    }

    /// Opens a folder that exists.
    pub(crate) fn open_existing(path: &Path) -> Result<Self, FileError> {
        Self::open_plain(plain(path))
    }

    /// Opens a folder that exists, and changes nothing in it.
    pub(crate) fn inspect(path: &Path) -> Result<Self, FileError> {
        Self::open_checked(plain(path))
    }

    fn open_plain(path: PathBuf) -> Result<Self, FileError> {
        let folder = Self::open_checked(path)?;
        // If another process holds the lock, leftovers can wait for the next start.
        if let Some(_lock) = folder.try_lock()? {
            folder.remove_leftovers()?;
        }
        Ok(folder)
    }

    fn open_checked(path: PathBuf) -> Result<Self, FileError> {
        let failed = |source| FileError::Io {
            path: path.clone(),
            source,
        };
        let not_plain = || FileError::NotPlain {
            path: path.clone(),
            wanted: "folder",
        };
        // Check the owner first: opening another user's folder would only fail with "permission denied".
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        if !metadata.is_dir() {
            return Err(not_plain());
        }
        check_folder(&path, &metadata)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(not_plain()),
            Err(error) => return Err(failed(error.into())),
        };
        let metadata = opened.metadata().map_err(failed)?;
        let volume = check_folder(&path, &metadata)?;
        let identity = Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
        };
        Ok(Self {
            path,
            opened,
            identity,
            volume,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(file_of(name))
    }

    /// Waits until no other writer, in this process or another, holds the lock.
    pub(crate) fn lock(&self) -> Result<Lock, FileError> {
        for _ in 0..LOCK_ATTEMPTS {
            if let Some(lock) = self.try_lock()? {
                return Ok(lock);
            }
            thread::sleep(LOCK_PAUSE);
        }
        Err(FileError::Locked {
            path: self.path.join(LOCK),
        })
    }

    fn try_lock(&self) -> Result<Option<Lock>, FileError> {
        // Open the file each time: the lock belongs to the open file, so it excludes other threads too.
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK;
        let file = self.open_file(LOCK, flags)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(self.failed(LOCK, source)),
        }
    }

    /// Opens a plain file of the folder and checks its owner and mode. It never truncates it and follows no link.
    fn open_file(&self, file: &str, flags: OFlags) -> Result<File, FileError> {
        let mode = Mode::from_raw_mode(FILE_MODE);
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = || self.path.join(file);
        let not_plain = || FileError::NotPlain {
            path: path(),
            wanted: "file",
        };
        let opened = match rustix::fs::openat(&self.opened, file, flags, mode) {
            Ok(opened) => File::from(opened),
            Err(Errno::LOOP) => return Err(not_plain()),
            Err(error) => return Err(self.failed(file, error.into())),
        };
        let metadata = opened
            .metadata()
            .map_err(|source| self.failed(file, source))?;
        if !metadata.is_file() {
            return Err(not_plain());
        }
        check_file(&path(), &metadata, self.volume)?;
        Ok(opened)
    }

    fn failed(&self, file: &str, source: io::Error) -> FileError {
        FileError::Io {
            path: self.path.join(file),
            source,
        }
    }

    /// Whether anything, such as a link, has the name of this secret's file.
    pub(crate) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.opened, file_of(name), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The whole file of this secret, if there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
        let file = file_of(name);
        let path = self.path.join(&file);
        match rustix::fs::statat(&self.opened, &file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => {
                if !rustix::fs::FileType::from_raw_mode(found.st_mode).is_file() {
                    return Err(FileError::NotPlain {
                        path,
                        wanted: "file",
                    });
                }
                #[cfg_attr(
                    target_os = "linux",
                    expect(clippy::useless_conversion, reason = "16 bits on macOS")
                )]
                let mode = found.st_mode.into();
                let found = Owned {
                    owner: found.st_uid,
                    group: found.st_gid,
                    mode,
                };
                check_file(&path, found, self.volume)?;
            }
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed(&file, error.into())),
        }
        let opened = self.open_file(&file, OFlags::RDONLY | OFlags::NONBLOCK)?;

        // Reserve enough at once: a buffer that grows leaves copies of the secret behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES + 64));
        let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        opened
            .take(limit.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(|source| self.failed(&file, source))?;
        if text.len() > MAX_FILE_BYTES {
            return Err(FileError::Garbled {
                path,
                what: "it is larger than any secret's file",
            });
        }
        Ok(Some(text))
    }

    /// Writes the secret's file durably. It is a conflict if the file exists and is not to be replaced.
    pub(crate) fn write(
        &self,
        name: &str,
        text: &[u8],
        replace: bool,
        random: &dyn Random,
    ) -> Result<(), StoreError> {
        let file = file_of(name);
        // Secrets' names never begin with a dot.
        let temporary = format!(
            ".{name}.{}.tmp",
            random_digits(random).map_err(FileError::from)?
        );
        let folder = &self.opened;
        let named = self.write_new(&temporary, text).and_then(|()| {
            kill_point("the temporary file is written");
            if replace {
                rustix::fs::renameat(folder, &temporary, folder, &file)?;
            } else {
                rustix::fs::linkat(folder, &temporary, folder, &file, AtFlags::empty())?;
            }
            kill_point("the file has its name");
            Ok(())
        });
        // After a successful rename there is no temporary file to remove.
        if (!replace || named.is_err())
            && let Err(error) = rustix::fs::unlinkat(folder, &temporary, AtFlags::empty())
            && error != Errno::NOENT
        {
            let path = self.path.join(&temporary);
            tracing::warn!(path = %path.display(), error = %error, "not removed; the next start will");
        }
        match named {
            Ok(()) => {}
            Err(error) if !replace && error.kind() == ErrorKind::AlreadyExists => {
                return Err(StoreError::Conflict);
            }
            Err(error) => return Err(self.failed(&file, error).into()),
        }
        kill_point("the temporary file is removed");
        Ok(self.flush()?)
    }

    fn write_new(&self, file: &str, text: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(FILE_MODE);
        let mut file = File::from(rustix::fs::openat(&self.opened, file, flags, mode)?);
        file.write_all(text)?;
        file.sync_all()
    }

    /// Makes the folder's entries durable.
    pub(crate) fn flush(&self) -> Result<(), FileError> {
        self.opened.sync_all().map_err(|source| FileError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// Renames the secret's file durably to a name that no store reads, and never over another file. The caller holds
    /// the lock. Returns the new path, or `None` if there is no such file.
    pub(crate) fn set_aside(
        &self,
        name: &str,
        clock: &dyn Clock,
    ) -> Result<Option<PathBuf>, FileError> {
        let (file, folder) = (file_of(name), &self.opened);
        let stamp = clock.now().strftime("%Y%m%dT%H%M%SZ");
        for attempt in 0..ASIDE_ATTEMPTS {
            let aside = match attempt {
                0 => format!("{file}{MOVED}{stamp}"),
                attempt => format!("{file}{MOVED}{stamp}-{attempt}"),
            };
            let renamed =
                rustix::fs::renameat_with(folder, &file, folder, &aside, RenameFlags::NOREPLACE);
            let renamed = match renamed {
                // The file system has no rename without replacing. The lock keeps others from using such a name.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
                    if matches!(
                        rustix::fs::statat(folder, &aside, AtFlags::SYMLINK_NOFOLLOW),
                        Err(Errno::NOENT)
                    ) =>
                {
                    rustix::fs::renameat(folder, &file, folder, &aside)
                }
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Err(Errno::EXIST),
                renamed => renamed,
            };
            match renamed {
                Ok(()) => {
                    kill_point("the file is renamed");
                    self.flush()?;
                    return Ok(Some(self.path.join(aside)));
                }
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(self.failed(&file, error.into())),
            }
        }
        Err(self.failed(&file, Errno::EXIST.into()))
    }

    /// A file that [`Folder::set_aside`] renamed, if there is one for this secret.
    pub(crate) fn aside(&self, name: &str) -> Result<Option<PathBuf>, FileError> {
        let begins = format!("{}{MOVED}", file_of(name));
        let failed = |source| FileError::Io {
            path: self.path.clone(),
            source,
        };
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let found = entry.map_err(failed)?.file_name();
            if found
                .to_str()
                .is_some_and(|found| found.starts_with(&begins))
            {
                return Ok(Some(self.path.join(found)));
            }
        }
        Ok(None)
    }

    /// Removes the temporary files of processes that died during a write. The caller holds the lock.
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
                match rustix::fs::unlinkat(&self.opened, &name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error.into())),
                }
            }
        }
        Ok(())
    }
}

/// Stands between a file's name and the time when it was set aside.
const MOVED: &str = ".moved-";

fn file_of(name: &str) -> String {
    format!("{name}.secret")
}

/// The path without a slash at its end, because a slash makes the system follow a symbolic link.
fn plain(path: &Path) -> PathBuf {
    path.components().collect()
}

/// The identity of what the path names; follows links. `None` if there is nothing.
pub(crate) fn identity_of(path: &Path) -> Option<Identity> {
    let metadata = fs::metadata(path).ok()?;
    Some(Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

/// Marks a point between two steps where tests kill the process.
#[cfg(not(test))]
pub(crate) const fn kill_point(_: &'static str) {}
#[cfg(test)]
pub(crate) use crate::tests::kill_point;
