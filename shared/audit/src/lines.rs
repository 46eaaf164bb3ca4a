//! What a process has said: the lines that are to be written out, and those that wait for the table.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keyway_domain::audit::Event;

use crate::chain::Chain;

/// Of strangers, one event in so long a time is in the table.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// And the number of the others comes this often.
const SUMMARY_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Line {
    pub(crate) text: Arc<str>,
    pub(crate) seq: u64,
    pub(crate) time: Timestamp,
}

/// What has been written and what waits for the table.
pub(crate) struct Lines {
    pub(crate) own: Chain,
    strangers: Chain,
    /// How many lines there are so far.
    pub(crate) count: u64,
    /// Those of them that have not been written out.
    pub(crate) unwritten: Vec<u8>,
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
            count: 0,
            unwritten: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            waiting_since: Duration::ZERO,
            lost: None,
            sampled: None,
            counted: BTreeMap::new(),
            counted_since: now,
        }
    }

    /// The event's number and line.
    pub(crate) fn chain(&mut self, event: Event<'_>) -> Option<(u64, Arc<str>)> {
        let begin = self.unwritten.len();
        let seq = said(self.own.add(event, &mut self.unwritten));
        let text = self.line(begin, seq.is_some())?;
        Some((seq?, text))
    }

    pub(crate) fn chain_stranger(&mut self, event: Event<'_>) -> Option<Arc<str>> {
        let begin = self.unwritten.len();
        let seq = said(self.strangers.add(event, &mut self.unwritten));
        self.line(begin, seq.is_some())
    }

    /// The line that was just added.
    fn line(&mut self, begin: usize, is_whole: bool) -> Option<Arc<str>> {
        let added = self.unwritten.get(begin..).unwrap_or_default();
        let text = std::str::from_utf8(added).ok().filter(|_| is_whole);
        let Some(text) = text.and_then(|text| text.strip_suffix('\n')).map(Arc::from) else {
            self.unwritten.truncate(begin);
            return None;
        };
        self.count += 1;
        Some(text)
    }

    /// Hands over what was not written out, in exchange for an empty buffer. Gives the number of the last line.
    pub(crate) fn unwritten(&mut self, buffer: &mut Vec<u8>) -> u64 {
        std::mem::swap(&mut self.unwritten, buffer);
        self.count
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

/// An event is strings and numbers, so it can always be encoded; if not, it is said, and taken for not written.
fn said(encoded: Result<u64, serde_json::Error>) -> Option<u64> {
    encoded
        .inspect_err(|error| tracing::error!(%error, "an event cannot be encoded"))
        .ok()
}
