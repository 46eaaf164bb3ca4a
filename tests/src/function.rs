use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use crate::{Answer, Deployment, RuntimeApi, Signer, Target, binary, function_of, http_api_event};

/// The host that requests to functions are signed for.
pub const FUNCTION_HOST: &str = "api-id.execute-api.us-east-1.amazonaws.com";

/// A function's real process under a Runtime API on loopback. Killed when dropped.
pub struct Function {
    /// The Runtime API that feeds it.
    pub api: RuntimeApi,
    process: Child,
    log: Arc<Mutex<Vec<u8>>>,
    root: Signer,
}

impl Function {
    /// Starts the program with the deployment's variables and these, and waits until its INIT is over.
    pub async fn start(program: &str, deployment: &Deployment, more: &[(&str, &str)]) -> Self {
        let api = RuntimeApi::start().await;
        let mut process = Command::new(binary(program))
            .env_clear()
            .envs(deployment.variables())
            .envs(more.iter().copied())
            .envs(api.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the function runs");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stdout = process.stdout.take().expect("stdout is piped");
        let stderr = process.stderr.take().expect("stderr is piped");
        tokio::spawn(gather(stdout, Arc::clone(&log)));
        tokio::spawn(gather(stderr, Arc::clone(&log)));
        tokio::select! {
            _ = api.first_next() => {}
            ended = process.wait() => {
                let said = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
                panic!("{program} ended at its start: {ended:?}: {said}");
            }
        }
        Self {
            api,
            process,
            log,
            root: Signer::new("test-root", "test-root-secret"),
        }
    }

    /// Its output so far, stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock().unwrap()).into_owned()
    }

    /// Calls as root; `path` is below the prefix.
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.call_as(&self.root, method, path, body).await
    }

    /// Calls as this signer; `path` is below the prefix.
    pub async fn call_as(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        let path = format!("/rustfs/admin/v3{path}");
        self.call_at(signer, method, &path, body).await
    }

    /// Calls as this signer; `path` is the whole path.
    pub async fn call_at(&self, signer: &Signer, method: &str, path: &str, body: &str) -> Answer {
        let request = signer.request(method, FUNCTION_HOST, path, body.as_bytes(), now());
        self.send(&http_api_event(&request)).await
    }

    /// Sends it an event and returns its answer.
    pub async fn send(&self, event: &Value) -> Answer {
        self.api.invoke(event).await.http().into()
    }

    /// Whether its process still lives.
    pub fn lives(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }
}

async fn gather(mut from: impl AsyncRead + Unpin, into: Arc<Mutex<Vec<u8>>>) {
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        into.lock().unwrap().extend_from_slice(&chunk[..length]);
    }
}

/// The functions of a deployment behind one gateway, which sends each request to the function that has its route.
pub struct Gateway<'f> {
    /// Has the routes of data keys.
    pub datakey: &'f Function,
    /// Has the routes of the service itself.
    pub service: &'f Function,
    /// Has the routes of buckets.
    pub buckets: &'f Function,
    /// Has all others.
    pub keys: &'f Function,
}

impl Target for Gateway<'_> {
    fn host(&self) -> String {
        FUNCTION_HOST.to_owned()
    }

    fn now(&self) -> SystemTime {
        now()
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        let function = match function_of(request.uri().path()) {
            "keyway-fn-datakey" => self.datakey,
            "keyway-fn-service" => self.service,
            "keyway-fn-bucket-encryption" => self.buckets,
            _ => self.keys,
        };
        function.send(&http_api_event(&request)).await
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to a real process carry the real time"
)]
fn now() -> SystemTime {
    SystemTime::now()
}
