//! The audit log: its events, and who may read them. No permission covers writing them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::policy::Action;
use crate::ports::StoreError;

/// The version of the events' format, the first field of each event. Events of format 1 have hashes in hexadecimal digits,
/// and always a `route` if there is one.
pub const FORMAT: u8 = 2;

type Text<'a> = Cow<'a, str>;

/// One event: a request and its result, or something about the log itself. Its JSON has the fields in this order,
/// without absent ones. The hash covers exactly that JSON without the hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event<'a> {
    /// [`FORMAT`], or 1 in events of former versions.
    pub audit: u8,
    /// When it was written.
    #[serde(borrow)]
    pub time: Text<'a>,
    /// The writer's id, drawn when a process starts.
    #[serde(borrow)]
    pub writer: Text<'a>,
    /// The event's number among the writer's, from 0.
    pub seq: u64,
    /// The hash of the writer's previous event.
    #[serde(borrow)]
    pub prev: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text<'a>>,
    /// The dialect that answered, or `audit` for events about the log.
    #[serde(borrow)]
    pub dialect: Text<'a>,
    /// The requested operation.
    #[serde(borrow)]
    pub operation: Text<'a>,
    /// The operation's class: `read`, `mutation` or `data_key`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text<'a>>,
    /// The path as sent, truncated if it is long.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    /// The route's path with the names of its parameters, unless `path` ends with it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Text<'a>>,
    /// The authenticated principal.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version: Option<u32>,
    /// The old key of a re-encrypted ciphertext.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub source_key_id: Option<Text<'a>>,
    /// The version of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key_version: Option<u32>,
    /// The target, if it is not a key.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Text<'a>>,
    /// The names of the encryption context.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<Text<'a>>>,
    /// The whole encryption context, if the operator enables it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_values: Option<BTreeMap<String, String>>,
    /// The length of an encryption context that has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_bytes: Option<usize>,
    /// The items of a request with several items, in order, all or some of them: see `first_item`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<EventItem<'a>>>,
    /// The number of the first item in this event, from 0. A request that is too long for one event has several events
    /// with the same request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_item: Option<u64>,
    /// The number of items of the whole request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_count: Option<u64>,
    /// The client's address.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Text<'a>>,
    /// The answer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The duration, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// A word for the error, such as `not_permitted`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<'a>>,
    /// Numbers about the log itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<BTreeMap<String, u64>>,
    /// The SHA-256 of everything before it, in base64url.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Text<'a>>,
}

/// One item of a request with several items. Its fields are those of [`Event`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventItem<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version: Option<u32>,
    /// The old key of a re-encrypted ciphertext.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub source_key_id: Option<Text<'a>>,
    /// The version of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key_version: Option<u32>,
    /// The names of the encryption context.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<Text<'a>>>,
    /// The whole encryption context, if the operator enables it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_values: Option<BTreeMap<String, String>>,
    /// The length of an encryption context that has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_bytes: Option<usize>,
    /// A word for the error, such as `not_permitted`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<'a>>,
}

impl Event<'_> {
    /// Whether it is about a request, not about the log itself.
    pub fn is_of_request(&self) -> bool {
        self.request_id.is_some()
    }

    /// Whether it continues an earlier event of the same request.
    pub fn goes_on(&self) -> bool {
        self.first_item.is_some_and(|first| first > 0)
    }
}

/// Which events to read.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Not before this time; `None` for the last 24 hours.
    pub since: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
    /// Events with this key as the key or as the source.
    pub key_id: Option<String>,
    pub principal: Option<String>,
    /// The most events; at least one.
    pub limit: usize,
    /// Where the previous page ended.
    pub marker: Option<String>,
}

impl EventQuery {
    /// Whether the event has the requested key and principal.
    pub fn wants(&self, event: &Event<'_>) -> bool {
        let is = |wanted: &Option<String>, found: &[&Option<Text<'_>>]| {
            wanted
                .as_ref()
                .is_none_or(|wanted| found.iter().any(|found| found.as_deref() == Some(wanted)))
        };
        let of_key = is(&self.key_id, &[&event.key_id, &event.source_key_id])
            || (event.items.iter().flatten())
                .any(|item| is(&self.key_id, &[&item.key_id, &item.source_key_id]));
        of_key && is(&self.principal, &[&event.principal])
    }
}

/// A page of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// Each as the JSON line that was written. The order is that of the records that hold them: roughly by time, and
    /// exact for each writer.
    pub events: Vec<Box<str>>,
    /// Where the next page begins; `None` after the last one. A page may be empty without being the last, because one
    /// page reads a limited number of hours.
    pub next: Option<String>,
}

/// Reads the audit log that was written.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// A page of the requested events, of all writers.
    ///
    /// # Errors
    /// [`AuditLogError`].
    async fn page(&self, query: &EventQuery) -> Result<EventPage, AuditLogError>;
}

/// Why a page of the audit log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum AuditLogError {
    /// Keyway did not make the marker.
    #[error("the marker is none that was given out")]
    Marker,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The most events of a page.
pub const MAX_EVENTS: usize = 1000;

/// Reading the audit log, for callers with the permission.
pub struct AuditReading {
    log: Arc<dyn AuditLog>,
}

impl AuditReading {
    /// Reads this log.
    pub fn new(log: Arc<dyn AuditLog>) -> Self {
        Self { log }
    }

    /// A page of events.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a limit that is not 1 to [`MAX_EVENTS`], or a marker that Keyway did not make.
    pub async fn page(&self, caller: &Caller, query: &EventQuery) -> Result<EventPage, KmsError> {
        caller.may_on_service(Action::ReadAudit)?;
        if !(1..=MAX_EVENTS).contains(&query.limit) {
            return Err(KmsError::invalid(
                "limit",
                format!("must be 1 to {MAX_EVENTS}"),
            ));
        }
        match self.log.page(query).await {
            Ok(page) => Ok(page),
            Err(AuditLogError::Marker) => Err(KmsError::invalid("marker", "was not given out")),
            Err(AuditLogError::Store(error)) => Err(error.into()),
        }
    }
}

/// Writes audit events for work without a request, which no request observer sees.
#[async_trait]
pub trait BackgroundAudit: Send + Sync {
    /// Whether an event can be written, before the work is done.
    ///
    /// # Errors
    /// When it cannot, and therefore the work must not be done.
    async fn may_proceed(&self) -> Result<(), KmsError>;

    /// A key was destroyed. With an error, it was not, or that is unknown.
    ///
    /// # Errors
    /// When the event could not be written where it must be.
    async fn destroyed(&self, key: &KeyId, error: Option<&'static str>) -> Result<(), KmsError>;

    /// A key was rotated by its schedule, and has this version now. With an error, it was not, or that is unknown.
    ///
    /// # Errors
    /// When the event could not be written where it must be.
    async fn rotated(
        &self,
        key: &KeyId,
        version: u32,
        error: Option<&'static str>,
    ) -> Result<(), KmsError>;
}

/// What a follower of a log receives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A line: an event's JSON of the audit log, or a text of the error log.
    Line(Arc<str>),
    /// This many lines came faster than they were read, and were dropped.
    Missed(u64),
}

/// Follows logs as they are written, by all processes over the same table if the table holds them. A slow follower
/// misses lines, and delays nobody.
pub trait LogFollowing: Send + Sync {
    /// The events of the audit log from now on.
    fn audit(&self) -> BoxStream<'static, Followed>;

    /// The lines of the error log from now on.
    fn errors(&self) -> BoxStream<'static, Followed>;
}
