//! The Table port on PostgreSQL 13 or newer: one database, shared by any number of processes on any number of machines.
//!
//! **Durable:** a write succeeds only after its commit was flushed to the primary's disk, and to that of the synchronous
//! standbys where the server has some. Every session raises a weaker `synchronous_commit` to `on`. A server with `fsync`
//! off is refused.
//!
//! **Exactly once:** a row holds the revision of its newest write and the revisions of the writes before. A write whose
//! answer is lost is sent again over a new connection. If the first attempt had succeeded, the second finds its own
//! revision in the row, even when other writers have replaced the record since, and succeeds. If more than
//! [`records::PAST`] writes came in between, the outcome is unknown, and [`StoreError::Failed`] says so.
//!
//! **Failover:** each new connection tries the hosts of the URL in turn and takes the first one that accepts writes. A
//! connection that breaks, does not answer or has become read-only is dropped together with all idle ones.
//!
//! **Announcements:** a write of a record that processes cache also sends a `NOTIFY`, in the same transaction.
//! [`PostgresTable`] is a [`ChangeFeed`] of them.

mod changes;
mod connect;
mod failure;
mod reads;
mod records;
mod schema;
mod session;
mod snapshot;
mod url;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deadpool::managed::Pool;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Record, Revision, StoreError, TableReader, TableWriter,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::connect::Sessions;
use crate::failure::{Failure, Severity};
use crate::reads::Asks;
use crate::records::{Found, all_statements, statements};
use crate::snapshot::Snapshot;

pub use crate::connect::{ConnectError, Server};
pub use crate::schema::OpenError;
pub use crate::url::{ServerUrl, UrlError};

/// How long one operation may take, with all its attempts.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take. The server's own timeout is shorter, so that the server is the one that gives up.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pauses between attempts double from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Expired records are kept this long, so that a clock that is ahead for a while destroys nothing.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// The time between two removals of expired records by one process, in seconds.
const PURGE_INTERVAL: i64 = 60;

/// The table in one PostgreSQL database.
pub struct PostgresTable {
    inner: Arc<Inner>,
}

struct Inner {
    pool: Pool<Sessions>,
    clock: Arc<dyn Clock>,
    /// When this process last removed expired records, in seconds since 1970.
    purged_at: AtomicI64,
}

/// The rows that a statement returned.
struct Answer {
    rows: Vec<Row>,
    /// Whether an earlier attempt may have succeeded: its answer was lost.
    unanswered: bool,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl PostgresTable {
    /// Connects to the database, and brings its schema up to date. Keeps at most `connections` connections, besides the
    /// one of [`ChangeFeed::follow`].
    ///
    /// # Errors
    /// [`OpenError`], with a text that tells the operator what to do.
    pub async fn open(
        server: Server,
        connections: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (session, facts) = server.connect(None).await?;
        schema::prepare(session, server.name()).await?;
        facts.log(server.name());
        Self::over(server, connections, clock)
    }

    /// As [`PostgresTable::open`], for tables that must exist and be up to date. Opening them changes nothing.
    ///
    /// # Errors
    /// [`OpenError`], with a text that tells the operator what to do.
    pub async fn open_existing(
        server: Server,
        connections: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let (session, _) = server.connect(None).await?;
        schema::must_be_newest(&session, server.name()).await?;
        Self::over(server, connections, clock)
    }

    fn over(server: Server, connections: usize, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let pool = Pool::builder(Sessions(server))
            .max_size(connections.max(1))
            .runtime(deadpool::Runtime::Tokio1)
            .wait_timeout(Some(ATTEMPT_TIMEOUT))
            .build()
            .map_err(|error| OpenError::Pool(error.to_string()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                pool,
                clock,
                purged_at: AtomicI64::new(0),
            }),
        })
    }

    fn server(&self) -> &Server {
        &self.inner.pool.manager().0
    }

    async fn write(
        &self,
        record: &Record,
        seen: Option<Revision>,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<(), StoreError> {
        let answer = self.inner.ask("write a record", sql, parameters).await?;
        if !answer.rows.is_empty() {
            self.purge_seldom();
            return Ok(());
        }
        self.after_conflict(record, seen, answer.unanswered).await
    }

    /// The result of a write over `seen` whose condition failed. An earlier attempt of it may have succeeded.
    async fn after_conflict(
        &self,
        record: &Record,
        seen: Option<Revision>,
        unanswered: bool,
    ) -> Result<(), StoreError> {
        let own = record.revision;
        let Some(found) = self.current(record.kind, &record.id).await? else {
            return Err(StoreError::Conflict);
        };
        if found.is_expired(self.inner.clock.now()) {
            return Err(StoreError::Conflict);
        }
        if found.revision == own || found.past.contains(&own) {
            return Ok(());
        }
        let reaches_back = found.past.len() < records::PAST
            || seen.is_some_and(|seen| found.revision == seen || found.past.contains(&seen));
        if !unanswered || reaches_back {
            Err(StoreError::Conflict)
        } else {
            Err(StoreError::Failed {
                what: "tell whether a write took place",
                source: "its answer was lost, and too many others have followed it".into(),
            })
        }
    }

    /// The revisions of the record, expired or not, read after the condition of a write failed.
    async fn current(&self, kind: Kind, id: &str) -> Result<Option<Found>, StoreError> {
        let parameters: Parameters<'_> = &[&kind.as_str(), &id.as_bytes()];
        let answer = self
            .inner
            .ask("read a record", &statements(kind).current, parameters)
            .await?;
        answer.rows.first().map(records::found).transpose()
    }

    /// Removes some of the records that expired a day ago, at most once a minute, beside the caller's work.
    fn purge_seldom(&self) {
        let inner = &self.inner;
        let now = inner.clock.now();
        let last = inner.purged_at.load(Ordering::Relaxed);
        if now.as_second().saturating_sub(last) < PURGE_INTERVAL {
            return;
        }
        let claimed = inner.purged_at.compare_exchange(
            last,
            now.as_second(),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        let (Ok(_), Ok(before)) = (claimed, now.checked_sub(EXPIRED_KEPT)) else {
            return;
        };
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            for statements in all_statements() {
                let parameters: Parameters<'_> = &[&before.as_microsecond()];
                let asked = inner.ask("remove expired records", &statements.purge, parameters);
                if let Err(error) = asked.await {
                    tracing::warn!(%error, "expired records could not be removed; a later write tries again");
                }
            }
        });
    }
}

impl Inner {
    /// Runs one statement, which commits by itself. Tries again while the server is unavailable.
    async fn ask(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + OPERATION_TIMEOUT;
        let (mut unanswered, mut pause) = (false, FIRST_PAUSE);
        loop {
            let failure = match self.attempt(sql, parameters).await {
                Ok(rows) => return Ok(Answer { rows, unanswered }),
                Err(failure) => failure,
            };
            unanswered |= failure.is_unanswered();
            let error = match failure.severity() {
                Severity::Final => return Err(failure.told(what, self.name())),
                Severity::Again => failure.told(what, self.name()),
                Severity::NewConnection => {
                    // The others lead to the same server, which has gone or is no primary any more.
                    self.pool.retain(|_, _| false);
                    failure.told(what, self.name())
                }
            };
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, "tries again");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(
        &self,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let session = self.pool.get().await?;
        let asked = timeout(ATTEMPT_TIMEOUT, session.query(sql, parameters)).await;
        let failure = match asked {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error)) => Failure::Driver(error),
            Err(_) => Failure::NoAnswer,
        };
        if matches!(failure.severity(), Severity::NewConnection) {
            drop(deadpool::managed::Object::take(session));
        }
        Err(failure)
    }

    fn name(&self) -> &str {
        self.pool.manager().0.name()
    }
}

impl Asks for PostgresTable {
    async fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        Ok(self.inner.ask(what, sql, parameters).await?.rows)
    }

    fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

#[async_trait]
impl TableReader for PostgresTable {
    /// Reads are always strong: they go to the primary.
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        _: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        reads::get(self, kind, id).await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        reads::count(self, kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        reads::page(self, kind, prefix, after, limit).await
    }

    async fn snapshot(&self) -> Result<Option<Arc<dyn TableReader>>, StoreError> {
        let snapshot = Snapshot::take(self.server(), self.inner.clock.now()).await?;
        Ok(Some(Arc::new(snapshot)))
    }
}

#[async_trait]
impl TableWriter for PostgresTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        let expires_at = record.expires_at.map(|at| at.as_microsecond());
        let now = self.inner.clock.now().as_microsecond();
        let parameters: Parameters<'_> = &[
            &record.kind.as_str(),
            &record.id.as_bytes(),
            &record.revision.0.as_slice(),
            &expires_at,
            &record.value,
            &now,
        ];
        self.write(record, None, &statements(record.kind).put_new, parameters)
            .await
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        let expires_at = record.expires_at.map(|at| at.as_microsecond());
        let now = self.inner.clock.now().as_microsecond();
        let parameters: Parameters<'_> = &[
            &record.kind.as_str(),
            &record.id.as_bytes(),
            &record.revision.0.as_slice(),
            &expires_at,
            &record.value,
            &now,
            &seen.0.as_slice(),
        ];
        self.write(
            record,
            Some(seen),
            &statements(record.kind).replace,
            parameters,
        )
        .await
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        let now = self.inner.clock.now();
        let parameters: Parameters<'_> = &[
            &kind.as_str(),
            &id.as_bytes(),
            &seen.0.as_slice(),
            &now.as_microsecond(),
        ];
        let answer = self
            .inner
            .ask("remove a record", &statements(kind).remove, parameters)
            .await?;
        if !answer.rows.is_empty() {
            return Ok(());
        }
        // It is another record even if an earlier attempt succeeded and another writer has used the id since.
        match self.current(kind, id).await? {
            Some(found) if !found.is_expired(now) => Err(StoreError::Conflict),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTable")
            .field("server", &self.inner.name())
            .finish_non_exhaustive()
    }
}
