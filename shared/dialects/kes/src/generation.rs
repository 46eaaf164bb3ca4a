//! How the releases of KES differ: the one table of shapes and messages by release.
//!
//! A request does not tell which release its client is of, so the operator sets one for all clients. Every release accepts
//! the same requests here; only answers differ.

use std::borrow::Cow;
use std::str::FromStr;

use http::StatusCode;
use keyway_domain::Algorithm;

use crate::names::Shape;

/// Releases of KES that give the same answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Generation {
    /// v0.5 to v0.12.
    V0_7,
    /// v0.13 and v0.14.
    V0_13,
    /// v0.15 to v0.17.
    V0_17,
    /// v0.18 to 2023-10-03.
    V0_22,
    /// 2023-10-24 and later.
    #[default]
    Latest,
}

/// The text is no [`Generation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be latest, 0.22, 0.17, 0.13 or 0.7")]
pub struct NoGeneration;

impl FromStr for Generation {
    type Err = NoGeneration;

    fn from_str(text: &str) -> Result<Self, NoGeneration> {
        Ok(match text {
            "latest" => Self::Latest,
            "0.22" => Self::V0_22,
            "0.17" => Self::V0_17,
            "0.13" => Self::V0_13,
            "0.7" => Self::V0_7,
            _ => return Err(NoGeneration),
        })
    }
}

/// The message of an error response, which may differ by release.
#[derive(Debug)]
pub(crate) enum Text {
    /// The same in all releases.
    Same(Cow<'static, str>),
    NotPermitted,
    KeyExists,
    InvalidBody,
    InvalidImport,
    UnsupportedCipher(String),
    KeySize(&'static str),
    NotEncrypted,
    NoCertificate,
    SeveralCertificates,
    PolicyNotFound,
    /// An invalid name of this kind, truncated if it is long.
    Name(Kind, String),
    /// An invalid pattern of a listing, truncated if it is long.
    Pattern(String),
    /// The table failed in this operation.
    Backend(&'static str),
    /// The method of the request, and the one that the path takes.
    Method(String, &'static str),
}

impl<T: Into<Cow<'static, str>>> From<T> for Text {
    fn from(words: T) -> Self {
        Self::Same(words.into())
    }
}

/// The kind of a name.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Key,
    Policy,
    Identity,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Key => "key name",
            Self::Policy => "policy name",
            Self::Identity => "identity",
        }
    }
}

/// The shape of a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyShape {
    /// `allow` and `deny` as objects, with name, time and author.
    Objects,
    /// `allow` and `deny` as arrays, with time and author.
    Arrays,
    /// `allow` and `deny` as arrays, and nothing else: clients refuse other fields.
    Rules,
    /// `paths` and nothing else: clients refuse other fields. There is no `deny`.
    Paths,
}

/// The shape of an identity in a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdentityShape {
    /// Whether it is the admin, its policy, time and author.
    Whole,
    /// Its policy.
    Policy,
}

/// The shape of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusShape {
    /// Time in seconds, and the key store's state.
    Seconds,
    /// Time in nanoseconds.
    Nanoseconds,
    /// Time in nanoseconds, and the key store's state in `kms`.
    Kms,
}

impl Generation {
    /// Whether it is v0.17 or older.
    const fn is_first(self) -> bool {
        matches!(self, Self::V0_7 | Self::V0_13 | Self::V0_17)
    }

    /// The shape of all listings of keys; `None` if it depends on the request.
    pub(crate) const fn keys(self) -> Option<Shape> {
        match self {
            Self::Latest => None,
            _ => Some(Shape::Lines),
        }
    }

    /// The field with a key's name in a line of a listing.
    pub(crate) const fn key_field(self) -> &'static str {
        if self.is_first() { "Name" } else { "name" }
    }

    /// The shape of all listings of policies; `None` if it depends on the request.
    pub(crate) const fn policies(self) -> Option<Shape> {
        match self {
            Self::Latest => None,
            Self::V0_22 => Some(Shape::Lines),
            Self::V0_17 | Self::V0_13 | Self::V0_7 => Some(Shape::Whole),
        }
    }

    /// The shape of all listings of identities; `None` if it depends on the request.
    pub(crate) const fn identities(self) -> Option<Shape> {
        match self {
            Self::Latest => None,
            Self::V0_22 | Self::V0_17 => Some(Shape::Lines),
            Self::V0_13 | Self::V0_7 => Some(Shape::Whole),
        }
    }

    pub(crate) const fn identity(self) -> IdentityShape {
        if self.is_first() {
            IdentityShape::Policy
        } else {
            IdentityShape::Whole
        }
    }

    pub(crate) const fn policy(self) -> PolicyShape {
        match self {
            Self::Latest => PolicyShape::Objects,
            Self::V0_22 => PolicyShape::Arrays,
            Self::V0_17 => PolicyShape::Rules,
            Self::V0_13 | Self::V0_7 => PolicyShape::Paths,
        }
    }

    /// Whether a description lacks the requested name, and `self/describe` has the policy as an object.
    pub(crate) const fn is_nested(self) -> bool {
        matches!(self, Self::V0_22)
    }

    pub(crate) const fn status(self) -> StatusShape {
        match self {
            Self::Latest => StatusShape::Seconds,
            Self::V0_22 => StatusShape::Nanoseconds,
            Self::V0_17 | Self::V0_13 | Self::V0_7 => StatusShape::Kms,
        }
    }

    /// Whether the version includes the commit.
    pub(crate) const fn tells_commit(self) -> bool {
        !self.is_first()
    }

    /// Whether removing a policy or an identity that does not exist succeeds.
    pub(crate) const fn removes_what_is_absent(self) -> bool {
        self.is_first()
    }

    /// The name of a key's cipher.
    pub(crate) const fn cipher(self, algorithm: Algorithm) -> &'static str {
        match (self, algorithm) {
            (Self::V0_22, Algorithm::Aes256) => "AES256-GCM_SHA256",
            (Self::V0_22, Algorithm::ChaCha20) => "XCHACHA20-POLY1305",
            _ => algorithm.as_str(),
        }
    }

    /// A method's name in `/v1/api` and in error responses. PUT came with the latest releases.
    pub(crate) fn method(self, method: &'static str) -> &'static str {
        match (self, method) {
            (Self::Latest, method) => method,
            (_, "PUT") => "POST",
            (_, method) => method,
        }
    }

    /// Whether the release has the API with this path, the first of an endpoint.
    pub(crate) fn has(self, path: &str) -> bool {
        let (first, last) = match path {
            "/v1/key/encrypt/" | "/v1/key/list/" | "/v1/metrics" => (Self::V0_13, Self::Latest),
            "/v1/status" => (Self::V0_17, Self::Latest),
            "/v1/api"
            | "/v1/key/describe/"
            | "/v1/policy/describe/"
            | "/v1/identity/describe/"
            | "/v1/identity/self/describe" => (Self::V0_22, Self::Latest),
            "/v1/ready" | "/v1/key/hmac/" => (Self::Latest, Self::Latest),
            "/v1/policy/write/" | "/v1/policy/delete/" => (Self::V0_7, Self::V0_22),
            "/v1/key/bulk/decrypt/" | "/v1/policy/assign/" | "/v1/identity/delete/" => {
                (Self::V0_22, Self::V0_22)
            }
            "/v1/identity/assign/" | "/v1/identity/forget/" => (Self::V0_7, Self::V0_17),
            _ => (Self::V0_7, Self::Latest),
        };
        first <= self && self <= last
    }

    /// The path of an endpoint in this release. Up to v0.17 those of the logs end in another word.
    pub(crate) fn path(self, paths: &[&'static str]) -> Option<&'static str> {
        let own = paths.iter().find(|path| path.ends_with("/trace"));
        let own = own.filter(|_| self.is_first());
        own.or_else(|| paths.first()).copied()
    }

    /// The type of an error response's body, and whether `nosniff` is sent with it.
    pub(crate) const fn refusal_type(self) -> (&'static str, bool) {
        match self {
            Self::Latest => ("application/json", false),
            _ => ("application/json; charset=utf-8", true),
        }
    }

    /// The text before the last brace of an error response.
    pub(crate) const fn refusal_end(self) -> &'static str {
        match self {
            Self::Latest => "\n",
            _ => "",
        }
    }

    /// Status and text for an unknown path.
    pub(crate) const fn no_route(self) -> (StatusCode, &'static str) {
        match self {
            Self::V0_22 => (StatusCode::NOT_IMPLEMENTED, "not implemented"),
            _ => (StatusCode::NOT_FOUND, "404 page not found"),
        }
    }

    /// Whether paths that only KES has are answered differently from unknown paths.
    pub(crate) const fn tells_unsupported(self) -> bool {
        matches!(self, Self::Latest)
    }

    /// The message of an error response, and its status if that differs from the latest releases'.
    pub(crate) fn words(self, text: &Text) -> (Option<StatusCode>, Cow<'static, str>) {
        let is_first = self.is_first();
        let is_latest = self == Self::Latest;
        let mut status = None;
        let words: Cow<'static, str> = match text {
            Text::Same(words) => words.clone(),
            Text::NotPermitted if is_first => "prohibited by policy".into(),
            Text::NotPermitted => "not authorized: insufficient permissions".into(),
            Text::KeyExists if is_first => "key does already exist".into(),
            Text::KeyExists => "key already exists".into(),
            Text::InvalidBody | Text::InvalidImport if is_first => "invalid json".into(),
            Text::InvalidImport if is_latest => "invalid import key request body".into(),
            Text::InvalidBody | Text::InvalidImport => "invalid request body".into(),
            Text::UnsupportedCipher(cipher) if is_latest => {
                format!("algorithm '{cipher}' is not supported").into()
            }
            Text::KeySize(cipher) if is_latest => format!("invalid key size for '{cipher}'").into(),
            Text::UnsupportedCipher(_) | Text::KeySize(_) if is_first => {
                status = Some(StatusCode::BAD_REQUEST);
                "invalid key".into()
            }
            Text::UnsupportedCipher(_) => {
                status = Some(StatusCode::BAD_REQUEST);
                "invalid algorithm".into()
            }
            Text::KeySize(_) => {
                status = Some(StatusCode::BAD_REQUEST);
                "invalid key size".into()
            }
            Text::NotEncrypted if is_latest => "insecure connection: TLS is required".into(),
            Text::NotEncrypted => "insecure connection: TLS required".into(),
            Text::NoCertificate if is_latest => "tls: client certificate is required".into(),
            Text::NoCertificate => "no client certificate is present".into(),
            Text::SeveralCertificates if is_latest => {
                "tls: received more than one client certificate".into()
            }
            Text::SeveralCertificates => "too many client certificates are present".into(),
            Text::PolicyNotFound => {
                if self == Self::V0_7 {
                    status = Some(StatusCode::BAD_REQUEST);
                }
                "policy does not exist".into()
            }
            Text::Name(kind, shown) if is_latest => format!(
                "{} '{shown}' is empty, too long or contains invalid characters",
                kind.word()
            )
            .into(),
            Text::Name(Kind::Identity, _) if is_first => "identity is unknown".into(),
            Text::Name(kind, _) if is_first => format!("invalid {}", kind.word()).into(),
            Text::Name(_, shown) => invalid_argument("name", shown),
            Text::Pattern(shown) if is_latest => {
                format!("listing pattern '{shown}' is empty, too long or is invalid").into()
            }
            Text::Pattern(shown) => invalid_argument("pattern", shown),
            Text::Backend(failing) if is_latest => (*failing).into(),
            Text::Backend("failed to read key") => "bad gateway: failed to access key".into(),
            Text::Backend(failing) => format!("bad gateway: {failing}").into(),
            Text::Method(method, expected) if is_latest => {
                format!("received method '{method}' expected '{expected}'").into()
            }
            Text::Method(..) => "Method Not Allowed".into(),
        };
        (status, words)
    }
}

/// The longest name and pattern that v0.22 allows, in bytes.
const LONGEST: usize = 80;

fn invalid_argument(what: &str, text: &str) -> Cow<'static, str> {
    let why = match text.len() {
        0 => "is empty",
        1..=LONGEST => "contains invalid character",
        _ => "is too long",
    };
    format!("invalid argument: {what} {why}").into()
}
