//! Whether a log is whole: that nothing was removed from it, altered or put elsewhere.
//!
//! What a chain cannot show by itself is that its end was cut off. So the last number and hash of each writer are told, to
//! be kept elsewhere and expected the next time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use keyway_domain::audit::Event;

use crate::chain::{FIRST_PREV, hash_of};

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A line that should be an event is none.
    Unreadable {
        /// Which line, from 1.
        line: u64,
    },
    /// The event is not the one that was written.
    Altered {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// Events are not there.
    Missing {
        /// Their writer.
        writer: String,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The event stands after later ones.
    Reordered {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// There is another event of this number.
    Repeated {
        /// Its writer.
        writer: String,
        /// Its number.
        seq: u64,
    },
    /// What is known from elsewhere is not there: the log was cut off.
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

/// What was seen of a writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriterReport {
    /// Who it is.
    pub writer: String,
    /// The number of the first event.
    pub first: u64,
    /// The number of the last event.
    pub last: u64,
    /// How many there are.
    pub count: u64,
    /// How many it says itself that the table did not get; standard output has them.
    pub lost: u64,
    /// The last event's hash.
    pub hash: String,
}

/// What came of verifying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Every writer that was met.
    pub writers: Vec<WriterReport>,
    /// What is not as it was written; nothing when all is well.
    pub findings: Vec<Finding>,
}

/// Verifies a log, line by line.
#[derive(Default)]
pub struct Verifier {
    lines: u64,
    begins_midway: bool,
    expected: Vec<(String, u64, String)>,
    writers: BTreeMap<String, Seen>,
    findings: BTreeSet<Finding>,
}

struct Seen {
    report: WriterReport,
    next: u64,
    hash: String,
    /// Ranges of numbers, both ends included.
    missing: Vec<(u64, u64)>,
}

impl Verifier {
    /// `begins_midway`: whether what comes may be the later part of a log, so that a writer's first events may lack.
    pub fn new(begins_midway: bool) -> Self {
        Self {
            begins_midway,
            ..Self::default()
        }
    }

    /// What is known of a writer from elsewhere: an event's number and hash.
    pub fn expect(&mut self, writer: String, seq: u64, hash: String) {
        self.expected.push((writer, seq, hash));
    }

    /// The next line of a log. One that is no event's, as those of the ordinary log are, is passed over.
    pub fn line(&mut self, line: &str) {
        self.lines += 1;
        if !line.starts_with("{\"audit\":") {
            return;
        }
        let Ok(event) = serde_json::from_str::<Event<'_>>(line) else {
            self.findings
                .insert(Finding::Unreadable { line: self.lines });
            return;
        };
        self.event(&event);
    }

    fn event(&mut self, event: &Event<'_>) {
        let (writer, seq) = (event.writer.to_string(), event.seq);
        let hash = event.hash.as_deref().unwrap_or_default().to_owned();
        let expected = (self.expected.iter())
            .find(|(name, number, _)| *name == writer && *number == seq)
            .is_none_or(|(_, _, expected)| *expected == hash);
        let mut is_altered = !expected || !hash_of(event).is_ok_and(|computed| computed == hash);
        let begins_midway = self.begins_midway;
        let seen = self.writers.entry(writer.clone()).or_insert_with(|| Seen {
            report: WriterReport {
                writer: writer.clone(),
                first: seq,
                last: seq,
                count: 0,
                lost: 0,
                hash: String::new(),
            },
            next: if begins_midway { seq } else { 0 },
            hash: match seq {
                0 => FIRST_PREV.to_owned(),
                _ if begins_midway => event.prev.to_string(),
                _ => String::new(),
            },
            missing: Vec::new(),
        });
        seen.report.count += 1;
        if seq < seen.next {
            let was_missing =
                (seen.missing.iter()).position(|&(first, last)| (first..=last).contains(&seq));
            let finding = match was_missing {
                Some(at) => {
                    let (first, last) = seen.missing.swap_remove(at);
                    if first < seq {
                        seen.missing.push((first, seq - 1));
                    }
                    if seq < last {
                        seen.missing.push((seq + 1, last));
                    }
                    Finding::Reordered {
                        writer: writer.clone(),
                        seq,
                    }
                }
                None => Finding::Repeated {
                    writer: writer.clone(),
                    seq,
                },
            };
            self.findings.insert(finding);
        } else {
            if seq > seen.next {
                seen.missing.push((seen.next, seq - 1));
            } else if event.prev != seen.hash {
                is_altered = true;
            }
            seen.next = seq + 1;
            seen.hash.clone_from(&hash);
            seen.report.last = seq;
            seen.report.hash = hash;
        }
        if is_altered {
            self.findings.insert(Finding::Altered { writer, seq });
        } else if event.operation == "audit:Lost"
            && let Some(counts) = &event.counts
            && let (Some(&first), Some(&last)) = (counts.get("first_seq"), counts.get("last_seq"))
        {
            // The chain says itself what is not in the table, and that cannot be said later.
            seen.missing.retain(|gap| {
                let is_told = *gap == (first, last);
                if is_told {
                    seen.report.lost += last - first + 1;
                }
                !is_told
            });
        }
    }

    /// What came of it.
    pub fn finish(mut self) -> Verified {
        for seen in self.writers.values() {
            for &(first, last) in &seen.missing {
                self.findings.insert(Finding::Missing {
                    writer: seen.report.writer.clone(),
                    first,
                    last,
                });
            }
        }
        for (writer, seq, _) in self.expected {
            let has = (self.writers.get(&writer)).is_some_and(|seen| seen.report.last >= seq);
            if !has {
                self.findings.insert(Finding::CutOff { writer, seq });
            }
        }
        Verified {
            writers: self.writers.into_values().map(|seen| seen.report).collect(),
            findings: self.findings.into_iter().collect(),
        }
    }
}
