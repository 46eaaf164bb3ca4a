//! Reads files that hold keys, with a limit on their length.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::{MAX_STATIC_KEY_BYTES, MAX_VALUE_BYTES, Unreadable};

/// Reads a file of KES's store. It must be a plain file, not a link, and at most [`MAX_VALUE_BYTES`] long.
pub(crate) fn read_key_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |error: io::Error| format!("it cannot be read: {error}");
    let seen = fs::symlink_metadata(path).map_err(cannot)?;
    if !seen.is_file() {
        return Err(if seen.is_symlink() {
            "it is a symbolic link, which is not followed".to_owned()
        } else {
            "it is not a file".to_owned()
        });
    }
    if seen.len() > MAX_VALUE_BYTES as u64 {
        return Err(Unreadable::TooLong.to_string());
    }
    let file = File::open(path).map_err(cannot)?;
    let opened = file.metadata().map_err(cannot)?;
    if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err("it was replaced while it was read".to_owned());
    }
    bounded(file, MAX_VALUE_BYTES).map_err(cannot)
}

/// Reads a file with MinIO's static key, for [`static_key`](crate::static_key) to parse. If the file is too long, the
/// result is one byte longer than [`MAX_STATIC_KEY_BYTES`].
///
/// # Errors
/// The system's error.
pub fn read_static_key_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    bounded(File::open(path)?, MAX_STATIC_KEY_BYTES)
}

/// The file's content, or its first `most + 1` bytes if it is longer than `most`.
fn bounded(file: File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserve enough at once: a buffer that grows leaves copies of the key behind.
    let mut value = Zeroizing::new(Vec::with_capacity(most + 2));
    file.take(most as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}
