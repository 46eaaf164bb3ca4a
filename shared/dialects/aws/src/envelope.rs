//! RustFS's JSON envelope of data keys. RustFS only hands a ciphertext back to its KMS if it is in one.
//!
//! The envelope protects nothing: the ciphertext in it is complete, and opening one trusts no other member.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use keyway_domain::EncryptionContext;
use keyway_domain::access::Envelope;
use keyway_domain::datakey::{DataKeySpec, Sealed};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::members::LONGEST_CIPHERTEXT;

/// The members that RustFS requires, with their types. The version is optional there.
#[derive(Serialize)]
struct Written<'a> {
    key_id: String,
    master_key_id: &'a str,
    key_spec: &'static str,
    encrypted_key: &'a [u8],
    nonce: [u8; 0],
    encryption_context: NoPairs,
    created_at: String,
    master_key_version: u32,
}

#[derive(Serialize)]
struct NoPairs {}

/// The same members, of which only the ciphertext is read. A repeated one is refused, as RustFS does.
#[derive(Deserialize)]
struct Read {
    #[serde(rename = "key_id")]
    _key_id: IgnoredAny,
    #[serde(rename = "master_key_id")]
    _master_key_id: IgnoredAny,
    #[serde(rename = "key_spec")]
    _key_spec: IgnoredAny,
    encrypted_key: Vec<u8>,
    #[serde(rename = "nonce")]
    _nonce: IgnoredAny,
    #[serde(rename = "encryption_context")]
    _encryption_context: IgnoredAny,
    #[serde(rename = "created_at")]
    _created_at: IgnoredAny,
}

/// Puts a ciphertext into an envelope. Returns it as it is if the envelope would be longer than `Decrypt` takes.
pub(crate) fn wrapped(sealed: &Sealed, spec: DataKeySpec, now: Timestamp) -> Vec<u8> {
    let written = Written {
        key_id: id_of(&sealed.blob).to_string(),
        master_key_id: sealed.key_id.as_str(),
        key_spec: match spec {
            DataKeySpec::Aes128 => "AES_128",
            // RustFS knows no other lengths.
            DataKeySpec::Aes256 | DataKeySpec::Bytes(_) => "AES_256",
        },
        encrypted_key: &sealed.blob,
        nonce: [],
        encryption_context: NoPairs {},
        created_at: format!("{:.0}", now.to_zoned(TimeZone::UTC)),
        master_key_version: sealed.key_version,
    };
    match serde_json::to_vec(&written) {
        Ok(envelope) if envelope.len() <= LONGEST_CIPHERTEXT => envelope,
        _ => sealed.blob.clone(),
    }
}

/// The ciphertext in an envelope, or the bytes as they are if they are no envelope.
pub(crate) fn unwrapped(bytes: &[u8]) -> Cow<'_, [u8]> {
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if start != Some(&b'{') {
        return Cow::Borrowed(bytes);
    }
    match serde_json::from_slice::<Read>(bytes) {
        Ok(read) => Cow::Owned(read.encrypted_key),
        Err(_) => Cow::Borrowed(bytes),
    }
}

/// The envelope of a new data key if nobody chose one. RustFS names an object in the encryption context as its bucket's
/// value, `bucket/object`, and calls by AWS's SDK for Rust.
pub(crate) fn by_request(headers: &HeaderMap, context: &EncryptionContext) -> Envelope {
    let is_sdk = ["user-agent", "x-amz-user-agent"].iter().any(|name| {
        let agent = headers.get(*name).and_then(|value| value.to_str().ok());
        agent.is_some_and(|agent| agent.contains("aws-sdk-rust/"))
    });
    let names_object = |(key, value): (&str, &str)| {
        value
            .strip_prefix(key)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    if is_sdk && context.pairs().any(names_object) {
        Envelope::RustFs
    } else {
        Envelope::Plain
    }
}

/// A UUID that is different for each ciphertext.
fn id_of(blob: &[u8]) -> Uuid {
    let hash = digest(&SHA256, blob);
    let mut id = [0; 16];
    for (to, from) in id.iter_mut().zip(hash.as_ref()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(id).into_uuid()
}
