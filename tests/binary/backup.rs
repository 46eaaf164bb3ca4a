//! `keyway backup` and `keyway restore`, beside servers that run and servers that do not.

mod large;
mod rotated;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use keyway_tests::{ServerOptions, binary};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{access_key_by, create, data_dir, decrypt, eventually, folder, generate, on, signer};

const PASSPHRASE: &str = "a passphrase of the backup";
const OF_KEYRING: &str = "a passphrase of the keyring";

fn sealed() -> ServerOptions {
    ServerOptions::default().variable("KEYWAY_PASSPHRASE", OF_KEYRING)
}

fn with_passphrase(options: &ServerOptions) -> ServerOptions {
    options
        .clone()
        .variable("KEYWAY_BACKUP_PASSPHRASE", PASSPHRASE)
}

/// Runs a command that succeeds and prints JSON.
async fn run(options: &ServerOptions, arguments: &[&str]) -> Value {
    let all = [arguments, &["--output", "json"]].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Runs a command that fails. Returns what it says.
async fn fails(options: &ServerOptions, arguments: &[&str], code: i32) -> String {
    let (ended, stdout, stderr) = options.run(arguments).await;
    assert_eq!(ended, Some(code), "{arguments:?}: {stdout} {stderr}");
    stderr
}

struct Scene {
    folder: TempDir,
    data: PathBuf,
    file: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = folder();
        Self {
            data: data_dir(&folder),
            file: folder.path().join("backup"),
            folder,
        }
    }

    fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    fn file(&self) -> &str {
        self.file.to_str().unwrap()
    }

    fn other(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn backup(&self, options: &ServerOptions, more: &[&str]) -> Value {
        let create = ["backup", "create", "--data-dir", self.data(), "--to"];
        run(options, &[&create[..], &[self.file()], more].concat()).await
    }

    /// `keyway restore` of the backup into this folder.
    fn restore<'a>(&'a self, to: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let to = to.to_str().unwrap();
        let restore = ["restore", "--from", self.file(), "--data-dir", to];
        [&restore[..], more].concat()
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn backup_of_a_running_server_restored_elsewhere_opens_everything() {
    let scene = Scene::new();
    let server = sealed().umask("000").start(&scene.data).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    let user = ["--policy", "kms-key-user", "--key", "k"];
    let user = access_key_by(&sealed(), &scene.data, &user).await;
    let made = scene
        .backup(&with_passphrase(&sealed().umask("000")), &["--with-root"])
        .await;
    assert_eq!(made["root"], "passphrase");
    assert_eq!(made["one_moment"], true);
    assert_eq!(made["records"]["key"], 1, "{made}");
    assert!(made["last_audit_record"].is_string(), "{made}");
    assert_eq!(mode(&scene.file), 0o600);
    server.kill().await;

    let content = fs::read(&scene.file).unwrap();
    for secret in [PASSPHRASE, OF_KEYRING, "test-root-secret", "\"roots\""] {
        let found = content
            .windows(secret.len())
            .any(|at| at == secret.as_bytes());
        assert!(!found, "{secret}");
    }
    let plain = ServerOptions::default();
    let checked = run(&plain, &["backup", "verify", scene.file()]).await;
    assert_eq!(
        (&checked["complete"], &checked["authentic"]),
        (&json!(true), &Value::Null)
    );
    let deployment = ["backup", "verify", scene.file(), "--data-dir", scene.data()];
    assert_eq!(run(&sealed(), &deployment).await["authentic"], true);
    let of_passphrase = with_passphrase(&plain);
    let checked = run(&of_passphrase, &["backup", "verify", scene.file()]).await;
    assert_eq!(checked["authentic"], true);

    // The machine is lost.
    fs::remove_dir_all(&scene.data).unwrap();
    let to = scene.other("new");
    let said = fails(&plain, &scene.restore(&to, &[]), 1).await;
    assert!(said.contains("there is no root keyring"), "{said}");
    fs::remove_dir_all(&to).unwrap();
    let would = run(&of_passphrase, &scene.restore(&to, &["--dry-run"])).await;
    assert!(!to.exists(), "a dry run makes nothing");
    let into = with_passphrase(&sealed());
    let done = run(&into, &scene.restore(&to, &[])).await;
    assert_eq!(
        (&done["into"], &done["root_keyring"]),
        (&json!("empty"), &json!("new"))
    );
    assert_eq!(done["new"], would["new"]);
    assert_eq!(mode(&to), 0o700);
    assert_eq!(mode(&to.join("secrets/root-keyring.secret")), 0o600);

    let server = sealed().start(&to).await;
    decrypt(&server, &blob).await.ok();
    let body = on("k");
    let path = "/kms/generate-data-key";
    server
        .call_as(&signer(&user), "POST", path, &body)
        .await
        .ok();
    let folder = to.to_str().unwrap();
    let audit = run(&plain, &["audit", "verify", "--data-dir", folder]).await;
    assert_eq!(audit["ok"], true, "{audit}");
    assert_eq!(audit["restores"][0]["backup"], made["backup"]);
    assert_eq!(
        audit["restores"][0]["last_record"],
        made["last_audit_record"]
    );
    let table = run(&sealed(), &["table", "verify", "--data-dir", folder]).await;
    assert_eq!(table["ok"], true);
    server.stop().await;
}

#[tokio::test]
async fn backup_under_shares_needs_as_many_as_it_says() {
    let scene = Scene::new();
    let server = ServerOptions::default().start(&scene.data).await;
    create(&server, "k").await;
    let blob = generate(&server, "k").await.text("ciphertext_blob");
    server.stop().await;
    let plain = ServerOptions::default();
    let create = [
        "backup",
        "create",
        "--data-dir",
        scene.data(),
        "--to",
        scene.file(),
    ];
    let shares = ["--with-root", "--shares", "2/3"];
    let (code, stdout, stderr) = plain.run(&[&create[..], &shares].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{stdout}");
    assert!(!stderr.contains("kwshare1"), "{stderr}");
    let files: Vec<PathBuf> = (0..3).map(|n| scene.other(&format!("share-{n}"))).collect();
    for (file, line) in files.iter().zip(&lines) {
        assert!(line.starts_with("kwshare1-2of3-"), "{line}");
        fs::write(file, format!("\n{line}\n")).unwrap();
    }
    let [first, second, third] = [0, 1, 2].map(|n: usize| files[n].to_str().unwrap());
    let to = scene.other("new");
    let said = fails(&plain, &scene.restore(&to, &["--share-file", first]), 1).await;
    assert!(
        said.contains("1 different shares were given, and 2 are needed"),
        "{said}"
    );
    fs::write(
        second,
        lines[1].replace("kwshare1-2of3-2", "kwshare1-2of3-3"),
    )
    .unwrap();
    let two = ["--share-file", first, "--share-file", second];
    let said = fails(&plain, &scene.restore(&to, &two), 1).await;
    assert!(said.contains("line 1: has a mistake"), "{said}");
    assert!(!said.contains("kwshare1"), "{said}");
    assert!(!to.exists());
    let two = ["--share-file", third, "--share-file", first];
    let done = run(&plain, &scene.restore(&to, &two)).await;
    assert_eq!(done["root_keyring"], "new");
    let server = plain.start(&to).await;
    decrypt(&server, &blob).await.ok();
    server.stop().await;
}

#[tokio::test]
async fn restore_beside_a_running_server_is_seen_by_it() {
    let scene = Scene::new();
    let options = ServerOptions::default()
        .argument("--state-ttl-seconds")
        .argument("1");
    let server = options.start(&scene.data).await;
    create(&server, "k").await;
    let plain = ServerOptions::default();
    let revoked = access_key_by(&plain, &scene.data, &["--policy", "kms-key-user"]).await;
    scene.backup(&plain, &[]).await;
    let disable = server.call("POST", "/kms/keys/disable", &on("k")).await;
    disable.ok();
    create(&server, "later").await;
    let id = revoked["access_key_id"].as_str().unwrap();
    let revoke = ["access-key", "revoke", id, "--data-dir", scene.data()];
    let (code, _, stderr) = plain.run(&revoke).await;
    assert_eq!(code, Some(0), "{stderr}");

    let would = run(&plain, &scene.restore(&scene.data, &["--dry-run"])).await;
    assert_eq!(would["into"], "same_deployment");
    assert_eq!(
        would["changed"],
        json!([{"kind": "key", "id": "k"}]),
        "{would}"
    );
    assert_eq!(would["only_here"], json!([{"kind": "key", "id": "later"}]));
    assert_eq!(would["kept_out"], json!([{"kind": "access-key", "id": id}]));
    assert_eq!(would["new"], json!([]));
    let kept = run(&plain, &scene.restore(&scene.data, &[])).await;
    assert_eq!(kept["changed"], would["changed"]);
    assert_ne!(
        generate(&server, "k").await.status,
        200,
        "it stays disabled"
    );
    let overwritten = run(&plain, &scene.restore(&scene.data, &["--overwrite"])).await;
    assert_eq!(overwritten["changed"], would["changed"]);
    eventually("the server sees the restored key", async || {
        (generate(&server, "k").await.status == 200).then_some(())
    })
    .await;
    generate(&server, "later").await.ok();
    let path = "/kms/generate-data-key";
    let refused = server
        .call_as(&signer(&revoked), "POST", path, &on("k"))
        .await;
    assert_ne!(refused.status, 200, "a revoked access key stays revoked");
    let named = format!("access-key/{id}");
    let only = run(&plain, &scene.restore(&scene.data, &["--only", &named])).await;
    assert_eq!(only["new"], would["kept_out"]);
    eventually("the named access key is back", async || {
        let answer = server
            .call_as(&signer(&revoked), "POST", path, &on("k"))
            .await;
        (answer.status == 200).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn backup_under_writes_has_all_records_of_one_moment() {
    let scene = Scene::new();
    let server = ServerOptions::default().start(&scene.data).await;
    let plain = ServerOptions::default();
    create(&server, "n-0000").await;
    let writing = async {
        for n in 1..400 {
            create(&server, &format!("n-{n:04}")).await;
        }
    };
    let backups = async {
        let mut counts = Vec::new();
        for n in 0..3 {
            let file = scene.other(&format!("backup-{n}"));
            let file = file.to_str().unwrap();
            let create = ["backup", "create", "--data-dir", scene.data(), "--to", file];
            run(&plain, &create).await;
            let listed = run(&plain, &["backup", "list", file]).await;
            let names = listed["names"].as_array().unwrap().iter();
            let keys: Vec<&str> = names
                .filter(|name| name["kind"] == "key")
                .map(|name| name["id"].as_str().unwrap())
                .collect();
            // Keys are made one after the other, so none before the last is missing.
            let expected: Vec<String> = (0..keys.len()).map(|n| format!("n-{n:04}")).collect();
            assert_eq!(keys, expected);
            counts.push(keys.len());
        }
        counts
    };
    let (counts, ()) = tokio::join!(backups, writing);
    assert!(counts.is_sorted() && counts[0] >= 1, "{counts:?}");
    server.stop().await;
}

/// Fills the table's error log with this many records of 250 KB.
fn fill(data: &Path, records: u32) {
    let table = rusqlite::Connection::open(data.join("keyway.db")).unwrap();
    for n in 0..records {
        let id = format!("20260101T00{n:010}");
        let value = vec![b'x'; 250_000];
        let revision = u128::from(n).to_be_bytes();
        table
            .execute(
                "INSERT INTO logs (kind, id, revision, value) VALUES ('error-log', ?1, ?2, ?3)",
                (id.as_bytes(), &revision[..], value),
            )
            .unwrap();
    }
}

/// Starts the command, and kills it after this time.
async fn killed(arguments: &[&str], variables: &[(&str, &str)], after: Duration) {
    let mut child = Command::new(binary("keyway"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::timeout(after, child.wait()).await.ok();
    child.kill().await.ok();
}

#[tokio::test]
async fn backup_killed_leaves_no_file_or_a_complete_one() {
    let scene = Scene::new();
    let plain = ServerOptions::default();
    let server = plain.start(&scene.data).await;
    create(&server, "k").await;
    server.stop().await;
    fill(&scene.data, 200);
    let arguments = [
        "backup",
        "create",
        "--data-dir",
        scene.data(),
        "--to",
        scene.file(),
    ];
    let mut cut = 0;
    for milliseconds in [20, 60, 100, 150, 200, 300] {
        killed(&arguments, &[], Duration::from_millis(milliseconds)).await;
        if scene.file.exists() {
            run(&plain, &["backup", "verify", scene.file()]).await;
            fs::remove_file(&scene.file).unwrap();
        } else {
            cut += 1;
        }
    }
    assert!(cut > 0, "each was complete before it was killed");
    let made = scene.backup(&plain, &[]).await;
    assert_eq!(made["records"]["error-log"], 200);
    let again = fails(&plain, &arguments, 1).await;
    assert!(
        again.contains("exists"),
        "a backup is never replaced: {again}"
    );
}

#[tokio::test]
async fn restore_killed_is_finished_by_the_next() {
    let scene = Scene::new();
    let plain = ServerOptions::default();
    let server = plain.start(&scene.data).await;
    for n in 0..60 {
        create(&server, &format!("k-{n}")).await;
    }
    let blob = generate(&server, "k-7").await.text("ciphertext_blob");
    server.stop().await;
    fill(&scene.data, 40);
    scene
        .backup(
            &with_passphrase(&plain),
            &["--with-root", "--without-audit"],
        )
        .await;
    for (n, milliseconds) in [15, 700, 900, 1000, 1100, 1300].into_iter().enumerate() {
        let to = scene.other(&format!("new-{n}"));
        let variables = [("KEYWAY_BACKUP_PASSPHRASE", PASSPHRASE)];
        let arguments = scene.restore(&to, &[]);
        killed(&arguments, &variables, Duration::from_millis(milliseconds)).await;
        run(&with_passphrase(&plain), &arguments).await;
        let server = plain.start(&to).await;
        decrypt(&server, &blob).await.ok();
        server.stop().await;
        let folder = ["table", "verify", "--data-dir", to.to_str().unwrap()];
        let verified = run(&plain, &folder).await;
        assert_eq!(verified["ok"], true, "{milliseconds}: {verified}");
    }
}

#[tokio::test]
async fn restore_refuses_what_does_not_belong_together() {
    let scene = Scene::new();
    let plain = ServerOptions::default();
    plain.start(&scene.data).await.stop().await;
    scene
        .backup(&with_passphrase(&plain), &["--with-root"])
        .await;
    let other = scene.other("other");
    plain.start(&other).await.stop().await;
    let said = fails(&with_passphrase(&plain), &scene.restore(&other, &[]), 1).await;
    assert!(said.contains("another deployment"), "{said}");
    let new = scene.other("new");
    let wrong = plain.clone().variable("KEYWAY_BACKUP_PASSPHRASE", "wrong");
    let said = fails(&wrong, &scene.restore(&new, &[]), 1).await;
    assert!(said.contains("are not those of this backup"), "{said}");
    assert!(!new.exists());
    let mut content = fs::read(&scene.file).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&scene.file, &content).unwrap();
    for command in [
        vec!["backup", "verify", scene.file()],
        vec!["backup", "list", scene.file()],
        scene.restore(&scene.data, &[]),
    ] {
        fails(&plain, &command, 1).await;
    }
    fs::write(&scene.file, "keyway-backup 2\nlater").unwrap();
    let said = fails(&plain, &["backup", "verify", scene.file()], 1).await;
    assert!(said.contains("a newer release"), "{said}");
}

#[tokio::test]
async fn backup_options_that_contradict_each_other_are_refused() {
    let scene = Scene::new();
    let plain = ServerOptions::default();
    plain.start(&scene.data).await.stop().await;
    let create = [
        "backup",
        "create",
        "--data-dir",
        scene.data(),
        "--to",
        scene.file(),
    ];
    for (more, code) in [
        (&["--with-root"][..], 1),
        (&["--shares", "2/3"], 2),
        (&["--with-root", "--shares", "1/3"], 2),
        (
            &["--without-audit", "--audit-since", "2026-01-01T00:00:00Z"],
            2,
        ),
    ] {
        fails(&plain, &[&create[..], more].concat(), code).await;
        assert!(!scene.file.exists(), "{more:?}");
    }
    let both = ["--with-root", "--shares", "2/3"];
    let said = fails(&with_passphrase(&plain), &[&create[..], &both].concat(), 1).await;
    assert!(said.contains("unset one of them"), "{said}");
    let file = [
        "backup",
        "create",
        "--data-dir",
        scene.data(),
        "--to",
        "s3://bucket",
    ];
    fails(&plain, &file, 2).await;
}
