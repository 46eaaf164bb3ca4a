//! Two spellings of the same answers: that of the documents, and that of RustFS 1.0, the only one its console understands.

use std::str::FromStr;

use keyway_domain::access::Caller;
use keyway_domain::service::BackendType;

/// The spelling that callers get. By default a session gets RustFS 1.0's, because its console begins a session at each
/// sign-in, and every other caller gets the documents'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spelling {
    /// RustFS 1.0's for sessions, the documents' for other callers.
    #[default]
    ByCaller,
    /// The documents' for every caller.
    Documents,
    /// RustFS 1.0's for every caller.
    V1,
}

/// The text is not a spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `documents` or `1.0`")]
pub struct SpellingError;

impl FromStr for Spelling {
    type Err = SpellingError;

    /// An empty text is [`Self::ByCaller`].
    fn from_str(text: &str) -> Result<Self, SpellingError> {
        match text {
            "" => Ok(Self::ByCaller),
            "documents" => Ok(Self::Documents),
            "1.0" => Ok(Self::V1),
            _ => Err(SpellingError),
        }
    }
}

impl Spelling {
    /// Whether this caller gets RustFS 1.0's spelling.
    pub(crate) fn is_v1_for(self, caller: &Caller) -> bool {
        match self {
            Self::ByCaller => caller.session().is_some(),
            Self::Documents => false,
            Self::V1 => true,
        }
    }
}

/// A backend's name. RustFS 1.0 calls a backend that wraps keys with Vault's transit engine `VaultTransit`.
pub(crate) const fn backend(backend: BackendType, is_v1: bool) -> &'static str {
    match (backend, is_v1) {
        (BackendType::Local, false) => "local",
        (BackendType::Local, true) => "Local",
        (BackendType::Vault, false) => "vault",
        (BackendType::Vault, true) => "VaultTransit",
    }
}
