//! Real processes under a Runtime API on loopback. The process is this test binary: it runs one of the ignored tests
//! below, which are the functions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must stop"
)]

#[path = "../../shared/runtimes/lambda/src/echo.rs"]
mod echo;
mod same;

use std::sync::atomic::{AtomicU32, Ordering};

use http::StatusCode;
use keyway_runtime_lambda::{EventSource, Ingress, serve, serve_schedule};
use serde_json::{Value, json};
use tokio::process::Child;

use keyway_tests::RuntimeApi;

/// A function's process and its Runtime API.
struct Function {
    api: RuntimeApi,
    /// Killed when dropped.
    process: Child,
}

impl Function {
    async fn start(name: &str) -> Self {
        let (api, process) = RuntimeApi::with_own_function(name).await;
        Self { api, process }
    }

    fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    async fn stop(mut self) {
        assert!(
            self.process.try_wait().unwrap().is_none(),
            "the process outlives every event"
        );
        self.process.kill().await.unwrap();
    }
}

fn ingress(source: EventSource, streaming: bool) -> Ingress {
    Ingress {
        source,
        stage: None,
        streaming,
    }
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn http_api_function() {
    serve(echo::site(), ingress(EventSource::HttpApi, false))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn streaming_function() {
    serve(echo::site(), ingress(EventSource::FunctionUrl, true))
        .await
        .unwrap();
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn scheduled_function() {
    let count = AtomicU32::new(0);
    let job = || {
        let run = count.fetch_add(1, Ordering::Relaxed);
        async move {
            match run {
                1 => Err("the table is away".into()),
                2 => panic!("panicked on purpose"),
                _ => Ok(json!({ "run": run })),
            }
        }
    };
    serve_schedule(job).await.unwrap();
}

fn event(method: &str, path: &str) -> Value {
    json!({
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "a=%2f",
        "headers": { "host": "keyway.test" },
        "requestContext": { "http": { "method": method, "sourceIp": "192.0.2.1" } },
        "body": "{}",
    })
}

#[tokio::test]
async fn requests_are_answered() {
    let function = Function::start("http_api_function").await;
    let invocation = function.api.invoke(&event("POST", "/echo/facts")).await;
    assert!(!invocation.streamed);
    assert!(!invocation.took.is_zero());
    let response = invocation.http();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    let facts: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(facts["path"], "/echo/facts");
    assert_eq!(facts["query"], "a=%2f");
    let bytes = function.api.invoke(&event("GET", "/echo/bytes")).await;
    assert_eq!(bytes.json()["isBase64Encoded"], true);
    assert_eq!(bytes.http().body().as_ref(), b"\xff\x00\xfe");
    function.stop().await;
}

#[tokio::test]
async fn panic_ends_one_invocation() {
    let function = Function::start("http_api_function").await;
    let process = function.id();
    // Within the site it is an ordinary answer.
    let caught = function.api.invoke(&event("GET", "/echo/panic")).await;
    assert_eq!(caught.http().status(), StatusCode::INTERNAL_SERVER_ERROR);
    for _ in 0..3 {
        let broken = function.api.invoke(&event("GET", "/broken")).await;
        let error = broken.result.unwrap_err();
        assert_eq!(error["errorMessage"], "Lambda panicked: broken on purpose");
        let next = function.api.invoke(&event("POST", "/echo/facts")).await;
        assert_eq!(next.http().status(), StatusCode::OK);
    }
    assert_eq!(function.id(), process);
    function.stop().await;
}

#[tokio::test]
async fn malformed_event_is_answered() {
    let function = Function::start("http_api_function").await;
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let surrogate = event("POST", "/echo/facts")
        .to_string()
        .replace("keyway.test", r"\ud800");
    for event in [
        "null",
        "0",
        "[]",
        "{}",
        r#""text""#,
        r#"{"version":"2.0"}"#,
        &deep,
        &surrogate,
    ] {
        let answer = function.api.invoke_bytes(event.to_owned()).await;
        let answer = answer.http();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body: Value = serde_json::from_slice(answer.body()).unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("HTTP API"), "{message}");
    }
    // Lambda only sends JSON. Other text fails one invocation and does not end the process.
    for event in [&b"{"[..], b"", b"\xff", b"{\"a\":\"\xff\"}"] {
        let failed = function.api.invoke_bytes(event).await;
        failed.result.unwrap_err();
    }
    let next = function.api.invoke(&event("POST", "/echo/facts")).await;
    assert_eq!(next.http().status(), StatusCode::OK);
    function.stop().await;
}

#[tokio::test]
async fn answers_are_streamed() {
    let function = Function::start("streaming_function").await;
    let answer = function.api.invoke(&event("POST", "/echo/facts")).await;
    assert!(answer.streamed);
    let answer = answer.http();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/json");
    let facts: Value = serde_json::from_slice(answer.body()).unwrap();
    assert_eq!(facts["body"], "{}");
    let bytes = function.api.invoke(&event("GET", "/echo/bytes")).await;
    assert_eq!(bytes.http().body().as_ref(), b"\xff\x00\xfe");
    let cookies = function.api.invoke(&event("GET", "/echo/cookies")).await;
    let cookies = cookies.http();
    assert_eq!(cookies.status(), StatusCode::ACCEPTED);
    assert_eq!(cookies.headers()["allow"], "GET, PUT");
    let set: Vec<_> = cookies.headers().get_all("set-cookie").iter().collect();
    assert_eq!(set, ["a=1", "b=2"]);
    let refused = function
        .api
        .invoke(&json!({ "source": "aws.events" }))
        .await;
    assert!(refused.streamed);
    let refused = refused.http();
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert!(String::from_utf8_lossy(refused.body()).contains("function URL"));
    function
        .api
        .invoke(&event("GET", "/broken"))
        .await
        .result
        .unwrap_err();
    let next = function.api.invoke(&event("POST", "/echo/facts")).await;
    assert_eq!(next.http().status(), StatusCode::OK);
    function.stop().await;
}

#[tokio::test]
async fn schedule_runs_its_job() {
    let function = Function::start("scheduled_function").await;
    let scheduled =
        json!({ "source": "aws.events", "detail-type": "Scheduled Event", "detail": {} });
    let first = function.api.invoke(&scheduled).await;
    assert_eq!(first.json(), json!({ "run": 0 }));
    let failed = function.api.invoke(&scheduled).await.result.unwrap_err();
    assert_eq!(failed["errorMessage"], "the table is away");
    let panicked = function.api.invoke(&Value::Null).await.result.unwrap_err();
    assert_eq!(
        panicked["errorMessage"],
        "Lambda panicked: panicked on purpose"
    );
    let last = function.api.invoke(&json!("anything")).await;
    assert_eq!(last.json(), json!({ "run": 3 }));
    function.stop().await;
}
