//! Why a running service refuses requests or fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;

use super::Service;
use crate::ports::{InterceptedTable, StoreError, TableCall, TableInterceptor, TableWriter};

/// Why a running service refuses mutations or data keys, or fails at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Degraded {
    /// The backend that wraps master keys does not work.
    Backend,
    /// The root keyring's file is missing or cannot be used.
    KeyringFile,
    /// The root keyring's file was missing, and was just written again.
    KeyringRestored,
    /// The audit log cannot be written to standard output.
    AuditOutput,
    /// The audit log cannot be written to the table.
    AuditTable,
    /// The table's last write failed.
    TableWrite,
}

impl Degraded {
    /// The reason's name in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::KeyringFile => "keyring_file",
            Self::KeyringRestored => "keyring_restored",
            Self::AuditOutput => "audit_output",
            Self::AuditTable => "audit_table",
            Self::TableWrite => "table_write",
        }
    }

    /// A sentence for the operator.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Backend => "the backend does not work; the log has the cause",
            Self::KeyringFile => {
                "the root keyring's file is missing or cannot be used; the log has the cause"
            }
            Self::KeyringRestored => {
                "the root keyring's file was gone and has been written again; find out what removed it"
            }
            Self::AuditOutput => {
                "the audit log cannot be written to standard output, so mutations and data keys are refused"
            }
            Self::AuditTable => {
                "the audit log cannot be written to the table, so mutations and data keys are refused"
            }
            Self::TableWrite => {
                "the last write to the table failed, so mutations fail; its disk may be full"
            }
        }
    }

    /// The sentences of several reasons; `None` if there are none.
    pub fn texts(reasons: &[Self]) -> Option<String> {
        let texts: Vec<&str> = reasons.iter().map(|reason| reason.text()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// Checks whether a part of the process works.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// What does not work. A part that has failed may be tried again for this; a part that works is left alone.
    async fn degraded(&self) -> Vec<Degraded>;
}

impl Service {
    /// Adds a check to [`Service::degraded`].
    pub fn check_also(&self, check: Arc<dyn HealthCheck>) {
        let mut checks = self.checks.write().unwrap_or_else(PoisonError::into_inner);
        checks.push(check);
    }

    /// What does not work now, as far as this process knows: each reason once, in their order. Does not call the
    /// backend.
    pub async fn degraded(&self) -> Vec<Degraded> {
        let checks = {
            let checks = self.checks.read().unwrap_or_else(PoisonError::into_inner);
            checks.clone()
        };
        let mut reasons = Vec::new();
        for check in checks {
            reasons.extend(check.degraded().await);
        }
        reasons.sort_unstable();
        reasons.dedup();
        reasons
    }
}

/// A table that knows whether its last write failed.
pub type WatchedTable = InterceptedTable<dyn TableWriter, WriteFailure>;

/// Whether the last write failed. A write that lost a race or was throttled changes nothing.
#[derive(Debug, Default)]
pub struct WriteFailure(AtomicBool);

impl WriteFailure {
    fn note<T>(&self, written: &Result<T, StoreError>) {
        match written {
            Ok(_) => self.0.store(false, Ordering::Relaxed),
            Err(StoreError::Failed { .. } | StoreError::Away(_)) => {
                self.0.store(true, Ordering::Relaxed);
            }
            Err(
                StoreError::Conflict
                | StoreError::Throttled
                | StoreError::Busy(_)
                | StoreError::Refused { .. }
                | StoreError::Unavailable(_),
            ) => {}
        }
    }
}

impl TableInterceptor for WriteFailure {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        let result = run.await;
        if call.is_write() {
            self.note(&result);
        }
        result
    }
}

#[async_trait]
impl HealthCheck for WatchedTable {
    async fn degraded(&self) -> Vec<Degraded> {
        let failed = self.interceptor().0.load(Ordering::Relaxed);
        failed.then_some(Degraded::TableWrite).into_iter().collect()
    }
}
