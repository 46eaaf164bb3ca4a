//! Checks that only the owner has access to the files and folders of the table and of secrets, or also the group of a
//! volume with Kubernetes's fsGroup.

use std::fs::{self, DirBuilder, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The mode of new files.
pub const FILE_MODE: u32 = 0o600;
/// The mode of new folders.
pub const FOLDER_MODE: u32 = 0o700;
/// The set-group-ID bit: a folder's new files get the group of the folder.
const SET_GROUP_ID: u32 = 0o2000;

/// Other users have access to a file or folder. The texts are for the operator: they name it and what to run.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// Other users than the owner have access to it.
    #[error(
        "{} has mode {mode:04o}: others than its owner may use it; run: chmod {wanted:03o} '{}'",
        path.display(), path.display()
    )]
    Loose {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode that it should have.
        wanted: u32,
    },
    /// Other users than the owner may replace the files in it.
    #[error(
        "{} has mode {mode:04o}: others than its owner may write to it; run: chmod 755 '{}'",
        path.display(), path.display()
    )]
    Writable {
        /// The folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another user owns it.
    #[error(
        "{} belongs to user {owner} and this process runs as user {user}; run: chown {user} '{}'",
        path.display(), path.display()
    )]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
        /// The number of the user that runs this process.
        user: u32,
    },
}

/// The group of a volume with fsGroup, which has access to the volume's folders and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    group: u32,
}

/// The owner, the group and the mode of a file or folder.
#[derive(Debug, Clone, Copy)]
pub struct Owned {
    /// The owner's user ID.
    pub owner: u32,
    /// The group's ID.
    pub group: u32,
    /// The mode. It may include the bits of the file's type.
    pub mode: u32,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Self {
            owner: metadata.uid(),
            group: metadata.gid(),
            mode: metadata.mode(),
        }
    }
}

/// Checks a folder, and returns the volume if its group may have access.
///
/// Only the owner may have access to a folder, except on a volume with Kubernetes's fsGroup. Such a folder has the
/// set-group-ID bit (mode 2770), belongs to root or to our user, and the operator gave it to a group of this process.
///
/// # Errors
/// [`Unfit`].
pub fn check_folder(path: &Path, folder: impl Into<Owned>) -> Result<Option<Volume>, Unfit> {
    let folder = folder.into();
    let Owned { owner, group, mode } = folder;
    let is_volume = mode & SET_GROUP_ID != 0
        && mode & 0o070 != 0
        && mode & 0o007 == 0
        && (owner == 0 || owner == user())
        && is_our_group(group);
    if is_volume {
        return Ok(Some(Volume { group }));
    }
    check(path, folder, FOLDER_MODE).map(|()| None)
}

/// Checks the folder of a Unix socket. Others may look into it, because the socket has a mode of its own. Only root and
/// this process's user may replace the socket.
///
/// # Errors
/// [`Unfit`].
pub fn check_folder_of_socket(path: &Path, folder: impl Into<Owned>) -> Result<(), Unfit> {
    let Owned { owner, mode, .. } = folder.into();
    if owner != 0 {
        check_owner(path, owner)?;
    }
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(Unfit::Writable {
            path: path.to_owned(),
            mode: mode & 0o7777,
        }),
    }
}

/// Checks a file in a folder that [`check_folder`] has checked. Whenever Kubernetes mounts a volume, it gives the group
/// access to all files, so that is allowed.
///
/// # Errors
/// [`Unfit`].
pub fn check_file(
    path: &Path,
    file: impl Into<Owned>,
    volume: Option<Volume>,
) -> Result<(), Unfit> {
    let file = file.into();
    let is_of_volume = volume.is_some_and(|volume| volume.group == file.group);
    match is_of_volume && file.mode & 0o117 == 0 {
        true => check_owner(path, file.owner),
        false => check(path, file, FILE_MODE),
    }
}

fn check(path: &Path, found: Owned, wanted: u32) -> Result<(), Unfit> {
    check_owner(path, found.owner)?;
    let mode = found.mode & 0o7777;
    if mode & 0o777 & !wanted != 0 {
        return Err(Unfit::Loose {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

/// Checks that this process's user is the owner.
///
/// # Errors
/// [`Unfit::Owner`].
pub fn check_owner(path: &Path, owner: u32) -> Result<(), Unfit> {
    let user = user();
    if owner != user {
        return Err(Unfit::Owner {
            path: path.to_owned(),
            owner,
            user,
        });
    }
    Ok(())
}

/// Makes a folder and its missing parents, and flushes each parent.
///
/// # Errors
/// When one of them cannot be made or flushed.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    // A dangling link exists too, and is refused later.
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
        _ => File::open(above)?.sync_all(),
    }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Whether this process is in the group. If the system does not list our groups, we have none but the effective one.
fn is_our_group(group: u32) -> bool {
    let others = rustix::process::getgroups().unwrap_or_default();
    group == rustix::process::getegid().as_raw()
        || others.iter().any(|other| other.as_raw() == group)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(owner: u32, group: u32, mode: u32) -> Owned {
        Owned { owner, group, mode }
    }

    #[test]
    fn folder_is_its_owners_or_the_groups_of_a_volume() {
        let (path, ours, group) = (Path::new("/x"), user(), rustix::process::getegid().as_raw());
        for (folder, fit) in [
            (of(ours, group, 0o40_700), true),
            (of(ours, group, 0o40_500), true),
            (of(ours, group, 0o40_750), false),
            (of(ours, group, 0o42_770), true),
            (of(ours, group, 0o42_771), false),
            (of(ours, 54_321, 0o42_770), false),
            (of(12_345, group, 0o40_700), false),
            (of(12_345, group, 0o42_770), false),
        ] {
            assert_eq!(check_folder(path, folder).is_ok(), fit, "{folder:?}");
        }
        let volume = check_folder(path, of(ours, group, 0o42_770)).unwrap();
        assert_eq!(volume, Some(Volume { group }));
        assert_eq!(check_folder(path, of(ours, group, 0o40_700)).unwrap(), None);
    }

    #[test]
    fn file_is_its_owners_and_on_a_volume_its_groups() {
        let (path, ours) = (Path::new("/x"), user());
        let volume = Some(Volume { group: 7 });
        for (file, volume, fit) in [
            (of(ours, 7, 0o100_600), None, true),
            (of(ours, 7, 0o100_400), None, true),
            (of(ours, 7, 0o100_660), None, false),
            (of(ours, 7, 0o100_660), volume, true),
            (of(ours, 8, 0o100_660), volume, false),
            (of(ours, 7, 0o100_664), volume, false),
            (of(ours, 7, 0o100_670), volume, false),
            (of(12_345, 7, 0o100_660), volume, false),
            (of(12_345, 7, 0o100_600), None, false),
        ] {
            assert_eq!(check_file(path, file, volume).is_ok(), fit, "{file:?}");
        }
        let text = check_file(path, of(ours, 7, 0o100_640), None).unwrap_err();
        assert_eq!(
            text.to_string(),
            "/x has mode 0640: others than its owner may use it; run: chmod 600 '/x'"
        );
    }

    #[test]
    fn folder_of_a_socket_is_written_by_its_owner_alone() {
        let (path, ours) = (Path::new("/x"), user());
        for (folder, fit) in [
            (of(ours, 7, 0o40_700), true),
            (of(ours, 7, 0o40_755), true),
            (of(0, 7, 0o40_755), true),
            (of(ours, 7, 0o40_775), false),
            (of(ours, 7, 0o41_777), false),
            (of(12_345, 7, 0o40_755), false),
        ] {
            let found = check_folder_of_socket(path, folder);
            assert_eq!(found.is_ok(), fit, "{folder:?}");
        }
    }

    #[test]
    fn folders_are_made_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("a/b");
        make_folder(&below).unwrap();
        make_folder(&below).unwrap();
        for made in [&below, &folder.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o7777, FOLDER_MODE);
        }
    }
}
