//! Destroys keys whose deletion date has passed.
//!
//! **Invariant:** no single reading of the clock destroys a key. A clock that is ahead when a machine starts, and is
//! set a moment later, would destroy keys too early. So two sweeps, an hour apart, must find a key due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::audit::BackgroundAudit;
use crate::encoding;
use crate::error::KmsError;
use crate::keys::{KeyId, KeyState, MasterKey, aliases};
use crate::ports::{Clock, Consistency, Kind, Random, Record, StoreError, TableWriter};
use crate::repository::{self, Noun};
use crate::scan::Scan;
use crate::service::Service;
use crate::wrappers::Wrappers;

/// The result of one sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// The keys that it destroyed.
    pub destroyed: Vec<KeyId>,
    /// Due keys that something still references. They stay until nothing does.
    pub referenced: Vec<KeyId>,
    /// Due keys that a later sweep must confirm.
    pub awaiting: Vec<KeyId>,
    /// A key with a date in the future: the clock was ahead when the date was written, or is behind now. Nothing is
    /// destroyed then.
    pub doubted: Option<(KeyId, Timestamp)>,
    /// How many keys there were before the sweep.
    pub keys: KeyCounts,
    /// How many aliases, and lists of aliases, it removed whose keys did not exist any more.
    pub aliases: u64,
}

/// How many keys there are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyCounts {
    /// Keys that are enabled.
    pub enabled: u64,
    /// Keys that are disabled.
    pub disabled: u64,
    /// Keys whose destruction is scheduled.
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
    /// Logs each key.
    pub fn log(&self) {
        for key_id in &self.destroyed {
            tracing::info!(%key_id, "a key was destroyed, for its deletion date has passed");
        }
        for key_id in &self.referenced {
            tracing::warn!(%key_id, "a key is due to be destroyed and stays, for something still names it");
        }
        for key_id in &self.awaiting {
            tracing::info!(%key_id, "a key is due to be destroyed, and will be when a sweep an hour later finds so too");
        }
        if self.aliases > 0 {
            tracing::info!(
                removed = self.aliases,
                "aliases of keys that were destroyed were removed"
            );
        }
        if let Some((key_id, date)) = &self.doubted {
            tracing::warn!(
                %key_id, %date,
                "a key has a date that is still to come, so this clock or an earlier one is wrong: keys that are due stay"
            );
        }
    }
}

/// How a janitor knows that an earlier sweep found a key due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirming {
    /// It remembers, by the monotonic clock. For a long-running janitor.
    ByMemory,
    /// The key's record says when an earlier sweep found it due. For a janitor that may run a single sweep.
    ByRecord,
}

/// What a janitor remembers of earlier sweeps.
#[derive(Default)]
struct Remembered {
    /// The time of the last sweep.
    last: Option<(Timestamp, Duration)>,
    /// The due keys: their date, and since when they have been found due, by the monotonic clock.
    due: BTreeMap<KeyId, (Timestamp, Duration)>,
}

/// The time between two sweeps that confirm a due key.
const CONFIRMED_AFTER: Duration = Duration::from_secs(3600);
/// Scheduled sweeps vary: the second may come a little earlier within its hour.
const CONFIRMED_AFTER_BY_RECORD: SignedDuration = SignedDuration::from_mins(55);
/// A clock that drifts this far from the monotonic clock was set.
const CLOCK_WAS_SET: SignedDuration = SignedDuration::from_mins(5);
/// How far the clocks of processes over one table may differ.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// Destroys keys whose deletion date has passed. Several may run over one table at once.
pub struct Janitor {
    table: Arc<dyn TableWriter>,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    log: Option<Arc<dyn BackgroundAudit>>,
    confirming: Confirming,
    remembered: Mutex<Remembered>,
}

impl Janitor {
    /// The janitor never unwraps the keys that it destroys. It needs the keyring only for the credential of a Vault
    /// that keeps copies. `log`, if there is one, records each destroyed key.
    pub fn new(
        table: Arc<dyn TableWriter>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        log: Option<Arc<dyn BackgroundAudit>>,
    ) -> Self {
        Self {
            table,
            service,
            wrappers,
            clock,
            random,
            log,
            confirming: Confirming::ByMemory,
            remembered: Mutex::default(),
        }
    }

    /// For a janitor that runs a single sweep: the key's record keeps when the key was found due. A later sweep of any
    /// janitor confirms it.
    #[must_use]
    pub fn remembering_in_table(mut self) -> Self {
        self.confirming = Confirming::ByRecord;
        self
    }

    /// Removes the key as it was seen. First writes it again unchanged, under a revision that only this janitor knows:
    /// removing an absent record succeeds, so otherwise two janitors could both report one key. `false`: another writer
    /// changed it.
    async fn destroy(&self, seen: &Record) -> Result<bool, KmsError> {
        let table = self.table.as_ref();
        let claim = repository::again(seen, None, self.random.as_ref())?;
        if !repository::write(table, &claim, Some(seen.revision)).await? {
            return Ok(false);
        }
        let config = self.service.config().await?;
        // Remove the copy first: the key could be restored from a copy that outlives it.
        self.wrappers
            .remove_copy(config.as_deref(), &claim.id)
            .await?;
        let is_removed = repository::remove(table, Kind::Key, &claim.id, claim.revision).await?;
        if !is_removed && let Some(config) = config {
            // Its destruction was cancelled in the same moment.
            self.wrappers.copy_again(&config, table, &claim.id).await?;
        }
        Ok(is_removed)
    }

    /// Reads every key once, and destroys those that are due and were due an hour ago. A record that does not decode
    /// stays as it is.
    ///
    /// A key is removed as it was seen, or not at all. So if its deletion is cancelled in the same moment, either the
    /// key stays complete or the cancellation finds no key.
    ///
    /// # Errors
    /// When the table or the log fails. Keys destroyed until then stay destroyed. Without the log, no key is destroyed.
    pub async fn sweep(&self) -> Result<Swept, KmsError> {
        let now = self.clock.now();
        let mut swept = Swept::default();
        let (due, known) = self.look(now, &mut swept).await?;
        swept.aliases = aliases::sweep(self.table.as_ref(), &known).await?;
        if swept.doubted.is_some() {
            self.forget();
            return Ok(swept);
        }
        let remembered = self.remember(now, &due);
        for id in due.into_keys() {
            let Some((record, key)) = self.still_due(&id, now).await? else {
                continue;
            };
            if !self.service.references(&id).await?.is_empty() {
                swept.referenced.push(id);
                continue;
            }
            let is_confirmed = match self.confirming {
                Confirming::ByMemory => remembered.contains(&id),
                Confirming::ByRecord => is_confirmed_by_record(&key, now),
            };
            if !is_confirmed {
                if self.confirming == Confirming::ByRecord && !is_found_due(&key, now) {
                    self.mark(&record, key, Some(now)).await?;
                }
                swept.awaiting.push(id);
                continue;
            }
            if let Some(log) = &self.log {
                log.may_proceed().await?;
            }
            let outcome = match self.destroy(&record).await {
                Ok(true) => {
                    aliases::remove_of(self.table.as_ref(), &key).await;
                    Ok(())
                }
                // Another writer changed it, or another janitor has it. The next sweep looks again.
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            if let Some(log) = &self.log {
                let error = outcome.as_ref().err().map(KmsError::class);
                log.destroyed(&id, error).await?;
            }
            outcome?;
            swept.destroyed.push(id);
        }
        Ok(swept)
    }

    /// Reads every key once, counts them, and returns those whose date has passed, and when each key was created.
    async fn look(
        &self,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(BTreeMap<KeyId, Timestamp>, BTreeMap<KeyId, Timestamp>), KmsError> {
        let (mut due, mut known) = (BTreeMap::new(), BTreeMap::new());
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key);
        while let Some(record) = scan.record().await? {
            let Some(key) = MasterKey::readable(&record) else {
                continue;
            };
            swept.keys.count(key.state);
            known.insert(key.id.clone(), key.created_at);
            let touched = key.touched_at();
            if touched.duration_since(now) > CLOCKS_DIFFER
                && swept
                    .doubted
                    .as_ref()
                    .is_none_or(|(_, date)| *date < touched)
            {
                swept.doubted = Some((key.id.clone(), touched));
            }
            match key.deletion_date() {
                Some(date) if date <= now => drop(due.insert(key.id, date)),
                // The clock that found it due was ahead.
                Some(_) if found_due(&key).is_some() => self.mark(&record, key, None).await?,
                _ => {}
            }
        }
        Ok((due, known))
    }

    /// Remembers the due keys, and returns those that have been due for long enough. Starts again if the clock was set.
    fn remember(&self, now: Timestamp, due: &BTreeMap<KeyId, Timestamp>) -> BTreeSet<KeyId> {
        let at = self.clock.monotonic();
        let mut remembered = self.remembered();
        if let Some((last, last_at)) = remembered.last {
            let passed = SignedDuration::try_from(at.saturating_sub(last_at));
            let off = now.duration_since(last) - passed.unwrap_or(SignedDuration::ZERO);
            if off.abs() > CLOCK_WAS_SET {
                remembered.due.clear();
            }
        }
        remembered.last = Some((now, at));
        remembered
            .due
            .retain(|id, (date, _)| due.get(id) == Some(date));
        for (id, date) in due {
            remembered.due.entry(id.clone()).or_insert((*date, at));
        }
        let is_confirmed = |since: Duration| at.saturating_sub(since) >= CONFIRMED_AFTER;
        (remembered.due.iter())
            .filter(|(_, (_, since))| is_confirmed(*since))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn forget(&self) {
        *self.remembered() = Remembered::default();
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the key again, and returns it if it is still due.
    async fn still_due(
        &self,
        id: &KeyId,
        now: Timestamp,
    ) -> Result<Option<(Record, MasterKey)>, KmsError> {
        let record = self
            .table
            .get(Kind::Key, id.as_str(), Consistency::Strong)
            .await;
        let record = match record {
            Ok(Some(record)) => record,
            Ok(None) | Err(StoreError::Refused { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(key) = MasterKey::readable(&record) else {
            return Ok(None);
        };
        let is_due = key.deletion_date().is_some_and(|date| date <= now);
        Ok(is_due.then_some((record, key)))
    }

    /// Writes into the key's record when it was found due, or that it was not. Gives way to another writer.
    async fn mark(
        &self,
        seen: &Record,
        mut key: MasterKey,
        when: Option<Timestamp>,
    ) -> Result<(), KmsError> {
        if let KeyState::PendingDeletion { found_due, .. } = &mut key.state {
            *found_due = when;
        }
        let value = encoding::encode(&key)?;
        let marked = repository::again(seen, Some(value), self.random.as_ref())?;
        repository::write(self.table.as_ref(), &marked, Some(seen.revision)).await?;
        Ok(())
    }
}

fn found_due(key: &MasterKey) -> Option<Timestamp> {
    match key.state {
        KeyState::PendingDeletion { found_due, .. } => found_due,
        KeyState::Enabled | KeyState::Disabled => None,
    }
}

/// Whether an earlier sweep found it due. A time in the future comes from a clock that was ahead.
fn is_found_due(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| found <= now)
}

fn is_confirmed_by_record(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| now.duration_since(found) >= CONFIRMED_AFTER_BY_RECORD)
}
