//! A table with fault injection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Record, Revision, StoreError, TableReader, TableWriter,
};
use keyway_testkit::MemoryTable;

/// A table that can fail or delay its calls.
pub(crate) struct FaultyTable {
    table: MemoryTable,
    pub(crate) fails: AtomicBool,
    pub(crate) hangs: AtomicBool,
    writes: AtomicUsize,
    /// The number of pages read.
    pub(crate) pages: AtomicUsize,
}

impl FaultyTable {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            table: MemoryTable::new(clock),
            fails: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            writes: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
        }
    }

    /// The number of writes tried.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl TableReader for FaultyTable {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        self.table.get(kind, id, consistency).await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        self.table.count(kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        self.pages.fetch_add(1, Ordering::Relaxed);
        self.table.page(kind, prefix, after, limit).await
    }
}

#[async_trait]
impl TableWriter for FaultyTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Throttled);
        }
        self.table.put_new(record).await?;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn replace(&self, _: &Record, _: Revision) -> Result<(), StoreError> {
        Err(StoreError::Conflict)
    }

    async fn remove(&self, _: Kind, _: &str, _: Revision) -> Result<(), StoreError> {
        Err(StoreError::Conflict)
    }
}

/// The lines in the records of a log.
pub(crate) fn lines(records: &[Record]) -> Vec<String> {
    let texts = records.iter().map(keyway_audit::text);
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
