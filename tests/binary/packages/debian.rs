//! The Debian package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::{VERSION, is_root, package, place, program, run};

/// The fields of the package's control file.
fn fields(package: &Path) -> BTreeMap<String, String> {
    let control = run(Command::new("dpkg-deb").arg("--field").arg(package));
    let lines = control
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.collect()
}

#[test]
fn package_has_the_layout_of_debian() {
    let Some(package) = package() else { return };
    let list = run(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let mut found = BTreeSet::new();
    for entry in list.lines() {
        let fields: Vec<&str> = entry.split_whitespace().collect();
        let (mode, owner, name) = (fields[0], fields[1], fields[5]);
        assert_eq!(owner, "root/root", "{entry}");
        assert!(
            !mode.contains('s') && &mode[5..6] != "w" && &mode[8..9] != "w",
            "{entry}"
        );
        found.insert(name.trim_start_matches('.').to_owned());
    }
    for name in [
        "/usr/bin/keyway",
        "/usr/lib/systemd/system/keyway.service",
        "/usr/lib/sysusers.d/keyway.conf",
        "/etc/default/keyway",
        "/etc/keyway/keyway.toml",
        "/usr/share/man/man1/keyway.1.gz",
        "/usr/share/man/man1/keyway-serve.1.gz",
        "/usr/share/bash-completion/completions/keyway",
        "/usr/share/zsh/vendor-completions/_keyway",
        "/usr/share/fish/vendor_completions.d/keyway.fish",
        "/usr/share/doc/keyway/copyright",
        "/usr/share/doc/keyway/changelog.Debian.gz",
        "/usr/share/doc/keyway/docs/index.md",
        "/usr/share/doc/keyway/examples/tls.conf",
    ] {
        assert!(found.contains(name), "{name}");
    }
    // Only dpkg may not decide over keys: the service makes this folder.
    assert!(!found.iter().any(|name| name.starts_with("/var")));

    let fields = fields(&package);
    assert_eq!(fields["Package"], "keyway");
    assert_eq!(fields["Version"], format!("{VERSION}-1"));
    assert!(fields["Depends"].contains("systemd"), "{fields:?}");
    let needs_library = fields["Depends"].contains("libc6 (>= 2.");
    assert!(needs_library, "this program is not static: {fields:?}");
}

#[test]
fn lintian_finds_no_error() {
    let (Some(package), Some(lintian)) = (package(), program("lintian")) else {
        return;
    };
    let mut lintian = Command::new(lintian);
    lintian.args([
        "--fail-on",
        "error,warning",
        "--allow-root",
        // The package is none of Debian's own.
        "--suppress-tags",
        "bogus-mail-host,initial-upload-closes-no-bugs",
    ]);
    run(lintian.arg(package));
}

/// A root folder that dpkg installs into, as it does for images of machines.
struct Root(std::path::PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = place(name);
        if root.exists() {
            fs::remove_dir_all(&root).unwrap();
        }
        for folder in [
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "etc",
            "var/log",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
        fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
        fs::write(root.join("etc/group"), "root:x:0:\n").unwrap();
        Self(root)
    }

    /// Runs dpkg; returns what the package's scripts say.
    fn dpkg(&self, arguments: &[&str]) -> String {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg(format!("--root={}", self.0.display()))
            .args(["--force-script-chrootless", "--force-depends"])
            .args(arguments);
        let output = dpkg.output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {stderr}");
        stderr
    }

    fn read(&self, name: &str) -> String {
        let text = fs::read_to_string(self.0.join(name));
        text.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Mode, owner and group of a file.
    fn access(&self, name: &str) -> (u32, u32, u32) {
        let found = fs::metadata(self.0.join(name)).unwrap();
        (
            found.permissions().mode() & 0o7777,
            found.uid(),
            found.gid(),
        )
    }
}

#[test]
fn package_makes_its_secrets_once_and_never_removes_them() {
    let Some(package) = package() else { return };
    if !is_root() || program("systemd-sysusers").is_none() {
        eprintln!("SKIPPED: only root can install a package");
        return;
    }
    let package = package.to_str().unwrap();
    let root = Root::new("dpkg");
    let told = root.dpkg(&["--install", package]);
    assert!(
        told.contains("Keep a copy away from this machine"),
        "{told}"
    );

    let groups = root.read("etc/group");
    let group = groups.lines().find_map(|line| line.strip_prefix("keyway:"));
    let group = group.expect("the group is made").split(':').nth(1).unwrap();
    let group: u32 = group.parse().unwrap();
    assert_eq!(root.access("etc/keyway/passphrase"), (0o640, 0, group));
    assert_eq!(root.access("etc/keyway/root-access-key"), (0o600, 0, 0));
    let passphrase = root.read("etc/keyway/passphrase");
    assert_eq!(passphrase.trim().len(), 64, "it has 256 bits");
    let key = root.read("etc/keyway/root-access-key");
    let names: Vec<&str> = key
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    assert_eq!(names, ["KEYWAY_ROOT_ACCESS_KEY", "KEYWAY_ROOT_SECRET_KEY"]);
    for secret in key.lines().map(|line| line.split_once('=').unwrap().1) {
        assert!(!told.contains(secret), "secrets are not printed");
    }
    assert!(!told.contains(passphrase.trim()), "secrets are not printed");

    // What a run leaves behind.
    fs::create_dir_all(root.0.join("var/lib/keyway")).unwrap();
    fs::write(root.0.join("var/lib/keyway/keyway.db"), "keys").unwrap();
    root.dpkg(&["--install", package]);
    assert_eq!(
        root.read("etc/keyway/passphrase"),
        passphrase,
        "an update keeps it"
    );
    assert_eq!(root.read("etc/keyway/root-access-key"), key);

    root.dpkg(&["--remove", "keyway"]);
    assert!(!root.0.join("usr/bin/keyway").exists());
    let told = root.dpkg(&["--purge", "keyway"]);
    for kept in [
        "/var/lib/keyway",
        "/etc/keyway/passphrase",
        "/etc/keyway/root-access-key",
    ] {
        assert!(told.contains(&format!("keyway: {kept} is kept")), "{told}");
        assert!(root.0.join(&kept[1..]).exists(), "{kept}");
    }
    assert!(
        !root.0.join("etc/default/keyway").exists(),
        "settings are purged"
    );
    assert_eq!(root.read("var/lib/keyway/keyway.db"), "keys");
}

#[test]
fn package_beside_a_deployment_makes_no_secret() {
    let Some(package) = package() else { return };
    if !is_root() || program("systemd-sysusers").is_none() {
        eprintln!("SKIPPED: only root can install a package");
        return;
    }
    let root = Root::new("restored");
    fs::create_dir_all(root.0.join("var/lib/keyway")).unwrap();
    fs::write(root.0.join("var/lib/keyway/keyway.db"), "keys").unwrap();
    let told = root.dpkg(&["--install", package.to_str().unwrap()]);
    assert!(
        told.contains("write its passphrase to /etc/keyway/passphrase"),
        "{told}"
    );
    assert!(!root.0.join("etc/keyway/passphrase").exists());
    assert!(!root.0.join("etc/keyway/root-access-key").exists());
}
