//! The calls of a function: three when it starts, and none when it is warm but the audit log's writes.

use std::sync::{Arc, Mutex};

use keyway_tests::{Aws, Deployment, Fate, Function, Proxy};
use serde_json::{Value, json};

async fn start(deployment: &Deployment, state_ttl: &str) -> Function {
    Function::start(
        "keyway-fn-datakey",
        deployment,
        &[("KEYWAY_STATE_TTL_SECONDS", state_ttl)],
    )
    .await
}

async fn post(function: &Function, path: &str, body: &Value) -> Value {
    function.call("POST", path, &body.to_string()).await.ok()
}

/// Makes a data key and opens it again.
async fn data_key(function: &Function) {
    let context = json!({ "bucket": "backups" });
    let request = json!({ "key_id": "warm", "encryption_context": context });
    let made = post(function, "/kms/generate-data-key", &request).await;
    let request =
        json!({ "ciphertext_blob": made["ciphertext_blob"], "encryption_context": context });
    let opened = post(function, "/kms/decrypt", &request).await;
    assert_eq!(opened["plaintext"], made["plaintext_key"]);
}

/// Each call opens a connection, and the start waits for the slowest.
#[tokio::test(flavor = "multi_thread")]
async fn start_reads_two_secrets_and_one_record() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let first = Function::start("keyway-fn-keys", &deployment, &[]).await;
    post(&first, "/kms/keys", &json!({ "key_id": "warm" })).await;
    for program in ["keyway-fn-keys", "keyway-fn-datakey", "keyway-fn-all"] {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Proxy::before(&aws.endpoint).await;
        let seen = Arc::clone(&asked);
        proxy.judge(move |_, operation| {
            seen.lock().unwrap().push(operation.to_owned());
            Fate::Pass
        });
        let _started = Function::start(program, &deployment.through(&proxy.endpoint), &[]).await;
        asked.lock().unwrap().sort();
        let expected = [
            "DynamoDB_20120810.GetItem",
            "secretsmanager.GetSecretValue",
            "secretsmanager.GetSecretValue",
        ];
        assert_eq!(*asked.lock().unwrap(), expected, "{program}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_key_of_a_cached_key_makes_no_call_within_the_ttl() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    post(&keys, "/kms/keys", &json!({ "key_id": "warm" })).await;
    let proxy = Proxy::before(&aws.endpoint).await;
    let deployment = deployment.through(&proxy.endpoint);
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    proxy.judge(move |_, operation| {
        seen.lock().unwrap().push(operation.to_owned());
        Fate::Pass
    });

    // Long enough for a slow machine.
    let warm = start(&deployment, "3600").await;
    data_key(&warm).await;
    asked.lock().unwrap().clear();
    for _ in 0..100 {
        data_key(&warm).await;
    }
    // The function reads only; all writes are the audit log's, in batches of 250 ms or 256 events.
    let mut calls = std::mem::take(&mut *asked.lock().unwrap());
    calls.retain(|operation| operation != "DynamoDB_20120810.PutItem");
    assert!(
        calls.is_empty(),
        "a warm function called somebody: {calls:?}"
    );

    // The proxy sees the calls that are made.
    let forgetful = start(&deployment, "0").await;
    data_key(&forgetful).await;
    let before = proxy.count();
    data_key(&forgetful).await;
    assert!(
        proxy.count() >= before + 2,
        "state that is never kept is read for every request"
    );
}
