//! The one table from errors to statuses, codes and texts.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use keyway_auth::AuthError;
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_domain::keys::{KeyState, Reference};
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};
use serde::Serialize;

/// An answer that says no.
#[derive(Debug)]
pub struct ErrorResponse {
    status: StatusCode,
    /// A word for those who count.
    class: &'static str,
    code: &'static str,
    message: String,
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// What only the log may know.
    fault: Option<Fault>,
}

impl ErrorResponse {
    pub(crate) const fn class(&self) -> &'static str {
        self.class
    }

    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            class: keyway_http::class_of(status),
            code,
            message: message.into(),
            header: None,
            fault: None,
        }
    }

    /// 400 `InvalidRequest`.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidRequest", message)
    }

    fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    fn later(mut self) -> Self {
        self.header = Some(Box::new((RETRY_AFTER, HeaderValue::from_static("1"))));
        self
    }

    fn because_of(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    fn log(&self, request_id: &str) {
        if let Some(fault) = &self.fault {
            fault.log(request_id);
        }
    }

    /// The text alone; the fault behind it goes to the log.
    pub(crate) fn into_text(self, request_id: &str) -> String {
        self.log(request_id);
        self.message
    }

    pub(crate) fn answer(self, line: &RequestLine<'_>) -> Response<Bytes> {
        self.log(line.request_id);
        // Paths come from the client and may be long.
        let resource: String = line.raw_path.chars().take(300).collect();
        let body = ErrorBody {
            code: self.code,
            message: &self.message,
            resource: &resource,
            request_id: line.request_id,
            host_id: "keyway",
        };
        // Strings always serialize; an empty body would still carry the status.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(body.into());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        response
    }
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

impl From<KmsError> for ErrorResponse {
    fn from(error: KmsError) -> Self {
        let class = error.class();
        Self {
            class,
            ..Self::of_kms(error)
        }
    }
}

impl ErrorResponse {
    fn of_kms(error: KmsError) -> Self {
        match error {
            // This API spells its parameters with hyphens.
            KmsError::Invalid { field, reason } => {
                Self::invalid(format!("{}: {reason}", field.replace('_', "-")))
            }
            KmsError::NotPermitted => Self::forbidden("AccessDenied", "Access Denied."),
            KmsError::Forbidden(why) => Self::forbidden(NOT_PERMITTED, why),
            KmsError::KeyNotFound(key) => Self::new(
                StatusCode::NOT_FOUND,
                "kms:KeyNotFound",
                format!("key {key} does not exist"),
            ),
            KmsError::AccessKeyNotFound(id) => Self::new(
                StatusCode::NOT_FOUND,
                "XMinioAdminNoSuchAccessKey",
                format!("access key {id} does not exist"),
            ),
            KmsError::PolicyNotFound(name) => Self::new(
                StatusCode::NOT_FOUND,
                "XMinioAdminNoSuchPolicy",
                format!("policy {name} does not exist"),
            ),
            KmsError::IdentityNotFound(name) => Self::new(
                StatusCode::NOT_FOUND,
                "XMinioAdminNoSuchUser",
                format!("identity {name} does not exist"),
            ),
            KmsError::IdentityIsAdmin | KmsError::IdentityIsCaller => Self::forbidden(
                NOT_PERMITTED,
                "this identity's policy cannot be changed by the caller",
            ),
            KmsError::KeyExists(key) => {
                Self::conflict("kms:KeyAlreadyExists", format!("key {key} already exists"))
            }
            KmsError::KeyState { key_id, state } => {
                let state = match state {
                    KeyState::Enabled => "enabled",
                    KeyState::Disabled => "disabled",
                    KeyState::PendingDeletion { .. } => "pending deletion",
                };
                Self::conflict("kms:InvalidKeyState", format!("key {key_id} is {state}"))
            }
            KmsError::TooManyVersions(key) => Self::conflict(
                "kms:InvalidKeyState",
                format!("key {key} has as many versions as a key can have"),
            ),
            KmsError::StillReferenced(key, references) => {
                let names: Vec<String> = references
                    .iter()
                    .map(|reference| match reference {
                        Reference::ServiceDefaultKey => "service-default-key".to_owned(),
                        Reference::Bucket(bucket) => format!("bucket:{bucket}"),
                    })
                    .collect();
                Self::conflict(
                    "kms:KeyInUse",
                    format!("key {key} is still referenced: {}", names.join(", ")),
                )
            }
            KmsError::NoHmacKey(key) => {
                Self::conflict("kms:InvalidKeyState", format!("key {key} has no HMAC key"))
            }
            KmsError::BucketNotFound(bucket) => Self::new(
                StatusCode::NOT_FOUND,
                "NoSuchBucket",
                format!("bucket {bucket} does not exist"),
            ),
            KmsError::BucketExists(bucket) => Self::conflict(
                "BucketAlreadyOwnedByYou",
                format!("bucket {bucket} already exists"),
            ),
            KmsError::BucketNotEmpty(bucket) => {
                Self::conflict("BucketNotEmpty", format!("bucket {bucket} is not empty"))
            }
            KmsError::NoBucketEncryption(bucket) => Self::new(
                StatusCode::NOT_FOUND,
                "ServerSideEncryptionConfigurationNotFoundError",
                format!("bucket {bucket} has no default encryption"),
            ),
            KmsError::DecryptionFailed | KmsError::IncorrectKey => Self::new(
                StatusCode::BAD_REQUEST,
                "kms:InvalidCiphertextException",
                "the ciphertext cannot be decrypted",
            ),
            KmsError::DryRun => Self::new(
                StatusCode::BAD_REQUEST,
                "kms:DryRunOperationException",
                "the request would have succeeded, but it is a dry run",
            ),
            KmsError::Contended(key) => Self::conflict(
                "OperationAborted",
                format!("key {key} is being changed by others at the same time; try again"),
            ),
            KmsError::Conflict(why) => Self::conflict("OperationAborted", why),
            KmsError::NotConfigured => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "NotImplemented",
                "Server side encryption specified but KMS is not configured",
            ),
            KmsError::NotRunning => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "the KMS service is not running",
            ),
            KmsError::Throttled => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "SlowDown",
                "Please reduce your request rate",
            )
            .later(),
            KmsError::Unavailable(fault) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceUnavailable",
                "a backend of the KMS cannot be reached or is not fit to be used; try again later",
            )
            .later()
            .because_of(fault),
            KmsError::Backend(fault) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "a backend of the KMS failed",
            )
            .because_of(fault),
        }
    }
}

impl From<AuthError> for ErrorResponse {
    fn from(error: AuthError) -> Self {
        let class = error.class();
        Self {
            class,
            ..Self::of_auth(error)
        }
    }
}

impl ErrorResponse {
    fn of_auth(error: AuthError) -> Self {
        let denied = match error {
            AuthError::Kms(error) => return error.into(),
            AuthError::Signature(denied) => denied,
        };
        let text = denied.to_string();
        match denied {
            SignatureError::UnknownAccessKey => Self::forbidden(
                "InvalidAccessKeyId",
                "The Access Key Id you provided does not exist in our records.",
            ),
            SignatureError::SignatureMismatch => Self::forbidden("SignatureDoesNotMatch", text),
            SignatureError::Skewed | SignatureError::NotYetValid => {
                Self::forbidden("RequestTimeTooSkewed", text)
            }
            SignatureError::PayloadMismatch => {
                Self::new(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", text)
            }
            denied => match denied.status_class() {
                StatusClass::BadRequest => Self::invalid(text),
                StatusClass::Unauthenticated => Self::forbidden("AccessDenied", text),
            },
        }
    }
}

impl From<Rejection<Self>> for ErrorResponse {
    fn from(refused: Rejection<Self>) -> Self {
        match refused {
            Rejection::By(refusal) => refusal,
            Rejection::NoRoute => Self::new(
                StatusCode::NOT_FOUND,
                "XMinioAdminAPINotFound",
                "there is no such endpoint",
            ),
            Rejection::OtherMethods(allow) => {
                let mut refusal = Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "MethodNotAllowed",
                    format!("this endpoint takes {allow}"),
                );
                refusal.header = HeaderValue::from_str(&allow)
                    .ok()
                    .map(|allow| Box::new((ALLOW, allow)));
                refusal
            }
            Rejection::BodyTooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "EntityTooLarge",
                format!("the body is longer than {limit} bytes"),
            ),
            Rejection::BodyBroken => Self::new(
                StatusCode::BAD_REQUEST,
                "IncompleteBody",
                "the body broke off",
            ),
            Rejection::BodyEncoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "Content-Encoding: send the body as it is, without a content coding",
            ),
            Rejection::Unreadable(unreadable) => {
                Self::new(unreadable.status, "InvalidRequest", unreadable.reason())
            }
            Rejection::Malformed { part, error } => Self::invalid(format!("the {part} {error}")),
            Rejection::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "SlowDown",
                "Please reduce your request rate",
            )
            .later(),
            Rejection::Unrecorded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "kms:AuditUnavailable",
                "the audit log is not available, and without it this is not done",
            )
            .later(),
            Rejection::Panicked => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "the request failed unexpectedly",
            ),
        }
    }
}
