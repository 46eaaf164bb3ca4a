//! `keyway import` of KES's folders and MinIO's static key into a real deployment.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{create, data_dir, folder};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../vectors/kes-ciphertexts.json")).unwrap()
}

/// The vectors of one format and cipher: without a context, and with MinIO's.
fn ciphertexts(format: &str, cipher: &str) -> Vec<Value> {
    let mut found = vectors()["ciphertexts"].as_array().unwrap().clone();
    found.retain(|vector| {
        vector["format"] == format && vector["cipher"] == cipher && vector["context"] != "Zm9v"
    });
    assert_eq!(found.len(), 2);
    found
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// Runs `keyway import ... --output json`; returns exit code, report, stderr.
async fn import(data_dir: &Path, what: &[&str]) -> (Option<i32>, Value, String) {
    import_with(&ServerOptions::default(), data_dir, what).await
}

async fn import_with(
    options: &ServerOptions,
    data_dir: &Path,
    what: &[&str],
) -> (Option<i32>, Value, String) {
    let place = ["--data-dir", data_dir.to_str().unwrap(), "--output", "json"];
    let all = [&["import"], what, &place].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    let report = serde_json::from_str(&stdout).unwrap_or(Value::Null);
    (code, report, stderr)
}

fn names(report: &Value, what: &str) -> Vec<String> {
    let list = report[what].as_array().unwrap();
    let name = |item: &Value| item.as_str().or(item["name"].as_str()).unwrap().to_owned();
    list.iter().map(name).collect()
}

async fn decrypt(server: &Server, key: &str, vector: &Value) -> String {
    let mut body = json!({"key_id": key, "ciphertext_blob": vector["ciphertext"]});
    if vector["context"] != "" {
        body["encryption_context"] = json!({"bucket": "bucket/object"});
    }
    let answer = server.call("POST", "/kms/decrypt", &body.to_string()).await;
    match answer.status.as_u16() {
        200 => answer.text("plaintext"),
        _ => answer.refusal().1,
    }
}

fn kept(folder: &TempDir, name: &str, value: &str) {
    fs::write(folder.path().join(name), value).unwrap();
}

fn json_of(vector: &Value) -> String {
    format!(
        r#"{{"bytes":"{}","algorithm":"{}"}}"#,
        text(vector, "key"),
        text(vector, "cipher")
    )
}

#[tokio::test]
async fn folder_of_kes_is_imported_and_opens_what_it_sealed() {
    let (folder, kes) = (folder(), tempfile::tempdir().unwrap());
    let data_dir = data_dir(&folder);
    let formats = [
        "json",
        "json-id",
        "msgpack",
        "msgpack-newalg",
        "raw",
        "json-insecure-kdf",
    ];
    let mut sealed = Vec::new();
    for format in formats {
        for cipher in ["AES256", "ChaCha20"] {
            if format == "json-insecure-kdf" && cipher == "ChaCha20" {
                continue;
            }
            for (n, vector) in ciphertexts(format, cipher).into_iter().enumerate() {
                let name = format!("{format}-{cipher}-{n}");
                kept(&kes, &name, &json_of(&vector));
                sealed.push((name, vector));
            }
        }
    }
    let modern = &vectors()["keys"][0];
    kept(&kes, "modern", text(modern, "stored"));
    let server = ServerOptions::default().start(&data_dir).await;
    let from = ["kes", "--from-dir", kes.path().to_str().unwrap()];

    let (code, report, stderr) = import(&data_dir, &[&from[..], &["--dry-run"]].concat()).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "imported").len(), sealed.len() + 1);
    assert_eq!(report["dry_run"], true);
    let listed = server.call("GET", "/kms/keys", "").await;
    assert_eq!(listed.json()["keys"], json!([]), "it was only looked at");

    // While the server runs.
    let (code, report, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "imported").len(), sealed.len() + 1);
    for (name, vector) in &sealed {
        let wanted = match text(vector, "format") {
            "json-insecure-kdf" => "DecryptionFailed",
            _ => text(vector, "plaintext"),
        };
        assert_eq!(decrypt(&server, name, vector).await, wanted, "{name}");
    }
    let described = server.call("GET", "/kms/keys/modern", "").await;
    let key = &described.json()["key_metadata"];
    assert_eq!(key["origin"], "EXTERNAL");
    assert_eq!(key["created_by"], modern["created_by"]);

    // A second import finds every key and changes nothing.
    let (code, report, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "already_there").len(), sealed.len() + 1);
    assert!(names(&report, "imported").is_empty());
    server.stop().await;

    // The oldest derivation, where the operator allows it.
    let legacy = ServerOptions::default().argument("--open-legacy-kes");
    let server = legacy.start(&data_dir).await;
    for (name, vector) in &sealed {
        let opened = decrypt(&server, name, vector).await;
        assert_eq!(opened, text(vector, "plaintext"), "{name}");
    }
}

#[tokio::test]
async fn conflicts_and_files_without_keys_are_reported_and_skipped() {
    let (folder, kes) = (folder(), tempfile::tempdir().unwrap());
    let data_dir = data_dir(&folder);
    let vectors = ciphertexts("raw", "AES256");
    kept(&kes, "a-good", &json_of(&vectors[0]));
    kept(&kes, "a-made-here", &json_of(&vectors[0]));
    kept(&kes, "a-other", &json_of(&vectors[0]));
    kept(&kes, "b-good", &json_of(&vectors[0]));
    kept(&kes, "a-huge", &"x".repeat(100_000));
    kept(&kes, "a-secret-text", "cleartext-that-nobody-must-see");
    kept(&kes, "a b", &json_of(&vectors[0]));
    kept(&kes, "a\n\u{1b}[31m", "x");
    symlink(kes.path().join("a-good"), kes.path().join("a-link")).unwrap();
    fs::create_dir(kes.path().join("a-folder")).unwrap();
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "a-made-here").await;
    let first = tempfile::tempdir().unwrap();
    kept(&first, "a-other", &json_of(&vectors[1]));
    let from = ["kes", "--from-dir", first.path().to_str().unwrap()];
    assert_eq!(import(&data_dir, &from).await.0, Some(0));

    let from = [
        "kes",
        "--from-dir",
        kes.path().to_str().unwrap(),
        "--prefix",
        "a",
    ];
    for dry_run in [true, false] {
        let mut what = from.to_vec();
        what.extend(dry_run.then_some("--dry-run"));
        let (code, report, stderr) = import(&data_dir, &what).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(names(&report, "imported"), ["a-good"]);
        assert_eq!(names(&report, "conflicts"), ["a-made-here", "a-other"]);
        let refused = [
            "a\\n\\u{1b}[31m",
            "a b",
            "a-folder",
            "a-huge",
            "a-link",
            "a-secret-text",
        ];
        assert_eq!(names(&report, "refused"), refused);
        let told = format!("{report}{stderr}");
        for secret in [
            "cleartext",
            text(&vectors[0], "key"),
            text(&vectors[1], "key"),
            "\u{1b}",
        ] {
            assert!(!told.contains(secret), "{told}");
        }
        assert!(
            stderr.contains("refused: a-link: it is a symbolic link"),
            "{stderr}"
        );
    }
    assert_eq!(
        decrypt(&server, "a-good", &vectors[0]).await,
        text(&vectors[0], "plaintext")
    );
    assert_eq!(
        decrypt(&server, "a-other", &vectors[1]).await,
        text(&vectors[1], "plaintext")
    );
    assert_eq!(
        decrypt(&server, "a-other", &vectors[0]).await,
        "DecryptionFailed"
    );
    assert_eq!(
        decrypt(&server, "a-made-here", &vectors[0]).await,
        "DecryptionFailed"
    );
    assert_eq!(
        decrypt(&server, "b-good", &vectors[0]).await,
        "DecryptionFailed"
    );
}

#[tokio::test]
async fn static_key_of_minio_comes_from_variable_or_file() {
    let (folder, other) = (folder(), tempfile::tempdir().unwrap());
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    let vector = &ciphertexts("raw", "AES256")[1];
    let value = format!("my-minio-key:{}", text(vector, "key"));
    let options = ServerOptions::default().variable("MINIO_KMS_SECRET_KEY", &value);
    let (code, report, stderr) = import_with(&options, &data_dir, &["minio-static"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "imported"), ["my-minio-key"]);
    let opened = decrypt(&server, "my-minio-key", vector).await;
    assert_eq!(opened, text(vector, "plaintext"));

    kept(&other, "key", &format!("{value}\n"));
    let file = other.path().join("key");
    let from = ["minio-static", "--file", file.to_str().unwrap()];
    let (code, report, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "already_there"), ["my-minio-key"]);
    let (code, _, stderr) = import_with(&options, &data_dir, &from).await;
    assert_eq!(
        (code, stderr.contains("give one of them")),
        (Some(1), true),
        "{stderr}"
    );

    let elsewhere = &ciphertexts("raw", "AES256")[0];
    kept(
        &other,
        "key",
        &format!("my-minio-key:{}", text(elsewhere, "key")),
    );
    let (code, report, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(names(&report, "conflicts"), ["my-minio-key"]);
    kept(&other, "key", "my-minio-key:cleartext");
    let (code, _, stderr) = import(&data_dir, &from).await;
    assert_eq!(
        (code, stderr.contains("cleartext")),
        (Some(1), false),
        "{stderr}"
    );
    let (code, _, stderr) = import(&data_dir, &["minio-static"]).await;
    assert_eq!(
        (code, stderr.contains("MINIO_KMS_SECRET_KEY")),
        (Some(1), true),
        "{stderr}"
    );
}

#[tokio::test]
async fn import_without_a_configured_deployment_is_refused() {
    let (folder, kes) = (folder(), tempfile::tempdir().unwrap());
    let data_dir = data_dir(&folder);
    kept(&kes, "k", &json_of(&ciphertexts("raw", "AES256")[0]));
    let from = ["kes", "--from-dir", kes.path().to_str().unwrap()];
    let (code, _, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("there is no deployment"), "{stderr}");
    assert!(!data_dir.exists());
    ServerOptions::not_started()
        .start(&data_dir)
        .await
        .stop()
        .await;
    let (code, _, stderr) = import(&data_dir, &from).await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the service is not configured"), "{stderr}");
    let nowhere = ["kes", "--from-dir", "/nonexistent"];
    let (code, _, stderr) = import(&data_dir, &nowhere).await;
    assert_eq!(
        (code, stderr.contains("cannot be read")),
        (Some(1), true),
        "{stderr}"
    );
    assert_eq!(
        import(&data_dir, &["kes"]).await.0,
        Some(2),
        "one of the sources"
    );
}
