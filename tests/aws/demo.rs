//! `make demo-aws`, and what an operator's commands need on AWS.

use std::time::Duration;

use keyway_tests::{Aws, Deployment, Function, ServerOptions, aws_tool, binary, project};
use serde_json::{Value, json};

/// The binary with AWS's own variables of this deployment, but for the region.
fn keyway(deployment: &Deployment) -> ServerOptions {
    let of_aws = |(name, _): &(String, String)| name.starts_with("AWS_") && name != "AWS_REGION";
    let variables = deployment.variables().into_iter().filter(of_aws);
    variables.fold(
        ServerOptions::default().without_root(),
        |options, (name, value)| options.variable(&name, &value),
    )
}

/// Verifying a whole table reads every hour of the past year.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub(crate) fn hours_ago() -> String {
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(2);
    since.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn demo_goes_from_a_key_to_its_refusal() {
    if Aws::here().is_none() || aws_tool("aws-lambda-rie").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "keyway",
        "keyway-fn-setup",
        "keyway-fn-keys",
        "keyway-fn-datakey",
    ] {
        std::os::unix::fs::symlink(binary(name), folder.path().join(name)).unwrap();
    }
    let demo = tokio::process::Command::new(project().join("scripts/demo-aws"))
        .arg(folder.path())
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&demo.stdout) + String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{said}");
    for part in [
        r#""code":"DecryptionFailed""#,
        r#""code":"AccessDenied""#,
        r#""code":"InvalidKeyState""#,
        "OK: 9 events of 2 writers",
        "Done",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_of_a_table_is_read_without_the_keyring_s_secret() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let on = r#"{"key_id":"k"}"#;
    keys.call("POST", "/kms/keys", on).await.ok();
    let since = hours_ago();
    let place = [
        "--table",
        &deployment.table,
        "--region",
        "us-east-1",
        "--since",
        &since,
    ];
    let keyway = keyway(&deployment);
    let (code, stdout, stderr) = keyway
        .run(&[&["audit", "verify"][..], &place].concat())
        .await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    let (code, stdout, stderr) = keyway
        .run(&[&["audit", "export"][..], &place].concat())
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("kms:CreateKey"), "{stdout}");
}

#[tokio::test(flavor = "multi_thread")]
async fn region_of_the_table_is_an_option_of_serve_too() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let mut server = keyway(&deployment)
        .argument("--region")
        .argument("us-east-1");
    for (option, value) in [
        ("--listen", "127.0.0.1:0"),
        ("--table", &deployment.table),
        ("--root-keyring-secret", &deployment.keyring),
        ("--root-access-key-secret", &deployment.root),
        ("--signing-region", "eu-north-1"),
    ] {
        server = server.argument(option).argument(value);
    }
    let server = server.start_in_place().await;
    let refusal = server.call("GET", "/kms/keys", "").await;
    assert_eq!(refusal.refusal(), (401, "AccessDenied".to_owned()));
    assert!(refusal.message().contains("eu-north-1"), "{refusal:?}");
    server.stop().await;
    // Without a region anywhere, the error names the option.
    let refused = tokio::process::Command::new(binary("keyway"))
        .args(["audit", "verify", "--table", &deployment.table])
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env_remove("AWS_REGION")
        .env_remove("AWS_DEFAULT_REGION")
        .output()
        .await
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("--region"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn janitor_says_what_it_did() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    for id in ["kept", "off"] {
        let on = json!({"key_id": id}).to_string();
        keys.call("POST", "/kms/keys", &on).await.ok();
    }
    let off = r#"{"key_id":"off"}"#;
    keys.call("POST", "/kms/keys/disable", off).await.ok();
    let janitor = Function::start("keyway-fn-janitor", &deployment, &[]).await;
    let result = janitor
        .api
        .invoke(&json!({"source": "aws.events"}))
        .await
        .json();
    let expected = json!({
        "enabled": 1, "disabled": 1, "pending_deletion": 0,
        "destroyed": 0, "referenced": 0, "awaiting": 0, "rotated": 0, "clock_doubted": false,
    });
    assert_eq!(result, expected);
    // The test reads the log by a task of its own.
    let line = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let log = janitor.log();
            let mut lines = log.lines();
            if let Some(line) = lines.find(|line| line.contains("the scheduled job is done")) {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let line: Value = serde_json::from_str(&line).unwrap();
    let report: Value = serde_json::from_str(line["report"].as_str().unwrap()).unwrap();
    assert_eq!(report, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn janitor_that_fails_says_so_in_the_log() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    keys.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let nowhere = [("KEYWAY_TABLE", "keyway-no-such-table")];
    let janitor = Function::start("keyway-fn-janitor", &deployment, &nowhere).await;
    let failed = janitor.api.invoke(&json!({"source": "aws.events"})).await;
    assert!(failed.result.is_err());
    let log = janitor.log();
    assert!(log.contains("the scheduled job failed"), "{log}");
    assert!(log.contains("keyway-no-such-table"), "{log}");
}
