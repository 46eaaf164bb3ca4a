//! MinIO's KMS API: golden answers, refusals, and the trial of a key.

use keyway_domain::ports::Kind;
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};

use crate::golden::shown;

const PREFIX: &str = "/minio/kms/v1";

async fn call_as(site: &MemorySite, signer: &Signer, method: &str, path: &str) -> Answer {
    site.call_at(signer, method, &format!("{PREFIX}{path}"), "")
        .await
}

/// As root, signed for the service that `mc` signs for.
async fn call(site: &MemorySite, method: &str, path: &str) -> Answer {
    let root = site.root().clone().for_service("s3");
    call_as(site, &root, method, path).await
}

/// Status and code of a refusal; also checks its shape.
fn refusal(answer: &Answer) -> (u16, String) {
    let body = answer.json();
    let fields: Vec<&str> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    // Ordered by name, because this JSON reader sorts fields.
    assert_eq!(
        fields,
        ["Code", "HostId", "Message", "RequestId", "Resource"]
    );
    let text = |name| body.get(name).and_then(Value::as_str);
    assert_eq!(answer.header("x-request-id"), text("RequestId"), "{body}");
    let code = text("Code").unwrap().to_owned();
    (answer.status.as_u16(), code)
}

fn of(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

macro_rules! golden {
    ($name:literal, $answer:expr) => {
        insta::assert_snapshot!(concat!("minio_", $name), shown(&$answer))
    };
}

#[tokio::test]
async fn answers_are_the_golden_ones() {
    let site = MemorySite::running_with(Some("default"), false).await;
    let created = call(&site, "POST", "/key/create?key-id=my-key").await;
    assert!(created.body.is_empty());
    golden!("create", created);
    let duplicate = call(&site, "POST", "/key/create?key-id=my-key").await;
    golden!("create_duplicate", duplicate);
    call(&site, "POST", "/key/create?key-id=default").await;
    golden!("list", call(&site, "GET", "/key/list?pattern=*").await);
    let none = call(&site, "GET", "/key/list?pattern=no-*").await;
    golden!("list_none", none);
    let status = call(&site, "GET", "/key/status?key-id=my-key").await;
    golden!("key_status", status);
    let status = call(&site, "GET", "/key/status?key-id=").await;
    golden!("key_status_default", status);
    site.call("POST", "/kms/keys/disable", r#"{"key_id":"my-key"}"#)
        .await
        .ok();
    let status = call(&site, "GET", "/key/status?key-id=my-key").await;
    golden!("key_status_disabled", status);
    let status = call(&site, "GET", "/key/status?key-id=absent").await;
    golden!("key_status_absent", status);
    golden!("status", call(&site, "GET", "/status").await);
    golden!("metrics", call(&site, "GET", "/metrics").await);
    golden!("apis", call(&site, "GET", "/apis").await);
    golden!("version", call(&site, "GET", "/version").await);
    golden!("no_route", call(&site, "GET", "/nothing").await);
    golden!("wrong_method", call(&site, "GET", "/key/create").await);
    golden!("create_unnamed", call(&site, "POST", "/key/create").await);
    let unsigned = http::Request::get(format!("{PREFIX}/status")).header("host", "keyway.test");
    let unsigned = unsigned.body(bytes::Bytes::new()).unwrap();
    golden!("unsigned", site.send(unsigned).await);
    let idle = MemorySite::not_configured(false).await;
    golden!("not_configured", call(&idle, "GET", "/status").await);
}

#[tokio::test]
async fn route_refuses_callers_without_the_permission() {
    let site = MemorySite::running().await;
    call(&site, "POST", "/key/create?key-id=k").await;
    let before = site.records(Kind::Key).await;
    let nobody = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"s3:*"}}"#)
        .await;
    let denied = site
        .signer(
            r#"{"Statement":[{"Effect":"Allow","Action":"*"},{"Effect":"Deny","Action":"kms:*"}]}"#,
        )
        .await;
    let elsewhere = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/mine"}}"#)
        .await;
    for (_, method, route) in site.minio_routes() {
        let query = if route.starts_with("/key/") && route != "/key/list" {
            "?key-id=new"
        } else {
            ""
        };
        let path = format!("{route}{query}");
        let unsigned = http::Request::builder()
            .method(method.as_str())
            .uri(format!("{PREFIX}{path}"))
            .header("host", "keyway.test")
            .body(bytes::Bytes::new())
            .unwrap();
        let answer = site.send(unsigned).await;
        assert_eq!(refusal(&answer), of(403, "AccessDenied"), "{route}");
        for (stranger, code) in [
            (Signer::new("root", "wrong-secret"), "SignatureDoesNotMatch"),
            (Signer::new("nobody", "root-secret"), "InvalidAccessKeyId"),
            (
                Signer::new("root", "root-secret").with_token("t"),
                "AccessDenied",
            ),
            (
                Signer::new("root", "root-secret").for_service("ec2"),
                "AccessDenied",
            ),
        ] {
            let answer = call_as(&site, &stranger, method, &path).await;
            assert_eq!(refusal(&answer), of(403, code), "{route}");
        }
        for caller in [&nobody, &denied] {
            let answer = call_as(&site, caller, method, &path).await;
            assert_eq!(refusal(&answer), of(403, "AccessDenied"), "{route}");
        }
        if route == "/key/list" {
            // A caller who may list some keys gets those.
            let answer = call_as(&site, &elsewhere, method, &path).await;
            assert_eq!(answer.ok(), json!([]));
        } else {
            for id in ["k", "absent"] {
                let path = format!("{route}?key-id={id}");
                let answer = call_as(&site, &elsewhere, method, &path).await;
                assert_eq!(refusal(&answer), of(403, "AccessDenied"), "{path}");
            }
        }
        let late = site.root_request(method, &format!("{PREFIX}{path}"), b"");
        site.clock
            .advance(std::time::Duration::from_secs(15 * 60 + 1));
        let answer = site.send(late).await;
        assert_eq!(refusal(&answer), of(403, "RequestTimeTooSkewed"), "{route}");
    }
    assert_eq!(site.records(Kind::Key).await, before);
}

#[tokio::test]
async fn apis_lists_the_mounted_routes() {
    let site = MemorySite::running().await;
    let listed = call(&site, "GET", "/apis").await.ok();
    let mut listed: Vec<String> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|api| {
            assert_eq!(api["MaxBody"], keyway_http::NO_BODY, "{api}");
            assert_eq!(api["Timeout"], 0, "{api}");
            format!(
                "{} {}",
                api["Method"].as_str().unwrap(),
                api["Path"].as_str().unwrap()
            )
        })
        .collect();
    let mut served: Vec<String> = site
        .minio_routes()
        .iter()
        .map(|(_, method, path)| format!("{method} {PREFIX}{path}"))
        .collect();
    listed.sort_unstable();
    served.sort_unstable();
    assert_eq!(listed, served);
}

#[tokio::test]
async fn key_status_needs_the_permissions_of_what_it_tries() {
    let site = MemorySite::running_with(Some("k"), false).await;
    call(&site, "POST", "/key/create?key-id=k").await;
    let all = ["kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"];
    for missing in [None, Some(0), Some(1), Some(2)] {
        let actions: Vec<&str> = all
            .iter()
            .enumerate()
            .filter(|(at, _)| Some(*at) != missing)
            .map(|(_, action)| *action)
            .collect();
        let policy = json!({"Statement": {"Effect": "Allow", "Action": actions}});
        let caller = site.signer(&policy.to_string()).await;
        for path in [
            "/key/status?key-id=k",
            "/key/status",
            "/key/status?key-id=absent",
        ] {
            let answer = call_as(&site, &caller, "GET", path).await;
            match missing {
                None => drop(answer.ok()),
                Some(_) => assert_eq!(refusal(&answer), of(403, "AccessDenied"), "{policy}"),
            }
        }
    }
}

#[tokio::test]
async fn service_not_configured_or_stopped_is_reported() {
    let site = MemorySite::not_configured(false).await;
    let paths = [
        ("POST", "/key/create?key-id=k"),
        ("GET", "/key/list?pattern=*"),
        ("GET", "/key/status?key-id=k"),
    ];
    for (method, path) in paths {
        let answer = call(&site, method, path).await;
        assert_eq!(refusal(&answer), of(501, "NotImplemented"), "{path}");
    }
    let local = r#"{"backend_type":"local"}"#;
    site.call("POST", "/kms/configure", local).await.ok();
    for (method, path) in paths {
        let answer = call(&site, method, path).await;
        assert_eq!(refusal(&answer), of(503, "ServiceUnavailable"), "{path}");
        let message = answer.json()["Message"].as_str().unwrap().to_owned();
        assert!(message.contains("not running"), "{message}");
    }
    let status = call(&site, "GET", "/status").await.ok();
    assert_eq!(
        status["endpoints"],
        json!({"http://keyway.test": "offline"})
    );
    site.call("POST", "/kms/start", "").await.ok();
    let status = call(&site, "GET", "/status").await.ok();
    assert_eq!(status["endpoints"], json!({"http://keyway.test": "online"}));
}

#[tokio::test]
async fn list_has_every_key_that_matches() {
    let site = MemorySite::running().await;
    for n in 0..1203 {
        let path = format!("/key/create?key-id=k{n:04}");
        assert_eq!(call(&site, "POST", &path).await.status, 200);
    }
    for (pattern, expected) in [
        ("?pattern=*", 1203),
        ("", 1203),
        ("?pattern=k00*", 100),
        ("?pattern=k12%3F%3F", 3),
        ("?pattern=k0001", 1),
        ("?pattern=x*", 0),
    ] {
        let listed = call(&site, "GET", &format!("/key/list{pattern}"))
            .await
            .ok();
        assert_eq!(listed.as_array().unwrap().len(), expected, "{pattern}");
    }
}

#[tokio::test]
async fn name_malformed_is_refused_and_changes_nothing() {
    let site = MemorySite::running().await;
    for id in ["", "..%2Fconfig", "a%2Fb", "a%20b", ".x", "-x", "%C3%A9"] {
        for path in ["/key/create", "/key/status"] {
            let method = if path == "/key/create" { "POST" } else { "GET" };
            let answer = call(&site, method, &format!("{path}?key-id={id}")).await;
            assert_eq!(refusal(&answer), of(400, "InvalidRequest"), "{path} {id}");
        }
    }
    let twice = call(&site, "POST", "/key/create?key-id=a&key-id=b").await;
    assert_eq!(refusal(&twice), of(400, "InvalidRequest"));
    let message = twice.json()["Message"].clone();
    assert_ne!(message, Value::Null);
    assert!(site.records(Kind::Key).await.is_empty());
}

/// Below the admin prefix, where `mc` before madmin v3 and minio-py's `MinioAdmin` ask.
#[tokio::test]
async fn older_clients_get_the_shapes_of_minio() {
    let site = MemorySite::running_with(Some("default"), false).await;
    let admin = async |method: &str, path: &str| {
        let path = format!("/minio/admin/v3/kms{path}");
        site.call_at(site.root(), method, &path, "").await
    };
    let created = admin("POST", "/key/create?key-id=default").await;
    assert_eq!((created.status.as_u16(), created.body.len()), (200, 0));
    let unnamed = admin("POST", "/key/create?key-id=").await;
    assert_eq!(unnamed.status, 400);
    assert!(
        unnamed.message().contains("key-id"),
        "{}",
        unnamed.message()
    );
    let again = admin("POST", "/key/create?key-id=default").await;
    assert_eq!(again.status, 409);
    let document = admin("POST", "/key/create?keyName=app").await.ok();
    assert_eq!(
        (&document["keyId"], &document["status"]),
        (&json!("app"), &json!("created"))
    );

    for (query, key) in [
        ("?key-id=app", "app"),
        ("?key-id=default", "default"),
        ("?key-id=", "default"),
        ("", "default"),
    ] {
        let tried = admin("GET", &format!("/key/status{query}")).await.ok();
        assert_eq!(tried, json!({"key-id": key}), "{query}");
    }
    let document = admin("GET", "/key/status?keyName=app").await.ok();
    assert_eq!(
        (&document["keyId"], &document["status"]),
        (&json!("app"), &json!("enabled"))
    );
    site.call("POST", "/kms/keys/disable?keyId=app", "")
        .await
        .ok();
    let tried = admin("GET", "/key/status?key-id=app").await.ok();
    assert_eq!(tried["key-id"], "app");
    let error = tried["encryption-error"].as_str().unwrap();
    assert!(error.contains("disabled"), "{tried}");
    let unnamed = site.call("GET", "/kms/key/status", "").await;
    assert_eq!(
        unnamed.status, 400,
        "MinIO's default key is below its prefix"
    );

    let status = admin("GET", "/status").await.ok();
    assert_eq!(status["status"], "connected");
    assert_eq!(status["name"], "Keyway");
    assert_eq!(status["default-key-id"], "default");
    assert_eq!(status["endpoints"], json!({"http://keyway.test": "online"}));
    let posted = admin("POST", "/status").await.ok();
    assert_eq!(posted, status);
}
