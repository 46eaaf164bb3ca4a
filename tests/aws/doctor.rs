//! `keyway doctor` and the rotation of access keys over a deployed table.

use keyway_tests::{Aws, Deployment, Function, Signer};
use serde_json::Value;

use crate::{cli, cli_json, keyway};

async fn examine(deployment: &Deployment) -> (Option<i32>, Vec<(String, String)>) {
    let arguments = ["--output", "json"];
    let (code, stdout, stderr) = keyway(deployment, &["doctor"], &arguments).await;
    let told: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = told["findings"].as_array().unwrap().iter();
    let findings = findings.map(|one| (text(one, "code"), text(one, "seen")));
    (code, findings.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn deployed_table_is_examined_and_its_access_keys_are_rotated() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let named = ["create", "--policy", "kms-admin", "--name", "application"];
    let old = cli_json(&deployment, &named).await;
    let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
    let signer = |key: &Value| {
        let (id, secret) = (text(key, "access_key_id"), text(key, "secret_access_key"));
        Signer::new(&id, &secret)
    };
    let rotate = ["rotate", &text(&old, "access_key_id"), "--overlap", "1h"];
    let new = cli_json(&deployment, &rotate).await;
    for key in [&old, &new] {
        let answer = keys.call_as(&signer(key), "GET", "/kms/keys", "").await;
        answer.ok();
    }
    let listed = cli_json(&deployment, &["list"]).await;
    let names = listed.as_array().unwrap().iter().map(|key| &key["name"]);
    assert!(names.clone().count() == 2 && names.clone().all(|name| name == "application"));
    assert_eq!(
        cli(&deployment, &rotate).await.0,
        Some(1),
        "it was rotated already"
    );

    let (code, findings) = examine(&deployment).await;
    assert_eq!(code, Some(0), "{findings:#?}");
    let has = |code: &str| findings.iter().any(|(found, _)| found == code);
    for code in [
        "keyring-ok",
        "records-ok",
        "backend-ok",
        "access-key-expires",
        "clock-ok",
    ] {
        assert!(has(code), "no {code}: {findings:#?}");
    }

    // Another table's keyring, or none.
    let nowhere = aws.new_stack().await;
    let (code, findings) = examine(&nowhere).await;
    assert_eq!(code, Some(1), "{findings:#?}");
    let failed = findings.iter().filter(|(code, _)| code == "check-failed");
    assert!(
        failed.count() >= 4,
        "the other checks say that they could not run: {findings:#?}"
    );
}
