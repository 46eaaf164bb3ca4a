//! Sessions: access keys for a few hours, which the holder of an access key can make. At each request, a session may do
//! at most what its parent access key may do then. It ends with that key.

use std::sync::Arc;
use std::time::Duration;

use keyway_crypto::{SecretBytes, sha256};
use serde::{Deserialize, Serialize};

use super::operator::Parts;
use super::{
    AccessKeyId, AccessKeys, Caller, Credential, Credentials, Grant, NewAccessKey, binding,
};
use crate::error::KmsError;
use crate::keyring::{KeyWrapper, Wrapped};
use crate::policy::Policy;

pub(super) const PARENT_ORIGIN: &str = "access-key/parent-secret";

/// The session that an access key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The access key that began the session: its parent.
    pub parent: AccessKeyId,
    /// The session's name.
    pub name: SessionName,
}

/// The name of a session: 2 to 64 of `[A-Za-z0-9_+=,.@-]`, as in AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionName(Arc<str>);

impl SessionName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when it is too short, too long or has other characters.
    pub fn parse(text: &str) -> Result<Self, KmsError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
        if (2..=64).contains(&text.len()) && text.bytes().all(fits) {
            Ok(Self(text.into()))
        } else {
            Err(KmsError::invalid(
                "RoleSessionName",
                "must be 2 to 64 of A-Z, a-z, 0-9, `_`, `+`, `=`, `,`, `.`, `@`, `-`",
            ))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How long a session lasts: 15 minutes to 12 hours, one hour by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime(Duration);

impl Lifetime {
    /// A lifetime of this many seconds.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] below 900 and above 43200.
    pub fn seconds(seconds: u64) -> Result<Self, KmsError> {
        if (900..=43_200).contains(&seconds) {
            Ok(Self(Duration::from_secs(seconds)))
        } else {
            Err(KmsError::invalid(
                "DurationSeconds",
                "must be from 900 to 43200",
            ))
        }
    }
}

impl Default for Lifetime {
    fn default() -> Self {
        Self(Duration::from_secs(3600))
    }
}

/// A requested session.
pub struct WantedSession {
    /// The session's name.
    pub name: SessionName,
    /// Its lifetime. It ends no later than its parent access key.
    pub lifetime: Lifetime,
    /// A policy that limits its permissions.
    pub policy: Option<Policy>,
}

/// Begins sessions.
pub struct Sessions {
    access_keys: AccessKeys,
    credentials: Arc<Credentials>,
}

impl Sessions {
    /// `credentials` finds the parent access keys.
    pub const fn new(access_keys: AccessKeys, credentials: Arc<Credentials>) -> Self {
        Self {
            access_keys,
            credentials,
        }
    }

    /// Begins a session of the caller's access key. Needs no permission, because a session adds none.
    ///
    /// # Errors
    /// [`KmsError::Forbidden`] for a caller in a session; [`KmsError::NotPermitted`] when the caller's access key no
    /// longer exists; otherwise when a port fails.
    pub async fn begin(
        &self,
        caller: &Caller,
        wanted: &WantedSession,
    ) -> Result<NewAccessKey, KmsError> {
        if caller.session().is_some() {
            return Err(KmsError::Forbidden(
                "a session cannot begin another one; sign with the access key that began this one",
            ));
        }
        let parent = self.credentials.find(caller.principal()).await?;
        let parent = parent.ok_or(KmsError::NotPermitted)?;
        let keys = &self.access_keys;
        let id = keys.new_id()?;
        caller.audit().resource(id.as_str());
        let whole = keys.after(wanted.lifetime.0)?;
        let expires_at = parent.expires_at.map_or(whole, |end| end.min(whole));
        let session = StoredSession {
            parent: caller.principal().to_owned(),
            parent_secret: Wrapped::seal(
                keys.wrapper.as_ref(),
                &binding(&id, PARENT_ORIGIN),
                &sha256(&[parent.secret.expose()]),
            )
            .await?,
            name: wanted.name.as_str().to_owned(),
            policy: wanted.policy.clone(),
        };
        let nothing = Grant::Policy(Policy::nothing());
        let parts = Parts {
            expires_at: Some(expires_at),
            session: Some(session),
            ..Parts::of(nothing)
        };
        keys.make(id, parts).await
    }
}

/// The session in an access key's record.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredSession {
    parent: String,
    /// The SHA-256 of the parent's secret. A key with another secret is another access key, even under the same id.
    pub(super) parent_secret: Wrapped,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<Policy>,
}

impl StoredSession {
    pub(super) fn session(&self) -> Session {
        Session {
            parent: AccessKeyId::kept(&self.parent),
            name: SessionName(self.name.as_str().into()),
        }
    }

    pub(super) async fn open(
        self,
        wrapper: &dyn KeyWrapper,
        id: &AccessKeyId,
    ) -> Result<HeldSession, KmsError> {
        let parent_secret = self
            .parent_secret
            .open(wrapper, &binding(id, PARENT_ORIGIN))
            .await?;
        Ok(HeldSession {
            session: Arc::new(self.session()),
            parent_secret,
            policy: self.policy.map(Arc::new),
        })
    }
}

/// A session in memory.
pub(super) struct HeldSession {
    session: Arc<Session>,
    parent_secret: SecretBytes,
    policy: Option<Arc<Policy>>,
}

impl HeldSession {
    pub(super) fn parent(&self) -> &str {
        self.session.parent.as_str()
    }

    /// The session's credential with the parent's present permissions; `None` when the parent has been replaced.
    pub(super) fn under(&self, own: &Credential, parent: &Credential) -> Option<Credential> {
        let is_same = self.parent_secret.ct_eq(&sha256(&[parent.secret.expose()]));
        if !is_same || parent.session.is_some() {
            return None;
        }
        let granted = parent.caller.shared_grant();
        let grant = match &self.policy {
            None => granted,
            Some(policy) => Arc::new(Grant::Limited(granted, Arc::clone(policy))),
        };
        Some(Credential {
            secret: Arc::clone(&own.secret),
            session_token: own.session_token.clone(),
            expires_at: own.expires_at,
            caller: Caller::new(own.caller.shared_principal(), grant)
                .in_session(Arc::clone(&self.session))
                .with_envelope(parent.caller.envelope()),
            session: None,
            mark: parent.mark.clone(),
        })
    }
}
