//! Tables, secrets and backends that cannot be used: a start ends with one line that names the place and the cause, a
//! running process answers 503 and logs one line for each request.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, io};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use keyway_tests::{Answer, Server, ServerOptions};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{create, data_dir, eventually, folder, on};

/// A server that gives this answer to every request; returns its address.
async fn answering(
    answer: impl Fn(&str, &[u8]) -> Option<(u16, &'static str, String)> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = Arc::clone(&answer);
                async move {
                    let path = request.uri().path().to_owned();
                    let body = request
                        .into_body()
                        .collect()
                        .await
                        .map_err(io::Error::other)?;
                    let Some((status, kind, body)) = answer(&path, &body.to_bytes()) else {
                        return std::future::pending().await;
                    };
                    let response = Response::builder()
                        .status(status)
                        .header("content-type", kind)
                        .body(Full::new(Bytes::from(body)));
                    Ok::<_, io::Error>(response.unwrap())
                }
            });
            tokio::spawn(async move {
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    address
}

/// An address without a listener.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

const PAGE: &str = "<html><body>502 Bad Gateway CANARY</body></html>";
const CANARY: &str = "CANARY";

/// Text that must not be in a line for people: errors of library layers, Rust's Debug, HTML.
fn assert_readable(text: &str) {
    for word in [
        "dispatch failure",
        "error sending request",
        "client error",
        "tcp connect error",
        "Some(",
        "Error {",
        "Kind(",
        "<html",
        CANARY,
        "log says why",
    ] {
        assert!(!text.contains(word), "{word:?} in {text}");
    }
}

const JSON: &str = "application/x-amz-json-1.0";

/// A refusal of one of AWS's services.
fn refusal(code: &str, message: &str) -> (u16, &'static str, String) {
    let body = json!({"__type": format!("x#{code}"), "message": message});
    (400, JSON, body.to_string())
}

/// A table and a secret store at these endpoints.
fn on_aws(root: ServerOptions, table: &str, secrets: &str) -> ServerOptions {
    let mut options = root;
    for (name, value) in [
        ("KEYWAY_TABLE", "keys"),
        ("KEYWAY_ROOT_KEYRING_SECRET", "keyring"),
        ("AWS_ENDPOINT_URL_DYNAMODB", table),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", secrets),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ] {
        options = options.variable(name, value);
    }
    options
}

/// The commands that open a table, but for `serve`.
const COMMANDS: [&[&str]; 9] = [
    &["access-key", "create", "--policy", "kms-auditor"],
    &["access-key", "list"],
    &["access-key", "revoke", "AKIA"],
    &["table", "verify"],
    &["table", "sign"],
    &["audit", "verify"],
    &["audit", "export"],
    &["rewrap-keys"],
    &["restore-keys"],
];

/// Runs the command; it fails with one line that has each of these parts once.
async fn assert_ends(options: &ServerOptions, arguments: &[&str], parts: &[&str]) {
    let (code, stdout, stderr) = options.run(arguments).await;
    let what = format!("{arguments:?}: {stderr}");
    assert_eq!(code, Some(1), "{what}");
    assert_eq!(stderr.lines().count(), 1, "{what}");
    assert_readable(&stderr);
    for part in parts {
        assert_eq!(stderr.matches(part).count(), 1, "{part:?} in {what}");
        assert!(!stdout.contains(part), "told twice: {stdout}");
    }
}

#[tokio::test]
async fn commands_without_table_or_secrets_fail_with_one_line_of_place_and_cause() {
    let refused = refusing().await;
    let page = answering(|_, _| Some((502, "text/html", PAGE.to_owned()))).await;
    let denied = answering(|_, _| Some(refusal("AccessDeniedException", "not authorized"))).await;
    let empty = answering(|_, _| Some(refusal("ResourceNotFoundException", "no secret"))).await;
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    let started = [&serve[..], &["--start"]].concat();
    for (endpoint, cause) in [
        (&refused, "no connection: Connection refused"),
        (
            &page,
            "the answer, of status 502, is not one of this service",
        ),
        (&denied, "status 400, AccessDeniedException: not authorized"),
    ] {
        let parts = |place| [place, endpoint.as_str(), "(region eu-west-1)", cause];
        let given = ServerOptions::default();
        let generated = given.clone().without_root();
        let secrets = parts("Secrets Manager at ");
        let table = parts("DynamoDB's table `keys` at ");
        let away = on_aws(given.clone(), endpoint, &empty);
        for root in [given, generated] {
            let without_secrets = on_aws(root.clone(), &empty, endpoint);
            assert_ends(&without_secrets, &serve, &secrets).await;
            let without_table = on_aws(root, endpoint, &empty);
            assert_ends(&without_table, &serve, &table).await;
        }
        assert_ends(&away, &started, &table).await;
        for command in COMMANDS {
            assert_ends(&away, command, &table).await;
        }
        if endpoint == &denied {
            // A table's refusal is reported for each key.
            continue;
        }
        let key = "k:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let importing = away.variable("MINIO_KMS_SECRET_KEY", key);
        assert_ends(&importing, &["import", "minio-static"], &table).await;
    }
}

/// The current behaviour of a Vault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Works,
    Sealed,
    Denies,
    HasNoMount,
    /// A proxy answers in its place: it cannot reach the Vault.
    Proxied,
    /// Another server has the address.
    Foreign,
    Silent,
}

/// A Vault without encryption: enough of its API to configure and check a backend.
struct FakeVault {
    address: String,
    mood: Arc<Mutex<Mood>>,
}

impl FakeVault {
    async fn start() -> Self {
        let mood = Arc::new(Mutex::new(Mood::Works));
        let now = Arc::clone(&mood);
        let answer = move |path: &str, body: &[u8]| {
            const KIND: &str = "application/json";
            let errors =
                |status, text: &str| Some((status, KIND, json!({ "errors": [text] }).to_string()));
            match *now.lock().unwrap() {
                Mood::Works => {}
                Mood::Sealed => return errors(503, "Vault is sealed"),
                Mood::Denies if !path.ends_with("/sys/health") => {
                    return errors(403, "permission denied CANARY");
                }
                Mood::HasNoMount if path.contains("/mounts/") => {
                    return errors(400, "no mount CANARY");
                }
                Mood::Proxied => return Some((502, "text/html", PAGE.to_owned())),
                Mood::Foreign => return Some((404, "text/html", PAGE.to_owned())),
                Mood::Silent => return None,
                Mood::Denies | Mood::HasNoMount => {}
            }
            let asked: Value = serde_json::from_slice(body).unwrap_or_default();
            let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
            let data = match path.trim_start_matches("/v1/") {
                "sys/internal/ui/mounts/transit" => json!({"path": "transit/", "type": "transit"}),
                "sys/internal/ui/mounts/secret" => {
                    json!({"path": "secret/", "type": "kv", "options": {"version": "2"}})
                }
                "sys/capabilities-self" => {
                    let paths = asked["paths"].as_array().unwrap().iter();
                    let root =
                        paths.map(|path| (path.as_str().unwrap().to_owned(), json!(["root"])));
                    root.collect::<serde_json::Map<_, _>>().into()
                }
                "transit/keys/keyway" => json!({
                    "type": "aes256-gcm96", "derived": true, "supports_encryption": true,
                    "supports_decryption": true, "keys": {"1": 1}
                }),
                "transit/encrypt/keyway" => {
                    json!({"ciphertext": format!("vault:v1:{}", text("plaintext"))})
                }
                "transit/decrypt/keyway" => {
                    json!({"plaintext": text("ciphertext").trim_start_matches("vault:v1:")})
                }
                _ => json!({"ttl": 0}),
            };
            Some((200, KIND, json!({ "data": data }).to_string()))
        };
        let address = answering(answer).await;
        Self { address, mood }
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }
}

const TOKEN: &str = "s.the-token-of-this-test";

fn configuration(address: &str) -> String {
    json!({
        "backend_type": "vault", "address": address, "auth_method": {"token": TOKEN},
        "mount_path": "transit", "kv_mount": "secret", "timeout_seconds": 1, "retry_attempts": 0,
    })
    .to_string()
}

/// The log's errors about requests, from this offset on.
fn errors(server: &Server, since: usize) -> Vec<String> {
    let log = server.log();
    let lines = log[since..].lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        (line["level"] == "ERROR").then(|| line["message"].as_str().unwrap().to_owned())
    });
    lines.flatten().collect()
}

/// The answer is the one for an unusable backend, with no details of it.
fn assert_unavailable(answer: &Answer, address: &str) {
    assert_eq!(answer.refusal(), (503, "BackendError".to_owned()));
    assert!(answer.header("retry-after").is_some());
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert_eq!(
        answer.message(),
        "a backend of the KMS cannot be reached or is not fit to be used; try again later"
    );
    assert_readable(&text);
    assert!(!text.contains(TOKEN) && !text.contains(address), "{text}");
}

#[tokio::test]
async fn unusable_vault_is_one_line_in_the_log_and_a_plain_answer() {
    let folder = folder();
    let vault = FakeVault::start().await;
    let server = ServerOptions::not_started().start(&data_dir(&folder)).await;
    let configure = async |address: &str| {
        let body = configuration(address);
        server.call("POST", "/kms/configure", &body).await
    };
    let moods = [
        (Mood::Sealed, "it is sealed"),
        (Mood::Denies, "permission denied: Vault refuses the token"),
        (
            Mood::HasNoMount,
            "nothing is mounted at transit, or the token may not see it",
        ),
        (
            Mood::Proxied,
            "the answer to sys/health, of status 502, is not one of Vault",
        ),
        (
            Mood::Foreign,
            "the answer to sys/health, of status 404, is not one of Vault",
        ),
        (Mood::Silent, "it did not answer in time"),
    ];
    let assert_told = |since: usize, address: &str, cause: &str| {
        let told = errors(&server, since);
        assert_eq!(told.len(), 1, "{cause}: {told:?}");
        for part in [format!("Vault at {address}: ").as_str(), cause] {
            assert_eq!(told[0].matches(part).count(), 1, "{part:?} in {told:?}");
        }
        assert_readable(&told[0]);
    };

    let nobody = refusing().await;
    let since = server.log().len();
    assert_unavailable(&configure(&nobody).await, &nobody);
    let cause = "it could not be reached: Connection refused (os error 111); check the address";
    assert_told(since, &nobody, cause);
    for (mood, cause) in moods {
        vault.set(mood);
        let since = server.log().len();
        assert_unavailable(&configure(&vault.address).await, &vault.address);
        assert_told(since, &vault.address, cause);
    }

    vault.set(Mood::Works);
    configure(&vault.address).await.ok();
    server.call("POST", "/kms/start", "{}").await.ok();
    for (mood, cause) in moods {
        vault.set(mood);
        let since = server.log().len();
        let body = r#"{"force":true}"#;
        let refused = server.call("POST", "/kms/start", body).await;
        assert_unavailable(&refused, &vault.address);
        assert_told(since, &vault.address, cause);

        let since = server.log().len();
        let status = server.call("GET", "/kms/service-status", "").await;
        let text = String::from_utf8_lossy(&status.body).into_owned();
        let status = status.ok();
        assert_eq!(
            (&status["status"], &status["backend_status"]),
            (&json!("Error"), &json!("unhealthy")),
            "{mood:?}"
        );
        assert_eq!(
            status["error"],
            "the backend does not work; the log has the cause"
        );
        assert_readable(&text);
        assert!(!text.contains(TOKEN), "{text}");
        assert_told(since, &vault.address, cause);
    }
    // Readiness is cached for two seconds.
    for ready in [503, 200] {
        let since = server.log().len();
        let body = eventually("the probe tells it", async || {
            let (status, body) = probed(&server).await;
            (status == ready).then_some(body)
        })
        .await;
        assert!(!body.contains(&vault.address), "{body}");
        if ready == 503 {
            assert_told(since, &vault.address, "it did not answer in time");
        }
        vault.set(Mood::Works);
    }
    let (_, log, stderr) = server.stop().await;
    assert!(!log.contains(TOKEN) && !stderr.contains(TOKEN));
}

/// The readiness of the process, as an unauthenticated caller sees it.
async fn probed(server: &Server) -> (u16, String) {
    let request = Request::get("/health/ready").body(Bytes::new());
    let answer = server.send(request.unwrap()).await.unwrap();
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    (answer.status.as_u16(), body)
}

#[tokio::test]
async fn table_locked_by_another_process_is_503_with_one_line_and_recovers() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    create(&server, "k").await;
    let table = data_dir.join("keyway.db");
    let other = Connection::open(&table).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let since = server.log().len();
    let refused = server.call("POST", "/kms/keys", &on("l")).await;
    assert_eq!(refused.status, 503, "{}", refused.message());
    assert!(refused.header("retry-after").is_some());
    // One line is the request's. The audit log and the error log have writes of their own, which may fail by now.
    let log = server.log();
    let told = log[since..]
        .lines()
        .filter(|line| line.contains("\"ERROR\""));
    let told: Vec<_> = told.collect();
    let lines = |what: &str| told.iter().filter(|line| line.contains(what)).count();
    let of_logs = ["the audit log", "the error log"].map(lines);
    let of_request = told.len() - of_logs.iter().sum::<usize>();
    assert!(
        of_request <= 1 && of_logs.iter().all(|lines| *lines <= 1) && !told.is_empty(),
        "{told:?}"
    );
    let place = format!(
        "the table {}: another process keeps it locked",
        table.display()
    );
    for line in told {
        assert_eq!(line.matches(&place).count(), 1, "{line}");
        assert_readable(line);
    }
    // Reads still work.
    server.call("GET", "/kms/keys", "").await.ok();

    // The operator's commands and a start report it too.
    let data_dir = data_dir.to_str().unwrap();
    let options = ServerOptions::default();
    for arguments in [
        &[
            "access-key",
            "create",
            "--policy",
            "kms-auditor",
            "--data-dir",
            data_dir,
        ][..],
        &["serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir],
    ] {
        let file = table.to_str().unwrap();
        assert_ends(
            &options,
            arguments,
            &[file, "another process keeps it locked"],
        )
        .await;
    }
    other.execute_batch("ROLLBACK").unwrap();
    eventually("it works again", async || {
        let answer = server.call("POST", "/kms/keys", &on("l")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    assert_eq!(probed(&server).await.0, 200);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs as a user to whom file modes apply; root may write every file.
#[tokio::test]
async fn table_that_cannot_be_written_ends_the_start_with_a_remedy() {
    const USER: u32 = 65_534;
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("not run: only root may run a process as another user");
        return;
    }
    let folder = folder();
    let options = ServerOptions::default().as_user(USER, folder.path());
    let data_dir = data_dir(&folder);
    options.start(&data_dir).await.stop().await;
    let table = data_dir.join("keyway.db");
    let path = data_dir.to_str().unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path];
    let cause = "it cannot be written; make the file, its folder and its file system writable";
    for (what, mode, back) in [(&table, 0o400, 0o600), (&data_dir, 0o500, 0o700)] {
        set_mode(what, mode);
        assert_ends(&options, &serve, &[table.to_str().unwrap(), cause]).await;
        set_mode(what, back);
    }
    options.start(&data_dir).await.stop().await;
}
