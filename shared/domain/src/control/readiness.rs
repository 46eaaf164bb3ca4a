//! Whether a process can work, for unauthenticated callers: load balancers, orchestrators, clients' probes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::lock::Mutex;

use crate::error::KmsError;
use crate::service::{Degraded, Service};
use crate::wrappers::Wrappers;

/// How long an answer is reused. It limits how often the table and the backend are checked, however many callers ask.
const ANSWER_TTL: Duration = Duration::from_secs(2);

/// Whether a process can work.
///
/// The root keyring's file is not checked: a running process holds the keyring in memory and works without the file.
/// Only the next start needs it. The service's status reports it.
pub struct Readiness {
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    /// Locked while the table and the backend are checked, so that at most one check runs at a time.
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    /// When the check began and ended, by the monotonic clock.
    begun: Duration,
    ended: Duration,
    /// How often this process had changed the configuration when the check began.
    changes: u64,
    ready: bool,
}

impl Readiness {
    pub fn new(service: Arc<Service>, wrappers: Arc<Wrappers>) -> Self {
        Self {
            service,
            wrappers,
            known: Mutex::new(None),
        }
    }

    /// Whether the service runs, its table and backend are available, and nothing is degraded. An answer is at most two
    /// seconds old, or comes from a check that was running when it was requested. It is newer than every change by this
    /// process. The reason for "not ready" goes to the log.
    pub async fn is_ready(&self, request_id: &str) -> bool {
        let asked = self.service.clock().monotonic();
        let mut known = self.known.lock().await;
        let begun = self.service.clock().monotonic();
        let changes = self.service.changes();
        if let Some(known) = *known
            && known.changes == changes
            && (begun.saturating_sub(known.begun) < ANSWER_TTL || known.ended > asked)
        {
            return known.ready;
        }
        let ready = self.can_work(request_id).await;
        *known = Some(Known {
            begun,
            ended: self.service.clock().monotonic(),
            changes,
            ready,
        });
        ready
    }

    async fn can_work(&self, request_id: &str) -> bool {
        match self.backend_works().await {
            Ok(()) => {}
            Err(KmsError::Unavailable(fault) | KmsError::Backend(fault)) => {
                fault.log(request_id);
                return false;
            }
            Err(_) => return false,
        }
        let degraded = self.service.degraded().await;
        // A restored file is present again.
        degraded
            .iter()
            .all(|reason| *reason == Degraded::KeyringRestored)
    }

    async fn backend_works(&self) -> Result<(), KmsError> {
        // Not from the cache, which does not show whether the table works now.
        let config = self.service.probe().await?;
        self.wrappers.check(&config).await
    }
}
