//! Malformed files and variables with secrets: no reader repeats their content.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use keyway_domain::ports::Kind;
use keyway_tests::{Server, ServerOptions};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::secrets_at_rest::{Scanner, Secrets};
use crate::{eventually, folder, is_set, logged};

const CANARY: &str = "kwCaNaRy0f5eA9b7c3D1x2Q8";

/// The contents of a file, with what is wrong with them.
type Shape = (&'static str, Vec<u8>);

const PEM: &str = "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n";

/// Contents that a file of secrets may have by mistake.
fn shapes() -> Vec<Shape> {
    [broken_pem(), broken_json_and_yaml(), other_contents()].concat()
}

/// The text with the canary in its place.
fn text(text: &str) -> Vec<u8> {
    text.replace("CANARY", CANARY).into_bytes()
}

fn broken_pem() -> Vec<Shape> {
    vec![
        (
            "line breaks lost",
            text("-----BEGIN PRIVATE KEY-----CANARY-----END PRIVATE KEY-----"),
        ),
        (
            "line breaks escaped",
            text(r"-----BEGIN CERTIFICATE-----\nCANARY\n-----END CERTIFICATE-----\n"),
        ),
        ("carriage returns", text(&PEM.replace('\n', "\r\n"))),
        ("BOM before PEM", text(&format!("\u{feff}{PEM}"))),
        ("truncated", text("-----BEGIN CERTIFICATE-----\nCANARY")),
        (
            "no base64",
            text(
                "-----BEGIN PRIVATE KEY-----\n!CANARY!\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n!CANARY!\n-----END CERTIFICATE-----\n",
            ),
        ),
        (
            "wrong label",
            text("-----BEGIN CANARY-----\nAAAA\n-----END CANARY-----\n"),
        ),
        (
            "label without its end",
            text("-----BEGIN PRIVATE KEY CANARY\n-----BEGIN CERTIFICATE CANARY\n"),
        ),
        (
            "DER that is none",
            text(
                "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nCANARY\n-----END CERTIFICATE-----\n",
            ),
        ),
        (
            "empty sections",
            text(
                "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\nCANARY",
            ),
        ),
    ]
}

fn broken_json_and_yaml() -> Vec<Shape> {
    vec![
        (
            "BOM before JSON",
            text("\u{feff}{\"format\":1,\"value\":\"CANARY\"}"),
        ),
        (
            "an unknown field",
            text(
                r#"{"format":1,"version":"1.0","bytes":"","CANARY":1,"Statement":[{"CANARY":1}]}"#,
            ),
        ),
        (
            "values of another type",
            text(
                r#"{"format":"CANARY","bytes":["CANARY"],"Statement":"CANARY","root":["CANARY"],"policy":"CANARY"}"#,
            ),
        ),
        (
            "values that are none",
            text(
                r#"{"format":1,"version":"CANARY","value":"CANARY!","bytes":"CANARY!","algorithm":"CANARY","Id":["CANARY"],"Statement":[{"Effect":"CANARY","Action":"CANARY"}]}"#,
            ),
        ),
        (
            "policy entries that are none",
            text(
                r#"{"Statement":[{"Effect":"Deny","Action":["kms:Decrypt"],"Resource":["arn:aws:kms:::CANARY"]}]}"#,
            ),
        ),
        (
            "YAML cut off",
            text("policy:\n  p:\n    allow: [ \"CANARY\n"),
        ),
        (
            "YAML of another type",
            text("root: {CANARY: CANARY}\npolicy:\n  - CANARY\n"),
        ),
        (
            "an API key in place of an identity",
            text(
                "admin:\n  identity: kes:v1:CANARY\npolicy:\n  p:\n    deny: [\"CANARY[\"]\n    allow: [\"v1/CANARY\"]\n",
            ),
        ),
    ]
}

fn other_contents() -> Vec<Shape> {
    let utf16 = PEM.replace("CANARY", CANARY);
    let utf16 = utf16.encode_utf16().flat_map(u16::to_le_bytes);
    vec![
        ("alone", text("CANARY\n")),
        ("an API key", text("kes:v1:CANARY\n")),
        ("a name and a key", text("my-key:CANARY=\n")),
        ("a key and a name", text("CANARY=:my-key\n")),
        ("NUL bytes", text("\0CANARY\0\0")),
        ("UTF-16", [b"\xFF\xFE".to_vec(), utf16.collect()].concat()),
        ("a very long line", text(&"CANARY".repeat(20_000))),
    ]
}

fn scanner() -> Scanner {
    let reversed: Vec<u8> = CANARY.bytes().rev().collect();
    // UTF-16 printed byte by byte.
    let wide: Vec<u8> = CANARY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let secrets: Secrets = vec![
        ("the canary".to_owned(), CANARY.as_bytes().to_vec()),
        ("half of it".to_owned(), CANARY.as_bytes()[..12].to_vec()),
        (
            "its other half".to_owned(),
            CANARY.as_bytes()[12..].to_vec(),
        ),
        ("the canary, backwards".to_owned(), reversed),
        ("the canary, wide".to_owned(), wide),
    ];
    Scanner::new(&secrets)
}

#[track_caller]
fn has_none(scanner: &Scanner, what: &str, content: &[u8]) {
    let found = scanner.find(content);
    assert!(
        found.is_empty(),
        "{found:?} of {what}: {}",
        content.escape_ascii()
    );
}

/// A deployment with a keyring, and a certificate with its key beside it.
struct Ground {
    folder: TempDir,
}

impl Ground {
    async fn new() -> Self {
        let folder = folder();
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
        fs::write(folder.path().join("key.pem"), signing_key.serialize_pem()).unwrap();
        let ground = Self { folder };
        let server = ServerOptions::default().start(&ground.path("data")).await;
        let (code, _, stderr) = server.stop().await;
        assert_eq!(code, Some(0), "{stderr}");
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A copy of the deployment's folder with this keyring.
    fn with_keyring(&self, number: usize, keyring: &[u8]) -> String {
        let copy = self.path(&format!("copy-{number}"));
        for folder in [copy.clone(), copy.join("secrets")] {
            fs::create_dir(&folder).unwrap();
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        }
        for file in ["keyway.db", "keyway.db-wal"] {
            if self.path("data").join(file).exists() {
                fs::copy(self.path("data").join(file), copy.join(file)).unwrap();
            }
        }
        let kept = copy.join("secrets/root-keyring.secret");
        fs::write(&kept, keyring).unwrap();
        fs::set_permissions(&kept, fs::Permissions::from_mode(0o600)).unwrap();
        copy.to_str().unwrap().to_owned()
    }
}

/// One reader, given one shape.
struct Reading {
    arguments: Vec<String>,
    variables: Vec<(&'static str, String)>,
    /// Whether every shape is refused.
    refuses: bool,
}

fn reading(arguments: &[&str]) -> Reading {
    Reading {
        arguments: arguments.iter().map(|&text| text.to_owned()).collect(),
        variables: Vec::new(),
        refuses: true,
    }
}

impl Reading {
    fn may_take_it(mut self) -> Self {
        self.refuses = false;
        self
    }

    fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.variables.push((variable, value.to_owned()));
        self
    }
}

/// The server over a folder, the next argument. No reading ends with a server that serves: see [`NO_CERTIFICATE`].
const SERVING: [&str; 4] = ["serve", "--listen", "127.0.0.1:0", "--data-dir"];

/// A missing certificate ends a server after it has read everything else.
const NO_CERTIFICATE: [&str; 4] = ["--tls-cert", "/nothing/here", "--tls-key", "/nothing/here"];

impl Ground {
    /// The server over the deployment's folder, with these options.
    fn serving(&self, options: &[&str]) -> Reading {
        reading(&[&SERVING[..], &[&self.file("data")], options].concat())
    }

    /// A command over the deployment's folder.
    fn tool(&self, arguments: &[&str]) -> Reading {
        reading(&[arguments, &["--data-dir", &self.file("data")]].concat())
    }
}

/// Every reader of a file or variable that holds secrets, and of files that are easily taken for one.
fn readings(ground: &Ground, number: usize, shape: &[u8]) -> Vec<Reading> {
    let mut all = readings_of_files(ground, number, shape);
    // A variable holds no NUL.
    if let Ok(text) = std::str::from_utf8(shape)
        && !text.contains('\0')
        && text.len() < 100_000
    {
        all.extend(readings_of_variables(ground, text));
    }
    all
}

fn readings_of_files(ground: &Ground, number: usize, shape: &[u8]) -> Vec<Reading> {
    let file = ground.file(&format!("shape-{number}"));
    let (cert, key) = (ground.file("cert.pem"), ground.file("key.pem"));
    fs::write(&file, shape).unwrap();
    let kept = ground.path(&format!("kes-{number}"));
    fs::create_dir(&kept).unwrap();
    fs::write(kept.join("some-key"), shape).unwrap();
    let kept = kept.to_str().unwrap();
    let copy = ground.with_keyring(number, shape);
    // Without other credentials, those in the files of AWS's own tools are read.
    let on_aws = |reading: Reading| {
        reading
            .with("AWS_SHARED_CREDENTIALS_FILE", &file)
            .with("AWS_CONFIG_FILE", &file)
            .with("AWS_EC2_METADATA_DISABLED", "true")
            .with("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    };
    vec![
        ground.serving(&["--tls-cert", &cert, "--tls-key", &file]),
        ground.serving(&["--tls-cert", &file, "--tls-key", &key]),
        ground.serving(&[
            "--kes-listen",
            "127.0.0.1:0",
            "--kes-cert",
            &cert,
            "--kes-key",
            &file,
        ]),
        ground.serving(&[
            "--kes-listen",
            "127.0.0.1:0",
            "--kes-cert",
            &file,
            "--kes-key",
            &key,
        ]),
        ground.serving(&["--kes-listen", "127.0.0.1:0", "--kes-client-ca", &file]),
        ground.serving(&["--passphrase-file", &file]),
        reading(&["config", "check", "--config", &file]).may_take_it(),
        ground
            .serving(&NO_CERTIFICATE)
            .with("KEYWAY_VAULT_CA_FILE", &file),
        reading(&[&SERVING[..], &[copy.as_str()]].concat()),
        ground.tool(&["access-key", "create", "--policy", &file]),
        reading(&["policy", "check", "--policy", &file]),
        reading(&["policy", "check", "--policy", &file, "--output", "json"]),
        ground.tool(&["import", "kes", "--from-dir", kept]),
        ground.tool(&["import", "minio-static", "--file", &file]),
        ground
            .tool(&["import", "kes-config", &file, "--dry-run"])
            .may_take_it(),
        ground.tool(&["change-passphrase", "--remove", "--passphrase-file", &file]),
        on_aws(
            ground.serving(
                &[
                    &NO_CERTIFICATE[..],
                    &["--s3-endpoint", "http://127.0.0.1:1"],
                ]
                .concat(),
            ),
        ),
        on_aws(reading(&[
            "access-key",
            "list",
            "--table",
            "t",
            "--root-keyring-secret",
            "s",
            "--region",
            "us-east-1",
        ])),
        reading(&["identity", "of", &file]),
    ]
}

fn readings_of_variables(ground: &Ground, text: &str) -> Vec<Reading> {
    vec![
        ground
            .serving(&NO_CERTIFICATE)
            .with("KEYWAY_ROOT_ACCESS_KEY", text)
            .with("KEYWAY_ROOT_SECRET_KEY", text),
        ground
            .serving(&NO_CERTIFICATE)
            .with("KEYWAY_ROOT_SECRET_KEY", text),
        ground
            .serving(&NO_CERTIFICATE)
            .with("KEYWAY_PASSPHRASE", text),
        ground
            .serving(
                &[
                    &NO_CERTIFICATE[..],
                    &["--s3-endpoint", "http://127.0.0.1:1"],
                ]
                .concat(),
            )
            .with("KEYWAY_S3_ACCESS_KEY_ID", text)
            .with("KEYWAY_S3_SECRET_ACCESS_KEY", text)
            .with("KEYWAY_S3_SESSION_TOKEN", text),
        ground
            .serving(&NO_CERTIFICATE)
            .with("KEYWAY_S3_SECRET_ACCESS_KEY", text)
            .with("KEYWAY_S3_ENDPOINT", "aws"),
        ground
            .tool(&["import", "minio-static"])
            .with("MINIO_KMS_SECRET_KEY", text),
        reading(&["identity", "of"]).with("KEYWAY_API_KEY", text),
        ground
            .tool(&["change-passphrase"])
            .with("KEYWAY_PASSPHRASE", text)
            .with("KEYWAY_NEW_PASSPHRASE", "x"),
    ]
}

#[tokio::test]
async fn malformed_secret_files_are_not_repeated_by_any_reader() {
    let scanner = scanner();
    assert_eq!(
        scanner.find(CANARY.as_bytes()).len(),
        3,
        "it would be found"
    );
    assert!(shapes().len() >= 12);
    for (name, shape) in shapes() {
        assert!(!scanner.find(&shape).is_empty(), "{name} holds it");
    }
    let ground = Ground::new().await;
    let mut waiting = Vec::new();
    for (number, (name, shape)) in shapes().into_iter().enumerate() {
        for (place, reading) in readings(&ground, number, &shape).into_iter().enumerate() {
            // Half of them: each reader gets twelve shapes.
            if is_set("KEYWAY_TORTURE") || (number + place) % 2 == 0 {
                waiting.push((name, reading));
            }
        }
    }
    let all = waiting.len();
    assert!(all > 250, "{all}");
    let mut running = JoinSet::new();
    let mut done = 0;
    loop {
        while running.len() < 3 {
            let Some((name, reading)) = waiting.pop() else {
                break;
            };
            running.spawn(async move {
                let mut options = ServerOptions::default().without_root();
                for (variable, value) in &reading.variables {
                    options = options.variable(variable, value);
                }
                let arguments: Vec<_> = reading.arguments.iter().map(String::as_str).collect();
                let (code, stdout, stderr) = options.run(&arguments).await;
                (name, reading, code, stdout, stderr)
            });
        }
        let Some(ended) = running.join_next().await else {
            break;
        };
        let (name, reading, code, stdout, stderr) = ended.unwrap();
        let variables: Vec<_> = reading.variables.iter().map(|(name, _)| name).collect();
        let what = format!("{name}, by {:?} with {variables:?}", reading.arguments);
        has_none(&scanner, &format!("stdout of {what}"), stdout.as_bytes());
        has_none(&scanner, &format!("stderr of {what}"), stderr.as_bytes());
        if reading.refuses {
            assert_eq!(code, Some(1), "{what}: {stdout}{stderr}");
        }
        done += 1;
    }
    assert_eq!(done, all);
    for file in crate::secrets_at_rest::files(&ground.path("data")) {
        has_none(&scanner, &file.0.display().to_string(), &file.1);
    }
}

/// Waits until the server has logged this many lines with this text.
async fn logs(server: &Server, what: &str, times: usize) {
    eventually(what, async || {
        (server.log().matches(what).count() >= times).then_some(())
    })
    .await;
}

/// Follows KES's error stream as the admin whose key and certificate are in these files.
fn follow(server: &Server, folder: &Path) -> tokio::process::Child {
    Command::new("curl")
        .args(["--key", "admin.key", "--cert", "admin.cert", "-k"])
        .args(["--silent", "--no-buffer", "--max-time", "120"])
        .arg(format!("https://{}/v1/log/error", server.kes()))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(
            fs::File::create(folder.join("stream")).unwrap(),
        ))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn changed_certificate_is_reported_without_its_content() {
    let scanner = scanner();
    let ground = Ground::new().await;
    let (cert, key) = (ground.file("admin.cert"), ground.file("admin.key"));
    let (code, made, stderr) = ServerOptions::default()
        .run(&[
            "identity", "new", "--kind", "ecdsa", "--cert", &cert, "--key", &key, "--output",
            "json",
        ])
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let made: Value = serde_json::from_str(&made).unwrap();
    fs::create_dir(ground.path("tokens")).unwrap();
    let server = ServerOptions::default()
        .argument("--kes-listen")
        .argument("127.0.0.1:0")
        .argument("--kes-admin-identity")
        .argument(made["identity"].as_str().unwrap())
        .argument("--kes-cert")
        .argument(&ground.file("cert.pem"))
        .argument("--kes-key")
        .argument(&ground.file("key.pem"))
        .variable("KEYWAY_VAULT_TOKEN_DIR", &ground.file("tokens"))
        .start(&ground.path("data"))
        .await;
    let mut followed = follow(&server, ground.folder.path());
    let told = "the one before stays";
    let (cert, key) = (
        fs::read(ground.path("cert.pem")).unwrap(),
        fs::read(ground.path("key.pem")).unwrap(),
    );
    let mut times = 0;
    for (_, shape) in shapes() {
        for (changed, before) in [("cert.pem", &cert), ("key.pem", &key)] {
            fs::write(ground.path(changed), &shape).unwrap();
            server.signal("HUP");
            times += 1;
            logs(&server, told, times).await;
            fs::write(ground.path(changed), before).unwrap();
        }
    }
    // A token file too. There is no Vault at the address, so no token is sent.
    for (name, shape) in shapes() {
        fs::write(ground.path("tokens/token"), &shape).unwrap();
        let body = json!({
            "backend_type": "vault",
            "address": "http://127.0.0.1:1",
            "timeout_seconds": 1,
            "retry_attempts": 0,
            "auth_method": {"TokenFile": {"path": ground.file("tokens/token")}},
        });
        let answer = server
            .call("POST", "/kms/reconfigure", &body.to_string())
            .await;
        // Only the bare canary has the form of a token, so the address is tried with it.
        let status = if name == "alone" { 503 } else { 400 };
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        has_none(&scanner, name, &answer.body);
    }
    eventually("it is in KES's error stream", async || {
        let stream = fs::read_to_string(ground.path("stream")).unwrap();
        stream.contains(told).then_some(())
    })
    .await;
    followed.kill().await.unwrap();
    has_none(
        &scanner,
        "KES's error stream",
        &fs::read(ground.path("stream")).unwrap(),
    );
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0), "{stderr}");
    has_none(&scanner, "the log", log.as_bytes());
    has_none(&scanner, "stderr", stderr.as_bytes());
    let errors = logged(&ground.path("data"), Kind::ErrorLog).concat();
    assert!(errors.contains(told), "{errors}");
    has_none(&scanner, "the table's error log", errors.as_bytes());
    let audit = logged(&ground.path("data"), Kind::Audit).concat();
    has_none(&scanner, "the table's audit log", audit.as_bytes());
    for (path, content) in crate::secrets_at_rest::files(&ground.path("data")) {
        has_none(&scanner, &path.display().to_string(), &content);
    }
}
