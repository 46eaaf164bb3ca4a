//! The real binaries over the real store, and real clients against them.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test that cannot go on must stop, and one that is skipped says so"
)]

mod access_keys;
mod audit;
mod away;
mod aws_kms;
mod backup;
mod clients;
mod commands;
mod completions;
mod conflicts;
mod doctor;
mod documents;
mod durability;
mod files;
mod folder;
mod heads;
mod healthcheck;
mod hostile;
mod identity;
mod import;
mod kes;
mod kes_config;
mod kes_documents;
mod keyring_file;
mod kms_plugin;
mod log;
mod lost_data;
mod metrics;
mod minio;
mod openapi;
mod operator_events;
mod packages;
mod policies;
mod processes;
mod raw;
mod root;
mod secret_files;
mod secrets_at_rest;
mod serve;
mod service;
mod service_manager;
mod settings;
mod settings_file;
mod signatures;
mod story;
mod tls;
mod token_files;
mod upgrades;
mod walk;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use keyway_domain::ports::{Kind, Record, Revision};
use keyway_tests::{Answer, Server, ServerOptions, Signer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder that a server accepts.
fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

/// A folder inside of it that is not there yet.
fn data_dir(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// The content of a log's compressed records.
fn logged(data_dir: &Path, kind: Kind) -> Vec<String> {
    let table = rusqlite::Connection::open(data_dir.join("keyway.db")).unwrap();
    let mut rows = table
        .prepare("SELECT value FROM logs WHERE kind = ?1")
        .unwrap();
    let values = rows.query_map([kind.as_str()], |row| row.get(0)).unwrap();
    let text = |value| {
        keyway_audit::text(&Record {
            kind,
            id: String::new(),
            revision: Revision([0; 16]),
            value,
            expires_at: None,
        })
    };
    values.map(|value| text(value.unwrap())).collect()
}

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the suite is told by variables how far to go"
)]
fn is_set(variable: &str) -> bool {
    std::env::var(variable).is_ok_and(|value| !value.is_empty())
}

/// Asks again until there is an answer, for up to 20 seconds.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn create(server: &Server, id: &str) -> Answer {
    let answer = server
        .call("POST", "/kms/keys", &format!(r#"{{"key_id":"{id}"}}"#))
        .await;
    answer.ok();
    answer
}

fn on(id: &str) -> String {
    format!(r#"{{"key_id":"{id}"}}"#)
}

async fn generate(server: &Server, id: &str) -> Answer {
    server.call("POST", "/kms/generate-data-key", &on(id)).await
}

async fn decrypt(server: &Server, blob: &str) -> Answer {
    let body = format!(r#"{{"ciphertext_blob":"{blob}"}}"#);
    server.call("POST", "/kms/decrypt", &body).await
}

/// An access key as `keyway access-key create --output json` prints it.
async fn access_key(data_dir: &Path, arguments: &[&str]) -> Value {
    access_key_by(&ServerOptions::default(), data_dir, arguments).await
}

/// As [`access_key`], with the variables of these options.
async fn access_key_by(options: &ServerOptions, data_dir: &Path, arguments: &[&str]) -> Value {
    let folder = data_dir.to_str().unwrap();
    let create = &["access-key", "create", "--output", "json"];
    let all = [&create[..], &["--data-dir", folder], arguments].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// The signer of what [`access_key`] gave.
fn signer(key: &Value) -> Signer {
    let text = |name: &str| key[name].as_str().unwrap();
    let signer = Signer::new(text("access_key_id"), text("secret_access_key"));
    match key["session_token"].as_str() {
        Some(token) => signer.with_token(token),
        None => signer,
    }
}

/// The root access key that a first start prints, once the line is complete.
async fn shown_root(servers: &[&Server]) -> Value {
    eventually("the root access key is shown", async || {
        let stderr: String = servers.iter().map(|server| server.stderr()).collect();
        let field = |name: &str| {
            let (_, rest) = stderr.split_once(&format!("AWS_{name}="))?;
            Some(rest.split_once('\n')?.0.to_owned())
        };
        Some(json!({
            "access_key_id": field("ACCESS_KEY_ID")?,
            "secret_access_key": field("SECRET_ACCESS_KEY")?,
        }))
    })
    .await
}
