//! MinIO's static key: `MINIO_KMS_SECRET_KEY`, a name and 32 bytes in base64 with a colon between them.
//!
//! MinIO seals as KES does, with AES256, and makes MACs with the same key.

use keyway_domain::Algorithm;
use keyway_domain::keys::{HmacKey, KeyId, NewImport};

use crate::{Unreadable, key_of};

/// The longest value, in bytes: the longest name of a key in Keyway, and a key.
pub const MAX_STATIC_KEY_BYTES: usize = 256;

/// Parses MinIO's static key. White space around the value is ignored.
///
/// # Errors
/// [`Unreadable`] when the value is not such a key.
pub fn static_key(value: &[u8]) -> Result<NewImport, Unreadable> {
    if value.len() > MAX_STATIC_KEY_BYTES {
        return Err(Unreadable::TooLong);
    }
    let value = value.trim_ascii();
    let colon = value.iter().position(|&byte| byte == b':');
    let (name, rest) = value.split_at(colon.ok_or(Unreadable::Form)?);
    let name = str::from_utf8(name).map_err(|_| Unreadable::Name)?;
    let id = KeyId::parse("key_id", name).map_err(|_| Unreadable::Name)?;
    let encoded = rest.get(1..).ok_or(Unreadable::Form)?;
    Ok(NewImport {
        id,
        material: key_of(encoded)?,
        algorithm: Algorithm::Aes256,
        hmac_key: HmacKey::Given(key_of(encoded)?),
        created_at: None,
        created_by: None,
    })
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    #[test]
    fn mac_key_of_minio_is_the_key() {
        let encoded = STANDARD.encode([7; 32]);
        let import = static_key(format!("my-minio.key:{encoded}\n").as_bytes());
        let import = import.ok().unwrap();
        assert_eq!(import.id.as_str(), "my-minio.key");
        assert_eq!(import.algorithm, Algorithm::Aes256);
        assert_eq!(import.material.expose(), &[7; 32]);
        assert!(matches!(import.hmac_key, HmacKey::Given(key) if key.ct_eq(&[7; 32])));

        for (value, why) in [
            (String::new(), Unreadable::Form),
            (encoded.clone(), Unreadable::Form),
            (format!(":{encoded}"), Unreadable::Name),
            (format!("a/b:{encoded}"), Unreadable::Name),
            (format!("k:{encoded}:"), Unreadable::Form),
            ("k:".to_owned(), Unreadable::KeyLength),
            (
                format!("k:{}", STANDARD.encode([7; 31])),
                Unreadable::KeyLength,
            ),
            (
                format!("k:{}", STANDARD.encode([7; 64])),
                Unreadable::KeyLength,
            ),
            ("k".repeat(300), Unreadable::TooLong),
        ] {
            assert_eq!(static_key(value.as_bytes()).err(), Some(why), "{value}");
        }
    }
}
