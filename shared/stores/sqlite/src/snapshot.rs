//! The table as it was at one moment: one read transaction on a connection of its own.
//!
//! In the write-ahead log's mode, a reader does not block writers. While the snapshot lives, the log keeps what was
//! committed since, so it grows with the writes.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_domain::ports::{Consistency, IdRange, Kind, Page, Record, StoreError, TableReader};
use rusqlite::Connection;
use tokio::task;

use crate::readers::Readers;
use crate::records;
use crate::{failed, store_error};

pub(crate) struct Snapshot {
    inner: Arc<Inner>,
    /// Records that had expired when the snapshot was taken are not in it.
    taken_at: Timestamp,
}

struct Inner {
    /// `None` while dropping.
    connection: Mutex<Option<Connection>>,
    readers: Arc<Readers>,
}

impl Snapshot {
    /// Begins the transaction. The first read fixes what it sees.
    pub(crate) async fn take(readers: &Arc<Readers>, now: Timestamp) -> Result<Self, StoreError> {
        const WHAT: &str = "read the table as it is now";
        let readers = Arc::clone(readers);
        let begun = task::spawn_blocking(move || {
            let connection = readers.connect_alone(WHAT)?;
            connection
                .execute_batch("BEGIN DEFERRED; SELECT 1 FROM records LIMIT 1")
                .map_err(|error| store_error(WHAT, readers.path(), &error))?;
            Ok(Inner {
                connection: Mutex::new(Some(connection)),
                readers,
            })
        });
        let inner = begun.await.map_err(|error| failed(WHAT, error))??;
        Ok(Self {
            inner: Arc::new(inner),
            taken_at: now,
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        let read = task::spawn_blocking(move || {
            let connection = inner
                .connection
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let Some(connection) = connection.as_ref() else {
                return Err(failed(what, "the snapshot has ended"));
            };
            query(connection).map_err(|error| store_error(what, inner.readers.path(), &error))
        });
        read.await.map_err(|error| failed(what, error))?
    }
}

#[async_trait]
impl TableReader for Snapshot {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        _: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        let (id, at) = (id.to_owned(), self.taken_at);
        self.run("read a record", move |connection| {
            records::get(connection, kind, &id, at)
        })
        .await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        let (range, at) = (IdRange::new(prefix, None), self.taken_at);
        self.run("count records", move |connection| {
            records::count(connection, kind, &range, at)
        })
        .await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (range, at) = (IdRange::new(prefix, after), self.taken_at);
        self.run("read a page", move |connection| {
            records::page(connection, kind, &range, limit, at)
        })
        .await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let connection = self
            .connection
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = connection.take() {
            self.readers.close(connection);
        }
    }
}
