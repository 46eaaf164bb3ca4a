//! The one table from errors to statuses and messages.
//!
//! KES's clients compare status and message, so Keyway uses KES's own wherever it has one. It never answers 201, 204, 413 or
//! 422, and 409 for one error alone: clients would not know what they mean.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode};
use keyway_auth::ErrorTable;
use keyway_auth::certificate::Unidentified;
use keyway_domain::KmsError;
use keyway_domain::keys::{KeyState, KeyUsage};
use keyway_http::{ONE_SECOND, Rejection, RequestLine};

use crate::generation::{Generation, Kind, Text};

/// An error response of KES's API.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

/// The part of the error table that is specific to KES.
#[derive(Debug)]
pub struct Api;

/// The content of an error response.
#[derive(Debug)]
pub struct Message {
    text: Text,
    /// The reason, in a second field that KES does not have and its clients ignore.
    reason: Option<&'static str>,
    /// The answer is plain text instead of JSON, because no route has the path.
    is_plain: bool,
}

impl<T: Into<Text>> From<T> for Message {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            reason: None,
            is_plain: false,
        }
    }
}

/// Paths that KES has and this server has not. Clients that get 501 continue without them.
const UNSUPPORTED: [&str; 6] = [
    "/v1/cluster/",
    "/v1/enclave/",
    "/v1/log/",
    "/v1/secret/",
    "/v1/sys/",
    "/v1/tenant/",
];

fn with(status: StatusCode, message: impl Into<Message>) -> ErrorResponse {
    ErrorResponse::with_content(status, message.into())
}

/// 403 with the exact message that clients look for. On any other message a MinIO server retries, and answers its own
/// clients with an internal error.
fn not_permitted(reason: Option<&'static str>) -> ErrorResponse {
    let text = Text::NotPermitted;
    with(
        StatusCode::FORBIDDEN,
        Message {
            text,
            reason,
            is_plain: false,
        },
    )
}

/// The same for a key that no caller may use in this way, with the reason.
fn not_for_anybody(reason: &'static str) -> ErrorResponse {
    not_permitted(Some(reason))
}

/// 400 with this message.
pub(crate) fn bad(message: impl Into<Message>) -> ErrorResponse {
    with(StatusCode::BAD_REQUEST, message)
}

/// 400 for an invalid name.
pub(crate) fn name(kind: Kind, shown: String) -> ErrorResponse {
    bad(Text::Name(kind, shown))
}

/// 400 for an invalid pattern of a listing.
pub(crate) fn pattern(shown: String) -> ErrorResponse {
    bad(Text::Pattern(shown))
}

/// 406 with this message.
pub(crate) fn not_acceptable(message: impl Into<Message>) -> ErrorResponse {
    with(StatusCode::NOT_ACCEPTABLE, message)
}

pub(crate) fn not_implemented() -> ErrorResponse {
    unsupported("not implemented")
}

/// 501 with this message.
pub(crate) fn unsupported(message: impl Into<Message>) -> ErrorResponse {
    with(StatusCode::NOT_IMPLEMENTED, message)
}

pub(crate) fn invalid_body() -> ErrorResponse {
    bad(Text::InvalidBody)
}

pub(crate) fn malformed_path() -> ErrorResponse {
    bad("the path is not percent-encoded UTF-8")
}

pub(crate) fn not_encrypted() -> ErrorResponse {
    bad(Text::NotEncrypted)
}

/// 503 with this message. Clients retry after this status and no other.
fn later(message: impl Into<Message>) -> ErrorResponse {
    with(StatusCode::SERVICE_UNAVAILABLE, message)
}

/// 504: the table cannot be reached. Probes get this answer.
pub(crate) fn unreachable(error: KmsError) -> ErrorResponse {
    let response = with(StatusCode::GATEWAY_TIMEOUT, UNREACHABLE);
    match error {
        KmsError::Unavailable(fault) | KmsError::Backend(fault) => response.caused_by(fault),
        _ => response,
    }
}

/// Adds the operation that failed, if it has a text, to the error of a backend. Other errors stay the same.
pub(crate) fn failing_to(what: &'static str, mut response: ErrorResponse) -> ErrorResponse {
    if response.status == StatusCode::BAD_GATEWAY && !what.is_empty() {
        response.content.text = Text::Backend(what);
    }
    response
}

/// The error response to a request that the pipeline rejected.
pub(crate) fn of_pipeline(
    rejection: &Rejection<Infallible>,
    line: &RequestLine<'_>,
    generation: Generation,
) -> ErrorResponse {
    match rejection {
        Rejection::NoRoute => no_route(line, generation),
        Rejection::OtherMethods(methods) => {
            let expected = ["PUT", "DELETE", "GET"]
                .into_iter()
                .find(|method| methods.split(", ").any(|other| other == *method))
                .unwrap_or("POST");
            let expected = generation.method(expected);
            let message = Text::Method(line.method.as_str().to_owned(), expected);
            // KES names the method in this header.
            with(StatusCode::METHOD_NOT_ALLOWED, message)
                .with_header(ACCEPT, HeaderValue::from_static(expected))
        }
        Rejection::BodyTooLarge { .. } | Rejection::BodyBroken => invalid_body(),
        Rejection::BodyEncoded => bad("content encoding is not supported"),
        Rejection::Unreadable(_) | Rejection::Malformed { .. } => {
            with(rejection.status(), rejection.text().into_owned())
        }
        Rejection::Overloaded => later("too many large requests: try again later"),
        Rejection::Unrecorded => later("audit log is not available"),
        Rejection::Panicked => with(StatusCode::INTERNAL_SERVER_ERROR, "internal server error"),
        Rejection::By(never) => match *never {},
    }
}

fn no_route(line: &RequestLine<'_>, generation: Generation) -> ErrorResponse {
    let is_unsupported = || UNSUPPORTED.iter().any(|path| line.path.starts_with(path));
    if generation.tells_unsupported() && is_unsupported() {
        return not_implemented();
    }
    let (status, text) = generation.no_route();
    with(
        status,
        Message {
            text: text.into(),
            reason: None,
            is_plain: true,
        },
    )
}

/// Encodes the error response for this generation.
pub(crate) fn answer(
    mut error: ErrorResponse,
    line: &RequestLine<'_>,
    generation: Generation,
) -> Response<Bytes> {
    let (status, message) = generation.words(&error.content.text);
    error.status = status.unwrap_or(error.status);
    let Message {
        reason, is_plain, ..
    } = error.content;
    let body = if is_plain {
        format!("{message}\n")
    } else {
        let end = generation.refusal_end();
        let reason = reason.map(go_string);
        let reason = reason.map_or_else(String::new, |text| format!(",\"reason\":{text}"));
        format!("{{\"message\":{}{reason}{end}}}", go_string(&message))
    };
    let (kind, is_final) = if is_plain {
        ("text/plain; charset=utf-8", true)
    } else {
        generation.refusal_type()
    };
    let length = body.len();
    let is_head = line.method == Method::HEAD;
    let mut response = Response::new(if is_head { Bytes::new() } else { body.into() });
    let headers = response.headers_mut();
    if error.status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, ONE_SECOND);
    }
    if is_head {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    if is_final {
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    error.finish(&mut response, line.request_id);
    response
}

const UNREACHABLE: &str = "key store is not reachable";

/// Encodes a JSON string as Go does.
fn go_string(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

impl ErrorTable for Api {
    type Content = Message;

    fn of_kms(error: KmsError) -> ErrorResponse {
        match error {
            KmsError::Invalid { field, reason } => bad(format!("{field} {reason}")),
            KmsError::TooManyTags { most } => bad(format!("tags must be at most {most}")),
            KmsError::NotPermitted => not_permitted(None),
            KmsError::Forbidden(why) => not_for_anybody(why),
            KmsError::KeyNotFound(_) => with(StatusCode::NOT_FOUND, "key does not exist"),
            KmsError::AccessKeyNotFound(_) => {
                with(StatusCode::NOT_FOUND, "access key does not exist")
            }
            KmsError::PolicyNotFound(_) => with(StatusCode::NOT_FOUND, Text::PolicyNotFound),
            KmsError::IdentityNotFound(_) => with(StatusCode::NOT_FOUND, "identity does not exist"),
            KmsError::IdentityIsAdmin => bad("identity is root"),
            KmsError::IdentityIsCaller => with(
                StatusCode::FORBIDDEN,
                "identity cannot assign policy to itself",
            ),
            KmsError::KeyExists(_) => bad(Text::KeyExists),
            KmsError::KeyState { state, .. } => not_for_anybody(match state {
                KeyState::Enabled => "key is enabled",
                KeyState::Disabled => "key is disabled",
                KeyState::PendingDeletion { .. } => "key is pending deletion",
            }),
            KmsError::TooManyVersions(_) => not_for_anybody("key has too many versions"),
            KmsError::StillReferenced(..) => not_for_anybody("key is still referenced"),
            KmsError::KeySpec { spec, .. } => not_for_anybody(match spec.usage() {
                KeyUsage::EncryptDecrypt => "key does not make MACs",
                KeyUsage::GenerateVerifyMac => "key makes MACs only",
            }),
            KmsError::InvalidMac => bad("the MAC is not authentic"),
            KmsError::NoHmacKey(_) => with(StatusCode::CONFLICT, "key does not support HMAC"),
            KmsError::AliasNotFound(_) => bad("alias does not exist"),
            KmsError::AliasExists(_) => bad("alias already exists"),
            KmsError::TooManyAliases(_) => not_for_anybody("key has too many aliases"),
            KmsError::BucketNotFound(_) => bad("bucket does not exist"),
            KmsError::BucketExists(_) => bad("bucket already exists"),
            KmsError::BucketNotEmpty(_) => bad("bucket is not empty"),
            KmsError::NoBucketEncryption(_) => bad("bucket has no default encryption"),
            KmsError::DecryptionFailed | KmsError::IncorrectKey => {
                bad("decryption failed: ciphertext is not authentic")
            }
            KmsError::DryRun => bad("the request would have succeeded, but it is a dry run"),
            KmsError::Contended(_) => later("key is being changed by others at the same time"),
            KmsError::Conflict(why) => later(why),
            KmsError::NotConfigured => later("KMS is not configured"),
            KmsError::NotRunning => later("KMS is not running"),
            KmsError::Throttled => later("too many requests"),
            KmsError::Unavailable(fault) => later(UNREACHABLE).caused_by(fault),
            KmsError::Backend(fault) => {
                with(StatusCode::BAD_GATEWAY, "key store is unavailable").caused_by(fault)
            }
        }
    }
}

/// The error response to a client without an identity.
pub(crate) fn unidentified(why: Unidentified) -> ErrorResponse {
    let text = match why {
        Unidentified::Missing => Text::NoCertificate,
        Unidentified::Several => Text::SeveralCertificates,
        Unidentified::Malformed | Unidentified::Key => {
            "tls: client certificate is not valid".into()
        }
    };
    bad(text).with_class("unauthenticated")
}
