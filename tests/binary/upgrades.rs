//! Data folders of earlier releases (tests/data/upgrades) open with this build, and folders of later releases are refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::{Answer, Server, ServerOptions, Signer, project};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{create, data_dir, folder, kes, on, signer, wall_clock};

/// A copy of a release's data folder, and what that release left to be done with it.
struct Before {
    release: &'static str,
    folder: TempDir,
    expected: Value,
}

impl Before {
    fn of(release: &'static str) -> Self {
        let folder = folder();
        Self {
            release,
            expected: data_of(release, &folder),
            folder,
        }
    }

    fn data(&self) -> PathBuf {
        data_dir(&self.folder)
    }

    fn options(&self) -> ServerOptions {
        let options = kes::options().without_root();
        match self.expected["passphrase"].as_str() {
            Some(passphrase) => options.variable("KEYWAY_PASSPHRASE", passphrase),
            None => options,
        }
    }

    fn list(&self, field: &str) -> &[Value] {
        self.expected[field].as_array().unwrap()
    }

    fn root(&self) -> Signer {
        signer(&self.list("access_keys")[0])
    }

    /// Runs a command on the folder, which must succeed, and returns what it prints as JSON.
    async fn command(&self, arguments: &[&str]) -> Value {
        let data = self.data();
        let place = ["--data-dir", data.to_str().unwrap(), "--output", "json"];
        let (code, stdout, stderr) = self.options().run(&[arguments, &place].concat()).await;
        assert_eq!(code, Some(0), "{} {arguments:?}: {stderr}", self.release);
        serde_json::from_str(&stdout).unwrap()
    }

    /// Everything that the release made works with this server.
    async fn works(&self, server: &Server) {
        for opened in self.list("opens") {
            let (answer, field) = self.opened(server, opened).await;
            assert_eq!(answer.ok()[field], opened["plaintext"], "{opened}");
        }
        for (key, is) in self.expected["keys"].as_object().unwrap() {
            let path = format!("/kms/keys/{key}");
            let found = server.call_as(&self.root(), "GET", &path, "").await.ok();
            let found = &found["key_metadata"];
            let found = json!([found["key_state"], found["key_version"]]);
            assert_eq!(found, *is, "{} {key}", self.release);
        }
        for access_key in self.list("access_keys") {
            let signer = signer(access_key);
            for key in ["reports", "prefix-one"] {
                let may = access_key["may"].as_array().unwrap().contains(&json!(key));
                let path = "/kms/generate-data-key";
                let answer = server.call_as(&signer, "POST", path, &on(key)).await;
                assert_eq!(answer.status == 200, may, "{access_key} {key}");
            }
        }
        self.rest_works(server).await;
    }

    /// What only some releases have.
    async fn rest_works(&self, server: &Server) {
        if let Some(identity) = self.expected["identity"].as_object() {
            let path = format!(
                "/v1/identity/describe/{}",
                identity["identity"].as_str().unwrap()
            );
            let admin = kes::admin(server, &self.data());
            let found = admin.call("GET", &path, None).await.ok();
            assert_eq!(found["policy"], identity["policy"]);
            let path = format!("/v1/policy/read/{}", identity["policy"].as_str().unwrap());
            let found = admin.call("GET", &path, None).await.ok();
            assert_eq!(found["allow"], json!({"/v1/key/list/*": {}}));
        }
        if let Some(bucket) = self.expected["bucket"].as_str() {
            let path = format!("/api/v1/bucket-encryption/{bucket}");
            let request = self
                .root()
                .request("GET", &server.address, &path, b"", wall_clock());
            let found = server.send(request).await.unwrap().ok();
            assert!(found.to_string().contains("reports"), "{found}");
        }
        if self.expected["mac"].is_object() {
            let answer = self.aws(server, "VerifyMac", &self.expected["mac"]).await;
            assert_eq!(answer.ok()["MacValid"], true);
            let body = json!({"KeyId": "alias/app"});
            let found = self.aws(server, "DescribeKey", &body).await.ok();
            assert_eq!(found["KeyMetadata"]["KeyId"], "reports");
            let body = json!({"KeyId": "prefix-one"});
            let found = self.aws(server, "GetKeyRotationStatus", &body).await.ok();
            assert_eq!(found["RotationPeriodInDays"], 2560);
        }
    }

    /// The answer to a request for a plaintext, and the field that has it.
    async fn opened(&self, server: &Server, opened: &Value) -> (Answer, &'static str) {
        let (key, request) = (opened["key"].as_str().unwrap(), &opened["request"]);
        match opened["api"].as_str().unwrap() {
            "rustfs" => {
                let body = request.to_string();
                let answer = self.call(server, "/kms/decrypt", &body).await;
                (answer, "plaintext")
            }
            "kes" => {
                let path = format!("/v1/key/decrypt/{key}");
                let admin = kes::admin(server, &self.data());
                (admin.call("POST", &path, Some(request)).await, "plaintext")
            }
            _ => (self.aws(server, "Decrypt", request).await, "Plaintext"),
        }
    }

    /// Calls as root.
    async fn call(&self, server: &Server, path: &str, body: &str) -> Answer {
        server.call_as(&self.root(), "POST", path, body).await
    }

    async fn aws(&self, server: &Server, target: &str, body: &Value) -> Answer {
        let signer = self.root().for_service("kms");
        let signer = signer.with_target(&format!("TrentService.{target}"));
        let body = body.to_string();
        let request = signer.request(
            "POST",
            &server.address,
            "/aws",
            body.as_bytes(),
            wall_clock(),
        );
        server.send(request).await.unwrap()
    }
}

/// Copies a release's data folder into this one, and returns what that release left to be done with it.
pub(crate) fn data_of(release: &str, folder: &TempDir) -> Value {
    let source = project().join("tests/data/upgrades").join(release);
    copy(&source.join("data"), &data_dir(folder));
    let expected = fs::read_to_string(source.join("expected.json")).unwrap();
    serde_json::from_str(&expected).unwrap()
}

/// Copies a folder. Git keeps no modes, which the server checks.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
            fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
        }
    }
}

/// Opens the folder with this build, uses it, signs its records, and uses it again.
async fn folder_of_a_release_works(release: &'static str, is_signed: bool) {
    let before = Before::of(release);
    if let Some(events) = before.expected["audit_events"].as_u64() {
        let found = before.command(&["audit", "verify"]).await;
        assert_eq!(found["ok"], true, "{found}");
        assert!(found["events"].as_u64().unwrap() >= events, "{found}");
    }
    let found = before.command(&["table", "verify"]).await;
    assert_eq!(found["refused"], json!([]), "{found}");
    assert_eq!(found["all_signed"], is_signed, "{found}");
    assert_eq!(found["unsigned"] == json!([]), is_signed, "{found}");
    let server = before.options().start(&before.data()).await;
    before.works(&server).await;
    let key = "made-after";
    before.call(&server, "/kms/keys", &on(key)).await.ok();
    let made = before
        .call(&server, "/kms/generate-data-key", &on(key))
        .await;
    assert_eq!(server.stop().await.0, Some(0));

    let found = before.command(&["table", "sign"]).await;
    assert_eq!(
        (&found["ok"], &found["all_signed"]),
        (&json!(true), &json!(true))
    );
    let server = before.options().start(&before.data()).await;
    before.works(&server).await;
    let body = json!({"ciphertext_blob": made.text("ciphertext_blob")}).to_string();
    let opened = before.call(&server, "/kms/decrypt", &body).await;
    assert_eq!(opened.text("plaintext"), made.text("plaintext_key"));
    assert_eq!(server.stop().await.0, Some(0));
    let found = before.command(&["audit", "verify"]).await;
    assert_eq!(found["ok"], true, "{found}");
}

#[tokio::test]
async fn folder_of_0_1_0_opens_and_all_of_it_works() {
    folder_of_a_release_works("0.1.0", false).await;
}

#[tokio::test]
async fn folder_of_before_signed_records_opens_and_all_of_it_works() {
    folder_of_a_release_works("before-signed-records", false).await;
}

#[tokio::test]
async fn folder_of_before_root_rotation_opens_and_all_of_it_works() {
    folder_of_a_release_works("before-root-rotation", true).await;
}

/// A folder of this release, after a change that only a later release makes.
async fn changed_by_a_later_release(change: impl FnOnce(&Path)) -> TempDir {
    let folder = folder();
    let data = data_dir(&folder);
    let server = ServerOptions::default().start(&data).await;
    create(&server, "k").await;
    assert_eq!(server.stop().await.0, Some(0));
    change(&data);
    folder
}

/// Every command that opens the folder is refused with all of these texts, and nothing in it changes.
async fn is_refused(folder: &TempDir, texts: &[&str]) {
    let data = data_dir(folder);
    let files = ["keyway.db", "secrets/root-keyring.secret"].map(|file| data.join(file));
    let before = files.each_ref().map(|file| fs::read(file).unwrap());
    let place = data.to_str().unwrap();
    for command in [
        &["serve", "--listen", "127.0.0.1:0"][..],
        &["access-key", "list"],
        &["table", "verify"],
        &["rewrap-keys"],
    ] {
        let arguments = [command, &["--data-dir", place]].concat();
        let (code, _, stderr) = ServerOptions::default().run(&arguments).await;
        assert_eq!(code, Some(1), "{command:?}");
        for text in texts {
            assert!(stderr.contains(text), "{command:?}: {text}: {stderr}");
        }
    }
    assert!(files.each_ref().map(|file| fs::read(file).unwrap()) == before);
}

fn execute(data: &Path, statement: &str) {
    let table = rusqlite::Connection::open(data.join("keyway.db")).unwrap();
    table.execute_batch(statement).unwrap();
}

#[tokio::test]
async fn table_with_a_newer_schema_is_refused_with_its_version() {
    let folder = changed_by_a_later_release(|data| execute(data, "PRAGMA user_version = 99")).await;
    let texts = [
        "has schema version 99",
        "knows versions up to",
        "docs/upgrading.md",
    ];
    is_refused(&folder, &texts).await;
}

#[tokio::test]
async fn table_of_a_newer_format_is_refused_with_its_release() {
    let change = |data: &Path| {
        execute(
            data,
            r#"UPDATE records SET value = CAST(json_set(CAST(value AS TEXT), '$.needs', json('{"format":9,"release":"9.8.7"}')) AS BLOB)
               WHERE kind = 'config' AND id = CAST('deployment' AS BLOB)"#,
        );
    };
    let folder = changed_by_a_later_release(change).await;
    let texts = [
        "is of keyway 9.8.7 or later",
        "its format is 9",
        "docs/upgrading.md",
    ];
    is_refused(&folder, &texts).await;
}

#[tokio::test]
async fn keyring_of_a_newer_format_is_refused_with_its_format() {
    let file_is_newer = |data: &Path| {
        let file = data.join("secrets/root-keyring.secret");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replacen("\"format\":1", "\"format\":9", 1)).unwrap();
    };
    let folder = changed_by_a_later_release(file_is_newer).await;
    is_refused(&folder, &["has format 9", "docs/upgrading.md"]).await;
    let keyring_is_newer = |data: &Path| {
        let file = data.join("secrets/root-keyring.secret");
        let mut stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let later = r#"{"format":9,"rings":[]}"#;
        stored["value"] = json!(STANDARD.encode(later));
        fs::write(&file, stored.to_string()).unwrap();
    };
    let folder = changed_by_a_later_release(keyring_is_newer).await;
    is_refused(
        &folder,
        &["the root keyring has format 9", "docs/upgrading.md"],
    )
    .await;
}

#[tokio::test]
async fn table_of_an_earlier_release_says_from_the_first_start_which_format_it_has() {
    let before = Before::of("0.1.0");
    let needs = || {
        let table = rusqlite::Connection::open(before.data().join("keyway.db")).unwrap();
        let value: Vec<u8> = table
            .query_row(
                "SELECT value FROM records WHERE kind = 'config' AND id = CAST('deployment' AS BLOB)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let value: Value = serde_json::from_slice(&value).unwrap();
        value["needs"].clone()
    };
    assert_eq!(needs(), Value::Null);
    let server = before.options().start(&before.data()).await;
    assert_eq!(server.stop().await.0, Some(0));
    let release = env!("CARGO_PKG_VERSION");
    assert_eq!(needs(), json!({"format": 1, "release": release}));
}
