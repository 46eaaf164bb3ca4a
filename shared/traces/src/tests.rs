use std::net::{IpAddr, Ipv4Addr};
use std::sync::{LazyLock, Mutex, PoisonError};

use http::{Method, StatusCode};
use jiff::Timestamp;
use keyway_http::{Class, Operation, Subject, TraceHeaders};
use keyway_testkit::FixedClock;
use opentelemetry::{SpanId, TraceId};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SpanData};

use super::*;

/// Keeps what it is given.
#[derive(Debug, Clone, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl opentelemetry_sdk::trace::SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(batch);
        Ok(())
    }
}

static SUBJECT: LazyLock<Subject> = LazyLock::new(|| Subject {
    principal: Some("canary".into()),
    key_id: Some("canary".to_owned()),
    resource: Some("canary".to_owned()),
    ..Subject::default()
});

/// The one span of a request, if it makes one.
fn span<'a>(change: impl FnOnce(&mut Answered<'a>)) -> Option<SpanData> {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(kept.clone())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
        .build();
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let traces = Traces::of(provider, Arc::new(FixedClock::new(now)));
    let mut told = Answered {
        request_id: "7",
        dialect: "rustfs",
        operation: Operation {
            name: "kms:GenerateDataKey",
            class: Class::DataKey,
        },
        method: &Method::POST,
        raw_path: "/canary",
        route: Some("/kms/generate-data-key"),
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        traces: TraceHeaders::default(),
        status: StatusCode::OK,
        elapsed: Duration::from_millis(1500),
        subject: &SUBJECT,
        error: None,
    };
    change(&mut told);
    traces.told(&told);
    let spans = kept.0.lock().unwrap();
    assert!(spans.len() <= 1, "{spans:?}");
    spans.first().cloned()
}

fn texts(span: &SpanData) -> Vec<String> {
    let attributes = span.attributes.iter();
    attributes
        .map(|attribute| format!("{}={}", attribute.key, attribute.value))
        .collect()
}

#[test]
fn span_has_the_documented_attributes_only() {
    let span = span(|_| {}).unwrap();
    assert_eq!(span.name, "kms:GenerateDataKey");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.status, Status::Unset);
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    assert_eq!(
        span.end_time.duration_since(span.start_time).unwrap(),
        Duration::from_millis(1500)
    );
    assert_eq!(
        texts(&span),
        [
            "request_id=7",
            "dialect=rustfs",
            "operation=kms:GenerateDataKey",
            "http.response.status_code=200",
            "http.route=/kms/generate-data-key",
            "http.request.method=POST",
        ]
    );
    assert!(!format!("{span:?}").contains("canary"));
}

#[test]
fn failure_is_an_error_and_a_refusal_is_not() {
    let failed = span(|told| {
        told.status = StatusCode::SERVICE_UNAVAILABLE;
        told.error = Some("unrecorded");
    });
    let failed = failed.unwrap();
    assert_eq!(failed.status, Status::error("unrecorded"));
    assert!(texts(&failed).contains(&"error.type=unrecorded".to_owned()));
    let refused = span(|told| {
        told.status = StatusCode::FORBIDDEN;
        told.error = Some("not_permitted");
    });
    let refused = refused.unwrap();
    assert_eq!(refused.status, Status::Unset);
    assert!(texts(&refused).contains(&"error.type=not_permitted".to_owned()));
}

#[test]
fn method_of_no_route_is_not_repeated() {
    let method = Method::from_bytes(b"CANARY").unwrap();
    let strange = span(|told| {
        told.route = None;
        told.method = &method;
        told.status = StatusCode::NOT_FOUND;
    });
    assert!(!format!("{:?}", strange.unwrap()).contains("CANARY"));
}

#[test]
fn trace_of_the_caller_is_continued() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let of = |header: &str| {
        span(|told| {
            told.traces.w3c = Some(header);
            told.traces.x_ray = Some("Root=1-2");
        })
    };
    let child = of(&format!("00-{TRACE}-00f067aa0ba902b7-01")).unwrap();
    assert_eq!(child.span_context.trace_id().to_string(), TRACE);
    assert_eq!(child.parent_span_id.to_string(), "00f067aa0ba902b7");
    assert!(texts(&child).contains(&"trace=Root=1-2".to_owned()));
    // The caller does not record this trace, so a span's parent would be missing.
    assert!(of(&format!("00-{TRACE}-00f067aa0ba902b7-00")).is_none());
    for broken in ["", "00-x-y-01", &format!("00-{TRACE}-0000000000000000-01")] {
        let alone = of(broken).unwrap();
        assert_eq!(alone.parent_span_id, SpanId::INVALID, "{broken}");
        assert_ne!(alone.span_context.trace_id(), TraceId::INVALID);
        assert_ne!(alone.span_context.trace_id().to_string(), TRACE);
    }
}
