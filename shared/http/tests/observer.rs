//! Observers see each request once, before its answer leaves.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "what a test is set up with must be there"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, ORIGIN};
use http::{Method, Response, StatusCode, request};
use http_body_util::{BodyExt, Full, StreamBody};
use keyway_http::{
    Answered, Class, Cors, Dialect, Mount, Observer, Operation, Outcome, Peer, Proof, Rejection,
    Request, RequestLine, Route, Site, Subject, TimedOut, Trace, Unrecorded,
};

struct Words;

#[derive(Clone, Copy)]
struct May(Class);

struct Known(String);

impl Trace for Known {
    fn subject(self: Box<Self>) -> Subject {
        Subject {
            principal: Some(self.0.as_str().into()),
            is_known: true,
            ..Subject::default()
        }
    }
}

impl Dialect for Words {
    type Caller = String;
    type Action = May;
    type Error = StatusCode;

    fn name(&self) -> &'static str {
        "words"
    }

    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<String, StatusCode>, StatusCode> {
        let name = request.headers.get(AUTHORIZATION);
        let name = name.ok_or(StatusCode::UNAUTHORIZED)?;
        Ok(Proof::Proven(name.to_str().unwrap().to_owned()))
    }

    fn is_known(_: &String) -> bool {
        true
    }

    fn authorize(&self, caller: String, _: May, _: &str) -> Result<String, StatusCode> {
        if caller == "mallory" {
            return Err(StatusCode::FORBIDDEN);
        }
        Ok(caller)
    }

    fn operation(&self, route: &Route<Self>, head: &request::Parts) -> Operation {
        let raw_query = head.uri.query().unwrap_or_default();
        assert!(raw_query.is_empty() || raw_query == "secret=1");
        Operation {
            name: route.path,
            class: route.action.0,
        }
    }

    fn timeout(&self, route: &Route<Self>) -> Option<Duration> {
        match route.path {
            "/timed" => Some(Duration::from_hours(1)),
            "/slow" => Some(Duration::from_millis(1)),
            _ => None,
        }
    }

    fn trace(&self, caller: &String) -> Option<Box<dyn Trace>> {
        Some(Box::new(Known(caller.clone())))
    }

    fn class(_: &StatusCode) -> &'static str {
        "by_status"
    }

    fn refuse(&self, refused: Rejection<StatusCode>, _: &RequestLine<'_>) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = match refused {
            Rejection::By(status) => status,
            Rejection::NoRoute => StatusCode::NOT_FOUND,
            Rejection::Unrecorded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        response
    }
}

/// An observer that remembers its calls, and fails on demand.
#[derive(Default)]
struct Memory {
    told: Mutex<Vec<String>>,
    /// The last request's traces: X-Ray's and W3C's.
    traces: Mutex<[Option<String>; 2]>,
    refuses: AtomicBool,
    fails: AtomicBool,
    hangs: AtomicBool,
}

impl Memory {
    fn note(&self, how: &str, told: &Answered<'_>) {
        assert_eq!(told.elapsed, Duration::from_secs(1));
        let line = format!(
            "{how} {} {} {} {} {} {} {}",
            told.dialect,
            told.operation.name,
            told.method,
            told.raw_path,
            told.subject.principal.as_deref().unwrap_or("-"),
            told.status.as_u16(),
            told.error.unwrap_or("-")
        );
        self.told.lock().unwrap().push(line);
        *self.traces.lock().unwrap() =
            [told.traces.x_ray, told.traces.w3c].map(|trace| trace.map(str::to_owned));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.told.lock().unwrap())
    }
}

impl Observer for Memory {
    fn may_proceed(&self, _: Class) -> Outcome<'_> {
        let refuses = self.refuses.load(Ordering::Relaxed);
        async move { if refuses { Err(Unrecorded) } else { Ok(()) } }
            .boxed()
            .right_future()
    }

    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        self.note("answered", told);
        let fails = self.fails.load(Ordering::Relaxed);
        let hangs = self.hangs.load(Ordering::Relaxed);
        async move {
            match (hangs, fails) {
                (true, _) => std::future::pending().await,
                (_, true) => Err(Unrecorded),
                (_, false) => Ok(()),
            }
        }
        .boxed()
        .right_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        self.note("abandoned", told);
    }
}

struct Scene {
    site: Site,
    first: Arc<Memory>,
    second: Arc<Memory>,
    runs: Arc<AtomicUsize>,
}

fn scene() -> Scene {
    let runs = Arc::new(AtomicUsize::new(0));
    let route = |path, class| {
        let runs = Arc::clone(&runs);
        Route {
            method: Method::POST,
            path,
            body_limit: 10,
            action: May(class),
            run: Box::new(move |_| {
                runs.fetch_add(1, Ordering::Relaxed);
                Box::pin(async move {
                    match path {
                        "/panic" => panic!("on purpose"),
                        "/hang" | "/slow" => std::future::pending().await,
                        _ => Ok(Response::new(Bytes::from_static(b"secret"))),
                    }
                })
            }),
        }
    };
    let routes = vec![
        route("/read", Class::Read),
        route("/change", Class::Mutation),
        route("/key", Class::DataKey),
        route("/panic", Class::Read),
        route("/hang", Class::Mutation),
        route("/timed", Class::Mutation),
        route("/slow", Class::Mutation),
    ];
    let (first, second) = (Arc::new(Memory::default()), Arc::new(Memory::default()));
    let time = Arc::new(Mutex::new(Duration::ZERO));
    let stopwatch: keyway_http::Stopwatch = Arc::new(move || {
        let mut time = time.lock().unwrap();
        // Half of all looks begin something, and all ends come a second after.
        *time += Duration::from_secs(1);
        *time
    });
    let mount = Mount::new(Words, vec![""], routes).unwrap();
    let site = Site::new(7, mount)
        .with_cors(Cors::Any)
        .observed_by(first.clone(), stopwatch);
    Scene {
        site,
        first,
        second,
        runs,
    }
}

impl Scene {
    async fn call(&self, path: &str, name: Option<&str>) -> Response<Bytes> {
        let mut request = http::Request::post(path);
        if let Some(name) = name {
            request = request.header(AUTHORIZATION, name);
        }
        self.send(request).await
    }

    async fn send(&self, request: request::Builder) -> Response<Bytes> {
        let body: keyway_http::Body =
            Box::pin(Full::new(Bytes::new()).map_err(|never| match never {}));
        let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
        self.site.respond(request.body(body).unwrap(), peer).await
    }
}

#[tokio::test]
async fn request_is_observed_once_with_every_outcome() {
    let scene = scene();
    for (path, name, told) in [
        ("/read", Some("alice"), "/read POST /read alice 200 -"),
        (
            "/read?secret=1",
            Some("alice"),
            "/read POST /read alice 200 -",
        ),
        ("/key", None, "/key POST /key - 401 by_status"),
        // The refused caller is known by then.
        (
            "/key",
            Some("mallory"),
            "/key POST /key mallory 403 by_status",
        ),
        (
            "/nowhere",
            Some("alice"),
            "none POST /nowhere - 404 no_route",
        ),
        (
            "/panic",
            Some("alice"),
            "/panic POST /panic alice 500 panicked",
        ),
    ] {
        scene.call(path, name).await;
        assert_eq!(scene.first.take(), [format!("answered words {told}")]);
    }
    let preflight = http::Request::options("/read")
        .header(ORIGIN, "https://a.example")
        .header(ACCESS_CONTROL_REQUEST_METHOD, "POST");
    scene.send(preflight).await;
    let told = "answered cors preflight OPTIONS /read - 204 -";
    assert_eq!(scene.first.take(), [told]);
}

#[tokio::test]
async fn headers_other_than_traces_are_not_observed() {
    let scene = scene();
    let long = "a".repeat(257);
    let w3c = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let x_ray = "Root=1-65958f85-000000000000000000000001;Sampled=1";
    for (headers, told) in [
        (vec![], [None, None]),
        (vec![("traceparent", w3c)], [None, Some(w3c)]),
        (
            vec![("traceparent", w3c), ("x-amzn-trace-id", x_ray)],
            [Some(x_ray), Some(w3c)],
        ),
        (
            vec![("traceparent", w3c), ("x-amzn-trace-id", "a b")],
            [None, Some(w3c)],
        ),
        (
            vec![("traceparent", long.as_str()), ("x-amzn-trace-id", "\t")],
            [None, None],
        ),
        (
            vec![("tracestate", "a=1"), ("authorization", "alice")],
            [None, None],
        ),
    ] {
        for path in ["/read", "/nowhere"] {
            let mut request = http::Request::post(path);
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            scene.send(request).await;
            let heard = std::mem::take(&mut *scene.first.traces.lock().unwrap());
            assert_eq!(heard.each_ref().map(|trace| trace.as_deref()), told);
        }
    }
}

#[tokio::test]
async fn request_that_cannot_be_recorded_is_not_begun() {
    let scene = scene();
    scene.first.refuses.store(true, Ordering::Relaxed);
    for path in ["/change", "/key"] {
        assert_eq!(scene.call(path, Some("alice")).await.status(), 503);
        assert_eq!(
            scene.first.take(),
            [format!(
                "answered words {path} POST {path} alice 503 unrecorded"
            )]
        );
    }
    assert_eq!(scene.runs.load(Ordering::Relaxed), 0);
    assert_eq!(scene.call("/read", Some("alice")).await.status(), 200);
    assert_eq!(scene.runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answer_that_cannot_be_recorded_is_withheld() {
    let mut scene = scene();
    let second = scene.second.clone();
    let begun = AtomicUsize::new(0);
    // Even looks are one second after odd ones, of however many observers.
    let stopwatch = Arc::new(move || {
        let looks = begun.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(u64::from(!looks.is_multiple_of(3)))
    });
    scene.site = scene.site.observed_by(second, stopwatch);
    scene.first.fails.store(true, Ordering::Relaxed);
    for path in ["/change", "/key"] {
        let answer = scene.call(path, Some("alice")).await;
        assert_eq!(answer.status(), 503);
        assert!(answer.body().is_empty());
        assert_eq!(
            scene.first.take(),
            [format!("answered words {path} POST {path} alice 200 -")]
        );
        assert_eq!(
            scene.second.take(),
            [format!(
                "answered words {path} POST {path} alice 503 unrecorded"
            )]
        );
    }
    let answer = scene.call("/read", Some("alice")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(
        scene.second.take(),
        ["answered words /read POST /read alice 200 -"]
    );
}

#[tokio::test]
async fn abandoned_request_is_observed() {
    let scene = scene();
    assert!(scene.call("/hang", Some("alice")).now_or_never().is_none());
    assert_eq!(
        scene.first.take(),
        ["abandoned words /hang POST /hang alice 499 abandoned"]
    );
}

#[tokio::test]
async fn request_over_its_timeout_is_told_and_not_answered() {
    let scene = scene();
    let answer = scene.call("/timed", Some("alice")).await;
    assert_eq!(answer.body(), "secret");
    assert_eq!(answer.extensions().get::<TimedOut>(), None);
    scene.first.take();

    let answer = scene.call("/slow", Some("alice")).await;
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(answer.body().is_empty());
    assert!(answer.extensions().get::<TimedOut>().is_some());
    // The observer answers before the response leaves: it may write to the table first.
    let told = "answered words /slow POST /slow alice 504 timed_out";
    assert_eq!(scene.first.take(), [told]);
    assert_eq!(scene.runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn observer_that_hangs_after_a_timeout_is_not_waited_for() {
    let scene = scene();
    scene.first.hangs.store(true, Ordering::Relaxed);
    let answer = scene.call("/slow", Some("alice"));
    let answer = tokio::time::timeout(Duration::from_secs(10), answer).await;
    assert!(answer.unwrap().extensions().get::<TimedOut>().is_some());
    let told = "answered words /slow POST /slow alice 504 timed_out";
    assert_eq!(scene.first.take(), [told]);
}

#[tokio::test]
async fn timeout_covers_the_body_and_the_observers() {
    let scene = scene();
    let body: keyway_http::Body = Box::pin(StreamBody::new(futures_util::stream::pending()));
    let request = http::Request::post("/slow").header(AUTHORIZATION, "alice");
    let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
    let answer = scene.site.respond(request.body(body).unwrap(), peer).await;
    assert!(answer.extensions().get::<TimedOut>().is_some());
    let told = "answered words /slow POST /slow alice 504 timed_out";
    assert_eq!(scene.first.take(), [told]);
    assert_eq!(scene.runs.load(Ordering::Relaxed), 0);

    scene.first.hangs.store(true, Ordering::Relaxed);
    // The refusal is known at once, and the observer never returns.
    let answer = scene.call("/slow", Some("mallory")).await;
    assert!(answer.extensions().get::<TimedOut>().is_some());
    let told = "answered words /slow POST /slow mallory 403 by_status";
    assert_eq!(scene.first.take(), [told]);
}
