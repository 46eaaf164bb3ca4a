//! The one table from errors to statuses and messages.
//!
//! KES's clients compare status and message, so none of them is ours to word where KES has one. There is no 201, 204,
//! 413 or 422 here, and 409 for one thing alone: clients would not know what they mean.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode};
use keyway_auth::certificate::Unidentified;
use keyway_domain::keys::KeyState;
use keyway_domain::{Fault, KmsError};
use keyway_http::{Rejection, RequestLine};

use crate::generation::{Generation, Kind, Text};

/// An answer that says no.
#[derive(Debug)]
pub struct ErrorResponse {
    status: StatusCode,
    /// A word for those who count.
    class: &'static str,
    message: Text,
    /// Why, in a second field that KES does not have and its clients ignore.
    reason: Option<&'static str>,
    /// The method that a path takes, in the header where KES has it.
    accept: Option<&'static str>,
    /// That nobody serves the path: text, no JSON.
    is_text: bool,
    /// What only the log may know.
    fault: Option<Box<Fault>>,
}

/// What KES has and this server does not have: clients continue without it when they are answered 501.
const UNSUPPORTED: [&str; 6] = [
    "/v1/cluster/",
    "/v1/enclave/",
    "/v1/log/",
    "/v1/secret/",
    "/v1/sys/",
    "/v1/tenant/",
];

impl ErrorResponse {
    pub(crate) const fn class(&self) -> &'static str {
        self.class
    }

    fn new(status: StatusCode, message: impl Into<Text>) -> Self {
        Self {
            status,
            class: keyway_http::class_of(status),
            message: message.into(),
            reason: None,
            accept: None,
            is_text: false,
            fault: None,
        }
    }

    /// 403 with the exact text by which clients know it. A MinIO server tells its own clients of an internal error, and
    /// tries again, for every other text.
    fn not_permitted() -> Self {
        Self::new(StatusCode::FORBIDDEN, Text::NotPermitted)
    }

    /// The same for a key that nobody may use so, with the reason.
    fn not_for_anybody(reason: &'static str) -> Self {
        Self {
            reason: Some(reason),
            ..Self::not_permitted()
        }
    }

    /// 400 with this message.
    pub(crate) fn bad(message: impl Into<Text>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 400 for what is no name.
    pub(crate) fn name(kind: Kind, shown: String) -> Self {
        Self::bad(Text::Name(kind, shown))
    }

    /// 400 for what is no pattern of a listing.
    pub(crate) fn pattern(shown: String) -> Self {
        Self::bad(Text::Pattern(shown))
    }

    /// 406 with this message.
    pub(crate) fn not_acceptable(message: impl Into<Text>) -> Self {
        Self::new(StatusCode::NOT_ACCEPTABLE, message)
    }

    pub(crate) fn not_implemented() -> Self {
        Self::unsupported("not implemented")
    }

    /// 501 with this message.
    pub(crate) fn unsupported(message: impl Into<Text>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    pub(crate) fn invalid_body() -> Self {
        Self::bad(Text::InvalidBody)
    }

    pub(crate) fn malformed_path() -> Self {
        Self::bad("the path is not percent-encoded UTF-8")
    }

    pub(crate) fn not_encrypted() -> Self {
        Self::bad(Text::NotEncrypted)
    }

    /// The table cannot be reached: what a probe asks about.
    pub(crate) fn unreachable(error: KmsError) -> Self {
        Self {
            fault: match error {
                KmsError::Unavailable(fault) | KmsError::Backend(fault) => Some(fault.into()),
                _ => None,
            },
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, UNREACHABLE)
        }
    }

    /// The same refusal; if a backend failed, with what it failed at.
    pub(crate) fn failing_to(mut self, what: &'static str) -> Self {
        if self.status == StatusCode::BAD_GATEWAY {
            self.message = Text::Backend(what);
        }
        self
    }

    pub(crate) fn of(
        refused: Rejection<Self>,
        line: &RequestLine<'_>,
        generation: Generation,
    ) -> Self {
        match refused {
            Rejection::By(refusal) => refusal,
            Rejection::NoRoute => {
                if generation.tells_unsupported()
                    && UNSUPPORTED.iter().any(|path| line.path.starts_with(path))
                {
                    Self::not_implemented()
                } else {
                    let (status, text) = generation.no_route();
                    Self {
                        is_text: true,
                        ..Self::new(status, text)
                    }
                }
            }
            Rejection::OtherMethods(methods) => {
                let expected = ["PUT", "DELETE", "GET"]
                    .into_iter()
                    .find(|method| methods.split(", ").any(|other| other == *method))
                    .unwrap_or("POST");
                let expected = generation.method(expected);
                let message = Text::Method(line.method.as_str().to_owned(), expected);
                Self {
                    accept: Some(expected),
                    ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message)
                }
            }
            Rejection::BodyTooLarge { .. } | Rejection::BodyBroken => Self::invalid_body(),
            Rejection::BodyEncoded => Self::bad("content encoding is not supported"),
            Rejection::Unreadable(unreadable) => Self::new(unreadable.status, unreadable.reason()),
            Rejection::Malformed { part, error } => Self::bad(format!("the {part} {error}")),
            Rejection::Overloaded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large requests: try again later",
            ),
            Rejection::Unrecorded => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "audit log is not available",
            ),
            Rejection::Panicked => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal server error")
            }
        }
    }

    pub(crate) fn answer(self, line: &RequestLine<'_>, generation: Generation) -> Response<Bytes> {
        if let Some(fault) = &self.fault {
            fault.log(line.request_id);
        }
        let (status, message) = generation.words(self.message);
        let body = if self.is_text {
            format!("{message}\n")
        } else {
            let end = generation.refusal_end();
            let reason = self.reason.map(go_string);
            let reason = reason.map_or_else(String::new, |text| format!(",\"reason\":{text}"));
            format!("{{\"message\":{}{reason}{end}}}", go_string(&message))
        };
        let length = body.len();
        let is_head = line.method == Method::HEAD;
        let mut response = Response::new(if is_head { Bytes::new() } else { body.into() });
        let status = status.unwrap_or(self.status);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if is_head {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        let (kind, is_final) = if self.is_text {
            ("text/plain; charset=utf-8", true)
        } else {
            generation.refusal_type()
        };
        if is_final {
            headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(method) = self.accept {
            headers.insert(ACCEPT, HeaderValue::from_static(method));
        }
        response
    }
}

const UNREACHABLE: &str = "key store is not reachable";

/// A JSON string as Go writes it.
fn go_string(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
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
            KmsError::Invalid { field, reason } => Self::bad(format!("{field} {reason}")),
            KmsError::NotPermitted => Self::not_permitted(),
            KmsError::Forbidden(why) => Self::not_for_anybody(why),
            KmsError::KeyNotFound(_) => Self::new(StatusCode::NOT_FOUND, "key does not exist"),
            KmsError::AccessKeyNotFound(_) => {
                Self::new(StatusCode::NOT_FOUND, "access key does not exist")
            }
            KmsError::PolicyNotFound(_) => Self::new(StatusCode::NOT_FOUND, Text::PolicyNotFound),
            KmsError::IdentityNotFound(_) => {
                Self::new(StatusCode::NOT_FOUND, "identity does not exist")
            }
            KmsError::IdentityIsAdmin => Self::bad("identity is root"),
            KmsError::IdentityIsCaller => Self::new(
                StatusCode::FORBIDDEN,
                "identity cannot assign policy to itself",
            ),
            KmsError::KeyExists(_) => Self::bad(Text::KeyExists),
            KmsError::KeyState { state, .. } => Self::not_for_anybody(match state {
                KeyState::Enabled => "key is enabled",
                KeyState::Disabled => "key is disabled",
                KeyState::PendingDeletion { .. } => "key is pending deletion",
            }),
            KmsError::TooManyVersions(_) => Self::not_for_anybody("key has too many versions"),
            KmsError::StillReferenced(..) => Self::not_for_anybody("key is still referenced"),
            KmsError::NoHmacKey(_) => Self::new(StatusCode::CONFLICT, "key does not support HMAC"),
            KmsError::BucketNotFound(_) => Self::bad("bucket does not exist"),
            KmsError::BucketExists(_) => Self::bad("bucket already exists"),
            KmsError::BucketNotEmpty(_) => Self::bad("bucket is not empty"),
            KmsError::NoBucketEncryption(_) => Self::bad("bucket has no default encryption"),
            KmsError::DecryptionFailed | KmsError::IncorrectKey => {
                Self::bad("decryption failed: ciphertext is not authentic")
            }
            KmsError::DryRun => Self::bad("the request would have succeeded, but it is a dry run"),
            // Clients try again after a 503, and after nothing else.
            KmsError::Contended(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "key is being changed by others at the same time",
            ),
            KmsError::Conflict(why) => Self::new(StatusCode::SERVICE_UNAVAILABLE, why),
            KmsError::NotConfigured => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "KMS is not configured")
            }
            KmsError::NotRunning => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "KMS is not running")
            }
            KmsError::Throttled => Self::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests"),
            KmsError::Unavailable(fault) => Self {
                fault: Some(fault.into()),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, UNREACHABLE)
            },
            KmsError::Backend(fault) => Self {
                fault: Some(fault.into()),
                ..Self::new(StatusCode::BAD_GATEWAY, "key store is unavailable")
            },
        }
    }
}

impl From<Unidentified> for ErrorResponse {
    fn from(why: Unidentified) -> Self {
        Self {
            class: "unauthenticated",
            ..Self::of_unidentified(why)
        }
    }
}

impl ErrorResponse {
    fn of_unidentified(why: Unidentified) -> Self {
        match why {
            Unidentified::Missing => Self::bad(Text::NoCertificate),
            Unidentified::Several => Self::bad(Text::SeveralCertificates),
            Unidentified::Malformed | Unidentified::Key => {
                Self::bad("tls: client certificate is not valid")
            }
        }
    }
}
