//! Reads small files, some of which hold secrets.
//!
//! **Invariant:** no error repeats what a file holds.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use keyway_ownership::check_file;
use zeroize::Zeroizing;

use crate::Error;

/// The longest file in bytes, longer than any list of certificate authorities.
const LONGEST: u64 = 4 << 20;

pub(crate) struct Opened {
    file: File,
    name: String,
}

impl Opened {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Ok(Self { file, name }),
            Err(error) => Err(Error::Settings(format!("{name}: {error}"))),
        }
    }

    /// Refuses a file that others than its owner may read.
    pub(crate) fn must_be_private(&self) -> Result<(), Error> {
        let metadata = self.file.metadata();
        let metadata = metadata.map_err(|error| self.unusable(&error.to_string()))?;
        check_file(Path::new(&self.name), &metadata, None)
            .map_err(|unfit| Error::Settings(format!("it holds a secret: {unfit}")))
    }

    pub(crate) fn text(&mut self) -> Result<Zeroizing<String>, Error> {
        let length = self.file.metadata().map_or(0, |found| found.len());
        if length > LONGEST {
            return Err(self.unusable("is longer than 4 MiB"));
        }
        // One byte more: reading to the end of a full buffer would make it grow, and leave a copy behind.
        let room = usize::try_from(length).unwrap_or_default().max(4096) + 1;
        let mut text = Zeroizing::new(String::with_capacity(room));
        let read = (&mut self.file).take(LONGEST).read_to_string(&mut text);
        read.map_err(|error| self.unusable(&error.to_string()))?;
        Ok(text)
    }

    fn unusable(&self, why: &str) -> Error {
        Error::Settings(format!("{}: {why}", self.name))
    }
}

/// The text of a file that holds a secret and that only its owner may read, without the line break at its end.
///
/// # Errors
/// [`Error::Settings`] when the file cannot be used.
pub fn secret(path: &Path) -> Result<Zeroizing<String>, Error> {
    let mut file = Opened::open(path)?;
    file.must_be_private()?;
    let text = file.text()?;
    let trimmed = text.trim_end_matches(['\r', '\n']);
    if trimmed.is_empty() {
        return Err(file.unusable("is empty, and should hold a secret"));
    }
    Ok(Zeroizing::new(trimmed.to_owned()))
}
