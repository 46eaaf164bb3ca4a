//! The error log of every process, in the table, for followers on other processes.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use keyway_domain::one_line;
use keyway_domain::ports::{Clock, Kind, Random, Record, Revision, StoreError};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};

use crate::packed::{Packing, packed};
use crate::table::{self, AuditTable};

/// How long lines wait before they are written, and the shortest time between two writes. Followers on other processes
/// poll as often, so they get a line within a second.
const BATCH_AGE: Duration = Duration::from_millis(400);
/// The most lines in a record. Further ones wait in the channel, which drops the oldest when it is full.
const BATCH_LINES: usize = 64;
/// The most bytes that are kept of a line.
const LONGEST_LINE: usize = 1000;
/// The pause after the first failure. It doubles with each further one, up to:
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Long enough for followers and for a look at recent errors. It is no archive.
const KEPT_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Logged when a write fails. This line itself is never written, or each failure would cause another.
const FAILED: &str = "the error log cannot be written to the table";

/// Writes a process's errors and warnings to the table: one record at a time, however many there are.
pub struct ErrorLog {
    writer: String,
    table: AuditTable,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// The lines of the next record.
#[derive(Default)]
struct Waiting {
    lines: Vec<String>,
    /// How many lines were dropped from the channel.
    lost: u64,
    /// How many lines were written before.
    written: u64,
}

impl ErrorLog {
    /// The error log of the process whose audit writer has this name.
    pub fn new(
        writer: &str,
        table: AuditTable,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            writer: writer.to_owned(),
            table,
            clock,
            random,
        }
    }

    /// Writes these lines to the table until `stop` completes, and then the ones that still wait.
    pub async fn keep_writing(&self, mut lines: Receiver<Arc<str>>, stop: impl Future) {
        let mut stop = pin!(stop);
        let mut waiting = Waiting::default();
        let mut failures = 0;
        let mut is_stopping = false;
        loop {
            if waiting.is_empty() && !is_stopping {
                tokio::select! {
                    heard = lines.recv() => match heard {
                        Ok(line) => waiting.add(&line),
                        Err(RecvError::Lagged(lost)) => waiting.lost += lost,
                        Err(RecvError::Closed) => return,
                    },
                    _ = &mut stop => is_stopping = true,
                }
            }
            if !is_stopping {
                let pause = match failures {
                    0 => BATCH_AGE,
                    _ => (AGAIN_AFTER * (1 << (failures - 1).min(5))).min(LONGEST_PAUSE),
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = &mut stop => is_stopping = true,
                }
            }
            waiting.take(&mut lines);
            if waiting.is_empty() {
                if is_stopping {
                    return;
                }
                continue;
            }
            match self.write(&waiting).await {
                Ok(()) => {
                    waiting.clear();
                    failures = 0;
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::error!(error = one_line(&error), "{FAILED}");
                    }
                    if is_stopping {
                        return;
                    }
                    failures += 1;
                }
            }
        }
    }

    async fn write(&self, waiting: &Waiting) -> Result<(), StoreError> {
        let mut revision = [0; 16];
        let drawn = self.random.fill(&mut revision);
        drawn.map_err(|error| StoreError::Failed {
            what: "draw a revision",
            source: error.into(),
        })?;
        // The id has the time of writing, which may be long after the lines came, because followers look for new records. If
        // the table kept an earlier attempt that seemed to fail, the lines are there twice.
        let now = self.clock.now();
        let record = Record {
            kind: Kind::ErrorLog,
            id: table::id(now, &self.writer, waiting.written),
            revision: Revision(revision),
            value: packed(waiting.text().into_bytes(), Packing::Fast),
            expires_at: now.checked_add(KEPT_FOR).ok(),
        };
        match self.table.append(&record).await {
            // The table already has this record from the same instant.
            Err(StoreError::Conflict) => Ok(()),
            outcome => outcome,
        }
    }
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost == 0
    }

    fn add(&mut self, line: &str) {
        if line.starts_with(FAILED) {
            return;
        }
        let line = line.replace(['\n', '\r'], " ");
        let end = line.floor_char_boundary(LONGEST_LINE);
        self.lines
            .push(line.get(..end).unwrap_or_default().to_owned());
    }

    /// Takes lines from the channel, as many as fit.
    fn take(&mut self, lines: &mut Receiver<Arc<str>>) {
        while self.lines.len() < BATCH_LINES {
            match lines.try_recv() {
                Ok(line) => self.add(&line),
                Err(TryRecvError::Lagged(lost)) => self.lost += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if self.lost > 0 {
            let lost = self.lost;
            text = format!("{lost} errors came faster than they could be written\n");
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    fn clear(&mut self) {
        self.written += self.lines.len().max(1) as u64;
        self.lines.clear();
        self.lost = 0;
    }
}
