//! Encoding and decoding that all operations share: strict JSON, strict base64, dates, key ids of query and body.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use keyway_domain::keys::KeyId;
use keyway_domain::{EncryptionContext, Fault, KmsError, SecretBytes};
use keyway_http::{HandlerResult, Pairs, Query, uncached, without_bom};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error_response::{invalid, invalid_field, invalid_query};
use crate::{ErrorResponse, RustFs};

/// Decodes a body that must be a JSON object. Refuses unknown and repeated fields.
///
/// The error repeats nothing that the client sent but the names of fields, because values may be secret.
pub(crate) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorResponse> {
    let body = without_bom(body);
    // Derived structs would also accept an array, field by field.
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(invalid("invalid JSON: the body must be a JSON object"));
    }
    serde_json::from_slice(body).map_err(|_| explained::<T>(body))
}

/// Decodes a second time to locate the error: tracking the path is slow, and most bodies do not need it.
fn explained<T: DeserializeOwned>(body: &[u8]) -> ErrorResponse {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => {
            let path = error.path().to_string();
            describe(&path, &error.into_inner())
        }
        Ok(_) => match deserializer.end() {
            Err(error) => describe(".", &error),
            Ok(()) => invalid("invalid JSON"),
        },
    }
}

/// As [`json`], with an empty body read as `{}`.
pub(crate) fn json_or_empty<T: DeserializeOwned>(body: &[u8]) -> Result<T, ErrorResponse> {
    json(if without_bom(body).iter().all(u8::is_ascii_whitespace) {
        b"{}"
    } else {
        body
    })
}

fn describe(path: &str, error: &serde_json::Error) -> ErrorResponse {
    if !error.is_data() {
        let reason = format!(
            "invalid JSON at line {} column {}",
            error.line(),
            error.column()
        );
        // A number in place of an enum's word is a syntax error too.
        return match path {
            "." | "?" => invalid(reason),
            path => invalid_field(&shortened(path), reason),
        };
    }
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(text, _)| text);
    let names_a_field = ["unknown field `", "missing field `", "duplicate "]
        .iter()
        .any(|start| text.starts_with(start));
    let reason = if names_a_field {
        shortened(text).into_owned()
    } else {
        // "invalid type: string "...", expected a map": only the part after "expected" may be shown.
        match text.rsplit_once("expected ") {
            Some((_, expected)) => format!("expected {expected}"),
            None => "is not what it must be".to_owned(),
        }
    };
    // A text that names the field needs the path only if the field is nested.
    let at_the_top = !path.contains(['.', '[']);
    match path {
        "." | "?" => invalid(reason),
        _ if names_a_field && at_the_top => invalid(reason),
        path => invalid_field(&shortened(path), reason),
    }
}

/// Shortens a name to 300 characters, because clients choose names and can send a megabyte.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// The most pairs of a new ciphertext's context.
const MAX_PAIRS: usize = 64;
/// The longest key of a new ciphertext's context, in bytes.
const MAX_KEY_BYTES: usize = 128;
/// The longest value of a new ciphertext's context, in bytes.
const MAX_VALUE_BYTES: usize = 4096;
/// The largest sum of the lengths of all keys and values of a new ciphertext's context, in bytes.
const MAX_CONTEXT_BYTES: usize = 8192;

/// The encryption context of a new ciphertext. `field` is its name in errors.
pub(crate) fn new_context(
    field: &'static str,
    pairs: Option<Pairs>,
) -> Result<EncryptionContext, ErrorResponse> {
    let Pairs(pairs) = pairs.unwrap_or_default();
    let over =
        |what: &str, most: usize| Err(invalid_field(field, format!("{what}, at most {most}")));
    if pairs.len() > MAX_PAIRS {
        return over("has too many pairs", MAX_PAIRS);
    }
    let mut bytes = 0;
    for (key, value) in &pairs {
        if key.len() > MAX_KEY_BYTES {
            return over("has a key of too many bytes", MAX_KEY_BYTES);
        }
        if value.len() > MAX_VALUE_BYTES {
            return over("has a value of too many bytes", MAX_VALUE_BYTES);
        }
        bytes += key.len() + value.len();
    }
    if bytes > MAX_CONTEXT_BYTES {
        return over("has too many bytes", MAX_CONTEXT_BYTES);
    }
    context(field, Some(Pairs(pairs)))
}

/// The encryption context of a ciphertext, which another API may have made under a context with wider limits. `field` is
/// its name in errors.
pub(crate) fn context(
    field: &'static str,
    pairs: Option<Pairs>,
) -> Result<EncryptionContext, ErrorResponse> {
    EncryptionContext::from_pairs(pairs.unwrap_or_default().0)
        .map_err(|error| invalid_field(field, error))
}

/// Decodes strict standard base64: padded, canonical, without other characters.
pub(crate) fn base64(field: &'static str, text: &str) -> Result<SecretBytes, ErrorResponse> {
    STANDARD
        .decode(text)
        .map(SecretBytes::from)
        .map_err(|_| invalid_field(field, "must be standard base64 with padding"))
}

/// Bytes as standard base64.
pub(crate) fn to_base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// RFC 3339, UTC, with microseconds.
pub(crate) fn date(timestamp: Timestamp) -> String {
    format!("{timestamp:.6}")
}

/// The query parameters that name a key.
pub(crate) const KEY_ID_QUERY: [&str; 5] = ["keyId", "key-id", "keyName", "key_id", "key"];

/// The key that the query names, in any spelling that clients use. An empty value counts as absent.
pub(crate) fn query_key(query: &Query) -> Result<Option<KeyId>, ErrorResponse> {
    let mut found: Option<&str> = None;
    for name in KEY_ID_QUERY {
        let value = query
            .one(name)
            .map_err(|error| invalid_query(name, error))?;
        match (found, value.filter(|value| !value.is_empty())) {
            (Some(one), Some(other)) if one != other => {
                return Err(invalid_field("keyId", "the query names two different keys"));
            }
            (None, Some(value)) => found = Some(value),
            _ => {}
        }
    }
    Ok(found.map(|text| KeyId::parse("keyId", text)).transpose()?)
}

/// The key that the body and the query name. They must agree.
pub(crate) fn named_key(body: Option<&str>, query: &Query) -> Result<Option<KeyId>, ErrorResponse> {
    let body = body.map(|text| KeyId::parse("key_id", text)).transpose()?;
    agreeing([body, query_key(query)?])
}

/// As [`named_key`], but a key is required.
pub(crate) fn required_key(body: Option<&str>, query: &Query) -> Result<KeyId, ErrorResponse> {
    named_key(body, query)?.ok_or_else(|| invalid_field("key_id", "is required"))
}

/// The id that is named. Refuses names that differ.
pub(crate) fn agreeing<const N: usize>(
    names: [Option<KeyId>; N],
) -> Result<Option<KeyId>, ErrorResponse> {
    let mut names = names.into_iter().flatten();
    let first = names.next();
    if names.all(|name| Some(&name) == first.as_ref()) {
        Ok(first)
    } else {
        Err(invalid_field(
            "key_id",
            "the request names two different keys",
        ))
    }
}

/// The initial buffer size, enough for most answers: a buffer that grows leaves copies of data keys in memory.
const ANSWER_BYTES: usize = 1024;

/// A 200 answer without a body.
pub(crate) fn empty() -> Response<Bytes> {
    uncached("text/plain", Bytes::new())
}

/// A 200 answer.
pub(crate) fn ok(body: &impl Serialize) -> HandlerResult<RustFs> {
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut json, body)
        .map_err(|error| KmsError::from(Fault::new("encoding an answer", error)))?;
    Ok(uncached("application/json", json))
}
