//! `keyway reencrypt --from-aws`: ciphertexts of a KMS that speaks AWS's protocol move to a key here.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::primitives::Blob;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::{Aws, Server, ServerOptions, binary};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A deployment with the key `reports`, and a key at AWS.
struct Moving {
    folder: TempDir,
    options: ServerOptions,
    server: Server,
    source: Client,
    source_key: String,
}

impl Moving {
    async fn begin(aws: &Aws) -> Self {
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
        let server = options.start(&folder.path().join("data")).await;
        let body = json!({"key_id": "reports"}).to_string();
        server.call("POST", "/kms/keys", &body).await.ok();
        let source = Client::new(&aws.config());
        let made = source.create_key().send().await.unwrap();
        let source_key = made.key_metadata.unwrap().key_id;
        Self {
            folder,
            options,
            server,
            source,
            source_key,
        }
    }

    /// A ciphertext of AWS KMS in base64.
    async fn ciphertext(&self, plaintext: &[u8], context: Option<(&str, &str)>) -> String {
        let mut request = self
            .source
            .encrypt()
            .key_id(&self.source_key)
            .plaintext(Blob::new(plaintext));
        if let Some((key, value)) = context {
            request = request.encryption_context(key, value);
        }
        let answer = request.send().await.unwrap();
        STANDARD.encode(answer.ciphertext_blob.unwrap())
    }

    fn arguments<'a>(&self, input: &'a Path, to: &'a Path, data: &'a Path) -> Vec<&'a str> {
        vec![
            "reencrypt",
            "--from-aws",
            "--key",
            "reports",
            "--data-dir",
            data.to_str().unwrap(),
            "--input",
            input.to_str().unwrap(),
            "--to",
            to.to_str().unwrap(),
        ]
    }

    /// Moves the ciphertexts in `input`: exit code, output, stderr.
    async fn run(&self, input: &str) -> (Option<i32>, Vec<Value>, String) {
        let (data, file, to) = self.paths();
        fs::write(&file, input).unwrap();
        let (code, stdout, stderr) = self.options.run(&self.arguments(&file, &to, &data)).await;
        assert_eq!(stdout, "");
        (code, lines(&to), stderr)
    }

    fn paths(&self) -> (std::path::PathBuf, std::path::PathBuf, std::path::PathBuf) {
        let path = |name| self.folder.path().join(name);
        (path("data"), path("input"), path("output"))
    }

    /// The plaintext that a server here finds in a line of the output.
    async fn opened(&self, line: &Value) -> Vec<u8> {
        let mut body = json!({"key_id": "reports", "ciphertext_blob": line["ciphertext"]});
        if let Some(context) = line.get("encryption_context") {
            body["encryption_context"] = context.clone();
        }
        let answer = self
            .server
            .call("POST", "/kms/decrypt", &body.to_string())
            .await;
        let plaintext = answer.ok()["plaintext"].as_str().unwrap().to_owned();
        STANDARD.decode(plaintext).unwrap()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ciphertexts_of_aws_open_here_and_others_are_reported() {
    let Some(aws) = Aws::here() else { return };
    let moving = Moving::begin(&aws).await;
    let plain = moving.ciphertext(b"cleartext-1", None).await;
    let bound = moving
        .ciphertext(b"cleartext-2", Some(("aws:bucket", "reports/é")))
        .await;
    let longest = moving.ciphertext(&[7; 4096], None).await;
    let context = json!({"aws:bucket": "reports/é"});
    let mut input = String::new();
    for line in [
        plain.clone(),
        String::new(),
        json!({"ciphertext": bound, "encryption_context": context}).to_string(),
        json!({"CiphertextBlob": longest, "EncryptionContext": {}, "KeyId": "x"}).to_string(),
        json!({"ciphertext": bound, "encryption_context": {"aws:bucket": "other"}}).to_string(),
        "not base64".to_owned(),
        STANDARD.encode([0; 7000]),
        "A".repeat(70_000),
        json!({"ciphertext": 1}).to_string(),
        json!({"ciphertext": bound, "encryption_context": null}).to_string(),
        format!(r#"{{"ciphertext":"{bound}","encryption_context":{{"a":"b","a":"c"}}}}"#),
    ] {
        writeln!(input, "{line}").unwrap();
    }
    let (code, moved, stderr) = moving.run(&input).await;
    assert_eq!(code, Some(1), "{stderr}");
    let failed: Vec<&str> = stderr
        .lines()
        .filter_map(|line| line.strip_prefix("line "))
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(failed, ["5", "6", "7", "8", "9", "10", "11"], "{stderr}");
    assert!(stderr.contains("3 ciphertexts moved, 0 were moved already, 7 failed"));
    assert!(!stderr.contains("cleartext") && !stderr.contains(&bound));

    assert_eq!(moved.len(), 3);
    for (line, (source, plaintext)) in moved.iter().zip([
        (&plain, b"cleartext-1".to_vec()),
        (&bound, b"cleartext-2".to_vec()),
        (&longest, vec![7; 4096]),
    ]) {
        assert_eq!(line["source"], **source);
        assert_eq!(line["key_id"], "reports");
        assert_eq!(moving.opened(line).await, plaintext);
    }
    assert_eq!(moved[1]["encryption_context"], context);

    // A second run finds what the first one did, and writes none of it again.
    let (code, again, stderr) = moving.run(&format!("{plain}\n{longest}")).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(again, moved);
    assert!(stderr.contains("0 ciphertexts moved, 2 were moved already, 0 failed"));
    let (data, ..) = moving.paths();
    let place = ["--data-dir", data.to_str().unwrap()];
    let events = moving.options.operator_events(&place).await;
    let counted = events
        .iter()
        .filter(|event| event["operation"] == "kms:Reencrypt");
    let counted: Vec<_> = counted
        .map(|event| (&event["key_id"], &event["counts"]))
        .collect();
    let of_first = json!({"already_there": 0, "failed": 7, "reencrypted": 3});
    let of_second = json!({"already_there": 2, "failed": 0, "reencrypted": 0});
    let key = json!("reports");
    assert_eq!(counted, [(&key, &of_first), (&key, &of_second)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_run_is_continued_without_loss_or_repetition() {
    const COUNT: usize = 60;
    let Some(aws) = Aws::here() else { return };
    let moving = Moving::begin(&aws).await;
    let mut input = String::new();
    for number in 0..COUNT {
        let ciphertext = moving
            .ciphertext(&[u8::try_from(number).unwrap(); 32], None)
            .await;
        writeln!(input, "{ciphertext}").unwrap();
    }
    let (data, file, to) = moving.paths();
    fs::write(&file, &input).unwrap();
    let mut child = tokio::process::Command::new(binary("keyway"))
        .args(moving.arguments(&file, &to, &data))
        .args(["--concurrency", "1"])
        .envs(aws_variables(&aws))
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    while lines_so_far(&to) < 10 {
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // While it runs, another run does not touch its output.
    let (code, _, stderr) = moving
        .options
        .run(&moving.arguments(&file, &to, &data))
        .await;
    assert_eq!(code, Some(1));
    assert!(stderr.contains("another run writes to it"), "{stderr}");
    child.kill().await.unwrap();
    let done = lines_so_far(&to);
    assert!(done < COUNT, "it was not killed in the middle");
    // The kill may have torn the last line. This makes sure of it.
    let torn = OpenOptions::new().append(true).open(&to);
    torn.unwrap().write_all(br#"{"source":"AQ"#).unwrap();

    let (code, moved, stderr) = moving.run(&input).await;
    assert_eq!(code, Some(0), "{stderr}");
    let sources: Vec<&str> = moved
        .iter()
        .map(|line| line["source"].as_str().unwrap())
        .collect();
    assert_eq!(sources, input.lines().collect::<Vec<_>>());
    for (number, line) in moved.iter().enumerate().step_by(10) {
        assert_eq!(
            moving.opened(line).await,
            [u8::try_from(number).unwrap(); 32]
        );
    }
}

fn lines_so_far(path: &Path) -> usize {
    let bytes = fs::read(path).unwrap_or_default();
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn aws_variables(aws: &Aws) -> [(&'static str, &str); 4] {
    [
        ("AWS_ENDPOINT_URL", &aws.endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn run_that_cannot_succeed_says_why_and_changes_nothing() {
    let Some(aws) = Aws::here() else { return };
    let moving = Moving::begin(&aws).await;
    let ciphertext = moving.ciphertext(b"cleartext", None).await;
    let (data, file, to) = moving.paths();
    fs::write(&file, format!("{ciphertext}\n")).unwrap();

    let run = async |change: &dyn Fn(ServerOptions) -> ServerOptions, key: &str| {
        let mut arguments = moving.arguments(&file, &to, &data);
        arguments[3] = key;
        let (code, _, stderr) = change(moving.options.clone()).run(&arguments).await;
        assert_eq!(code, Some(1), "{stderr}");
        assert_eq!(lines_so_far(&to), 0);
        stderr
    };
    let same = |options: ServerOptions| options;
    let stderr = run(&same, "missing").await;
    assert!(stderr.contains("there is no key missing"), "{stderr}");
    let stderr = run(&same, "no/name").await;
    assert!(stderr.contains("--key"), "{stderr}");
    let plain =
        |options: ServerOptions| options.variable("AWS_ENDPOINT_URL_KMS", "http://192.0.2.1:8080");
    let stderr = run(&plain, "reports").await;
    assert!(stderr.contains("is not loopback"), "{stderr}");
    let away =
        |options: ServerOptions| options.variable("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:1");
    let stderr = run(&away, "reports").await;
    // The retries may take all of the time that the command allows.
    let told = ["no connection", "no answer within"];
    assert!(told.iter().any(|text| stderr.contains(text)), "{stderr}");
    moving
        .server
        .call("POST", "/kms/keys/disable", r#"{"key_id":"reports"}"#)
        .await
        .ok();
    let stderr = run(&same, "reports").await;
    assert!(stderr.contains("key state"), "{stderr}");

    // A file with something else in it stays as it is.
    for other in [
        "notes\n",
        "{\"a\":1}\n",
        "notes",
        r#"{"source":"AQ==","ciphertext":"AQ==","key_id":"other"}
"#,
    ] {
        fs::write(&to, other).unwrap();
        let (code, _, stderr) = moving
            .options
            .run(&moving.arguments(&file, &to, &data))
            .await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("name another file"), "{stderr}");
        assert_eq!(fs::read_to_string(&to).unwrap(), other);
    }
}
