//! HTTP to one Vault, without redirects and proxies, with limits on the answer's length and on the time for retries.

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
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::resolver::Guarded;

/// The longest answer, in bytes.
pub(crate) const LONGEST_ANSWER: usize = 1 << 20;
/// The longest list of keys, in bytes: some 200,000 UUIDs. Vault sends it in one answer.
pub(crate) const LONGEST_LIST: usize = 8 << 20;

/// The least time for an attempt, if the deadline allows it, even when that leaves less for retries.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long an idle connection is kept. Load balancers and NATs keep it for longer.
const IDLE: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS: usize = 8;

type Connector = HttpsConnector<HttpConnector<Guarded<GaiResolver>>>;

/// The deadline of an operation, and how often each of its requests may be repeated.
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

    /// Ends an operation at the deadline. Its requests have timeouts of their own; this one covers its other waits.
    pub(crate) async fn end<T, E: From<Failure>>(
        self,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let done = timeout_at(self.deadline, operation).await;
        done.unwrap_or_else(|_| Err(Failure::TimedOut.into()))
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

/// An answer. Its body is wiped, because it may hold a token or a plaintext.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    retry_after: Option<Duration>,
    body: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    errors: Vec<String>,
    /// Only in answers of `sys/health`.
    #[serde(default)]
    sealed: bool,
}

impl Answer {
    /// The JSON of the body.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &'static str) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| Failure::Garbled(what))
    }

    /// Whether one of Vault's errors contains one of these texts.
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

    /// The failure, if the answer is an error that any request could get. Other errors are for the caller to judge.
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
            // A standby that has not seen a write yet also answers 412, and asks to try again.
            412 | 500..=599 => Some(self.unforeseen(path)),
            404 if self.says(&["namespace not found"]) => Some(Failure::NoNamespace),
            404 if self.says(&["no handler for route"]) => Some(Failure::NoMount(path.to_owned())),
            400.. if self.is_foreign() => Some(self.unforeseen(path)),
            _ => None,
        }
    }

    /// The failure for an unexpected answer.
    pub(crate) fn unforeseen(&self, path: &str) -> Failure {
        let status = self.status.as_u16();
        // Without the query.
        let path = path.split('?').next().unwrap_or(path).to_owned();
        match self.is_foreign() {
            true => Failure::Foreign { status, path },
            false => Failure::Status { status, path },
        }
    }

    /// Whether the body cannot be Vault's, such as a proxy's page.
    fn is_foreign(&self) -> bool {
        !self.body.is_empty() && self.told().is_none()
    }
}

/// The JSON of a request. `room` must be at least its length, because a buffer that grows leaves copies behind.
pub(crate) fn body(value: &impl Serialize, room: usize) -> Result<Bytes, Failure> {
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *body, value)
        .map_err(|_| Failure::Input("a request cannot be written as JSON"))?;
    Ok(Bytes::from_owner(body))
}

/// An HTTP client of one Vault.
pub(crate) struct Http {
    client: Client<Connector, Full<Bytes>>,
    address: String,
    headers: HeaderMap,
    namespace: Option<HeaderValue>,
}

impl Http {
    /// A client of the Vault at `address`, over TLS if `tls` is given, else over plain HTTP to loopback only.
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

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Sends the request, and repeats it after failures that may pass. Failures that any request could get are errors;
    /// other answers, such as 403, are returned.
    pub(crate) async fn send(&self, limits: Limits, call: &Call<'_>) -> Result<Answer, Failure> {
        let mut pause = FIRST_PAUSE;
        let mut repeats = limits.retries;
        loop {
            // An attempt that hangs leaves time for the retries.
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
                // Copy by hand and wipe the old buffer: a vector that grows leaves its old content behind.
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

/// TLS for a connector that only gets `http://` addresses. It trusts no authority.
fn no_tls() -> Result<ClientConfig, Failure> {
    crate::tls(rustls::RootCertStore::empty())
}

/// The innermost cause of a failed connection. The errors around it only say that the client, the connector and the
/// connection failed.
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
