//! The Table port on SQLite: one file, shared by any number of processes on one machine.
//!
//! Reads use a few connections of their own. Writes go to one thread, which commits all waiting writes in one transaction,
//! so that concurrent writers share one flush to the disk.
//!
//! **Invariant:** a write succeeds only after its `COMMIT` returned. With `synchronous=FULL` that is after its flush.
//!
//! **Gone:** the paths of the open files are checked before each read, and before and after each commit. Once one of them
//! is missing or names another file, all operations fail with [`StoreError::Away`].
//!
//! **Busy:** another process may hold the write lock. Each attempt waits for it up to five seconds and then fails with
//! [`StoreError::Busy`]: nothing was changed, and the caller can try again later.
//!
//! **Disk:** if the file cannot be opened or written, or the disk is full or fails, the error is [`StoreError::Away`].

mod file;
mod readers;
mod records;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, io};

use async_trait::async_trait;
use keyway_domain::ports::{
    Clock, Consistency, IdRange, Kind, Page, Record, Revision, StoreError, TableReader, TableWriter,
};
use rusqlite::{Connection, ErrorCode};

use crate::readers::Readers;
use crate::snapshot::Snapshot;
use crate::watch::Watch;
use crate::writer::{Write, Writer};

/// The table in one SQLite file.
///
/// Dropping it blocks until the queued writes are done and the write-ahead log is checkpointed into the file.
pub struct SqliteTable {
    // Dropped first: the writer checkpoints the log while the readers are idle.
    writer: Writer,
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
}

impl SqliteTable {
    /// Opens the table in this file, and makes it with mode 0600 if it is missing. Brings its schema up to date.
    ///
    /// Blocks on the disk, and on another process that opens the file at the same time.
    ///
    /// # Errors
    /// [`OpenError`], with a text that tells the operator what to do.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let (path, identity) = file::prepare(path)?;
        let connection = schema::open(&path)?;
        let watch = Arc::new(Watch::start(&path, identity)?);
        let writer = Writer::start(connection, Arc::clone(&clock), Arc::clone(&watch)).map_err(
            |source| OpenError::Io {
                path: path.clone(),
                source,
            },
        )?;
        Ok(Self {
            writer,
            readers: Arc::new(Readers::new(path, watch)),
            clock,
        })
    }
}

/// The table in one SQLite file, opened to be examined: no file changes, and no schema is brought up to date.
pub struct SqliteReader {
    readers: Arc<Readers>,
    clock: Arc<dyn Clock>,
    is_newest: bool,
}

impl SqliteReader {
    /// Opens the table in this file, which must exist, also while other processes write it.
    ///
    /// # Errors
    /// As [`SqliteTable::open`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let (path, identity) = file::existing(path)?;
        let watch = Arc::new(Watch::start(&path, identity)?);
        let readers = Readers::changing_nothing(path.clone(), watch);
        let is_newest = readers.look(|connection| schema::is_newest(&path, connection))?;
        Ok(Self {
            readers: Arc::new(readers),
            clock,
            is_newest,
        })
    }

    /// Whether the file has the schema of this release. The next server of this release brings an older one up to date.
    pub const fn has_newest_schema(&self) -> bool {
        self.is_newest
    }
}

impl Readers {
    async fn get(
        self: &Arc<Self>,
        kind: Kind,
        id: &str,
        clock: &dyn Clock,
    ) -> Result<Option<Record>, StoreError> {
        let (id, now) = (id.to_owned(), clock.now());
        let query = move |connection: &Connection| records::get(connection, kind, &id, now);
        self.run("read a record", query).await
    }

    async fn count(
        self: &Arc<Self>,
        kind: Kind,
        prefix: &str,
        clock: &dyn Clock,
    ) -> Result<u64, StoreError> {
        let (range, now) = (IdRange::new(prefix, None), clock.now());
        let query = move |connection: &Connection| records::count(connection, kind, &range, now);
        self.run("count records", query).await
    }

    async fn page(
        self: &Arc<Self>,
        kind: Kind,
        range: IdRange,
        limit: usize,
        clock: &dyn Clock,
    ) -> Result<Page, StoreError> {
        let now = clock.now();
        let query =
            move |connection: &Connection| records::page(connection, kind, &range, limit, now);
        self.run("read a page", query).await
    }
}

/// Reads are always strong: a read sees everything that any process committed before it began.
macro_rules! read_by_readers {
    ($table:ty) => {
        #[async_trait]
        impl TableReader for $table {
            async fn get(
                &self,
                kind: Kind,
                id: &str,
                _: Consistency,
            ) -> Result<Option<Record>, StoreError> {
                self.readers.get(kind, id, self.clock.as_ref()).await
            }

            async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
                self.readers.count(kind, prefix, self.clock.as_ref()).await
            }

            async fn page(
                &self,
                kind: Kind,
                prefix: &str,
                after: Option<&str>,
                limit: usize,
            ) -> Result<Page, StoreError> {
                let range = IdRange::new(prefix, after);
                let clock = self.clock.as_ref();
                self.readers.page(kind, range, limit, clock).await
            }

            async fn snapshot(&self) -> Result<Option<Arc<dyn TableReader>>, StoreError> {
                let snapshot = Snapshot::take(&self.readers, self.clock.now()).await?;
                Ok(Some(Arc::new(snapshot)))
            }
        }
    };
}

read_by_readers!(SqliteTable);
read_by_readers!(SqliteReader);

#[async_trait]
impl TableWriter for SqliteTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        self.writer.run(|| Write::PutNew(record.clone())).await
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        self.writer
            .run(|| Write::Replace(record.clone(), seen))
            .await
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        self.writer
            .run(|| Write::Remove(kind, id.to_owned(), seen))
            .await
    }
}

impl fmt::Debug for SqliteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteTable")
            .field("path", &self.readers.path())
            .finish_non_exhaustive()
    }
}

/// Why the table could not be opened. Texts are for the operator: they name the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or its folder could not be made or examined.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The path names a folder, a symbolic link or something else that is not a plain file.
    #[error("{} is not a plain file", path.display())]
    NotAFile {
        /// What the path names.
        path: PathBuf,
    },
    /// Other users than the owner have access to the file or its folder.
    #[error(transparent)]
    Unfit(#[from] keyway_ownership::Unfit),
    /// The file is not a Keyway table. It was not changed.
    #[error("{} is not a Keyway table; it was left as it is; name another file", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// A newer release of Keyway wrote the file. It was not changed.
    #[error(
        "{} has schema version {found}, and this release knows versions up to {known}; run the later release, or restore \
         the backup from before the upgrade (docs/upgrading.md)",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema version.
        found: i64,
        /// The newest schema version that this release knows.
        known: i64,
    },
    /// SQLite failed, or another process kept the file locked.
    #[error("{}: {}", path.display(), told(error))]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: rusqlite::Error,
    },
}

/// The port's error for an error of SQLite on the table in this file.
///
/// SQLite reports a busy lock before the transaction changes anything.
fn store_error(what: &'static str, path: &Path, error: &rusqlite::Error) -> StoreError {
    let told = format!("the table {}: {}", path.display(), told(error));
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => StoreError::Busy(format!("could not {what}: {told}")),
        Some(
            ErrorCode::ReadOnly
            | ErrorCode::DiskFull
            | ErrorCode::CannotOpen
            | ErrorCode::SystemIoFailure,
        ) => StoreError::Away(format!("could not {what}: {told}")),
        _ => failed(what, told),
    }
}

/// What is wrong and what to do. SQLite's own texts are for programmers, and some of its errors have only a number.
fn told(error: &rusqlite::Error) -> String {
    let (code, text) = match error {
        rusqlite::Error::SqliteFailure(code, text) => (code, text.as_deref()),
        other => return other.to_string(),
    };
    let told = match code.code {
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another process keeps it locked; see which one has the file open"
        }
        ErrorCode::ReadOnly => {
            "it cannot be written; make the file, its folder and its file system writable for this process"
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "it is damaged; restore it from a backup"
        }
        ErrorCode::DiskFull => "the disk is full; make room on it",
        ErrorCode::CannotOpen => {
            "it cannot be opened; see that this process may use the file and its folder"
        }
        ErrorCode::SystemIoFailure => {
            "it cannot be read or written; see whether the disk is full or fails"
        }
        _ => return error.to_string(),
    };
    // A text with a semicolon is ours, and says more than the text for the code.
    match text {
        Some(text) if text.contains(';') => text.to_owned(),
        _ => format!("{told} (SQLite's code {})", code.extended_code),
    }
}

fn failed(what: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> StoreError {
    StoreError::Failed {
        what,
        source: source.into(),
    }
}
