//! The setup function makes a deployment's root keyring, once, and checks an adopted one. No other function may.

use std::sync::{Arc, Mutex};

use keyway_tests::{Aws, Deployment, Fate, Function, Proxy, RuntimeApi, binary};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Runs the setup function once, as outside of Lambda. The error is its last line.
pub(crate) async fn set_up(deployment: &Deployment, more: &[(&str, &str)]) -> Result<(), String> {
    let output = Command::new(binary("keyway-fn-setup"))
        .env_clear()
        .envs(deployment.variables())
        .envs(more.iter().copied())
        .output()
        .await
        .unwrap();
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8(output.stderr).unwrap();
    Err(said.lines().last().unwrap_or_default().to_owned())
}

/// Takes one PUT, as S3 does at a presigned address; returns its head and its body.
async fn put_at(listener: &TcpListener) -> (String, Value) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let length = socket.read(&mut chunk).await.unwrap();
        assert!(length > 0, "the request is cut off");
        request.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        if let Ok(body) = serde_json::from_str(body) {
            let head = head.to_lowercase();
            let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            socket.write_all(ok).await.unwrap();
            return (head, body);
        }
    }
}

/// The setup function in a stack: sends it CloudFormation's event, and returns the answer that CloudFormation gets.
async fn changed(deployment: &Deployment, change: &str, more: &[(&str, &str)]) -> Value {
    let setup = Function::start("keyway-fn-setup", deployment, more).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let event = json!({
        "RequestType": change,
        "ResponseURL": format!("http://{}/answer?signature=s3cret", listener.local_addr().unwrap()),
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/keyway/1",
        "RequestId": "request-1",
        "ResourceType": "Custom::Deployment",
        "LogicalResourceId": "Deployment",
        "ResourceProperties": {"ServiceToken": "arn:aws:lambda:us-east-1:123456789012:function:setup"},
    });
    let (invocation, (head, answer)) = tokio::join!(setup.api.invoke(&event), put_at(&listener));
    assert!(invocation.result.is_ok(), "{:?}", invocation.result);
    assert!(
        head.starts_with("put /answer?signature=s3cret http/1.1"),
        "{head}"
    );
    // S3 has signed the address for an empty type.
    assert!(
        head.lines().any(|line| line.trim_end() == "content-type:"),
        "{head}"
    );
    assert_eq!(answer["StackId"], event["StackId"]);
    assert_eq!(answer["RequestId"], "request-1");
    assert_eq!(answer["LogicalResourceId"], "Deployment");
    assert_eq!(answer["PhysicalResourceId"], "keyway-deployment");
    assert!(!setup.log().contains("s3cret"), "{}", setup.log());
    answer
}

async fn keyring_of(aws: &Aws, deployment: &Deployment) -> Option<Vec<u8>> {
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let read = client.get_secret_value().secret_id(&deployment.keyring);
    let value = read.send().await.ok()?;
    Some(value.secret_binary.unwrap().into_inner())
}

fn is_success(answer: &Value) -> bool {
    match answer["Status"].as_str() {
        Some("SUCCESS") => true,
        Some("FAILED") => false,
        _ => panic!("{answer}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_stack_gets_one_keyring_and_a_protected_table() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.new_stack().await;
    assert_eq!(keyring_of(&aws, &deployment).await, None);
    let answer = changed(&deployment, "Create", &[]).await;
    assert!(is_success(&answer), "{answer}");
    let made = keyring_of(&aws, &deployment).await.unwrap();
    let client = aws_sdk_dynamodb::Client::new(&aws.config());
    let described = client.describe_table().table_name(&deployment.table);
    let table = described.send().await.unwrap().table.unwrap();
    assert_eq!(table.deletion_protection_enabled, Some(true));
    // CloudFormation may send an event again, and an update or the end of the stack changes nothing.
    for change in ["Create", "Update", "Delete"] {
        let answer = changed(&deployment, change, &[]).await;
        assert!(is_success(&answer), "{change}: {answer}");
        assert_eq!(keyring_of(&aws, &deployment).await.unwrap(), made);
    }
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let body = json!({"key_id": "k"}).to_string();
    keys.call("POST", "/kms/keys", &body).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn adopted_pair_that_does_not_belong_together_fails_the_stack() {
    let Some(aws) = Aws::here() else { return };
    let (own, other) = (aws.deployment().await, aws.deployment().await);
    let with = |change: &dyn Fn(&mut Deployment)| {
        let mut changed = own.clone();
        change(&mut changed);
        changed
    };
    let (without_value, empty_table) = (aws.secret(None).await, aws.table().await);
    let foreign = with(&|it| it.keyring.clone_from(&other.keyring));
    let without_keyring = with(&|it| it.keyring.clone_from(&without_value));
    let empty = with(&|it| it.table.clone_from(&empty_table));
    let gone = with(&|it| "keyway-no-such-table".clone_into(&mut it.table));
    for (deployment, why) in [
        (&foreign, "belongs to another deployment"),
        (&without_keyring, "missing from the secret store"),
        (&empty, "the table is empty or gone"),
        (&gone, "keyway-no-such-table"),
    ] {
        for change in ["Create", "Update"] {
            let answer = changed(deployment, change, &[]).await;
            assert!(!is_success(&answer), "{answer}");
            let reason = answer["Reason"].as_str().unwrap();
            assert!(reason.contains(why), "{reason}");
        }
        // The stack can be deleted all the same.
        let answer = changed(deployment, "Delete", &[]).await;
        assert!(is_success(&answer), "{answer}");
    }
    assert_eq!(keyring_of(&aws, &without_keyring).await, None);
    let answer = changed(&own, "Create", &[]).await;
    assert!(is_success(&answer), "{answer}");
    // The operator's consent admits an empty table, and no foreign one.
    let consent = [("KEYWAY_ACCEPT_EMPTY_TABLE", "true")];
    assert!(!is_success(&changed(&foreign, "Create", &consent).await));
    assert!(is_success(&changed(&empty, "Create", &consent).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_functions_make_no_keyring() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.new_stack().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let proxy = Proxy::before(&aws.endpoint).await;
    let seen = Arc::clone(&asked);
    proxy.judge(move |_, operation| {
        seen.lock().unwrap().push(operation.to_owned());
        Fate::Pass
    });
    let through = deployment.through(&proxy.endpoint);
    // The audit log would write the table.
    let quiet = [("KEYWAY_AUDIT", "off")];
    for program in ["keyway-fn-keys", "keyway-fn-service", "keyway-fn-all"] {
        let function = Function::start(program, &through, &quiet).await;
        let (path, body) = match program {
            "keyway-fn-service" => ("/kms/configure", r#"{"backend_type":"local"}"#),
            _ => ("/kms/keys", r#"{"key_id":"k"}"#),
        };
        let answer = function.call("POST", path, body).await;
        assert_eq!(answer.status, 503, "{program}: {}", answer.message());
        let log = function.log();
        assert!(
            log.contains("the setup function when the stack is deployed"),
            "{program}: {log}"
        );
    }
    assert_eq!(keyring_of(&aws, &deployment).await, None);
    for operation in asked.lock().unwrap().iter() {
        let reads = ["GetItem", "Query", "GetSecretValue"];
        assert!(
            reads.iter().any(|read| operation.ends_with(read)),
            "{operation}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn event_that_cannot_be_answered_fails_the_invocation() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let setup = Function::start("keyway-fn-setup", &deployment, &[]).await;
    let refused = async |api: &RuntimeApi, event: Value| {
        let error = api.invoke(&event).await.result.unwrap_err();
        error.to_string()
    };
    let said = refused(&setup.api, json!({})).await;
    assert!(said.contains("no event of a custom resource"), "{said}");
    // The answer names the stack, so it goes nowhere but to AWS and over TLS.
    for url in ["http://192.0.2.1/answer", "file:///etc/passwd", ""] {
        let event = json!({
            "RequestType": "Create", "ResponseURL": url, "StackId": "s", "RequestId": "r", "LogicalResourceId": "l",
        });
        let said = refused(&setup.api, event).await;
        assert!(said.contains("neither https:// nor on loopback"), "{said}");
    }
}
