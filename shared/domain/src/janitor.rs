//! Destroys keys whose deletion date has passed.

use std::sync::Arc;

use crate::audit::DeedLog;
use crate::encoding::if_readable;
use crate::error::KmsError;
use crate::keys::{KeyId, KeyState, decode};
use crate::ports::{Clock, Kind, Random, Record, StoreError, TableWriter};
use crate::revision;
use crate::service::Service;
use crate::wrappers::Wrappers;

/// What one sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys that are gone now.
    pub destroyed: Vec<KeyId>,
    /// Keys whose date has passed, but which something still names: they stay until nothing does.
    pub referenced: Vec<KeyId>,
    /// How many keys there were, before this.
    pub keys: KeyCounts,
}

/// How many keys there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// That serve.
    pub enabled: u64,
    /// That do not, until somebody enables them.
    pub disabled: u64,
    /// That will be destroyed.
    pub pending_deletion: u64,
}

impl KeyCounts {
    fn count(&mut self, state: KeyState) {
        let counted = match state {
            KeyState::Enabled => &mut self.enabled,
            KeyState::Disabled => &mut self.disabled,
            KeyState::PendingDeletion { .. } => &mut self.pending_deletion,
        };
        *counted += 1;
    }
}

impl Swept {
    /// Tells the log of each key.
    pub fn log(&self) {
        for key_id in &self.destroyed {
            tracing::info!(%key_id, "a key was destroyed, for its deletion date has passed");
        }
        for key_id in &self.referenced {
            tracing::warn!(%key_id, "a key is due to be destroyed and stays, for something still names it");
        }
    }
}

/// Destroys keys whose deletion date has passed. Any number may run over one table at once.
pub struct Janitor {
    table: Arc<dyn TableWriter>,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    log: Option<Arc<dyn DeedLog>>,
}

const PAGE: usize = 500;

/// Why a key was not destroyed.
enum Destroying {
    /// Somebody else changed it.
    Conflict,
    Failed(KmsError),
}

impl From<StoreError> for Destroying {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Conflict,
            error => Self::Failed(error.into()),
        }
    }
}

impl From<KmsError> for Destroying {
    fn from(error: KmsError) -> Self {
        Self::Failed(error)
    }
}

impl Janitor {
    /// Over the table of the service. What it destroys it never unwraps: it needs the keyring for nothing but the
    /// credential of a Vault that keeps copies. The log is told of each key, where there is one.
    pub fn new(
        table: Arc<dyn TableWriter>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        log: Option<Arc<dyn DeedLog>>,
    ) -> Self {
        Self {
            table,
            service,
            wrappers,
            clock,
            random,
            log,
        }
    }

    /// Removes the key as it was seen. It is first written again as it is, under a revision that only this janitor
    /// knows: the removal of a record that is absent succeeds, so without it two janitors could both report one key.
    async fn destroy(&self, seen: &Record) -> Result<(), Destroying> {
        let claim = Record {
            revision: revision(self.random.as_ref()).map_err(KmsError::from)?,
            ..seen.clone()
        };
        self.table.replace(&claim, seen.revision).await?;
        let config = self.service.config().await?;
        // The copy first: a copy that outlives its key would be the key.
        self.wrappers
            .remove_copy(config.as_deref(), &claim.id)
            .await?;
        let removed = self
            .table
            .remove(Kind::Key, &claim.id, claim.revision)
            .await;
        if let (Err(StoreError::Conflict), Some(config)) = (&removed, config) {
            // It was spared in the same instant.
            let table = self.table.as_ref();
            self.wrappers.copy_again(&config, table, &claim.id).await?;
        }
        Ok(removed?)
    }

    /// Looks at every key once, and destroys those that are due. A record that does not decode is left as it is.
    ///
    /// A key is removed as it was seen or not at all, so one whose deletion is cancelled in the same instant
    /// either stays whole or its cancellation finds no key.
    ///
    /// # Errors
    /// When the table fails, or the log; what was destroyed until then stays so. While the log cannot be told, nothing is.
    pub async fn sweep(&self) -> Result<Swept, KmsError> {
        let mut swept = Swept::default();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .table
                .page(Kind::Key, "", after.as_deref(), PAGE)
                .await?;
            for record in &page.records {
                let Some(key) = if_readable(record, decode(record)) else {
                    continue;
                };
                swept.keys.count(key.state);
                if key
                    .deletion_date()
                    .is_none_or(|date| date > self.clock.now())
                {
                    continue;
                }
                if !self.service.references(&key.id).await?.is_empty() {
                    swept.referenced.push(key.id);
                    continue;
                }
                if let Some(log) = &self.log {
                    log.may_proceed().await?;
                }
                let outcome = match self.destroy(record).await {
                    Ok(()) => Ok(()),
                    Err(Destroying::Failed(error)) => Err(error),
                    // Somebody changed it since the page was read, or another janitor has it; the next sweep looks again.
                    Err(Destroying::Conflict) => continue,
                };
                if let Some(log) = &self.log {
                    let error = outcome.as_ref().err().map(KmsError::class);
                    log.destroyed(&key.id, error).await?;
                }
                outcome?;
                swept.destroyed.push(key.id);
            }
            after = page.records.into_iter().next_back().map(|record| record.id);
            if !page.more {
                return Ok(swept);
            }
        }
    }
}
