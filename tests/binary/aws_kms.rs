//! Clients of AWS KMS, and what AWS itself was recorded to answer.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use keyway_tests::{Server, ServerOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};

use crate::clients::{REPOSITORY, are_made, clients, node, run};
use crate::{data_dir, folder, is_set};

/// The folder of the larger clients, installed first if needed. `None`, and a printed line, if they cannot be installed;
/// in CI that is a failure.
pub(crate) fn larger_clients(test: &str) -> Option<PathBuf> {
    static MADE: OnceLock<bool> = OnceLock::new();
    are_made(&MADE, "scripts/kms-clients", test)
        .then(|| Path::new(REPOSITORY).join(".cache/kms-clients"))
}

fn file(path: &str) -> String {
    let path = Path::new(REPOSITORY).join(path);
    path.to_str().unwrap().to_owned()
}

/// Runs a script of tests/clients by this Python with root's access key; returns its lines.
async fn python(python: &Path, script: &str, server: &Server, arguments: &[&str]) -> Vec<Value> {
    let script = file(&format!("tests/clients/{script}"));
    let key = json!({"access_key_id": "test-root", "secret_access_key": "test-root-secret"});
    let arguments = [&[script.as_str()], arguments].concat();
    let (ended_well, stdout, stderr) = run(python, &key, &arguments).await;
    assert!(ended_well, "{stdout}{stderr}{}", server.log());
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn endpoint(server: &Server) -> String {
    format!("http://{}", server.address)
}

/// Stops a server, which must not have logged a panic.
async fn stopped(server: Server) {
    let (code, log, _) = server.stop().await;
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[tokio::test]
async fn recorded_answers_of_aws_are_those_of_the_server() {
    let Some(bin) = clients("boto3") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default()
        .argument("--aws-account-id")
        .argument("111111111111")
        .start(&data_dir(&folder))
        .await;
    let arguments = [
        &endpoint(&server),
        &file("tests/data/aws-kms-recordings.json"),
        &file("tests/data/aws-kms-differences.json"),
    ];
    let arguments = arguments.map(String::as_str);
    let bin = bin.join("python3");
    let cases = python(&bin, "kms_recordings.py", &server, &arguments).await;
    assert_eq!(cases.len(), 58);
    let alike = cases.iter().filter(|case| case["differ"] == 0).count();
    assert!(alike >= 48, "{alike}");
    stopped(server).await;
}

#[tokio::test]
async fn boto3_finds_what_the_model_of_aws_promises() {
    let Some(bin) = clients("boto3") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let arguments = [endpoint(&server)];
    let arguments = arguments.each_ref().map(String::as_str);
    let bin = bin.join("python3");
    let checks = python(&bin, "kms_client.py", &server, &arguments).await;
    assert_eq!(checks.len(), 4, "{checks:?}");
    let served = checks[3]["served"].as_array().unwrap().len();
    let unsupported = checks[3]["unsupported"].as_array().unwrap().len();
    assert!(served >= 30, "{checks:?}");
    assert_eq!(served + unsupported, 56, "{checks:?}");
    stopped(server).await;
}

#[tokio::test]
async fn generated_bodies_are_answered_with_200_or_a_code_of_aws() {
    let Some(bin) = clients("Hypothesis") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default()
        .variable("KEYWAY_AUDIT", "off")
        .start(&data_dir(&folder))
        .await;
    let examples = match is_set("KEYWAY_TORTURE") {
        true => "2000",
        false => "40",
    };
    let endpoint = endpoint(&server);
    let bin = bin.join("python3");
    let lines = python(&bin, "kms_fuzz.py", &server, &[&endpoint, examples]).await;
    // Refusals alone prove little.
    let succeeded = lines[0]["succeeded"].as_array().unwrap().len();
    assert!(succeeded >= 24, "{lines:?}");
    stopped(server).await;
}

/// Goes through a key and a file with this program of AWS's CLI.
async fn cli(bin: &Path, aws: &Path) {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let endpoint = endpoint(&server);
    let arguments = [aws.to_str().unwrap(), &endpoint];
    let bin = bin.join("python3");
    let checks = python(&bin, "kms_cli.py", &server, &arguments).await;
    assert_eq!(checks.len(), 2, "{checks:?}");
    stopped(server).await;
}

#[tokio::test]
async fn aws_cli_version_1_encrypts_a_file() {
    let Some(bin) = clients("the AWS CLI") else {
        return;
    };
    cli(&bin, &bin.join("aws")).await;
}

#[tokio::test]
async fn aws_cli_version_2_encrypts_a_file() {
    let test = "version 2 of the AWS CLI";
    let (Some(bin), Some(larger)) = (clients(test), larger_clients(test)) else {
        return;
    };
    cli(&bin, &larger.join("bin/aws2")).await;
}

#[tokio::test]
async fn aws_sdk_and_encryption_sdk_for_javascript_use_keys() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    node("kms_client.mjs", &server, &[&endpoint(&server)], 5).await;
    stopped(server).await;
}

#[tokio::test]
async fn encryption_sdk_for_python_encrypts_with_key_commitment() {
    let Some(larger) = larger_clients("AWS's Encryption SDK") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let endpoint = endpoint(&server);
    let bin = larger.join("venv/bin/python3");
    let checks = python(&bin, "kms_encryption_sdk.py", &server, &[&endpoint]).await;
    assert_eq!(checks.len(), 3, "{checks:?}");
    stopped(server).await;
}

#[tokio::test]
async fn mongodb_encrypts_values_with_a_data_key_over_tls() {
    let Some(larger) = larger_clients("MongoDB's client-side encryption") else {
        return;
    };
    let folder = folder();
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    let certificate = certificate.to_str().unwrap();
    let server = ServerOptions::default()
        .argument("--tls-cert")
        .argument(certificate)
        .argument("--tls-key")
        .argument(key.to_str().unwrap())
        .start(&data_dir(&folder))
        .await;
    let endpoint = format!("https://{}", server.address);
    let bin = larger.join("venv/bin/python3");
    let arguments = [endpoint.as_str(), certificate];
    let checks = python(&bin, "kms_mongocrypt.py", &server, &arguments).await;
    assert_eq!(checks.len(), 3, "{checks:?}");
    stopped(server).await;
}

/// Runs a script that starts a server of its own in a folder of its own.
async fn program(name: &str, program: &str, script: &str) {
    let Some(larger) = larger_clients(name) else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    let program = larger.join("bin").join(program);
    let endpoint = endpoint(&server);
    let arguments = [program.to_str().unwrap(), &endpoint, own.to_str().unwrap()];
    let bin = larger.join("venv/bin/python3");
    let checks = python(&bin, script, &server, &arguments).await;
    assert_eq!(checks.len(), 3, "{checks:?}");
    stopped(server).await;
}

#[tokio::test]
async fn seaweedfs_encrypts_objects() {
    program("SeaweedFS", "weed", "kms_seaweedfs.py").await;
}

#[tokio::test]
async fn openbao_unseals_itself() {
    program("OpenBao", "bao", "kms_openbao.py").await;
}
