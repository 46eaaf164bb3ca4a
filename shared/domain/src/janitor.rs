//! Destroys keys whose deletion date has passed.
//!
//! **Invariant:** one look at a clock destroys nothing. A clock that is ahead when a machine starts, and is set a moment
//! later, would else destroy keys before their time. So a key goes when two sweeps that are an hour apart have found it due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::audit::BackgroundAudit;
use crate::encoding;
use crate::error::KmsError;
use crate::keys::{KeyId, KeyState, MasterKey};
use crate::ports::{Clock, Consistency, Kind, Random, Record, StoreError, TableWriter};
use crate::repository::{self, Noun};
use crate::scan::Scan;
use crate::service::Service;
use crate::wrappers::Wrappers;

/// What one sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys that are gone now.
    pub destroyed: Vec<KeyId>,
    /// Keys whose date has passed, but which something still names: they stay until nothing does.
    pub referenced: Vec<KeyId>,
    /// Keys whose date has passed by the clock, which a later sweep is to find as well.
    pub awaiting: Vec<KeyId>,
    /// A key with a date that is still to come: either the clock was ahead when that was written, or it is behind now.
    /// Nothing is destroyed meanwhile.
    pub doubted: Option<(KeyId, Timestamp)>,
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
        for key_id in &self.awaiting {
            tracing::info!(%key_id, "a key is due to be destroyed, and will be when a sweep an hour later finds so too");
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
    /// It lives long and remembers, by a time that no setting of a clock changes.
    ByMemory,
    /// It may live for one sweep alone: the key's record says when another one found it due.
    ByRecord,
}

/// What a janitor remembers of earlier sweeps.
#[derive(Default)]
struct Remembered {
    /// When the last one was.
    last: Option<(Timestamp, Duration)>,
    /// The keys that were due, by which date, and since when by the monotonic clock they have been found so.
    due: BTreeMap<KeyId, (Timestamp, Duration)>,
}

/// Two sweeps that find a key due are so far apart.
const CONFIRMED_AFTER: Duration = Duration::from_secs(3600);
/// Of two that are hours apart by a schedule, the second may begin a little earlier within its hour.
const CONFIRMED_AFTER_BY_RECORD: SignedDuration = SignedDuration::from_mins(55);
/// A clock that ran so much faster or slower than the monotonic one was set meanwhile.
const CLOCK_WAS_SET: SignedDuration = SignedDuration::from_mins(5);
/// Clocks of processes over one table may differ by so much.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(10);

/// Destroys keys whose deletion date has passed. Any number may run over one table at once.
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
    /// Over the table of the service. What it destroys it never unwraps: it needs the keyring for nothing but the
    /// credential of a Vault that keeps copies. The log is told of each key, where there is one.
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

    /// For a janitor that lives for one sweep: that a key was found due is kept in its record. A later sweep, by whichever
    /// janitor, takes that for the first one.
    #[must_use]
    pub fn remembering_in_table(mut self) -> Self {
        self.confirming = Confirming::ByRecord;
        self
    }

    /// Removes the key as it was seen. It is first written again as it is, under a revision that only this janitor
    /// knows: the removal of a record that is absent succeeds, so without it two janitors could both report one key.
    /// `false`: somebody else changed it.
    async fn destroy(&self, seen: &Record) -> Result<bool, KmsError> {
        let table = self.table.as_ref();
        let claim = repository::again(seen, None, self.random.as_ref())?;
        if !repository::write(table, &claim, Some(seen.revision)).await? {
            return Ok(false);
        }
        let config = self.service.config().await?;
        // The copy first: a copy that outlives its key would be the key.
        self.wrappers
            .remove_copy(config.as_deref(), &claim.id)
            .await?;
        let is_removed = repository::remove(table, Kind::Key, &claim.id, claim.revision).await?;
        if !is_removed && let Some(config) = config {
            // It was spared in the same instant.
            self.wrappers.copy_again(&config, table, &claim.id).await?;
        }
        Ok(is_removed)
    }

    /// Looks at every key once, and destroys those that are due and were due an hour ago. A record that does not decode is
    /// left as it is.
    ///
    /// A key is removed as it was seen or not at all, so one whose deletion is cancelled in the same instant
    /// either stays whole or its cancellation finds no key.
    ///
    /// # Errors
    /// When the table fails, or the log; what was destroyed until then stays so. While the log cannot be told, nothing is.
    pub async fn sweep(&self) -> Result<Swept, KmsError> {
        let now = self.clock.now();
        let mut swept = Swept::default();
        let due = self.look(now, &mut swept).await?;
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
                Ok(true) => Ok(()),
                // Somebody changed it meanwhile, or another janitor has it; the next sweep looks again.
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

    /// Reads every key once, counts them, and gives those whose date has passed.
    async fn look(
        &self,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<BTreeMap<KeyId, Timestamp>, KmsError> {
        let mut due = BTreeMap::new();
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key);
        while let Some(record) = scan.record().await? {
            let Some(key) = MasterKey::readable(&record) else {
                continue;
            };
            swept.keys.count(key.state);
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
                // Whoever found it due had a clock that was ahead.
                Some(_) if found_due(&key).is_some() => self.mark(&record, key, None).await?,
                _ => {}
            }
        }
        Ok(due)
    }

    /// Takes down what is due now, and gives what of it has been for long enough. A clock that was set has it begin anew.
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

    /// The key as it is by now, if its date has passed as before.
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

    /// Has the key's record say when it was found due, or that it was not. Somebody who changes it meanwhile goes first.
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

/// Whether the record says that an earlier sweep found it due. A date that is still to come is of a clock that was ahead.
fn is_found_due(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| found <= now)
}

fn is_confirmed_by_record(key: &MasterKey, now: Timestamp) -> bool {
    found_due(key).is_some_and(|found| now.duration_since(found) >= CONFIRMED_AFTER_BY_RECORD)
}
