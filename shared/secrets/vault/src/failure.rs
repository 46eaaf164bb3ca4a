//! Errors of operations on Vault, worded for the log. They repeat nothing from Vault or the network except why a
//! connection failed, because an answer could hold a token, a secret or key material.

use std::error::Error;

use keyway_domain::keyring::WrapError;

/// A failed operation on the Vault at an address: one line for the log.
#[derive(Debug, thiserror::Error)]
#[error("Vault at {address}: {cause}")]
pub(crate) struct At {
    pub(crate) address: String,
    pub(crate) cause: Box<dyn Error + Send + Sync>,
}

/// The cause of a failed operation. "It" is the Vault that [`At`] names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("it could not be reached: {0}; check the address and the network")]
    Unreachable(String),
    #[error("it did not answer in time; check the address and the network")]
    TimedOut,
    #[error("it is sealed; unseal it")]
    Sealed,
    #[error("it is not initialized")]
    NotInitialized,
    #[error("it asks for fewer requests (status 429)")]
    Busy,
    #[error(
        "it answered with a redirect (status {0}), and redirects are not followed; check the address"
    )]
    Redirected(u16),
    #[error("it answered {path} with status {status}; its own log says why")]
    Status { status: u16, path: String },
    #[error(
        "the answer to {path}, of status {status}, is not one of Vault: a proxy or another server gave it; check the address"
    )]
    Foreign { status: u16, path: String },
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("its answer is not what Vault's API documents: {0}; check the address")]
    Garbled(&'static str),
    #[error("permission denied: {0}")]
    Denied(String),
    #[error(
        "permission denied: Vault refuses the token: it expired, was revoked, or may not even look itself up"
    )]
    TokenRefused,
    #[error("it refuses the login at auth/{0}: the role id or the secret id is wrong or expired")]
    LoginRefused(String),
    #[error("the token file {path} cannot be used: {why}")]
    TokenFile { path: String, why: String },
    #[error("the namespace does not exist")]
    NoNamespace,
    #[error("nothing is mounted at {0}, or the token may not see it")]
    NoMount(String),
    #[error("{path} is not a mount of the {wanted} engine")]
    WrongEngine { path: String, wanted: &'static str },
    #[error("the transit key {0} is missing")]
    KeyMissing(String),
    #[error("the transit key {key} cannot be used: {why}")]
    KeyUnfit { key: String, why: &'static str },
    #[error("the transit key {0} is another one than before: it was deleted and made anew")]
    KeyReplaced(String),
    #[error(
        "the transit key {0} no longer opens versions as old as this one (min_decryption_version)"
    )]
    VersionTooOld(String),
    #[error("the probe did not come back as it was wrapped")]
    Probe,
    #[error(
        "the newest version of the secret at {0} is deleted; restore it (`bao kv undelete` or `vault kv undelete`)"
    )]
    SecretDeleted(String),
    #[error("{0}")]
    Input(&'static str),
}

impl Failure {
    /// Whether another attempt may succeed. All requests to Vault can be repeated safely.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut | Self::Busy | Self::Status { .. } => true,
            Self::Foreign { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether Vault is unavailable at present, and not the request or the login wrong.
    pub(crate) fn is_away(&self) -> bool {
        self.may_pass() || matches!(self, Self::Sealed | Self::NotInitialized)
    }
}

impl From<Failure> for WrapError {
    fn from(failure: Failure) -> Self {
        Self::Unavailable(Box::new(failure))
    }
}
