//! Ciphertexts of KES and of MinIO's built-in key, for keys that are imported from there.
//!
//! Source of the formats: the behaviour of KES's releases, observed; vectors in
//! `vectors/kes-ciphertexts.json`. K is the key (32 bytes), iv 16 bytes, nonce 12 bytes, A the
//! context's bytes, which are opaque and may be none at all.
//!
//! ```text
//! AES256    ciphertext || tag = AES-256-GCM(HMAC-SHA256(K, iv), nonce, plaintext, A)
//! ChaCha20  ciphertext || tag = ChaCha20-Poly1305(HChaCha20(K, iv), nonce, plaintext, A)
//! legacy    ciphertext || tag = AES-256-GCM(P(K, iv), nonce, plaintext, A)
//!
//! P: t[i] = AES-256-ECB(K, LE32(i) || (i even: iv[0..12], i odd: iv[4..16])), i = 0..3
//!    P = (t[0] xor t[1]) || (t[2] xor t[3])
//!
//! JSON         {"aead":NAME,"id":ID,"iv":BASE64,"nonce":BASE64,"bytes":BASE64}   `id` since v0.16
//! MessagePack  95, str NAME, str ID, bin iv, bin nonce, bin (ciphertext || tag)
//! raw          ciphertext || tag || iv || nonce
//! ```
//!
//! JSON was written until v0.19.1, MessagePack until the beginning of 2024, raw since. NAME is
//! `AES-256-GCM` (legacy, until v0.6.0), `AES-256-GCM-HMAC-SHA-256`, `AES256-GCM_SHA256` or
//! `AES256`; `ChaCha20Poly1305`, `XCHACHA20-POLY1305` or `ChaCha20`. The raw format names nothing:
//! its algorithm is the key's. ID is a digest of the key, which KES itself no longer compares.
//!
//! Unlike format 1, none of these commits to its key, and none says which key it is for. They are
//! for keys that come from there and for no others.

mod parse;

use std::borrow::Cow;

use aws_lc_rs::aead::{
    AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use aws_lc_rs::cipher::{AES_256, EncryptingKey, UnboundCipherKey};
use aws_lc_rs::error::Unspecified;
use chacha20::cipher::array::Array;
use chacha20::{R20, hchacha};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::{EncryptionContext, InvalidCiphertext, Key256, SealError, SecretBytes, mac_sha256};
use parse::{Derivation, Parsed};

/// Longest ciphertext that is parsed, in bytes: the longest body that KES accepts.
pub const MAX_CIPHERTEXT_BYTES: usize = 1_000_000;
/// How many bytes longer a raw ciphertext is than its plaintext.
pub const OVERHEAD_BYTES: usize = TAG_BYTES + IV_BYTES + NONCE_LEN;

const IV_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
const BLOCK_BYTES: usize = 16;

/// The algorithm of an imported key, by the name that KES gives it today.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// AES-256-GCM under a key that HMAC-SHA256 derives for each message.
    #[serde(rename = "AES256")]
    Aes256,
    /// ChaCha20-Poly1305 under a key that HChaCha20 derives for each message.
    #[serde(rename = "ChaCha20")]
    ChaCha20,
}

impl Algorithm {
    /// The name as KES spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::ChaCha20 => "ChaCha20",
        }
    }

    /// Parses any name that KES ever gave an algorithm, in keys and in requests.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "AES256" | "AES256-GCM_SHA256" => Some(Self::Aes256),
            "ChaCha20" | "XCHACHA20-POLY1305" => Some(Self::ChaCha20),
            _ => None,
        }
    }
}

/// Whether ciphertexts of KES v0.1 to v0.6.0 may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LegacyDerivation {
    /// They are refused, as by KES since v0.8.
    #[default]
    Refused,
    /// They are opened. Their derivation is not a pseudo-random function, so seal the data anew
    /// instead of keeping them.
    Allowed,
}

/// Opens a ciphertext in any of KES's formats. `algorithm` is the key's, for the format that names
/// none; `context` is the bytes that it was sealed with, possibly none.
///
/// Bytes that look like JSON or MessagePack but do not parse are taken as raw: a raw ciphertext may
/// begin with any byte.
///
/// # Errors
/// [`InvalidCiphertext`] for another key, another context, any changed byte, a ciphertext of no
/// format, or one that [`LegacyDerivation`] refuses, without saying which.
pub fn open(
    key: &Key256,
    algorithm: Algorithm,
    legacy: LegacyDerivation,
    ciphertext: &[u8],
    context: &[u8],
) -> Result<SecretBytes, InvalidCiphertext> {
    if ciphertext.len() > MAX_CIPHERTEXT_BYTES {
        return Err(InvalidCiphertext);
    }
    let Parsed {
        derivation,
        iv,
        nonce,
        body,
    } = Parsed::of(ciphertext, algorithm).ok_or(InvalidCiphertext)?;
    if derivation == Derivation::Legacy && legacy == LegacyDerivation::Refused {
        return Err(InvalidCiphertext);
    }
    let message = message_key(derivation, key, &iv)?;
    let mut plaintext = Zeroizing::new(body.into_owned());
    let nonce = Nonce::assume_unique_for_key(nonce);
    let length = message
        .open_in_place(nonce, Aad::from(context), &mut plaintext)?
        .len();
    plaintext.truncate(length);
    Ok(SecretBytes::from(plaintext))
}

/// Seals in the raw format, which KES since 2024 reads under the same key; [`OVERHEAD_BYTES`]
/// longer than the plaintext.
///
/// `fresh` must be 32 new bytes from a cryptographic generator. Plaintext and context go into iv
/// and nonce with them, so that a repeated draw does not repeat both for different messages.
///
/// # Errors
/// [`SealError::Library`] if the library fails.
pub fn seal(
    key: &Key256,
    algorithm: Algorithm,
    context: &[u8],
    plaintext: &[u8],
    fresh: &[u8; 32],
) -> Result<Vec<u8>, SealError> {
    // Always longer than an iv, so it is no input of the derivation under the same key.
    let length = (context.len() as u64).to_be_bytes();
    let drawn = mac_sha256(key, &[b"keyway/v1/kes", fresh, &length, context, plaintext]);
    let (iv, rest) = drawn.split_first_chunk().ok_or(SealError::Library)?;
    let nonce = rest.first_chunk().ok_or(SealError::Library)?;
    seal_with(key, algorithm, context, plaintext, iv, nonce)
}

fn seal_with(
    key: &Key256,
    algorithm: Algorithm,
    context: &[u8],
    plaintext: &[u8],
    iv: &[u8; IV_BYTES],
    nonce: &[u8; NONCE_LEN],
) -> Result<Vec<u8>, SealError> {
    let message = message_key(algorithm.into(), key, iv)?;
    let mut sealed = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
    sealed.resize(plaintext.len() + TAG_BYTES, 0);
    let (ciphertext, tag) = sealed
        .split_at_mut_checked(plaintext.len())
        .ok_or(SealError::Library)?;
    message.seal_out_of_place_scatter(
        Nonce::assume_unique_for_key(*nonce),
        Aad::from(context),
        plaintext,
        ciphertext,
        &[],
        tag,
    )?;
    sealed.extend_from_slice(iv);
    sealed.extend_from_slice(nonce);
    Ok(sealed)
}

impl From<Algorithm> for Derivation {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Aes256 => Self::Hmac,
            Algorithm::ChaCha20 => Self::HChaCha20,
        }
    }
}

/// The bytes of a context as KES and MinIO use them: opaque bytes unchanged, and a map as MinIO
/// writes it, as JSON without spaces in byte order of the keys, with `<`, `>`, `&`, U+2028 and
/// U+2029 escaped as Go does. No context is no bytes.
#[must_use]
pub fn context_bytes(context: &EncryptionContext) -> Cow<'_, [u8]> {
    if let Some(bytes) = context.opaque_bytes() {
        return Cow::Borrowed(bytes);
    }
    let mut json = String::new();
    for (key, value) in context.pairs() {
        json.push(if json.is_empty() { '{' } else { ',' });
        put_json(&mut json, key);
        json.push(':');
        put_json(&mut json, value);
    }
    if !json.is_empty() {
        json.push('}');
    }
    Cow::Owned(json.into_bytes())
}

fn put_json(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => json.extend(['\\', character]),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\0'..'\x20' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}

/// The key of one message.
fn message_key(
    derivation: Derivation,
    key: &Key256,
    iv: &[u8; IV_BYTES],
) -> Result<LessSafeKey, Unspecified> {
    let (algorithm, derived) = match derivation {
        Derivation::Hmac => (&AES_256_GCM, Key256::from(mac_sha256(key, &[iv]))),
        Derivation::Legacy => (&AES_256_GCM, legacy_key(key, iv)?),
        Derivation::HChaCha20 => {
            let derived = Key256::try_fill(|derived| {
                let mut output = hchacha::<R20>(
                    Array::cast_from_core(key.expose()),
                    Array::cast_from_core(iv),
                );
                derived.copy_from_slice(&output);
                output.as_mut_slice().zeroize();
                Ok::<_, Unspecified>(())
            })?;
            (&CHACHA20_POLY1305, derived)
        }
    };
    let unbound = UnboundKey::new(algorithm, derived.expose())?;
    Ok(LessSafeKey::new(unbound))
}

/// P of the formats above: two of four encrypted blocks, xored with the other two.
fn legacy_key(key: &Key256, iv: &[u8; IV_BYTES]) -> Result<Key256, Unspecified> {
    let cipher = EncryptingKey::ecb(UnboundCipherKey::new(&AES_256, key.expose())?)?;
    let head = iv.first_chunk::<12>().ok_or(Unspecified)?;
    let tail = iv.last_chunk::<12>().ok_or(Unspecified)?;
    let mut blocks = Zeroizing::new([0; 4 * BLOCK_BYTES]);
    for ((number, part), block) in (0_u32..)
        .zip([head, tail, head, tail])
        .zip(blocks.chunks_exact_mut(BLOCK_BYTES))
    {
        let (counter, rest) = block.split_at_mut_checked(4).ok_or(Unspecified)?;
        counter.copy_from_slice(&number.to_le_bytes());
        rest.copy_from_slice(part);
    }
    cipher.encrypt(blocks.as_mut_slice())?;
    Key256::try_fill(|derived| {
        for (half, pair) in derived
            .chunks_exact_mut(BLOCK_BYTES)
            .zip(blocks.chunks_exact(2 * BLOCK_BYTES))
        {
            let (even, odd) = pair.split_at_checked(BLOCK_BYTES).ok_or(Unspecified)?;
            for ((byte, even), odd) in half.iter_mut().zip(even).zip(odd) {
                *byte = even ^ odd;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    use super::*;

    #[test]
    fn contexts_are_written_as_minio_writes_them() {
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let context = EncryptionContext::from_pairs(pairs).unwrap();
            String::from_utf8(context_bytes(&context).into_owned()).unwrap()
        };
        assert_eq!(map(&[]), "");
        assert_eq!(
            map(&[("b", "<1> & \"2\" \\"), ("a", "tab\tü\u{2028}\u{1}\u{7f}")]),
            "{\"a\":\"tab\\tü\\u2028\\u0001\u{7f}\",\"b\":\"\\u003c1\\u003e \\u0026 \\\"2\\\" \\\\\"}"
        );
        let opaque = EncryptionContext::opaque(b"{}".to_vec()).unwrap();
        assert_eq!(*context_bytes(&opaque), *b"{}");
    }

    #[test]
    fn raw_vectors_are_sealed_to_the_same_bytes() {
        let vectors: Value =
            serde_json::from_str(include_str!("../../../vectors/kes-ciphertexts.json")).unwrap();
        let mut sealed = 0;
        for vector in vectors["ciphertexts"].as_array().unwrap() {
            if vector["format"] != "raw" {
                continue;
            }
            let bytes = |name: &str| STANDARD.decode(vector[name].as_str().unwrap()).unwrap();
            let wanted = bytes("ciphertext");
            let (rest, nonce) = wanted.split_last_chunk().unwrap();
            let (_, iv) = rest.split_last_chunk().unwrap();
            let key = Key256::try_from(bytes("key").as_slice()).unwrap();
            let algorithm = Algorithm::parse(vector["cipher"].as_str().unwrap()).unwrap();
            let (context, plaintext) = (bytes("context"), bytes("plaintext"));
            let made = seal_with(&key, algorithm, &context, &plaintext, iv, nonce);
            assert_eq!(made, Ok(wanted));
            sealed += 1;
        }
        assert_eq!(sealed, 6);
    }

    /// draft-irtf-cfrg-xchacha-03, section 2.2.1, through a message sealed under the derived key.
    #[test]
    fn hchacha20_is_the_drafts() {
        let key = Key256::from(std::array::from_fn(|n| n as u8));
        let iv = [
            0, 0, 0, 9, 0, 0, 0, 0x4a, 0, 0, 0, 0, 0x31, 0x41, 0x59, 0x27,
        ];
        let subkey = [
            0x82, 0x41, 0x3b, 0x42, 0x27, 0xb2, 0x7b, 0xfe, 0xd3, 0x0e, 0x42, 0x50, 0x8a, 0x87,
            0x7d, 0x73, 0xa0, 0xf9, 0xe4, 0xd5, 0x8a, 0x74, 0xa8, 0x53, 0xc1, 0x2e, 0xc4, 0x13,
            0x26, 0xd3, 0xec, 0xdc,
        ];
        let unbound = UnboundKey::new(&CHACHA20_POLY1305, &subkey).unwrap();
        let mut expected = b"message".to_vec();
        LessSafeKey::new(unbound)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key([1; 12]),
                Aad::empty(),
                &mut expected,
            )
            .unwrap();
        let made = seal_with(&key, Algorithm::ChaCha20, b"", b"message", &iv, &[1; 12]).unwrap();
        assert_eq!(made[..expected.len()], expected);
    }
}
