//! A table with fault injection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use keyway_domain::ports::{
    Clock, InterceptedTable, Record, StoreError, TableCall, TableInterceptor,
};
use keyway_testkit::MemoryTable;

/// A table that can fail or delay its calls. Nothing in it can be changed.
pub(crate) type FaultyTable = InterceptedTable<MemoryTable, Faults>;

#[derive(Default)]
pub(crate) struct Faults {
    pub(crate) fails: AtomicBool,
    pub(crate) hangs: AtomicBool,
    writes: AtomicUsize,
    /// The number of pages read.
    pub(crate) pages: AtomicUsize,
}

impl Faults {
    /// The number of writes tried.
    pub(crate) fn writes(&self) -> usize {
        self.writes.load(Ordering::Relaxed)
    }
}

/// A table in memory that has no faults yet.
pub(crate) fn table(clock: Arc<dyn Clock>) -> FaultyTable {
    InterceptedTable::new(Arc::new(MemoryTable::new(clock)), Faults::default())
}

impl TableInterceptor for Faults {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        match call {
            TableCall::Get(..) | TableCall::Count => return run.await,
            TableCall::Page => {
                self.pages.fetch_add(1, Ordering::Relaxed);
                return run.await;
            }
            TableCall::Replace | TableCall::Remove => return Err(StoreError::Conflict),
            TableCall::PutNew => {}
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Throttled);
        }
        let written = run.await?;
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        Ok(written)
    }
}

/// The lines in the records of a log.
pub(crate) fn lines(records: &[Record]) -> Vec<String> {
    let texts = records.iter().map(keyway_audit::text);
    texts
        .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}
