//! The OpenAPI document describes the routes, and a wrong answer is found.

use std::collections::BTreeSet;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Request};
use keyway_sites::inventory;
use keyway_tests::{Answer, Described, MemorySite, project};
use serde_json::{Value, json};

fn file() -> PathBuf {
    project().join("shared/openapi/openapi.json")
}

#[expect(
    clippy::disallowed_methods,
    reason = "`make openapi` says by a variable that the file is to be written"
)]
fn is_to_be_written() -> bool {
    std::env::var("KEYWAY_WRITE_OPENAPI").is_ok_and(|value| !value.is_empty())
}

#[tokio::test]
async fn the_committed_document_is_of_these_routes() {
    let site = MemorySite::running().await;
    let made = site
        .openapi()
        .unwrap_or_else(|faults| panic!("{}", faults.join("\n")));
    if is_to_be_written() {
        std::fs::write(file(), made).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(file()).unwrap();
    assert!(
        committed == made,
        "shared/openapi/openapi.json is not of these routes: run `make openapi`, and read the difference"
    );
}

#[test]
fn document_has_every_route_below_every_prefix() {
    // What a path ends in has a name of its own in the document.
    let any_name = |path: &str| match path.split_once('{') {
        Some((start, _)) if path.starts_with("/v1/") => format!("{start}{{}}"),
        _ => path.to_owned(),
    };
    let mut mounted = BTreeSet::new();
    for entry in inventory() {
        let method = entry.method.as_str().to_ascii_lowercase();
        mounted.insert(format!("{method} {}", any_name(&entry.whole_path())));
    }
    let mut described = BTreeSet::new();
    for (path, operations) in paths() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert(format!("{method} {}", any_name(path)));
            let others = operation["x-other-paths"].as_array();
            for other in others.into_iter().flatten() {
                described.insert(format!("{method} {}", other.as_str().unwrap()));
            }
        }
    }
    assert_eq!(described, mounted);
}

fn paths() -> impl Iterator<Item = (&'static String, &'static Value)> {
    let document = Described::committed().document();
    document["paths"].as_object().unwrap().iter()
}

#[tokio::test]
async fn document_is_served_without_a_signature() {
    let site = MemorySite::not_configured(false).await;
    for (method, body) in [("GET", keyway_openapi::DOCUMENT), ("HEAD", b"")] {
        let request = Request::builder().method(method).uri("/openapi.json");
        let answer = site.send(request.body(Bytes::new()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, body));
        let caching = answer.header("cache-control");
        assert_eq!(caching, Some("public, max-age=300"));
    }
}

#[test]
fn references_and_examples_of_the_document_hold() {
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let described = Described::committed();
    let mut found = Vec::new();
    references(described.document(), &mut found);
    assert!(found.len() > 100);
    for reference in found {
        let place = reference.strip_prefix('#').unwrap();
        assert!(described.document().pointer(place).is_some(), "{reference}");
    }
    let mut examples = 0;
    for (path, operations) in paths() {
        for (method, operation) in operations.as_object().unwrap() {
            let content = &operation["requestBody"]["content"]["application/json"];
            for (name, example) in content["examples"].as_object().into_iter().flatten() {
                let path = path.replace('/', "~1");
                let at =
                    format!("/paths/{path}/{method}/requestBody/content/application~1json/schema");
                let valid = described.valid(&at, &example["value"]);
                assert_eq!(valid, Ok(()), "{method} {path} {name}");
                examples += 1;
            }
        }
    }
    assert!(examples > 20);
}

/// The suite compares every answer with the document; this test shows that the comparison can fail.
#[tokio::test]
async fn answer_other_than_described_is_found() {
    let site = MemorySite::running().await;
    let described = Described::committed();
    let path = "/rustfs/admin/v3/kms/keys";
    let request = site.root_request("POST", path, br#"{"KeyId":"k","Tags":{}}"#);
    let answer = site.send(request.clone()).await;
    assert_eq!(described.check(&request, &answer), Ok(()));
    let noticed = |pointer: &str, change: fn(&mut Value)| {
        let mut body = answer.json();
        change(body.pointer_mut(pointer).unwrap());
        let answer = Answer {
            body: body.to_string().into(),
            ..answer.clone()
        };
        let said = described.check(&request, &answer);
        assert!(said.is_err(), "{pointer} of {body}");
    };
    noticed("", |body| body["another"] = json!(1));
    noticed("", |body| {
        drop(body.as_object_mut().unwrap().remove("message"))
    });
    noticed("/success", |value| *value = json!(false));
    noticed("/key_id", |value| *value = json!("-"));
    noticed("/key_metadata", |body| body["another"] = json!(1));
    noticed("/key_metadata", |body| {
        drop(body.as_object_mut().unwrap().remove("deletion_date"))
    });
    noticed("/key_metadata/key_state", |value| *value = json!("Gone"));
    noticed("/key_metadata/creation_date", |value| {
        *value = json!("2026-01-02")
    });
    noticed("/key_metadata/creation_date", |value| {
        *value = json!("2026-13-02T03:04:05.678901Z")
    });
    noticed("/key_metadata/tags", |value| *value = json!({"a": 1}));
    noticed("/key_metadata/key_version", |value| *value = json!(null));

    let with_status = |status: u16| Answer {
        status: status.try_into().unwrap(),
        ..answer.clone()
    };
    for status in [201, 204, 400, 404, 405] {
        assert!(
            described.check(&request, &with_status(status)).is_err(),
            "{status}"
        );
    }
    let mut without_id = answer.clone();
    without_id.headers.remove("x-request-id");
    assert!(described.check(&request, &without_id).is_err());
    for (method, path, body) in [
        ("POST", "/rustfs/admin/v3/kms/keys?colour=red", "{}"),
        ("POST", path, r#"{"colour":"red"}"#),
        ("POST", path, r#"{"key_id":7}"#),
        ("PUT", path, "{}"),
        ("POST", "/rustfs/admin/v3/kms/nothing", "{}"),
    ] {
        let request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        let request = request.uri(path).body(Bytes::from(body)).unwrap();
        assert!(
            described.check(&request, &answer).is_err(),
            "{method} {path} {body}"
        );
    }
}

/// As [`an_answer_that_is_not_as_described_is_noticed`], of KES's API.
#[tokio::test]
async fn answer_of_kes_other_than_described_is_found() {
    let site = MemorySite::running().await;
    let described = Described::committed();
    site.kes("PUT", "/v1/key/create/my-key", "").await;
    let asked = |method: &str, path: &str, body: &str| {
        let request = Request::builder().method(method).uri(path);
        request
            .body(Bytes::copy_from_slice(body.as_bytes()))
            .unwrap()
    };
    let check = |request: &Request<Bytes>, answer: &Answer| described.check_kes(request, answer);
    let with_body = |answer: &Answer, body: &str| Answer {
        body: body.to_owned().into(),
        ..answer.clone()
    };

    let path = "/v1/key/describe/my-key";
    let answer = site.kes("GET", path, "").await;
    let request = asked("GET", path, "");
    assert_eq!(check(&request, &answer), Ok(()));
    for changed in [
        r#"{"name":"my-key","algorithm":"AES256","created_at":"2026-01-02T03:04:05Z"}"#,
        r#"{"name":"my-key","algorithm":"AES256","created_at":"yesterday","created_by":"me"}"#,
        r#"{"name":"my-key","algorithm":"AES256","created_at":"2026-01-02T03:04:05Z","created_by":"me","id":"1"}"#,
        "",
    ] {
        assert!(
            check(&request, &with_body(&answer, changed)).is_err(),
            "{changed}"
        );
    }
    for status in [201, 204, 404, 405, 409] {
        let answer = Answer {
            status: status.try_into().unwrap(),
            ..answer.clone()
        };
        assert!(check(&request, &answer).is_err(), "{status}");
    }
    for (method, path, body) in [
        ("PUT", path, ""),
        ("GET", "/v1/key/nothing/my-key", ""),
        // A route of another listener.
        ("GET", "/rustfs/admin/v3/kms/keys", ""),
    ] {
        let request = asked(method, path, body);
        assert!(check(&request, &answer).is_err(), "{method} {path}");
    }

    let path = "/v1/key/list/my-*";
    let lines = site.kes("GET", path, "").await;
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let request = asked("GET", path, "");
    assert_eq!(check(&request, &lines), Ok(()));
    let changed = with_body(&lines, "{\"name\":\"my-key\"}\n{\"colour\":\"red\"}\n");
    assert!(check(&request, &changed).is_err());

    let path = "/v1/key/generate/my-key";
    let answer = site.kes("POST", path, r#"{"context":"e30="}"#).await;
    assert_eq!(
        check(&asked("POST", path, r#"{"context":"e30="}"#), &answer),
        Ok(())
    );
    assert!(check(&asked("POST", path, r#"{"context":"e30"}"#), &answer).is_err());
    assert!(check(&asked("POST", path, "[]"), &answer).is_err());
}
