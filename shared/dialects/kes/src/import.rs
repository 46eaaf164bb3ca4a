//! The import of a key: decode, operate, encode.

use std::sync::Arc;

use keyway_domain::keys::{HmacKey, NewImport};
use keyway_domain::{Algorithm, Key256};
use keyway_http::{Call, HandlerResult};
use serde::de::MapAccess;

use crate::endpoint::OnKeys;
use crate::error_response::{bad, not_acceptable};
use crate::generation::Text;
use crate::wire::{self, Base64, Fields, Object};
use crate::{ErrorResponse, Kes, names};

/// The key gets a new HMAC key, since no request can carry its old one.
pub(crate) async fn import(on: Arc<OnKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let id = names::key(call.params.get("name"))?;
    let (material, algorithm) = decode(&call.request.body)?;
    let new = NewImport {
        id,
        material,
        algorithm,
        hmac_key: HmacKey::Fresh,
        created_at: None,
        created_by: None,
    };
    on.keys.import(call.caller.caller()?, new).await?;
    Ok(wire::empty())
}

/// Older documents have `bytes`, later also `algorithm`; the latest have `key` and `cipher`.
#[derive(Default)]
pub(crate) struct Body {
    bytes: Option<Base64>,
    key: Option<Base64>,
    algorithm: Option<String>,
    cipher: Option<String>,
}

impl Fields for Body {
    const NAMES: &[&str] = &["bytes", "key", "algorithm", "cipher"];

    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "bytes" => self.bytes = map.next_value()?,
            "key" => self.key = map.next_value()?,
            "algorithm" => self.algorithm = map.next_value()?,
            "cipher" => self.cipher = map.next_value()?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Decodes a body of any generation: the key's material and its algorithm.
fn decode(body: &[u8]) -> Result<(Key256, Algorithm), ErrorResponse> {
    let Object(body) = wire::json::<Object<Body>>(body).map_err(|_| bad(Text::InvalidImport))?;
    let named = body.cipher.or(body.algorithm).unwrap_or_default();
    let algorithm = match Algorithm::parse(&named) {
        Some(algorithm) => algorithm,
        // Releases that call the material `bytes` do not require an algorithm.
        None if named.is_empty() && body.bytes.is_some() => Algorithm::Aes256,
        None => {
            let shown: String = named.chars().take(100).collect();
            return Err(not_acceptable(Text::UnsupportedCipher(shown)));
        }
    };
    let material = body.key.or(body.bytes).unwrap_or_default();
    let material = Key256::try_from(material.as_slice())
        .map_err(|_| not_acceptable(Text::KeySize(algorithm.as_str())))?;
    Ok((material, algorithm))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=";

    #[test]
    fn bodies_of_every_generation_are_read() {
        for (body, cipher) in [
            (format!(r#"{{"bytes":"{KEY}"}}"#), Algorithm::Aes256),
            (
                format!(r#"{{"bytes":"{KEY}","algorithm":""}}"#),
                Algorithm::Aes256,
            ),
            (
                format!(r#"{{"bytes":"{KEY}","algorithm":"XCHACHA20-POLY1305"}}"#),
                Algorithm::ChaCha20,
            ),
            (
                format!(r#"{{"key":"{KEY}","cipher":"AES256"}}"#),
                Algorithm::Aes256,
            ),
            (
                format!(r#"{{"Key":"{KEY}","Cipher":"ChaCha20","x":[1]}} trailing"#),
                Algorithm::ChaCha20,
            ),
            (
                format!(r#"{{"key":"{KEY}","cipher":"AES256-GCM_SHA256"}}"#),
                Algorithm::Aes256,
            ),
        ] {
            let (_, algorithm) = decode(body.as_bytes()).unwrap();
            assert_eq!(algorithm, cipher, "{body}");
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
