//! Writes the records of a bundle into a table.
//!
//! **Empty table:** records are written as they are, with their own revisions. The root keyring is written first and the
//! deployment's record last. Until then no server starts with the table, and running the restore again finishes it.
//!
//! **Table of the same deployment:** what is only there stays. What differs stays, unless the operator asks for the
//! bundle's content. Records that are missing are made again. Those that give access are written only if the operator
//! names them: their absence is a revocation, and their change may be one. Every record is written under a new revision, because revisions are never reused. At the
//! end the configuration's epoch is raised, so that running servers drop what they have cached.

mod config;
mod write;

use std::io::{Read, Seek};
use std::sync::Arc;

use jiff::Timestamp;
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{
    BundleForgery, DEPLOYMENT_RECORD, KEYRING_SECRET, RootKeyring, deployment_in, deployment_of,
    extend_logs_to,
};
use keyway_domain::ports::{
    Clock, Forgery, Kind, Random, RandomError, Record, SecretStore, StoreError, TableWriter,
};
use keyway_domain::records::EVERY_ID;
use keyway_domain::service::SERVICE_RECORD;
use keyway_domain::{KmsError, OpenError};

use crate::format::{BundleError, is_log, kinds};
use crate::merge::{Name, TableSide};
use crate::reading::{Bundle, Records};
use write::{Class, Wish, Writes};

/// The table that is restored.
pub struct Target {
    /// The table as it is stored, below the signatures.
    pub table: Arc<dyn TableWriter>,
    /// The store of the root keyring.
    pub secrets: Arc<dyn SecretStore>,
    /// The folder of the root keyring's file, if it is not the deployment's own.
    pub key_directory: Option<String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
}

/// What the operator asks for.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Find what differs, and write nothing.
    pub dry_run: bool,
    /// Give records that differ the bundle's content.
    pub overwrite: bool,
    /// Restore these records alone; [`EVERY_ID`] names all of a kind. Empty: restore all.
    pub only: Vec<(Kind, String)>,
}

/// What a bundle is restored into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// A table that holds no deployment, or one whose restore was cut off.
    Empty,
    /// A table of the bundle's deployment.
    SameDeployment,
}

/// What differed, and was written unless it was a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the bundle was restored into.
    pub destination: Destination,
    /// Whether the root keyring came from the bundle.
    pub makes_keyring: bool,
    /// Records that the table did not have.
    pub new: Vec<Name>,
    /// Records that differ. They got the bundle's content only if that was asked for.
    pub changed: Vec<Name>,
    /// Records of the table that did not verify, and got the bundle's content.
    pub repaired: Vec<Name>,
    /// Records that give access that the table does not have, or that would be overwritten. They were left out, because
    /// nobody named them.
    pub kept_out: Vec<Name>,
    /// Records that the table alone has. They stay.
    pub only_here: Vec<Name>,
    /// Records of the bundle that do not verify. They were left out.
    pub refused: Vec<(Name, Forgery)>,
    /// How many records are as they were.
    pub equal: u64,
    /// How many records of the bundle have expired. They were left out.
    pub expired: u64,
    /// How many records of the logs the table did not have.
    pub log_records: u64,
}

/// Why a bundle was not restored, or not completely.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The bundle cannot be read.
    #[error("the backup: {0}")]
    Bundle(#[from] BundleError),
    /// The bundle is not authentic.
    #[error("the backup is refused: {0}")]
    NotAuthentic(#[from] BundleForgery),
    /// There is no root keyring.
    #[error(
        "there is no root keyring: the deployment has none, and the backup's was not opened or is not in it; put the root \
         keyring in its place, or use a backup that was made with --with-root"
    )]
    NoRoot,
    /// The root keyring is another deployment's.
    #[error(
        "the root keyring belongs to another deployment than the backup; restore into an empty deployment or into its own"
    )]
    ForeignKeyring,
    /// The table is another deployment's.
    #[error(
        "the table belongs to another deployment than the backup; restore into an empty table or into its own"
    )]
    ForeignTable,
    /// Only some records can be restored into a table that has a deployment.
    #[error("the table is empty, and single records cannot be restored into it; restore all")]
    OnlyIntoEmpty,
    /// The root was rotated meanwhile.
    #[error("the root was rotated while the restore ran; run it again")]
    RootRotated,
    /// The bundle lacks the deployment's record.
    #[error("the backup has no deployment record")]
    NoDeployment,
    /// The root keyring is damaged, or its store failed.
    #[error(transparent)]
    Keyring(#[from] OpenError),
    /// The table or the secret store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration cannot be read or written.
    #[error("the configuration: {}", .0.for_operator())]
    Config(KmsError),
    /// Other writers were always faster.
    #[error("others changed {}/{} all the time; run the restore again", .0.kind.as_str(), .0.id)]
    Contended(Name),
    /// The generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// How many writes are under way at once. A store commits those together that wait together.
const TOGETHER: usize = 64;

/// Restores a bundle. `root` is the bundle's root keyring, if it was opened. `tell` hears the number of records so far.
///
/// # Errors
/// [`RestoreError`]. What was written before stays, and running it again finishes.
pub async fn restore<R: Read + Seek + Send>(
    bundle: &mut Bundle<R>,
    target: &Target,
    root: Option<&SecretBytes>,
    options: &RestoreOptions,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<Restored, RestoreError> {
    let kept = target.secrets.get(KEYRING_SECRET).await?;
    let kept = kept.map(|(value, _)| value);
    let makes_keyring = kept.is_none();
    let value = kept.as_ref().or(root).ok_or(RestoreError::NoRoot)?;
    let keyring = RootKeyring::parse(value, Arc::clone(&target.random))?;
    if keyring.deployment() != bundle.header().deployment {
        return Err(RestoreError::ForeignKeyring);
    }
    bundle.must_be_authentic(&keyring)?;
    let marked = bundle.deployment().ok_or(RestoreError::NoDeployment)?;
    if deployment_in(marked)? != bundle.header().deployment {
        return Err(RestoreError::NoDeployment);
    }
    let destination = match deployment_of(target.table.as_ref()).await? {
        None => Destination::Empty,
        Some(id) if id == bundle.header().deployment => Destination::SameDeployment,
        Some(_) => return Err(RestoreError::ForeignTable),
    };
    if destination == Destination::Empty && !options.only.is_empty() {
        return Err(RestoreError::OnlyIntoEmpty);
    }
    if makes_keyring && !options.dry_run {
        target.secrets.put(KEYRING_SECRET, value, None).await?;
    }
    if destination == Destination::SameDeployment && !options.dry_run {
        // The bundle's logs may be older than the table, which was empty when this deployment began to use it.
        let random = target.random.as_ref();
        extend_logs_to(marked, target.table.as_ref(), random).await?;
    }
    let writes = Writes::new(target, keyring, options, destination);
    let mut walk = Walk {
        now: target.clock.now(),
        options,
        writes,
        waiting: Vec::new(),
        done: 0,
        tell,
        service: None,
        deployment: None,
        restored: Restored {
            destination,
            makes_keyring,
            new: Vec::new(),
            changed: Vec::new(),
            repaired: Vec::new(),
            kept_out: Vec::new(),
            only_here: Vec::new(),
            refused: Vec::new(),
            equal: 0,
            expired: 0,
            log_records: 0,
        },
    };
    walk.all(bundle.records()?).await?;
    walk.finish().await
}

/// A restore that is under way.
struct Walk<'a> {
    now: Timestamp,
    options: &'a RestoreOptions,
    writes: Writes<'a>,
    waiting: Vec<Wish>,
    done: u64,
    tell: &'a mut (dyn FnMut(u64) + Send),
    /// The bundle's configuration.
    service: Option<Record>,
    /// The bundle's record of the deployment.
    deployment: Option<Record>,
    restored: Restored,
}

impl Walk<'_> {
    async fn all(&mut self, mut records: Records<'_>) -> Result<(), RestoreError> {
        let mut ahead = records.next()?;
        let table = Arc::clone(self.writes.table());
        for kind in kinds() {
            let mut side = TableSide::new(table.as_ref(), kind);
            while let Some(record) = ahead.take_if(|record| record.kind == kind) {
                ahead = records.next()?;
                self.done += 1;
                (self.tell)(self.done);
                if is_log(kind) {
                    self.log(record).await?;
                } else {
                    self.record(record, &mut side).await?;
                }
                if self.waiting.len() >= TOGETHER {
                    self.write_waiting().await?;
                }
            }
            self.write_waiting().await?;
            if !is_log(kind) {
                self.only_here(&mut side, None).await?;
            }
        }
        Ok(())
    }

    fn is_wanted(&self, kind: Kind, id: &str) -> bool {
        self.options.only.is_empty() || self.is_named(kind, id)
    }

    fn is_named(&self, kind: Kind, id: &str) -> bool {
        let mut only = self.options.only.iter();
        only.any(|(named, name)| *named == kind && (name == id || name == EVERY_ID))
    }

    /// Notes the records of the table before this id.
    async fn only_here(
        &mut self,
        side: &mut TableSide<'_>,
        id: Option<&str>,
    ) -> Result<(), RestoreError> {
        while let Some(record) = side.before(id).await? {
            let is_own = record.kind == Kind::Config
                && matches!(record.id.as_str(), DEPLOYMENT_RECORD | SERVICE_RECORD);
            if self.is_wanted(side.kind(), &record.id) && !is_own {
                self.restored.only_here.push(Name::of(&record));
            }
        }
        Ok(())
    }

    async fn record(
        &mut self,
        record: Record,
        side: &mut TableSide<'_>,
    ) -> Result<(), RestoreError> {
        self.only_here(side, Some(&record.id)).await?;
        let current = side.at(&record.id).await?;
        if !self.is_wanted(record.kind, &record.id) {
            return Ok(());
        }
        if self.has_expired(&record) {
            return Ok(());
        }
        if let Err(why) = self.writes.keyring().must_open(&record) {
            self.restored.refused.push((Name::of(&record), why));
            return Ok(());
        }
        if record.kind == Kind::Config {
            match record.id.as_str() {
                SERVICE_RECORD => {
                    self.service = Some(record);
                    return Ok(());
                }
                DEPLOYMENT_RECORD => {
                    self.deployment = Some(record);
                    return Ok(());
                }
                _ => {}
            }
        }
        let is_named = self.is_named(record.kind, &record.id);
        let wish = self.writes.wish(record, current.as_ref(), is_named);
        if wish.is_write() && !self.options.dry_run {
            self.waiting.push(wish);
        } else {
            self.note(wish.class, wish.name());
        }
        Ok(())
    }

    async fn log(&mut self, record: Record) -> Result<(), RestoreError> {
        if !self.is_wanted(record.kind, &record.id) || self.has_expired(&record) {
            return Ok(());
        }
        if self.restored.destination == Destination::SameDeployment || self.options.dry_run {
            let table = Arc::clone(self.writes.table());
            if self.restored.destination == Destination::SameDeployment
                && write::current(table.as_ref(), &record).await?.is_some()
            {
                self.restored.equal += 1;
                return Ok(());
            }
            if self.options.dry_run {
                self.restored.log_records += 1;
                return Ok(());
            }
        }
        self.waiting.push(Wish::of_log(record));
        Ok(())
    }

    fn has_expired(&mut self, record: &Record) -> bool {
        let has_expired = record.expires_at.is_some_and(|at| at <= self.now);
        self.restored.expired += u64::from(has_expired);
        has_expired
    }

    async fn write_waiting(&mut self) -> Result<(), RestoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        let writes = waiting.into_iter().map(|wish| self.writes.apply(wish));
        let written = futures_util::future::join_all(writes).await;
        for written in written {
            let (name, class) = written?;
            self.note(class, name);
        }
        Ok(())
    }

    fn note(&mut self, class: Class, name: Name) {
        let restored = &mut self.restored;
        match class {
            Class::New => restored.new.push(name),
            Class::Changed => restored.changed.push(name),
            Class::Repaired => restored.repaired.push(name),
            Class::KeptOut => restored.kept_out.push(name),
            Class::Equal => restored.equal += 1,
            Class::OfLog => restored.log_records += 1,
        }
    }

    /// Whether a record other than the logs' was written, or would be.
    fn has_written(&self) -> bool {
        let restored = &self.restored;
        !restored.new.is_empty()
            || !restored.repaired.is_empty()
            || (self.options.overwrite && !restored.changed.is_empty())
    }

    async fn finish(mut self) -> Result<Restored, RestoreError> {
        let is_raised = self.has_written();
        let service = self.service.take();
        let class = self.writes.configuration(service, is_raised).await?;
        if let Some(class) = class {
            let name = Name {
                kind: Kind::Config,
                id: SERVICE_RECORD.to_owned(),
            };
            self.note(class, name);
        }
        if self.restored.destination == Destination::Empty {
            let deployment = self.deployment.take().ok_or(RestoreError::NoDeployment)?;
            if !self.options.dry_run {
                self.writes.table().put_new(&deployment).await?;
            }
            self.restored.new.push(Name::of(&deployment));
        }
        Ok(self.restored)
    }
}
