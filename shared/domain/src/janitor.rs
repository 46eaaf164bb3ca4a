//! Destroys keys whose deletion date has passed, and rotates keys whose schedule says so.
//!
//! **Invariant:** no single reading of the clock destroys or rotates a key. A clock that is ahead when a machine starts,
//! and is set a moment later, would destroy keys too early, and leave them with a rotation schedule that begins in the
//! future. So two sweeps, an hour apart, must find a key due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::audit::BackgroundAudit;
use crate::encoding;
use crate::error::KmsError;
use crate::keys::{KeyId, KeyState, MasterKey, aliases, stored_time};
use crate::ports::{Clock, Consistency, Kind, Random, Record, StoreError, TableWriter};
use crate::repository::{self, Noun};
use crate::scan::Scan;
use crate::service::{Service, ServiceConfig};
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
    /// The keys that it rotated.
    pub rotated: Vec<KeyId>,
    /// Keys that are due to be rotated and have the most versions that a key can have.
    pub full: Vec<KeyId>,
    /// A key with a date in the future: the clock was ahead when the date was written, or is behind now. Nothing is
    /// destroyed or rotated then.
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
        for key_id in &self.rotated {
            tracing::info!(%key_id, "a key was rotated by its schedule");
        }
        for key_id in &self.full {
            tracing::error!(%key_id, "a key is due to be rotated and has as many versions as a key can have; replace it by a new key");
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
                "a key has a date that is still to come, so this clock or an earlier one is wrong: keys that are due stay as they are"
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
    /// The due keys: for what, and since when they have been found due, by the monotonic clock.
    due: BTreeMap<KeyId, (Due, Duration)>,
}

/// What a key is due for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Destruction,
    Rotation,
}

/// The work that a key is due for, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    work: Work,
    date: Timestamp,
}

impl Due {
    /// The next work on the key, whether it is due or not.
    fn of(key: &MasterKey) -> Option<Self> {
        let due = |work| move |date| Self { work, date };
        let destruction = key.deletion_date().map(due(Work::Destruction));
        destruction.or_else(|| key.rotation_date().map(due(Work::Rotation)))
    }
}

/// The time between two sweeps that confirm a due key.
const CONFIRMED_AFTER: Duration = Duration::from_secs(3600);
/// Scheduled sweeps vary: the second may come a little earlier within its hour.
const CONFIRMED_AFTER_BY_RECORD: SignedDuration = SignedDuration::from_mins(55);
/// A clock that drifts this far from the monotonic clock was set.
const CLOCK_WAS_SET: SignedDuration = SignedDuration::from_mins(5);
/// How far the clocks of processes over one table may differ.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// Destroys keys whose deletion date has passed, and rotates keys by their schedules. Several may run over one table at
/// once.
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
    /// The janitor never unwraps a key. It wraps the new versions of those that it rotates, and opens the credential of a
    /// Vault. `log`, if there is one, records each key that was destroyed or rotated.
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

    /// Reads every key once. Destroys and rotates those that are due and were due an hour ago. A record that does not
    /// decode stays as it is.
    ///
    /// A key is changed as it was seen, or not at all. So if its deletion is cancelled in the same moment, either the key
    /// stays complete or the cancellation finds no key; and of two janitors, one rotates it.
    ///
    /// # Errors
    /// When the table, the log or a wrapper fails. Finished work stays done. Without the log, nothing is done.
    pub async fn sweep(&self) -> Result<Swept, KmsError> {
        let now = stored_time(self.clock.as_ref())?;
        let mut swept = Swept::default();
        let (due, known) = self.look(now, &mut swept).await?;
        swept.aliases = aliases::sweep(self.table.as_ref(), &known).await?;
        if swept.doubted.is_some() {
            self.forget();
            return Ok(swept);
        }
        let remembered = self.remember(now, &due);
        // A wrapper that fails stops rotations, and not destructions.
        for work in [Work::Destruction, Work::Rotation] {
            for id in of_work(&due, work) {
                let Some((record, key)) = self.still_due(id, work, now).await? else {
                    continue;
                };
                let is_confirmed = match self.confirming {
                    Confirming::ByMemory => remembered.contains(id),
                    Confirming::ByRecord => is_confirmed_by_record(&key, now),
                };
                match work {
                    Work::Destruction => {
                        self.destroy_due(id, record, key, is_confirmed, now, &mut swept)
                            .await?;
                    }
                    Work::Rotation => {
                        self.rotate_due(id, record, key, is_confirmed, now, &mut swept)
                            .await?;
                    }
                }
            }
        }
        Ok(swept)
    }

    async fn destroy_due(
        &self,
        id: &KeyId,
        record: Record,
        key: MasterKey,
        is_confirmed: bool,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), KmsError> {
        if !self.service.references(id).await?.is_empty() {
            swept.referenced.push(id.clone());
            return Ok(());
        }
        if !is_confirmed {
            swept.awaiting.push(id.clone());
            return self.mark_due(&record, key, now).await;
        }
        self.may_proceed().await?;
        let outcome = match self.destroy(&record).await {
            Ok(true) => {
                aliases::remove_of(self.table.as_ref(), &key).await;
                Ok(())
            }
            // Another writer changed it, or another janitor has it. The next sweep looks again.
            Ok(false) => return Ok(()),
            Err(error) => Err(error),
        };
        if let Some(log) = &self.log {
            let error = outcome.as_ref().err().map(KmsError::class);
            log.destroyed(id, error).await?;
        }
        outcome?;
        swept.destroyed.push(id.clone());
        Ok(())
    }

    async fn rotate_due(
        &self,
        id: &KeyId,
        record: Record,
        key: MasterKey,
        is_confirmed: bool,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), KmsError> {
        if key.has_most_versions() {
            swept.full.push(id.clone());
            return Ok(());
        }
        if !is_confirmed {
            return self.mark_due(&record, key, now).await;
        }
        // A stopped service changes no key. Its first sweep after the start finds the key due.
        let config = match self.service.running().await {
            Ok(config) => config,
            Err(KmsError::NotConfigured | KmsError::NotRunning) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.may_proceed().await?;
        let version = key.current_version() + 1;
        let outcome = match self.rotate(&config, &record, key, now).await {
            Ok(true) => Ok(()),
            // Another writer changed it, or another janitor rotated it. The next sweep looks again.
            Ok(false) => return Ok(()),
            Err(error) => Err(error),
        };
        if let Some(log) = &self.log {
            let error = outcome.as_ref().err().map(KmsError::class);
            log.rotated(id, version, error).await?;
        }
        outcome?;
        swept.rotated.push(id.clone());
        Ok(())
    }

    /// Rotates the key as it was seen. `false`: another writer changed it.
    async fn rotate(
        &self,
        config: &ServiceConfig,
        seen: &Record,
        mut key: MasterKey,
        now: Timestamp,
    ) -> Result<bool, KmsError> {
        let (table, random) = (self.table.as_ref(), self.random.as_ref());
        let wrapper = self.wrappers.current(config).await?;
        key.rotate(wrapper.as_ref(), random, now, true).await?;
        let next = repository::again(seen, Some(encoding::encode(&key)?), random)?;
        self.wrappers
            .replace(config, table, &next, seen.revision)
            .await
    }

    async fn may_proceed(&self) -> Result<(), KmsError> {
        match &self.log {
            Some(log) => log.may_proceed().await,
            None => Ok(()),
        }
    }

    /// Writes into the record that this sweep found the key due, if that is how a later sweep knows.
    async fn mark_due(
        &self,
        record: &Record,
        key: MasterKey,
        now: Timestamp,
    ) -> Result<(), KmsError> {
        if self.confirming == Confirming::ByRecord && !is_found_due(&key, now) {
            self.mark(record, key, Some(now)).await?;
        }
        Ok(())
    }

    /// Reads every key once, counts them, and returns those whose date has passed, and when each key was created.
    async fn look(
        &self,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(BTreeMap<KeyId, Due>, BTreeMap<KeyId, Timestamp>), KmsError> {
        let (mut all, mut known) = (BTreeMap::new(), BTreeMap::new());
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
            match Due::of(&key) {
                Some(due) if due.date <= now => drop(all.insert(key.id, due)),
                // The clock that found it due was ahead.
                Some(_) if found_due(&key).is_some() => self.mark(&record, key, None).await?,
                _ => {}
            }
        }
        Ok((all, known))
    }

    /// Remembers the due keys, and returns those that have been due for long enough. Starts again if the clock was set.
    fn remember(&self, now: Timestamp, due: &BTreeMap<KeyId, Due>) -> BTreeSet<KeyId> {
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
            .retain(|id, (remembered, _)| due.get(id) == Some(remembered));
        for (id, due) in due {
            remembered.due.entry(id.clone()).or_insert((*due, at));
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

    /// Reads the key again, and returns it if it is still due for this work.
    async fn still_due(
        &self,
        id: &KeyId,
        work: Work,
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
        let is_due = Due::of(&key).is_some_and(|due| due.work == work && due.date <= now);
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
        } else if let Some(schedule) = key.schedule_mut() {
            schedule.found_due = when;
        }
        let value = encoding::encode(&key)?;
        let marked = repository::again(seen, Some(value), self.random.as_ref())?;
        repository::write(self.table.as_ref(), &marked, Some(seen.revision)).await?;
        Ok(())
    }
}

/// The keys that are due for this work.
fn of_work(due: &BTreeMap<KeyId, Due>, work: Work) -> impl Iterator<Item = &KeyId> {
    due.iter()
        .filter(move |(_, due)| due.work == work)
        .map(|(id, _)| id)
}

fn found_due(key: &MasterKey) -> Option<Timestamp> {
    match key.state {
        KeyState::PendingDeletion { found_due, .. } => found_due,
        KeyState::Enabled | KeyState::Disabled => key.rotation()?.found_due,
    }
}

/// Whether an earlier sweep found it due. A time in the future comes from a clock that was ahead.
fn is_found_due(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| found <= now)
}

fn is_confirmed_by_record(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| now.duration_since(found) >= CONFIRMED_AFTER_BY_RECORD)
}
