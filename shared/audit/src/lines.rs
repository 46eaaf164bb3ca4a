//! What a process says: first what has no place in a chain yet, then what waits for the table.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::chain::Chain;

/// A record of the table holds no more events than this, and not many more bytes than that.
const BATCH_EVENTS: usize = 400;
const BATCH_BYTES: usize = 256 << 10;
/// A record's events are no later than this after its first, and none is earlier, so that whoever looks for an event knows
/// where.
pub(crate) const BATCH_SPAN: SignedDuration = SignedDuration::from_secs(60);
/// So many events wait for a table that fails. Later ones are not in it, and it is said which.
const MOST_WAITING: usize = 16_384;
/// Of unauthenticated callers, one event in so long a time is in the table.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// And the number of the others comes this often.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

/// Events that have no place in a chain yet, in their order. Whoever writes the next lines out gives them one.
#[derive(Default)]
pub(crate) struct Queue {
    events: Vec<Unplaced>,
    /// How many there were so far. They are numbered from 1.
    pub(crate) count: u64,
}

/// An event without its place.
pub(crate) struct Unplaced {
    pub(crate) number: u64,
    /// The end of its line.
    pub(crate) text: String,
    /// What became of an unauthenticated caller's request.
    pub(crate) unauthenticated: Option<&'static str>,
}

impl Queue {
    /// Gives the event's number.
    pub(crate) fn add(&mut self, text: String, unauthenticated: Option<&'static str>) -> u64 {
        self.count += 1;
        self.events.push(Unplaced {
            number: self.count,
            text,
            unauthenticated,
        });
        self.count
    }

    /// Hands over all there are.
    pub(crate) fn take(&mut self) -> Vec<Unplaced> {
        std::mem::take(&mut self.events)
    }
}

/// Where a line of the table's chain stands.
pub(crate) struct ChainPosition {
    pub(crate) seq: u64,
    /// When the table has this line, it has all events to this one.
    pub(crate) event: u64,
    pub(crate) time: Timestamp,
}

/// Lines that wait for the table, one after another in one text: each would else have room of its own, which costs more
/// than the copy.
#[derive(Default)]
pub(crate) struct Waiting {
    text: String,
    /// With the length of each line.
    positions: VecDeque<(ChainPosition, usize)>,
    /// When the oldest of those that wait came.
    since: Duration,
}

/// What becomes a record.
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

    /// Whether what waits fills a record.
    pub(crate) fn is_much(&self) -> bool {
        self.len() >= BATCH_EVENTS || self.text.len() >= BATCH_BYTES
    }

    /// How long the oldest has waited.
    pub(crate) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.since)
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> Option<u64> {
        self.positions.back().map(|(position, _)| position.event)
    }

    /// Adds a line, with its end.
    pub(crate) fn push(&mut self, line: &str, position: ChainPosition, now: Duration) {
        if self.is_empty() {
            self.since = now;
        }
        self.text.push_str(line);
        self.positions.push_back((position, line.len()));
    }

    /// The oldest lines that fit a record.
    pub(crate) fn take(&mut self, now: Duration) -> Option<Taken> {
        let (first, mut bytes) = self.positions.pop_front()?;
        let (mut next, mut event, mut count) = (first.seq + 1, first.event, 1);
        let span = SignedDuration::ZERO..=BATCH_SPAN;
        while count < BATCH_EVENTS
            // Events that were lost in between begin a record of their own, and so do those that are earlier, because the
            // clock went back.
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
        // As much will come again, but for what waited while the table failed.
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
    /// The first and last of those that did not fit.
    pub(crate) lost: Option<(u64, u64)>,
    sampled: Option<Duration>,
    /// The requests of unauthenticated callers that are not in the table, by what became of them.
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) counted_since: Duration,
}

impl Lines {
    /// None yet, of this writer.
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

    /// Gives an event its place: its number. Its line goes to `lines`.
    pub(crate) fn chain(&mut self, time: &str, event: &Unplaced, lines: &mut String) -> u64 {
        self.own.add(time, &event.text, lines)
    }

    /// As [`Lines::chain`], in the chain of unauthenticated callers.
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

    /// How many requests of unauthenticated callers are not in the table, when it is time to say so.
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
