//! `keyway completions` and `keyway man`, by the shells and the program that read them.

use std::fs;
use std::path::Path;
use std::process::Command;

use keyway_tests::ServerOptions;

async fn completions(shell: &str) -> String {
    let ran = ServerOptions::default().run(&["completions", shell]).await;
    let (code, script, stderr) = ran;
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{shell}");
    script
}

/// Whether the program is on this machine. A test says what it left out.
fn is_there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: {program} is missing");
    }
    there
}

/// What bash offers for the last of these words.
fn offered(script: &Path, words: &[&str]) -> Vec<String> {
    let ask = r#"
        source "$1"; shift
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
        complete -p keyway >/dev/null
        _keyway keyway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-euc", ask, "bash"])
        .arg(script)
        .args(words);
    let answer = bash.output().unwrap();
    let stderr = String::from_utf8(answer.stderr).unwrap();
    assert!(answer.status.success(), "{stderr}");
    let answer = String::from_utf8(answer.stdout).unwrap();
    answer.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn bash_completes_commands_options_and_values() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("keyway.bash");
    fs::write(&script, completions("bash").await).unwrap();
    let parsed = Command::new("bash").arg("-n").arg(&script).status();
    assert!(parsed.unwrap().success());

    let commands = offered(&script, &["keyway", "encr"]);
    assert_eq!(commands, ["encrypt", "encrypt-file"]);
    let below = offered(&script, &["keyway", "access-key", "cr"]);
    assert_eq!(below, ["create"]);
    let options = offered(&script, &["keyway", "encrypt-file", "--fo"]);
    assert_eq!(options, ["--force"]);
    let values = offered(&script, &["keyway", "rewrap-keys", "--output", ""]);
    assert_eq!(values, ["text", "json"]);
    let shells = offered(&script, &["keyway", "completions", ""]);
    assert!(shells.contains(&"fish".to_owned()), "{shells:?}");
}

#[tokio::test]
async fn script_of_every_shell_has_every_command_and_parses() {
    let folder = tempfile::tempdir().unwrap();
    for (shell, program) in [
        ("bash", Some("bash")),
        ("zsh", Some("zsh")),
        ("fish", Some("fish")),
        ("elvish", None),
        ("powershell", None),
    ] {
        let text = completions(shell).await;
        for command in [
            "serve",
            "encrypt-file",
            "decrypt-file",
            "completions",
            "man",
        ] {
            assert!(text.contains(command), "{shell}: {command}");
        }
        let script = folder.path().join(shell);
        fs::write(&script, text).unwrap();
        if let Some(program) = program.filter(|program| is_there(program)) {
            let parsed = Command::new(program)
                .arg("-n")
                .arg(&script)
                .output()
                .unwrap();
            let stderr = String::from_utf8(parsed.stderr).unwrap();
            assert!(parsed.status.success(), "{shell}: {stderr}");
        }
    }
}

#[tokio::test]
async fn page_of_every_command_is_rendered_without_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    // What variables hold is in no page.
    let mut options = ServerOptions::default();
    for name in [
        "KEYWAY_DATA_DIR",
        "KEYWAY_LISTEN",
        "KEYWAY_ENDPOINT",
        "KEYWAY_PASSPHRASE",
        "KEYWAY_ROOT_SECRET_KEY",
        "KEYWAY_API_KEY",
        "AWS_SECRET_ACCESS_KEY",
    ] {
        options = options.variable(name, "canary-of-a-variable");
    }
    let (code, stdout, stderr) = options.run(&["man", "--to", pages.to_str().unwrap()]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout.trim_end(), pages.to_str().unwrap());
    for shell in ["bash", "zsh", "fish"] {
        let ran = options.run(&["completions", shell]).await;
        assert!(!ran.1.contains("canary"), "{shell}");
    }

    let (groff, mandoc) = (is_there("groff"), is_there("mandoc"));
    let mut count = 0;
    for page in fs::read_dir(&pages).unwrap() {
        let page = page.unwrap().path();
        let text = fs::read_to_string(&page).unwrap();
        assert!(!text.contains("canary"), "{}", page.display());
        if groff {
            let rendered = Command::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-z"])
                .arg(&page)
                .output()
                .unwrap();
            let warnings = String::from_utf8(rendered.stderr).unwrap();
            assert!(rendered.status.success(), "{}: {warnings}", page.display());
            assert_eq!(warnings, "", "{}", page.display());
        }
        if mandoc {
            let linted = Command::new("mandoc")
                .args(["-Tlint", "-Werror"])
                .arg(&page)
                .output();
            assert!(linted.unwrap().status.success(), "{}", page.display());
        }
        count += 1;
    }
    assert!(count > 25, "{count}");
}
