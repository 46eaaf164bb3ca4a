//! The API's first generation: its routes `/kms/key/...`, its camelCase fields, and its error codes.
//!
//! MinIO's older clients (`mc` before madmin v3, minio-py's `MinioAdmin`) use two of these paths below MinIO's prefix and
//! name the key by `key-id`. They get MinIO's format. Clients that name the key as the document does get the document's.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use http::Method;
use keyway_domain::datakey::{DataKeys, Trial, TrialFailure};
use keyway_domain::keys::{KeySpec, KeyState, Keys, MasterKey, NewKey};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, Query, RequestLine, RouteEntry};
use serde::Serialize;

use crate::error_response::invalid_field;
use crate::keys::{new_key, query_value};
use crate::wire::KEY_ID_QUERY;
use crate::{ErrorResponse, PREFIXES, RustFs, route, wire};

/// The domain services that these routes use.
pub(crate) struct OnKeys {
    pub(crate) keys: Arc<Keys>,
    pub(crate) data_keys: Arc<DataKeys>,
}

/// The path at which MinIO's clients test a key.
pub(crate) const STATUS: &str = "/kms/key/status";

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, OnKeys>> {
    let mut routes = vec![
        route(Method::POST, "/kms/key/create", Action::CreateKey, create),
        route(Method::GET, "/kms/key/list", Action::ListKeys, list),
        route(Method::GET, STATUS, Action::DescribeKey, status),
    ];
    // The document specifies POST, and its implementation accepted PUT.
    for method in [Method::POST, Method::PUT] {
        routes.push(route(
            method.clone(),
            "/kms/key/enable",
            Action::EnableKey,
            enable,
        ));
        routes.push(route(
            method,
            "/kms/key/disable",
            Action::DisableKey,
            disable,
        ));
    }
    // All parameters are in the query.
    routes.into_iter().map(RouteEntry::without_body).collect()
}

/// Whether the path is below `/kms/key/`, with or without a route.
pub(crate) fn owns(line: &RequestLine<'_>) -> bool {
    let below = line.path.strip_prefix(line.prefix.unwrap_or_default());
    below.is_some_and(|path| path.starts_with("/kms/key/"))
}

/// This generation's code for an error.
pub(crate) fn code(code: &'static str) -> &'static str {
    match code {
        "KeyNotFound" => "KMSKeyNotFound",
        "KeyAlreadyExists" => "KMSKeyAlreadyExists",
        "ServiceNotConfigured" | "ServiceNotRunning" => "KMSNotConfigured",
        "BackendError" | "InternalError" => "KMSConnectionError",
        "InvalidRequest" | "InvalidKeyState" | "Conflict" => "KMSInvalidRequest",
        other => other,
    }
}

/// This generation's own text for an error, if it has one.
pub(crate) fn text(code: &str) -> Option<&'static str> {
    (code == "KMSKeyNotFound").then_some("The specified KMS key does not exist")
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
struct KeyOut<'a> {
    key_id: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
}

impl<'a> KeyOut<'a> {
    fn of(key: &'a MasterKey) -> Self {
        Self {
            key_id: key.id.as_str(),
            status: match key.state {
                KeyState::Enabled => "enabled",
                KeyState::Disabled => "disabled",
                KeyState::PendingDeletion { .. } => "pending_deletion",
            },
            created_at: Some(wire::date(key.created_at)),
            algorithm: None,
            message: None,
        }
    }
}

/// MinIO's parameter for the key.
const KEY_ID: &str = "key-id";

/// Whether a query names a key by a parameter of the first generation's document or of RustFS, not by MinIO's.
pub(crate) fn names_key(query: &Query) -> bool {
    let is_name = |name: &str| name != KEY_ID && KEY_ID_QUERY.contains(&name);
    query.names().any(is_name)
}

fn is_below_minio(call: &Call<RustFs>) -> bool {
    let [_, minio] = PREFIXES;
    call.prefix == minio
}

/// Whether the request names the key as MinIO's clients do and so gets MinIO's format.
fn wants_minio(call: &Call<RustFs>) -> bool {
    is_below_minio(call) && !names_key(&call.query) && call.query.names().any(|name| name == KEY_ID)
}

async fn create(on: Arc<OnKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    if wants_minio(&call) {
        let id = wire::query_key(&call.query)?
            .ok_or_else(|| invalid_field(KEY_ID, "must not be empty"))?;
        let new = NewKey {
            id: Some(id),
            ..NewKey::default()
        };
        on.keys.create(&call.caller, new).await?;
        return Ok(wire::empty());
    }
    let key = on.keys.create(&call.caller, new_key(&call)?).await?;
    wire::ok(&KeyOut {
        status: "created",
        ..KeyOut::of(&key)
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ListAnswer<'a> {
    keys: Vec<KeyOut<'a>>,
}

/// Lists all keys. This generation has no pages.
async fn list(on: Arc<OnKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let pattern = query_value(&call.query, "pattern")?.filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(str::to_owned);
    let found = on.keys.list_all(&call.caller, pattern).await?;
    wire::ok(&ListAnswer {
        keys: found.iter().map(KeyOut::of).collect(),
    })
}

/// As MinIO's clients read it. An error that is not there is a success.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
struct TriedKey<'a> {
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decryption_error: Option<String>,
}

/// Tests the key, or the default key.
async fn tried(data_keys: &DataKeys, call: &Call<RustFs>) -> HandlerResult<RustFs> {
    let key_id = wire::query_key(&call.query)?;
    let Trial { key_id, failure } = data_keys.try_out(&call.caller, key_id).await?;
    let item = |error| ErrorResponse::from(error).into_item(&call.caller, &call.request_id);
    let text = |error| item(error).message;
    let (encryption_error, decryption_error) = match failure {
        None => (None, None),
        Some(TrialFailure::Encryption(error)) => (Some(text(error)), None),
        Some(TrialFailure::Decryption(error)) => (None, Some(text(error))),
    };
    wire::ok(&TriedKey {
        key_id: key_id.as_str(),
        encryption_error,
        decryption_error,
    })
}

async fn status(on: Arc<OnKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    if is_below_minio(&call) && !names_key(&call.query) {
        return tried(&on.data_keys, &call).await;
    }
    let id =
        wire::query_key(&call.query)?.ok_or_else(|| invalid_field("keyName", "is required"))?;
    let key = on.keys.describe(&call.caller, &id).await?;
    wire::ok(&KeyOut {
        algorithm: Some(match key.spec {
            KeySpec::SymmetricDefault => "AES256",
            mac => mac.as_str(),
        }),
        ..KeyOut::of(&key)
    })
}

async fn enable(on: Arc<OnKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let id = wire::required_key(None, &call.query)?;
    let key = on.keys.enable(&call.caller, &id).await?;
    changed(&key, "Key enabled successfully")
}

async fn disable(on: Arc<OnKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let id = wire::required_key(None, &call.query)?;
    let key = on.keys.disable(&call.caller, &id).await?;
    changed(&key, "Key disabled successfully")
}

fn changed(key: &MasterKey, message: &'static str) -> HandlerResult<RustFs> {
    wire::ok(&KeyOut {
        created_at: None,
        message: Some(message),
        ..KeyOut::of(key)
    })
}
