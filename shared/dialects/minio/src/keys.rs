//! Master keys: decode, operate, encode.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response};
use keyway_domain::keys::{Keys, MasterKey, NewKey};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, RouteEntry};
use serde::Serialize;

use crate::error_response::invalid;
use crate::wire;
use crate::{Minio, route};

pub(crate) const CREATE: &str = "/key/create";
pub(crate) const LIST: &str = "/key/list";

pub(crate) fn entries() -> Vec<RouteEntry<Minio, Keys>> {
    vec![
        route(Method::POST, CREATE, Action::CreateKey, create),
        route(Method::GET, LIST, Action::ListKeys, list),
    ]
}

/// The answer is a status without a body.
async fn create(keys: Arc<Keys>, call: Call<Minio>) -> HandlerResult<Minio> {
    let id = wire::key_id(&call.query)?.ok_or_else(|| invalid("key-id: is required"))?;
    let new = NewKey {
        id: Some(id),
        ..NewKey::default()
    };
    keys.create(&call.caller, new).await?;
    Ok(Response::new(Bytes::new()))
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyOut<'a> {
    created_at: String,
    created_by: &'a str,
    name: &'a str,
}

impl<'a> From<&'a MasterKey> for KeyOut<'a> {
    fn from(key: &'a MasterKey) -> Self {
        Self {
            // RFC 3339 in UTC, as Go reads it.
            created_at: format!("{:.6}", key.created_at),
            created_by: &key.created_by,
            name: key.id.as_str(),
        }
    }
}

/// Lists all keys that the caller may list. This API has no pages.
async fn list(keys: Arc<Keys>, call: Call<Minio>) -> HandlerResult<Minio> {
    let pattern = wire::value(&call.query, "pattern")?.map(str::to_owned);
    let found = keys.list_all(&call.caller, pattern).await?;
    wire::ok(&found.iter().map(KeyOut::from).collect::<Vec<_>>())
}
