//! The functions' real bootstraps under a Runtime API, over one deployment.

use std::time::Duration;

use keyway_tests::{
    Answer, Aws, Fate, Function, Gateway, Proxy, ServerOptions, Signer, every_route,
    http_api_event, obeys, serves,
};
use serde_json::{Value, json};

use crate::setup::set_up;
use crate::{cli, cli_json, now};

const ROOT: (&str, &str) = ("test-root", "test-root-secret");

fn on(id: &str) -> String {
    json!({"key_id": id}).to_string()
}

async fn create(keys: &Function, id: &str) {
    keys.call("POST", "/kms/keys", &on(id)).await.ok();
}

async fn generate(function: &Function, id: &str) -> Answer {
    let generate = "/kms/generate-data-key";
    function.call("POST", generate, &on(id)).await
}

async fn decrypt(function: &Function, blob: &str) -> Answer {
    let body = json!({"ciphertext_blob": blob}).to_string();
    function.call("POST", "/kms/decrypt", &body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn session_of_one_function_works_in_others_as_its_policy_says() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let url = [
        ("KEYWAY_EVENT_SOURCE", "function-url"),
        ("KEYWAY_AWS_ACCOUNT_ID", "123456789012"),
    ];
    let all = Function::start("keyway-fn-all", &deployment, &url).await;
    create(&all, "app").await;
    let (id, secret) = ROOT;
    let root = Signer::new(id, secret).for_service("sts");
    let policy = json!({"Statement": {"Effect": "Allow", "Action": "kms:ListKeys"}}).to_string();
    let policy: String = policy.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let form =
        format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=nightly&Policy={policy}");
    let begun = all.call_at(&root, "POST", "/", &form).await;
    assert_eq!(begun.status, 200, "{}", all.log());
    let body = String::from_utf8(begun.body.to_vec()).unwrap();
    let text = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let arn = format!("arn:aws:sts::123456789012:assumed-role/{id}/nightly");
    assert_eq!(text("Arn"), arn);
    let session = Signer::new(&text("AccessKeyId"), &text("SecretAccessKey"));
    let session = session.with_token(&text("SessionToken"));
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    for function in [&all, &keys] {
        let listed = function
            .call_as(&session, "GET", "/kms/keys", "")
            .await
            .ok();
        assert_eq!(listed["keys"][0]["key_id"], "app");
        let refused = function.call_as(&session, "POST", "/kms/keys", "{}").await;
        assert_eq!(refused.refusal(), (403, "AccessDenied".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_through_separate_functions_work() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    // Another process uses a new version within the state TTL; the suite does not wait for that.
    let at_once = [("KEYWAY_STATE_TTL_SECONDS", "0")];
    let keys = Function::start("keyway-fn-keys", &deployment, &at_once).await;
    let datakey = Function::start("keyway-fn-datakey", &deployment, &at_once).await;
    let service = Function::start("keyway-fn-service", &deployment, &at_once).await;
    let buckets = Function::start("keyway-fn-bucket-encryption", &deployment, &at_once).await;
    let gateway = Gateway {
        keys: &keys,
        datakey: &datakey,
        service: &service,
        buckets: &buckets,
    };
    every_route(&gateway, ROOT, "separate").await;
    for (function, foreign) in [
        (&keys, "/kms/decrypt"),
        (&datakey, "/kms/keys/enable"),
        (&service, "/kms/keys/enable"),
        (&keys, "/kms/start"),
        (&buckets, "/kms/keys/enable"),
    ] {
        let answer = function.call("POST", foreign, "{}").await;
        assert_eq!(answer.refusal(), (404, "NotFound".to_owned()));
    }
    for log in [keys.log(), datakey.log(), service.log(), buckets.log()] {
        assert!(!log.contains("\"ERROR\""), "{log}");
    }
}

/// The documents begin by configuring the service, so a deployment's first call may be this one.
#[tokio::test(flavor = "multi_thread")]
async fn service_function_may_be_the_first() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let idle = [("KEYWAY_START", "false"), ("KEYWAY_STATE_TTL_SECONDS", "0")];
    let service = Function::start("keyway-fn-service", &deployment, &idle).await;
    let status = service.call("GET", "/kms/service-status", "").await.ok();
    assert_eq!(status["status"], "NotConfigured");
    let local = r#"{"backend_type":"local","default_key_id":"first"}"#;
    service.call("POST", "/kms/configure", local).await.ok();
    service.call("POST", "/kms/start", "").await.ok();
    let keys = Function::start("keyway-fn-keys", &deployment, &idle).await;
    create(&keys, "first").await;
    let datakey = Function::start("keyway-fn-datakey", &deployment, &idle).await;
    let made = datakey.call("POST", "/kms/generate-data-key", "{}").await;
    assert_eq!(made.text("key_id"), "first");
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_through_one_streaming_function_work() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let streamed = [
        ("KEYWAY_EVENT_SOURCE", "function-url"),
        ("KEYWAY_RESPONSE_STREAMING", "true"),
    ];
    let all = Function::start("keyway-fn-all", &deployment, &streamed).await;
    let gateway = Gateway {
        keys: &all,
        datakey: &all,
        service: &all,
        buckets: &all,
    };
    every_route(&gateway, ROOT, "all").await;
}

/// The same suite on the standalone binary, over a folder and over the table.
#[tokio::test(flavor = "multi_thread")]
async fn routes_on_the_standalone_binary_work() {
    let options = ServerOptions::default().argument("--allow-immediate-deletion");
    let folder = tempfile::tempdir().unwrap();
    let server = options.start(&folder.path().join("data")).await;
    every_route(&server, ROOT, "folder").await;

    let Some(aws) = Aws::here() else { return };
    let mut options = options.without_root();
    for (name, value) in aws.deployment().await.variables() {
        // The binary warns of a variable that only functions know.
        if name != "KEYWAY_EVENT_SOURCE" {
            options = options.variable(&name, &value);
        }
    }
    let server = options.start(folder.path()).await;
    every_route(&server, ROOT, "table").await;
    assert_eq!(server.first_line()["status"], "Running");
    assert!(server.first_line()["table"].is_string());
    assert!(!folder.path().join("keyway.db").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn function_without_lambda_serves_http() {
    let Some(aws) = Aws::here() else { return };
    let mut options = ServerOptions::function("keyway-fn-all").without_root();
    for (name, value) in aws.deployment().await.variables() {
        options = options.variable(&name, &value);
    }
    let server = options
        .variable("KEYWAY_LISTEN", "127.0.0.1:0")
        .start_in_place()
        .await;
    every_route(&server, ROOT, "local").await;
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_of_one_function_agree() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.new_stack().await;
    // This instance starts before the stack's setup function has run.
    let early = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    let answer = generate(&early, "k").await;
    assert_eq!(answer.refusal(), (503, "ServiceNotConfigured".to_owned()));
    set_up(&deployment, &[]).await.unwrap();
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let late = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    // The first one does not ask for the keyring again at once.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    for id in ["k", "l", "m"] {
        create(&keys, id).await;
        let (a, b) = (generate(&early, id).await, generate(&late, id).await);
        for (sealed, opener) in [(&a, &late), (&b, &early)] {
            let opened = decrypt(opener, &sealed.text("ciphertext_blob")).await;
            assert_eq!(opened.text("plaintext"), sealed.text("plaintext_key"));
        }
    }
    // A new version opens in every process at once.
    keys.call("POST", "/kms/keys/rotate", &on("k")).await.ok();
    let fresh = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    let sealed = generate(&fresh, "k").await;
    assert_eq!(sealed.ok()["key_version"], 2);
    for opener in [&early, &late] {
        let opened = decrypt(opener, &sealed.text("ciphertext_blob")).await;
        assert_eq!(opened.text("plaintext"), sealed.text("plaintext_key"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_state_is_used_no_longer_than_the_ttl() {
    let Some(aws) = Aws::here() else { return };
    for seconds in [0, 1] {
        let deployment = aws.deployment().await;
        let seconds_text = seconds.to_string();
        let more = [("KEYWAY_STATE_TTL_SECONDS", seconds_text.as_str())];
        let keys = Function::start("keyway-fn-keys", &deployment, &more).await;
        let a = Function::start("keyway-fn-datakey", &deployment, &more).await;
        let b = Function::start("keyway-fn-datakey", &deployment, &more).await;
        let ttl = Duration::from_secs(seconds);
        for (id, method, path) in [
            ("disabled", "POST", "/kms/keys/disable"),
            ("deleted", "DELETE", "/kms/keys/delete"),
        ] {
            create(&keys, id).await;
            let blob = generate(&a, id).await.text("ciphertext_blob");
            assert!(serves(&decrypt(&b, &blob).await));
            keys.call(method, path, &on(id)).await.ok();
            let returned = now();
            tokio::join!(
                obeys(returned + ttl, async || serves(&decrypt(&a, &blob).await)),
                obeys(returned + ttl, async || serves(&generate(&b, id).await)),
            );
        }
        let made = cli_json(&deployment, &["create", "--policy", "kms-key-user"]).await;
        let id = made["access_key_id"].as_str().unwrap();
        let holder = Signer::new(id, made["secret_access_key"].as_str().unwrap());
        let admitted = async |function: &Function| {
            let answer = function
                .call_as(&holder, "POST", "/kms/decrypt", "{}")
                .await;
            answer.status != 401
        };
        assert!(admitted(&a).await && admitted(&b).await);
        let (code, _, stderr) = cli(&deployment, &["revoke", id]).await;
        let returned = now();
        assert_eq!(code, Some(0), "{stderr}");
        tokio::join!(
            obeys(returned + ttl, async || admitted(&a).await),
            obeys(returned + ttl, async || admitted(&b).await),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keyring_that_cannot_be_read_is_503_until_it_can() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(|_, operation| match operation {
        "secretsmanager.GetSecretValue" => Fate::Fail,
        _ => Fate::Pass,
    });
    let through = deployment.through(&proxy.endpoint);
    let mut keys = Function::start("keyway-fn-keys", &through, &[]).await;
    let answer = keys.call("POST", "/kms/keys", &on("k")).await;
    assert_eq!(answer.refusal(), (503, "BackendError".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(
        keys.log()
            .contains("no key can be used until the root keyring can"),
        "{}",
        keys.log()
    );
    proxy.judge(|_, _| Fate::Pass);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    create(&keys, "l").await;
    assert!(keys.lives());

    // The keyring is gone: no function makes another one in its place.
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let deleted = client.delete_secret().secret_id(&deployment.keyring);
    deleted
        .force_delete_without_recovery(true)
        .send()
        .await
        .unwrap();
    for program in ["keyway-fn-keys", "keyway-fn-datakey"] {
        let function = Function::start(program, &deployment, &[]).await;
        let (path, body) = match program {
            "keyway-fn-keys" => ("/kms/keys/rotate", on("l")),
            _ => ("/kms/generate-data-key", on("l")),
        };
        let answer = function.call("POST", path, &body).await;
        assert_eq!(
            answer.refusal(),
            (503, "BackendError".to_owned()),
            "{program}"
        );
        assert!(
            function.log().contains("missing from the secret store"),
            "{}",
            function.log()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_and_failure_of_the_table_are_told_apart() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let proxy = Proxy::before(&aws.endpoint).await;
    // With the audit log on, its own write would fail first, and no request would reach the table.
    let unaudited = [("KEYWAY_AUDIT", "off")];
    let deployment = deployment.through(&proxy.endpoint);
    let keys = Function::start("keyway-fn-keys", &deployment, &unaudited).await;
    create(&keys, "k").await;
    let before = keys.call("GET", "/kms/keys/k", "").await.ok();
    for (fate, status, code) in [
        (Fate::Throttle, 429, "Throttled"),
        (Fate::Fail, 503, "BackendError"),
        (Fate::LoseRequest, 503, "BackendError"),
    ] {
        proxy.judge(move |_, _| fate);
        let answer = keys.call("POST", "/kms/keys/rotate", &on("k")).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()));
        assert_eq!(answer.header("retry-after"), Some("1"));
        proxy.judge(|_, _| Fate::Pass);
        assert_eq!(keys.call("GET", "/kms/keys/k", "").await.ok(), before);
    }
    // The answer to the write is lost: the SDK sends it again, and the key is rotated once.
    proxy.judge({
        let lost = std::sync::atomic::AtomicBool::new(false);
        move |_, operation| {
            let first = operation.ends_with("UpdateItem")
                && !lost.swap(true, std::sync::atomic::Ordering::SeqCst);
            if first { Fate::LoseAnswer } else { Fate::Pass }
        }
    });
    let rotated = keys.call("POST", "/kms/keys/rotate", &on("k")).await.ok();
    assert_eq!(rotated["key_metadata"]["key_version"], 2);
}

fn iam(mut event: Value, arn: &str) -> Value {
    event["requestContext"]["authorizer"]["iam"] = json!({
        "accessKey": "AKIAIOSFODNN7EXAMPLE", "accountId": "123456789012", "callerId": "AIDA:x",
        "cognitoIdentity": null, "principalOrgId": null, "userArn": arn, "userId": "AIDA:x",
    });
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn iam_caller_of_the_gateway_is_the_caller() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let more = [("KEYWAY_AUTH", "iam")];
    let keys = Function::start("keyway-fn-keys", &deployment, &more).await;
    let unsigned = |method: &str, path: &str, body: &str| {
        http_api_event(
            &http::Request::builder()
                .method(method)
                .uri(format!("/rustfs/admin/v3{path}"))
                .header("host", keyway_tests::FUNCTION_HOST)
                // A header that every client can write proves no identity.
                .header("x-amz-user-arn", "arn:aws:iam::123456789012:user/forged")
                .body(bytes::Bytes::copy_from_slice(body.as_bytes()))
                .unwrap(),
        )
    };
    let create = unsigned("POST", "/kms/keys", &on("k"));
    let arn = "arn:aws:sts::123456789012:assumed-role/storage/session";
    let made = keys.send(&iam(create.clone(), arn)).await.ok();
    assert_eq!(made["key_metadata"]["created_by"], arn);
    assert_eq!(keys.send(&create).await.refusal().0, 401);
    let signed = keys.call("GET", "/kms/keys/k", "").await;
    assert_eq!(
        signed.refusal().0,
        401,
        "a signature of our own proves nothing here"
    );

    let more = [("KEYWAY_AUTH", "iam"), ("KEYWAY_IAM_POLICY", "kms-auditor")];
    let keys = Function::start("keyway-fn-keys", &deployment, &more).await;
    let described = keys
        .send(&iam(unsigned("GET", "/kms/keys/k", ""), arn))
        .await;
    described.ok();
    let refused = keys
        .send(&iam(unsigned("POST", "/kms/keys", &on("l")), arn))
        .await;
    assert_eq!(refused.refusal(), (403, "AccessDenied".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn access_keys_are_managed_over_the_deployed_table() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    create(&keys, "app-1").await;
    create(&keys, "other").await;
    let limited = ["create", "--policy", "kms-auditor", "--key", "app-*"];
    let made = cli_json(&deployment, &limited).await;
    let id = made["access_key_id"].as_str().unwrap();
    let holder = Signer::new(id, made["secret_access_key"].as_str().unwrap());
    keys.call_as(&holder, "GET", "/kms/keys/app-1", "")
        .await
        .ok();
    let refused = keys.call_as(&holder, "GET", "/kms/keys/other", "").await;
    assert_eq!(refused.refusal().0, 403);
    let listed = cli_json(&deployment, &["list"]).await;
    assert_eq!(listed[0]["access_key_id"], id);
    let (code, stdout, _) = cli(&deployment, &["revoke", id]).await;
    assert_eq!(
        (code, stdout.trim()),
        (Some(0), format!("revoked {id}").as_str())
    );
    let (code, _, stderr) = cli(&deployment, &["revoke", id]).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("there is no access key"), "{stderr}");

    // A wrong table or secret name does not make a new deployment.
    let nowhere = aws.new_stack().await;
    let (code, _, _) = cli(&nowhere, &["create", "--policy", "kms-admin"]).await;
    assert_eq!(code, Some(1));
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let kept = client
        .get_secret_value()
        .secret_id(&nowhere.keyring)
        .send()
        .await;
    assert!(kept.is_err(), "no keyring was made");
}

/// By default CloudWatch gets metrics of failures, and no line while nothing fails.
#[tokio::test(flavor = "multi_thread")]
async fn failed_audit_write_is_in_the_log_and_its_metrics_and_success_is_not() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    create(&keys, "app").await;
    let proxy = Proxy::before(&aws.endpoint).await;
    let through = deployment.through(&proxy.endpoint);
    let datakey = Function::start("keyway-fn-datakey", &through, &[]).await;
    generate(&datakey, "app").await.ok();
    assert!(!datakey.log().contains("CloudWatchMetrics"));
    proxy.judge(|_, operation| match operation {
        "DynamoDB_20120810.PutItem" => Fate::Fail,
        _ => Fate::Pass,
    });
    // The refusal of a known caller must be in the table before its answer.
    assert_eq!(generate(&datakey, "unknown").await.status, 503);
    while !datakey.log().contains("CloudWatchMetrics") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = datakey.log();
    let line = log.lines().find(|line| line.contains("CloudWatchMetrics"));
    let line: Value = serde_json::from_str(line.unwrap()).unwrap();
    for name in ["keyway_store_failures_total", "keyway_failed_answers_total"] {
        assert_eq!(line[name], 1, "{line}");
    }
    // A metric filter of the template counts this line.
    assert!(
        log.contains(r#""message":"the audit log cannot be written to the table""#),
        "{log}"
    );
}
