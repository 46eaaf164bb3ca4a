//! In every dialect, the status tells when the service would refuse requests, and why.

use std::time::Duration;

use keyway_testkit::MemoryVault;
use keyway_tests::MemorySite;
use serde_json::{Value, json};

async fn minio(site: &MemorySite) -> Value {
    site.send(site.root_request("GET", "/minio/kms/v1/status", b""))
        .await
        .ok()
}

async fn first_generation(site: &MemorySite) -> Value {
    let path = "/minio/admin/v3/kms/status";
    site.call_at(site.root(), "GET", path, "").await.ok()
}

async fn assert_healthy(site: &MemorySite) {
    let status = site.call("GET", "/kms/service-status", "").await.ok();
    assert_eq!(
        (&status["status"], &status["healthy"]),
        (&json!("Running"), &json!(true))
    );
    assert!(status.get("error").is_none() && status.get("degraded").is_none());
    assert_eq!(first_generation(site).await["status"], "connected");
    let status = minio(site).await;
    assert_eq!(status["state"]["KeystoreAvailable"], true);
    assert!(status.get("error").is_none());
    assert_eq!(site.kes("GET", "/v1/ready", "").await.status, 200);
    let status = site.kes("GET", "/v1/status", "").await.json();
    assert!(status.get("keystore_unreachable").is_none() && status.get("error").is_none());
}

async fn assert_degraded(site: &MemorySite, reason: &str, text: &str) {
    let status = site.call("GET", "/kms/service-status", "").await.ok();
    assert_eq!(
        (&status["status"], &status["healthy"]),
        (&json!("Error"), &json!(false))
    );
    assert_eq!(status["backend_status"], "healthy");
    let reasons = status["degraded"].as_array().unwrap();
    assert!(reasons.contains(&json!(reason)), "{status}");
    assert!(status["error"].as_str().unwrap().contains(text), "{status}");
    let status = first_generation(site).await;
    assert_eq!(status["status"], "disconnected");
    assert!(status["error"].as_str().unwrap().contains(text), "{status}");
    let status = minio(site).await;
    assert_eq!(status["state"]["KeyStoreReachable"], true);
    assert_eq!(status["state"]["KeystoreAvailable"], false);
    assert_eq!(status["endpoints"]["http://keyway.test"], "offline");
    assert!(status["error"].as_str().unwrap().contains(text), "{status}");
    assert_eq!(site.kes("GET", "/v1/ready", "").await.status, 504);
    let status = site.kes("GET", "/v1/status", "").await.json();
    assert_eq!(
        (
            &status["keystore_unreachable"],
            &status["keystore_unavailable"]
        ),
        (&json!(true), &json!(true))
    );
    assert!(status["error"].as_str().unwrap().contains(text), "{status}");
}

#[tokio::test]
async fn status_reports_an_audit_log_that_fails_and_its_recovery() {
    for (fail, reason, text) in [
        (
            MemorySite::fail_output as fn(&MemorySite, bool),
            "audit_output",
            "standard output",
        ),
        (MemorySite::fail_table, "audit_table", "to the table"),
    ] {
        let site = MemorySite::running().await;
        site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
            .await
            .ok();
        assert_healthy(&site).await;
        fail(&site, true);
        let refused = site.call("POST", "/kms/keys", r#"{"key_id":"l"}"#).await;
        assert_eq!(refused.status, 503);
        assert_degraded(&site, reason, text).await;
        // A status request tries again, at most once a second.
        fail(&site, false);
        site.clock.advance(Duration::from_secs(1));
        assert_healthy(&site).await;
        site.call("POST", "/kms/keys", r#"{"key_id":"m"}"#)
            .await
            .ok();
    }
}

#[tokio::test]
async fn status_before_the_first_write_reports_an_audit_log_that_fails() {
    let site = MemorySite::running().await;
    site.fail_table(true);
    assert_degraded(&site, "audit_table", "to the table").await;
}

#[tokio::test]
async fn status_reports_a_table_whose_writes_fail() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    site.fail_table(true);
    // The event of this request fails first.
    site.call("POST", "/kms/keys/disable", r#"{"key_id":"k"}"#)
        .await;
    assert_degraded(&site, "table_write", "the last write to the table failed").await;
    site.fail_table(false);
    site.clock.advance(Duration::from_secs(1));
    assert_healthy(&site).await;
}

const READY: [&str; 6] = [
    "/health/ready",
    "/health/cluster",
    "/health/cluster/read",
    "/minio/health/ready",
    "/minio/health/cluster",
    "/minio/health/cluster/read",
];
const LIVE: [&str; 4] = [
    "/health",
    "/health/live",
    "/minio/health",
    "/minio/health/live",
];

/// The answer to an unauthenticated caller.
async fn probed(site: &MemorySite, method: &str, path: &str) -> (u16, String) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("host", "keyway.test")
        .body(bytes::Bytes::new())
        .unwrap();
    let answer = site.send(request).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer.status.as_u16(), body)
}

async fn assert_ready(site: &MemorySite, ready: bool) {
    let (status, word) = if ready {
        (200, "ok")
    } else {
        (503, "unavailable")
    };
    let body = json!({"status": word, "service": "keyway"});
    for path in READY {
        let (found, text) = probed(site, "GET", path).await;
        assert_eq!(found, status, "{path}");
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), body);
        let head = probed(site, "HEAD", path).await;
        assert_eq!(head, (status, String::new()), "{path}");
    }
    for path in LIVE {
        assert_eq!(probed(site, "GET", path).await.0, 200, "{path}");
        assert_eq!(probed(site, "HEAD", path).await, (200, String::new()));
    }
}

#[tokio::test]
async fn readiness_follows_start_and_stop_at_once() {
    let idle = MemorySite::not_configured(false).await;
    assert_ready(&idle, false).await;
    let site = MemorySite::running().await;
    assert_ready(&site, true).await;
    site.call("POST", "/kms/stop", "").await.ok();
    assert_ready(&site, false).await;
    site.call("POST", "/kms/start", "").await.ok();
    assert_ready(&site, true).await;
    for path in ["/health/nothing", "/minio/health/", "/minio/health/ready/x"] {
        let request = http::Request::get(path).header("host", "keyway.test");
        let answer = site.send(request.body(bytes::Bytes::new()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (404, 0));
    }
}

#[tokio::test]
async fn readiness_while_the_audit_log_fails_is_503() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    site.fail_output(true);
    site.call("POST", "/kms/keys", r#"{"key_id":"l"}"#).await;
    assert_ready(&site, false).await;
}

/// A site whose service runs over a Vault.
async fn over_vault() -> MemorySite {
    let site = MemorySite::not_configured(false).await;
    let body = json!({
        "backend_type": "vault", "address": "https://vault.example.com:8200",
        "auth_method": {"token": "s.token"}, "mount_path": "transit", "kv_mount": "secret",
    });
    site.call("POST", "/kms/configure", &body.to_string())
        .await
        .ok();
    site.call("POST", "/kms/start", "{}").await.ok();
    site
}

#[tokio::test]
async fn readiness_while_the_vault_is_away_is_503() {
    let site = over_vault().await;
    assert_ready(&site, true).await;
    for set in [MemoryVault::set_down, MemoryVault::set_refusing] {
        set(site.vault(), true);
        site.clock.advance(Duration::from_secs(2));
        assert_ready(&site, false).await;
        set(site.vault(), false);
        site.clock.advance(Duration::from_secs(2));
        assert_ready(&site, true).await;
    }
}

#[tokio::test]
async fn probes_check_the_backend_once_in_two_seconds() {
    let site = over_vault().await;
    let checked = || site.vault().checks();
    let before = checked();
    for milliseconds in [0, 999, 1000] {
        site.clock.advance(Duration::from_millis(milliseconds));
        assert_ready(&site, true).await;
        assert_eq!(checked(), before + 1, "{milliseconds}");
    }
    site.clock.advance(Duration::from_millis(1));
    assert_ready(&site, true).await;
    assert_eq!(checked(), before + 2);
    // The process sees its own change at once.
    site.call("POST", "/kms/stop", "").await.ok();
    assert_ready(&site, false).await;
}

#[tokio::test]
async fn probes_at_once_share_one_check_of_a_slow_backend() {
    let site = over_vault().await;
    site.vault().set_slow(&site.clock, Duration::from_secs(5));
    for down in [false, true] {
        site.vault().set_down(down);
        let before = site.vault().checks();
        let asked = (0..50).map(|_| probed(&site, "GET", "/health/ready"));
        for (status, _) in futures_util::future::join_all(asked).await {
            assert_eq!(status, if down { 503 } else { 200 });
        }
        assert_eq!(site.vault().checks(), before + 1);
    }
}
