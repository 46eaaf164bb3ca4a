//! Tracks the attempts that the SDK makes of one write.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::config::interceptors::FinalizerInterceptorContextRef;
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::{BoxError, ProvideErrorMetadata, SdkError};
use keyway_aws::Service;
use keyway_domain::ports::StoreError;

/// Records whether DynamoDB answered each attempt. An attempt without an answer may still have succeeded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts {
    unanswered: Arc<AtomicBool>,
}

impl Attempts {
    /// Whether it is certain that no attempt before the last one succeeded.
    pub(crate) fn all_answered(&self) -> bool {
        !self.unanswered.load(Ordering::Relaxed)
    }

    /// The port's error for a failed write. [`StoreError::Throttled`] promises that nothing was changed, so it is
    /// returned only where that is certain.
    pub(crate) fn failed<E>(
        &self,
        service: &Service,
        what: &'static str,
        error: &SdkError<E, HttpResponse>,
    ) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        match service.failed(what, error) {
            StoreError::Throttled if !self.all_answered() => StoreError::Failed {
                what: "tell whether a write took place",
                source: "its answer was lost, and then DynamoDB throttled".into(),
            },
            other => other,
        }
    }
}

impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "keyway-attempts"
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let answered = context
            .response()
            .is_some_and(|response| !response.status().is_server_error());
        if !answered {
            self.unanswered.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}
