//! Servers as processes, and what the system says of them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::Fallible;

pub(crate) const ROOT_ACCESS_KEY: &str = "bench-root";
pub(crate) const ROOT_SECRET_KEY: &str = "bench-root-secret";

/// A server, which ends with this value.
pub(crate) struct Server {
    child: Child,
    /// The line of its log that says where it listens.
    first: Value,
    /// Where it listens.
    pub(crate) address: String,
}

impl Server {
    /// Starts it, and waits for the line that says where it listens.
    fn start(command: &mut Command) -> Fallible<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut log = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        // Others may come before the one that says where it listens.
        let first = loop {
            let mut line = String::new();
            log.read_line(&mut line)?;
            let said: Value = serde_json::from_str(&line)
                .map_err(|_| format!("a server did not start: {line}"))?;
            if said.get("listen").is_some() {
                break said;
            }
        };
        // Somebody must read it, or the server would wait for that in the end.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut server = Self {
            child,
            address: String::new(),
            first,
        };
        server.address = server.said("listen")?;
        Ok(server)
    }

    /// A text that this line has.
    pub(crate) fn said(&self, name: &str) -> Fallible<String> {
        let text = self.first.get(name).and_then(Value::as_str);
        Ok(text
            .ok_or_else(|| format!("a server does not say `{name}`"))?
            .to_owned())
    }

    /// The bare server, answering what `answer` holds.
    pub(crate) fn reference(answer: &Path) -> Fallible<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .arg("reference")
                .arg(answer),
        )
    }

    /// The bare server over TLS, answering what `answer` holds, with the certificate in this folder.
    pub(crate) fn reference_over_tls(answer: &Path, folder: &Path) -> Fallible<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .arg("reference-tls")
                .args([answer, folder]),
        )
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A field of `/proc/PID/status`, in MB of a million bytes.
    pub(crate) fn memory(&self, field: &str) -> Fallible<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kibibytes: f64 = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .ok_or("no such field")?
            .parse()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Fallible<()> {
        let asked = Command::new("kill")
            .args(["-TERM", &self.pid().to_string()])
            .status()?;
        let ended = self.child.wait()?;
        if asked.success() && ended.success() {
            Ok(())
        } else {
            Err("a server did not stop in order".into())
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The product.
pub(crate) struct Keyway;

impl Keyway {
    /// Builds the release binary, or finds that it is up to date.
    pub(crate) fn build() -> Fallible<()> {
        let built = Command::new(option_env!("CARGO").unwrap_or("cargo"))
            .args(["build", "--quiet", "--release", "--locked", "-p", "keyway"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()?;
        if built.success() {
            Ok(())
        } else {
            Err("the release binary does not build".into())
        }
    }

    fn binary() -> Fallible<PathBuf> {
        // .../target/release/deps/this -> .../target/release/keyway
        let this = std::env::current_exe()?;
        let folder = this
            .parent()
            .and_then(Path::parent)
            .ok_or("no target folder")?;
        Ok(folder.join("keyway"))
    }

    /// Starts it on a data folder, which it makes if there is none.
    pub(crate) fn start(data_dir: &Path) -> Fallible<Server> {
        Self::start_with(data_dir, &[])
    }

    /// As [`Keyway::start`], with more arguments.
    pub(crate) fn start_with(data_dir: &Path, more: &[&str]) -> Fallible<Server> {
        let mut command = Command::new(Self::binary()?);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWAY_"))
        {
            command.env_remove(name);
        }
        command
            .args(["serve", "--start", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(more);
        command
            .env("KEYWAY_ROOT_ACCESS_KEY", ROOT_ACCESS_KEY)
            .env("KEYWAY_ROOT_SECRET_KEY", ROOT_SECRET_KEY);
        Server::start(&mut command)
    }
}

/// The processor time that a process has used, in the kernel too.
pub(crate) fn cpu_seconds(pid: u32) -> Fallible<f64> {
    // The kernel tells it in hundredths of a second, whatever its own ticks are.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in brackets; user and system time are the 14th and 15th.
    let fields = stat
        .rsplit_once(')')
        .ok_or("no such process")?
        .1
        .split_whitespace();
    let ticks: Vec<f64> = fields
        .skip(11)
        .take(2)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS)
}
