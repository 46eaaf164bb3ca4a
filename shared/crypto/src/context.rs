//! The encryption context: bytes that a ciphertext is bound to and that are never stored with it.

use std::fmt;

/// Largest sum of all key and value lengths of a map context, in characters: AWS KMS's limit. Every API
/// opens what is sealed under such a context; an API may have narrower limits for what it seals.
pub const MAX_CONTEXT_CHARS: usize = 8192;
/// Longest opaque context, in bytes: the longest body of the one API that has them.
pub const MAX_OPAQUE_CONTEXT_BYTES: usize = 1_000_000;

/// What a caller binds a ciphertext to; the same context must be given again to open it.
///
/// One of three kinds: none, a string map, or opaque bytes. A map and opaque bytes never bind
/// alike, whatever they hold; an empty map and empty bytes are the same as none. Text is taken as
/// it is: no trimming, no Unicode normalisation.
///
/// Encoding (format 1; lengths and counts are 32-bit big endian), chosen so that no two different
/// contexts encode alike:
///
/// ```text
/// none    00
/// map     01 || count || per pair, in byte order of key: len || key || len || value
/// opaque  02 || len || bytes
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionContext {
    /// In byte order of key; empty unless this is a map.
    pairs: Vec<(String, String)>,
    /// Encoded once here, because each seal and each open needs these bytes twice.
    encoded: Vec<u8>,
}

impl EncryptionContext {
    /// No context.
    #[must_use]
    pub fn none() -> Self {
        Self {
            pairs: Vec::new(),
            encoded: vec![KIND_NONE],
        }
    }

    /// A string map, in any order; no pairs at all is [`EncryptionContext::none`].
    ///
    /// The caller's parser must keep duplicates: one that keeps the last of two equal keys would
    /// hide them.
    ///
    /// # Errors
    /// A [`ContextError`] if a key occurs twice or the pairs have more than [`MAX_CONTEXT_CHARS`].
    pub fn from_pairs(
        pairs: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ContextError> {
        let mut pairs: Vec<(String, String)> = pairs.into_iter().collect();
        let chars = pairs.iter().flat_map(|(key, value)| [key, value]);
        let chars = chars.map(|text| text.chars().count()).sum();
        if chars > MAX_CONTEXT_CHARS {
            return Err(ContextError::TooLong { chars });
        }
        if pairs.is_empty() {
            return Ok(Self::none());
        }
        // `str` compares by its UTF-8 bytes, which is the order the encoding asks for.
        pairs.sort_unstable();
        let repeated = pairs
            .iter()
            .zip(pairs.iter().skip(1))
            .any(|((left, _), (right, _))| left == right);
        if repeated {
            return Err(ContextError::DuplicateKey);
        }

        let size: usize = pairs.iter().map(|(k, v)| 8 + k.len() + v.len()).sum();
        let mut encoded = Vec::with_capacity(5 + size);
        encoded.push(KIND_MAP);
        put_u32(&mut encoded, pairs.len());
        for (key, value) in &pairs {
            put_bytes(&mut encoded, key.as_bytes());
            put_bytes(&mut encoded, value.as_bytes());
        }
        Ok(Self { pairs, encoded })
    }

    /// Opaque bytes; none at all is [`EncryptionContext::none`].
    ///
    /// # Errors
    /// [`ContextError::OpaqueTooLong`] over [`MAX_OPAQUE_CONTEXT_BYTES`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a context owns its bytes; the caller hands them over, as it does pairs"
    )]
    pub fn opaque(bytes: Vec<u8>) -> Result<Self, ContextError> {
        if bytes.len() > MAX_OPAQUE_CONTEXT_BYTES {
            return Err(ContextError::OpaqueTooLong { bytes: bytes.len() });
        }
        if bytes.is_empty() {
            return Ok(Self::none());
        }
        let mut encoded = Vec::with_capacity(5 + bytes.len());
        encoded.push(KIND_OPAQUE);
        put_bytes(&mut encoded, &bytes);
        Ok(Self {
            pairs: Vec::new(),
            encoded,
        })
    }

    /// The kind byte of a ciphertext's header: 0 none, 1 map, 2 opaque.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.encoded.first().copied().unwrap_or(KIND_NONE)
    }

    /// The injective encoding, as described on the type; its first byte is the kind.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encoded.clone()
    }

    /// The pairs of a map, in byte order of key; nothing for the other kinds.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The bytes of an opaque context; `None` for the other kinds.
    #[must_use]
    pub fn opaque_bytes(&self) -> Option<&[u8]> {
        match self.encoded.split_first_chunk::<5>() {
            Some(([KIND_OPAQUE, ..], bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// The context that has this encoding: none or a map.
    ///
    /// # Errors
    /// [`ContextError`] if this is not the encoding of such a context, with its pairs in their order.
    pub fn decode(encoded: &[u8]) -> Result<Self, ContextError> {
        let pairs = decode_pairs(encoded).ok_or(ContextError::Encoding)?;
        let context = Self::from_pairs(pairs)?;
        if context.encoded != encoded {
            return Err(ContextError::Encoding);
        }
        Ok(context)
    }

    /// The encoding without a copy.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.encoded
    }
}

impl Default for EncryptionContext {
    fn default() -> Self {
        Self::none()
    }
}

/// Shows the kind and the sizes, never a key or a value: contexts name customers and objects.
impl fmt::Debug for EncryptionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionContext")
            .field("kind", &self.kind())
            .field("pairs", &self.pairs.len())
            .field("encoded_bytes", &self.encoded.len())
            .finish()
    }
}

/// Why something is not a valid encryption context. Sizes only: no key, no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// All keys and values together are longer than [`MAX_CONTEXT_CHARS`].
    #[error("encryption context has {chars} characters, more than {MAX_CONTEXT_CHARS}")]
    TooLong {
        /// The sum of all key and value lengths in characters.
        chars: usize,
    },
    /// A key that occurs more than once.
    #[error("encryption context has the same key twice")]
    DuplicateKey,
    /// Opaque bytes longer than [`MAX_OPAQUE_CONTEXT_BYTES`].
    #[error("opaque context has {bytes} bytes, more than {MAX_OPAQUE_CONTEXT_BYTES}")]
    OpaqueTooLong {
        /// How many bytes there are.
        bytes: usize,
    },
    /// These bytes are no encoding of a map.
    #[error("encryption context is not encoded as it must be")]
    Encoding,
}

const KIND_NONE: u8 = 0;
const KIND_MAP: u8 = 1;
const KIND_OPAQUE: u8 = 2;

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Every count and length that gets here passed a limit far below 2^32, so the cast loses nothing.
fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as u32).to_be_bytes());
}

/// The pairs of an encoded map, in any order, or no pairs for no context.
fn decode_pairs(encoded: &[u8]) -> Option<Vec<(String, String)>> {
    let (kind, mut rest) = encoded.split_first()?;
    if *kind == KIND_NONE && rest.is_empty() {
        return Some(Vec::new());
    }
    if *kind != KIND_MAP {
        return None;
    }
    let count = take_u32(&mut rest)?;
    let mut pairs = Vec::new();
    for _ in 0..count {
        pairs.push((take_text(&mut rest)?, take_text(&mut rest)?));
    }
    rest.is_empty().then_some(pairs)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_u32(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(str::from_utf8(text).ok()?.to_owned())
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}
