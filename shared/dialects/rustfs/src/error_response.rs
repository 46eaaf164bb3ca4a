//! The table from errors to statuses, codes and texts.

use std::convert::Infallible;
use std::fmt::Display;

use bytes::Bytes;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Response, StatusCode};
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::KmsError;
use keyway_http::{QueryError, Rejection, RequestLine};
use serde::Serialize;

use crate::{Api, first_generation, wire};

/// An error response of this API.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

/// 400 `InvalidRequest`.
pub(crate) fn invalid(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::bad_request("InvalidRequest", message)
}

/// 400 for a field of the body or of the query.
pub(crate) fn invalid_field(field: &str, reason: impl Display) -> ErrorResponse {
    invalid(format!("field `{field}`: {reason}"))
}

/// 400 for a query parameter that cannot be decoded.
pub(crate) fn invalid_query(name: &str, error: QueryError) -> ErrorResponse {
    invalid(format!("query parameter `{name}` {error}"))
}

/// The shape that the readers of all three documents understand: code and message at the top and inside `error`.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct ErrorBody<'a> {
    success: bool,
    code: &'a str,
    message: &'a str,
    error: ErrorDetail<'a>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ErrorDetail<'a> {
    code: &'a str,
    message: &'a str,
    request_id: &'a str,
    resource: &'a str,
}

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> ErrorResponse {
        match error {
            KmsError::Invalid { field, reason } => invalid_field(field, reason),
            KmsError::TooManyTags { most } => too_many_tags(most),
            KmsError::NotPermitted => denied(NOT_PERMITTED),
            KmsError::Forbidden(why) => denied(why),
            KmsError::IdentityIsAdmin | KmsError::IdentityIsCaller => {
                denied("this identity's policy cannot be changed by the caller")
            }
            KmsError::KeyNotFound(key) => absent("KeyNotFound", "key", &key),
            KmsError::AccessKeyNotFound(id) => absent("NotFound", "access key", &id),
            KmsError::BucketNotFound(bucket) => absent("NotFound", "bucket", &bucket),
            KmsError::PolicyNotFound(name) => absent("NotFound", "policy", &name),
            KmsError::IdentityNotFound(name) => absent("NotFound", "identity", &name),
            KmsError::NoBucketEncryption(bucket) => ErrorResponse::not_found(
                "ServerSideEncryptionConfigurationNotFoundError",
                format!("bucket `{bucket}` has no default encryption"),
            ),
            KmsError::AliasNotFound(alias) => absent("NotFound", "alias", &alias),
            KmsError::AliasExists(alias) => conflict(format!("`{alias}` already exists")),
            KmsError::TooManyAliases(key) => {
                conflict(format!("key `{key}` has as many aliases as a key can have"))
            }
            KmsError::BucketExists(bucket) => conflict(format!("bucket `{bucket}` already exists")),
            KmsError::BucketNotEmpty(bucket) => conflict(format!("bucket `{bucket}` is not empty")),
            KmsError::KeyExists(key) => {
                ErrorResponse::conflict("KeyAlreadyExists", format!("key `{key}` already exists"))
            }
            KmsError::KeyState { key_id, state } => {
                ErrorResponse::conflict("InvalidKeyState", format!("key `{key_id}` is {state}"))
            }
            KmsError::TooManyVersions(key) => ErrorResponse::conflict(
                "InvalidKeyState",
                format!("key `{key}` has as many versions as a key can have"),
            ),
            KmsError::KeySpec { key_id, spec } => {
                let usage = spec.usage().as_str();
                conflict(format!("key `{key_id}` is for {usage} only"))
            }
            KmsError::InvalidMac => {
                ErrorResponse::bad_request("InvalidMac", "the MAC is not the message's")
            }
            KmsError::NoHmacKey(key) => conflict(format!("key `{key}` has no HMAC key")),
            KmsError::StillReferenced(key, references) => {
                let names: Vec<String> = references.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                conflict(format!("key `{key}` is still referenced: {names}"))
            }
            KmsError::Contended(key) => conflict(format!(
                "key `{key}` is being changed by others at the same time; try again"
            )),
            KmsError::Conflict(why) => conflict(why),
            KmsError::DryRun => ErrorResponse::bad_request(
                "DryRun",
                "the request would have succeeded, but it is a dry run",
            ),
            KmsError::DecryptionFailed | KmsError::IncorrectKey => {
                ErrorResponse::bad_request("DecryptionFailed", "the ciphertext cannot be decrypted")
            }
            KmsError::NotConfigured => ErrorResponse::unavailable(
                "ServiceNotConfigured",
                "the KMS service is not configured: no configuration provided",
            ),
            KmsError::NotRunning => {
                ErrorResponse::unavailable("ServiceNotRunning", "the KMS service is not running")
            }
            KmsError::Throttled => ErrorResponse::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Throttled",
                "too many requests; try again shortly",
            )
            .retry_later(),
            KmsError::Unavailable(fault) => ErrorResponse::unavailable("BackendError", UNAVAILABLE)
                .retry_later()
                .caused_by(fault),
            KmsError::Backend(fault) => {
                ErrorResponse::internal("BackendError", "a backend of the KMS failed")
                    .caused_by(fault)
            }
        }
    }
}

const NOT_PERMITTED: &str = "unauthorised: the caller is not permitted to do this";
const UNAVAILABLE: &str =
    "a backend of the KMS cannot be reached or is not fit to be used; try again later";

fn too_many_tags(most: usize) -> ErrorResponse {
    invalid_field("tags", format!("must be at most {most}"))
}

fn denied(why: &'static str) -> ErrorResponse {
    ErrorResponse::forbidden("AccessDenied", why)
}

fn absent(code: &'static str, what: &'static str, name: &dyn Display) -> ErrorResponse {
    ErrorResponse::not_found(code, format!("{what} `{name}` not found"))
}

fn conflict(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::conflict("Conflict", message)
}

impl SignedErrors for Api {
    fn of_signature(error: &SignatureError) -> ErrorResponse {
        match error.status_class() {
            StatusClass::BadRequest => invalid(error.to_string()),
            StatusClass::Unauthenticated => {
                let message = format!("authentication required: {error}");
                let scheme = HeaderValue::from_static("AWS4-HMAC-SHA256");
                ErrorResponse::new(StatusCode::UNAUTHORIZED, "AccessDenied", message)
                    .with_header(WWW_AUTHENTICATE, scheme)
            }
        }
    }

    fn of_pipeline(rejection: &Rejection<Infallible>, _: &RequestLine<'_>) -> ErrorResponse {
        let code = match rejection {
            Rejection::NoRoute => "NotFound",
            Rejection::OtherMethods(_) => "MethodNotAllowed",
            Rejection::BodyTooLarge { .. } => "RequestTooLarge",
            Rejection::BodyBroken | Rejection::Unreadable(_) | Rejection::Malformed { .. } => {
                "InvalidRequest"
            }
            Rejection::BodyEncoded => "UnsupportedMediaType",
            Rejection::Overloaded => "ServerBusy",
            Rejection::Unrecorded => "AuditUnavailable",
            Rejection::Panicked => "InternalError",
            Rejection::By(never) => match *never {},
        };
        ErrorResponse::of_pipeline(rejection, code, None)
    }

    fn write(response: &ErrorResponse, line: &RequestLine<'_>) -> Response<Bytes> {
        let mut code = response.content.code;
        let mut message = response.content.message.as_str();
        if first_generation::owns(line) {
            code = first_generation::code(code);
            message = first_generation::text(code).unwrap_or(message);
        }
        let body = ErrorBody {
            success: false,
            code,
            message,
            error: ErrorDetail {
                code,
                message,
                request_id: line.request_id,
                resource: &wire::shortened(line.raw_path),
            },
        };
        // Strings and a bool always serialize; an empty body would still carry the status.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        keyway_http::uncached("application/json", body)
    }
}
