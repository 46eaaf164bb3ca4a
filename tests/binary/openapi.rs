//! Schemathesis, which makes requests of the OpenAPI document, against a real server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use keyway_tests::ServerOptions;
use serde_json::Value;
use tokio::process::Command;

use crate::clients::{REPOSITORY, clients};
use crate::{data_dir, folder, is_set};

/// How many requests are made up for each operation, and for how many seconds at most.
fn budget() -> (&'static str, &'static str) {
    if is_set("KEYWAY_TORTURE") {
        ("2000", "1800")
    } else {
        ("15", "90")
    }
}

#[tokio::test]
async fn no_request_that_the_document_makes_up_is_answered_otherwise_than_it_says() {
    let Some(bin) = clients("schemathesis") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default()
        .variable("KEYWAY_ALLOW_IMMEDIATE_DELETION", "true")
        // Most of these are refusals, each of which would wait for the disk: in the same time three in four fewer are made.
        .variable("KEYWAY_AUDIT", "off")
        .start(&data_dir(&folder))
        .await;
    let url = format!("http://{}", server.address);
    let own = Path::new(REPOSITORY).join("tests/clients");
    let report = folder.path().join("report.json");
    let (examples, seconds) = budget();
    let mut command = Command::new(bin.join("st"));
    command
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .args(["run", "--url", &url, "--max-examples", examples])
        .args(["--max-time", seconds])
        .arg(format!("{url}/openapi.json"))
        .current_dir(folder.path())
        .env("PYTHONPATH", &own)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", "keyway_hooks")
        .env("KEYWAY_URL", &url)
        .env("KEYWAY_FOLDER", folder.path())
        .env("KEYWAY_REPORT", &report)
        .env("AWS_ACCESS_KEY_ID", "test-root")
        .env("AWS_SECRET_ACCESS_KEY", "test-root-secret")
        .env("NO_COLOR", "1")
        .env("COLUMNS", "160")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let timeout = Duration::from_secs(2 * seconds.parse::<u64>().unwrap() + 120);
    let output = tokio::time::timeout(timeout, command.output())
        .await
        .expect("it ends")
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");

    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    let operations = report["operations"].as_object().unwrap();
    let (requests, count) = (&report["requests"], operations.len());
    eprintln!("schemathesis: {requests} requests of {count} operations");
    // Refusals alone would prove little. On a slow machine the time may end before each operation had its turn.
    let in_vain: Vec<&String> = operations
        .iter()
        .filter(|(_, answers)| answers["200"].is_null() && answers["204"].is_null())
        .map(|(operation, _)| operation)
        .collect();
    assert!(5 * in_vain.len() < count, "{in_vain:?} never succeeded");
    let panics = server.log().matches("panicked").count();
    assert_eq!(panics, 0, "{}", server.log());
    assert_eq!(server.stop().await.0, Some(0));
}
