//! Counters of the requests of one process, for dialects whose API reports them.

use std::sync::Arc;
use std::time::Duration;

/// Counters since the process started, of all dialects together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Refused requests: statuses from 400 to 499.
    pub refused: u64,
    /// Failed requests: statuses from 500.
    pub failed: u64,
    /// Requests in progress.
    pub active: u64,
    /// Audit events written.
    pub audit_events: u64,
    /// Lines of the error log.
    pub error_events: u64,
    /// Upper bounds in ascending order, each with the number of requests that took no longer.
    pub durations: Vec<(Duration, u64)>,
}

/// Returns the counters as they are now.
pub type MetricsSource = Arc<dyn Fn() -> Served + Send + Sync>;
