//! Encrypts and decrypts a stream in chunks. Memory holds two chunks at a time, whatever the length of the file.

use std::io::{self, ErrorKind, Read, Write};
use std::mem;

use keyway_crypto::{CHUNK_TAG_BYTES, Key256, STREAM_COMMITMENT_BYTES, StreamError, StreamKeys};
use zeroize::Zeroizing;

use crate::header::{CHUNK_BYTES, Header, HeaderError};

/// Encrypts everything that `input` has, and writes the file to `output`. `progress` learns the plaintext bytes that are
/// done.
///
/// # Errors
/// [`FileError`]; `output` may then have a part of a file, which never decrypts without an error.
pub fn encrypt(
    header: &Header,
    data_key: &Key256,
    input: &mut dyn Read,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FileError> {
    let keys = StreamKeys::derive(data_key, header.salt(), header.encoded())?;
    write(output, header.encoded())?;
    write(output, &keys.commitment())?;
    let mut sealer = keys.sealer();
    let mut chunks = Chunks::of(input, CHUNK_BYTES)?;
    let mut done = 0;
    while chunks.advance()? {
        let length = chunks.current.len();
        sealer.seal_next(&mut chunks.current)?;
        write(output, &chunks.current)?;
        done += length as u64;
        progress(done);
    }
    let length = chunks.current.len();
    sealer.seal_last(&mut chunks.current)?;
    write(output, &chunks.current)?;
    output.flush().map_err(FileError::Write)?;
    progress(done + length as u64);
    Ok(())
}

/// A file whose header was read. Its chunks are not read yet.
pub struct EncryptedFile<R> {
    header: Header,
    commitment: [u8; STREAM_COMMITMENT_BYTES],
    input: R,
}

impl<R: Read> EncryptedFile<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`HeaderError`].
    pub fn open(mut input: R) -> Result<Self, HeaderError> {
        let (header, commitment) = Header::read(&mut input)?;
        Ok(Self {
            header,
            commitment,
            input,
        })
    }

    /// What the file says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Decrypts the file to `output`. Each chunk is written after it was authenticated, at its place. Only the last
    /// chunk shows that the file is whole: after an error, `output` may have the beginning of the plaintext.
    /// `progress` learns the bytes of the file's chunks that are done.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn decrypt(
        mut self,
        data_key: &Key256,
        output: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FileError> {
        let keys = StreamKeys::derive(data_key, self.header.salt(), self.header.encoded())?;
        let opener = keys.opener(&self.commitment);
        let mut opener = opener.map_err(|_| FileError::Header)?;
        let mut chunks = Chunks::of(&mut self.input, CHUNK_BYTES + CHUNK_TAG_BYTES)?;
        let mut number = 0;
        let mut done = 0;
        while chunks.advance()? {
            let length = chunks.current.len();
            let opened = opener.open_next(&mut chunks.current);
            opened.map_err(|_| FileError::Chunk { number })?;
            write(output, &chunks.current)?;
            number += 1;
            done += length as u64;
            progress(done);
        }
        let length = chunks.current.len();
        let opened = opener.open_last(&mut chunks.current);
        opened.map_err(|_| FileError::End { number })?;
        // Each plaintext has one form: its last chunk is empty only if the plaintext is.
        if chunks.current.is_empty() && number > 0 {
            return Err(FileError::End { number });
        }
        write(output, &chunks.current)?;
        output.flush().map_err(FileError::Write)?;
        progress(done + length as u64);
        Ok(())
    }
}

/// Why a file was not encrypted or decrypted.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The header or the data key is not that of this file.
    #[error("its header was changed, or the data key belongs to another file")]
    Header,
    /// A chunk does not open.
    #[error(
        "chunk {number} does not open: the file was changed, or chunks are missing or not in their order"
    )]
    Chunk {
        /// Its number, from 0.
        number: u64,
    },
    /// The last chunk does not open as the last one.
    #[error("the file does not end with chunk {number}: it was cut short, extended or changed")]
    End {
        /// Its number, from 0.
        number: u64,
    },
    /// The input cannot be read.
    #[error("the input cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The output cannot be written.
    #[error("the output cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The library failed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Reads chunks one ahead, so that the last one is known as such.
struct Chunks<'a> {
    input: &'a mut dyn Read,
    size: usize,
    current: Zeroizing<Vec<u8>>,
    next: Zeroizing<Vec<u8>>,
}

impl<'a> Chunks<'a> {
    fn of(input: &'a mut dyn Read, size: usize) -> Result<Self, FileError> {
        // The room for a tag: a buffer that moves would leave its plaintext behind.
        let buffer = || Zeroizing::new(Vec::with_capacity(size + CHUNK_TAG_BYTES));
        let mut chunks = Self {
            input,
            size,
            current: buffer(),
            next: buffer(),
        };
        chunks.fill_next()?;
        Ok(chunks)
    }

    /// Makes the next chunk the current one. Returns whether another follows; if none does, this is the last.
    fn advance(&mut self) -> Result<bool, FileError> {
        mem::swap(&mut self.current, &mut self.next);
        self.next.clear();
        // A chunk is short only at the end. The input is not read again after its end.
        if self.current.len() == self.size {
            self.fill_next()?;
        }
        Ok(!self.next.is_empty())
    }

    fn fill_next(&mut self) -> Result<(), FileError> {
        self.next.resize(self.size, 0);
        let mut length = 0;
        while let Some(rest @ [_, ..]) = self.next.get_mut(length..) {
            match self.input.read(rest) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::Read(error)),
            }
        }
        self.next.truncate(length);
        Ok(())
    }
}

fn write(output: &mut dyn Write, bytes: &[u8]) -> Result<(), FileError> {
    output.write_all(bytes).map_err(FileError::Write)
}
