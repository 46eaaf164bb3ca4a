//! Ciphertext format 1 a second time, straight from its description, on RustCrypto instead of
//! aws-lc. It shares no code with the crate: what the two agree on is the format, not a bug of one
//! library or of one reading.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

/// Magic and label of a purpose.
pub(crate) type Purpose = (&'static [u8; 2], &'static str);
pub(crate) const SEAL: Purpose = (b"\xc7\x4b", "keyway/v1/seal");
pub(crate) const WRAP: Purpose = (b"\xc7\x4d", "keyway/v1/wrap");
pub(crate) const PASSPHRASE: Purpose = (b"\xc7\x50", "keyway/v1/passphrase");

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Context {
    None,
    Map(Vec<(String, String)>),
    Opaque(Vec<u8>),
}

impl Context {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::None => out.push(0),
            Self::Map(pairs) => {
                let mut pairs = pairs.clone();
                pairs.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
                out.push(1);
                out.extend((pairs.len() as u32).to_be_bytes());
                for text in pairs.iter().flat_map(|(k, v)| [k, v]) {
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
            }
            Self::Opaque(bytes) => {
                out.push(2);
                out.extend((bytes.len() as u32).to_be_bytes());
                out.extend(bytes);
            }
        }
        out
    }

    /// Reads an encoding back; `None` if it is not exactly one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, mut rest) = bytes.split_first()?;
        let context = match kind {
            0 => Self::None,
            1 => {
                let mut pairs = Vec::new();
                for _ in 0..take_u32(&mut rest)? {
                    pairs.push((take_text(&mut rest)?, take_text(&mut rest)?));
                }
                Self::Map(pairs)
            }
            2 => Self::Opaque(take_bytes(&mut rest)?.to_vec()),
            _ => return None,
        };
        rest.is_empty().then_some(context)
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<usize> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number) as usize)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_u32(rest)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(bytes)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    String::from_utf8(take_bytes(rest)?.to_vec()).ok()
}

pub(crate) fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// SP 800-108 in counter mode, a 32-bit counter before the fixed input.
pub(crate) fn kdf_counter(key: &[u8], fixed: &[u8], length: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for counter in 1_u32.. {
        if out.len() >= length {
            break;
        }
        out.extend(hmac_sha256(key, &[&counter.to_be_bytes(), fixed].concat()));
    }
    out.truncate(length);
    out
}

fn derive(label: &str, key: &[u8], header: &[u8], encoded: &[u8]) -> Vec<u8> {
    let digest = Sha256::digest([header, encoded].concat());
    let fixed = [label.as_bytes(), &[0], &digest, &608_u32.to_be_bytes()].concat();
    kdf_counter(key, &fixed, 76)
}

pub(crate) fn seal(
    (magic, label): Purpose,
    key: &[u8; 32],
    key_id: &str,
    version: u32,
    context: &Context,
    plaintext: &[u8],
    fresh: &[u8; 32],
) -> Vec<u8> {
    let encoded = context.encode();
    let mut blob = magic.to_vec();
    blob.extend([1, 1, encoded[0]]);
    blob.extend(version.to_be_bytes());
    blob.push(key_id.len() as u8);
    blob.extend(key_id.as_bytes());
    blob.extend(hmac_sha256(key, &[b"salt", &fresh[..], plaintext].concat()));

    let okm = derive(label, key, &blob, &encoded);
    blob.extend(&okm[44..]);
    let body = Aes256Gcm::new_from_slice(&okm[..32])
        .unwrap()
        .encrypt(
            &Nonce::try_from(&okm[32..44]).unwrap(),
            Payload {
                msg: plaintext,
                aad: &[&blob[..], &encoded].concat(),
            },
        )
        .unwrap();
    blob.extend(body);
    blob
}

pub(crate) fn open(
    (magic, label): Purpose,
    key: &[u8; 32],
    context: &Context,
    blob: &[u8],
) -> Option<Vec<u8>> {
    let encoded = context.encode();
    let id_length = usize::from(*blob.get(9)?);
    let (header, after) = blob.split_at_checked(10 + id_length + 32)?;
    let (commitment, body) = after.split_at_checked(32)?;
    let okm = derive(label, key, header, &encoded);
    let readable = header.starts_with(magic)
        && header[2..5] == [1, 1, encoded[0]]
        && header[5..9] != [0; 4]
        && (1..=128).contains(&id_length)
        && str::from_utf8(&header[10..10 + id_length]).is_ok()
        && commitment == &okm[44..];
    if !readable {
        return None;
    }
    Aes256Gcm::new_from_slice(&okm[..32])
        .unwrap()
        .decrypt(
            &Nonce::try_from(&okm[32..44]).unwrap(),
            Payload {
                msg: body,
                aad: &[header, commitment, &encoded].concat(),
            },
        )
        .ok()
}
