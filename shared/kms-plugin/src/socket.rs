//! The Unix socket: nobody but its owner and root connects to it or replaces it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use keyway_ownership::{FILE_MODE, Unfit, check_folder_of_socket, make_folder};
use rustix::fs::{Mode, fchmod};
use tokio::net::{UnixListener, UnixSocket};

/// How many connections wait until they are accepted.
const BACKLOG: u32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Others could replace the socket.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// Another process listens there.
    #[error("{}: another process listens on it; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// A file of another kind is there.
    #[error("{}: it is not a socket; remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The system refuses it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The socket, or its folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is listened on.
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of the socket. It is removed with this.
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Two plugins that start at once could each take the other's socket for a stale one.
    _lock: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // The next start removes it.
        drop(fs::remove_file(&self.path));
    }
}

impl Socket {
    /// Listens at this path, to which only the owner and root may connect. Makes the folder if it is missing. Replaces a
    /// socket on which no process listens.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn listen(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        let folder = path.parent();
        let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let made = make_folder(folder).and_then(|()| fs::metadata(folder));
        let made = made.map_err(|source| SocketError::Io {
            path: folder.to_owned(),
            source,
        })?;
        check_folder_of_socket(folder, &made)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let socket = UnixSocket::new_stream().map_err(failed)?;
        // On Linux the file gets the mode of the socket, so that it never has a wider one.
        fchmod(&socket, Mode::from_raw_mode(FILE_MODE)).map_err(|error| failed(error.into()))?;
        socket.bind(path).map_err(failed)?;
        let file = SocketFile {
            path: path.to_owned(),
            _lock: lock,
        };
        fs::set_permissions(path, Permissions::from_mode(FILE_MODE)).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        Ok(Self { listener, file })
    }

    pub(crate) fn into_parts(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

/// The lock of this socket, in a file beside it that stays.
fn lock(path: &Path) -> Result<File, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| SocketError::Io {
        path: PathBuf::from(&name),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&name)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Removes the socket of a process that has ended.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Io {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[tokio::test]
    async fn socket_is_its_owners_and_is_removed_at_the_end() {
        let folder = folder();
        let path = folder.path().join("below/socket");
        let socket = Socket::listen(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        drop(socket);
        assert!(!path.exists());
        drop(Socket::listen(&path).unwrap());
    }

    #[tokio::test]
    async fn socket_is_replaced_only_when_nobody_listens() {
        let folder = folder();
        let path = folder.path().join("socket");
        let other = net::UnixListener::bind(&path).unwrap();
        assert!(matches!(Socket::listen(&path), Err(SocketError::InUse(_))));
        drop(other);
        assert!(path.exists());
        let socket = Socket::listen(&path).unwrap();
        assert!(matches!(Socket::listen(&path), Err(SocketError::InUse(_))));
        assert!(path.exists(), "the refused start left the socket alone");
        drop(socket);
        fs::write(&path, "text").unwrap();
        let refused = Socket::listen(&path);
        assert!(matches!(refused, Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"text");
    }

    #[tokio::test]
    async fn folder_in_which_others_write_is_refused() {
        let folder = folder();
        let path = folder.path().join("socket");
        for (mode, is_fit) in [(0o755, true), (0o775, false), (0o1777, false)] {
            fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
            let opened = Socket::listen(&path);
            assert_eq!(opened.is_ok(), is_fit, "{mode:o}");
        }
    }
}
