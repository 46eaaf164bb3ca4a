//! The lines of real functions' logs that the template's metric filters count, each with an alarm.

use std::collections::BTreeSet;

use keyway_deployment_assembly::SystemRandom;
use keyway_domain::ports::{Consistency, Kind, Random, Record, Revision, TableReader, TableWriter};
use keyway_tests::{Aws, Deployment, Fate, Function, Proxy, project};
use serde_json::{Value, json};

/// The starts of messages that the filters of this metric count: `{ $.message = "START*" || ... }`.
fn counted(metric: &str) -> BTreeSet<String> {
    let template = std::fs::read_to_string(project().join("template.yaml")).unwrap();
    let mut starts = BTreeSet::new();
    let mut pattern = "";
    for line in template.lines().map(str::trim) {
        if let Some(found) = line.strip_prefix("FilterPattern: '{ ") {
            pattern = found.strip_suffix(" }'").unwrap();
        }
        if line.strip_prefix("MetricName: ") == Some(metric) && !pattern.is_empty() {
            for part in std::mem::take(&mut pattern).split(" || ") {
                let start = part.strip_prefix("$.message = \"").unwrap();
                starts.insert(start.strip_suffix("*\"").unwrap().to_owned());
            }
        }
    }
    assert!(!starts.is_empty(), "no filter counts {metric}");
    starts
}

/// The starts of messages of this metric that the log has.
fn found(metric: &str, log: &str) -> BTreeSet<String> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let messages: Vec<String> = lines
        .filter_map(|line: Value| line["message"].as_str().map(str::to_owned))
        .collect();
    let is_in_log = |start: &String| messages.iter().any(|message| message.starts_with(start));
    counted(metric).into_iter().filter(is_in_log).collect()
}

async fn make_key(deployment: &Deployment) {
    let keys = Function::start("keyway-fn-keys", deployment, &[]).await;
    let on = json!({"key_id": "k"}).to_string();
    keys.call("POST", "/kms/keys", &on).await.ok();
    assert!(found("AuditFailures", &keys.log()).is_empty());
    assert!(found("UnwrapFailures", &keys.log()).is_empty());
}

async fn data_key(function: &Function) -> u16 {
    let on = json!({"key_id": "k"}).to_string();
    let answer = function.call("POST", "/kms/generate-data-key", &on).await;
    answer.status.as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_log_that_cannot_be_written_is_counted() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    make_key(&deployment).await;
    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(|_, operation| {
        if operation.ends_with("PutItem") || operation.ends_with("UpdateItem") {
            Fate::Fail
        } else {
            Fate::Pass
        }
    });
    let through = deployment.through(&proxy.endpoint);
    let datakey = Function::start("keyway-fn-datakey", &through, &[]).await;
    assert_eq!(data_key(&datakey).await, 503);
    let log = datakey.log();
    assert_eq!(
        found("AuditFailures", &log),
        counted("AuditFailures"),
        "{log}"
    );
    assert!(found("UnwrapFailures", &log).is_empty(), "{log}");
}

/// Puts other bytes in the place of each wrapped secret.
fn spoil(node: &mut Value) {
    match node {
        Value::Object(fields) if fields.contains_key("wrapper") => {
            let bytes = fields["bytes"].as_str().unwrap();
            let other = if bytes.contains('B') { 'C' } else { 'B' };
            let changed: String = bytes
                .char_indices()
                .map(|(at, byte)| if at == bytes.len() - 8 { other } else { byte })
                .collect();
            fields["bytes"] = changed.into();
        }
        Value::Object(fields) => fields.values_mut().for_each(spoil),
        Value::Array(values) => values.iter_mut().for_each(spoil),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn key_that_cannot_be_unwrapped_is_counted() {
    let Some(aws) = Aws::here() else { return };
    let deployment = aws.deployment().await;
    make_key(&deployment).await;
    let table = deployment.signed_table(&aws);
    let read = table.get(Kind::Key, "k", Consistency::Strong).await;
    let seen = read.unwrap().unwrap();
    let mut key: Value = serde_json::from_slice(&seen.value).unwrap();
    spoil(&mut key);
    let mut revision = [0; 16];
    SystemRandom::default().fill(&mut revision).unwrap();
    let spoiled = Record {
        value: serde_json::to_vec(&key).unwrap(),
        revision: Revision(revision),
        ..seen.clone()
    };
    assert_ne!(spoiled.value, seen.value);
    table.replace(&spoiled, seen.revision).await.unwrap();
    let datakey = Function::start("keyway-fn-datakey", &deployment, &[]).await;
    assert_ne!(data_key(&datakey).await, 200);
    let mut seen = found("UnwrapFailures", &datakey.log());

    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(|_, operation| match operation {
        "secretsmanager.GetSecretValue" => Fate::Fail,
        _ => Fate::Pass,
    });
    let through = deployment.through(&proxy.endpoint);
    let datakey = Function::start("keyway-fn-datakey", &through, &[]).await;
    assert_ne!(data_key(&datakey).await, 200);
    seen.extend(found("UnwrapFailures", &datakey.log()));
    assert_eq!(seen, counted("UnwrapFailures"), "{}", datakey.log());
}
