//! The rotation of Vault's transit key: adds a version, wraps every key anew under it, and makes Vault refuse older ones.
//! Vault wraps anew by itself, so no key leaves it in the clear.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::control::PROBE;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::keyring::{Binding, HoldsSecrets, LOOK_AGAIN_AFTER, WRITE_MARGIN, Wrapped, kms_error};
use crate::keys::MasterKey;
use crate::migration::{Outcome, Progress};
use crate::ports::{Clock, Consistency, Kind, Random, Record, Revision, TableWriter};
use crate::repository::{self, Noun, update};
use crate::roots::Retired;
use crate::scan::{Found, Scan};
use crate::service::{Service, ServiceConfig};
use crate::vault::{TransitVersions, VAULT_WRAPPER, Vault};
use crate::wrappers::Wrappers;

/// How many records are read at a time. Few, because records that wait long may change meanwhile.
const PAGE: usize = 200;

/// The versions of the transit key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransitStatus {
    /// The version that wraps, and the oldest one that unwraps.
    pub versions: TransitVersions,
    /// How many records hold what each version wrapped. The configuration is one of them.
    pub records: BTreeMap<u64, u64>,
    /// How many sealed copies of keys do.
    pub copies: BTreeMap<u64, u64>,
    /// Keys that were refused or do not decode.
    pub unreadable: Vec<String>,
}

/// Why a version was not retired.
#[derive(Debug, thiserror::Error)]
pub enum TransitError {
    /// Something needs it.
    #[error(
        "{records} records and {copies} sealed copies hold what version {version} of the transit key or an older one \
         wrapped; run `keyway root vault rewrap` first"
    )]
    InUse {
        /// The version.
        version: u64,
        /// How many records need it.
        records: u64,
        /// How many sealed copies do.
        copies: u64,
    },
    /// It wraps.
    #[error(
        "version {0} is the newest version of the transit key, which wraps, or there is no such version"
    )]
    Newest(u64),
    /// Some keys could not be read.
    #[error("{} keys do not verify or decode; the first one is {}", .0.len(), .0.first().map_or("", String::as_str))]
    Unreadable(Vec<String>),
    /// The wait for other processes was too short.
    #[error("the wait for the other processes was too short, and nothing was changed")]
    NotWaited,
    /// A port failed.
    #[error("{}", .0.for_operator())]
    Failed(KmsError),
}

impl From<KmsError> for TransitError {
    fn from(error: KmsError) -> Self {
        Self::Failed(error)
    }
}

/// The operator's jobs on the transit key of the configured Vault.
pub struct TransitRotation {
    table: Arc<dyn TableWriter>,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

fn failed(error: crate::keyring::WrapError) -> KmsError {
    kms_error("the Vault", error)
}

impl TransitRotation {
    /// Uses the service's table.
    pub const fn new(
        table: Arc<dyn TableWriter>,
        service: Arc<Service>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            service,
            wrappers,
            clock,
            random,
        }
    }

    /// The versions of the transit key, and what needs each.
    ///
    /// # Errors
    /// [`KmsError::Conflict`] when no Vault is configured; otherwise when a port fails.
    pub async fn status(&self) -> Result<TransitStatus, KmsError> {
        let (config, vault) = self.vault().await?;
        let vault = vault.as_ref();
        let mut status = TransitStatus {
            versions: vault.transit_versions().await.map_err(failed)?,
            records: BTreeMap::new(),
            copies: BTreeMap::new(),
            unreadable: Vec::new(),
        };
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key).by(PAGE);
        while let Some(found) = scan.found().await? {
            match found {
                Found::Record(record) => match versions(vault, &record) {
                    Ok(versions) => count(&mut status.records, versions),
                    Err(_) => status.unreadable.push(record.id),
                },
                Found::Refused(record) => status.unreadable.push(record.id),
            }
        }
        let probe = config.vault.as_ref().and_then(|vault| vault.probe.as_ref());
        count(
            &mut status.records,
            probe.and_then(|probe| version(vault, probe)),
        );
        for id in vault.copies().await.map_err(failed)? {
            if let Some(copy) = vault.copy(&id).await.map_err(failed)? {
                let record = Record {
                    kind: Kind::Key,
                    id,
                    revision: Revision([0; 16]),
                    value: copy.value,
                    expires_at: None,
                };
                // A copy that does not decode restores nothing.
                count(
                    &mut status.copies,
                    versions(vault, &record).unwrap_or_default(),
                );
            }
        }
        Ok(status)
    }

    /// Adds a version to the transit key. It wraps from then on. Returns its number.
    ///
    /// # Errors
    /// As [`TransitRotation::status`].
    pub async fn rotate(&self) -> Result<u64, KmsError> {
        let (_, vault) = self.vault().await?;
        vault.rotate_transit().await.map_err(failed)?;
        Ok(vault.transit_versions().await.map_err(failed)?.newest)
    }

    /// Wraps anew under the newest version what older versions wrapped. Keys can be used meanwhile. `pace` runs before
    /// each write, and `tell` after each key.
    ///
    /// # Errors
    /// When the table or Vault is unavailable; finished work stays done. Failures of single keys are in the outcome.
    pub async fn rewrap(
        &self,
        mut pace: impl AsyncFnMut(),
        mut tell: impl FnMut(Progress),
    ) -> Result<Outcome, KmsError> {
        let (config, vault) = self.vault().await?;
        let newest = vault.transit_versions().await.map_err(failed)?.newest;
        let mut progress = Progress {
            done: 0,
            total: self.table.count(Kind::Key, "").await?,
        };
        let mut outcome = Outcome::default();
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key).by(PAGE);
        tell(progress);
        while let Some(record) = scan.record().await? {
            let versions = versions(vault.as_ref(), &record).unwrap_or_default();
            let done = if versions.iter().any(|version| *version < newest) {
                pace().await;
                self.rewrap_key(&config, vault.as_ref(), newest, &record.id)
                    .await
            } else {
                Ok(false)
            };
            outcome.add(&record.id, done)?;
            progress.done += 1;
            tell(progress);
        }
        outcome.add("the configuration", self.rewrap_probe(newest).await)?;
        Ok(outcome)
    }

    /// Makes Vault refuse what this version of the transit key or an older one wrapped, once nothing needs it.
    /// `state_ttl` is the longest state TTL of the deployment's processes: they may hold keys in memory that long as they
    /// were before they were wrapped anew. `wait` must return after that time.
    ///
    /// # Errors
    /// [`TransitError`]; then nothing has changed.
    pub async fn retire(
        &self,
        version: u64,
        state_ttl: Duration,
        wait: impl AsyncFnOnce(Duration),
    ) -> Result<Retired, TransitError> {
        let status = self.status().await?;
        if version < status.versions.minimum {
            return Ok(Retired::Before);
        }
        must_be_unused(&status, version)?;
        let time = state_ttl.max(LOOK_AGAIN_AFTER) + WRITE_MARGIN;
        let began = self.clock.monotonic();
        wait(time).await;
        if self.clock.monotonic().saturating_sub(began) < time {
            return Err(TransitError::NotWaited);
        }
        must_be_unused(&self.status().await?, version)?;
        let (_, vault) = self.vault().await?;
        vault.refuse_below(version + 1).await.map_err(failed)?;
        Ok(Retired::Now)
    }

    async fn vault(&self) -> Result<(Arc<ServiceConfig>, Arc<dyn Vault>), KmsError> {
        let config = self
            .service
            .config()
            .await?
            .ok_or(KmsError::NotConfigured)?;
        match self.wrappers.vault(&config).await? {
            Some(vault) => Ok((config, vault)),
            None => Err(KmsError::Conflict("no Vault is configured")),
        }
    }

    /// Whether the key had to be changed.
    async fn rewrap_key(
        &self,
        config: &ServiceConfig,
        vault: &dyn Vault,
        newest: u64,
        id: &str,
    ) -> Result<bool, KmsError> {
        let contended = || Fault::plain("others changed the key all the time; run the job again");
        let rewrapped = || async {
            let table = self.table.as_ref();
            let Some(seen) = table.get(Kind::Key, id, Consistency::Strong).await? else {
                return Ok(Some(false));
            };
            let mut key = MasterKey::of(&seen)?;
            let mut is_changed = false;
            for (number, origin, wrapped) in key.secrets() {
                let version_of_key = number;
                let binding = Binding {
                    id,
                    version: version_of_key,
                    origin,
                };
                is_changed |= rewrapped_one(vault, newest, &binding, wrapped).await?;
            }
            if !is_changed {
                return Ok(Some(false));
            }
            let value = encoding::encode(&key)?;
            let next = repository::again(&seen, Some(value), self.random.as_ref())?;
            let replaced = self.wrappers.replace(config, table, &next, seen.revision);
            Ok(replaced.await?.then_some(true))
        };
        update(|| contended().into(), rewrapped).await
    }

    /// Wraps the configuration's probe anew.
    async fn rewrap_probe(&self, newest: u64) -> Result<bool, KmsError> {
        let contended = || Fault::plain("others changed the configuration all the time");
        let rewrapped = || async {
            let Some((mut config, seen)) = self.service.current().await? else {
                return Ok(Some(false));
            };
            let Some(vault) = self.wrappers.vault(&config).await? else {
                return Ok(Some(false));
            };
            let probe = config.vault.as_mut().and_then(|vault| vault.probe.as_mut());
            let is_changed = match probe {
                Some(probe) => rewrapped_one(vault.as_ref(), newest, &PROBE, probe).await?,
                None => false,
            };
            if !is_changed {
                return Ok(Some(false));
            }
            let record = config.service_record(self.random.as_ref())?;
            let is_written = repository::write(self.table.as_ref(), &record, Some(seen)).await?;
            self.service.forget();
            Ok(is_written.then_some(true))
        };
        update(|| contended().into(), rewrapped).await
    }
}

/// Whether the secret had to be wrapped anew.
async fn rewrapped_one(
    vault: &dyn Vault,
    newest: u64,
    binding: &Binding<'_>,
    wrapped: &mut Wrapped,
) -> Result<bool, KmsError> {
    match version(vault, wrapped) {
        Some(found) if found < newest => {
            let bytes = vault.rewrap(binding, wrapped.bytes()).await;
            *wrapped = Wrapped::of(VAULT_WRAPPER, bytes.map_err(failed)?);
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The version of the transit key that wrapped the secret; `None` if another wrapper did.
fn version(vault: &dyn Vault, wrapped: &Wrapped) -> Option<u64> {
    (wrapped.wrapper() == VAULT_WRAPPER)
        .then(|| vault.version_of(wrapped.bytes()))
        .flatten()
}

/// The versions of the transit key that wrapped secrets of this key.
fn versions(vault: &dyn Vault, record: &Record) -> Result<BTreeSet<u64>, KmsError> {
    let mut key = MasterKey::of(record)?;
    let secrets = key.secrets().into_iter();
    Ok(secrets
        .filter_map(|(_, _, wrapped)| version(vault, wrapped))
        .collect())
}

fn count(counts: &mut BTreeMap<u64, u64>, versions: impl IntoIterator<Item = u64>) {
    for version in versions {
        *counts.entry(version).or_default() += 1;
    }
}

fn must_be_unused(status: &TransitStatus, version: u64) -> Result<(), TransitError> {
    if version >= status.versions.newest {
        return Err(TransitError::Newest(version));
    }
    let needing = |counts: &BTreeMap<u64, u64>| counts.range(..=version).map(|(_, n)| n).sum();
    let (records, copies) = (needing(&status.records), needing(&status.copies));
    if records > 0 || copies > 0 {
        return Err(TransitError::InUse {
            version,
            records,
            copies,
        });
    }
    match status.unreadable.is_empty() {
        true => Ok(()),
        false => Err(TransitError::Unreadable(status.unreadable.clone())),
    }
}
