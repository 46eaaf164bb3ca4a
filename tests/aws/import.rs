//! `keyway import kes --from-secrets-manager`: keys of KES among an account's secrets.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use keyway_tests::{Aws, ServerOptions};
use serde_json::{Value, json};

/// More than Secrets Manager lists at once.
const MANY: usize = 103;

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_kes_are_found_among_other_secrets() {
    let Some(aws) = Aws::here() else { return };
    let vectors: Value =
        serde_json::from_str(include_str!("../../vectors/kes-ciphertexts.json")).unwrap();
    let stored = vectors["keys"][0]["stored"].as_str().unwrap();
    // Other tests keep secrets in the same account, so this prefix belongs to this test alone.
    let first = aws.secret(Some(stored)).await;
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    let make = async |name: &str, value: &str| {
        let made = client
            .create_secret()
            .name(format!("{first}{name}"))
            .secret_string(value)
            .send()
            .await;
        made.unwrap();
    };
    let bytes = vectors["ciphertexts"][0]["key"].as_str().unwrap();
    for n in 0..MANY {
        make(&format!("-{n:03}"), &format!(r#"{{"bytes":"{bytes}"}}"#)).await;
    }
    make("-password", "cleartext").await;
    make("/path", stored).await;
    make(
        "-unknown",
        &format!(r#"{{"bytes":"{bytes}","algorithm":"DES"}}"#),
    )
    .await;

    let folder = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap();
    let mut options = ServerOptions::default();
    for (name, value) in aws.deployment().await.variables() {
        if name.starts_with("AWS_") {
            options = options.variable(&name, &value);
        }
    }
    let server = options.start(folder.path()).await;
    let import = async || {
        let arguments = [
            "import",
            "kes",
            "--from-secrets-manager",
            "--prefix",
            &first,
            "--data-dir",
            folder.path().to_str().unwrap(),
            "--output",
            "json",
        ];
        let (code, stdout, stderr) = options.run(&arguments).await;
        assert!(!stderr.contains("cleartext") && !stdout.contains("cleartext"));
        (
            code,
            serde_json::from_str::<Value>(&stdout).unwrap(),
            stderr,
        )
    };
    let names = |report: &Value, what: &str| {
        let list = report[what].as_array().unwrap().iter();
        let name = |left: &Value| {
            left["name"]
                .as_str()
                .unwrap_or_default()
                .replace(&first, "")
        };
        list.map(name).collect::<Vec<_>>()
    };
    let (code, report, stderr) = import().await;
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(names(&report, "imported").len(), MANY + 1, "{stderr}");
    assert_eq!(names(&report, "refused"), ["-unknown"]);
    assert_eq!(names(&report, "skipped"), ["-password", "/path"]);

    let unknown = format!("{first}-unknown");
    let removed = client
        .delete_secret()
        .secret_id(unknown)
        .force_delete_without_recovery(true)
        .send()
        .await;
    removed.unwrap();
    let (code, report, stderr) = import().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(names(&report, "already_there").len(), MANY + 1);

    let sealed = &vectors["ciphertexts"][0];
    assert_eq!(sealed["context"], "");
    let body = json!({"key_id": format!("{first}-007"), "ciphertext_blob": sealed["ciphertext"]});
    let opened = server.call("POST", "/kms/decrypt", &body.to_string()).await;
    assert_eq!(opened.ok()["plaintext"], sealed["plaintext"]);
}
