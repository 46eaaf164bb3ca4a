//! HTTP to one Vault: no redirects, no proxies, answers of bounded length, attempts within a deadline.

use std::error::Error;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keyway_crypto::SecretBytes;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::resolver::Guarded;

/// The longest answer that is read.
pub(crate) const LONGEST_ANSWER: usize = 1 << 20;
/// The longest list of keys, which comes in one answer: some 200,000 UUIDs.
pub(crate) const LONGEST_LIST: usize = 8 << 20;

/// An attempt is given this much time whatever follows, if there is as much.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long a connection that nobody uses is kept: shorter than load balancers and NATs forget about it.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS: usize = 8;

type Connector = HttpsConnector<HttpConnector<Guarded<GaiResolver>>>;

/// Until when an operation must be over, and how often each of its requests may be repeated.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) deadline: Instant,
    pub(crate) retries: u32,
}

impl Limits {
    pub(crate) fn within(time: Duration, retries: u32) -> Self {
        Self {
            deadline: Instant::now() + time,
            retries,
        }
    }

    fn left(self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// One request. `path` follows `/v1/`.
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) body: Option<Bytes>,
    pub(crate) token: Option<&'a SecretBytes>,
    pub(crate) in_namespace: bool,
    pub(crate) longest_answer: usize,
}

impl<'a> Call<'a> {
    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            body: None,
            token: None,
            in_namespace: true,
            longest_answer: LONGEST_ANSWER,
        }
    }
}

/// An answer. Its body is wiped: it may hold a token or a plaintext.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    errors: Vec<String>,
    /// In what `sys/health` answers.
    #[serde(default)]
    sealed: bool,
}

impl Answer {
    /// The JSON of the body.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| Failure::Garbled(what))
    }

    /// Whether one of the errors that Vault gives has one of these texts in it.
    pub(crate) fn says(&self, texts: &[&str]) -> bool {
        self.told().is_some_and(|told| {
            told.errors
                .iter()
                .any(|error| texts.iter().any(|text| error.contains(text)))
        })
    }

    fn told(&self) -> Option<Told> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The failure that an answer is which neither succeeds nor says anything about what was asked.
    fn failure(&self, path: &str) -> Option<Failure> {
        let status = self.status.as_u16();
        match status {
            300..=399 => Some(Failure::Redirected(status)),
            429 => Some(Failure::Busy),
            501 => Some(Failure::NotInitialized),
            503 if self.told().is_some_and(|told| told.sealed) || self.says(&["sealed"]) => {
                Some(Failure::Sealed)
            }
            503 if self.says(&["not initialized", "not yet initialized"]) => {
                Some(Failure::NotInitialized)
            }
            // 412 is also what a standby answers that has not heard of a write yet; it asks to try again.
            412 | 500..=599 => Some(self.unforeseen(path)),
            404 if self.says(&["namespace not found"]) => Some(Failure::NoNamespace),
            404 if self.says(&["no handler for route"]) => Some(Failure::NoMount(path.to_owned())),
            400.. if self.is_foreign() => Some(self.unforeseen(path)),
            _ => None,
        }
    }

    /// The failure that an answer is which was not foreseen.
    pub(crate) fn unforeseen(&self, path: &str) -> Failure {
        let status = self.status.as_u16();
        // What was asked of it is no part of the place.
        let path = path.split('?').next().unwrap_or(path).to_owned();
        match self.is_foreign() {
            true => Failure::Foreign { status, path },
            false => Failure::Status { status, path },
        }
    }

    /// Whether the body is one that Vault never gives, such as a proxy's page.
    fn is_foreign(&self) -> bool {
        !self.body.is_empty() && self.told().is_none()
    }
}

/// The JSON of a request. `room` is at least its length, so that no copy of it is left behind where it grew.
pub(crate) fn body(value: &impl Serialize, room: usize) -> Result<Bytes, Failure> {
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *body, value)
        .map_err(|_| Failure::Input("a request cannot be written as JSON"))?;
    Ok(Bytes::from_owner(body))
}

/// The way to one Vault.
pub(crate) struct Http {
    client: Client<Connector, Full<Bytes>>,
    address: String,
    headers: HeaderMap,
    namespace: Option<HeaderValue>,
}

impl Http {
    /// To the Vault at `address`: over TLS as `tls` says, or in plain over loopback when there is none.
    pub(crate) fn new(
        address: &str,
        namespace: Option<&str>,
        tls: Option<ClientConfig>,
    ) -> Result<Self, Failure> {
        let plain = tls.is_none();
        let mut connector =
            HttpConnector::new_with_resolver(Guarded::new(GaiResolver::new(), plain));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = match tls {
            Some(tls) => HttpsConnectorBuilder::new()
                .with_tls_config(tls)
                .https_only()
                .enable_http1()
                .wrap_connector(connector),
            None => HttpsConnectorBuilder::new()
                .with_tls_config(no_tls()?)
                .https_or_http()
                .enable_http1()
                .wrap_connector(connector),
        };
        let namespace = namespace
            .map(HeaderValue::from_str)
            .transpose()
            .map_err(|_| Failure::Input("the namespace cannot be sent"))?;
        let headers = HeaderMap::from_iter([
            (
                http::HeaderName::from_static("x-vault-request"),
                HeaderValue::from_static("true"),
            ),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .build(connector),
            address: address.to_owned(),
            headers,
            namespace,
        })
    }

    /// Sends the request, again if it fails in a way that may pass, and gives an answer that says something about
    /// what was asked.
    pub(crate) async fn send(&self, limits: Limits, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut pause = FIRST_PAUSE;
        let mut repeats = limits.retries;
        loop {
            // An attempt that hangs leaves time for those that may follow.
            let left = limits.left();
            let share = (left / repeats.saturating_add(1)).max(left.min(SHORTEST_ATTEMPT));
            let outcome = timeout(share, self.attempt(call)).await;
            let (failure, wanted) = match outcome.unwrap_or(Err(Failure::TimedOut)) {
                Ok(answer) => match answer.failure(call.path) {
                    None => return Ok(answer),
                    Some(failure) => (failure, answer.retry_after),
                },
                Err(failure) => (failure, None),
            };
            let wait = wanted.unwrap_or(pause).max(pause);
            if repeats == 0 || !failure.may_pass() || wait >= limits.left() {
                return Err(failure);
            }
            sleep(wait).await;
            repeats -= 1;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&self, call: &Call<'_>) -> Result<Answer, Failure> {
        let uri: Uri = format!("{}/v1/{}", self.address, call.path)
            .parse()
            .map_err(|_| Failure::Input("the address or path is not a URI"))?;
        let mut request = Request::new(Full::new(call.body.clone().unwrap_or_default()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        if let Some(namespace) = self.namespace.as_ref().filter(|_| call.in_namespace) {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        if let Some(token) = call.token {
            let mut token = HeaderValue::from_bytes(token.expose())
                .map_err(|_| Failure::Input("the token holds characters that no token has"))?;
            token.set_sensitive(true);
            headers.insert("x-vault-token", token);
        }
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| Failure::Unreachable(root_cause(&error)))?;
        let status = response.status();
        let header = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok()?.parse::<u64>().ok()
        };
        let retry_after = header(RETRY_AFTER).map(Duration::from_secs);
        let length = header(CONTENT_LENGTH).map_or(Ok(0), usize::try_from);
        let length = length.unwrap_or(usize::MAX);
        if length > call.longest_answer {
            return Err(Failure::TooLong(call.longest_answer));
        }
        let mut incoming = response.into_body();
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|error| Failure::Unreachable(root_cause(&error)))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let wanted = body.len().saturating_add(data.remaining());
            if wanted > call.longest_answer {
                return Err(Failure::TooLong(call.longest_answer));
            }
            if wanted > body.capacity() {
                // Moved by hand: a vector that grows leaves what it held behind.
                let mut larger = Zeroizing::new(Vec::with_capacity(wanted.saturating_mul(2)));
                larger.extend_from_slice(&body);
                body = larger;
            }
            body.extend_from_slice(&data);
        }
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }
}

/// For a connector that is given `http://` only: it trusts nobody.
fn no_tls() -> Result<ClientConfig, Failure> {
    crate::tls(rustls::RootCertStore::empty())
}

/// The cause of a failed connection. What is around it says that a client, a connector and a connection failed, one
/// after the other.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
