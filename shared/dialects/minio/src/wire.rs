//! Encoding and decoding that all operations of this dialect share.

use keyway_domain::keys::KeyId;
use keyway_domain::{Fault, KmsError};
use keyway_http::{HandlerResult, Query, uncached};
use serde::Serialize;

use crate::ErrorResponse;
use crate::Minio;
use crate::error_response::invalid;

/// A value of the query. An empty value counts as absent.
pub(crate) fn value<'q>(query: &'q Query, name: &str) -> Result<Option<&'q str>, ErrorResponse> {
    let value = query
        .one(name)
        .map_err(|error| invalid(format!("the query parameter {name} {error}")))?;
    Ok(value.filter(|value| !value.is_empty()))
}

const KEY_ID: &str = "key-id";

/// The key that the query names.
pub(crate) fn key_id(query: &Query) -> Result<Option<KeyId>, ErrorResponse> {
    let id = value(query, KEY_ID)?;
    Ok(id.map(|id| KeyId::parse(KEY_ID, id)).transpose()?)
}

/// A 200 answer.
pub(crate) fn ok(body: &impl Serialize) -> HandlerResult<Minio> {
    let json = serde_json::to_vec(body)
        .map_err(|error| KmsError::from(Fault::new("encoding an answer", error)))?;
    Ok(uncached("application/json", json))
}
