//! Encrypted files: their format, and how a file is encrypted and decrypted in constant memory.
//!
//! A file has a data key of its own. Its header holds the data key as the server encrypted it, and everything else
//! that decryption needs. `docs/file-format.md` has the format byte by byte.
//!
//! **Invariant:** a plaintext leaves only after its chunk was authenticated, at its place in the file.
//!
//! **Invariant:** nothing here draws key material or speaks to a server. The data key and the salt come from the
//! caller.

mod chunks;
mod destination;
mod header;

pub use chunks::{EncryptedFile, FileError, encrypt};
pub use destination::{DestinationError, NewFile, is_same_file};
pub use header::{
    CHUNK_BYTES, Header, HeaderError, MAX_CONTEXT_BYTES, MAX_KEY_ID_BYTES, MAX_WRAPPED_KEY_BYTES,
};
