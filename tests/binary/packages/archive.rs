//! The archive, its checksums and its list of crates.

use std::collections::BTreeSet;
use std::process::Command;

use keyway_tests::project;
use serde_json::Value;

use super::{VERSION, architecture, archive, dist, made, place, run};

fn checksums(folder: &std::path::Path) -> String {
    std::fs::read_to_string(folder.join("SHA256SUMS")).unwrap()
}

#[test]
fn archives_of_the_same_program_have_the_same_bytes() {
    let again = place("again");
    let mut second = dist(&again);
    // Neither the user's settings nor the time zone change a byte.
    second.env("TZ", "Asia/Tokyo").env("LANG", "de_DE.UTF-8");
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 077; exec \"$@\"", "sh"]);
    shell.arg(second.get_program()).args(second.get_args());
    for (name, value) in second.get_envs() {
        shell.env(name, value.unwrap());
    }
    run(&mut shell);
    assert!(checksums(&again).lines().count() >= 2);
    assert_eq!(checksums(&again), checksums(made()));
}

#[test]
fn checksums_are_those_of_the_files() {
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--strict", "SHA256SUMS"]);
    let told = run(check.current_dir(made()));
    let name = format!("keyway-{VERSION}-{}-linux.tar.gz: OK", architecture());
    assert!(told.lines().any(|line| line == name), "{told}");
}

#[test]
fn entries_of_the_archive_belong_to_root_and_have_one_time() {
    let archive = made().join(format!("keyway-{VERSION}-{}-linux.tar.gz", architecture()));
    let mut tar = Command::new("tar");
    let list = run(tar
        .args(["--numeric-owner", "--full-time", "-tvzf"])
        .arg(archive));
    let mut times = BTreeSet::new();
    for entry in list.lines() {
        let fields: Vec<&str> = entry.split_whitespace().collect();
        let [mode, owner, _, day, time, name] = fields[..] else {
            panic!("{entry}")
        };
        assert_eq!(owner, "0/0", "{entry}");
        let is_program = name.ends_with("/bin/keyway") || mode.starts_with('d');
        let expected = if is_program { "rwxr-xr-x" } else { "rw-r--r--" };
        assert_eq!(&mode[1..], expected, "{entry}");
        times.insert((day.to_owned(), time.to_owned()));
    }
    assert_eq!(times.len(), 1, "{times:?}");
}

#[test]
fn archive_has_the_program_and_what_belongs_to_it() {
    let root = archive();
    let version = run(Command::new(root.join("bin/keyway")).arg("--version"));
    assert!(
        version.starts_with(&format!("keyway {VERSION} (commit ")),
        "{version}"
    );
    for name in [
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "docs/index.md",
        "docs/install.md",
        "etc/keyway.toml",
        "share/man/keyway.1",
        "share/man/keyway-serve.1",
        "share/completions/keyway",
        "share/completions/_keyway",
        "share/completions/keyway.fish",
        "systemd/keyway.service",
        "systemd/keyway.sysusers",
        "systemd/tls.conf",
        "kubernetes/encryption-configuration.yaml",
        "kubernetes/kms-plugin.yaml",
        "kubernetes/one-node.yaml",
        "kubernetes/shared-table.yaml",
        "Containerfile",
    ] {
        let length = std::fs::metadata(root.join(name)).map(|found| found.len());
        assert!(length.is_ok_and(|length| length > 0), "{name}");
    }
    let license = std::fs::read_to_string(root.join("LICENSE")).unwrap();
    assert_eq!(
        license,
        std::fs::read_to_string(project().join("LICENSE")).unwrap()
    );
}

/// `scripts/dist-tools` compiles the tool for minutes, so only releases have it everywhere.
#[test]
fn list_of_crates_is_that_of_the_program() {
    let list = archive().join("keyway.cdx.json");
    if !project()
        .join(".cache/dist-tools/bin/cargo-cyclonedx")
        .exists()
    {
        eprintln!("SKIPPED: there is no cargo-cyclonedx; run scripts/dist-tools");
        return;
    }
    let text = std::fs::read_to_string(list).unwrap();
    for path in ["/root/", "/home/", "/tmp/", "/work/"] {
        assert!(!text.contains(path), "{path}");
    }
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["bomFormat"], "CycloneDX");
    assert_eq!(document["metadata"]["component"]["name"], "keyway");
    let components = document["components"].as_array().unwrap();
    let names: BTreeSet<&str> = (components.iter())
        .map(|component| component["name"].as_str().unwrap())
        .collect();
    for name in ["keyway-domain", "rustls", "aws-lc-rs", "rusqlite"] {
        assert!(names.contains(name), "{name}");
    }
    for name in ["proptest", "keyway-tests", "insta"] {
        assert!(!names.contains(name), "{name}");
    }
    let is_described = |component: &&Value| {
        let has = |name: &str| component.get(name).is_some();
        has("version") && has("purl") && has("licenses")
    };
    assert_eq!(
        components.iter().filter(is_described).count(),
        components.len()
    );
}
