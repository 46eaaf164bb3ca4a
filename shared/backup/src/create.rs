//! Writes a bundle.
//!
//! A store with snapshots gives all records as they are at one moment. From another store, the table is read again and
//! again, and what changed since the last pass is added, until a pass finds no change or [`PASSES`] are over. The later
//! passes read in the reverse order of the bundle: what refers to a key or a policy is read before it, so it is never
//! without it, unless that was destroyed meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use keyway_crypto::{SecretBytes, Sha256};
use keyway_domain::OpenError;
use keyway_domain::keyring::{KeyringOnDemand, RootKeyring, beginning_of_logs, deployment_of};
use keyway_domain::ports::{
    Clock, Forgery, Kind, Random, RandomError, Record, Revision, StoreError, TableReader,
};
use zeroize::Zeroizing;

use crate::changes::{Changes, MOST, TooMany};
use crate::format::{Frame, Header, MAGIC, RootProtection, Summary, Trailer, is_log, kinds, place};
use crate::merge::Name;
use crate::output::Output;
use crate::root::{RootError, SealedRoot, seal_root};
use crate::shares::{Share, ShareCount, split};

/// How often the table is read after the first time, at most.
const PASSES: usize = 4;
/// How many records are read at a time. A record may be 300 KiB.
const PAGE: usize = 100;
const HOUR: SignedDuration = SignedDuration::from_hours(1);
/// How many hours of a log are read at once.
const HOURS: usize = 16;
/// How many records of each of these hours are read at once.
const FIRST_PAGE: usize = 8;

/// Where a bundle's content comes from.
pub struct Source<'a> {
    /// The table as it is stored, below the signatures.
    pub table: &'a dyn TableReader,
    /// The root keyring.
    pub keyring: &'a KeyringOnDemand,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Random bytes.
    pub random: &'a Arc<dyn Random>,
}

/// Which part of the logs a bundle gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logs {
    /// None.
    Without,
    /// All.
    All,
    /// From the hour of this time on.
    Since(Timestamp),
}

/// How a bundle gets the root keyring.
pub enum RootWish {
    /// Under this passphrase.
    Passphrase(Zeroizing<String>),
    /// Under a drawn secret that is split.
    Shares(ShareCount),
}

/// What was written.
pub struct Created {
    /// The bundle's beginning.
    pub header: Header,
    /// The bundle's end.
    pub summary: Summary,
    /// How many bytes it has.
    pub bytes: u64,
    /// The shares of the secret that opens its root keyring.
    pub shares: Vec<Share>,
    /// Records that do not verify. They are in the bundle as they are, and no restore writes them.
    pub refused: Vec<(Name, Forgery)>,
}

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The table or the secret store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The root keyring cannot be used.
    #[error(transparent)]
    Keyring(#[from] OpenError),
    /// The root keyring changed meanwhile.
    #[error("the root keyring was changed while the backup was made; run it again")]
    KeyringChanged,
    /// The table changed too much.
    #[error(
        "more than {MOST} records were changed while the backup was made; run it when less is changed"
    )]
    TooManyChanges,
    /// The root keyring could not be encrypted.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A part could not be encoded.
    #[error("a part could not be encoded")]
    Encoding(#[from] serde_json::Error),
    /// The bundle could not be written.
    #[error("it cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Writes frames, and hashes them.
struct Writer<'a> {
    output: &'a mut dyn Output,
    hash: Sha256,
    bytes: u64,
}

impl Writer<'_> {
    async fn put(&mut self, bytes: &[u8]) -> Result<(), io::Error> {
        self.hash.update(bytes);
        self.bytes += u64::try_from(bytes.len()).unwrap_or_default();
        self.output.write(bytes).await
    }

    async fn frame(&mut self, frame: &Frame) -> Result<(), io::Error> {
        self.put(&frame.encode()).await
    }
}

/// Writes a bundle to the output, and finishes it. `tell` hears the number of records so far.
///
/// # Errors
/// [`CreateError`]. The output is then abandoned.
pub async fn create(
    source: &Source<'_>,
    logs: Logs,
    root: Option<RootWish>,
    output: &mut dyn Output,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<Created, CreateError> {
    let created = write(source, logs, root, output, tell).await;
    let created = match created {
        Ok(created) => output
            .finish()
            .await
            .map(|()| created)
            .map_err(CreateError::Output),
        Err(error) => Err(error),
    };
    if created.is_err() {
        output.abandon().await;
    }
    created
}

async fn write(
    source: &Source<'_>,
    logs: Logs,
    root: Option<RootWish>,
    output: &mut dyn Output,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<Created, CreateError> {
    let secret = source.keyring.stored_value().await?;
    let keyring = RootKeyring::parse(&secret, Arc::clone(source.random))?;
    if deployment_of(source.table).await?.as_deref() != Some(keyring.deployment()) {
        return Err(OpenError::KeyringForeign.into());
    }
    let mut drawn = [0; 16];
    source.random.fill(&mut drawn)?;
    let bundle = hex::encode(drawn);
    let (sealed, shares) = sealed(&secret, root, &bundle, source.random.as_ref())?;
    let header = Header {
        bundle,
        created_at: source.clock.now(),
        deployment: keyring.deployment().to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        root: sealed.as_ref().map(|sealed| sealed.protection),
    };
    let snapshot = source.table.snapshot().await?;
    let writer = Writer {
        output,
        hash: Sha256::new(),
        bytes: 0,
    };
    let mut reading = Reading {
        table: snapshot.as_deref().unwrap_or(source.table),
        is_snapshot: snapshot.is_some(),
        clock: source.clock,
        keyring: &keyring,
        writer,
        tell,
        seen: BTreeMap::new(),
        counts: BTreeMap::new(),
        refused: Vec::new(),
        last_audit_record: None,
        written: 0,
    };
    reading.writer.put(MAGIC).await?;
    let encoded = serde_json::to_vec(&header)?;
    reading.writer.frame(&Frame::Header(encoded)).await?;
    if let Some(sealed) = sealed {
        reading.writer.frame(&Frame::Root(sealed.age)).await?;
    }
    for kind in kinds() {
        if !is_log(kind) {
            reading.kind(kind).await?;
        } else if logs != Logs::Without {
            reading.log(kind, logs).await?;
        }
    }
    let is_one_moment = snapshot.is_some() || reading.follow().await?;
    // A root key that was retired meanwhile could be missing here, and records could need it.
    if !source.keyring.stored_value().await?.ct_eq(secret.expose()) {
        return Err(CreateError::KeyringChanged);
    }
    let summary = Summary {
        records: std::mem::take(&mut reading.counts),
        is_one_moment,
        has_logs: logs != Logs::Without,
        last_audit_record: reading.last_audit_record.take(),
    };
    let encoded = serde_json::to_vec(&summary)?;
    reading.writer.frame(&Frame::Summary(encoded)).await?;
    let refused = std::mem::take(&mut reading.refused);
    let bytes = reading.seal().await?;
    Ok(Created {
        header,
        summary,
        bytes,
        shares,
        refused,
    })
}

fn sealed(
    keyring: &SecretBytes,
    root: Option<RootWish>,
    bundle: &str,
    random: &dyn Random,
) -> Result<(Option<SealedRoot>, Vec<Share>), CreateError> {
    Ok(match root {
        None => (None, Vec::new()),
        Some(RootWish::Passphrase(passphrase)) => {
            let sealed = seal_root(keyring, &passphrase, RootProtection::Passphrase)?;
            (Some(sealed), Vec::new())
        }
        Some(RootWish::Shares(count)) => {
            let ShareCount { needed, made } = count;
            let (secret, shares) = split(count, bundle, random)?;
            let protection = RootProtection::Shares { needed, made };
            (Some(seal_root(keyring, &secret, protection)?), shares)
        }
    })
}

/// A table that is being read into a bundle.
struct Reading<'a> {
    table: &'a dyn TableReader,
    is_snapshot: bool,
    clock: &'a dyn Clock,
    keyring: &'a RootKeyring,
    writer: Writer<'a>,
    tell: &'a mut (dyn FnMut(u64) + Send),
    /// The records of the last pass, unless the table is a snapshot: about a hundred bytes each.
    seen: BTreeMap<(u8, String), Revision>,
    counts: BTreeMap<String, u64>,
    refused: Vec<(Name, Forgery)>,
    last_audit_record: Option<String>,
    written: u64,
}

impl Reading<'_> {
    /// Writes all records of the kind.
    async fn kind(&mut self, kind: Kind) -> Result<(), CreateError> {
        let mut after = None;
        loop {
            let page = self.table.page(kind, "", after.as_deref(), PAGE).await?;
            after = page.records.last().map(|record| record.id.clone());
            for record in page.records {
                if !self.is_snapshot {
                    let name = (place(kind), record.id.clone());
                    self.seen.insert(name, record.revision);
                }
                self.record(record).await?;
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    async fn record(&mut self, record: Record) -> Result<(), CreateError> {
        let kind = record.kind;
        self.judge(&record);
        *self.counts.entry(kind.as_str().to_owned()).or_default() += 1;
        if kind == Kind::Audit {
            self.last_audit_record = Some(record.id.clone());
        }
        self.writer.frame(&Frame::Record(record)).await?;
        self.written += 1;
        (self.tell)(self.written);
        Ok(())
    }

    fn judge(&mut self, record: &Record) {
        if let Err(why) = self.keyring.must_open(record) {
            self.refused.push((Name::of(record), why));
        }
    }

    /// Writes the records of a log, hour by hour if the store has it so.
    async fn log(&mut self, kind: Kind, logs: Logs) -> Result<(), CreateError> {
        let begun = self.clock.now();
        let first = match logs {
            Logs::Since(since) => Some(hour(since)),
            Logs::All | Logs::Without => None,
        };
        // A record of a store without snapshots may be written while an earlier one of its writer was missed.
        let until = (!self.is_snapshot).then(|| instant(begun));
        // Without a snapshot, the store's logs may be divided by the hour: a page of all hours cannot begin at one.
        let is_whole = self.is_snapshot || first.is_none();
        if is_whole && self.part(kind, "", first, until.as_deref()).await? || self.is_snapshot {
            return Ok(());
        }
        let mut at = match logs {
            Logs::Since(since) => since,
            Logs::All | Logs::Without => beginning_of_logs(self.table, self.clock).await?,
        };
        while hour(at) <= hour(begun) {
            let mut hours = Vec::with_capacity(HOURS);
            while hours.len() < HOURS && hour(at) <= hour(begun) {
                hours.push(hour(at));
                at = at.saturating_add(HOUR).unwrap_or(Timestamp::MAX);
            }
            self.hours(kind, &hours, until.as_deref()).await?;
        }
        Ok(())
    }

    /// Writes the records of these hours. Most hours have few or none, so their first pages are read at once.
    async fn hours(
        &mut self,
        kind: Kind,
        hours: &[String],
        until: Option<&str>,
    ) -> Result<(), CreateError> {
        let table = self.table;
        let pages = hours
            .iter()
            .map(|hour| table.page(kind, hour, None, FIRST_PAGE));
        let pages = futures_util::future::try_join_all(pages).await?;
        for (hour, page) in hours.iter().zip(pages) {
            let after = page.records.last().map(|record| record.id.clone());
            for record in page.records {
                self.log_record(record, until).await?;
            }
            if page.more {
                self.part(kind, hour, after, until).await?;
            }
        }
        Ok(())
    }

    async fn log_record(&mut self, record: Record, until: Option<&str>) -> Result<(), CreateError> {
        if until.is_none_or(|until| record.id.as_str() < until) {
            self.record(record).await?;
        }
        Ok(())
    }

    /// Writes the records whose ids begin with `prefix`, and returns whether there are any.
    async fn part(
        &mut self,
        kind: Kind,
        prefix: &str,
        mut after: Option<String>,
        until: Option<&str>,
    ) -> Result<bool, CreateError> {
        let mut is_any = false;
        loop {
            let page = self
                .table
                .page(kind, prefix, after.as_deref(), PAGE)
                .await?;
            is_any |= !page.records.is_empty();
            after = page.records.last().map(|record| record.id.clone());
            for record in page.records {
                self.log_record(record, until).await?;
            }
            if !page.more {
                return Ok(is_any);
            }
        }
    }

    /// Reads the table again until nothing changes, and writes what changed. Returns whether it came to that.
    async fn follow(&mut self) -> Result<bool, CreateError> {
        let mut changes = Changes::default();
        let mut is_still = false;
        for _ in 0..PASSES {
            if !self.pass(&mut changes).await? {
                is_still = true;
                break;
            }
        }
        if changes.records().is_empty() {
            return Ok(is_still);
        }
        self.writer.frame(&Frame::Changes).await?;
        for ((position, id), record) in changes.records() {
            let kind = kinds().into_iter().find(|kind| place(*kind) == *position);
            let frame = match (record, kind) {
                (Some(record), _) => Frame::Record(record.clone()),
                (None, Some(kind)) => Frame::Gone(kind, id.clone()),
                (None, None) => continue,
            };
            self.writer.frame(&frame).await?;
        }
        self.count_again(&changes);
        Ok(is_still)
    }

    /// Whether anything differs from the last pass.
    async fn pass(&mut self, changes: &mut Changes) -> Result<bool, CreateError> {
        let too_many = |TooMany| CreateError::TooManyChanges;
        let mut now = BTreeMap::new();
        let mut has_changed = false;
        for kind in kinds().into_iter().rev().filter(|kind| !is_log(*kind)) {
            let mut after: Option<String> = None;
            loop {
                let page = self.table.page(kind, "", after.as_deref(), PAGE).await?;
                after = page.records.last().map(|record| record.id.clone());
                for record in page.records {
                    let name = (place(kind), record.id.clone());
                    let revision = record.revision;
                    if self.seen.get(&name) != Some(&revision) {
                        has_changed = true;
                        self.judge(&record);
                        changes
                            .note(kind, &name.1, Some(record))
                            .map_err(too_many)?;
                    }
                    now.insert(name, revision);
                }
                if !page.more {
                    break;
                }
            }
            let is_of_kind = |(position, _): &&(u8, String)| *position == place(kind);
            for (position, id) in self.seen.keys().filter(is_of_kind) {
                if !now.contains_key(&(*position, id.clone())) {
                    has_changed = true;
                    changes.note(kind, id, None).map_err(too_many)?;
                }
            }
        }
        self.seen = now;
        Ok(has_changed)
    }

    /// Corrects what was counted and refused before the changes.
    fn count_again(&mut self, changes: &Changes) {
        for kind in kinds().into_iter().filter(|kind| !is_log(*kind)) {
            let of_kind = self.seen.keys().filter(|(at, _)| *at == place(kind));
            let count = u64::try_from(of_kind.count()).unwrap_or_default();
            self.counts.insert(kind.as_str().to_owned(), count);
        }
        let keyring = self.keyring;
        self.refused.retain(|(name, _)| {
            match changes.records().get(&(place(name.kind), name.id.clone())) {
                None => true,
                Some(newest) => newest
                    .as_ref()
                    .is_some_and(|record| keyring.must_open(record).is_err()),
            }
        });
        self.refused.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.refused.dedup_by(|(a, _), (b, _)| a == b);
    }

    /// Writes the checksum and the MAC. Returns how many bytes the bundle has.
    async fn seal(self) -> Result<u64, CreateError> {
        let Writer {
            output,
            hash,
            bytes,
        } = self.writer;
        let digest = hash.finish();
        let mac = self.keyring.mac_bundle(&digest);
        let (root, mac) = mac.ok_or(OpenError::KeyringDamaged("it holds no root key"))?;
        let trailer = Frame::Trailer(serde_json::to_vec(&Trailer {
            sha256: hex::encode(digest),
            root: root.to_owned(),
            mac: hex::encode(mac),
        })?);
        let trailer = trailer.encode();
        output.write(&trailer).await?;
        Ok(bytes + u64::try_from(trailer.len()).unwrap_or_default())
    }
}

/// The beginning of the ids of this hour.
fn hour(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H")
        .to_string()
}

/// The beginning of the ids of this instant.
fn instant(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%S.%6fZ")
        .to_string()
}
