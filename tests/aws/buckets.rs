//! The Buckets port over an S3 endpoint: the contract, and real buckets behind every way to serve them.

use std::sync::Arc;

use keyway_buckets_s3::S3Buckets;
use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::buckets::{BucketName, Buckets, TableBuckets, TrackedBuckets};
use keyway_domain::ports::Clock;
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::bucket_contract;
use keyway_tests::{Aws, Fate, Function, Gateway, Proxy, ServerOptions, Target, project};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let factory = async || Arc::new(S3Buckets::new(&aws.config())) as _;
    bucket_contract::run_all(factory, &SystemRandom::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_under_faults_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let proxy = Proxy::before(&aws.endpoint).await;
    // No answers are lost here: a creation whose answer is lost cannot tell its own bucket from another caller's.
    proxy.judge(|number, _| match number % 7 {
        3 => Fate::LoseRequest,
        _ => Fate::Pass,
    });
    let factory = async || Arc::new(S3Buckets::new(&aws.config_at(&proxy.endpoint))) as _;
    bucket_contract::run_all(factory, &SystemRandom::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn table_with_and_without_s3_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let table = Arc::new(DynamoTable::new(
        &aws.config(),
        &aws.table().await,
        Arc::clone(&clock),
    ));
    let random = Arc::new(SystemRandom::default());
    let of_table = async || {
        let (clock, random) = (Arc::clone(&clock), Arc::clone(&random));
        Arc::new(TableBuckets::new(Arc::clone(&table) as _, clock, random)) as _
    };
    bucket_contract::run_all(of_table, random.as_ref()).await;
    let tracked = async || {
        let store = S3Buckets::new(&aws.config());
        Arc::new(TrackedBuckets::new(
            store,
            Arc::clone(&table) as _,
            Arc::clone(&random) as _,
        )) as _
    };
    bucket_contract::run_all(tracked, random.as_ref()).await;
}

const ROOT: (&str, &str) = ("test-root", "test-root-secret");

async fn call(
    target: &impl Target,
    method: &str,
    path: &str,
    body: &Value,
) -> keyway_tests::Answer {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let signer = keyway_tests::Signer::new(ROOT.0, ROOT.1);
    let (host, now) = (target.host(), target.now());
    let request = signer.request(method, &host, path, body.as_bytes(), now);
    target.send(request).await
}

/// Serves the buckets of an object store, and checks them there.
async fn buckets_are_elsewhere(aws: &Aws, target: &impl Target, bucket: &str) {
    let elsewhere = S3Buckets::new(&aws.config());
    let name = BucketName::parse(bucket).unwrap();
    let key = format!("{bucket}-key");
    call(
        target,
        "POST",
        "/rustfs/admin/v3/kms/keys",
        &json!({"key_id": key}),
    )
    .await
    .ok();
    let made = call(target, "PUT", &format!("/{bucket}"), &Value::Null).await;
    assert_eq!(made.status, 200, "{:?}", made.body);
    assert!(elsewhere.exists(&name).await.unwrap());
    let again = call(target, "PUT", &format!("/{bucket}"), &Value::Null).await;
    assert_eq!(again.status, 409, "{:?}", again.body);
    let listed = call(target, "GET", "/api/v1/buckets", &Value::Null)
        .await
        .ok();
    let listed = listed["buckets"].as_array().unwrap();
    assert!(
        listed.iter().any(|found| found["name"] == bucket),
        "{listed:?}"
    );

    let of_bucket = format!("/api/v1/bucket-encryption/{bucket}");
    let wanted = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": key});
    call(target, "PUT", &of_bucket, &wanted).await.ok();
    let found = elsewhere.encryption(&name).await.unwrap().unwrap();
    assert_eq!(found.key(), Some(key.as_str()));
    // The table knows which buckets use the key; the object store is not asked.
    let delete = "/rustfs/admin/v3/kms/keys/delete";
    let deleted = call(target, "DELETE", delete, &json!({"key_id": key}))
        .await
        .ok();
    assert_eq!(deleted["impact"]["references"][0]["id"], bucket);
    let pending = call(target, "PUT", &of_bucket, &wanted).await;
    assert_eq!(pending.refusal(), (409, "InvalidKeyState".to_owned()));
    call(target, "DELETE", &of_bucket, &Value::Null).await.ok();
    let gone = elsewhere.encryption(&name).await.unwrap();
    assert!(gone.is_none_or(|encryption| encryption.key().is_none()));
    let described = format!("/rustfs/admin/v3/kms/keys/{key}?impact=true");
    let described = call(target, "GET", &described, &Value::Null).await.ok();
    assert_eq!(described["impact"]["references"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_serve_the_buckets_of_the_account() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let of_aws = [
        ("KEYWAY_S3_ENDPOINT", "aws"),
        ("KEYWAY_STATE_TTL_SECONDS", "0"),
    ];
    let keys = Function::start("keyway-fn-keys", &deployment, &of_aws).await;
    let buckets = Function::start("keyway-fn-bucket-encryption", &deployment, &of_aws).await;
    let gateway = Gateway {
        keys: &keys,
        datakey: &keys,
        service: &keys,
        buckets: &buckets,
    };
    let unique = format!(
        "functions-{}",
        &deployment.table[deployment.table.len() - 16..]
    );
    buckets_are_elsewhere(&aws, &gateway, &unique).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn function_counts_its_calls_of_the_table() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let key = json!({"key_id": "k"}).to_string();
    keys.call("POST", "/kms/keys", &key).await.ok();
    // Where there is no Lambda, the metrics are at hand.
    let mut options = ServerOptions::function("keyway-fn-bucket-encryption").without_root();
    for (name, value) in deployment.variables() {
        options = options.variable(&name, &value);
    }
    let server = options
        .variable("KEYWAY_LISTEN", "127.0.0.1:0")
        .start_in_place()
        .await;
    let made = call(&server, "PUT", "/photos", &Value::Null).await;
    assert_eq!(made.status, 200, "{:?}", made.body);
    let wanted = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": "k"});
    let of_bucket = "/api/v1/bucket-encryption/photos";
    call(&server, "PUT", of_bucket, &wanted).await.ok();
    let page = call(&server, "GET", "/metrics", &Value::Null).await;
    let page = String::from_utf8(page.body.to_vec()).unwrap();
    let counted = |operation: &str| -> f64 {
        let name = format!(r#"keyway_store_calls_total{{operation="{operation}",result="ok"}} "#);
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("{operation}: {page}"))
            .parse()
            .unwrap()
    };
    assert!(counted("replace") >= 1.0, "of the bucket: {page}");
    assert!(
        counted("put_new") >= 3.0,
        "of the bucket and of both events: {page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_serves_the_buckets_of_an_endpoint() {
    let Some(aws) = Aws::here() else { return };
    let folder = tempfile::tempdir().unwrap();
    let server = ServerOptions::default()
        .argument("--s3-endpoint")
        .argument(&aws.endpoint)
        .variable("KEYWAY_S3_ACCESS_KEY_ID", "test")
        .variable("KEYWAY_S3_SECRET_ACCESS_KEY", "test")
        .start(&folder.path().join("data"))
        .await;
    let unique = format!("binary-{}", std::process::id());
    buckets_are_elsewhere(&aws, &server, &unique).await;

    for (name, value, why) in [
        ("KEYWAY_S3_ENDPOINT", "s3.example.com", "neither"),
        ("KEYWAY_S3_ACCESS_KEY_ID", "half", "together"),
    ] {
        let broken = ServerOptions::default()
            .argument("--s3-region")
            .argument("us-east-1")
            .variable("KEYWAY_S3_ENDPOINT", "http://127.0.0.1:1")
            .variable(name, value);
        let (code, stderr) = broken.fail(&folder.path().join("other")).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(why), "{stderr}");
    }
}

/// boto3 and the AWS CLI on the buckets of an object store.
#[tokio::test(flavor = "multi_thread")]
async fn real_clients_act_on_the_buckets_of_an_endpoint() {
    let Some(aws) = Aws::here() else { return };
    let made = std::process::Command::new(project().join("scripts/python-env"))
        .stdout(std::process::Stdio::null())
        .status();
    assert!(
        made.unwrap().success(),
        "scripts/python-env makes the clients"
    );
    let folder = tempfile::tempdir().unwrap();
    let server = ServerOptions::default()
        .argument("--s3-endpoint")
        .argument(&aws.endpoint)
        .variable("KEYWAY_S3_ACCESS_KEY_ID", "test")
        .variable("KEYWAY_S3_SECRET_ACCESS_KEY", "test")
        .start(&folder.path().join("data"))
        .await;
    server
        .call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let bucket = format!("clients-{}", std::process::id());
    let output = tokio::process::Command::new(project().join(".venv/bin/python"))
        .arg(project().join("tests/clients/s3_client.py"))
        .args([&format!("http://{}", server.address), bucket.as_str(), "k"])
        .env_remove("AWS_ENDPOINT_URL")
        .env("AWS_ACCESS_KEY_ID", ROOT.0)
        .env("AWS_SECRET_ACCESS_KEY", ROOT.1)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("KEYWAY_TEST_ALWAYS_ENCRYPTS", "1")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let name = BucketName::parse(&bucket).unwrap();
    let found = S3Buckets::new(&aws.config()).encryption(&name).await;
    assert_eq!(found.unwrap().unwrap().key(), Some("k"));
}
