//! The service's configuration and state, shared by every instance through the table.

mod changes;
mod folder;
mod health;
mod restored;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::buckets;
use crate::cache::Cache;
use crate::encoding::{self, base64_bytes};
use crate::error::{Fault, KmsError};
use crate::ids::{KeyId, Reference, uuid_v4};
use crate::keyring::Wrapped;
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, TableChange, TableReader, TableWriter,
};
use crate::records::unverified_content;
use crate::repository::{self, Noun, load};
use crate::vault::{VaultRetryPolicy, VaultSettings};

pub use changes::{Change, ConfigChanges, NewAuth};
pub use folder::{KeyringFile, keep_keyring};
pub use health::{Degraded, HealthCheck, WatchedTable, WriteFailure};
pub use restored::RestoredConfig;

/// The id of the configuration's record, of the kind [`Kind::Config`].
pub const SERVICE_RECORD: &str = "service";

/// The service's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Configured, but stopped: key and data-key operations are refused.
    Configured,
    /// Serving.
    Running,
}

/// What wraps the master keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendType {
    /// The root keyring of this deployment.
    Local,
    /// The transit engine of Vault or OpenBao.
    Vault,
}

/// The settings of the cache of unwrapped keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSettings {
    /// Whether anything is cached.
    pub enabled: bool,
    /// The time to live, in seconds: 1 to 86,400.
    pub ttl_seconds: u32,
    /// The most key versions that are cached: 1 to 100,000.
    pub max_keys: u32,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ttl_seconds: 600,
            max_keys: 1024,
        }
    }
}

impl CacheSettings {
    pub(crate) fn ttl(self) -> Duration {
        if self.enabled {
            Duration::from_secs(self.ttl_seconds.into())
        } else {
            Duration::ZERO
        }
    }

    pub(crate) fn capacity(self) -> NonZeroUsize {
        usize::try_from(self.max_keys)
            .ok()
            .and_then(NonZeroUsize::new)
            .unwrap_or(NonZeroUsize::MIN)
    }
}

/// A Vault in the configuration record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultConfig {
    /// How it is reached.
    pub settings: VaultSettings,
    /// The token or secret id, wrapped by the root keyring.
    pub(crate) credential: Option<Wrapped>,
    /// Random bytes wrapped by its transit key. A Vault that unwraps them holds the same transit key.
    pub(crate) probe: Option<Wrapped>,
}

impl VaultConfig {
    /// Whether a token or secret id is stored for it.
    pub fn has_credential(&self) -> bool {
        self.credential.is_some()
    }
}

/// The default timeout of a backend call, in seconds.
const TIMEOUT_SECONDS: u32 = 30;
/// The default number of retries after a failed call.
const RETRY_ATTEMPTS: u32 = 3;

/// The configuration record. It holds no secret in the clear. 0.1.0 wrote it without the fields that have a default here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    format: u8,
    /// The configuration's id. Each new configuration has another one.
    #[serde(default = "no_config_id")]
    pub config_id: String,
    /// The service's state.
    pub state: ServiceState,
    /// What wraps the master keys.
    pub backend_type: BackendType,
    /// The folder of the root keyring's file, if it is not the deployment's own. Only for a deployment on one machine.
    pub key_directory: Option<String>,
    /// The Vault that is the backend, or that still wraps old keys.
    pub vault: Option<VaultConfig>,
    /// The key of data-key operations that name no key.
    pub default_key_id: Option<KeyId>,
    /// What is cached.
    #[serde(default)]
    pub cache: CacheSettings,
    /// The timeout of one call to a backend, in seconds: 1 to 300.
    #[serde(default = "timeout_seconds")]
    pub timeout_seconds: u32,
    /// How often a failed call to a backend is retried: 0 to 10.
    #[serde(default = "retry_attempts")]
    pub retry_attempts: u32,
    /// Raised when every instance must drop its cache.
    #[serde(default)]
    pub(crate) cache_epoch: u64,
    /// Authenticates list markers, so that a forged one is refused. Protects no data.
    #[serde(with = "base64_bytes")]
    pub(crate) marker_key: Vec<u8>,
}

/// The id of a configuration that 0.1.0 made: the nil UUID.
fn no_config_id() -> String {
    uuid::Uuid::nil().to_string()
}

const fn timeout_seconds() -> u32 {
    TIMEOUT_SECONDS
}

const fn retry_attempts() -> u32 {
    RETRY_ATTEMPTS
}

impl ServiceConfig {
    /// The local backend with its defaults, stopped.
    pub(crate) fn fresh(random: &dyn Random) -> Result<Self, KmsError> {
        let mut marker_key = vec![0; 32];
        random.fill(&mut marker_key)?;
        Ok(Self {
            format: encoding::FORMAT,
            config_id: config_id(random)?,
            state: ServiceState::Configured,
            backend_type: BackendType::Local,
            key_directory: None,
            vault: None,
            default_key_id: None,
            cache: CacheSettings::default(),
            timeout_seconds: TIMEOUT_SECONDS,
            retry_attempts: RETRY_ATTEMPTS,
            cache_epoch: 0,
            marker_key,
        })
    }

    pub(crate) fn retry_policy(&self) -> VaultRetryPolicy {
        VaultRetryPolicy {
            timeout: Duration::from_secs(self.timeout_seconds.into()),
            retries: self.retry_attempts,
        }
    }

    /// The configuration, if the service is running.
    fn must_run(self: Arc<Self>) -> Result<Arc<Self>, KmsError> {
        match self.state {
            ServiceState::Running => Ok(self),
            ServiceState::Configured => Err(KmsError::NotRunning),
        }
    }

    pub(crate) fn service_record(&self, random: &dyn Random) -> Result<Record, KmsError> {
        self.record(SERVICE_RECORD, random)
    }
}

impl Noun for ServiceConfig {
    const KIND: Kind = Kind::Config;
}

pub(crate) fn config_id(random: &dyn Random) -> Result<String, KmsError> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes)?;
    Ok(uuid_v4(bytes))
}

/// The folder of the root keyring's file, if the configuration names one. It must be known before the keyring is
/// opened, so it is read from the table unverified. With a wrong keyring, no record of the table verifies.
///
/// # Errors
/// When the table fails.
pub async fn key_directory(table: &dyn TableReader) -> Result<Option<String>, KmsError> {
    let record = table
        .get(Kind::Config, SERVICE_RECORD, Consistency::Strong)
        .await?;
    let Some(record) = record else {
        return Ok(None);
    };
    let config: ServiceConfig = encoding::decode(unverified_content(&record.value))?;
    Ok(config.key_directory)
}

/// Reads the service's state.
pub struct Service {
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    cache: Cache<(), ServiceConfig>,
    /// How often this process has changed the configuration, or dropped its cached copy.
    changes: AtomicU64,
    /// The highest epoch of a configuration that this process has seen. Each change raises the epoch.
    epoch: AtomicU64,
    /// How the first request starts a service that was never configured.
    starts: OnceLock<Starts>,
    checks: RwLock<Vec<Arc<dyn HealthCheck>>>,
}

/// What a service that was never configured is started with.
struct Starts {
    table: Arc<dyn TableWriter>,
    random: Arc<dyn Random>,
    default_key_id: Option<KeyId>,
}

impl Service {
    /// `state_ttl`: how long an instance may use a state that another one has changed. Zero reads the table each time.
    pub fn new(table: Arc<dyn TableReader>, clock: Arc<dyn Clock>, state_ttl: Duration) -> Self {
        Self {
            table,
            clock,
            state_ttl,
            cache: Cache::new(NonZeroUsize::MIN),
            changes: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            starts: OnceLock::new(),
            checks: RwLock::default(),
        }
    }

    /// The current configuration and its revision. Fails if it is older than one that this process has seen: somebody
    /// put an old record back.
    pub(crate) async fn current(&self) -> Result<Option<(ServiceConfig, Revision)>, KmsError> {
        let obeyed = self.epoch.load(Ordering::Acquire);
        let stored = load::<ServiceConfig>(self.table.as_ref(), SERVICE_RECORD).await?;
        let Some((config, seen)) = stored else {
            return Ok(None);
        };
        self.epoch.fetch_max(config.cache_epoch, Ordering::AcqRel);
        if config.cache_epoch < obeyed {
            return Err(KmsError::Backend(Fault::plain(
                "the table's configuration is older than one that this process has obeyed; if the table was restored, restart",
            )));
        }
        Ok(Some((config, seen)))
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// How long an instance may use a state that another instance has changed.
    pub fn state_ttl(&self) -> Duration {
        self.state_ttl
    }

    /// The configuration, at most the state TTL old; `None` when the service was never configured.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn config(&self) -> Result<Option<Arc<ServiceConfig>>, KmsError> {
        let config = self.known_config().await?;
        match (config, self.starts.get()) {
            (None, Some(starts)) => {
                let (table, random) = (starts.table.as_ref(), starts.random.as_ref());
                self.start_if_new(table, random, starts.default_key_id.clone())
                    .await?;
                self.known_config().await
            }
            (config, _) => Ok(config),
        }
    }

    async fn known_config(&self) -> Result<Option<Arc<ServiceConfig>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(config) = self.cache.get(&(), now, self.state_ttl) {
            return Ok(Some(config));
        }
        let ticket = self.cache.begin(now);
        let Some((config, _)) = self.current().await? else {
            return Ok(None);
        };
        let config = Arc::new(config);
        self.cache
            .insert(ticket, (), Arc::clone(&config), self.state_ttl);
        Ok(Some(config))
    }

    /// Lets the first request that finds the service unconfigured configure and start it, as [`Service::start_if_new`]
    /// does. For a process that cannot wait at its start until the table and the keyring are available.
    pub fn start_when_asked(
        &self,
        table: Arc<dyn TableWriter>,
        random: Arc<dyn Random>,
        default_key_id: Option<KeyId>,
    ) {
        self.starts.get_or_init(|| Starts {
            table,
            random,
            default_key_id,
        });
    }

    /// The configuration of a running service, read from the table and not from the cache.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`], [`KmsError::NotRunning`], or the table failed.
    pub async fn probe(&self) -> Result<Arc<ServiceConfig>, KmsError> {
        let (config, _) = self.current().await?.ok_or(KmsError::NotConfigured)?;
        Arc::new(config).must_run()
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Drops the cached configuration, so that the next request reads the table.
    pub(crate) fn forget(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.cache.forget(&());
    }

    /// Drops the cached configuration if another process may have changed it.
    pub fn obey_change(&self, change: &TableChange) {
        match change {
            TableChange::Record(Kind::Config, _) | TableChange::Any => self.forget(),
            TableChange::Record(..) => {}
        }
    }

    /// The configuration of a running service, at most the state TTL old.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`], [`KmsError::NotRunning`], or the table failed.
    pub async fn running(&self) -> Result<Arc<ServiceConfig>, KmsError> {
        self.config()
            .await?
            .ok_or(KmsError::NotConfigured)?
            .must_run()
    }

    /// What references the key and would break without it.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn references(&self, id: &KeyId) -> Result<Vec<Reference>, KmsError> {
        let config = self.config().await?;
        let is_default = config.is_some_and(|config| config.default_key_id.as_ref() == Some(id));
        let mut references = if is_default {
            vec![Reference::ServiceDefaultKey]
        } else {
            Vec::new()
        };
        references.extend(buckets::references(self.table.as_ref(), id).await?);
        Ok(references)
    }

    /// Configures the local backend with its defaults and starts it, if nothing is configured yet. A service that is
    /// configured, running or stopped, stays as it is.
    ///
    /// # Errors
    /// When the table or the generator fails.
    pub async fn start_if_new(
        &self,
        table: &dyn TableWriter,
        random: &dyn Random,
        default_key_id: Option<KeyId>,
    ) -> Result<(), KmsError> {
        let config = ServiceConfig {
            state: ServiceState::Running,
            default_key_id,
            ..ServiceConfig::fresh(random)?
        };
        // If another process is faster, it starts the service as well.
        repository::write(table, &config.service_record(random)?, None).await?;
        self.forget();
        match self.known_config().await? {
            Some(_) => Ok(()),
            None => Err(KmsError::Backend(Fault::plain(
                "the configuration vanished as it was written",
            ))),
        }
    }
}
