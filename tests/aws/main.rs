//! Stores and functions over services that speak AWS's protocols, as `scripts/with-aws` starts them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod alarms;
mod alternator;
mod backup;
mod buckets;
mod cost;
mod demo;
mod doctor;
mod drills;
mod functions;
mod import;
mod janitor;
mod kes;
mod lost_table;
mod messages;
mod reencrypt;
mod root;
mod secrets;
mod setup;
mod table;
mod tools;
mod vault;
mod warm;

use std::time::{Instant, SystemTime};

use keyway_tests::{Deployment, ServerOptions};
use serde_json::Value;

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real service carry the real time"
)]
fn now_of_requests() -> SystemTime {
    SystemTime::now()
}

/// Runs `keyway access-key` over the deployment's table: exit code, stdout, stderr.
async fn cli(deployment: &Deployment, arguments: &[&str]) -> (Option<i32>, String, String) {
    let command = [&["access-key"], arguments].concat();
    keyway(deployment, &command[..2], &command[2..]).await
}

/// Runs a command of `keyway` over the deployment's table: exit code, stdout, stderr.
async fn keyway(
    deployment: &Deployment,
    command: &[&str],
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let mut options = ServerOptions::default().without_root();
    for (name, value) in deployment.variables() {
        // Keyway's own settings come as arguments.
        if name.starts_with("AWS_") && name != "AWS_REGION" {
            options = options.variable(&name, &value);
        }
    }
    let place = [
        "--table",
        &deployment.table,
        "--region",
        "us-east-1",
        "--root-keyring-secret",
        &deployment.keyring,
    ];
    let all = [command, &place, arguments].concat();
    options.run(&all).await
}

/// As [`cli`], where it succeeds and prints JSON.
async fn cli_json(deployment: &Deployment, arguments: &[&str]) -> Value {
    let all = [arguments, &["--output", "json"]].concat();
    let (code, stdout, stderr) = cli(deployment, &all).await;
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}
