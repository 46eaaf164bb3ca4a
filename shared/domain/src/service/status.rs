//! What there is to say of the service.

use std::time::Duration;

use super::folder::{KeyringFile, keep_keyring};
use super::{ServiceConfig, ServiceControl};
use crate::access::Caller;
use crate::cache::CacheStats;
use crate::error::KmsError;
use crate::policy::Action;
use crate::ports::Kind;

/// What there is to say of the service.
#[derive(Debug)]
pub struct Status {
    /// What is known of a service that was configured.
    pub configured: Option<Configured>,
    /// How long an instance may act on a state that another instance has changed since.
    pub state_ttl: Duration,
}

/// What there is to say of a service that was configured.
#[derive(Debug)]
pub struct Configured {
    /// Its configuration.
    pub config: ServiceConfig,
    /// Whether its backend works at this moment, and the root keyring is where it is looked for.
    pub healthy: bool,
    /// What is wrong, where that can be told to whoever may ask.
    pub reason: Option<&'static str>,
    /// How long it took to find that out.
    pub latency: Duration,
    /// How many keys there are.
    pub key_count: u64,
    /// What the cache of this process did.
    pub cache: CacheStats,
}

impl ServiceControl {
    /// How the service does. A backend that does not work is part of the answer; its failure goes to the log.
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
        let clock = &self.service.clock;
        let begun = clock.monotonic();
        let works = match self.wrappers.check(&config).await {
            Ok(()) => true,
            Err(KmsError::Unavailable(fault) | KmsError::Backend(fault)) => {
                fault.log(request_id);
                false
            }
            Err(error) => return Err(error),
        };
        let reason = match &self.folder {
            None => None,
            Some(folder) => match keep_keyring(folder.as_ref(), self.table.as_ref()).await {
                Ok(KeyringFile::InPlace) => None,
                Ok(KeyringFile::Restored) => Some(
                    "the root keyring's file was gone and has been written again; find out what removed it",
                ),
                Err(KmsError::Unavailable(fault) | KmsError::Backend(fault)) => {
                    fault.log(request_id);
                    Some("the root keyring's file is missing or cannot be used; the log says why")
                }
                Err(error) => return Err(error),
            },
        };
        let healthy = works && reason.is_none();
        let latency = clock.monotonic().saturating_sub(begun);
        let key_count = self.table.count(Kind::Key, "").await?;
        Ok(Status {
            configured: Some(Configured {
                config,
                healthy,
                reason,
                latency,
                key_count,
                cache: self.reader.stats(),
            }),
            state_ttl,
        })
    }
}
