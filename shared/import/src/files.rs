//! Files that hold keys: bounded, and never through a symbolic link.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::{MAX_STATIC_KEY_BYTES, MAX_VALUE_BYTES, Unreadable};

/// The value of a file of KES's store: a plain file of at most a key's length. The error says why there is none.
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

/// The value of a file that holds MinIO's static key, for [`static_key`](crate::static_key) to read. Of a file that is too
/// long, enough is read to tell that it is.
///
/// # Errors
/// As the system says.
pub fn read_static_key_file(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    bounded(File::open(path)?, MAX_STATIC_KEY_BYTES)
}

/// As much as there is, and a byte more than `most` where there is more.
fn bounded(file: File, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // In one piece from the beginning: a vector that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(most + 2));
    file.take(most as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}
