//! Checks a bundle, and reads its records.

use std::collections::{BTreeMap, btree_map};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::iter::Peekable;

use keyway_domain::keyring::{BundleForgery, DEPLOYMENT_RECORD, RootKeyring};
use keyway_domain::ports::{Kind, Record};
use serde::de::DeserializeOwned;

use crate::changes::{Changes, TooMany};
use crate::format::{BundleError, Frame, Frames, Header, Summary, Trailer, place};

/// A bundle that is complete and as it was written. Whether it is authentic, only a root keyring tells.
pub struct Bundle<R> {
    input: R,
    header: Header,
    root: Option<Vec<u8>>,
    summary: Summary,
    changes: Changes,
    deployment: Option<Record>,
    digest: [u8; 32],
    made_under: String,
    mac: Vec<u8>,
}

fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, BundleError> {
    serde_json::from_slice(payload)
        .map_err(|_| BundleError::Malformed("a part is not the JSON that keyway writes"))
}

/// The frames of a bundle as they are checked.
struct Check {
    changes: Changes,
    root: Option<Vec<u8>>,
    /// The record of the deployment.
    deployment: Option<Record>,
    counted: BTreeMap<Kind, i64>,
    last: Option<(u8, String)>,
    /// Whether the main part is over.
    in_changes: bool,
}

impl Check {
    fn frame(&mut self, frame: Frame) -> Result<(), BundleError> {
        if let Frame::Record(record) = &frame
            && record.kind == Kind::Config
            && record.id == DEPLOYMENT_RECORD
        {
            self.deployment = Some(record.clone());
        }
        match frame {
            Frame::Root(age) if self.root.is_none() && self.last.is_none() && !self.in_changes => {
                self.root = Some(age);
                Ok(())
            }
            Frame::Record(record) if self.in_changes => {
                let (kind, id) = (record.kind, record.id.clone());
                self.change(kind, &id, Some(record))
            }
            Frame::Gone(kind, id) if self.in_changes => self.change(kind, &id, None),
            Frame::Record(record) => {
                let name = (place(record.kind), record.id);
                if self.last.as_ref().is_some_and(|last| *last >= name) {
                    return Err(BundleError::Malformed("records are not in their order"));
                }
                self.last = Some(name);
                *self.counted.entry(record.kind).or_default() += 1;
                Ok(())
            }
            Frame::Changes if !self.in_changes => {
                self.in_changes = true;
                Ok(())
            }
            _ => Err(BundleError::Malformed("a part is not in its place")),
        }
    }

    fn change(&mut self, kind: Kind, id: &str, record: Option<Record>) -> Result<(), BundleError> {
        let noted = self.changes.note(kind, id, record);
        noted.map_err(|TooMany| BundleError::Malformed("it has too many changes"))
    }
}

impl<R: Read + Seek + Send> Bundle<R> {
    /// Reads the whole input and checks its form and its checksum.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn open(mut input: R) -> Result<Self, BundleError> {
        input.seek(SeekFrom::Start(0))?;
        let mut frames = Frames::begin(BufReader::with_capacity(1 << 18, &mut input))?;
        let Frame::Header(header) = frames.next()? else {
            return Err(BundleError::Malformed("its header is missing"));
        };
        let header: Header = json(&header)?;
        let mut check = Check {
            changes: Changes::default(),
            root: None,
            deployment: None,
            counted: BTreeMap::new(),
            last: None,
            in_changes: false,
        };
        let summary: Summary = loop {
            match frames.next()? {
                Frame::Summary(summary) => break json(&summary)?,
                frame => check.frame(frame)?,
            }
        };
        let Frame::Trailer(trailer) = frames.next()? else {
            return Err(BundleError::Malformed("its checksum is missing"));
        };
        frames.must_end()?;
        let trailer: Trailer = json(&trailer)?;
        let digest = frames.digest();
        let told = hex::decode(&trailer.sha256).map_err(|_| BundleError::Checksum)?;
        if told != digest {
            return Err(BundleError::Checksum);
        }
        if check.root.is_some() != header.root.is_some() {
            return Err(BundleError::Malformed(
                "its header and its root keyring disagree",
            ));
        }
        let mut bundle = Self {
            input,
            header,
            root: check.root,
            summary,
            changes: check.changes,
            deployment: check.deployment,
            digest,
            made_under: trailer.root,
            mac: hex::decode(&trailer.mac)
                .map_err(|_| BundleError::Malformed("its MAC is not hexadecimal"))?,
        };
        // Without changes, the records are those that were counted.
        if bundle.changes.records().is_empty() {
            bundle.must_have(&check.counted)?;
        } else {
            let mut counted = BTreeMap::new();
            {
                let mut records = bundle.records()?;
                while let Some(record) = records.next()? {
                    *counted.entry(record.kind).or_default() += 1;
                }
            }
            bundle.must_have(&counted)?;
        }
        Ok(bundle)
    }

    fn must_have(&self, counted: &BTreeMap<Kind, i64>) -> Result<(), BundleError> {
        let counted = counted
            .iter()
            .map(|(kind, count)| (kind.as_str(), count.unsigned_abs()));
        let told = self
            .summary
            .records
            .iter()
            .map(|(kind, count)| (kind.as_str(), *count));
        let told: BTreeMap<_, _> = told.filter(|(_, count)| *count > 0).collect();
        if told == counted.collect() {
            Ok(())
        } else {
            Err(BundleError::Malformed(
                "it has other records than its summary says",
            ))
        }
    }

    /// Its records: each once, by kind and in the byte order of their ids.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn records(&mut self) -> Result<Records<'_>, BundleError> {
        self.input.seek(SeekFrom::Start(0))?;
        let input: Box<dyn Read + Send + '_> = Box::new(&mut self.input);
        let mut frames = Frames::begin(BufReader::with_capacity(1 << 18, input))?;
        frames.next()?;
        if self.root.is_some() {
            frames.next()?;
        }
        Ok(Records {
            frames: Some(frames),
            ahead: None,
            changes: self.changes.records().iter().peekable(),
            digest: self.digest,
        })
    }
}

impl<R> Bundle<R> {
    /// What it says of itself.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What it has.
    pub const fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Its record of the deployment.
    pub const fn deployment(&self) -> Option<&Record> {
        self.deployment.as_ref()
    }

    /// Its root keyring as an age file, if it has one.
    pub fn root(&self) -> Option<&[u8]> {
        self.root.as_deref()
    }

    /// Its SHA-256, without its last part.
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The id of the root key that authenticates it.
    pub fn made_under(&self) -> &str {
        &self.made_under
    }

    /// Checks that it was made with this root keyring and not changed since.
    ///
    /// # Errors
    /// [`BundleForgery`].
    pub fn must_be_authentic(&self, keyring: &RootKeyring) -> Result<(), BundleForgery> {
        keyring.verify_bundle(&self.made_under, &self.digest, &self.mac)
    }
}

type Inner<'a> = Frames<BufReader<Box<dyn Read + Send + 'a>>>;

/// The records of a bundle, one after the other.
pub struct Records<'a> {
    /// `None` at the end.
    frames: Option<Inner<'a>>,
    /// The next record of the main part.
    ahead: Option<Record>,
    changes: Peekable<btree_map::Iter<'a, (u8, String), Option<Record>>>,
    digest: [u8; 32],
}

impl Records<'_> {
    /// The next record.
    ///
    /// # Errors
    /// When it cannot be read, and at the end when the input is not what was checked.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator of results is easy to end too early"
    )]
    pub fn next(&mut self) -> Result<Option<Record>, BundleError> {
        loop {
            if self.ahead.is_none() {
                self.ahead = self.read_ahead()?;
            }
            let main = self
                .ahead
                .as_ref()
                .map(|record| (place(record.kind), record.id.as_str()));
            let changed = self
                .changes
                .peek()
                .map(|((place, id), _)| (*place, id.as_str()));
            match (main, changed) {
                (None, None) => return Ok(None),
                (Some(_), None) => return Ok(self.ahead.take()),
                (Some(main), Some(changed)) if main < changed => return Ok(self.ahead.take()),
                (main, changed) => {
                    if main == changed {
                        self.ahead = None;
                    }
                    if let Some((_, Some(record))) = self.changes.next() {
                        return Ok(Some(record.clone()));
                    }
                }
            }
        }
    }

    fn read_ahead(&mut self) -> Result<Option<Record>, BundleError> {
        let Some(frames) = &mut self.frames else {
            return Ok(None);
        };
        if let Frame::Record(record) = frames.next()? {
            return Ok(Some(record));
        }
        // The main part is over. The rest is in memory, but for what the check has seen.
        let is_same = loop {
            match frames.next() {
                Ok(Frame::Trailer(_)) => break true,
                Ok(_) => {}
                Err(BundleError::Io(error)) => return Err(error.into()),
                Err(_) => break false,
            }
        };
        let digest = self.frames.take().map(Frames::digest);
        if is_same && digest == Some(self.digest) {
            Ok(None)
        } else {
            Err(BundleError::Changed)
        }
    }
}
