use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Record, Revision, SecretStore, SecretVersion, StoreError,
    TableReader, TableWriter,
};

/// The table in memory.
pub struct MemoryTable {
    records: Mutex<BTreeMap<(Kind, String), Record>>,
    clock: Arc<dyn Clock>,
    /// Whether a page of a kind with parts must name one, as in DynamoDB.
    is_in_parts: bool,
    writes_fail: AtomicBool,
    away: AtomicBool,
    hangs: AtomicBool,
}

impl MemoryTable {
    /// An empty table whose records expire by this clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            records: Mutex::default(),
            clock,
            is_in_parts: false,
            writes_fail: AtomicBool::new(false),
            away: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
        }
    }

    /// Such a table that finds nothing of a kind with parts unless it is asked for one, as DynamoDB does.
    pub fn in_parts(clock: Arc<dyn Clock>) -> Self {
        Self {
            is_in_parts: true,
            ..Self::new(clock)
        }
    }

    /// Makes every write fail, as on a full disk, or work again.
    pub fn fail_writes(&self, fail: bool) {
        self.writes_fail.store(fail, Ordering::Relaxed);
    }

    /// Makes every read and write fail as if the table were unreachable, or work again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }

    /// Makes every read and write that begins from now on hang, or return again.
    pub fn set_hanging(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    async fn may_read(&self) -> Result<(), StoreError> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Away(
                "the table in memory: no connection".to_owned(),
            ));
        }
        Ok(())
    }

    async fn may_write(&self) -> Result<(), StoreError> {
        self.may_read().await?;
        if self.writes_fail.load(Ordering::Relaxed) {
            return Err(StoreError::Failed {
                what: "write",
                source: "the disk is full".into(),
            });
        }
        Ok(())
    }

    fn live(&self, record: &Record) -> bool {
        record.expires_at.is_none_or(|at| at > self.clock.now())
    }
}

#[async_trait]
impl TableReader for MemoryTable {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        _: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        self.may_read().await?;
        let records = lock(&self.records);
        Ok(records
            .get(&(kind, id.to_owned()))
            .filter(|record| self.live(record))
            .cloned())
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        self.may_read().await?;
        let records = lock(&self.records);
        let counted = records.values().filter(|record| {
            record.kind == kind && record.id.starts_with(prefix) && self.live(record)
        });
        Ok(counted.count() as u64)
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded((kind, after.to_owned())),
            _ => Bound::Included((kind, prefix.to_owned())),
        };
        self.may_read().await?;
        if self.is_in_parts && kind.part_bytes().is_some_and(|part| prefix.len() < part) {
            return Ok(Page::default());
        }
        let records = lock(&self.records);
        let mut matching = records
            .range((start, Bound::Unbounded))
            .map(|(_, record)| record)
            .take_while(|record| record.kind == kind && record.id.starts_with(prefix))
            .filter(|record| self.live(record));
        let page = matching
            .by_ref()
            .take(limit.clamp(1, 1000))
            .cloned()
            .collect();
        Ok(Page {
            records: page,
            more: matching.next().is_some(),
            refused: Vec::new(),
        })
    }
}

#[async_trait]
impl TableWriter for MemoryTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        self.may_write().await?;
        let mut records = lock(&self.records);
        let key = (record.kind, record.id.clone());
        match records.get(&key).filter(|current| self.live(current)) {
            Some(current) if current.revision == record.revision => {}
            Some(_) => return Err(StoreError::Conflict),
            None => drop(records.insert(key, record.clone())),
        }
        Ok(())
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        self.may_write().await?;
        let mut records = lock(&self.records);
        match records
            .get_mut(&(record.kind, record.id.clone()))
            .filter(|current| self.live(current))
        {
            Some(current) if current.revision == record.revision => {}
            Some(current) if current.revision == seen => *current = record.clone(),
            _ => return Err(StoreError::Conflict),
        }
        Ok(())
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        self.may_write().await?;
        let mut records = lock(&self.records);
        let key = (kind, id.to_owned());
        match records.get(&key).filter(|current| self.live(current)) {
            Some(current) if current.revision == seen => drop(records.remove(&key)),
            Some(_) => return Err(StoreError::Conflict),
            None => {}
        }
        Ok(())
    }
}

/// Secrets in memory.
#[derive(Default)]
pub struct MemorySecrets {
    secrets: Mutex<HashMap<String, (SecretBytes, u64)>>,
}

impl MemorySecrets {
    /// A store without secrets.
    pub fn new() -> Self {
        Self::default()
    }
}

#[async_trait]
impl SecretStore for MemorySecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        let secrets = lock(&self.secrets);
        Ok(secrets
            .get(name)
            .map(|(value, version)| (copy(value), SecretVersion(version.to_string()))))
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        let mut secrets = lock(&self.secrets);
        let newest = secrets.get(name).map_or(0, |(_, version)| *version);
        if seen.map_or("0", |version| &version.0) != newest.to_string() {
            return Err(StoreError::Conflict);
        }
        let version = newest + 1;
        secrets.insert(name.to_owned(), (copy(value), version));
        Ok(SecretVersion(version.to_string()))
    }
}

fn copy(secret: &SecretBytes) -> SecretBytes {
    SecretBytes::from(secret.expose().to_vec())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Ignore poisoning: no change in here panics half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyway_domain::buckets::{TableBuckets, TrackedBuckets};
    use keyway_domain::service::{WatchedTable, WriteFailure};

    use crate::{SeededRandom, bucket_contract, secret_store_contract, table_contract};

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_table_keeps_the_contract() {
        table_contract::run_all(
            async |clock| Arc::new(MemoryTable::new(clock)) as _,
            &SeededRandom::new(1),
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn signed_table_keeps_the_contract() {
        let factory = async |clock: Arc<crate::FixedClock>| {
            let clock: Arc<dyn Clock> = clock;
            let stored = Arc::new(MemoryTable::new(Arc::clone(&clock)));
            let secrets = Arc::new(MemorySecrets::new());
            let random: Arc<dyn keyway_domain::ports::Random> = Arc::new(SeededRandom::new(5));
            let made = crate::signed_table(&stored, secrets, &clock, &random).await;
            made.unwrap().0 as _
        };
        table_contract::run_all(factory, &SeededRandom::new(1)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn buckets_of_the_table_keep_the_contract() {
        let factory = async || {
            let clock: Arc<dyn Clock> = Arc::new(crate::FixedClock::new(
                "2026-01-02T03:04:05Z".parse().unwrap(),
            ));
            let table = Arc::new(MemoryTable::new(Arc::clone(&clock)));
            let random = Arc::new(SeededRandom::new(4));
            Arc::new(TableBuckets::new(table, clock, random)) as _
        };
        bucket_contract::run_all(factory, &SeededRandom::new(3)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn noted_buckets_keep_the_contract() {
        let factory = async || {
            let clock: Arc<dyn Clock> = Arc::new(crate::FixedClock::new(
                "2026-01-02T03:04:05Z".parse().unwrap(),
            ));
            // The buckets are in one table, the notes in another.
            let [store, notes] = [(); 2].map(|()| Arc::new(MemoryTable::new(Arc::clone(&clock))));
            let random = Arc::new(SeededRandom::new(4));
            let buckets = TableBuckets::new(store, clock, Arc::clone(&random) as _);
            Arc::new(TrackedBuckets::new(buckets, notes, random)) as _
        };
        bucket_contract::run_all(factory, &SeededRandom::new(3)).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_secrets_keep_the_contract() {
        secret_store_contract::run_all(
            async || Arc::new(MemorySecrets::new()) as _,
            &SeededRandom::new(2),
        )
        .await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn intercepted_table_keeps_the_contract() {
        let factory = async |clock: Arc<crate::FixedClock>| {
            let table: Arc<dyn TableWriter> = Arc::new(MemoryTable::new(clock));
            Arc::new(WatchedTable::new(table, WriteFailure::default())) as _
        };
        table_contract::run_all(factory, &SeededRandom::new(1)).await;
    }
}
