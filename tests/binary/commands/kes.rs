//! The same commands over KES's API.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keyway_tests::Server;
use serde_json::{Value, json};

use super::Operator;
use crate::kes::{ADMIN_KEY, admin, options};
use crate::{data_dir, folder};

fn of_kes(server: &Server, data_dir: &Path) -> Operator {
    let authority = data_dir.join("kes-listener.crt");
    Operator::nobody()
        .with("KEYWAY_API", "kes")
        .with(
            "KEYWAY_ENDPOINT",
            &format!("https://localhost:{}", server.kes().port()),
        )
        .with("KEYWAY_CA_FILE", authority.to_str().unwrap())
}

#[tokio::test]
async fn commands_work_over_kes_api_as_far_as_it_goes() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options().start(&data_dir).await;
    let by_kes = of_kes(&server, &data_dir).with("KEYWAY_API_KEY", ADMIN_KEY);
    by_kes.text(&["key", "create", "minio-1"]).await;
    by_kes.text(&["key", "create", "minio-2"]).await;
    by_kes.text(&["key", "create", "other"]).await;
    let (code, stderr) = by_kes.fails(&["key", "create", "other"]).await;
    assert_eq!(code, 5, "{stderr}");
    let listed = by_kes.json(&["key", "list", "--prefix", "minio-"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(listed[0]["key_id"], "minio-1");
    assert_eq!(listed[0]["state"], Value::Null, "this API knows no states");
    let key = by_kes.json(&["key", "show", "minio-1"]).await;
    assert_eq!(key["algorithm"], "AES256");
    let (code, _) = by_kes.fails(&["key", "show", "absent"]).await;
    assert_eq!(code, 3);

    let on = ["--key", "minio-1", "--context", "bucket=b"];
    let generate = [&["data-key", "generate", "--show-plaintext"][..], &on].concat();
    let made = by_kes.json(&generate).await;
    let ciphertext = made["ciphertext"].as_str().unwrap();
    let decrypt = [
        &["data-key", "decrypt", ciphertext, "--show-plaintext"][..],
        &on,
    ]
    .concat();
    let opened = by_kes.json(&decrypt).await;
    assert_eq!(opened["plaintext"], made["plaintext"]);
    let encrypt = [&["encrypt"][..], &on].concat();
    let (_, sealed, _) = by_kes.options.run_with_input(&encrypt, b"hello").await;
    let decrypt = [&["decrypt"][..], &on].concat();
    let (code, opened, stderr) = by_kes.options.run_with_input(&decrypt, &sealed).await;
    assert_eq!((code, &opened[..]), (Some(0), &b"hello"[..]), "{stderr}");
    let status = by_kes.json(&["service", "status"]).await;
    assert_eq!(
        (&status["status"], &status["healthy"]),
        (&json!("Running"), &json!(true))
    );

    // What this API lacks is refused before anything is sent.
    for lacking in [
        &["key", "rotate", "minio-1"][..],
        &["key", "disable", "minio-1"],
        &["key", "tag", "minio-1", "a=b"],
        &["key", "create", "new", "--description", "d"],
        &["key", "delete", "minio-1"],
        &["key", "list", "--state", "enabled"],
        &["data-key", "generate"],
        &[
            "data-key", "generate", "--key", "minio-1", "--spec", "aes-128",
        ],
        &["service", "stop"],
        &["audit", "tail", "--no-follow"],
        &["audit", "tail", "--key", "minio-1"],
    ] {
        let (code, stderr) = by_kes.fails(lacking).await;
        assert_eq!(code, 2, "{lacking:?}: {stderr}");
        assert!(stderr.contains("KES's API"), "{stderr}");
    }
    let delete = ["key", "delete", "other", "--immediately", "--confirm"];
    let (code, stderr) = by_kes.fails(&[&delete[..], &["othre"]].concat()).await;
    assert_eq!(code, 2, "{stderr}");
    let done = by_kes.text(&[&delete[..], &["other"]].concat()).await;
    assert_eq!(done, "other is destroyed\n");
    // The state of a key is not the caller's fault.
    let disabled = server
        .call("POST", "/kms/keys/disable", &crate::on("minio-1"))
        .await;
    disabled.ok();
    let (code, stderr) = by_kes
        .fails(&["data-key", "generate", "--key", "minio-1"])
        .await;
    assert_eq!(code, 5);
    assert!(stderr.contains("key is disabled"), "{stderr}");
}

#[tokio::test]
async fn certificate_in_files_proves_who_calls() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = options().start(&data_dir).await;
    let user = of_kes(&server, &data_dir);
    let (certificate, key) = (user.path("client.crt"), user.path("client.key"));
    let new = ["identity", "new", "--kind", "ecdsa", "--output", "json"];
    let new = [&new[..], &["--cert", &certificate, "--key", &key]].concat();
    let made = user.options.run(&new).await.1;
    let made: Value = serde_json::from_str(&made).unwrap();
    let list = ["key", "list", "--certificate", &certificate];
    let list = [&list[..], &["--certificate-key", &key]].concat();
    let (code, stderr) = user.fails(&list).await;
    assert_eq!(code, 4, "{stderr}");
    let admin = admin(&server, &data_dir);
    let policy = json!({"allow": {"/v1/key/list/*": {}}});
    let write = "/v1/policy/write/p";
    admin.call("POST", write, Some(&policy)).await;
    let body = json!({"identity": made["identity"]});
    let assigned = admin.call("POST", "/v1/policy/assign/p", Some(&body)).await;
    assert_eq!(assigned.status, 200);
    assert_eq!(user.json(&list).await, json!([]));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (code, stderr) = user.fails(&list).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("chmod 600"), "{stderr}");

    let (code, stderr) = user.fails(&["key", "list"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("KEYWAY_API_KEY"), "{stderr}");
    // The server's certificate is checked.
    let other = user.path("other.crt");
    let pem = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(&other, pem.cert.pem()).unwrap();
    let misled = of_kes(&server, &data_dir).with("KEYWAY_API_KEY", ADMIN_KEY);
    let (code, stderr) = misled.fails(&["key", "list", "--ca", &other]).await;
    assert_eq!(code, 6, "{stderr}");
}
