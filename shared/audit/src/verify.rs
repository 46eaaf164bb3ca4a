//! Verifies that no event of a log was removed, altered or moved.
//!
//! A chain alone cannot show that its end was cut off. So verifying returns the last number and hash of each writer, to be
//! kept elsewhere and expected the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use keyway_domain::audit::Event;

use crate::chain::{first_prev, hash_of};
use crate::operator::OperatorAction;
use crate::wrapped::Unwrapping;

/// A difference from the log as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A line that should be an event cannot be read.
    Unreadable {
        /// The line's number, from 1.
        line: u64,
    },
    /// The event is not the one that was written.
    Altered {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// Events are missing.
    Missing {
        /// Their writer.
        writer: String,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The event comes after later ones.
    Reordered {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// Two events have this number.
    Repeated {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// An event that is known from elsewhere is missing: the log was cut off.
    CutOff {
        /// The writer.
        writer: String,
        /// The number of the event that was expected.
        seq: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { line } => write!(f, "line {line} is no event"),
            Self::Altered { writer, seq } => {
                write!(f, "event {seq} of writer {writer} was altered")
            }
            Self::Missing {
                writer,
                first,
                last,
            } if first == last => write!(f, "event {first} of writer {writer} is missing"),
            Self::Missing {
                writer,
                first,
                last,
            } => write!(f, "events {first} to {last} of writer {writer} are missing"),
            Self::Reordered { writer, seq } => {
                write!(f, "event {seq} of writer {writer} is not in its place")
            }
            Self::Repeated { writer, seq } => {
                write!(f, "event {seq} of writer {writer} is there more than once")
            }
            Self::CutOff { writer, seq } => write!(
                f,
                "event {seq} of writer {writer}, which is known, is missing at the end"
            ),
        }
    }
}

/// A writer's event, as it is known from elsewhere: `WRITER:NUMBER:HASH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownEvent {
    writer: String,
    seq: u64,
    hash: String,
}

/// The text is no [`KnownEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not WRITER:NUMBER:HASH, as `keyway audit verify` prints it")]
pub struct NotAnEvent;

impl FromStr for KnownEvent {
    type Err = NotAnEvent;

    fn from_str(text: &str) -> Result<Self, NotAnEvent> {
        let mut parts = text.split(':');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(writer), Some(seq), Some(hash), None) => Ok(Self {
                writer: writer.to_owned(),
                seq: seq.parse().map_err(|_| NotAnEvent)?,
                hash: hash.to_owned(),
            }),
            _ => Err(NotAnEvent),
        }
    }
}

impl fmt::Display for KnownEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.writer, self.seq, self.hash)
    }
}

/// One writer's events in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterReport {
    /// The writer's name.
    pub writer: String,
    /// The number of the first event.
    pub first: u64,
    /// The number of the last event.
    pub last: u64,
    /// How many events there are.
    pub count: u64,
    /// How many events the table did not get, as the writer itself recorded. Standard output has them.
    pub lost: u64,
    /// The last event's hash.
    pub hash: String,
}

impl WriterReport {
    /// The last event, to be kept elsewhere and expected the next time.
    pub fn last_event(&self) -> KnownEvent {
        KnownEvent {
            writer: self.writer.clone(),
            seq: self.last,
            hash: self.hash.clone(),
        }
    }
}

/// The result of verifying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Every writer in the log.
    pub writers: Vec<WriterReport>,
    /// The differences from the log as it was written; empty for a whole log.
    pub findings: Vec<Finding>,
    /// The backups that were restored into the table, by time.
    pub restores: Vec<RestoredBackup>,
}

/// A backup that was restored into the table, as its event says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RestoredBackup {
    /// When.
    pub time: String,
    /// The backup's id.
    pub backup: String,
    /// The id of the last record of the audit log in the backup, after which the log was continued.
    pub last_record: Option<String>,
}

impl RestoredBackup {
    fn of(event: &Event<'_>) -> Option<Self> {
        let resource = event.resource.as_deref()?.strip_prefix("backup/")?;
        let (backup, last_record) = match resource.split_once('/') {
            Some((backup, last)) => (backup, Some(last.to_owned())),
            None => (resource, None),
        };
        (event.operation == OperatorAction::RestoreBackup.as_str()).then(|| Self {
            time: event.time.to_string(),
            backup: backup.to_owned(),
            last_record,
        })
    }
}

impl Verified {
    /// How many events the log has.
    pub fn events(&self) -> u64 {
        self.writers.iter().map(|writer| writer.count).sum()
    }

    /// Whether a writer's first events are missing, for instance because they expired or were rotated away.
    pub fn lacks_beginning(&self) -> bool {
        let is_beginning = |finding: &Finding| matches!(finding, Finding::Missing { first: 0, .. });
        self.findings.iter().any(is_beginning)
    }
}

/// Verifies a log, line by line.
///
/// Numbers and hashes join a writer's events, never their times: a clock may go back.
#[derive(Default)]
pub struct Verifier {
    lines: u64,
    begins_midway: bool,
    is_in_any_order: bool,
    unwrapping: Unwrapping,
    expected: Vec<(String, u64, String)>,
    writers: BTreeMap<String, Seen>,
    findings: BTreeSet<Finding>,
    restores: BTreeSet<RestoredBackup>,
}

#[derive(Default)]
struct Seen {
    count: u64,
    /// Runs of consecutive events, by the number of the first. Events between two runs are missing.
    runs: BTreeMap<u64, Run>,
    /// The events that the table did not get, as the writer itself recorded.
    told_lost: BTreeSet<(u64, u64)>,
}

/// Consecutive events.
struct Run {
    last: u64,
    /// The first event's `prev`.
    prev: String,
    /// The last event's hash.
    hash: String,
}

impl Verifier {
    /// `begins_midway`: the log may lack the first events of a writer.
    pub fn new(begins_midway: bool) -> Self {
        Self {
            begins_midway,
            ..Self::default()
        }
    }

    /// For a table. Its records are in the order of their times, which is not the writer's order if its clock went back. The
    /// lines of a file are in the order in which they were written.
    #[must_use]
    pub fn in_any_order(mut self) -> Self {
        self.is_in_any_order = true;
        self
    }

    /// Expects the log to have this event.
    pub fn expect(&mut self, known: KnownEvent) {
        self.expected.push((known.writer, known.seq, known.hash));
    }

    /// Takes the next line of a log as it was written. Lines that are no events, such as the ordinary log's, are ignored.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        if line.starts_with("{\"audit\":") {
            self.text(line);
        }
    }

    /// Takes the next line of a log as a log driver or a collector keeps it: after a prefix, inside JSON, in parts, or with
    /// its fields in another order. Lines without an event are ignored.
    pub fn kept_line(&mut self, line: &str) {
        self.lines += 1;
        let mut unwrapping = std::mem::take(&mut self.unwrapping);
        unwrapping.line(line, &mut |text| self.text(text));
        self.unwrapping = unwrapping;
    }

    fn text(&mut self, text: &str) {
        match serde_json::from_str::<Event<'_>>(text) {
            Ok(event) if first_prev(event.audit).is_some() => self.event(&event),
            _ => {
                self.findings
                    .insert(Finding::Unreadable { line: self.lines });
            }
        }
    }

    fn event(&mut self, event: &Event<'_>) {
        self.restores.extend(RestoredBackup::of(event));
        let (writer, seq) = (event.writer.to_string(), event.seq);
        let hash = event.hash.as_deref().unwrap_or_default().to_owned();
        let expected = (self.expected.iter())
            .find(|(name, number, _)| *name == writer && *number == seq)
            .is_none_or(|(_, _, expected)| *expected == hash);
        let mut is_altered = !expected || !hash_of(event).is_ok_and(|computed| computed == hash);
        let seen = self.writers.entry(writer.clone()).or_default();
        seen.count += 1;
        let is_last = seen.runs.range(seq..).next().is_none();
        let before = match seen.runs.range(..=seq).next_back() {
            Some((_, run)) if run.last >= seq => {
                if is_altered {
                    self.findings.insert(Finding::Altered {
                        writer: writer.clone(),
                        seq,
                    });
                }
                self.findings.insert(Finding::Repeated { writer, seq });
                return;
            }
            Some((&first, run)) if run.last.saturating_add(1) == seq => {
                is_altered |= run.hash != event.prev;
                Some(first)
            }
            _ => None,
        };
        is_altered |= seq == 0 && first_prev(event.audit) != Some(&event.prev);
        if !is_last && !self.is_in_any_order {
            self.findings.insert(Finding::Reordered {
                writer: writer.clone(),
                seq,
            });
        }
        let mut run = Run {
            last: seq,
            prev: event.prev.to_string(),
            hash,
        };
        let after = seq.saturating_add(1);
        if let Some(next) = seen.runs.remove(&after) {
            if next.prev != run.hash {
                self.findings.insert(Finding::Altered {
                    writer: writer.clone(),
                    seq: after,
                });
            }
            (run.last, run.hash) = (next.last, next.hash);
        }
        match before.and_then(|first| seen.runs.get_mut(&first)) {
            Some(before) => (before.last, before.hash) = (run.last, run.hash),
            None => drop(seen.runs.insert(seq, run)),
        }
        if is_altered {
            self.findings.insert(Finding::Altered { writer, seq });
        } else if event.operation == "audit:Lost"
            && let Some(counts) = &event.counts
            && let (Some(&first), Some(&last)) = (counts.get("first_seq"), counts.get("last_seq"))
        {
            // The writer itself recorded which events the table did not get.
            seen.told_lost.insert((first, last));
        }
    }

    /// Returns the result.
    pub fn finish(mut self) -> Verified {
        let mut unwrapping = std::mem::take(&mut self.unwrapping);
        unwrapping.finish(&mut |text| self.text(text));
        let mut writers = Vec::with_capacity(self.writers.len());
        for (writer, seen) in self.writers {
            let mut report = WriterReport {
                writer,
                first: seen.runs.keys().next().copied().unwrap_or_default(),
                last: 0,
                count: seen.count,
                lost: 0,
                hash: String::new(),
            };
            let mut next = if self.begins_midway { report.first } else { 0 };
            for (first, run) in seen.runs {
                if first > next {
                    let last = first - 1;
                    if seen.told_lost.contains(&(next, last)) {
                        report.lost += first - next;
                    } else {
                        self.findings.insert(Finding::Missing {
                            writer: report.writer.clone(),
                            first: next,
                            last,
                        });
                    }
                }
                next = run.last.saturating_add(1);
                (report.last, report.hash) = (run.last, run.hash);
            }
            writers.push(report);
        }
        for (writer, seq, _) in self.expected {
            let has = (writers.iter()).any(|seen| seen.writer == writer && seen.last >= seq);
            if !has {
                self.findings.insert(Finding::CutOff { writer, seq });
            }
        }
        Verified {
            writers,
            findings: self.findings.into_iter().collect(),
            restores: self.restores.into_iter().collect(),
        }
    }
}
