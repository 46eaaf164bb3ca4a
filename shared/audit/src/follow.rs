//! Following the logs as they are written, here and elsewhere.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use keyway_domain::audit::{Followed, LogFollowing};
use keyway_domain::one_line;
use keyway_domain::ports::{Clock, Kind, StoreError, TableReader};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};

use crate::packed::text;
use crate::reading::part;
use crate::table::id_time;
use crate::writer::{AuditWriter, FOLLOWED};

/// How often the table is asked for other processes' lines while there are followers.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// A record may be written this long after its first line, and other processes' clocks may be this far ahead.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(10);
const RECORDS: usize = 100;
/// How many record ids are remembered: those of an hour in a busy process. If a clock goes back no further than that, no
/// line is sent twice.
const MOST_KNOWN: usize = 16_384;

/// Subscribes to the error log of this process.
pub type ErrorLines = Arc<dyn Fn() -> Receiver<Arc<str>> + Send + Sync>;

/// Follows this process's logs and, through the table, those of other processes. One task reads the table for all
/// followers of a log, and stops when there are none.
pub struct Following {
    audit_writer: Arc<AuditWriter>,
    errors: ErrorLines,
    other_journals: Arc<Others>,
    other_errors: Arc<Others>,
}

/// One log of all other processes.
struct Others {
    kind: Kind,
    /// The writer of this process. Its lines do not come from the table.
    own: String,
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    lines: broadcast::Sender<Arc<str>>,
    is_polling: AtomicBool,
}

impl Following {
    /// Follows this audit writer, and the other processes whose records are in the table.
    pub fn new(
        audit_writer: Arc<AuditWriter>,
        table: &Arc<dyn TableReader>,
        clock: &Arc<dyn Clock>,
        errors: ErrorLines,
    ) -> Self {
        let others = |kind| {
            Arc::new(Others {
                kind,
                own: audit_writer.writer().to_owned(),
                table: Arc::clone(table),
                clock: Arc::clone(clock),
                lines: broadcast::channel(FOLLOWED).0,
                is_polling: AtomicBool::new(false),
            })
        };
        Self {
            other_journals: others(Kind::Audit),
            other_errors: others(Kind::ErrorLog),
            audit_writer,
            errors,
        }
    }

    fn with_others(
        &self,
        here: Receiver<Arc<str>>,
        others: &Arc<Others>,
    ) -> BoxStream<'static, Followed> {
        let here = followed(here, &self.audit_writer);
        let elsewhere = followed(others.follow(), &self.audit_writer);
        stream::select(here, elsewhere).boxed()
    }
}

impl LogFollowing for Following {
    fn audit(&self) -> BoxStream<'static, Followed> {
        self.with_others(self.audit_writer.follow(), &self.other_journals)
    }

    fn errors(&self) -> BoxStream<'static, Followed> {
        self.with_others((self.errors)(), &self.other_errors)
    }
}

fn followed(
    lines: Receiver<Arc<str>>,
    audit_writer: &Arc<AuditWriter>,
) -> impl futures_util::Stream<Item = Followed> + use<> {
    let audit_writer = Arc::clone(audit_writer);
    stream::unfold((lines, audit_writer), async |(mut lines, audit_writer)| {
        let heard = match lines.recv().await {
            Ok(line) => Followed::Line(line),
            Err(RecvError::Lagged(missed)) => {
                audit_writer.missed(missed);
                Followed::Missed(missed)
            }
            Err(RecvError::Closed) => return None,
        };
        Some((heard, (lines, audit_writer)))
    })
}

impl Others {
    /// Subscribes to what the other processes write from now on.
    fn follow(self: &Arc<Self>) -> Receiver<Arc<str>> {
        let lines = self.lines.subscribe();
        if !self.is_polling.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(self).poll());
        }
        lines
    }

    /// Sends the lines of other processes to followers, until none is left.
    async fn poll(self: Arc<Self>) {
        // The records of the first look are older than the subscription: they are not sent.
        let mut known: Option<Known> = None;
        let mut clock = SteadyClock::begin(self.clock.as_ref());
        let mut has_failed = false;
        loop {
            match self
                .look(known.as_ref(), clock.times(self.clock.as_ref()))
                .await
            {
                Ok(found) => {
                    known.get_or_insert_default().add(found);
                    has_failed = false;
                }
                Err(error) if !has_failed => {
                    has_failed = true;
                    let log = self.kind.as_str();
                    tracing::warn!(
                        log,
                        error = one_line(&error),
                        "what other processes write cannot be read"
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(POLL_EVERY).await;
            if self.lines.receiver_count() == 0 {
                self.is_polling.store(false, Ordering::Relaxed);
                // A new follower may have come before the flag was cleared.
                if self.lines.receiver_count() == 0 || self.is_polling.swap(true, Ordering::Relaxed)
                {
                    return;
                }
            }
        }
    }

    /// Sends the lines of new records that were written near these times. Returns the ids of all of them.
    async fn look(
        &self,
        known: Option<&Known>,
        times: impl IntoIterator<Item = Timestamp>,
    ) -> Result<Vec<String>, StoreError> {
        let mut found = Vec::new();
        for time in times {
            let begin = time.saturating_sub(LOOK_BACK).unwrap_or(time);
            let end = time.saturating_add(LOOK_BACK).unwrap_or(time);
            // The span may touch two hours.
            let mut parts: Vec<String> = [begin, time, end].map(part).into();
            parts.dedup();
            for part in parts {
                let mut after = after(begin, &part);
                loop {
                    let page = self
                        .table
                        .page(self.kind, &part, after.as_deref(), RECORDS)
                        .await?;
                    for record in &page.records {
                        let is_own = record.id.split('.').nth(2) == Some(self.own.as_str());
                        let is_new = known.is_some_and(|known| !known.has(&record.id))
                            && !found.contains(&record.id);
                        if is_new && !is_own {
                            for line in text(record).lines() {
                                // The last follower may just have gone.
                                self.lines.send(line.into()).ok();
                            }
                        }
                        found.push(record.id.clone());
                    }
                    after = page.records.last().map(|record| record.id.clone());
                    if !page.more {
                        break;
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The newest records that were sent, or that are older than the first follower.
#[derive(Default)]
struct Known {
    ids: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Known {
    fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    fn add(&mut self, found: Vec<String>) {
        for id in found {
            if self.ids.insert(id.clone()) {
                self.order.push_back(id);
            }
        }
        while self.order.len() > MOST_KNOWN {
            if let Some(oldest) = self.order.pop_front() {
                self.ids.remove(&oldest);
            }
        }
    }
}

/// The clock's time, and the time it would show had it never gone back. Other processes may use either.
struct SteadyClock {
    time: Timestamp,
    at: Duration,
}

impl SteadyClock {
    fn begin(clock: &dyn Clock) -> Self {
        Self {
            time: clock.now(),
            at: clock.monotonic(),
        }
    }

    fn times(&mut self, clock: &dyn Clock) -> impl Iterator<Item = Timestamp> + use<> {
        let (now, at) = (clock.now(), clock.monotonic());
        let passed = SignedDuration::try_from(at.saturating_sub(self.at));
        let passed = passed.unwrap_or(SignedDuration::ZERO);
        let steady = self.time.saturating_add(passed).unwrap_or(now).max(now);
        (self.time, self.at) = (steady, at);
        let is_apart = steady.duration_since(now) > LOOK_BACK;
        [Some(now), is_apart.then_some(steady)]
            .into_iter()
            .flatten()
    }
}

/// The id after which to read the part.
fn after(begin: Timestamp, part: &str) -> Option<String> {
    Some(id_time(begin)).filter(|begin| begin.starts_with(part))
}
