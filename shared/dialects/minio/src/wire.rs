//! What every shape of this dialect is made of.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use keyway_domain::keys::KeyId;
use keyway_domain::{Fault, KmsError};
use keyway_http::Query;
use serde::Serialize;

use crate::ErrorResponse;

pub(crate) type Answer = Result<Response<Bytes>, ErrorResponse>;

/// A value of the query; an empty one is none.
pub(crate) fn value<'q>(query: &'q Query, name: &str) -> Result<Option<&'q str>, ErrorResponse> {
    let value = query
        .one(name)
        .map_err(|error| ErrorResponse::invalid(format!("the query parameter {name} {error}")))?;
    Ok(value.filter(|value| !value.is_empty()))
}

const KEY_ID: &str = "key-id";

/// The key that the query names.
pub(crate) fn key_id(query: &Query) -> Result<Option<KeyId>, ErrorResponse> {
    let id = value(query, KEY_ID)?;
    let id = id.map(|id| KeyId::parse(KEY_ID, id)).transpose();
    Ok(id.map_err(KmsError::from)?)
}

/// A 200 answer.
pub(crate) fn ok(body: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(body)
        .map_err(|error| KmsError::from(Fault::new("encoding an answer", error)))?;
    let mut response = Response::new(Bytes::from(json));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
