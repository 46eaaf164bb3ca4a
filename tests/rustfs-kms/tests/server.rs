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

    /// Runs the part of a RustFS server.
    async fn serve_rustfs(
        &self,
        path: &str,
        key: &AccessKey,
        expects: &str,
        probe: &str,
        kept: &Path,
    ) {
        let run = Command::new(env!("CARGO_BIN_EXE_as-rustfs"))
            .env_remove("AWS_SESSION_TOKEN")
            .env_remove("AWS_PROFILE")
            .env("RUSTFS_KMS_ENABLE", "true")
            .env("RUSTFS_KMS_BACKEND", "aws")
            .env("RUSTFS_KMS_AWS_REGION", "us-east-1")
            .env("RUSTFS_KMS_DEFAULT_KEY_ID", "default")
            .env(
                "AWS_ENDPOINT_URL_KMS",
                format!("http://{}{path}", self.address),
            )
            .env("AWS_ACCESS_KEY_ID", &key.id)
            .env("AWS_SECRET_ACCESS_KEY", &key.secret)
            .env("KEYWAY_EXPECTS", expects)
            .env("KEYWAY_PROBE", probe)
            .env("KEYWAY_OBJECT", kept)
            .kill_on_drop(true)
            .status();
        let status = tokio::time::timeout(Duration::from_secs(300), run).await;
        let status = status.expect("it ends").expect("it runs");
        assert!(status.success(), "{path} {expects} {probe}");
    }
}

struct AccessKey {
    id: String,
    secret: String,
}

impl AccessKey {
    async fn create(data: &Path, arguments: &[&str]) -> Self {
        let output = Command::new(keyway())
            .args([
                "access-key",
                "create",
                "--output",
                "json",
                "--policy",
                "kms-admin",
            ])
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

/// Runs RustFS's part, and again after both have restarted.
async fn check(settings: &[&str], of_key: &[&str], path: &str, expects: &str, probe: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, kept) = (
        folder.path().join("data"),
        folder.path().join("object.json"),
    );
    let server = Server::start(&data, settings).await;
    server.create("default").await;
    if probe == "yes" {
        server.create("rustfs-internal-kms-probe").await;
    }
    let key = AccessKey::create(&data, of_key).await;
    server.serve_rustfs(path, &key, expects, probe, &kept).await;
    assert!(kept.exists(), "the first run keeps an object");
    drop(server);
    let server = Server::start(&data, settings).await;
    server.serve_rustfs(path, &key, expects, probe, &kept).await;
}

#[tokio::test]
async fn rustfs_reads_back_what_it_wrote_in_the_automatic_envelope() {
    check(&[], &[], "", "envelope", "no").await;
}

#[tokio::test]
async fn access_key_with_an_envelope_is_enough() {
    let settings = ["--aws-ciphertext", "plain"];
    check(
        &settings,
        &["--envelope", "rustfs"],
        "/aws",
        "envelope",
        "yes",
    )
    .await;
}

#[tokio::test]
async fn plain_ciphertexts_are_not_what_rustfs_recognises() {
    check(&["--aws-ciphertext", "plain"], &[], "", "plain", "yes").await;
}
