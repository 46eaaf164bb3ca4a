//! The order of a request's checks: checks without the body come before it is read, and bodies have bounds.
#![expect(
    clippy::unwrap_used,
    reason = "what a test is set up with must be there"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{Method, Response, StatusCode, request};
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use keyway_http::{
    BodyMemory, Connection, Dialect, Mount, NO_BODY, Operation, Peer, Proof, Rejection, Request,
    RequestLine, Route, Site, Trace,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const LIMIT: usize = 1 << 20;

/// Callers say how they are proven. Those whose proof covers the body send the body `b`.
struct Words;

impl Dialect for Words {
    type Caller = &'static str;
    type Action = ();
    type Error = StatusCode;

    fn name(&self) -> &'static str {
        "words"
    }

    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<&'static str, StatusCode>, StatusCode> {
        assert!(request.body.is_empty(), "it is not read yet");
        let wrong = StatusCode::UNAUTHORIZED;
        let is_right = move |body: &[u8]| body.iter().all(|byte| *byte == b'b');
        match request.headers.get(AUTHORIZATION).map(|it| it.as_bytes()) {
            Some(b"proven") => Ok(Proof::Proven("proven")),
            Some(b"unknown") => Ok(Proof::Proven("unknown")),
            Some(b"mallory") => Ok(Proof::Proven("mallory")),
            Some(b"signed") => Ok(Proof::Signed(
                "signed",
                Box::new(move |body| if is_right(body) { Ok(()) } else { Err(wrong) }),
            )),
            Some(b"signed-mallory") => Ok(Proof::Signed("mallory", Box::new(|_| Ok(())))),
            Some(b"unproven") => Ok(Proof::Unproven(Box::new(move |body| {
                if is_right(body) {
                    Ok("unproven")
                } else {
                    Err(wrong)
                }
            }))),
            _ => Err(wrong),
        }
    }

    fn is_known(caller: &&'static str) -> bool {
        *caller != "unknown"
    }

    fn authorize(&self, caller: &'static str, (): (), _: &str) -> Result<&'static str, StatusCode> {
        match caller {
            "mallory" => Err(StatusCode::FORBIDDEN),
            caller => Ok(caller),
        }
    }

    fn operation(&self, _: &Route<Self>, _: &request::Parts) -> Operation {
        Operation::NONE
    }

    fn trace(&self, _: &&'static str) -> Option<Box<dyn Trace>> {
        None
    }

    fn class(_: &StatusCode) -> &'static str {
        "by_status"
    }

    fn refuse(&self, refused: Rejection<StatusCode>, _: &RequestLine<'_>) -> Response<Bytes> {
        refused.bare().unwrap_or_else(|status| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            response
        })
    }
}

fn site(memory: BodyMemory) -> Site {
    let route = |path, body_limit| Route::<Words> {
        method: Method::POST,
        path,
        body_limit,
        action: (),
        run: Box::new(|call| {
            let length = call.request.body.len();
            Box::pin(async move { Ok(Response::new(length.to_string().into())) })
        }),
    };
    let routes = vec![
        route("/body", LIMIT),
        route("/none", 0),
        route("/signed-none", NO_BODY),
    ];
    Site::new(1, Mount::new(Words, vec![""], routes).unwrap()).with_body_memory(&Arc::new(memory))
}

/// A body that the test sends in parts, and that knows whether it was read.
struct Sent {
    chunks: UnboundedReceiver<Bytes>,
    declared: Option<u64>,
    asked: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
}

impl http_body::Body for Sent {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.asked.store(true, Ordering::Relaxed);
        let polled = self.chunks.poll_recv(context);
        if let Poll::Ready(Some(chunk)) = &polled {
            self.read.fetch_add(chunk.len(), Ordering::Relaxed);
        }
        polled.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        self.declared
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

/// A request that is being sent.
struct Sending<'s> {
    body: Option<UnboundedSender<Bytes>>,
    asked: Arc<AtomicBool>,
    read: Arc<AtomicUsize>,
    answer: Pin<Box<dyn Future<Output = Response<Bytes>> + 's>>,
}

impl<'s> Sending<'s> {
    fn begin(
        site: &'s Site,
        path: &str,
        who: &str,
        declared: Option<u64>,
        connection: &Connection,
    ) -> Self {
        let (body, chunks) = unbounded_channel();
        let asked = Arc::<AtomicBool>::default();
        let read = Arc::<AtomicUsize>::default();
        let sent = Sent {
            chunks,
            declared,
            asked: Arc::clone(&asked),
            read: Arc::clone(&read),
        };
        let request = http::Request::post(path).header(AUTHORIZATION, who);
        let peer = Peer {
            connection: connection.clone(),
            ..Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true)
        };
        let answer = site.respond(request.body(Box::pin(sent) as _).unwrap(), peer);
        Self {
            body: Some(body),
            asked,
            read,
            answer: Box::pin(answer),
        }
    }

    fn send(&mut self, chunk: Vec<u8>) {
        self.body.as_ref().unwrap().send(chunk.into()).unwrap();
    }

    /// The answer's status, if there is one already.
    fn status(&mut self) -> Option<u16> {
        let answer = (&mut self.answer).now_or_never()?;
        Some(answer.status().as_u16())
    }

    fn end(mut self) -> (u16, Bytes) {
        self.body = None;
        let answer = (&mut self.answer).now_or_never().unwrap();
        (answer.status().as_u16(), answer.into_body())
    }
}

#[test]
fn head_refused_is_answered_before_the_body_is_read() {
    let site = site(BodyMemory::default());
    for (path, who, declared, status) in [
        ("/nothing", "proven", None, 404),
        ("/body", "nobody", None, 401),
        ("/body", "nobody", Some(10), 401),
        // The length that a head declares is part of the head.
        ("/body", "nobody", Some(LIMIT as u64 + 1), 413),
        ("/body", "mallory", None, 403),
        ("/body", "signed-mallory", None, 403),
        ("/none", "mallory", Some(1 << 40), 403),
    ] {
        let mut sending = Sending::begin(&site, path, who, declared, &Connection::NONE);
        assert_eq!(sending.status(), Some(status), "{path} {who} {declared:?}");
        assert!(!sending.asked.load(Ordering::Relaxed), "{path} {who}");
    }
}

#[test]
fn route_without_a_body_reads_none() {
    let site = site(BodyMemory::default());
    let mut sending = Sending::begin(&site, "/none", "proven", Some(1 << 40), &Connection::NONE);
    assert_eq!(sending.status(), Some(200));
    assert!(!sending.asked.load(Ordering::Relaxed));
    // Where a signature covers the body, a small one is read, whoever signs.
    for who in ["proven", "signed", "unproven"] {
        let mut sending = Sending::begin(&site, "/signed-none", who, None, &Connection::NONE);
        sending.send(b"bb".to_vec());
        assert_eq!(sending.end(), (200, "2".into()), "{who}");
        let mut sending = Sending::begin(&site, "/signed-none", who, None, &Connection::NONE);
        sending.send(vec![b'b'; NO_BODY + 1]);
        assert_eq!(sending.status(), Some(413), "{who}");
    }
}

#[test]
fn body_covered_by_a_signature_is_checked() {
    let site = site(BodyMemory::default());
    for (who, wrong) in [("proven", 200), ("signed", 401), ("unproven", 401)] {
        for declared in [None, Some(300_000)] {
            let mut sending = Sending::begin(&site, "/body", who, declared, &Connection::NONE);
            for _ in 0..3 {
                sending.send(vec![b'b'; 100_000]);
                assert_eq!(sending.status(), None);
            }
            assert_eq!(sending.end(), (200, "300000".into()), "{who} {declared:?}");
        }
        let mut sending = Sending::begin(&site, "/body", who, None, &Connection::NONE);
        sending.send(b"x".to_vec());
        assert_eq!(sending.end().0, wrong, "{who}");
    }
}

#[test]
fn body_too_long_is_not_read_to_its_end() {
    let site = site(BodyMemory::default());
    for who in ["proven", "signed", "unproven"] {
        let mut sending = Sending::begin(&site, "/body", who, None, &Connection::NONE);
        for _ in 0..64 {
            sending.send(vec![b'b'; 64 << 10]);
        }
        assert_eq!(sending.status(), Some(413), "{who}");
        let read = sending.read.load(Ordering::Relaxed);
        assert!(read <= LIMIT + (64 << 10), "{who}: {read}");
    }
}

#[test]
fn body_of_a_new_unproven_caller_takes_the_memory_of_the_oldest() {
    // Each body needs a little more memory than its bytes.
    let site = site(BodyMemory::new(4 * LIMIT + LIMIT / 2, 64 * LIMIT));
    let begin = |who| {
        let mut sending = Sending::begin(&site, "/body", who, None, &Connection::new());
        sending.send(vec![b'b'; LIMIT - 1]);
        assert_eq!(sending.status(), None, "it goes on");
        sending
    };
    let mut filling: Vec<_> = (0..4).map(|_| begin("unproven")).collect();
    let mut honest = begin("unproven");
    assert_eq!(filling[0].status(), Some(503), "it made way");
    assert_eq!(filling[1].status(), None);
    honest.send(b"b".to_vec());
    assert_eq!(honest.end().0, 200);
    // Proven callers have memory of their own.
    let proven: Vec<_> = (0..8).map(|_| begin("proven")).collect();
    assert_eq!(filling[1].status(), None);
    drop(proven);
    // All memory is released.
    drop(filling);
    let again: Vec<_> = (0..4).map(|_| begin("unproven")).collect();
    for sending in again {
        assert_eq!(sending.end().0, 200);
    }
}

#[test]
fn body_beyond_the_shared_memory_is_refused_with_retry() {
    let site = site(BodyMemory::new(4 * LIMIT, 4 * LIMIT));
    let begin = || {
        let mut sending = Sending::begin(&site, "/body", "proven", None, &Connection::NONE);
        sending.send(vec![b'b'; LIMIT]);
        sending
    };
    let mut held: Vec<_> = (0..4).map(|_| begin()).collect();
    for sending in &mut held {
        assert_eq!(sending.status(), None);
    }
    let refused = begin().answer.now_or_never().unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(held.pop().unwrap().end().0, 200);
    let mut next = begin();
    assert_eq!(next.status(), None);
}

#[test]
fn body_that_is_short_and_whole_needs_no_memory() {
    let site = site(BodyMemory::new(0, 0));
    for who in ["proven", "signed", "unproven"] {
        let status = |length: usize| {
            let body = Full::new(Bytes::from(vec![b'b'; length]));
            let body = body.map_err(Into::into);
            let request = http::Request::post("/body").header(AUTHORIZATION, who);
            let request = request.body(Box::pin(body) as _).unwrap();
            let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true);
            let answer = site.respond(request, peer).now_or_never().unwrap();
            (answer.status().as_u16(), answer.into_body())
        };
        assert_eq!(status(1024), (200, "1024".into()), "{who}");
        assert_eq!(status(1025).0, 503, "{who}");
        // A body in two parts waits for the second one, so it needs memory.
        let mut sending = Sending::begin(&site, "/body", who, None, &Connection::new());
        sending.send(vec![b'b'; 512]);
        assert_eq!(sending.status(), Some(503), "{who}");
    }
}

#[test]
fn streams_of_one_unproven_connection_share_a_limit() {
    let site = site(BodyMemory::default());
    let connection = Connection::new();
    let begin = |who| {
        let mut sending = Sending::begin(&site, "/body", who, None, &connection);
        sending.send(vec![b'b'; LIMIT]);
        sending
    };
    // Each body needs a little more memory than its bytes.
    let fit = Connection::UNPROVEN / LIMIT - 1;
    let mut held: Vec<_> = (0..fit).map(|_| begin("unproven")).collect();
    for sending in &mut held {
        assert_eq!(sending.status(), None);
    }
    assert_eq!(begin("unproven").status(), Some(503));
    // The memory is released, and a proven connection does not have this limit.
    assert!(!connection.is_proven());
    assert_eq!(held.pop().unwrap().end().0, 200);
    assert!(connection.is_proven());
    let mut more: Vec<_> = (0..2 * fit).map(|_| begin("unproven")).collect();
    for sending in &mut more {
        assert_eq!(sending.status(), None);
    }
}

#[test]
fn connection_is_proven_by_a_known_caller() {
    let site = site(BodyMemory::default());
    for (who, is_proven) in [
        ("nobody", false),
        ("unknown", false),
        ("proven", true),
        ("mallory", true),
    ] {
        let connection = Connection::new();
        let mut sending = Sending::begin(&site, "/none", who, None, &connection);
        sending.status().unwrap();
        assert_eq!(connection.is_proven(), is_proven, "{who}");
    }
}
