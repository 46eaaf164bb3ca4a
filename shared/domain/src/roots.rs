//! The rotation of the root: adds a root to the keyring, wraps and signs every record anew under it, and retires older
//! roots.
//!
//! Servers run meanwhile. Every step is one conditional write, so a step that is cut off leaves the one before or the one
//! after it, and running the command again goes on from there:
//!
//! 1. The keyring gets the new root. Whoever reads it opens what any of its roots wrapped.
//! 2. The deployment's record in the table names the new root, so that processes notice it before they wrap or sign.
//! 3. Each record is written again under the new root.
//! 4. A root to which nothing refers is taken out of the keyring, when no process can still write under it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::access::StoredAccessKey;
use crate::error::{Fault, KmsError};
use crate::keyring::{
    HoldsSecrets, KeyringOnDemand, LOOK_AGAIN_AFTER, RootKeyring, WRITE_MARGIN, kms_error,
};
use crate::keys::MasterKey;
use crate::migration::{Outcome, Progress};
use crate::ports::{
    Clock, Consistency, Forgery, Kind, Random, Record, Revision, StoreError, TableReader,
    TableWriter,
};
use crate::records::{Verdict, is_signed, signing_root, stripped};
use crate::repository::{self, Noun, update};
use crate::scan::Scan;
use crate::service::{SERVICE_RECORD, Service, ServiceConfig};
use crate::wrappers::Wrappers;

pub use crate::keyring::{Retired, RootError};

/// How many records are read at a time. Few, because records that wait long may change meanwhile.
const PAGE: usize = 200;

/// The roots of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStatus {
    /// The id of the root that wraps and signs.
    pub current: String,
    /// Every root, oldest first.
    pub roots: Vec<RootSummary>,
    /// Records that are signed or wrapped under a root that the keyring does not hold, each as `kind/id`.
    pub lost: Vec<String>,
    /// Records whose wrapped secrets this release cannot find, each as `kind/id`.
    pub unreadable: Vec<String>,
}

/// One root of a deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootSummary {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many records are signed under it or hold a secret that it wraps.
    pub records: u64,
}

impl RootStatus {
    fn records_of(&self, root: &str) -> u64 {
        let found = self.roots.iter().find(|known| known.id == root);
        found.map_or(0, |known| known.records)
    }
}

/// The operator's jobs on the root.
pub struct Roots {
    /// The table below the signatures.
    stored: Arc<dyn TableWriter>,
    table: Arc<dyn TableWriter>,
    keyring: Arc<KeyringOnDemand>,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// What a record refers to.
enum References {
    To(BTreeSet<String>),
    /// A root that the keyring does not hold.
    Lost,
    /// Nothing, because nobody obeys it.
    Refused(Forgery),
    /// It verifies, and this release cannot decode it.
    Unreadable,
}

impl Roots {
    /// `stored` is the table below the signatures of `table`.
    pub const fn new(
        stored: Arc<dyn TableWriter>,
        table: Arc<dyn TableWriter>,
        keyring: Arc<KeyringOnDemand>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            stored,
            table,
            keyring,
            service,
            wrappers,
            clock,
            random,
        }
    }

    /// The roots, and how many records refer to each.
    ///
    /// # Errors
    /// When the keyring is an older copy, or a port fails.
    pub async fn status(&self) -> Result<RootStatus, RootError> {
        let keyring = self.keyring.announced(self.stored.as_ref()).await?;
        Ok(self.counted(&keyring).await?)
    }

    /// Adds a root to the keyring. From then on it wraps and signs. Returns its id.
    ///
    /// # Errors
    /// [`RootError::Overtaken`] and [`RootError::JustRotated`] when another rotation was faster; then nothing has changed.
    pub async fn rotate(&self) -> Result<String, RootError> {
        self.keyring.announced(self.stored.as_ref()).await?;
        self.keyring.add_root().await?;
        let keyring = self.keyring.announced(self.stored.as_ref()).await?;
        Ok(keyring.newest_root().to_owned())
    }

    /// Wraps and signs under the newest root every record that refers to an older one. Servers may use the records
    /// meanwhile. `pace` runs before each write, and `tell` after each record. If there was something to do, this begins
    /// again after a while, because processes that had not noticed the rotation may have written meanwhile: `wait` must
    /// return after that time.
    ///
    /// # Errors
    /// When the table or a backend is unavailable; finished work stays done. Failures of single records are in the
    /// outcome.
    pub async fn rewrap(
        &self,
        mut pace: impl AsyncFnMut(),
        wait: impl AsyncFnOnce(Duration),
        mut tell: impl FnMut(Progress),
    ) -> Result<Outcome, RootError> {
        let first = self.rewrap_each(&mut pace, &mut tell).await?;
        if first.changed == 0 {
            return Ok(first);
        }
        wait(LOOK_AGAIN_AFTER).await;
        let second = self.rewrap_each(&mut pace, &mut tell).await?;
        Ok(Outcome {
            changed: first.changed + second.changed,
            unchanged: first.unchanged,
            failed: second.failed,
        })
    }

    async fn rewrap_each(
        &self,
        pace: &mut impl AsyncFnMut(),
        tell: &mut impl FnMut(Progress),
    ) -> Result<Outcome, RootError> {
        let keyring = self.keyring.announced(self.stored.as_ref()).await?;
        let mut progress = Progress::default();
        for kind in signed_kinds() {
            progress.total += self.stored.count(kind, "").await.map_err(KmsError::from)?;
        }
        let mut outcome = Outcome::default();
        tell(progress);
        for kind in signed_kinds() {
            let mut scan = Scan::all(self.stored.as_ref(), kind).by(PAGE);
            while let Some(record) = scan.record().await.map_err(KmsError::from)? {
                let done = if must_change(&keyring, &record) {
                    pace().await;
                    self.rewrap_one(record.kind, &record.id).await
                } else {
                    Ok(false)
                };
                outcome.add(&name(&record), done)?;
                progress.done += 1;
                tell(progress);
            }
        }
        Ok(outcome)
    }

    /// Takes an older root out of the keyring, once nothing refers to it and no process can write under it any more.
    /// `state_ttl` is the longest state TTL of the deployment's processes: they may hold keys in memory that long as they
    /// were before they were wrapped anew. `wait` must return after that time.
    ///
    /// # Errors
    /// [`RootError::InUse`], [`RootError::Newest`], [`RootError::Unknown`], [`RootError::Unreadable`] or
    /// [`RootError::Overtaken`]; then nothing has changed.
    pub async fn retire(
        &self,
        root: &str,
        state_ttl: Duration,
        wait: impl AsyncFnOnce(Duration),
    ) -> Result<Retired, RootError> {
        let keyring = self.keyring.announced(self.stored.as_ref()).await?;
        if self.keyring.older_root(root).await? == Retired::Before {
            return Ok(Retired::Before);
        }
        self.must_be_unused(&keyring, root).await?;
        // The table names the newest root since before this moment, so every process looks at it within this time.
        let time = state_ttl.max(LOOK_AGAIN_AFTER) + WRITE_MARGIN;
        let began = self.clock.monotonic();
        wait(time).await;
        if self.clock.monotonic().saturating_sub(began) < time {
            return Err(RootError::NotWaited);
        }
        let keyring = self.keyring.announced(self.stored.as_ref()).await?;
        self.must_be_unused(&keyring, root).await?;
        self.keyring.take_out(root).await?;
        Ok(Retired::Now)
    }

    async fn must_be_unused(&self, keyring: &RootKeyring, root: &str) -> Result<(), RootError> {
        let status = self.counted(keyring).await?;
        let (records, copies) = (status.records_of(root), self.copies_of(root).await?);
        if records > 0 || copies > 0 {
            let root = root.to_owned();
            return Err(RootError::InUse {
                root,
                records,
                copies,
            });
        }
        if !status.unreadable.is_empty() {
            return Err(RootError::Unreadable(status.unreadable));
        }
        Ok(())
    }

    async fn counted(&self, keyring: &RootKeyring) -> Result<RootStatus, KmsError> {
        count_references(self.stored.as_ref(), keyring).await
    }

    /// How many sealed copies of keys in Vault hold secrets that this root wraps. A copy may be all that is left of a key.
    async fn copies_of(&self, root: &str) -> Result<u64, KmsError> {
        let failed = |error| kms_error("the sealed copies of keys", error);
        let vault = match self.service.config().await? {
            Some(config) => self.wrappers.vault(&config).await?,
            None => None,
        };
        let Some(vault) = vault else {
            return Ok(0);
        };
        let mut found = 0;
        for id in vault.copies().await.map_err(failed)? {
            let Some(copy) = vault.copy(&id).await.map_err(failed)? else {
                continue;
            };
            let record = Record {
                kind: Kind::Key,
                id,
                revision: Revision([0; 16]),
                value: copy.value,
                expires_at: None,
            };
            // A copy that does not decode restores nothing.
            let roots = MasterKey::roots(&record).unwrap_or_default();
            found += u64::from(roots.iter().any(|held| held == root));
        }
        Ok(found)
    }

    /// Whether the record was changed.
    async fn rewrap_one(&self, kind: Kind, id: &str) -> Result<bool, KmsError> {
        let contended =
            || Fault::plain("others changed the record all the time; run the job again");
        update(|| contended().into(), || self.rewrap_current(kind, id)).await
    }

    /// Whether the record as it is now had to be changed; `None` when another writer was faster.
    async fn rewrap_current(&self, kind: Kind, id: &str) -> Result<Option<bool>, KmsError> {
        let Some(stored) = self.stored.get(kind, id, Consistency::Strong).await? else {
            return Ok(Some(false));
        };
        let unavailable = |error| kms_error("the root keyring", error);
        let mut keyring = self.keyring.newest_keyring().await.map_err(unavailable)?;
        if let (References::Lost, Some(root)) =
            (references(&keyring, &stored), signing_root(&stored.value))
        {
            // The root may have been rotated again.
            keyring = (self.keyring.keyring_for(root).await).map_err(unavailable)?;
        }
        let roots = match references(&keyring, &stored) {
            References::To(roots) => roots,
            References::Unreadable => {
                return Err(Fault::plain(
                    "the record does not decode; a newer release may have written it",
                )
                .into());
            }
            References::Lost => {
                return Err(self.refused(&stored, Forgery::UnknownRoot));
            }
            References::Refused(why) => return Err(self.refused(&stored, why)),
        };
        if roots.iter().all(|root| root == keyring.newest_root()) {
            return Ok(Some(false));
        }
        let Some(seen) = self.table.get(kind, id, Consistency::Strong).await? else {
            return Ok(Some(false));
        };
        if seen.revision != stored.revision {
            return Ok(None);
        }
        let value = self.renewed(&keyring, &seen).await?;
        let next = repository::again(&seen, Some(value), self.random.as_ref())?;
        let is_written = if kind == Kind::Key && next.value != seen.value {
            self.replace_key(&keyring, &next, &seen).await?
        } else {
            repository::write(self.table.as_ref(), &next, Some(seen.revision)).await?
        };
        Ok(is_written.then_some(true))
    }

    /// Replaces a key's record and its sealed copy. `false`: another writer was faster, or the root was rotated again.
    async fn replace_key(
        &self,
        keyring: &RootKeyring,
        next: &Record,
        seen: &Record,
    ) -> Result<bool, KmsError> {
        let table = self.table.as_ref();
        let Some(config) = self.service.config().await? else {
            return Ok(repository::write(table, next, Some(seen.revision)).await?);
        };
        if self.wrappers.copy(&config, next).await? {
            // Vault may have taken long. The record must not be written under a root that may be retired by now.
            let unavailable = |error| kms_error("the root keyring", error);
            let newest = self.keyring.newest_keyring().await.map_err(unavailable)?;
            if newest.newest_root() == keyring.newest_root()
                && repository::write(table, next, Some(seen.revision)).await?
            {
                return Ok(true);
            }
        }
        self.wrappers.copy_again(&config, table, &next.id).await?;
        Ok(false)
    }

    /// The record's value under the newest root.
    async fn renewed(&self, keyring: &RootKeyring, seen: &Record) -> Result<Vec<u8>, KmsError> {
        match seen.kind {
            Kind::Key => MasterKey::renewed(seen, keyring).await,
            Kind::AccessKey => StoredAccessKey::renewed(seen, keyring).await,
            Kind::Config if seen.id == SERVICE_RECORD => {
                let mut config = ServiceConfig::of(seen)?;
                if let Some(vault) = &mut config.vault {
                    let renewed = self
                        .wrappers
                        .renewed_credential(vault, keyring.newest_root());
                    vault.credential = renewed.await?.or(vault.credential.take());
                }
                crate::encoding::encode(&config)
            }
            // They hold no wrapped secrets.
            Kind::Config
            | Kind::AccessKeyUse
            | Kind::Alias
            | Kind::Bucket
            | Kind::Policy
            | Kind::Identity
            | Kind::Audit
            | Kind::ErrorLog => Ok(seen.value.clone()),
        }
    }

    fn refused(&self, record: &Record, why: Forgery) -> KmsError {
        let (kind, id) = (record.kind, record.id.clone());
        StoreError::Refused { kind, id, why }.into()
    }
}

/// How many records of the table refer to each root.
pub(crate) async fn count_references(
    stored: &dyn TableReader,
    keyring: &RootKeyring,
) -> Result<RootStatus, KmsError> {
    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    let (mut lost, mut unreadable) = (Vec::new(), Vec::new());
    for kind in signed_kinds() {
        let mut scan = Scan::all(stored, kind).by(PAGE);
        while let Some(record) = scan.record().await? {
            match references(keyring, &record) {
                References::To(roots) => {
                    for root in roots {
                        *records.entry(root).or_default() += 1;
                    }
                }
                References::Lost => lost.push(name(&record)),
                References::Unreadable => unreadable.push(name(&record)),
                References::Refused(_) => {}
            }
        }
    }
    let roots = keyring.roots().map(|(id, created_at)| RootSummary {
        id: id.to_owned(),
        created_at,
        records: records.get(id).copied().unwrap_or_default(),
    });
    Ok(RootStatus {
        current: keyring.newest_root().to_owned(),
        roots: roots.collect(),
        lost,
        unreadable,
    })
}

fn signed_kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| is_signed(*kind, ""))
}

fn name(record: &Record) -> String {
    format!("{}/{}", record.kind.as_str(), record.id)
}

/// Whether a stored record must be written again under the newest root.
fn must_change(keyring: &RootKeyring, stored: &Record) -> bool {
    match references(keyring, stored) {
        References::To(roots) => roots.iter().any(|root| root != keyring.newest_root()),
        // The first may name a root that another process added; both are reported if they cannot be changed.
        References::Lost | References::Unreadable => true,
        References::Refused(_) => false,
    }
}

/// What a stored record refers to.
fn references(keyring: &RootKeyring, stored: &Record) -> References {
    if !is_signed(stored.kind, &stored.id) {
        return References::To(BTreeSet::new());
    }
    let content = match keyring.verdict(stored) {
        Verdict::True(content) => stored.value.len() - content.len(),
        Verdict::Unsigned if !keyring.all_are_signed() => 0,
        Verdict::Unsigned => return References::Refused(Forgery::Unsigned),
        Verdict::Forged(Forgery::UnknownRoot) => return References::Lost,
        Verdict::Forged(why) => return References::Refused(why),
    };
    let signed_under = signing_root(&stored.value).map(str::to_owned);
    let Ok(wrapped_under) = wrapped_under(&stripped(stored.clone(), content)) else {
        return References::Unreadable;
    };
    let roots: BTreeSet<String> = wrapped_under.into_iter().chain(signed_under).collect();
    if roots.iter().any(|root| !keyring.holds(root)) {
        return References::Lost;
    }
    References::To(roots)
}

impl RootKeyring {
    /// Whether a stored record would be obeyed, and this keyring holds the roots that wrap its secrets. A record whose
    /// content does not decode passes: what does not decode is not used.
    ///
    /// # Errors
    /// [`Forgery`] says why it would be refused, or that a root is missing.
    pub fn must_open(&self, record: &Record) -> Result<(), Forgery> {
        match references(self, record) {
            References::To(_) | References::Unreadable => Ok(()),
            References::Lost => Err(Forgery::UnknownRoot),
            References::Refused(why) => Err(why),
        }
    }
}

/// The roots that wrap the record's secrets.
fn wrapped_under(record: &Record) -> Result<Vec<String>, KmsError> {
    match record.kind {
        Kind::Key => MasterKey::roots(record),
        Kind::AccessKey => StoredAccessKey::roots(record),
        Kind::Config if record.id == SERVICE_RECORD => {
            let vault = ServiceConfig::of(record)?.vault;
            let credential = vault.and_then(|vault| vault.credential);
            let root = credential
                .as_ref()
                .map(|wrapped| wrapped.root())
                .transpose()?;
            Ok(root.flatten().map(str::to_owned).into_iter().collect())
        }
        // They hold no wrapped secrets.
        Kind::Config
        | Kind::AccessKeyUse
        | Kind::Alias
        | Kind::Bucket
        | Kind::Policy
        | Kind::Identity
        | Kind::Audit
        | Kind::ErrorLog => Ok(Vec::new()),
    }
}
