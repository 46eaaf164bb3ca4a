//! The table from errors to statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode};
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::KmsError;
use keyway_http::{Rejection, RequestLine};
use serde::Serialize;

use crate::Api;

/// An error response of this API.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

/// 400 `InvalidRequest`.
pub(crate) fn invalid(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::bad_request("InvalidRequest", message)
}

/// As MinIO's clients read it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ErrorBody<'a> {
    code: &'a str,
    message: &'a str,
    resource: &'a str,
    request_id: &'a str,
    host_id: &'a str,
}

const NOT_PERMITTED: &str = "kms:NotAuthorized";
const OWN_POLICY: &str = "this identity's policy cannot be changed by the caller";
const KEY_STATE: &str = "kms:InvalidKeyState";
const SLOW_DOWN: &str = "Please reduce your request rate";
const UNAVAILABLE: &str =
    "a backend of the KMS cannot be reached or is not fit to be used; try again later";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> ErrorResponse {
        match error {
            // This API's parameters have hyphens.
            KmsError::Invalid { field, reason } => {
                invalid(format!("{}: {reason}", field.replace('_', "-")))
            }
            KmsError::TooManyTags { most } => invalid(format!("tags: must be at most {most}")),
            KmsError::NotPermitted => ErrorResponse::forbidden("AccessDenied", "Access Denied."),
            KmsError::Forbidden(why) => ErrorResponse::forbidden(NOT_PERMITTED, why),
            KmsError::IdentityIsAdmin | KmsError::IdentityIsCaller => {
                ErrorResponse::forbidden(NOT_PERMITTED, OWN_POLICY)
            }
            KmsError::KeyNotFound(key) => absent("kms:KeyNotFound", "key", &key),
            KmsError::AccessKeyNotFound(id) => {
                absent("XMinioAdminNoSuchAccessKey", "access key", &id)
            }
            KmsError::PolicyNotFound(name) => absent("XMinioAdminNoSuchPolicy", "policy", &name),
            KmsError::IdentityNotFound(name) => absent("XMinioAdminNoSuchUser", "identity", &name),
            KmsError::BucketNotFound(bucket) => absent("NoSuchBucket", "bucket", &bucket),
            KmsError::NoBucketEncryption(bucket) => ErrorResponse::not_found(
                "ServerSideEncryptionConfigurationNotFoundError",
                format!("bucket {bucket} has no default encryption"),
            ),
            KmsError::KeyExists(key) => {
                ErrorResponse::conflict("kms:KeyAlreadyExists", format!("key {key} already exists"))
            }
            error @ (KmsError::KeyState { .. }
            | KmsError::KeySpec { .. }
            | KmsError::TooManyVersions(_)
            | KmsError::NoHmacKey(_)) => of_key_state(&error),
            KmsError::InvalidMac => {
                ErrorResponse::bad_request("kms:InvalidMac", "the MAC is not the message's")
            }
            KmsError::StillReferenced(key, references) => {
                let names: Vec<String> = references.iter().map(ToString::to_string).collect();
                let text = format!("key {key} is still referenced: {}", names.join(", "));
                ErrorResponse::conflict("kms:KeyInUse", text)
            }
            KmsError::AliasNotFound(alias) => absent("XMinioAdminNoSuchAlias", "alias", &alias),
            KmsError::AliasExists(alias) => conflicting(format!("{alias} already exists")),
            KmsError::TooManyAliases(key) => conflicting(format!("key {key} has too many aliases")),
            KmsError::BucketExists(bucket) => ErrorResponse::conflict(
                "BucketAlreadyOwnedByYou",
                format!("bucket {bucket} already exists"),
            ),
            KmsError::BucketNotEmpty(bucket) => {
                ErrorResponse::conflict("BucketNotEmpty", format!("bucket {bucket} is not empty"))
            }
            KmsError::Contended(key) => ErrorResponse::conflict(
                "OperationAborted",
                format!("key {key} is being changed by others at the same time; try again"),
            ),
            KmsError::Conflict(why) => ErrorResponse::conflict("OperationAborted", why),
            KmsError::DryRun => ErrorResponse::bad_request(
                "kms:DryRunOperationException",
                "the request would have succeeded, but it is a dry run",
            ),
            KmsError::DecryptionFailed | KmsError::IncorrectKey => ErrorResponse::bad_request(
                "kms:InvalidCiphertextException",
                "the ciphertext cannot be decrypted",
            ),
            KmsError::NotConfigured => ErrorResponse::not_implemented(
                "NotImplemented",
                "Server side encryption specified but KMS is not configured",
            ),
            KmsError::NotRunning => {
                ErrorResponse::unavailable("ServiceUnavailable", "the KMS service is not running")
            }
            KmsError::Throttled => {
                ErrorResponse::new(StatusCode::TOO_MANY_REQUESTS, "SlowDown", SLOW_DOWN)
                    .retry_later()
            }
            KmsError::Unavailable(fault) => {
                ErrorResponse::unavailable("ServiceUnavailable", UNAVAILABLE)
                    .retry_later()
                    .caused_by(fault)
            }
            KmsError::Backend(fault) => {
                ErrorResponse::internal("InternalError", "a backend of the KMS failed")
                    .caused_by(fault)
            }
        }
    }
}

/// Errors about what a key is and can do.
fn of_key_state(error: &KmsError) -> ErrorResponse {
    let text = match error {
        KmsError::KeyState { key_id, state } => format!("key {key_id} is {state}"),
        KmsError::KeySpec { key_id, spec } => {
            format!("key {key_id} is for {} only", spec.usage().as_str())
        }
        KmsError::TooManyVersions(key) => {
            format!("key {key} has as many versions as a key can have")
        }
        KmsError::NoHmacKey(key) => format!("key {key} has no HMAC key"),
        other => other.class().to_owned(),
    };
    ErrorResponse::conflict(KEY_STATE, text)
}

fn conflicting(message: String) -> ErrorResponse {
    ErrorResponse::conflict(KEY_STATE, message)
}

fn absent(code: &'static str, what: &'static str, name: &dyn std::fmt::Display) -> ErrorResponse {
    ErrorResponse::not_found(code, format!("{what} {name} does not exist"))
}

impl SignedErrors for Api {
    fn of_signature(error: &SignatureError) -> ErrorResponse {
        let text = error.to_string();
        match error {
            SignatureError::UnknownAccessKey => ErrorResponse::forbidden(
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records.",
            ),
            SignatureError::SignatureMismatch => {
                ErrorResponse::forbidden("SignatureDoesNotMatch", text)
            }
            SignatureError::Skewed | SignatureError::NotYetValid => {
                ErrorResponse::forbidden("RequestTimeTooSkewed", text)
            }
            SignatureError::PayloadMismatch => {
                ErrorResponse::bad_request("XAmzContentSHA256Mismatch", text)
            }
            error => match error.status_class() {
                StatusClass::BadRequest => invalid(text),
                StatusClass::Unauthenticated => ErrorResponse::forbidden("AccessDenied", text),
            },
        }
    }

    fn of_pipeline(rejection: &Rejection<Infallible>, _: &RequestLine<'_>) -> ErrorResponse {
        let (code, message) = match rejection {
            Rejection::NoRoute => ("XMinioAdminAPINotFound", None),
            Rejection::OtherMethods(_) => ("MethodNotAllowed", None),
            Rejection::BodyTooLarge { .. } => ("EntityTooLarge", None),
            Rejection::BodyBroken => ("IncompleteBody", None),
            Rejection::BodyEncoded => ("UnsupportedMediaType", None),
            Rejection::Unreadable(_) | Rejection::Malformed { .. } => ("InvalidRequest", None),
            Rejection::Overloaded => ("SlowDown", Some(SLOW_DOWN)),
            Rejection::Unrecorded => (
                "kms:AuditUnavailable",
                Some("the audit log is not available, and without it this is not done"),
            ),
            Rejection::Panicked => ("InternalError", None),
            Rejection::By(never) => match *never {},
        };
        ErrorResponse::of_pipeline(rejection, code, message)
    }

    fn write(response: &ErrorResponse, line: &RequestLine<'_>) -> Response<Bytes> {
        let body = ErrorBody {
            code: response.content.code,
            message: &response.content.message,
            resource: line.resource(),
            request_id: line.request_id,
            host_id: "keyway",
        };
        // Strings always serialize; an empty body would still carry the status.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        keyway_http::uncached("application/json", body)
    }
}
