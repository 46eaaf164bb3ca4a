//! The one error of every operation: transport-free, few variants. Each dialect maps it to its statuses, codes and
//! texts in one exhaustive table, so that a new variant breaks every table at compile time.

use std::error::Error;
use std::fmt;

use crate::ids::{AliasName, BucketName, InvalidId, KeyId, KeySpec, KeyState, Reference};

/// Why an operation failed. Unless the variant says otherwise, nothing was changed.
#[derive(Debug)]
pub enum KmsError {
    /// An input is not what it must be.
    Invalid {
        /// The input's name, as the wire spells it.
        field: &'static str,
        /// What is wrong with it; never its value.
        reason: String,
    },
    /// The caller lacks the permission. Does not say whether the key exists.
    NotPermitted,
    /// The deployment allows this to no caller.
    Forbidden(&'static str),
    /// No such key.
    KeyNotFound(KeyId),
    /// No such access key.
    AccessKeyNotFound(String),
    /// No such KES policy.
    PolicyNotFound(String),
    /// No identity of this name has a policy.
    IdentityNotFound(String),
    /// The admin identity cannot have a policy.
    IdentityIsAdmin,
    /// A caller cannot assign a policy to itself.
    IdentityIsCaller,
    /// No such alias.
    AliasNotFound(AliasName),
    /// An alias of this name exists. It was not changed.
    AliasExists(AliasName),
    /// The key has the most aliases that a key can have.
    TooManyAliases(KeyId),
    /// A key of this id exists. It was not changed.
    KeyExists(KeyId),
    /// The key's state does not allow the operation.
    KeyState {
        /// The key.
        key_id: KeyId,
        /// The state that it is in.
        state: KeyState,
    },
    /// The key is for something else: for MACs, or for encryption.
    KeySpec {
        /// The key.
        key_id: KeyId,
        /// Its spec, which says what it is for.
        spec: KeySpec,
    },
    /// The MAC is not the message's under this key.
    InvalidMac,
    /// The key has no HMAC key: it was imported without one, or made before keys had them.
    NoHmacKey(KeyId),
    /// A key cannot have that many tags.
    TooManyTags {
        /// The most tags of a key.
        most: usize,
    },
    /// The key has the most versions that a key can have.
    TooManyVersions(KeyId),
    /// The key must not be destroyed while something references it.
    StillReferenced(KeyId, Vec<Reference>),
    /// No such bucket.
    BucketNotFound(BucketName),
    /// A bucket of this name exists. It was not changed.
    BucketExists(BucketName),
    /// The bucket still has objects, so it cannot be removed.
    BucketNotEmpty(BucketName),
    /// The bucket has no default encryption.
    NoBucketEncryption(BucketName),
    /// The ciphertext does not open under this key, version and context, or is no ciphertext. Deliberately one error.
    DecryptionFailed,
    /// The ciphertext says that it belongs to another key than the request names. APIs without an answer for this give
    /// the answer of [`KmsError::DecryptionFailed`].
    IncorrectKey,
    /// The request is a dry run and would have succeeded. The result was discarded.
    DryRun,
    /// Other writers were always faster. Trying again may help.
    Contended(KeyId),
    /// The service's present state or activity does not allow it. The text says why.
    Conflict(&'static str),
    /// The service was never configured.
    NotConfigured,
    /// The service is stopped.
    NotRunning,
    /// The table or the secret store asks for fewer requests.
    Throttled,
    /// What every key needs, such as the root keyring, is unavailable at present. Trying again later may help.
    Unavailable(Fault),
    /// A failure behind the service. The detail is for the log only.
    Backend(Fault),
}

impl KmsError {
    /// A class for metrics. It says nothing of the request.
    pub const fn class(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::NotPermitted => "not_permitted",
            Self::Forbidden(_) => "forbidden",
            Self::KeyNotFound(_) => "key_not_found",
            Self::AccessKeyNotFound(_) => "access_key_not_found",
            Self::PolicyNotFound(_) => "policy_not_found",
            Self::IdentityNotFound(_) => "identity_not_found",
            Self::IdentityIsAdmin => "identity_is_admin",
            Self::IdentityIsCaller => "identity_is_caller",
            Self::AliasNotFound(_) => "alias_not_found",
            Self::AliasExists(_) => "alias_exists",
            Self::TooManyAliases(_) => "too_many_aliases",
            Self::KeyExists(_) => "key_exists",
            Self::KeyState { .. } => "key_state",
            Self::KeySpec { .. } => "key_spec",
            Self::InvalidMac => "invalid_mac",
            Self::NoHmacKey(_) => "no_hmac_key",
            Self::TooManyTags { .. } => "too_many_tags",
            Self::TooManyVersions(_) => "too_many_versions",
            Self::StillReferenced(..) => "still_referenced",
            Self::BucketNotFound(_) => "bucket_not_found",
            Self::BucketExists(_) => "bucket_exists",
            Self::BucketNotEmpty(_) => "bucket_not_empty",
            Self::NoBucketEncryption(_) => "no_bucket_encryption",
            Self::DecryptionFailed | Self::IncorrectKey => "decryption_failed",
            Self::DryRun => "dry_run",
            Self::Contended(_) => "contended",
            Self::Conflict(_) => "conflict",
            Self::NotConfigured => "not_configured",
            Self::NotRunning => "not_running",
            Self::Throttled => "throttled",
            Self::Unavailable(_) => "unavailable",
            Self::Backend(_) => "backend",
        }
    }

    /// What went wrong, in one line, for the log and the operator, never for a client.
    pub fn for_operator(&self) -> String {
        match self {
            Self::Invalid { field, reason } => format!("{field}: {reason}"),
            Self::KeyExists(id) => format!("a key {id} exists already"),
            Self::KeyNotFound(id) => format!("there is no key {id}"),
            Self::AccessKeyNotFound(id) => format!("there is no access key {id}"),
            Self::NotConfigured => "the service is not configured".to_owned(),
            Self::NotRunning => "the service is not running".to_owned(),
            Self::Throttled => {
                "the table or the secret store asks for fewer requests; try again later".to_owned()
            }
            Self::Forbidden(why) | Self::Conflict(why) => (*why).to_owned(),
            Self::Unavailable(fault) | Self::Backend(fault) => format!("{fault:?}"),
            other => other.class().replace('_', " "),
        }
    }

    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field,
            reason: reason.into(),
        }
    }
}

/// The internal half of a failure. It has no `Display`, so it cannot end up in an answer.
pub struct Fault {
    what: &'static str,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A failure of `what`, caused by `source`.
    pub fn new(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            what,
            source: Some(source.into()),
        }
    }

    /// A failure without a further cause: `what` says everything.
    pub const fn plain(what: &'static str) -> Self {
        Self { what, source: None }
    }

    /// Writes the failure and its causes to the error log.
    pub fn log(&self, request_id: &str) {
        tracing::error!(request_id, "{self:?}");
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {}", one_line(source.as_ref())),
            None => Ok(()),
        }
    }
}

/// An error and its causes in one line, for the log and the operator. A cause that the error's own text already
/// contains is not repeated.
pub fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    let words: Vec<&str> = line.lines().map(str::trim).collect();
    words.join(" ")
}

impl From<InvalidId> for KmsError {
    fn from(InvalidId { field, reason }: InvalidId) -> Self {
        Self::invalid(field, reason)
    }
}

impl From<Fault> for KmsError {
    fn from(fault: Fault) -> Self {
        Self::Backend(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn chain_of_errors_is_one_line_that_tells_each_cause_once() {
        let cause = Layer {
            text: "no such file",
            source: None,
        };
        let middle = Layer {
            text: "a/b: no such file",
            source: Some(Box::new(cause)),
        };
        let top = Layer {
            text: "could not\n  read",
            source: Some(Box::new(middle)),
        };
        assert_eq!(one_line(&top), "could not read: a/b: no such file");
        let fault = Fault::new("a task", top);
        let error = KmsError::Unavailable(fault);
        assert_eq!(
            error.for_operator(),
            "a task: could not read: a/b: no such file"
        );
    }
}
