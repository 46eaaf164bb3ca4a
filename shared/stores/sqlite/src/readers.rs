//! A few connections for reads, made when they are first needed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyway_domain::ports::StoreError;
use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::task;

use crate::{failed, schema, store_error};

/// Reads mostly find their pages in memory; more connections than this only wait for the processor.
const CONNECTIONS: usize = 4;

pub(crate) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the query on a connection that nobody else uses, off the async threads.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|error| failed(what, error))?;
        let readers = Arc::clone(self);
        let read = task::spawn_blocking(move || {
            // Held until the connection is back, even if the caller no longer waits.
            let _permit = permit;
            let connection = readers.connection()?;
            let found = query(&connection)?;
            // A connection that failed is not used again.
            readers.idle().push(connection);
            Ok(found)
        });
        read.await
            .map_err(|error| failed(what, error))?
            .map_err(|error: rusqlite::Error| store_error(what, &Arc::new(error)))
    }

    fn connection(&self) -> rusqlite::Result<Connection> {
        if let Some(connection) = self.idle().pop() {
            return Ok(connection);
        }
        let connection = schema::connect(&self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // Pushing and popping leave nothing half-done.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
