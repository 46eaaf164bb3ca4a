//! Metrics of a running server.

use std::collections::BTreeMap;

use http::Request;
use keyway_tests::{Answer, Server, ServerOptions};

use crate::clients::{REPOSITORY, debian_tool};
use crate::{create, data_dir, decrypt, eventually, folder, generate, kes};

async fn page(server: &Server) -> Answer {
    let request = Request::get("/metrics").body(bytes::Bytes::new()).unwrap();
    server.send(request).await.unwrap()
}

/// The series of a text, by name and labels.
fn series(answer: &Answer) -> BTreeMap<String, f64> {
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn metrics_count_requests_and_name_no_caller() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = kes::options().start(&data_dir).await;
    create(&server, "a-very-own-name").await;
    let blob = generate(&server, "a-very-own-name")
        .await
        .text("ciphertext_blob");
    for _ in 0..3 {
        decrypt(&server, &blob).await.ok();
    }
    let refused = server.call("GET", "/kms/keys/absent", "").await;
    assert_eq!(refused.status, 404);
    let metrics = page(&server).await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let all = series(&metrics);
    for (name, value) in [
        (
            r#"keyway_requests_total{class="success",dialect="rustfs",operation="kms:Decrypt"}"#,
            3.0,
        ),
        (
            r#"keyway_requests_total{class="success",dialect="rustfs",operation="kms:CreateKey"}"#,
            1.0,
        ),
        (
            r#"keyway_request_duration_seconds_count{dialect="rustfs",operation="kms:Decrypt"}"#,
            3.0,
        ),
        ("keyway_requests_in_flight", 1.0),
    ] {
        assert_eq!(all.get(name), Some(&value), "{name}\n{text}");
    }
    assert!(all["keyway_key_cache_hits_total"] >= 2.0, "{text}");
    assert!(all["keyway_key_cache_entries"] >= 1.0, "{text}");
    assert!(
        all.iter()
            .any(|(name, value)| name.starts_with("keyway_wraps_total{") && *value >= 1.0),
        "{text}"
    );
    assert!(
        all.iter().any(|(name, value)| {
            name.starts_with(r#"keyway_store_calls_total{operation="put_new",result="ok"#)
                && *value >= 1.0
        }),
        "{text}"
    );
    assert!(
        all.keys()
            .any(|name| name.starts_with("keyway_requests_total{class=\"key_not_found\"")),
        "{text}"
    );
    for secret in ["a-very-own-name", "test-root", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret}");
    }
    // MinIO's API has the page's figures as numbers.
    let by_number = server.signed("GET", "/minio/kms/v1/metrics", "");
    let by_number = server.send(by_number).await.unwrap().ok();
    let outcome = |outcome| all[&format!(r#"keyway_answers_total{{outcome="{outcome}"}}"#)];
    for (names, value) in [
        // The request for the page counts too.
        (
            ["kes_http_request_success", "kms_req_success"],
            outcome("success") + 1.0,
        ),
        (
            ["kes_http_request_error", "kms_req_error"],
            outcome("refused"),
        ),
    ] {
        for name in names {
            assert_eq!(by_number[name].as_f64(), Some(value), "{by_number}\n{text}");
        }
    }
    assert_eq!(by_number["kes_http_request_active"], 1, "{by_number}");
    let within_ten_seconds = by_number["kes_http_response_time"]["10000000000"].as_f64();
    let answered = outcome("success") + outcome("refused") + 1.0;
    assert_eq!(within_ten_seconds, Some(answered), "{by_number}");
    assert_eq!(
        by_number["kms_resp_time"],
        by_number["kes_http_response_time"]
    );
    for name in [
        "kes_log_audit_events",
        "kes_system_up_time",
        "kes_system_num_cpu",
    ] {
        assert!(by_number[name].as_u64() > Some(0), "{name}: {by_number}");
    }
    // KES's metrics have KES's names, and there are no others.
    let admin = kes::admin(&server, &data_dir);
    admin.call("POST", "/v1/key/create/another", None).await;
    admin.call("POST", "/v1/key/create/another", None).await;
    let of_kes = series(&admin.call("GET", "/v1/metrics", None).await);
    assert!(of_kes.keys().all(|name| name.starts_with("kes_")));
    assert_eq!(of_kes[r#"kes_http_request_success{code="200"}"#], 1.0);
    assert_eq!(of_kes[r#"kes_http_request_error{code="400"}"#], 1.0);
    assert_eq!(of_kes["kes_http_request_active"], 1.0);
    for name in [
        "kes_system_num_cpu",
        "kes_system_num_threads",
        "kes_system_mem_heap_used",
        "kes_system_mem_heap_objects",
        "kes_system_mem_stack_used",
        "kes_system_up_time",
    ] {
        assert!(of_kes[name] > 0.0, "{name}");
    }
    // The first sweep of a start counts keys by state.
    server.stop().await;
    let server = kes::options().start(&data_dir).await;
    eventually("keys are counted", async || {
        let all = series(&page(&server).await);
        (all.get(r#"keyway_keys{state="enabled"}"#) == Some(&2.0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn unauthenticated_requests_add_no_series() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    for number in 0..50 {
        for path in [
            format!("/rustfs/admin/v3/kms/keys/{number}"),
            format!("/{number}/{number}"),
            format!("/rustfs/admin/v3/kms/{number}"),
        ] {
            let request = Request::get(path).body(bytes::Bytes::new()).unwrap();
            server.send(request).await.unwrap();
        }
    }
    let requests = series(&page(&server).await);
    let requests = requests
        .keys()
        .filter(|name| name.starts_with("keyway_requests_total"));
    assert!(requests.count() <= 6);
}

#[tokio::test]
async fn metrics_page_can_be_turned_off() {
    let folder = folder();
    let server = ServerOptions::default()
        .variable("KEYWAY_METRICS", "off")
        .start(folder.path())
        .await;
    assert_ne!(page(&server).await.status, 200);
}

/// The names of the families in a query.
fn families(query: &str) -> Vec<String> {
    query
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with("keyway_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect()
}

#[tokio::test]
async fn dashboard_and_alerts_use_existing_metrics() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    generate(&server, "k").await.ok();
    let text = eventually("keys are counted", async || {
        let answer = page(&server).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        text.contains("keyway_keys{").then_some(text)
    })
    .await;
    let there: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    let read = |name: &str| std::fs::read_to_string(format!("{REPOSITORY}/docs/{name}")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/keyway.json")).unwrap();
    let mut asked = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap() {
            let of_target = families(target["expr"].as_str().unwrap());
            assert!(!of_target.is_empty(), "{target}");
            asked.extend(of_target);
        }
    }
    let shown = asked.clone();
    for file in ["prometheus/alerts.yaml", "prometheus/alerts.test.yaml"] {
        asked.extend(families(&read(file)));
    }
    for family in asked {
        assert!(there.contains(&family.as_str()), "there is no {family}");
    }
    for family in there {
        assert!(
            shown.iter().any(|name| name == family),
            "{family} is not on the dashboard"
        );
    }
}

#[tokio::test]
async fn alerts_are_valid_for_prometheus_and_fire_as_documented() {
    let Some(promtool) = debian_tool("promtool", "prometheus") else {
        return;
    };
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts.test.yaml"],
    ] {
        let output = std::process::Command::new(&promtool)
            .args(arguments)
            .current_dir(format!("{REPOSITORY}/docs/prometheus"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }
    // Prometheus's own checker reads the page.
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = kes::options().start(&data_dir).await;
    create(&server, "k").await;
    let of_kes = kes::admin(&server, &data_dir)
        .call("GET", "/v1/metrics", None)
        .await;
    for (text, what) in [(page(&server).await.body, "ours"), (of_kes.body, "KES's")] {
        let file = folder.path().join("metrics");
        std::fs::write(&file, &text).unwrap();
        let output = std::process::Command::new(&promtool)
            .args(["check", "metrics"])
            .stdin(std::fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // The checker reports KES's names: its counters have no `_total`.
        if what == "ours" {
            assert!(output.status.success(), "{said}");
        } else {
            assert_ne!(output.status.code(), Some(1), "{said}");
        }
    }
}
