//! The table from errors to STS's statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, Response};
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};

use crate::Api;
use crate::answers::{Error, ErrorDocument, XMLNS, xml};

/// An error response of STS.
pub type ErrorResponse = keyway_auth::ErrorResponse<Api>;

const INTERNAL: &str = "the request could not be served";

pub(crate) fn internal(fault: Fault) -> ErrorResponse {
    ErrorResponse::internal("InternalFailure", INTERNAL).caused_by(fault)
}

/// The error for an invalid parameter. The client chooses the name, and XML has no control characters.
pub(crate) fn invalid(parameter: &str, reason: &str) -> ErrorResponse {
    let fit = parameter
        .chars()
        .filter(|character| !character.is_control());
    let name: String = fit.take(64).collect();
    ErrorResponse::bad_request("ValidationError", format!("{name} {reason}"))
}

pub(crate) fn missing_action() -> ErrorResponse {
    ErrorResponse::bad_request("MissingAction", "the body names no Action")
}

pub(crate) fn invalid_action() -> ErrorResponse {
    ErrorResponse::bad_request(
        "InvalidAction",
        "of STS, only AssumeRole and GetCallerIdentity are served here",
    )
}

pub(crate) fn of_gateway() -> ErrorResponse {
    ErrorResponse::forbidden(
        "AccessDenied",
        "callers whom the gateway identifies get temporary credentials from AWS",
    )
}

const THROTTLED: &str = "reduce the rate of requests";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> ErrorResponse {
        match error {
            KmsError::Invalid {
                field: "policy",
                reason,
            } => ErrorResponse::bad_request("MalformedPolicyDocument", format!("Policy {reason}")),
            KmsError::Invalid { field, reason } => invalid(field, &reason),
            KmsError::NotPermitted => ErrorResponse::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => ErrorResponse::forbidden("AccessDenied", why),
            KmsError::Throttled => {
                ErrorResponse::unavailable("Throttling", THROTTLED).retry_later()
            }
            KmsError::Unavailable(fault) => {
                ErrorResponse::unavailable("ServiceUnavailable", "try again later")
                    .retry_later()
                    .caused_by(fault)
            }
            KmsError::Backend(fault) => internal(fault),
            // No operation of STS returns these.
            other => internal(Fault::new("an operation of STS", other.class())),
        }
    }
}

impl SignedErrors for Api {
    const REQUEST_ID: Option<HeaderName> = Some(HeaderName::from_static("x-amzn-requestid"));

    fn of_signature(error: &SignatureError) -> ErrorResponse {
        let text = error.to_string();
        match error {
            SignatureError::UnknownAccessKey => ErrorResponse::forbidden(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            SignatureError::ExpiredCredentials => ErrorResponse::forbidden(
                "ExpiredToken",
                "The security token included in the request is expired",
            ),
            SignatureError::SignatureMismatch => ErrorResponse::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            SignatureError::Skewed | SignatureError::NotYetValid => {
                ErrorResponse::forbidden("SignatureDoesNotMatch", text)
            }
            error => match error.status_class() {
                StatusClass::BadRequest => ErrorResponse::bad_request("IncompleteSignature", text),
                StatusClass::Unauthenticated => {
                    ErrorResponse::forbidden("MissingAuthenticationToken", text)
                }
            },
        }
    }

    fn of_pipeline(rejection: &Rejection<Infallible>, _: &RequestLine<'_>) -> ErrorResponse {
        let (code, message) = match rejection {
            Rejection::NoRoute => ("InvalidAction", Some("no such path")),
            Rejection::OtherMethods(_) => ("InvalidAction", Some("the method is not allowed here")),
            Rejection::BodyTooLarge { .. }
            | Rejection::BodyBroken
            | Rejection::BodyEncoded
            | Rejection::Unreadable(_)
            | Rejection::Malformed { .. } => ("ValidationError", None),
            Rejection::Overloaded => ("Throttling", Some(THROTTLED)),
            Rejection::Unrecorded => ("ServiceUnavailable", Some("the audit log is not available")),
            Rejection::Panicked => ("InternalFailure", Some(INTERNAL)),
            Rejection::By(never) => match *never {},
        };
        ErrorResponse::of_pipeline(rejection, code, message)
    }

    fn write(response: &ErrorResponse, line: &RequestLine<'_>) -> Response<Bytes> {
        let by_sender = response.status.is_client_error();
        xml(&ErrorDocument {
            xmlns: XMLNS,
            error: Error {
                r#type: if by_sender { "Sender" } else { "Receiver" },
                code: response.content.code,
                message: &response.content.message,
            },
            request_id: line.request_id,
        })
    }
}
