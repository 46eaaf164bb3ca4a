//! Compression of a log's records. Their lines are repetitive, and a table's writes and storage are charged by size.

use std::io::{self, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use keyway_domain::ports::Record;
use lz4_flex::frame::{FrameDecoder, FrameEncoder};

/// The first bytes of an LZ4 frame. No line begins with them.
/// Source: LZ4 Frame Format Description 1.6.4, "Magic Number".
const LZ4: [u8; 4] = 0x184D_2204_u32.to_le_bytes();
/// The first bytes of a gzip file with deflated content. No line begins with them.
/// Source: RFC 1952, 2.3.1.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
/// The most bytes that a record may unpack to. The writer makes no larger ones.
const MOST: u64 = 4 << 20;

/// How records are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// As LZ4 frames, which take little time.
    Fast,
    /// By gzip: two thirds of LZ4's bytes, for stores that charge by size.
    Small,
}

/// A record's value: the lines compressed, or as they are if that is no longer.
pub(crate) fn packed(lines: Vec<u8>, packing: Packing) -> Vec<u8> {
    let compressed = match packing {
        Packing::Fast => frame(&lines),
        Packing::Small => gzip(&lines),
    };
    match compressed {
        Ok(compressed) if compressed.len() < lines.len() => compressed,
        _ => lines,
    }
}

fn frame(lines: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = FrameEncoder::new(Vec::new());
    encoder.write_all(lines)?;
    Ok(encoder.finish()?)
}

fn gzip(lines: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(lines)?;
    encoder.finish()
}

/// Stands for a frame that cannot be read. It is no event, but verifying reports it.
const BROKEN: &str = "{\"audit\":\"a record that cannot be read\"}\n";

/// The lines of a record of a log.
pub fn text(record: &Record) -> String {
    let value = record.value.as_slice();
    if value.starts_with(&LZ4) {
        return unpacked(FrameDecoder::new(value));
    }
    if value.starts_with(&GZIP) {
        return unpacked(GzDecoder::new(value));
    }
    String::from_utf8_lossy(value).into_owned()
}

fn unpacked(compressed: impl Read) -> String {
    let mut text = String::new();
    let read = compressed.take(MOST).read_to_string(&mut text);
    // A truncated frame may decode without an error, up to where it ends.
    let is_whole = read.is_ok() && text.ends_with('\n');
    if is_whole { text } else { BROKEN.to_owned() }
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

    const BOTH: [Packing; 2] = [Packing::Fast, Packing::Small];

    #[test]
    fn lines_come_back_and_take_less_room() {
        let lines: String = (0..2000)
            .map(|n| format!("{{\"seq\":{n},\"operation\":\"same\"}}\n"))
            .collect();
        let [fast, small] = BOTH.map(|packing| {
            let value = packed(lines.clone().into_bytes(), packing);
            assert!(value.len() * 3 < lines.len(), "{}", value.len());
            let bytes = value.len();
            assert_eq!(text(&record(value)), lines);
            bytes
        });
        assert!(small < fast, "{small} {fast}");
    }

    #[test]
    fn lines_that_compression_does_not_shorten_stay_as_they_are() {
        for packing in BOTH {
            assert_eq!(packed(b"{}\n".to_vec(), packing), b"{}\n");
        }
        assert_eq!(text(&record(b"{}\n".to_vec())), "{}\n");
    }

    #[test]
    fn broken_compression_is_reported() {
        let lines = "same and same and same and same\n".repeat(100);
        for packing in BOTH {
            let whole = packed(lines.clone().into_bytes(), packing);
            for end in 0..whole.len() {
                let cut = text(&record(whole.get(..end).unwrap().to_vec()));
                // Perhaps only the mark at the end is missing.
                let is_compressed = end >= LZ4.len();
                assert!(
                    cut == lines || !is_compressed || cut == BROKEN,
                    "{end}: {cut}"
                );
            }
            // One byte repeated: a small record can hold any number of them.
            let endless = packed(vec![b'a'; usize::try_from(MOST).unwrap() * 2], packing);
            assert!(text(&record(endless)).len() <= usize::try_from(MOST).unwrap());
        }
    }
}
