//! HTTP to one server: signatures or a certificate, a deadline for each call, and retries of what may be repeated.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes};
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use keyway_domain::ports::Clock;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use zeroize::Zeroizing;

use crate::Error;
use crate::error::Outcome;
use crate::settings::{AccessKey, ClientProof, Connection, Endpoint};

/// The longest answer in bytes: a page of keys with the longest tags.
const LONGEST_ANSWER: usize = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a request that may be repeated is sent.
const ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const USER: &str = concat!("keyway/", env!("CARGO_PKG_VERSION"));

/// A body that arrives while it is read.
pub(crate) type Incoming = BoxBody<Bytes, Box<dyn StdError + Send + Sync>>;

/// Whether a request may be sent again after a failure that leaves open whether the server carried it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing.
    Safe,
    /// It changes something: only a request that was never sent is sent again.
    Never,
}

impl Repeat {
    /// The outcome of a request that was sent, if the server has not answered it.
    pub(crate) const fn after_failure(self) -> Outcome {
        match self {
            Self::Safe => Outcome::Unchanged,
            Self::Never => Outcome::Unknown,
        }
    }
}

/// A request. `path` follows the endpoint and may have a query.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Bytes,
    pub(crate) repeat: Repeat,
}

/// An answer. Its body is wiped, because it may hold a plaintext.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

impl Answer {
    /// Whether the same request may succeed soon.
    fn may_pass(&self) -> bool {
        match self.status.as_u16() {
            502 | 504 => true,
            // Without the header the server waits for an operator, not for time to pass.
            429 | 503 => self.headers.contains_key(RETRY_AFTER),
            _ => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        let value = self.headers.get(RETRY_AFTER)?.to_str().ok()?;
        value.parse().ok().map(Duration::from_secs)
    }
}

/// Returns whether the server cannot answer now, or a proxy cannot reach it.
pub(crate) const fn is_unreachable(status: u16) -> bool {
    matches!(status, 429 | 502..=504)
}

/// The JSON of a request, in memory that is wiped. `room` must be at least its length, because a buffer that grows leaves
/// copies behind.
pub(crate) fn json(value: &impl Serialize, room: usize) -> Result<Bytes, Error> {
    let mut body = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *body, value)
        .map_err(|_| Error::settings("the request cannot be written as JSON"))?;
    Ok(Bytes::from_owner(body))
}

struct Signer {
    credentials: Credentials,
    region: String,
    service: String,
    clock: Arc<dyn Clock>,
}

/// An HTTP client of one server.
pub(crate) struct Http {
    client: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    pub(crate) endpoint: Endpoint,
    /// The API's name, for errors.
    api: &'static str,
    timeout: Duration,
    signer: Option<Signer>,
}

/// A failed attempt.
struct Failed {
    cause: String,
    /// Whether the request was not sent at all.
    unsent: bool,
}

impl Http {
    pub(crate) fn new(
        connection: Connection,
        api: &'static str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let Connection {
            endpoint,
            proof,
            authorities,
            timeout,
        } = connection;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(authorities) => {
                for authority in authorities {
                    let added = roots.add(authority);
                    added.map_err(|_| {
                        Error::settings("a certificate authority is no X.509 certificate")
                    })?;
                }
            }
            // Reading them is slow, and plain HTTP needs none.
            None if endpoint.scheme == "https" => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            None => {}
        }
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|_| Error::settings("TLS has no version that can be spoken"))?
            .with_root_certificates(roots);
        let (tls, signer) = match proof {
            ClientProof::AccessKey {
                key,
                region,
                service,
            } => {
                let signer = Signer::new(&key, region, service, clock);
                (tls.with_no_client_auth(), Some(signer))
            }
            ClientProof::Certificate { chain, key } => {
                let tls = tls.with_client_auth_cert(chain, key);
                let tls = tls.map_err(|error| {
                    Error::Settings(format!("the certificate and its key: {error}"))
                })?;
                (tls, None)
            }
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .build(connector),
            endpoint,
            api,
            timeout,
            signer,
        })
    }

    /// Sends the request and reads the answer, whatever its status. Repeats it as its [`Repeat`] permits.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, Error> {
        let deadline = Instant::now() + self.timeout;
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let outcome = match timeout_at(deadline, self.attempt(call)).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(self.timed_out(call)),
            };
            let may_repeat = match &outcome {
                Ok(answer) => call.repeat == Repeat::Safe && answer.may_pass(),
                Err(failed) => call.repeat == Repeat::Safe || failed.unsent,
            };
            let wanted = outcome.as_ref().ok().and_then(Answer::retry_after);
            let wait = wanted.unwrap_or(pause).max(pause);
            if attempt == ATTEMPTS || !may_repeat || Instant::now() + wait >= deadline {
                return outcome.map_err(|failed| self.unreachable(call, failed));
            }
            sleep(wait).await;
            attempt += 1;
            pause *= 2;
        }
    }

    async fn attempt(&self, call: &Call) -> Result<Answer, Failed> {
        let response = self.request(call).await?;
        let (parts, mut body) = response.into_parts();
        let length = parts.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        let length = length.unwrap_or(0);
        let too_long = || Failed {
            cause: format!("its answer is longer than {LONGEST_ANSWER} bytes"),
            unsent: false,
        };
        if length > LONGEST_ANSWER {
            return Err(too_long());
        }
        let mut read = Zeroizing::new(Vec::with_capacity(length));
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failed {
                cause: root_cause(error.as_ref()),
                unsent: false,
            })?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let wanted = read.len().saturating_add(data.remaining());
            if wanted > LONGEST_ANSWER {
                return Err(too_long());
            }
            if wanted > read.capacity() {
                // A vector that grows leaves its old content behind.
                let mut larger = Zeroizing::new(Vec::with_capacity(wanted.saturating_mul(2)));
                larger.extend_from_slice(&read);
                read = larger;
            }
            read.extend_from_slice(&data);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: read,
        })
    }

    /// Sends the request once and returns the answer as soon as its head is there.
    pub(crate) async fn stream(&self, call: &Call) -> Result<Response<Incoming>, Error> {
        match timeout(self.timeout, self.request(call)).await {
            Ok(outcome) => outcome.map_err(|failed| self.unreachable(call, failed)),
            Err(_) => Err(self.timed_out(call)),
        }
    }

    async fn request(&self, call: &Call) -> Result<Response<Incoming>, Failed> {
        let request = self.signed(call).map_err(|cause| Failed {
            cause,
            unsent: true,
        })?;
        let response = self.client.request(request).await;
        let response = response.map_err(|error| Failed {
            cause: root_cause(&error),
            unsent: error.is_connect(),
        })?;
        Ok(response.map(|body| body.map_err(Into::into).boxed()))
    }

    fn signed(&self, call: &Call) -> Result<Request<Full<Bytes>>, String> {
        let host = self.endpoint.authority.as_str();
        let uri = format!("{}{}", self.endpoint, call.path);
        let mut request = Request::builder().method(&call.method).uri(&uri);
        let is_json = !call.body.is_empty();
        for (name, value) in [(HOST, host), (USER_AGENT, USER), (ACCEPT, "*/*")] {
            request = request.header(name, value);
        }
        if is_json {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = request.body(Full::new(call.body.clone()));
        let mut request = request.map_err(|error| error.to_string())?;
        if let Some(signer) = &self.signer {
            signer.sign(&mut request, &uri, host, &call.body)?;
        }
        Ok(request)
    }

    /// Decodes a successful answer.
    pub(crate) fn json<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Error> {
        serde_json::from_slice(&answer.body).map_err(|_| self.foreign("it lacks a field"))
    }

    pub(crate) fn decoded(&self, text: &str) -> Result<Vec<u8>, Error> {
        let decoded = STANDARD.decode(text);
        decoded.map_err(|_| self.foreign("a field is not base64"))
    }

    /// The error for an answer that is none of this API.
    pub(crate) fn foreign(&self, what: &str) -> Error {
        Error::Foreign {
            endpoint: self.endpoint.to_string(),
            api: self.api,
            what: what.to_owned(),
        }
    }

    /// The error for a refusal that has no message of this API, such as one of a proxy.
    pub(crate) fn without_message(&self, status: StatusCode, repeat: Repeat) -> Error {
        let cause = format!("it has status {}", status.as_u16());
        match is_unreachable(status.as_u16()) {
            true => Error::Unreachable {
                endpoint: self.endpoint.to_string(),
                cause,
                unknown: repeat.after_failure(),
            },
            false => self.foreign(&cause),
        }
    }

    fn timed_out(&self, call: &Call) -> Error {
        let cause = format!("it did not answer within {} s", self.timeout.as_secs());
        self.unreachable(
            call,
            Failed {
                cause,
                unsent: false,
            },
        )
    }

    fn unreachable(&self, call: &Call, failed: Failed) -> Error {
        Error::Unreachable {
            endpoint: self.endpoint.to_string(),
            cause: failed.cause,
            unknown: match failed.unsent {
                true => Outcome::Unchanged,
                false => call.repeat.after_failure(),
            },
        }
    }
}

impl Signer {
    fn new(key: &AccessKey, region: String, service: String, clock: Arc<dyn Clock>) -> Self {
        let token = key.session_token.as_ref().map(|token| token.to_string());
        Self {
            credentials: Credentials::new(&key.id, key.secret.as_str(), token, None, "keyway"),
            region,
            service,
            clock,
        }
    }

    fn sign(
        &self,
        request: &mut Request<Full<Bytes>>,
        uri: &str,
        host: &str,
        body: &[u8],
    ) -> Result<(), String> {
        let mut settings = SigningSettings::default();
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        if self.service == "s3" {
            // S3 takes paths as they are.
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        let identity = self.credentials.clone().into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(&self.service)
            .time(SystemTime::from(self.clock.now()))
            .settings(settings)
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let method = request.method().as_str().to_owned();
        let headers = [("host", host)].into_iter();
        let signable = SignableRequest::new(&method, uri, headers, SignableBody::Bytes(body));
        let signable = signable.map_err(|error| error.to_string())?;
        let signed = sign(signable, &params).map_err(|error| error.to_string())?;
        let (instructions, _) = signed.into_parts();
        instructions.apply_to_request_http1x(request);
        Ok(())
    }
}

/// The innermost cause of a failed connection. The errors around it only say that the client, the connector and the
/// connection failed.
pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let cause = cause.to_string();
    match cause.contains("UnknownIssuer") {
        true => format!("{cause}; a file of its authority can be given (--ca)"),
        false => cause,
    }
}
