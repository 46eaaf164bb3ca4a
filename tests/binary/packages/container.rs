//! The image: its files, its settings, and a run of it where the machine has a runtime of containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use keyway_tests::project;
use serde_json::{Value, json};

use super::{archive, is_root, place, run};
use crate::now;

/// The instructions of the Containerfile: name and arguments.
fn instructions() -> Vec<(String, String)> {
    let text = fs::read_to_string(archive().join("Containerfile")).unwrap();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect()
}

/// The arguments of an instruction that is there once.
fn only(name: &str) -> String {
    let mut found = instructions()
        .into_iter()
        .filter(|(one, _)| one == name)
        .map(|(_, rest)| rest);
    let first = found.next().unwrap_or_else(|| panic!("{name}"));
    assert_eq!(found.next(), None, "{name}");
    first
}

/// The arguments of an instruction in the form of JSON.
fn words(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap()
}

/// Source, target and owner of each file that the image takes from the archive.
fn copies() -> Vec<(String, String, Option<String>)> {
    let copies = instructions()
        .into_iter()
        .filter(|(name, _)| name == "COPY");
    copies
        .map(|(_, rest)| {
            let mut words: Vec<&str> = rest.split(' ').collect();
            let owner = words[0].strip_prefix("--chown=").map(str::to_owned);
            if owner.is_some() {
                words.remove(0);
            }
            let [from, to] = words[..] else {
                panic!("{rest}")
            };
            (from.to_owned(), to.to_owned(), owner)
        })
        .collect()
}

fn variables() -> Vec<String> {
    only("ENV").split(' ').map(str::to_owned).collect()
}

#[test]
fn image_takes_everything_from_the_archive() {
    let copies = copies();
    assert!(copies.len() >= 3);
    for (from, to, _) in &copies {
        assert!(archive().join(from).exists(), "{from}");
        assert!(to.starts_with('/'), "{to}");
    }
    // Nothing is installed or fetched while the image is built.
    for (name, _) in instructions() {
        assert!(!["RUN", "ADD"].contains(&name.as_str()), "{name}");
    }
}

#[test]
fn image_runs_the_server_as_a_user_that_is_not_root() {
    let user = only("USER");
    let (user, group) = user.split_once(':').unwrap();
    for id in [user, group] {
        assert!(id.parse::<u32>().is_ok_and(|id| id > 0), "{id}");
    }
    let volume = only("VOLUME");
    let owned = copies()
        .into_iter()
        .find(|(_, to, _)| volume.starts_with(to.as_str()));
    let (from, to, owner) = owned.expect("the volume's folder is in the image");
    assert_eq!(owner, Some(only("USER")));
    let folder = archive()
        .join(from)
        .join(volume.strip_prefix(&format!("{to}/")).unwrap());
    assert!(folder.is_dir(), "{}", folder.display());

    assert_eq!(only("STOPSIGNAL"), "SIGTERM");
    assert_eq!(words(&only("ENTRYPOINT")), ["/usr/bin/keyway"]);
    assert_eq!(words(&only("CMD")), ["serve"]);
    let (_, check) = only("HEALTHCHECK")
        .split_once(" CMD ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    assert_eq!(words(&check), ["/usr/bin/keyway", "healthcheck"]);
    let data = format!("KEYWAY_DATA_DIR={volume}/");
    assert!(variables().iter().any(|one| one.starts_with(&data)));
    let port = format!("KEYWAY_LISTEN=:{}", only("EXPOSE"));
    assert!(variables().contains(&port));
}

/// Copies what the image takes into `to`, and the libraries that the program needs if it is not static.
fn assemble(to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    for (from, target, owner) in copies() {
        let target = to.join(target.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        let mut copy = Command::new("cp");
        run(copy.args(["-RT"]).arg(archive().join(from)).arg(&target));
        let owner = owner.unwrap_or_else(|| "0:0".to_owned());
        run(Command::new("chown").args(["-R", &owner]).arg(&target));
    }
    let needed = Command::new("ldd")
        .arg(archive().join("bin/keyway"))
        .output();
    let needed = String::from_utf8(needed.unwrap().stdout).unwrap();
    for library in needed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let target = to.join(library.trim_start_matches('/'));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(library, target).unwrap();
    }
    for folder in ["proc", "dev", "sys"] {
        fs::create_dir_all(to.join(folder)).unwrap();
    }
}

/// The runtime's description of a container of this image, with nothing more than its user needs.
fn bundle(volume: &Path) -> Value {
    let user = only("USER");
    let (user, group) = user.split_once(':').unwrap();
    let mut variables = variables();
    variables.extend(
        [
            "KEYWAY_START=true",
            "KEYWAY_INSECURE_HTTP=true",
            "KEYWAY_ROOT_ACCESS_KEY=root-1",
            "KEYWAY_ROOT_SECRET_KEY=root-secret-1",
        ]
        .map(str::to_owned),
    );
    let arguments = [words(&only("ENTRYPOINT")), words(&only("CMD"))].concat();
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({"type": kind}));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": user.parse::<u32>().unwrap(), "gid": group.parse::<u32>().unwrap()},
            "args": arguments,
            "env": variables,
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": []},
        },
        "root": {"path": "rootfs", "readonly": true},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": only("VOLUME"), "type": "bind", "source": volume, "options": ["bind", "rw"]},
        ],
        "linux": {"namespaces": namespaces},
    })
}

/// A runtime of containers: the machine's own, or Debian's.
fn runtime() -> Option<PathBuf> {
    let found = Command::new(project().join("scripts/debian-tool"))
        .args(["runc", "runc"])
        .output()
        .unwrap();
    let path = String::from_utf8(found.stdout).unwrap();
    let path = path.trim();
    (!path.is_empty()).then(|| PathBuf::from(path))
}

/// A container that runs. Removed when dropped.
struct Container {
    runtime: PathBuf,
    state: PathBuf,
    id: String,
}

impl Container {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime);
        command
            .arg(format!("--root={}", self.state.display()))
            .args(arguments);
        command
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let removed = self
            .command(&["delete", "--force", &self.id])
            .stderr(Stdio::null())
            .status();
        assert!(removed.is_ok());
    }
}

#[test]
fn image_serves_with_a_read_only_root() {
    if !is_root() {
        eprintln!("SKIPPED: only root can run an image here");
        return;
    }
    let root = place("image/rootfs");
    assemble(&root);
    let Some(runtime) = runtime() else {
        // Its layout is tested all the same.
        let user = format!("--userspec={}", only("USER"));
        let mut chroot = Command::new("chroot");
        let version = run(chroot
            .arg(user)
            .arg(&root)
            .args(["/usr/bin/keyway", "--version"]));
        assert!(version.starts_with("keyway "), "{version}");
        eprintln!("SKIPPED: there is no runc to run the image with");
        return;
    };
    // What a new volume begins as.
    let volume = place("image/volume");
    if volume.exists() {
        fs::remove_dir_all(&volume).unwrap();
    }
    let of_image = root.join(only("VOLUME").trim_start_matches('/'));
    run(Command::new("cp").arg("-RTp").arg(of_image).arg(&volume));
    let bundle = bundle(&volume).to_string();
    fs::write(place("image/config.json"), bundle).unwrap();

    let container = Container {
        runtime,
        state: place("image/state"),
        id: format!("keyway-{}", std::process::id()),
    };
    let folder = place("image");
    let mut start = container.command(&["run", "--bundle", folder.to_str().unwrap()]);
    let process = start
        .arg(&container.id)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = now() + Duration::from_secs(20);
    let check = loop {
        let mut check = container.command(&["exec"]);
        let answer = check
            .arg(&container.id)
            .args(["/usr/bin/keyway", "healthcheck"])
            .output()
            .unwrap();
        if answer.status.success() || now() > deadline {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    run(&mut container.command(&["kill", &container.id, "TERM"]));
    let output = process.wait_with_output().unwrap();
    assert!(check.status.success(), "{check:?} {output:?}");
    assert!(output.status.success(), "{output:?}");
    let log = String::from_utf8(output.stdout).unwrap();
    assert!(log.contains("keyway has stopped"), "{log}");
    assert!(volume.join("data/keyway.db").exists());
}
