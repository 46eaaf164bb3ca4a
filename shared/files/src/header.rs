//! The header of an encrypted file, format 1.
//!
//! ```text
//! magic(2)=C7 46 || format(1)=01 || suite(1)=01 || chunk size(4)=65,536 || salt(32)
//!   || key id length(1) || key id || wrapped key length(2) || wrapped key || context length(4) || context
//!   || commitment(32)
//! ```
//!
//! Numbers are big endian. H is everything before the commitment.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use keyway_crypto::{EncryptionContext, STREAM_COMMITMENT_BYTES};

/// The plaintext bytes of each chunk but the last, which may have fewer.
pub const CHUNK_BYTES: usize = 65_536;
/// Longest key id, in bytes of UTF-8.
pub const MAX_KEY_ID_BYTES: usize = 255;
/// Longest encrypted data key, in bytes.
pub const MAX_WRAPPED_KEY_BYTES: usize = 65_535;
/// Longest encoded encryption context, in bytes. Every context of at most
/// [`MAX_CONTEXT_CHARS`](keyway_crypto::MAX_CONTEXT_CHARS) is shorter.
pub const MAX_CONTEXT_BYTES: usize = 131_072;

const MAGIC: [u8; 2] = [0xc7, 0x46];
const FORMAT: u8 = 1;
/// HKDF-SHA256, STREAM with AES-256-GCM, 32-byte commitment.
const SUITE: u8 = 1;
const SALT_BYTES: usize = 32;
/// Magic, format, suite, chunk size.
const FIXED_BYTES: usize = 8;

/// What a file says of itself: which key encrypted its data key, and the context that binds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    key_id: String,
    wrapped_key: Vec<u8>,
    context: EncryptionContext,
    salt: [u8; SALT_BYTES],
    /// H.
    encoded: Vec<u8>,
}

impl Header {
    /// The header of a new file. `wrapped_key` is the data key as the server encrypted it under `context`. `salt` must be
    /// 32 new random bytes.
    ///
    /// # Errors
    /// [`HeaderError::Field`] if the key id or the wrapped key is empty or too long, the key id has control characters,
    /// or the context is not a map.
    pub fn new(
        key_id: &str,
        wrapped_key: &[u8],
        context: &EncryptionContext,
        salt: [u8; SALT_BYTES],
    ) -> Result<Self, HeaderError> {
        if context.opaque_bytes().is_some() {
            return Err(HeaderError::Field("context"));
        }
        let context_bytes = context.encode();
        let lengths = (
            u8::try_from(checked_key_id(key_id.as_bytes())?.len()),
            u16::try_from(wrapped_key.len()),
            u32::try_from(context_bytes.len()),
        );
        let (Ok(key_id_length), Ok(wrapped_key_length @ 1..), Ok(context_length)) = lengths else {
            return Err(HeaderError::Field("data key"));
        };
        let mut encoded = Vec::new();
        encoded.extend_from_slice(&MAGIC);
        encoded.extend_from_slice(&[FORMAT, SUITE]);
        encoded.extend_from_slice(&chunk_size());
        encoded.extend_from_slice(&salt);
        encoded.push(key_id_length);
        encoded.extend_from_slice(key_id.as_bytes());
        encoded.extend_from_slice(&wrapped_key_length.to_be_bytes());
        encoded.extend_from_slice(wrapped_key);
        encoded.extend_from_slice(&context_length.to_be_bytes());
        encoded.extend_from_slice(&context_bytes);
        Ok(Self {
            key_id: key_id.to_owned(),
            wrapped_key: wrapped_key.to_vec(),
            context: context.clone(),
            salt,
            encoded,
        })
    }

    /// Reads a header and its commitment, and nothing after them. What they say is a claim until the data key has
    /// confirmed it.
    ///
    /// # Errors
    /// [`HeaderError`]; a header is never longer than its fields may be, whatever lengths it gives.
    pub fn read(
        input: &mut dyn Read,
    ) -> Result<(Self, [u8; STREAM_COMMITMENT_BYTES]), HeaderError> {
        let fixed: [u8; FIXED_BYTES] = array(input).map_err(|error| match error {
            HeaderError::Short => HeaderError::NotEncrypted,
            error => error,
        })?;
        let [magic0, magic1, format, suite, chunk_size @ ..] = fixed;
        if [magic0, magic1] != MAGIC {
            return Err(HeaderError::NotEncrypted);
        }
        if format != FORMAT || suite != SUITE {
            return Err(HeaderError::Unknown { format, suite });
        }
        if chunk_size != self::chunk_size() {
            return Err(HeaderError::Field("chunk size"));
        }
        let salt = array(input)?;
        let [key_id_length] = array(input)?;
        let key_id = bytes(input, key_id_length.into())?;
        let key_id = checked_key_id(&key_id)?;
        let wrapped_key_length = u16::from_be_bytes(array(input)?);
        let wrapped_key = bytes(input, wrapped_key_length.into())?;
        let context_length = u32::from_be_bytes(array(input)?);
        let context_length = usize::try_from(context_length)
            .ok()
            .filter(|length| *length <= MAX_CONTEXT_BYTES)
            .ok_or(HeaderError::Field("context"))?;
        let context = EncryptionContext::decode(&bytes(input, context_length)?)
            .map_err(|_| HeaderError::Field("context"))?;
        let header = Self::new(key_id, &wrapped_key, &context, salt)?;
        Ok((header, array(input)?))
    }

    /// The id of the key that encrypted the data key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The data key as the server encrypted it.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// The context under which the server encrypted the data key; never opaque bytes.
    #[must_use]
    pub fn context(&self) -> &EncryptionContext {
        &self.context
    }

    pub(crate) fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// H. There is one encoding of each header, so these are also the bytes that [`Header::read`] read.
    #[must_use]
    pub fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

/// Shows the key and sizes, never a pair of the context.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header")
            .field("key_id", &self.key_id)
            .field("wrapped_key_bytes", &self.wrapped_key.len())
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// The input does not begin as an encrypted file does.
    #[error("it is not a file that keyway encrypt-file made")]
    NotEncrypted,
    /// Another release made this file.
    #[error("it has format {format}, suite {suite}, which this release of Keyway does not read")]
    Unknown {
        /// The format that it names.
        format: u8,
        /// The suite that it names.
        suite: u8,
    },
    /// A field is outside its limits.
    #[error("its header is not valid: {0}")]
    Field(&'static str),
    /// The input ends within the header.
    #[error("it ends within its header")]
    Short,
    /// The input cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
}

fn chunk_size() -> [u8; 4] {
    const { (CHUNK_BYTES as u32).to_be_bytes() }
}

/// Commands print the key id, so it must not control a terminal.
fn checked_key_id(bytes: &[u8]) -> Result<&str, HeaderError> {
    let field = HeaderError::Field("key id");
    match str::from_utf8(bytes) {
        Ok(text)
            if (1..=MAX_KEY_ID_BYTES).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            Ok(text)
        }
        _ => Err(field),
    }
}

fn bytes(input: &mut dyn Read, length: usize) -> Result<Vec<u8>, HeaderError> {
    let mut bytes = vec![0; length];
    exact(input, &mut bytes)?;
    Ok(bytes)
}

fn array<const LENGTH: usize>(input: &mut dyn Read) -> Result<[u8; LENGTH], HeaderError> {
    let mut bytes = [0; LENGTH];
    exact(input, &mut bytes)?;
    Ok(bytes)
}

fn exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<(), HeaderError> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => HeaderError::Short,
        _ => HeaderError::Read(error),
    })
}
