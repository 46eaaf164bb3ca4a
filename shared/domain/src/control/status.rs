//! The service's status.

use std::time::Duration;

use super::ServiceControl;
use crate::access::Caller;
use crate::cache::CacheStats;
use crate::error::KmsError;
use crate::policy::Action;
use crate::ports::Kind;
use crate::service::{Degraded, KeyringFile, ServiceConfig, keep_keyring};

/// The service's status.
#[derive(Debug)]
pub struct Status {
    /// The status of a configured service; `None` if it was never configured.
    pub configured: Option<Configured>,
    /// How long an instance may use a state that another instance has changed.
    pub state_ttl: Duration,
}

/// The status of a configured service.
#[derive(Debug)]
pub struct Configured {
    /// Its configuration.
    pub config: ServiceConfig,
    /// Why it does not work fully now; empty if it does.
    pub degraded: Vec<Degraded>,
    /// How long the check took.
    pub latency: Duration,
    /// The absolute path of the root keyring's folder; `None` if it is in no folder.
    pub keyring_folder: Option<String>,
    /// The number of keys.
    pub key_count: u64,
    /// The statistics of this process's cache.
    pub cache: CacheStats,
}

impl Configured {
    /// Whether it works fully now.
    pub fn is_healthy(&self) -> bool {
        self.degraded.is_empty()
    }

    /// Whether its backend works now.
    pub fn has_backend(&self) -> bool {
        !self.degraded.contains(&Degraded::Backend)
    }
}

impl ServiceControl {
    /// The service's status. A backend that does not work is part of the status; its failure goes to the log.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn status(&self, caller: &Caller, request_id: &str) -> Result<Status, KmsError> {
        caller.may_on_service(Action::ServiceControl)?;
        let state_ttl = self.service.state_ttl();
        let Some((config, _)) = self.stored().await? else {
            return Ok(Status {
                configured: None,
                state_ttl,
            });
        };
        let clock = self.service.clock();
        let begun = clock.monotonic();
        let mut degraded = Vec::new();
        match self.wrappers.check(&config).await {
            Ok(()) => {}
            Err(KmsError::Unavailable(fault) | KmsError::Backend(fault)) => {
                fault.log(request_id);
                degraded.push(Degraded::Backend);
            }
            Err(error) => return Err(error),
        }
        if let Some(folder) = &self.folder {
            match keep_keyring(folder.as_ref(), self.table.as_ref()).await {
                Ok(KeyringFile::InPlace) => {}
                Ok(KeyringFile::Restored) => degraded.push(Degraded::KeyringRestored),
                Err(KmsError::Unavailable(fault) | KmsError::Backend(fault)) => {
                    fault.log(request_id);
                    degraded.push(Degraded::KeyringFile);
                }
                Err(error) => return Err(error),
            }
        }
        let latency = clock.monotonic().saturating_sub(begun);
        degraded.extend(self.service.degraded().await);
        let keyring_folder = self
            .folder
            .as_ref()
            .map(|folder| folder.path(config.key_directory.as_deref()));
        let key_count = self.table.count(Kind::Key, "").await?;
        Ok(Status {
            configured: Some(Configured {
                config,
                degraded,
                latency,
                keyring_folder,
                key_count,
                cache: self.reader.stats(),
            }),
            state_ttl,
        })
    }
}
