//! The operations on master keys. Each checks the permission first, then the service, then the key's state.

use std::ops::Deref;
use std::sync::Arc;

use jiff::{Timestamp, TimestampRound, Unit};
use keyway_crypto::SecretBytes;

use super::{
    DeletionWindow, Description, HMAC_KEY_BYTES, KeyDirectory, KeyId, KeyReader, KeyState,
    KeyUsage, MasterKey, NAME_TAG, NewKey, Origin, Reference, Tags, aliases, drawn,
};
use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::policy::Action;
use crate::ports::{Clock, Kind, Random, Revision, TableWriter};
use crate::repository::{self, Noun, update};
use crate::service::{BackendType, Service, ServiceConfig};
use crate::wrappers::Wrappers;

/// The operations on master keys.
pub struct Keys {
    directory: KeyDirectory,
    pub(super) table: Arc<dyn TableWriter>,
    pub(super) reader: Arc<KeyReader>,
    pub(super) service: Arc<Service>,
    pub(super) wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    immediate_deletion: bool,
}

impl Deref for Keys {
    type Target = KeyDirectory;

    fn deref(&self) -> &KeyDirectory {
        &self.directory
    }
}

impl Keys {
    /// `reader` is the one that serves this process's data keys, so that the process obeys every change made here at
    /// once. `immediate_deletion`: whether the deployment allows a key to be destroyed without a waiting time.
    pub fn new(
        table: Arc<dyn TableWriter>,
        reader: Arc<KeyReader>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        immediate_deletion: bool,
    ) -> Self {
        Self {
            directory: KeyDirectory::new(Arc::clone(&reader), Arc::clone(&service)),
            table,
            reader,
            service,
            wrappers,
            clock,
            random,
            immediate_deletion,
        }
    }

    /// Makes a key. If several callers make it at once under one id, one succeeds.
    ///
    /// # Errors
    /// [`KmsError::KeyExists`]. The existing key is not changed.
    pub async fn create(&self, caller: &Caller, new: NewKey) -> Result<MasterKey, KmsError> {
        let id = match new.id {
            Some(id) => id,
            None => {
                let mut bytes = [0; 16];
                self.random.fill(&mut bytes)?;
                KeyId::random(bytes)
            }
        };
        caller.may(Action::CreateKey, &id)?;
        let config = self.service.running().await?;
        let mut key = MasterKey {
            format: new.spec.record_format(),
            id,
            spec: new.spec,
            state: KeyState::Enabled,
            description: new.description,
            tags: new.tags,
            origin: Origin::Kms,
            created_at: self.now()?,
            created_by: caller.principal().to_owned(),
            versions: Vec::new(),
            hmac: None,
            rotation: None,
            policy: new.policy,
        };
        let random = self.random.as_ref();
        let material = drawn(random, key.spec.bytes())?;
        // The separate HMAC key is for APIs in which a key that encrypts makes MACs too.
        let hmac = match key.spec.usage() {
            KeyUsage::EncryptDecrypt => Some(drawn(random, HMAC_KEY_BYTES)?),
            KeyUsage::GenerateVerifyMac => None,
        };
        let hmac = hmac.as_ref().map(SecretBytes::expose);
        let wrapper = self.wrappers.current(&config).await?;
        key.begin(wrapper.as_ref(), material.expose(), hmac).await?;
        caller.audit().version(key.current_version());
        self.insert(&config, key).await
    }

    /// Puts a new key into the table.
    pub(super) async fn insert(
        &self,
        config: &ServiceConfig,
        key: MasterKey,
    ) -> Result<MasterKey, KmsError> {
        let record = key.record(key.id.as_str(), self.random.as_ref())?;
        // Write the copy first: then every key that the table acknowledges can be restored from Vault. A copy without a
        // record in the table is all that is left of a key, and must not be overwritten.
        if config.backend_type == BackendType::Vault {
            if self.reader.read(&key.id).await?.is_some() {
                return Err(KmsError::KeyExists(key.id));
            }
            if !self.wrappers.copy_new(config, &record).await? {
                tracing::warn!(key_id = %key.id, "a key was not made, for Vault holds a sealed copy of one with its name");
                return Err(KmsError::KeyExists(key.id));
            }
        }
        let made = repository::write(self.table.as_ref(), &record, None).await;
        self.reader.forget(&key.id);
        if made? {
            return Ok(key);
        }
        self.wrappers
            .copy_again(config, self.table.as_ref(), key.id.as_str())
            .await?;
        Err(KmsError::KeyExists(key.id))
    }

    /// What references the key and would break without it.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn references(&self, id: &KeyId) -> Result<Vec<Reference>, KmsError> {
        self.service.references(id).await
    }

    /// Enables the key. An enabled key stays enabled.
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

    /// Disables the key: it is not used. A disabled key stays disabled.
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

    /// Sets or removes the key's description.
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

    /// Sets or removes the policy that describes the key in APIs that have policies of keys. It decides nothing, so the
    /// API must refuse one that says anything else than the permissions that apply.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when it is pending deletion.
    pub async fn put_policy(
        &self,
        caller: &Caller,
        id: &KeyId,
        policy: Option<String>,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::PutKeyPolicy, id, |key| {
            key.must_not_be_pending()?;
            key.policy.clone_from(&policy);
            Ok(())
        })
        .await
    }

    /// Adds tags to the key, or replaces their values.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for the tag `name` if it is the key's id, and [`KmsError::TooManyTags`] when the key would have
    /// too many.
    pub async fn tag(
        &self,
        caller: &Caller,
        id: &KeyId,
        tags: &Tags,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::TagResource, id, |key| {
            key.must_not_be_pending()?;
            if tags
                .get(NAME_TAG)
                .is_some_and(|name| key.is_named_by_tag() && name != key.id.as_str())
            {
                return Err(name_tag_is_fixed("tags"));
            }
            let mut merged = key.tags.0.clone();
            merged.extend(tags.0.clone());
            key.tags = Tags::parse(merged)?;
            Ok(())
        })
        .await
    }

    /// Removes tags from the key. Tags that it does not have are ignored.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for the tag `name` if it is the key's id.
    pub async fn untag(
        &self,
        caller: &Caller,
        id: &KeyId,
        names: &[String],
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::UntagResource, id, |key| {
            key.must_not_be_pending()?;
            if key.is_named_by_tag() && names.iter().any(|name| name == NAME_TAG) {
                return Err(name_tag_is_fixed("tag_keys"));
            }
            key.tags.0.retain(|key, _| !names.contains(key));
            Ok(())
        })
        .await
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
                found_due: None,
            };
            Ok(())
        })
        .await
    }

    /// Cancels the key's scheduled destruction. The key returns to the state that it had before.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when no destruction is scheduled.
    pub async fn cancel_deletion(
        &self,
        caller: &Caller,
        id: &KeyId,
    ) -> Result<MasterKey, KmsError> {
        self.spare(caller, id, |was_enabled| was_enabled).await
    }

    /// As [`Keys::cancel_deletion`], but disables the key, as AWS does.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] when no destruction is scheduled.
    pub async fn cancel_deletion_and_disable(
        &self,
        caller: &Caller,
        id: &KeyId,
    ) -> Result<MasterKey, KmsError> {
        self.spare(caller, id, |_| false).await
    }

    /// `enables` decides whether the key is enabled afterwards. Its argument says whether it was enabled before.
    async fn spare(
        &self,
        caller: &Caller,
        id: &KeyId,
        enables: fn(bool) -> bool,
    ) -> Result<MasterKey, KmsError> {
        self.change(caller, Action::DeleteKey, id, |key| match key.state {
            KeyState::PendingDeletion { was_enabled, .. } => {
                key.state = if enables(was_enabled) {
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

    /// Destroys the key at once, if the deployment allows it. What it encrypted is lost. If the table fails on the way,
    /// the key may remain with its destruction scheduled for now.
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
        self.destroy_unreferenced(id).await
    }

    pub(super) async fn destroy_unreferenced(&self, id: &KeyId) -> Result<(), KmsError> {
        let config = self.service.running().await?;
        let destroyed = || self.destroyed(&config, id);
        update(|| KmsError::Contended(id.clone()), destroyed).await
    }

    /// Destroys the key as it is now; `None` when another writer was faster.
    async fn destroyed(&self, config: &ServiceConfig, id: &KeyId) -> Result<Option<()>, KmsError> {
        let table = self.table.as_ref();
        let (key, seen) = self.existing(id).await?;
        key.must_not_be_pending()?;
        let references = self.references(id).await?;
        if !references.is_empty() {
            return Err(KmsError::StillReferenced(key.id, references));
        }
        // An operation that lets a bucket use the key reads the key again afterwards. So once the key is pending,
        // either the check below sees the bucket, or the bucket's operation sees that the key is pending. If this
        // process ends in between, the key stays scheduled for now and the janitor continues.
        let mut claimed = key.clone();
        claimed.state = KeyState::PendingDeletion {
            at: self.now()?,
            was_enabled: key.state == KeyState::Enabled,
            found_due: None,
        };
        let claim = claimed.record(id.as_str(), self.random.as_ref())?;
        let result = match repository::write(table, &claim, Some(seen)).await {
            Ok(true) => {
                let references = self.references(id).await?;
                if !references.is_empty() {
                    self.replaced(config, &key, claim.revision).await?;
                    return Err(KmsError::StillReferenced(key.id, references));
                }
                // Remove the copy first: the key could be restored from a copy that outlives it.
                self.wrappers.remove_copy(Some(config), id.as_str()).await?;
                repository::remove(table, Kind::Key, id.as_str(), claim.revision).await
            }
            conflict_or_failure => conflict_or_failure,
        };
        self.reader.forget(id);
        if result? {
            aliases::remove_of(table, &key).await;
            return Ok(Some(()));
        }
        self.wrappers.copy_again(config, table, id.as_str()).await?;
        Ok(None)
    }

    pub(super) async fn change(
        &self,
        caller: &Caller,
        action: Action,
        id: &KeyId,
        alter: impl Fn(&mut MasterKey) -> Result<(), KmsError> + Send + Sync,
    ) -> Result<MasterKey, KmsError> {
        caller.may(action, id)?;
        let config = self.service.running().await?;
        let changed = || async {
            let (before, seen) = self.existing(id).await?;
            let mut key = before.clone();
            alter(&mut key)?;
            let is_done = key == before || self.replaced(&config, &key, seen).await?;
            Ok(is_done.then_some(key))
        };
        update(|| KmsError::Contended(id.clone()), changed).await
    }

    /// Whether the key was replaced; `false` when another writer was faster.
    pub(super) async fn replaced(
        &self,
        config: &ServiceConfig,
        key: &MasterKey,
        seen: Revision,
    ) -> Result<bool, KmsError> {
        let record = key.record(key.id.as_str(), self.random.as_ref())?;
        let table = self.table.as_ref();
        let replaced = self.wrappers.replace(config, table, &record, seen).await;
        // Also after a failure: the write may have taken place.
        self.reader.forget(&key.id);
        replaced
    }

    /// Now, truncated to microseconds, so that an answer has the time that is stored.
    pub(super) fn now(&self) -> Result<Timestamp, KmsError> {
        stored_time(self.clock.as_ref())
    }
}

/// Now, truncated to microseconds.
pub(crate) fn stored_time(clock: &dyn Clock) -> Result<Timestamp, KmsError> {
    clock
        .now()
        .round(
            TimestampRound::new()
                .smallest(Unit::Microsecond)
                .mode(jiff::RoundMode::Trunc),
        )
        .map_err(|error| Fault::new("the time", error).into())
}

fn name_tag_is_fixed(field: &'static str) -> KmsError {
    KmsError::invalid(
        field,
        "the tag `name` is the key's id and cannot be changed or removed",
    )
}
