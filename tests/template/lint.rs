//! AWS's own linters accept the template.

use crate::deployments::tool;

/// Runs a linter without the user's files and without the network.
fn passes(program: &str, arguments: &[&str]) {
    let Some(mut linter) = tool(program) else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let said = linter
        .args(arguments)
        .env("HOME", home.path())
        .env("SAM_CLI_TELEMETRY", "0")
        // It would look for newer versions of itself.
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{program}: {text}");
}

#[test]
fn sam_finds_nothing() {
    passes(
        "sam",
        &["validate", "--lint", "--template-file", "template.yaml"],
    );
}

#[test]
fn cfn_lint_finds_nothing() {
    passes(
        "cfn-lint",
        &["--regions", "us-east-1", "--", "template.yaml"],
    );
}
