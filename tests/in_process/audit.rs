//! Every request is in the audit log: its caller, dialect and operation, and never a secret.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use keyway_domain::ports::{Kind, Record, Revision, TableWriter as _};
use keyway_http::Cors;
use keyway_tests::{KES_ADMIN, MemorySite, Signer};
use serde_json::{Value, json};

/// The events since the last call, without those about the log itself.
struct Log<'a>(&'a MemorySite, usize);

impl<'a> Log<'a> {
    fn of(site: &'a MemorySite) -> Self {
        Self(site, site.audited().len())
    }

    fn next(&mut self) -> Vec<Value> {
        let mut events = self.0.audited().split_off(self.1);
        self.1 += events.len();
        events.retain(|event| event["dialect"] != "audit");
        events
    }

    /// The one new event.
    fn one(&mut self) -> Value {
        let mut events = self.next();
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }
}

fn path(route: &str) -> String {
    route
        .replace("{key_id}", "k")
        .replace("{bucket}", "photos")
        .replace("{*name}", "k")
}

/// The route of an event, with what the path has before it if the event has no route.
fn route_of(event: &Value) -> String {
    let route = event.get("route").unwrap_or(&event["path"]);
    route.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn request_to_any_route_is_recorded_once() {
    let site = MemorySite::running().await;
    let mut log = Log::of(&site);
    for (method, route) in site.routes() {
        site.call(method, &path(route), "{}").await;
        let event = log.one();
        assert_eq!(event["dialect"], "rustfs", "{route}");
        assert_eq!(event["method"], *method);
        assert!(path(&route_of(&event)).ends_with(&path(route)), "{event}");
        assert_ne!(event["route"].is_null(), route.contains('{'), "{event}");
        assert_eq!(event["principal"], "root");
        assert_eq!(event["address"], "127.0.0.1");
        let operation = event["operation"].as_str().unwrap();
        assert!(
            ["kms:", "s3:", "sts:"]
                .iter()
                .any(|start| operation.starts_with(start)),
            "{event}"
        );
        let tries = route == "/kms/key/status";
        let reads = !tries && (method == "GET" || route.ends_with("/status"));
        assert_eq!(event["class"] == "read", reads, "{method} {route} {event}");
    }
    for (_, method, route) in site.kes_routes() {
        site.kes(method, &path(route), "{}").await;
        let event = log.one();
        assert_eq!(event["dialect"], "kes", "{route}");
        assert_eq!(event["principal"], KES_ADMIN);
        assert!(route_of(&event).ends_with(route), "{event}");
    }
    for (method, route, operation) in [
        ("GET", "/", "s3:ListAllMyBuckets"),
        ("HEAD", "/photos", "s3:ListBucket"),
        ("PUT", "/photos", "s3:CreateBucket"),
        ("PUT", "/photos?encryption", "s3:PutEncryptionConfiguration"),
        ("GET", "/photos?encryption", "s3:GetEncryptionConfiguration"),
        (
            "DELETE",
            "/photos?encryption",
            "s3:PutEncryptionConfiguration",
        ),
        ("GET", "/photos?location", "s3:GetBucketLocation"),
        ("DELETE", "/photos", "s3:DeleteBucket"),
    ] {
        site.s3(method, route, "").await;
        let event = log.one();
        assert_eq!(
            (&event["dialect"], &event["operation"]),
            (&json!("s3"), &json!(operation))
        );
        assert_eq!(
            event["class"] == "mutation",
            matches!(method, "PUT" | "DELETE")
        );
        assert_eq!(event.get("resource").is_some(), route != "/", "{event}");
    }
    site.send(site.root_request("GET", "/minio/kms/v1/status", b""))
        .await;
    assert_eq!(log.one()["dialect"], "minio");
    site.send(site.root_request("GET", "/openapi.json", b""))
        .await;
    assert_eq!(log.one()["operation"], "openapi");
    site.send(site.root_request("GET", "/nowhere/at/all", b""))
        .await;
    let event = log.one();
    assert_eq!(
        (&event["operation"], &event["error"]),
        (&json!("none"), &json!("no_route"))
    );
}

#[tokio::test]
async fn preflight_is_recorded() {
    let site = MemorySite::with_cors(Cors::Any).await;
    let mut request = site.root_request("OPTIONS", "/rustfs/admin/v3/kms/keys", b"");
    let headers = request.headers_mut();
    headers.insert("origin", "https://a.example".parse().unwrap());
    headers.insert("access-control-request-method", "POST".parse().unwrap());
    let mut log = Log::of(&site);
    site.send(request).await;
    assert_eq!(log.one()["operation"], "preflight");
}

#[tokio::test]
async fn event_has_key_version_and_context() {
    let site = MemorySite::running().await;
    let mut log = Log::of(&site);
    site.call("POST", "/kms/keys", r#"{"key_id":"a"}"#)
        .await
        .ok();
    let event = log.one();
    assert_eq!(
        (&event["key_id"], &event["key_version"]),
        (&json!("a"), &json!(1))
    );
    site.call("POST", "/kms/keys", "{}").await.ok();
    assert!(
        log.one()["key_id"].is_string(),
        "of a key that got a random id"
    );
    site.call("POST", "/kms/keys/rotate", r#"{"key_id":"a"}"#)
        .await
        .ok();
    assert_eq!(log.one()["key_version"], 2);
    let body = r#"{"key_id":"a","encryption_context":{"bucket":"b","tenant":"t"}}"#;
    let made = site.call("POST", "/kms/generate-data-key", body).await.ok();
    let event = log.one();
    assert_eq!(event["class"], "data_key");
    assert_eq!(
        (&event["key_id"], &event["key_version"]),
        (&json!("a"), &json!(2))
    );
    assert_eq!(event["context"], json!(["bucket", "tenant"]));
    assert!(event.get("context_values").is_none());
    let blob = made["ciphertext_blob"].as_str().unwrap();
    site.call("POST", "/kms/keys", r#"{"key_id":"b"}"#)
        .await
        .ok();
    log.next();
    let body = json!({
        "ciphertext_blob": blob, "destination_key_id": "b",
        "encryption_context": {"bucket": "b", "tenant": "t"},
    });
    site.call("POST", "/kms/rewrap", &body.to_string())
        .await
        .ok();
    let event = log.one();
    assert_eq!(
        (&event["key_id"], &event["key_version"]),
        (&json!("b"), &json!(1))
    );
    assert_eq!(
        (&event["source_key_id"], &event["source_key_version"]),
        (&json!("a"), &json!(2))
    );
    // A ciphertext names its key even when it does not open.
    let body = json!({ "ciphertext_blob": blob });
    site.call("POST", "/kms/decrypt", &body.to_string()).await;
    let event = log.one();
    assert_eq!(
        (&event["key_id"], &event["error"]),
        (&json!("a"), &json!("decryption_failed"))
    );
    // A listing is about no single key.
    site.call("GET", "/kms/keys", "").await.ok();
    assert!(log.one().get("key_id").is_none());

    for (context, expected) in [
        (r#"{"bucket":"x"}"#, ("context", json!(["bucket"]))),
        ("opaque", ("context_bytes", json!(6))),
    ] {
        let body = json!({ "context": STANDARD.encode(context) });
        site.kes("POST", "/v1/key/generate/a", &body.to_string())
            .await;
        let event = log.one();
        assert_eq!(event["status"], 200);
        assert_eq!(
            (&event["key_id"], &event["key_version"]),
            (&json!("a"), &json!(2))
        );
        assert_eq!(event[expected.0], expected.1);
    }
}

#[tokio::test]
async fn refusal_is_recorded_with_its_caller() {
    let site = MemorySite::running().await;
    let nobody = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"kms:Decrypt"}}"#)
        .await;
    let mut log = Log::of(&site);
    site.call_as(&nobody, "POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await;
    let event = log.one();
    assert_eq!(
        (&event["status"], &event["error"]),
        (&json!(403), &json!("not_permitted"))
    );
    assert!(
        event["principal"].is_string() && event["principal"] != "root",
        "{event}"
    );
    let kept = site.records(Kind::Audit).await.len();
    site.call_as(&nobody, "POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await;
    assert_eq!(
        site.records(Kind::Audit).await.len(),
        kept + 1,
        "it is in the table"
    );
    // KES's paths name the key in refused requests too.
    let body = r#"{"allow":["/v1/key/create/mine*"]}"#;
    assert_eq!(
        site.kes("POST", "/v1/policy/write/p", body).await.status,
        200
    );
    let identity = "ab".repeat(32);
    let assign = "/v1/policy/assign/p";
    let body = json!({ "identity": identity }).to_string();
    assert_eq!(site.kes("POST", assign, &body).await.status, 200);
    log.next();
    let refused = site
        .kes_as(Some(&identity), "POST", "/v1/key/create/theirs", &[], "")
        .await;
    assert_eq!(refused.status, 403);
    let event = log.one();
    assert_eq!(
        (&event["principal"], &event["key_id"]),
        (&json!(identity), &json!("theirs"))
    );
    // Every client can make a certificate: with an unknown one, it is an unauthenticated caller.
    let records = site.records(Kind::Audit).await.len();
    for n in 0..50 {
        let unknown = format!("{n:064x}");
        site.kes_as(Some(&unknown), "POST", "/v1/key/create/k", &[], "")
            .await;
        site.call_unsigned("POST", "/kms/keys", "{}").await;
    }
    let events = log.next();
    assert_eq!(events.len(), 100);
    let writers: BTreeSet<&str> = events
        .iter()
        .map(|e| e["writer"].as_str().unwrap())
        .collect();
    assert_eq!(
        writers.len(),
        2,
        "one is sampled, and the others are counted"
    );
    assert!(site.records(Kind::Audit).await.len() <= records + 1);
}

#[tokio::test]
async fn event_holds_no_secret() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let canaries = [
        "canary-plaintext-1",
        "canary-context-2",
        "canary-token-3",
        "canary-query-4",
    ];
    let body = json!({
        "key_id": "k", "plaintext": STANDARD.encode(canaries[0]), "encryption_context": {"name": canaries[1]},
    });
    let sealed = site
        .call("POST", "/kms/encrypt", &body.to_string())
        .await
        .ok();
    let made = site
        .call("POST", "/kms/generate-data-key", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let stranger = Signer::new("root", "root-secret").with_token(canaries[2]);
    site.call_as(&stranger, "POST", "/kms/encrypt", &body.to_string())
        .await;
    let path = format!("/rustfs/admin/v3/kms/keys?marker={}", canaries[3]);
    site.send(site.root_request("GET", &path, b"")).await;
    let context = json!({ "context": STANDARD.encode(canaries[1]), "plaintext": STANDARD.encode(canaries[0]) });
    site.kes("POST", "/v1/key/encrypt/k", &context.to_string())
        .await;
    let text: String = site.audited().iter().map(Value::to_string).collect();
    assert!(
        text.contains("kms:Encrypt"),
        "there is something to look at"
    );
    let mut secrets: Vec<String> = canaries.map(str::to_owned).to_vec();
    secrets.extend(canaries.map(|canary| STANDARD.encode(canary)));
    secrets.push("root-secret".to_owned());
    for (answer, field) in [
        (&sealed, "ciphertext_blob"),
        (&made, "ciphertext_blob"),
        (&made, "plaintext_key"),
    ] {
        secrets.push(answer[field].as_str().unwrap().to_owned());
    }
    for secret in secrets {
        assert!(!text.contains(&secret), "{secret}");
    }
}

async fn next(stream: &mut BoxStream<'static, Bytes>) -> Value {
    let line = tokio::time::timeout(Duration::from_secs(20), stream.next()).await;
    let line = line.unwrap().unwrap();
    assert!(line.ends_with(b"\n"));
    serde_json::from_slice(&line).unwrap()
}

#[tokio::test]
async fn log_is_streamed_in_the_shape_of_kes() {
    let site = MemorySite::running().await;
    let (status, stream) = site.kes_stream("/v1/log/audit").await;
    assert_eq!(status, 200);
    let mut readers = vec![stream.unwrap()];
    for path in ["/v1/log/audit/trace", "/v1/log/audit"] {
        readers.push(site.kes_stream(path).await.1.unwrap());
    }
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    // KES's stream does not have this event.
    site.kes("GET", "/v1/ready", "").await;
    site.kes("POST", "/v1/key/create/k2", "").await;
    site.kes_as(None, "POST", "/v1/key/create/k3", &[], "")
        .await;
    for reader in &mut readers {
        let event = next(reader).await;
        assert_eq!(event["request"]["path"], "/rustfs/admin/v3/kms/keys");
        assert_eq!(event["request"]["identity"], "root");
        let event = next(reader).await;
        assert!(event["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            event["request"],
            json!({
                "ip": "127.0.0.1", "path": "/v1/key/create/k2", "identity": KES_ADMIN,
            })
        );
        assert_eq!(event["response"], json!({ "code": 200, "time": 0 }));
        let event = next(reader).await;
        assert_eq!(event["response"]["code"], 400);
        assert!(event["request"].get("identity").is_none());
    }
    for (path, text) in [("/v1/log/error", "one"), ("/v1/log/error/trace", "two")] {
        let (status, stream) = site.kes_stream(path).await;
        assert_eq!(status, 200);
        site.log_error(text);
        assert_eq!(next(&mut stream.unwrap()).await, json!({ "message": text }));
    }
}

#[tokio::test]
async fn slow_reader_misses_events_and_delays_no_request() {
    let site = MemorySite::running().await;
    let (_, stream) = site.kes_stream("/v1/log/audit").await;
    let mut slow = stream.unwrap();
    for _ in 0..3000 {
        site.kes("GET", "/version", "").await;
    }
    let mut heard = 0;
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_millis(200), slow.next()).await {
        heard += 1;
    }
    assert!((1..=1024).contains(&heard), "{heard}");
    site.kes("GET", "/version", "").await;
    assert_eq!(
        next(&mut slow).await["request"]["path"],
        "/version",
        "and then goes on"
    );
}

#[tokio::test]
async fn events_of_another_process_are_streamed() {
    let site = MemorySite::running().await;
    let (_, stream) = site.kes_stream("/v1/log/audit").await;
    let mut stream = stream.unwrap();
    // The table has been read by then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let line = json!({
        "audit": 1, "time": "2026-01-02T03:04:05Z", "writer": "elsewhere", "seq": 0, "prev": "", "request_id": "r",
        "dialect": "kes", "operation": "kms:CreateKey", "path": "/v1/key/create/there", "status": 200, "duration_us": 5,
    });
    let record = Record {
        kind: Kind::Audit,
        id: "20260102T030405.000000Z.elsewhere.000000000000".to_owned(),
        revision: Revision([7; 16]),
        value: format!("{line}\n").into_bytes(),
        expires_at: None,
    };
    site.table().put_new(&record).await.unwrap();
    let event = next(&mut stream).await;
    assert_eq!(event["request"]["path"], "/v1/key/create/there");
    assert_eq!(event["response"], json!({ "code": 200, "time": 5000 }));
    // Once.
    let again = tokio::time::timeout(Duration::from_millis(1000), stream.next()).await;
    assert!(again.is_err(), "{again:?}");
}

/// A record of another process, of one event.
fn elsewhere(time: &str, path: &str) -> Record {
    let id = format!(
        "{}.000000Z.{}.000000000000",
        time.replace(['-', ':'], "").trim_end_matches('Z'),
        path.replace('/', "")
    );
    let line = json!({
        "audit": 1, "time": time, "writer": "elsewhere", "seq": 0, "prev": "", "request_id": "r",
        "dialect": "rustfs", "operation": "kms:CreateKey", "path": path, "status": 200, "duration_us": 5,
    });
    Record {
        kind: Kind::Audit,
        id,
        revision: Revision([7; 16]),
        value: format!("{line}\n").into_bytes(),
        expires_at: None,
    }
}

#[tokio::test]
async fn clock_set_back_makes_a_stream_miss_and_repeat_nothing() {
    let site = MemorySite::running().await;
    let table = site.table();
    let past = elsewhere("2026-01-02T02:04:00Z", "/past");
    table.put_new(&past).await.unwrap();
    let (_, stream) = site.kes_stream("/v1/log/audit").await;
    let mut stream = stream.unwrap();
    // The table has been read by then.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut heard = async |record: Record, path: &str| {
        table.put_new(&record).await.unwrap();
        assert_eq!(next(&mut stream).await["request"]["path"], path);
    };
    heard(elsewhere("2026-01-02T03:04:03Z", "/before"), "/before").await;
    site.clock.set("2026-01-02T02:10:00Z".parse().unwrap());
    // The events are in the stream, whichever of the clocks is right.
    heard(elsewhere("2026-01-02T02:10:01Z", "/here"), "/here").await;
    heard(elsewhere("2026-01-02T03:04:06Z", "/there"), "/there").await;
    site.clock.set("2026-01-02T03:04:07Z".parse().unwrap());
    heard(elsewhere("2026-01-02T03:04:07Z", "/after"), "/after").await;
    let again = tokio::time::timeout(Duration::from_millis(1000), stream.next()).await;
    assert!(again.is_err(), "{again:?}");
}

#[tokio::test]
async fn key_destroyed_by_the_janitor_is_recorded() {
    let site = MemorySite::running().await;
    for key in ["due", "kept"] {
        let body = json!({ "key_id": key }).to_string();
        site.call("POST", "/kms/keys", &body).await.ok();
    }
    let body = r#"{"key_id":"due"}"#;
    site.call("DELETE", "/kms/keys/delete", body).await.ok();
    site.clock.advance(Duration::from_secs(31 * 24 * 3600));
    assert_eq!(site.sweep().await.awaiting.len(), 1);
    site.clock.advance(Duration::from_secs(3600));
    let mut log = Log::of(&site);
    assert_eq!(site.sweep().await.destroyed.len(), 1);
    let event = log.one();
    assert_eq!(
        (&event["dialect"], &event["operation"], &event["key_id"]),
        (&json!("janitor"), &json!("kms:DestroyKey"), &json!("due"))
    );
    assert!(event.get("principal").is_none() && event.get("error").is_none());
    // The table has it under the key.
    let asked = site.call("GET", "/kms/audit?key_id=due", "").await.ok();
    let found = asked["events"].as_array().unwrap();
    assert_eq!(found.last(), Some(&event));
    assert_eq!(site.sweep().await.destroyed.len(), 0);
    assert!(
        (log.next().iter()).all(|event| event["dialect"] != "janitor"),
        "once"
    );
}

#[tokio::test]
async fn log_is_paged_by_both_dialects_for_permitted_callers() {
    let site = MemorySite::running().await;
    for n in 0..5 {
        site.call("POST", "/kms/keys", &format!(r#"{{"key_id":"k{n}"}}"#))
            .await
            .ok();
    }
    let (mut found, mut marker) = (Vec::new(), String::new());
    loop {
        let page = site
            .call("GET", &format!("/kms/audit?limit=2&marker={marker}"), "")
            .await
            .ok();
        assert_eq!(page["success"], true);
        found.extend(page["events"].as_array().unwrap().clone());
        match page["next_marker"].as_str() {
            Some(next) => marker = next.replace('/', "%2F"),
            None => break,
        }
    }
    let created = |events: &[Value]| {
        let created = events
            .iter()
            .filter(|event| event["operation"] == "kms:CreateKey");
        created
            .map(|event| event["key_id"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(created(&found), ["k0", "k1", "k2", "k3", "k4"]);
    let one = site
        .call("GET", "/kms/audit?key_id=k3&principal=root", "")
        .await
        .ok();
    assert_eq!(created(one["events"].as_array().unwrap()), ["k3"]);
    let none = site
        .call("GET", "/kms/audit?until=2026-01-01T00:00:00Z", "")
        .await
        .ok();
    assert_eq!(none["events"], json!([]));
    for query in ["since=yesterday", "limit=0", "marker=x", "until=1"] {
        let answer = site.call("GET", &format!("/kms/audit?{query}"), "").await;
        assert_eq!(
            answer.refusal(),
            (400, "InvalidRequest".to_owned()),
            "{query}"
        );
    }
    let kes = site
        .kes("GET", "/v1/log/audit?since=2026-01-02T00:00:00Z", "")
        .await;
    assert_eq!(kes.status, 200);
    let lines = String::from_utf8(kes.body.to_vec()).unwrap();
    let made = lines.lines().filter(|line| line.contains("/kms/keys"));
    assert_eq!(made.count(), 5);
    assert_eq!(
        site.kes("GET", "/v1/log/audit?since=x", "").await.status,
        400
    );

    let identity = "ab".repeat(32);
    let refused = site
        .kes_as(Some(&identity), "GET", "/v1/log/audit", &[], "")
        .await;
    assert_eq!(refused.status, 403);
    let user = r#"{"Statement":{"Effect":"Allow","Action":"kms:Decrypt"}}"#;
    let one_key =
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/k0"}}"#;
    for policy in [user, one_key] {
        let signer = site.signer(policy).await;
        assert_eq!(
            site.call_as(&signer, "GET", "/kms/audit", "").await.status,
            403
        );
    }
}

#[tokio::test]
async fn route_has_the_class_of_its_operation() {
    let kinds = [
        Kind::Key,
        Kind::AccessKey,
        Kind::Alias,
        Kind::Config,
        Kind::Bucket,
        Kind::Policy,
        Kind::Identity,
    ];
    let routes = {
        let site = MemorySite::running().await;
        let owned = |dialect: &'static str, (method, route): &(String, String)| {
            (dialect, method.clone(), route.clone())
        };
        let of = |dialect: &'static str, routes: &[(&'static str, String, String)]| {
            let routes = routes.iter();
            let route =
                |(_, method, path): &(_, String, String)| (dialect, method.clone(), path.clone());
            routes.map(route).collect::<Vec<_>>()
        };
        let mut routes: Vec<_> = (site.routes().iter())
            .map(|it| owned("rustfs", it))
            .collect();
        routes.extend(of("minio", site.minio_routes()));
        routes.extend(of("kes", site.kes_routes()));
        routes.push(("sts", "POST".to_owned(), "/".to_owned()));
        for (method, route) in site.s3_routes() {
            routes.push(("s3", method.clone(), route.clone()));
            if route.contains("bucket") {
                routes.push(("s3", method.clone(), format!("{route}?encryption")));
            }
        }
        routes
    };
    let mut said: Vec<String> = Vec::new();
    for (dialect, method, route) in routes {
        let site = MemorySite::running().await;
        for name in ["k", "photos"] {
            site.call("POST", "/kms/keys", &json!({ "key_id": name }).to_string())
                .await
                .ok();
        }
        let call = async || {
            let path = path(&route);
            match dialect {
                "rustfs" => site.call(&method, &path, "{}").await,
                "minio" => {
                    let takes_key = ["/key/create", "/key/status"].contains(&path.as_str());
                    let query = if takes_key { "?key-id=k" } else { "" };
                    let path = format!("/minio/kms/v1{path}{query}");
                    site.send(site.root_request(&method, &path, b"")).await
                }
                "kes" => site.kes(&method, &path, "{}").await,
                "sts" => {
                    site.call_at(site.root(), &method, &path, "Action=AssumeRole")
                        .await
                }
                _ => site.s3(&method, &path, "").await,
            }
        };
        let snapshot = async || {
            let mut all = Vec::new();
            for kind in kinds {
                all.extend(site.records(kind).await);
            }
            all
        };
        let before = snapshot().await;
        let mut log = Log::of(&site);
        call().await;
        let class = log.one()["class"].as_str().unwrap().to_owned();
        let is_read = class == "read";
        if is_read {
            assert_eq!(snapshot().await, before, "{dialect} {method} {route}");
        }
        // While the log cannot be written, only reads work.
        site.fail_output(true);
        call().await;
        let answer = call().await;
        let ready = route == "/v1/ready";
        assert_eq!(
            answer.status == 503,
            !is_read,
            "{dialect} {method} {route}: {answer:?}"
        );
        assert!(!ready || answer.status == 504);
        // KES's routes end with a slash and the name, or have neither.
        let short = route.trim_end_matches("{*name}").trim_end_matches('/');
        let line = format!("{dialect} {method} {short} {class}");
        if !said.contains(&line) {
            said.push(line);
        }
    }
    // `data_key` where a key's material is used, `mutation` where something is otherwise afterwards.
    insta::assert_snapshot!(
        "route_classes",
        said.join(
            "
"
        )
    );
}

/// A body of items; each rewraps a ciphertext.
fn rewrap(items: &[Value]) -> String {
    json!({ "items": items }).to_string()
}

#[tokio::test]
async fn batch_is_recorded_item_by_item_with_its_refusals() {
    let site = MemorySite::running().await;
    for key in ["a", "b", "c"] {
        site.call("POST", "/kms/keys", &json!({ "key_id": key }).to_string())
            .await
            .ok();
    }
    site.call("POST", "/kms/keys/rotate", r#"{"key_id":"b"}"#)
        .await
        .ok();
    let context = json!({ "bucket": "canary-value", "tenant": "t" });
    let mut blobs = Vec::new();
    for key in ["a", "b", "c"] {
        let body = json!({ "key_id": key, "encryption_context": context });
        let made = site
            .call("POST", "/kms/generate-data-key", &body.to_string())
            .await
            .ok();
        blobs.push(made["ciphertext_blob"].clone());
    }
    let item = |blob: &Value, to: Option<&str>| json!({ "ciphertext_blob": blob, "destination_key_id": to, "encryption_context": context });
    let limited = r#"{"Statement":{"Effect":"Allow","Action":"kms:Rewrap","Resource":["arn:aws:kms:::key/a","arn:aws:kms:::key/b"]}}"#;
    let limited = site.signer(limited).await;
    let mut log = Log::of(&site);

    // Every item succeeds: no refusal.
    let body = rewrap(&[item(&blobs[0], Some("b")), item(&blobs[1], None)]);
    site.call_as(&limited, "POST", "/kms/rewrap", &body)
        .await
        .ok();
    let event = log.one();
    assert!(
        event.get("error").is_none() && event.get("key_id").is_none(),
        "{event}"
    );
    assert_eq!(event["status"], 200);
    let names = json!(["bucket", "tenant"]);
    assert_eq!(
        event["items"],
        json!([
            {"key_id": "b", "key_version": 2, "source_key_id": "a", "source_key_version": 1, "context": names},
            {"key_id": "b", "key_version": 2, "source_key_id": "b", "source_key_version": 2, "context": names},
        ])
    );
    assert_eq!(
        (&event["first_item"], &event["item_count"]),
        (&json!(0), &json!(2))
    );

    // Each refusal names its item, whatever its place, and the last item succeeds.
    let body = rewrap(&[
        item(&blobs[0], Some("b")),
        item(&blobs[2], Some("b")),
        item(&blobs[0], Some("c")),
        json!({ "ciphertext_blob": blobs[0], "destination_key_id": "b" }),
        json!({ "ciphertext_blob": "!", "destination_key_id": "b" }),
        item(&blobs[1], Some("a")),
    ]);
    let answer = site.call_as(&limited, "POST", "/kms/rewrap", &body).await;
    assert_eq!(answer.status, 200);
    let event = log.one();
    assert_eq!(event["error"], "not_permitted");
    assert_eq!(event["status"], 200);
    assert_eq!(
        event["items"],
        json!([
            {"key_id": "b", "key_version": 2, "source_key_id": "a", "source_key_version": 1, "context": names},
            {"key_id": "b", "source_key_id": "c", "source_key_version": 1, "context": names, "error": "not_permitted"},
            {"key_id": "c", "context": names, "error": "not_permitted"},
            {"key_id": "b", "source_key_id": "a", "source_key_version": 1, "error": "decryption_failed"},
            {"error": "invalid"},
            {"key_id": "a", "key_version": 1, "source_key_id": "b", "source_key_version": 2, "context": names},
        ])
    );
    assert!(!event.to_string().contains("canary-value"));
    // The event is a refusal: it is in the table before the answer, under each of the keys.
    for key in ["a", "b", "c"] {
        let asked = site
            .call("GET", &format!("/kms/audit?key_id={key}"), "")
            .await
            .ok();
        let found = asked["events"].as_array().unwrap();
        assert!(found.contains(&event), "{key}");
        log.next();
    }
    // A refused single request names both keys too.
    site.call_as(
        &limited,
        "POST",
        "/kms/rewrap",
        &item(&blobs[2], Some("b")).to_string(),
    )
    .await;
    let event = log.one();
    assert_eq!(event["error"], "not_permitted");
    assert_eq!(
        (
            &event["key_id"],
            &event["source_key_id"],
            &event["source_key_version"]
        ),
        (&json!("b"), &json!("c"), &json!(1))
    );
}

#[tokio::test]
async fn long_batch_is_recorded_whole_before_its_answer() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let made = site
        .call("POST", "/kms/generate-data-key", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let good = json!({ "ciphertext_blob": made["ciphertext_blob"] });
    let mut items = vec![good; 999];
    items.push(json!({ "ciphertext_blob": made["ciphertext_blob"], "destination_key_id": "none" }));
    let (_, stream) = site.kes_stream("/v1/log/audit").await;
    let mut stream = stream.unwrap();
    let mut log = Log::of(&site);
    site.call("POST", "/kms/rewrap", &rewrap(&items)).await.ok();
    let events = log.next();
    assert!(events.len() > 1);
    let mut told = 0;
    for event in &events {
        assert_eq!(event["request_id"], events[0]["request_id"]);
        assert_eq!(event["error"], "key_not_found");
        assert_eq!(
            (&event["first_item"], &event["item_count"]),
            (&json!(told), &json!(1000))
        );
        told += event["items"].as_array().unwrap().len();
    }
    assert_eq!(told, 1000);
    assert_eq!(
        events.last().unwrap()["items"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()["key_id"],
        "none"
    );
    let kept: usize = (site.records(Kind::Audit).await.iter())
        .map(|record| keyway_audit::text(record).matches("\"items\":").count())
        .sum();
    assert_eq!(kept, events.len(), "the table has all of them");
    // KES's stream has it once.
    site.kes("GET", "/v1/key/describe/k", "").await;
    let first = next(&mut stream).await;
    assert!(
        first["request"]["path"]
            .as_str()
            .unwrap()
            .ends_with("/kms/rewrap")
    );
    let second = next(&mut stream).await;
    assert_eq!(second["request"]["path"], "/v1/key/describe/k");
}

#[tokio::test]
async fn bulk_decryption_is_recorded_ciphertext_by_ciphertext() {
    let site = MemorySite::running().await;
    for key in ["k", "other"] {
        site.kes("PUT", &format!("/v1/key/create/{key}"), "").await;
    }
    let mut sealed = Vec::new();
    for (key, context) in [("k", r#"{"bucket":"b"}"#), ("k", "opaque"), ("other", "")] {
        let context = STANDARD.encode(context);
        let body = json!({ "plaintext": STANDARD.encode("p"), "context": context });
        let made = site
            .kes("PUT", &format!("/v1/key/encrypt/{key}"), &body.to_string())
            .await
            .json();
        sealed.push(json!({ "ciphertext": made["ciphertext"], "context": context }));
    }
    let mut log = Log::of(&site);
    let body = json!([sealed[0], sealed[1]]).to_string();
    assert_eq!(
        site.kes("PUT", "/v1/key/bulk/decrypt/k", &body)
            .await
            .status,
        200
    );
    let event = log.one();
    assert!(event.get("error").is_none(), "{event}");
    let first = json!({"key_id": "k", "key_version": 1, "context": ["bucket"]});
    assert_eq!(
        event["items"],
        json!([first, {"key_id": "k", "key_version": 1, "context_bytes": 6}])
    );
    let body = json!([sealed[0], sealed[2], sealed[1]]).to_string();
    assert_eq!(
        site.kes("PUT", "/v1/key/bulk/decrypt/k", &body)
            .await
            .status,
        400
    );
    let event = log.one();
    assert_eq!(event["error"], "decryption_failed");
    assert_eq!(
        event["items"],
        json!([first, {"key_id": "k", "error": "decryption_failed"}])
    );
}

#[tokio::test]
async fn event_about_two_keys_names_both() {
    let site = MemorySite::running_with(Some("default"), false).await;
    site.call("POST", "/kms/keys", r#"{"key_id":"default"}"#)
        .await
        .ok();
    site.s3("PUT", "/photos", "").await;
    let identity = "cd".repeat(32);
    let mut log = Log::of(&site);
    let assign = json!({ "identity": identity, "policy": "p" }).to_string();
    for path in [
        "/v1/policy/assign/p".to_owned(),
        format!("/v1/identity/assign/p/{identity}"),
    ] {
        site.kes("PUT", &path, &assign).await;
        assert_eq!(log.one()["resource"], format!("p/{identity}"), "{path}");
    }
    let body = r#"{"sse_algorithm":"aws:kms"}"#;
    site.call("PUT", "/api/v1/bucket-encryption/photos", body)
        .await;
    let event = log.one();
    assert_eq!(
        (&event["resource"], &event["key_id"], &event["status"]),
        (&json!("photos"), &json!("default"), &json!(200)),
        "{event}"
    );
}

#[tokio::test]
async fn key_that_fails_its_trial_is_recorded_as_refused() {
    let site = MemorySite::running().await;
    let mut log = Log::of(&site);
    site.send(site.root_request("GET", "/minio/kms/v1/key/status?key-id=none", b""))
        .await;
    let event = log.one();
    assert_eq!(
        (
            &event["class"],
            &event["status"],
            &event["error"],
            &event["key_id"]
        ),
        (
            &json!("data_key"),
            &json!(200),
            &json!("key_not_found"),
            &json!("none")
        )
    );
}
