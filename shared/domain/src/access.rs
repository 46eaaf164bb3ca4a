//! Callers, and the access keys that identify them.

mod sessions;

use std::collections::HashSet;
use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyway_crypto::SecretBytes;
use serde::{Deserialize, Serialize};

use crate::buckets::BucketName;
use crate::cache::Cache;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::identity::PathRules;
use crate::keyring::{Binding, KeyWrapper, Wrapped};
use crate::keys::KeyId;
use crate::policy::{Action, Policy, Target};
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, SecretStore, TableReader, TableWriter,
};
use crate::ranges::{NameRange, in_both};
use crate::repository::{self, Noun, if_readable, load};
use crate::scan::Scan;
use crate::trail::Trail;

use sessions::{HeldSession, StoredSession};
pub use sessions::{Lifetime, Session, SessionName, Sessions, WantedSession};

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
            // The path had the names that it asks for, and was judged with them.
            Self::Call(call) if call.action == action => NameRange::all(),
            Self::Call(_) | Self::Paths(_) => Vec::new(),
        }
    }
}

/// A call whose path was allowed: what it does, and to what the path ends in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedCall {
    action: Action,
    path: Arc<str>,
}

impl AllowedCall {
    /// A path of KES's names in its last segment what it is about, so a call is a permission for that one thing:
    /// an operation that went for another one is refused, whatever led it there. A listing names a pattern there,
    /// and is a permission to see whatever it matches.
    fn allows(&self, action: Action, target: Option<Target<'_>>) -> bool {
        action == self.action
            && match (action, target) {
                (Action::ListKeys, _) | (_, None | Some(Target::Unknown(_) | Target::Service)) => {
                    true
                }
                (_, Some(Target::Key(id))) => self
                    .path
                    .strip_suffix(id)
                    .is_some_and(|before| before.ends_with('/')),
                // No path of KES's is about a bucket.
                (_, Some(Target::Bucket(_))) => false,
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
    trail: Arc<Trail>,
}

impl Caller {
    /// A caller who was authenticated as `principal`.
    pub fn new(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            principal: principal.into(),
            grant,
            session: None,
            is_known: true,
            trail: Arc::default(),
        }
    }

    /// A caller whom anybody can be: `principal` is proven, and nothing is known of whose it is.
    pub(crate) fn stranger(principal: impl Into<Arc<str>>, grant: Arc<Grant>) -> Self {
        Self {
            is_known: false,
            ..Self::new(principal, grant)
        }
    }

    /// The same caller, of another request: nothing is noted of that one yet.
    #[must_use]
    pub fn of_new_request(&self) -> Self {
        Self {
            trail: Arc::default(),
            ..self.clone()
        }
    }

    /// The same caller, for one of several things that a request asks for: what is noted of it is that item's alone.
    #[must_use]
    pub fn for_item(&self) -> Self {
        Self {
            trail: self.trail.next_item(),
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

    /// What was noted of the request so far. Clones of a caller share it.
    pub fn trail(&self) -> &Arc<Trail> {
        &self.trail
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
    /// so that a stranger to the action never reaches the parser.
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
            self.trail.key(key);
        }
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
        self.trail.resource(name);
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
            self.trail.resource(bucket.as_str());
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
            self.trail.key(&key);
        }
        self.may_call(path)?;
        if matches!(self.grant.as_ref(), Grant::Owner) {
            return Ok(self);
        }
        let call = AllowedCall {
            action,
            path: path.into(),
        };
        Ok(Self {
            grant: Arc::new(Grant::Call(call)),
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

/// The account of AWS that this deployment says it is: 12 digits.
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

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of an access key: 3 to 128 of `[A-Za-z0-9._-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccessKeyId(Arc<str>);

impl AccessKeyId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when it is too short, too long or has other characters.
    pub fn parse(text: &str) -> Result<Self, KmsError> {
        let fit = (3..=128).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if fit {
            Ok(Self(text.into()))
        } else {
            Err(KmsError::invalid(
                "access_key_id",
                "must be 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`",
            ))
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An access key as its holder needs it: shown once, never again.
pub struct NewAccessKey {
    /// Who it identifies.
    pub id: AccessKeyId,
    /// Signs requests.
    pub secret: SecretBytes,
    /// Must accompany every request, where the key expires.
    pub session_token: Option<SecretBytes>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// What is told of an access key after it was made.
#[derive(Debug, Clone)]
pub struct AccessKeySummary {
    /// Its id.
    pub id: AccessKeyId,
    /// What it may do at most; without one everything, or what the beginner of its session may.
    pub policy: Option<Policy>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The session that it is of: it may do at most what the access key may that began it, and ends with that.
    pub session: Option<Session>,
    /// Why its policy is not obeyed, and allows nothing: see [`Policy::fault`].
    pub fault: Option<String>,
}

impl AccessKeySummary {
    fn read(record: &Record) -> Result<Self, KmsError> {
        let stored = StoredAccessKey::of(record)?;
        let session = stored.session.as_ref().map(StoredSession::session);
        let permitted = match (stored.session, stored.grant) {
            (Some(session), _) => session.policy,
            (None, Grant::Policy(policy)) => Some(policy),
            // No access key is kept with one of the latter three.
            (None, Grant::Owner | Grant::Limited(..) | Grant::Paths(_) | Grant::Call(_)) => None,
        };
        Ok(Self {
            id: AccessKeyId::parse(&record.id)?,
            session,
            fault: permitted.as_ref().and_then(Policy::fault),
            policy: permitted,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
        })
    }
}

/// A credential that a presented signature is checked against.
pub struct Credential {
    /// What signatures are made with.
    pub secret: Arc<SecretBytes>,
    /// Must be presented when there is one, and must not when there is none.
    pub session_token: Option<Arc<SecretBytes>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// Whom it proves.
    pub caller: Caller,
    /// The session that it is of. What its caller may do is then found anew for each request.
    session: Option<HeldSession>,
}

/// The access-key record. It holds no secret in the clear.
#[derive(Serialize, Deserialize)]
struct StoredAccessKey {
    format: u8,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    grant: Grant,
    secret: Wrapped,
    session_token: Option<Wrapped>,
    /// With one, `grant` allows nothing: a version that knew of no sessions must not take it for all of the permissions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    session: Option<StoredSession>,
}

impl Noun for StoredAccessKey {
    const KIND: Kind = Kind::AccessKey;
}

const SECRET_ORIGIN: &str = "access-key/secret";
const TOKEN_ORIGIN: &str = "access-key/session-token";
const CACHED_CREDENTIALS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// The name of the root access key in the secret store.
pub const ROOT_ACCESS_KEY_SECRET: &str = "root-access-key";
/// How long the root access key of the secret store is served from memory.
pub const ROOT_ACCESS_KEY_TTL: Duration = Duration::from_secs(300);
/// How long a root access key that could not be read is not asked for again.
const ROOT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where the root access key comes from.
pub enum RootAccessKey {
    /// The table: made on the first start.
    InTable,
    /// The deployment's settings. One in the table is then no longer honoured.
    Given(AccessKeyId, SecretBytes),
    /// The secret store, under [`ROOT_ACCESS_KEY_SECRET`]: a JSON object with `access_key_id` and `secret_access_key`.
    /// One in the table is then not honoured.
    InSecretStore(Arc<dyn SecretStore>),
}

/// The root access key as the secret store keeps it.
#[derive(Deserialize)]
struct KeptRootAccessKey {
    access_key_id: String,
    secret_access_key: zeroize::Zeroizing<String>,
}

/// The root access key as it is honoured at present.
struct Root {
    id: AccessKeyId,
    credential: Arc<Credential>,
}

impl Root {
    fn new(id: AccessKeyId, secret: SecretBytes) -> Self {
        let caller = Caller::new(Arc::clone(&id.0), Arc::new(Grant::Owner));
        Self {
            id,
            credential: Arc::new(Credential {
                secret: Arc::new(secret),
                session_token: None,
                expires_at: None,
                caller,
                session: None,
            }),
        }
    }

    fn parse(value: &SecretBytes) -> Result<Self, &'static str> {
        let kept: KeptRootAccessKey = serde_json::from_slice(value.expose())
            .map_err(|_| "it is not a JSON object with `access_key_id` and `secret_access_key`")?;
        let id = AccessKeyId::parse(&kept.access_key_id)
            .map_err(|_| "its `access_key_id` is not 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`")?;
        if !ROOT_SECRET_LENGTHS.contains(&kept.secret_access_key.len()) {
            return Err("its `secret_access_key` is not 8 to 256 bytes long");
        }
        let secret = SecretBytes::from(kept.secret_access_key.as_bytes().to_vec());
        Ok(Self::new(id, secret))
    }
}

/// How long the secret of a root access key may be that was not made here, in bytes.
pub const ROOT_SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;

/// Finds the credential that a request claims to be signed with.
pub struct Credentials {
    table: Arc<dyn TableReader>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    root: RootSource,
    cache: Cache<AccessKeyId, Credential>,
    /// Access keys whose policies the log has been told of, for one line each.
    told: Mutex<HashSet<AccessKeyId>>,
}

enum RootSource {
    InTable,
    Given(Root),
    InSecretStore {
        secrets: Arc<dyn SecretStore>,
        known: Mutex<KnownRoot>,
    },
}

/// The root access key as it was read, when that began, and when reading it last failed.
#[derive(Default)]
struct KnownRoot {
    root: Option<(Duration, Arc<Root>)>,
    failed_at: Option<Duration>,
}

impl Credentials {
    /// `state_ttl`: how long a key that was revoked elsewhere may still be honoured.
    pub fn new(
        table: Arc<dyn TableReader>,
        wrapper: Arc<dyn KeyWrapper>,
        clock: Arc<dyn Clock>,
        state_ttl: Duration,
        root: RootAccessKey,
    ) -> Self {
        let root = match root {
            RootAccessKey::InTable => RootSource::InTable,
            RootAccessKey::Given(id, secret) => RootSource::Given(Root::new(id, secret)),
            RootAccessKey::InSecretStore(secrets) => RootSource::InSecretStore {
                secrets,
                known: Mutex::default(),
            },
        };
        Self {
            table,
            wrapper,
            clock,
            state_ttl,
            root,
            cache: Cache::new(CACHED_CREDENTIALS),
            told: Mutex::default(),
        }
    }

    /// Reads what the first request would wait for. A failure goes to the log, and is met again by the request.
    pub async fn warm(&self) {
        if let Err(KmsError::Unavailable(fault)) = self.root(None).await {
            tracing::error!("{fault:?}");
        }
    }

    /// The credential of this id, unless there is none or it has expired. One of a session is there as long as the one is
    /// that began it, and what it may do follows from what that one may do now.
    ///
    /// # Errors
    /// When the table or the wrapper fails.
    pub async fn find(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        let Some(credential) = self.valid(id).await? else {
            return Ok(None);
        };
        let Some(session) = &credential.session else {
            return Ok(Some(credential));
        };
        let parent = self.valid(session.parent()).await?;
        Ok(parent
            .and_then(|parent| session.under(&credential, &parent))
            .map(Arc::new))
    }

    async fn valid(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        let is_valid = |credential: &Arc<Credential>| {
            credential
                .expires_at
                .is_none_or(|expiry| expiry > self.clock.now())
        };
        Ok(self.known(id).await?.filter(is_valid))
    }

    async fn known(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        // The root access key that is known already is compared first, so that its holder never waits for the table;
        // and one that is not known yet comes last, so that nobody else waits for the secret store.
        if self.root_id().is_some_and(|root| root.as_str() == id)
            && let Some(root) = self.root(Some(id)).await?
        {
            return Ok(Some(root));
        }
        let Ok(parsed) = AccessKeyId::parse(id) else {
            return Ok(None);
        };
        match self.stored(&parsed).await? {
            Some(credential) => Ok(Some(credential)),
            None => self.root(Some(id)).await,
        }
    }

    /// The id of the root access key, as far as it is known without asking anybody.
    fn root_id(&self) -> Option<AccessKeyId> {
        match &self.root {
            RootSource::InTable => None,
            RootSource::Given(root) => Some(root.id.clone()),
            RootSource::InSecretStore { known, .. } => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.root.as_ref().map(|(_, root)| root.id.clone())
            }
        }
    }

    /// The root access key's credential, if it has this id.
    async fn root(&self, id: Option<&str>) -> Result<Option<Arc<Credential>>, KmsError> {
        let credential = |root: &Root| {
            id.is_some_and(|id| root.id.as_str() == id)
                .then(|| Arc::clone(&root.credential))
        };
        let (secrets, known) = match &self.root {
            RootSource::InTable => return Ok(None),
            RootSource::Given(root) => return Ok(credential(root)),
            RootSource::InSecretStore { secrets, known } => (secrets, known),
        };
        let now = self.clock.monotonic();
        {
            let known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match &known.root {
                Some((begun, root)) if now.saturating_sub(*begun) < ROOT_ACCESS_KEY_TTL => {
                    return Ok(credential(root));
                }
                _ if known
                    .failed_at
                    .is_some_and(|failed| now.saturating_sub(failed) < ROOT_AGAIN_AFTER) =>
                {
                    return Err(KmsError::Unavailable(Fault::plain(
                        "the root access key could not be read a moment ago",
                    )));
                }
                _ => {}
            }
        }
        let read = match secrets.get(ROOT_ACCESS_KEY_SECRET).await {
            Ok(Some((value, _))) => Root::parse(&value)
                .map_err(|why| Fault::new("the root access key in the secret store", why)),
            Ok(None) => Err(Fault::plain(
                "the secret store holds no root access key where one should be",
            )),
            Err(error) => Err(Fault::new("the root access key in the secret store", error)),
        };
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(root) => {
                let answer = credential(&root);
                *known = KnownRoot {
                    root: Some((now, Arc::new(root))),
                    failed_at: None,
                };
                Ok(answer)
            }
            Err(fault) => {
                known.failed_at = Some(now);
                Err(KmsError::Unavailable(fault))
            }
        }
    }

    async fn stored(&self, id: &AccessKeyId) -> Result<Option<Arc<Credential>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(credential) = self.cache.get(id, now, self.state_ttl) {
            return Ok(Some(credential));
        }
        let ticket = self.cache.begin(now);
        let loaded = load::<StoredAccessKey>(self.table.as_ref(), id.as_str()).await?;
        let Some((stored, _)) = loaded else {
            return Ok(None);
        };
        if stored.grant == Grant::Owner && !matches!(self.root, RootSource::InTable) {
            return Ok(None);
        }
        let secret = stored
            .secret
            .open(self.wrapper.as_ref(), &binding(id, SECRET_ORIGIN))
            .await?;
        let session_token = match &stored.session_token {
            Some(token) => Some(
                token
                    .open(self.wrapper.as_ref(), &binding(id, TOKEN_ORIGIN))
                    .await?,
            ),
            None => None,
        };
        let session = match stored.session {
            Some(mut session) => {
                session.policy = session.policy.map(|policy| self.obeyed(id, policy));
                Some(session.open(self.wrapper.as_ref(), id).await?)
            }
            None => None,
        };
        let grant = match stored.grant {
            Grant::Policy(policy) => Grant::Policy(self.obeyed(id, policy)),
            grant => grant,
        };
        let caller = Caller::new(Arc::clone(&id.0), Arc::new(grant));
        let credential = Arc::new(Credential {
            secret: Arc::new(secret),
            session_token: session_token.map(Arc::new),
            expires_at: stored.expires_at,
            caller,
            session,
        });
        self.cache
            .insert(ticket, id.clone(), Arc::clone(&credential), self.state_ttl);
        Ok(Some(credential))
    }

    /// The policy as it is obeyed. One of which a `Deny` would not deny what it names, as older versions accepted them,
    /// allows nothing: whoever wrote it meant less than it says.
    fn obeyed(&self, id: &AccessKeyId, policy: Policy) -> Policy {
        let Some(fault) = policy.fault() else {
            return policy;
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < CACHED_CREDENTIALS.get() && told.insert(id.clone()) {
            tracing::warn!(
                access_key = id.as_str(),
                fault,
                "the policy of this access key has a Deny that denies nothing, so the key may do nothing; make another one"
            );
        }
        Policy::nothing()
    }
}

/// Makes, lists and revokes access keys: the operator's side.
pub struct AccessKeys {
    table: Arc<dyn TableWriter>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl AccessKeys {
    /// Over this table and wrapper.
    pub fn new(
        table: Arc<dyn TableWriter>,
        wrapper: Arc<dyn KeyWrapper>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            wrapper,
            clock,
            random,
        }
    }

    /// Makes an access key with this policy. One that expires gets a session token.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a life of zero or over 366 days; else when a port fails.
    pub async fn create(
        &self,
        policy: Policy,
        life: Option<Duration>,
    ) -> Result<NewAccessKey, KmsError> {
        if life.is_some_and(|life| life.is_zero() || life > LONGEST_LIFE) {
            return Err(KmsError::invalid(
                "expires_in",
                "must be from 1 second to 366 days",
            ));
        }
        let expires_at = match life {
            Some(life) => Some(self.after(life)?),
            None => None,
        };
        let id = self.new_id()?;
        self.make(id, Grant::Policy(policy), expires_at, None).await
    }

    fn new_id(&self) -> Result<AccessKeyId, KmsError> {
        let random = random_text(self.random.as_ref(), UPPERCASE, 18)?;
        Ok(AccessKeyId(format!("KW{random}").into()))
    }

    /// So long from now.
    fn after(&self, life: Duration) -> Result<Timestamp, KmsError> {
        SignedDuration::try_from(life)
            .and_then(|life| self.clock.now().checked_add(life))
            .map_err(|error| KmsError::Backend(Fault::new("an expiry date", error)))
    }

    /// Makes the root access key if the table has none yet; `None` when it has one.
    ///
    /// # Errors
    /// When a port fails.
    pub async fn create_root_if_new(&self) -> Result<Option<NewAccessKey>, KmsError> {
        // One marker record decides the race of two first starts; the key itself has a random id like any other.
        if self
            .table
            .get(Kind::Config, ROOT_MARKER, Consistency::Strong)
            .await?
            .is_some()
        {
            return Ok(None);
        }
        let id = self.new_id()?;
        let key = self.make(id.clone(), Grant::Owner, None, None).await?;
        let marker = RootMarker {
            format: encoding::FORMAT,
            access_key_id: id.as_str().to_owned(),
        };
        let marker = marker.record(ROOT_MARKER, self.random.as_ref())?;
        if repository::write(self.table.as_ref(), &marker, None).await? {
            return Ok(Some(key));
        }
        self.revoke(&id).await?;
        Ok(None)
    }

    async fn make(
        &self,
        id: AccessKeyId,
        grant: Grant,
        expires_at: Option<Timestamp>,
        session: Option<StoredSession>,
    ) -> Result<NewAccessKey, KmsError> {
        let random = self.random.as_ref();
        let created_at = self.clock.now();
        let secret = SecretBytes::from(random_text(random, ALPHANUMERIC, 40)?.into_bytes());
        let session_token = match expires_at {
            Some(_) => Some(SecretBytes::from(
                random_text(random, ALPHANUMERIC, 64)?.into_bytes(),
            )),
            None => None,
        };
        let wrapper = self.wrapper.as_ref();
        let stored = StoredAccessKey {
            format: encoding::FORMAT,
            created_at,
            expires_at,
            grant,
            secret: Wrapped::seal(wrapper, &binding(&id, SECRET_ORIGIN), secret.expose()).await?,
            session_token: match &session_token {
                Some(token) => {
                    Some(Wrapped::seal(wrapper, &binding(&id, TOKEN_ORIGIN), token.expose()).await?)
                }
                None => None,
            },
            session,
        };
        let record = Record {
            expires_at,
            ..stored.record(id.as_str(), random)?
        };
        // A conflict would mean that 93 random bits came twice: not foreseen, so reported as a failure.
        self.table.put_new(&record).await?;
        Ok(NewAccessKey {
            id,
            secret,
            session_token,
            expires_at,
        })
    }

    /// Every access key that has not expired, in the order of their ids. One whose record does not decode is left out.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn list(&self) -> Result<Vec<AccessKeySummary>, KmsError> {
        let mut keys = Vec::new();
        let mut scan = Scan::all(self.table.as_ref(), Kind::AccessKey);
        while let Some(record) = scan.record().await? {
            keys.extend(if_readable(&record, AccessKeySummary::read(&record)));
        }
        Ok(keys)
    }

    /// Revokes an access key. Every instance stops honouring it within the state TTL.
    ///
    /// # Errors
    /// [`KmsError::AccessKeyNotFound`], or the table failed.
    pub async fn revoke(&self, id: &AccessKeyId) -> Result<(), KmsError> {
        let not_found = || KmsError::AccessKeyNotFound(id.as_str().to_owned());
        let record = self
            .table
            .get(Kind::AccessKey, id.as_str(), Consistency::Strong)
            .await?
            .ok_or_else(not_found)?;
        let table = self.table.as_ref();
        if repository::remove(table, Kind::AccessKey, id.as_str(), record.revision).await? {
            Ok(())
        } else {
            // Access keys never change, so another revision means that it went, and another process was at work.
            Err(not_found())
        }
    }
}

const ROOT_MARKER: &str = "root-access-key";

#[derive(Serialize, Deserialize)]
struct RootMarker {
    format: u8,
    access_key_id: String,
}

impl Noun for RootMarker {
    const KIND: Kind = Kind::Config;
}

fn binding<'a>(id: &'a AccessKeyId, origin: &'a str) -> Binding<'a> {
    Binding {
        id: id.as_str(),
        version: 1,
        origin,
    }
}

const UPPERCASE: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALPHANUMERIC: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Text of `length` characters, each drawn evenly: the alphabets' sizes divide 256.
fn random_text<const N: usize>(
    random: &dyn Random,
    alphabet: &[u8; N],
    length: usize,
) -> Result<String, KmsError> {
    let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
    random.fill(&mut bytes)?;
    // Reserved whole, so that no shorter copy of a secret stays behind in freed memory.
    let mut text = String::with_capacity(length);
    text.extend(
        bytes
            .iter()
            .filter_map(|&byte| alphabet.get(usize::from(byte) % N))
            .map(|&byte| char::from(byte)),
    );
    Ok(text)
}
