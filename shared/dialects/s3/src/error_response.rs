//! The one table from errors to S3's statuses, codes and texts.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use keyway_auth::AuthError;
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_domain::keys::KeyState;
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};

use crate::REQUEST_ID;
use crate::xml::Document;

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

    fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    fn forbidden(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    fn later(code: &'static str, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        refusal.header = Some(Box::new((RETRY_AFTER, HeaderValue::from_static("1"))));
        refusal
    }

    fn internal(message: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    fn because_of(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(crate) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::bad("InvalidArgument", message)
    }

    /// A name that could be a bucket's, but is kept for something else.
    pub(crate) fn reserved_name() -> Self {
        Self::bad("InvalidBucketName", "The specified bucket is not valid.")
    }

    pub(crate) fn invalid_name(reason: &str) -> Self {
        Self::bad(
            "InvalidBucketName",
            format!("The specified bucket is not valid: {reason}"),
        )
    }

    pub(crate) fn malformed_xml() -> Self {
        Self::bad(
            "MalformedXML",
            "The XML you provided was not well-formed or did not validate against our published schema",
        )
    }

    pub(crate) fn bad_digest(header: &str) -> Self {
        Self::bad(
            "BadDigest",
            format!("The {header} you specified did not match what we received"),
        )
    }

    pub(crate) fn invalid_digest() -> Self {
        Self::bad(
            "InvalidDigest",
            "The Content-MD5 you specified is not valid",
        )
    }

    pub(crate) fn invalid_tag(reason: &str) -> Self {
        Self::bad("InvalidTag", format!("The tags are not valid: {reason}"))
    }

    /// A part of a setting that is not served.
    pub(crate) fn not_supported(part: &str) -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("{part} is not supported here; leave it out"),
        )
    }

    pub(crate) fn not_implemented() -> Self {
        Self::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "Of S3, only buckets and their default encryption are served here",
        )
    }

    pub(crate) fn answer(self, line: &RequestLine<'_>) -> Response<Bytes> {
        if let Some(fault) = &self.fault {
            fault.log(line.request_id);
        }
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(id) = HeaderValue::from_str(line.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some((name, value)) = self.header.map(|header| *header) {
            headers.insert(name, value);
        }
        if line.method == Method::HEAD {
            return response;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        let mut document = Document::plain("Error");
        document.text("Code", self.code);
        document.text("Message", &self.message);
        // Paths come from the client and may be long.
        let resource: String = line.raw_path.chars().take(300).collect();
        document.text("Resource", &resource);
        document.text("RequestId", line.request_id);
        *response.body_mut() = document.into_bytes();
        response
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
            KmsError::Invalid {
                field: "bucket",
                reason,
            } => Self::invalid_name(&reason),
            KmsError::Invalid {
                field: "SSEAlgorithm",
                reason,
            } => {
                let Self { message, .. } = Self::malformed_xml();
                Self::bad("MalformedXML", format!("{message}: SSEAlgorithm {reason}"))
            }
            KmsError::Invalid { field, reason } => {
                Self::invalid_argument(format!("{field}: {reason}"))
            }
            KmsError::NotPermitted => Self::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => Self::forbidden("AccessDenied", why),
            KmsError::BucketNotFound(_) => Self::new(
                StatusCode::NOT_FOUND,
                "NoSuchBucket",
                "The specified bucket does not exist",
            ),
            KmsError::BucketExists(_) => Self::new(
                StatusCode::CONFLICT,
                "BucketAlreadyOwnedByYou",
                "The bucket that you tried to create already exists, and you own it",
            ),
            KmsError::BucketNotEmpty(_) => Self::new(
                StatusCode::CONFLICT,
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty",
            ),
            KmsError::NoBucketEncryption(_) => Self::new(
                StatusCode::NOT_FOUND,
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
            ),
            KmsError::KeyNotFound(key) => {
                Self::bad("KMS.NotFoundException", format!("key {key} does not exist"))
            }
            KmsError::KeyState { key_id, state } => {
                let state = match state {
                    KeyState::Enabled => "enabled",
                    KeyState::Disabled => "disabled",
                    KeyState::PendingDeletion { .. } => "pending deletion",
                };
                Self::bad("KMS.DisabledException", format!("key {key_id} is {state}"))
            }
            KmsError::NotConfigured => {
                Self::later("ServiceUnavailable", "the KMS service is not configured")
            }
            KmsError::NotRunning => {
                Self::later("ServiceUnavailable", "the KMS service is not running")
            }
            KmsError::Throttled => Self::later("SlowDown", "Please reduce your request rate"),
            KmsError::Unavailable(fault) => {
                Self::later("ServiceUnavailable", "Please try again later").because_of(fault)
            }
            KmsError::Backend(fault) => {
                Self::internal("We encountered an internal error").because_of(fault)
            }
            KmsError::Contended(_) => Self::new(
                StatusCode::CONFLICT,
                "OperationAborted",
                "A conflicting operation is in progress; try again",
            ),
            // No operation of S3 meets these.
            KmsError::AccessKeyNotFound(_)
            | KmsError::PolicyNotFound(_)
            | KmsError::IdentityNotFound(_)
            | KmsError::IdentityIsAdmin
            | KmsError::IdentityIsCaller
            | KmsError::KeyExists(_)
            | KmsError::TooManyVersions(_)
            | KmsError::StillReferenced(..)
            | KmsError::NoHmacKey(_)
            | KmsError::Conflict(_)
            | KmsError::IncorrectKey
            | KmsError::DryRun
            | KmsError::DecryptionFailed => Self::internal("We encountered an internal error")
                .because_of(Fault::plain(
                    "an operation on buckets failed as one on keys",
                )),
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
                "The access key ID you provided does not exist in our records",
            ),
            SignatureError::SignatureMismatch => Self::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            SignatureError::Skewed | SignatureError::NotYetValid => {
                Self::forbidden("RequestTimeTooSkewed", text)
            }
            SignatureError::PayloadMismatch => Self::bad("XAmzContentSHA256Mismatch", text),
            SignatureError::Region { .. }
            | SignatureError::Service { .. }
            | SignatureError::ScopeDate => Self::bad("AuthorizationHeaderMalformed", text),
            denied => match denied.status_class() {
                StatusClass::BadRequest => Self::bad("InvalidRequest", text),
                StatusClass::Unauthenticated => Self::forbidden("AccessDenied", text),
            },
        }
    }
}

/// The methods that S3 has operations for.
const METHODS: [Method; 5] = [
    Method::GET,
    Method::HEAD,
    Method::PUT,
    Method::POST,
    Method::DELETE,
];

impl ErrorResponse {
    /// The answer to a request by this method that was refused.
    pub(crate) fn of(refused: Rejection<Self>, method: &Method) -> Self {
        match refused {
            Rejection::By(refusal) => refusal,
            Rejection::OtherMethods(allow) if !METHODS.contains(method) => {
                let mut refusal = Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "MethodNotAllowed",
                    "The specified method is not allowed against this resource",
                );
                refusal.header = HeaderValue::from_str(&allow)
                    .ok()
                    .map(|allow| Box::new((ALLOW, allow)));
                refusal
            }
            // S3 has an operation for nearly every method and path.
            Rejection::NoRoute | Rejection::OtherMethods(_) => Self::not_implemented(),
            Rejection::BodyTooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "EntityTooLarge",
                format!("Your request was larger than {limit} bytes"),
            ),
            Rejection::BodyBroken => Self::bad("IncompleteBody", "the body broke off"),
            Rejection::BodyEncoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "Content-Encoding: send the body as it is, without a content coding",
            ),
            Rejection::Unreadable(unreadable) => {
                Self::new(unreadable.status, "InvalidRequest", unreadable.reason())
            }
            Rejection::Malformed { part, error } => {
                Self::bad("InvalidURI", format!("the {part} {error}"))
            }
            Rejection::Overloaded => Self::later("SlowDown", "Please reduce your request rate"),
            Rejection::Unrecorded => {
                Self::later("ServiceUnavailable", "The audit log is not available")
            }
            Rejection::Panicked => Self::internal("We encountered an internal error"),
        }
    }
}
