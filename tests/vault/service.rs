//! `keyway serve` with OpenBao as its backend: configured over HTTP, and while OpenBao is unavailable.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use keyway_tests::{Answer, Bao, Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Setup, shared};

pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

async fn post(server: &Server, path: &str, body: &Value) -> Answer {
    server.call("POST", path, &body.to_string()).await
}

async fn create(server: &Server, id: &str) -> Answer {
    post(server, "/kms/keys", &json!({"key_id": id})).await
}

async fn generate(server: &Server, id: &str) -> Answer {
    post(server, "/kms/generate-data-key", &json!({"key_id": id})).await
}

async fn decrypt(server: &Server, blob: &str) -> Answer {
    post(server, "/kms/decrypt", &json!({"ciphertext_blob": blob})).await
}

async fn status(server: &Server) -> Value {
    server.call("GET", "/kms/status", "").await.ok()
}

/// The configuration as RustFS's document has it, for these mounts.
fn configuration(bao: &Bao, place: &Setup, token: &str) -> Value {
    json!({
        "backend_type": "vault",
        "address": bao.address,
        "auth_method": {"token": token},
        "mount_path": place.transit,
        "kv_mount": place.kv,
        "key_path_prefix": "keyway",
        "default_key_id": "rustfs-master",
        "enable_cache": true,
        "cache_ttl_seconds": 600,
        "timeout_seconds": 3,
        "retry_attempts": 1
    })
}

/// A token with the privileges of `docs/vault.md`, with the one to make the transit key.
async fn token(bao: &Bao, place: &Setup) -> String {
    let (_, making) = place.policies();
    let policy = place.policy(bao, &making).await;
    bao.token(&policy, json!({"period": "24h"})).await
}

/// A server whose service uses this Vault.
async fn running(bao: &Bao, place: &Setup, token: &str, data: &Path) -> Server {
    let server = ServerOptions::not_started().start(data).await;
    let body = configuration(bao, place, token);
    let answer = post(&server, "/kms/configure", &body).await.ok();
    assert_eq!(answer["status"], "Configured");
    post(&server, "/kms/start", &json!({})).await.ok();
    server
}

/// Every byte of the files of a folder, and of those below it.
fn bytes(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes(&path));
        } else {
            all.extend(fs::read(&path).unwrap());
        }
    }
    all
}

fn has(haystack: &[u8], needle: &str) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn service_over_openbao_serves_and_shows_its_token_nowhere() {
    let Some(bao) = shared().await else { return };
    let (place, root) = (Setup::new(bao).await, folder());
    let token = token(bao, &place).await;
    let server = running(bao, &place, &token, root.path()).await;
    assert_eq!(status(&server).await["status"], "Running");
    create(&server, "k").await.ok();
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    post(&server, "/kms/keys/rotate", &json!({"key_id": "k"}))
        .await
        .ok();
    decrypt(&server, &blob).await.ok();

    let wrong = format!("{token}WRONG");
    for change in [
        json!({"auth_method": {"token": wrong}}),
        json!({"mount_path": "nothing-here", "auth_method": {"token": token}}),
        json!({"address": "http://127.0.0.1:1", "auth_method": {"token": token}}),
    ] {
        let answer = post(&server, "/kms/reconfigure", &change).await;
        assert_eq!(
            answer.refusal(),
            (503, "BackendError".to_owned()),
            "{change}"
        );
        assert!(!has(&answer.body, &token));
        decrypt(&server, &blob).await.ok();
    }
    // Another address needs the token again, and gets no request.
    for change in [
        json!({"mount_path": "nothing-here"}),
        json!({"address": "http://127.0.0.1:1"}),
        json!({"namespace": "team", "auth_method": {"Token": {"token": ""}}}),
    ] {
        let answer = post(&server, "/kms/reconfigure", &change).await;
        let (status, code) = answer.refusal();
        assert_eq!((status, code.as_str()), (400, "InvalidRequest"), "{change}");
        assert!(answer.message().contains("auth_method"), "{change}");
    }
    // A blank token keeps the stored one.
    let blank = json!({"auth_method": {"Token": {"token": ""}}, "cache_ttl_seconds": 60});
    post(&server, "/kms/reconfigure", &blank).await.ok();
    let mut seen = server.call("GET", "/kms/status", "").await.body.to_vec();
    seen.extend(server.call("GET", "/kms/config", "").await.body.to_vec());

    // The configuration survives a restart, and a second process over the folder serves too.
    let other = ServerOptions::not_started().start(root.path()).await;
    decrypt(&other, &blob).await.ok();
    for server in [server, other] {
        let (code, log, stderr) = server.stop().await;
        assert_eq!(code, Some(0));
        seen.extend(log.into_bytes());
        seen.extend(stderr.into_bytes());
    }
    seen.extend(bytes(root.path()));
    assert!(!has(&seen, &token), "the token was found");
}

#[tokio::test]
async fn openbao_sealed_or_stopped_is_answered_in_time_and_recovers() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let (place, root) = (Setup::new(&bao).await, folder());
    let token = token(&bao, &place).await;
    let server = running(&bao, &place, &token, root.path()).await;
    create(&server, "k").await.ok();
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    for stop in [false, true] {
        if stop {
            bao.stop();
        } else {
            bao.seal().await;
        }
        // Cached keys serve.
        decrypt(&server, &blob).await.ok();
        let asked = now();
        let refused = create(&server, "other").await;
        assert_eq!(refused.refusal(), (503, "BackendError".to_owned()));
        assert!(refused.header("retry-after").is_some());
        let down = status(&server).await;
        assert_eq!(
            (&down["status"], &down["healthy"], &down["backend_status"]),
            (&json!("Error"), &json!(false), &json!("unhealthy"))
        );
        assert!(
            asked.elapsed() < Duration::from_secs(12),
            "{:?}",
            asked.elapsed()
        );
        // Other keys do not.
        server.call("POST", "/kms/clear-cache", "").await;
        let refused = decrypt(&server, &blob).await;
        assert_eq!(refused.refusal(), (503, "BackendError".to_owned()));
        if stop {
            bao.start_again().await;
        }
        bao.unseal().await;
        decrypt(&server, &blob).await.ok();
        let up = status(&server).await;
        assert_eq!(
            (&up["status"], &up["healthy"]),
            (&json!("Running"), &json!(true))
        );
    }
    create(&server, "other").await.ok();
}

#[tokio::test]
async fn revoked_token_is_reported_and_can_be_replaced() {
    let Some(bao) = shared().await else { return };
    let (place, root) = (Setup::new(bao).await, folder());
    let first = token(bao, &place).await;
    let server = running(bao, &place, &first, root.path()).await;
    create(&server, "k").await.ok();
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    bao.revoke(&first).await;
    server.call("POST", "/kms/clear-cache", "").await;
    assert_eq!(decrypt(&server, &blob).await.refusal().0, 503);
    assert_eq!(status(&server).await["status"], "Error");
    let second = token(bao, &place).await;
    let body = json!({"auth_method": {"token": second}});
    post(&server, "/kms/reconfigure", &body).await.ok();
    decrypt(&server, &blob).await.ok();
    assert_eq!(status(&server).await["status"], "Running");
}

#[tokio::test]
async fn deleted_transit_key_is_a_backend_failure_and_not_recreated() {
    let Some(bao) = shared().await else { return };
    let (place, root) = (Setup::new(bao).await, folder());
    let token = token(bao, &place).await;
    let server = running(bao, &place, &token, root.path()).await;
    create(&server, "k").await.ok();
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    place.delete_key(bao).await;
    server.call("POST", "/kms/clear-cache", "").await;
    assert_eq!(decrypt(&server, &blob).await.refusal().0, 503);
    assert_eq!(create(&server, "other").await.refusal().0, 503);
    assert_eq!(status(&server).await["status"], "Error");
    let again = post(
        &server,
        "/kms/reconfigure",
        &configuration(bao, &place, &token),
    )
    .await;
    assert_eq!(again.refusal().0, 503);
    // A new transit key of the same name is not the old one.
    place.make_key(bao).await;
    let again = post(
        &server,
        "/kms/reconfigure",
        &configuration(bao, &place, &token),
    )
    .await;
    assert_eq!(again.refusal(), (409, "Conflict".to_owned()));
    assert_eq!(
        decrypt(&server, &blob).await.refusal(),
        (500, "BackendError".to_owned())
    );
}

#[tokio::test]
async fn keys_in_openbao_are_restored_after_a_lost_table_and_migrate_back() {
    let Some(bao) = shared().await else { return };
    let (place, root) = (Setup::new(bao).await, folder());
    let token = token(bao, &place).await;
    let data = root.path().join("data");
    let options = ServerOptions::default();
    let server = options.start(&data).await;
    let mut blobs = Vec::new();
    for n in 0..20 {
        let id = format!("k{n}");
        create(&server, &id).await.ok();
        blobs.push(generate(&server, &id).await.text("ciphertext_blob"));
    }
    post(
        &server,
        "/kms/reconfigure",
        &configuration(bao, &place, &token),
    )
    .await
    .ok();
    let job = async |job: &str| {
        let folder = data.to_str().unwrap();
        let all = [job, "--data-dir", folder, "--output", "json"];
        let (code, stdout, stderr) = options.run(&all).await;
        assert_eq!(code, Some(0), "{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()
    };
    let done = |changed: u32, unchanged: u32| json!({"changed": changed, "unchanged": unchanged, "failed": []});
    assert_eq!(job("rewrap-keys").await, done(20, 0));
    assert_eq!(job("rewrap-keys").await, done(0, 20));
    for blob in &blobs {
        decrypt(&server, blob).await.ok();
    }
    server.stop().await;

    // The machine is lost with its keyring.
    fs::remove_dir_all(&data).unwrap();
    let server = running(bao, &place, &token, &data).await;
    let refused = create(&server, "k0").await;
    assert_eq!(refused.refusal(), (409, "KeyAlreadyExists".to_owned()));
    assert_eq!(job("restore-keys").await, done(20, 0));
    assert_eq!(job("restore-keys").await, done(0, 20));
    for blob in &blobs {
        decrypt(&server, blob).await.ok();
    }

    // After the migration back, OpenBao is no longer needed.
    let dropped = json!({"address": null});
    post(
        &server,
        "/kms/reconfigure",
        &json!({"backend_type": "local"}),
    )
    .await
    .ok();
    let refused = post(&server, "/kms/reconfigure", &dropped).await;
    assert_eq!(refused.refusal(), (409, "Conflict".to_owned()));
    assert_eq!(job("rewrap-keys").await, done(20, 0));
    post(&server, "/kms/reconfigure", &dropped).await.ok();
    server.call("POST", "/kms/clear-cache", "").await;
    for blob in &blobs {
        decrypt(&server, blob).await.ok();
    }
    let (_, copies) = bao
        .call(
            http::Method::GET,
            &format!("{}/metadata/keyway?list=true", place.kv),
            None,
        )
        .await;
    assert!(copies["data"].is_null(), "{copies}");
}

#[tokio::test]
async fn creations_at_once_over_openbao_have_one_winner_and_one_copy() {
    let Some(bao) = shared().await else { return };
    let (place, root) = (Setup::new(bao).await, folder());
    let token = token(bao, &place).await;
    let one = running(bao, &place, &token, root.path()).await;
    let other = ServerOptions::not_started().start(root.path()).await;
    let mut creations = Vec::new();
    for n in 0..16 {
        let server = if n % 2 == 0 { &one } else { &other };
        creations.push(create(server, "one"));
    }
    let answers = futures_util::future::join_all(creations).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(answer.refusal(), (409, "KeyAlreadyExists".to_owned()));
    }
    // Both processes change the key at once; then the copy equals the record.
    let tag = |n: u32| json!({"key_id": "one", "tags": {format!("t{n}"): "x"}});
    for n in 0..5 {
        let (a, b) = (tag(2 * n), tag(2 * n + 1));
        let (a, b) = tokio::join!(
            post(&one, "/kms/keys/tag", &a),
            post(&other, "/kms/keys/tag", &b)
        );
        a.ok();
        b.ok();
    }
    let folder = root.path().to_str().unwrap();
    let check = ["rewrap-keys", "--data-dir", folder, "--output", "json"];
    let (_, stdout, stderr) = ServerOptions::default().run(&check).await;
    let outcome: Value = serde_json::from_str(&stdout).expect(&stderr);
    assert_eq!(outcome, json!({"changed": 0, "unchanged": 1, "failed": []}));
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}
