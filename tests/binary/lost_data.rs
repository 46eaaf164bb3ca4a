//! A table that is missing, empty or another one is detected, at the start and while a server runs; files of other
//! owners are not used.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use keyway_tests::{Server, ServerOptions};
use serde_json::json;

use crate::{create, data_dir, decrypt, eventually, folder, generate};

const TABLE: [&str; 3] = ["keyway.db", "keyway.db-wal", "keyway.db-shm"];
const KEYRING: &str = "root-keyring.secret";

fn lose_table(data: &Path) {
    for name in TABLE {
        fs::remove_file(data.join(name)).ok();
    }
}

async fn refused(options: &ServerOptions, data: &Path, words: &str) {
    let (code, stderr) = options.fail(data).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(words), "{stderr}");
}

#[tokio::test]
async fn table_missing_or_empty_is_refused_until_the_operator_consents() {
    let consents = [
        ServerOptions::default().argument("--accept-empty-table"),
        ServerOptions::default().variable("KEYWAY_ACCEPT_EMPTY_TABLE", "true"),
    ];
    for (consent, is_moved) in consents.iter().zip([false, true]) {
        let root = folder();
        let (data, keys) = (data_dir(&root), root.path().join("keys"));
        let options = ServerOptions::default();
        let server = options.start(&data).await;
        create(&server, "k").await;
        if is_moved {
            let body = json!({"key_directory": keys}).to_string();
            server.call("POST", "/kms/reconfigure", &body).await.ok();
        }
        server.stop().await;
        let secrets = data.join("secrets");
        let kept = if is_moved { &keys } else { &secrets }.join(KEYRING);
        let keyring = fs::read(&kept).unwrap();
        lose_table(&data);

        let list = ["access-key", "list", "--data-dir", data.to_str().unwrap()];
        let (code, _, stderr) = options.run(&list).await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("is gone"), "{stderr}");
        // The table is missing, and then empty: the refused start has made a file.
        for _ in 0..2 {
            refused(&options, &data, "--accept-empty-table").await;
            let (code, _, stderr) = options.run(&list).await;
            assert_eq!(code, Some(1), "{stderr}");
        }
        if is_moved {
            // The keyring was moved, and nothing says where to.
            refused(consent, &data, "put the root keyring back").await;
            fs::copy(&kept, data.join("secrets").join(KEYRING)).unwrap();
            refused(&options, &data, "--accept-empty-table").await;
        }
        let server = consent.start(&data).await;
        assert!(server.log().contains("is taken as an empty one"));
        let missing = server.call("GET", "/kms/keys/k", "").await;
        assert_eq!(missing.refusal().0, 404);
        create(&server, "k").await;
        let blob = generate(&server, "k").await.text("ciphertext_blob");
        server.stop().await;
        let server = options.start(&data).await;
        decrypt(&server, &blob).await.ok();
        server.stop().await;
        let now = fs::read(data.join("secrets").join(KEYRING)).unwrap();
        assert_eq!(now, keyring);
        // Needless consent changes nothing.
        let server = consent.start(&data).await;
        decrypt(&server, &blob).await.ok();
    }
}

#[tokio::test]
async fn consent_to_an_empty_table_admits_no_other_deployment() {
    let (one, other) = (folder(), folder());
    for folder in [&one, &other] {
        ServerOptions::default()
            .start(folder.path())
            .await
            .stop()
            .await;
    }
    lose_table(one.path());
    fs::copy(other.path().join("keyway.db"), one.path().join("keyway.db")).unwrap();
    let options = ServerOptions::default();
    for options in [&options, &options.clone().argument("--accept-empty-table")] {
        refused(options, one.path(), "belongs to another deployment").await;
    }
    fs::remove_file(one.path().join("secrets").join(KEYRING)).unwrap();
    let consent = options.argument("--accept-empty-table");
    refused(&consent, one.path(), "root keyring is missing").await;
}

async fn is_refused(server: &Server, what: &str) {
    for (method, path, body) in [
        ("POST", "/kms/keys", r#"{"key_id":"new"}"#),
        ("GET", "/kms/keys", ""),
        ("GET", "/kms/keys/k", ""),
        ("GET", "/kms/service-status", ""),
        ("POST", "/kms/reconfigure", r#"{"cache_ttl_seconds":7}"#),
    ] {
        let answer = server.call(method, path, body).await;
        assert_eq!(answer.status, 503, "{what}: {path}");
    }
}

#[tokio::test]
async fn table_deleted_moved_or_replaced_under_a_server_is_refused_and_reported() {
    for what in ["deleted", "moved", "replaced"] {
        let root = folder();
        let data = data_dir(&root);
        let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "1");
        let server = options.start(&data).await;
        create(&server, "k").await;
        generate(&server, "k").await.ok();
        let (table, aside) = (data.join("keyway.db"), root.path().join("aside"));
        match what {
            "deleted" => fs::remove_file(&table).unwrap(),
            "moved" => fs::rename(&table, &aside).unwrap(),
            _ => {
                let other = folder();
                ServerOptions::default()
                    .start(other.path())
                    .await
                    .stop()
                    .await;
                fs::rename(&table, &aside).unwrap();
                fs::copy(other.path().join("keyway.db"), &table).unwrap();
            }
        }
        is_refused(&server, what).await;
        // A cached key serves within the state TTL, and no longer.
        eventually("data keys are refused", async || {
            (generate(&server, "k").await.status == 503).then_some(())
        })
        .await;
        let told = if what == "replaced" {
            "was replaced"
        } else {
            "was deleted or moved"
        };
        let log = server.log();
        assert!(log.contains(told) && log.contains("keyway.db"), "{log}");
        if what == "moved" {
            fs::rename(&aside, &table).unwrap();
            // The audit log works again after a write.
            eventually("the table is served again", async || {
                (generate(&server, "k").await.status == 200).then_some(())
            })
            .await;
            create(&server, "new").await;
        }
        server.signal("KILL");
        server.ended().await;
    }
}

#[tokio::test]
async fn unreadable_record_hides_no_other_from_listings_and_status() {
    let root = folder();
    let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(root.path()).await;
    for id in ["a", "b", "c"] {
        create(&server, id).await;
    }
    let table = rusqlite::Connection::open(root.path().join("keyway.db")).unwrap();
    let garble = "UPDATE records SET value = x'00' WHERE kind = 'key' AND id = x'62'";
    assert_eq!(table.execute(garble, []).unwrap(), 1);
    drop(table);
    let listed = server.call("GET", "/kms/keys", "").await.ok();
    let ids: Vec<_> = listed["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["key_id"])
        .collect();
    assert_eq!(ids, ["a", "c"]);
    let status = server.call("GET", "/kms/service-status", "").await.ok();
    assert_eq!(status["healthy"], true);
    generate(&server, "a").await.ok();
    assert!(
        server
            .call("GET", "/kms/keys/b", "")
            .await
            .status
            .is_server_error()
    );
    let log = server.log();
    assert!(
        log.contains("the record key/b of the table was refused"),
        "{log}"
    );
}

#[tokio::test]
async fn passphrase_variable_with_a_line_break_or_byte_order_mark_opens() {
    let given =
        |passphrase: &str| ServerOptions::default().variable("KEYWAY_PASSPHRASE", passphrase);
    let root = folder();
    let data = data_dir(&root);
    let server = given("correct horse\n").start(&data).await;
    create(&server, "k").await;
    server.stop().await;
    let file = root.path().join("passphrase");
    fs::write(&file, "\u{feff}correct horse\r\nand more").unwrap();
    let by_file = ServerOptions::default()
        .argument("--passphrase-file")
        .argument(file.to_str().unwrap());
    for options in [
        by_file,
        given("correct horse"),
        given("\u{feff}correct horse\r\n"),
    ] {
        let server = options.start(&data).await;
        generate(&server, "k").await.ok();
        server.stop().await;
    }
    for wrong in ["canary\tcanary", "canary\r", "canary\n\n", "\u{1b}canary"] {
        let fresh = folder();
        let (code, stderr) = given(wrong).fail(fresh.path()).await;
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("control character") && !stderr.contains("canary"),
            "{stderr}"
        );
        assert!(!fresh.path().join("secrets").join(KEYRING).exists());
        // With a fit passphrase, the first start continues.
        given("fit").start(fresh.path()).await.stop().await;

        let new = ServerOptions::default()
            .variable("KEYWAY_PASSPHRASE", "fit")
            .variable("KEYWAY_NEW_PASSPHRASE", wrong);
        let change = [
            "change-passphrase",
            "--data-dir",
            fresh.path().to_str().unwrap(),
        ];
        let (code, _, stderr) = new.run(&change).await;
        assert_eq!(code, Some(1));
        assert!(
            stderr.contains("control character") && !stderr.contains("canary"),
            "{stderr}"
        );
        given("fit").start(fresh.path()).await.stop().await;
    }
}

#[tokio::test]
async fn lock_of_the_kes_listener_follows_no_link_and_truncates_nothing() {
    let root = folder();
    let data = data_dir(&root);
    let options = ServerOptions::default()
        .umask("000")
        .argument("--kes-listen")
        .argument("127.0.0.1:0");
    options.start(&data).await.stop().await;
    let lock = data.join("kes-listener.lock");
    assert_eq!(
        fs::metadata(&lock).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    fs::write(&lock, "as it was").unwrap();
    options.start(&data).await.stop().await;
    assert_eq!(fs::read(&lock).unwrap(), b"as it was");

    let victim = root.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    fs::remove_file(&lock).unwrap();
    for target in [victim.as_path(), Path::new("absent")] {
        symlink(target, &lock).unwrap();
        refused(&options, &data, "is a symbolic link").await;
        fs::remove_file(&lock).unwrap();
    }
    assert_eq!(fs::read(&victim).unwrap(), b"as it was");
    assert!(!data.join("absent").exists());

    fs::create_dir(&lock).unwrap();
    let (code, stderr) = options.fail(&data).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("kes-listener.lock"), "{stderr}");
}

#[tokio::test]
async fn files_of_another_owner_are_refused_with_a_remedy() {
    let root = folder();
    let data = data_dir(&root);
    let options = ServerOptions::default()
        .argument("--kes-listen")
        .argument("127.0.0.1:0");
    options.start(&data).await.stop().await;
    let own = fs::metadata(&data).unwrap().uid();
    for name in [
        "",
        "keyway.db",
        "secrets",
        "secrets/root-keyring.secret",
        "secrets/.lock",
        "kes-listener.lock",
    ] {
        let path: std::path::PathBuf = data.join(name).components().collect();
        // Only root may change a file's owner; root is refused as other users are.
        if chown(&path, Some(12_345), None).is_err() {
            return;
        }
        let remedy = format!(
            "belongs to user 12345 and this process runs as user {own}; run: chown {own} '{}'",
            path.display()
        );
        refused(&options, &data, &remedy).await;
        chown(&path, Some(own), None).unwrap();
    }
    options.start(&data).await.stop().await;
}
