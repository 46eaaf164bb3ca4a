//! Why a call failed, and the class of it, of which programs make exit codes.

use std::fmt;

/// What a caller can do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// None of the others.
    Failed,
    /// The settings, or what the API can do. Nothing was sent.
    Usage,
    /// The key is not there.
    NotFound,
    /// The server does not know the caller, or does not permit the call.
    NotAllowed,
    /// The state of a key or of the service does not permit the call, or the key exists already.
    Conflict,
    /// The server cannot be reached, or does not serve now.
    Unreachable,
}

/// Why a call failed. No text has a secret in it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings are incomplete or wrong.
    #[error("{0}")]
    Settings(String),
    /// The API of the server cannot do this.
    #[error("{0}; RustFS's API can: --api rustfs")]
    Unsupported(&'static str),
    /// The connection failed.
    #[error("{endpoint} cannot be reached: {cause}{unknown}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// Why.
        cause: String,
        /// Whether the request may have been carried out.
        unknown: Outcome,
    },
    /// The server refused the request.
    #[error("{refusal}")]
    Refused {
        /// What it means.
        class: Class,
        /// The answer.
        refusal: Refusal,
    },
    /// The answer is not one of the API.
    #[error("the answer of {endpoint} is not one of {api}: {what}; check the endpoint and the API")]
    Foreign {
        /// The server.
        endpoint: String,
        /// The API.
        api: &'static str,
        /// What is wrong with the answer.
        what: String,
    },
}

impl Error {
    /// What can be done about it.
    pub fn class(&self) -> Class {
        match self {
            Self::Settings(_) | Self::Unsupported(_) => Class::Usage,
            Self::Unreachable { .. } => Class::Unreachable,
            Self::Refused { class, .. } => *class,
            Self::Foreign { .. } => Class::Failed,
        }
    }

    pub(crate) fn settings(text: impl Into<String>) -> Self {
        Self::Settings(text.into())
    }
}

/// What is known of a change whose answer did not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The request changes nothing, or was not sent.
    Unchanged,
    /// The server may have carried it out.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchanged => "",
            Self::Unknown => {
                "; the server may have carried out the change: look before you repeat it"
            }
        })
    }
}

/// The server's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The API's word for it, if it has one.
    pub code: Option<String>,
    /// The server's text.
    pub message: String,
    /// The id by which the server's log knows the request.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        f.write_str(" (")?;
        if let Some(code) = &self.code {
            write!(f, "{code}, ")?;
        }
        write!(f, "status {}", self.status)?;
        if let Some(id) = &self.request_id {
            write!(f, ", request {id}")?;
        }
        f.write_str(")")
    }
}

/// A text of the server, without characters that control a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character.is_control() {
            true => ' ',
            false => character,
        })
        .collect()
}
