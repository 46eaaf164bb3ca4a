//! The one table from errors to S3's statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderName, Method, Response, StatusCode};
use keyway_auth::sigv4::{Denied, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::{Fault, KmsError};
use keyway_http::{NO_STORE, Place, Refused};

use crate::xml::Document;
use crate::{Api, REQUEST_ID};

/// An error response of S3.
pub type Refusal = keyway_auth::ErrorResponse<Api>;

pub(crate) fn invalid_argument(message: impl Into<String>) -> Refusal {
    Refusal::bad_request("InvalidArgument", message)
}

/// A name that could be a bucket's, but is kept for something else.
pub(crate) fn reserved_name() -> Refusal {
    Refusal::bad_request("InvalidBucketName", "The specified bucket is not valid.")
}

fn invalid_name(reason: &str) -> Refusal {
    Refusal::bad_request(
        "InvalidBucketName",
        format!("The specified bucket is not valid: {reason}"),
    )
}

const MALFORMED_XML: &str =
    "The XML you provided was not well-formed or did not validate against our published schema";

pub(crate) fn malformed_xml() -> Refusal {
    Refusal::bad_request("MalformedXML", MALFORMED_XML)
}

pub(crate) fn bad_digest(header: &str) -> Refusal {
    Refusal::bad_request(
        "BadDigest",
        format!("The {header} you specified did not match what we received"),
    )
}

pub(crate) fn invalid_digest() -> Refusal {
    Refusal::bad_request(
        "InvalidDigest",
        "The Content-MD5 you specified is not valid",
    )
}

pub(crate) fn invalid_tag(reason: &str) -> Refusal {
    Refusal::bad_request("InvalidTag", format!("The tags are not valid: {reason}"))
}

/// A part of a setting that is not served.
pub(crate) fn not_supported(part: &str) -> Refusal {
    Refusal::not_implemented(
        "NotImplemented",
        format!("{part} is not supported here; leave it out"),
    )
}

pub(crate) fn not_implemented() -> Refusal {
    Refusal::not_implemented(
        "NotImplemented",
        "Of S3, only buckets and their default encryption are served here",
    )
}

/// 503, for clients to try again.
fn later(code: &'static str, message: &'static str) -> Refusal {
    Refusal::unavailable(code, message).retry_later()
}

fn internal() -> Refusal {
    Refusal::internal("InternalError", "We encountered an internal error")
}

const SLOW_DOWN: &str = "Please reduce your request rate";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> Refusal {
        match error {
            KmsError::Invalid {
                field: "bucket",
                reason,
            } => invalid_name(&reason),
            KmsError::Invalid {
                field: "SSEAlgorithm",
                reason,
            } => Refusal::bad_request(
                "MalformedXML",
                format!("{MALFORMED_XML}: SSEAlgorithm {reason}"),
            ),
            KmsError::Invalid { field, reason } => invalid_argument(format!("{field}: {reason}")),
            KmsError::NotPermitted => Refusal::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => Refusal::forbidden("AccessDenied", why),
            KmsError::BucketNotFound(_) => {
                Refusal::not_found("NoSuchBucket", "The specified bucket does not exist")
            }
            KmsError::BucketExists(_) => Refusal::conflict(
                "BucketAlreadyOwnedByYou",
                "The bucket that you tried to create already exists, and you own it",
            ),
            KmsError::BucketNotEmpty(_) => Refusal::conflict(
                "BucketNotEmpty",
                "The bucket you tried to delete is not empty",
            ),
            KmsError::NoBucketEncryption(_) => Refusal::not_found(
                "ServerSideEncryptionConfigurationNotFoundError",
                "The server side encryption configuration was not found",
            ),
            KmsError::KeyNotFound(key) => {
                Refusal::bad_request("KMS.NotFoundException", format!("key {key} does not exist"))
            }
            KmsError::KeyState { key_id, state } => {
                Refusal::bad_request("KMS.DisabledException", format!("key {key_id} is {state}"))
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
            KmsError::Contended(_) => Refusal::conflict(
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

    fn of_denied(denied: &Denied) -> Refusal {
        let text = denied.to_string();
        match denied {
            Denied::UnknownAccessKey => Refusal::forbidden(
                "InvalidAccessKeyId",
                "The access key ID you provided does not exist in our records",
            ),
            Denied::SignatureMismatch => Refusal::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            Denied::Skewed | Denied::NotYetValid => {
                Refusal::forbidden("RequestTimeTooSkewed", text)
            }
            Denied::PayloadMismatch => Refusal::bad_request("XAmzContentSHA256Mismatch", text),
            Denied::Region { .. } | Denied::Service { .. } | Denied::ScopeDate => {
                Refusal::bad_request("AuthorizationHeaderMalformed", text)
            }
            denied => match denied.status_class() {
                StatusClass::BadRequest => Refusal::bad_request("InvalidRequest", text),
                StatusClass::Unauthenticated => Refusal::forbidden("AccessDenied", text),
            },
        }
    }

    fn of_pipeline(refused: &Refused<Infallible>, place: &Place<'_>) -> Refusal {
        let (code, message) = match refused {
            Refused::OtherMethods(_) if !METHODS.contains(place.method) => (
                "MethodNotAllowed",
                Some("The specified method is not allowed against this resource"),
            ),
            // S3 has an operation for nearly every method and path.
            Refused::NoRoute | Refused::OtherMethods(_) => return not_implemented(),
            Refused::BodyTooLarge { limit } => {
                return Refusal::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "EntityTooLarge",
                    format!("Your request was larger than {limit} bytes"),
                );
            }
            Refused::BodyBroken => ("IncompleteBody", None),
            Refused::BodyEncoded => ("UnsupportedMediaType", None),
            Refused::Unreadable(_) => ("InvalidRequest", None),
            Refused::Malformed { .. } => ("InvalidURI", None),
            Refused::Overloaded => ("SlowDown", Some(SLOW_DOWN)),
            Refused::Unwitnessed => ("ServiceUnavailable", Some("The audit log is not available")),
            Refused::Panicked => return internal(),
            Refused::By(never) => match *never {},
        };
        Refusal::of_pipeline(refused, code, message)
    }

    fn write(refusal: &Refusal, place: &Place<'_>) -> Response<Bytes> {
        if place.method == Method::HEAD {
            let mut response = Response::new(Bytes::new());
            response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
            return response;
        }
        let mut document = Document::plain("Error");
        document.text("Code", refusal.content.code);
        document.text("Message", &refusal.content.message);
        document.text("Resource", place.resource());
        document.text("RequestId", place.request_id);
        document.into_response()
    }
}
