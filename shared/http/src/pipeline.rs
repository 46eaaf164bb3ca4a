use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, request};

use crate::current::{CurrentRequest, RequestId};
use crate::memory::{BodyMemory, Connection, OVERHEAD, PIECE, Room};
use crate::observer::{Answered, Observers, Operation, Subject, Trace, TraceHeaders};
use crate::query::{Query, QueryError};
use crate::request::{Peer, Request};
use crate::route::{Found, Params, Route, RouteError, Router};
use crate::timeout::TimedOut;

/// A request's body as the runtime passes it.
pub type Body = Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;

/// The function that answers the requests of a route.
pub type Handler<D> = Box<
    dyn Fn(
            Call<D>,
        )
            -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, <D as Dialect>::Error>> + Send>>
        + Send
        + Sync,
>;

/// An authenticated and authorized request, as a handler gets it.
pub struct Call<D: Dialect> {
    /// The request's id.
    pub request_id: RequestId,
    /// The request.
    pub request: Request,
    /// The mount's prefix that the path is below.
    pub prefix: &'static str,
    /// The path's parameters.
    pub params: Params,
    /// The query's parameters.
    pub query: Query,
    /// The authenticated caller.
    pub caller: D::Caller,
}

/// How one dialect authenticates and authorizes callers and writes its error responses. The pipeline fixes the order.
pub trait Dialect: Send + Sync + 'static {
    /// An authenticated caller.
    type Caller: Send;
    /// The action that a route needs permission for.
    type Action: Copy + Send + Sync;
    /// An error of authentication, authorization or a handler.
    type Error: Send;

    /// The dialect's name for the request observers: one short word.
    fn name(&self) -> &'static str;

    /// Authenticates the request by its head. The body is not read yet: `request` has an empty one.
    fn authenticate(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Proof<Self::Caller, Self::Error>, Self::Error>> + Send;

    /// Whether the deployment knows this caller. Anyone can prove an identity that the deployment does not know.
    fn is_known(caller: &Self::Caller) -> bool;

    /// Checks whether any policy can permit the caller this action. Returns the caller that the handler acts for, which may
    /// have fewer permissions. `path` is the path that matched the route: below the mount's prefix, as sent.
    ///
    /// # Errors
    /// The dialect's error.
    fn authorize(
        &self,
        caller: Self::Caller,
        action: Self::Action,
        path: &str,
    ) -> Result<Self::Caller, Self::Error>;

    /// The operation of a request of this route with this head.
    fn operation(&self, route: &Route<Self>, head: &request::Parts) -> Operation
    where
        Self: Sized;

    /// The timeout of a request of this route, from its head to its answer. `None`: no timeout.
    fn timeout(&self, _route: &Route<Self>) -> Option<Duration>
    where
        Self: Sized,
    {
        None
    }

    /// What the observers record of the caller, if anything. The caller may still be refused.
    fn trace(&self, caller: &Self::Caller) -> Option<Box<dyn Trace>>;

    /// The error's class: one of a few words, without data of the request.
    fn class(error: &Self::Error) -> &'static str;

    /// The error response to a refused request.
    fn refuse(&self, refused: Rejection<Self::Error>, line: &RequestLine<'_>) -> Response<Bytes>;
}

/// Checks a body once it is read.
pub type BodyCheck<T, E> = Box<dyn FnOnce(&[u8]) -> Result<T, E> + Send>;

/// How far a request's head proves who sent it.
pub enum Proof<C, E> {
    /// The head proves the caller, whatever the body is.
    Proven(C),
    /// The head proves the caller and contains the body's hash. The body is read and checked after authorization.
    Signed(C, BodyCheck<(), E>),
    /// The head does not prove the caller: the signature covers the body, and the head does not contain the body's hash.
    Unproven(BodyCheck<C, E>),
}

impl<C: 'static, E: 'static> Proof<C, E> {
    /// The same proof with another caller type.
    pub fn map<D: 'static>(self, made: fn(C) -> D) -> Proof<D, E> {
        match self {
            Self::Proven(caller) => Proof::Proven(made(caller)),
            Self::Signed(caller, check) => Proof::Signed(made(caller), check),
            Self::Unproven(check) => Proof::Unproven(Box::new(move |body| check(body).map(made))),
        }
    }
}

/// A request head that the runtime could not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// The runtime's answer: 400, 414 or 431.
    pub status: StatusCode,
}

impl Unreadable {
    /// The text for the error response.
    pub fn reason(self) -> &'static str {
        match self.status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
                "the request line and the headers are too long"
            }
            _ => "the request line or a header is not well-formed HTTP",
        }
    }
}

/// Why the pipeline refuses a request.
#[derive(Debug)]
pub enum Rejection<E> {
    /// No route has this path.
    NoRoute,
    /// Routes have this path, but only with these methods.
    OtherMethods(String),
    /// The body is longer than the route accepts.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body ended before it was complete.
    BodyBroken,
    /// The body has a content coding, such as gzip.
    BodyEncoded,
    /// The head is not HTTP/1.1, or too long. No route was searched for.
    Unreadable(Unreadable),
    /// There is no memory for the body now. The client may retry.
    Overloaded,
    /// The path or the query is not percent-encoded UTF-8, or has too many parameters.
    Malformed {
        /// `path` or `query`.
        part: &'static str,
        /// What is wrong with it.
        error: QueryError,
    },
    /// The handler panicked.
    Panicked,
    /// The request must be recorded and cannot be: either nothing was done, or it is unknown what was done.
    Unrecorded,
    /// The dialect or the domain refuses.
    By(E),
}

pub(crate) const UNRECORDED: &str = "unrecorded";

impl<E> Rejection<E> {
    fn class<D: Dialect<Error = E>>(&self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::OtherMethods(_) => "other_method",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::BodyBroken => "body_broken",
            Self::BodyEncoded => "body_encoded",
            Self::Unreadable(_) => "unreadable",
            Self::Overloaded => "overloaded",
            Self::Malformed { .. } => "malformed",
            Self::Panicked => "panicked",
            Self::Unrecorded => UNRECORDED,
            Self::By(error) => D::class(error),
        }
    }
}

/// The request that an answer is for.
#[derive(Debug, Clone, Copy)]
pub struct RequestLine<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path, as sent.
    pub raw_path: &'a str,
    /// The path without the base path that a gateway added.
    pub path: &'a str,
    /// The mount's prefix that the path is below, if it is below one.
    pub prefix: Option<&'static str>,
}

/// A dialect's routes below one or more prefixes.
pub struct Mount<D: Dialect> {
    dialect: D,
    prefixes: Vec<&'static str>,
    areas: Vec<&'static str>,
    header: Option<HeaderName>,
    router: Router<D>,
}

impl<D: Dialect> Mount<D> {
    /// The routes, below each of the prefixes. A prefix does not end in `/`; an empty one is the root. The dialect refuses
    /// every other path below a prefix that is not empty.
    ///
    /// # Errors
    /// [`RouteError`] when two routes cannot be told apart.
    pub fn new(
        dialect: D,
        prefixes: Vec<&'static str>,
        routes: Vec<Route<D>>,
    ) -> Result<Self, RouteError> {
        let areas = prefixes.iter().copied().filter(|it| !it.is_empty());
        Ok(Self {
            dialect,
            areas: areas.collect(),
            prefixes,
            header: None,
            router: Router::new(routes)?,
        })
    }

    /// The dialect also refuses the paths below `area` that have no route.
    #[must_use]
    pub fn owning(mut self, area: &'static str) -> Self {
        self.areas.push(area);
        self
    }

    /// The mount answers only requests with this header, so that another mount can have the same path.
    #[must_use]
    pub fn for_header(mut self, name: HeaderName) -> Self {
        self.header = Some(name);
        self
    }

    /// The prefixes of its routes' paths.
    pub fn prefixes(&self) -> &[&'static str] {
        &self.prefixes
    }

    /// Every route.
    pub fn routes(&self) -> &[Route<D>] {
        self.router.routes()
    }

    /// The order for every request: find the route, check the declared length, authenticate, authorize; read and check the
    /// body; run the handler, which decodes, operates and encodes. The body is read before the caller is authenticated only
    /// if the signature covers the body and the head does not contain its hash.
    async fn judge(
        &self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        found: Found,
        record: &mut RequestRecord<'_>,
    ) -> Result<Response<Bytes>, Rejection<D::Error>> {
        let (number, params) = match found {
            Found::Route(number, params) => (number, params),
            Found::OtherMethods(allow) => return Err(Rejection::OtherMethods(allow)),
            Found::Nothing => return Err(Rejection::NoRoute),
        };
        let Some(route) = self.router.routes().get(number) else {
            return Err(Rejection::NoRoute);
        };
        record.route = Some(route.path);
        record.operation = self.dialect.operation(route, &parts);
        let current = CurrentRequest {
            id: record.start.request_id,
            dialect: record.dialect,
            operation: record.operation.name,
            trace: record.traces.first().cloned(),
        };
        current
            .scope(self.run(route, params, parts, body, peer, record))
            .await
    }

    /// The steps after the route is found.
    async fn run(
        &self,
        route: &Route<D>,
        params: Result<Params, QueryError>,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        record: &mut RequestRecord<'_>,
    ) -> Result<Response<Bytes>, Rejection<D::Error>> {
        let limit = route.body_limit;
        if limit > 0 && declared(&body) > limit {
            return Err(Rejection::BodyTooLarge { limit });
        }
        let mut request = Request {
            raw_path: parts.uri.path().to_owned(),
            raw_query: parts.uri.query().unwrap_or_default().to_owned(),
            method: parts.method,
            headers: parts.headers,
            body: Bytes::new(),
            peer,
        };
        let proof = self
            .dialect
            .authenticate(&request)
            .await
            .map_err(Rejection::By)?;
        let memory = record.start.memory;
        // Hold the memory until the handler ends, as long as the body.
        let (caller, _room) = match proof {
            Proof::Proven(caller) => {
                let caller = self.admit(caller, route, &request.peer, record)?;
                let mut room = None;
                if limit > 0 {
                    let (whole, taken) = read(body, limit, memory, None).await?;
                    (request.body, room) = (whole, Some(taken));
                }
                (caller, room)
            }
            Proof::Signed(caller, check) => {
                let caller = self.admit(caller, route, &request.peer, record)?;
                let (whole, room) = read(body, limit, memory, None).await?;
                request.body = whole;
                if let Err(error) = check(&request.body) {
                    // The signature covers this head, but not this body: record no caller.
                    record.trace = None;
                    return Err(Rejection::By(error));
                }
                (caller, Some(room))
            }
            Proof::Unproven(check) => {
                let connection = Some(&request.peer.connection);
                let (whole, mut room) = read(body, limit, memory, connection).await?;
                request.body = whole;
                let caller = check(&request.body).map_err(Rejection::By)?;
                room.prove();
                let caller = self.admit(caller, route, &request.peer, record)?;
                (caller, Some(room))
            }
        };
        if !request.body.is_empty() && is_encoded(&request.headers) {
            return Err(Rejection::BodyEncoded);
        }
        let params = params.map_err(|error| Rejection::Malformed {
            part: "path",
            error,
        })?;
        let query = Query::parse(&request.raw_query).map_err(|error| Rejection::Malformed {
            part: "query",
            error,
        })?;
        let class = record.operation.class;
        record
            .start
            .observers
            .may_proceed(class)
            .await
            .map_err(|_| Rejection::Unrecorded)?;
        (route.run)(Call {
            request_id: record.start.request_id,
            request,
            prefix: record.prefix.unwrap_or_default(),
            params,
            query,
            caller,
        })
        .await
        .map_err(Rejection::By)
    }

    /// The request's timeout.
    fn timeout(&self, found: &Found) -> Option<Duration> {
        let Found::Route(number, _) = found else {
            return None;
        };
        let route = self.router.routes().get(*number)?;
        self.dialect.timeout(route)
    }

    /// The answer. The observers record it before it is sent.
    async fn answer(
        &self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        found: Found,
        record: &mut RequestRecord<'_>,
    ) -> Response<Bytes> {
        // A panic in one request must not take the others with it.
        let judged = AssertUnwindSafe(self.judge(parts, body, peer, found, record))
            .catch_unwind()
            .await
            .unwrap_or(Err(Rejection::Panicked));
        let (response, error) = match judged {
            Ok(response) => (response, None),
            Err(refused) => {
                let class = refused.class::<D>();
                (self.dialect.refuse(refused, &record.line()), Some(class))
            }
        };
        if record.tell(response.status(), error).await {
            response
        } else {
            let refused = Rejection::Unrecorded;
            self.dialect.refuse(refused, &record.line())
        }
    }

    /// Records the authenticated caller and authorizes them.
    fn admit(
        &self,
        caller: D::Caller,
        route: &Route<D>,
        peer: &Peer,
        record: &mut RequestRecord<'_>,
    ) -> Result<D::Caller, Rejection<D::Error>> {
        if D::is_known(&caller) {
            peer.connection.prove();
        }
        if record.start.observers.are_there() {
            record.trace = self.dialect.trace(&caller);
        }
        self.dialect
            .authorize(caller, route.action, record.below_prefix())
            .map_err(Rejection::By)
    }
}

/// X-Ray's header.
const X_RAY: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// W3C's.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longer values are ignored.
const LONGEST_TRACE: usize = 256;

/// The trace headers that a proxy or gateway set.
struct Traces {
    x_ray: Option<HeaderValue>,
    w3c: Option<HeaderValue>,
}

impl Traces {
    fn of(headers: &HeaderMap) -> Self {
        let value = |name| headers.get(name).filter(|value| is_trace(value)).cloned();
        Self {
            x_ray: value(X_RAY),
            w3c: value(TRACEPARENT),
        }
    }

    fn told<'a>(&'a self) -> TraceHeaders<'a> {
        let text = |value: Option<&'a HeaderValue>| value?.to_str().ok();
        TraceHeaders {
            x_ray: text(self.x_ray.as_ref()),
            w3c: text(self.w3c.as_ref()),
        }
    }

    fn first(&self) -> Option<&HeaderValue> {
        self.x_ray.as_ref().or(self.w3c.as_ref())
    }
}

fn is_trace(value: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-=;:_".contains(byte);
    value.len() <= LONGEST_TRACE && value.as_bytes().iter().all(fits)
}

/// A received request.
#[derive(Clone, Copy)]
pub(crate) struct RequestStart<'a> {
    pub(crate) request_id: RequestId,
    pub(crate) observers: &'a Observers,
    pub(crate) memory: &'a BodyMemory,
    /// The stopwatch's time at the start.
    pub(crate) at: Duration,
    /// The length in bytes of the base path that a gateway added.
    pub(crate) base: usize,
}

/// What is known of one request so far, for the observers. If it is dropped before the observers heard of an answer, it
/// tells them that there was none, because the client disconnected or the timeout expired. What the handler began may
/// still be done.
pub(crate) struct RequestRecord<'a> {
    start: RequestStart<'a>,
    prefix: Option<&'static str>,
    dialect: &'static str,
    method: Method,
    uri: Uri,
    address: IpAddr,
    traces: Traces,
    route: Option<&'static str>,
    pub(crate) operation: Operation,
    trace: Option<Box<dyn Trace>>,
    /// The trace's subject, once the trace is consumed.
    subject: Subject,
    /// How many observers were told of the answer or are being told.
    told: usize,
    /// The status and error that the other observers get on drop.
    unanswered: (StatusCode, &'static str),
}

impl<'a> RequestRecord<'a> {
    pub(crate) fn of(
        start: RequestStart<'a>,
        dialect: &'static str,
        prefix: Option<&'static str>,
        parts: &request::Parts,
        peer: &Peer,
    ) -> Self {
        for observer in start.observers.iter() {
            observer.began(dialect);
        }
        Self {
            start,
            prefix,
            dialect,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            address: peer.address,
            traces: Traces::of(&parts.headers),
            route: None,
            operation: Operation::NONE,
            trace: None,
            subject: Subject::default(),
            told: 0,
            unanswered: (GONE, Answered::ABANDONED),
        }
    }

    fn line(&self) -> RequestLine<'_> {
        RequestLine {
            request_id: &self.start.request_id,
            method: &self.method,
            raw_path: self.uri.path(),
            path: self.path(),
            prefix: self.prefix,
        }
    }

    /// The path without the base path that a gateway added.
    fn path(&self) -> &str {
        self.uri.path().get(self.start.base..).unwrap_or_default()
    }

    /// The path below the mount's prefix.
    fn below_prefix(&self) -> &str {
        let prefix = self.prefix.unwrap_or_default();
        self.path().strip_prefix(prefix).unwrap_or_default()
    }

    fn answered(&self, status: StatusCode, error: Option<&'static str>) -> Answered<'_> {
        Answered {
            request_id: &self.start.request_id,
            dialect: self.dialect,
            operation: self.operation,
            method: &self.method,
            raw_path: self.uri.path(),
            route: self.route,
            address: self.address,
            traces: self.traces.told(),
            status,
            elapsed: self.start.observers.now().saturating_sub(self.start.at),
            subject: &self.subject,
            error,
        }
    }

    /// Consumes the trace, because nothing more is recorded once the handler ends.
    fn ask_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            self.subject = trace.subject();
            self.operation = self.subject.operation.unwrap_or(self.operation);
        }
    }

    /// Tells the observers. Returns whether the answer may be sent.
    pub(crate) async fn tell(&mut self, status: StatusCode, error: Option<&'static str>) -> bool {
        if !self.start.observers.are_there() {
            return true;
        }
        self.ask_trace();
        // A refused item makes the request a refusal, whatever the answer's status.
        let (mut status, mut error, mut may_leave) =
            (status, error.or_else(|| self.subject.refused()), true);
        for observer in self.start.observers.iter() {
            self.told += 1;
            let told = self.answered(status, error);
            if observer.answered(&told).await.is_err() && self.operation.class.must_be_told() {
                (status, error) = (StatusCode::SERVICE_UNAVAILABLE, Some(UNRECORDED));
                may_leave = false;
            }
        }
        may_leave
    }

    /// Tells the observers that the request took longer than `limit`, for [`RECORDING`] at most. The request may have
    /// changed something, and a function may never run again after this answer, so the audit log must have it now.
    async fn timed_out(&mut self, limit: Duration) -> Response<Bytes> {
        let (status, error) = (StatusCode::GATEWAY_TIMEOUT, Answered::TIMED_OUT);
        self.unanswered = (status, error);
        tracing::warn!(
            request_id = &*self.start.request_id,
            dialect = self.dialect,
            operation = self.operation.name,
            timeout_seconds = limit.as_secs_f64(),
            "a request took longer than its route allows and is not answered"
        );
        if self.told == 0 {
            let told = self.tell(status, Some(error));
            tokio::time::timeout(RECORDING, told).await.ok();
        }
        TimedOut::response()
    }
}

/// The future's result, or `None` if it takes longer. Most answers never wait, and get no timer.
async fn within<F: Future>(limit: Duration, mut future: Pin<&mut F>) -> Option<F::Output> {
    let mut timer = pin!(None);
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if timer.is_none() {
            timer.set(Some(tokio::time::sleep(limit)));
        }
        match timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}

/// How long observers may take to record a request that timed out. The timeout of functions in template.yaml leaves time
/// for it after the longest timeout of a route.
const RECORDING: Duration = Duration::from_secs(3);

impl Drop for RequestRecord<'_> {
    fn drop(&mut self) {
        if self.told < self.start.observers.iter().count() {
            self.ask_trace();
        }
        let mut others = self.start.observers.iter().skip(self.told).peekable();
        if others.peek().is_some() {
            let (status, error) = self.unanswered;
            let told = self.answered(status, Some(error));
            others.for_each(|observer| observer.abandoned(&told));
        }
    }
}

/// The status that proxies log for a client that closed its connection.
const GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// Whether the body has a content coding. Keyway decodes none. The signature covers the body as sent.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let codings = value.as_bytes().split(|byte| *byte == b',');
        codings
            .map(<[u8]>::trim_ascii)
            .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
    })
}

/// The most memory, in bytes, that a body gets at first, whatever length it declares. It gets more as data arrives.
const FIRST_PART: usize = 64 << 10;

/// The longest body, in bytes, that needs no reservation and no copy if it arrives whole: the request's head and its answer
/// take as much.
const SHORT: usize = 1 << 10;

/// The length that the head declares, or 0.
fn declared(body: &Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Reads a whole body. Stops at one that is too long or finds no memory; the runtime decides what happens to the rest.
async fn read<'m, E>(
    mut body: Body,
    limit: usize,
    memory: &'m BodyMemory,
    unproven: Option<&Connection>,
) -> Result<(Bytes, Room<'m>), Rejection<E>> {
    let mut room = Room::of_proven(memory);
    if body.is_end_stream() {
        return Ok((Bytes::new(), room));
    }
    let declared = declared(&body);
    if declared > limit {
        return Err(Rejection::BodyTooLarge { limit });
    }
    // Most bodies arrive whole with their head. Such a body takes no time to read, so it need not be evictable.
    let mut here = None;
    match poll_fn(|context| Poll::Ready(body.as_mut().poll_frame(context))).await {
        Poll::Ready(None) => return Ok((Bytes::new(), room)),
        Poll::Ready(Some(Err(_))) => return Err(Rejection::BodyBroken),
        Poll::Ready(Some(Ok(frame))) => here = frame.into_data().ok(),
        Poll::Pending => {}
    }
    if let Some(whole) = here.as_ref().filter(|_| body.is_end_stream()) {
        if whole.len() > limit {
            return Err(Rejection::BodyTooLarge { limit });
        }
        if whole.len() <= SHORT {
            return Ok((whole.clone(), room));
        }
        if !room.grow(whole.len()) || !room.push(whole) {
            return Err(Rejection::Overloaded);
        }
        let whole = room.whole().ok_or(Rejection::Overloaded)?;
        return Ok((whole, room));
    }
    if let Some(connection) = unproven {
        room = Room::of_unproven(memory, connection);
    }
    let (first, besides) = if room.is_proven() {
        (declared.min(FIRST_PART), 0)
    } else {
        (declared.min(PIECE), OVERHEAD)
    };
    if !room.grow(first + besides) {
        return Err(Rejection::Overloaded);
    }
    let (mut taken, mut length) = (first, 0_usize);
    loop {
        let data = if let Some(here) = here.take() {
            here
        } else {
            let frame = poll_fn(|context| {
                if room.poll_evicted(context).is_ready() {
                    return Poll::Ready(Err(Rejection::Overloaded));
                }
                body.as_mut().poll_frame(context).map(Ok)
            });
            let Some(frame) = frame.await? else {
                let whole = room.whole().ok_or(Rejection::Overloaded)?;
                return Ok((whole, room));
            };
            let frame = frame.map_err(|_| Rejection::BodyBroken)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            data
        };
        length = length.saturating_add(data.len());
        if length > limit {
            return Err(Rejection::BodyTooLarge { limit });
        }
        if length > taken {
            // For an unauthenticated caller, reserve only what has arrived, in whole pieces.
            let wanted = if room.is_proven() {
                taken.saturating_mul(2).min(limit)
            } else {
                length.next_multiple_of(PIECE)
            };
            let more = length.max(wanted) - taken;
            if !room.grow(more) {
                return Err(Rejection::Overloaded);
            }
            taken += more;
        }
        if !room.push(&data) {
            return Err(Rejection::Overloaded);
        }
    }
}

/// A mount without its types.
pub(crate) trait AnyMount: Send + Sync {
    fn prefixes(&self) -> &[&'static str];

    /// The paths below which the dialect refuses. An empty one stands for every path that no other mount has.
    fn areas(&self) -> &[&'static str];

    /// Whether it answers requests with these headers.
    fn admits(&self, headers: &HeaderMap) -> bool;

    /// The index of the route with this method and path below a prefix, and the path's parameters.
    fn find(&self, method: &Method, path: &str) -> Option<(usize, Result<Params, QueryError>)>;

    /// The methods of the routes with this path.
    fn methods(&self, path: &str) -> Option<String>;

    /// The answer to an unreadable head.
    fn refuse_unreadable(&self, unreadable: Unreadable, request_id: &str) -> Response<Bytes>;

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        matched: Matched,
        start: RequestStart<'a>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>>;
}

/// What a mount found for a request, and below which of its prefixes.
pub(crate) struct Matched {
    pub(crate) prefix: Option<&'static str>,
    pub(crate) found: Found,
}

impl<D: Dialect> AnyMount for Mount<D> {
    fn prefixes(&self) -> &[&'static str] {
        &self.prefixes
    }

    fn areas(&self) -> &[&'static str] {
        &self.areas
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        self.header
            .as_ref()
            .is_none_or(|name| headers.contains_key(name))
    }

    fn find(&self, method: &Method, path: &str) -> Option<(usize, Result<Params, QueryError>)> {
        self.router.find(method, path)
    }

    fn methods(&self, path: &str) -> Option<String> {
        self.router.methods(path)
    }

    fn refuse_unreadable(&self, unreadable: Unreadable, request_id: &str) -> Response<Bytes> {
        let line = RequestLine {
            request_id,
            method: &Method::GET,
            raw_path: "",
            path: "",
            prefix: None,
        };
        self.dialect
            .refuse(Rejection::Unreadable(unreadable), &line)
    }

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        matched: Matched,
        start: RequestStart<'a>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            let Matched { prefix, found } = matched;
            let timeout = self.timeout(&found);
            let mut record = RequestRecord::of(start, self.dialect.name(), prefix, &parts, &peer);
            let response = {
                let answer = pin!(self.answer(parts, body, peer, found, &mut record));
                match timeout {
                    None => Some(answer.await),
                    Some(limit) => within(limit, answer).await,
                }
            };
            match response {
                Some(response) => response,
                None => record.timed_out(timeout.unwrap_or_default()).await,
            }
        })
    }
}
