//! The service on one machine: the place of its keyring, and the state that two processes share.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use keyway_tests::{Server, ServerOptions, obeys};
use serde_json::{Value, json};

use crate::{create, data_dir, decrypt, eventually, folder, generate, now};

const KEYRING: &str = "root-keyring.secret";

async fn post(server: &Server, path: &str, body: &Value) -> keyway_tests::Answer {
    server.call("POST", path, &body.to_string()).await
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn keyring_moves_to_the_requested_folder_and_is_found_there() {
    let root = folder();
    let (data, keys) = (data_dir(&root), root.path().join("elsewhere/keys"));
    let server = ServerOptions::not_started().start(&data).await;
    let body = json!({"backend_type": "local", "key_directory": keys, "default_key_id": "k"});
    post(&server, "/kms/configure", &body).await.ok();
    assert_eq!((mode(&keys), mode(&keys.join(KEYRING))), (0o700, 0o600));
    assert!(!data.join("secrets").join(KEYRING).exists());
    post(&server, "/kms/start", &json!({})).await.ok();
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    server.stop().await;

    let server = ServerOptions::not_started().start(&data).await;
    decrypt(&server, &blob).await.ok();
    let status = server.call("GET", "/kms/status", "").await.ok();
    let summary = &status["config_summary"]["backend_summary"];
    assert_eq!(summary["key_directory"], keys.to_str().unwrap());

    // It moves back while the server runs.
    let body = json!({"key_directory": null});
    post(&server, "/kms/reconfigure", &body).await.ok();
    assert!(data.join("secrets").join(KEYRING).exists());
    assert!(!keys.join(KEYRING).exists());
    server.stop().await;
    let server = ServerOptions::not_started().start(&data).await;
    decrypt(&server, &blob).await.ok();
}

#[tokio::test]
async fn folder_unfit_for_keys_is_refused_and_nothing_moves() {
    let root = folder();
    let data = data_dir(&root);
    let server = ServerOptions::default().start(&data).await;
    let path = |name: &str| root.path().join(name);
    fs::write(path("file"), "").unwrap();
    std::os::unix::fs::symlink(root.path(), path("link")).unwrap();
    fs::create_dir(path("loose")).unwrap();
    fs::write(path("loose/other"), "").unwrap();
    fs::set_permissions(path("loose"), fs::Permissions::from_mode(0o755)).unwrap();
    let other = path("other-data");
    ServerOptions::default().start(&other).await.stop().await;
    for (name, word) in [
        ("file", "not a plain folder"),
        ("link", "not a plain folder"),
        ("loose", "chmod"),
        ("other-data/secrets", "another deployment"),
        ("file/below", "cannot keep"),
    ] {
        let body = json!({"key_directory": path(name)});
        let answer = post(&server, "/kms/reconfigure", &body).await;
        assert_eq!(
            answer.refusal(),
            (400, "InvalidRequest".to_owned()),
            "{name}"
        );
        let message = answer.message();
        assert!(
            message.contains("`key_directory`") && message.contains(word),
            "{name}: {message}"
        );
    }
    assert!(data.join("secrets").join(KEYRING).exists());
    // An empty folder of the server's own user gets the right mode.
    fs::create_dir(path("empty")).unwrap();
    fs::set_permissions(path("empty"), fs::Permissions::from_mode(0o755)).unwrap();
    let body = json!({"key_directory": path("empty")});
    post(&server, "/kms/reconfigure", &body).await.ok();
    assert_eq!(mode(&path("empty")), 0o700);
    server.stop().await;
    let server = ServerOptions::default().start(&data).await;
    create(&server, "k").await;
}

#[tokio::test]
async fn stop_and_start_hold_in_every_process() {
    let root = folder();
    let options = ServerOptions::default().argument("--state-ttl-seconds=1");
    let (one, other) = (
        options.start(root.path()).await,
        options.start(root.path()).await,
    );
    create(&one, "k").await;
    let blob = generate(&other, "k").await.text("ciphertext_blob");
    for _ in 0..2 {
        post(&one, "/kms/stop", &json!({})).await.ok();
        let stopped = decrypt(&one, &blob).await;
        assert_eq!(stopped.refusal(), (503, "ServiceNotRunning".to_owned()));
        assert!(stopped.message().contains("not running"));
        let uses = async || decrypt(&other, &blob).await.status == 200;
        obeys(now() + Duration::from_secs(1), uses).await;
        for server in [&one, &other] {
            let keys = server.call("GET", "/kms/keys", "").await;
            assert_eq!(keys.refusal(), (503, "ServiceNotRunning".to_owned()));
        }
        post(&one, "/kms/start", &json!({})).await.ok();
        decrypt(&one, &blob).await.ok();
        eventually("the other serves again", async || {
            (decrypt(&other, &blob).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn reconfigurations_by_two_processes_are_both_kept() {
    let root = folder();
    let options = ServerOptions::default();
    let (one, other) = (
        options.start(root.path()).await,
        options.start(root.path()).await,
    );
    for round in 1..=10 {
        let (timeout, retries) = (
            json!({"timeout_seconds": round}),
            json!({"retry_attempts": round}),
        );
        let (a, b) = tokio::join!(
            post(&one, "/kms/reconfigure", &timeout),
            post(&other, "/kms/reconfigure", &retries)
        );
        a.ok();
        b.ok();
        let summary = &one.call("GET", "/kms/status", "").await.ok()["config_summary"];
        assert_eq!(
            (&summary["timeout_seconds"], &summary["retry_attempts"]),
            (&json!(round), &json!(round))
        );
    }
}

#[tokio::test]
async fn cache_counts_hits_and_misses() {
    let root = folder();
    let server = ServerOptions::default().start(root.path()).await;
    let stats = async || server.call("GET", "/kms/status", "").await.ok()["cache_stats"].clone();
    create(&server, "k").await;
    for _ in 0..3 {
        generate(&server, "k").await.ok();
    }
    assert_eq!(
        stats().await,
        json!({"hit_count": 2, "miss_count": 1, "entry_count": 1, "eviction_count": 0})
    );
    let cleared = server.call("POST", "/kms/clear-cache", "").await;
    assert_eq!((cleared.status.as_u16(), cleared.body.len()), (204, 0));
    assert_eq!(stats().await["entry_count"], 0);
    generate(&server, "k").await.ok();
    assert_eq!(stats().await["miss_count"], 2);
}
