//! Following the log as it is written, here and elsewhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::{SignedDuration, Timestamp};
use keyway_domain::audit::{Followed, LogFollowing};
use keyway_domain::ports::{Clock, Kind, StoreError, TableReader};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};

use crate::journal::{FOLLOWED, Journal};
use crate::reading::{lines, part};
use crate::table::id_time;

/// Other processes' events are looked for this often, while somebody follows.
const POLL_EVERY: Duration = Duration::from_millis(400);
/// A record may come this long after its first event was written.
const LOOK_BACK: SignedDuration = SignedDuration::from_secs(10);
const RECORDS: usize = 100;

/// The error log of this process, to be followed.
pub type ErrorLines = Arc<dyn Fn() -> Receiver<Arc<str>> + Send + Sync>;

/// Follows this process's journal, and the others' in the table. However many follow, the table is asked once.
pub struct Following(Arc<Shared>);

struct Shared {
    journal: Arc<Journal>,
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    errors: ErrorLines,
    others: broadcast::Sender<Arc<str>>,
    is_polling: AtomicBool,
}

impl Following {
    /// Of this journal, and those whose records the table has.
    pub fn new(
        journal: Arc<Journal>,
        table: Arc<dyn TableReader>,
        clock: Arc<dyn Clock>,
        errors: ErrorLines,
    ) -> Self {
        Self(Arc::new(Shared {
            journal,
            table,
            clock,
            errors,
            others: broadcast::channel(FOLLOWED).0,
            is_polling: AtomicBool::new(false),
        }))
    }
}

impl LogFollowing for Following {
    fn audit(&self) -> BoxStream<'static, Followed> {
        let journal = &self.0.journal;
        let here = followed(journal.follow(), journal);
        let elsewhere = followed(self.0.others.subscribe(), journal);
        if !self.0.is_polling.swap(true, Ordering::Relaxed) {
            tokio::spawn(Arc::clone(&self.0).poll());
        }
        stream::select(here, elsewhere).boxed()
    }

    fn errors(&self) -> BoxStream<'static, Followed> {
        followed((self.0.errors)(), &self.0.journal).boxed()
    }
}

fn followed(
    lines: Receiver<Arc<str>>,
    journal: &Arc<Journal>,
) -> impl futures_util::Stream<Item = Followed> + use<> {
    let journal = Arc::clone(journal);
    stream::unfold((lines, journal), async |(mut lines, journal)| {
        let heard = match lines.recv().await {
            Ok(line) => Followed::Line(line),
            Err(RecvError::Lagged(missed)) => {
                journal.missed(missed);
                Followed::Missed(missed)
            }
            Err(RecvError::Closed) => return None,
        };
        Some((heard, (lines, journal)))
    })
}

impl Shared {
    /// Tells of what others write, until nobody follows.
    async fn poll(self: Arc<Self>) {
        // What is there already is the past.
        let mut known: Option<BTreeSet<String>> = None;
        let mut has_failed = false;
        loop {
            match self.look(known.as_ref()).await {
                Ok(found) => {
                    known = Some(found);
                    has_failed = false;
                }
                Err(error) if !has_failed => {
                    has_failed = true;
                    tracing::warn!(%error, "other processes' audit events cannot be read");
                }
                Err(_) => {}
            }
            tokio::time::sleep(POLL_EVERY).await;
            if self.others.receiver_count() == 0 {
                self.is_polling.store(false, Ordering::Relaxed);
                // Somebody may have come while that was found out.
                if self.others.receiver_count() == 0
                    || self.is_polling.swap(true, Ordering::Relaxed)
                {
                    return;
                }
            }
        }
    }

    /// The ids of the records that are not old, once those that are new have been told of.
    async fn look(&self, known: Option<&BTreeSet<String>>) -> Result<BTreeSet<String>, StoreError> {
        let now = self.clock.now();
        let begin = now.saturating_sub(LOOK_BACK).unwrap_or(now);
        let own = self.journal.writer();
        let mut found = BTreeSet::new();
        let mut parts: Vec<String> = [begin, now].map(part).into();
        // Another process's clock may be in the next hour.
        parts.extend(now.saturating_add(LOOK_BACK).ok().map(part));
        parts.dedup();
        for part in parts {
            let mut after = after(begin, &part);
            loop {
                let page = self
                    .table
                    .page(Kind::Audit, &part, after.as_deref(), RECORDS)
                    .await?;
                for record in &page.records {
                    let is_own = record.id.split('.').nth(2) == Some(own);
                    let is_new = known.is_some_and(|known| !known.contains(&record.id));
                    if is_new && !is_own {
                        for line in lines(record) {
                            // Nobody may be left to hear it.
                            self.others.send(line.into()).ok();
                        }
                    }
                    found.insert(record.id.clone());
                }
                after = page.records.last().map(|record| record.id.clone());
                if !page.more {
                    break;
                }
            }
        }
        Ok(found)
    }
}

/// Where the part is read from.
fn after(begin: Timestamp, part: &str) -> Option<String> {
    Some(id_time(begin)).filter(|begin| begin.starts_with(part))
}
