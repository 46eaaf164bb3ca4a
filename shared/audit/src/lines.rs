//! What a process says: first what has no place in a chain yet, then what waits for the table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::chain::Chain;

/// A record of the table holds no more events than this, and not many more bytes than that.
pub(crate) const BATCH_EVENTS: usize = 400;
pub(crate) const BATCH_BYTES: usize = 256 << 10;
/// Of strangers, one event in so long a time is in the table.
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
    /// What became of a stranger's request.
    pub(crate) stranger: Option<&'static str>,
}

impl Queue {
    /// Gives the event's number.
    pub(crate) fn add(&mut self, text: String, stranger: Option<&'static str>) -> u64 {
        self.count += 1;
        self.events.push(Unplaced {
            number: self.count,
            text,
            stranger,
        });
        self.count
    }

    /// Hands over all there are.
    pub(crate) fn take(&mut self) -> Vec<Unplaced> {
        std::mem::take(&mut self.events)
    }
}

/// A line of the table's chain.
pub(crate) struct Line {
    pub(crate) text: Arc<str>,
    pub(crate) seq: u64,
    /// When the table has this line, it has all events to this one.
    pub(crate) event: u64,
    pub(crate) time: Timestamp,
}

/// The chains, and what waits for the table.
pub(crate) struct Lines {
    own: Chain,
    strangers: Chain,
    pub(crate) waiting: VecDeque<Line>,
    pub(crate) waiting_bytes: usize,
    /// When the oldest of those that wait came.
    pub(crate) waiting_since: Duration,
    /// The first and last of those that did not fit.
    pub(crate) lost: Option<(u64, u64)>,
    sampled: Option<Duration>,
    /// The requests of strangers that are not in the table, by what became of them.
    pub(crate) counted: BTreeMap<&'static str, u64>,
    pub(crate) counted_since: Duration,
}

impl Lines {
    /// None yet, of this writer.
    pub(crate) fn begin(writer: String, now: Duration) -> Self {
        Self {
            strangers: Chain::begin(format!("{writer}-strangers")),
            own: Chain::begin(writer),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_since: Duration::ZERO,
            lost: None,
            sampled: None,
            counted: BTreeMap::new(),
            counted_since: now,
        }
    }

    /// Gives an event its place. Its line goes to `lines`, and comes back with its number.
    pub(crate) fn chain(&mut self, time: &str, text: &str, lines: &mut String) -> (u64, Arc<str>) {
        let begin = lines.len();
        let seq = self.own.add(time, text, lines);
        (seq, line(lines, begin))
    }

    pub(crate) fn chain_stranger(
        &mut self,
        time: &str,
        text: &str,
        lines: &mut String,
    ) -> Arc<str> {
        let begin = lines.len();
        self.strangers.add(time, text, lines);
        line(lines, begin)
    }

    /// Whether what waits fills a record.
    pub(crate) fn is_much(&self) -> bool {
        self.waiting.len() >= BATCH_EVENTS || self.waiting_bytes >= BATCH_BYTES
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

    /// How many requests of strangers are not in the table, when it is time to say so.
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

/// The line that was just added, without its end.
fn line(lines: &str, begin: usize) -> Arc<str> {
    let added = lines.get(begin..).unwrap_or_default();
    added.trim_end_matches('\n').into()
}
