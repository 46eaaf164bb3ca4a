//! `keyway identity`.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use keyway_tests::{ServerOptions, binary};
use serde_json::Value;

use crate::folder;

const KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
const IDENTITY: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";

/// Runs the command with this standard input; returns exit code, stdout, stderr.
fn fed(arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    use std::io::Write as _;
    let mut child = Command::new(binary("keyway"))
        .arg("identity")
        .args(arguments)
        .env_remove("KEYWAY_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended without reading.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json(arguments: &[&str], input: &str) -> Value {
    let all = [arguments, &["--output", "json"]].concat();
    let (code, stdout, stderr) = fed(&all, input);
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[tokio::test]
async fn api_key_new_has_the_identity_that_is_read_from_it() {
    let made = json(&["new"], "");
    let key = made["api_key"].as_str().unwrap();
    assert!(key.starts_with("kes:v1:"));
    assert_eq!(json(&["of", "-"], key)["identity"], made["identity"]);
    assert_ne!(json(&["new"], "")["identity"], made["identity"]);
    let (_, text, _) = fed(&["new"], "");
    assert!(
        text.contains("kes:v1:") && text.contains("identity"),
        "{text}"
    );

    let line = format!("{KEY}\n");
    assert_eq!(fed(&["of", "-"], &line).1, format!("{IDENTITY}\n"));
    let from_environment = ServerOptions::default()
        .variable("KEYWAY_API_KEY", KEY)
        .run(&["identity", "of"])
        .await;
    assert_eq!(from_environment.1, format!("{IDENTITY}\n"));
}

#[test]
fn api_key_as_an_argument_is_refused_and_not_repeated() {
    let (code, stdout, stderr) = fed(&["of", KEY], "");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("standard input"), "{stderr}");
    let wrong = KEY.replace("kes:v1:AD9E", "kes:v1:AA");
    let (code, _, other) = fed(&["of", "-"], &wrong);
    assert_eq!(code, Some(1));
    for said in [stderr, other] {
        assert!(!said.contains("FSYWrMD"), "{said}");
    }
    let (code, _, stderr) = fed(&["of"], "");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("KEYWAY_API_KEY"), "{stderr}");
}

#[test]
fn certificate_is_written_once() {
    let folder = folder();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let arguments = ["new", "--kind", "ecdsa", "--cert", &cert, "--key", &key];
    let made = json(&arguments, "");
    assert_eq!(made.get("api_key"), None);
    assert_eq!(json(&["of", &cert], "")["identity"], made["identity"]);
    let pem = std::fs::read_to_string(&cert).unwrap();
    assert_eq!(json(&["of", "-"], &pem)["identity"], made["identity"]);
    let mode = std::fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!pem.contains("PRIVATE"));

    // Neither file is overwritten, and no key is left without its certificate.
    let before = std::fs::read(&key).unwrap();
    let (code, _, stderr) = fed(&arguments, "");
    assert_eq!(code, Some(1), "{stderr}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
    let other = file("other.pem");
    let arguments = ["new", "--kind", "ecdsa", "--cert", &cert, "--key", &other];
    let (code, _, stderr) = fed(&arguments, "");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("cert.pem"), "{stderr}");
    assert!(!std::path::Path::new(&other).exists());
    assert_eq!(std::fs::read_to_string(&cert).unwrap(), pem);

    for arguments in [
        &["new", "--kind", "ecdsa"][..],
        &["new", "--kind", "ecdsa", "--cert", &other],
        &["new", "--cert", &other],
    ] {
        let (code, stdout, _) = fed(arguments, "");
        assert!(code != Some(0) && stdout.is_empty(), "{arguments:?}");
    }
    let (code, _, stderr) = fed(&["of", &key], "");
    assert_eq!(code, Some(1), "{stderr}");
    let (code, _, stderr) = fed(&["of", "/nowhere.pem"], "");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("/nowhere.pem"), "{stderr}");
}

#[test]
fn rsa_identity_has_a_key_of_the_requested_length() {
    let folder = folder();
    let file = |name: String| folder.path().join(name).to_str().unwrap().to_owned();
    for (bits, least) in [(None, 2_400), (Some("2048"), 1_600), (Some("4096"), 3_200)] {
        let name = bits.unwrap_or("default");
        let (cert, key) = (file(format!("{name}.crt")), file(format!("{name}.key")));
        let mut arguments = vec!["new", "--kind", "rsa", "--cert", &cert, "--key", &key];
        if let Some(bits) = bits {
            arguments.extend(["--bits", bits]);
        }
        let made = json(&arguments, "");
        assert_eq!(json(&["of", &cert], "")["identity"], made["identity"]);
        let mode = std::fs::metadata(&key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let length = std::fs::metadata(&key).unwrap().len();
        assert!((least..least + 200).contains(&length), "{name}: {length}");
    }
    let (code, _, stderr) = fed(&["new", "--bits", "2048"], "");
    assert_eq!(code, Some(1));
    assert!(stderr.contains("--kind rsa"), "{stderr}");
    let (code, _, _) = fed(&["new", "--kind", "rsa"], "");
    assert_eq!(code, Some(2));
}
