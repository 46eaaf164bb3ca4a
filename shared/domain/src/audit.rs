//! The audit log: its events, and who may read them. Writing them is nobody's permission.

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

/// The version of the events' format, which stands first in each.
pub const FORMAT: u8 = 1;

type Text<'a> = Cow<'a, str>;

/// One event: a request and what came of it, or something that the log says of itself. As JSON, its fields are in this
/// order, what is absent is left out, and the hash is over exactly that without the hash.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event<'a> {
    /// [`FORMAT`].
    pub audit: u8,
    /// When it was written.
    #[serde(borrow)]
    pub time: Text<'a>,
    /// Who wrote it: drawn when a process starts.
    #[serde(borrow)]
    pub writer: Text<'a>,
    /// Its number among the writer's, from 0.
    pub seq: u64,
    /// The hash of the writer's event before this one.
    #[serde(borrow)]
    pub prev: Text<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Text<'a>>,
    /// Who answered: a dialect, or `audit` itself.
    #[serde(borrow)]
    pub dialect: Text<'a>,
    /// What was asked for.
    #[serde(borrow)]
    pub operation: Text<'a>,
    /// What that comes to: `read`, `mutation` or `data_key`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Text<'a>>,
    /// The path as sent, cut where it is long.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<'a>>,
    /// The route's path with its parameters' names.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Text<'a>>,
    /// Whose identity was proven.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<Text<'a>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key before.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub source_key_id: Option<Text<'a>>,
    /// And its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key_version: Option<u32>,
    /// What it was about that is no key.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Text<'a>>,
    /// The names of the encryption context.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<Text<'a>>>,
    /// The whole encryption context, where the operator wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_values: Option<BTreeMap<String, String>>,
    /// The length of an encryption context that has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_bytes: Option<usize>,
    /// Of a request that asks for several things, each of them in its order, or some of them: see `first_item`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Vec<EventItem<'a>>>,
    /// Where one event would be too long, a request has several, of the same request id: the number of the first item in
    /// this one, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_item: Option<u64>,
    /// How many items the whole request has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_count: Option<u64>,
    /// The client's address.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Text<'a>>,
    /// The answer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
    /// Why it was refused, in a word.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<'a>>,
    /// What the log says of itself, in numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<BTreeMap<String, u64>>,
    /// The SHA-256 of all that is before it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Text<'a>>,
}

/// One of several things that a request asks for. Its fields are those of [`Event`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventItem<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text<'a>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key before.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub source_key_id: Option<Text<'a>>,
    /// And its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_key_version: Option<u32>,
    /// The names of the encryption context.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<Text<'a>>>,
    /// The whole encryption context, where the operator wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_values: Option<BTreeMap<String, String>>,
    /// The length of an encryption context that has no names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_bytes: Option<usize>,
    /// Why it was refused, in a word.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Text<'a>>,
}

impl Event<'_> {
    /// Whether it is of a request, and not something that the log says of itself.
    pub fn is_of_request(&self) -> bool {
        self.request_id.is_some()
    }

    /// Whether it only goes on with what an earlier event of the same request began to say.
    pub fn goes_on(&self) -> bool {
        self.first_item.is_some_and(|first| first > 0)
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Not before this; without it, of the last 24 hours.
    pub since: Option<Timestamp>,
    /// Before this.
    pub until: Option<Timestamp>,
    /// Of this key, as the key or as the source.
    pub key_id: Option<String>,
    pub principal: Option<String>,
    /// No more than these; at least one.
    pub limit: usize,
    /// Where an earlier page ended.
    pub marker: Option<String>,
}

impl EventQuery {
    /// Whether the event is of the key and principal that are wanted.
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
    /// Each as the line of JSON that was written; in the order of the records that hold them, which is roughly that of
    /// time, and exactly that of their writers.
    pub events: Vec<Box<str>>,
    /// Where to go on, unless all were looked at. A page may be empty and not the last: there is a bound to how many hours
    /// are looked at for one.
    pub next: Option<String>,
}

/// What was written of the audit log, to be read.
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// A page of the events that are wanted, of all writers.
    ///
    /// # Errors
    /// [`AuditLogError`].
    async fn page(&self, query: &EventQuery) -> Result<EventPage, AuditLogError>;
}

/// A page of the audit log could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AuditLogError {
    /// The marker was never given out.
    #[error("the marker is none that was given out")]
    Marker,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The most events of a page.
pub const MAX_EVENTS: usize = 1000;

/// Reading the audit log, for those who may.
pub struct AuditReading {
    log: Arc<dyn AuditLog>,
}

impl AuditReading {
    /// Of this log.
    pub fn new(log: Arc<dyn AuditLog>) -> Self {
        Self { log }
    }

    /// A page of events.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a limit that is not 1 to [`MAX_EVENTS`], or a marker that was never given out.
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

/// Is told of what is done without a request, which nobody else sees who keeps an audit log.
#[async_trait]
pub trait BackgroundAudit: Send + Sync {
    /// Whether what is about to be done could be told.
    ///
    /// # Errors
    /// When it could not, and must not be done for that.
    async fn may_proceed(&self) -> Result<(), KmsError>;

    /// A key was destroyed. With an error it was not, or nobody knows.
    ///
    /// # Errors
    /// When that could not be written where it must be.
    async fn destroyed(&self, key: &KeyId, error: Option<&'static str>) -> Result<(), KmsError>;
}

/// Something that one who follows a log gets to hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// A line: of the audit log an event's JSON, of the error log a text.
    Line(Arc<str>),
    /// So many lines came faster than they were read, and are not told.
    Missed(u64),
}

/// Follows logs as they are written, by every process over the same table as far as the table has it. Who is slow misses
/// lines, and keeps nobody waiting.
pub trait LogFollowing: Send + Sync {
    /// The events of the audit log from now on.
    fn audit(&self) -> BoxStream<'static, Followed>;

    /// The lines of the error log from now on.
    fn errors(&self) -> BoxStream<'static, Followed>;
}
