//! The unit of systemd: it starts the server, and it confines it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use keyway_tests::project;
use tokio::net::UnixDatagram;

use super::{archive, installed, is_root, package, place, program, run};
use crate::folder;

fn unit() -> String {
    fs::read_to_string(project().join("packaging/systemd/keyway.service")).unwrap()
}

/// The values of a setting, in their order.
fn values(unit: &str, setting: &str) -> Vec<String> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| *name == setting)
        .map(|(_, value)| value.to_owned())
        .collect()
}

/// The variables of a file as systemd reads them.
fn variables(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Does what systemd does, without its confinement.
#[tokio::test]
async fn server_starts_with_the_settings_of_the_unit() {
    let unit = unit();
    let folder = folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for name in ["state", "state/keyway", "credentials", "etc"] {
        let made = fs::DirBuilder::new();
        made.create(path(name)).unwrap();
    }
    run(Command::new("chmod").args(["700", &path("state/keyway")]));
    assert_eq!(values(&unit, "StateDirectory"), ["keyway"]);
    assert_eq!(
        values(&unit, "LoadCredential"),
        ["passphrase:/etc/keyway/passphrase"]
    );
    fs::write(path("credentials/passphrase"), "secret passphrase\n").unwrap();
    let settings = fs::read_to_string(archive().join("etc/keyway.toml")).unwrap();
    let settings = settings.replace("/var/lib/keyway", &path("state/keyway"));
    fs::create_dir(path("etc/keyway")).unwrap();
    fs::write(path("etc/keyway/keyway.toml"), settings).unwrap();
    let defaults = project().join("packaging/systemd/keyway.default");
    let mut set = values(&unit, "Environment")
        .iter()
        .map(|assignment| {
            let (name, value) = assignment.split_once('=').unwrap();
            let value = value
                .replace("%d", &path("credentials"))
                .replace("%E", &path("etc"));
            assert!(!value.contains('%'), "{assignment}");
            (name.to_owned(), value)
        })
        .collect::<Vec<_>>();
    set.extend(variables(&fs::read_to_string(defaults).unwrap()));
    set.extend(variables(
        "KEYWAY_ROOT_ACCESS_KEY=root-1\nKEYWAY_ROOT_SECRET_KEY=root-secret-1\nKEYWAY_LISTEN=127.0.0.1:0",
    ));
    let socket = UnixDatagram::bind(path("notify")).unwrap();
    assert_eq!(values(&unit, "Type"), ["notify"]);
    let start = values(&unit, "ExecStart");
    let arguments = start[0].strip_prefix("/usr/bin/keyway ").unwrap();
    let program = archive().join("bin/keyway");
    let mut server = tokio::process::Command::new(&program)
        .args(arguments.split(' '))
        .env_clear()
        .envs(set)
        .env("NOTIFY_SOCKET", path("notify"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut told = [0; 4096];
    let told_in_time = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut told));
    let Ok(length) = told_in_time.await else {
        server.start_kill().unwrap();
        panic!("{:?}", server.wait_with_output().await);
    };
    let told = str::from_utf8(&told[..length.unwrap()]).unwrap();
    let address = told.split_once("serving on ").unwrap().1.trim();
    run(Command::new(&program).args(["healthcheck", "--listen", address]));
    run(Command::new("kill").arg(server.id().unwrap().to_string()));
    let output = server.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stderr, b"", "the journal gets no secret");
    assert!(Path::new(&path("state/keyway/keyway.db")).exists());
    let keyring = fs::read(path("state/keyway/secrets/root-keyring.secret")).unwrap();
    assert!(!keyring.is_empty());
}

/// The unit in a root that has what it names.
fn root() -> Option<&'static Path> {
    let root = installed()?;
    for target in [
        "sysinit",
        "basic",
        "shutdown",
        "multi-user",
        "network-online",
    ] {
        let path = root.join(format!("usr/lib/systemd/system/{target}.target"));
        fs::write(path, "[Unit]\nDescription=for the test\n").unwrap();
    }
    // The unit's other program.
    let bin = root.join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy(root.join("usr/bin/keyway"), bin.join("sh")).unwrap();
    Some(root)
}

#[test]
fn unit_has_no_mistake_that_systemd_finds() {
    let (Some(root), Some(analyze)) = (root(), program("systemd-analyze")) else {
        return;
    };
    let mut analyze = Command::new(analyze);
    analyze.arg(format!("--root={}", root.display())).args([
        "--man=no",
        "--recursive-errors=no",
        "verify",
        "keyway.service",
    ]);
    let output = analyze.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.is_empty(), "{text}");
}

/// The exposure of a unit is 0 to 10, and the option has tenths. A listener on the network cannot do without the 1.2.
#[test]
fn unit_exposes_little_by_the_rating_of_systemd() {
    let (Some(root), Some(analyze)) = (root(), program("systemd-analyze")) else {
        return;
    };
    let mut analyze = Command::new(analyze);
    analyze.arg(format!("--root={}", root.display())).args([
        "--offline=yes",
        "--threshold=12",
        "--no-pager",
        "security",
        "keyway.service",
    ]);
    let output = analyze.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = text.lines().last().unwrap_or_default();
    assert!(
        output.status.success(),
        "{said} {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn drop_in_for_tls_names_the_options_of_the_server() {
    let drop_in = fs::read_to_string(archive().join("systemd/tls.conf")).unwrap();
    let loaded = values(&drop_in, "LoadCredential");
    let mut named = Vec::new();
    for assignment in values(&drop_in, "Environment") {
        let (name, value) = assignment.split_once("=%d/").unwrap();
        let credential = format!("{value}:/etc/keyway/tls/");
        assert!(
            loaded.iter().any(|loaded| loaded.starts_with(&credential)),
            "{value}"
        );
        named.push(name.to_owned());
    }
    assert_eq!(named, ["KEYWAY_TLS_CERT", "KEYWAY_TLS_KEY"]);
    let all = run(Command::new(archive().join("bin/keyway")).args(["config", "example"]));
    for name in named {
        assert!(all.contains(&format!("# Variable: {name}\n")), "{name}");
    }
}

/// What a machine reports after it has installed, used and purged the package: NAME=VALUE.
fn report(machine: &Path, package: &Path) -> Option<String> {
    let nspawn = program("systemd-nspawn")?;
    let (given, reported) = (place("machine/package"), place("machine/report"));
    for folder in [&given, &reported] {
        if folder.exists() {
            fs::remove_dir_all(folder).unwrap();
        }
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy(package, given.join("keyway.deb")).unwrap();
    let script = project().join("tests/systemd/report.sh");
    fs::copy(script, given.join("report.sh")).unwrap();
    let mut boot = Command::new("timeout");
    // What the machine writes is discarded when it ends.
    boot.arg("180")
        .arg(nspawn)
        .args([
            "--boot",
            "--quiet",
            "--volatile=overlay",
            "--private-network",
        ])
        .args(["--register=no", "--keep-unit", "--machine=keyway-test"])
        .arg(format!("--directory={}", machine.display()))
        .arg(format!("--bind-ro={}:/package", given.display()))
        .arg(format!("--bind={}:/report", reported.display()));
    let booted = boot.stdin(Stdio::null()).output().unwrap();
    let report = fs::read_to_string(reported.join("report"));
    Some(report.unwrap_or_else(|error| panic!("{error}: {booted:?}")))
}

/// `scripts/test-systemd` makes the machine.
#[test]
fn service_runs_under_systemd() {
    let machine = project().join(".cache/machine");
    if !is_root() || !machine.join("etc/systemd/system/report.service").exists() {
        eprintln!("SKIPPED: there is no machine to boot; run scripts/test-systemd");
        return;
    }
    let Some(package) = package() else { return };
    let Some(report) = report(&machine, &package) else {
        return;
    };
    for expected in [
        "installed=active",
        "enabled=enabled",
        "told=serving on 127.0.0.1:9000",
        "ready=yes",
        "user=keyway",
        "capabilities=0000000000000000",
        "new_privileges=1",
        "seccomp=2",
        "data=keyway 700",
        "secret_in_journal=0",
        "command=1",
        "reloaded=active",
        "after_kill=yes",
        "watched=0",
        "after_hang=yes",
        "tls_key=root 600",
        "tls=yes",
        "updated=active",
        "same_passphrase=yes",
        "stopped=success",
        "purged=inactive",
        "kept=/var/lib/keyway/keyway.db",
    ] {
        assert!(
            report.lines().any(|line| line == expected),
            "{expected} {report}"
        );
    }
}
