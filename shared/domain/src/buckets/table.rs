//! Buckets in the table, and the table's notes about the buckets of an object store. With them, the buckets that use a
//! key are found without asking the object store.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bucket, BucketError, BucketName, Buckets, DefaultEncryption};
use crate::encoding;
use crate::error::{Fault, KmsError, one_line};
use crate::ids::{KeyId, Reference};
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::ranges::NameRange;
use crate::repository::{self, Noun, if_readable, update};
use crate::scan::{Found, Scan};

/// The record of one bucket's name. A deployment uses one half of it, and leaves the other half as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct StoredBucket {
    format: u8,
    /// The bucket, if it is in the table.
    held: Option<Held>,
    /// The keys that the bucket of an object store uses, or may be about to use.
    noted: Vec<KeyId>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Held {
    created_at: Timestamp,
    encryption: Option<DefaultEncryption>,
}

const NOTHING: StoredBucket = StoredBucket {
    format: encoding::FORMAT,
    held: None,
    noted: Vec::new(),
};

impl Noun for StoredBucket {
    const KIND: Kind = Kind::Bucket;
}

impl StoredBucket {
    fn uses(&self, key: &KeyId) -> bool {
        let held = self.held.as_ref().and_then(|held| held.encryption.as_ref());
        held.and_then(DefaultEncryption::key_id) == Some(key) || self.noted.contains(key)
    }
}

/// The records of all buckets' names.
struct AllBuckets {
    readable: Vec<(BucketName, StoredBucket)>,
    /// Records that do not decode, or do not verify.
    unreadable: Vec<Record>,
}

/// Reads the record of every bucket's name.
async fn all(table: &dyn TableReader) -> Result<AllBuckets, KmsError> {
    let mut found = AllBuckets {
        readable: Vec::new(),
        unreadable: Vec::new(),
    };
    let mut scan = Scan::all(table, Kind::Bucket);
    while let Some(next) = scan.found().await? {
        match next {
            Found::Record(record) => match if_readable(&record, read(&record)) {
                Some(bucket) => found.readable.push(bucket),
                None => found.unreadable.push(record),
            },
            Found::Refused(record) => found.unreadable.push(record),
        }
    }
    Ok(found)
}

/// The buckets whose names are in the ranges, which are sorted. Records that do not decode are left out.
async fn within(
    table: &dyn TableReader,
    ranges: &[NameRange],
) -> Result<Vec<(BucketName, StoredBucket)>, KmsError> {
    let mut found = Vec::new();
    let mut scan = Scan::within(table, Kind::Bucket, ranges.to_vec(), "", None);
    while let Some(record) = scan.record().await? {
        found.extend(if_readable(&record, read(&record)));
    }
    Ok(found)
}

fn read(record: &Record) -> Result<(BucketName, StoredBucket), KmsError> {
    let name = BucketName::parse(&record.id)
        .map_err(|_| Fault::plain("a bucket's record has no bucket's name"))?;
    Ok((name, StoredBucket::of(record)?))
}

/// The buckets whose default encryption uses the key. A record that does not decode counts if it contains the key's id,
/// so that a key is not destroyed because a record is unreadable.
pub(crate) async fn references(
    table: &dyn TableReader,
    key: &KeyId,
) -> Result<Vec<Reference>, KmsError> {
    let AllBuckets {
        readable,
        unreadable,
    } = all(table).await?;
    let id = key.as_str().as_bytes();
    let names_key = |record: &Record| record.value.windows(id.len()).any(|text| text == id);
    let used = readable
        .into_iter()
        .filter(|(_, stored)| stored.uses(key))
        .map(|(name, _)| name);
    let maybe_used = unreadable
        .into_iter()
        .filter(names_key)
        .filter_map(|record| BucketName::parse(&record.id).ok());
    Ok(used.chain(maybe_used).map(Reference::Bucket).collect())
}

/// The records of buckets' names.
struct Records {
    table: Arc<dyn TableWriter>,
    random: Arc<dyn Random>,
}

impl Records {
    async fn read(
        &self,
        name: &BucketName,
    ) -> Result<(StoredBucket, Option<Revision>), StoreError> {
        let found = self
            .table
            .get(Kind::Bucket, name.as_str(), Consistency::Strong)
            .await?;
        match found {
            None => Ok((NOTHING, None)),
            Some(record) => {
                let stored = StoredBucket::of(&record)
                    .map_err(|error| failed("read a bucket's record", &error))?;
                Ok((stored, Some(record.revision)))
            }
        }
    }

    /// Whether the record was replaced, or removed if nothing is left in it; `false` when another writer was faster.
    async fn replaced(
        &self,
        name: &BucketName,
        stored: &StoredBucket,
        seen: Option<Revision>,
    ) -> Result<bool, StoreError> {
        let table = self.table.as_ref();
        if *stored == NOTHING {
            let Some(seen) = seen else { return Ok(true) };
            return repository::remove(table, Kind::Bucket, name.as_str(), seen).await;
        }
        let record = stored
            .record(name.as_str(), self.random.as_ref())
            .map_err(|error| failed("write a bucket's record", &error))?;
        repository::write(table, &record, seen).await
    }

    async fn change(
        &self,
        name: &BucketName,
        alter: impl Fn(&mut StoredBucket) -> Result<(), BucketError> + Send + Sync,
    ) -> Result<(), BucketError> {
        let changed = || async {
            let (before, seen) = self.read(name).await?;
            let mut stored = before.clone();
            alter(&mut stored)?;
            let is_done = stored == before || self.replaced(name, &stored, seen).await?;
            Ok(is_done.then_some(()))
        };
        update(contended, changed).await
    }
}

/// Other writers were always faster.
fn contended() -> BucketError {
    StoreError::Throttled.into()
}

fn failed(what: &'static str, error: &KmsError) -> StoreError {
    StoreError::Failed {
        what,
        source: error.for_operator().into(),
    }
}

/// The buckets of the table.
pub struct TableBuckets {
    records: Records,
    clock: Arc<dyn Clock>,
}

impl TableBuckets {
    /// Uses this table.
    pub fn new(
        table: Arc<dyn TableWriter>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            records: Records { table, random },
            clock,
        }
    }

    async fn held(&self, name: &BucketName) -> Result<Option<Held>, BucketError> {
        Ok(self.records.read(name).await?.0.held)
    }

    async fn put(
        &self,
        name: &BucketName,
        encryption: Option<&DefaultEncryption>,
    ) -> Result<(), BucketError> {
        let set = |stored: &mut StoredBucket| {
            let held = stored.held.as_mut().ok_or(BucketError::NoSuchBucket)?;
            held.encryption = encryption.cloned();
            Ok(())
        };
        self.records.change(name, set).await
    }
}

#[async_trait]
impl Buckets for TableBuckets {
    async fn list(&self) -> Result<Vec<Bucket>, BucketError> {
        self.list_within(&NameRange::all()).await
    }

    async fn list_within(&self, ranges: &[NameRange]) -> Result<Vec<Bucket>, BucketError> {
        let found = within(self.records.table.as_ref(), ranges).await;
        let found = found.map_err(|error| match error {
            KmsError::Throttled => StoreError::Throttled,
            KmsError::Unavailable(fault) => StoreError::Away(format!("{fault:?}")),
            error => failed("list buckets", &error),
        })?;
        let bucket = |(name, stored): (BucketName, StoredBucket)| {
            stored.held.map(|held| Bucket {
                name,
                created_at: held.created_at,
            })
        };
        Ok(found.into_iter().filter_map(bucket).collect())
    }

    async fn create(&self, name: &BucketName) -> Result<(), BucketError> {
        let created_at = self.clock.now();
        let make = |stored: &mut StoredBucket| match stored.held {
            Some(_) => Err(BucketError::Exists),
            None => {
                stored.held = Some(Held {
                    created_at,
                    encryption: None,
                });
                Ok(())
            }
        };
        self.records.change(name, make).await
    }

    async fn remove(&self, name: &BucketName) -> Result<(), BucketError> {
        let take = |stored: &mut StoredBucket| match stored.held.take() {
            Some(_) => Ok(()),
            None => Err(BucketError::NoSuchBucket),
        };
        self.records.change(name, take).await
    }

    async fn exists(&self, name: &BucketName) -> Result<bool, BucketError> {
        Ok(self.held(name).await?.is_some())
    }

    async fn encryption(
        &self,
        name: &BucketName,
    ) -> Result<Option<DefaultEncryption>, BucketError> {
        let held = self.held(name).await?.ok_or(BucketError::NoSuchBucket)?;
        Ok(held.encryption)
    }

    async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: &DefaultEncryption,
    ) -> Result<(), BucketError> {
        self.put(name, Some(encryption)).await
    }

    async fn clear_encryption(&self, name: &BucketName) -> Result<(), BucketError> {
        self.put(name, None).await
    }
}

/// The buckets of an object store. The table notes the keys that they use.
///
/// A key is noted before the object store is called, and surplus keys are removed from the note after its answer. So a
/// note may name a key too many, and never one too few. Only changes that go through here are noted; changes that
/// others make in the object store are unknown.
pub struct TrackedBuckets<B> {
    buckets: B,
    records: Records,
}

impl<B: Buckets> TrackedBuckets<B> {
    /// Uses `buckets`, with notes in this table.
    pub fn new(buckets: B, table: Arc<dyn TableWriter>, random: Arc<dyn Random>) -> Self {
        Self {
            buckets,
            records: Records { table, random },
        }
    }

    /// Notes exactly what the bucket uses. Reads the note before it reads the bucket, and writes it only if it has not
    /// changed: so the last of several concurrent writers has read the bucket after the last change.
    async fn reconcile(&self, name: &BucketName) -> Result<(), BucketError> {
        let reconciled = || async {
            let (before, seen) = self.records.read(name).await?;
            let encryption = match self.buckets.encryption(name).await {
                Ok(encryption) => encryption,
                Err(BucketError::NoSuchBucket) => None,
                Err(error) => return Err(error),
            };
            let key = encryption.as_ref().and_then(DefaultEncryption::key_id);
            let mut stored = before.clone();
            stored.noted = key.cloned().into_iter().collect();
            let is_done = stored == before || self.records.replaced(name, &stored, seen).await?;
            Ok(is_done.then_some(()))
        };
        update(contended, reconciled).await
    }

    async fn reconciled(
        &self,
        name: &BucketName,
        outcome: Result<(), BucketError>,
    ) -> Result<(), BucketError> {
        if let Err(error) = self.reconcile(name).await {
            tracing::warn!(bucket = %name, error = one_line(&error), "the note of the keys that a bucket uses may name one too many");
        }
        outcome
    }
}

#[async_trait]
impl<B: Buckets> Buckets for TrackedBuckets<B> {
    async fn list(&self) -> Result<Vec<Bucket>, BucketError> {
        self.buckets.list().await
    }

    async fn create(&self, name: &BucketName) -> Result<(), BucketError> {
        self.buckets.create(name).await
    }

    async fn remove(&self, name: &BucketName) -> Result<(), BucketError> {
        let outcome = self.buckets.remove(name).await;
        self.reconciled(name, outcome).await
    }

    async fn exists(&self, name: &BucketName) -> Result<bool, BucketError> {
        self.buckets.exists(name).await
    }

    async fn encryption(
        &self,
        name: &BucketName,
    ) -> Result<Option<DefaultEncryption>, BucketError> {
        self.buckets.encryption(name).await
    }

    async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: &DefaultEncryption,
    ) -> Result<(), BucketError> {
        if let Some(key) = encryption.key_id() {
            let note = |stored: &mut StoredBucket| {
                if !stored.noted.contains(key) {
                    stored.noted.push(key.clone());
                }
                Ok(())
            };
            self.records.change(name, note).await?;
        }
        let outcome = self.buckets.set_encryption(name, encryption).await;
        self.reconciled(name, outcome).await
    }

    async fn clear_encryption(&self, name: &BucketName) -> Result<(), BucketError> {
        let outcome = self.buckets.clear_encryption(name).await;
        self.reconciled(name, outcome).await
    }
}
