//! A deployment that moves from a data folder to AWS and back by backups, and backups in buckets.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use keyway_buckets_s3::{S3Buckets, S3Upload};
use keyway_domain::buckets::{BucketName, Buckets};
use keyway_tests::{Aws, Fate, Proxy, Server, ServerOptions, Signer};
use serde_json::{Value, json};

use crate::now_of_requests;

const PASSPHRASE: &str = "a passphrase of the backup";

/// Runs a command that succeeds and prints JSON.
async fn run(options: &ServerOptions, arguments: &[&str]) -> Value {
    let all = [arguments, &["--output", "json"]].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

async fn generate(server: &Server, key: &str) -> String {
    let body = json!({"key_id": key}).to_string();
    let answer = server.call("POST", "/kms/generate-data-key", &body).await;
    answer.text("ciphertext_blob")
}

/// Every ciphertext opens, and the holder of the access key may do what its policy says and no more.
async fn works(server: &Server, blobs: &[String], user: &Value) {
    for blob in blobs {
        let body = json!({"ciphertext_blob": blob}).to_string();
        server.call("POST", "/kms/decrypt", &body).await.ok();
    }
    let text = |name: &str| user[name].as_str().unwrap();
    let signer = Signer::new(text("access_key_id"), text("secret_access_key"));
    let path = "/kms/generate-data-key";
    let own = json!({"key_id": "own"}).to_string();
    server.call_as(&signer, "POST", path, &own).await.ok();
    let other = json!({"key_id": "other"}).to_string();
    let refused = server.call_as(&signer, "POST", path, &other).await;
    assert_eq!(refused.refusal().1, "AccessDenied");
}

async fn create_key(server: &Server, key: &str) {
    let body = json!({"key_id": key}).to_string();
    server.call("POST", "/kms/keys", &body).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn deployment_moves_to_aws_and_back_with_all_that_it_holds() {
    let Some(aws) = Aws::here() else { return };
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let stack = aws.new_stack().await;
    let mut options = ServerOptions::default().variable("KEYWAY_BACKUP_PASSPHRASE", PASSPHRASE);
    for (name, value) in stack.variables() {
        if name.starts_with("AWS_") {
            options = options.variable(&name, &value);
        }
    }
    let table = [
        "--table",
        &stack.table,
        "--root-keyring-secret",
        &stack.keyring,
    ];

    let first = path("first");
    let server = options.start(Path::new(&first)).await;
    create_key(&server, "own").await;
    create_key(&server, "other").await;
    let mut blobs = vec![
        generate(&server, "own").await,
        generate(&server, "other").await,
    ];
    let user = [
        "access-key",
        "create",
        "--policy",
        "kms-key-user",
        "--key",
        "own",
    ];
    let user = run(&options, &[&user[..], &["--data-dir", &first]].concat()).await;
    works(&server, &blobs, &user).await;
    server.stop().await;
    let to = path("to-aws");
    let create = [
        "backup",
        "create",
        "--with-root",
        "--data-dir",
        &first,
        "--to",
        &to,
    ];
    let made = run(&options, &create).await;

    let restore = [&["restore", "--from", &to][..], &table].concat();
    let would = run(&options, &[&restore[..], &["--dry-run"]].concat()).await;
    let done = run(&options, &restore).await;
    assert_eq!(done["into"], "empty");
    assert_eq!(done["new"], would["new"]);
    let again = run(&options, &restore).await;
    assert_eq!(
        (&again["into"], &again["new"]),
        (&json!("same_deployment"), &json!([]))
    );

    let serving = table.iter().fold(options.clone(), |o, a| o.argument(a));
    let server = serving.start_in_place().await;
    works(&server, &blobs, &user).await;
    create_key(&server, "of-aws").await;
    blobs.push(generate(&server, "of-aws").await);
    let back = path("to-folder");
    let create = ["backup", "create", "--with-root", "--to", &back];
    let create = [&create[..], &table].concat();
    let second = run(&options, &create).await;
    assert_eq!(second["records"]["key"], 3, "{second}");
    server.stop().await;
    let audit = run(&options, &[&["audit", "verify"][..], &table[..2]].concat()).await;
    assert_eq!(audit["ok"], true, "{audit}");
    assert_eq!(audit["restores"][0]["backup"], made["backup"]);
    assert_eq!(
        audit["restores"][0]["last_record"],
        made["last_audit_record"]
    );

    let last = path("last");
    let restore = ["restore", "--from", &back, "--data-dir", &last];
    let done = run(&options, &restore).await;
    assert_eq!(done["root_keyring"], "new");
    let server = options.start(Path::new(&last)).await;
    works(&server, &blobs, &user).await;
    let audit = run(&options, &["audit", "verify", "--data-dir", &last]).await;
    assert_eq!(audit["ok"], true, "{audit}");
    assert_eq!(audit["restores"].as_array().unwrap().len(), 2);
    let verified = run(&options, &["table", "verify", "--data-dir", &last]).await;
    assert_eq!(verified["ok"], true);
    server.stop().await;
}

/// The object's bytes.
async fn object(aws: &Aws, bucket: &str, key: &str) -> Vec<u8> {
    // Another test of this process may have installed it.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    let path = format!("/{bucket}/{key}");
    let host = aws.endpoint.trim_start_matches("http://");
    let signer = Signer::new("test", "test").for_service("s3");
    let request = signer.request("GET", host, &path, b"", now_of_requests());
    let mut get = reqwest::Client::new().get(format!("{}{path}", aws.endpoint));
    for (name, value) in request.headers() {
        get = get.header(name.as_str(), value.as_bytes());
    }
    let answer = get.send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn backup_in_a_bucket_is_the_same_file() {
    let Some(aws) = Aws::here() else { return };
    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let data = folder.path().join("data");
    let stack = aws.new_stack().await;
    let mut options = ServerOptions::default();
    for (name, value) in stack.variables() {
        if name.starts_with("AWS_") {
            options = options.variable(&name, &value);
        }
    }
    let server = options.start(&data).await;
    create_key(&server, "k").await;
    server.stop().await;
    let bucket = stack.table.replace("table", "backups");
    let buckets = S3Buckets::new(&aws.config());
    let name = BucketName::parse(&bucket).unwrap();
    buckets.create(&name).await.unwrap();

    let data = data.to_str().unwrap();
    let to = format!("s3://{bucket}/keyway/first");
    let create = ["backup", "create", "--data-dir", data, "--to", &to];
    let made = run(&options, &create).await;
    let content = object(&aws, &bucket, "keyway/first").await;
    assert_eq!(json!(content.len()), made["bytes"]);
    let file = folder.path().join("file");
    std::fs::write(&file, content).unwrap();
    let verify = [
        "backup",
        "verify",
        file.to_str().unwrap(),
        "--data-dir",
        data,
    ];
    assert_eq!(run(&options, &verify).await["authentic"], true);
    let (code, _, stderr) = options.run(&create).await;
    assert_eq!(code, Some(1), "a backup is never replaced: {stderr}");

    // More than one part.
    let large: Vec<u8> = (0..40_000_000_u32).map(|n| (n >> 8) as u8).collect();
    let mut upload = S3Upload::new(&aws.config(), &bucket, "large");
    for chunk in large.chunks(300_000) {
        upload.write(chunk).await.unwrap();
    }
    upload.finish().await.unwrap();
    assert!(object(&aws, &bucket, "large").await == large);
    let mut upload = S3Upload::new(&aws.config(), &bucket, "abandoned");
    upload.write(&large).await.unwrap();
    upload.abandon().await.unwrap();
}

/// A part takes longer than any other request may: its bytes travel over a slow line.
#[tokio::test(flavor = "multi_thread")]
async fn backup_reaches_a_bucket_over_a_slow_line() {
    let Some(aws) = Aws::here() else { return };
    let stack = aws.new_stack().await;
    let bucket = stack.table.replace("table", "slow");
    let name = BucketName::parse(&bucket).unwrap();
    S3Buckets::new(&aws.config()).create(&name).await.unwrap();
    let proxy = Proxy::before(&aws.endpoint).await;
    let each = keyway_aws::ATTEMPT_TIMEOUT + Duration::from_millis(500);
    proxy.judge(move |_, _| Fate::Delay(each));
    let mut upload = S3Upload::new(&aws.config_at(&proxy.endpoint), &bucket, "slow");
    upload.write(b"a backup").await.unwrap();
    upload.finish().await.unwrap();
    assert_eq!(object(&aws, &bucket, "slow").await, b"a backup");
}
