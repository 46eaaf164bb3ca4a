use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderName, HeaderValue, Method, Response, request};
use http_body_util::BodyExt;

use crate::cors::Cors;
use crate::query::{Query, QueryError};
use crate::request::{BasePath, Peer, Request};
use crate::route::{Found, Params, Route, RouteError, Router};

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
    /// Somebody whose identity is proven.
    type Caller: Send;
    /// What a route needs permission for.
    type Action: Copy + Send + Sync;
    /// Why a handler or the gate refused.
    type Error: Send;

    /// Who sent this request.
    fn authenticate(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Self::Caller, Self::Error>> + Send;

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

    /// The answer to a request that was refused.
    fn refuse(&self, refused: Refused<Self::Error>, place: &Place<'_>) -> Response<Bytes>;
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
    /// The path or the query is not percent-encoded UTF-8, or has too many parameters.
    Malformed {
        /// `path` or `query`.
        part: &'static str,
        /// What is wrong with it.
        error: QueryError,
    },
    /// The handler panicked.
    Panicked,
    /// The dialect or the domain said so.
    By(E),
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

    /// The one order in which a request is judged:
    /// route, limit, authenticate, authorize, then the handler, which decodes, operates and encodes.
    async fn judge(
        &self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        path: Option<&str>,
        request_id: &str,
    ) -> Result<Response<Bytes>, Refused<D::Error>> {
        let Some(path) = path else {
            return Err(Refused::NoRoute);
        };
        let (route, params) = match self.router.find(&parts.method, path) {
            Found::Route(route, params) => (route, params),
            Found::OtherMethods(allow) => return Err(Refused::OtherMethods(allow)),
            Found::Nothing => return Err(Refused::NoRoute),
        };
        let body = read(body, route.body_limit).await?;
        let request = Request {
            raw_path: parts.uri.path().to_owned(),
            raw_query: parts.uri.query().unwrap_or_default().to_owned(),
            method: parts.method,
            headers: parts.headers,
            body,
            peer,
        };
        let caller = self
            .dialect
            .authenticate(&request)
            .await
            .map_err(Refused::By)?;
        let caller = self
            .dialect
            .authorize(caller, route.action, path)
            .map_err(Refused::By)?;
        let params = params.map_err(|error| Refused::Malformed {
            part: "path",
            error,
        })?;
        let query = Query::parse(&request.raw_query).map_err(|error| Refused::Malformed {
            part: "query",
            error,
        })?;
        (route.run)(Call {
            request_id: request_id.to_owned(),
            request,
            params,
            query,
            caller,
        })
        .await
        .map_err(Refused::By)
    }
}

/// Past its limit a body is still read to about this length and thrown away, so that a client
/// that sends before it listens gets to read the refusal instead of a broken connection.
const DRAIN_LIMIT: usize = 8 << 20;

async fn read<E>(mut body: Body, limit: usize) -> Result<Bytes, Refused<E>> {
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = BytesMut::with_capacity(declared.min(limit));
    let mut seen = 0_usize;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refused::BodyBroken)?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        seen = seen.saturating_add(data.len());
        if seen <= limit {
            whole.extend_from_slice(&data);
        } else if seen > DRAIN_LIMIT {
            break;
        }
    }
    if seen <= limit {
        Ok(whole.freeze())
    } else {
        Err(Refused::BodyTooLarge { limit })
    }
}

/// A mount without its types.
trait Front: Send + Sync {
    fn prefixes(&self) -> &[&'static str];

    /// Whether a route has this path below a prefix, by whatever method.
    fn knows(&self, path: &str) -> bool;

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        prefix: Option<&'a str>,
        request_id: &'a str,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>>;
}

impl<D: Dialect> Front for Mount<D> {
    fn prefixes(&self) -> &[&'static str] {
        &self.prefixes
    }

    fn knows(&self, path: &str) -> bool {
        self.router.knows(path)
    }

    fn respond<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        prefix: Option<&'a str>,
        request_id: &'a str,
    ) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            let method = parts.method.clone();
            let uri = parts.uri.clone();
            let raw_path = uri.path();
            let path = prefix.and_then(|prefix| raw_path.strip_prefix(prefix));
            // A panic in one request must not take the others with it.
            let judged = AssertUnwindSafe(self.judge(parts, body, peer, path, request_id))
                .catch_unwind()
                .await;
            judged
                .unwrap_or(Err(Refused::Panicked))
                .unwrap_or_else(|refused| {
                    self.dialect.refuse(
                        refused,
                        &Place {
                            request_id,
                            method: &method,
                            raw_path,
                        },
                    )
                })
        })
    }
}

/// Everything that one process answers.
pub struct Site {
    first: Box<dyn Front>,
    others: Vec<Box<dyn Front>>,
    cors: Cors,
    instance: u64,
    served: AtomicU64,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Site {
    /// A site whose first mount also answers what lies below no mount's prefix.
    /// `instance`: random, so that request ids differ between processes.
    pub fn new<D: Dialect>(instance: u64, first: Mount<D>) -> Self {
        Self {
            first: Box::new(first),
            others: Vec::new(),
            cors: Cors::Off,
            instance,
            served: AtomicU64::new(0),
        }
    }

    /// With another dialect's mount.
    #[must_use]
    pub fn with<D: Dialect>(mut self, mount: Mount<D>) -> Self {
        self.others.push(Box::new(mount));
        self
    }

    /// Which other origins' pages may read answers.
    #[must_use]
    pub fn with_cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// Answers one request.
    pub async fn respond(&self, request: http::Request<Body>, peer: Peer) -> Response<Bytes> {
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{:016x}{number:016x}", self.instance);
        let (parts, body) = request.into_parts();
        let origin = self.cors.admitted(&parts.headers);
        let asked = origin
            .as_ref()
            .and_then(|_| Cors::preflight(&parts.method, &parts.headers));
        let mut response = match asked {
            Some(response) => response,
            None => self.dispatch(parts, body, peer, &request_id).await,
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
        request_id: &str,
    ) -> Response<Bytes> {
        let base = parts
            .extensions
            .get::<BasePath>()
            .map_or("", |base| base.0.as_str())
            .to_owned();
        let (front, prefix) = match parts.uri.path().strip_prefix(&base) {
            Some(path) => self.find(path),
            None => (self.first.as_ref(), None),
        };
        let below = prefix.map(|prefix| base + prefix);
        front
            .respond(parts, body, peer, below.as_deref(), request_id)
            .await
    }

    /// The mount that has a route of this path, the one with the longest prefix where there are several, and of those
    /// the first. Else the mount with the longest prefix, to say that there is nothing there; and below no prefix
    /// but the root, the first of all.
    fn find(&self, path: &str) -> (&dyn Front, Option<&'static str>) {
        let below = |prefix: &str| {
            path.strip_prefix(prefix)
                .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let rank = |(front, prefix): &(&dyn Front, &'static str)| {
            let knows = below(prefix).is_some_and(|rest| front.knows(rest));
            (knows, prefix.len())
        };
        std::iter::once(&self.first)
            .chain(&self.others)
            .flat_map(|front| {
                front
                    .prefixes()
                    .iter()
                    .map(move |&prefix| (front.as_ref(), prefix))
            })
            .filter(|(_, prefix)| below(prefix).is_some())
            .map(|candidate| (rank(&candidate), candidate))
            .filter(|(rank, _)| *rank > (false, 0))
            // Of equals the first, where `max_by_key` would take the last.
            .reduce(|best, other| if other.0 > best.0 { other } else { best })
            .map_or((self.first.as_ref(), None), |(_, (front, prefix))| {
                (front, Some(prefix))
            })
    }
}
