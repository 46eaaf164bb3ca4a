//! What a process has counted of the requests that it served, for a dialect whose API tells it.

use std::sync::Arc;
use std::time::Duration;

/// What a process has counted since it started, of all dialects together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that succeeded.
    pub succeeded: u64,
    /// Requests that were refused: statuses from 400 to 499.
    pub refused: u64,
    /// Requests that failed: statuses from 500.
    pub failed: u64,
    /// Requests that are being answered.
    pub active: u64,
    /// Audit events that were written.
    pub audit_events: u64,
    /// Lines of the error log.
    pub error_events: u64,
    /// How many requests took no longer than this, in ascending order.
    pub durations: Vec<(Duration, u64)>,
}

/// Tells what was served up to now.
pub type MetricsSource = Arc<dyn Fn() -> Served + Send + Sync>;
