//! Real clients: awscurl as the documents use it, and botocore's signers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, OnceLock};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use keyway_buckets_s3::S3Buckets;
use keyway_deployment_assembly::SystemRandom;
use keyway_testkit::bucket_contract;
use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{access_key, create, folder, is_set};

pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Whether this script could install the clients of a test. Runs once; prints a failure, which in CI fails the test.
pub(crate) fn are_made(made: &OnceLock<bool>, script: &str, test: &str) -> bool {
    let made = *made.get_or_init(|| {
        let made = std::process::Command::new(Path::new(REPOSITORY).join(script))
            .stdout(Stdio::null())
            .status();
        made.is_ok_and(|status| status.success())
    });
    if !made {
        assert!(!is_set("CI"), "{test}: the clients could not be made");
        eprintln!("\n*** SKIPPED: {test}: {script} could not make the clients ***\n");
    }
    made
}

/// The folder of the clients, installed first if needed. `None`, and a printed line, if they cannot be installed; in CI
/// that is a failure.
pub(crate) fn clients(test: &str) -> Option<PathBuf> {
    static MADE: OnceLock<bool> = OnceLock::new();
    are_made(&MADE, "scripts/python-env", test).then(|| Path::new(REPOSITORY).join(".venv/bin"))
}

/// A program of Debian's, or the machine's own. `None`, and a printed line, if there is none; in CI that is a failure.
pub(crate) fn debian_tool(program: &str, package: &str) -> Option<PathBuf> {
    let found = std::process::Command::new(Path::new(REPOSITORY).join("scripts/debian-tool"))
        .args([program, package])
        .output()
        .unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    if let Some(path) = path.lines().next() {
        return Some(PathBuf::from(path));
    }
    let why = String::from_utf8_lossy(&found.stderr);
    assert!(!is_set("CI"), "{why}");
    eprintln!("\n*** SKIPPED: {why} ***\n");
    None
}

/// Runs a script of tests/clients by Node.js with root's access key, where its modules can be installed. It must report
/// this many checks.
pub(crate) async fn node(script: &str, server: &Server, arguments: &[&str], checks: usize) {
    static MADE: OnceLock<bool> = OnceLock::new();
    if !are_made(&MADE, "scripts/node-env", script) {
        return;
    }
    let script = Path::new(REPOSITORY).join("tests/clients").join(script);
    let arguments = [&[script.to_str().unwrap()], arguments].concat();
    let key = json!({"access_key_id": "test-root", "secret_access_key": "test-root-secret"});
    let (ended_well, stdout, stderr) = run(Path::new("node"), &key, &arguments).await;
    assert!(ended_well, "{stdout}{stderr}{}", server.log());
    assert_eq!(stdout.lines().count(), checks, "{stdout}");
}

/// Runs a client to its end with the access key in its variables: whether it succeeded, stdout, stderr.
pub(crate) async fn run(program: &Path, key: &Value, arguments: &[&str]) -> (bool, String, String) {
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command
        .env("AWS_ACCESS_KEY_ID", text("access_key_id"))
        .env("AWS_SECRET_ACCESS_KEY", text("secret_access_key"))
        .env("AWS_EC2_METADATA_DISABLED", "true");
    if let Some(token) = key["session_token"].as_str() {
        command.env("AWS_SESSION_TOKEN", token);
    }
    let output = command.output().await.unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn botocore_signs_the_life_of_a_key_in_every_way() {
    let Some(bin) = clients("botocore") else {
        return;
    };
    let folder = folder();
    for life in [&[][..], &["--expires-in", "3600"]] {
        let folder = folder.path().join(life.len().to_string());
        let server = ServerOptions::default().start(&folder).await;
        let policy = [&["--policy", "kms-admin"], life].concat();
        let key = access_key(&folder, &policy).await;
        let script = Path::new(REPOSITORY).join("tests/clients/botocore_client.py");
        let base = format!("http://{}/rustfs/admin/v3", server.address);
        let arguments = [script.to_str().unwrap(), &base];
        let (ended_well, stdout, stderr) = run(&bin.join("python3"), &key, &arguments).await;
        assert!(ended_well, "{stdout}{stderr}");
        let mut ways = std::collections::BTreeMap::<String, usize>::new();
        for line in stdout.lines() {
            let held: Value = serde_json::from_str(line).unwrap();
            *ways
                .entry(held["way"].as_str().unwrap().to_owned())
                .or_default() += 1;
        }
        assert_eq!(ways.len(), 7, "{stdout}");
        assert!(ways.values().all(|&checks| checks == 7), "{stdout}");
        // Other callers see the bucket that this client made.
        server
            .call("GET", "/kms/keys/life-header-s3-s3", "")
            .await
            .ok();
        assert_eq!(server.stop().await.0, Some(0));
    }
}

/// Goes through buckets with boto3 and the AWS CLI; the server has the key `k`, and no bucket of these names.
async fn s3_clients(bin: &Path, key: &Value, endpoint: &str) {
    let script = Path::new(REPOSITORY).join("tests/clients/s3_client.py");
    let arguments = [script.to_str().unwrap(), endpoint, "photos", "k"];
    let (ended_well, stdout, stderr) = run(&bin.join("python3"), key, &arguments).await;
    assert!(ended_well, "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 6, "{stdout}");
}

#[tokio::test]
async fn boto3_and_the_aws_cli_set_the_encryption_of_buckets() {
    let Some(bin) = clients("boto3 and the AWS CLI") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let limited = ["--policy", "kms-admin", "--expires-in", "3600"];
    let key = access_key(folder.path(), &limited).await;
    s3_clients(&bin, &key, &format!("http://{}", server.address)).await;
    // The clients' last change lets the bucket use the key, so the key's deletion names the bucket.
    let deleted = server
        .call("DELETE", "/kms/keys/delete?keyId=k", "")
        .await
        .ok();
    let references = &deleted["impact"]["references"];
    assert_eq!(references.as_array().unwrap().len(), 1, "{deleted}");
    assert_eq!(references[0]["kind"], "bucket-default-encryption");
    assert_eq!(references[0]["id"], "photos");
    // The next client finds these buckets.
    assert_eq!(server.stop().await.0, Some(0));
    let again = ServerOptions::default().start(folder.path()).await;
    let got = again
        .call("GET", "/api/v1/bucket-encryption/photos", "")
        .await
        .ok();
    let rule = &got["ServerSideEncryptionConfiguration"]["Rules"][0];
    let default = json!({"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "k"});
    assert_eq!(rule["ApplyServerSideEncryptionByDefault"], default);
    assert_eq!(again.stop().await.0, Some(0));
}

#[tokio::test]
async fn minio_py_and_s3cmd_use_buckets_and_keys() {
    let Some(bin) = clients("minio-py and s3cmd") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let default = r#"{"default_key_id":"k"}"#;
    server.call("POST", "/kms/reconfigure", default).await.ok();
    let key = access_key(folder.path(), &["--policy", "kms-admin"]).await;
    let script = Path::new(REPOSITORY).join("tests/clients/minio_client.py");
    let address = server.address.to_string();
    let arguments = [script.to_str().unwrap(), &address, "k"];
    let (ended_well, stdout, stderr) = run(&bin.join("python3"), &key, &arguments).await;
    assert!(ended_well, "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 6, "{stdout}");
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn minio_js_uses_buckets() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let address = server.address.to_string();
    node("minio_client.mjs", &server, &[&address, "k"], 4).await;
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn aws_sdk_for_javascript_uses_buckets() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let endpoint = format!("http://{}", server.address);
    node("s3_client.mjs", &server, &[&endpoint, "k"], 4).await;
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn rclone_makes_lists_and_removes_buckets() {
    let Some(rclone) = debian_tool("rclone", "rclone") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let remote = format!(
        ":s3,provider=Other,env_auth,region=us-east-1,endpoint='http://{}':",
        server.address
    );
    let films = format!("{remote}films");
    let key = json!({"access_key_id": "test-root", "secret_access_key": "test-root-secret"});
    let call = async |arguments: &[&str]| {
        let common = ["--config=", "--retries=1", "--low-level-retries=1"];
        run(&rclone, &key, &[&common, arguments].concat()).await
    };
    let ok = async |arguments: &[&str]| {
        let (ended_well, stdout, stderr) = call(arguments).await;
        assert!(
            ended_well,
            "{arguments:?}: {stdout}{stderr}{}",
            server.log()
        );
        stdout
    };
    ok(&["mkdir", &films]).await;
    ok(&["mkdir", &films]).await;
    assert!(ok(&["lsd", &remote]).await.contains("films"));
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "a").unwrap();
    let (ended_well, _, stderr) = call(&["copy", file.to_str().unwrap(), &films]).await;
    assert!(!ended_well && stderr.contains("NotImplemented"), "{stderr}");
    ok(&["rmdir", &films]).await;
    assert!(!ok(&["lsd", &remote]).await.contains("films"));
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn boto3_the_aws_cli_and_minio_py_sign_in_by_sts() {
    let Some(bin) = clients("STS's clients") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let policy = folder.path().join("policy.json");
    let allowed = ["kms:ListKeys", "kms:GenerateDataKey", "s3:ListAllMyBuckets"];
    let document = json!({"Statement": {"Effect": "Allow", "Action": allowed}});
    std::fs::write(&policy, document.to_string()).unwrap();
    let key = access_key(folder.path(), &["--policy", policy.to_str().unwrap()]).await;
    let script = Path::new(REPOSITORY).join("tests/clients/sts_client.py");
    let endpoint = format!("http://{}", server.address);
    let arguments = [script.to_str().unwrap(), &endpoint, "k"];
    let (ended_well, stdout, stderr) = run(&bin.join("python3"), &key, &arguments).await;
    assert!(ended_well, "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), 5, "{stdout}");
    // The list shows the parents of the sessions; they end when the parent is revoked.
    let listed = async || {
        let folder = folder.path().to_str().unwrap();
        let list = [
            "access-key",
            "list",
            "--output",
            "json",
            "--data-dir",
            folder,
        ];
        let (code, stdout, stderr) = ServerOptions::default().run(&list).await;
        assert_eq!(code, Some(0), "{stderr}");
        let listed: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        let sessions = listed
            .into_iter()
            .filter(|key| !key["session_of"].is_null());
        sessions.collect::<Vec<_>>()
    };
    let sessions = listed().await;
    assert!(sessions.len() >= 4, "{sessions:?}");
    assert!(sessions.iter().all(|session| {
        session["session_of"] == key["access_key_id"] && session["owner"] == false
    }));
    assert_eq!(server.stop().await.0, Some(0));
}

/// The clients that `make test-clients` installs and names.
mod slow {
    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "scripts/test-clients tells the tests by variables what it has installed"
    )]
    fn program(variable: &str) -> PathBuf {
        std::env::var_os(variable).map(PathBuf::from).unwrap()
    }

    #[tokio::test]
    #[ignore = "make test-clients"]
    async fn rc_manages_the_service_keys_and_buckets() {
        let rc = program("KEYWAY_TEST_RC");
        let bin = clients("rc").unwrap();
        let folder = folder();
        let server = ServerOptions::default().start(folder.path()).await;
        let key = access_key(folder.path(), &["--policy", "kms-admin"]).await;
        let script = Path::new(REPOSITORY).join("tests/clients/rc_client.py");
        let endpoint = format!("http://{}", server.address);
        let arguments = [script.to_str().unwrap(), rc.to_str().unwrap(), &endpoint];
        let (ended_well, stdout, stderr) = run(&bin.join("python3"), &key, &arguments).await;
        assert!(ended_well, "{stdout}{stderr}{}", server.log());
        assert_eq!(stdout.lines().count(), 5, "{stdout}");
        assert_eq!(server.stop().await.0, Some(0));
    }

    #[tokio::test]
    #[ignore = "make test-clients"]
    async fn ansible_sets_the_encryption_of_a_bucket() {
        let ansible = program("KEYWAY_TEST_ANSIBLE");
        let folder = folder();
        let server = ServerOptions::default().start(folder.path()).await;
        create(&server, "k").await;
        let key = access_key(folder.path(), &["--policy", "kms-admin"]).await;
        let playbook = Path::new(REPOSITORY).join("tests/clients/ansible_playbook.yml");
        let endpoint = format!("endpoint=http://{}", server.address);
        let inventory = ["-i", "localhost,", "-e", &endpoint];
        let interpreter = ansible.with_file_name("python3");
        let interpreter = format!("ansible_python_interpreter={}", interpreter.display());
        let arguments = [
            &inventory[..],
            &["-e", &interpreter, playbook.to_str().unwrap()],
        ]
        .concat();
        let (ended_well, stdout, stderr) = run(&ansible, &key, &arguments).await;
        assert!(ended_well, "{stdout}{stderr}{}", server.log());
        assert_eq!(server.stop().await.0, Some(0));
    }
}

/// AWS's SDK for Rust, which Keyway itself uses for object stores: Keyway also keeps the contract of an object store.
#[tokio::test(flavor = "multi_thread")]
async fn keyway_is_an_object_store_to_its_own_client() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let numbered = (0..8).map(|n| format!("key-{n}"));
    let uuid = "8f14e45f-ceea-4677-9c1d-0a1b2c3d4e5f";
    for key in ["a-key", "one.Key_1-x", uuid]
        .map(str::to_owned)
        .into_iter()
        .chain(numbered)
    {
        create(&server, &key).await;
    }
    let credentials = Credentials::new("test-root", "test-root-secret", None, None, "test");
    let config = keyway_aws::config(
        "us-east-1",
        Some(format!("http://{}", server.address)),
        SharedCredentialsProvider::new(credentials),
    );
    let factory = async || Arc::new(S3Buckets::new(&config)) as _;
    bucket_contract::run_all(factory, &SystemRandom::default()).await;
    assert_eq!(server.stop().await.0, Some(0));
}

/// awscurl, called as the documents call it.
struct AwsCurl<'a> {
    program: PathBuf,
    key: Value,
    server: &'a Server,
}

impl AwsCurl<'_> {
    async fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let url = format!("http://{}/rustfs/admin/v3{path}", self.server.address);
        let mut arguments = vec!["--service", "execute-api", "--region", "us-east-1"];
        arguments.extend(["-X", method]);
        if !body.is_empty() {
            arguments.extend(["-H", "Content-Type: application/json", "-d", body]);
        }
        arguments.push(&url);
        let (ended_well, stdout, stderr) = run(&self.program, &self.key, &arguments).await;
        assert!(ended_well, "{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"))
    }

    /// As above, for an answer that must be a success.
    async fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let answer = self.call(method, path, body).await;
        assert_ne!(answer["success"], false, "{method} {path}: {answer}");
        answer
    }
}

#[tokio::test]
async fn awscurl_calls_every_route() {
    let Some(bin) = clients("awscurl") else {
        return;
    };
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "default").await;
    let limited = ["--policy", "kms-admin", "--expires-in", "3600"];
    let awscurl = AwsCurl {
        program: bin.join("awscurl"),
        key: access_key(folder.path(), &limited).await,
        server: &server,
    };
    let made = awscurl
        .ok(
            "POST",
            "/kms/keys",
            r#"{"KeyUsage":"ENCRYPT_DECRYPT","Description":"project-alpha","Tags":{"owner":"security","env":"prod"}}"#,
        )
        .await;
    assert_eq!(made["key_metadata"]["key_usage"], "ENCRYPT_DECRYPT");
    assert_eq!(made["key_metadata"]["tags"]["owner"], "security");
    let id = made["key_id"].as_str().unwrap();
    assert_eq!(id.len(), 36, "a UUID");
    let of_key = json!({"key_id": id}).to_string();

    let legacy = awscurl
        .ok("POST", "/kms/create-key?keyName=legacy", "")
        .await;
    assert_eq!(legacy["key_id"], "legacy");
    let again = awscurl
        .call("POST", "/kms/create-key?keyName=legacy", "")
        .await;
    assert_eq!(again["code"], "KeyAlreadyExists");

    let first = awscurl.ok("GET", "/kms/keys?limit=1", "").await;
    let marker = first["next_marker"].as_str().unwrap();
    let rest = awscurl
        .ok("GET", &format!("/kms/keys?limit=50&marker={marker}"), "")
        .await;
    assert_eq!(rest["keys"].as_array().unwrap().len(), 2);
    let listed = awscurl.ok("GET", "/kms/list-keys?prefix=leg", "").await;
    assert_eq!(listed["keys"][0]["key_id"], "legacy");

    let described = awscurl.ok("GET", &format!("/kms/keys/{id}"), "").await;
    assert_eq!(described["key_metadata"], made["key_metadata"]);
    let described = awscurl
        .ok("GET", &format!("/kms/describe-key?keyId={id}"), "")
        .await;
    assert_eq!(described["key_metadata"], made["key_metadata"]);

    let context = json!({"bucket": "analytics-data", "object": "2024/09/18/report.parquet"});
    let generate = json!({"key_id": id, "key_spec": "AES_256", "encryption_context": context});
    let generated = awscurl
        .ok("POST", "/kms/generate-data-key", &generate.to_string())
        .await;
    let decrypt = json!({
        "ciphertext_blob": generated["ciphertext_blob"],
        "encryption_context": context,
    })
    .to_string();
    let opened = awscurl.ok("POST", "/kms/decrypt", &decrypt).await;
    assert_eq!(opened["plaintext"], generated["plaintext_key"]);
    let encrypt = json!({"key_id": id, "plaintext": "aGVsbG8="}).to_string();
    let sealed = awscurl.ok("POST", "/kms/encrypt", &encrypt).await;
    assert_eq!(sealed["key_version"], 1);

    let rotated = awscurl.ok("POST", "/kms/keys/rotate", &of_key).await;
    assert_eq!(rotated["key_metadata"]["key_version"], 2);
    let rewrapped = awscurl.ok("POST", "/kms/rewrap", &decrypt).await;
    assert_eq!(rewrapped["key_version"], 2);

    let with = |name: &str, value: Value| json!({"key_id": id, name: value}).to_string();
    for (path, body) in [
        ("/kms/keys/tag", with("tags", json!({"env": "dev"}))),
        ("/kms/keys/untag", with("tag_keys", json!(["owner"]))),
        (
            "/kms/keys/update-description",
            with("description", json!("beta")),
        ),
    ] {
        awscurl.ok("POST", path, &body).await;
    }
    let disabled = awscurl.ok("POST", "/kms/keys/disable", &of_key).await;
    assert_eq!(disabled["key_metadata"]["key_state"], "Disabled");
    assert_eq!(disabled["key_metadata"]["tags"], json!({"env": "dev"}));
    assert_eq!(disabled["key_metadata"]["description"], "beta");
    let refused = awscurl.call("POST", "/kms/decrypt", &decrypt).await;
    assert_eq!(refused["code"], "InvalidKeyState");
    awscurl.ok("POST", "/kms/keys/enable", &of_key).await;

    let window = with("pending_window_in_days", json!(30));
    let deleted = awscurl.ok("DELETE", "/kms/keys/delete", &window).await;
    assert!(deleted["deletion_date"].is_string(), "{deleted}");
    let spared = awscurl
        .ok(
            "POST",
            &format!("/kms/keys/cancel-deletion?keyId={id}"),
            "{}",
        )
        .await;
    assert_eq!(spared["key_metadata"]["key_state"], "Enabled");
    let deleted = awscurl
        .ok("DELETE", "/kms/keys/delete?keyId=legacy", "")
        .await;
    assert_eq!(deleted["key_metadata"]["key_state"], "PendingDeletion");
}
