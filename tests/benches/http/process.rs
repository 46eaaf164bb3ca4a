//! Servers as processes, and their figures from the system.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::Fallible;

/// What a pipe holds, of Linux by default.
const PIPE_BYTES: usize = 64 << 10;

/// Names the binary to measure, instead of one that is built.
const BINARY: &str = "KEYWAY_BENCH_BINARY";

pub(crate) const ROOT_ACCESS_KEY: &str = "bench-root";
pub(crate) const ROOT_SECRET_KEY: &str = "bench-root-secret";

/// Where a server's standard output goes.
#[derive(Clone, Copy)]
pub(crate) enum Log {
    /// To a pipe, which this process reads line by line.
    Pipe,
    /// To a file, as with `keyway serve >> FILE`.
    File,
}

/// What a process has in memory, in MB of a million bytes.
pub(crate) struct Memory {
    /// With the pages of its program's file that it has touched, or that the kernel has mapped beside those. The kernel
    /// can drop them at any time.
    pub(crate) whole: f64,
    /// What is no page of a file.
    pub(crate) own: f64,
}

/// A server, which ends with this value.
pub(crate) struct Server {
    child: Child,
    /// Its log, if that is a file.
    log: Option<NamedTempFile>,
    /// The line of its log that says where it listens.
    first: Value,
    /// Where it listens.
    pub(crate) address: String,
}

impl Server {
    /// Starts it, and waits for the line that says where it listens.
    fn start(command: &mut Command, log: Log) -> Fallible<Self> {
        let file = match log {
            Log::Pipe => None,
            Log::File => Some(NamedTempFile::new()?),
        };
        command.stdin(Stdio::null()).stdout(match &file {
            None => Stdio::piped(),
            Some(file) => OpenOptions::new().append(true).open(file.path())?.into(),
        });
        let mut server = Self {
            child: command.spawn()?,
            log: file,
            first: Value::Null,
            address: String::new(),
        };
        server.first = match server.child.stdout.take() {
            Some(pipe) => {
                // Log collectors read all available output at once, too.
                let mut lines = BufReader::with_capacity(PIPE_BYTES, pipe);
                let first = first_of(&mut lines)?.ok_or("a server did not start")?;
                // The pipe must be read, or the server would block in the end.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                first
            }
            None => server.first_of_file()?,
        };
        server.address = server.said("listen")?;
        Ok(server)
    }

    /// Starts a server of others, and waits until it takes connections at this address. It says nothing.
    pub(crate) fn start_at(command: &mut Command, address: String) -> Fallible<Self> {
        const TRIES: u32 = 600;
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut server = Self {
            child: quiet.stderr(Stdio::null()).spawn()?,
            log: None,
            first: Value::Null,
            address,
        };
        for _ in 0..TRIES {
            if TcpStream::connect(&server.address).is_ok() {
                return Ok(server);
            }
            if server.child.try_wait()?.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Err(format!("nothing listens at {}: {command:?}", server.address).into())
    }

    fn first_of_file(&mut self) -> Fallible<Value> {
        loop {
            let has_ended = self.child.try_wait()?.is_some();
            let file = self.log.as_ref().ok_or("no log")?.reopen()?;
            if let Some(first) = first_of(&mut BufReader::new(file))? {
                return Ok(first);
            }
            if has_ended {
                return Err("a server did not start".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Empties its log file: the log of a whole measurement could fill the disk.
    pub(crate) fn forget_log(&self) -> Fallible<()> {
        match &self.log {
            Some(file) => Ok(file.as_file().set_len(0)?),
            None => Ok(()),
        }
    }

    /// A text field of the line.
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
            Log::Pipe,
        )
    }

    /// The bare server over TLS, answering what `answer` holds, with the certificate in this folder.
    pub(crate) fn reference_over_tls(answer: &Path, folder: &Path) -> Fallible<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .arg("reference-tls")
                .args([answer, folder]),
            Log::Pipe,
        )
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has in memory now.
    pub(crate) fn memory(&self) -> Fallible<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let field = |name| -> Fallible<f64> {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kibibytes: f64 = line
                .and_then(|line| line.trim().strip_suffix(" kB"))
                .ok_or("no such field")?
                .parse()?;
            Ok(kibibytes * 1024.0 / 1e6)
        };
        Ok(Memory {
            whole: field("VmRSS")?,
            own: field("RssAnon")?,
        })
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

/// The line of a log that has the server's address. Other lines may precede it, and the last may be incomplete.
fn first_of(log: &mut impl BufRead) -> Fallible<Option<Value>> {
    loop {
        let mut line = String::new();
        log.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Ok(None);
        }
        let said: Value =
            serde_json::from_str(&line).map_err(|_| format!("a server did not start: {line}"))?;
        if said.get("listen").is_some() {
            return Ok(Some(said));
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
        if std::env::var_os(BINARY).is_some() {
            return Ok(());
        }
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

    /// The release binary of this build, or the one that the environment names.
    pub(crate) fn binary() -> Fallible<PathBuf> {
        if let Some(named) = std::env::var_os(BINARY) {
            return Ok(std::path::absolute(named)?);
        }
        // .../target/release/deps/this -> .../target/release/keyway
        let this = std::env::current_exe()?;
        let folder = this
            .parent()
            .and_then(Path::parent)
            .ok_or("no target folder")?;
        Ok(folder.join("keyway"))
    }

    /// Starts it on a data folder, which it makes if there is none. Its log goes to a file.
    pub(crate) fn start(data_dir: &Path) -> Fallible<Server> {
        Self::start_with(data_dir, &[], Log::File)
    }

    /// As [`Keyway::start`], with more arguments.
    pub(crate) fn start_with(data_dir: &Path, more: &[&str], log: Log) -> Fallible<Server> {
        Self::start_build(&Self::binary()?, data_dir, more, log)
    }

    /// As [`Keyway::start_with`], with this binary.
    pub(crate) fn start_build(
        program: &Path,
        data_dir: &Path,
        more: &[&str],
        log: Log,
    ) -> Fallible<Server> {
        Self::start_command(Command::new(program), data_dir, more, log)
    }

    /// As [`Keyway::start_build`], by a command that runs the program: its arguments are added to that command's.
    pub(crate) fn start_command(
        mut command: Command,
        data_dir: &Path,
        more: &[&str],
        log: Log,
    ) -> Fallible<Server> {
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
        Server::start(&mut command, log)
    }
}

/// The processor time that a process has used, in seconds: outside of the kernel, and within.
pub(crate) fn processor_seconds(pid: u32) -> Fallible<[f64; 2]> {
    // The kernel reports hundredths of a second, whatever its own tick is.
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in brackets; user and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').ok_or("no such process")?;
    let mut ticks = fields.split_whitespace().skip(11);
    let mut next = || -> Fallible<f64> {
        let ticks = ticks.next().ok_or("the kernel reports no processor time")?;
        Ok(ticks.parse::<f64>()? / TICKS)
    };
    Ok([next()?, next()?])
}
