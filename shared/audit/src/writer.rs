//! Writes the log.

mod requests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use keyway_domain::audit::Event;
use keyway_domain::one_line;
use keyway_domain::ports::{Clock, Kind, Random, RandomError, Record, Revision, StoreError};
use keyway_domain::service::{Degraded, HealthCheck};
use keyway_http::{Stopwatch, Unrecorded};
use tokio::sync::{Notify, broadcast};

use crate::encoding::unplaced;
use crate::hex;
use crate::lines::{ChainPosition, Lines, Queue, Unplaced};
use crate::output::{AuditOutput, Out};
use crate::packed::{Packing, packed};
use crate::table::{self, AuditTable};

/// How requests are answered when the log cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// Mutations and data keys are refused.
    Required,
    /// They are allowed, and the failure goes to the error log.
    BestEffort,
}

/// The parts of encryption contexts that events record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contexts {
    /// Their names.
    Names,
    /// Their names and values.
    Values,
}

/// When events that are not urgent go to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flushing {
    /// Soon, by a task that runs [`AuditWriter::keep_flushing`].
    ByTask,
    /// With the next request after they are due. A function may be frozen once it has answered, so no task would run.
    ByRequest,
}

/// How an [`AuditWriter`] writes the log.
#[derive(Debug, Clone, Copy)]
pub struct AuditWriterSettings {
    /// How requests are answered when the log cannot be written.
    pub strictness: Strictness,
    /// The parts of encryption contexts that events record.
    pub contexts: Contexts,
    /// For how many days the table keeps events; 0 keeps them for ever.
    pub retention_days: u32,
    /// When events that are not urgent go to the table.
    pub flushing: Flushing,
    /// How long events that are not urgent wait for others, to be written together.
    pub batch_age: Duration,
}

/// The pause after a failure before the next attempt.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a request tries to write without blocking on the lock.
const TRIES: usize = 8;
/// How many events a follower may lag behind. It loses older ones.
pub(crate) const FOLLOWED: usize = 1024;

/// Writes the log of one process.
pub struct AuditWriter {
    writer: String,
    table: AuditTable,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    settings: AuditWriterSettings,
    audit_output: AuditOutput,
    /// Requests that have begun and are not answered yet.
    in_flight: AtomicUsize,
    /// Events that are not being written to the output yet.
    queue: Mutex<Queue>,
    lines: Mutex<Lines>,
    /// The record that is being written. The holder of the lock writes for all that wait for it.
    writing: tokio::sync::Mutex<Option<Batch>>,
    /// The table has every event up to this number that it is meant to have.
    durable: AtomicU64,
    /// Whether the table has accepted a record since the start.
    is_proven: AtomicBool,
    output_failed: AtomicBool,
    table_failed: AtomicBool,
    /// When the output or the table last failed, or was last tried again.
    tried: Mutex<Duration>,
    work: Notify,
    full: Notify,
    followers: broadcast::Sender<Arc<str>>,
    /// Lines that followers lost because they read too slowly.
    missed: AtomicU64,
    events: AtomicU64,
    failures: AtomicU64,
}

/// The writer's figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditWriterMetrics {
    /// Events so far.
    pub events: u64,
    /// Events that wait for the table.
    pub waiting: u64,
    /// Lines that followers lost because they read too slowly.
    pub missed: u64,
    /// Writes to the output or the table that failed.
    pub failures: u64,
}

struct Batch {
    record: Record,
    /// Once the table has the record, it has all its events up to this number.
    event: u64,
}

/// The number of an event in the queue, from 1. `None` when it could not be encoded.
type Said = Option<u64>;

/// Events are not written. The cause is the table's failure, if the table was tried.
#[derive(Debug)]
pub(crate) struct NotWritten(pub(crate) Option<StoreError>);

impl AuditWriter {
    /// An audit writer that writes to `output` and `table`. Nothing is written yet.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn new(
        output: Box<dyn Write + Send>,
        table: AuditTable,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        settings: AuditWriterSettings,
    ) -> Result<Self, RandomError> {
        let mut drawn = [0; 8];
        random.fill(&mut drawn)?;
        let writer = hex(&drawn);
        let lines = Mutex::new(Lines::begin(writer.clone(), clock.monotonic()));
        Ok(Self {
            writer,
            table,
            clock,
            random,
            settings,
            audit_output: AuditOutput::new(output),
            in_flight: AtomicUsize::new(0),
            queue: Mutex::default(),
            lines,
            writing: tokio::sync::Mutex::new(None),
            durable: AtomicU64::new(0),
            is_proven: AtomicBool::new(false),
            output_failed: AtomicBool::new(false),
            table_failed: AtomicBool::new(false),
            tried: Mutex::default(),
            work: Notify::new(),
            full: Notify::new(),
            followers: broadcast::channel(FOLLOWED).0,
            missed: AtomicU64::new(0),
            events: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// The clock that measures durations.
    pub fn stopwatch(&self) -> Stopwatch {
        let clock = Arc::clone(&self.clock);
        Arc::new(move || clock.monotonic())
    }

    /// Every event from now on, as its line of JSON without the line end. A slow reader loses the oldest and hears how many.
    pub fn follow(&self) -> broadcast::Receiver<Arc<str>> {
        self.followers.subscribe()
    }

    /// Counts lines that a follower lost because it read too slowly.
    pub(crate) fn missed(&self, lines: u64) {
        self.missed.fetch_add(lines, Ordering::Relaxed);
    }

    /// The writer's metrics.
    pub fn metrics(&self) -> AuditWriterMetrics {
        let waiting = self.lines().waiting.len();
        AuditWriterMetrics {
            events: self.events.load(Ordering::Relaxed),
            waiting: u64::try_from(waiting).unwrap_or(u64::MAX),
            missed: self.missed.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }

    /// The name of this writer, in its events and in the ids of its records.
    pub fn writer(&self) -> &str {
        &self.writer
    }

    /// Writes waiting events to the table for as long as this runs.
    pub async fn keep_flushing(&self) {
        loop {
            self.work.notified().await;
            while self.has_work() {
                tokio::select! {
                    () = tokio::time::sleep(self.settings.batch_age) => {}
                    () = self.full.notified() => {}
                }
                // `flush` logs a failure, and the events keep waiting.
                self.flush(None).await.ok();
            }
        }
    }

    /// Writes the events that still wait for the table. To be called at the end.
    pub async fn finish(&self) {
        self.lines().counted_since = Duration::ZERO;
        self.flush(None).await.ok();
    }

    fn has_work(&self) -> bool {
        let lines = self.lines();
        !lines.waiting.is_empty() || !lines.counted.is_empty()
    }

    fn add(&self, event: &Event<'_>, unauthenticated: Option<&'static str>) -> Said {
        let text = unplaced(event)
            .inspect_err(|error| tracing::error!(%error, "an event cannot be encoded"))
            .ok()?;
        Some(self.queue().add(text, unauthenticated))
    }

    /// Writes the event of an operation that no request asked for, to the output and to the table.
    pub(crate) async fn record_background(&self, event: &Event<'_>) -> Result<(), NotWritten> {
        let said = self.add(event, None);
        let is_output = self.write_out(said);
        let flushed = self.flush(said).await;
        match self.settings.strictness {
            Strictness::BestEffort => Ok(()),
            Strictness::Required if !is_output => Err(NotWritten(None)),
            Strictness::Required => flushed,
        }
    }

    /// Writes an event about the log itself. Returns whether the output has it.
    fn say(&self, operation: &'static str, counts: Option<BTreeMap<String, u64>>) -> bool {
        self.write_out(self.add(&own_event(operation, counts), None))
    }

    /// Gives events their place in a chain and appends their lines to `out`.
    fn place(&self, events: Vec<Unplaced>, out: &mut String) {
        let (now, time) = (self.clock.monotonic(), self.clock.now());
        let at = Moment {
            now,
            time,
            text: &time.to_string(),
        };
        let mut lines = self.lines();
        for event in events {
            match event.unauthenticated {
                Some(outcome) if !lines.is_sampled(now) => {
                    *lines.counted.entry(outcome).or_default() += 1;
                    let begin = out.len();
                    lines.chain_unauthenticated(at.text, &event, out);
                    self.tell(out.get(begin..).unwrap_or_default());
                    self.work.notify_one();
                }
                _ => self.place_own(&mut lines, &at, &event, out),
            }
        }
    }

    fn place_own(&self, lines: &mut Lines, at: &Moment<'_>, event: &Unplaced, out: &mut String) {
        let is_full = lines.waiting.is_full();
        if !is_full && let Some((first, last)) = lines.lost.take() {
            let counts = BTreeMap::from([
                ("first_seq".to_owned(), first),
                ("last_seq".to_owned(), last),
            ]);
            if let Ok(text) = unplaced(&own_event("audit:Lost", Some(counts))) {
                let lost = Unplaced {
                    number: event.number - 1,
                    text,
                    unauthenticated: None,
                };
                self.place_own(lines, at, &lost, out);
            }
        }
        let begin = out.len();
        let seq = lines.chain(at.text, event, out);
        let line = out.get(begin..).unwrap_or_default();
        self.tell(line);
        if is_full {
            let (first, _) = lines.lost.unwrap_or((seq, seq));
            lines.lost = Some((first, seq));
        } else {
            if lines.waiting.is_empty() {
                self.work.notify_one();
            }
            let position = ChainPosition {
                seq,
                event: event.number,
                time: at.time,
            };
            lines.waiting.push(line, position, at.now);
        }
        if lines.waiting.is_much() {
            self.full.notify_one();
        }
    }

    /// Counts the line and sends it to followers.
    fn tell(&self, line: &str) {
        self.events.fetch_add(1, Ordering::Relaxed);
        if self.followers.receiver_count() > 0 {
            // The last follower may just have gone.
            self.followers.send(line.trim_end().into()).ok();
        }
    }

    /// Writes all events that the output does not have yet. Returns whether it has this one.
    fn write_out(&self, said: Said) -> bool {
        // It is never `None`, because this call waits for the lock.
        self.try_put_out(said, true).unwrap_or(false)
    }

    /// As [`AuditWriter::write_out`], but yields to other tasks while another request writes.
    async fn put_out_together(&self, said: Said) -> bool {
        for _ in 0..TRIES {
            if let Some(is_output) = self.try_put_out(said, false) {
                return is_output;
            }
            tokio::task::yield_now().await;
        }
        self.write_out(said)
    }

    /// As [`AuditWriter::write_out`]; `None` if another request is writing and `may_wait` is false.
    fn try_put_out(&self, said: Said, may_wait: bool) -> Option<bool> {
        let Some(event) = said else {
            return Some(false);
        };
        let take = || {
            let mut queue = self.queue();
            (queue.take(), queue.count)
        };
        let make = |events, out: &mut String| self.place(events, out);
        let written = match self.audit_output.write_up_to(event, may_wait, take, make) {
            Out::Yes => return Some(true),
            Out::No => return Some(false),
            Out::Busy => return None,
            Out::Tried(written) => written,
        };
        if written.is_err() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        } else if !self.output_failed.load(Ordering::Relaxed) {
            return Some(true);
        }
        let had_failed = self.output_failed.swap(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written
            && !had_failed
        {
            *self.tried() = self.clock.monotonic();
            tracing::error!(%error, "the audit log cannot be written to standard output");
        }
        Some(written.is_ok())
    }

    /// Writes the event of this number and all before it to the table; without a number, all events so far.
    async fn flush(&self, up_to: Option<u64>) -> Result<(), NotWritten> {
        let mut writing = self.writing.lock().await;
        // Queued events go with the rest.
        let count = self.queue().count;
        self.write_out(Some(count));
        // Events that come during this write wait for the next one. Otherwise this loop would not end under load, and would
        // write a record for every few events.
        let up_to = up_to.or_else(|| self.lines().waiting.last());
        if self.table_failed.load(Ordering::Relaxed) {
            // Requests that waited during a failure must not each wait for another one.
            let now = self.clock.monotonic();
            let mut tried = self.tried();
            if now.saturating_sub(*tried) < AGAIN_AFTER {
                return Err(NotWritten(None));
            }
            *tried = now;
        }
        loop {
            if up_to.is_some_and(|event| self.durable.load(Ordering::Relaxed) >= event) {
                return Ok(());
            }
            if writing.is_none() {
                *writing = self.take().map_err(|_| NotWritten(None))?;
            }
            // If a request is dropped here, the next one writes the same record again.
            let Some(batch) = writing.as_ref() else {
                return Ok(());
            };
            if let Err(error) = self.table.append(&batch.record).await {
                self.failures.fetch_add(1, Ordering::Relaxed);
                if !self.table_failed.swap(true, Ordering::Relaxed) {
                    tracing::error!(
                        error = one_line(&error),
                        "the audit log cannot be written to the table"
                    );
                }
                *self.tried() = self.clock.monotonic();
                return Err(NotWritten(Some(error)));
            }
            self.durable.store(batch.event, Ordering::Relaxed);
            self.is_proven.store(true, Ordering::Relaxed);
            if self.table_failed.swap(false, Ordering::Relaxed) {
                tracing::info!("the audit log can be written to the table again");
            }
            *writing = None;
        }
    }

    /// Makes a record of the oldest events that wait.
    fn take(&self) -> Result<Option<Batch>, RandomError> {
        let mut revision = [0; 16];
        self.random.fill(&mut revision)?;
        let now = self.clock.monotonic();
        let counts = self.lines().summary(now);
        if counts.is_some() {
            self.say("audit:Strangers", counts);
        }
        let taken = self.lines().waiting.take(now);
        Ok(taken.map(|taken| Batch {
            record: Record {
                kind: Kind::Audit,
                id: table::id(taken.first.time, &self.writer, taken.first.seq),
                revision: Revision(revision),
                value: packed(taken.lines.into_bytes(), self.packing()),
                expires_at: self.expiry(taken.first.time),
            },
            event: taken.event,
        }))
    }

    fn packing(&self) -> Packing {
        match self.settings.flushing {
            Flushing::ByTask => Packing::Fast,
            // A function's table is charged by size.
            Flushing::ByRequest => Packing::Small,
        }
    }

    fn expiry(&self, time: Timestamp) -> Option<Timestamp> {
        let days = i64::from(self.settings.retention_days);
        if days == 0 {
            return None;
        }
        time.checked_add(SignedDuration::from_hours(24 * days)).ok()
    }

    /// Tries the output and the table again if they failed, and the table if it was never tried.
    async fn prove(&self) -> Result<(), Unrecorded> {
        if self.output_failed.load(Ordering::Relaxed) {
            {
                let now = self.clock.monotonic();
                let mut tried = self.tried();
                if now.saturating_sub(*tried) < AGAIN_AFTER {
                    return Err(Unrecorded);
                }
                *tried = now;
            }
            if !self.say("audit:Resumed", None) {
                return Err(Unrecorded);
            }
        }
        if !self.is_proven.load(Ordering::Relaxed) && !self.has_work() {
            self.say("audit:Started", None);
        }
        if !self.is_proven.load(Ordering::Relaxed) || self.table_failed.load(Ordering::Relaxed) {
            self.flush(None).await.map_err(|_| Unrecorded)?;
        }
        Ok(())
    }

    /// Whether waiting events are old enough, or numerous enough, to be written.
    fn is_due(&self) -> bool {
        let now = self.clock.monotonic();
        let lines = self.lines();
        let waiting = &lines.waiting;
        waiting.is_much() || !waiting.is_empty() && waiting.age(now) >= self.settings.batch_age
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic leaves at worst a number that is used twice, which verifying finds.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tried(&self) -> MutexGuard<'_, Duration> {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time at which events are chained.
struct Moment<'a> {
    now: Duration,
    time: Timestamp,
    /// `time` as text.
    text: &'a str,
}

fn own_event(operation: &'static str, counts: Option<BTreeMap<String, u64>>) -> Event<'static> {
    Event {
        dialect: Cow::Borrowed("audit"),
        operation: Cow::Borrowed(operation),
        counts,
        ..Event::default()
    }
}

#[async_trait]
impl HealthCheck for AuditWriter {
    async fn degraded(&self) -> Vec<Degraded> {
        // In this mode nothing is refused, so a failure shows in the error log alone.
        if self.settings.strictness == Strictness::BestEffort {
            return Vec::new();
        }
        let has_failed = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        if has_failed(&self.output_failed)
            || has_failed(&self.table_failed)
            || !has_failed(&self.is_proven)
        {
            // As before a mutation. The flags below say whether it failed.
            self.prove().await.ok();
        }
        let output = has_failed(&self.output_failed).then_some(Degraded::AuditOutput);
        let table = has_failed(&self.table_failed).then_some(Degraded::AuditTable);
        output.into_iter().chain(table).collect()
    }
}
