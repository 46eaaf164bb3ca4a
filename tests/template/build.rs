//! `scripts/build-lambda` builds every architecture that is asked for, or nothing.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use keyway_tests::project;

/// The script's exit code and errors, where Rust can compile for x86_64 alone.
fn build(arguments: &[&str]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let rustc = folder.path().join("rustc");
    // The last argument is the target's triple.
    let script = "#!/bin/sh\ncase $* in *x86_64*) echo /;; *) echo /nonexistent;; esac\n";
    std::fs::write(&rustc, script).unwrap();
    std::fs::set_permissions(&rustc, Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let output = Command::new(project().join("scripts/build-lambda"))
        .args(arguments)
        .env("PATH", path)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn architecture_that_rust_cannot_compile_for_fails_the_build() {
    for arguments in [&[][..], &["arm64"], &["x86_64", "arm64"]] {
        let (code, stderr) = build(arguments);
        assert_eq!(code, Some(1), "{stderr}");
        let asks = "rustup target add aarch64-unknown-linux-gnu";
        assert!(
            stderr.starts_with("nothing is built") && stderr.contains(asks),
            "{stderr}"
        );
    }
}

#[test]
fn architecture_that_lambda_lacks_is_refused() {
    let (code, stderr) = build(&["x86_64", "riscv64"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr, "riscv64 is neither arm64 nor x86_64\n");
}

#[test]
fn commit_of_a_build_says_when_files_were_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("scripts")).unwrap();
    std::fs::copy(project().join("scripts/commit"), path("scripts/commit")).unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env("GIT_CEILING_DIRECTORIES", folder.path().parent().unwrap())
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let commit = || run("scripts/commit", &[]);
    // An archive of the sources has no commit.
    assert_eq!(commit(), "");
    let identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"];
    run("git", &["init", "--quiet"]);
    run("git", &["add", "scripts"]);
    let made = ["commit", "--quiet", "--no-gpg-sign", "--message", "m"];
    run("git", &[&identity[..], &made[..]].concat());
    let head = run("git", &["rev-parse", "HEAD"]);
    assert_eq!(commit(), head);
    run("sh", &["-c", "echo '# changed' >> scripts/commit"]);
    assert_eq!(commit(), format!("{}-dirty\n", head.trim_end()));
}
