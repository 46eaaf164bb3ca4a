use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::{Answer, Signer, Target};

/// The path of a binary of this workspace, which is built first if needed. `KEYWAY_TEST_FUNCTIONS` names a folder with the
/// functions of `scripts/build-lambda --for-tests`, to test those; `KEYWAY_TEST_KEYWAY` names a release build of `keyway`.
pub fn binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(folder) = crate::aws::variable("KEYWAY_TEST_FUNCTIONS")
        && name.starts_with("keyway-fn-")
    {
        let bootstrap = crate::project().join(folder).join(name).join("bootstrap");
        assert!(bootstrap.exists(), "there is no {}", bootstrap.display());
        return bootstrap;
    }
    if let Some(release) = crate::aws::variable("KEYWAY_TEST_KEYWAY")
        && name == "keyway"
    {
        let release = crate::project().join(release);
        assert!(release.exists(), "there is no {}", release.display());
        return release;
    }
    let folder = BUILT.get_or_init(|| {
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        let features = cfg!(feature = "otlp").then_some("--features=keyway/otlp");
        // Builds all of them at once, as `make test` does: some alone would have other features, and compile again.
        let built = std::process::Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--workspace", "--bins"])
            .args(features)
            .current_dir(crate::project())
            .status()
            .expect("cargo runs");
        assert!(built.success(), "the binaries do not build");
        target().join("debug")
    });
    folder.join(name)
}

/// A program of the tests' own, built like the tests.
fn example(name: &str) -> PathBuf {
    let cargo = option_env!("CARGO").unwrap_or("cargo");
    let built = std::process::Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--workspace", "--example"])
        .arg(name)
        .current_dir(crate::project())
        .status()
        .expect("cargo runs");
    assert!(built.success(), "{name} does not build");
    target().join("debug").join("examples").join(name)
}

/// The target folder of this workspace.
fn target() -> PathBuf {
    // .../target/debug/deps/this-test -> .../target
    let this = std::env::current_exe().expect("this test has a path");
    let target = this.ancestors().nth(3).expect("a target folder");
    target.to_owned()
}

/// How a server is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    program: Program,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Commands that a shell runs before it becomes the program.
    prelude: Option<String>,
    user: Option<(u32, PathBuf)>,
}

impl Default for ServerOptions {
    /// `keyway serve --start` with a root access key from the environment.
    fn default() -> Self {
        Self {
            program: Program::Binary("keyway"),
            arguments: vec!["serve".to_owned(), "--start".to_owned()],
            variables: root_variables(),
            prelude: None,
            user: None,
        }
    }
}

#[derive(Debug, Clone)]
enum Program {
    Binary(&'static str),
    Example(&'static str),
    At(PathBuf),
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
            program: Program::Binary(program),
            arguments: Vec::new(),
            ..Self::default()
        }
    }

    /// A program of the tests' own, whose settings are variables.
    pub fn example(program: &'static str) -> Self {
        Self {
            program: Program::Example(program),
            arguments: Vec::new(),
            ..Self::default()
        }
    }

    /// The `keyway` at this path, such as that of an unpacked package.
    #[must_use]
    pub fn installed(mut self, program: &Path) -> Self {
        self.program = Program::At(program.to_owned());
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Adds a variable.
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

    /// Under this umask.
    #[must_use]
    pub fn umask(mut self, umask: &'static str) -> Self {
        self.prelude = Some(format!("umask {umask}"));
        self
    }

    /// Limits files to this many blocks of 512 bytes, which stands for a full disk.
    #[must_use]
    pub fn largest_file(mut self, blocks: u32) -> Self {
        self.prelude = Some(format!("trap '' XFSZ; ulimit -f {blocks}"));
        self
    }

    /// Runs as this user, who becomes the folder's owner. For tests that run as root.
    #[must_use]
    pub fn as_user(mut self, user: u32, folder: &Path) -> Self {
        self.user = Some((user, folder.to_owned()));
        self
    }

    /// The program with these options' arguments and variables, and none of the test's own.
    fn command(&self) -> Command {
        let program = match &self.program {
            Program::Binary(name) => binary(name),
            Program::Example(name) => example(name),
            Program::At(path) => path.clone(),
        };
        let mut command = match &self.prelude {
            None => match &self.user {
                None => Command::new(program),
                Some((user, folder)) => command_as(*user, folder, &program),
            },
            Some(prelude) => {
                let script = format!(r#"{prelude}; exec "$0" "$@""#);
                let mut command = Command::new("sh");
                command.args(["-c", &script]).arg(program);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if ["KEYWAY_", "OTEL_"].iter().any(|own| text.starts_with(own)) {
                command.env_remove(&name);
            }
        }
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Listens on a free port and keeps its data in `data_dir`, unless the options say otherwise.
    fn serving(&self, data_dir: &Path) -> Command {
        let sets = |option: &str, variable: &str| {
            self.arguments.iter().any(|argument| argument == option)
                || (self.variables.iter())
                    .any(|(name, value)| name == variable && !value.is_empty())
        };
        let mut command = self.command();
        if !sets("--listen", "KEYWAY_LISTEN") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        // A database takes the folder's place.
        if !sets("--data-dir", "KEYWAY_DATA_DIR")
            && !sets("--table", "KEYWAY_TABLE")
            && !sets("--postgres", "KEYWAY_POSTGRES")
        {
            command.arg("--data-dir").arg(data_dir);
        }
        command
    }

    /// Runs the program with these arguments alone to its end: exit code, stdout, stderr.
    pub async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        let options = Self {
            arguments,
            ..self.clone()
        };
        output(options.command()).await
    }

    /// The events of commands in the table's audit log, which verifies, if there are any. `location` names the deployment.
    pub async fn operator_events(&self, location: &[&str]) -> Vec<Value> {
        let (code, stdout, stderr) = self
            .run(&[&["audit", "verify", "--allow-empty"], location].concat())
            .await;
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        let (code, stdout, stderr) = self.run(&[&["audit", "export"], location].concat()).await;
        assert_eq!(code, Some(0), "{stderr}");
        let events = stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        events
            .filter(|event| event["dialect"] == "operator")
            .collect()
    }

    /// As [`ServerOptions::run`], with this on standard input. Standard output is bytes.
    pub async fn run_with_input(
        &self,
        arguments: &[&str],
        input: &[u8],
    ) -> (Option<i32>, Vec<u8>, String) {
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        let options = Self {
            arguments,
            ..self.clone()
        };
        let mut command = options.command();
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let ended = async {
            // A program that refuses its input does not read all of it.
            stdin.write_all(input).await.ok();
            drop(stdin);
            child.wait_with_output().await
        };
        let output = tokio::time::timeout(TIMEOUT, ended).await;
        let output = output.expect("it ends").expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), output.stdout, stderr)
    }

    /// Starts a process that must not serve; returns its exit code and stderr.
    pub async fn fail(&self, data_dir: &Path) -> (Option<i32>, String) {
        let (code, _, stderr) = output(self.serving(data_dir)).await;
        (code, stderr)
    }

    /// Starts the process and waits until it serves.
    pub async fn start(&self, data_dir: &Path) -> Server {
        Self::started(self.serving(data_dir)).await
    }

    /// As [`ServerOptions::start`], with these options alone.
    pub async fn start_in_place(&self) -> Server {
        Self::started(self.command()).await
    }

    async fn started(mut command: Command) -> Server {
        let mut child = command.spawn().expect("the binary runs");
        let log = Captured::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Captured::of(child.stderr.take().expect("stderr is piped"));
        let started = tokio::time::timeout(TIMEOUT, async {
            while log.address().is_none() && !log.ended() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        started.await.ok();
        let Some(address) = log.address() else {
            child.kill().await.expect("it is killed");
            panic!("the server did not start: {}", stderr.whole().await);
        };
        Server {
            child,
            log,
            stderr,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
            root: Signer::new("test-root", "test-root-secret"),
        }
    }
}

/// A command that runs a copy of the program as this user, who becomes the folder's owner.
fn command_as(user: u32, folder: &Path, program: &Path) -> Command {
    // Other users cannot read below root's target folder.
    let copy = folder.join("program");
    std::fs::copy(program, &copy).expect("the program is there");
    for path in [folder, &copy] {
        std::os::unix::fs::chown(path, Some(user), Some(user)).expect("it runs as root");
    }
    let mut command = Command::new(copy);
    command.uid(user).gid(user);
    command
}

async fn output(mut command: Command) -> (Option<i32>, String, String) {
    let output = tokio::time::timeout(TIMEOUT, command.output())
        .await
        .expect("it ends")
        .expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// How long a process may take to start or to end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The output of a process, read at once so that the process never waits.
struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Captured {
    fn of(mut pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
                sink.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        });
        Self { text, reader }
    }

    fn ended(&self) -> bool {
        self.reader.is_finished()
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    async fn whole(self) -> String {
        self.reader.await.expect("it is read to its end");
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    /// The line with the address of the process, once it is complete.
    fn serving(&self) -> Option<String> {
        let text = self.so_far();
        text.split_inclusive('\n')
            .find(|line| line.contains("serving") && line.ends_with('\n'))
            .map(str::to_owned)
    }

    fn address(&self) -> Option<String> {
        let line = self.serving()?;
        let after = ["\"listen\":\"", "listen="]
            .iter()
            .find_map(|name| Some(line.split_once(name)?.1))
            .expect("the line says where it listens");
        let end = |c: char| c == '"' || c.is_whitespace();
        after.split(end).next().map(str::to_owned)
    }
}

/// A real process that serves.
pub struct Server {
    child: Child,
    log: Captured,
    stderr: Captured,
    /// Where it listens.
    pub address: String,
    client: Client<HttpConnector, Full<Bytes>>,
    root: Signer,
}

impl Target for Server {
    fn host(&self) -> String {
        self.address.clone()
    }

    fn now(&self) -> SystemTime {
        now()
    }

    async fn send(&self, request: http::Request<Bytes>) -> Answer {
        Self::send(self, request).await.expect("the server answers")
    }
}

impl Server {
    /// The log's first line as JSON.
    pub fn first_line(&self) -> Value {
        let log = self.log.so_far();
        serde_json::from_str(log.lines().next().expect("a line")).expect("the log is JSON")
    }

    /// Where it serves KES's API.
    pub fn kes(&self) -> SocketAddr {
        let line = self.log.serving().expect("it serves");
        let line: Value = serde_json::from_str(&line).expect("the log is JSON");
        let address = line["kes"].as_str().expect("it serves KES's API");
        address.parse().expect("an address")
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        self.log.so_far()
    }

    /// Its stderr so far.
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Calls as root; `path` is below the prefix.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(&self.root, method, path, body).await
    }

    /// Calls as this signer; `path` is below the prefix.
    pub async fn call_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        self.try_call(signer, method, path, body)
            .await
            .expect("the server answers")
    }

    /// As [`Server::call_as`], where the connection may fail.
    ///
    /// # Errors
    /// The client's error.
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

    /// A request that root has signed, of this path and query.
    pub fn signed(&self, method: &str, target: &str, body: &str) -> http::Request<Bytes> {
        let body = body.as_bytes();
        self.root
            .request(method, &self.address, target, body, now())
    }

    /// Sends a request as it is.
    ///
    /// # Errors
    /// The client's error.
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

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Kills it without warning.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("it is killed");
    }

    /// Sends it a signal: `TERM`, `INT`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs");
        let sent = std::process::Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }

    /// Sends SIGTERM and waits for the end: exit code, the log, and stderr.
    pub async fn stop(self) -> (Option<i32>, String, String) {
        self.signal("TERM");
        self.ended().await
    }

    /// Waits for the end: exit code, the log, and stderr.
    pub async fn ended(mut self) -> (Option<i32>, String, String) {
        let status = tokio::time::timeout(TIMEOUT, self.child.wait())
            .await
            .expect("it stops in time")
            .expect("it ends");
        (
            status.code(),
            self.log.whole().await,
            self.stderr.whole().await,
        )
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
