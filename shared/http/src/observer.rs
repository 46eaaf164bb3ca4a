//! Request observers. They receive each request's caller, operation, dialect and result. They get no body, no query, and
//! of the headers only those that name the request's trace.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::{Method, StatusCode};

/// The effect of a route's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing changes, and no key is used.
    Read,
    /// Something changes.
    Mutation,
    /// A key's material is used.
    DataKey,
}

impl Class {
    /// Whether an operation of this class may run only if every observer can record it.
    pub const fn must_be_told(self) -> bool {
        matches!(self, Self::Mutation | Self::DataKey)
    }

    /// The class as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mutation => "mutation",
            Self::DataKey => "data_key",
        }
    }
}

/// The error class of a response of which only the status is known.
pub const fn class_of(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "unauthenticated",
        403 => "not_permitted",
        404 => "not_found",
        409 => "conflict",
        429 => "throttled",
        400..=499 => "invalid",
        501 => "not_implemented",
        503 | 504 => "unavailable",
        _ => "failed",
    }
}

/// A request's operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The name, such as `kms:GenerateDataKey`.
    pub name: &'static str,
    /// Its effect.
    pub class: Class,
}

impl Operation {
    /// The operation of a request without a route.
    pub const NONE: Self = Self {
        name: "none",
        class: Class::Read,
    };
}

/// An encryption context, as far as observers may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// Names and values. An observer that writes them leaves the values out unless the operator wants them.
    Pairs(Vec<(String, String)>),
    /// The number of bytes of a context without names.
    Opaque(usize),
}

/// Who acted, and on what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The operation, if the route alone does not determine it.
    pub operation: Option<Operation>,
    /// The authenticated principal, if any.
    pub principal: Option<Arc<str>>,
    /// Whether the deployment knows the principal. Anyone can prove an identity that the deployment does not know.
    pub is_known: bool,
    /// The key.
    pub key_id: Option<String>,
    /// Its version.
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key and version before.
    pub source_key: Option<(String, Option<u32>)>,
    /// The resource that the request concerns, if it is not a key.
    pub resource: Option<String>,
    /// The encryption context.
    pub context: Option<Context>,
    /// The class of a refusal that the answer's status does not show.
    pub refusal: Option<&'static str>,
    /// The items of a request for several things.
    pub items: Vec<Item>,
}

impl Subject {
    /// The class of the refusal of the request or of an item: `not_permitted` if there is one, otherwise the first.
    pub fn refused(&self) -> Option<&'static str> {
        let not_permitted = class_of(StatusCode::FORBIDDEN);
        let all =
            || (self.refusal.into_iter()).chain(self.items.iter().filter_map(|item| item.error));
        all()
            .find(|error| *error == not_permitted)
            .or_else(|| all().next())
    }
}

/// One of several things that a request asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key_id: Option<String>,
    /// Its version.
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key and version before.
    pub source_key: Option<(String, Option<u32>)>,
    /// The encryption context.
    pub context: Option<Context>,
    /// The error's class, if the item was refused.
    pub error: Option<&'static str>,
}

/// The record of a request's caller, which outlives the caller that the handler gets.
pub trait Trace: Send + Sync {
    /// Who acted, and on what, as far as is known. Consumes what was recorded, because nothing is recorded afterwards.
    fn subject(self: Box<Self>) -> Subject;
}

/// The request's trace, by the headers of the proxy or gateway. Values that do not look like a trace are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceHeaders<'a> {
    /// X-Ray's `X-Amzn-Trace-Id`.
    pub x_ray: Option<&'a str>,
    /// W3C's `traceparent`.
    pub w3c: Option<&'a str>,
}

/// One request and its result.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The name of the dialect that answered.
    pub dialect: &'static str,
    /// The operation.
    pub operation: Operation,
    /// The method.
    pub method: &'a Method,
    /// The path as sent, without the query. The client chooses its length and characters.
    pub raw_path: &'a str,
    /// The route's path with the names of its parameters, below the mount's prefix; one of a few. `None` without a route.
    pub route: Option<&'static str>,
    /// The peer's address.
    pub address: IpAddr,
    /// The headers that name its trace.
    pub traces: TraceHeaders<'a>,
    /// The answer's status.
    pub status: StatusCode,
    /// How long it took.
    pub elapsed: Duration,
    /// Who acted, and on what.
    pub subject: &'a Subject,
    /// The class of the error of the request or of an item; one of a few.
    pub error: Option<&'static str>,
}

impl Answered<'_> {
    /// The error of a request whose client disconnected before the answer. What the handler began may be done.
    pub const ABANDONED: &'static str = "abandoned";
    /// The error of a request that took longer than its route allows. What the handler began may be done.
    pub const TIMED_OUT: &'static str = "timed_out";
}

/// An observer that must record a request could not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request could not be recorded")]
pub struct Unrecorded;

/// An observer's result, at once or later. Most observers return at once, which needs no allocation.
pub type Outcome<'a> = Either<Ready<Result<(), Unrecorded>>, BoxFuture<'a, Result<(), Unrecorded>>>;

/// Receives every request.
pub trait Observer: Send + Sync {
    /// Called when a dialect receives a request. [`Self::answered`] or [`Self::abandoned`] follows once.
    fn began(&self, _dialect: &'static str) {}

    /// Called before a handler runs whose class [must be recorded](Class::must_be_told): whether recording will be
    /// possible. An observer that only counts or displays requests always agrees.
    fn may_proceed(&self, _class: Class) -> Outcome<'_> {
        ready(Ok(())).left_future()
    }

    /// Called when the answer is known, before it is sent. After an `Err`, an answer of a class that must be recorded is
    /// not sent: the caller gets an error that leaves open what was done.
    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a>;

    /// Called for a request without an answer: the client disconnected, or the timeout expired. Nothing waits for it.
    fn abandoned(&self, told: &Answered<'_>);
}

/// Time since an arbitrary start that never runs backwards.
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The observers, in call order. If the failure of one replaces the answer, those after it get the new answer.
#[derive(Default)]
pub(crate) struct Observers {
    observers: Vec<Arc<dyn Observer>>,
    stopwatch: Option<Stopwatch>,
}

impl Observers {
    pub(crate) fn add(&mut self, observer: Arc<dyn Observer>, stopwatch: Stopwatch) {
        self.observers.push(observer);
        self.stopwatch = Some(stopwatch);
    }

    pub(crate) fn are_there(&self) -> bool {
        !self.observers.is_empty()
    }

    pub(crate) fn now(&self) -> Duration {
        self.stopwatch
            .as_ref()
            .map_or(Duration::ZERO, |stopwatch| stopwatch())
    }

    pub(crate) async fn may_proceed(&self, class: Class) -> Result<(), Unrecorded> {
        if class.must_be_told() {
            for observer in &self.observers {
                observer.may_proceed(class).await?;
            }
        }
        Ok(())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn Observer>> {
        self.observers.iter()
    }
}
