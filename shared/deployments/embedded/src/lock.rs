//! Locks in the data folder.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, bail};
use keyway_ownership::check_owner;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Opens a lock file, made with mode 0600 if it is missing. It is never truncated; a link and a file of another user
/// are refused.
///
/// # Errors
/// When it cannot be opened or used; the text says what to do.
pub fn lock_file(path: &Path) -> anyhow::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let shown = path.display();
    let opened = match rustix::fs::openat(CWD, path, flags, Mode::from_raw_mode(0o600)) {
        Ok(opened) => File::from(opened),
        Err(Errno::LOOP) => bail!("{shown} is a symbolic link; remove it"),
        Err(error) => return Err(error).with_context(|| shown.to_string()),
    };
    let metadata = opened.metadata().with_context(|| shown.to_string())?;
    if !metadata.is_file() {
        bail!("{shown} is not a plain file; remove it");
    }
    check_owner(path, metadata.uid())?;
    Ok(opened)
}
