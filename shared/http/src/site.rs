//! A site: several mounts, and the choice of the mount that answers a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, request};

use crate::cors::Cors;
use crate::current::RequestId;
use crate::memory::BodyMemory;
use crate::observer::{Observer, Observers, Operation, Stopwatch};
use crate::pipeline::{
    AnyMount, Body, Dialect, Matched, Mount, RequestRecord, RequestStart, Unreadable,
};
use crate::request::{BasePath, Peer};
use crate::route::Found;

/// Everything that one process answers.
pub struct Site {
    first: Arc<dyn AnyMount>,
    /// Every prefix with its mount. The longest is first; of equally long ones, that of the earlier mount.
    claims: Vec<(&'static str, Arc<dyn AnyMount>)>,
    /// Every area with the mount that refuses paths in it, in the same order.
    areas: Vec<(&'static str, Arc<dyn AnyMount>)>,
    /// The mount with the empty area: it answers every path that no other mount has.
    rest: Option<Arc<dyn AnyMount>>,
    cors: Cors,
    observers: Observers,
    memory: Arc<BodyMemory>,
    /// The first half of each request's id.
    instance: u64,
    served: AtomicU64,
}

/// The dialect and operation of preflight requests, for the observers.
const PREFLIGHT: (&str, Operation) = (
    "cors",
    Operation {
        name: "preflight",
        class: crate::observer::Class::Read,
    },
);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl Site {
    /// A site whose first mount also refuses paths in no mount's area.
    /// `instance` is random, so that request ids differ between processes.
    pub fn new<D: Dialect>(instance: u64, first: Mount<D>) -> Self {
        let first: Arc<dyn AnyMount> = Arc::new(first);
        Self {
            first: Arc::clone(&first),
            claims: Vec::new(),
            areas: Vec::new(),
            rest: None,
            cors: Cors::Off,
            observers: Observers::default(),
            memory: Arc::default(),
            instance,
            served: AtomicU64::new(0),
        }
        .claimed_by(&first)
    }

    fn claimed_by(mut self, mount: &Arc<dyn AnyMount>) -> Self {
        for area in mount.areas() {
            if area.is_empty() {
                self.rest = Some(Arc::clone(mount));
            } else {
                self.areas.push((area, Arc::clone(mount)));
            }
        }
        // The mount that answers the rest is tried last: its routes match nearly any path.
        if !mount.areas().contains(&"") {
            for prefix in mount.prefixes() {
                self.claims.push((prefix, Arc::clone(mount)));
            }
        }
        // A stable sort keeps the order of equally long ones.
        self.claims
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        self.areas
            .sort_by_key(|(area, _)| std::cmp::Reverse(area.len()));
        self
    }

    /// Adds a mount.
    #[must_use]
    pub fn with<D: Dialect>(self, mount: Mount<D>) -> Self {
        let mount: Arc<dyn AnyMount> = Arc::new(mount);
        self.claimed_by(&mount)
    }

    /// Sets the origins whose pages may read answers.
    #[must_use]
    pub fn with_cors(mut self, cors: Cors) -> Self {
        self.cors = cors;
        self
    }

    /// Sets the body memory, which the sites of one process share.
    #[must_use]
    pub fn with_body_memory(mut self, memory: &Arc<BodyMemory>) -> Self {
        self.memory = Arc::clone(memory);
        self
    }

    /// Adds an observer after those already added. `stopwatch` measures the durations of requests.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn Observer>, stopwatch: Stopwatch) -> Self {
        self.observers.add(observer, stopwatch);
        self
    }

    /// The first mount's answer to a head that the runtime could not parse. No observer is told, because there is no
    /// request.
    pub fn refuse_unreadable(&self, unreadable: Unreadable) -> Response<Bytes> {
        let request_id = self.next_id();
        let mut response = self.first.refuse_unreadable(unreadable, &request_id);
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }

    fn next_id(&self) -> RequestId {
        RequestId::new(self.instance, self.served.fetch_add(1, Ordering::Relaxed))
    }

    /// Answers one request. Until the first poll this reads only the request's head. The future is small: what a request
    /// needs is in one allocation behind it.
    pub fn respond(
        &self,
        request: http::Request<Body>,
        peer: Peer,
    ) -> impl Future<Output = Response<Bytes>> + Send {
        let start = RequestStart {
            request_id: self.next_id(),
            observers: &self.observers,
            memory: &self.memory,
            at: self.observers.now(),
            base: 0,
        };
        let (parts, body) = request.into_parts();
        let origin = self.cors.admitted(&parts.headers);
        let preflight = origin
            .as_ref()
            .and_then(|_| Cors::preflight(&parts.method, &parts.headers));
        let answer = match preflight {
            Some(response) => preflighted(response, parts, peer, start).boxed(),
            None => self.dispatch(parts, body, peer, start),
        };
        async move {
            let mut response = answer.await;
            if let Some(origin) = origin {
                Cors::admit(origin, response.headers_mut());
            }
            if let Ok(id) = HeaderValue::from_str(&start.request_id) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            response
        }
    }

    fn dispatch<'a>(
        &'a self,
        parts: request::Parts,
        body: Body,
        peer: Peer,
        mut start: RequestStart<'a>,
    ) -> BoxFuture<'a, Response<Bytes>> {
        let base = parts
            .extensions
            .get::<BasePath>()
            .map_or("", |base| base.0.as_str());
        let (mount, matched) = match parts.uri.path().strip_prefix(base) {
            Some(path) => {
                start.base = base.len();
                self.find(&parts.method, &parts.headers, path)
            }
            None => (self.first.as_ref(), NOTHING),
        };
        mount.respond(parts, body, peer, matched, start)
    }

    /// The mount that answers: the one with a route for this path and method; of several, the one with the longest prefix,
    /// then the first. Without a route, the mount in whose area the path is refuses; otherwise the mount that answers the
    /// rest, or the first.
    fn find(&self, method: &Method, headers: &HeaderMap, path: &str) -> (&dyn AnyMount, Matched) {
        for (prefix, mount) in &self.claims {
            if let Some(rest) = below(path, prefix)
                && mount.admits(headers)
                && let Some((number, params)) = mount.find(method, rest)
            {
                let (prefix, found) = (Some(*prefix), Found::Route(number, params));
                return (mount.as_ref(), Matched { prefix, found });
            }
        }
        if let Some(refused) = self.in_area(path) {
            return refused;
        }
        let mount = match &self.rest {
            Some(rest) if path.starts_with('/') => rest.as_ref(),
            _ => return (self.first.as_ref(), refusal(self.first.as_ref(), path)),
        };
        match mount.find(method, path) {
            Some((number, params)) => {
                let (prefix, found) = (Some(""), Found::Route(number, params));
                (mount, Matched { prefix, found })
            }
            None => (mount, refusal(mount, path)),
        }
    }

    /// The refusal of the mount in whose area the path is: the longest area; of several mounts with it, one that has the
    /// path with another method, otherwise the first.
    fn in_area(&self, path: &str) -> Option<(&dyn AnyMount, Matched)> {
        // A single segment may name a resource of the mount that answers the rest, such as a bucket.
        let is_short = !path.get(1..)?.trim_end_matches('/').contains('/');
        if is_short && self.rest.is_some() {
            return None;
        }
        let is_in = |area: &str| below(path, area).is_some();
        let (area, _) = self.areas.iter().find(|(area, _)| is_in(area))?;
        let owners = || self.areas.iter().filter(|(other, _)| other == area);
        let refusals = owners().map(|(_, mount)| (mount.as_ref(), refusal(mount.as_ref(), path)));
        let knows = |(_, matched): &(&dyn AnyMount, Matched)| {
            matches!(matched.found, Found::OtherMethods(_))
        };
        refusals
            .clone()
            .find(knows)
            .or_else(|| refusals.into_iter().next())
    }
}

/// Tells the observers of the answer to a preflight request.
async fn preflighted(
    response: Response<Bytes>,
    parts: request::Parts,
    peer: Peer,
    start: RequestStart<'_>,
) -> Response<Bytes> {
    let (dialect, operation) = PREFLIGHT;
    let mut record = RequestRecord::of(start, dialect, None, &parts, &peer);
    record.operation = operation;
    record.tell(response.status(), None).await;
    response
}

const NOTHING: Matched = Matched {
    prefix: None,
    found: Found::Nothing,
};

/// The rest of a path that equals the prefix or is below it.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix)
        .filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A mount's refusal of a path for which it has no route with the request's method.
fn refusal(mount: &dyn AnyMount, path: &str) -> Matched {
    let of = |prefix: &&'static str| Some((*prefix, below(path, prefix)?));
    let known = (mount.prefixes().iter().filter_map(of))
        .find_map(|(prefix, rest)| Some((prefix, mount.methods(rest)?)));
    match known {
        Some((prefix, methods)) => Matched {
            prefix: Some(prefix),
            found: Found::OtherMethods(methods),
        },
        None => Matched {
            prefix: (mount.prefixes().iter().filter_map(of))
                .map(|(prefix, _)| prefix)
                .max_by_key(|prefix| prefix.len()),
            found: Found::Nothing,
        },
    }
}
