//! Those who are told of every request: who asked for what of which dialect, and what came of it. They hear of no body,
//! no query, and no header but those that say of which trace a request is a part.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, Either, FutureExt, Ready, ready};
use http::{Method, StatusCode};

/// What a route does, as far as whoever must know of it cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Nothing changes, and no key is used.
    Read,
    /// Something is otherwise afterwards.
    Mutation,
    /// A key's material is used.
    DataKey,
}

impl Class {
    /// Whether it must not be done unless it can be told.
    pub const fn must_be_told(self) -> bool {
        matches!(self, Self::Mutation | Self::DataKey)
    }

    /// A word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Mutation => "mutation",
            Self::DataKey => "data_key",
        }
    }
}

/// A word for a refusal of which no more is known than its status.
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

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Its name, such as `kms:GenerateDataKey`.
    pub name: &'static str,
    /// What it comes to.
    pub class: Class,
}

impl Operation {
    /// Of a request that no route is for.
    pub const NONE: Self = Self {
        name: "none",
        class: Class::Read,
    };
}

/// An encryption context, as far as it may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Context {
    /// Names and values. Who writes them somewhere leaves the values out unless the operator wants them.
    Pairs(Vec<(String, String)>),
    /// Bytes of this number, which have no names.
    Opaque(usize),
}

/// Who acted, and on what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// What the request was for, where its route does not say.
    pub operation: Option<Operation>,
    /// Whose identity was proven, if somebody's was.
    pub principal: Option<Arc<str>>,
    /// Whether the deployment knows the principal. Anybody can prove to be nobody in particular.
    pub is_known: bool,
    /// The key.
    pub key_id: Option<String>,
    /// Its version.
    pub key_version: Option<u32>,
    /// Of a ciphertext that was moved, the key and version before.
    pub source_key: Option<(String, Option<u32>)>,
    /// What it was about that is no key.
    pub resource: Option<String>,
    /// The encryption context.
    pub context: Option<Context>,
    /// A word for why it was refused, where the answer as a whole is no refusal.
    pub refusal: Option<&'static str>,
    /// Of a request that asks for several things, each of them.
    pub items: Vec<Item>,
}

impl Subject {
    /// A word for why it, or one of its items, was refused: the first that was not permitted, else the first of all.
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
    /// A word for why it was refused.
    pub error: Option<&'static str>,
}

/// What remains of a caller once the handler has them: tells, in the end, who they were and what they did.
pub trait Trace: Send + Sync {
    /// Who acted, and on what, as far as it has come. What was noted is given away, for nothing is noted afterwards.
    fn subject(self: Box<Self>) -> Subject;
}

/// Of which trace a request is a part, by the headers of whoever sent it on. What does not look like a trace is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceHeaders<'a> {
    /// X-Ray's `X-Amzn-Trace-Id`.
    pub x_ray: Option<&'a str>,
    /// W3C's `traceparent`.
    pub w3c: Option<&'a str>,
}

/// One request and what came of it.
#[derive(Debug)]
pub struct Answered<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The name of the dialect that answered.
    pub dialect: &'static str,
    /// What it was for.
    pub operation: Operation,
    /// The method.
    pub method: &'a Method,
    /// The path as sent, which may be long and hold anything; never the query.
    pub raw_path: &'a str,
    /// The route's path with its parameters' names, below the mount's prefix: one of a few. `None` without a route.
    pub route: Option<&'static str>,
    /// Where it came from.
    pub address: IpAddr,
    /// Of which trace it is a part.
    pub traces: TraceHeaders<'a>,
    /// The answer's status.
    pub status: StatusCode,
    /// How long it took.
    pub elapsed: Duration,
    /// Who acted, and on what.
    pub subject: &'a Subject,
    /// A word for why it was refused, or a part of it; one of a few.
    pub error: Option<&'static str>,
}

impl Answered<'_> {
    /// The error of a request whose sender went away before there was an answer. What was begun may have been done.
    pub const ABANDONED: &'static str = "abandoned";
    /// The error of a request that took longer than its route allows. What was begun may have been done.
    pub const TIMED_OUT: &'static str = "timed_out";
}

/// What happened could not be told where it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request could not be witnessed")]
pub struct Unrecorded;

/// What an observer says, at once or later. Most say it at once, for which nothing is allocated.
pub type Outcome<'a> = Either<Ready<Result<(), Unrecorded>>, BoxFuture<'a, Result<(), Unrecorded>>>;

/// Is told of every request.
pub trait Observer: Send + Sync {
    /// Told when a request has come in for a dialect. It is answered or abandoned later, once.
    fn began(&self, _dialect: &'static str) {}

    /// Asked before a handler runs whose class [must be told](Class::must_be_told): whether it will be possible. Who only
    /// counts or shows what happens stands in nobody's way.
    fn may_proceed(&self, _class: Class) -> Outcome<'_> {
        ready(Ok(())).left_future()
    }

    /// Told when the answer is known, and before it leaves. After an `Err` the answer of a class that must be told is not
    /// sent: the caller is told that it is unknown what was done.
    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a>;

    /// Told of a request that gets no answer: its sender went away, or it took longer than its route allows. Nobody waits.
    fn abandoned(&self, told: &Answered<'_>);
}

/// Time since an arbitrary start that never runs backwards.
pub type Stopwatch = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Everybody who is told, in this order: one who comes after another that failed is told of what was answered then.
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
