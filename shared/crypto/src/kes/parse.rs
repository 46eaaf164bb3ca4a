//! Parses the three formats that the module above lists; no cryptography.

use std::borrow::Cow;

use aws_lc_rs::aead::NONCE_LEN;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Algorithm, IV_BYTES, TAG_BYTES};

/// How the key of a message is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Derivation {
    Hmac,
    HChaCha20,
    Legacy,
}

/// The fields of a ciphertext, not verified yet.
pub(super) struct Parsed<'a> {
    pub(super) derivation: Derivation,
    pub(super) iv: [u8; IV_BYTES],
    pub(super) nonce: [u8; NONCE_LEN],
    /// Ciphertext and tag.
    pub(super) body: Cow<'a, [u8]>,
}

impl<'a> Parsed<'a> {
    pub(super) fn of(bytes: &'a [u8], algorithm: Algorithm) -> Option<Self> {
        let parsed = match bytes.first() {
            Some(b'{') => Self::json(bytes),
            Some(&ARRAY_OF_FIVE) => Self::message_pack(bytes),
            _ => None,
        };
        parsed
            .or_else(|| Self::raw(bytes, algorithm))
            .filter(|parsed| parsed.body.len() >= TAG_BYTES)
    }

    fn json(bytes: &'a [u8]) -> Option<Self> {
        let Json {
            aead,
            iv,
            nonce,
            bytes,
        } = serde_json::from_slice(bytes).ok()?;
        let derivation = match aead.as_ref() {
            "AES-256-GCM-HMAC-SHA-256" => Derivation::Hmac,
            "ChaCha20Poly1305" => Derivation::HChaCha20,
            "AES-256-GCM" => Derivation::Legacy,
            _ => return None,
        };
        Some(Self {
            derivation,
            iv: exactly(&STANDARD.decode(iv.as_bytes()).ok()?)?,
            nonce: exactly(&STANDARD.decode(nonce.as_bytes()).ok()?)?,
            body: STANDARD.decode(bytes.as_bytes()).ok()?.into(),
        })
    }

    fn message_pack(bytes: &'a [u8]) -> Option<Self> {
        let (_, mut rest) = bytes.split_first()?;
        let name = str::from_utf8(take(&mut rest, Shape::Str)?).ok()?;
        let _key_digest = take(&mut rest, Shape::Str)?;
        let iv = take(&mut rest, Shape::Bin)?;
        let nonce = take(&mut rest, Shape::Bin)?;
        let body = take(&mut rest, Shape::Bin)?;
        let parsed = Self {
            derivation: Algorithm::parse(name)?.into(),
            iv: exactly(iv)?,
            nonce: exactly(nonce)?,
            body: body.into(),
        };
        rest.is_empty().then_some(parsed)
    }

    fn raw(bytes: &'a [u8], algorithm: Algorithm) -> Option<Self> {
        let (rest, nonce) = bytes.split_last_chunk()?;
        let (body, iv) = rest.split_last_chunk()?;
        Some(Self {
            derivation: algorithm.into(),
            iv: *iv,
            nonce: *nonce,
            body: body.into(),
        })
    }
}

/// Other fields, such as `id`, are ignored. JSON that repeats one of these is not KES's.
#[derive(Deserialize)]
struct Json<'a> {
    #[serde(borrow)]
    aead: Cow<'a, str>,
    #[serde(borrow)]
    iv: Cow<'a, str>,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

const ARRAY_OF_FIVE: u8 = 0x95;

#[derive(Clone, Copy)]
enum Shape {
    Str,
    Bin,
}

/// Takes the next string or binary of MessagePack (its specification, "str format family" and "bin
/// format family") from `rest`.
fn take<'a>(rest: &mut &'a [u8], shape: Shape) -> Option<&'a [u8]> {
    let (&kind, after) = rest.split_first()?;
    let width = match (shape, kind) {
        (Shape::Str, 0xa0..=0xbf) => 0,
        (Shape::Str, 0xd9) | (Shape::Bin, 0xc4) => 1,
        (Shape::Str, 0xda) | (Shape::Bin, 0xc5) => 2,
        (Shape::Str, 0xdb) | (Shape::Bin, 0xc6) => 4,
        _ => return None,
    };
    let (length, after) = after.split_at_checked(width)?;
    let length = if width == 0 {
        usize::from(kind & 0x1f)
    } else {
        length
            .iter()
            .fold(0_usize, |length, &byte| length << 8 | usize::from(byte))
    };
    let (taken, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(taken)
}

fn exactly<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.try_into().ok()
}
