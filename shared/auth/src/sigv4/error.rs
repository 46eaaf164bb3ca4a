use http::HeaderName;

/// Why a request's signature is not accepted. The texts are for the client that signed: they say what
/// to change, and never contain a secret, an expected signature or a canonical string.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The request has no signature.
    #[error(
        "the request is not signed: an AWS4-HMAC-SHA256 Authorization header or a presigned query is needed"
    )]
    Missing,
    /// The gateway that verifies callers has not verified one.
    #[error(
        "the gateway in front has not verified an IAM caller: sign the request for execute-api"
    )]
    NoVerifiedCaller,
    /// Header and query both carry one; choosing one would be a guess.
    #[error(
        "the request is signed twice, in the Authorization header and in the query; send one of them"
    )]
    BothForms,
    /// Another scheme or algorithm.
    #[error("only AWS4-HMAC-SHA256 signatures are accepted")]
    Algorithm,
    /// Signature Version 2, in the header or the query.
    #[error(
        "Signature Version 2 is not accepted: sign with Signature Version 4 (AWS4-HMAC-SHA256), which clients call s3v4 or v4"
    )]
    Version2,
    /// A permanent access key came with a session token.
    #[error(
        "the access key is permanent and has no session token: send none, for example by unsetting AWS_SESSION_TOKEN"
    )]
    SessionTokenNotNeeded,
    /// A part that must occur once occurs more often.
    #[error("{0} is given more than once")]
    Repeated(&'static str),
    /// A part of the signature is absent.
    #[error("{0} is missing")]
    Absent(&'static str),
    /// A part of the signature cannot be read.
    #[error("{what} is malformed: expected {expected}")]
    Malformed {
        /// The part.
        what: &'static str,
        /// What it should look like.
        expected: &'static str,
    },
    /// A part of the signature is larger than any client needs.
    #[error("{what} is too long: at most {limit} {unit} are accepted")]
    TooLong {
        /// The part.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What the limit counts.
        unit: &'static str,
    },
    /// The credential scope names a service that is not accepted.
    #[error("the credential scope names another service: expected one of {}", .accepted.join(", "))]
    Service {
        /// The accepted services.
        accepted: &'static [&'static str],
    },
    /// The credential scope names another region than the configured one.
    #[error("the credential scope names another region: expected {expected}")]
    Region {
        /// The configured region.
        expected: String,
    },
    /// The scope's date and the request's date differ.
    #[error("the credential scope's date is not the date of the request")]
    ScopeDate,
    /// The request's date differs too much from the server's clock.
    #[error("the request's date differs too much from the server's clock")]
    Skewed,
    /// The presigned request is not valid yet.
    #[error("the presigned request is not valid yet")]
    NotYetValid,
    /// The presigned request has expired.
    #[error("the presigned request has expired")]
    Expired,
    /// A header that must be signed is not.
    #[error("the header {0} must be signed")]
    Unsigned(HeaderName),
    /// The request does not have a header that it declares as signed.
    #[error("the signed header {0} is not in the request")]
    SignedHeaderAbsent(String),
    /// The signature does not match this request and secret.
    #[error(
        "the signature does not match: check the secret access key and how the request is signed"
    )]
    SignatureMismatch,
    /// The access key does not exist, or no longer. The text is that of a mismatch: only a protocol with an error code of
    /// its own for this case shows whether a key exists.
    #[error(
        "the signature does not match: check the secret access key and how the request is signed"
    )]
    UnknownAccessKey,
    /// The access key has expired: it was temporary, or it was rotated. Only a caller who has its secret learns this.
    #[error("the credentials have expired: get new ones")]
    ExpiredCredentials,
    /// The body is not the one that was signed.
    #[error("the body does not match x-amz-content-sha256")]
    PayloadMismatch,
    /// A body in signed chunks.
    #[error(
        "aws-chunked bodies are not supported: send the body whole with its SHA-256 in x-amz-content-sha256"
    )]
    Chunked,
    /// The signature does not cover the body, and the connection is not protected from tampering.
    #[error("UNSIGNED-PAYLOAD is accepted over TLS or loopback only: sign the body")]
    UnsignedPayload,
    /// `x-amz-content-sha256` has another value.
    #[error("x-amz-content-sha256 must be the body's SHA-256 in hex or UNSIGNED-PAYLOAD")]
    PayloadDeclaration,
    /// The path or the query is not percent-encoded correctly.
    #[error("the {0} is malformed: a percent sign must be followed by two hex digits")]
    PercentEncoding(&'static str),
    /// The path or the query contains a control character.
    #[error("the {0} is malformed: control characters must be percent-encoded")]
    ControlCharacter(&'static str),
    /// The path is not absolute.
    #[error("the path must begin with a slash")]
    Path,
    /// The path or the query is longer than any client needs.
    #[error("the {what} is too long: at most {limit} bytes are accepted")]
    TargetTooLong {
        /// `path` or `query`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// The status that a signature error leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    /// 401: the credentials are absent, malformed, out of date or wrong.
    Unauthenticated,
    /// 400: the request is wrong, whatever its credentials are.
    BadRequest,
}

impl SignatureError {
    /// The error's status class.
    pub fn status_class(&self) -> StatusClass {
        match self {
            Self::Chunked
            | Self::UnsignedPayload
            | Self::PayloadDeclaration
            | Self::PercentEncoding(_)
            | Self::ControlCharacter(_)
            | Self::Path
            | Self::TargetTooLong { .. } => StatusClass::BadRequest,
            Self::Missing
            | Self::NoVerifiedCaller
            | Self::BothForms
            | Self::Algorithm
            | Self::Version2
            | Self::SessionTokenNotNeeded
            | Self::Repeated(_)
            | Self::Absent(_)
            | Self::Malformed { .. }
            | Self::TooLong { .. }
            | Self::Service { .. }
            | Self::Region { .. }
            | Self::ScopeDate
            | Self::Skewed
            | Self::NotYetValid
            | Self::Expired
            | Self::Unsigned(_)
            | Self::SignedHeaderAbsent(_)
            | Self::SignatureMismatch
            | Self::UnknownAccessKey
            | Self::ExpiredCredentials
            | Self::PayloadMismatch => StatusClass::Unauthenticated,
        }
    }
}
