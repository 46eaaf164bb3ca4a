//! Master keys: the noun, the rules of its states, and the operations on it.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp, TimestampRound, Unit};
use keyway_crypto::{Key256, mac_sha256, verify_mac_sha256};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::Zeroizing;

use crate::access::Caller;
use crate::cache::Cache;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::glob;
use crate::keyring::{Binding, KeyWrapper, Wrapped};
use crate::policy::Action;
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::service::{Service, ServiceConfig};
use crate::{revision, uuid_v4};

/// The id of a master key: 1 to 128 of `[A-Za-z0-9._-]`, not beginning with `.` or `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Parses an id that came in as `field`.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, KmsError> {
        if Self::is_fit(text) {
            return Ok(Self(text.into()));
        }
        let reason = if text.is_empty() {
            "must not be empty"
        } else {
            "must be 1 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`, and not begin with `.` or `-`"
        };
        Err(KmsError::invalid(field, reason))
    }

    fn is_fit(text: &str) -> bool {
        (1..=128).contains(&text.len())
            && !text.starts_with(['.', '-'])
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    }

    fn random(random: &dyn Random) -> Result<Self, KmsError> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self(uuid_v4(bytes).into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for KeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if Self::is_fit(&text) {
            Ok(Self(text.into()))
        } else {
            Err(de::Error::custom("not a key id"))
        }
    }
}

/// A description: at most 256 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description(String);

impl Description {
    /// Parses a description; an empty one is none.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when it is too long.
    pub fn parse(text: String) -> Result<Option<Self>, KmsError> {
        if text.chars().count() > 256 {
            return Err(KmsError::invalid(
                "description",
                "must be at most 256 characters",
            ));
        }
        Ok((!text.is_empty()).then_some(Self(text)))
    }

    /// The description as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tag that names the key at its creation, and cannot be changed after.
pub const NAME_TAG: &str = "name";
const MAX_TAGS: usize = 50;

/// Tags: at most 50, keys of 1 to 128 characters, values of at most 256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Parses tags.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when there are too many, or one is too long or has an empty key.
    pub fn parse(tags: BTreeMap<String, String>) -> Result<Self, KmsError> {
        if tags.len() > MAX_TAGS {
            return Err(KmsError::invalid(
                "tags",
                format!("must be at most {MAX_TAGS}"),
            ));
        }
        for (key, value) in &tags {
            if !(1..=128).contains(&key.chars().count()) {
                return Err(KmsError::invalid(
                    "tags",
                    "a tag's key must be 1 to 128 characters",
                ));
            }
            if value.chars().count() > 256 {
                return Err(KmsError::invalid(
                    "tags",
                    "a tag's value must be at most 256 characters",
                ));
            }
        }
        Ok(Self(tags))
    }

    /// The value of the tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All tags in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The state of a master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Serves everything.
    Enabled,
    /// Serves no cryptography; can be described, tagged, enabled, scheduled for deletion.
    Disabled,
    /// To be destroyed; can only be described, listed, or spared.
    PendingDeletion {
        /// Not before this moment.
        at: Timestamp,
        /// Whether it was enabled, and will be when the deletion is cancelled.
        was_enabled: bool,
    },
}

/// One version of a master key's material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVersion {
    /// Counts from 1.
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its 32 random bytes, wrapped.
    material: Wrapped,
}

/// Where a key's material comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Made here.
    Kms,
}

impl Origin {
    /// The name, as answers and bindings spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kms => "KMS",
        }
    }
}

/// A master key. Its newest version encrypts; all versions decrypt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKey {
    format: u8,
    /// Its id.
    pub id: KeyId,
    /// Its state.
    pub state: KeyState,
    /// What people know it by.
    pub description: Option<Description>,
    /// Its tags.
    pub tags: Tags,
    /// Where its material comes from.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// The principal that made it.
    pub created_by: String,
    /// Oldest first, never empty.
    versions: Vec<KeyVersion>,
}

/// Keeps a record below what a store takes: a version is about 400 bytes in it.
const MAX_VERSIONS: usize = 500;

impl MasterKey {
    /// The number of the version that encrypts.
    pub fn current_version(&self) -> u32 {
        self.versions.last().map_or(0, |version| version.version)
    }

    pub(crate) fn has_version(&self, version: u32) -> bool {
        self.versions.iter().any(|stored| stored.version == version)
    }

    /// When it was last rotated.
    pub fn rotated_at(&self) -> Option<Timestamp> {
        self.versions
            .last()
            .filter(|version| version.version > 1)
            .map(|version| version.created_at)
    }

    /// When it is to be destroyed.
    pub fn deletion_date(&self) -> Option<Timestamp> {
        match self.state {
            KeyState::PendingDeletion { at, .. } => Some(at),
            KeyState::Enabled | KeyState::Disabled => None,
        }
    }

    /// Whether it serves cryptography.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] unless it is enabled.
    pub fn must_be_enabled(&self) -> Result<(), KmsError> {
        if self.state == KeyState::Enabled {
            Ok(())
        } else {
            Err(self.state_error())
        }
    }

    fn must_not_be_pending(&self) -> Result<(), KmsError> {
        if self.deletion_date().is_none() {
            Ok(())
        } else {
            Err(self.state_error())
        }
    }

    fn state_error(&self) -> KmsError {
        KmsError::KeyState {
            key_id: self.id.clone(),
            state: self.state,
        }
    }

    fn binding(&self, version: u32) -> Binding<'_> {
        Binding {
            id: self.id.as_str(),
            version,
            origin: self.origin.as_str(),
        }
    }

    async fn new_version(
        &self,
        wrapper: &dyn KeyWrapper,
        random: &dyn Random,
        now: Timestamp,
    ) -> Result<KeyVersion, KmsError> {
        let version = self.current_version() + 1;
        let mut material = Zeroizing::new([0; 32]);
        random.fill(material.as_mut())?;
        let material = Wrapped::seal(wrapper, &self.binding(version), material.as_ref()).await?;
        Ok(KeyVersion {
            version,
            created_at: now,
            material,
        })
    }
}

/// Reads keys for data-key operations: their states, at most the state TTL old, and their unwrapped material.
pub struct KeyReader {
    table: Arc<dyn TableReader>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    states: Cache<KeyId, MasterKey>,
    material: Cache<(KeyId, u32), Material>,
}

struct Material {
    key: Key256,
    /// What it was unwrapped from. A name that was deleted and given again has other material at the same version.
    wrapped: Wrapped,
}

/// How long unwrapped material is served from memory.
pub const MATERIAL_TTL: Duration = Duration::from_secs(600);
/// How many versions' material is held at most.
pub const MATERIAL_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const STATE_CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl KeyReader {
    /// `state_ttl`: how long an instance may act on a state that another instance has changed since; zero reads each time.
    pub fn new(
        table: Arc<dyn TableReader>,
        wrapper: Arc<dyn KeyWrapper>,
        clock: Arc<dyn Clock>,
        state_ttl: Duration,
    ) -> Self {
        let (states, material) = (Cache::new(STATE_CAPACITY), Cache::new(MATERIAL_CAPACITY));
        Self {
            table,
            wrapper,
            clock,
            state_ttl,
            states,
            material,
        }
    }

    /// The key as it was at most the state TTL ago.
    pub(crate) async fn find(&self, id: &KeyId) -> Result<Option<Arc<MasterKey>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(key) = self.states.get(id, now, self.state_ttl) {
            return Ok(Some(key));
        }
        let ticket = self.states.begin(now);
        let Some((key, _)) = self.read(id).await? else {
            return Ok(None);
        };
        let key = Arc::new(key);
        self.states
            .insert(ticket, id.clone(), Arc::clone(&key), self.state_ttl);
        Ok(Some(key))
    }

    /// The key as it is now, for whoever met a version that the key as it was does not have:
    /// another instance may have rotated it since.
    pub(crate) async fn find_anew(&self, id: &KeyId) -> Result<Option<Arc<MasterKey>>, KmsError> {
        self.states.forget(id);
        self.find(id).await
    }

    /// The key as it is now.
    async fn read(&self, id: &KeyId) -> Result<Option<(MasterKey, Revision)>, KmsError> {
        match self
            .table
            .get(Kind::Key, id.as_str(), Consistency::Strong)
            .await?
        {
            Some(record) => Ok(Some((decode(&record, id)?, record.revision))),
            None => Ok(None),
        }
    }

    /// Runs `use_it` on the key's material of this version; `None` when it has no such version.
    pub(crate) async fn with_material<T>(
        &self,
        key: &MasterKey,
        version: u32,
        use_it: impl FnOnce(&Key256) -> T + Send,
    ) -> Result<Option<T>, KmsError> {
        let Some(stored) = key
            .versions
            .iter()
            .rev()
            .find(|stored| stored.version == version)
        else {
            return Ok(None);
        };
        let slot = (key.id.clone(), version);
        let now = self.clock.monotonic();
        if let Some(cached) = self.material.get(&slot, now, MATERIAL_TTL)
            && cached.wrapped == stored.material
        {
            return Ok(Some(use_it(&cached.key)));
        }
        let ticket = self.material.begin(now);
        let material = stored
            .material
            .open(self.wrapper.as_ref(), &key.binding(version))
            .await?;
        let unwrapped = Key256::try_from(material.expose())
            .map_err(|_| Fault::plain("a master key's material is not 32 bytes long"))?;
        let material = Arc::new(Material {
            key: unwrapped,
            wrapped: stored.material.clone(),
        });
        self.material
            .insert(ticket, slot, Arc::clone(&material), MATERIAL_TTL);
        Ok(Some(use_it(&material.key)))
    }

    fn forget(&self, id: &KeyId) {
        self.states.forget(id);
    }
}

fn decode(record: &Record, id: &KeyId) -> Result<MasterKey, KmsError> {
    let key: MasterKey = encoding::decode(&record.value)?;
    // A record in another one's place would otherwise pass for it.
    if key.id != *id || key.versions.is_empty() {
        return Err(Fault::plain("a key's record is not the key's").into());
    }
    Ok(key)
}

/// What a new key is to be.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// Its id; a random UUID when there is none.
    pub id: Option<KeyId>,
    /// What people know it by.
    pub description: Option<Description>,
    /// Its tags.
    pub tags: Tags,
}

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct KeyQuery {
    /// How many at most; clamped to 1..=1000.
    pub limit: usize,
    /// Where the page before ended: its `next_marker`.
    pub marker: Option<String>,
    /// Only ids that begin so.
    pub prefix: Option<String>,
    /// Only ids that match this pattern of `*` and `?`.
    pub pattern: Option<String>,
    /// Only keys of this status.
    pub status: Option<KeyStatus>,
}

/// A key's state without its dates, to select by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the state of its name")]
pub enum KeyStatus {
    Enabled,
    Disabled,
    PendingDeletion,
}

impl From<KeyState> for KeyStatus {
    fn from(state: KeyState) -> Self {
        match state {
            KeyState::Enabled => Self::Enabled,
            KeyState::Disabled => Self::Disabled,
            KeyState::PendingDeletion { .. } => Self::PendingDeletion,
        }
    }
}

/// A page of keys in the byte order of their ids.
#[derive(Debug, Clone)]
pub struct KeyPage {
    /// The keys.
    pub keys: Vec<MasterKey>,
    /// Asks for the next page, where there is one.
    pub next_marker: Option<String>,
}

/// Something that names a key and would break without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// It is the service's default key.
    ServiceDefaultKey,
}

/// The waiting time of a scheduled deletion: 7 to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionWindow(u8);

impl DeletionWindow {
    /// When none is given.
    pub const DEFAULT: Self = Self(7);

    /// Parses a number of days.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] outside of 7 to 30.
    pub fn days(days: i64) -> Result<Self, KmsError> {
        u8::try_from(days)
            .ok()
            .filter(|days| (7..=30).contains(days))
            .map(Self)
            .ok_or_else(|| KmsError::invalid("pending_window_in_days", "must be between 7 and 30"))
    }

    const fn duration(self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.0 as i64)
    }
}

/// The operations on master keys.
pub struct Keys {
    table: Arc<dyn TableWriter>,
    reader: Arc<KeyReader>,
    service: Arc<Service>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    immediate_deletion: bool,
}

/// How often a change is tried again when other writers were faster.
const ATTEMPTS: usize = 16;

impl Keys {
    /// `reader` is the one that this process serves data keys from, so that it obeys every change made here at once.
    /// `immediate_deletion`: whether the deployment allows keys to be destroyed without a waiting time.
    pub fn new(
        table: Arc<dyn TableWriter>,
        reader: Arc<KeyReader>,
        service: Arc<Service>,
        wrapper: Arc<dyn KeyWrapper>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        immediate_deletion: bool,
    ) -> Self {
        Self {
            table,
            reader,
            service,
            wrapper,
            clock,
            random,
            immediate_deletion,
        }
    }

    /// Makes a key. Of several at once under one id, one succeeds.
    ///
    /// # Errors
    /// [`KmsError::KeyExists`], and then the existing key is untouched.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<MasterKey, KmsError> {
        let id = match new.id {
            Some(id) => id,
            None => KeyId::random(self.random.as_ref())?,
        };
        caller.may(Action::CreateKey, &id)?;
        self.service.running().await?;
        let mut key = MasterKey {
            format: encoding::FORMAT,
            id,
            state: KeyState::Enabled,
            description: new.description,
            tags: new.tags,
            origin: Origin::Kms,
            created_at: self.now()?,
            created_by: caller.principal().to_owned(),
            versions: Vec::new(),
        };
        let first = key
            .new_version(self.wrapper.as_ref(), self.random.as_ref(), key.created_at)
            .await?;
        key.versions.push(first);
        let record = self.record(&key)?;
        let result = self.table.put_new(&record).await;
        self.reader.forget(&key.id);
        match result {
            Ok(()) => Ok(key),
            Err(StoreError::Conflict) => Err(KmsError::KeyExists(key.id)),
            Err(error) => Err(error.into()),
        }
    }

    /// The key as it is now.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`].
    pub async fn describe(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        caller.may(Action::DescribeKey, id)?;
        self.service.running().await?;
        Ok(self.existing(id).await?.0)
    }

    /// What names the key and would break without it.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn references(&self, id: &KeyId) -> Result<Vec<Reference>, KmsError> {
        let config = self.service.config().await?;
        let is_default = config.is_some_and(|config| config.default_key_id.as_ref() == Some(id));
        Ok(if is_default {
            vec![Reference::ServiceDefaultKey]
        } else {
            Vec::new()
        })
    }

    /// A page of the keys that the caller may list.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a marker that was never given out.
    pub async fn list(&self, caller: &Caller, query: &KeyQuery) -> Result<KeyPage, KmsError> {
        caller.may_ever(Action::ListKeys)?;
        let config = self.service.running().await?;
        let limit = query.limit.clamp(1, 1000);
        let mut after = query
            .marker
            .as_deref()
            .map(|marker| read_marker(&config, marker))
            .transpose()?;
        let prefix = narrower(
            query.prefix.as_deref(),
            query.pattern.as_deref().map(glob::literal_prefix),
        );
        let Some(prefix) = prefix else {
            return Ok(KeyPage {
                keys: Vec::new(),
                next_marker: None,
            });
        };
        let mut keys: Vec<MasterKey> = Vec::new();
        loop {
            // One more than is wanted tells whether the page is the last.
            let page = self
                .table
                .page(Kind::Key, prefix, after.as_deref(), (limit + 1).min(1000))
                .await?;
            for record in &page.records {
                let id = KeyId(record.id.as_str().into());
                let key = decode(record, &id)?;
                let wanted = query
                    .pattern
                    .as_deref()
                    .is_none_or(|pattern| glob::matches(pattern, &record.id))
                    && query.status.is_none_or(|status| status == key.state.into())
                    && caller.may(Action::ListKeys, &id).is_ok();
                if !wanted {
                    continue;
                }
                if keys.len() == limit {
                    let next_marker = keys
                        .last()
                        .map(|last| write_marker(&config, last.id.as_str()))
                        .transpose()?;
                    return Ok(KeyPage { keys, next_marker });
                }
                keys.push(key);
            }
            if !page.more {
                return Ok(KeyPage {
                    keys,
                    next_marker: None,
                });
            }
            after = page.records.into_iter().next_back().map(|record| record.id);
        }
    }

    /// Lets the key serve again. One that is enabled stays so.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is pending deletion.
    pub async fn enable(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::EnableKey, id, |key| {
            key.must_not_be_pending()?;
            key.state = KeyState::Enabled;
            Ok(())
        })
        .await
    }

    /// Stops the key from serving. One that is disabled stays so.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is pending deletion.
    pub async fn disable(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::DisableKey, id, |key| {
            key.must_not_be_pending()?;
            key.state = KeyState::Disabled;
            Ok(())
        })
        .await
    }

    /// Gives the key another description, or none.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is pending deletion.
    pub async fn describe_as(
        &self,
        caller: &Caller,
        id: &KeyId,
        description: Option<Description>,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::UpdateKeyDescription, id, |key| {
            key.must_not_be_pending()?;
            key.description.clone_from(&description);
            Ok(())
        })
        .await
    }

    /// Adds tags to the key, or replaces their values.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for the tag `name`, or when the key would have too many.
    pub async fn tag(
        &self,
        caller: &Caller,
        id: &KeyId,
        tags: &Tags,
    ) -> Result<MasterKey, KmsError> {
        caller.may(Action::TagResource, id)?;
        if tags.get(NAME_TAG).is_some() {
            return Err(name_tag_is_fixed("tags"));
        }
        self.change(caller, Action::TagResource, id, |key| {
            key.must_not_be_pending()?;
            let mut merged = key.tags.0.clone();
            merged.extend(tags.0.clone());
            key.tags = Tags::parse(merged)?;
            Ok(())
        })
        .await
    }

    /// Removes tags from the key; those that it does not have are ignored.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for the tag `name`.
    pub async fn untag(
        &self,
        caller: &Caller,
        id: &KeyId,
        names: &[String],
    ) -> Result<MasterKey, KmsError> {
        caller.may(Action::UntagResource, id)?;
        if names.iter().any(|name| name == NAME_TAG) {
            return Err(name_tag_is_fixed("tag_keys"));
        }
        self.change(caller, Action::UntagResource, id, |key| {
            key.must_not_be_pending()?;
            key.tags.0.retain(|key, _| !names.contains(key));
            Ok(())
        })
        .await
    }

    /// Adds a version, which encrypts from now on.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] unless the key is enabled.
    pub async fn rotate(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        caller.may(Action::RotateKey, id)?;
        self.service.running().await?;
        for _ in 0..ATTEMPTS {
            let (mut key, seen) = self.existing(id).await?;
            key.must_be_enabled()?;
            if key.versions.len() >= MAX_VERSIONS {
                return Err(KmsError::TooManyVersions(key.id));
            }
            let next = key
                .new_version(self.wrapper.as_ref(), self.random.as_ref(), self.now()?)
                .await?;
            key.versions.push(next);
            if self.replaced(&key, seen).await? {
                return Ok(key);
            }
        }
        Err(KmsError::Contended(id.clone()))
    }

    /// Schedules the key's destruction.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is scheduled already.
    pub async fn schedule_deletion(
        &self,
        caller: &Caller,
        id: &KeyId,
        window: DeletionWindow,
    ) -> Result<MasterKey, KmsError> {
        let at = self
            .now()?
            .checked_add(window.duration())
            .map_err(|error| Fault::new("a deletion date", error))?;
        self.change(caller, Action::DeleteKey, id, |key| {
            key.must_not_be_pending()?;
            key.state = KeyState::PendingDeletion {
                at,
                was_enabled: key.state == KeyState::Enabled,
            };
            Ok(())
        })
        .await
    }

    /// Spares a key whose destruction is scheduled: back to the state that it had before.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is not scheduled.
    pub async fn cancel_deletion(
        &self,
        caller: &Caller,
        id: &KeyId,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::DeleteKey, id, |key| match key.state {
            KeyState::PendingDeletion { was_enabled, .. } => {
                key.state = if was_enabled {
                    KeyState::Enabled
                } else {
                    KeyState::Disabled
                };
                Ok(())
            }
            KeyState::Enabled | KeyState::Disabled => Err(key.state_error()),
        })
        .await
    }

    /// Destroys the key at once, where the deployment allows it. What it encrypted is lost.
    ///
    /// # Errors
    /// [`KmsError::Forbidden`], [`KmsError::StillReferenced`], or [`KmsError::KeyState`] when its destruction is scheduled.
    pub async fn destroy(&self, caller: &Caller, id: &KeyId) -> Result<(), KmsError> {
        caller.may(Action::DeleteKey, id)?;
        if !self.immediate_deletion {
            return Err(KmsError::Forbidden(
                "immediate deletion is not allowed here; schedule the deletion and wait out its window",
            ));
        }
        self.service.running().await?;
        for _ in 0..ATTEMPTS {
            let (key, seen) = self.existing(id).await?;
            key.must_not_be_pending()?;
            let references = self.references(id).await?;
            if !references.is_empty() {
                return Err(KmsError::StillReferenced(key.id, references));
            }
            let result = self.table.remove(Kind::Key, id.as_str(), seen).await;
            self.reader.forget(id);
            match result {
                Ok(()) => return Ok(()),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(KmsError::Contended(id.clone()))
    }

    async fn change(
        &self,
        caller: &Caller,
        action: Action,
        id: &KeyId,
        alter: impl Fn(&mut MasterKey) -> Result<(), KmsError> + Send,
    ) -> Result<MasterKey, KmsError> {
        caller.may(action, id)?;
        self.service.running().await?;
        for _ in 0..ATTEMPTS {
            let (before, seen) = self.existing(id).await?;
            let mut key = before.clone();
            alter(&mut key)?;
            if key == before || self.replaced(&key, seen).await? {
                return Ok(key);
            }
        }
        Err(KmsError::Contended(id.clone()))
    }

    async fn existing(&self, id: &KeyId) -> Result<(MasterKey, Revision), KmsError> {
        self.reader
            .read(id)
            .await?
            .ok_or_else(|| KmsError::KeyNotFound(id.clone()))
    }

    /// Whether the key was replaced; `false` when another writer was faster.
    async fn replaced(&self, key: &MasterKey, seen: Revision) -> Result<bool, KmsError> {
        let result = self.table.replace(&self.record(key)?, seen).await;
        // Also after a failure, for the write may have taken place all the same.
        self.reader.forget(&key.id);
        match result {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn record(&self, key: &MasterKey) -> Result<Record, KmsError> {
        Ok(Record {
            kind: Kind::Key,
            id: key.id.as_str().to_owned(),
            revision: revision(self.random.as_ref())?,
            value: encoding::encode(key)?,
            expires_at: None,
        })
    }

    /// Now, to the microsecond: what is stored is what is answered.
    fn now(&self) -> Result<Timestamp, KmsError> {
        self.clock
            .now()
            .round(
                TimestampRound::new()
                    .smallest(Unit::Microsecond)
                    .mode(jiff::RoundMode::Trunc),
            )
            .map_err(|error| Fault::new("the time", error).into())
    }
}

fn name_tag_is_fixed(field: &'static str) -> KmsError {
    KmsError::invalid(
        field,
        "the tag `name` identifies the key and cannot be changed or removed",
    )
}

/// The narrower of two prefixes; `None` when no id can begin with both.
fn narrower<'a>(a: Option<&'a str>, b: Option<&'a str>) -> Option<&'a str> {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    if a.starts_with(b) {
        Some(a)
    } else if b.starts_with(a) {
        Some(b)
    } else {
        None
    }
}

const MARKER_LABEL: &[u8] = b"keyway/v1/list-marker\0";
const MARKER_TAG_BYTES: usize = 32;

/// A marker is the base64url of a MAC and of the id that the page ended with.
fn write_marker(config: &ServiceConfig, id: &str) -> Result<String, KmsError> {
    let tag = mac_sha256(&marker_key(config)?, &[MARKER_LABEL, id.as_bytes()]);
    Ok(URL_SAFE_NO_PAD.encode([&tag, id.as_bytes()].concat()))
}

fn read_marker(config: &ServiceConfig, marker: &str) -> Result<String, KmsError> {
    let unknown = || KmsError::invalid("marker", "is not one that this service gave out");
    let bytes = URL_SAFE_NO_PAD.decode(marker).map_err(|_| unknown())?;
    let (tag, id) = bytes
        .split_at_checked(MARKER_TAG_BYTES)
        .ok_or_else(unknown)?;
    let id = std::str::from_utf8(id).map_err(|_| unknown())?;
    if verify_mac_sha256(&marker_key(config)?, &[MARKER_LABEL, id.as_bytes()], tag) {
        Ok(id.to_owned())
    } else {
        Err(unknown())
    }
}

fn marker_key(config: &ServiceConfig) -> Result<Key256, KmsError> {
    Key256::try_from(config.marker_key.as_slice())
        .map_err(|_| Fault::plain("the configuration's marker key is not 32 bytes long").into())
}
