//! The events of `events/`, as their gateways send them, reach a real process, and the route that they name answers. The
//! process is this test binary: it runs one of the ignored tests below, which are the functions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod kes;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Response, StatusCode};
use keyway_dialect_minio as minio;
use keyway_dialect_rustfs::PREFIXES;
use keyway_domain::ports::Clock;
use keyway_runtime_lambda::{EventSource, Ingress, serve};
use keyway_sites::inventory;
use keyway_tests::{MemorySite, RuntimeApi, Signer, function_of_group, project};
use serde_json::Value;
use tokio::process::Child;

/// The events of an API in the order of a key's life, so that each finds the key in the state that it needs.
fn life(folder_name: &str) -> Vec<String> {
    let order = std::fs::read(folder().join("order.json")).unwrap();
    let mut order: BTreeMap<String, Vec<String>> = serde_json::from_slice(&order).unwrap();
    order.remove(folder_name).unwrap()
}

/// Requests of S3 that are not served: each is refused in S3's shape, before authentication.
const NOT_SERVED: [&str; 6] = [
    "s3-put-object",
    "s3-get-object",
    "s3-head-object",
    "s3-create-multipart-upload",
    "s3-delete-object",
    "s3-delete-objects",
];

/// Whether it is of a page, which is unsigned: a probe or the description of the API.
fn is_page(name: &str) -> bool {
    name.starts_with("health") || name.starts_with("openapi")
}

/// The folders with the events of an ingress.
const FOLDERS: [&str; 4] = ["http-api", "rest-api", "alb", "function-url"];

fn folder() -> PathBuf {
    project().join("events")
}

/// The events of a folder by their files' names.
fn events(folder_name: &str) -> BTreeMap<String, Value> {
    let mut events = BTreeMap::new();
    for file in folder().join(folder_name).read_dir().unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let event = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        events.insert(name, event);
    }
    assert!(!events.is_empty(), "{folder_name}");
    events
}

async fn function(source: EventSource) {
    let site = MemorySite::running().await;
    let ingress = Ingress {
        source,
        stage: None,
        streaming: source == EventSource::FunctionUrl,
    };
    serve(site.site(), ingress).await.unwrap();
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn http_api() {
    function(EventSource::HttpApi).await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn rest_api() {
    function(EventSource::RestApi).await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn alb() {
    function(EventSource::Alb).await;
}

#[tokio::test]
#[ignore = "a function, which other tests start"]
async fn function_url() {
    function(EventSource::FunctionUrl).await;
}

/// A function's process and its Runtime API.
struct Function {
    api: RuntimeApi,
    _killed_when_dropped: Child,
}

impl Function {
    /// The function that answers the events of this folder.
    async fn of(folder: &str) -> Self {
        let (api, process) = RuntimeApi::with_own_function(&folder.replace('-', "_")).await;
        Self {
            api,
            _killed_when_dropped: process,
        }
    }

    async fn answer(&self, event: &Event) -> Response<Bytes> {
        self.api.invoke(&event.0).await.http()
    }
}

/// An event of any ingress.
#[derive(Clone)]
struct Event(Value);

impl Event {
    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {}", self.0))
    }

    /// The client's method, and its path with the query.
    fn request_line(&self) -> (&str, String) {
        if self.0["requestContext"]["http"].is_object() {
            let query = self.text("/rawQueryString");
            let mark = if query.is_empty() { "" } else { "?" };
            let target = format!("{}{mark}{query}", self.text("/rawPath"));
            return (self.text("/requestContext/http/method"), target);
        }
        // Clients know the path with the stage, which only a REST API's context has.
        let path = self.0["requestContext"]["path"]
            .as_str()
            .unwrap_or_else(|| self.text("/path"));
        let mut target = path.to_owned();
        for (name, value) in self.0["queryStringParameters"]
            .as_object()
            .into_iter()
            .flatten()
        {
            let value = value.as_str().unwrap();
            let plain = |text: &str| {
                text.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
            };
            assert!(
                plain(name) && plain(value),
                "{name}={value} would have to be encoded here"
            );
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{name}={value}"));
        }
        (self.text("/httpMethod"), target)
    }

    fn header(&self, name: &str) -> Option<&str> {
        let headers = self.0["headers"].as_object().unwrap();
        let found = headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str().unwrap())
    }

    /// Replaces a header in each place of the event.
    fn set_header(&mut self, name: &str, text: &str) {
        let mut count = 0;
        for (field, value) in [
            ("headers", Value::from(text)),
            ("multiValueHeaders", Value::from(vec![text])),
        ] {
            for (header, old) in self.0[field].as_object_mut().into_iter().flatten() {
                if header.eq_ignore_ascii_case(name) {
                    *old = value.clone();
                    count += 1;
                }
            }
        }
        assert!(count > 0, "{name}");
    }

    /// The event with this sealed data key in place of its own.
    fn with_blob(mut self, blob: &str) -> Self {
        let mut body: Value = serde_json::from_str(self.text("/body")).unwrap();
        assert!(body["ciphertext_blob"].is_string());
        body["ciphertext_blob"] = blob.into();
        let body = body.to_string();
        if self.header("content-length").is_some() {
            self.set_header("content-length", &body.len().to_string());
        }
        self.0["body"] = body.into();
        self
    }

    /// The signer, for the service that the client calls.
    fn signer(&self, signer: &Signer) -> Signer {
        let is_of_sts = self.request_line() == ("POST", "/".to_owned());
        let service = if is_of_sts { "sts" } else { "execute-api" };
        signer.clone().for_service(service)
    }

    /// The headers that a signer gives to this request.
    fn signed(&self, signer: &Signer, time: SystemTime) -> http::HeaderMap {
        let host = self.header("host").expect("a host");
        self.signed_for(host, signer, time)
    }

    /// As [`Event::signed`], by a client that writes the host like this.
    fn signed_for(&self, host: &str, signer: &Signer, time: SystemTime) -> http::HeaderMap {
        assert_eq!(self.0["isBase64Encoded"], false);
        let (method, target) = self.request_line();
        let body = self.0["body"].as_str().unwrap_or_default();
        let signer = match self.header("x-amz-target") {
            Some(target) => signer.clone().for_service("kms").with_target(target),
            None => signer.clone(),
        };
        let request = signer.request(method, host, &target, body.as_bytes(), time);
        request.headers().clone()
    }

    /// The event, signed by a site's root key at the site's time. An unsigned event stays as it is.
    fn signed_again(mut self, site: &MemorySite) -> Self {
        if self.header("authorization").is_none() {
            return self;
        }
        let headers = self.signed(&self.signer(site.root()), site.clock.now().into());
        for name in ["authorization", "x-amz-date"] {
            self.set_header(name, headers[name].to_str().unwrap());
        }
        self
    }
}

/// The answer is S3's refusal of what is not served.
fn assert_not_served(answer: &Response<Bytes>, what: &str) {
    let body = String::from_utf8_lossy(answer.body());
    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED, "{what}");
    if what.contains("-head-") {
        assert_eq!(body, "", "{what}");
        return;
    }
    assert!(
        body.contains("<Code>NotImplemented</Code>"),
        "{what}: {body}"
    );
    assert_eq!(answer.headers()["content-type"], "application/xml");
}

fn assert_page(answer: &Response<Bytes>, what: &str) {
    assert_eq!(answer.status(), StatusCode::OK, "{what}");
    let body = String::from_utf8_lossy(answer.body());
    let expected = match what.ends_with("-by-head") {
        true => "",
        false if what.ends_with("/openapi") => str::from_utf8(keyway_openapi::DOCUMENT).unwrap(),
        false => r#"{"status":"ok","service":"keyway"}"#,
    };
    assert!(body == expected, "{what}: {body:.200}");
}

fn status_and_message(answer: &Response<Bytes>) -> (StatusCode, String) {
    let body: Value = serde_json::from_slice(answer.body()).unwrap();
    (
        answer.status(),
        body["message"].as_str().unwrap_or_default().to_owned(),
    )
}

/// Signs every event of an API and has its function answer them in the order of a key's life.
async fn a_key_lives(folder: &str) {
    let mut events = events(folder);
    let life = life(match folder {
        "http-api" | "rest-api" => "http-api",
        _ => "function-url",
    });
    let names: BTreeSet<&String> = events.keys().collect();
    assert_eq!(
        names,
        life.iter().collect(),
        "each event has its place in the order"
    );
    let site = MemorySite::running().await;
    let function = Function::of(folder).await;
    let mut blob = String::new();
    for name in life.iter().map(String::as_str) {
        let mut event = Event(events.remove(name).unwrap());
        if ["decrypt", "rewrap"].contains(&name) {
            event = event.with_blob(&blob);
        }
        let answer = function.answer(&event.signed_again(&site)).await;
        let what = format!("{folder}/{name}");
        if NOT_SERVED.contains(&name) {
            assert_not_served(&answer, &what);
            continue;
        }
        if is_page(name) {
            assert_page(&answer, &what);
            continue;
        }
        if name.starts_with("s3-") || name.starts_with("sts-") {
            let body = String::from_utf8_lossy(answer.body());
            assert!(answer.status().is_success(), "{folder}/{name}: {body}");
            let shown = match name {
                "s3-list-buckets" => "<Name>photos</Name>",
                "s3-get-bucket-encryption" => "<SSEAlgorithm>AES256</SSEAlgorithm>",
                "s3-get-bucket-location" => "<LocationConstraint",
                "sts-get-caller-identity" => "<Arn>arn:aws:",
                _ => "",
            };
            assert!(body.contains(shown), "{folder}/{name}: {body}");
            continue;
        }
        let body = match answer.body() {
            empty if empty.is_empty() => Value::Null,
            body => serde_json::from_slice(body).unwrap(),
        };
        let expected = match name {
            "clear-cache" => StatusCode::NO_CONTENT,
            _ => StatusCode::OK,
        };
        assert_eq!(answer.status(), expected, "{folder}/{name}: {body}");
        match name {
            "encrypt" => blob = body["ciphertext_blob"].as_str().unwrap().to_owned(),
            "decrypt" => assert_eq!(body["plaintext"], "aGVsbG8sIHdvcmxk"),
            // The event's path parameters and queries match.
            "describe-key" | "describe-key-by-query" => {
                assert_eq!(body["key_metadata"]["key_id"], "reports")
            }
            "aws-generate-data-key" => assert!(body["Plaintext"].is_string(), "{body}"),
            "first-key-status" => assert_eq!(body["keyId"], "first"),
            "mc-metrics" => assert_eq!(body["kes_http_request_error"], 0),
            "mc-apis" => assert_eq!(body.as_array().map(Vec::len), Some(7)),
            "mc-list-keys" => assert_eq!(body[0]["name"], "mc"),
            "mc-key-status" => assert_eq!(body, serde_json::json!({"key-id": "mc"})),
            _ => {}
        }
    }
}

#[tokio::test]
async fn http_api_serves_the_life_of_a_key() {
    a_key_lives("http-api").await;
}

#[tokio::test]
async fn rest_api_with_a_stage_serves_the_life_of_a_key() {
    a_key_lives("rest-api").await;
}

#[tokio::test]
async fn load_balancer_serves_the_life_of_a_key() {
    a_key_lives("alb").await;
}

#[tokio::test]
async fn function_url_serves_the_life_of_a_key() {
    a_key_lives("function-url").await;
}

/// Clients sign the host with or without the default port, whichever of the two the ingress passes on.
#[tokio::test]
async fn signature_with_or_without_the_default_port_verifies_at_every_ingress() {
    let site = MemorySite::running().await;
    for folder in FOLDERS {
        let function = Function::of(folder).await;
        let event = Event(events(folder).remove("list-keys").unwrap());
        let host = event.header("host").unwrap().to_owned();
        let spelled = |port: &str| format!("{host}{port}");
        for (signed, sent, admitted) in [
            ("", ":443", true),
            (":443", "", true),
            (":443", ":443", true),
            ("", ":80", false),
            (":80", "", false),
            (":8443", "", false),
        ] {
            let mut event = event.clone();
            let time = site.clock.now().into();
            let headers = event.signed_for(&spelled(signed), site.root(), time);
            event.set_header("host", &spelled(sent));
            for name in ["authorization", "x-amz-date"] {
                event.set_header(name, headers[name].to_str().unwrap());
            }
            let status = function.answer(&event).await.status();
            let expected = match admitted {
                true => StatusCode::OK,
                false => StatusCode::UNAUTHORIZED,
            };
            assert_eq!(
                status, expected,
                "{folder}: {signed:?} signed, {sent:?} sent"
            );
        }
    }
}

#[tokio::test]
async fn event_of_another_ingress_is_refused() {
    let site = MemorySite::running().await;
    for pinned in FOLDERS {
        let function = Function::of(pinned).await;
        let others = FOLDERS.iter().chain(&["schedule"]).filter(|other| {
            // Function URLs speak as HTTP APIs do.
            let alike = ["http-api", "function-url"];
            !(pinned == **other || alike.contains(&pinned) && alike.contains(other))
        });
        for other in others {
            for (name, event) in events(other) {
                let event = Event(event);
                // A schedule's event has no signature.
                let event = if *other == "schedule" {
                    event
                } else {
                    event.signed_again(&site)
                };
                let (status, message) = status_and_message(&function.answer(&event).await);
                assert_eq!(
                    status,
                    StatusCode::BAD_REQUEST,
                    "{other}/{name} to {pinned}: {message}"
                );
                assert!(
                    message.ends_with("and this is none"),
                    "{other}/{name} to {pinned}: {message}"
                );
            }
        }
    }
}

#[tokio::test]
async fn unsigned_event_other_than_of_a_page_is_refused() {
    for folder in FOLDERS {
        let function = Function::of(folder).await;
        for (name, event) in events(folder) {
            let event = Event(event);
            let of_minio = event.request_line().1.contains(minio::PREFIXES[0]);
            let expected = if of_minio || name.starts_with("s3-") || name.starts_with("sts-") {
                StatusCode::FORBIDDEN
            } else if name.starts_with("aws-") {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::UNAUTHORIZED
            };
            let answer = function.answer(&event).await;
            let what = format!("{folder}/{name}");
            if NOT_SERVED.contains(&name.as_str()) {
                assert_not_served(&answer, &what);
            } else if is_page(&name) {
                assert_page(&answer, &what);
            } else {
                assert_eq!(answer.status(), expected, "{what}");
            }
        }
    }
}

/// The script that makes the events has its own signer.
#[test]
fn signatures_equal_those_of_the_aws_signer() {
    let signer = Signer::new(
        "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    );
    // 2026-11-20T12:00:00Z
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_176_000);
    for folder in FOLDERS {
        for (name, event) in events(folder) {
            let event = Event(event);
            if is_page(&name) {
                assert_eq!(event.header("authorization"), None, "{folder}/{name}");
                continue;
            }
            let headers = event.signed(&event.signer(&signer), time);
            for header in ["authorization", "x-amz-date"] {
                assert_eq!(
                    event.header(header),
                    headers[header].to_str().ok(),
                    "{folder}/{name}"
                );
            }
        }
    }
}

/// The names of the keys that the events of a folder make.
fn made_keys(folder: &str) -> Vec<String> {
    let mut made = Vec::new();
    for (name, event) in events(folder) {
        if !name.contains("create-key") && name != "import-key" {
            continue;
        }
        let event = Event(event);
        let (_, target) = event.request_line();
        let body: Value = event.0["body"]
            .as_str()
            .and_then(|body| serde_json::from_str(body).ok())
            .unwrap_or_default();
        let by_body = body["key_id"].as_str();
        let key = by_body
            .or_else(|| target.rsplit(['=', '/']).next())
            .unwrap();
        made.push(key.to_owned());
    }
    made
}

/// `make lambda` and docs/deploy.md send them all to one deployment.
#[test]
fn keys_that_events_and_walks_make_have_different_names() {
    let script = std::fs::read_to_string(project().join("scripts/lambda")).unwrap();
    let (_, walk) = script.split_once(r#"kms POST keys '{"key_id":""#).unwrap();
    let mut made = vec![walk.split('"').next().unwrap().to_owned()];
    made.extend(made_keys("http-api"));
    made.extend(made_keys("kes-rest-api"));
    let different: BTreeSet<&String> = made.iter().collect();
    assert_eq!(different.len(), made.len(), "{made:?}");
    assert_eq!(made.len(), 7, "{made:?}");
}

#[test]
fn committed_events_are_those_of_the_script() {
    let made = std::process::Command::new("python3")
        .arg(folder().join("make_events.py"))
        .arg("--check")
        .output()
        .expect("python3 runs");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

/// Method and path of an event's route, without the names of parameters.
fn route(event: &Event) -> (String, String) {
    let (method, target) = event.request_line();
    let path = target.split('?').next().unwrap();
    let path = path.strip_prefix("/prod").unwrap_or(path);
    let known = ["photos/2026/q4.txt", "photos", "reports"];
    let names = ["{bucket}/{object}", "{bucket}", "{key_id}"];
    let replaced = known.iter().zip(names);
    let path = replaced.fold(path.to_owned(), |path, (known, name)| {
        match path.strip_suffix(known) {
            Some(before) => format!("{before}{name}"),
            None => path,
        }
    });
    (method.to_owned(), path)
}

#[test]
fn every_route_of_a_front_has_an_event() {
    let mut routes = BTreeMap::<&str, BTreeSet<(String, String)>>::new();
    let aliases = [PREFIXES[1], "/api/"];
    for entry in inventory() {
        let path = entry.whole_path();
        let is_alias = aliases.iter().any(|alias| path.starts_with(alias));
        // A path with a slash at its end is the same to an API.
        let is_repeated = path.ends_with('/') && path != "/";
        if entry.dialect == "kes" || is_alias || is_repeated {
            continue;
        }
        let path = path.replace("{*object}", "{object}");
        let line = (entry.method.to_string(), path);
        if function_of_group(entry.group) != "all" {
            routes.entry("http-api").or_default().insert(line.clone());
        }
        routes.entry("function-url").or_default().insert(line);
    }
    // The template's routes of requests that S3's dialect refuses.
    let of_objects =
        ["GET", "HEAD", "PUT", "POST", "DELETE"].map(|method| (method, "/{bucket}/{object}"));
    for (method, path) in of_objects.into_iter().chain([("POST", "/{bucket}")]) {
        for routes in routes.values_mut() {
            routes.insert((method.to_owned(), path.to_owned()));
        }
    }
    for (folder, expected) in [
        ("http-api", &routes["http-api"]),
        ("rest-api", &routes["http-api"]),
        ("function-url", &routes["function-url"]),
        ("alb", &routes["function-url"]),
    ] {
        let found: BTreeSet<_> = events(folder)
            .into_values()
            .map(|event| route(&Event(event)))
            .collect();
        assert_eq!(&found, expected, "{folder}");
    }
}
