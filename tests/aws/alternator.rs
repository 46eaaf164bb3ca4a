//! Databases that speak DynamoDB's API, by the differences that ScyllaDB documents of its Alternator: unknown operations
//! are refused, and answers lack what its releases before 6.0 leave out. DynamoDB itself is behind the proxy that makes them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use keyway_deployment_assembly::SystemRandom;
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::table_contract;
use keyway_tests::{Aws, Fate, Proxy, ServerOptions};
use serde_json::{Value, json};

/// What Keyway may call. Transactions, backups, tags, and whatever changes or describes a table are not among it.
const KNOWN: [&str; 5] = ["GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"];

/// DynamoDB with Alternator's differences, and with these faults.
async fn alternator(aws: &Aws, faults: impl Fn(u64) -> Fate + Send + Sync + 'static) -> Proxy {
    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(move |number, target| {
        let operation = target.rsplit('.').next().unwrap_or_default();
        match KNOWN.contains(&operation) {
            true => faults(number),
            false => Fate::Refuse("UnknownOperationException"),
        }
    });
    proxy.alter(|body| {
        let Ok(Value::Object(mut answer)) = serde_json::from_slice(&body) else {
            return body;
        };
        // It accounts for no throughput, and ignores ReturnValuesOnConditionCheckFailure.
        answer.remove("ConsumedCapacity");
        let kind = answer.get("__type").and_then(Value::as_str);
        if kind.is_some_and(|kind| kind.ends_with("ConditionalCheckFailedException")) {
            answer.remove("Item");
        }
        Value::Object(answer).to_string().into_bytes()
    });
    proxy
}

async fn keeps_the_contract(aws: &Aws, proxy: &Proxy) {
    let name = aws.table().await;
    let config = aws.config_at(&proxy.endpoint);
    table_contract::run_all_up_to(
        aws.largest_value(),
        async |clock| Arc::new(DynamoTable::new(&config, name.as_str(), clock)) as _,
        &SystemRandom::default(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_alternators_differences_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let proxy = alternator(&aws, |_| Fate::Pass).await;
    keeps_the_contract(&aws, &proxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_alternators_differences_and_faults_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let proxy = alternator(&aws, |number| match number % 97 {
        1 => Fate::Throttle,
        6 => Fate::LoseAnswer,
        9 => Fate::LoseRequest,
        11 => Fate::Fail,
        13 => Fate::Delay(Duration::from_millis(20)),
        _ => Fate::Pass,
    })
    .await;
    keeps_the_contract(&aws, &proxy).await;
    assert!(proxy.count() > 300, "{}", proxy.count());
}

#[tokio::test(flavor = "multi_thread")]
async fn server_and_commands_work_over_a_table_endpoint_with_alternators_differences() {
    let Some(aws) = Aws::here() else { return };
    let proxy = alternator(&aws, |_| Fate::Pass).await;
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (table, keyring) = (aws.table().await, path("keyring"));
    let place = [
        "--table",
        &table,
        "--table-endpoint",
        &proxy.endpoint,
        "--root-keyring-file",
        &keyring,
        "--region",
        "us-east-1",
    ];
    // Only the table's endpoint leads to a database.
    let options = ServerOptions::default()
        .variable("AWS_ACCESS_KEY_ID", "test")
        .variable("AWS_SECRET_ACCESS_KEY", "test")
        .variable("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let server = place.iter().fold(options.clone(), |options, argument| {
        options.argument(argument)
    });
    let server = server.start(folder.path()).await;
    let key = json!({"key_id": "k"}).to_string();
    server.call("POST", "/kms/keys", &key).await.ok();
    let made = server.call("POST", "/kms/generate-data-key", &key).await;
    let blob = json!({"ciphertext_blob": made.text("ciphertext_blob")}).to_string();
    let disable = server.call("POST", "/kms/keys/disable", &key).await;
    disable.ok();
    server.call("POST", "/kms/keys/enable", &key).await.ok();
    for command in [
        &["access-key", "create", "--policy", "kms-admin"][..],
        &["table", "verify"],
        &["root", "rotate"],
        &["doctor"],
    ] {
        let (code, stdout, stderr) = options.run(&[command, &place].concat()).await;
        assert!(matches!(code, Some(0 | 3)), "{command:?}: {stdout}{stderr}");
    }
    server.call("POST", "/kms/decrypt", &blob).await.ok();
    server.stop().await;
}
