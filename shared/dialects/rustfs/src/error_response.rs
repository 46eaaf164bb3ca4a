//! The one table from errors to statuses, codes and texts.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use keyway_auth::AuthError;
use keyway_auth::sigv4::StatusClass;
use keyway_domain::keys::{KeyState, Reference};
use keyway_domain::{Fault, InvalidId, KmsError};
use keyway_http::{QueryError, Rejection, RequestLine};
use serde::Serialize;

use crate::first_generation;

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

    pub(crate) fn invalid_field(field: &str, reason: impl std::fmt::Display) -> Self {
        Self::invalid(format!("field `{field}`: {reason}"))
    }

    pub(crate) fn invalid_query(name: &str, error: QueryError) -> Self {
        Self::invalid(format!("query parameter `{name}` {error}"))
    }

    fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some(Box::new((name, value)));
        self
    }

    /// The code and text, for one item of many; the fault behind it goes to the log.
    pub(crate) fn into_item(self, request_id: &str) -> (&'static str, String) {
        self.log(request_id);
        (self.code, self.message)
    }

    fn log(&self, request_id: &str) {
        if let Some(fault) = &self.fault {
            fault.log(request_id);
        }
    }

    pub(crate) fn answer(mut self, line: &RequestLine<'_>) -> Response<Bytes> {
        self.log(line.request_id);
        if first_generation::owns(line) {
            self.code = first_generation::code(self.code);
            if let Some(text) = first_generation::text(self.code) {
                text.clone_into(&mut self.message);
            }
        }
        let body = ErrorBody {
            success: false,
            code: self.code,
            message: &self.message,
            error: ErrorDetail {
                code: self.code,
                message: &self.message,
                request_id: line.request_id,
                resource: &crate::wire::shortened(line.raw_path),
            },
        };
        // Strings and a bool always serialize; an empty body would still carry the status.
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

const DRY_RUN: &str = "the request would have succeeded, but it is a dry run";

impl From<InvalidId> for ErrorResponse {
    fn from(error: InvalidId) -> Self {
        KmsError::from(error).into()
    }
}

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
            KmsError::Invalid { field, reason } => Self::invalid_field(field, reason),
            KmsError::NotPermitted => Self::new(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "unauthorised: the caller is not permitted to do this",
            ),
            KmsError::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, "AccessDenied", why),
            KmsError::KeyNotFound(key) => Self::new(
                StatusCode::NOT_FOUND,
                "KeyNotFound",
                format!("key `{key}` not found"),
            ),
            KmsError::AccessKeyNotFound(id) => Self::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("access key `{id}` not found"),
            ),
            KmsError::BucketNotFound(bucket) => Self::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("bucket `{bucket}` not found"),
            ),
            KmsError::BucketExists(bucket) => Self::new(
                StatusCode::CONFLICT,
                "Conflict",
                format!("bucket `{bucket}` already exists"),
            ),
            KmsError::BucketNotEmpty(bucket) => Self::new(
                StatusCode::CONFLICT,
                "Conflict",
                format!("bucket `{bucket}` is not empty"),
            ),
            KmsError::NoBucketEncryption(bucket) => Self::new(
                StatusCode::NOT_FOUND,
                "ServerSideEncryptionConfigurationNotFoundError",
                format!("bucket `{bucket}` has no default encryption"),
            ),
            KmsError::PolicyNotFound(name) => Self::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("policy `{name}` not found"),
            ),
            KmsError::IdentityNotFound(name) => Self::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                format!("identity `{name}` not found"),
            ),
            KmsError::IdentityIsAdmin | KmsError::IdentityIsCaller => Self::new(
                StatusCode::FORBIDDEN,
                "AccessDenied",
                "this identity's policy cannot be changed by the caller",
            ),
            KmsError::KeyExists(key) => Self::new(
                StatusCode::CONFLICT,
                "KeyAlreadyExists",
                format!("key `{key}` already exists"),
            ),
            KmsError::KeyState { key_id, state } => {
                let state = match state {
                    KeyState::Enabled => "enabled",
                    KeyState::Disabled => "disabled",
                    KeyState::PendingDeletion { .. } => "pending deletion",
                };
                Self::new(
                    StatusCode::CONFLICT,
                    "InvalidKeyState",
                    format!("key `{key_id}` is {state}"),
                )
            }
            KmsError::NoHmacKey(key) => Self::new(
                StatusCode::CONFLICT,
                "Conflict",
                format!("key `{key}` has no HMAC key"),
            ),
            KmsError::TooManyVersions(key) => Self::new(
                StatusCode::CONFLICT,
                "InvalidKeyState",
                format!("key `{key}` has as many versions as a key can have"),
            ),
            KmsError::StillReferenced(key, references) => {
                let names: Vec<String> = references
                    .iter()
                    .map(|reference| match reference {
                        Reference::ServiceDefaultKey => "service-default-key".to_owned(),
                        Reference::Bucket(bucket) => format!("bucket:{bucket}"),
                    })
                    .collect();
                Self::new(
                    StatusCode::CONFLICT,
                    "Conflict",
                    format!("key `{key}` is still referenced: {}", names.join(", ")),
                )
            }
            KmsError::DecryptionFailed | KmsError::IncorrectKey => Self::new(
                StatusCode::BAD_REQUEST,
                "DecryptionFailed",
                "the ciphertext cannot be decrypted",
            ),
            KmsError::DryRun => Self::new(StatusCode::BAD_REQUEST, "DryRun", DRY_RUN),
            KmsError::Contended(key) => Self::new(
                StatusCode::CONFLICT,
                "Conflict",
                format!("key `{key}` is being changed by others at the same time; try again"),
            ),
            KmsError::Conflict(why) => Self::new(StatusCode::CONFLICT, "Conflict", why),
            KmsError::NotConfigured => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceNotConfigured",
                "the KMS service is not configured: no configuration provided",
            ),
            KmsError::NotRunning => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ServiceNotRunning",
                "the KMS service is not running",
            ),
            KmsError::Throttled => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "Throttled",
                "too many requests; try again shortly",
            )
            .with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            KmsError::Unavailable(fault) => {
                let mut refusal = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "BackendError",
                    "a backend of the KMS cannot be reached or is not fit to be used; try again later",
                )
                .with_header(RETRY_AFTER, HeaderValue::from_static("1"));
                refusal.fault = Some(fault);
                refusal
            }
            KmsError::Backend(fault) => {
                let mut refusal = Self::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "BackendError",
                    "a backend of the KMS failed",
                );
                refusal.fault = Some(fault);
                refusal
            }
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
        match error {
            AuthError::Kms(error) => error.into(),
            AuthError::Signature(denied) => match denied.status_class() {
                StatusClass::BadRequest => Self::invalid(denied.to_string()),
                StatusClass::Unauthenticated => {
                    let message = format!("authentication required: {denied}");
                    Self::new(StatusCode::UNAUTHORIZED, "AccessDenied", message).with_header(
                        WWW_AUTHENTICATE,
                        HeaderValue::from_static("AWS4-HMAC-SHA256"),
                    )
                }
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
                "NotFound",
                "there is no such endpoint",
            ),
            Rejection::OtherMethods(allow) => {
                let refusal = Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "MethodNotAllowed",
                    format!("this endpoint takes {allow}"),
                );
                match HeaderValue::from_str(&allow) {
                    Ok(value) => refusal.with_header(ALLOW, value),
                    Err(_) => refusal,
                }
            }
            Rejection::BodyTooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "RequestTooLarge",
                format!("the body is longer than {limit} bytes"),
            ),
            Rejection::BodyBroken => Self::invalid("the body broke off"),
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
                "ServerBusy",
                "too many large requests at once; try again later",
            )
            .with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            Rejection::Unrecorded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "AuditUnavailable",
                "the audit log is not available, and without it this is not done; try again later",
            )
            .with_header(RETRY_AFTER, HeaderValue::from_static("1")),
            Rejection::Panicked => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalError",
                "the request failed unexpectedly",
            ),
        }
    }
}
