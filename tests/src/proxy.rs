//! A proxy that counts requests and injects the faults of networks and busy services.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The request and its answer pass.
    Pass,
    /// The request is refused as throttled, as DynamoDB and Secrets Manager do it.
    Throttle,
    /// The request is refused with a failure of the service.
    Fail,
    /// The request is refused with this code and status 400.
    Refuse(&'static str),
    /// The request takes place, and its answer is lost.
    LoseAnswer,
    /// The request is lost.
    LoseRequest,
    /// The request passes after a delay.
    Delay(Duration),
    /// The request is judged again after a delay.
    Again(Duration),
}

type Judge = Box<dyn Fn(u64, &str) -> Fate + Send + Sync>;
type Alter = Box<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>;
type Watch = Box<dyn Fn(&str, &[u8], &[u8]) + Send + Sync>;

/// A proxy on loopback before one service.
pub struct Proxy {
    /// Where it listens.
    pub endpoint: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    count: AtomicU64,
    judge: Mutex<Judge>,
    watch: Mutex<Watch>,
    alter: Mutex<Option<Alter>>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Proxy {
    /// A proxy for the service at this endpoint, without faults.
    pub async fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            upstream: endpoint.to_owned(),
            count: AtomicU64::new(0),
            judge: Mutex::new(Box::new(|_, _| Fate::Pass)),
            watch: Mutex::new(Box::new(|_, _, _| {})),
            alter: Mutex::default(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self {
            endpoint: format!("http://{address}"),
            shared,
        }
    }

    /// From now on, `judge` chooses the fate of a request by its number and its operation (`DynamoDB_20120810.GetItem`).
    pub fn judge(&self, judge: impl Fn(u64, &str) -> Fate + Send + Sync + 'static) {
        *self.shared.judge.lock().unwrap() = Box::new(judge);
    }

    /// From now on, `watch` sees the operation, the body and the answer's body of each request that passes.
    pub fn watch(&self, watch: impl Fn(&str, &[u8], &[u8]) + Send + Sync + 'static) {
        *self.shared.watch.lock().unwrap() = Box::new(watch);
    }

    /// From now on, `alter` makes the body of each answer from the one that the service gave.
    pub fn alter(&self, alter: impl Fn(Vec<u8>) -> Vec<u8> + Send + Sync + 'static) {
        *self.shared.alter.lock().unwrap() = Some(Box::new(alter));
    }

    /// The number of requests so far.
    pub fn count(&self) -> u64 {
        self.shared.count.load(Ordering::SeqCst)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).expect("a socket");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            // An error closes the connection.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

/// The connection is cut off.
#[derive(Debug)]
struct CutOff;

impl std::fmt::Display for CutOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("cut off")
    }
}

impl std::error::Error for CutOff {}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, CutOff> {
    let number = shared.count.fetch_add(1, Ordering::SeqCst);
    let operation = request
        .headers()
        .get("x-amz-target")
        .and_then(|target| target.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    let judge = || (shared.judge.lock().unwrap())(number, &operation);
    let mut fate = judge();
    while let Fate::Again(pause) = fate {
        tokio::time::sleep(pause).await;
        fate = judge();
    }
    match fate {
        Fate::LoseRequest => return Err(CutOff),
        Fate::Throttle => return Ok(refusal(400, "ThrottlingException")),
        Fate::Fail => return Ok(refusal(500, "InternalServerError")),
        Fate::Refuse(code) => return Ok(refusal(400, code)),
        Fate::Delay(pause) => tokio::time::sleep(pause).await,
        Fate::Pass | Fate::LoseAnswer | Fate::Again(_) => {}
    }
    let answer = pass(&shared, &operation, request).await;
    if fate == Fate::LoseAnswer {
        return Err(CutOff);
    }
    answer
}

async fn pass(
    shared: &Shared,
    operation: &str,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, CutOff> {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    let target = parts
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    parts.uri = format!("{}{target}", shared.upstream)
        .parse()
        .expect("the upstream's target");
    let answer = shared
        .client
        .request(Request::from_parts(parts, Full::new(body.clone())))
        .await
        .map_err(|_| CutOff)?;
    let (mut parts, answer) = answer.into_parts();
    parts.headers.remove("transfer-encoding");
    let answered = answer.collect().await.map_err(|_| CutOff)?.to_bytes();
    (shared.watch.lock().unwrap())(operation, &body, &answered);
    let answered = match shared.alter.lock().unwrap().as_ref() {
        Some(alter) => {
            // They are of the service's own body.
            parts.headers.remove("content-length");
            parts.headers.remove("x-amz-crc32");
            alter(answered.to_vec()).into()
        }
        None => answered,
    };
    Ok(Response::from_parts(parts, Full::new(answered)))
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"__type":"com.amazonaws#{code}","message":"injected"}}"#);
    Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.0")
        .body(Full::new(body.into()))
        .expect("an answer")
}
