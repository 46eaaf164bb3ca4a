//! Two spellings of the same answers: the documents', and that of RustFS 1.0, which its console understands alone.

use std::str::FromStr;

use keyway_domain::access::Caller;
use keyway_domain::service::BackendType;

/// Which spelling callers get. By default a session gets RustFS 1.0's, for its console begins one whenever somebody signs
/// in, and everybody else the documents'.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spelling {
    /// As the caller is in a session or not.
    #[default]
    ByCaller,
    /// The documents' for everybody.
    Documents,
    /// RustFS 1.0's for everybody.
    V1,
}

/// It is no spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be `documents` or `1.0`")]
pub struct SpellingError;

impl FromStr for Spelling {
    type Err = SpellingError;

    /// Empty: by the caller.
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
    /// Whether this caller gets RustFS 1.0's.
    pub(crate) fn is_v1_for(self, caller: &Caller) -> bool {
        match self {
            Self::ByCaller => caller.session().is_some(),
            Self::Documents => false,
            Self::V1 => true,
        }
    }
}

/// A backend's name. RustFS 1.0 calls one `VaultTransit` that wraps keys by Vault's transit engine.
pub(crate) const fn backend(backend: BackendType, is_v1: bool) -> &'static str {
    match (backend, is_v1) {
        (BackendType::Local, false) => "local",
        (BackendType::Local, true) => "Local",
        (BackendType::Vault, false) => "vault",
        (BackendType::Vault, true) => "VaultTransit",
    }
}
