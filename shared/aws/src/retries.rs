//! Counts the retries of calls to AWS's services in this process.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextRef;
use aws_smithy_runtime_api::client::retries::RequestAttempts;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;

static RETRIES: AtomicU64 = AtomicU64::new(0);

/// The number of retries.
pub fn retries() -> u64 {
    RETRIES.load(Ordering::Relaxed)
}

/// Counts the retries of every client that has this interceptor.
#[derive(Debug)]
pub struct CountRetries;

impl Intercept for CountRetries {
    fn name(&self) -> &'static str {
        "keyway-retries"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let attempts = config.load::<RequestAttempts>();
        if attempts.is_some_and(|attempts| attempts.attempts() > 1) {
            RETRIES.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}
