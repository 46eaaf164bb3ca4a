//! The service's configuration and state, shared by every instance through the table.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::buckets;
use crate::cache::Cache;
use crate::encoding::{self, base64_bytes};
use crate::error::{Fault, KmsError};
use crate::keys::{KeyId, Reference};
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, StoreError, TableReader, TableWriter,
};
use crate::revision;

const SERVICE_RECORD: &str = "service";

/// Where the service stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Configured; key and data-key operations are refused.
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
}

/// The configuration record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceConfig {
    format: u8,
    /// Where the service stands.
    pub state: ServiceState,
    /// What wraps the master keys.
    pub backend_type: BackendType,
    /// Used by data-key operations that name no key.
    pub default_key_id: Option<KeyId>,
    /// Authenticates list markers, so that one that was never given out is refused. Protects no data.
    #[serde(with = "base64_bytes")]
    pub(crate) marker_key: Vec<u8>,
}

/// Reads and sets the service's state.
pub struct Service {
    table: Arc<dyn TableReader>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    cache: Cache<(), ServiceConfig>,
}

impl Service {
    /// `state_ttl`: how long an instance may act on a state that another instance has changed since; zero reads each time.
    pub fn new(table: Arc<dyn TableReader>, clock: Arc<dyn Clock>, state_ttl: Duration) -> Self {
        Self {
            table,
            clock,
            state_ttl,
            cache: Cache::new(std::num::NonZeroUsize::MIN),
        }
    }

    /// The configuration, at most the state TTL old; `None` when the service was never configured.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn config(&self) -> Result<Option<Arc<ServiceConfig>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(config) = self.cache.get(&(), now, self.state_ttl) {
            return Ok(Some(config));
        }
        let ticket = self.cache.begin(now);
        let Some(record) = self
            .table
            .get(Kind::Config, SERVICE_RECORD, Consistency::Strong)
            .await?
        else {
            return Ok(None);
        };
        let config: Arc<ServiceConfig> = Arc::new(encoding::decode(&record.value)?);
        self.cache
            .insert(ticket, (), Arc::clone(&config), self.state_ttl);
        Ok(Some(config))
    }

    /// The configuration of a service that is running.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`], [`KmsError::NotRunning`], or the table failed.
    pub async fn running(&self) -> Result<Arc<ServiceConfig>, KmsError> {
        let config = self.config().await?.ok_or(KmsError::NotConfigured)?;
        match config.state {
            ServiceState::Running => Ok(config),
            ServiceState::Configured => Err(KmsError::NotRunning),
        }
    }

    /// What names the key and would break without it.
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

    /// Configures the local backend with its defaults and starts it, if nothing is configured yet.
    /// A service that is configured, running or stopped, is left as it is.
    ///
    /// # Errors
    /// When the table or the generator fails.
    pub async fn start_if_new(
        &self,
        table: &dyn TableWriter,
        random: &dyn Random,
        default_key_id: Option<KeyId>,
    ) -> Result<(), KmsError> {
        let mut marker_key = vec![0; 32];
        random.fill(&mut marker_key)?;
        let config = ServiceConfig {
            format: encoding::FORMAT,
            state: ServiceState::Running,
            backend_type: BackendType::Local,
            default_key_id,
            marker_key,
        };
        let record = Record {
            kind: Kind::Config,
            id: SERVICE_RECORD.to_owned(),
            revision: revision(random)?,
            value: encoding::encode(&config)?,
            expires_at: None,
        };
        match table.put_new(&record).await {
            Ok(()) | Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        self.cache.forget(&());
        match self.config().await? {
            Some(_) => Ok(()),
            None => Err(KmsError::Backend(Fault::plain(
                "the configuration vanished as it was written",
            ))),
        }
    }
}
