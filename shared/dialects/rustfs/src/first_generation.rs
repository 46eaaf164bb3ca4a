//! The routes and words of the API's first generation: `/kms/key/...`, camelCase, codes of its own.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use keyway_domain::keys::{KeyQuery, KeyState, Keys, MasterKey};
use keyway_domain::policy::Action;
use keyway_http::{Call, Route};
use serde::Serialize;

use crate::keys::{new_key, query_value};
use crate::{Refusal, RustFs, route, wire};

pub(crate) fn routes(keys: &Arc<Keys>) -> Vec<Route<RustFs>> {
    let mut routes = vec![
        route(
            Method::POST,
            "/kms/key/create",
            Action::CreateKey,
            keys,
            create,
        ),
        route(Method::GET, "/kms/key/list", Action::ListKeys, keys, list),
        route(
            Method::GET,
            "/kms/key/status",
            Action::DescribeKey,
            keys,
            status,
        ),
    ];
    // The document says POST, and its implementation took PUT.
    for method in [Method::POST, Method::PUT] {
        routes.push(route(
            method.clone(),
            "/kms/key/enable",
            Action::EnableKey,
            keys,
            enable,
        ));
        routes.push(route(
            method,
            "/kms/key/disable",
            Action::DisableKey,
            keys,
            disable,
        ));
    }
    // All is in the query.
    routes.into_iter().map(Route::without_body).collect()
}

/// Whether the path is one of these routes, or would be if there were such a route.
pub(crate) fn owns(raw_path: &str) -> bool {
    raw_path.contains("/kms/key/")
}

/// This generation's name for an error.
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

/// This generation's own text for an error, where it has one.
pub(crate) fn text(code: &str) -> Option<&'static str> {
    (code == "KMSKeyNotFound").then_some("The specified KMS key does not exist")
}

type Answer = Result<Response<Bytes>, Refusal>;

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

async fn create(keys: Arc<Keys>, call: Call<RustFs>) -> Answer {
    let key = keys.create(&call.caller, new_key(&call)?).await?;
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

/// All keys at once: this generation knows no pages.
async fn list(keys: Arc<Keys>, call: Call<RustFs>) -> Answer {
    let pattern = query_value(&call.query, "pattern")?.filter(|pattern| !pattern.is_empty());
    let mut query = KeyQuery {
        limit: 1000,
        pattern: pattern.map(str::to_owned),
        ..KeyQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let page = keys.list(&call.caller, &query).await?;
        found.extend(page.keys);
        query.marker = page.next_marker;
        if query.marker.is_none() {
            break;
        }
    }
    wire::ok(&ListAnswer {
        keys: found.iter().map(KeyOut::of).collect(),
    })
}

async fn status(keys: Arc<Keys>, call: Call<RustFs>) -> Answer {
    let id = wire::query_key(&call.query)?
        .ok_or_else(|| Refusal::invalid_field("keyName", "is required"))?;
    let key = keys.describe(&call.caller, &id).await?;
    wire::ok(&KeyOut {
        algorithm: Some("AES256"),
        ..KeyOut::of(&key)
    })
}

async fn enable(keys: Arc<Keys>, call: Call<RustFs>) -> Answer {
    let id = wire::required_key(None, &call.query)?;
    let key = keys.enable(&call.caller, &id).await?;
    changed(&key, "Key enabled successfully")
}

async fn disable(keys: Arc<Keys>, call: Call<RustFs>) -> Answer {
    let id = wire::required_key(None, &call.query)?;
    let key = keys.disable(&call.caller, &id).await?;
    changed(&key, "Key disabled successfully")
}

fn changed(key: &MasterKey, message: &'static str) -> Answer {
    wire::ok(&KeyOut {
        created_at: None,
        message: Some(message),
        ..KeyOut::of(key)
    })
}
