//! Lambda's Runtime API on loopback: feeds events to a function's process and collects its answers.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// The time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

const PREFIX: &str = "/2018-06-01/runtime/";

/// A function's answer to one event.
#[derive(Debug)]
pub struct Invocation {
    /// The answer's bytes, or the error by which the invocation failed.
    pub result: Result<Bytes, Value>,
    /// Whether the answer was streamed: a head in JSON, eight NULs, the body.
    pub streamed: bool,
    /// The time from the event's delivery to the end of the answer.
    pub took: Duration,
}

impl Invocation {
    /// The answer as JSON.
    pub fn json(&self) -> Value {
        let answer = self.result.as_ref().expect("the invocation succeeded");
        serde_json::from_slice(answer).expect("the answer is JSON")
    }

    /// The answer as the gateway passes it on to the client, whichever gateway it is.
    pub fn http(&self) -> Response<Bytes> {
        let (head, body) = if self.streamed {
            let answer = self.result.as_ref().expect("the invocation succeeded");
            let end = answer
                .windows(8)
                .position(|window| window == [0; 8])
                .expect("eight NULs end the head");
            let head = serde_json::from_slice(&answer[..end]).expect("the head is JSON");
            (head, answer.slice(end + 8..))
        } else {
            let head = self.json();
            let body = head["body"].as_str().unwrap_or_default();
            let body = if head["isBase64Encoded"] == true {
                STANDARD.decode(body).expect("the body is base64")
            } else {
                body.as_bytes().to_vec()
            };
            (head, Bytes::from(body))
        };
        let status = head["statusCode"].as_u64().expect("a status");
        let mut response = Response::builder().status(u16::try_from(status).expect("a status"));
        for field in ["headers", "multiValueHeaders"] {
            for (name, values) in head[field].as_object().into_iter().flatten() {
                for value in one_or_more(values) {
                    response = response.header(name, value);
                }
            }
        }
        for cookie in one_or_more(&head["cookies"]) {
            response = response.header("set-cookie", cookie);
        }
        response.body(body).expect("a response")
    }
}

fn one_or_more(values: &Value) -> Vec<&str> {
    match values {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().map(|v| v.as_str().expect("a text")).collect(),
        value => vec![value.as_str().expect("a text")],
    }
}

/// The Runtime API of one function's process. Ends when it is dropped.
pub struct RuntimeApi {
    address: SocketAddr,
    events: mpsc::UnboundedSender<Event>,
    state: Arc<State>,
    server: JoinHandle<()>,
}

struct Event {
    bytes: Bytes,
    done: oneshot::Sender<Invocation>,
}

struct State {
    events: AsyncMutex<mpsc::UnboundedReceiver<Event>>,
    /// Events that are delivered and not answered.
    pending: Mutex<HashMap<String, (Instant, oneshot::Sender<Invocation>)>>,
    count: AtomicU64,
    first_next: watch::Sender<Option<Instant>>,
    init_error: watch::Sender<Option<Value>>,
}

impl RuntimeApi {
    /// Starts it at a port of the kernel's choice.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (events, receiver) = mpsc::unbounded_channel();
        let state = Arc::new(State {
            events: AsyncMutex::new(receiver),
            pending: Mutex::default(),
            count: AtomicU64::new(0),
            first_next: watch::Sender::new(None),
            init_error: watch::Sender::new(None),
        });
        let server = tokio::spawn(listen(listener, Arc::clone(&state)));
        Self {
            address,
            events,
            state,
            server,
        }
    }

    /// Host and port, in the form of `AWS_LAMBDA_RUNTIME_API`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The variables that Lambda sets for every function and that runtimes insist on.
    pub fn environment(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_LAMBDA_RUNTIME_API", self.address()),
            ("AWS_LAMBDA_FUNCTION_NAME", "function".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512".to_owned()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
        ]
    }

    /// A Runtime API with a function after its INIT: the calling test binary, which runs the ignored test of this name. The
    /// process is killed when dropped.
    pub async fn with_own_function(test: &str) -> (Self, Child) {
        let api = Self::start().await;
        let process = Command::new(std::env::current_exe().expect("this test has a path"))
            .args(["--ignored", "--exact", test])
            .envs(api.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this test runs");
        api.first_next().await;
        (api, process)
    }

    /// Waits until the function asks for its first event, which ends its INIT; says when that was.
    ///
    /// # Panics
    /// When it reports that it cannot start, or does not ask within a minute.
    pub async fn first_next(&self) -> Instant {
        let mut next = self.state.first_next.subscribe();
        let mut failed = self.state.init_error.subscribe();
        tokio::select! {
            first = next.wait_for(Option::is_some) => first.ok().and_then(|first| *first).expect("an instant"),
            error = failed.wait_for(Option::is_some) => panic!("the function did not start: {:?}", error.expect("an error")),
            () = tokio::time::sleep(TIMEOUT) => panic!("the function did not start"),
        }
    }

    /// Sends the function an event and returns its answer.
    ///
    /// # Panics
    /// When it does not answer within a minute.
    pub async fn invoke(&self, event: &Value) -> Invocation {
        self.invoke_bytes(event.to_string()).await
    }

    /// As [`Self::invoke`], with an event that may be anything.
    pub async fn invoke_bytes(&self, event: impl Into<Bytes>) -> Invocation {
        let (done, answer) = oneshot::channel();
        let bytes = event.into();
        self.events
            .send(Event { bytes, done })
            .expect("the server runs");
        tokio::time::timeout(TIMEOUT, answer)
            .await
            .expect("the function answers")
            .expect("the server runs")
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn listen(listener: TcpListener, state: Arc<State>) {
    // Connections end with the server.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        // One write sends head and body: else the measurement would include Nagle's algorithm.
        stream.set_nodelay(true).expect("a socket");
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(state.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .writev(true)
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(async move { connection.await.ok() });
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().strip_prefix(PREFIX).unwrap_or_default();
        let segments: Vec<_> = path.split('/').collect();
        match (&parts.method, segments.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => self.next().await,
            (&Method::POST, ["invocation", id, "response"]) => {
                let streamed = parts
                    .headers
                    .get("lambda-runtime-function-response-mode")
                    .is_some_and(|mode| mode == "streaming");
                let bytes = whole(Box::pin(body)).await;
                self.finish(id, Ok(bytes), streamed)
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let error = json_of(&whole(Box::pin(body)).await);
                self.finish(id, Err(error), false)
            }
            (&Method::POST, ["init", "error"]) => {
                let error = json_of(&whole(Box::pin(body)).await);
                self.init_error.send_replace(Some(error));
                status(StatusCode::ACCEPTED)
            }
            _ => status(StatusCode::NOT_FOUND),
        }
    }

    async fn next(&self) -> Response<Full<Bytes>> {
        let arrived = now();
        self.first_next.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(arrived);
            is_first
        });
        let Some(Event { bytes, done }) = self.events.lock().await.recv().await else {
            return status(StatusCode::GONE);
        };
        let id = format!(
            "00000000-0000-4000-8000-{:012}",
            self.count.fetch_add(1, Ordering::Relaxed)
        );
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", &id)
            .header("lambda-runtime-deadline-ms", "4102444800000")
            .header(
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:us-east-1:123456789012:function:function",
            )
            .header(
                "lambda-runtime-trace-id",
                "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Sampled=0",
            )
            .body(Full::new(bytes))
            .expect("a response");
        let mut pending = self.pending.lock().expect("nobody panicked");
        pending.insert(id, (now(), done));
        response
    }

    fn finish(
        &self,
        id: &str,
        result: Result<Bytes, Value>,
        streamed: bool,
    ) -> Response<Full<Bytes>> {
        let answered = now();
        let pending = self.pending.lock().expect("nobody panicked").remove(id);
        let Some((handed_out, done)) = pending else {
            return status(StatusCode::BAD_REQUEST);
        };
        let invocation = Invocation {
            result,
            streamed,
            took: answered - handed_out,
        };
        // The caller may have stopped waiting.
        done.send(invocation).ok();
        status(StatusCode::ACCEPTED)
    }
}

async fn whole(body: Pin<Box<Incoming>>) -> Bytes {
    body.collect().await.expect("a whole body").to_bytes()
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{\"status\":\"OK\"}")));
    *response.status_mut() = status;
    response
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}
