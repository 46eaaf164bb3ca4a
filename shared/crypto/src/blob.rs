//! Ciphertext format 1: one construction for every purpose.
//!
//! ```text
//! magic(2) || format(1)=01 || suite(1)=01 || context kind(1) || key version(4, big endian)
//!   || key id length(1) || key id || salt(32) || commitment(32) || ciphertext || tag(16)
//!
//! H    = everything before the commitment
//! A    = encoded context
//! salt = HMAC-SHA256(key, "salt" || 32 fresh random bytes || plaintext)
//! K(32) || IV(12) || C(32) = KBKDF-CTR-HMAC-SHA256(key, label || 00 || SHA-256(H || A) || BE32(608))
//! ciphertext || tag = AES-256-GCM(K, IV, aad = H || C || A)
//! ```
//!
//! Each message has a key and nonce of its own, so a key is never used up as it would be by random
//! 96-bit nonces. AES-GCM alone does not commit to its key; C does, so a blob opens under one key
//! and one context only. The plaintext goes into the salt so that a repeated random draw (a cloned
//! machine, a broken generator) still never gives two plaintexts the same key and nonce.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hmac::sign_to_buffer;
use zeroize::Zeroizing;

use crate::{EncryptionContext, Key256, SecretBytes, mac_sha256};

/// Longest key id in a blob, in bytes of UTF-8; the shortest is 1.
pub const MAX_KEY_ID_BYTES: usize = 128;

/// What a blob is for. Magic and derivation label both differ, so a blob made for one purpose
/// never opens for another, even under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Data sealed under a master key: the ciphertexts that clients hold. Magic `C7 4B`.
    Seal,
    /// A master key wrapped under a root key, in the key's record. Magic `C7 4D`.
    Wrap,
    /// A secret protected by a key that comes from a passphrase. Magic `C7 50`.
    Passphrase,
}

impl Purpose {
    /// The first two bytes of the blob. No foreign format starts with them: not `{`, MessagePack's
    /// `95`, `vault:`, nor Tink's `00` and `01`.
    const fn magic(self) -> [u8; 2] {
        match self {
            Self::Seal => [0xc7, 0x4b],
            Self::Wrap => [0xc7, 0x4d],
            Self::Passphrase => [0xc7, 0x50],
        }
    }

    const fn label(self) -> &'static [u8] {
        match self {
            Self::Seal => b"keyway/v1/seal",
            Self::Wrap => b"keyway/v1/wrap",
            Self::Passphrase => b"keyway/v1/passphrase",
        }
    }
}

/// Seals `plaintext` (any length) under one version of a key, bound to `context`.
///
/// The result is `plaintext.len() + key_id.len() + 90` bytes. `fresh` must be 32 new bytes from a
/// cryptographic generator; the same inputs give the same blob.
///
/// # Errors
/// [`SealError`] if the key id is not 1 to 128 bytes, the version is 0, or the library fails.
pub fn seal(
    purpose: Purpose,
    key: &Key256,
    key_id: &str,
    key_version: u32,
    context: &EncryptionContext,
    plaintext: &[u8],
    fresh: &[u8; 32],
) -> Result<Vec<u8>, SealError> {
    let key_id_length = match u8::try_from(key_id.len()) {
        Ok(length @ 1..) if key_id.len() <= MAX_KEY_ID_BYTES => length,
        _ => return Err(SealError::KeyIdLength(key_id.len())),
    };
    if key_version == 0 {
        return Err(SealError::KeyVersionZero);
    }
    let context_bytes = context.encoded();
    let bound_length = FIXED_BYTES + key_id.len() + SALT_BYTES + COMMITMENT_BYTES;

    let mut bound = Vec::with_capacity(bound_length + context_bytes.len());
    bound.extend_from_slice(&purpose.magic());
    bound.extend_from_slice(&[FORMAT, SUITE, context.kind()]);
    bound.extend_from_slice(&key_version.to_be_bytes());
    bound.push(key_id_length);
    bound.extend_from_slice(key_id.as_bytes());
    bound.extend_from_slice(&mac_sha256(key, &[b"salt", fresh, plaintext]));
    let mut message = MessageKey::blank();
    message.derive(purpose, key, &mut bound, context_bytes)?;

    let mut blob = Vec::with_capacity(bound_length + plaintext.len() + TAG_BYTES);
    blob.extend_from_slice(bound.get(..bound_length).ok_or(SealError::Library)?);
    blob.resize(bound_length + plaintext.len() + TAG_BYTES, 0);
    let (ciphertext, tag) = blob
        .get_mut(bound_length..)
        .and_then(|body| body.split_at_mut_checked(plaintext.len()))
        .ok_or(SealError::Library)?;
    // Out of place: the plaintext is never in a buffer that an early return would leave unwiped.
    message.cipher()?.seal_out_of_place_scatter(
        message.nonce()?,
        Aad::from(&bound),
        plaintext,
        ciphertext,
        &[],
        tag,
    )?;
    Ok(blob)
}

/// A blob that has been parsed but not yet opened: every field is still what its sender claims.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    purpose: Purpose,
    context_kind: u8,
    key_version: u32,
    key_id: &'a str,
    /// H.
    header: &'a [u8],
    commitment: &'a [u8; COMMITMENT_BYTES],
    /// Ciphertext and tag.
    body: &'a [u8],
}

impl<'a> Blob<'a> {
    /// Reads the fields of a blob made for `purpose`; no cryptography.
    ///
    /// # Errors
    /// [`InvalidCiphertext`] for another magic, format, suite or context kind, version 0, a key id
    /// that is not 1 to 128 bytes of UTF-8, or too few bytes for the fields and a tag.
    pub fn parse(purpose: Purpose, bytes: &'a [u8]) -> Result<Self, InvalidCiphertext> {
        Self::fields(purpose, bytes).ok_or(InvalidCiphertext)
    }

    fn fields(purpose: Purpose, bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>()?;
        let [
            magic0,
            magic1,
            format,
            suite,
            context_kind,
            v0,
            v1,
            v2,
            v3,
            key_id_length,
        ] = *fixed;
        let key_version = u32::from_be_bytes([v0, v1, v2, v3]);
        let key_id_length = usize::from(key_id_length);
        let acceptable = [magic0, magic1] == purpose.magic()
            && format == FORMAT
            && suite == SUITE
            && context_kind <= LAST_CONTEXT_KIND
            && key_version >= 1
            && (1..=MAX_KEY_ID_BYTES).contains(&key_id_length);
        if !acceptable {
            return None;
        }
        let (key_id, rest) = rest.split_at_checked(key_id_length)?;
        let (_salt, rest) = rest.split_at_checked(SALT_BYTES)?;
        let (commitment, body) = rest.split_first_chunk::<COMMITMENT_BYTES>()?;
        if body.len() < TAG_BYTES {
            return None;
        }
        let header_length = FIXED_BYTES + key_id_length + SALT_BYTES;
        Some(Self {
            purpose,
            context_kind,
            key_version,
            key_id: str::from_utf8(key_id).ok()?,
            header: bytes.get(..header_length)?,
            commitment,
            body,
        })
    }

    /// The id of the key the blob claims to be sealed under, 1 to 128 bytes.
    #[must_use]
    pub fn key_id(&self) -> &'a str {
        self.key_id
    }

    /// The version of that key, at least 1.
    #[must_use]
    pub fn key_version(&self) -> u32 {
        self.key_version
    }

    /// The commitment (32 bytes): distinct for distinct keys, headers and contexts.
    ///
    /// It identifies a blob that *has been opened*. Before that it is a claim like the other
    /// fields: anyone can write one blob's commitment into another, so it must not by itself find
    /// a cached plaintext.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; COMMITMENT_BYTES] {
        *self.commitment
    }

    /// Opens the blob under the key version it names and the context it was sealed with.
    ///
    /// # Errors
    /// [`InvalidCiphertext`] for another key, another context or any changed byte, without saying
    /// which.
    pub fn open(
        &self,
        key: &Key256,
        context: &EncryptionContext,
    ) -> Result<SecretBytes, InvalidCiphertext> {
        if self.context_kind != context.kind() {
            return Err(InvalidCiphertext);
        }
        let context_bytes = context.encoded();
        let bound_length = self.header.len() + COMMITMENT_BYTES + context_bytes.len();
        let mut bound = Vec::with_capacity(bound_length);
        bound.extend_from_slice(self.header);
        let mut message = MessageKey::blank();
        message.derive(self.purpose, key, &mut bound, context_bytes)?;
        verify_slices_are_equal(message.commitment()?, self.commitment)?;

        let mut plaintext = Zeroizing::new(self.body.to_vec());
        let length = message
            .cipher()?
            .open_in_place(message.nonce()?, Aad::from(&bound), &mut plaintext)?
            .len();
        plaintext.truncate(length);
        Ok(SecretBytes::from(plaintext))
    }
}

/// Shows which key a blob claims to be for; the bytes would only make logs long.
impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blob")
            .field("purpose", &self.purpose)
            .field("key_id", &self.key_id)
            .field("key_version", &self.key_version)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A blob that cannot be parsed or opened.
///
/// One value for every cause: telling a wrong key from a wrong context or a flipped bit helps only
/// someone who probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid ciphertext")]
pub struct InvalidCiphertext;

impl From<Unspecified> for InvalidCiphertext {
    fn from(_: Unspecified) -> Self {
        Self
    }
}

/// Why nothing was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key id is empty or longer than [`MAX_KEY_ID_BYTES`]; its length in bytes.
    #[error("key id has {0} bytes, must have 1 to {MAX_KEY_ID_BYTES}")]
    KeyIdLength(usize),
    /// Key versions start at 1.
    #[error("key version is 0")]
    KeyVersionZero,
    /// The cryptographic library failed. It gives no reason; out of memory is the only known one.
    #[error("the cryptographic library failed")]
    Library,
}

impl From<Unspecified> for SealError {
    fn from(_: Unspecified) -> Self {
        Self::Library
    }
}

const FORMAT: u8 = 1;
/// SP 800-108 KDF in counter mode with HMAC-SHA256, AES-256-GCM, 32-byte commitment.
/// Reserved: 02 XAES-256-GCM, 03 AES-256-GCM-SIV.
const SUITE: u8 = 1;
const LAST_CONTEXT_KIND: u8 = 2;

/// Magic, format, suite, context kind, key version, key id length.
const FIXED_BYTES: usize = 10;
const SALT_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const COMMITMENT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const MESSAGE_KEY_BYTES: usize = KEY_BYTES + NONCE_BYTES + COMMITMENT_BYTES;
const MESSAGE_KEY_BITS: u32 = 608;
const _: () = assert!(MESSAGE_KEY_BYTES * 8 == MESSAGE_KEY_BITS as usize);
/// How many bytes the derivation makes at a time.
const MAC_BYTES: usize = 32;
const DERIVED_BYTES: usize = MESSAGE_KEY_BYTES.next_multiple_of(MAC_BYTES);

/// K || IV || C of one message; what is derived beyond these is not used.
///
/// Filled in place, because a move could leave a copy that nothing wipes.
struct MessageKey(Zeroizing<[u8; DERIVED_BYTES]>);

impl MessageKey {
    fn blank() -> Self {
        Self(Zeroizing::new([0; DERIVED_BYTES]))
    }

    /// Takes H in `bound` and leaves H || C || A there, which is what the tag authenticates.
    ///
    /// One buffer for H || A and for H || C || A, so that either is hashed in one call: with
    /// enough capacity nothing is allocated here but `info`.
    ///
    /// The library's KBKDF takes a key's bytes and hashes its two HMAC blocks each time. Here the key
    /// has them hashed already; a test compares the two.
    fn derive(
        &mut self,
        purpose: Purpose,
        key: &Key256,
        bound: &mut Vec<u8>,
        context: &[u8],
    ) -> Result<(), Unspecified> {
        let header_length = bound.len();
        bound.extend_from_slice(context);
        let digest = digest(&SHA256, bound);
        // SP 800-108: i || Label || 00 || Context || L, with a digest as Context.
        let bits = MESSAGE_KEY_BITS.to_be_bytes();
        let mut info = [&[0; 4], purpose.label(), &[0], digest.as_ref(), &bits].concat();
        for (number, block) in (1_u32..).zip(self.0.chunks_exact_mut(MAC_BYTES)) {
            *info.first_chunk_mut().ok_or(Unspecified)? = number.to_be_bytes();
            sign_to_buffer(key.mac(), &info, block)?;
        }

        bound.truncate(header_length);
        bound.extend_from_slice(self.commitment()?);
        bound.extend_from_slice(context);
        Ok(())
    }

    fn cipher(&self) -> Result<LessSafeKey, Unspecified> {
        let key = self.0.get(..KEY_BYTES).ok_or(Unspecified)?;
        Ok(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key)?))
    }

    fn nonce(&self) -> Result<Nonce, Unspecified> {
        let nonce = self.0.get(KEY_BYTES..KEY_BYTES + NONCE_BYTES);
        Nonce::try_assume_unique_for_key(nonce.ok_or(Unspecified)?)
    }

    fn commitment(&self) -> Result<&[u8; COMMITMENT_BYTES], Unspecified> {
        let after = self.0.get(KEY_BYTES + NONCE_BYTES..).ok_or(Unspecified)?;
        after.first_chunk().ok_or(Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::kdf::{KbkdfCtrHmacAlgorithmId, get_kbkdf_ctr_hmac_algorithm, kbkdf_ctr_hmac};

    use super::*;

    #[test]
    fn message_key_is_what_the_librarys_kbkdf_derives() {
        let key = Key256::from([7; 32]);
        for purpose in [Purpose::Seal, Purpose::Wrap, Purpose::Passphrase] {
            for length in [0, 1, 63, 64, 300] {
                let (header, context) = (vec![1; length], vec![2; length]);
                let mut bound = header.clone();
                let mut message = MessageKey::blank();
                message.derive(purpose, &key, &mut bound, &context).unwrap();

                let digest = digest(&SHA256, &[header, context].concat());
                let bits = MESSAGE_KEY_BITS.to_be_bytes();
                let info = [purpose.label(), &[0], digest.as_ref(), &bits].concat();
                let kdf = get_kbkdf_ctr_hmac_algorithm(KbkdfCtrHmacAlgorithmId::Sha256).unwrap();
                let mut expected = [0; MESSAGE_KEY_BYTES];
                kbkdf_ctr_hmac(kdf, key.expose(), &info, &mut expected).unwrap();
                assert_eq!(message.0[..MESSAGE_KEY_BYTES], expected);
                assert_eq!(
                    message.commitment().unwrap(),
                    expected.last_chunk().unwrap()
                );
            }
        }
    }
}
