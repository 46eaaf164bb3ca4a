//! The functions under AWS's own Lambda Runtime Interface Emulator and under `cargo lambda watch`.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use keyway_tests::{
    Answer, Aws, FUNCTION_HOST, Target, aws_tool, binary, every_route, function_of, http_api_event,
    life_of_an_aws_key, project,
};
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::now;

const ROOT: (&str, &str) = ("test-root", "test-root-secret");

type Http = Client<HttpConnector, Full<Bytes>>;

/// A port that is free now. The tools cannot take one of the kernel's choice.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A process and its children, which end with this value.
struct Group(Child);

impl Group {
    fn start(command: &mut Command) -> Self {
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0.id() {
            let group = format!("-{id}");
            let killed = std::process::Command::new("kill")
                .args(["-KILL", "--", &group])
                .status();
            assert!(killed.unwrap().success());
        }
    }
}

async fn post(client: &Http, uri: &str, body: Bytes) -> Option<http::Response<Bytes>> {
    let request = Request::post(uri).body(Full::new(body)).unwrap();
    let (parts, body) = client.request(request).await.ok()?.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some(http::Response::from_parts(parts, body))
}

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

/// The Runtime Interface Emulator with one function behind it.
struct Emulated {
    _process: Group,
    client: Http,
    uri: String,
}

impl Emulated {
    async fn start(function: &str, variables: &[(String, String)]) -> Option<Self> {
        let (invoke, runtime) = (free_port(), free_port());
        let mut command = Command::new(aws_tool("aws-lambda-rie")?);
        command
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .env("AWS_LAMBDA_FUNCTION_TIMEOUT", "30")
            .arg("--runtime-interface-emulator-address")
            .arg(format!("127.0.0.1:{invoke}"))
            .arg("--runtime-api-address")
            .arg(format!("127.0.0.1:{runtime}"))
            .arg(binary(function));
        let emulated = Self {
            _process: Group::start(&mut command),
            client: client(),
            uri: format!("http://127.0.0.1:{invoke}/2015-03-31/functions/function/invocations"),
        };
        let deadline = now() + Duration::from_secs(30);
        // The function answers a malformed event too, once it runs.
        while post(&emulated.client, &emulated.uri, "{}".into())
            .await
            .is_none()
        {
            assert!(now() < deadline, "the emulator does not come up");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Some(emulated)
    }

    async fn send(&self, request: &Request<Bytes>) -> Answer {
        let event = http_api_event(request).to_string();
        let answer = post(&self.client, &self.uri, event.into()).await.unwrap();
        let head: Value = serde_json::from_slice(answer.body()).unwrap();
        let mut response = http::Response::builder();
        for (name, value) in head["headers"].as_object().unwrap() {
            response = response.header(name, value.as_str().unwrap());
        }
        let status = head["statusCode"].as_u64().unwrap();
        response
            .status(u16::try_from(status).unwrap())
            .body(Bytes::from(
                head["body"].as_str().unwrap_or_default().to_owned(),
            ))
            .unwrap()
            .into()
    }
}

struct EmulatedGateway {
    keys: Emulated,
    datakey: Emulated,
    service: Emulated,
    buckets: Emulated,
}

#[expect(
    clippy::disallowed_methods,
    reason = "requests to real processes carry the real time"
)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

impl Target for EmulatedGateway {
    fn host(&self) -> String {
        FUNCTION_HOST.to_owned()
    }

    fn now(&self) -> SystemTime {
        wall_clock()
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        let function = match function_of(request.uri().path()) {
            "keyway-fn-datakey" => &self.datakey,
            "keyway-fn-service" => &self.service,
            "keyway-fn-bucket-encryption" => &self.buckets,
            _ => &self.keys,
        };
        function.send(&request).await
    }
}

fn at_once(mut variables: Vec<(String, String)>) -> Vec<(String, String)> {
    variables.push(("KEYWAY_STATE_TTL_SECONDS".to_owned(), "0".to_owned()));
    variables
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_under_the_runtime_interface_emulator_work() {
    let Some(aws) = Aws::here() else { return };
    let variables = at_once(aws.deployment().await.variables());
    let Some(keys) = Emulated::start("keyway-fn-keys", &variables).await else {
        return;
    };
    let Some(datakey) = Emulated::start("keyway-fn-datakey", &variables).await else {
        return;
    };
    let Some(service) = Emulated::start("keyway-fn-service", &variables).await else {
        return;
    };
    let Some(buckets) = Emulated::start("keyway-fn-bucket-encryption", &variables).await else {
        return;
    };
    let gateway = EmulatedGateway {
        keys,
        datakey,
        service,
        buckets,
    };
    every_route(&gateway, ROOT, "emulated").await;
}

/// `cargo lambda watch`, which builds the functions and serves each below a path of its own, and besides by the map of
/// paths that `make lambda` has.
struct Watched {
    _process: Group,
    client: Http,
    address: String,
}

impl Watched {
    async fn send_below(&self, prefix: &str, request: Request<Bytes>) -> Answer {
        let (mut parts, body) = request.into_parts();
        parts.uri = format!("http://{}{prefix}{}", self.address, parts.uri)
            .parse()
            .unwrap();
        let request = Request::from_parts(parts, Full::new(body));
        let (parts, body) = self.client.request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        http::Response::from_parts(parts, body).into()
    }
}

impl Target for Watched {
    fn host(&self) -> String {
        self.address.clone()
    }

    fn now(&self) -> SystemTime {
        wall_clock()
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        let function = function_of(request.uri().path());
        let prefix = format!("/lambda-url/{function}");
        self.send_below(&prefix, request).await
    }
}

/// The functions by the map of paths.
struct Routed<'w>(&'w Watched);

impl Target for Routed<'_> {
    fn host(&self) -> String {
        self.0.host()
    }

    fn now(&self) -> SystemTime {
        self.0.now()
    }

    async fn send(&self, request: Request<Bytes>) -> Answer {
        self.0.send_below("", request).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_under_cargo_lambda_watch_work() {
    let Some(aws) = Aws::here() else { return };
    let Some(cargo_lambda) = aws_tool("cargo-lambda") else {
        return;
    };
    let port = free_port();
    let mut command = Command::new(cargo_lambda);
    command
        .args([
            "lambda",
            "watch",
            "--ignore-changes",
            "--quiet",
            "--timeout",
            "600",
            "--global",
            "scripts/lambda.toml",
        ])
        .args([
            "--invoke-address",
            "127.0.0.1",
            "--invoke-port",
            &port.to_string(),
        ])
        .current_dir(project())
        .envs(at_once(aws.deployment().await.variables()));
    let watched = Watched {
        _process: Group::start(&mut command),
        client: client(),
        address: format!("127.0.0.1:{port}"),
    };
    // The first request to each function waits for its build.
    let deadline = now() + Duration::from_secs(900);
    for function in [
        "keyway-fn-keys",
        "keyway-fn-datakey",
        "keyway-fn-service",
        "keyway-fn-bucket-encryption",
    ] {
        let uri = format!("http://{}/lambda-url/{function}/", watched.address);
        loop {
            let answer = post(&watched.client, &uri, Bytes::new()).await;
            // The root takes no POST; S3 answers 501.
            if answer.is_some_and(|answer| [404, 405, 501].contains(&answer.status().as_u16())) {
                break;
            }
            assert!(now() < deadline, "{function} does not come up");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    every_route(&watched, ROOT, "watched").await;
    life_of_an_aws_key(&Routed(&watched), ROOT).await;
}
