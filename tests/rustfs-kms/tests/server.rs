//! RustFS's own KMS crate over the binary: with envelopes, and with plain ciphertexts.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

const ROOT: [(&str, &str); 2] = [
    ("KEYWAY_ROOT_ACCESS_KEY", "test-root"),
    ("KEYWAY_ROOT_SECRET_KEY", "test-root-secret"),
];

/// The binary: `KEYWAY_TEST_KEYWAY`, or a debug build.
fn keyway() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/keyway");
    let binary = std::env::var_os("KEYWAY_TEST_KEYWAY").map_or(built, PathBuf::from);
    assert!(binary.exists(), "there is no {}", binary.display());
    binary
}

/// A server, killed when it is dropped.
struct Server {
    _process: Child,
    address: String,
}

impl Server {
    async fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut process = Command::new(keyway())
            .args(["serve", "--start", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(arguments)
            .envs(ROOT)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let address = loop {
            let line = lines.next_line().await.expect("UTF-8").expect("it serves");
            if line.contains("serving")
                && let Some((_, rest)) = line.split_once("\"listen\":\"")
                && let Some((address, _)) = rest.split_once('"')
            {
                break address.to_owned();
            }
        };
        // Keep reading, so that the server can write its log.
        tokio::spawn(async move {
            let mut rest = Vec::new();
            lines.into_inner().read_to_end(&mut rest).await.ok();
        });
        Self {
            _process: process,
            address,
        }
    }

    /// Makes a key whose id is a name, by RustFS's admin API.
    async fn create(&self, id: &str) {
        let url = format!("http://{}/rustfs/admin/v3/kms/keys", self.address);
        let status = Command::new("curl")
            .args([
                "--silent",
                "--fail",
                "--output",
                "/dev/null",
                "--request",
                "POST",
            ])
            .args(["--aws-sigv4", "aws:amz:us-east-1:execute-api"])
            .args(["--user", "test-root:test-root-secret"])
            .args(["--header", "Content-Type: application/json"])
            .args(["--data", &format!("{{\"key_id\":\"{id}\"}}"), &url])
            .status()
            .await
            .expect("curl runs");
        assert!(status.success(), "{id} was not made");
    }

    /// Does what a RustFS server does, with this access key.
    async fn serve_rustfs(&self, case: &Case, key: &AccessKey, kept: &Path) {
        let run = Command::new(env!("CARGO_BIN_EXE_as-rustfs"))
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("AWS_PROFILE")
            .env("RUSTFS_KMS_ENABLE", "true")
            .env("RUSTFS_KMS_BACKEND", "aws")
            .env("RUSTFS_KMS_AWS_REGION", "us-east-1")
            .env("RUSTFS_KMS_DEFAULT_KEY_ID", "default")
            .env(
                "AWS_ENDPOINT_URL_KMS",
                format!("http://{}{}", self.address, case.path),
            )
            .env("AWS_ACCESS_KEY_ID", &key.id)
            .env("AWS_SECRET_ACCESS_KEY", &key.secret)
            .env("KEYWAY_EXPECTS", case.expects)
            .env("KEYWAY_PROBE", case.probe)
            .env("KEYWAY_ROLE", case.role)
            .env("KEYWAY_OBJECT", kept)
            .kill_on_drop(true)
            .status();
        let status = tokio::time::timeout(Duration::from_secs(300), run).await;
        assert!(status.expect("it ends").expect("it runs").success());
    }
}

struct AccessKey {
    id: String,
    secret: String,
}

impl AccessKey {
    async fn create(data: &Path, policy: &Path, arguments: &[&str]) -> Self {
        let output = Command::new(keyway())
            .args(["access-key", "create", "--output", "json", "--policy"])
            .arg(policy)
            .arg("--data-dir")
            .arg(data)
            .args(arguments)
            .output()
            .await
            .expect("the binary runs");
        assert!(output.status.success(), "{output:?}");
        let made: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let text = |name: &str| made[name].as_str().expect("text").to_owned();
        Self {
            id: text("access_key_id"),
            secret: text("secret_access_key"),
        }
    }
}

/// The settings of Keyway and of the access key, and what RustFS must find.
struct Case {
    settings: &'static [&'static str],
    of_key: &'static [&'static str],
    path: &'static str,
    expects: &'static str,
    probe: &'static str,
    role: &'static str,
}

const AUTOMATIC: Case = Case {
    settings: &[],
    of_key: &[],
    path: "",
    expects: "envelope",
    probe: "no",
    role: "admin",
};

/// Runs RustFS's part, and again after both have restarted.
async fn check(case: Case) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let (data, kept) = (file("data"), file("object.json"));
    let server = Server::start(&data, case.settings).await;
    server.create("default").await;
    server.create("other").await;
    if case.probe == "yes" {
        server.create("rustfs-internal-kms-probe").await;
    }
    let policy = match case.role {
        "server" => {
            let policy = file("rustfs.json");
            std::fs::write(&policy, documented_policy()).expect("it is written");
            policy
        }
        _ => "kms-admin".into(),
    };
    let key = AccessKey::create(&data, &policy, case.of_key).await;
    server.serve_rustfs(&case, &key, &kept).await;
    assert!(kept.exists(), "the first run keeps an object");
    drop(server);
    let server = Server::start(&data, case.settings).await;
    server.serve_rustfs(&case, &key, &kept).await;
}

/// The policy that the documentation gives to a RustFS server.
fn documented_policy() -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/rustfs.md");
    let page = std::fs::read_to_string(page).expect("the page is there");
    let (_, rest) = page
        .split_once("<!-- policy of a RustFS server -->")
        .expect("the policy is marked");
    let (_, rest) = rest.split_once("```json").expect("it is JSON");
    rest.split_once("```").expect("it ends").0.to_owned()
}

#[tokio::test]
async fn rustfs_reads_back_what_it_wrote_in_the_automatic_envelope() {
    check(AUTOMATIC).await;
}

#[tokio::test]
async fn access_key_with_an_envelope_is_enough() {
    check(Case {
        settings: &["--aws-ciphertext", "plain"],
        of_key: &["--envelope", "rustfs"],
        path: "/aws",
        probe: "yes",
        ..AUTOMATIC
    })
    .await;
}

#[tokio::test]
async fn plain_ciphertexts_are_not_what_rustfs_recognises() {
    check(Case {
        settings: &["--aws-ciphertext", "plain"],
        expects: "plain",
        probe: "yes",
        ..AUTOMATIC
    })
    .await;
}

#[tokio::test]
async fn documented_policy_and_the_path_for_data_keys_are_enough_for_a_server() {
    check(Case {
        of_key: &["--envelope", "rustfs"],
        path: "/aws/data",
        role: "server",
        ..AUTOMATIC
    })
    .await;
}
