//! Events as lines, each sealed to the one before.

use std::borrow::Cow;

use keyway_crypto::sha256;
use keyway_domain::audit::{Event, FORMAT};

use crate::hex;

/// What the first event of a writer names as the one before.
pub const FIRST_PREV: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The events of one writer.
pub(crate) struct Chain {
    writer: String,
    next: u64,
    prev: String,
}

impl Chain {
    pub(crate) fn begin(writer: String) -> Self {
        Self {
            writer,
            next: 0,
            prev: FIRST_PREV.to_owned(),
        }
    }

    pub(crate) fn writer(&self) -> &str {
        &self.writer
    }

    /// Adds the event to the chain, and its line to `lines`. Gives its number.
    pub(crate) fn add(
        &mut self,
        event: Event<'_>,
        lines: &mut Vec<u8>,
    ) -> Result<u64, serde_json::Error> {
        let seq = self.next;
        let begin = lines.len();
        let event = Event {
            audit: FORMAT,
            writer: Cow::Borrowed(&self.writer),
            seq,
            prev: Cow::Borrowed(&self.prev),
            hash: None,
            ..event
        };
        serde_json::to_writer(&mut *lines, &event)?;
        let hash = hex(&sha256(&[lines.get(begin..).unwrap_or_default()]));
        // An object ends in a brace, which makes room for the hash.
        lines.pop();
        lines.extend_from_slice(b",\"hash\":\"");
        lines.extend_from_slice(hash.as_bytes());
        lines.extend_from_slice(b"\"}\n");
        self.prev = hash;
        self.next += 1;
        Ok(seq)
    }
}

/// The hash that an event must have.
pub(crate) fn hash_of(event: &Event<'_>) -> Result<String, serde_json::Error> {
    let bare = Event {
        hash: None,
        ..event.clone()
    };
    Ok(hex(&sha256(&[&serde_json::to_vec(&bare)?])))
}
