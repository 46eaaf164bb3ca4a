//! The service's own routes: golden answers and refusals.

use keyway_domain::ports::Kind;
use keyway_tests::{Answer, MemorySite};
use serde_json::{Value, json};

use crate::golden::shown;

const TOKEN: &str = "hvs.CANARY-4f1d";

fn vault() -> Value {
    json!({
        "backend_type": "vault",
        "address": "https://vault.example.com:8200",
        "auth_method": {"token": TOKEN},
        "mount_path": "transit",
        "kv_mount": "secret",
        "key_path_prefix": "rustfs/kms/keys",
        "default_key_id": "rustfs-master",
        "enable_cache": true,
        "cache_ttl_seconds": 600,
        "timeout_seconds": 30,
        "retry_attempts": 3
    })
}

async fn post(site: &MemorySite, path: &str, body: &Value) -> Answer {
    site.call("POST", path, &body.to_string()).await
}

macro_rules! golden {
    ($name:expr, $answer:expr) => {
        insta::assert_snapshot!($name, shown(&$answer))
    };
}

#[tokio::test]
async fn service_is_configured_started_and_stopped() {
    let site = MemorySite::not_configured(false).await;
    let get = async |path: &str| site.call("GET", path, "").await;
    golden!("service_status_of_nothing", get("/kms/status").await);
    golden!("service_config_of_nothing", get("/kms/config").await);
    golden!(
        "service_start_of_nothing",
        post(&site, "/kms/start", &json!({})).await
    );
    golden!(
        "service_stop_of_nothing",
        post(&site, "/kms/stop", &json!({})).await
    );
    golden!(
        "service_configure",
        post(&site, "/kms/configure", &vault()).await
    );
    golden!("service_status_configured", get("/kms/status").await);
    golden!("service_start", post(&site, "/kms/start", &json!({})).await);
    golden!(
        "service_start_again",
        site.call("POST", "/kms/start", "").await
    );
    golden!(
        "service_start_by_force",
        post(&site, "/kms/start", &json!({"force": true})).await
    );
    golden!(
        "service_configure_while_running",
        post(&site, "/kms/configure", &vault()).await
    );
    golden!("service_status_running", get("/kms/service-status").await);
    golden!("service_config", get("/kms/config").await);
    golden!(
        "service_reconfigure",
        post(
            &site,
            "/kms/reconfigure",
            &json!({"cache_ttl_seconds": 60, "auth_method": {"Token": {"token": ""}}})
        )
        .await
    );
    golden!(
        "service_clear_cache",
        site.call("POST", "/kms/clear-cache", "{}").await
    );
    site.vault().set_down(true);
    golden!(
        "service_status_of_a_vault_that_is_down",
        get("/kms/status").await
    );
    site.vault().set_down(false);
    golden!("service_stop", post(&site, "/kms/stop", &json!({})).await);
    golden!(
        "service_configure_local",
        post(
            &site,
            "/kms/configure",
            &json!({
                "backend_type": "Local", "key_dir": "/var/lib/keys", "file_permissions": 384,
                "allow_insecure_dev_defaults": true, "enable_cache": false,
                "max_cached_keys": 7, "cache_ttl_seconds": 3600
            })
        )
        .await
    );
    golden!("service_status_local", get("/kms/status").await);
}

#[tokio::test]
async fn first_generation_configures_and_starts_in_its_own_shapes() {
    let site = MemorySite::not_configured(false).await;
    let alias = async |path: &str| {
        let path = format!("/minio/admin/v3{path}");
        site.send(site.root_request("GET", &path, b"")).await
    };
    assert_eq!(alias("/kms/status").await.text("status"), "not_configured");
    let first = json!({
        "kms_type": "vault",
        "vault_address": "https://vault.example.com:8200",
        "vault_token": TOKEN,
        "vault_namespace": "admin",
        "vault_mount_path": "transit"
    });
    golden!(
        "first_configure",
        post(&site, "/kms/configure", &first).await
    );
    let created = site
        .call("POST", "/kms/key/create?keyName=my-key", "")
        .await;
    golden!("first_create", created);
    golden!(
        "first_create_again",
        site.call("POST", "/kms/key/create?keyName=my-key", "")
            .await
    );
    golden!(
        "first_list",
        site.call("GET", "/kms/key/list?pattern=my*", "").await
    );
    let none = site.call("GET", "/kms/key/list?pattern=my-?", "").await;
    assert_eq!(none.ok()["keys"], json!([]));
    golden!(
        "first_key_status",
        site.call("GET", "/kms/key/status?keyName=my-key", "").await
    );
    golden!(
        "first_key_status_of_nothing",
        site.call("GET", "/kms/key/status?keyName=no", "").await
    );
    golden!(
        "first_disable",
        site.call("POST", "/kms/key/disable?keyName=my-key", "")
            .await
    );
    golden!(
        "first_enable",
        site.call("PUT", "/kms/key/enable?keyName=my-key", "").await
    );
    golden!("first_status", alias("/kms/status").await);
    site.vault().set_down(true);
    assert_eq!(alias("/kms/status").await.text("status"), "disconnected");
    site.vault().set_down(false);
    site.call("POST", "/kms/stop", "").await.ok();
    assert_eq!(alias("/kms/status").await.text("status"), "stopped");
}

/// Sends each change of Vault's settings: it is refused with the field's name, changes nothing, and reaches no Vault.
async fn assert_refused_by_name(changes: &[(&str, Value)]) {
    let site = MemorySite::running().await;
    let before = site.records(Kind::Config).await;
    for (field, change) in changes {
        let mut settings = vault();
        for (name, value) in change.as_object().unwrap() {
            settings[name] = value.clone();
        }
        let answer = post(&site, "/kms/reconfigure", &settings).await;
        assert_eq!(
            answer.refusal(),
            (400, "InvalidRequest".to_owned()),
            "{change}"
        );
        let message = answer.message();
        assert!(
            message.contains(&format!("`{field}")),
            "{change}: {message}"
        );
        assert!(!message.contains("CANARY"), "{change}: {message}");
    }
    assert_eq!(site.records(Kind::Config).await, before);
    assert_eq!(site.vault().checks(), 0);
}

/// Such addresses would have Keyway send requests to others than Vault.
#[tokio::test]
async fn address_that_may_not_be_vaults_is_refused() {
    let long = "a".repeat(5000);
    assert_refused_by_name(&[
        (
            "address",
            json!({"address": "http://vault.example.com:8200"}),
        ),
        ("address", json!({"address": "http://169.254.169.254"})),
        (
            "address",
            json!({"address": "https://169.254.169.254/latest/meta-data"}),
        ),
        ("address", json!({"address": "https://[fe80::1]:8200"})),
        (
            "address",
            json!({"address": "https://[::ffff:169.254.169.254]"}),
        ),
        ("address", json!({"address": "https://[fd00:ec2::254]"})),
        ("address", json!({"address": "https://2852039166"})),
        ("address", json!({"address": "https://0.0.0.0"})),
        (
            "address",
            json!({"address": "https://user:password@vault.example.com"}),
        ),
        (
            "address",
            json!({"address": "https://vault.example.com@127.0.0.1"}),
        ),
        (
            "address",
            json!({"address": "https://vault.example.com/?a=b"}),
        ),
        (
            "address",
            json!({"address": "https://vault.example.com/#a"}),
        ),
        ("address", json!({"address": "file:///etc/passwd"})),
        ("address", json!({"address": "gopher://127.0.0.1:25"})),
        ("address", json!({"address": "unix:/run/docker.sock"})),
        ("address", json!({"address": "vault.example.com:8200"})),
        ("address", json!({"address": ""})),
        ("address", json!({"address": null})),
        ("address", json!({"address": 1})),
        (
            "address",
            json!({"address": "https://vault.example.com\r\nHost: other"}),
        ),
        ("address", json!({"address": format!("https://{long}")})),
    ])
    .await;
}

#[tokio::test]
async fn number_out_of_range_is_refused() {
    assert_refused_by_name(&[
        ("cache_ttl_seconds", json!({"cache_ttl_seconds": 0})),
        (
            "cache_ttl_seconds",
            json!({"cache_ttl_seconds": 31_536_000_u64}),
        ),
        ("cache_ttl_seconds", json!({"cache_ttl_seconds": -1})),
        ("cache_ttl_seconds", json!({"cache_ttl_seconds": 1.5})),
        ("cache_ttl_seconds", json!({"cache_ttl_seconds": "600"})),
        ("timeout_seconds", json!({"timeout_seconds": 0})),
        ("timeout_seconds", json!({"timeout_seconds": u64::MAX})),
        ("retry_attempts", json!({"retry_attempts": 1000})),
        ("max_cached_keys", json!({"max_cached_keys": 0})),
        ("enable_cache", json!({"enable_cache": "yes"})),
    ])
    .await;
}

#[tokio::test]
async fn path_with_other_segments_is_refused() {
    assert_refused_by_name(&[
        ("mount_path", json!({"mount_path": "../sys"})),
        ("mount_path", json!({"mount_path": ""})),
        ("kv_mount", json!({"kv_mount": "a//b"})),
        (
            "key_path_prefix",
            json!({"key_path_prefix": "keys/../../sys"}),
        ),
        (
            "key_path_prefix",
            json!({"key_path_prefix": "keys?list=true"}),
        ),
        ("namespace", json!({"namespace": "a\r\nX-Vault-Token: b"})),
        ("key_directory", json!({"key_directory": "keys"})),
        ("key_directory", json!({"key_directory": "./keys"})),
        (
            "key_directory",
            json!({"key_directory": "/var/lib/../../etc"}),
        ),
        ("key_directory", json!({"key_directory": "/var/./lib"})),
        (
            "key_directory",
            json!({"key_directory": "/var/lib\u{0}/keys"}),
        ),
        ("key_directory", json!({"key_directory": ""})),
    ])
    .await;
}

#[tokio::test]
async fn authentication_malformed_is_refused() {
    assert_refused_by_name(&[
        ("auth_method", json!({"auth_method": {"token": ""}})),
        ("auth_method", json!({"auth_method": {}})),
        (
            "auth_method",
            json!({"auth_method": {"token": "a", "Token": {"token": "b"}}}),
        ),
        (
            "auth_method.Kubernetes",
            json!({"auth_method": {"Kubernetes": {"role": "r", "mount": "k", "jwt_path": "/t"}}}),
        ),
        (
            "auth_method.AppRole.secret_id_file",
            json!({"auth_method": {"AppRole": {"role_id": "r", "secret_id_file": "/s"}}}),
        ),
        (
            "auth_method.AppRole.refresh_safety_window_secs",
            json!({"auth_method": {"AppRole": {
                "role_id": "r", "secret_id": TOKEN, "refresh_safety_window_secs": 30
            }}}),
        ),
        (
            "auth_method.TokenFile.poll_interval_secs",
            json!({"auth_method": {"TokenFile": {"path": "/t", "poll_interval_secs": 59}}}),
        ),
        ("auth_method", json!({"auth_method": "token"})),
        (
            "auth_method.token",
            json!({"auth_method": {"token": format!("{TOKEN}\r\nX: y")}}),
        ),
        (
            "auth_method.AppRole",
            json!({"auth_method": {"AppRole": {"secret_id": TOKEN}}}),
        ),
        (
            "auth_method.TokenFile.path",
            json!({"auth_method": {"TokenFile": {"path": "token"}}}),
        ),
    ])
    .await;
}

#[tokio::test]
async fn setting_unknown_is_refused() {
    assert_refused_by_name(&[
        ("backend_type", json!({"backend_type": "aws"})),
        ("backend_type", json!({"backend_type": "vault-kv2"})),
        ("backend_type", json!({"backend_type": 7})),
        ("default_key_id", json!({"default_key_id": "../x"})),
        ("file_permissions", json!({"file_permissions": 420})),
        ("skip_tls_verify", json!({"skip_tls_verify": true})),
        ("tls", json!({"tls": {"ca_path": "/ca.pem"}})),
        ("backend_type", json!({"backend_type": "AWS"})),
        ("backend_type", json!({"backend_type": "AwsKms"})),
        ("backend_type", json!({"backend_type": "VaultKV2"})),
        ("backend_type", json!({"backend_type": "vault_kv2"})),
        ("backend_type", json!({"backend_type": "Static"})),
        (
            "token_of_another_kind",
            json!({"token_of_another_kind": TOKEN}),
        ),
    ])
    .await;
}

#[tokio::test]
async fn body_of_settings_malformed_is_refused() {
    let site = MemorySite::running().await;
    let before = site.records(Kind::Config).await;
    for body in [
        "",
        "[]",
        "null",
        "{",
        r#"{"address":"https://a","address":"https://b"}"#,
        r#"{"key_dir":"/a","key_directory":"/b"}"#,
    ] {
        let answer = site.call("POST", "/kms/reconfigure", body).await;
        assert_eq!(
            answer.refusal(),
            (400, "InvalidRequest".to_owned()),
            "{body}"
        );
    }
    let missing = post(&site, "/kms/start", &json!({"force": "yes"})).await;
    assert_eq!(missing.refusal(), (400, "InvalidRequest".to_owned()));
    assert_eq!(site.records(Kind::Config).await, before);
    assert_eq!(site.vault().checks(), 0);
    site.call("POST", "/kms/stop", "").await.ok();
    let missing = post(&site, "/kms/configure", &json!({"default_key_id": "k"})).await;
    assert!(missing.message().contains("`backend_type`"));
}

#[tokio::test]
async fn secret_of_the_configuration_is_never_returned() {
    let site = MemorySite::running().await;
    let role = json!({"backend_type": "vault", "address": "https://vault.example.com",
        "auth_method": {"AppRole": {"role_id": "role", "secret_id": TOKEN}}});
    for body in [&vault(), &role] {
        let mut answers = vec![post(&site, "/kms/reconfigure", body).await];
        for path in ["/kms/status", "/kms/service-status", "/kms/config"] {
            answers.push(site.call("GET", path, "").await);
        }
        site.vault().set_down(true);
        answers.push(post(&site, "/kms/reconfigure", body).await);
        answers.push(site.call("GET", "/kms/status", "").await);
        site.vault().set_down(false);
        for answer in answers {
            assert!(!String::from_utf8_lossy(&answer.body).contains("CANARY"));
        }
        for record in site.records(Kind::Config).await {
            assert!(!String::from_utf8_lossy(&record.value).contains("CANARY"));
        }
    }
}

#[tokio::test]
async fn reconfigurations_at_once_are_both_kept() {
    let site = MemorySite::running().await;
    let (one, other) = (json!({"timeout_seconds": 9}), json!({"retry_attempts": 9}));
    let (one, other) = tokio::join!(
        post(&site, "/kms/reconfigure", &one),
        post(&site, "/kms/reconfigure", &other)
    );
    assert_ne!(one.text("config_id"), other.text("config_id"));
    let summary = &site.call("GET", "/kms/status", "").await.ok()["config_summary"];
    assert_eq!(
        (&summary["timeout_seconds"], &summary["retry_attempts"]),
        (&json!(9), &json!(9))
    );
}

#[tokio::test]
async fn configuration_in_newer_spellings_is_taken() {
    let site = MemorySite::not_configured(false).await;
    let mut body = vault();
    let fields = body.as_object_mut().unwrap();
    fields.insert("backend_type".to_owned(), json!("VaultTransit"));
    fields.insert("tls".to_owned(), Value::Null);
    fields.remove("kv_mount");
    fields.insert("metadata_kv_mount".to_owned(), json!("copies"));
    fields.insert(
        "auth_method".to_owned(),
        json!({"AppRole": {
            "role_id": "r", "secret_id": TOKEN, "secret_id_file": null, "mount": "roles", "refresh_safety_window_secs": null
        }}),
    );
    post(&site, "/kms/configure", &body).await.ok();
    let stored = site.records(Kind::Config).await;
    let text = format!("{stored:?}");
    assert!(!text.contains("CANARY"), "{text}");
    let refused = post(
        &site,
        "/kms/reconfigure",
        &json!({"kv_mount": "a", "metadata_kv_mount": "b"}),
    )
    .await;
    assert_eq!(refused.refusal(), (400, "InvalidRequest".to_owned()));
    let first = json!({"kms_type": "VaultKV2", "vault_address": "https://vault.example.com:8200"});
    let refused = post(&site, "/kms/configure", &first).await;
    assert_eq!(refused.refusal(), (400, "InvalidRequest".to_owned()));
    assert!(
        refused.message().contains("`kms_type`"),
        "{}",
        refused.message()
    );
}
