//! Every example of KES's two documents against the running binary, by the documents' own tool: `curl` with the files of
//! a key and a certificate.

use std::process::Stdio;
use std::time::Duration;

use keyway_tests::{Answer, Server, ServerOptions, kes_error};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::folder;

/// An example: method, path, body, and the part of the answer that the document shows.
type Example = (
    &'static str,
    &'static str,
    &'static str,
    fn(&Answer) -> bool,
);

const IDENTITY: &str = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";

fn is_empty(answer: &Answer) -> bool {
    answer.status == 200 && answer.body.is_empty()
}

fn has(answer: &Answer, fields: &[&str]) -> bool {
    let body = answer.ok();
    fields.iter().all(|field| body.get(field).is_some())
}

/// Whether Prometheus's text has a line that begins with each of these.
fn tells(answer: &Answer, lines: &[&str]) -> bool {
    let text = String::from_utf8_lossy(&answer.body);
    let has = |begin: &&str| text.lines().any(|line| line.starts_with(begin));
    answer.status == 200 && lines.iter().all(has)
}

fn sealed(answer: &Answer) -> bool {
    has(answer, &["plaintext", "ciphertext"])
}

/// As the 0.7 document's curl sends them: with `Accept: */*`, and deleting with POST.
const FIRST: &[Example] = &[
    ("GET", "/version", "", |answer| has(answer, &["version"])),
    ("GET", "/v1/metrics", "", |answer| {
        tells(
            answer,
            &["kes_http_request_success", "kes_http_response_time_bucket"],
        )
    }),
    ("POST", "/v1/key/create/my-key", "", is_empty),
    ("POST", "/v1/key/create/my-key1", "", is_empty),
    ("POST", "/v1/key/create/my-key2", "", is_empty),
    ("GET", "/v1/key/list/my-key*", "", |answer| {
        answer.body == "{\"name\":\"my-key\"}\n{\"name\":\"my-key1\"}\n{\"name\":\"my-key2\"}\n"
    }),
    (
        "POST",
        "/v1/key/import/my-key3",
        r#"{"bytes":"uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI="}"#,
        is_empty,
    ),
    ("POST", "/v1/key/generate/my-key", "{}", sealed),
    (
        "POST",
        "/v1/key/encrypt/my-key",
        r#"{"plaintext":"SGVsbG8gV29ybGQhCg=="}"#,
        |answer| has(answer, &["ciphertext"]),
    ),
    ("POST", "/v1/key/delete/my-key", "", is_empty),
    (
        "POST",
        "/v1/policy/write/my-policy",
        r#"{"paths":["/v1/key/generate/my-key","/v1/key/decrypt/my-key"]}"#,
        is_empty,
    ),
    ("GET", "/v1/policy/read/my-policy", "", |answer| {
        answer.ok()["allow"] == json!({"/v1/key/generate/my-key": {}, "/v1/key/decrypt/my-key": {}})
    }),
    ("GET", "/v1/policy/list/*", "", |answer| {
        answer.ok() == json!(["my-policy"])
    }),
    (
        "POST",
        "/v1/identity/assign/my-policy/a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f",
        "",
        is_empty,
    ),
    ("GET", "/v1/identity/list/*", "", |answer| {
        answer.ok() == json!({ IDENTITY: "my-policy" })
    }),
    (
        "DELETE",
        "/v1/identity/forget/a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f",
        "",
        is_empty,
    ),
    ("DELETE", "/v1/policy/delete/my-policy", "", is_empty),
];

/// As the 2023 document's curl sends them.
const SECOND: &[Example] = &[
    ("GET", "/version", "", |answer| {
        has(answer, &["version", "commit"])
    }),
    ("HEAD", "/v1/ready", "", is_empty),
    ("GET", "/v1/ready", "", is_empty),
    ("GET", "/v1/api", "", |answer| {
        answer.ok().as_array().unwrap().iter().all(|api| {
            ["method", "path", "max_body", "timeout"]
                .iter()
                .all(|field| api.get(field).is_some())
        })
    }),
    // Every family that the document shows.
    ("GET", "/v1/metrics", "", |answer| {
        tells(
            answer,
            &[
                "# TYPE kes_http_request_active gauge",
                "# TYPE kes_http_request_error counter",
                "# TYPE kes_http_request_failure counter",
                "# TYPE kes_http_request_success counter",
                "# TYPE kes_http_response_time histogram",
                "kes_http_response_time_bucket{le=\"0.01\"}",
                "kes_http_response_time_bucket{le=\"+Inf\"}",
                "kes_http_response_time_sum",
                "kes_http_response_time_count",
                "# TYPE kes_log_audit_events counter",
                "# TYPE kes_log_error_events counter",
                "# TYPE kes_system_up_time gauge",
            ],
        )
    }),
    ("GET", "/v1/status", "", |answer| {
        has(
            answer,
            &[
                "version",
                "os",
                "arch",
                "uptime",
                "num_cpu",
                "num_cpu_used",
                "mem_heap_used",
                "mem_stack_used",
            ],
        )
    }),
    ("PUT", "/v1/key/create/my-key", "", is_empty),
    ("PUT", "/v1/key/create/my-key-2", "", is_empty),
    ("GET", "/v1/key/list/my-key", "", |answer| {
        answer.ok()["names"] == json!(["my-key", "my-key-2"])
    }),
    (
        "PUT",
        "/v1/key/import/imported",
        r#"{"bytes":"uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI="}"#,
        is_empty,
    ),
    ("PUT", "/v1/key/generate/my-key", "{}", sealed),
    (
        "PUT",
        "/v1/key/encrypt/my-key",
        r#"{"plaintext":"SGVsbG8gV29ybGQhCg=="}"#,
        |answer| has(answer, &["ciphertext"]),
    ),
    // The message of the example in base64, as every client sends it; the example itself is not base64.
    (
        "PUT",
        "/v1/key/hmac/my-key",
        r#"{"message":"RGF0YSB0byB1c2UgdG8gZ2VuZXJhdGUgdGhlIEhNQUMgc2VjcmV0"}"#,
        |answer| has(answer, &["hmac"]),
    ),
    (
        "PUT",
        "/v1/key/hmac/my-key",
        r#"{"message":"Data to use to generate the HMAC secret"}"#,
        |answer| kes_error(answer) == (400, "invalid request body".to_owned()),
    ),
    ("DELETE", "/v1/key/delete/my-key", "", is_empty),
    (
        "POST",
        "/v1/policy/write/my-policy",
        r#"{"allow":{"/v1/key/generate/my-key":{},"/v1/key/decrypt/my-key":{}},"deny":{"/v1/key/decrypt/my-key-internal*":{}}}"#,
        is_empty,
    ),
    ("POST", "/v1/policy/write/my-policy-2", "{}", is_empty),
    ("GET", "/v1/policy/describe/my-policy", "", |answer| {
        has(answer, &["name", "created_at", "created_by"])
    }),
    ("GET", "/v1/policy/read/my-policy", "", |answer| {
        let body = answer.ok();
        body["allow"] == json!({"/v1/key/generate/my-key": {}, "/v1/key/decrypt/my-key": {}})
            && body["deny"] == json!({"/v1/key/decrypt/my-key-internal*": {}})
    }),
    ("GET", "/v1/policy/list/my-policy", "", |answer| {
        answer.ok() == json!({"names": ["my-policy", "my-policy-2"], "continue_at": ""})
    }),
];

/// A server, and an admin whose key and certificate are files, as the documents have them.
struct Deployment {
    folder: TempDir,
    server: Server,
    admin: String,
}

impl Deployment {
    async fn new() -> Self {
        let folder = folder();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = (file("root.cert"), file("root.key"));
        let (code, made, stderr) = ServerOptions::default()
            .run(&[
                "identity",
                "new",
                "--kind",
                "ecdsa",
                "--cert",
                &certificate,
                "--key",
                &key,
                "--output",
                "json",
            ])
            .await;
        assert_eq!(code, Some(0), "{stderr}");
        let made: Value = serde_json::from_str(&made).unwrap();
        let admin = made["identity"].as_str().unwrap().to_owned();
        let server = Self::server(&folder, &admin).await;
        Self {
            folder,
            server,
            admin,
        }
    }

    async fn server(folder: &TempDir, admin: &str) -> Server {
        ServerOptions::default()
            .argument("--kes-listen")
            .argument("127.0.0.1:0")
            .argument("--kes-admin-identity")
            .argument(admin)
            .start(&folder.path().join("data"))
            .await
    }

    /// Follows a log as the documents do, for this many seconds.
    fn follow(&self, path: &str, seconds: &str) -> Child {
        Command::new("curl")
            .args([
                "--key",
                "root.key",
                "--cert",
                "root.cert",
                "--request",
                "GET",
            ])
            .args([
                &format!("https://{}{path}", self.server.kes()),
                "-k",
                "--silent",
            ])
            .args(["--no-buffer", "--max-time", seconds])
            .args(["--write-out", "%{http_code} %{content_type}"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    async fn curl(&self, method: &str, path: &str, data: &str) -> Answer {
        self.curl_of(&self.server, method, path, data).await
    }

    /// Calls as the documents do, in the folder of those files.
    async fn curl_of(&self, server: &Server, method: &str, path: &str, data: &str) -> Answer {
        let mut curl = Command::new("curl");
        curl.args(["--key", "root.key", "--cert", "root.cert"]);
        match method {
            "HEAD" => curl.args(["-I", "--request", "GET"]),
            method => curl.args(["--request", method]),
        };
        if !data.is_empty() {
            curl.args(["--data", data]);
        }
        let url = format!("https://{}{path}", server.kes());
        let output = curl
            .args([&url, "-k", "--globoff", "--silent", "--show-error"])
            .args(["--output", "body"])
            .args(["--write-out", "%{http_code} %{content_type}"])
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stdout).unwrap();
        let (status, kind) = told.split_once(' ').unwrap();
        let body = std::fs::read(self.folder.path().join("body")).unwrap_or_default();
        std::fs::remove_file(self.folder.path().join("body")).ok();
        let mut answer = http::Response::builder().status(status);
        if !kind.is_empty() {
            answer = answer.header("content-type", kind);
        }
        // `-I` prints headers, which are no body.
        let body = if method == "HEAD" { Vec::new() } else { body };
        answer.body(body.into()).unwrap().into()
    }
}

#[tokio::test]
async fn examples_of_both_documents_work() {
    for examples in [FIRST, SECOND] {
        let place = Deployment::new().await;
        for (method, path, body, shown) in examples {
            let answer = place.curl(method, path, body).await;
            assert!(
                shown(&answer),
                "{method} {path}: {} {:?}",
                answer.status,
                answer.body
            );
        }
    }
}

#[tokio::test]
async fn generated_key_is_decrypted_as_documented() {
    let place = Deployment::new().await;
    place.curl("PUT", "/v1/key/create/my-key", "").await;
    for method in ["PUT", "POST"] {
        let made: Value = place
            .curl(method, "/v1/key/generate/my-key", "{}")
            .await
            .ok();
        let body = json!({ "ciphertext": made["ciphertext"] }).to_string();
        let opened = place
            .curl(method, "/v1/key/decrypt/my-key", &body)
            .await
            .ok();
        assert_eq!(opened, json!({ "plaintext": made["plaintext"] }));
    }
    // The document's ciphertext is of another key, and of a derivation that no release of KES opens any more.
    let foreign = json!({"ciphertext": "eyJhZWFkIjoiQUVTLTI1Ni1HQ00iLCJpdiI6ImJWbHRZVDdpUEtxUjNFYWpvaHp3cmc9PSIsIm5vbmNlIjoiSWxqaHBNcWViUUF5d1MxbyIsImJ5dGVzIjoiYlpNL1liU0E4ZSswVnFSUDhaR2UvdDJHQThrbzRBeXcwNGZBam1KWkIxKzk2OTg4VXYwcFJmRjEvS3poM1hGeCJ9"});
    let answer = place
        .curl("POST", "/v1/key/decrypt/my-key", &foreign.to_string())
        .await;
    let refused = (
        400,
        "decryption failed: ciphertext is not authentic".to_owned(),
    );
    assert_eq!(kes_error(&answer), refused);
}

#[tokio::test]
async fn identities_of_the_second_document_work() {
    let place = Deployment::new().await;
    let who = "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc";
    for (path, body) in [
        ("/v1/policy/write/my-policy", "{}".to_owned()),
        (
            "/v1/policy/assign/my-policy",
            json!({ "identity": who }).to_string(),
        ),
    ] {
        assert!(is_empty(&place.curl("POST", path, &body).await));
    }
    let path = format!("/v1/identity/describe/{who}");
    let described = place.curl("GET", &path, "").await.ok();
    assert_eq!(described["policy"], "my-policy");
    assert_eq!(described["admin"], false);
    assert_eq!(described["created_by"], place.admin.as_str());
    assert!(described.get("created_at").is_some());
    let own = place
        .curl("GET", "/v1/identity/self/describe", "")
        .await
        .ok();
    assert_eq!(
        (&own["identity"], &own["admin"]),
        (&json!(place.admin), &json!(true))
    );
    assert!(own.get("created_at").is_some());
    let listed = place.curl("GET", "/v1/identity/list/", "").await.ok();
    let mut all = [place.admin.as_str(), who];
    all.sort_unstable();
    assert_eq!(listed, json!({"identities": all, "continue_at": ""}));
}

#[tokio::test]
async fn logs_stream_as_both_documents_show() {
    let place = Deployment::new().await;
    for (audit, error) in [
        ("/v1/log/audit/trace", "/v1/log/error/trace"),
        ("/v1/log/audit", "/v1/log/error/"),
    ] {
        let followed = [audit, error].map(|path| place.follow(path, "4"));
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        place.curl("GET", "/v1/policy/list/*", "").await;
        place.curl("GET", "/v1/key/describe/absent", "").await;
        let [audit, error] = followed;
        let audit = audit.wait_with_output().await.unwrap();
        let audit = String::from_utf8(audit.stdout).unwrap();
        let (lines, told) = audit.rsplit_once('\n').unwrap();
        assert_eq!(told, "200 application/x-ndjson");
        let mut lines = lines.lines();
        assert_eq!(lines.next(), Some(""), "proxies pass the head on with it");
        let events: Vec<Value> = lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        for (path, code) in [("/v1/policy/list/*", 200), ("/v1/key/describe/absent", 404)] {
            let event = events
                .iter()
                .find(|event| event["request"]["path"] == path)
                .unwrap_or_else(|| panic!("{path}: {events:?}"));
            assert_eq!(event["request"]["identity"], place.admin.as_str());
            assert_eq!(event["response"]["code"], code);
            // Nanoseconds: every answer takes more than a microsecond.
            assert!(
                event["response"]["time"].as_u64().unwrap() >= 1_000,
                "{event}"
            );
            assert!(event["time"].as_str().unwrap().ends_with('Z'));
        }
        let error = error.wait_with_output().await.unwrap();
        let error = String::from_utf8(error.stdout).unwrap();
        assert!(error.ends_with("200 application/x-ndjson"), "{error}");
    }
}

#[tokio::test]
async fn audit_streams_of_two_processes_are_one() {
    let place = Deployment::new().await;
    let other = Deployment::server(&place.folder, &place.admin).await;
    let followed = place.follow("/v1/log/audit", "4");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    place
        .curl_of(&other, "PUT", "/v1/key/create/there", "")
        .await;
    place
        .curl_of(&other, "PUT", "/v1/key/generate/there", "{}")
        .await;
    place.curl("GET", "/v1/key/describe/there", "").await;
    let output = followed.wait_with_output().await.unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    for path in [
        "/v1/key/create/there",
        "/v1/key/generate/there",
        "/v1/key/describe/there",
    ] {
        let told = output.matches(&format!("\"path\":\"{path}\"")).count();
        assert_eq!(told, 1, "{path}: {output}");
    }
}

/// Makes every request about the key fail; the process that answers logs the cause.
fn break_key(place: &Deployment, key: &str, value: &str) {
    let table = rusqlite::Connection::open(place.folder.path().join("data/keyway.db")).unwrap();
    let broken = table.execute(
        "UPDATE records SET value = ?1 WHERE kind = 'key' AND id = ?2",
        [value.as_bytes(), key.as_bytes()],
    );
    assert_eq!(broken.unwrap(), 1);
}

#[tokio::test]
async fn error_streams_of_two_processes_are_one() {
    let place = Deployment::new().await;
    for (key, value) in [("here", "{"), ("there", "nonsense")] {
        place
            .curl("PUT", &format!("/v1/key/create/{key}"), "")
            .await;
        break_key(&place, key, value);
    }
    // This process has none of the keys in its cache.
    let other = Deployment::server(&place.folder, &place.admin).await;
    let mut followed = place.follow("/v1/log/error", "60");
    let mut lines = BufReader::new(followed.stdout.take().unwrap()).lines();
    let mut next = async |timeout| {
        let line = loop {
            let line = tokio::time::timeout(timeout, lines.next_line()).await;
            let line = line.ok()?.unwrap().unwrap();
            // An empty one keeps the connection open.
            if !line.is_empty() {
                break line;
            }
        };
        let line: Value = serde_json::from_str(&line).unwrap();
        Some(line["message"].as_str().unwrap().to_owned())
    };
    let fail = async |server: &Server, key: &str| {
        let path = format!("/v1/key/describe/{key}");
        let answer = place.curl_of(server, "GET", &path, "").await;
        assert_eq!(answer.status, 502, "{answer:?}");
    };
    let (of_here, of_there) = ("key/here of the table", "key/there of the table");
    // Nothing shows when the stream begins, so errors are made until one arrives. The janitors' errors arrive too: they read
    // all keys at the start.
    let mut is_found = false;
    for _ in 0..20 {
        fail(&other, "there").await;
        let heard = next(Duration::from_secs(5)).await;
        is_found = heard.is_some_and(|line| line.contains(of_there));
        if is_found {
            break;
        }
    }
    assert!(is_found, "another process's error");
    while next(Duration::from_millis(1500)).await.is_some() {}
    // From now on, each error is one line, whichever process has it.
    fail(&place.server, "here").await;
    fail(&other, "there").await;
    let mut both = Vec::new();
    while let Some(line) = next(Duration::from_millis(3000)).await {
        both.push(line);
    }
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(
        both[0].contains(of_here) && both[1].contains(of_there),
        "{both:?}"
    );
}
