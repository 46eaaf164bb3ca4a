//! The output, in which an earlier run may have written lines already.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use keyway_domain::keys::KeyId;

use crate::line::{Ciphertext, Earlier, MAX_LINE_BYTES, Reencrypted};

/// Where the lines go.
pub struct Output {
    sink: Sink,
    already: Arc<Already>,
}

enum Sink {
    File(File),
    Stream(Box<dyn Write + Send>),
}

/// The ciphertexts that the output has.
#[derive(Default)]
pub(crate) struct Already(Mutex<HashSet<[u8; 32]>>);

impl Already {
    pub(crate) fn has(&self, ciphertext: &Ciphertext) -> bool {
        self.digests().contains(&ciphertext.digest())
    }

    fn digests(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why an output cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Another run writes to the file.
    #[error("another run writes to it")]
    Locked,
    /// The file has something else in it. It was not changed.
    #[error("line {0} is none that this command writes; name another file")]
    Foreign(u64),
    /// The file has ciphertexts of another key. It was not changed.
    #[error("it has ciphertexts of the key {0}; name another file")]
    OtherKey(String),
}

impl Output {
    /// A stream, which no later run can go on with.
    pub fn stream(stream: impl Write + Send + 'static) -> Self {
        Self {
            sink: Sink::Stream(Box::new(stream)),
            already: Arc::default(),
        }
    }

    /// The file at `path`, which is made if it is missing. Its lines are what was done already for `key`. A last line that
    /// was not written to its end is removed. The file is locked until this is dropped.
    ///
    /// # Errors
    /// [`OutputError`]; then the file is as it was.
    pub fn file(path: &Path, key: &KeyId) -> Result<Self, OutputError> {
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::Locked),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        let (digests, end) = read_earlier(&file, key)?;
        file.set_len(end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok(Self {
            sink: Sink::File(file),
            already: Arc::new(Already(Mutex::new(digests))),
        })
    }

    pub(crate) fn already(&self) -> Arc<Already> {
        Arc::clone(&self.already)
    }

    /// Writes a line. A ciphertext that the input has twice is written twice only if both were in progress at once.
    pub(crate) fn write(&mut self, line: &Reencrypted) -> Result<(), OutputError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from)?;
        text.push(b'\n');
        match &mut self.sink {
            Sink::File(file) => file.write_all(&text)?,
            Sink::Stream(stream) => {
                stream.write_all(&text)?;
                stream.flush()?;
            }
        }
        self.already.digests().insert(line.digest());
        Ok(())
    }

    /// Makes the file's lines durable.
    pub(crate) fn finish(&mut self) -> Result<(), OutputError> {
        match &mut self.sink {
            Sink::File(file) => file.sync_all()?,
            Sink::Stream(stream) => stream.flush()?,
        }
        Ok(())
    }
}

/// How each line begins.
const BEGINNING: &[u8] = br#"{"source":""#;

/// The ciphertexts that the file has, and the length of its whole lines.
fn read_earlier(file: &File, key: &KeyId) -> Result<(HashSet<[u8; 32]>, u64), OutputError> {
    let mut reader = BufReader::new(file);
    let (mut digests, mut end, mut number, mut line) = (HashSet::new(), 0, 0, Vec::new());
    // A line of the output holds two ciphertexts.
    let limit = 2 * MAX_LINE_BYTES as u64;
    loop {
        line.clear();
        let length = io::Read::take(&mut reader, limit).read_until(b'\n', &mut line)?;
        number += 1;
        if !line.ends_with(b"\n") {
            // The end of the file, or a line that a run did not write to its end.
            let is_torn = BEGINNING.starts_with(&line) || line.starts_with(BEGINNING);
            return if is_torn && (length as u64) < limit {
                Ok((digests, end))
            } else {
                Err(OutputError::Foreign(number))
            };
        }
        let earlier: Earlier =
            serde_json::from_slice(&line).map_err(|_| OutputError::Foreign(number))?;
        if earlier.key_id != key.as_str() {
            return Err(OutputError::OtherKey(earlier.key_id));
        }
        digests.insert(earlier.digest().ok_or(OutputError::Foreign(number))?);
        end += length as u64;
    }
}
