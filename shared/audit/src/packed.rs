//! Compression of a log's records. Their lines are repetitive, and a table's writes and storage are charged by size.

use std::io::{self, Read, Write};

use keyway_domain::ports::Record;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};

/// The first bytes of an LZ4 frame. No line begins with them.
/// Source: LZ4 Frame Format Description 1.6.4, "Magic Number".
const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// The most bytes that a record may unpack to. The writer makes no larger ones.
const MOST: u64 = 4 << 20;

/// A record's value: the lines as an LZ4 frame, or uncompressed if the frame is no shorter.
pub(crate) fn packed(lines: Vec<u8>) -> Vec<u8> {
    match compressed(&lines) {
        Ok(frame) if frame.len() < lines.len() => frame,
        _ => lines,
    }
}

fn compressed(lines: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(lines)?;
    Ok(encoder.finish()?)
}

/// Stands for a frame that cannot be read. It is no event, but verifying reports it.
const BROKEN: &str = "{\"audit\":\"a record that cannot be read\"}\n";

/// The lines of a record of a log.
pub fn text(record: &Record) -> String {
    if record.value.starts_with(&MAGIC) {
        let mut text = String::new();
        let mut frame = FrameDecoder::new(record.value.as_slice()).take(MOST);
        let read = frame.read_to_string(&mut text);
        // A truncated frame may decode without an error, up to where it ends.
        let is_whole = read.is_ok() && text.ends_with('\n');
        return if is_whole { text } else { BROKEN.to_owned() };
    }
    String::from_utf8_lossy(&record.value).into_owned()
}

#[cfg(test)]
mod tests {
    use keyway_domain::ports::{Kind, Revision};

    use super::*;

    fn record(value: Vec<u8>) -> Record {
        Record {
            kind: Kind::Audit,
            id: "id".to_owned(),
            revision: Revision([0; 16]),
            value,
            expires_at: None,
        }
    }

    #[test]
    fn lines_come_back_and_take_less_room() {
        let lines: String = (0..2000)
            .map(|n| format!("{{\"seq\":{n},\"operation\":\"same\"}}\n"))
            .collect();
        let value = packed(lines.clone().into_bytes());
        assert!(value.len() * 3 < lines.len(), "{}", value.len());
        assert_eq!(text(&record(value)), lines);
    }

    #[test]
    fn lines_that_compression_does_not_shorten_stay_as_they_are() {
        assert_eq!(packed(b"{}\n".to_vec()), b"{}\n");
        assert_eq!(text(&record(b"{}\n".to_vec())), "{}\n");
    }

    #[test]
    fn broken_frame_is_reported() {
        let lines = "same and same and same and same\n".repeat(100);
        let whole = packed(lines.clone().into_bytes());
        for end in 0..whole.len() {
            let cut = text(&record(whole.get(..end).unwrap().to_vec()));
            // Perhaps only the mark at the end is missing.
            let is_frame = end >= MAGIC.len();
            assert!(cut == lines || !is_frame || cut == BROKEN, "{end}: {cut}");
        }
        // One byte repeated: a small frame can hold any number of them.
        let endless = packed(vec![b'a'; usize::try_from(MOST).unwrap() * 2]);
        assert!(text(&record(endless)).len() <= usize::try_from(MOST).unwrap());
    }
}
