//! The format of a bundle, version 1. docs/backup.md describes it.
//!
//! A bundle is the line `keyway-backup 1` and frames: a byte for the type, the payload's length as BE32, the payload.

use std::collections::BTreeMap;
use std::io::{self, Read};

use jiff::Timestamp;
use keyway_crypto::Sha256;
use keyway_domain::ports::{Kind, Record, Revision};
use serde::{Deserialize, Serialize};

/// The first line of every bundle.
pub(crate) const MAGIC: &[u8; 16] = b"keyway-backup 1\n";
/// What every version's first line begins with.
const MAGIC_OF_ANY: &[u8] = b"keyway-backup ";
/// The longest payload of a record: a value of 300 KiB, its signature and its name.
const MAX_RECORD: u32 = 320 << 10;
/// The longest payload of the other frames.
const MAX_OTHER: u32 = 96 << 10;
/// The longest id of a record, in bytes.
const MAX_ID: usize = 256;

/// Why a file is not a bundle that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no bundle.
    #[error("it is not a backup that keyway made")]
    NotABundle,
    /// A newer release made it.
    #[error("a newer release of keyway made it; run that release")]
    Newer,
    /// It ends too early.
    #[error("it is incomplete: it ends before its checksum")]
    Incomplete,
    /// Its content is not what was written.
    #[error("its content is not what was written: the checksum differs")]
    Checksum,
    /// It does not follow the format.
    #[error("it does not follow the format: {0}")]
    Malformed(&'static str),
    /// The file changed between the check and its use.
    #[error("the file was changed while it was read")]
    Changed,
}

/// What a bundle says of itself, at its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The bundle's id, drawn when it is made.
    pub bundle: String,
    /// When it was begun.
    pub created_at: Timestamp,
    /// The deployment whose records it has.
    pub deployment: String,
    /// The release that made it.
    pub release: String,
    /// How its root keyring is protected; `None` if it has none.
    pub root: Option<RootProtection>,
}

/// What opens the root keyring of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RootProtection {
    /// A passphrase.
    Passphrase,
    /// Some of the shares of a secret.
    Shares {
        /// How many are needed.
        needed: u8,
        /// How many there are.
        made: u8,
    },
}

/// What a bundle says of itself, at its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// How many records of each kind it has.
    pub records: BTreeMap<String, u64>,
    /// Whether it has all records as they were at one moment.
    pub is_one_moment: bool,
    /// Whether it has the audit log and the error log.
    pub has_logs: bool,
    /// The id of the last record of the audit log.
    pub last_audit_record: Option<String>,
}

/// The checksum and the MAC, at the very end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trailer {
    /// SHA-256 of all bytes before this frame, in hexadecimal digits.
    pub(crate) sha256: String,
    /// The id of the root key under which the MAC is made.
    pub(crate) root: String,
    /// The MAC of the checksum, in hexadecimal digits.
    pub(crate) mac: String,
}

/// A part of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A [`Header`] in JSON. First.
    Header(Vec<u8>),
    /// The root keyring as an age file.
    Root(Vec<u8>),
    /// A record.
    Record(Record),
    /// What follows are changes of the records before, in any order.
    Changes,
    /// A record that is gone.
    Gone(Kind, String),
    /// A [`Summary`] in JSON.
    Summary(Vec<u8>),
    /// A [`Trailer`] in JSON. Last.
    Trailer(Vec<u8>),
}

impl Frame {
    /// Its bytes in the file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Header(json) => (b'H', json.clone()),
            Self::Root(age) => (b'K', age.clone()),
            Self::Record(record) => (b'R', encode_record(record)),
            Self::Changes => (b'C', Vec::new()),
            Self::Gone(kind, id) => (b'D', encode_name(*kind, id)),
            Self::Summary(json) => (b'E', json.clone()),
            Self::Trailer(json) => (b'Z', json.clone()),
        };
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut frame = Vec::with_capacity(payload.len() + 5);
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&payload);
        frame
    }

    fn decode(kind: u8, payload: Vec<u8>) -> Result<Self, BundleError> {
        Ok(match kind {
            b'H' => Self::Header(payload),
            b'K' => Self::Root(payload),
            b'R' => Self::Record(decode_record(&payload)?),
            b'C' if payload.is_empty() => Self::Changes,
            b'D' => {
                let mut rest = payload.as_slice();
                let (kind, id) = decode_name(&mut rest)?;
                if !rest.is_empty() {
                    return Err(BundleError::Malformed("a name is too long"));
                }
                Self::Gone(kind, id)
            }
            b'E' => Self::Summary(payload),
            b'Z' => Self::Trailer(payload),
            _ => return Err(BundleError::Malformed("a part is of an unknown type")),
        })
    }
}

/// A record: its name, its revision, whether it expires (1 byte), when (BE64, microseconds since 1970), its value.
fn encode_record(record: &Record) -> Vec<u8> {
    let mut payload = encode_name(record.kind, &record.id);
    payload.extend_from_slice(&record.revision.0);
    payload.push(u8::from(record.expires_at.is_some()));
    let expiry = record.expires_at.map_or(0, Timestamp::as_microsecond);
    payload.extend_from_slice(&expiry.to_be_bytes());
    payload.extend_from_slice(&record.value);
    payload
}

/// A name: the kind's length (1 byte), the kind, the id's length (BE16), the id.
fn encode_name(kind: Kind, id: &str) -> Vec<u8> {
    let kind = kind.as_str();
    let mut name = vec![u8::try_from(kind.len()).unwrap_or(u8::MAX)];
    name.extend_from_slice(kind.as_bytes());
    let length = u16::try_from(id.len()).unwrap_or(u16::MAX);
    name.extend_from_slice(&length.to_be_bytes());
    name.extend_from_slice(id.as_bytes());
    name
}

fn decode_record(payload: &[u8]) -> Result<Record, BundleError> {
    let mut rest = payload;
    let (kind, id) = decode_name(&mut rest)?;
    let revision = Revision(take(&mut rest)?);
    let [expires] = take(&mut rest)?;
    let expiry = i64::from_be_bytes(take(&mut rest)?);
    let expires_at = match (expires, expiry) {
        (0, 0) => None,
        (1, micros) => Some(
            Timestamp::from_microsecond(micros)
                .map_err(|_| BundleError::Malformed("a record's expiry is no time"))?,
        ),
        _ => return Err(BundleError::Malformed("a record's expiry is no time")),
    };
    Ok(Record {
        kind,
        id,
        revision,
        value: rest.to_vec(),
        expires_at,
    })
}

fn decode_name(rest: &mut &[u8]) -> Result<(Kind, String), BundleError> {
    let [length] = take(rest)?;
    let kind = take_text(rest, length.into())?;
    let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind);
    let kind = kind.ok_or(BundleError::Newer)?;
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    if !(1..=MAX_ID).contains(&length) {
        return Err(BundleError::Malformed("an id is empty or too long"));
    }
    let id = take_text(rest, length)?.to_owned();
    Ok((kind, id))
}

const CUT: BundleError = BundleError::Malformed("a part is shorter than it says");

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BundleError> {
    let (first, after) = rest.split_first_chunk().ok_or(CUT)?;
    *rest = after;
    Ok(*first)
}

fn take_text<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a str, BundleError> {
    let (first, after) = rest.split_at_checked(length).ok_or(CUT)?;
    *rest = after;
    std::str::from_utf8(first).map_err(|_| BundleError::Malformed("a name is not UTF-8"))
}

/// Reads frames, and hashes all before the trailer.
pub(crate) struct Frames<R> {
    input: R,
    hash: Sha256,
}

impl<R: Read> Frames<R> {
    /// Reads the first line.
    pub(crate) fn begin(mut input: R) -> Result<Self, BundleError> {
        let mut magic = [0; MAGIC.len()];
        let mut read = 0;
        while let Some(rest) = magic.get_mut(read..).filter(|rest| !rest.is_empty()) {
            match input.read(rest) {
                Ok(0) => return Err(BundleError::NotABundle),
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        if &magic != MAGIC {
            return Err(if magic.starts_with(MAGIC_OF_ANY) {
                BundleError::Newer
            } else {
                BundleError::NotABundle
            });
        }
        let mut hash = Sha256::new();
        hash.update(&magic);
        Ok(Self { input, hash })
    }

    /// The next frame. Memory is taken for a payload only as far as its type allows.
    pub(crate) fn next(&mut self) -> Result<Frame, BundleError> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length);
        let most = if kind == b'R' { MAX_RECORD } else { MAX_OTHER };
        if length > most {
            return Err(BundleError::Malformed("a part is too long"));
        }
        let mut payload = vec![0; usize::try_from(length).unwrap_or(0)];
        self.fill(&mut payload)?;
        if kind != b'Z' {
            self.hash.update(&head);
            self.hash.update(&payload);
        }
        Frame::decode(kind, payload)
    }

    /// The SHA-256 of all frames that were read, without the trailer.
    pub(crate) fn digest(self) -> [u8; 32] {
        self.hash.finish()
    }

    /// Checks that nothing follows.
    pub(crate) fn must_end(&mut self) -> Result<(), BundleError> {
        let mut byte = [0];
        loop {
            match self.input.read(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    return Err(BundleError::Malformed("something follows after its end"));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BundleError> {
        self.input
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => BundleError::Incomplete,
                _ => error.into(),
            })
    }
}

/// The position of a kind in a bundle, which is also the order in which a restore writes: what others refer to comes
/// before them, and the configuration comes last.
pub(crate) const fn place(kind: Kind) -> u8 {
    match kind {
        Kind::Key => 0,
        Kind::Policy => 1,
        Kind::Identity => 2,
        Kind::AccessKey => 3,
        Kind::AccessKeyUse => 4,
        Kind::Bucket => 5,
        Kind::Alias => 6,
        Kind::Audit => 7,
        Kind::ErrorLog => 8,
        Kind::Config => 9,
    }
}

/// Every kind, in the order of [`place`].
pub(crate) fn kinds() -> [Kind; Kind::ALL.len()] {
    let mut kinds = Kind::ALL;
    kinds.sort_by_key(|kind| place(*kind));
    kinds
}

pub(crate) const fn is_log(kind: Kind) -> bool {
    kind.part_bytes().is_some()
}
