//! The table from errors to S3's statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderName, Method, Response, StatusCode};
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::{Fault, KmsError};
use keyway_http::{NO_STORE, Rejection, RequestLine};

use crate::xml::Document;
use crate::{Api, REQUEST_ID};

/// An error response of S3.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

pub(crate) fn invalid_argument(message: impl Into<String>) -> ErrorResponse {
    ErrorResponse::bad_request("InvalidArgument", message)
}

/// The error for a valid bucket name that is reserved.
pub(crate) fn reserved_name() -> ErrorResponse {
    ErrorResponse::bad_request("InvalidBucketName", "The specified bucket is not valid.")
}

fn invalid_name(reason: &str) -> ErrorResponse {
    ErrorResponse::bad_request(
        "InvalidBucketName",
        format!("The specified bucket is not valid: {reason}"),
    )
}

const MALFORMED_XML: &str =
    "The XML you provided was not well-formed or did not validate against our published schema";

pub(crate) fn malformed_xml() -> ErrorResponse {
    ErrorResponse::bad_request("MalformedXML", MALFORMED_XML)
}

pub(crate) fn bad_digest(header: &str) -> ErrorResponse {
    ErrorResponse::bad_request(
        "BadDigest",
        format!("The {header} you specified did not match what we received"),
    )
}

pub(crate) fn invalid_digest() -> ErrorResponse {
    ErrorResponse::bad_request(
        "InvalidDigest",
        "The Content-MD5 you specified is not valid",
    )
}

pub(crate) fn invalid_tag(reason: &str) -> ErrorResponse {
    ErrorResponse::bad_request("InvalidTag", format!("The tags are not valid: {reason}"))
}

/// The error for a part of a configuration that is not supported.
pub(crate) fn not_supported(part: &str) -> ErrorResponse {
    ErrorResponse::not_implemented(
        "NotImplemented",
        format!("{part} is not supported here; leave it out"),
    )
}

pub(crate) fn not_implemented() -> ErrorResponse {
    ErrorResponse::not_implemented(
        "NotImplemented",
        "Of S3, only buckets and their default encryption are served here",
    )
}

/// A 503 that tells clients to retry.
fn later(code: &'static str, message: &'static str) -> ErrorResponse {
    ErrorResponse::unavailable(code, message).retry_later()
}

fn internal() -> ErrorResponse {
    ErrorResponse::internal("InternalError", "We encountered an internal error")
}

const SLOW_DOWN: &str = "Please reduce your request rate";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> ErrorResponse {
        match error {
            KmsError::Invalid {
                field: "bucket",
                reason,
            } => invalid_name(&reason),
            KmsError::Invalid {
                field: "SSEAlgorithm",
                reason,
            } => ErrorResponse::bad_request(
                "MalformedXML",
                format!("{MALFORMED_XML}: SSEAlgorithm {reason}"),
            ),
            KmsError::Invalid { field, reason } => invalid_argument(format!("{field}: {reason}")),
            KmsError::NotPermitted => ErrorResponse::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => ErrorResponse::forbidden("AccessDenied", why),
            KmsError::BucketNotFound(_) => {
                ErrorResponse::not_found("NoSuchBucket", "The specified bucket does not exist")
            }
            KmsError::BucketExists(_) => ErrorResponse::conflict(
                "BucketAlreadyOwnedByYou",
                "The bucket that you tried to create already exists, and you own it",
            ),
            KmsError::BucketNotEmpty(_) => ErrorResponse::conflict(
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty",
            ),
            KmsError::NoBucketEncryption(_) => ErrorResponse::not_found(
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
            ),
            KmsError::KeyNotFound(key) => ErrorResponse::bad_request(
                "KMS.NotFoundException",
                format!("key {key} does not exist"),
            ),
            KmsError::KeyState { key_id, state } => ErrorResponse::bad_request(
                "KMS.DisabledException",
                format!("key {key_id} is {state}"),
            ),
            KmsError::KeySpec { key_id, spec } => {
                let usage = spec.usage().as_str();
                let text = format!("key {key_id} is for {usage} only");
                ErrorResponse::bad_request("KMS.InvalidKeyUsageException", text)
            }
            KmsError::NotConfigured => {
                later("ServiceUnavailable", "the KMS service is not configured")
            }
            KmsError::NotRunning => later("ServiceUnavailable", "the KMS service is not running"),
            KmsError::Throttled => later("SlowDown", SLOW_DOWN),
            KmsError::Unavailable(fault) => {
                later("ServiceUnavailable", "Please try again later").caused_by(fault)
            }
            KmsError::Backend(fault) => internal().caused_by(fault),
            KmsError::Contended(_) => ErrorResponse::conflict(
                "OperationAborted",
                "A conflicting operation is in progress; try again",
            ),
            // No operation of S3 returns these.
            KmsError::AccessKeyNotFound(_)
            | KmsError::PolicyNotFound(_)
            | KmsError::IdentityNotFound(_)
            | KmsError::IdentityIsAdmin
            | KmsError::IdentityIsCaller
            | KmsError::AliasNotFound(_)
            | KmsError::AliasExists(_)
            | KmsError::TooManyAliases(_)
            | KmsError::KeyExists(_)
            | KmsError::TooManyTags { .. }
            | KmsError::TooManyVersions(_)
            | KmsError::StillReferenced(..)
            | KmsError::NoHmacKey(_)
            | KmsError::InvalidMac
            | KmsError::Conflict(_)
            | KmsError::IncorrectKey
            | KmsError::DryRun
            | KmsError::DecryptionFailed => internal().caused_by(Fault::plain(
                "an operation on buckets failed as one on keys",
            )),
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

impl SignedErrors for Api {
    const REQUEST_ID: Option<HeaderName> = Some(REQUEST_ID);

    fn of_signature(error: &SignatureError) -> ErrorResponse {
        let text = error.to_string();
        match error {
            SignatureError::UnknownAccessKey => ErrorResponse::forbidden(
                "InvalidAccessKeyId",
                "The access key ID you provided does not exist in our records",
            ),
            SignatureError::ExpiredCredentials => {
                ErrorResponse::bad_request("ExpiredToken", "The provided token has expired.")
            }
            SignatureError::SignatureMismatch => ErrorResponse::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            SignatureError::Skewed | SignatureError::NotYetValid => {
                ErrorResponse::forbidden("RequestTimeTooSkewed", text)
            }
            SignatureError::PayloadMismatch => {
                ErrorResponse::bad_request("XAmzContentSHA256Mismatch", text)
            }
            SignatureError::Region { .. }
            | SignatureError::Service { .. }
            | SignatureError::ScopeDate => {
                ErrorResponse::bad_request("AuthorizationHeaderMalformed", text)
            }
            error => match error.status_class() {
                StatusClass::BadRequest => ErrorResponse::bad_request("InvalidRequest", text),
                StatusClass::Unauthenticated => ErrorResponse::forbidden("AccessDenied", text),
            },
        }
    }

    fn of_pipeline(rejection: &Rejection<Infallible>, line: &RequestLine<'_>) -> ErrorResponse {
        let (code, message) = match rejection {
            Rejection::OtherMethods(_) if !METHODS.contains(line.method) => (
                "MethodNotAllowed",
                Some("The specified method is not allowed against this resource"),
            ),
            // S3 has an operation for nearly every method and path.
            Rejection::NoRoute | Rejection::OtherMethods(_) => return not_implemented(),
            Rejection::BodyTooLarge { limit } => {
                return ErrorResponse::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "EntityTooLarge",
                    format!("Your request was larger than {limit} bytes"),
                );
            }
            Rejection::BodyBroken => ("IncompleteBody", None),
            Rejection::BodyEncoded => ("UnsupportedMediaType", None),
            Rejection::Unreadable(_) => ("InvalidRequest", None),
            Rejection::Malformed { .. } => ("InvalidURI", None),
            Rejection::Overloaded => ("SlowDown", Some(SLOW_DOWN)),
            Rejection::Unrecorded => ("ServiceUnavailable", Some("The audit log is not available")),
            Rejection::Panicked => return internal(),
            Rejection::By(never) => match *never {},
        };
        ErrorResponse::of_pipeline(rejection, code, message)
    }

    fn write(response: &ErrorResponse, line: &RequestLine<'_>) -> Response<Bytes> {
        if line.method == Method::HEAD {
            let mut response = Response::new(Bytes::new());
            response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
            return response;
        }
        let mut document = Document::plain("Error");
        document.text("Code", response.content.code);
        document.text("Message", &response.content.message);
        document.text("Resource", line.resource());
        document.text("RequestId", line.request_id);
        document.into_response()
    }
}
