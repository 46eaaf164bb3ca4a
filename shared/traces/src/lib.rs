//! Sends a span of every request to a collector that speaks OTLP over HTTP.
//!
//! A span is made from what observers get when the answer is known, so a request carries no span along. It has the
//! request's id, dialect, operation, route, status and class of error: no body, no query, no path as sent, no caller and
//! no key.

mod collector;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::future::{FutureExt, ready};
use keyway_domain::ports::Clock;
use keyway_http::{Answered, Observer, Outcome};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span, SpanBuilder, SpanKind, Status, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use collector::Collector;

/// The service's name if none is set.
const SERVICE: &str = "keyway";
/// How long [`Traces::finish`] waits for the collector.
const FLUSH: Duration = Duration::from_secs(2);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// A variable has an invalid value.
    #[error(transparent)]
    Settings(#[from] ExporterBuildError),
    /// TLS could not be set up.
    #[error("TLS to the collector: {0}")]
    Tls(#[from] rustls::Error),
}

/// Makes a span of every request.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    clock: Arc<dyn Clock>,
}

impl Traces {
    /// Spans wait in a bounded queue, from which a thread sends them in batches; spans that do not fit are dropped. The
    /// `OTEL_*` variables, which OpenTelemetry's own crates read, set the address, headers, batch size and interval. Must be
    /// called within a Tokio runtime, which the connections use.
    ///
    /// # Errors
    /// [`TracesError`].
    pub fn start(
        service_name: Option<&str>,
        version: &'static str,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new()?)
            .build()?;
        // Later values win: `OTEL_SERVICE_NAME` overrides a name in `OTEL_RESOURCE_ATTRIBUTES`.
        let mut resource = Resource::builder_empty()
            .with_service_name(SERVICE)
            .with_attribute(KeyValue::new("service.version", version))
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_detector(Box::new(EnvResourceDetector::new()));
        if let Some(name) = service_name {
            resource = resource.with_service_name(name.to_owned());
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.build())
            .build();
        Ok(Self::of(provider, clock))
    }

    fn of(provider: SdkTracerProvider, clock: Arc<dyn Clock>) -> Self {
        Self {
            tracer: provider.tracer(SERVICE),
            provider,
            clock,
        }
    }

    /// Sends the waiting spans, for at most two seconds. Later spans are dropped.
    pub async fn finish(&self) {
        let provider = self.provider.clone();
        // This blocks until the sending thread ends. The collector has logged what could not be sent.
        tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH).ok())
            .await
            .ok();
    }

    fn told(&self, told: &Answered<'_>) {
        let end = SystemTime::from(self.clock.now());
        let begin = end.checked_sub(told.elapsed).unwrap_or(end);
        let parent = told.traces.w3c.map_or_else(Context::new, |header| {
            TraceContextPropagator::new()
                .extract_with_context(&Context::new(), &Traceparent(header))
        });
        let mut span = SpanBuilder::from_name(told.operation.name)
            .with_kind(SpanKind::Server)
            .with_start_time(begin)
            .with_attributes(attributes(told))
            .start_with_context(&self.tracer, &parent);
        if told.status.is_server_error() {
            span.set_status(Status::error(told.error.unwrap_or_default()));
        }
        span.end_with_timestamp(end);
    }
}

/// Attributes have OpenTelemetry's name where there is one, and the log's name otherwise.
fn attributes(told: &Answered<'_>) -> Vec<KeyValue> {
    let mut attributes = vec![
        KeyValue::new("request_id", told.request_id.to_owned()),
        KeyValue::new("dialect", told.dialect),
        KeyValue::new("operation", told.operation.name),
        KeyValue::new("http.response.status_code", i64::from(told.status.as_u16())),
    ];
    // Without a route, the method may be any word that a client invents.
    if let Some(route) = told.route {
        attributes.push(KeyValue::new("http.route", route));
        attributes.push(KeyValue::new(
            "http.request.method",
            told.method.as_str().to_owned(),
        ));
    }
    if let Some(class) = told.error {
        attributes.push(KeyValue::new("error.type", class));
    }
    if let Some(trace) = told.traces.x_ray {
        attributes.push(KeyValue::new("trace", trace.to_owned()));
    }
    attributes
}

/// The header with the parent of a span.
struct Traceparent<'a>(&'a str);

impl Extractor for Traceparent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

impl Observer for Traces {
    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        self.told(told);
        ready(Ok(())).left_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        self.told(told);
    }
}

#[cfg(test)]
mod tests;
