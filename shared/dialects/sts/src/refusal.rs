//! The one table from errors to STS's statuses, codes and texts.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderName, Response};
use keyway_auth::sigv4::{Denied, StatusClass};
use keyway_auth::{Coded, ErrorTable, SignedErrors};
use keyway_domain::{Fault, KmsError};
use keyway_http::{Place, Refused};

use crate::Api;
use crate::answers::{Error, ErrorDocument, XMLNS, xml};

/// An error response of STS.
pub type Refusal = keyway_auth::ErrorResponse<Api>;

const INTERNAL: &str = "the request could not be served";

pub(crate) fn internal(fault: Fault) -> Refusal {
    Refusal::internal("InternalFailure", INTERNAL).caused_by(fault)
}

/// A parameter that cannot be used. Its name comes from the client, and XML has no control characters.
pub(crate) fn invalid(parameter: &str, reason: &str) -> Refusal {
    let fit = parameter
        .chars()
        .filter(|character| !character.is_control());
    let name: String = fit.take(64).collect();
    Refusal::bad_request("ValidationError", format!("{name} {reason}"))
}

pub(crate) fn missing_action() -> Refusal {
    Refusal::bad_request("MissingAction", "the body names no Action")
}

pub(crate) fn invalid_action() -> Refusal {
    Refusal::bad_request(
        "InvalidAction",
        "of STS, only AssumeRole and GetCallerIdentity are served here",
    )
}

pub(crate) fn of_gateway() -> Refusal {
    Refusal::forbidden(
        "AccessDenied",
        "callers whom the gateway identifies get temporary credentials from AWS",
    )
}

const THROTTLED: &str = "reduce the rate of requests";

impl ErrorTable for Api {
    type Content = Coded;

    fn of_kms(error: KmsError) -> Refusal {
        match error {
            KmsError::Invalid {
                field: "policy",
                reason,
            } => Refusal::bad_request("MalformedPolicyDocument", format!("Policy {reason}")),
            KmsError::Invalid { field, reason } => invalid(field, &reason),
            KmsError::NotPermitted => Refusal::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => Refusal::forbidden("AccessDenied", why),
            KmsError::Throttled => Refusal::unavailable("Throttling", THROTTLED).retry_later(),
            KmsError::Unavailable(fault) => {
                Refusal::unavailable("ServiceUnavailable", "try again later")
                    .retry_later()
                    .caused_by(fault)
            }
            KmsError::Backend(fault) => internal(fault),
            // No operation of STS meets these.
            other => internal(Fault::new("an operation of STS", other.class())),
        }
    }
}

impl SignedErrors for Api {
    const REQUEST_ID: Option<HeaderName> = Some(HeaderName::from_static("x-amzn-requestid"));

    fn of_denied(denied: &Denied) -> Refusal {
        let text = denied.to_string();
        match denied {
            Denied::UnknownAccessKey => Refusal::forbidden(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            Denied::SignatureMismatch => Refusal::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            Denied::Skewed | Denied::NotYetValid => {
                Refusal::forbidden("SignatureDoesNotMatch", text)
            }
            denied => match denied.status_class() {
                StatusClass::BadRequest => Refusal::bad_request("IncompleteSignature", text),
                StatusClass::Unauthenticated => {
                    Refusal::forbidden("MissingAuthenticationToken", text)
                }
            },
        }
    }

    fn of_pipeline(refused: &Refused<Infallible>, _: &Place<'_>) -> Refusal {
        let (code, message) = match refused {
            Refused::NoRoute => ("InvalidAction", Some("no such path")),
            Refused::OtherMethods(_) => ("InvalidAction", Some("the method is not allowed here")),
            Refused::BodyTooLarge { .. }
            | Refused::BodyBroken
            | Refused::BodyEncoded
            | Refused::Unreadable(_)
            | Refused::Malformed { .. } => ("ValidationError", None),
            Refused::Overloaded => ("Throttling", Some(THROTTLED)),
            Refused::Unwitnessed => ("ServiceUnavailable", Some("the audit log is not available")),
            Refused::Panicked => ("InternalFailure", Some(INTERNAL)),
            Refused::By(never) => match *never {},
        };
        Refusal::of_pipeline(refused, code, message)
    }

    fn write(refusal: &Refusal, place: &Place<'_>) -> Response<Bytes> {
        let by_sender = refusal.status.is_client_error();
        xml(&ErrorDocument {
            xmlns: XMLNS,
            error: Error {
                r#type: if by_sender { "Sender" } else { "Receiver" },
                code: refusal.content.code,
                message: &refusal.content.message,
            },
            request_id: place.request_id,
        })
    }
}
