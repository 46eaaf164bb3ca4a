//! Events as lines. Each has the hash of the one before.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyway_crypto::sha256;
use keyway_domain::audit::{Event, FORMAT};

use crate::hex;

/// The `prev` of a writer's first event: a hash of zeros.
const FIRST_PREV: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// The same in format 1.
const FIRST_PREV_1: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The `prev` of a writer's first event in this format; `None` for a format that is not known.
pub(crate) fn first_prev(format: u8) -> Option<&'static str> {
    match format {
        1 => Some(FIRST_PREV_1),
        FORMAT => Some(FIRST_PREV),
        _ => None,
    }
}

/// A hash as events of this format have it.
fn encoded(format: u8, hash: &[u8]) -> String {
    if format == 1 {
        hex(hash)
    } else {
        URL_SAFE_NO_PAD.encode(hash)
    }
}

/// The chain of one writer.
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

    /// Chains an event whose line ends in `end`, and appends the line to `lines`. Returns its number.
    pub(crate) fn add(&mut self, time: &str, end: &str, lines: &mut String) -> u64 {
        let seq = self.next;
        let begin = lines.len();
        // The same bytes as the encoded `Event`: none of these values needs escaping.
        for part in [
            "{\"audit\":",
            itoa::Buffer::new().format(FORMAT),
            ",\"time\":\"",
            time,
            "\",\"writer\":\"",
            &self.writer,
            "\",\"seq\":",
            itoa::Buffer::new().format(seq),
            ",\"prev\":\"",
            &self.prev,
            "\"",
            end,
        ] {
            lines.push_str(part);
        }
        let line = lines.get(begin..).unwrap_or_default();
        let hash = sha256(&[line.as_bytes()]);
        self.prev.clear();
        URL_SAFE_NO_PAD.encode_string(hash, &mut self.prev);
        // Removes the object's last brace, so that the hash can be added.
        lines.pop();
        for part in [",\"hash\":\"", &self.prev, "\"}\n"] {
            lines.push_str(part);
        }
        self.next += 1;
        seq
    }
}

/// Computes an event's hash.
pub(crate) fn hash_of(event: &Event<'_>) -> Result<String, serde_json::Error> {
    let bare = Event {
        hash: None,
        ..event.clone()
    };
    let hash = sha256(&[&serde_json::to_vec(&bare)?]);
    Ok(encoded(event.audit, &hash))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::encoding::unplaced;

    #[test]
    fn line_is_the_encoded_event() {
        let event = || Event {
            request_id: Some(Cow::Borrowed("r\"1\"")),
            dialect: Cow::Borrowed("kes"),
            operation: Cow::Borrowed("kms:é"),
            status: Some(200),
            ..Event::default()
        };
        let mut chain = Chain::begin("writer".to_owned());
        let mut prev = FIRST_PREV.to_owned();
        for seq in 0..12 {
            let mut line = String::new();
            let time = "2026-01-02T03:04:05.678Z";
            assert_eq!(
                chain.add(time, &unplaced(&event()).unwrap(), &mut line),
                seq
            );
            let mut expected = Event {
                audit: FORMAT,
                time: Cow::Borrowed(time),
                writer: Cow::Borrowed("writer"),
                seq,
                prev: Cow::Owned(prev),
                ..event()
            };
            let hash = hash_of(&expected).unwrap();
            expected.hash = Some(Cow::Borrowed(&hash));
            let expected = serde_json::to_string(&expected).unwrap();
            assert_eq!(line, expected + "\n");
            prev = hash;
        }
    }
}
