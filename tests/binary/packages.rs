//! What `make dist` makes, of the binary under test: the archive, the Debian package, the image and Kubernetes' manifests.

mod archive;
mod container;
mod debian;
mod kms_plugin;
mod kubernetes;
mod systemd;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use keyway_tests::{binary, project};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// As archives spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

/// What the tests of this file write.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("packages")
        .join(name)
}

/// Runs a command that must succeed; returns its standard output.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The path of a program of this machine. Without it a test says what it leaves out.
fn program(name: &str) -> Option<PathBuf> {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$0\"", name])
        .output();
    let found = String::from_utf8(found.unwrap().stdout).unwrap();
    let path = found.trim();
    if path.is_empty() {
        eprintln!("SKIPPED: there is no {name} on this machine");
        return None;
    }
    Some(PathBuf::from(path))
}

fn is_root() -> bool {
    run(Command::new("id").arg("-u")).trim() == "0"
}

/// `scripts/dist` of the binary under test, without its debugging information.
fn dist(folder: &Path) -> Command {
    static STRIPPED: OnceLock<PathBuf> = OnceLock::new();
    let stripped = STRIPPED.get_or_init(|| {
        let stripped = place("keyway");
        std::fs::create_dir_all(stripped.parent().unwrap()).unwrap();
        let mut strip = Command::new("strip");
        run(strip.arg("-o").arg(&stripped).arg(binary("keyway")));
        stripped
    });
    let mut dist = Command::new(project().join("scripts/dist"));
    dist.arg("--to").arg(folder).arg("--binary").arg(stripped);
    // xz would take most of the time of these tests.
    dist.env("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
        .env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    dist
}

/// The folder of what `scripts/dist` has made.
fn made() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let folder = place("made");
        run(&mut dist(&folder));
        folder
    })
}

/// The root of the unpacked archive.
fn archive() -> &'static Path {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let name = format!("keyway-{VERSION}-{}-linux", architecture());
        let folder = place("archive");
        std::fs::create_dir_all(&folder).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(made().join(format!("{name}.tar.gz")));
        run(tar.arg("-C").arg(&folder));
        folder.join(name)
    })
}

/// The Debian package, where the machine has Debian's tools.
fn package() -> Option<PathBuf> {
    let architecture = match architecture() {
        "x86_64" => "amd64",
        other => other,
    };
    program("dpkg-deb")?;
    Some(made().join(format!("keyway_{VERSION}-1_{architecture}.deb")))
}

/// The root of the unpacked Debian package.
fn installed() -> Option<&'static Path> {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    let package = package()?;
    Some(UNPACKED.get_or_init(|| {
        let folder = place("installed");
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&folder));
        folder
    }))
}

/// The program that the package installs; that of the archive where the machine has no tools of Debian.
pub(crate) fn installed_program() -> PathBuf {
    let package = installed().map(|root| root.join("usr/bin/keyway"));
    package.unwrap_or_else(|| archive().join("bin/keyway"))
}
