//! Events of work that no request asked for.

use std::borrow::Cow;

use async_trait::async_trait;
use keyway_domain::audit::{BackgroundAudit, Event};
use keyway_domain::keys::KeyId;
use keyway_domain::{Fault, KmsError};
use keyway_http::{Class, Observer};

use crate::writer::{AuditWriter, NotWritten};

#[async_trait]
impl BackgroundAudit for AuditWriter {
    async fn may_proceed(&self) -> Result<(), KmsError> {
        let may_proceed = Observer::may_proceed(self, Class::Mutation).await;
        told(may_proceed.map_err(|_| NotWritten(None)))
    }

    async fn destroyed(&self, key: &KeyId, error: Option<&'static str>) -> Result<(), KmsError> {
        let event = of_janitor("kms:DestroyKey", key, error);
        told(self.record_background(&event).await)
    }

    async fn rotated(
        &self,
        key: &KeyId,
        version: u32,
        error: Option<&'static str>,
    ) -> Result<(), KmsError> {
        let event = Event {
            key_version: Some(version),
            ..of_janitor("kms:RotateKey", key, error)
        };
        told(self.record_background(&event).await)
    }
}

fn of_janitor<'a>(
    operation: &'static str,
    key: &'a KeyId,
    error: Option<&'static str>,
) -> Event<'a> {
    Event {
        dialect: Cow::Borrowed("janitor"),
        operation: Cow::Borrowed(operation),
        class: Some(Cow::Borrowed(Class::Mutation.as_str())),
        key_id: Some(Cow::Borrowed(key.as_str())),
        error: error.map(Cow::Borrowed),
        ..Event::default()
    }
}

/// A log that cannot be written, as an error of an operation.
pub(crate) fn told(outcome: Result<(), NotWritten>) -> Result<(), KmsError> {
    const WHAT: &str = "the audit log cannot be written";
    outcome.map_err(|NotWritten(cause)| {
        KmsError::Unavailable(match cause {
            Some(cause) => Fault::new(WHAT, cause),
            None => Fault::plain(WHAT),
        })
    })
}
