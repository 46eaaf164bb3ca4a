//! A collector that keeps the spans that it gets.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request of an exporter.
pub(crate) struct Batch {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

struct State {
    status: AtomicU16,
    batches: Mutex<Vec<Arc<Batch>>>,
}

/// Answers every batch with one status, and keeps each batch.
pub(crate) struct Collector {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::over(None).await
    }

    pub(crate) async fn over(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            status: AtomicU16::new(200),
            batches: Mutex::default(),
        });
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(state, stream).await;
                            }
                        }
                        None => serve(state, stream).await,
                    }
                });
            }
        });
        Self { port, state }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Answers the next batches with this status.
    pub(crate) fn answer(&self, status: StatusCode) {
        self.state.status.store(status.as_u16(), Ordering::SeqCst);
    }

    pub(crate) fn batches(&self) -> Vec<Arc<Batch>> {
        self.state.batches.lock().unwrap().clone()
    }

    /// The spans so far, ordered by their ends, each with the attributes of its resource.
    pub(crate) fn spans(&self) -> Vec<(Vec<KeyValue>, Span)> {
        let mut spans = Vec::new();
        for batch in self.batches() {
            let request = ExportTraceServiceRequest::decode(batch.body.clone()).unwrap();
            for of_resource in request.resource_spans {
                let resource = of_resource.resource.unwrap().attributes;
                let of_scopes = of_resource.scope_spans.into_iter();
                spans.extend(of_scopes.flat_map(|scope| {
                    let resource = resource.clone();
                    let spans = scope.spans.into_iter();
                    spans.map(move |span| (resource.clone(), span))
                }));
            }
        }
        spans
    }
}

async fn serve(state: Arc<State>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|request: Request<Incoming>| {
        let state = Arc::clone(&state);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let status = state.status.load(Ordering::SeqCst);
            state.batches.lock().unwrap().push(Arc::new(Batch {
                path: parts.uri.to_string(),
                headers: parts.headers,
                body,
            }));
            let answer = Response::builder().status(status);
            Ok::<_, Infallible>(answer.body(Full::<Bytes>::default()).unwrap())
        }
    });
    // A client may disconnect.
    http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
        .ok();
}

/// An attribute as text.
pub(crate) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    match found.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        other => panic!("{key}: {other:?}"),
    }
}
