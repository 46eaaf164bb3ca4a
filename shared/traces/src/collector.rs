//! The connection to the collector.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_http::{HttpClient, HttpError};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

/// The timeout of one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(30);
/// The shortest time between two warnings, for a collector that comes and goes.
const QUIET: Duration = Duration::from_secs(600);

type Connection = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Sends batches to the collector, and logs when it goes away and when it is back.
///
/// OpenTelemetry's own clients do not fit: they need a runtime on the calling thread, or bring a second one and
/// another TLS library. They also log each batch that fails, a line every five seconds while a collector is gone; that is
/// compiled out.
pub(crate) struct Collector {
    client: Connection,
    /// Batches come from a thread without a runtime.
    runtime: Handle,
    said: Mutex<Said>,
}

/// The last state that was logged.
#[derive(Default)]
struct Said {
    away: bool,
    at: Option<Instant>,
}

impl Collector {
    /// Trusts the system's root certificates, or those of `SSL_CERT_FILE`.
    pub(crate) fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .build(connector),
            runtime: Handle::current(),
            said: Mutex::new(Said::default()),
        })
    }

    fn reached(&self) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.away {
            said.away = false;
            tracing::info!("traces reach the collector again");
        }
    }

    fn not_reached(&self, error: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if !said.away && said.at.is_none_or(|at| at.elapsed() >= QUIET) {
            said.away = true;
            said.at = Some(Instant::now());
            tracing::warn!(
                error,
                "traces do not reach the collector and are lost until they do; requests are answered as ever"
            );
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sending = async move { timeout(ATTEMPT, send(client, request)).await };
        // This fails only when the runtime ends, and the process with it.
        let sent = self.runtime.spawn(sending).await?;
        let answer = sent.unwrap_or_else(|_| Err("it does not answer".into()));
        match &answer {
            Ok(response) if response.status().is_success() => self.reached(),
            Ok(response) => self.not_reached(response.status().as_str()),
            Err(error) => self.not_reached(&whole(error.as_ref())),
        }
        answer
    }
}

async fn send(client: Connection, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let response = client.request(request.map(Full::new)).await?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await?;
    Ok(Response::from_parts(parts, body.to_bytes()))
}

/// An error with its causes: `client error (Connect)` alone does not help.
fn whole(error: &(dyn Error + 'static)) -> String {
    let first = error.to_string();
    std::iter::successors(error.source(), |&error| error.source())
        .fold(first, |text, error| format!("{text}: {error}"))
}
