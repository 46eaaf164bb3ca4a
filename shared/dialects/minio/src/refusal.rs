//! The one table from errors to statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Response, StatusCode};
use keyway_auth::sigv4::{Denied, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::KmsError;
use keyway_http::{Place, Refused};
use serde::Serialize;

use crate::Api;

/// An error response of this API.
pub type Refusal = keyway_auth::ErrorResponse<Api>;

/// 400 `InvalidRequest`.
pub(crate) fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::bad_request("InvalidRequest", message)
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
const KEY_STATE: &str = "kms:InvalidKeyState";
const SLOW_DOWN: &str = "Please reduce your request rate";
const UNAVAILABLE: &str =
    "a backend of the KMS cannot be reached or is not fit to be used; try again later";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> Refusal {
        match error {
            // This API spells its parameters with hyphens.
            KmsError::Invalid { field, reason } => {
                invalid(format!("{}: {reason}", field.replace('_', "-")))
            }
            KmsError::NotPermitted => Refusal::forbidden("AccessDenied", "Access Denied."),
            KmsError::Forbidden(why) => Refusal::forbidden(NOT_PERMITTED, why),
            KmsError::IdentityIsAdmin | KmsError::IdentityIsCaller => Refusal::forbidden(
                NOT_PERMITTED,
                "this identity's policy cannot be changed by the caller",
            ),
            KmsError::KeyNotFound(key) => absent("kms:KeyNotFound", "key", &key),
            KmsError::AccessKeyNotFound(id) => {
                absent("XMinioAdminNoSuchAccessKey", "access key", &id)
            }
            KmsError::PolicyNotFound(name) => absent("XMinioAdminNoSuchPolicy", "policy", &name),
            KmsError::IdentityNotFound(name) => absent("XMinioAdminNoSuchUser", "identity", &name),
            KmsError::BucketNotFound(bucket) => absent("NoSuchBucket", "bucket", &bucket),
            KmsError::NoBucketEncryption(bucket) => Refusal::not_found(
                "ServerSideEncryptionConfigurationNotFoundError",
                format!("bucket {bucket} has no default encryption"),
            ),
            KmsError::KeyExists(key) => {
                Refusal::conflict("kms:KeyAlreadyExists", format!("key {key} already exists"))
            }
            KmsError::KeyState { key_id, state } => {
                Refusal::conflict(KEY_STATE, format!("key {key_id} is {state}"))
            }
            KmsError::TooManyVersions(key) => Refusal::conflict(
                KEY_STATE,
                format!("key {key} has as many versions as a key can have"),
            ),
            KmsError::NoHmacKey(key) => {
                Refusal::conflict(KEY_STATE, format!("key {key} has no HMAC key"))
            }
            KmsError::StillReferenced(key, references) => {
                let names: Vec<String> = references.iter().map(ToString::to_string).collect();
                let names = names.join(", ");
                Refusal::conflict(
                    "kms:KeyInUse",
                    format!("key {key} is still referenced: {names}"),
                )
            }
            KmsError::BucketExists(bucket) => Refusal::conflict(
                "BucketAlreadyOwnedByYou",
                format!("bucket {bucket} already exists"),
            ),
            KmsError::BucketNotEmpty(bucket) => {
                Refusal::conflict("BucketNotEmpty", format!("bucket {bucket} is not empty"))
            }
            KmsError::Contended(key) => Refusal::conflict(
                "OperationAborted",
                format!("key {key} is being changed by others at the same time; try again"),
            ),
            KmsError::Conflict(why) => Refusal::conflict("OperationAborted", why),
            KmsError::DecryptionFailed => Refusal::bad_request(
                "kms:InvalidCiphertextException",
                "the ciphertext cannot be decrypted",
            ),
            KmsError::NotConfigured => Refusal::not_implemented(
                "NotImplemented",
                "Server side encryption specified but KMS is not configured",
            ),
            KmsError::NotRunning => {
                Refusal::unavailable("ServiceUnavailable", "the KMS service is not running")
            }
            KmsError::Throttled => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "SlowDown", SLOW_DOWN).retry_later()
            }
            KmsError::Unavailable(fault) => Refusal::unavailable("ServiceUnavailable", UNAVAILABLE)
                .retry_later()
                .caused_by(fault),
            KmsError::Backend(fault) => {
                Refusal::internal("InternalError", "a backend of the KMS failed").caused_by(fault)
            }
        }
    }
}

fn absent(code: &'static str, what: &'static str, name: &dyn std::fmt::Display) -> Refusal {
    Refusal::not_found(code, format!("{what} {name} does not exist"))
}

impl SignedErrors for Api {
    fn of_denied(denied: &Denied) -> Refusal {
        let text = denied.to_string();
        match denied {
            Denied::UnknownAccessKey => Refusal::forbidden(
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records.",
            ),
            Denied::SignatureMismatch => Refusal::forbidden("SignatureDoesNotMatch", text),
            Denied::Skewed | Denied::NotYetValid => {
                Refusal::forbidden("RequestTimeTooSkewed", text)
            }
            Denied::PayloadMismatch => Refusal::bad_request("XAmzContentSHA256Mismatch", text),
            denied => match denied.status_class() {
                StatusClass::BadRequest => invalid(text),
                StatusClass::Unauthenticated => Refusal::forbidden("AccessDenied", text),
            },
        }
    }

    fn of_pipeline(refused: &Refused<Infallible>, _: &Place<'_>) -> Refusal {
        let (code, message) = match refused {
            Refused::NoRoute => ("XMinioAdminAPINotFound", None),
            Refused::OtherMethods(_) => ("MethodNotAllowed", None),
            Refused::BodyTooLarge { .. } => ("EntityTooLarge", None),
            Refused::BodyBroken => ("IncompleteBody", None),
            Refused::BodyEncoded => ("UnsupportedMediaType", None),
            Refused::Unreadable(_) | Refused::Malformed { .. } => ("InvalidRequest", None),
            Refused::Overloaded => ("SlowDown", Some(SLOW_DOWN)),
            Refused::Unwitnessed => (
                "kms:AuditUnavailable",
                Some("the audit log is not available, and without it this is not done"),
            ),
            Refused::Panicked => ("InternalError", None),
            Refused::By(never) => match *never {},
        };
        Refusal::of_pipeline(refused, code, message)
    }

    fn write(refusal: &Refusal, place: &Place<'_>) -> Response<Bytes> {
        let body = ErrorBody {
            code: refusal.content.code,
            message: &refusal.content.message,
            resource: place.resource(),
            request_id: place.request_id,
            host_id: "keyway",
        };
        // Strings always serialize; an empty body would still carry the status.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        keyway_http::uncached("application/json", body)
    }
}
