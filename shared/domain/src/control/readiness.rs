//! Whether a process can do its work, for callers who prove nothing: load balancers, orchestrators, clients' probes.

use std::sync::Arc;
use std::time::Duration;

use futures_util::lock::Mutex;

use crate::error::KmsError;
use crate::service::{Degraded, Service};
use crate::wrappers::Wrappers;

/// An answer is given again for so long: however many ask, the table and the backend are asked no more often.
const ANSWER_TTL: Duration = Duration::from_secs(2);

/// Whether a process can do its work.
///
/// The root keyring's file is not looked at: a process that has started holds the keyring in memory and does all its work
/// without the file, which only the next start needs. The service's status tells of it.
pub struct Readiness {
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
    /// Locked while the table and the backend are asked, so that one question is under way at most.
    known: Mutex<Option<Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    /// When it was asked and when it was answered, by the monotonic clock.
    begun: Duration,
    ended: Duration,
    /// How often this process had changed the configuration when it was asked.
    changes: u64,
    ready: bool,
}

impl Readiness {
    /// Of the process that has these.
    pub fn new(service: Arc<Service>, wrappers: Arc<Wrappers>) -> Self {
        Self {
            service,
            wrappers,
            known: Mutex::new(None),
        }
    }

    /// Whether the service runs, its table and backend can be had, and nothing keeps it from its work. An answer is at
    /// most two seconds old, or was being found out when it was asked for; and it is younger than every change that this
    /// process has made. Why it is not ready goes to the log.
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
        // A file that was written again is there.
        degraded
            .iter()
            .all(|reason| *reason == Degraded::KeyringRestored)
    }

    async fn backend_works(&self) -> Result<(), KmsError> {
        // What is cached says nothing of the table as it is now.
        let config = self.service.probe().await?;
        self.wrappers.check(&config).await
    }
}
