use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, StatusCode};
use keyway_domain::janitor::KeyCounts;
use keyway_domain::ports::{Clock, Consistency, Kind, TableReader};
use keyway_http::{Answered, Class, Observer, Operation, Subject, TraceHeaders};
use keyway_testkit::{FixedClock, FixedMachine, MemoryTable};
use serde_json::Value;

use super::*;

fn metrics() -> Arc<Metrics> {
    Metrics::new(Arc::new(FixedMachine), "1.2.3", "abc").unwrap()
}

async fn request(
    metrics: &Metrics,
    dialect: &'static str,
    operation: &'static str,
    status: u16,
    error: Option<&'static str>,
) {
    request_of(metrics, dialect, operation, status, error, MICROSECONDS).await;
}

/// How long most requests of these tests take.
const MICROSECONDS: u64 = 60;

async fn request_of(
    metrics: &Metrics,
    dialect: &'static str,
    operation: &'static str,
    status: u16,
    error: Option<&'static str>,
    microseconds: u64,
) {
    metrics.began(dialect);
    let told = Answered {
        request_id: "1",
        dialect,
        operation: Operation {
            name: operation,
            class: Class::DataKey,
        },
        method: &Method::POST,
        raw_path: "/x",
        route: None,
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        traces: TraceHeaders::default(),
        status: StatusCode::from_u16(status).unwrap(),
        elapsed: Duration::from_micros(microseconds),
        subject: &Subject::default(),
        error,
    };
    metrics.answered(&told).await.unwrap();
}

/// The series of a text, by name and labels.
fn series(text: &str) -> BTreeMap<&str, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name, value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn requests_are_counted_by_their_outcome() {
    let metrics = metrics();
    for _ in 0..3 {
        request(&metrics, "rustfs", "kms:Decrypt", 200, None).await;
    }
    request(
        &metrics,
        "rustfs",
        "kms:Decrypt",
        403,
        Some("not_permitted"),
    )
    .await;
    request(&metrics, "kes", "kms:Encrypt", 200, None).await;
    metrics.began("kes");
    let text = metrics.text().unwrap();
    let series_of = series(&text);
    for (name, value) in [
        (
            r#"keyway_requests_total{class="success",dialect="rustfs",operation="kms:Decrypt"}"#,
            3.0,
        ),
        (
            r#"keyway_requests_total{class="not_permitted",dialect="rustfs",operation="kms:Decrypt"}"#,
            1.0,
        ),
        (
            r#"keyway_request_duration_seconds_bucket{dialect="rustfs",operation="kms:Decrypt",le="0.00005"}"#,
            0.0,
        ),
        (
            r#"keyway_request_duration_seconds_bucket{dialect="rustfs",operation="kms:Decrypt",le="0.000075"}"#,
            4.0,
        ),
        ("keyway_requests_in_flight", 1.0),
        (r#"keyway_build_info{commit="abc",version="1.2.3"}"#, 1.0),
        ("keyway_up_seconds", 61.0),
    ] {
        assert_eq!(series_of.get(name), Some(&value), "{name}\n{text}");
    }
}

#[tokio::test]
async fn served_counts_all_dialects_and_has_every_bound_from_the_start() {
    let metrics = metrics();
    let bounds = metrics.served().durations;
    assert_eq!(bounds.len(), REQUEST_SECONDS.len());
    assert_eq!(bounds[0], (Duration::from_micros(25), 0));
    assert_eq!(bounds[19], (Duration::from_secs(10), 0));
    for (dialect, status) in [("rustfs", 200), ("kes", 404), ("minio", 503), ("s3", 204)] {
        request(&metrics, dialect, "kms:Decrypt", status, None).await;
    }
    metrics.began("minio");
    metrics.audit(AuditMetrics {
        events: 5,
        ..AuditMetrics::default()
    });
    metrics.error_events(2);
    let served = metrics.served();
    assert_eq!(
        (
            served.succeeded,
            served.refused,
            served.failed,
            served.active
        ),
        (2, 1, 1, 1)
    );
    assert_eq!((served.audit_events, served.error_events), (5, 2));
    assert_eq!(served.durations.len(), REQUEST_SECONDS.len());
    for (bound, count) in served.durations {
        // Each took 60 microseconds.
        let expected = if bound < Duration::from_micros(60) {
            0
        } else {
            4
        };
        assert_eq!(count, expected, "{bound:?}");
    }
}

#[tokio::test]
async fn kes_figures_have_its_names_and_one_series_a_family() {
    let metrics = metrics();
    request(&metrics, "rustfs", "kms:Decrypt", 200, None).await;
    for (status, error) in [
        (200, None),
        (404, Some("not_found")),
        (403, Some("x")),
        (502, Some("y")),
    ] {
        request(&metrics, "kes", "kms:Decrypt", status, error).await;
    }
    metrics.audit(AuditMetrics {
        events: 5,
        ..AuditMetrics::default()
    });
    metrics.error_events(2);
    let text = metrics.text_of_kes().unwrap();
    let series_of = series(&text);
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for name in series_of.keys() {
        let family = name.split('{').next().unwrap();
        *families.entry(family).or_default() += 1;
    }
    for (family, count) in &families {
        let expected = match *family {
            "kes_http_request_error" => 3,
            "kes_http_response_time_bucket" => 11,
            _ => 1,
        };
        let expected = match *family {
            "kes_http_request_failure" => 2,
            _ => expected,
        };
        assert_eq!(*count, expected, "{family}");
    }
    for (name, value) in [
        (r#"kes_http_request_success{code="200"}"#, 1.0),
        (r#"kes_http_request_error{code="404"}"#, 1.0),
        (r#"kes_http_request_error{code="400"}"#, 0.0),
        (r#"kes_http_request_failure{code="502"}"#, 1.0),
        ("kes_http_request_active", 0.0),
        (r#"kes_http_response_time_bucket{le="0.01"}"#, 4.0),
        ("kes_http_response_time_count", 4.0),
        ("kes_log_audit_events", 5.0),
        ("kes_log_error_events", 2.0),
        ("kes_system_up_time", 61.0),
        ("kes_system_num_cpu", 4.0),
        ("kes_system_num_cpu_used", 2.0),
        ("kes_system_num_threads", 3.0),
        ("kes_system_mem_heap_used", f64::from(3 << 20)),
        ("kes_system_mem_heap_objects", 4_321.0),
        ("kes_system_mem_stack_used", f64::from(132 << 10)),
    ] {
        assert_eq!(series_of.get(name), Some(&value), "{name}\n{text}");
    }
    assert!(!text.contains("keyway_"));
}

#[tokio::test]
async fn duration_counts_in_the_buckets_of_each_family() {
    let metrics = metrics();
    // At a bound, between two bounds that only KES has, and above every bound.
    for microseconds in [25, 2_000_000, 11_000_000] {
        let told = request_of(&metrics, "kes", "kms:Decrypt", 200, None, microseconds);
        told.await;
    }
    let (text, of_kes) = (metrics.text().unwrap(), metrics.text_of_kes().unwrap());
    let (ours, of_kes) = (series(&text), series(&of_kes));
    for (le, count) in [("0.000025", 1.0), ("1", 1.0), ("2.5", 2.0), ("10", 2.0)] {
        let name = format!(
            r#"keyway_request_duration_seconds_bucket{{dialect="kes",operation="kms:Decrypt",le="{le}"}}"#
        );
        assert_eq!(ours.get(name.as_str()), Some(&count), "{name}\n{text}");
    }
    for (le, count) in [("0.01", 1.0), ("1.5", 1.0), ("3", 2.0), ("10", 2.0)] {
        let name = format!(r#"kes_http_response_time_bucket{{le="{le}"}}"#);
        assert_eq!(of_kes.get(name.as_str()), Some(&count), "{name}");
    }
    let labels = r#"{dialect="kes",operation="kms:Decrypt"}"#;
    for (name, value) in [("count", 3.0), ("sum", 13.000_025)] {
        let name = format!("keyway_request_duration_seconds_{name}{labels}");
        assert_eq!(ours.get(name.as_str()), Some(&value), "{name}\n{text}");
    }
    assert_eq!(of_kes.get("kes_http_response_time_sum"), Some(&13.000_025));
}

#[tokio::test]
async fn every_kind_of_answers_has_its_own_count() {
    const OPERATIONS: [&str; 4] = ["kms:aa", "kms:bb", "kms:cc", "kms:dd"];
    let metrics = metrics();
    // Names of one length are in one list.
    for (times, operation) in OPERATIONS.into_iter().enumerate() {
        for _ in 0..=times {
            request(&metrics, "rustfs", operation, 200, None).await;
        }
    }
    for _ in 0..2 {
        let text = metrics.text().unwrap();
        for (times, operation) in OPERATIONS.into_iter().enumerate() {
            let name = format!(
                r#"keyway_requests_total{{class="success",dialect="rustfs",operation="{operation}"}}"#
            );
            let expected = (times + 1) as f64;
            assert_eq!(series(&text).get(name.as_str()), Some(&expected), "{text}");
        }
    }
}

#[test]
fn answers_on_several_threads_are_all_counted() {
    let metrics = metrics();
    std::thread::scope(|scope| {
        for dialect in ["kes", "kes", "rustfs", "rustfs"] {
            let metrics = &metrics;
            scope.spawn(move || {
                for _ in 0..1000 {
                    let answer = request(metrics, dialect, "kms:Decrypt", 200, None);
                    answer.now_or_never().unwrap();
                }
                metrics.began(dialect);
            });
        }
    });
    let served = metrics.served();
    assert_eq!((served.succeeded, served.active), (4000, 4));
    let text = metrics.text_of_kes().unwrap();
    let of_kes = series(&text);
    assert_eq!(
        of_kes.get(r#"kes_http_request_success{code="200"}"#),
        Some(&2000.0)
    );
    assert_eq!(of_kes.get("kes_http_request_active"), Some(&2.0));
}

#[tokio::test]
async fn ports_count_their_calls() {
    let metrics = metrics();
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let inner = Arc::new(MemoryTable::new(Arc::clone(&clock)));
    let table = CountedTable::new(inner, TableCalls::new(&metrics, &clock));
    for _ in 0..2 {
        let found = table.get(Kind::Key, "k", Consistency::Strong).await;
        assert!(found.unwrap().is_none());
    }
    metrics.keys(KeyCounts {
        enabled: 7,
        ..KeyCounts::default()
    });
    let text = metrics.text().unwrap();
    let series_of = series(&text);
    for (name, value) in [
        (
            r#"keyway_store_calls_total{operation="get",result="ok"}"#,
            2.0,
        ),
        (r#"keyway_keys{state="enabled"}"#, 7.0),
        (r#"keyway_keys{state="disabled"}"#, 0.0),
    ] {
        assert_eq!(series_of.get(name), Some(&value), "{name}\n{text}");
    }
}

#[tokio::test]
async fn cloudwatch_gets_changes_at_intervals() {
    let metrics = metrics();
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let clock_of = Arc::clone(&clock) as _;
    let emf = Emf::new(
        &metrics,
        &clock_of,
        Export::All,
        "Keyway/north",
        Box::new(|_| {}),
    );
    request(&metrics, "rustfs", "kms:Decrypt", 200, None).await;
    request(&metrics, "kes", "kms:Decrypt", 200, None).await;
    let told = |text: &str| -> Vec<Value> {
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().unwrap()
    };
    let first = told(&emf.due(false).unwrap());
    assert_eq!(first.len(), 2, "{first:?}");
    assert_eq!(first[0]["keyway_requests_total"], 2);
    assert_eq!(first[1]["keyway_answers_total"], 2);
    assert_eq!(first[1]["outcome"], "success");
    let directive = &first[1]["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Namespace"], "Keyway/north");
    assert_eq!(
        first[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"],
        "Keyway/north"
    );
    assert_eq!(directive["Dimensions"], serde_json::json!([["outcome"]]));
    assert_eq!(directive["Metrics"][0]["Name"], "keyway_answers_total");
    assert_eq!(first[0]["_aws"]["Timestamp"], 1_767_323_045_000_u64);
    let took = &first[0]["keyway_request_duration_seconds"];
    assert_eq!(
        took,
        &serde_json::json!({"Values": [0.000_075], "Counts": [2]})
    );
    for directive in first[0]["_aws"]["CloudWatchMetrics"][0]["Metrics"]
        .as_array()
        .unwrap()
    {
        let name = directive["Name"].as_str().unwrap();
        assert!(first[0].get(name).is_some(), "{name}");
    }
    // Too early.
    request(
        &metrics,
        "rustfs",
        "kms:Decrypt",
        403,
        Some("not_permitted"),
    )
    .await;
    assert_eq!(emf.due(false), None);
    clock.advance(Duration::from_secs(60));
    let second = told(&emf.due(false).unwrap());
    assert_eq!(second[0]["keyway_requests_total"], 1);
    assert_eq!(second[1]["outcome"], "refused");
    assert_eq!(second.len(), 2);
}

#[tokio::test]
async fn failures_are_four_metrics_and_need_no_line_while_nothing_fails() {
    let metrics = metrics();
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let clock_of = Arc::clone(&clock) as _;
    let emf = Emf::new(
        &metrics,
        &clock_of,
        Export::Failures,
        "Keyway",
        Box::new(|_| {}),
    );
    request(&metrics, "rustfs", "kms:Decrypt", 200, None).await;
    request(&metrics, "rustfs", "kms:Decrypt", 403, Some("x")).await;
    for result in ["ok", "conflict"] {
        let calls = &metrics.backends.table_calls;
        calls.with_label_values(&["get", result]).inc();
    }
    assert_eq!(emf.due(false), None);

    // Within the second in which it does not look, unless a request failed.
    request(&metrics, "rustfs", "kms:Decrypt", 503, Some("y")).await;
    metrics.audit(AuditMetrics {
        failures: 2,
        ..AuditMetrics::default()
    });
    metrics.refused_records(3);
    let unwraps = &metrics.backends.unwraps;
    unwraps.with_label_values(&["keyring", "refused"]).inc();
    unwraps.with_label_values(&["keyring", "ok"]).inc();
    for calls in [
        &metrics.backends.table_calls,
        &metrics.backends.secret_calls,
    ] {
        calls.with_label_values(&["get", "throttled"]).inc();
    }
    assert_eq!(emf.due(false), None);
    let line: Value = serde_json::from_str(&emf.due(true).unwrap()).unwrap();
    for (name, value) in [
        ("keyway_failed_answers_total", 1),
        ("keyway_store_failures_total", 1),
        ("keyway_secret_store_failures_total", 1),
        ("keyway_refused_records_total", 3),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    let directive = &line["_aws"]["CloudWatchMetrics"][0];
    assert_eq!(directive["Metrics"].as_array().unwrap().len(), 4);
    assert_eq!(directive["Dimensions"], serde_json::json!([[]]));

    // At most once a minute; later failures are in the next line.
    request(&metrics, "rustfs", "kms:Decrypt", 500, Some("z")).await;
    assert_eq!(emf.due(true), None);
    clock.advance(Duration::from_secs(60));
    let line: Value = serde_json::from_str(&emf.due(false).unwrap()).unwrap();
    assert_eq!(line["keyway_failed_answers_total"], 1);
    assert_eq!(line.as_object().unwrap().len(), 2, "{line}");
}
