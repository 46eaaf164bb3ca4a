//! Jobs of the operator: move keys to the configured backend, and restore lost key records from their sealed copies.
//! Both can be stopped at any time and run again; finished work is not repeated.

use std::sync::Arc;

use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::keyring::{KeyWrapper, Wrapped};
use crate::keys::{KeyId, MasterKey};
use crate::ports::{Consistency, Kind, Random, Record, Revision, TableWriter};
use crate::repository::{self, Noun, update};
use crate::scan::Scan;
use crate::service::{BackendType, Service, ServiceConfig};
use crate::wrappers::Wrappers;

/// The progress of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Keys or records checked so far.
    pub done: u64,
    /// Keys or records when the job began.
    pub total: u64,
}

/// The result of a job.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Keys or records that it changed.
    pub changed: u64,
    /// Those that needed no change.
    pub unchanged: u64,
    /// Those that failed, and why; for the operator.
    pub failed: Vec<(String, KmsError)>,
}

/// Moves keys between backends.
pub struct KeyMigration {
    table: Arc<dyn TableWriter>,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    random: Arc<dyn Random>,
}

/// How many records are read at a time. Few, because records that wait long may change meanwhile.
const PAGE: usize = 200;

impl KeyMigration {
    /// Uses the service's table.
    pub fn new(
        table: Arc<dyn TableWriter>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            service,
            wrappers,
            random,
        }
    }

    /// Wraps every version and the HMAC key of every key with the configured backend, and updates the key's sealed copy
    /// if that backend keeps copies. Keys can be used while they are moved.
    ///
    /// # Errors
    /// When the table or a backend is unavailable; finished work stays done. Failures of single keys are in the
    /// outcome.
    pub async fn rewrap(&self, mut tell: impl FnMut(Progress)) -> Result<Outcome, KmsError> {
        let config = self.configured().await?;
        let mut progress = Progress {
            done: 0,
            total: self.table.count(Kind::Key, "").await?,
        };
        let mut outcome = Outcome::default();
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key).by(PAGE);
        tell(progress);
        while let Some(record) = scan.record().await? {
            outcome.add(&record.id, self.rewrap_one(&config, &record).await)?;
            progress.done += 1;
            tell(progress);
        }
        Ok(outcome)
    }

    /// Whether the key had to be changed.
    async fn rewrap_one(&self, config: &ServiceConfig, seen: &Record) -> Result<bool, KmsError> {
        let wrapper = self.wrappers.current(config).await?;
        let wrapper = wrapper.as_ref();
        if let Some(is_changed) = self.rewrap_seen(config, wrapper, seen).await? {
            return Ok(is_changed);
        }
        let rewrapped = || async {
            let table = self.table.as_ref();
            match table.get(Kind::Key, &seen.id, Consistency::Strong).await? {
                Some(record) => self.rewrap_seen(config, wrapper, &record).await,
                // Destroyed meanwhile.
                None => Ok(Some(false)),
            }
        };
        let contended = || Fault::plain("others changed the key all the time; run the job again");
        update(|| contended().into(), rewrapped).await
    }

    /// Whether the key had to be changed; `None` when another writer has changed it since it was seen.
    async fn rewrap_seen(
        &self,
        config: &ServiceConfig,
        wrapper: &dyn KeyWrapper,
        seen: &Record,
    ) -> Result<Option<bool>, KmsError> {
        let table = self.table.as_ref();
        let mut key = MasterKey::of(seen)?;
        if key.is_wrapped_only_by(wrapper.name()) {
            return Ok(Some(!self.copy_is_right(config, seen).await?));
        }
        self.wrap_anew(config, &mut key, wrapper).await?;
        let value = encoding::encode(&key)?;
        let next = repository::again(seen, Some(value), self.random.as_ref())?;
        if self.wrappers.copy(config, &next).await?
            && repository::write(table, &next, Some(seen.revision)).await?
        {
            self.leave_vault(config, &next.id).await?;
            return Ok(Some(true));
        }
        self.wrappers.copy_again(config, table, &seen.id).await?;
        Ok(None)
    }

    async fn wrap_anew(
        &self,
        config: &ServiceConfig,
        key: &mut MasterKey,
        wrapper: &dyn KeyWrapper,
    ) -> Result<(), KmsError> {
        let mut opened = Vec::new();
        for version in key.versions() {
            let material = key
                .material(version)
                .ok_or(Fault::plain("a version is missing"))?;
            if material.wrapper() != wrapper.name() {
                let binding = key.binding(version);
                let material = material.open_by(&self.wrappers, config, &binding).await?;
                opened.push((version, material));
            }
        }
        let hmac = match key.hmac_key() {
            Some(hmac) if hmac.wrapper() != wrapper.name() => {
                let binding = key.hmac_binding();
                Some(hmac.open_by(&self.wrappers, config, &binding).await?)
            }
            _ => None,
        };
        // Everything is open before anything is wrapped: a Vault may be slow, and the root that wraps may be retired
        // a while after it was rotated.
        for (version, material) in opened {
            let binding = key.binding(version);
            let wrapped = Wrapped::seal(wrapper, &binding, material.expose()).await?;
            key.set_material(version, wrapped);
        }
        if let Some(hmac) = hmac {
            let binding = key.hmac_binding();
            let wrapped = Wrapped::seal(wrapper, &binding, hmac.expose()).await?;
            key.set_hmac_key(wrapped);
        }
        Ok(())
    }

    /// Writes the sealed copy if it does not match the record. Returns whether it matched.
    async fn copy_is_right(
        &self,
        config: &ServiceConfig,
        record: &Record,
    ) -> Result<bool, KmsError> {
        if self.wrappers.is_copied(config, record).await? {
            return Ok(true);
        }
        // If another writer wins, the copy matches that writer's record.
        self.wrappers.copy(config, record).await?;
        Ok(false)
    }

    /// Removes the copy from a Vault that is no longer the backend: an outdated copy could restore an old key.
    async fn leave_vault(&self, config: &ServiceConfig, id: &str) -> Result<(), KmsError> {
        match config.backend_type {
            BackendType::Local => self.wrappers.remove_copy(Some(config), id).await,
            BackendType::Vault => Ok(()),
        }
    }

    /// Makes the record of every key that has a sealed copy in Vault and no record in the table. Existing records are
    /// not changed.
    ///
    /// # Errors
    /// [`KmsError::Conflict`] when no Vault is configured, otherwise as [`KeyMigration::rewrap`].
    pub async fn restore(&self, mut tell: impl FnMut(Progress)) -> Result<Outcome, KmsError> {
        let config = self.configured().await?;
        let Some(vault) = self.wrappers.vault(&config).await? else {
            return Err(KmsError::Conflict(
                "no Vault is configured that could hold copies of keys; configure it first",
            ));
        };
        let failed = |error| crate::keyring::kms_error("the sealed copies of keys", error);
        let ids = vault.copies().await.map_err(failed)?;
        let mut progress = Progress {
            done: 0,
            total: ids.len() as u64,
        };
        let mut outcome = Outcome::default();
        for id in ids {
            tell(progress);
            let restored = match vault.copy(&id).await.map_err(failed)? {
                Some(copy) => self.restore_one(&id, copy.value).await,
                None => Ok(false),
            };
            outcome.add(&id, restored)?;
            progress.done += 1;
        }
        tell(progress);
        Ok(outcome)
    }

    async fn restore_one(&self, id: &str, value: Vec<u8>) -> Result<bool, KmsError> {
        let record = Record {
            kind: Kind::Key,
            id: KeyId::parse("key_id", id)?.as_str().to_owned(),
            revision: Revision::random(self.random.as_ref())?,
            value,
            expires_at: None,
        };
        // Vault's content is not trusted to be a key's record.
        MasterKey::of(&record)?;
        Ok(repository::write(self.table.as_ref(), &record, None).await?)
    }

    async fn configured(&self) -> Result<Arc<ServiceConfig>, KmsError> {
        self.service.config().await?.ok_or(KmsError::NotConfigured)
    }
}

impl Outcome {
    /// Counts one record. A failure that affects all keys ends the job.
    pub(crate) fn add(&mut self, id: &str, done: Result<bool, KmsError>) -> Result<(), KmsError> {
        match done {
            Ok(true) => self.changed += 1,
            Ok(false) => self.unchanged += 1,
            Err(error @ (KmsError::Unavailable(_) | KmsError::Throttled)) => return Err(error),
            Err(error) => self.failed.push((id.to_owned(), error)),
        }
        Ok(())
    }
}
