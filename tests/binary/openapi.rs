//! Schemathesis makes requests from the OpenAPI document, and sends them to a real server.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use keyway_tests::ServerOptions;
use serde_json::Value;
use tokio::process::Command;

use crate::clients::{REPOSITORY, clients};
use crate::{data_dir, folder, is_set};

/// The number of generated requests for each operation, and the limit in seconds.
fn budget() -> (&'static str, &'static str) {
    if is_set("KEYWAY_TORTURE") {
        ("2000", "1800")
    } else {
        ("15", "90")
    }
}

/// Schemathesis on the document's operations that `pick` leaves, with these hooks and variables. It ends well, and tells how
/// often which operation was answered with which status.
async fn schemathesis(
    bin: &Path,
    folder: &Path,
    hooks: &str,
    pick: &[&str],
    variables: &[(&str, &str)],
) -> Value {
    let own = Path::new(REPOSITORY).join("tests/clients");
    let report = folder.join("report.json");
    let (examples, seconds) = budget();
    let mut command = Command::new(bin.join("st"));
    command
        .arg("--config-file")
        .arg(own.join("schemathesis.toml"))
        .args(["run", "--max-examples", examples, "--max-time", seconds])
        .args(pick)
        .arg(Path::new(REPOSITORY).join("shared/openapi/openapi.json"))
        .current_dir(folder)
        .env("PYTHONPATH", &own)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SCHEMATHESIS_HOOKS", hooks)
        .env("KEYWAY_REPORT", &report)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "160")
        .envs(variables.iter().copied())
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
    // Refusals alone prove little. On a slow machine the time may end before every operation is called.
    let in_vain: Vec<&String> = operations
        .iter()
        .filter(|(_, answers)| answers["200"].is_null() && answers["204"].is_null())
        .map(|(operation, _)| operation)
        .collect();
    assert!(5 * in_vain.len() < count, "{in_vain:?} never succeeded");
    report
}

/// KES's API, which has a listener of its own.
const OF_KES: &str = "^/(version$|v1/)";
/// KES's API, and AWS KMS's: AWS's model describes its bodies.
const OF_OTHERS: &str = "^/(version$|v1/|aws(/|$))";

#[tokio::test]
async fn generated_requests_are_answered_as_the_document_says() {
    let Some(bin) = clients("schemathesis") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default()
        .variable("KEYWAY_ALLOW_IMMEDIATE_DELETION", "true")
        // Most answers are refusals. If each waited for the disk, a quarter of the requests would fit into the time.
        .variable("KEYWAY_AUDIT", "off")
        .start(&data_dir(&folder))
        .await;
    let url = format!("http://{}", server.address);
    let pick = ["--url", &url, "--exclude-path-regex", OF_OTHERS];
    let path = folder.path().to_str().unwrap();
    let variables = [
        ("KEYWAY_URL", url.as_str()),
        ("KEYWAY_FOLDER", path),
        ("AWS_ACCESS_KEY_ID", "test-root"),
        ("AWS_SECRET_ACCESS_KEY", "test-root-secret"),
    ];
    schemathesis(&bin, folder.path(), "keyway_hooks", &pick, &variables).await;
    let panics = server.log().matches("panicked").count();
    assert_eq!(panics, 0, "{}", server.log());
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn generated_kes_requests_are_answered_as_the_document_says() {
    let Some(bin) = clients("schemathesis of KES's API") else {
        return;
    };
    let folder = folder();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key) = (file("admin.crt"), file("admin.key"));
    let make = [
        "identity",
        "new",
        "--kind",
        "ecdsa",
        "--cert",
        &certificate,
        "--key",
        &key,
    ];
    let (status, admin, _) = ServerOptions::default().run(&make).await;
    assert_eq!(status, Some(0));
    let server = ServerOptions::default()
        .variable("KEYWAY_AUDIT", "off")
        .variable("KEYWAY_KES_ADMIN", admin.trim())
        .argument("--kes-listen")
        .argument("127.0.0.1:0")
        .start(&data_dir(&folder))
        .await;
    let url = format!("https://{}", server.kes());
    let pick = [
        "--url",
        &url,
        "--tls-verify",
        "false",
        "--request-cert",
        &certificate,
        "--request-cert-key",
        &key,
        "--include-path-regex",
        OF_KES,
        // Their answers do not end.
        "--exclude-path-regex",
        "^/v1/log/",
        // KES's 405 has the method in `Accept`, and no `Allow`.
        "--exclude-checks",
        "unsupported_method",
    ];
    let variables = [
        ("KES_URL", url.as_str()),
        ("KES_CERT", &certificate),
        ("KES_KEY", &key),
    ];
    schemathesis(&bin, folder.path(), "kes_hooks", &pick, &variables).await;
    let panics = server.log().matches("panicked").count();
    assert_eq!(panics, 0, "{}", server.log());
    assert_eq!(server.stop().await.0, Some(0));
}
