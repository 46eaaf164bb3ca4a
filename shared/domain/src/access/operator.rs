//! Makes, lists and revokes access keys: the operator's side. [`super::rotation`] rotates them.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use keyway_crypto::SecretBytes;
use serde::{Deserialize, Serialize};

use super::sessions::StoredSession;
use super::uses::{self, RecordedUses};
use super::{
    AccessKeyId, AccessKeyName, Envelope, Grant, SECRET_ORIGIN, Session, StoredAccessKey,
    TOKEN_ORIGIN, binding,
};
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::keyring::{KeyWrapper, Wrapped};
use crate::policy::Policy;
use crate::ports::{Clock, Consistency, Kind, Random, Record, TableReader, TableWriter};
use crate::repository::{self, Noun, if_readable};
use crate::scan::Scan;

pub(super) const LONGEST_LIFE: Duration = Duration::from_secs(366 * 24 * 3600);

/// How long the table keeps an expired access key, so that its holder learns that it has expired.
pub(super) const KEPT_AFTER_EXPIRY: SignedDuration = SignedDuration::from_hours(24);

/// A new access key for its holder: shown once, never again.
pub struct NewAccessKey {
    /// The access key's id.
    pub id: AccessKeyId,
    /// The secret that signs requests.
    pub secret: SecretBytes,
    /// The token that every request must carry, if the key expires.
    pub session_token: Option<SecretBytes>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

/// A requested access key.
pub struct WantedAccessKey {
    /// What it may do.
    pub policy: Policy,
    /// How long it works; for ever if there is none. A key that expires gets a session token.
    pub life: Option<Duration>,
    /// Takes precedence over the deployment's setting.
    pub envelope: Option<Envelope>,
    /// Who uses it.
    pub name: Option<AccessKeyName>,
}

impl WantedAccessKey {
    /// An access key with this policy, which does not expire.
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            life: None,
            envelope: None,
            name: None,
        }
    }
}

/// The parts of a new record that do not follow from its id.
pub(super) struct Parts {
    pub(super) grant: Grant,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) session: Option<StoredSession>,
    pub(super) envelope: Option<Envelope>,
    pub(super) name: Option<AccessKeyName>,
}

impl Parts {
    pub(super) const fn of(grant: Grant) -> Self {
        Self {
            grant,
            expires_at: None,
            session: None,
            envelope: None,
            name: None,
        }
    }
}

/// Every access key, and what is known of their use.
#[derive(Debug, Clone)]
pub struct ListedAccessKeys {
    /// In the order of ids.
    pub keys: Vec<AccessKeySummary>,
    /// Since when a process records uses. Functions record none; `None` if no process ever did.
    pub uses_since: Option<Timestamp>,
}

/// What a listing shows of an access key.
#[derive(Debug, Clone)]
pub struct AccessKeySummary {
    pub id: AccessKeyId,
    /// Its name.
    pub name: Option<AccessKeyName>,
    /// Its policy. `None` allows everything, or for a session everything that its parent access key may do.
    pub policy: Option<Policy>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, as far as that is recorded: see [`super::USE_PRECISION`].
    pub last_used_at: Option<Timestamp>,
    /// The access key that took its place in a rotation.
    pub replaced_by: Option<AccessKeyId>,
    /// Its session, if any. It may do at most what its parent access key may, and ends with that key.
    pub session: Option<Session>,
    /// Why its policy is ignored and allows nothing: see [`Policy::fault`].
    pub fault: Option<String>,
    /// How its holder gets the ciphertexts of data keys, if the deployment's setting does not decide.
    pub envelope: Option<Envelope>,
}

impl AccessKeySummary {
    fn read(record: &Record) -> Result<Self, KmsError> {
        let stored = StoredAccessKey::of(record)?;
        let session = stored.session.as_ref().map(StoredSession::session);
        let permitted = match (stored.session, stored.grant) {
            (Some(session), _) => session.policy,
            (None, Grant::Policy(policy)) => Some(policy),
            // No access key is stored with one of the last three.
            (None, Grant::Owner | Grant::Limited(..) | Grant::Paths(_) | Grant::Call(_)) => None,
        };
        Ok(Self {
            id: AccessKeyId::parse(&record.id)?,
            session,
            fault: permitted.as_ref().and_then(Policy::fault),
            policy: permitted,
            created_at: stored.created_at,
            expires_at: stored.expires_at,
            envelope: stored.envelope,
            name: stored.name,
            last_used_at: None,
            replaced_by: stored.replaced_by.as_deref().map(AccessKeyId::kept),
        })
    }
}

/// Makes, lists and revokes access keys.
pub struct AccessKeys {
    pub(super) table: Arc<dyn TableWriter>,
    pub(super) wrapper: Arc<dyn KeyWrapper>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
}

impl AccessKeys {
    /// Uses this table and wrapper.
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

    /// Makes an access key with this policy. A key that expires gets a session token.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a lifetime of zero or over 366 days; otherwise when a port fails.
    pub async fn create(
        &self,
        policy: Policy,
        life: Option<Duration>,
    ) -> Result<NewAccessKey, KmsError> {
        let wanted = WantedAccessKey::new(policy);
        self.create_with(WantedAccessKey { life, ..wanted }).await
    }

    /// Makes this access key.
    ///
    /// # Errors
    /// As [`AccessKeys::create`].
    pub async fn create_with(&self, wanted: WantedAccessKey) -> Result<NewAccessKey, KmsError> {
        let WantedAccessKey {
            policy,
            life,
            envelope,
            name,
        } = wanted;
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
        let parts = Parts {
            expires_at,
            envelope,
            name,
            ..Parts::of(Grant::Policy(policy))
        };
        self.make(id, parts).await
    }

    pub(super) fn new_id(&self) -> Result<AccessKeyId, KmsError> {
        let random = random_text(self.random.as_ref(), UPPERCASE, 18)?;
        Ok(AccessKeyId::kept(&format!("KW{random}")))
    }

    /// Now plus this lifetime.
    pub(super) fn after(&self, life: Duration) -> Result<Timestamp, KmsError> {
        SignedDuration::try_from(life)
            .and_then(|life| self.clock.now().checked_add(life))
            .map_err(|error| KmsError::Backend(Fault::new("an expiry date", error)))
    }

    /// Makes the root access key if the table has none yet; `None` when it has one.
    ///
    /// # Errors
    /// When a port fails.
    pub async fn create_root_if_new(&self) -> Result<Option<NewAccessKey>, KmsError> {
        // One marker record decides a race of two first starts. The key itself has a random id like any other.
        if self
            .table
            .get(Kind::Config, ROOT_MARKER, Consistency::Strong)
            .await?
            .is_some()
        {
            return Ok(None);
        }
        let id = self.new_id()?;
        let key = self.make(id.clone(), Parts::of(Grant::Owner)).await?;
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

    pub(super) async fn make(
        &self,
        id: AccessKeyId,
        parts: Parts,
    ) -> Result<NewAccessKey, KmsError> {
        let Parts {
            grant,
            expires_at,
            session,
            envelope,
            name,
        } = parts;
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
            envelope,
            name,
            replaced_by: None,
        };
        let kept_until = expires_at.map(|expiry| expiry.checked_add(KEPT_AFTER_EXPIRY));
        let record = Record {
            expires_at: (kept_until.transpose())
                .map_err(|error| Fault::new("an expiry date", error))?,
            ..stored.record(id.as_str(), random)?
        };
        // A conflict would mean that 93 random bits came twice. It is unforeseen, so it is reported as a failure.
        self.table.put_new(&record).await?;
        Ok(NewAccessKey {
            id,
            secret,
            session_token,
            expires_at,
        })
    }

    /// Every unexpired access key, in the order of ids. A key whose record does not decode is left out.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn list(&self) -> Result<Vec<AccessKeySummary>, KmsError> {
        let now = self.clock.now();
        let mut keys = self.list_even_expired().await?.keys;
        keys.retain(|key| key.expires_at.is_none_or(|expiry| expiry > now));
        Ok(keys)
    }

    /// As [`AccessKeys::list`], with the keys that have expired and are still in the table.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn list_even_expired(&self) -> Result<ListedAccessKeys, KmsError> {
        list_access_keys(self.table.as_ref()).await
    }

    /// Revokes an access key. Every instance refuses it within the state TTL.
    ///
    /// # Errors
    /// [`KmsError::AccessKeyNotFound`], or the table failed.
    pub async fn revoke(&self, id: &AccessKeyId) -> Result<(), KmsError> {
        let contended = || KmsError::Conflict("other processes change this access key; try again");
        // Only a rotation changes an access key.
        repository::update(contended, || self.try_revoke(id)).await?;
        if let Err(error) = uses::forget(self.table.as_ref(), id).await {
            tracing::warn!(
                access_key = id.as_str(),
                error = error.for_operator(),
                "the date of the last use of a revoked access key stays in the table until it expires"
            );
        }
        Ok(())
    }

    /// `None`: the record changed meanwhile.
    async fn try_revoke(&self, id: &AccessKeyId) -> Result<Option<()>, KmsError> {
        let table = self.table.as_ref();
        let record = table
            .get(Kind::AccessKey, id.as_str(), Consistency::Strong)
            .await?
            .ok_or_else(|| KmsError::AccessKeyNotFound(id.as_str().to_owned()))?;
        let removed =
            repository::remove(table, Kind::AccessKey, id.as_str(), record.revision).await?;
        Ok(removed.then_some(()))
    }
}

/// Every access key of the table, also those that have expired and are still there, in the order of ids. A key whose
/// record does not decode is left out.
///
/// # Errors
/// When the table fails.
pub async fn list_access_keys(table: &dyn TableReader) -> Result<ListedAccessKeys, KmsError> {
    let uses = RecordedUses::read(table).await?;
    let mut keys = Vec::new();
    let mut scan = Scan::all(table, Kind::AccessKey);
    while let Some(record) = scan.record().await? {
        keys.extend(if_readable(&record, AccessKeySummary::read(&record)));
    }
    for key in &mut keys {
        key.last_used_at = uses.of(&key.id);
    }
    Ok(ListedAccessKeys {
        keys,
        uses_since: uses.since,
    })
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

const UPPERCASE: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const ALPHANUMERIC: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Random text of `length` characters. Each is uniform, because the alphabets' sizes divide 256.
fn random_text<const N: usize>(
    random: &dyn Random,
    alphabet: &[u8; N],
    length: usize,
) -> Result<String, KmsError> {
    let mut bytes = zeroize::Zeroizing::new(vec![0; length]);
    random.fill(&mut bytes)?;
    // Reserve the whole length, so that no shorter copy of a secret stays in freed memory.
    let mut text = String::with_capacity(length);
    text.extend(
        bytes
            .iter()
            .filter_map(|&byte| alphabet.get(usize::from(byte) % N))
            .map(|&byte| char::from(byte)),
    );
    Ok(text)
}
