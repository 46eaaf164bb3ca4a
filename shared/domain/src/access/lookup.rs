//! Finds the access key that signed a request, cached for the state TTL; and the root access key.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use keyway_crypto::SecretBytes;
use serde::Deserialize;

use super::sessions::HeldSession;
use super::uses::{NotedUses, UseMark, UseRecorder};
use super::{
    AccessKeyId, AccountId, Caller, Grant, SECRET_ORIGIN, StoredAccessKey, TOKEN_ORIGIN, binding,
};
use crate::cache::Cache;
use crate::error::{Fault, KmsError};
use crate::keyring::KeyWrapper;
use crate::policy::Policy;
use crate::ports::{Clock, Kind, Random, SecretStore, TableChange, TableReader, TableWriter};
use crate::repository::load;

const CACHED_CREDENTIALS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// The credential that a request's signature is checked against.
pub struct Credential {
    /// The secret that signs.
    pub secret: Arc<SecretBytes>,
    /// If there is one, requests must present it; if not, they must not present any.
    pub session_token: Option<Arc<SecretBytes>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The caller that it authenticates.
    pub caller: Caller,
    /// The session that it belongs to. The caller's permissions are then computed for each request.
    pub(super) session: Option<HeldSession>,
    /// The access key of the table whose use a request with this credential is.
    pub(super) mark: Option<Arc<UseMark>>,
}

/// The name of the root access key in the secret store.
pub const ROOT_ACCESS_KEY_SECRET: &str = "root-access-key";
/// How long the root access key of the secret store is cached.
pub const ROOT_ACCESS_KEY_TTL: Duration = Duration::from_secs(300);
/// How long after a failure the root access key is not read again.
const ROOT_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The source of the root access key.
pub enum RootAccessKey {
    /// The table. The key is made on the first start.
    InTable,
    /// The deployment's settings. A root access key in the table is then ignored.
    Given(AccessKeyId, SecretBytes),
    /// The secret store, under [`ROOT_ACCESS_KEY_SECRET`]: a JSON object with `access_key_id` and `secret_access_key`.
    /// A root access key in the table is then ignored.
    InSecretStore(Arc<dyn SecretStore>),
}

/// The root access key in the secret store.
#[derive(Deserialize)]
struct KeptRootAccessKey {
    access_key_id: String,
    secret_access_key: zeroize::Zeroizing<String>,
}

/// The root access key that is valid at present.
struct Root {
    id: AccessKeyId,
    credential: Arc<Credential>,
}

impl Root {
    fn new(id: AccessKeyId, secret: SecretBytes) -> Self {
        let caller = Caller::new(id.shared(), Arc::new(Grant::Owner));
        Self {
            id,
            credential: Arc::new(Credential {
                secret: Arc::new(secret),
                session_token: None,
                expires_at: None,
                caller,
                session: None,
                mark: None,
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

/// The allowed lengths of a root access key's secret that Keyway did not make, in bytes.
pub const ROOT_SECRET_LENGTHS: std::ops::RangeInclusive<usize> = 8..=256;

/// Finds the credential that a request claims to be signed with.
pub struct Credentials {
    table: Arc<dyn TableReader>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    root: RootSource,
    cache: Cache<AccessKeyId, Credential>,
    /// The account and the region of this deployment, which resources of policies can name.
    place: Option<(AccountId, Option<String>)>,
    /// Access keys whose bad policies were logged, so that each is logged once.
    told: Mutex<HashSet<AccessKeyId>>,
    /// The uses of access keys, if this process records them.
    uses: OnceLock<Arc<NotedUses>>,
}

enum RootSource {
    InTable,
    Given(Root),
    InSecretStore {
        secrets: Arc<dyn SecretStore>,
        known: Mutex<KnownRoot>,
    },
}

/// The root access key with the time at which its read began, and the time of the last failure.
#[derive(Default)]
struct KnownRoot {
    root: Option<(Duration, Arc<Root>)>,
    failed_at: Option<Duration>,
}

impl Credentials {
    /// `state_ttl`: how long a key that another instance revoked may still be accepted.
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
            place: None,
            told: Mutex::default(),
            uses: OnceLock::new(),
        }
    }

    /// Says which account this deployment is, and which region if its keys are in one region only. Policies then apply to
    /// resources of this account and region; otherwise to those of all.
    #[must_use]
    pub fn at(self, account: AccountId, region: Option<String>) -> Self {
        Self {
            place: Some((account, region)),
            ..self
        }
    }

    /// Drops the cached access key that another process may have changed.
    pub fn obey_change(&self, change: &TableChange) {
        match change {
            TableChange::Record(Kind::AccessKey, id) => {
                if let Ok(id) = AccessKeyId::parse(id) {
                    self.cache.forget(&id);
                }
            }
            TableChange::Record(..) => {}
            TableChange::Any => self.cache.clear(),
        }
    }

    /// Reads the root access key before the first request needs it. Logs a failure, which the request will meet again.
    pub async fn warm(&self) {
        if let Err(KmsError::Unavailable(fault)) = self.root(None).await {
            tracing::error!("{fault:?}");
        }
    }

    /// The unexpired credential of this id, if there is one. A session's credential exists as long as its parent access
    /// key's, and its permissions follow from the parent's present ones.
    ///
    /// # Errors
    /// When the table or the wrapper fails.
    pub async fn find(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        let found = self.find_even_expired(id).await?;
        Ok(found.filter(|credential| !self.is_expired(credential)))
    }

    /// As [`Self::find`], but also returns a credential that has expired. The table holds it for a while longer, so that
    /// who proves to have its secret learns what is wrong.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub async fn find_even_expired(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        let Some(credential) = self.known(id).await? else {
            return Ok(None);
        };
        let Some(session) = &credential.session else {
            return Ok(Some(credential));
        };
        if self.is_expired(&credential) {
            return Ok(Some(credential));
        }
        let parent = self.known(session.parent()).await?;
        Ok(parent
            .filter(|parent| !self.is_expired(parent))
            .and_then(|parent| session.under(&credential, &parent))
            .map(Arc::new))
    }

    /// From now on, [`Credentials::used`] notes uses, and the returned recorder writes them to this table.
    pub fn record_uses(&self, table: Arc<dyn TableWriter>, random: Arc<dyn Random>) -> UseRecorder {
        let noted = Arc::clone(self.uses.get_or_init(Arc::default));
        UseRecorder::new(table, random, Arc::clone(&self.clock), noted)
    }

    /// Notes that a request proved to have this credential. A session's request uses the access key that began it.
    pub fn used(&self, credential: &Credential) {
        if let (Some(uses), Some(mark)) = (self.uses.get(), &credential.mark) {
            uses.note(mark, self.clock.as_ref());
        }
    }

    /// Whether the credential has expired.
    pub fn is_expired(&self, credential: &Credential) -> bool {
        (credential.expires_at).is_some_and(|expiry| expiry <= self.clock.now())
    }

    async fn known(&self, id: &str) -> Result<Option<Arc<Credential>>, KmsError> {
        // Compare a known root access key first, so that its requests never wait for the table. Compare an unknown one
        // last, so that other requests do not wait for the secret store.
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

    /// The id of the root access key, if it is known without a read.
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
        let caller = Caller::new(id.shared(), Arc::new(grant)).with_envelope(stored.envelope);
        let credential = Arc::new(Credential {
            secret: Arc::new(secret),
            session_token: session_token.map(Arc::new),
            expires_at: stored.expires_at,
            caller,
            // A session is its access key's: see `HeldSession::under`.
            mark: session.is_none().then(|| UseMark::new(id)),
            session,
        });
        self.cache
            .insert(ticket, id.clone(), Arc::clone(&credential), self.state_ttl);
        Ok(Some(credential))
    }

    /// The policy in effect. A policy with a `Deny` that does not deny what it names, as older releases accepted,
    /// allows nothing: its author meant to allow less than it does.
    fn obeyed(&self, id: &AccessKeyId, policy: Policy) -> Policy {
        let here = match (policy.fault(), &self.place) {
            (Some(fault), _) => Err(fault),
            (None, Some((account, region))) => policy.here(account.as_str(), region.as_deref()),
            (None, None) => Ok(policy),
        };
        let fault = match here {
            Ok(policy) => return policy,
            Err(fault) => fault,
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
