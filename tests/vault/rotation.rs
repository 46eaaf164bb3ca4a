//! `keyway root vault` with OpenBao: the transit key gets a new version, and the old one is refused at the end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyway_tests::{ServerOptions, project};
use serde_json::{Value, json};

use crate::{Setup, shared};

/// Runs `keyway root vault`; returns its exit code, its JSON and what it says.
async fn root_vault(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let folder = data_dir.to_str().unwrap();
    let of_all = &["--data-dir", folder, "--output", "json"];
    let all = [&["root", "vault"], arguments, of_all].concat();
    let (code, stdout, stderr) = ServerOptions::default().run(&all).await;
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_default(),
        stderr,
    )
}

/// The privileges that the rotation needs besides, of `docs/vault.md`.
fn privileges(place: &Setup) -> String {
    let text = fs::read_to_string(project().join("docs/vault.md")).unwrap();
    let mut blocks = text.split("```hcl\n").skip(1);
    let block = blocks.find(|block| block.contains("/rewrap/")).unwrap();
    let (block, _) = block.split_once("```").unwrap();
    block.replace("\"transit/", &format!("\"{}/", place.transit))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transit_key_rotated_and_retired_under_a_server_opens_everything() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let root = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let data = root.path();
    let (_, making) = place.policies();
    let policy = place.policy(bao, &making).await;
    let token = bao.token(&policy, json!({"period": "24h"})).await;
    let server = ServerOptions::not_started().start(data).await;
    let post = async |path: &str, body: Value| server.call("POST", path, &body.to_string()).await;
    let configuration = json!({
        "backend_type": "vault",
        "address": bao.address,
        "auth_method": {"token": token},
        "mount_path": place.transit,
        "kv_mount": place.kv,
        "key_path_prefix": "keyway",
    });
    post("/kms/configure", configuration).await.ok();
    post("/kms/start", json!({})).await.ok();
    let mut blobs = Vec::new();
    for name in ["k1", "k2"] {
        post("/kms/keys", json!({"key_id": name})).await.ok();
        let made = post("/kms/generate-data-key", json!({"key_id": name})).await;
        blobs.push(made.text("ciphertext_blob"));
    }

    // The server's own privileges do not suffice.
    let (code, _, stderr) = root_vault(data, &["rotate"]).await;
    assert!(
        code == Some(1) && stderr.contains("permission denied"),
        "{stderr}"
    );
    bao.policy(&policy, &format!("{making}{}", privileges(&place)))
        .await;
    let (code, done, stderr) = root_vault(data, &["rotate"]).await;
    assert_eq!(
        (code, &done["changed"]),
        (Some(0), &json!(3)),
        "{stderr} {done}"
    );
    let (_, status, stderr) = root_vault(data, &["status"]).await;
    let versions = json!([
        {"version": 1, "records": 0, "copies": 0},
        {"version": 2, "records": 3, "copies": 2},
    ]);
    assert_eq!(
        (&status["current"], &status["versions"]),
        (&json!(2), &versions),
        "{stderr}"
    );
    let (code, _, stderr) = root_vault(data, &["retire", "2"]).await;
    assert!(
        code == Some(1) && stderr.contains("newest version"),
        "{stderr}"
    );
    let (code, done, stderr) = root_vault(data, &["retire", "1"]).await;
    assert_eq!((code, &done["now"]), (Some(0), &json!(true)), "{stderr}");
    let (_, status, _) = root_vault(data, &["status"]).await;
    assert_eq!(status["minimum"], 2);
    let place = ["--data-dir", data.to_str().unwrap()];
    let events = ServerOptions::default().operator_events(&place).await;
    let told = events.iter().map(|event| {
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        format!(
            "{} {} {}",
            text("operation"),
            text("resource"),
            text("error")
        )
    });
    let expected = [
        "audit:Started kms:RotateTransitKey ",
        "kms:RotateTransitKey  failed",
        "audit:Started kms:RotateTransitKey ",
        "kms:RotateTransitKey transit/2 ",
        "kms:RewrapTransitKey  ",
        "audit:Started kms:RetireTransitKey ",
        "kms:RetireTransitKey  failed",
        "audit:Started kms:RetireTransitKey ",
        "kms:RetireTransitKey transit/1 ",
    ];
    assert_eq!(told.collect::<Vec<_>>(), expected);
    let cleared = post("/kms/clear-cache", json!({})).await;
    assert_eq!(cleared.status, 204);
    for blob in &blobs {
        post("/kms/decrypt", json!({"ciphertext_blob": blob}))
            .await
            .ok();
    }
    post("/kms/keys", json!({"key_id": "k3"})).await.ok();
    server.stop().await;
}
