//! The separate functions with OpenBao as their backend.

use keyway_tests::{Aws, Bao, Function};
use serde_json::json;

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
