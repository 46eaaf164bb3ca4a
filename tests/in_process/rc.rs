//! Answers as `rc`, RustFS's command line, decodes them. One structure reads all keys, and several of its fields have a
//! second name. `rc` refuses an object with both names of a field as a duplicate.

use std::collections::BTreeMap;

use keyway_tests::{Answer, MemorySite};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Key {
    key_id: String,
    #[serde(alias = "key_state", alias = "status")]
    state: String,
    #[serde(alias = "key_usage")]
    usage: String,
    description: Option<String>,
    algorithm: Option<String>,
    version: Option<u32>,
    #[serde(alias = "creation_date")]
    created_at: String,
    deletion_date: Option<String>,
    rotated_at: Option<String>,
    #[serde(alias = "key_manager")]
    manager: Option<String>,
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Keys {
    success: bool,
    message: String,
    keys: Vec<Key>,
    truncated: bool,
    next_marker: Option<String>,
}

/// The answer to a creation, description, deletion and every other change.
#[derive(Deserialize)]
struct OneKey {
    success: bool,
    message: String,
    key_id: Option<String>,
    deletion_date: Option<String>,
    key_metadata: Option<Key>,
}

#[derive(Deserialize)]
struct Lifecycle {
    success: bool,
    message: String,
    status: String,
}

#[derive(Deserialize)]
struct Status {
    status: String,
    backend_type: Option<String>,
    healthy: Option<bool>,
    config_summary: Option<Summary>,
}

#[derive(Deserialize)]
struct Summary {
    backend_type: String,
    default_key_id: Option<String>,
    timeout_seconds: Option<u64>,
    retry_attempts: Option<u32>,
    enable_cache: bool,
    max_cached_keys: Option<u64>,
    cache_ttl_seconds: Option<u64>,
    cache_summary: Option<CacheSummary>,
    backend_summary: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct CacheSummary {
    max_keys: Option<u64>,
    ttl_seconds: Option<u64>,
    enable_metrics: Option<bool>,
}

/// Decodes the text of the answer: a JSON value would have lost repeated fields.
fn decoded<T: DeserializeOwned>(answer: &Answer) -> T {
    let text = String::from_utf8(answer.body.to_vec()).unwrap();
    assert!(answer.status.is_success(), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn rc_decodes_every_answer_about_keys() {
    let site = MemorySite::running_with(Some("default"), true).await;
    let create = r#"{"description":"d","tags":{"name":"app-1","env":"prod"}}"#;
    for (method, path, body) in [
        ("POST", "/kms/keys", create),
        ("POST", "/kms/create-key?keyName=app-2", ""),
        ("GET", "/kms/keys/app-1", ""),
        ("GET", "/kms/keys/app-1?impact=true", ""),
        ("GET", "/kms/describe-key?keyId=app-1", ""),
        ("POST", "/kms/keys/disable", r#"{"key_id":"app-1"}"#),
        ("POST", "/kms/keys/enable", r#"{"key_id":"app-1"}"#),
        ("POST", "/kms/keys/rotate", r#"{"key_id":"app-1"}"#),
        (
            "POST",
            "/kms/keys/update-description",
            r#"{"key_id":"app-1","description":"e"}"#,
        ),
        (
            "POST",
            "/kms/keys/tag",
            r#"{"key_id":"app-1","tags":{"a":"b"}}"#,
        ),
        (
            "POST",
            "/kms/keys/untag",
            r#"{"key_id":"app-1","tag_keys":["a"]}"#,
        ),
        ("DELETE", "/kms/keys/delete", r#"{"key_id":"app-1"}"#),
        ("POST", "/kms/keys/cancel-deletion", r#"{"key_id":"app-1"}"#),
    ] {
        let one: OneKey = decoded(&site.call(method, path, body).await);
        assert!(one.success && !one.message.is_empty());
        let key = one.key_metadata.unwrap();
        assert!(one.key_id.is_none_or(|id| id == key.key_id), "{path}");
        assert_eq!(one.deletion_date.is_some(), method == "DELETE");
        assert_eq!(key.deletion_date.is_some(), method == "DELETE");
        assert_eq!(key.usage, "ENCRYPT_DECRYPT");
        assert!(key.created_at.ends_with('Z'));
        assert!(key.manager.is_none());
    }
    site.call("POST", "/kms/keys/disable?keyId=app-2", "")
        .await
        .ok();
    site.call("POST", "/kms/keys", r#"{"key_id":"gone"}"#)
        .await
        .ok();
    site.call("DELETE", "/kms/keys/delete?keyId=gone", "")
        .await
        .ok();
    for path in [
        "/kms/keys?limit=25",
        "/kms/keys?limit=100",
        "/kms/list-keys",
    ] {
        let page: Keys = decoded(&site.call("GET", path, "").await);
        assert!(page.success && !page.message.is_empty());
        assert!(!page.truncated && page.next_marker.is_none());
        let [first, second, gone] = &page.keys[..] else {
            panic!("{path}: there are three keys");
        };
        assert_eq!((&*first.key_id, &*first.state), ("app-1", "Active"));
        assert_eq!(first.description.as_deref(), Some("e"));
        assert_eq!(first.algorithm.as_deref(), Some("AES_256"));
        assert_eq!(first.version, Some(2));
        assert!(first.rotated_at.is_some() && first.deletion_date.is_none());
        assert_eq!(first.tags["env"], "prod");
        assert_eq!((&*second.key_id, &*second.state), ("app-2", "Disabled"));
        assert!(second.rotated_at.is_none());
        assert_eq!((&*gone.key_id, &*gone.state), ("gone", "PendingDeletion"));
        assert!(gone.deletion_date.is_some());
    }
    let body = r#"{"key_id":"app-2","force_immediate":true,"confirm_key_id":"app-2"}"#;
    let deleted: OneKey = decoded(&site.call("DELETE", "/kms/keys/delete", body).await);
    assert!(deleted.key_metadata.is_none());
}

#[tokio::test]
async fn rc_decodes_every_answer_about_the_service() {
    let site = MemorySite::not_configured(false).await;
    let status: Status = decoded(&site.call("GET", "/kms/service-status", "").await);
    assert_eq!(status.status, "NotConfigured");
    let configure = r#"{"backend_type":"local","default_key_id":"default"}"#;
    for (path, body, expected) in [
        ("/kms/configure", configure, "Configured"),
        ("/kms/start", "{}", "Running"),
        ("/kms/reconfigure", r#"{"timeout_seconds":20}"#, "Running"),
        ("/kms/stop", "{}", "Configured"),
        ("/kms/start", r#"{"force":true}"#, "Running"),
    ] {
        let done: Lifecycle = decoded(&site.call("POST", path, body).await);
        assert!(done.success && !done.message.is_empty());
        assert_eq!(done.status, expected, "{path}");
    }
    for path in ["/kms/service-status", "/kms/status"] {
        let status: Status = decoded(&site.call("GET", path, "").await);
        assert_eq!(status.status, "Running");
        assert_eq!(status.healthy, Some(true));
        let summary = status.config_summary.unwrap();
        assert_eq!(status.backend_type.as_deref(), Some(&*summary.backend_type));
        assert_eq!(summary.default_key_id.as_deref(), Some("default"));
        assert_eq!(summary.timeout_seconds, Some(20));
        assert!(summary.retry_attempts.is_some() && summary.enable_cache);
        let cache = summary.cache_summary.unwrap();
        assert_eq!(cache.max_keys, summary.max_cached_keys);
        assert_eq!(cache.ttl_seconds, summary.cache_ttl_seconds);
        assert_eq!(cache.enable_metrics, Some(true));
        assert!(summary.backend_summary.contains_key("has_master_key"));
    }
}
