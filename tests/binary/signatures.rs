//! A table that another program writes, under a real server: the changed records are refused, and `keyway table` lists
//! them.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::{KesIdentity, ServerOptions};
use serde_json::{Value, json};

use crate::{access_key, create, data_dir, eventually, folder, generate, kes, on, signer};

/// The table's file, opened by SQLite alone.
fn opened(data_dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(data_dir.join("keyway.db")).unwrap()
}

fn value(data_dir: &Path, kind: &str, id: &str) -> Vec<u8> {
    opened(data_dir)
        .query_row(
            "SELECT value FROM records WHERE kind = ?1 AND id = CAST(?2 AS BLOB)",
            [kind, id],
            |row| row.get(0),
        )
        .unwrap()
}

fn set_value(data_dir: &Path, kind: &str, id: &str, value: &[u8]) {
    let changed = opened(data_dir).execute(
        "UPDATE records SET value = ?3 WHERE kind = ?1 AND id = CAST(?2 AS BLOB)",
        rusqlite::params![kind, id, value],
    );
    assert_eq!(changed.unwrap(), 1);
}

/// Changes a record and leaves its signature.
fn tamper(data_dir: &Path, kind: &str, id: &str, from: &str, to: &str) {
    let text = String::from_utf8(value(data_dir, kind, id)).unwrap();
    assert!(text.contains(from), "{text}");
    set_value(data_dir, kind, id, text.replace(from, to).as_bytes());
}

/// Runs `keyway table` on this folder; returns its exit code and its JSON.
async fn table(data_dir: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let folder = data_dir.to_str().unwrap();
    let all = [
        &["table"],
        arguments,
        &["--data-dir", folder, "--output", "json"],
    ]
    .concat();
    let (code, stdout, stderr) = ServerOptions::default().run(&all).await;
    let said = serde_json::from_str(&stdout);
    (code, said.unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

#[tokio::test]
async fn table_written_without_the_keyring_is_not_obeyed() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let options = kes::options().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(&data_dir).await;
    create(&server, "k").await;
    create(&server, "other").await;
    let auditor = access_key(&data_dir, &["--policy", "kms-auditor"]).await;
    let id = auditor["access_key_id"].as_str().unwrap().to_owned();
    let auditor = signer(&auditor);
    let path = "/kms/generate-data-key";
    let refused = server.call_as(&auditor, "POST", path, &on("k")).await;
    assert_eq!(refused.refusal(), (403, "AccessDenied".to_owned()));
    let (code, said) = table(&data_dir, &["verify"]).await;
    assert_eq!((code, &said["ok"]), (Some(0), &json!(true)), "{said}");
    assert_eq!(said["all_signed"], true);

    // A wider grant.
    let kept = value(&data_dir, "access-key", &id);
    tamper(&data_dir, "access-key", &id, "kms:DescribeKey", "kms:*");
    let refused = server.call_as(&auditor, "POST", path, &on("k")).await;
    assert_eq!(refused.status, 500, "{refused:?}");
    let (code, said) = table(&data_dir, &["verify"]).await;
    assert_eq!(code, Some(1));
    let expected = json!([{
        "kind": "access-key", "id": id, "reason": "its signature is not that of its content",
    }]);
    assert_eq!(said["refused"], expected);
    set_value(&data_dir, "access-key", &id, &kept);

    // A policy and an identity for another certificate: copied rows under new names.
    let admin = kes::admin(&server, &data_dir);
    let stranger = KesIdentity::ecdsa();
    let policy = json!({"allow": {"/v1/key/create/*": {}}});
    let made = admin
        .call("POST", "/v1/policy/write/p", Some(&policy))
        .await;
    assert_eq!(made.status, 200, "{made:?}");
    let friend = json!({"identity": "f00d"});
    let made = admin
        .call("POST", "/v1/policy/assign/p", Some(&friend))
        .await;
    assert_eq!(made.status, 200, "{made:?}");
    let copied = opened(&data_dir).execute(
        "INSERT INTO records SELECT kind, CAST(?1 AS BLOB), revision, expires_at, value FROM records
         WHERE kind = 'identity' AND id = CAST('f00d' AS BLOB)",
        [stranger.name()],
    );
    assert_eq!(copied.unwrap(), 1);
    let client = kes::client(&server, &data_dir, &stranger);
    let refused = client.call("PUT", "/v1/key/create/mine", None).await;
    assert_ne!(refused.status, 200, "{refused:?}");
    let found = server.call("GET", "/kms/keys/mine", "").await;
    assert_eq!(found.status, 404);

    // A configuration and a key are refused; everything else works.
    let kept = value(&data_dir, "key", "k");
    tamper(&data_dir, "key", "k", r#""enabled""#, r#""disabled""#);
    assert_eq!(generate(&server, "k").await.status, 500);
    generate(&server, "other").await.ok();
    let listed = server.call("GET", "/kms/keys", "").await.ok();
    assert!(!listed.to_string().contains(r#""key_id":"k""#), "{listed}");
    set_value(&data_dir, "key", "k", &kept);
    let kept = value(&data_dir, "config", "service");
    tamper(&data_dir, "config", "service", "600", "601");
    assert_eq!(generate(&server, "other").await.status, 500);
    set_value(&data_dir, "config", "service", &kept);
    generate(&server, "k").await.ok();

    // The log and the metrics have it.
    let request = http::Request::get("/metrics").body(bytes::Bytes::new());
    let metrics = server.send(request.unwrap()).await.unwrap();
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("keyway_refused_records_total "));
    let total: f64 = line.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(total >= 4.0, "{text}");
    eventually("the log names the record", async || {
        let log = server.log();
        log.contains("the record key/k of the table was refused")
            .then_some(())
    })
    .await;
    server.stop().await;
}

/// Makes the deployment one of an older release: no record is signed, and the keyring does not require it.
fn unsign(data_dir: &Path) {
    let table = opened(data_dir);
    let changed = table.execute(
        "UPDATE records SET value = CAST(substr(value, instr(value, CAST('{' AS BLOB))) AS BLOB)",
        [],
    );
    assert!(changed.unwrap() > 0);
    let file = data_dir.join("secrets/root-keyring.secret");
    let mut text: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let keyring = STANDARD.decode(text["value"].as_str().unwrap()).unwrap();
    let mut keyring: Value = serde_json::from_slice(&keyring).unwrap();
    assert_eq!(
        keyring.as_object_mut().unwrap().remove("signed"),
        Some(json!(true))
    );
    text["value"] = STANDARD.encode(keyring.to_string()).into();
    fs::write(&file, text.to_string()).unwrap();
}

#[tokio::test]
async fn table_of_an_older_release_is_signed_while_servers_run() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let options = ServerOptions::default().variable("KEYWAY_STATE_TTL_SECONDS", "0");
    let server = options.start(&data_dir).await;
    for id in ["a", "b", "c"] {
        create(&server, id).await;
    }
    server.stop().await;
    unsign(&data_dir);
    let server = options.start(&data_dir).await;
    generate(&server, "a").await.ok();
    let (code, said) = table(&data_dir, &["sign", "--dry-run"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(
        (&said["all_signed"], &said["signed"], &said["verified"]),
        (&json!(false), &json!(0), &json!(0))
    );
    // Three keys, the configuration, and since when uses of access keys are recorded.
    assert_eq!(said["unsigned"].as_array().unwrap().len(), 5, "{said}");

    // Two commands at once sign each record and lose none.
    let (one, two) = tokio::join!(table(&data_dir, &["sign"]), table(&data_dir, &["sign"]));
    for (code, said) in [&one, &two] {
        assert_eq!(
            (*code, &said["all_signed"]),
            (Some(0), &json!(true)),
            "{said}"
        );
    }
    for id in ["a", "b", "c"] {
        generate(&server, id).await.ok();
    }
    let (code, said) = table(&data_dir, &["verify"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said["verified"], 5, "{said}");

    // From now on the running server too refuses an unsigned record, and does not sign it.
    let signed = value(&data_dir, "key", "b");
    let start = signed.iter().position(|byte| *byte == b'{').unwrap();
    set_value(&data_dir, "key", "b", &signed[start..]);
    eventually("the server refuses it", async || {
        (generate(&server, "b").await.status == 500).then_some(())
    })
    .await;
    for _ in 0..2 {
        let (code, said) = table(&data_dir, &["sign"]).await;
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said["unsigned"], json!([{"kind": "key", "id": "b"}]));
    }
    let (code, said) = table(&data_dir, &["sign", "--accept", "key/b"]).await;
    assert_eq!((code, &said["signed"]), (Some(0), &json!(1)), "{said}");
    generate(&server, "b").await.ok();
    server.stop().await;
}
