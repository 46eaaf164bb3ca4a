use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ALLOW, CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, request};
use tracing::Instrument;

use crate::cors::Cors;
use crate::memory::{BodyMemory, Connection, OVERHEAD, PIECE, Room};
use crate::query::{Query, QueryError};
use crate::request::{BasePath, Peer, Request};
use crate::route::{Found, Params, Route, RouteError, Router};
use crate::witness::{
    Answered, Operation, Stopwatch, Subject, Trace, TraceHeaders, Witness, Witnesses,
};

/// A request's body as a runtime hands it over.
pub type Body = Pin<
    Box<dyn http_body::Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send>,
>;

/// What runs behind a route.
pub type Handler<D> = Box<
    dyn Fn(
            Call<D>,
        )
            -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, <D as Dialect>::Error>> + Send>>
        + Send
        + Sync,
>;

/// A request that has passed the gate, as a handler gets it.
pub struct Call<D: Dialect> {
    /// The request's id.
    pub request_id: String,
    /// The request.
    pub request: Request,
    /// The path's parameters.
    pub params: Params,
    /// The query's parameters.
    pub query: Query,
    /// Who calls.
    pub caller: D::Caller,
}

/// How one dialect tells callers apart and says no. The order in which it is asked is the pipeline's.
pub trait Dialect: Send + Sync + 'static {
    /// What it is called where requests are told of: one short word.
    const NAME: &'static str;
    /// Somebody whose identity is proven.
    type Caller: Send;
    /// What a route needs permission for.
    type Action: Copy + Send + Sync;
    /// Why a handler or the gate refused.
    type Error: Send;

    /// Who sent this request, as far as its head tells: the body is not read yet, and `request` has an empty one.
    fn authenticate(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Proof<Self::Caller, Self::Error>, Self::Error>> + Send;

    /// Whether the deployment knows this caller. Anybody can prove to be nobody in particular.
    fn is_known(caller: &Self::Caller) -> bool;

    /// Whether the caller can be permitted this at all. What comes back is whom the handler acts for, which may be
    /// less than who asked. `path` is the one that the route was found by: below the mount's prefix, as sent.
    ///
    /// # Errors
    /// The dialect's refusal.
    fn authorize(
        &self,
        caller: Self::Caller,
        action: Self::Action,
        path: &str,
    ) -> Result<Self::Caller, Self::Error>;

    /// What a request of this route, with this query, is for.
    fn operation(route: &Route<Self>, raw_query: &str) -> Operation
    where
        Self: Sized;

    /// What remains of the caller to be told of, if anybody is there. The caller may yet be refused.
    fn trace(&self, caller: &Self::Caller) -> Option<Box<dyn Trace>>;

    /// A word for the refusal that says nothing of the request: one of a few.
    fn class(error: &Self::Error) -> &'static str;

    /// The answer to a request that was refused.
    fn refuse(&self, refused: Refused<Self::Error>, place: &Place<'_>) -> Response<Bytes>;
}

/// Looks at a body, once it is there.
pub type BodyCheck<T, E> = Box<dyn FnOnce(&[u8]) -> Result<T, E> + Send>;

/// How far a request's head proves who sent it.
pub enum Proof<C, E> {
    /// It does, whatever the body is.
    Proven(C),
    /// It does, and says which body belongs to it. Permissions are asked before that body is read and checked.
    Signed(C, BodyCheck<(), E>),
    /// It does not: the proof covers a body of which the head says nothing.
    Unproven(BodyCheck<C, E>),
}

impl<C: 'static, E: 'static> Proof<C, E> {
    /// The same proof, of what is made of the one who is proven.
    pub fn map<D: 'static>(self, made: fn(C) -> D) -> Proof<D, E> {
        match self {
            Self::Proven(caller) => Proof::Proven(made(caller)),
            Self::Signed(caller, check) => Proof::Signed(made(caller), check),
            Self::Unproven(check) => Proof::Unproven(Box::new(move |body| check(body).map(made))),
        }
    }
}

/// A head that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable {
    /// What the runtime answers: 400, 414 or 431.
    pub status: StatusCode,
}

impl Unreadable {
    /// What is wrong, as an answer says it.
    pub fn reason(self) -> &'static str {
        match self.status {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG => {
                "the request line and the headers are too long"
            }
            _ => "the request line or a header is not well-formed HTTP",
        }
    }
}

/// Why a request was refused.
#[derive(Debug)]
pub enum Refused<E> {
    /// No route has this path.
    NoRoute,
    /// Routes have this path, but by other methods: these.
    OtherMethods(String),
    /// The body is longer than the route takes.
    BodyTooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// The body broke off.
    BodyBroken,
    /// The body is compressed, or otherwise not as it is meant.
    BodyEncoded,
    /// The head is not HTTP/1.1, or too long. No route was looked for.
    Unreadable(Unreadable),
    /// There is no memory for the body now; there may be soon.
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
    /// It must be told of, and cannot be: nothing was done, or it was and nobody knows for sure.
    Unwitnessed,
    /// The dialect or the domain said so.
    By(E),
}

pub(crate) const UNWITNESSED: &str = "unwitnessed";

impl<E> Refused<E> {
    /// The answer of a page that has no shape of its own for refusals: a status alone.
    ///
    /// # Errors
    /// The page's own refusal, which only the page can answer.
    pub fn bare(self) -> Result<Response<Bytes>, E> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::OtherMethods(allow) => {
                if let Ok(allow) = HeaderValue::from_str(&allow) {
                    response.headers_mut().insert(ALLOW, allow);
                }
                StatusCode::METHOD_NOT_ALLOWED
            }
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyBroken | Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unreadable(unreadable) => unreadable.status,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Overloaded => {
                let shortly = HeaderValue::from_static("1");
                response.headers_mut().insert(RETRY_AFTER, shortly);
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Unwitnessed => StatusCode::SERVICE_UNAVAILABLE,
            Self::By(error) => return Err(error),
        };
        Ok(response)
    }
}

impl<E> Refused<E> {
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
            Self::Unwitnessed => UNWITNESSED,
            Self::By(error) => D::class(error),
        }
    }
}

/// Which request an answer is for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its id.
    pub request_id: &'a str,
    /// Its method.
    pub method: &'a Method,
    /// Its path, as sent.
    pub raw_path: &'a str,
}

/// A dialect's routes below one or more prefixes.
pub struct Mount<D: Dialect> {
    dialect: D,
    prefixes: Vec<&'static str>,
    router: Router<D>,
}

impl<D: Dialect> Mount<D> {
    /// The routes, below each of the prefixes (which do not end in `/`; an empty one is the root).
    ///
    /// # Errors
    /// [`RouteError`] when two routes cannot be told apart.
    pub fn new(
        dialect: D,
        prefixes: Vec<&'static str>,
        routes: Vec<Route<D>>,
    ) -> Result<Self, RouteError> {
        Ok(Self {
            dialect,
            prefixes,
            router: Router::new(routes)?,
        })
    }

    /// What the paths of its routes are below.
    pub fn prefixes(&self) -> &[&'static str] {
        &self.prefixes
    }

    /// Every route.
    pub fn routes(&self) -> &[Route<D>] {
        self.router.routes()
    }

    /// The one order in which a request is judged: route, declared length, authenticate, authorize; then the body is
    /// read and checked; then the handler, which decodes, operates and encodes. A body is read before a caller is proven
    /// only where the proof covers it and the head does not say its hash.
    async fn judge(
        &self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        path: Option<&str>,
        telling: &mut Telling<'_>,
    ) -> Result<Response<Bytes>, Refused<D::Error>> {
        let Some(path) = path else {
            return Err(Refused::NoRoute);
        };
        let (route, params) = match self.router.find(&parts.method, path) {
            Found::Route(route, params) => (route, params),
            Found::OtherMethods(allow) => return Err(Refused::OtherMethods(allow)),
            Found::Nothing => return Err(Refused::NoRoute),
        };
        telling.route = Some(route.path);
        telling.operation = D::operation(route, parts.uri.query().unwrap_or_default());
        let span = tracing::info_span!(
            "request",
            request_id = telling.begun.request_id,
            dialect = D::NAME,
            operation = telling.operation.name,
            trace = telling.traces.first(),
        );
        self.run(route, params, parts, body, peer, path, telling)
            .instrument(span)
            .await
    }

    /// What comes once the route is found.
    #[expect(
        clippy::too_many_arguments,
        reason = "the second half of the one above, which the span is around"
    )]
    async fn run(
        &self,
        route: &Route<D>,
        params: Result<Params, QueryError>,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        path: &str,
        telling: &mut Telling<'_>,
    ) -> Result<Response<Bytes>, Refused<D::Error>> {
        let limit = route.body_limit;
        if limit > 0 && declared(&body) > limit {
            return Err(Refused::BodyTooLarge { limit });
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
            .map_err(Refused::By)?;
        let memory = telling.begun.memory;
        // The room is held until the handler has ended, as the body is.
        let (caller, _room) = match proof {
            Proof::Proven(caller) => {
                let caller = self.admit(caller, route, path, &request.peer, telling)?;
                let mut room = None;
                if limit > 0 {
                    let (whole, taken) = read(body, limit, memory, None).await?;
                    (request.body, room) = (whole, Some(taken));
                }
                (caller, room)
            }
            Proof::Signed(caller, check) => {
                let caller = self.admit(caller, route, path, &request.peer, telling)?;
                let (whole, room) = read(body, limit, memory, None).await?;
                request.body = whole;
                if let Err(error) = check(&request.body) {
                    // Somebody signed this head, but nobody this request.
                    telling.trace = None;
                    return Err(Refused::By(error));
                }
                (caller, Some(room))
            }
            Proof::Unproven(check) => {
                let connection = Some(&request.peer.connection);
                let (whole, mut room) = read(body, limit, memory, connection).await?;
                request.body = whole;
                let caller = check(&request.body).map_err(Refused::By)?;
                room.prove();
                let caller = self.admit(caller, route, path, &request.peer, telling)?;
                (caller, Some(room))
            }
        };
        if !request.body.is_empty() && is_encoded(&request.headers) {
            return Err(Refused::BodyEncoded);
        }
        let params = params.map_err(|error| Refused::Malformed {
            part: "path",
            error,
        })?;
        let query = Query::parse(&request.raw_query).map_err(|error| Refused::Malformed {
            part: "query",
            error,
        })?;
        let class = telling.operation.class;
        telling
            .begun
            .witnesses
            .may_proceed(class)
            .await
            .map_err(|_| Refused::Unwitnessed)?;
        (route.run)(Call {
            request_id: telling.begun.request_id.to_owned(),
            request,
            params,
            query,
            caller,
        })
        .await
        .map_err(Refused::By)
    }

    /// Notes who is proven, and asks whether they may.
    fn admit(
        &self,
        caller: D::Caller,
        route: &Route<D>,
        path: &str,
        peer: &Peer,
        telling: &mut Telling<'_>,
    ) -> Result<D::Caller, Refused<D::Error>> {
        if D::is_known(&caller) {
            peer.connection.prove();
        }
        if telling.begun.witnesses.are_there() {
            telling.trace = self.dialect.trace(&caller);
        }
        self.dialect
            .authorize(caller, route.action, path)
            .map_err(Refused::By)
    }
}

/// X-Ray's header.
const X_RAY: HeaderName = HeaderName::from_static("x-amzn-trace-id");
/// W3C's.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longer ones are nobody's.
const LONGEST_TRACE: usize = 256;

/// What whoever stands in front tells of which trace a request is a part.
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

    fn first(&self) -> Option<&str> {
        let told = self.told();
        told.x_ray.or(told.w3c)
    }
}

fn is_trace(value: &HeaderValue) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-=;:_".contains(byte);
    value.len() <= LONGEST_TRACE && value.as_bytes().iter().all(fits)
}

/// A request that has come in.
#[derive(Clone, Copy)]
struct Begun<'a> {
    request_id: &'a str,
    witnesses: &'a Witnesses,
    memory: &'a BodyMemory,
    /// By the stopwatch.
    at: Duration,
}

/// What is to be told of one request, as far as it has come. Dropped before somebody was told, it tells them that the
/// sender has gone: what the handler has begun may be done all the same.
struct Telling<'a> {
    begun: Begun<'a>,
    dialect: &'static str,
    method: Method,
    uri: Uri,
    address: IpAddr,
    traces: Traces,
    route: Option<&'static str>,
    operation: Operation,
    trace: Option<Box<dyn Trace>>,
    /// What the trace told, once it was asked.
    subject: Subject,
    /// How many of the witnesses know, or are just being told.
    told: usize,
}

impl<'a> Telling<'a> {
    fn of(begun: Begun<'a>, dialect: &'static str, parts: &request::Parts, peer: &Peer) -> Self {
        for witness in begun.witnesses.iter() {
            witness.began(dialect);
        }
        Self {
            begun,
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
        }
    }

    fn place(&self) -> Place<'_> {
        Place {
            request_id: self.begun.request_id,
            method: &self.method,
            raw_path: self.uri.path(),
        }
    }

    fn answered(&self, status: StatusCode, error: Option<&'static str>) -> Answered<'_> {
        Answered {
            request_id: self.begun.request_id,
            dialect: self.dialect,
            operation: self.operation,
            method: &self.method,
            raw_path: self.uri.path(),
            route: self.route,
            address: self.address,
            traces: self.traces.told(),
            status,
            elapsed: self.begun.witnesses.now().saturating_sub(self.begun.at),
            subject: &self.subject,
            error,
        }
    }

    /// Nothing more is noted once the handler has ended.
    fn ask_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            self.subject = trace.subject();
            self.operation = self.subject.operation.unwrap_or(self.operation);
        }
    }

    /// Tells the witnesses. Whether the answer may be sent.
    async fn tell(&mut self, status: StatusCode, error: Option<&'static str>) -> bool {
        if !self.begun.witnesses.are_there() {
            return true;
        }
        self.ask_trace();
        // What was refused of a part is a refusal, whatever the answer's status.
        let (mut status, mut error, mut may_leave) =
            (status, error.or_else(|| self.subject.refused()), true);
        for witness in self.begun.witnesses.iter() {
            self.told += 1;
            let told = self.answered(status, error);
            if witness.answered(&told).await.is_err() && self.operation.class.must_be_told() {
                (status, error) = (StatusCode::SERVICE_UNAVAILABLE, Some(UNWITNESSED));
                may_leave = false;
            }
        }
        may_leave
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if self.told < self.begun.witnesses.iter().count() {
            self.ask_trace();
        }
        let mut others = self.begun.witnesses.iter().skip(self.told).peekable();
        if others.peek().is_some() {
            let told = self.answered(GONE, Some(Answered::ABANDONED));
            others.for_each(|witness| witness.abandoned(&told));
        }
    }
}

/// As proxies write it of a client that has closed its connection.
const GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// Whether the body must be decoded before it is what was meant, which nobody does here. The signature covers it as it came.
fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get_all(CONTENT_ENCODING).iter().any(|value| {
        let codings = value.as_bytes().split(|byte| *byte == b',');
        codings
            .map(<[u8]>::trim_ascii)
            .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
    })
}

/// So much memory is taken at first for a body, whatever length it declares; the rest as it comes.
const FIRST_PART: usize = 64 << 10;

/// The length that the head declares; 0 where it declares none.
fn declared(body: &Body) -> usize {
    usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX)
}

/// Reads a body whole. One that is too long, or has no room, is left where it is: the runtime says what becomes of the rest.
async fn read<'m, E>(
    mut body: Body,
    limit: usize,
    memory: &'m BodyMemory,
    unproven: Option<&Connection>,
) -> Result<(Bytes, Room<'m>), Refused<E>> {
    let mut room = Room::of_proven(memory);
    if body.is_end_stream() {
        return Ok((Bytes::new(), room));
    }
    let declared = declared(&body);
    if declared > limit {
        return Err(Refused::BodyTooLarge { limit });
    }
    // Most bodies come whole with their head. Nobody waits for such a one, so it need not be able to make way for others.
    let mut here = None;
    match poll_fn(|context| Poll::Ready(body.as_mut().poll_frame(context))).await {
        Poll::Ready(None) => return Ok((Bytes::new(), room)),
        Poll::Ready(Some(Err(_))) => return Err(Refused::BodyBroken),
        Poll::Ready(Some(Ok(frame))) => here = frame.into_data().ok(),
        Poll::Pending => {}
    }
    if let Some(whole) = here.as_ref().filter(|_| body.is_end_stream()) {
        if whole.len() > limit {
            return Err(Refused::BodyTooLarge { limit });
        }
        if !room.grow(whole.len()) || !room.push(whole) {
            return Err(Refused::Overloaded);
        }
        let whole = room.whole().ok_or(Refused::Overloaded)?;
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
        return Err(Refused::Overloaded);
    }
    let (mut taken, mut length) = (first, 0_usize);
    loop {
        let data = if let Some(here) = here.take() {
            here
        } else {
            let frame = poll_fn(|context| {
                if room.poll_evicted(context).is_ready() {
                    return Poll::Ready(Err(Refused::Overloaded));
                }
                body.as_mut().poll_frame(context).map(Ok)
            });
            let Some(frame) = frame.await? else {
                let whole = room.whole().ok_or(Refused::Overloaded)?;
                return Ok((whole, room));
            };
            let frame = frame.map_err(|_| Refused::BodyBroken)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            data
        };
        length = length.saturating_add(data.len());
        if length > limit {
            return Err(Refused::BodyTooLarge { limit });
        }
        if length > taken {
            // Of one who is not proven no more than has come, in whole pieces.
            let wanted = if room.is_proven() {
                taken.saturating_mul(2).min(limit)
            } else {
                length.next_multiple_of(PIECE)
            };
            let more = length.max(wanted) - taken;
            if !room.grow(more) {
                return Err(Refused::Overloaded);
            }
            taken += more;
        }
        if !room.push(&data) {
            return Err(Refused::Overloaded);
        }
    }
}

/// A mount without its types.
trait Front: Send + Sync {
    fn prefixes(&self) -> &[&'static str];

    /// Whether a route has this path below a prefix, by whatever method.
    fn knows(&self, path: &str) -> bool;

    /// Whether a route has this path below a prefix by this method.
    fn takes(&self, method: &Method, path: &str) -> bool;

    /// The answer to what could not be read.
    fn refuse_unreadable(&self, unreadable: Unreadable, request_id: &str) -> Response<Bytes>;

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        prefix: Option<&'a str>,
        begun: Begun<'a>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>>;
}

impl<D: Dialect> Front for Mount<D> {
    fn prefixes(&self) -> &[&'static str] {
        &self.prefixes
    }

    fn knows(&self, path: &str) -> bool {
        self.router.knows(path)
    }

    fn takes(&self, method: &Method, path: &str) -> bool {
        matches!(self.router.find(method, path), Found::Route(..))
    }

    fn refuse_unreadable(&self, unreadable: Unreadable, request_id: &str) -> Response<Bytes> {
        let place = Place {
            request_id,
            method: &Method::GET,
            raw_path: "",
        };
        self.dialect.refuse(Refused::Unreadable(unreadable), &place)
    }

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        prefix: Option<&'a str>,
        begun: Begun<'a>,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            let mut telling = Telling::of(begun, D::NAME, &parts, &peer);
            let uri = parts.uri.clone();
            let path = prefix.and_then(|prefix| uri.path().strip_prefix(prefix));
            // A panic in one request must not take the others with it.
            let judged = AssertUnwindSafe(self.judge(parts, body, peer, path, &mut telling))
                .catch_unwind()
                .await
                .unwrap_or(Err(Refused::Panicked));
            let (response, error) = match judged {
                Ok(response) => (response, None),
                Err(refused) => {
                    let class = refused.class::<D>();
                    (self.dialect.refuse(refused, &telling.place()), Some(class))
                }
            };
            if telling.tell(response.status(), error).await {
                response
            } else {
                let refused = Refused::Unwitnessed;
                self.dialect.refuse(refused, &telling.place())
            }
        })
    }
}

/// Everything that one process answers.
pub struct Site {
    first: Arc<dyn Front>,
    /// Every prefix with its mount, the longest first; of equally long ones that of the earlier mount.
    claims: Vec<(&'static str, Arc<dyn Front>)>,
    /// Which mount answers what no mount has a path or prefix for.
    remaining: Option<Arc<dyn Front>>,
    cors: Cors,
    witnesses: Witnesses,
    memory: Arc<BodyMemory>,
    /// The first half of each request's id.
    instance: String,
    served: AtomicU64,
}

/// Who answers what browsers ask before they send a request.
const PREFLIGHT: (&str, Operation) = (
    "cors",
    Operation {
        name: "preflight",
        class: crate::witness::Class::Read,
    },
);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Site {
    /// A site whose first mount also answers what lies below no mount's prefix, unless another one does.
    /// `instance`: random, so that request ids differ between processes.
    pub fn new<D: Dialect>(instance: u64, first: Mount<D>) -> Self {
        let first: Arc<dyn Front> = Arc::new(first);
        Self {
            first: Arc::clone(&first),
            claims: Vec::new(),
            remaining: None,
            cors: Cors::Off,
            witnesses: Witnesses::default(),
            memory: Arc::default(),
            instance: format!("{instance:016x}"),
            served: AtomicU64::new(0),
        }
        .claimed_by(&first)
    }

    fn claimed_by(mut self, front: &Arc<dyn Front>) -> Self {
        for prefix in front.prefixes() {
            self.claims.push((prefix, Arc::clone(front)));
        }
        // Stable: equally long ones stay in order.
        self.claims
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self
    }

    /// With another dialect's mount.
    #[must_use]
    pub fn with<D: Dialect>(self, mount: Mount<D>) -> Self {
        let front: Arc<dyn Front> = Arc::new(mount);
        self.claimed_by(&front)
    }

    /// With another dialect's mount, at the root, whose refusals also answer what lies below no mount's prefix: its clients
    /// may ask for any path. Paths that begin as another mount's prefix does are not among them.
    #[must_use]
    pub fn with_remaining<D: Dialect>(mut self, mount: Mount<D>) -> Self {
        let front: Arc<dyn Front> = Arc::new(mount);
        self.remaining = Some(Arc::clone(&front));
        self.claimed_by(&front)
    }

    /// Which other origins' pages may read answers.
    #[must_use]
    pub fn with_cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// With this memory for bodies, which the sites of one process share.
    #[must_use]
    pub fn with_body_memory(mut self, memory: &Arc<BodyMemory>) -> Self {
        self.memory = Arc::clone(memory);
        self
    }

    /// Has somebody be told of every request, after those who are told already. `stopwatch` is what durations are taken by.
    #[must_use]
    pub fn witnessed_by(mut self, witness: Arc<dyn Witness>, stopwatch: Stopwatch) -> Self {
        self.witnesses.add(witness, stopwatch);
        self
    }

    /// The answer to a head that the runtime could not read, in the words of the first mount. No witness is told: nothing
    /// was asked for.
    pub fn refuse_unreadable(&self, unreadable: Unreadable) -> Response<Bytes> {
        let request_id = self.next_id();
        let mut response = self.first.refuse_unreadable(unreadable, &request_id);
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    fn next_id(&self) -> String {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        format!("{}{number:016x}", self.instance)
    }

    /// Answers one request.
    pub async fn respond(&self, request: http::Request<Body>, peer: Peer) -> Response<Bytes> {
        let at = self.witnesses.now();
        let request_id = self.next_id();
        let begun = Begun {
            request_id: &request_id,
            witnesses: &self.witnesses,
            memory: &self.memory,
            at,
        };
        let (parts, body) = request.into_parts();
        let origin = self.cors.admitted(&parts.headers);
        let asked = origin
            .as_ref()
            .and_then(|_| Cors::preflight(&parts.method, &parts.headers));
        let mut response = match asked {
            Some(response) => {
                let (dialect, operation) = PREFLIGHT;
                let mut telling = Telling::of(begun, dialect, &parts, &peer);
                telling.operation = operation;
                telling.tell(response.status(), None).await;
                response
            }
            None => self.dispatch(parts, body, peer, begun).await,
        };
        if let Some(origin) = origin {
            Cors::admit(origin, response.headers_mut());
        }
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    async fn dispatch(
        &self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        begun: Begun<'_>,
    ) -> Response<Bytes> {
        let base = parts
            .extensions
            .get::<BasePath>()
            .map_or("", |base| base.0.as_str())
            .to_owned();
        let (front, prefix) = match parts.uri.path().strip_prefix(&base) {
            Some(path) => self.find(&parts.method, path),
            None => (self.first.as_ref(), None),
        };
        let below = prefix.map(|prefix| base + prefix);
        front
            .respond(parts, body, peer, below.as_deref(), begun)
            .await
    }

    /// The mount that has a route of this path by this method, else by another; the one with the longest prefix where
    /// there are several, and of those the first. So a bucket that would be named like another mount's page is refused by
    /// S3's mount. Else the mount with the longest prefix, to say that there is nothing there; and below no prefix
    /// but the root, the one that answers what remains, or the first of all.
    fn find(&self, method: &Method, path: &str) -> (&dyn Front, Option<&'static str>) {
        let (mut knowing, mut nearest) = (None, None);
        for (prefix, front) in &self.claims {
            let below = path
                .strip_prefix(prefix)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'));
            let Some(rest) = below else { continue };
            if front.takes(method, rest) {
                return (front.as_ref(), Some(prefix));
            }
            if knowing.is_none() && front.knows(rest) {
                knowing = Some((front, *prefix));
            }
            if nearest.is_none() && !prefix.is_empty() {
                nearest = Some((front, *prefix));
            }
        }
        knowing.or(nearest).map_or_else(
            || self.remains(path),
            |(front, prefix)| (front.as_ref(), Some(prefix)),
        )
    }

    /// Who says that there is nothing at a path that no mount knows.
    fn remains(&self, path: &str) -> (&dyn Front, Option<&'static str>) {
        let first = |path: &str| path.split('/').nth(1).map(str::to_owned);
        let is_anothers = || {
            let mut prefixes = self.claims.iter().map(|(prefix, _)| prefix);
            prefixes.any(|prefix| !prefix.is_empty() && first(prefix) == first(path))
        };
        match &self.remaining {
            Some(front) if path.starts_with('/') && !is_anothers() => (front.as_ref(), Some("")),
            _ => (self.first.as_ref(), None),
        }
    }
}
