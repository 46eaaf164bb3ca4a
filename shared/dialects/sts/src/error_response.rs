//! The one table from errors to STS's statuses, codes and texts.

use bytes::Bytes;
use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use keyway_auth::AuthError;
use keyway_auth::sigv4::{SignatureError, StatusClass};
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};

use crate::answers::{Error, ErrorDocument, XMLNS, xml};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

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

    fn later(code: &'static str, message: &'static str) -> Self {
        let mut refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        refusal.header = Some(Box::new((RETRY_AFTER, HeaderValue::from_static("1"))));
        refusal
    }

    fn because_of(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    pub(crate) fn internal(fault: Fault) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "InternalFailure", "the request could not be served").because_of(fault)
    }

    /// A parameter that cannot be used. Its name comes from the client, and XML has no control characters.
    pub(crate) fn invalid(parameter: &str, reason: &str) -> Self {
        let fit = parameter
            .chars()
            .filter(|character| !character.is_control());
        let name: String = fit.take(64).collect();
        Self::bad("ValidationError", format!("{name} {reason}"))
    }

    pub(crate) fn missing_action() -> Self {
        Self::bad("MissingAction", "the body names no Action")
    }

    pub(crate) fn invalid_action() -> Self {
        Self::bad(
            "InvalidAction",
            "of STS, only AssumeRole and GetCallerIdentity are served here",
        )
    }

    pub(crate) fn of_gateway() -> Self {
        Self::forbidden(
            "AccessDenied",
            "callers whom the gateway identifies get temporary credentials from AWS",
        )
    }

    pub(crate) fn answer(self, line: &RequestLine<'_>) -> Response<Bytes> {
        if let Some(fault) = &self.fault {
            fault.log(line.request_id);
        }
        let sender = self.status.is_client_error();
        let mut response = xml(&ErrorDocument {
            xmlns: XMLNS,
            error: Error {
                r#type: if sender { "Sender" } else { "Receiver" },
                code: self.code,
                message: &self.message,
            },
            request_id: line.request_id,
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(line.request_id) {
            headers.insert(REQUEST_ID, id);
        }
        headers.extend(self.header.map(|header| *header));
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
                field: "policy",
                reason,
            } => Self::bad("MalformedPolicyDocument", format!("Policy {reason}")),
            KmsError::Invalid { field, reason } => Self::invalid(field, &reason),
            KmsError::NotPermitted => Self::forbidden("AccessDenied", "Access Denied"),
            KmsError::Forbidden(why) => Self::forbidden("AccessDenied", why),
            KmsError::Throttled => Self::later("Throttling", "reduce the rate of requests"),
            KmsError::Unavailable(fault) => {
                Self::later("ServiceUnavailable", "try again later").because_of(fault)
            }
            KmsError::Backend(fault) => Self::internal(fault),
            // No operation of STS meets these.
            other => Self::internal(Fault::new("an operation of STS", other.class())),
        }
    }
}

impl From<AuthError> for ErrorResponse {
    fn from(error: AuthError) -> Self {
        let class = error.class();
        let refusal = match error {
            AuthError::Kms(error) => Self::of_kms(error),
            AuthError::Signature(denied) => Self::of_denied(&denied),
        };
        Self { class, ..refusal }
    }
}

impl ErrorResponse {
    fn of_denied(denied: &SignatureError) -> Self {
        let text = denied.to_string();
        match denied {
            SignatureError::UnknownAccessKey => Self::forbidden(
                "InvalidClientTokenId",
                "The security token included in the request is invalid.",
            ),
            SignatureError::SignatureMismatch => Self::forbidden(
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided. \
                 Check your key and signing method",
            ),
            SignatureError::Skewed | SignatureError::NotYetValid => {
                Self::forbidden("SignatureDoesNotMatch", text)
            }
            denied => match denied.status_class() {
                StatusClass::BadRequest => Self::bad("IncompleteSignature", text),
                StatusClass::Unauthenticated => Self::forbidden("MissingAuthenticationToken", text),
            },
        }
    }
}

impl From<Rejection<Self>> for ErrorResponse {
    fn from(refused: Rejection<Self>) -> Self {
        match refused {
            Rejection::By(refusal) => refusal,
            Rejection::NoRoute => Self::new(StatusCode::NOT_FOUND, "InvalidAction", "no such path"),
            Rejection::OtherMethods(allow) => {
                let mut refusal = Self::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "InvalidAction",
                    "the method is not allowed here",
                );
                refusal.header = HeaderValue::from_str(&allow)
                    .ok()
                    .map(|allow| Box::new((ALLOW, allow)));
                refusal
            }
            Rejection::BodyTooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "ValidationError",
                format!("the body is longer than {limit} bytes"),
            ),
            Rejection::BodyBroken => Self::bad("ValidationError", "the body broke off"),
            Rejection::BodyEncoded => Self::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "ValidationError",
                "Content-Encoding: send the body as it is, without a content coding",
            ),
            Rejection::Unreadable(unreadable) => {
                Self::new(unreadable.status, "ValidationError", unreadable.reason())
            }
            Rejection::Malformed { part, error } => {
                Self::bad("ValidationError", format!("the {part} {error}"))
            }
            Rejection::Overloaded => Self::later("Throttling", "reduce the rate of requests"),
            Rejection::Unrecorded => {
                Self::later("ServiceUnavailable", "the audit log is not available")
            }
            Rejection::Panicked => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "InternalFailure",
                "the request could not be served",
            ),
        }
    }
}
