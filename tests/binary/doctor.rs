//! `keyway doctor`: what it finds in a folder, and that it changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keyway_tests::ServerOptions;
use rcgen::{CertificateParams, CertifiedKey, KeyPair, date_time_ymd, generate_simple_self_signed};
use serde_json::Value;

use crate::{access_key, create, data_dir, folder, generate, signer};

struct Told {
    code: Option<i32>,
    findings: Vec<Value>,
    text: String,
}

impl Told {
    /// The subjects of the findings of this code.
    fn subjects(&self, code: &str) -> Vec<&str> {
        let found = self.findings.iter().filter(|one| one["code"] == code);
        found.map(|one| one["subject"].as_str().unwrap()).collect()
    }

    fn seen(&self, code: &str) -> &str {
        let found = self.findings.iter().find(|one| one["code"] == code);
        let found = found.unwrap_or_else(|| panic!("no {code}: {}", self.text));
        found["seen"].as_str().unwrap()
    }

    fn of(&self, severity: &str) -> Vec<&str> {
        let found = self
            .findings
            .iter()
            .filter(|one| one["severity"] == severity);
        found.map(|one| one["code"].as_str().unwrap()).collect()
    }
}

async fn examine_by(options: &ServerOptions, data_dir: &Path, arguments: &[&str]) -> Told {
    let folder = data_dir.to_str().unwrap();
    let own = ["doctor", "--data-dir", folder, "--output", "json"];
    let (code, text, stderr) = options.run(&[&own[..], arguments].concat()).await;
    let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{stderr}"));
    assert_eq!(stderr, "");
    Told {
        code,
        findings: told["findings"].as_array().unwrap().clone(),
        text,
    }
}

async fn examine(data_dir: &Path, arguments: &[&str]) -> Told {
    examine_by(&ServerOptions::default(), data_dir, arguments).await
}

/// Every file below the folder: its content, mode, and the time of its last change.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
            continue;
        }
        let metadata = fs::metadata(&path).unwrap();
        let content = fs::read(&path).unwrap();
        let state = (
            content,
            metadata.mode(),
            metadata.mtime(),
            metadata.mtime_nsec(),
        );
        found.insert(path, state);
    }
    found
}

#[tokio::test]
async fn healthy_deployment_has_no_warning_and_nothing_changes() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "k").await;
    generate(&server, "k").await.ok();
    let user = access_key(&data_dir, &["--policy", "kms-key-user", "--name", "node"]).await;

    let beside = examine(
        &data_dir,
        &["--endpoint", &format!("http://{}", server.address)],
    )
    .await;
    assert_eq!(beside.code, Some(0), "{}", beside.text);
    assert_eq!(beside.of("warning").len() + beside.of("error").len(), 0);
    for code in [
        "files-ok",
        "disk-ok",
        "write-ahead-log-ok",
        "keyring-ok",
        "root-age-ok",
        "records-ok",
        "backend-ok",
        "keys-ok",
        "wrappers-ok",
        "access-keys-ok",
        "clock-ok",
        "audit-ok",
        "endpoint-ok",
        "backup-unknown",
    ] {
        assert!(
            !beside.subjects(code).is_empty(),
            "no {code}: {}",
            beside.text
        );
    }
    server.stop().await;

    let before = files(&data_dir);
    let after_stop = examine(&data_dir, &[]).await;
    assert_eq!(after_stop.code, Some(0), "{}", after_stop.text);
    let after = files(&data_dir);
    assert!(before.keys().eq(after.keys()), "{:?}", after.keys());
    assert!(before == after, "a file changed");
    let secret = user["secret_access_key"].as_str().unwrap();
    assert!(!after_stop.text.contains(secret));
}

#[tokio::test]
async fn log_of_a_killed_server_stays_as_it_is() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "k").await;
    server.kill().await;
    let table_and_log = || {
        let state = |name: &str| fs::read(data_dir.join(name)).unwrap();
        (state("keyway.db"), state("keyway.db-wal"))
    };
    let before = table_and_log();
    assert!(!before.1.is_empty());
    let told = examine(&data_dir, &[]).await;
    assert!(told.seen("keys-ok").starts_with("1 keys"), "{}", told.text);
    assert!(table_and_log() == before, "the log was written back");
}

#[tokio::test]
async fn file_that_others_can_read_is_an_error_with_its_command() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    ServerOptions::default().start(&data_dir).await.stop().await;
    let keyring = data_dir.join("secrets/root-keyring.secret");
    fs::set_permissions(&keyring, Permissions::from_mode(0o644)).unwrap();
    let told = examine(&data_dir, &[]).await;
    assert_eq!(told.code, Some(1));
    assert_eq!(
        told.subjects("file-permissions"),
        [keyring.to_str().unwrap()]
    );
    assert!(
        told.seen("file-permissions").contains("run: chmod 600 '"),
        "{}",
        told.text
    );
    assert!(
        !told.subjects("keyring-unusable").is_empty(),
        "servers refuse it too"
    );
    assert!(
        !told.subjects("audit-empty").is_empty(),
        "the others go on: {}",
        told.text
    );
    fs::set_permissions(&keyring, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(data_dir.join("keyway.db"), Permissions::from_mode(0o640)).unwrap();
    let told = examine(&data_dir, &[]).await;
    assert!(
        !told.subjects("table-unavailable").is_empty(),
        "{}",
        told.text
    );
    assert!(
        !told.subjects("file-permissions").is_empty(),
        "{}",
        told.text
    );
}

#[tokio::test]
async fn missing_folder_and_table_are_errors_and_nothing_is_made() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let told = examine(&data_dir, &[]).await;
    assert_eq!(told.code, Some(1));
    assert!(!told.subjects("file-missing").is_empty(), "{}", told.text);
    assert!(!data_dir.exists());
    ServerOptions::default().start(&data_dir).await.stop().await;
    fs::remove_dir_all(data_dir.join("secrets")).unwrap();
    let told = examine(&data_dir, &[]).await;
    assert_eq!(told.code, Some(1));
    let secrets = data_dir.join("secrets");
    assert_eq!(told.subjects("file-missing"), [secrets.to_str().unwrap()]);
    assert!(
        !told.subjects("keyring-unusable").is_empty(),
        "{}",
        told.text
    );
    assert!(!secrets.exists());
}

#[tokio::test]
async fn wrong_passphrase_is_an_error_that_does_not_repeat_it() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let with =
        |passphrase: &str| ServerOptions::default().variable("KEYWAY_PASSPHRASE", passphrase);
    with("correct horse").start(&data_dir).await.stop().await;
    let told = examine_by(&with("correct horse"), &data_dir, &[]).await;
    assert_eq!(told.code, Some(0), "{}", told.text);
    let told = examine_by(&with("battery staple"), &data_dir, &[]).await;
    assert_eq!(told.code, Some(1));
    assert!(!told.subjects("keyring-unusable").is_empty());
    let failed = told.subjects("check-failed");
    assert_eq!(failed, ["records", "backend", "keys", "access keys"]);
    assert!(!told.text.contains("battery staple"));
}

#[tokio::test]
async fn record_and_event_that_were_changed_are_errors() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    // Each mutation writes a record of events.
    for id in ["k", "l", "m"] {
        create(&server, id).await;
    }
    server.stop().await;
    let table = rusqlite::Connection::open(data_dir.join("keyway.db")).unwrap();
    let changed = table.execute(
        "UPDATE records SET value = CAST(replace(CAST(value AS TEXT), 'enabled', 'disabled') AS BLOB)
         WHERE kind = 'key' AND id = CAST('k' AS BLOB)",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    let told = examine(&data_dir, &[]).await;
    assert_eq!(told.code, Some(1));
    assert_eq!(told.subjects("record-refused"), ["key/k"]);
    assert!(!told.subjects("audit-ok").is_empty(), "{}", told.text);
    let removed = table.execute(
        "DELETE FROM logs WHERE id = (SELECT id FROM logs WHERE kind = 'audit' ORDER BY id LIMIT 1 OFFSET 1)",
        [],
    );
    assert_eq!(removed.unwrap(), 1);
    table.close().unwrap();
    let told = examine(&data_dir, &[]).await;
    assert!(told.seen("audit-gap").contains("missing"), "{}", told.text);
}

/// Writes a certificate that ends at this date, and its key.
fn certificate(folder: &Path, name: &str, end: (i32, u8, u8)) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(end.0, end.1, end.2);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let paths = [".crt", ".key"].map(|end| folder.join(format!("{name}{end}")));
    fs::write(&paths[0], certificate.pem()).unwrap();
    fs::write(&paths[1], key.serialize_pem()).unwrap();
    let [certificate, key] = paths.map(|path| path.to_str().unwrap().to_owned());
    (certificate, key)
}

#[tokio::test]
async fn certificates_are_examined_and_must_fit_their_keys() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    ServerOptions::default().start(&data_dir).await.stop().await;
    let (good, key) = certificate(folder.path(), "good", (2100, 1, 1));
    let (ended, _) = certificate(folder.path(), "ended", (2021, 1, 1));
    let told = examine(&data_dir, &["--tls-cert", &good, "--tls-key", &key]).await;
    assert_eq!(told.code, Some(0), "{}", told.text);
    assert!(
        told.seen("certificate-ok")
            .ends_with("is valid until 2100-01-01T00:00:00Z")
    );
    let told = examine(&data_dir, &["--kes-client-ca", &ended]).await;
    assert_eq!(
        (told.code, told.subjects("certificate-invalid")),
        (Some(1), vec![&*ended])
    );
    let told = examine(&data_dir, &["--tls-cert", &ended, "--tls-key", &key]).await;
    assert_eq!(told.subjects("certificate-unreadable"), [&*key]);
    let told = examine(&data_dir, &["--kes-cert", &key, "--kes-key", &key]).await;
    assert!(told.subjects("certificate-unreadable").contains(&&*key));
    assert!(!told.text.contains("PRIVATE KEY"));
}

#[tokio::test]
async fn endpoint_with_tls_shows_its_certificate_and_a_stopped_one_is_an_error() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    fs::write(&certificate, cert.pem()).unwrap();
    fs::write(&key, signing_key.serialize_pem()).unwrap();
    let server = ServerOptions::default()
        .argument("--tls-cert")
        .argument(certificate.to_str().unwrap())
        .argument("--tls-key")
        .argument(key.to_str().unwrap())
        .start(&data_dir)
        .await;
    let url = format!("https://{}", server.address);
    let told = examine(&data_dir, &["--endpoint", &url]).await;
    assert_eq!(told.code, Some(0), "{}", told.text);
    let shown = format!("{url}/");
    assert_eq!(told.subjects("endpoint-ok"), [&*shown]);
    assert_eq!(told.subjects("certificate-ok"), [&*shown]);
    assert!(
        told.subjects("clock-ok").contains(&&*shown),
        "{}",
        told.text
    );
    server.stop().await;
    let told = examine(&data_dir, &["--endpoint", &url]).await;
    assert_eq!(
        (told.code, told.subjects("endpoint-unavailable")),
        (Some(1), vec![&*shown])
    );
}

#[tokio::test]
async fn backup_is_judged_by_its_age() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    ServerOptions::default().start(&data_dir).await.stop().await;
    let backup = folder.path().join("backup");
    fs::write(&backup, "").unwrap();
    let path = backup.to_str().unwrap();
    let told = examine(&data_dir, &["--backup", path]).await;
    assert_eq!(
        (told.code, told.subjects("backup-ok")),
        (Some(0), vec![path])
    );
    let touched = std::process::Command::new("touch")
        .args(["-d", "2020-01-01T00:00:00Z", path])
        .status();
    assert!(touched.unwrap().success());
    let told = examine(&data_dir, &["--backup", path]).await;
    assert_eq!(told.subjects("backup-old"), [path]);
    assert_eq!(told.code, Some(3), "a warning and no error");
    fs::remove_file(&backup).unwrap();
    let told = examine(&data_dir, &["--backup", path]).await;
    assert_eq!(told.subjects("check-failed"), [path]);
}

#[tokio::test]
async fn text_has_a_line_for_each_finding_and_what_to_do() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    ServerOptions::default().start(&data_dir).await.stop().await;
    let path = data_dir.to_str().unwrap();
    let options = ServerOptions::default();
    let (code, text, stderr) = options.run(&["doctor", "--data-dir", path]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("notice   backup-unknown"), "{text}");
    assert!(
        text.contains(" Name the newest one with --backup."),
        "{text}"
    );
    assert!(stderr.starts_with("0 errors, 0 warnings, "), "{stderr}");
    let (_, help, _) = options.run(&["doctor", "--help"]).await;
    assert!(
        help.contains("1 an error, 2 wrong usage, 3 a warning"),
        "{help}"
    );
    let (code, _, _) = options.run(&["doctor", "--endpoint", "not a url"]).await;
    assert_eq!(code, Some(2));
}

/// Recorded uses reach the list within the interval of upkeep, or when the server stops.
#[tokio::test]
async fn use_of_an_access_key_is_listed_after_the_server_has_recorded_it() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "k").await;
    let made = access_key(&data_dir, &["--policy", "kms-key-user", "--name", "node-1"]).await;
    let idle = access_key(&data_dir, &["--policy", "kms-key-user"]).await;
    let user = signer(&made);
    let path = "/kms/generate-data-key";
    for _ in 0..3 {
        server
            .call_as(&user, "POST", path, &crate::on("k"))
            .await
            .ok();
    }
    server.stop().await;
    let path = data_dir.to_str().unwrap();
    let list = ["access-key", "list", "--data-dir", path];
    let json = [&list[..], &["--output", "json"]].concat();
    let (_, listed, _) = ServerOptions::default().run(&json).await;
    let listed: Vec<Value> = serde_json::from_str(&listed).unwrap();
    let of = |key: &Value| {
        let id = &key["access_key_id"];
        let found = listed.iter().find(|listed| listed["access_key_id"] == *id);
        found.unwrap().clone()
    };
    assert_eq!(of(&made)["name"], "node-1");
    assert_eq!(of(&made)["last_used_at"].as_str().unwrap().len(), 20);
    assert!(of(&idle)["name"].is_null() && of(&idle)["last_used_at"].is_null());
    let (_, text, _) = ServerOptions::default().run(&list).await;
    assert!(text.contains("  name node-1  made 2"), "{text}");
    assert!(
        text.contains("  last used 2") && text.contains("  last used unknown"),
        "{text}"
    );
}
