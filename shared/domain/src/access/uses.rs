//! The date on which an access key was last used. Requests only note a use in memory. A long-lived process that may write
//! the table records the noted uses later, in a kind of their own: the access keys' records never change for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::AccessKeyId;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::repository::{self, Noun, if_readable};
use crate::scan::Scan;

/// How precise the recorded date is. Each access key costs one write in this time, whatever the number of processes.
pub const USE_PRECISION: SignedDuration = SignedDuration::from_hours(1);
/// How long the table keeps a date. An access key without a date was not used for that long.
const KEPT: SignedDuration = SignedDuration::from_hours(400 * 24);
/// How many uses wait at most. Further ones are noted again by a later request.
const MOST_WAITING: usize = 4096;
/// The record that says since when uses are recorded. No access key has this id.
const SINCE: &str = "*since";

/// Notes in a cached credential whether its use was noted already, so that further requests cost no lock.
pub(super) struct UseMark {
    id: AccessKeyId,
    is_noted: AtomicBool,
}

impl UseMark {
    pub(super) fn new(id: &AccessKeyId) -> Arc<Self> {
        Arc::new(Self {
            id: id.clone(),
            is_noted: AtomicBool::new(false),
        })
    }
}

/// The uses that are noted and not recorded yet, by access key.
#[derive(Default)]
pub(super) struct NotedUses(Mutex<HashMap<AccessKeyId, Timestamp>>);

impl NotedUses {
    pub(super) fn note(&self, mark: &UseMark, clock: &dyn Clock) {
        // A load is cheaper than a swap for the many requests that find the mark set.
        if mark.is_noted.load(Ordering::Relaxed) || mark.is_noted.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MOST_WAITING || noted.contains_key(&mark.id) {
            noted.insert(mark.id.clone(), clock.now());
        }
    }

    fn waiting(&self) -> Vec<(AccessKeyId, Timestamp)> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.iter().map(|(id, at)| (id.clone(), *at)).collect()
    }

    /// Removes this use, unless a later one was noted meanwhile.
    fn remove(&self, id: &AccessKeyId, used_at: Timestamp) {
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(id) == Some(&used_at) {
            noted.remove(id);
        }
    }
}

/// A date of the kind [`Kind::AccessKeyUse`].
#[derive(Serialize, Deserialize)]
struct StoredUse {
    format: u8,
    used_at: Timestamp,
}

impl Noun for StoredUse {
    const KIND: Kind = Kind::AccessKeyUse;
}

impl StoredUse {
    fn of_date(
        used_at: Timestamp,
        id: &str,
        kept: Option<SignedDuration>,
        random: &dyn Random,
    ) -> Result<Record, KmsError> {
        let date = Self {
            format: encoding::FORMAT,
            used_at,
        };
        let expires_at = kept.map(|kept| used_at.checked_add(kept)).transpose();
        Ok(Record {
            expires_at: expires_at.map_err(|error| Fault::new("an expiry date", error))?,
            ..date.record(id, random)?
        })
    }
}

/// Records the noted uses of access keys in the table.
pub struct UseRecorder {
    table: Arc<dyn TableWriter>,
    random: Arc<dyn Random>,
    clock: Arc<dyn Clock>,
    noted: Arc<NotedUses>,
    /// What this process knows to be recorded, so that it reads a record once an hour at most.
    recorded: Mutex<HashMap<AccessKeyId, Timestamp>>,
    since_is_recorded: AtomicBool,
}

impl UseRecorder {
    pub(super) fn new(
        table: Arc<dyn TableWriter>,
        random: Arc<dyn Random>,
        clock: Arc<dyn Clock>,
        noted: Arc<NotedUses>,
    ) -> Self {
        Self {
            table,
            random,
            clock,
            noted,
            recorded: Mutex::default(),
            since_is_recorded: AtomicBool::new(false),
        }
    }

    /// Records what requests have noted since the last call. Any number of processes may do so at once.
    ///
    /// # Errors
    /// When the table fails. What was not recorded is tried again by the next call.
    pub async fn record(&self) -> Result<(), KmsError> {
        self.record_since().await?;
        let now = self.clock.now();
        self.recorded().retain(|_, at| is_recent(*at, now));
        let mut failure = None;
        for (id, used_at) in self.noted.waiting() {
            let known = self.recorded().get(&id).copied();
            let recorded = match known.filter(|known| is_recent(*known, used_at)) {
                Some(known) => Ok(known),
                None => self.record_one(&id, used_at).await,
            };
            match recorded {
                Ok(recorded_at) => {
                    self.noted.remove(&id, used_at);
                    self.recorded().insert(id, recorded_at);
                }
                // It waits for the next call.
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn recorded(&self) -> std::sync::MutexGuard<'_, HashMap<AccessKeyId, Timestamp>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the date that is in the table afterwards.
    async fn record_one(
        &self,
        id: &AccessKeyId,
        used_at: Timestamp,
    ) -> Result<Timestamp, KmsError> {
        let table = self.table.as_ref();
        let seen: Option<Revision> = match use_of(table, id).await? {
            Some((known, _)) if is_recent(known, used_at) || known > used_at => return Ok(known),
            Some((_, revision)) => Some(revision),
            None => None,
        };
        let random = self.random.as_ref();
        let record = StoredUse::of_date(used_at, id.as_str(), Some(KEPT), random)?;
        // A writer that was faster has just recorded a use of the same hour.
        repository::write(table, &record, seen).await?;
        Ok(used_at)
    }

    async fn record_since(&self) -> Result<(), KmsError> {
        if self.since_is_recorded.load(Ordering::Relaxed) {
            return Ok(());
        }
        let table = self.table.as_ref();
        let kind = Kind::AccessKeyUse;
        match table.get(kind, SINCE, Consistency::Strong).await {
            Ok(None) => {
                let (now, random) = (self.clock.now(), self.random.as_ref());
                let since = StoredUse::of_date(now, SINCE, None, random)?;
                repository::write(table, &since, None).await?;
            }
            // A refused record is the operator's to look at; it must not end the recording.
            Ok(Some(_)) | Err(StoreError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.since_is_recorded.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether a use at this time is part of the recorded one.
fn is_recent(recorded: Timestamp, used_at: Timestamp) -> bool {
    used_at.duration_since(recorded) < USE_PRECISION
}

async fn use_of(
    table: &dyn TableReader,
    id: &AccessKeyId,
) -> Result<Option<(Timestamp, Revision)>, KmsError> {
    match table
        .get(Kind::AccessKeyUse, id.as_str(), Consistency::Strong)
        .await
    {
        Ok(Some(record)) => Ok(if_readable(&record, StoredUse::of(&record))
            .map(|date| (date.used_at, record.revision))
            // A record that does not decode is written again.
            .or(Some((Timestamp::MIN, record.revision)))),
        Ok(None) => Ok(None),
        // It stays refused until the operator has looked at it.
        Err(StoreError::Refused { .. }) => Ok(Some((Timestamp::MAX, Revision([0; 16])))),
        Err(error) => Err(error.into()),
    }
}

/// The recorded uses of all access keys.
pub(super) struct RecordedUses {
    /// Since when a process records uses; `None` if none ever did.
    pub(super) since: Option<Timestamp>,
    dates: HashMap<String, Timestamp>,
}

impl RecordedUses {
    pub(super) async fn read(table: &dyn TableReader) -> Result<Self, StoreError> {
        let mut dates = HashMap::new();
        let mut scan = Scan::all(table, Kind::AccessKeyUse);
        while let Some(record) = scan.record().await? {
            if let Some(date) = StoredUse::readable(&record) {
                dates.insert(record.id, date.used_at);
            }
        }
        Ok(Self {
            since: dates.remove(SINCE),
            dates,
        })
    }

    /// When this access key was last used, to an hour.
    pub(super) fn of(&self, id: &AccessKeyId) -> Option<Timestamp> {
        self.dates.get(id.as_str()).copied()
    }
}

/// Removes the date of an access key that was revoked. A date that stays behind expires by itself.
pub(super) async fn forget(table: &dyn TableWriter, id: &AccessKeyId) -> Result<(), KmsError> {
    let seen = table
        .get(Kind::AccessKeyUse, id.as_str(), Consistency::Strong)
        .await?;
    if let Some(record) = seen {
        repository::remove(table, record.kind, &record.id, record.revision).await?;
    }
    Ok(())
}
