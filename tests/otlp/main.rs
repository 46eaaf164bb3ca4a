//! The real binary with the feature `otlp`, and a collector of its spans.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod collector;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::StatusCode;
use keyway_tests::{Answer, ServerOptions, Signer};
use opentelemetry_proto::tonic::common::v1::KeyValue as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use tempfile::TempDir;
use tokio::net::TcpListener;

use collector::{Collector, text};

const PREFIX: &str = "/rustfs/admin/v3";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// Longer than any test, so that no batch is sent because of the interval.
const NEVER: &str = "3600000";
const SOON: &str = "20";

fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// A server that sends its spans to this address, this many milliseconds after their ends.
fn sending(endpoint: &str, delay: &str) -> ServerOptions {
    ServerOptions::default()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .variable("OTEL_BSP_SCHEDULE_DELAY", delay)
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}

/// Repeats `ask` until it answers, for up to a minute.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The one span of the request with this answer.
fn span_of<'a>(spans: &'a [(Vec<Attribute>, Span)], answer: &Answer) -> &'a Span {
    let id = answer.headers["x-request-id"].to_str().unwrap();
    let mut found = spans
        .iter()
        .filter(|(_, span)| text(&span.attributes, "request_id").as_deref() == Some(id));
    let (_, span) = found.next().expect("the request has a span");
    assert!(found.next().is_none(), "the request has one span");
    span
}

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window.eq_ignore_ascii_case(needle))
}

#[tokio::test]
async fn request_is_a_span_of_its_callers_trace_without_secrets() {
    let collector = Collector::start().await;
    let folder = folder();
    let server = sending(&collector.endpoint(), SOON)
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
        .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        .variable("KEYWAY_ROOT_SECRET_KEY", "canary-root-secret")
        // At this level the log has no spans.
        .variable("KEYWAY_LOG", "error,keyway::serve=info")
        .start(&data_dir(&folder))
        .await;
    let root = Signer::new("test-root", "canary-root-secret");
    let sign = |method: &str, path: &str, body: &str| {
        let path = format!("{PREFIX}{path}");
        root.request(
            method,
            &server.address,
            &path,
            body.as_bytes(),
            wall_clock(),
        )
    };
    let send = async |request| server.send(request).await.unwrap();

    let created = sign("POST", "/kms/keys", r#"{"key_id":"canary-key"}"#);
    let created = send(created).await;
    created.ok();
    let body = r#"{"key_id":"canary-key","encryption_context":{"canary-name":"canary-value"}}"#;
    let mut generate = sign("POST", "/kms/generate-data-key", body);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = generate.headers_mut();
    headers.insert("traceparent", parent.parse().unwrap());
    headers.insert("x-amzn-trace-id", "Root=1-65958f85-0a".parse().unwrap());
    headers.insert("baggage", "canary-baggage=1".parse().unwrap());
    let generated = send(generate).await;
    let plaintext = generated.text("plaintext_key");
    let blob = generated.text("ciphertext_blob");
    // The context differs from the one of the sealing.
    let body = format!(
        r#"{{"ciphertext_blob":"{blob}","encryption_context":{{"canary-name":"canary-other"}}}}"#
    );
    let refused = send(sign("POST", "/kms/decrypt", &body)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let described = sign("GET", "/kms/describe-key?keyId=canary-key&canary=query", "");
    let described = send(described).await;
    let mut unsigned = sign("GET", "/kms/keys/canary-key", "");
    let headers = unsigned.headers_mut();
    headers.remove("authorization");
    headers.insert("traceparent", "canary-no-trace".parse().unwrap());
    let unsigned = send(unsigned).await;
    assert_eq!(unsigned.status, StatusCode::UNAUTHORIZED);
    let strange = http::Request::builder()
        .method("CANARY")
        .uri("/rustfs/admin/v3/canary/path?canary=1")
        .header("host", &server.address)
        .body(Bytes::new())
        .unwrap();
    let strange = send(strange).await;
    assert_eq!(strange.status, StatusCode::NOT_FOUND);
    let unsampled = {
        let mut request = sign("GET", "/kms/keys", "");
        let parent = format!("00-{TRACE}-{PARENT}-00");
        let headers = request.headers_mut();
        headers.insert("traceparent", parent.parse().unwrap());
        send(request).await
    };
    unsampled.ok();

    let spans = eventually("six spans have come", async || {
        let spans = collector.spans();
        (spans.len() >= 6).then_some(spans)
    })
    .await;
    let (code, _, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(collector.spans().len(), 6, "and no more, at its end");

    let (resource, _) = &spans[0];
    assert_eq!(text(resource, "service.name").as_deref(), Some("keyway"));
    assert_eq!(
        text(resource, "service.version").as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        text(resource, "deployment.environment").as_deref(),
        Some("test")
    );
    let attribute = |span: &Span, key: &str| text(&span.attributes, key).unwrap_or_default();

    let span = span_of(&spans, &generated);
    assert_eq!(span.name, "kms:GenerateDataKey");
    assert_eq!(span.kind, SpanKind::Server as i32);
    assert_eq!(hex::encode(&span.trace_id), TRACE);
    assert_eq!(hex::encode(&span.parent_span_id), PARENT);
    assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    assert_eq!(attribute(span, "dialect"), "rustfs");
    assert_eq!(attribute(span, "operation"), "kms:GenerateDataKey");
    assert_eq!(attribute(span, "http.response.status_code"), "200");
    assert_eq!(attribute(span, "http.request.method"), "POST");
    assert_eq!(attribute(span, "http.route"), "/kms/generate-data-key");
    assert_eq!(attribute(span, "trace"), "Root=1-65958f85-0a");
    assert_eq!(span.attributes.len(), 7, "{span:?}");

    let span = span_of(&spans, &created);
    assert_eq!(span.name, "kms:CreateKey");
    assert!(span.parent_span_id.is_empty());
    assert_ne!(hex::encode(&span.trace_id), TRACE);
    let span = span_of(&spans, &refused);
    assert_eq!(attribute(span, "http.response.status_code"), "400");
    assert!(!attribute(span, "error.type").is_empty());
    let failed = SpanStatus::Error as i32;
    assert!(span.status.as_ref().is_none_or(|is| is.code != failed));
    assert_eq!(span_of(&spans, &described).name, "kms:DescribeKey");
    let span = span_of(&spans, &unsigned);
    assert!(span.parent_span_id.is_empty());
    assert_eq!(attribute(span, "http.route"), "/kms/keys/{key_id}");
    let span = span_of(&spans, &strange);
    assert_eq!(span.name, "none");
    assert_eq!(attribute(span, "http.request.method"), "");

    let raw = STANDARD.decode(&plaintext).unwrap();
    assert_eq!(raw.len(), 32);
    let sealed = STANDARD.decode(&blob).unwrap();
    let secrets: [Vec<u8>; 7] = [
        b"canary".to_vec(),
        raw.clone(),
        hex::encode(&raw).into_bytes(),
        plaintext.into_bytes(),
        URL_SAFE_NO_PAD.encode(&raw).into_bytes(),
        blob.into_bytes(),
        sealed,
    ];
    assert!(!collector.batches().is_empty());
    for batch in collector.batches() {
        assert_eq!(batch.path, "/v1/traces");
        assert_eq!(batch.headers["x-team"], "blue");
        assert_eq!(batch.headers["content-type"], "application/x-protobuf");
        assert!(!batch.headers.contains_key("traceparent"));
        for secret in &secrets {
            assert!(!has(&batch.body, secret), "{:?}", batch.body);
        }
    }
    let bodies: Vec<u8> = collector
        .batches()
        .iter()
        .flat_map(|batch| batch.body.to_vec())
        .collect();
    assert!(has(&bodies, b"kms:generatedatakey"), "it would be found");
}

#[tokio::test]
async fn pending_spans_are_sent_when_the_server_stops() {
    let collector = Collector::start().await;
    let folder = folder();
    let server = sending(&collector.endpoint(), NEVER)
        .variable("OTEL_SERVICE_NAME", "vault-door")
        .start(&data_dir(&folder))
        .await;
    let mut answers = vec![server.call("POST", "/kms/keys", r#"{"key_id":"k"}"#).await];
    for _ in 0..20 {
        answers.push(
            server
                .call("POST", "/kms/generate-data-key", r#"{"key_id":"k"}"#)
                .await,
        );
    }
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(collector.batches().is_empty(), "it is not time yet");
    let (code, log, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(log.contains("keyway has stopped"), "{log}");
    let spans = collector.spans();
    assert_eq!(spans.len(), answers.len());
    for answer in &answers {
        span_of(&spans, answer);
    }
    let (resource, _) = &spans[0];
    assert_eq!(
        text(resource, "service.name").as_deref(),
        Some("vault-door")
    );
}

/// Lines of the log that are warnings or worse, or speak of traces.
fn lines(log: &str) -> Vec<String> {
    log.lines()
        .filter(|line| {
            ["WARN", "ERROR", "traces"]
                .iter()
                .any(|word| line.contains(word))
        })
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn collector_missing_is_reported_once_and_changes_nothing_else() {
    // The address of a listener that has just closed.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let folder = folder();
    let server = sending(&endpoint, SOON).start(&data_dir(&folder)).await;
    server
        .call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    eventually("the log says so", async || {
        let body = r#"{"key_id":"k"}"#;
        server
            .call("POST", "/kms/generate-data-key", body)
            .await
            .ok();
        (!lines(&server.log()).is_empty()).then_some(())
    })
    .await;
    for _ in 0..50 {
        let body = r#"{"key_id":"k"}"#;
        server
            .call("POST", "/kms/generate-data-key", body)
            .await
            .ok();
    }
    let (code, log, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines = lines(&log);
    assert!(
        matches!(&lines[..], [line] if line.contains("traces do not reach the collector")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn collector_refusing_and_its_recovery_are_reported_once() {
    let collector = Collector::start().await;
    // The exporter does not retry this status, so each batch is one request.
    collector.answer(StatusCode::BAD_REQUEST);
    let folder = folder();
    let server = sending(&collector.endpoint(), SOON)
        .start(&data_dir(&folder))
        .await;
    let until = async |what: &str, came: &dyn Fn() -> bool| {
        eventually(what, async || {
            server.call("POST", "/kms/keys", "{}").await.ok();
            came().then_some(())
        })
        .await;
    };
    until("ten batches are refused", &|| {
        collector.batches().len() >= 10
    })
    .await;
    collector.answer(StatusCode::OK);
    until("it is back", &|| server.log().contains("again")).await;
    collector.answer(StatusCode::BAD_REQUEST);
    let so_far = collector.batches().len();
    until("ten more are refused", &|| {
        collector.batches().len() >= so_far + 10
    })
    .await;
    let (code, log, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines = lines(&log);
    assert!(
        matches!(&lines[..], [away, back]
            if away.contains("traces do not reach the collector") && away.contains("400")
                && back.contains("traces reach the collector again")),
        "{lines:?}"
    );
}

#[tokio::test]
async fn collector_silent_delays_no_request_and_no_stop() {
    // It accepts connections and does not answer.
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", deaf.local_addr().unwrap());
    let folder = folder();
    let server = sending(&endpoint, SOON)
        // Many more spans than the queue holds.
        .variable("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .variable("OTEL_EXPORTER_OTLP_TIMEOUT", NEVER)
        .start(&data_dir(&folder))
        .await;
    server.call("POST", "/kms/keys", "{}").await.ok();
    let connection = deaf.accept().await.unwrap();
    for _ in 0..50 {
        server.call("POST", "/kms/keys", "{}").await.ok();
    }
    let (code, log, stderr) = server.stop().await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(log.contains("keyway has stopped"), "{log}");
    drop(connection);
}

#[tokio::test]
async fn spans_over_tls_go_to_trusted_collectors_only() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![cert.der().clone()],
            signing_key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let collector = Collector::over(Some(config)).await;
    let endpoint = format!("https://localhost:{}", collector.port);
    let folder = folder();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, cert.pem()).unwrap();

    let options = sending(&endpoint, NEVER);
    let wary = options.start(&data_dir(&folder)).await;
    wary.call("POST", "/kms/keys", "{}").await.ok();
    let (_, log, _) = wary.stop().await;
    assert!(log.contains("traces do not reach the collector"), "{log}");
    assert!(collector.batches().is_empty());

    let trusting = options.variable("SSL_CERT_FILE", authority.to_str().unwrap());
    let trusting = trusting.start(&data_dir(&folder)).await;
    trusting.call("POST", "/kms/keys", "{}").await.ok();
    let (_, log, _) = trusting.stop().await;
    assert_eq!(collector.spans().len(), 1, "{log}");
}

#[tokio::test]
async fn export_can_be_turned_off_and_a_bad_address_stops_the_start() {
    let collector = Collector::start().await;
    let folder = folder();
    let server = sending(&collector.endpoint(), SOON)
        .variable("OTEL_SDK_DISABLED", "true")
        .start(&data_dir(&folder))
        .await;
    server.call("POST", "/kms/keys", "{}").await.ok();
    let (code, log, _) = server.stop().await;
    assert_eq!((code, lines(&log)), (Some(0), Vec::new()));
    assert!(collector.batches().is_empty());

    let sampled = sending(&collector.endpoint(), SOON)
        .variable("OTEL_TRACES_SAMPLER", "always_off")
        .start(&data_dir(&folder))
        .await;
    sampled.call("POST", "/kms/keys", "{}").await.ok();
    sampled.stop().await;
    assert!(collector.batches().is_empty());

    let options = sending("not an address", SOON);
    let (code, stderr) = options.fail(&data_dir(&folder)).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{stderr}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
