//! A caller's permissions, checked before every operation.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Envelope, Session};
use crate::audit_context::{AuditContext, Denied};
use crate::error::KmsError;
use crate::ids::{AliasName, BucketName, KeyId};
use crate::paths::{AllowedCall, PathRules};
use crate::policy::{Action, Policy, Target};
use crate::ranges::{NameRange, in_both};

/// The permissions of a caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grant {
    /// Everything: the root access key.
    Owner,
    /// What the policy allows.
    Policy(Policy),
    /// What both allow: the grant of the access key that began a session, and the session's own policy.
    #[serde(skip)]
    Limited(Arc<Grant>, Arc<Policy>),
    /// Calls of the paths that these rules allow. Allows nothing until a path was checked: see [`Caller::for_call`].
    #[serde(skip)]
    Paths(Arc<PathRules>),
    /// One call of a path that such rules allow.
    #[serde(skip)]
    Call(AllowedCall),
}

impl Grant {
    /// Whether the action is allowed on the target; without a target, whether it can be allowed on any.
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

    /// The names of the keys or buckets on which the action may be allowed: see [`Caller::may_be_permitted`].
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

/// An authenticated identity with its permissions. The first argument of every operation.
#[derive(Debug, Clone)]
pub struct Caller {
    principal: Arc<str>,
    grant: Arc<Grant>,
    session: Option<Arc<Session>>,
    envelope: Option<Envelope>,
    is_known: bool,
    /// The called operation, if policies can name it: see [`Caller::for_operation`].
    operation: Option<Action>,
    audit: Arc<AuditContext>,
}

impl Caller {
    /// A caller that was authenticated as `principal`.
    pub fn new(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            principal: principal.into(),
            grant,
            session: None,
            envelope: None,
            is_known: true,
            operation: None,
            audit: Arc::default(),
        }
    }

    /// A caller that proved an identity which the deployment does not know. Anyone can make such an identity.
    pub(crate) fn unauthenticated(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            is_known: false,
            ..Self::new(principal, grant)
        }
    }

    /// The same caller, with this session.
    pub(super) fn in_session(self, session: Arc<Session>) -> Self {
        Self {
            session: Some(session),
            ..self
        }
    }

    /// The same caller, whose access key has this envelope.
    pub(super) fn with_envelope(self, envelope: Option<Envelope>) -> Self {
        Self { envelope, ..self }
    }

    /// The same caller for another request, with an empty audit context.
    #[must_use]
    pub fn of_new_request(&self) -> Self {
        self.with_audit(Arc::default())
    }

    /// The same caller for one item of a request, with an audit context of the item's own.
    #[must_use]
    pub fn for_item(&self) -> Self {
        self.with_audit(self.audit.next_item())
    }

    /// A copy with this audit context. It does not touch the audit context of `self`: every request of one caller would write
    /// to its count of references.
    fn with_audit(&self, audit: Arc<AuditContext>) -> Self {
        Self {
            principal: Arc::clone(&self.principal),
            grant: Arc::clone(&self.grant),
            session: self.session.clone(),
            envelope: self.envelope,
            is_known: self.is_known,
            operation: self.operation,
            audit,
        }
    }

    /// The same caller for one operation that policies can name besides the permission that it needs: a policy that
    /// allows or denies the operation's own name decides too.
    #[must_use]
    pub fn for_operation(&self, operation: Action) -> Self {
        Self {
            operation: Some(operation),
            ..self.clone()
        }
    }

    /// What the last check of a permission refused, for error texts.
    pub fn denied(&self) -> Option<Denied> {
        self.audit.denied()
    }

    /// Whether the deployment knows the principal. If not, the caller has only proved who it is.
    pub fn is_known(&self) -> bool {
        self.is_known
    }

    /// The session that the caller's access key belongs to, if any.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_deref()
    }

    /// How the caller's access key gets the ciphertexts of data keys; `None` if the deployment's setting decides.
    pub const fn envelope(&self) -> Option<Envelope> {
        self.envelope
    }

    /// What the caller was granted.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn shared_grant(&self) -> Arc<Grant> {
        Arc::clone(&self.grant)
    }

    /// The request's audit context. Clones of a caller share it.
    pub fn audit(&self) -> &Arc<AuditContext> {
        &self.audit
    }

    /// The principal, shared.
    pub fn shared_principal(&self) -> Arc<str> {
        Arc::clone(&self.principal)
    }

    /// The principal: the id of the access key, or the identity.
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// Whether the caller can be allowed the action on any key or bucket. Checked before a body is parsed, so that a
    /// caller without this permission never reaches the parser.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_ever(&self, action: Action) -> Result<(), KmsError> {
        self.judge(action, None)
    }

    /// Whether the caller may perform the action on this key.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may(&self, action: Action, key: &KeyId) -> Result<(), KmsError> {
        // A listing checks every key, and is about none of them.
        if !matches!(action, Action::ListKeys | Action::ListAliases) {
            self.audit.key(key);
        }
        #[cfg(test)]
        self.audit.decided(action.as_str(), key);
        let judged = self.judge(action, Some(Target::Key(key.as_str())));
        if judged.is_err() {
            let name = self.called(action).as_str();
            self.audit.deny(Denied::Key(name, key.clone()));
        }
        judged
    }

    /// Whether the caller may perform the action on this alias. The key that it stands for is checked separately.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_on_alias(&self, action: Action, alias: &AliasName) -> Result<(), KmsError> {
        self.audit.resource(alias.as_str());
        let judged = self.judge(action, Some(Target::Alias(alias.as_str())));
        if judged.is_err() {
            let name = self.called(action).as_str();
            self.audit.deny(Denied::Alias(name, alias.clone()));
        }
        judged
    }

    /// As [`Caller::may`], for the key that this alias stands for. The refusal names the alias, because the caller may not
    /// know the key.
    pub(crate) fn may_behind(
        &self,
        action: Action,
        alias: &AliasName,
        key: &KeyId,
    ) -> Result<(), KmsError> {
        let judged = self.may(action, key);
        if judged.is_err() {
            let name = self.called(action).as_str();
            self.audit.deny(Denied::Alias(name, alias.clone()));
        }
        judged
    }

    /// The names of the keys or buckets on which the caller may be allowed the action, in order. A listing reads no
    /// others, and still checks each of them.
    pub(crate) fn may_be_permitted(&self, action: Action) -> Vec<NameRange> {
        self.grant.allowed_names(action)
    }

    /// Whether the caller may perform the action on the policy or identity of this name.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub(crate) fn may_on_name(&self, action: Action, name: &str) -> Result<(), KmsError> {
        self.audit.resource(name);
        match self.grant.as_ref() {
            Grant::Owner => Ok(()),
            Grant::Call(_) => self.judge(action, Some(Target::Key(name))),
            // Policies of actions do not name policies and identities: only the permission on the service covers them.
            Grant::Policy(_) | Grant::Limited(..) | Grant::Paths(_) => {
                self.judge(action, Some(Target::Service))
            }
        }
    }

    /// Whether the caller may perform the action on the service itself. A permission for named keys does not suffice.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_on_service(&self, action: Action) -> Result<(), KmsError> {
        self.judge(action, Some(Target::Service))
    }

    /// Whether the caller may perform the action on this bucket.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_on_bucket(&self, action: Action, bucket: &BucketName) -> Result<(), KmsError> {
        if action != Action::ListAllMyBuckets {
            self.audit.resource(bucket.as_str());
        }
        self.judge(action, Some(Target::Bucket(bucket.as_str())))
    }

    /// Whether the caller may call this path. KES's policies consist of paths and nothing else.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`].
    pub fn may_call(&self, path: &str) -> Result<(), KmsError> {
        let allowed = match self.grant.as_ref() {
            Grant::Owner => true,
            Grant::Paths(rules) => rules.allows(path),
            // Policies of actions do not cover paths, and a call is no permission for another one.
            Grant::Policy(_) | Grant::Limited(..) | Grant::Call(_) => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(KmsError::NotPermitted)
        }
    }

    /// The caller for one call of `path`: it may only perform `action`, which is what the call does, on the target that
    /// the path ends in. An owner stays an owner.
    ///
    /// So the policy is checked once, against the called path, and every operation behind it checks its caller as
    /// always.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`] unless the caller may call the path.
    pub fn for_call(self, action: Action, path: &str) -> Result<Self, KmsError> {
        // A refusal is logged with its target, in which the path ends.
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

    /// The called operation if this action covers it, otherwise the action.
    fn called(&self, action: Action) -> Action {
        let called = self
            .operation
            .filter(|called| called.permission() == action);
        called.unwrap_or(action)
    }

    fn judge(&self, action: Action, target: Option<Target<'_>>) -> Result<(), KmsError> {
        let action = self.called(action);
        if self.grant.allows(action, target) {
            Ok(())
        } else {
            Err(KmsError::NotPermitted)
        }
    }
}
