//! The thread that writes: it runs all waiting writes in one transaction, and answers them when it is committed.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{io, mem};

use jiff::{SignedDuration, Timestamp};
use keyway_domain::ports::{Clock, Kind, Record, Revision, StoreError};
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::records::{self, Outcome};
use crate::watch::Watch;
use crate::{failed, store_error};

/// The most writes that may wait, and the most in one transaction. With values of 300 KiB, the queue and the
/// transaction together hold 150 MiB. Further callers wait until the queue has space, each with its own value.
const QUEUE: usize = 256;

/// Expired records are kept this long, so that a clock that is ahead for a while destroys nothing.
const EXPIRED_KEPT: SignedDuration = SignedDuration::from_hours(24);

const WHAT: &str = "write a record";

pub(crate) enum Write {
    PutNew(Record),
    Replace(Record, Revision),
    Remove(Kind, String, Revision),
}

struct Job {
    write: Write,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

pub(crate) struct Writer {
    /// `None` while dropping, which ends the thread when the queue is empty.
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(crate) fn start(
        connection: Connection,
        clock: Arc<dyn Clock>,
        watch: Arc<Watch>,
    ) -> io::Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let thread = thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || write_all(connection, jobs, &*clock, &watch))?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Sends the write to the thread and waits for its commit. `write` is called when the queue has space.
    pub(crate) async fn run(&self, write: impl FnOnce() -> Write) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        let (answer, answered) = oneshot::channel();
        let place = queue.reserve().await.map_err(|_| stopped())?;
        place.send(Job {
            write: write(),
            answer,
        });
        answered.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer of the table panicked");
        }
    }
}

fn stopped() -> StoreError {
    failed(WHAT, "the writer has stopped")
}

fn write_all(
    mut connection: Connection,
    mut queue: mpsc::Receiver<Job>,
    clock: &dyn Clock,
    watch: &Watch,
) {
    let mut jobs = Vec::with_capacity(QUEUE);
    while queue.blocking_recv_many(&mut jobs, QUEUE) > 0 {
        let jobs = mem::take(&mut jobs);
        if watch.check().is_err() {
            refuse(jobs, watch);
            continue;
        }
        let outcomes = commit(&mut connection, &jobs, clock.now());
        // A commit to a file that no longer has the table's name is lost.
        if watch.check().is_err() {
            refuse(jobs, watch);
        } else {
            answer(jobs, outcomes, watch.path());
        }
    }
    if !watch.may_close() {
        mem::forget(connection);
        return;
    }
    // The table closes: leave one complete file. SQLite tries the same when the last process closes.
    if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(error = %error, "the write-ahead log could not be folded into the table; the next start will");
    }
}

/// Answers each write with the missing file. If it is back in the meantime, the write may be tried again.
fn refuse(jobs: Vec<Job>, watch: &Watch) {
    for job in jobs {
        let gone = watch.check().err().unwrap_or(StoreError::Throttled);
        job.answer.send(Err(gone)).ok();
    }
}

/// Runs the writes in one transaction. An error means that none of them was committed, or that this is unknown.
///
/// Each write reads its record and then changes it with one statement. SQLite rolls a failed statement back by itself,
/// so that a failed write needs no savepoint and does not affect the others.
fn commit(
    connection: &mut Connection,
    jobs: &[Job],
    now: Timestamp,
) -> rusqlite::Result<Vec<rusqlite::Result<Outcome>>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Vec::with_capacity(jobs.len());
    for job in jobs {
        let outcome = apply(&transaction, &job.write, now);
        match outcome {
            // Errors such as a full disk end the whole transaction; later writes would be committed one by one.
            Err(error) if transaction.is_autocommit() => return Err(error),
            outcome => outcomes.push(outcome),
        }
    }
    if let Ok(before) = now.checked_sub(EXPIRED_KEPT) {
        records::purge(&transaction, before)?;
    }
    transaction.commit()?;
    Ok(outcomes)
}

fn apply(connection: &Connection, write: &Write, now: Timestamp) -> rusqlite::Result<Outcome> {
    match write {
        Write::PutNew(record) => records::put_new(connection, record, now),
        Write::Replace(record, seen) => records::replace(connection, record, *seen, now),
        Write::Remove(kind, id, seen) => records::remove(connection, *kind, id, *seen, now),
    }
}

fn answer(
    jobs: Vec<Job>,
    committed: rusqlite::Result<Vec<rusqlite::Result<Outcome>>>,
    path: &Path,
) {
    let answer_one = |job: Job, outcome| {
        // The caller may no longer wait.
        job.answer.send(outcome).ok();
    };
    match committed {
        Ok(outcomes) => {
            for (job, outcome) in jobs.into_iter().zip(outcomes) {
                answer_one(
                    job,
                    match outcome {
                        Ok(Outcome::Done) => Ok(()),
                        Ok(Outcome::Conflict) => Err(StoreError::Conflict),
                        Err(error) => Err(store_error(WHAT, path, &error)),
                    },
                );
            }
        }
        Err(error) => {
            for job in jobs {
                answer_one(job, Err(store_error(WHAT, path, &error)));
            }
        }
    }
}
