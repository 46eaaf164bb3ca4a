//! Runs the walks of the README and of pages of `docs`.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use keyway_tests::binary;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::aws_kms::larger_clients;
use crate::clients::{REPOSITORY, clients};
use crate::{folder, upgrades};

/// A command of the walk, and what it must print.
#[derive(Debug, PartialEq, Eq)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The commands of all `console` blocks between the walk's markers.
fn steps(readme: &str) -> Vec<Step> {
    let walk = readme
        .split_once("<!-- walk -->")
        .and_then(|(_, rest)| rest.split_once("<!-- /walk -->"));
    let (walk, _) = walk.expect("it has a walk between <!-- walk --> and <!-- /walk -->");
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in walk.lines() {
        match (inside, line) {
            (false, "```console") => inside = true,
            (false, line) => assert!(!line.starts_with("$ "), "outside of a block: {line}"),
            (true, "```") => inside = false,
            (true, line) => match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    command: command.to_owned(),
                    output: Vec::new(),
                }),
                None => steps
                    .last_mut()
                    .expect("a block begins with a command")
                    .output
                    .push(line.to_owned()),
            },
        }
    }
    assert!(!inside, "a block is not closed");
    steps
}

/// Whether the text matches the pattern, in which `...` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once("...") {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| matches(rest, &text[at..]))
        }),
    }
}

/// As [`matches`], line by line, where a line of `...` alone stands for any number of lines.
fn all_match(patterns: &[String], lines: &[&str]) -> bool {
    match patterns {
        [] => lines.is_empty(),
        [any, rest @ ..] if any == "..." => {
            (0..=lines.len()).any(|skipped| all_match(rest, &lines[skipped..]))
        }
        [pattern, rest @ ..] => {
            lines.first().is_some_and(|line| matches(pattern, line)) && all_match(rest, &lines[1..])
        }
    }
}

#[test]
fn three_dots_match_any_text() {
    for (pattern, text, expected) in [
        (r#"{"a":"...","b":1,...}"#, r#"{"a":"x","b":1,"c":2}"#, true),
        (
            r#"{"a":"...","b":1,...}"#,
            r#"{"a":"x","b":2,"c":2}"#,
            false,
        ),
        ("a...", "a", true),
        ("...b", "ab", true),
        ("...b", "abc", false),
        ("a", "ab", false),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
    }
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (patterns, text, expected) in [
        ("a\n...\nb", "a\nb", true),
        ("a\n...\nb", "a\nx\ny\nb", true),
        ("a\n...\nb", "a\nx", false),
        ("a", "a\nb", false),
        ("", "a", false),
    ] {
        let found: Vec<&str> = text.lines().collect();
        assert_eq!(all_match(&lines(patterns), &found), expected, "{patterns}");
    }
    let readme = "x\n<!-- walk -->\n```console\n$ one\nout\n$ two\n```\nand\n<!-- /walk -->\n$ no";
    let step = |command: &str, output: &[&str]| Step {
        command: command.to_owned(),
        output: output.iter().map(|&line| line.to_owned()).collect(),
    };
    assert_eq!(steps(readme), [step("one", &["out"]), step("two", &[])]);
}

/// The process group of a shell and its children. Killed when dropped.
struct Session(u32);

impl Drop for Session {
    fn drop(&mut self) {
        // The group may have ended already.
        let kill = std::process::Command::new("kill")
            .args(["-KILL", "--", &format!("-{}", self.0)])
            .stderr(Stdio::null())
            .status();
        assert!(kill.is_ok(), "kill runs");
    }
}

#[tokio::test]
async fn walk_of_the_readme_works_as_shown() {
    walk_alone("README.md").await;
}

#[tokio::test]
async fn walk_of_daily_work_works_as_shown() {
    walk_alone("docs/commands.md").await;
}

#[tokio::test]
async fn walk_of_a_deployments_life_works_as_shown() {
    walk_alone("docs/operations.md").await;
}

#[tokio::test]
async fn walk_of_an_upgrade_works_as_shown() {
    let folder = folder();
    let before = upgrades::data_of("0.1.0", &folder);
    fs::write(folder.path().join("keyway.toml"), "data-dir = \"./data\"\n").unwrap();
    let passphrase = before["passphrase"].as_str().unwrap();
    let variables = [("KEYWAY_PASSPHRASE", passphrase)];
    run_in(&folder, "docs/upgrading.md", &[], &variables).await;
}

#[tokio::test]
async fn walk_of_the_kes_api_works_as_shown() {
    walk("docs/kes.md").await;
}

#[tokio::test]
async fn walk_of_examining_a_deployment_works_as_shown() {
    walk("docs/doctor.md").await;
}

#[tokio::test]
async fn walk_of_access_keys_and_policies_works_as_shown() {
    walk("docs/policies.md").await;
}

#[tokio::test]
async fn walk_of_the_settings_file_works_as_shown() {
    walk("docs/configuration.md").await;
}

#[tokio::test]
async fn walk_of_buckets_works_as_shown() {
    walk("docs/s3.md").await;
}

#[tokio::test]
async fn walk_of_backups_works_as_shown() {
    walk("docs/backup.md").await;
}

#[tokio::test]
async fn walk_of_encrypted_files_works_as_shown() {
    walk("docs/files.md").await;
}

#[tokio::test]
async fn walk_of_a_clusters_secrets_works_as_shown() {
    walk_alone("docs/kubernetes.md").await;
}

/// Readers may follow several walks in one folder.
#[test]
fn keys_that_walks_make_have_different_names() {
    let mut made = Vec::new();
    for document in [
        "README.md",
        "docs/commands.md",
        "docs/kubernetes.md",
        "docs/policies.md",
        "docs/s3.md",
    ] {
        let text = fs::read_to_string(keyway_tests::project().join(document)).unwrap();
        for (call, end) in [
            (r#"kms POST keys '{"key_id":""#, '"'),
            ("keyway key create ", ' '),
        ] {
            let calls = text.split(call).skip(1);
            made.extend(calls.map(|rest| rest.split(end).next().unwrap().to_owned()));
        }
    }
    let different: std::collections::BTreeSet<&String> = made.iter().collect();
    assert!(made.len() >= 4 && different.len() == made.len(), "{made:?}");
}

#[tokio::test]
async fn walk_of_aws_kms_works_as_shown() {
    walk("docs/aws-kms.md").await;
}

#[tokio::test]
async fn walk_of_programs_that_use_aws_kms_works_as_shown() {
    let page = "docs/aws-kms-clients.md";
    if let Some(larger) = larger_clients(page) {
        walk_with(page, &[larger.join("bin")]).await;
    }
}

async fn walk(document: &str) {
    walk_with(document, &[]).await;
}

/// Runs the walk of a document that needs no client but `keyway`.
async fn walk_alone(document: &str) {
    run(document, &[]).await;
}

/// The ports of the walks, which may be taken on this machine, and whether a program also takes the port 10,000 above.
const PORTS: [(&str, bool); 8] = [
    ("9000", false),
    ("7373", false),
    ("8200", false),
    ("8201", false),
    ("9333", true),
    ("8080", true),
    ("8888", true),
    ("8333", true),
];

/// The text with free ports in place of its own, and the port of `keyway`.
fn with_free_ports(mut text: String) -> (String, u16) {
    let bind = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).ok();
    let port = |bound: &std::net::TcpListener| bound.local_addr().unwrap().port();
    // Every socket stays open until all ports are known, so they differ.
    let (mut bound, mut free) = (Vec::new(), Vec::new());
    for (own, is_pair) in PORTS {
        let found = std::iter::repeat_with(|| bind(0).unwrap())
            .take(1000)
            .find_map(|socket| match is_pair {
                false => Some(vec![socket]),
                true => Some(vec![bind(port(&socket).checked_add(10_000)?)?, socket]),
            });
        let found = found.expect("a free port");
        let number = port(found.last().unwrap());
        bound.extend(found);
        for before in ["127.0.0.1:", ".port="] {
            text = text.replace(&format!("{before}{own}"), &format!("{before}{number}"));
        }
        free.push(number);
    }
    (text, free[0])
}

/// Runs the walk of a document, with the programs of these folders besides the usual clients.
async fn walk_with(document: &str, folders: &[PathBuf]) {
    if let Some(clients) = clients(document) {
        run(document, &[&[clients], folders].concat()).await;
    }
}

/// Runs the walk of a document in an empty folder, with the programs of these folders and `keyway`.
async fn run(document: &str, folders: &[PathBuf]) {
    run_in(&folder(), document, folders, &[]).await;
}

/// As [`run`], in this folder and with these variables.
async fn run_in(folder: &TempDir, document: &str, folders: &[PathBuf], variables: &[(&str, &str)]) {
    let text = fs::read_to_string(format!("{REPOSITORY}/{document}"))
        .expect("the document that has the walk is there");
    let (text, port) = with_free_ports(text);
    let address = format!("127.0.0.1:{port}");
    let steps = steps(&text);
    assert!(!steps.is_empty(), "the walk has no commands");
    let keyway = binary("keyway");
    let end = |number: usize| format!("--- end of step {number} ---");
    let mut path = keyway.parent().unwrap().display().to_string();
    for folder in folders {
        path += &format!(":{}", folder.display());
    }
    let mut script = format!("exec 2>&1\nexport PATH='{path}':\"$PATH\"\n");
    for (number, step) in steps.iter().enumerate() {
        script += &format!("{}\nprintf '\\n%s\\n' '{}'\n", step.command, end(number));
    }
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("KEYWAY_") || name.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    let mut shell = command
        .args(["-c", &script])
        .current_dir(folder.path())
        .env("KEYWAY_LISTEN", &address)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = shell.stdout.take().unwrap();
    let _session = Session(shell.id().unwrap());

    let mut shown = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(90), stdout.read_to_end(&mut shown)).await;
    let shown = String::from_utf8(shown).unwrap();
    let mut rest = shown.as_str();
    for (number, Step { command, output }) in steps.iter().enumerate() {
        let (of_step, after) = rest
            .split_once(&format!("\n{}\n", end(number)))
            .unwrap_or_else(|| panic!("`{command}` did not end: {rest}"));
        rest = after;
        let lines: Vec<&str> = of_step.trim_end().lines().collect();
        assert!(
            all_match(output, &lines),
            "$ {command}\nshould show\n{}\nand showed\n{}",
            output.join("\n"),
            lines.join("\n")
        );
    }
    assert!(read.is_ok(), "the walk leaves something running");
}
