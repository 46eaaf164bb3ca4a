//! The chunks of an encrypted file: STREAM over AES-256-GCM, under keys derived from a data key and the file's header.
//!
//! ```text
//! K(32) || P(7) || C(32) = HKDF-SHA256(salt, data key, "keyway/v1/file" || SHA-256(H), 71)
//!
//! chunk i = AES-256-GCM(K, nonce = P || BE32(i) || last, plaintext i); last is 01 for the last chunk, else 00
//! ```
//!
//! H is the header up to the commitment, so no key opens a file whose header was changed. The data key itself
//! encrypts nothing. AES-GCM alone does not commit to its key; C does, so a file opens under one data key only.
//!
//! STREAM is the construction of Hoang, Reyhanitabar, Rogaway and Vizár (2015), from the crate `aead-stream`.

use aead_stream::aead::array::typenum::{U12, U16};
use aead_stream::aead::inout::InOutBuf;
use aead_stream::aead::{self, AeadCore, AeadInOut, TagPosition};
use aead_stream::{Decryptor, Encryptor, NewStream, StreamBE32};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use crate::{InvalidCiphertext, Key256, sha256};

/// The bytes that a chunk gains when it is sealed.
pub const CHUNK_TAG_BYTES: usize = 16;
/// The length of a file's commitment, in bytes.
pub const STREAM_COMMITMENT_BYTES: usize = 32;

/// The keys of one file.
pub struct StreamKeys {
    stream: StreamBE32<Aes256Gcm>,
    commitment: [u8; STREAM_COMMITMENT_BYTES],
}

impl StreamKeys {
    /// Derives the keys of the file with this header, which is H. `salt` must be 32 new random bytes for each file.
    ///
    /// # Errors
    /// [`StreamError`] if the library fails.
    pub fn derive(data_key: &Key256, salt: &[u8; 32], header: &[u8]) -> Result<Self, StreamError> {
        let mut derived = Zeroizing::new([0; DERIVED_BYTES]);
        hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
            .extract(data_key.expose())
            .expand(&[LABEL, &sha256(&[header])], Length)?
            .fill(derived.as_mut_slice())?;
        let (key, rest) = derived
            .split_first_chunk::<KEY_BYTES>()
            .ok_or(StreamError)?;
        let (prefix, rest) = rest
            .split_first_chunk::<PREFIX_BYTES>()
            .ok_or(StreamError)?;
        let cipher = Aes256Gcm(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?));
        Ok(Self {
            stream: StreamBE32::from_aead(cipher, &(*prefix).into()),
            commitment: *rest.first_chunk().ok_or(StreamError)?,
        })
    }

    /// C. It follows the header.
    #[must_use]
    pub fn commitment(&self) -> [u8; STREAM_COMMITMENT_BYTES] {
        self.commitment
    }

    /// Seals the chunks of a new file.
    #[must_use]
    pub fn sealer(self) -> ChunkSealer {
        ChunkSealer(Encryptor::from_stream_primitive(self.stream))
    }

    /// Opens the chunks of the file that has this commitment.
    ///
    /// # Errors
    /// [`InvalidCiphertext`] if the file has another data key or another header. The comparison takes constant time.
    pub fn opener(
        self,
        commitment: &[u8; STREAM_COMMITMENT_BYTES],
    ) -> Result<ChunkOpener, InvalidCiphertext> {
        verify_slices_are_equal(&self.commitment, commitment)?;
        Ok(ChunkOpener(Decryptor::from_stream_primitive(self.stream)))
    }
}

/// Seals the chunks of one file, in their order.
pub struct ChunkSealer(Encryptor<Aes256Gcm, StreamBE32<Aes256Gcm>>);

impl ChunkSealer {
    /// Seals the next chunk in place, and appends the tag. If the capacity of `chunk` has no room for
    /// [`CHUNK_TAG_BYTES`] more, this moves the chunk and leaves a copy behind.
    ///
    /// # Errors
    /// [`StreamError`] after 2^32 - 1 chunks, or if the library fails.
    pub fn seal_next(&mut self, chunk: &mut Vec<u8>) -> Result<(), StreamError> {
        Ok(self.0.encrypt_next_in_place(&[], chunk)?)
    }

    /// Seals the last chunk as [`ChunkSealer::seal_next`] does.
    ///
    /// # Errors
    /// [`StreamError`] if the library fails.
    pub fn seal_last(self, chunk: &mut Vec<u8>) -> Result<(), StreamError> {
        Ok(self.0.encrypt_last_in_place(&[], chunk)?)
    }
}

/// Opens the chunks of one file, in their order.
pub struct ChunkOpener(Decryptor<Aes256Gcm, StreamBE32<Aes256Gcm>>);

impl ChunkOpener {
    /// Opens the next chunk in place, and removes the tag. After an error `chunk` holds nothing of use.
    ///
    /// # Errors
    /// [`InvalidCiphertext`] unless this chunk was sealed at this place of this file, and not as its last one.
    pub fn open_next(&mut self, chunk: &mut Vec<u8>) -> Result<(), InvalidCiphertext> {
        Ok(self.0.decrypt_next_in_place(&[], chunk)?)
    }

    /// Opens the last chunk as [`ChunkOpener::open_next`] does.
    ///
    /// # Errors
    /// [`InvalidCiphertext`] unless this chunk was sealed at this place of this file, as its last one.
    pub fn open_last(self, chunk: &mut Vec<u8>) -> Result<(), InvalidCiphertext> {
        Ok(self.0.decrypt_last_in_place(&[], chunk)?)
    }
}

/// The library failed, or the file has more chunks than the counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed, or the file is longer than 256 TiB")]
pub struct StreamError;

impl From<Unspecified> for StreamError {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

impl From<aead::Error> for StreamError {
    fn from(_: aead::Error) -> Self {
        Self
    }
}

impl From<aead::Error> for InvalidCiphertext {
    fn from(_: aead::Error) -> Self {
        Self
    }
}

const LABEL: &[u8] = b"keyway/v1/file";
const KEY_BYTES: usize = 32;
const PREFIX_BYTES: usize = 7;
const DERIVED_BYTES: usize = KEY_BYTES + PREFIX_BYTES + STREAM_COMMITMENT_BYTES;

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        DERIVED_BYTES
    }
}

/// The AES-256-GCM of aws-lc-rs with the traits that `aead-stream` takes.
struct Aes256Gcm(LessSafeKey);

impl AeadCore for Aes256Gcm {
    type NonceSize = U12;
    type TagSize = U16;
    const TAG_POSITION: TagPosition = TagPosition::Postfix;
}

impl AeadInOut for Aes256Gcm {
    fn encrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated_data: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
    ) -> aead::Result<aead::Tag<Self>> {
        let chunk = buffer.into_out_with_copied_in();
        let tag = self
            .0
            .seal_in_place_separate_tag(unique(nonce), Aad::from(associated_data), chunk)
            .map_err(|_| aead::Error)?;
        aead::Tag::<Self>::try_from(tag.as_ref()).map_err(|_| aead::Error)
    }

    fn decrypt_inout_detached(
        &self,
        nonce: &aead::Nonce<Self>,
        associated_data: &[u8],
        buffer: InOutBuf<'_, '_, u8>,
        tag: &aead::Tag<Self>,
    ) -> aead::Result<()> {
        let chunk = buffer.into_out_with_copied_in();
        self.0
            .open_in_place_separate_tag(unique(nonce), Aad::from(associated_data), tag, chunk)
            .map_err(|_| aead::Error)?;
        Ok(())
    }
}

/// STREAM counts, so no nonce repeats under the key of a file.
fn unique(nonce: &aead::Nonce<Aes256Gcm>) -> aws_lc_rs::aead::Nonce {
    aws_lc_rs::aead::Nonce::assume_unique_for_key((*nonce).into())
}
