//! Several `keyway serve` over one database.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyway_tests::{Link, LinkState, Postgres, Server, ServerOptions, Signer};
use serde_json::json;
use tempfile::TempDir;

use crate::{shared, through};

#[expect(clippy::disallowed_methods, reason = "real processes run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

pub(crate) fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

/// A node over this database, its keyring in this folder.
pub(crate) fn node(url: &str, keyring: &Path) -> ServerOptions {
    ServerOptions::default()
        .variable("KEYWAY_POSTGRES", url)
        .variable("KEYWAY_ROOT_KEYRING_FILE", keyring.to_str().unwrap())
}

/// A copy of the keyring for another node.
pub(crate) fn copied(keyring: &Path, to: &Path) -> PathBuf {
    std::fs::create_dir(to).unwrap();
    std::fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    let file = "root-keyring.secret";
    std::fs::copy(keyring.join(file), to.join(file)).unwrap();
    to.to_owned()
}

/// Starts the first node, which makes the keyring, and copies the keyring for another one.
async fn first(url: &str, folder: &TempDir) -> (Server, PathBuf) {
    let own = folder.path().join("one");
    let server = node(url, &own).start(folder.path()).await;
    let copy = copied(&own, &folder.path().join("two"));
    (server, copy)
}

pub(crate) async fn create(server: &Server, id: &str) {
    let body = json!({ "key_id": id }).to_string();
    server.call("POST", "/kms/keys", &body).await.ok();
}

pub(crate) async fn generate(server: &Server, id: &str) -> u16 {
    let body = json!({ "key_id": id }).to_string();
    let answer = server.call("POST", "/kms/generate-data-key", &body).await;
    answer.status.as_u16()
}

pub(crate) async fn set_enabled(server: &Server, id: &str, enabled: bool) {
    let path = if enabled {
        "/kms/keys/enable"
    } else {
        "/kms/keys/disable"
    };
    let body = json!({ "key_id": id }).to_string();
    server.call("POST", path, &body).await.ok();
}

/// How long it takes until the node's answer has this status.
pub(crate) async fn obeyed(server: &Server, id: &str, status: u16) -> Duration {
    let begun = now();
    while generate(server, id).await != status {
        assert!(begun.elapsed() < Duration::from_secs(30), "never {status}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn change_by_one_node_is_obeyed_by_the_other_at_once_and_without_announcements_within_the_ttl()
 {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let url = postgres.database();
    let (one, copy) = first(&url, &folder).await;
    create(&one, "k").await;
    let link = Link::to(postgres.socket()).await;
    // The state TTL alone would make this test last an hour.
    let two = node(&through(&link, &url), &copy).variable("KEYWAY_STATE_TTL_SECONDS", "3600");
    let two = two.start(folder.path()).await;
    for _ in 0..3 {
        obeyed(&two, "k", 200).await;
        set_enabled(&one, "k", false).await;
        obeyed(&two, "k", 409).await;
        set_enabled(&one, "k", true).await;
    }
    two.stop().await;

    let two = node(&through(&link, &url), &copy).variable("KEYWAY_STATE_TTL_SECONDS", "2");
    let two = two
        .variable("KEYWAY_AUDIT", "off")
        .start(folder.path())
        .await;
    obeyed(&two, "k", 200).await;
    link.set(LinkState::Frozen);
    set_enabled(&one, "k", false).await;
    // Nothing reaches the node. It refuses the key, because it cannot read its state.
    let begun = now();
    while generate(&two, "k").await == 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "a stale state is obeyed"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    link.set(LinkState::Up);
    obeyed(&two, "k", 409).await;
    two.stop().await;
    one.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_key_that_a_command_revokes_is_refused_at_once() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let url = postgres.database();
    let (server, copy) = {
        let options =
            |keyring: &Path| node(&url, keyring).variable("KEYWAY_STATE_TTL_SECONDS", "3600");
        let own = folder.path().join("one");
        let server = options(&own).start(folder.path()).await;
        (server, copied(&own, &folder.path().join("two")))
    };
    create(&server, "k").await;
    let operator = node(&url, &copy).without_root();
    let operator = operator.variable("KEYWAY_ROOT_KEYRING_FILE", copy.to_str().unwrap());
    let create = [
        "access-key",
        "create",
        "--policy",
        "kms-key-user",
        "--output",
        "json",
    ];
    let (code, made, stderr) = operator.run(&create).await;
    assert_eq!(code, Some(0), "{stderr}");
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let text = |name: &str| made[name].as_str().unwrap();
    let signer = Signer::new(text("access_key_id"), text("secret_access_key"));
    let body = json!({"key_id": "k"}).to_string();
    let status = async || {
        let path = "/kms/generate-data-key";
        server.call_as(&signer, "POST", path, &body).await.status
    };
    assert_eq!(status().await, 200);
    let (code, _, stderr) = operator
        .run(&["access-key", "revoke", text("access_key_id")])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let begun = now();
    while status().await == 200 {
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "it is still accepted"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_key_of_a_known_key_costs_no_database_call() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let link = Link::to(postgres.socket()).await;
    let url = through(&link, &postgres.database());
    let options = node(&url, &folder.path().join("keyring"))
        .variable("KEYWAY_STATE_TTL_SECONDS", "600")
        .variable("KEYWAY_AUDIT", "off");
    let server = options.start(folder.path()).await;
    create(&server, "k").await;
    for _ in 0..5 {
        assert_eq!(generate(&server, "k").await, 200);
    }
    let before = link.requests();
    for _ in 0..500 {
        assert_eq!(generate(&server, "k").await, 200);
    }
    let calls = link.requests() - before;
    // The connection of the announcements is tried every two seconds, and upkeep reads the configuration.
    assert!(calls < 50, "{calls} calls for 500 data keys");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keyring_that_is_missing_or_of_another_deployment_is_refused() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let (url, other) = (postgres.database(), postgres.database());
    let (one, copy) = first(&url, &folder).await;
    one.stop().await;
    let empty = folder.path().join("empty");
    let (code, stderr) = node(&url, &empty).fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("restore the keyring"), "{stderr}");
    let (code, stderr) = node(&other, &copy).fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--accept-empty-table"), "{stderr}");
    let foreign = folder.path().join("foreign");
    let server = node(&other, &foreign).start(folder.path()).await;
    server.stop().await;
    let (code, stderr) = node(&url, &foreign).fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("belongs to another deployment"), "{stderr}");
    // The file may be named instead of its folder.
    let server = node(&url, &copy.join("root-keyring.secret"))
        .start(folder.path())
        .await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_operator_work_over_the_database() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let url = postgres.database();
    let (server, copy) = first(&url, &folder).await;
    create(&server, "k").await;
    let options = node(&url, &copy).without_root();
    let options = options
        .variable("KEYWAY_POSTGRES", &url)
        .variable("KEYWAY_ROOT_KEYRING_FILE", copy.to_str().unwrap());
    for command in [
        &["access-key", "create", "--policy", "kms-admin"][..],
        &["access-key", "list"],
        &["table", "verify"],
        &["rewrap-keys"],
        &[
            "root",
            "save",
            "--to",
            folder.path().join("saved").to_str().unwrap(),
        ],
    ] {
        let (code, stdout, stderr) = options.run(command).await;
        assert_eq!(code, Some(0), "{command:?}: {stdout}{stderr}");
    }
    server.stop().await;
    // The audit log needs no keyring.
    let reading = ServerOptions::default()
        .without_root()
        .variable("KEYWAY_POSTGRES", &url);
    let (code, stdout, stderr) = reading.run(&["audit", "export"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.contains("rustfs.create-key") || stdout.contains("\"k\""),
        "{stdout}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn passphrase_protects_the_keyring_of_every_node_and_can_be_changed() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let url = postgres.database();
    let keyring = folder.path().join("keyring");
    let with = |passphrase: &str| node(&url, &keyring).variable("KEYWAY_PASSPHRASE", passphrase);
    with("first passphrase")
        .start(folder.path())
        .await
        .stop()
        .await;
    let (code, stderr) = with("another passphrase").fail(folder.path()).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the passphrase is wrong"), "{stderr}");
    let change = ServerOptions::default()
        .variable("KEYWAY_ROOT_KEYRING_FILE", keyring.to_str().unwrap())
        .variable("KEYWAY_PASSPHRASE", "first passphrase")
        .variable("KEYWAY_NEW_PASSPHRASE", "second passphrase");
    let (code, _, stderr) = change.run(&["change-passphrase"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    with("second passphrase")
        .start(folder.path())
        .await
        .stop()
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn password_comes_from_the_url_a_variable_or_a_file_and_is_never_shown() {
    const SECRET: &str = "Secret-Password-9";
    let Some(postgres) = Postgres::start().await else {
        return;
    };
    let sql = format!("CREATE ROLE kms LOGIN PASSWORD '{SECRET}'; CREATE DATABASE kms OWNER kms");
    for sql in sql.split("; ") {
        postgres.sql("postgres", sql);
    }
    postgres.demand_passwords_of("kms");
    let folder = folder();
    let (url, keyring) = (
        postgres.url("kms").replace("keyway@", "kms@"),
        folder.path().join("keyring"),
    );
    let with_password = url.replace("kms@", &format!("kms:{SECRET}@"));
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let file = file.to_str().unwrap();
    for options in [
        node(&with_password, &keyring),
        node(&url, &keyring).variable("KEYWAY_POSTGRES_PASSWORD", SECRET),
        node(&url, &keyring).variable("KEYWAY_POSTGRES_PASSWORD_FILE", file),
    ] {
        let server = options.start(folder.path()).await;
        create(&server, "k").await;
        let body = json!({"key_id": "k", "pending_window_in_days": 7}).to_string();
        server.call("POST", "/kms/keys/disable", &body).await;
        let (_, log, stderr) = server.stop().await;
        assert!(!format!("{log}{stderr}").contains(SECRET));
        postgres.sql("kms", "TRUNCATE keyway_records, keyway_logs");
        std::fs::remove_dir_all(&keyring).unwrap();
    }
    let (_, help, _) = node(&with_password, &keyring)
        .run(&["serve", "--help"])
        .await;
    assert!(!help.contains(SECRET), "{help}");
    for (options, words) in [
        (node(&url, &keyring), "password"),
        (
            node(&url, &keyring).variable("KEYWAY_POSTGRES_PASSWORD", "wrong"),
            "the login fails",
        ),
        (
            node(&with_password, &keyring).variable("KEYWAY_POSTGRES_PASSWORD", SECRET),
            "more than one gives a password",
        ),
        (
            node(&with_password.replace("postgres://", "mysql://"), &keyring),
            "must begin with postgres://",
        ),
    ] {
        let (code, stderr) = options.fail(folder.path()).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
        assert!(!stderr.contains(SECRET), "{stderr}");
    }
}

/// How many tables of Keyway the database has.
fn tables(postgres: &Postgres, url: &str) -> String {
    let database = url.rsplit('/').next().unwrap();
    let sql = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'keyway%'";
    postgres.sql(database, sql)
}

#[tokio::test(flavor = "multi_thread")]
async fn command_over_a_database_without_a_deployment_fails_and_makes_nothing() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let (url, keyring) = (postgres.database(), folder.path().join("keyring"));
    let options = node(&url, &keyring).without_root();
    let options = options
        .variable("KEYWAY_POSTGRES", &url)
        .variable("KEYWAY_ROOT_KEYRING_FILE", keyring.to_str().unwrap());
    for command in [
        &["doctor"][..],
        &["access-key", "list"],
        &["access-key", "create", "--policy", "kms-admin"],
        &["table", "verify"],
        &["root", "status"],
        &["audit", "verify"],
        &["rewrap-keys"],
    ] {
        let (code, stdout, stderr) = options.run(command).await;
        assert_eq!(code, Some(1), "{command:?}: {stdout}{stderr}");
        assert_eq!(tables(postgres, &url), "0", "{command:?} made tables");
        assert!(!keyring.exists(), "{command:?} made a folder");
    }
    let (_, found, _) = options.run(&["doctor"]).await;
    assert!(found.contains("table-unavailable"), "{found}");
    assert!(found.contains("holds no deployment"), "{found}");

    // With tables and without the keyring, the doctor tells the two apart.
    let other = folder.path().join("other");
    let server = node(&url, &other).start(folder.path()).await;
    server.stop().await;
    let (code, found, _) = options.run(&["doctor"]).await;
    assert_eq!(code, Some(1));
    assert!(found.contains("keyring-unusable"), "{found}");
    assert!(!found.contains("table-unavailable"), "{found}");
    assert!(!keyring.exists(), "doctor made a folder");
}

async fn opened(server: &Server, blob: &str) -> String {
    let body = json!({ "ciphertext_blob": blob }).to_string();
    let answer = server.call("POST", "/kms/decrypt", &body).await;
    answer.text("plaintext")
}

/// A backup moves a deployment between a folder and a database, and `doctor` and the root's commands work there.
#[tokio::test(flavor = "multi_thread")]
async fn deployment_moves_from_a_folder_to_the_database_and_back() {
    let Some(postgres) = shared().await else {
        return;
    };
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let options =
        ServerOptions::default().variable("KEYWAY_BACKUP_PASSPHRASE", "a backup's passphrase");
    let server = options.start(&folder.path().join("data")).await;
    create(&server, "k").await;
    let asked = json!({ "key_id": "k" }).to_string();
    let made = server.call("POST", "/kms/generate-data-key", &asked).await;
    let (blob, plaintext) = (made.text("ciphertext_blob"), made.text("plaintext_key"));
    server.stop().await;

    let url = postgres.database();
    let keyring = path("keyring");
    let database = ["--postgres", &url, "--root-keyring-file", &keyring];
    let run = async |command: &[&str]| {
        let (code, stdout, stderr) = options.run(command).await;
        assert_eq!(code, Some(0), "{command:?}: {stdout}{stderr}");
        stdout
    };
    let first = path("first.backup");
    let data = path("data");
    run(&[
        "backup",
        "create",
        "--data-dir",
        &data,
        "--with-root",
        "--to",
        &first,
    ])
    .await;
    run(&[&["restore", "--from", &first, "--dry-run"], &database[..]].concat()).await;
    assert_eq!(tables(postgres, &url), "0", "a dry run makes nothing");
    assert!(!Path::new(&keyring).exists(), "a dry run makes nothing");
    run(&[&["restore", "--from", &first], &database[..]].concat()).await;
    let server = node(&url, Path::new(&keyring)).start(folder.path()).await;
    assert_eq!(opened(&server, &blob).await, plaintext);
    create(&server, "later").await;
    run(&[&["root", "rotate"], &database[..]].concat()).await;
    assert_eq!(opened(&server, &blob).await, plaintext);
    let (code, found, stderr) = options.run(&[&["doctor"], &database[..]].concat()).await;
    assert!(matches!(code, Some(0 | 3)), "{found}{stderr}");
    server.stop().await;

    let (second, back) = (path("second.backup"), path("back"));
    run(&[
        &["backup", "create", "--with-root", "--to", &second],
        &database[..],
    ]
    .concat())
    .await;
    run(&["restore", "--from", &second, "--data-dir", &back]).await;
    let server = options.start(Path::new(&back)).await;
    assert_eq!(opened(&server, &blob).await, plaintext);
    assert_eq!(generate(&server, "later").await, 200);
    server.stop().await;
}
