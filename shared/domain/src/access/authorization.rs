//! What a caller may do, asked before every operation.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Session;
use crate::audit_context::AuditContext;
use crate::error::KmsError;
use crate::ids::{BucketName, KeyId};
use crate::paths::{AllowedCall, PathRules};
use crate::policy::{Action, Policy, Target};
use crate::ranges::{NameRange, in_both};

/// What a caller was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// The root access key's: everything.
    Owner,
    /// What the policy allows.
    Policy(Policy),
    /// What both allow: the grant of whoever began a session, and the session's own policy.
    #[serde(skip)]
    Limited(Arc<Grant>, Arc<Policy>),
    /// Calls of the paths that these rules allow, and nothing before a path was judged: see [`Caller::for_call`].
    #[serde(skip)]
    Paths(Arc<PathRules>),
    /// One call of a path that such rules allow.
    #[serde(skip)]
    Call(AllowedCall),
}

impl Grant {
    /// Whether this may be done there; without a target, whether there can be anything to which it may be done.
    fn allows(&self, action: Action, target: Option<Target<'_>>) -> bool {
        match self {
            Self::Owner => true,
            Self::Policy(policy) => policy.allows(action, target),
            Self::Limited(grant, policy) => {
                policy.allows(action, target) && grant.allows(action, target)
            }
            Self::Paths(_) => false,
            Self::Call(call) => call.allows(action, target),
        }
    }

    /// What every key or bucket is called to which this may be done: see [`Caller::may_be_permitted`].
    fn allowed_names(&self, action: Action) -> Vec<NameRange> {
        match self {
            Self::Owner => NameRange::all(),
            Self::Policy(policy) => policy.allowed_names(action),
            Self::Limited(grant, policy) => {
                in_both(&policy.allowed_names(action), &grant.allowed_names(action))
            }
            Self::Call(call) => call.allowed_names(action),
            Self::Paths(_) => Vec::new(),
        }
    }
}

/// Somebody whose identity is proven, and what they may do. The first argument of every operation.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Arc<str>,
    grant: Arc<Grant>,
    session: Option<Arc<Session>>,
    is_known: bool,
    audit: Arc<AuditContext>,
}

impl Caller {
    /// A caller who was authenticated as `principal`.
    pub fn new(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            principal: principal.into(),
            grant,
            session: None,
            is_known: true,
            audit: Arc::default(),
        }
    }

    /// A caller whom anybody can be: `principal` is proven, and nothing is known of whose it is.
    pub(crate) fn unauthenticated(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            is_known: false,
            ..Self::new(principal, grant)
        }
    }

    /// The same caller, in this session.
    pub(super) fn in_session(self, session: Arc<Session>) -> Self {
        Self {
            session: Some(session),
            ..self
        }
    }

    /// The same caller, of another request: nothing is noted of that one yet.
    #[must_use]
    pub fn of_new_request(&self) -> Self {
        Self {
            audit: Arc::default(),
            ..self.clone()
        }
    }

    /// The same caller, for one of several things that a request asks for: what is noted of it is that item's alone.
    #[must_use]
    pub fn for_item(&self) -> Self {
        Self {
            audit: self.audit.next_item(),
            ..self.clone()
        }
    }

    /// Whether the deployment knows the principal, or has only proof that it is one.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The session that the caller's access key is of, if it is of one.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// What the caller was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn shared_grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant)
    }

    /// What was noted of the request so far. Clones of a caller share it.
    pub fn audit(&self) -> &Arc<AuditContext> {
        &self.audit
    }

    /// Who it is, to be kept.
    pub fn shared_principal(&self) -> Arc<str> {
        Arc::clone(&self.principal)
    }

    /// Who it is: the id of the access key.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Whether there can be a key, or bucket, on which the caller may do this: asked before a body is parsed,
    /// so that a caller without a right to the action never reaches the parser.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_ever(&self, action: Action) -> Result<(), KmsError> {
        self.judge(action, None)
    }

    /// Whether the caller may do this on this key.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may(&self, action: Action, key: &KeyId) -> Result<(), KmsError> {
        // A listing asks about every key there is, and is about none.
        if action != Action::ListKeys {
            self.audit.key(key);
        }
        #[cfg(test)]
        self.audit.decided(action.as_str(), key);
        self.judge(action, Some(Target::Key(key.as_str())))
    }

    /// What every key or bucket is called on which the caller may be permitted this, in order: a listing reads no others.
    /// Each is to be asked about all the same.
    pub(crate) fn may_be_permitted(&self, action: Action) -> Vec<NameRange> {
        self.grant.allowed_names(action)
    }

    /// Whether the caller may do this to what has this name and is no key.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub(crate) fn may_on_name(&self, action: Action, name: &str) -> Result<(), KmsError> {
        self.audit.resource(name);
        match self.grant.as_ref() {
            Grant::Owner => Ok(()),
            Grant::Call(_) => self.judge(action, Some(Target::Key(name))),
            // A policy of actions has no names for it but the service's own.
            Grant::Policy(_) | Grant::Limited(..) | Grant::Paths(_) => {
                self.judge(action, Some(Target::Service))
            }
        }
    }

    /// Whether the caller may do this to the service itself. A permission that names keys is none.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_on_service(&self, action: Action) -> Result<(), KmsError> {
        self.judge(action, Some(Target::Service))
    }

    /// Whether the caller may do this on this bucket.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_on_bucket(&self, action: Action, bucket: &BucketName) -> Result<(), KmsError> {
        if action != Action::ListAllMyBuckets {
            self.audit.resource(bucket.as_str());
        }
        self.judge(action, Some(Target::Bucket(bucket.as_str())))
    }

    /// Whether the caller may call this path: KES's policies speak of paths and of nothing else.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_call(&self, path: &str) -> Result<(), KmsError> {
        let allowed = match self.grant.as_ref() {
            Grant::Owner => true,
            Grant::Paths(rules) => rules.allows(path),
            // A policy of actions says nothing of paths, and a call is no permission for another one.
            Grant::Policy(_) | Grant::Limited(..) | Grant::Call(_) => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(KmsError::NotPermitted)
        }
    }

    /// The caller for one call: who may do `action`, which is what a call of `path` does, to what the path ends in,
    /// and nothing else. An owner stays one.
    ///
    /// So the policy is asked once, about the path that was called, and every operation behind it still asks its
    /// caller, as it does whoever calls.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`] unless the caller may call the path.
    pub fn for_call(self, action: Action, path: &str) -> Result<Self, KmsError> {
        // A refusal is told with what was asked for: the path ends in it.
        if action.is_about_one_key()
            && let Some((_, name)) = path.rsplit_once('/')
            && let Ok(key) = KeyId::parse("key_id", name)
        {
            self.audit.key(&key);
        }
        self.may_call(path)?;
        if matches!(self.grant.as_ref(), Grant::Owner) {
            return Ok(self);
        }
        Ok(Self {
            grant: Arc::new(Grant::Call(AllowedCall::new(action, path))),
            ..self
        })
    }

    fn judge(&self, action: Action, target: Option<Target<'_>>) -> Result<(), KmsError> {
        if self.grant.allows(action, target) {
            Ok(())
        } else {
            Err(KmsError::NotPermitted)
        }
    }
}
