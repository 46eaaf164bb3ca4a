//! Callers, and the access keys that identify them.

mod authorization;
mod lookup;
mod name;
mod operator;
mod rotation;
mod sessions;
mod uses;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::keyring::{Binding, HoldsSecrets, Wrapped};
use crate::ports::Kind;
use crate::repository::Noun;

use sessions::{PARENT_ORIGIN, StoredSession};

pub use crate::ids::AccessKeyId;
pub use crate::paths::AllowedCall;
pub use authorization::{Caller, Grant};
pub use lookup::{
    Credential, Credentials, ROOT_ACCESS_KEY_SECRET, ROOT_ACCESS_KEY_TTL, ROOT_SECRET_LENGTHS,
    RootAccessKey,
};
pub use name::AccessKeyName;
pub use operator::{
    AccessKeySummary, AccessKeys, ListedAccessKeys, NewAccessKey, WantedAccessKey, list_access_keys,
};
pub use rotation::{LONGEST_OVERLAP, RotatedAccessKey};
pub use sessions::{Lifetime, Session, SessionName, Sessions, WantedSession};
pub use uses::{USE_PRECISION, UseRecorder};

/// The AWS account id that this deployment reports: 12 digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountId(Arc<str>);

/// It is not 12 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 12 digits")]
pub struct AccountIdError;

impl FromStr for AccountId {
    type Err = AccountIdError;

    fn from_str(text: &str) -> Result<Self, AccountIdError> {
        if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self(text.into()))
        } else {
            Err(AccountIdError)
        }
    }
}

impl AccountId {
    /// The id of a deployment that was given none.
    pub const DEFAULT: &str = "000000000000";

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How AWS KMS's API returns the ciphertext of a new data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Envelope {
    /// As it is.
    Plain,
    /// In RustFS's JSON envelope of data keys, without which RustFS does not hand it back for decryption.
    RustFs,
}

impl Envelope {
    /// Its name in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::RustFs => "rustfs",
        }
    }
}

/// The access-key record. It holds no secret in the clear.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredAccessKey {
    format: u8,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    grant: Grant,
    secret: Wrapped,
    session_token: Option<Wrapped>,
    /// For a session, `grant` allows nothing, because older releases ignore `session` and obey `grant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<StoredSession>,
    /// Takes precedence over the deployment's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envelope: Option<Envelope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<AccessKeyName>,
    /// The access key that took this one's place in a rotation. This one then has an expiry date, which older releases
    /// obey too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaced_by: Option<String>,
}

impl Noun for StoredAccessKey {
    const KIND: Kind = Kind::AccessKey;
}

impl HoldsSecrets for StoredAccessKey {
    fn secrets(&mut self) -> Vec<(u32, &'static str, &mut Wrapped)> {
        let own = (1, SECRET_ORIGIN, &mut self.secret);
        let token = (self.session_token.as_mut()).map(|token| (1, TOKEN_ORIGIN, token));
        let parent =
            (self.session.as_mut()).map(|session| (1, PARENT_ORIGIN, &mut session.parent_secret));
        [own].into_iter().chain(token).chain(parent).collect()
    }
}

const SECRET_ORIGIN: &str = "access-key/secret";
const TOKEN_ORIGIN: &str = "access-key/session-token";

fn binding<'a>(id: &'a AccessKeyId, origin: &'a str) -> Binding<'a> {
    Binding {
        id: id.as_str(),
        version: 1,
        origin,
    }
}
