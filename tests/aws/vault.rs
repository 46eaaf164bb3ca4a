//! The separate functions with OpenBao as their backend, and a table in DynamoDB with the root keyring in OpenBao.

use keyway_tests::{Aws, Bao, Function, ServerOptions};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn functions_over_openbao_serve_and_report_when_it_is_away() {
    let Some(aws) = Aws::here() else { return };
    let Some(bao) = Bao::start().await else {
        return;
    };
    bao.mount("transit", "transit", json!({})).await;
    bao.mount("secret", "kv", json!({"version": "2"})).await;
    let deployment = aws.deployment().await;
    let settings = [("KEYWAY_START", "false"), ("KEYWAY_STATE_TTL_SECONDS", "0")];
    let service = Function::start("keyway-fn-service", &deployment, &settings).await;
    let configure = json!({
        "backend_type": "vault",
        "address": bao.address,
        "auth_method": {"token": bao.root},
        "default_key_id": "rustfs-master",
        "timeout_seconds": 3,
        "retry_attempts": 1,
    })
    .to_string();
    service
        .call("POST", "/kms/configure", &configure)
        .await
        .ok();
    service.call("POST", "/kms/start", "{}").await.ok();

    // Each function finds the configuration in the table, and its credential wrapped by the root keyring.
    let keys = Function::start("keyway-fn-keys", &deployment, &settings).await;
    let datakey = Function::start("keyway-fn-datakey", &deployment, &settings).await;
    let create = r#"{"key_id":"rustfs-master"}"#;
    keys.call("POST", "/kms/keys", create).await.ok();
    let made = datakey.call("POST", "/kms/generate-data-key", "{}").await;
    let blob = json!({"ciphertext_blob": made.text("ciphertext_blob")}).to_string();
    datakey.call("POST", "/kms/decrypt", &blob).await.ok();
    let status = service.call("GET", "/kms/status", "").await.ok();
    assert_eq!(
        (&status["status"], &status["kmsType"], &status["keyCount"]),
        (&json!("Running"), &json!("vault"), &json!(1))
    );

    bao.seal().await;
    // Unwrapped keys serve until the cache is cleared.
    datakey.call("POST", "/kms/decrypt", &blob).await.ok();
    service.call("POST", "/kms/clear-cache", "").await;
    let refused = datakey.call("POST", "/kms/decrypt", &blob).await;
    assert_eq!(refused.refusal(), (503, "BackendError".to_owned()));
    let refused = keys
        .call("POST", "/kms/keys", r#"{"key_id":"other"}"#)
        .await;
    assert_eq!(refused.refusal(), (503, "BackendError".to_owned()));
    let status = service.call("GET", "/kms/status", "").await.ok();
    assert_eq!(status["status"], "Error");
    bao.unseal().await;
    datakey.call("POST", "/kms/decrypt", &blob).await.ok();

    for log in [service.log(), keys.log(), datakey.log()] {
        assert!(!log.contains(&bao.root), "the token is in a log");
    }
}

/// A server over this table whose keyring is below this path in OpenBao.
fn server(table: &str, bao: &Bao, path: &str) -> ServerOptions {
    ServerOptions::default()
        .variable("KEYWAY_TABLE", table)
        .variable("KEYWAY_ROOT_KEYRING_VAULT", &bao.address)
        .variable("KEYWAY_ROOT_KEYRING_VAULT_PATH", path)
        .variable("KEYWAY_ROOT_KEYRING_VAULT_TOKEN", &bao.root)
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_the_keyring_in_vault_restarts_rotates_and_refuses_another_keyring() {
    let Some(aws) = Aws::here() else { return };
    let Some(bao) = Bao::start().await else {
        return;
    };
    bao.mount("secret", "kv", json!({"version": "2"})).await;
    let folder = tempfile::tempdir().unwrap();
    let (table, foreign) = (aws.table().await, aws.table().await);
    let options = server(&table, &bao, "one");
    let run = async |arguments: &[&str]| {
        let (code, stdout, stderr) = options.run(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {stdout}{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap_or_default()
    };
    let first = options.start(folder.path()).await;
    let key = json!({"key_id": "k"}).to_string();
    first.call("POST", "/kms/keys", &key).await.ok();
    let made = first.call("POST", "/kms/generate-data-key", &key).await;
    let blob = json!({"ciphertext_blob": made.text("ciphertext_blob")}).to_string();
    first.stop().await;
    let again = options.start(folder.path()).await;
    again.call("POST", "/kms/decrypt", &blob).await.ok();

    let of_foreign = server(&foreign, &bao, "two");
    of_foreign.start(folder.path()).await.stop().await;
    for (place, says) in [
        ("two", "belongs to another deployment"),
        ("none", "restore the keyring"),
    ] {
        let (code, stderr) = server(&table, &bao, place).fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(says), "{place}: {stderr}");
    }

    let rotated = run(&["root", "rotate", "--output", "json"]).await;
    assert_eq!(rotated["current"], "r2");
    run(&["root", "retire", "r1"]).await;
    let status = run(&["root", "status", "--output", "json"]).await;
    assert_eq!(status["roots"].as_array().unwrap().len(), 1, "{status}");
    again.call("POST", "/kms/decrypt", &blob).await.ok();
    // The whole log, from the time when the deployment was made.
    let audit = run(&["audit", "verify", "--output", "json"]).await;
    assert_eq!(audit["ok"], true, "{audit}");
    again.stop().await;
    let fresh = options.start(folder.path()).await;
    fresh.call("POST", "/kms/decrypt", &blob).await.ok();
    let (_, log, stderr) = fresh.stop().await;
    assert!(!format!("{log}{stderr}").contains(&bao.root));
}
