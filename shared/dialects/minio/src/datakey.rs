//! The test of a key: decode, operate, encode.

use std::sync::Arc;

use http::Method;
use keyway_domain::datakey::{DataKeys, Trial, TrialFailure};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, RouteEntry};
use serde::Serialize;

use crate::wire;
use crate::{ErrorResponse, Minio, route};

/// The path of the route that tests a key.
pub(crate) const STATUS: &str = "/key/status";

pub(crate) fn entries() -> Vec<RouteEntry<Minio, DataKeys>> {
    vec![route(Method::GET, STATUS, Action::DescribeKey, status)]
}

/// An error that is not there is a success.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) struct KeyStatus<'a> {
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    encryption_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decryption_error: Option<String>,
}

async fn status(data_keys: Arc<DataKeys>, call: Call<Minio>) -> HandlerResult<Minio> {
    let key_id = wire::key_id(&call.query)?;
    let Trial { key_id, failure } = data_keys.try_out(&call.caller, key_id).await?;
    let item = |error| ErrorResponse::from(error).into_item(&call.caller, &call.request_id);
    let text = |error| item(error).message;
    let (encryption_error, decryption_error) = match failure {
        None => (None, None),
        Some(TrialFailure::Encryption(error)) => (Some(text(error)), None),
        Some(TrialFailure::Decryption(error)) => (None, Some(text(error))),
    };
    wire::ok(&KeyStatus {
        key_id: key_id.as_str(),
        encryption_error,
        decryption_error,
    })
}
