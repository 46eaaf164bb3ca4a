//! `keyway root` over a deployment on AWS: functions notice the rotation, and Secrets Manager's versions move.

use keyway_tests::{Aws, Deployment, Function, ServerOptions};
use serde_json::{Value, json};

use crate::demo::hours_ago;
use crate::setup::set_up;

/// Commands on the deployment, which variables name.
fn options(deployment: &Deployment) -> ServerOptions {
    let variables = deployment.variables().into_iter();
    let plain = ServerOptions::default().without_root();
    variables.fold(plain, |options, (name, value)| {
        options.variable(&name, &value)
    })
}

/// Runs `keyway root` over the deployment; returns its exit code, its JSON and what it says.
async fn root(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let all = [&["root"], arguments, &["--output", "json"]].concat();
    let (code, stdout, stderr) = options(deployment).run(&all).await;
    (
        code,
        serde_json::from_str(&stdout).unwrap_or_default(),
        stderr,
    )
}

/// The stages of the keyring's versions, and the roots that each version holds.
async fn stages(aws: &Aws, deployment: &Deployment) -> Vec<(String, Vec<String>)> {
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let mut found = Vec::new();
    for stage in ["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"] {
        let request = client.get_secret_value().secret_id(&deployment.keyring);
        let Ok(version) = request.version_stage(stage).send().await else {
            continue;
        };
        let keyring: Value =
            serde_json::from_slice(version.secret_binary().unwrap().as_ref()).unwrap();
        let roots = keyring["roots"].as_array().unwrap().iter();
        let roots = roots.map(|root| root["id"].as_str().unwrap().to_owned());
        found.push((stage.to_owned(), roots.collect()));
    }
    found
}

fn on(id: &str) -> String {
    json!({ "key_id": id }).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_rotated_and_retired_under_functions_keeps_everything_open() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    set_up(&deployment, &[]).await.unwrap();
    let keys = Function::start("keyway-fn-keys", &deployment, &[]).await;
    let datakey = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    keys.call("POST", "/kms/keys", &on("k")).await.ok();
    let made = datakey
        .call("POST", "/kms/generate-data-key", &on("k"))
        .await;
    let blob = made.text("ciphertext_blob");

    let (code, done, stderr) = root(&deployment, &["rotate"]).await;
    assert_eq!(
        (code, &done["current"]),
        (Some(0), &json!("r2")),
        "{stderr}"
    );
    let roots = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let expected = [
        ("AWSCURRENT".to_owned(), roots(&["r1", "r2"])),
        ("AWSPREVIOUS".to_owned(), roots(&["r1"])),
    ];
    assert_eq!(stages(&aws, &deployment).await, expected);
    // The function has waited longer than the state TTL, so it wraps under the new root.
    keys.call("POST", "/kms/keys", &on("later")).await.ok();
    let (code, status, stderr) = root(&deployment, &["status"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(status["roots"][0]["records"], 0, "{status}");
    let (code, _, stderr) = root(&deployment, &["retire", "r1"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let expected = [
        ("AWSCURRENT".to_owned(), roots(&["r2"])),
        ("AWSPREVIOUS".to_owned(), roots(&["r1", "r2"])),
    ];
    assert_eq!(stages(&aws, &deployment).await, expected);
    let since = ["--since", &hours_ago()];
    let events = options(&deployment).operator_events(&since).await;
    let events: Vec<_> = events.iter().map(|event| &event["operation"]).collect();
    let rotation = ["audit:Started", "kms:RotateRoot", "kms:RewrapRoot"];
    assert_eq!(
        events,
        [&rotation[..], &["audit:Started", "kms:RetireRoot"]].concat()
    );
    let fresh = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    for function in [&datakey, &fresh] {
        let body = json!({ "ciphertext_blob": blob }).to_string();
        function.call("POST", "/kms/decrypt", &body).await.ok();
        let later = on("later");
        let generated = function.call("POST", "/kms/generate-data-key", &later);
        generated.await.ok();
    }
}
