//! The events of a process: first those without a place in a chain, then the lines that wait for the table.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::chain::Chain;

/// The most events in a record of the table, and about the most bytes.
const BATCH_EVENTS: usize = 400;
const BATCH_BYTES: usize = 256 << 10;
/// A record's events are at most this much later than its first, and none is earlier. So a reader knows which records may
/// hold an event.
pub(crate) const BATCH_SPAN: SignedDuration = SignedDuration::from_secs(60);
/// How many events wait when the table fails. Later ones are not written to it; an event says which are missing.
const MOST_WAITING: usize = 16_384;
/// The table gets one event of unauthenticated callers in this time.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// And how often it gets the number of the others.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// Events that have no place in a chain yet, in order. The next write gives them one.
#[derive(Default)]
pub(crate) struct Queue {
    events: Vec<Unplaced>,
    /// How many events there were so far. They are numbered from 1.
    pub(crate) count: u64,
}

/// An event without a place in a chain.
pub(crate) struct Unplaced {
    pub(crate) number: u64,
    /// The end of its line: all fields after `prev`.
    pub(crate) text: String,
    /// For a request of an unauthenticated caller, its outcome.
    pub(crate) unauthenticated: Option<&'static str>,
}

impl Queue {
    /// Returns the event's number.
    pub(crate) fn add(&mut self, text: String, unauthenticated: Option<&'static str>) -> u64 {
        self.count += 1;
        self.events.push(Unplaced {
            number: self.count,
            text,
            unauthenticated,
        });
        self.count
    }

    /// Takes all events.
    pub(crate) fn take(&mut self) -> Vec<Unplaced> {
        std::mem::take(&mut self.events)
    }
}

/// The position of a line in the table's chain.
pub(crate) struct ChainPosition {
    pub(crate) seq: u64,
    /// Once the table has this line, it has all its events up to this number.
    pub(crate) event: u64,
    pub(crate) time: Timestamp,
}

/// Lines that wait for the table, in one text: a `String` for each would cost more than the copy.
#[derive(Default)]
pub(crate) struct Waiting {
    text: String,
    /// Each with the length of its line.
    positions: VecDeque<(ChainPosition, usize)>,
    /// Since when the oldest line waits.
    since: Duration,
}

/// The content of the next record.
pub(crate) struct Taken {
    pub(crate) first: ChainPosition,
    /// The number of the last event.
    pub(crate) event: u64,
    pub(crate) lines: String,
}

impl Waiting {
    pub(crate) fn len(&self) -> usize {
        self.positions.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MOST_WAITING
    }

    /// Whether the waiting lines fill a record.
    pub(crate) fn is_much(&self) -> bool {
        self.len() >= BATCH_EVENTS || self.text.len() >= BATCH_BYTES
    }

    /// How long the oldest line has waited.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> Option<u64> {
        self.positions.back().map(|(position, _)| position.event)
    }

    /// Adds a line; `line` includes its line end.
    pub(crate) fn push(&mut self, line: &str, position: ChainPosition, now: Duration) {
        if self.is_empty() {
            self.since = now;
        }
        self.text.push_str(line);
        self.positions.push_back((position, line.len()));
    }

    /// Takes the oldest lines that fit in one record.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Taken> {
        let (first, mut bytes) = self.positions.pop_front()?;
        let (mut next, mut event, mut count) = (first.seq + 1, first.event, 1);
        let span = SignedDuration::ZERO..=BATCH_SPAN;
        while count < BATCH_EVENTS
            // A gap from lost events begins a new record. So does an event that is earlier because the clock went back.
            && let Some((position, length)) = self.positions.pop_front_if(|(position, length)| {
                position.seq == next
                    && bytes + *length <= BATCH_BYTES
                    && span.contains(&position.time.duration_since(first.time))
            })
        {
            (next, event, count) = (position.seq + 1, position.event, count + 1);
            bytes += length;
        }
        let lines = self.text.get(..bytes).unwrap_or_default().to_owned();
        self.text.replace_range(..bytes, "");
        // A text of this size is needed again, but not the room for lines that waited while the table failed.
        self.text.shrink_to(2 * BATCH_BYTES);
        self.since = now;
        Some(Taken {
            first,
            event,
            lines,
        })
    }
}

/// The chains, and what waits for the table.
pub(crate) struct Lines {
    own: Chain,
    unauthenticated: Chain,
    pub(crate) waiting: Waiting,
    /// The first and last number of the events that did not fit.
    pub(crate) lost: Option<(u64, u64)>,
    sampled: Option<Duration>,
    /// How many requests of unauthenticated callers are not in the table, by outcome.
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) counted_since: Duration,
}

impl Lines {
    /// Empty chains of this writer.
    pub(crate) fn begin(writer: String, now: Duration) -> Self {
        Self {
            unauthenticated: Chain::begin(format!("{writer}-strangers")),
            own: Chain::begin(writer),
            waiting: Waiting::default(),
            lost: None,
            sampled: None,
            counted: BTreeMap::new(),
            counted_since: now,
        }
    }

    /// Adds the event to the table's chain, and its line to `lines`. Returns its number there.
    pub(crate) fn chain(&mut self, time: &str, event: &Unplaced, lines: &mut String) -> u64 {
        self.own.add(time, &event.text, lines)
    }

    /// As [`Lines::chain`], for the chain of unauthenticated callers.
    pub(crate) fn chain_unauthenticated(
        &mut self,
        time: &str,
        event: &Unplaced,
        lines: &mut String,
    ) {
        self.unauthenticated.add(time, &event.text, lines);
    }

    pub(crate) fn is_sampled(&mut self, now: Duration) -> bool {
        let is_due = self
            .sampled
            .is_none_or(|last| now.saturating_sub(last) >= SAMPLE_EVERY);
        if is_due {
            self.sampled = Some(now);
        }
        is_due
    }

    /// The counts of requests of unauthenticated callers that are not in the table, when a summary is due.
    pub(crate) fn summary(&mut self, now: Duration) -> Option<BTreeMap<String, u64>> {
        let is_due = now.saturating_sub(self.counted_since) >= SUMMARY_EVERY
            || self.counted_since == Duration::ZERO;
        if self.counted.is_empty() || !is_due {
            return None;
        }
        self.counted_since = now;
        let counted = std::mem::take(&mut self.counted);
        Some(
            counted
                .into_iter()
                .map(|(outcome, count)| (outcome.to_owned(), count))
                .collect(),
        )
    }
}
