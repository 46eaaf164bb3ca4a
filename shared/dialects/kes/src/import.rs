//! The import of a key: decode, operate, encode.

use keyway_domain::SecretBytes;
use serde::de::MapAccess;

use crate::Refusal;
use crate::wire::{self, Base64, Fields, Object};

/// The older documents' `bytes` (with `algorithm` behind it in between), and the latest `key` with its `cipher`.
#[derive(Default)]
struct Body {
    bytes: Option<Base64>,
    key: Option<Base64>,
    algorithm: Option<String>,
    cipher: Option<String>,
}

impl Fields for Body {
    fn take<'de, A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
    ) -> Result<Option<()>, A::Error> {
        match name {
            "bytes" => self.bytes = map.next_value()?,
            "key" => self.key = map.next_value()?,
            "algorithm" => self.algorithm = map.next_value()?,
            "cipher" => self.cipher = map.next_value()?,
            _ => return Ok(None),
        }
        Ok(Some(()))
    }
}

/// How KES encrypts under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    /// AES-256-GCM under a derived key.
    Aes256,
    /// ChaCha20-Poly1305 under a derived key.
    ChaCha20,
}

/// What is to be imported.
pub(crate) struct Imported {
    /// 32 bytes.
    pub(crate) material: SecretBytes,
    /// What they are for.
    pub(crate) cipher: Cipher,
}

const KEY_BYTES: usize = 32;

/// Decodes a body of any generation.
pub(crate) fn decode(body: &[u8]) -> Result<Imported, Refusal> {
    let Object(body) = wire::json::<Object<Body>>(body)
        .map_err(|_| Refusal::bad("invalid import key request body"))?;
    let named = body.cipher.or(body.algorithm).unwrap_or_default();
    let cipher = match named.as_str() {
        "AES256" | "AES256-GCM_SHA256" => Cipher::Aes256,
        "ChaCha20" | "XCHACHA20-POLY1305" => Cipher::ChaCha20,
        // Where the material was called `bytes`, nobody had to say.
        "" if body.bytes.is_some() => Cipher::Aes256,
        other => {
            let shown: String = other.chars().take(100).collect();
            return Err(Refusal::not_acceptable(format!(
                "algorithm '{shown}' is not supported"
            )));
        }
    };
    let material = body.key.or(body.bytes).unwrap_or_default();
    if material.as_slice().len() != KEY_BYTES {
        let name = match cipher {
            Cipher::Aes256 => "AES256",
            Cipher::ChaCha20 => "ChaCha20",
        };
        return Err(Refusal::not_acceptable(format!(
            "invalid key size for '{name}'"
        )));
    }
    Ok(Imported {
        material: material.into_secret(),
        cipher,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=";

    #[test]
    fn bodies_of_every_generation_are_read() {
        for (body, cipher) in [
            (format!(r#"{{"bytes":"{KEY}"}}"#), Cipher::Aes256),
            (
                format!(r#"{{"bytes":"{KEY}","algorithm":""}}"#),
                Cipher::Aes256,
            ),
            (
                format!(r#"{{"bytes":"{KEY}","algorithm":"XCHACHA20-POLY1305"}}"#),
                Cipher::ChaCha20,
            ),
            (
                format!(r#"{{"key":"{KEY}","cipher":"AES256"}}"#),
                Cipher::Aes256,
            ),
            (
                format!(r#"{{"Key":"{KEY}","Cipher":"ChaCha20","x":[1]}} trailing"#),
                Cipher::ChaCha20,
            ),
            (
                format!(r#"{{"key":"{KEY}","cipher":"AES256-GCM_SHA256"}}"#),
                Cipher::Aes256,
            ),
        ] {
            let imported = decode(body.as_bytes()).unwrap();
            assert_eq!(imported.cipher, cipher, "{body}");
            assert_eq!(imported.material.expose().len(), 32);
        }
        for bad in [
            "",
            "{",
            "[]",
            r#"{"bytes":"x"}"#,
            r#"{"bytes":5}"#,
            r#"{"bytes":"AAAA"}"#,
            "{}",
            "null",
            &format!(r#"{{"key":"{KEY}","cipher":"DES"}}"#),
            &format!(r#"{{"key":"{KEY}"}}"#),
            r#"{"key":"AAAA","cipher":"AES256"}"#,
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
