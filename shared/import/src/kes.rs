//! The formats of KES's keys in files and in secret stores.
//!
//! Source: the observed behaviour of KES's releases; vectors in `vectors/kes-ciphertexts.json`.
//!
//! ```text
//! until the beginning of 2024, JSON; all but `bytes` since v0.19.2, `version` ("v1") since v0.22.3
//!   {"version":..,"bytes":BASE64,"algorithm":NAME,"created_at":RFC 3339,"created_by":IDENTITY}
//!
//! since, standard base64 of the protobuf message KeyVersion
//!   1 key         { 1 bytes, 2 uint32 type: 1 AES256, 2 ChaCha20 }
//!   2 HMAC key    { 1 bytes, 2 uint32 hash: 1 SHA-256 }
//!   3 created at  { 1 int64 seconds, 2 int32 nanoseconds }
//!   4 string created by
//! ```
//!
//! Only the second format has HMAC keys. A key without an algorithm is an AES256 key, as in KES.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use keyway_domain::keys::{HmacKey, KeyId, NewImport};
use keyway_domain::{Algorithm, Key256};
use prost::Message;
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::{Unreadable, key_of};

/// The longest value, in bytes. KES writes at most some 300.
pub const MAX_VALUE_BYTES: usize = 4096;
const MAX_CREATED_BY_CHARACTERS: usize = 256;

/// Whether this can be the name of a key in KES: 1 to 80 of `[A-Za-z0-9_-]`, and no `-` at the beginning. KES refuses it at
/// the end too, but earlier releases allowed it there.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    (1..=80).contains(&name.len())
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Parses the stored value of the key of this name, of any release of KES. White space around the value is ignored.
///
/// # Errors
/// [`Unreadable`] when the value is not a key's, or has unknown parts.
pub fn key(name: &str, value: &[u8]) -> Result<NewImport, Unreadable> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(Unreadable::TooLong);
    }
    if !is_key_name(name) {
        return Err(Unreadable::Name);
    }
    let id = KeyId::parse("key_id", name).map_err(|_| Unreadable::Name)?;
    let value = value.trim_ascii();
    if value.starts_with(b"{") {
        of_json(id, value)
    } else {
        of_protobuf(id, value)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    version: Option<String>,
    bytes: Zeroizing<String>,
    algorithm: Option<String>,
    created_at: Option<String>,
    created_by: Option<String>,
}

fn of_json(id: KeyId, value: &[u8]) -> Result<NewImport, Unreadable> {
    let json: Json = serde_json::from_slice(value).map_err(|error| {
        // The error's text is not passed on, because it could repeat the value.
        if error.is_data() && error.to_string().starts_with("unknown field") {
            Unreadable::UnknownParts
        } else {
            Unreadable::Form
        }
    })?;
    if !matches!(json.version.as_deref(), None | Some("" | "v1")) {
        return Err(Unreadable::UnknownParts);
    }
    let algorithm = match json.algorithm.as_deref() {
        None | Some("") => Algorithm::Aes256,
        Some(name) => Algorithm::parse(name).ok_or(Unreadable::Algorithm)?,
    };
    let created_at = match json.created_at.as_deref() {
        None | Some("") => None,
        Some(text) => known(text.parse().map_err(|_| Unreadable::CreatedAt)?),
    };
    Ok(NewImport {
        id,
        material: key_of(json.bytes.as_bytes())?,
        algorithm,
        hmac_key: HmacKey::Absent,
        created_at,
        created_by: created_by(json.created_by.unwrap_or_default())?,
    })
}

#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct KeyVersion {
    #[prost(message, optional, tag = "1")]
    key: Option<Secret>,
    #[prost(message, optional, tag = "2")]
    hmac_key: Option<Secret>,
    #[prost(message, optional, tag = "3")]
    created_at: Option<Moment>,
    #[prost(string, tag = "4")]
    created_by: String,
}

/// A key with the number of its algorithm or hash.
#[derive(Clone, PartialEq, Message)]
#[prost(skip_debug)]
struct Secret {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
    #[prost(uint32, tag = "2")]
    kind: u32,
}

/// Wipes the bytes, because the derived `Message` cannot use a type that wipes itself.
impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Moment {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanoseconds: i32,
}

fn of_protobuf(id: KeyId, value: &[u8]) -> Result<NewImport, Unreadable> {
    let bytes = Zeroizing::new(STANDARD.decode(value).map_err(|_| Unreadable::Form)?);
    let message = KeyVersion::decode(bytes.as_slice()).map_err(|_| Unreadable::Form)?;
    let secret = message.key.as_ref().ok_or(Unreadable::Form)?;
    let algorithm = match secret.kind {
        1 => Algorithm::Aes256,
        2 => Algorithm::ChaCha20,
        _ => return Err(Unreadable::Algorithm),
    };
    let hmac_key = match &message.hmac_key {
        None => HmacKey::Absent,
        Some(hmac) if hmac.kind == 1 => HmacKey::Given(exactly(hmac)?),
        Some(_) => return Err(Unreadable::Algorithm),
    };
    let created_at = match message.created_at {
        None => None,
        Some(Moment {
            seconds,
            nanoseconds: nanoseconds @ 0..1_000_000_000,
        }) => known(Timestamp::new(seconds, nanoseconds).map_err(|_| Unreadable::CreatedAt)?),
        Some(_) => return Err(Unreadable::CreatedAt),
    };
    let import = NewImport {
        id,
        material: exactly(secret)?,
        algorithm,
        hmac_key,
        created_at,
        created_by: created_by(message.created_by.clone())?,
    };
    // KES has only this encoding. If the bytes differ, they hold something about the key that is not known here.
    if Zeroizing::new(message.encode_to_vec()) != bytes {
        return Err(Unreadable::UnknownParts);
    }
    Ok(import)
}

fn exactly(secret: &Secret) -> Result<Key256, Unreadable> {
    Key256::try_from(secret.bytes.as_slice()).map_err(|_| Unreadable::KeyLength)
}

/// The date, unless it is the beginning of year 1, which KES writes for an unknown date.
fn known(date: Timestamp) -> Option<Timestamp> {
    (date.as_second() != -62_135_596_800).then_some(date)
}

fn created_by(text: String) -> Result<Option<String>, Unreadable> {
    if text.chars().count() > MAX_CREATED_BY_CHARACTERS || text.contains(char::is_control) {
        return Err(Unreadable::CreatedBy);
    }
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn refusal(name: &str, value: &[u8]) -> Option<Unreadable> {
        key(name, value).err()
    }

    fn hmac(import: &NewImport) -> Option<&[u8; 32]> {
        match &import.hmac_key {
            HmacKey::Given(key) => Some(key.expose()),
            HmacKey::Fresh | HmacKey::Absent => None,
        }
    }

    fn vectors() -> Vec<Value> {
        let all: Value =
            serde_json::from_str(include_str!("../../../vectors/kes-ciphertexts.json")).unwrap();
        all["keys"].as_array().unwrap().clone()
    }

    #[test]
    fn keys_stored_by_kes_are_read() {
        assert_eq!(vectors().len(), 3);
        for vector in vectors() {
            let text = |name: &str| vector[name].as_str();
            let bytes = |name: &str| text(name).map(|text| STANDARD.decode(text).unwrap());
            let import = key("k", text("stored").unwrap().as_bytes()).ok().unwrap();
            assert_eq!(import.material.expose().as_slice(), bytes("key").unwrap());
            assert_eq!(
                import.algorithm.as_str(),
                text("cipher").unwrap_or("AES256")
            );
            assert_eq!(hmac(&import).map(|key| key.to_vec()), bytes("hmac_key"));
            let created_at = import.created_at.map(|date| date.to_string());
            assert_eq!(created_at.as_deref(), text("created_at"));
            assert_eq!(import.created_by.as_deref(), text("created_by"));
        }
    }

    #[test]
    fn json_of_all_releases_is_read() {
        let bytes = STANDARD.encode([7; 32]);
        let with = |more: &str| format!("{{\"bytes\":\"{bytes}\"{more}}}\n");
        for (more, algorithm, by) in [
            ("", Algorithm::Aes256, None),
            (
                r#","algorithm":"","created_by":"""#,
                Algorithm::Aes256,
                None,
            ),
            (
                r#","algorithm":"AES256-GCM_SHA256","created_at":"2022-03-04T05:06:07Z","created_by":"ab""#,
                Algorithm::Aes256,
                Some("ab"),
            ),
            (
                r#","version":"v1","algorithm":"XCHACHA20-POLY1305","created_at":"0001-01-01T00:00:00Z","created_by":"ab""#,
                Algorithm::ChaCha20,
                Some("ab"),
            ),
        ] {
            let import = key("k", with(more).as_bytes()).ok().unwrap();
            assert_eq!(import.material.expose(), &[7; 32]);
            assert_eq!(
                (import.algorithm, import.created_by.as_deref()),
                (algorithm, by)
            );
            assert_eq!(import.created_at.is_some(), more.contains("2022"));
            assert!(hmac(&import).is_none());
        }
        for (more, why) in [
            (r#","version":"v2""#, Unreadable::UnknownParts),
            (r#","secret":"x""#, Unreadable::UnknownParts),
            (r#","algorithm":"DES""#, Unreadable::Algorithm),
            (r#","created_at":"yesterday""#, Unreadable::CreatedAt),
            (r#","created_by":"a\nb""#, Unreadable::CreatedBy),
            (r#","bytes":"""#, Unreadable::Form),
            (r#","created_by":7"#, Unreadable::Form),
        ] {
            assert_eq!(refusal("k", with(more).as_bytes()), Some(why), "{more}");
        }
        let of_length = |length: usize| {
            let bytes = STANDARD.encode(vec![7; length]);
            refusal("k", format!("{{\"bytes\":\"{bytes}\"}}").as_bytes())
        };
        for length in [0, 16, 31, 33, 36, 64, 1000] {
            assert_eq!(of_length(length), Some(Unreadable::KeyLength), "{length}");
        }
        assert_eq!(of_length(32), None);
    }

    fn message() -> KeyVersion {
        let secret = |kind, byte| Secret {
            bytes: vec![byte; 32],
            kind,
        };
        KeyVersion {
            key: Some(secret(1, 7)),
            hmac_key: Some(secret(1, 8)),
            created_at: Some(Moment {
                seconds: 1_700_000_000,
                nanoseconds: 5,
            }),
            created_by: "somebody".to_owned(),
        }
    }

    fn kept(message: &KeyVersion) -> Vec<u8> {
        STANDARD.encode(message.encode_to_vec()).into_bytes()
    }

    #[test]
    fn message_of_another_kind_is_refused() {
        assert_eq!(refusal("k", &kept(&message())), None);
        type Change = fn(&mut KeyVersion);
        let changes: [(Change, Unreadable); 9] = [
            (|m| m.key = None, Unreadable::Form),
            (|m| m.key.as_mut().unwrap().kind = 0, Unreadable::Algorithm),
            (|m| m.key.as_mut().unwrap().kind = 3, Unreadable::Algorithm),
            (
                |m| m.key.as_mut().unwrap().bytes.push(0),
                Unreadable::KeyLength,
            ),
            (
                |m| m.hmac_key.as_mut().unwrap().kind = 2,
                Unreadable::Algorithm,
            ),
            (
                |m| m.hmac_key.as_mut().unwrap().bytes.clear(),
                Unreadable::KeyLength,
            ),
            (
                |m| m.created_at.as_mut().unwrap().nanoseconds = -1,
                Unreadable::CreatedAt,
            ),
            (
                |m| m.created_at.as_mut().unwrap().seconds = i64::MAX,
                Unreadable::CreatedAt,
            ),
            (|m| m.created_by = "x".repeat(257), Unreadable::CreatedBy),
        ];
        for (change, why) in changes {
            let mut changed = message();
            change(&mut changed);
            assert_eq!(refusal("k", &kept(&changed)), Some(why));
        }
        // An unknown field, a repeated field, and a field in another place.
        let whole = message().encode_to_vec();
        for more in [&[0x28, 1][..], &[0x22, 1, b'x']] {
            let value = STANDARD.encode([&whole, more].concat());
            assert_eq!(
                refusal("k", value.as_bytes()),
                Some(Unreadable::UnknownParts)
            );
        }
        let value = STANDARD.encode([&[0x22, 1, b'x'][..], &whole].concat());
        assert_eq!(
            refusal("k", value.as_bytes()),
            Some(Unreadable::UnknownParts)
        );
    }

    #[test]
    fn malformed_key_is_refused() {
        let long = vec![b'a'; MAX_VALUE_BYTES + 1];
        assert_eq!(refusal("k", &long), Some(Unreadable::TooLong));
        for value in [
            &b""[..],
            b"{}",
            b"{",
            b"[]",
            b"secret",
            b"!",
            b"\xff\xfe",
            b"AAAA",
        ] {
            assert!(refusal("k", value).is_some());
        }
        let long = "x".repeat(81);
        for name in ["", "-a", "a.b", "a/b", "..", "a b", "ü", "_-x\0", &long] {
            assert_eq!(
                refusal(name, &kept(&message())),
                Some(Unreadable::Name),
                "{name}"
            );
        }
        for name in ["a", "_", "_-___---_", "A9-", &"x".repeat(80)] {
            assert_eq!(refusal(name, &kept(&message())), None, "{name}");
        }
    }
}
