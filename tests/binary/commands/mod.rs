//! The commands that call a server: `keyway key`, `data-key`, `encrypt`, `decrypt`, `service` and `audit tail`.

mod failures;
mod kes;
mod profiles;
mod tail;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::{Server, ServerOptions};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{data_dir, folder};

/// Someone who runs commands: an empty folder of profiles, and no credentials of the test's own.
struct Operator {
    options: ServerOptions,
    folder: TempDir,
}

impl Operator {
    fn nobody() -> Self {
        let folder = folder();
        let options = ServerOptions::default()
            .without_root()
            .variable("XDG_CONFIG_HOME", folder.path().to_str().unwrap())
            .variable("AWS_ACCESS_KEY_ID", "")
            .variable("AWS_SECRET_ACCESS_KEY", "")
            .variable("AWS_SESSION_TOKEN", "")
            .variable("AWS_REGION", "")
            .variable("AWS_DEFAULT_REGION", "");
        Self { options, folder }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.options = self.options.variable(name, value);
        self
    }

    /// With the root access key of the tests' servers.
    fn root(server: &Server) -> Self {
        Self::nobody()
            .with("KEYWAY_ENDPOINT", &format!("http://{}", server.address))
            .with("AWS_ACCESS_KEY_ID", "test-root")
            .with("AWS_SECRET_ACCESS_KEY", "test-root-secret")
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        self.options.run(arguments).await
    }

    /// The standard output of a command that must succeed, without a word on standard error.
    async fn text(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(arguments).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{arguments:?}");
        stdout
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let all = [arguments, &["--output", "json"]].concat();
        serde_json::from_str(&self.text(&all).await).unwrap()
    }

    /// The exit code and standard error of a command that must fail and print nothing else.
    async fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let (code, stdout, stderr) = self.run(arguments).await;
        assert_eq!(stdout, "", "{arguments:?}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        (code.unwrap(), stderr)
    }
}

/// The fields of a key, in their order: programs rely on the names.
const KEY_FIELDS: [&str; 13] = [
    "key_id",
    "state",
    "description",
    "usage",
    "algorithm",
    "version",
    "created_at",
    "created_by",
    "rotated_at",
    "rotation_enabled",
    "deletion_date",
    "origin",
    "tags",
];

/// The names of the object in this JSON, in the order in which they are written.
fn names(text: &str) -> Vec<String> {
    let mut at: Vec<(usize, String)> = (serde_json::from_str::<Value>(text).unwrap())
        .as_object()
        .unwrap()
        .keys()
        .map(|name| (text.find(&format!("\"{name}\":")).unwrap(), name.clone()))
        .collect();
    at.sort();
    at.into_iter().map(|(_, name)| name).collect()
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn key_is_managed_through_its_whole_life() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let root = Operator::root(&server);
    let create = ["key", "create", "reports", "--description", "project alpha"];
    let create = [&create[..], &["--tag", "owner=security", "--tag", "a=b=c"]].concat();
    let made = root
        .text(&[&create[..], &["--output", "json"]].concat())
        .await;
    assert_eq!(names(&made), KEY_FIELDS);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_eq!(made["tags"], json!({"owner": "security", "a": "b=c"}));
    assert_eq!(
        (&made["state"], &made["version"]),
        (&json!("Enabled"), &json!(1))
    );
    assert_eq!(root.json(&["key", "show", "reports"]).await, made);
    let shown = root.text(&["key", "describe", "reports"]).await;
    for line in [
        "key          reports\n",
        "state        Enabled\n",
        "description  project alpha\n",
        "tags         a=b=c owner=security\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    let state = async |command: &str| root.json(&["key", command, "reports"]).await;
    assert_eq!(state("disable").await["state"], "Disabled");
    assert_eq!(state("enable").await["state"], "Enabled");
    assert_eq!(state("rotate").await["version"], 2);
    let tagged = root.json(&["key", "tag", "reports", "a=2", "c="]).await;
    assert_eq!(
        tagged["tags"],
        json!({"owner": "security", "a": "2", "c": ""})
    );
    let untagged = root.json(&["key", "untag", "reports", "a", "c"]).await;
    assert_eq!(untagged["tags"], json!({"owner": "security"}));

    let delete = ["key", "delete", "reports", "--days", "30"];
    let deletion = root
        .text(&[&delete[..], &["--output", "json"]].concat())
        .await;
    assert_eq!(names(&deletion), ["key_id", "deletion_date", "references"]);
    assert_eq!(state("show").await["state"], "PendingDeletion");
    assert_eq!(state("cancel-deletion").await["state"], "Enabled");
    let text = root.text(&["key", "delete", "reports"]).await;
    assert!(text.starts_with("reports will be destroyed at 2"), "{text}");
}

#[tokio::test]
async fn keys_are_listed_in_a_table_and_as_one_array() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let root = Operator::root(&server);
    assert_eq!(root.text(&["key", "list"]).await, "");
    assert_eq!(
        root.text(&["key", "list", "--output", "json"]).await,
        "[]\n"
    );
    for id in ["app-1", "app-2", "other"] {
        root.json(&["key", "create", id]).await;
    }
    root.json(&["key", "disable", "app-2"]).await;
    let listed = root.json(&["key", "list"]).await;
    let ids = |listed: &Value| -> Vec<String> {
        let keys = listed.as_array().unwrap().iter();
        keys.map(|key| key["key_id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&listed), ["app-1", "app-2", "other"]);
    assert_eq!(listed[0]["state"], "Enabled");
    assert_eq!(names(&listed[0].to_string()).len(), KEY_FIELDS.len());
    let some = root.json(&["key", "list", "--prefix", "app-"]).await;
    assert_eq!(ids(&some), ["app-1", "app-2"]);
    let some = root.json(&["key", "list", "--state", "disabled"]).await;
    assert_eq!(ids(&some), ["app-2"]);
    let table = root.text(&["key", "list"]).await;
    let lines: Vec<Vec<&str>> = (table.lines())
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        ["KEY", "STATE", "VERSION", "CREATED", "DESCRIPTION"]
    );
    assert_eq!(lines[2][..3], ["app-2", "Disabled", "1"]);
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn plaintext_data_key_is_given_out_only_where_it_is_asked_for() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let root = Operator::root(&server);
    root.json(&["key", "create", "k"]).await;
    let generate = ["data-key", "generate", "--key", "k"];
    let generate = [
        &generate[..],
        &["--context", "bucket=b", "--context", "o=1"],
    ]
    .concat();
    let file = root.path("data.key");
    let made = root
        .json(&[&generate[..], &["--plaintext-to", &file]].concat())
        .await;
    assert_eq!(
        names(&made.to_string()).len(),
        3,
        "no plaintext unless it is asked for: {made}"
    );
    assert_eq!(
        (&made["key_id"], &made["key_version"]),
        (&json!("k"), &json!(1))
    );
    assert_eq!(mode(&file), 0o600);
    let plaintext = fs::read(&file).unwrap();
    assert_eq!(plaintext.len(), 32);
    let ciphertext = made["ciphertext"].as_str().unwrap();

    // The file of another data key is never written over.
    let (code, stderr) = root
        .fails(&[&generate[..], &["--plaintext-to", &file]].concat())
        .await;
    assert_eq!(code, 2, "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), plaintext);

    let decrypt = ["data-key", "decrypt", ciphertext, "--context", "o=1"];
    let decrypt = [&decrypt[..], &["--context", "bucket=b"]].concat();
    let (code, stderr) = root.fails(&decrypt).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("--show-plaintext"), "{stderr}");
    let opened = root
        .json(&[&decrypt[..], &["--show-plaintext"]].concat())
        .await;
    assert_eq!(opened["plaintext"], STANDARD.encode(&plaintext));
    // A failure leaves no file.
    let other = root.path("other.key");
    let wrong = ["data-key", "decrypt", ciphertext, "--plaintext-to", &other];
    let (code, stderr) = root.fails(&wrong).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("DecryptionFailed"), "{stderr}");
    assert!(!Path::new(&other).exists());

    let short = ["data-key", "generate", "--key", "k", "--spec", "aes-128"];
    let shown = root
        .text(&[&short[..], &["--show-plaintext"]].concat())
        .await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..2], ["key         k", "version     1"]);
    let plaintext = lines[3].strip_prefix("plaintext   ").unwrap();
    assert_eq!(STANDARD.decode(plaintext).unwrap().len(), 16);
}

#[tokio::test]
async fn encrypt_and_decrypt_pass_bytes_through() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let root = Operator::root(&server);
    root.json(&["key", "create", "k"]).await;
    let encrypt = ["encrypt", "--key", "k", "--context", "a=b"];
    let bytes: Vec<u8> = (0..=255).cycle().take(64 << 10).collect();
    for input in [&bytes[..], b"hello\n", b""] {
        let (code, sealed, stderr) = root.options.run_with_input(&encrypt, input).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert!(sealed.ends_with(b"\n") && sealed.is_ascii());
        let decrypt = ["decrypt", "--context", "a=b"];
        let (code, opened, _) = root.options.run_with_input(&decrypt, &sealed).await;
        assert_eq!(code, Some(0));
        assert!(opened == input, "the input comes back as it was");
        let (code, nothing, stderr) = root.options.run_with_input(&["decrypt"], &sealed).await;
        assert_eq!((code, nothing.len()), (Some(1), 0), "{stderr}");
    }
    let long = [&bytes[..], b"x"].concat();
    let (code, _, stderr) = root.options.run_with_input(&encrypt, &long).await;
    assert_eq!(code, Some(2));
    assert!(stderr.contains("more than 64 KiB"), "{stderr}");
    let json = [&encrypt[..], &["--output", "json"]].concat();
    let (_, sealed, _) = root.options.run_with_input(&json, b"hello").await;
    let sealed: Value = serde_json::from_slice(&sealed).unwrap();
    let ciphertext = sealed["ciphertext"].as_str().unwrap().as_bytes();
    let decrypt = ["decrypt", "--context", "a=b", "--output", "json"];
    let (_, opened, _) = root.options.run_with_input(&decrypt, ciphertext).await;
    let opened: Value = serde_json::from_slice(&opened).unwrap();
    let expected = json!({"key_id": "k", "key_version": 1, "plaintext": STANDARD.encode("hello")});
    assert_eq!(opened, expected);
    let (code, _, stderr) = root.options.run_with_input(&decrypt, b"no base64!").await;
    assert_eq!(code, Some(2), "{stderr}");
}

#[tokio::test]
async fn service_is_configured_started_and_stopped() {
    let folder = folder();
    let server = ServerOptions::not_started().start(&data_dir(&folder)).await;
    let root = Operator::root(&server);
    let status = async || root.json(&["service", "status"]).await;
    assert_eq!(status().await["status"], "NotConfigured");
    let (code, stderr) = root.fails(&["service", "start"]).await;
    assert_eq!(code, 5, "{stderr}");
    let configure = ["service", "configure", "--backend", "local"];
    let done = root.json(&configure).await;
    assert_eq!(done["status"], "Configured");
    assert_eq!(names(&done.to_string()).len(), 2);
    let (code, stderr) = root.fails(&["key", "list"]).await;
    assert_eq!(code, 5);
    assert!(stderr.contains("not running"), "{stderr}");
    let text = root.text(&["service", "start"]).await;
    assert_eq!(text, "KMS service started successfully; status Running\n");
    assert_eq!(root.fails(&["service", "start"]).await.0, 5);
    root.text(&["service", "start", "--restart"]).await;
    root.json(&["key", "create", "k"]).await;
    let change = ["service", "configure", "--change", "--default-key", "k"];
    root.text(&change).await;
    let now = status().await;
    assert_eq!(now["default_key_id"], "k");
    assert_eq!(
        (&now["status"], &now["healthy"]),
        (&json!("Running"), &json!(true))
    );
    // The default key serves requests that name none.
    let made = root.json(&["data-key", "generate"]).await;
    assert_eq!(made["key_id"], "k");

    let file = root.path("configuration.json");
    fs::write(&file, r#"{"default_key_id":null}"#).unwrap();
    let from = ["service", "configure", "--change", "--from", &file];
    let (code, stderr) = root.fails(&from).await;
    assert_eq!(code, 2, "others may read the file: {stderr}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    root.text(&from).await;
    assert_eq!(status().await["default_key_id"], Value::Null);
    let text = root.text(&["service", "status"]).await;
    assert!(
        text.starts_with("status     Running\nhealthy    yes\n"),
        "{text}"
    );
    root.text(&["service", "stop"]).await;
    assert_eq!(status().await["status"], "Configured");
}
