//! A few connections for reads, opened when they are first needed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keyway_domain::ports::StoreError;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::Semaphore;
use tokio::task;

use crate::watch::{BESIDE, Watch, beside};
use crate::{OpenError, failed, schema, store_error};

/// Reads mostly find their pages in memory, so more connections would only wait for the processor.
const CONNECTIONS: usize = 4;

pub(crate) struct Readers {
    path: PathBuf,
    watch: Arc<Watch>,
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Whether the last connection leaves the write-ahead log as it is, instead of writing it into the table.
    leaves_log: bool,
}

impl Readers {
    pub(crate) fn new(path: PathBuf, watch: Arc<Watch>) -> Self {
        Self {
            path,
            watch,
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            leaves_log: false,
        }
    }

    /// As [`Readers::new`], and closing changes no file: a log with content stays as it is. SQLite removes an empty log,
    /// which the connections themselves made.
    pub(crate) fn changing_nothing(path: PathBuf, watch: Arc<Watch>) -> Self {
        let has_log = BESIDE.first().is_some_and(|ending| {
            std::fs::symlink_metadata(beside(&path, ending)).is_ok_and(|log| log.len() > 0)
        });
        let mut readers = Self::new(path, watch);
        readers.leaves_log = has_log;
        readers
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Runs the query on a connection of its own, on a thread that may block.
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
            // Held until the connection is returned, even if the caller no longer waits.
            let _permit = permit;
            readers.watch.check_for_read()?;
            let failed = |error| store_error(what, &readers.path, &error);
            let connection = match readers.idle().pop() {
                Some(connection) => connection,
                None => {
                    let connection = readers.connect().map_err(failed)?;
                    // The connection was opened by path, which may name another file by now.
                    readers.watch.check_for_read()?;
                    connection
                }
            };
            let found = query(&connection).map_err(failed)?;
            // Only reached without an error: a failed connection is not used again.
            readers.idle().push(connection);
            Ok(found)
        });
        read.await.map_err(|error| failed(what, error))?
    }

    /// A connection that the caller alone uses, and gives back to [`Readers::close`].
    pub(crate) fn connect_alone(&self, what: &'static str) -> Result<Connection, StoreError> {
        self.watch.check_for_read()?;
        let connection = self.connect();
        let connection = connection.map_err(|error| store_error(what, &self.path, &error))?;
        self.watch.check_for_read()?;
        Ok(connection)
    }

    /// Closes the connection, unless closing it would harm another table's files.
    pub(crate) fn close(&self, connection: Connection) {
        if !self.watch.may_close() {
            std::mem::forget(connection);
        }
    }

    /// Looks at the file by a connection of its own, which is kept for later reads.
    pub(crate) fn look<T>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        let connection = self.connect().map_err(|error| OpenError::Sqlite {
            path: self.path.clone(),
            error,
        })?;
        let seen = look(&connection)?;
        self.idle().push(connection);
        Ok(seen)
    }

    fn connect(&self) -> rusqlite::Result<Connection> {
        let connection = schema::connect(&self.path)?;
        connection.pragma_update(None, "query_only", true)?;
        if self.leaves_log {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        }
        Ok(connection)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        // A panic cannot leave the list half changed: every change is one push or pop.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        if !self.watch.may_close() {
            self.idle().drain(..).for_each(std::mem::forget);
        }
    }
}
