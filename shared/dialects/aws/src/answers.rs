//! Answers: JSON in AWS's format, which no cache may store.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response};
use jiff::{SignedDuration, Timestamp};
use keyway_domain::datakey::MacHash;
use keyway_domain::keys::{KeyId, KeyState, KeyUsage, MasterKey, Origin};
use keyway_domain::{Fault, SecretBytes};
use keyway_http::uncached;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::ErrorResponse;
use crate::error_response::internal;
use crate::members::ALGORITHM;
use crate::names::Names;

const CONTENT_TYPE: &str = "application/x-amz-json-1.1";

/// The value that AWS sends.
const CACHING: HeaderValue = HeaderValue::from_static("no-cache, no-store, must-revalidate");

/// The initial buffer size, enough for the longest ciphertext and data key in base64: a buffer that grows leaves copies
/// in memory.
const ANSWER_BYTES: usize = 10 << 10;

/// A 200 answer with this body.
pub(crate) fn json(body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = uncached(CONTENT_TYPE, body);
    response.headers_mut().insert(CACHE_CONTROL, CACHING);
    response
}

pub(crate) fn to_json(body: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut json, body)?;
    Ok(json)
}

/// A 200 answer.
pub(crate) fn ok(body: &impl Serialize) -> Result<Response<Bytes>, ErrorResponse> {
    let body = to_json(body);
    body.map(json)
        .map_err(|error| internal(Fault::new("encoding an answer", error)))
}

/// A 200 answer without a body.
pub(crate) fn empty() -> Response<Bytes> {
    json(Bytes::new())
}

/// Seconds since 1970, to the millisecond.
#[derive(Serialize)]
pub(crate) struct Seconds(f64);

impl From<Timestamp> for Seconds {
    fn from(at: Timestamp) -> Self {
        Self(SignedDuration::from_millis(at.as_millisecond()).as_secs_f64())
    }
}

/// Bytes that are not secret, in base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Secret bytes in base64.
pub(crate) fn secret_base64(bytes: &SecretBytes) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(bytes.expose()))
}

/// The id of a version of a key's material: 64 hex digits, which reveal nothing of the material.
pub(crate) fn material_id(id: &KeyId, version: u32) -> String {
    let text = format!("keyway/v1/material-id\0{id}\0{version}");
    hex::encode(digest(&SHA256, text.as_bytes()))
}

/// A key as AWS describes it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KeyMetadata<'a> {
    #[serde(rename = "AWSAccountId")]
    account: String,
    arn: String,
    creation_date: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    current_key_material_id: Option<String>,
    customer_master_key_spec: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_date: Option<Seconds>,
    description: &'a str,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_algorithms: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_model: Option<&'static str>,
    key_id: &'a str,
    key_manager: &'static str,
    key_spec: &'static str,
    key_state: &'static str,
    key_usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mac_algorithms: Option<[&'static str; 1]>,
    multi_region: bool,
    origin: &'static str,
}

/// The name of an HMAC algorithm.
pub(crate) const fn mac_algorithm(hash: MacHash) -> &'static str {
    match hash {
        MacHash::Sha224 => "HMAC_SHA_224",
        MacHash::Sha256 => "HMAC_SHA_256",
        MacHash::Sha384 => "HMAC_SHA_384",
        MacHash::Sha512 => "HMAC_SHA_512",
    }
}

pub(crate) const OWN_ORIGIN: &str = "AWS_KMS";

/// A key's state as AWS names it.
pub(crate) const fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Enabled => "Enabled",
        KeyState::Disabled => "Disabled",
        KeyState::PendingDeletion { .. } => "PendingDeletion",
    }
}

impl<'a> KeyMetadata<'a> {
    pub(crate) fn of(key: &'a MasterKey, names: &Names<'_>) -> Self {
        let description = key.description.as_ref();
        let encrypts = key.spec.usage() == KeyUsage::EncryptDecrypt;
        Self {
            account: names.account().to_string(),
            arn: names.arn(&key.id),
            creation_date: key.created_at.into(),
            // AWS names the material of keys that can rotate.
            current_key_material_id: encrypts.then(|| material_id(&key.id, key.current_version())),
            customer_master_key_spec: key.spec.as_str(),
            deletion_date: key.deletion_date().map(Seconds::from),
            description: description.map_or("", |text| text.as_str()),
            enabled: key.state == KeyState::Enabled,
            encryption_algorithms: encrypts.then_some([ALGORITHM]),
            expiration_model: match key.origin {
                Origin::Kms => None,
                Origin::External { .. } => Some("KEY_MATERIAL_DOES_NOT_EXPIRE"),
            },
            key_id: key.id.as_str(),
            key_manager: "CUSTOMER",
            key_spec: key.spec.as_str(),
            key_state: state(key.state),
            key_usage: key.spec.usage().as_str(),
            mac_algorithms: key.spec.mac_hash().map(|hash| [mac_algorithm(hash)]),
            multi_region: false,
            origin: match key.origin {
                Origin::Kms => OWN_ORIGIN,
                Origin::External { .. } => "EXTERNAL",
            },
        }
    }
}

/// The end of a page: whether more follows, and the marker of the next page.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    next_marker: Option<String>,
    truncated: bool,
}

impl From<Option<String>> for More {
    fn from(next_marker: Option<String>) -> Self {
        Self {
            truncated: next_marker.is_some(),
            next_marker,
        }
    }
}
