use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::{Answer, Signer};

/// The path of a binary of this workspace, built first if it is not there or out of date.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let folder = BUILT.get_or_init(|| {
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        let built = std::process::Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--locked",
                "-p",
                "keyway",
                "-p",
                "keyway-fn-keys",
                "-p",
                "keyway-fn-datakey",
            ])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the binaries do not build");
        // .../target/debug/deps/this-test -> .../target/debug
        let this = std::env::current_exe().expect("this test has a path");
        this.parent()
            .and_then(Path::parent)
            .expect("a target folder")
            .to_owned()
    });
    folder.join(name)
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    program: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

impl Default for ServerOptions {
    /// `keyway serve --start` with a root access key from the environment.
    fn default() -> Self {
        Self {
            program: "keyway",
            arguments: vec!["serve".to_owned(), "--start".to_owned()],
            variables: root_variables(),
        }
    }
}

fn root_variables() -> Vec<(String, String)> {
    vec![
        ("KEYWAY_ROOT_ACCESS_KEY".to_owned(), "test-root".to_owned()),
        (
            "KEYWAY_ROOT_SECRET_KEY".to_owned(),
            "test-root-secret".to_owned(),
        ),
    ]
}

impl ServerOptions {
    /// `keyway serve`, without `--start`.
    pub fn not_started() -> Self {
        Self {
            arguments: vec!["serve".to_owned()],
            ..Self::default()
        }
    }

    /// One of the functions, on its local HTTP listener.
    pub fn function(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            ..Self::default()
        }
    }

    /// With another argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without a root access key in the environment.
    #[must_use]
    pub fn without_root(mut self) -> Self {
        self.variables
            .retain(|(name, _)| !name.starts_with("KEYWAY_ROOT_"));
        self
    }

    fn command(&self, data_dir: &Path) -> Command {
        let mut command = Command::new(binary(self.program));
        command
            .args(&self.arguments)
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWAY_"))
        {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts a process that must not come to serve, and gives its exit code and what it said on stderr.
    pub async fn fail(&self, data_dir: &Path) -> (Option<i32>, String) {
        let output = self.command(data_dir).output();
        let output = tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .expect("it ends")
            .expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    /// Starts the process and waits until it serves.
    pub async fn start(&self, data_dir: &Path) -> Server {
        let mut child = self.command(data_dir).spawn().expect("the binary runs");
        let mut log = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        let read = tokio::time::timeout(Duration::from_secs(60), log.read_line(&mut line)).await;
        let first: Value = match read {
            Ok(Ok(length)) if length > 0 => serde_json::from_str(&line).expect("the log is JSON"),
            _ => {
                let output = child.wait_with_output().await.expect("it ends");
                panic!(
                    "the server did not start: {}",
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        };
        let address = first["listen"]
            .as_str()
            .expect("the log's first line has the address")
            .to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        Server {
            child,
            log,
            first,
            address,
            client,
            root: Signer::new("test-root", "test-root-secret"),
        }
    }
}

/// A real process that serves.
pub struct Server {
    child: Child,
    log: BufReader<ChildStdout>,
    first: Value,
    /// Where it listens.
    pub address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    root: Signer,
}

impl Server {
    /// The log's first line.
    pub fn first_line(&self) -> &Value {
        &self.first
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Calls as root; `path` is below the prefix.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(&self.root, method, path, body).await
    }

    /// Calls as somebody; `path` is below the prefix.
    pub async fn call_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        self.try_call(signer, method, path, body)
            .await
            .expect("the server answers")
    }

    /// As [`Server::call_as`], where the connection may fail.
    ///
    /// # Errors
    /// What the client says.
    pub async fn try_call(
        &self,
        signer: &Signer,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Answer, String> {
        let path = format!("/rustfs/admin/v3{path}");
        let signed = signer.request(method, &self.address, &path, body.as_bytes(), now());
        self.send(signed).await
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// What the client says.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<Answer, String> {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{}", self.address, parts.uri)
            .parse()
            .map_err(|error| format!("{error}"))?;
        let request = http::Request::from_parts(parts, Full::new(body));
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| format!("{error:?}"))?
            .to_bytes();
        Ok(http::Response::from_parts(parts, body).into())
    }

    /// The signer of the root access key that [`ServerOptions::default`] sets.
    pub fn root(&self) -> &Signer {
        &self.root
    }

    /// Kills it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it is killed");
    }

    /// Sends SIGTERM and waits for the end: exit code, the rest of the log, and stderr.
    pub async fn stop(self) -> (Option<i32>, String, String) {
        signal("TERM", self.pid());
        let mut log = String::new();
        let mut reader = self.log;
        let output = async {
            tokio::io::AsyncReadExt::read_to_string(&mut reader, &mut log)
                .await
                .expect("the log is text");
            self.child.wait_with_output().await.expect("it ends")
        };
        let output = tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .expect("it stops in time");
        (
            output.status.code(),
            log,
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// Sends a signal to a process.
pub(crate) fn signal(name: &str, pid: u32) {
    let sent = std::process::Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(sent.expect("kill runs").success());
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
