//! The settings file of `keyway serve`, and `keyway config`.

use std::fs;
use std::path::PathBuf;

use keyway_tests::{ServerOptions, project};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{create, folder};

/// The committed example of a settings file, which `KEYWAY_WRITE_EXAMPLE=1` writes.
const EXAMPLE: &str = "docs/examples/keyway.toml";

fn file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("keyway.toml");
    fs::write(&path, text).unwrap();
    path
}

fn plain() -> ServerOptions {
    ServerOptions::default().without_root()
}

/// What `keyway config check` prints as JSON, and its exit code.
async fn checked(options: &ServerOptions, arguments: &[&str]) -> (Option<i32>, Value) {
    let all = [&["config", "check", "--output", "json"], arguments].concat();
    let (code, stdout, stderr) = options.run(&all).await;
    let found = serde_json::from_str(&stdout);
    (code, found.unwrap_or_else(|_| panic!("{stdout}{stderr}")))
}

fn setting<'a>(found: &'a Value, name: &str) -> &'a Value {
    let settings = found["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["name"] == name);
    setting.unwrap_or_else(|| panic!("{name} in {found}"))
}

#[tokio::test]
async fn server_and_commands_take_their_settings_from_the_file() {
    let folder = folder();
    let data = folder.path().join("data");
    let text = format!(
        "data-dir = \"{}\"\nlisten = \"127.0.0.1:0\"\nstart = true\nstate-ttl-seconds = 1\nmetrics = \"off\"\n",
        data.display()
    );
    let path = file(&folder, &text);
    let config = path.to_str().unwrap();
    let server = ServerOptions::not_started()
        .argument("--config")
        .argument(config)
        .start_in_place()
        .await;
    assert_eq!(server.first_line()["status"], "Running");
    assert_eq!(server.first_line()["data_dir"], data.to_str().unwrap());
    create(&server, "k").await;
    let metrics = http::Request::get("/metrics").body(bytes::Bytes::new());
    let metrics = server.send(metrics.unwrap()).await.unwrap();
    assert_ne!(metrics.status, 200, "metrics = \"off\"");
    let create = ["access-key", "create", "--policy", "kms-admin"];
    let (code, _, stderr) = plain()
        .run(&[&create[..], &["--config", config]].concat())
        .await;
    assert_eq!(code, Some(0), "{stderr}");
    let by_variable = plain().variable("KEYWAY_CONFIG", config);
    for command in [
        &["access-key", "list"][..],
        &["table", "verify"],
        &["audit", "export"],
        &[
            "root",
            "save",
            "--to",
            folder.path().join("copy").to_str().unwrap(),
        ],
    ] {
        let (code, _, stderr) = by_variable.run(command).await;
        assert_eq!(code, Some(0), "{command:?} {stderr}");
    }
    assert!(folder.path().join("copy/root-keyring.secret").exists());
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn config_check_says_where_each_setting_comes_from_and_shows_no_secret() {
    let folder = folder();
    let path = file(
        &folder,
        "data-dir = \"/a\"\nlog = \"warn\"\nvault-token-dir = [\"/t\", \"/u\"]\ns3-endpoint = \"https://a:b@c:9000/d\"\n",
    );
    let config = path.to_str().unwrap();
    let options = plain()
        .variable("KEYWAY_LOG", "debug")
        .variable("KEYWAY_TABLE", "")
        .variable("KEYWAY_PASSPHRASE", "hunter2")
        .variable("KEYWAY_STATE_TTL_SECONDS", "1m");
    let arguments = ["--config", config, "--state-ttl", "2m"];
    let (code, found) = checked(&options, &arguments).await;
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(
        (&found["ok"], &found["file"]),
        (&json!(true), &json!(config))
    );
    let in_file = |name: &str, values: &[&str], line: u32| json!({"name": name, "values": values, "origin": "file", "file": config, "line": line});
    assert_eq!(
        *setting(&found, "data-dir"),
        in_file("data-dir", &["/a"], 1)
    );
    assert_eq!(
        *setting(&found, "vault-token-dir"),
        in_file("vault-token-dir", &["/t", "/u"], 3)
    );
    assert_eq!(
        *setting(&found, "s3-endpoint"),
        in_file("s3-endpoint", &["https://(secret)@c:9000/d"], 4)
    );
    assert_eq!(
        *setting(&found, "log"),
        json!({"name": "log", "values": ["debug"], "origin": "variable", "variable": "KEYWAY_LOG"})
    );
    assert_eq!(
        *setting(&found, "state-ttl-seconds"),
        json!({"name": "state-ttl-seconds", "values": ["2m"], "origin": "command-line"})
    );
    assert_eq!(
        *setting(&found, "table"),
        json!({"name": "table", "values": [], "origin": "default"})
    );
    assert_eq!(setting(&found, "passphrase")["values"], json!(["(secret)"]));
    let (_, text, _) = options
        .run(&[&["config", "check"], &arguments[..]].concat())
        .await;
    assert!(!text.contains("hunter2") && !found.to_string().contains("hunter2"));
    let line = text.lines().find(|line| line.starts_with("data-dir "));
    assert!(line.unwrap().ends_with(&format!("{config}:1")), "{text}");
}

#[tokio::test]
async fn every_mistake_is_told_at_once_and_nothing_is_made() {
    let folder = folder();
    let data = folder.path().join("data");
    let text = format!(
        "data-dir = \"{}\"\nlisten = \"9000\"\nmetrics = \"all\"\nstart = 1\nstrat = true\npassphrase = \"hunter2\"\n\
         default-key-id = \"k\"\ntls-cert = \"c\"\n",
        data.display()
    );
    let path = file(&folder, &text);
    let config = path.to_str().unwrap();
    let options = plain()
        .variable("KEYWAY_AUDIT", "sometimes")
        .variable("KEYWAY_ROOT_ACCESS_KEY", "only-this");
    let (code, found) = checked(&options, &["--config", config]).await;
    assert_eq!((code, &found["ok"]), (Some(2), &json!(false)));
    let mistakes = found["mistakes"].as_array().unwrap();
    let told: Vec<_> = mistakes
        .iter()
        .map(|one| (one["line"].as_u64(), one["name"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (None, Some("KEYWAY_AUDIT")),
            (Some(2), Some("listen")),
            (Some(3), Some("metrics")),
            (Some(4), Some("start")),
            (Some(5), Some("strat")),
            (Some(6), Some("passphrase")),
            (Some(8), Some("tls-cert")),
            // What no line is alone to blame for.
            (None, None),
            (None, None),
        ],
        "{found}"
    );
    let texts = found["mistakes"].to_string();
    for part in [
        "localhost:9000 or :9000",
        "is none of loopback, open, off",
        "is start meant?",
        "set the variable KEYWAY_PASSPHRASE",
        "needs --tls-key",
        &format!("belongs to --start (KEYWAY_START); default-key-id is in {config}:7"),
        "KEYWAY_ROOT_ACCESS_KEY and KEYWAY_ROOT_SECRET_KEY must be set together",
    ] {
        assert!(texts.contains(part), "{part}: {texts}");
    }
    assert!(!texts.contains("hunter2"), "{texts}");
    // The server and the commands refuse the file as well.
    for command in [&["serve"][..], &["access-key", "list"]] {
        let (code, _, stderr) = plain()
            .run(&[command, &["--config", config]].concat())
            .await;
        assert_eq!(code, Some(2), "{stderr}");
        for line in [2, 3, 4, 5, 6] {
            let begin = format!("keyway: {config}:{line}: ");
            assert!(
                stderr.lines().any(|told| told.starts_with(&begin)),
                "{stderr}"
            );
        }
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
    assert!(!data.exists());
}

#[tokio::test]
async fn settings_that_exclude_each_other_are_told_with_both_places() {
    let folder = folder();
    let path = file(&folder, "table = \"t\"\n");
    let config = path.to_str().unwrap();
    let arguments = ["access-key", "list", "--config", config];
    let options = plain().variable("KEYWAY_DATA_DIR", "/a");
    let (code, _, stderr) = options.run(&arguments).await;
    assert_eq!(code, Some(2));
    assert_eq!(
        stderr,
        format!(
            "keyway: {config}:1: table: does not go together with --data-dir (KEYWAY_DATA_DIR)\n"
        )
    );
}

#[tokio::test]
async fn variable_with_a_wrong_value_is_told_by_its_name() {
    let options = plain().variable("KEYWAY_METRICS", "all");
    let (code, _, stderr) = options.run(&["serve"]).await;
    assert_eq!(code, Some(2));
    let expected = "keyway: KEYWAY_METRICS: \"all\" is none of loopback, open, off\n";
    assert_eq!(stderr, expected);
}

#[expect(
    clippy::disallowed_methods,
    reason = "make tells the test by a variable"
)]
fn writes() -> bool {
    std::env::var("KEYWAY_WRITE_EXAMPLE").is_ok_and(|value| !value.is_empty())
}

#[tokio::test]
async fn the_committed_example_has_every_option_and_is_valid() {
    let (code, example, stderr) = plain().run(&["config", "example"]).await;
    assert_eq!(code, Some(0), "{stderr}");
    let path = project().join(EXAMPLE);
    if writes() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &example).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == example, "run `make settings-example`");
    let folder = folder();
    let path = file(&folder, &example);
    let (code, found) = checked(&plain(), &["--config", path.to_str().unwrap()]).await;
    assert_eq!((code, &found["mistakes"]), (Some(0), &json!([])));
    let settings: Vec<&str> = example
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .collect();
    assert!(settings.len() > 40, "{settings:?}");
    // Every key is known, also where the example cannot know a value.
    let path = file(&folder, &settings.join("\n"));
    let (_, found) = checked(&plain(), &["--config", path.to_str().unwrap()]).await;
    for mistake in found["mistakes"].as_array().unwrap() {
        let text = mistake["text"].as_str().unwrap();
        assert!(
            !text.contains("is no setting") && !text.contains("; expected"),
            "{mistake}"
        );
    }
}

/// The names of a command's subcommands, as its help lists them.
fn subcommands(help: &str) -> Vec<&str> {
    let (_, listed) = help.split_once("\nCommands:\n").unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !["", "help"].contains(name)).collect()
}

#[tokio::test]
async fn every_command_on_a_data_folder_takes_the_file() {
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut on_folders = 0;
    while let Some(command) = commands.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let (code, help, stderr) = plain().run(&[&arguments[..], &["--help"]].concat()).await;
        assert_eq!(code, Some(0), "{command:?} {stderr}");
        for name in subcommands(&help) {
            commands.push([&command[..], &[name.to_owned()]].concat());
        }
        if help.contains("--data-dir <DIR>") {
            assert!(help.contains("--config <FILE>"), "{command:?}");
            on_folders += 1;
        }
    }
    assert!(on_folders > 15, "{on_folders}");
}
