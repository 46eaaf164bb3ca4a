//! Every example of KES's two documents, method by method, as far as it needs no certificate file and no other tool.

use keyway_tests::{Answer, KES_ADMIN, MemorySite};
use serde_json::{Value, json};

/// An example: method, path, what it sends, and what of the answer the document shows.
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

fn sealed(answer: &Answer) -> bool {
    has(answer, &["plaintext", "ciphertext"])
}

/// As the 0.7 document's curl sends them: with `Accept: */*`, and deleting with POST.
const FIRST: &[Example] = &[
    ("GET", "/version", "", |answer| has(answer, &["version"])),
    ("POST", "/v1/key/create/my-key", "", is_empty),
    ("POST", "/v1/key/create/my-key1", "", is_empty),
    ("POST", "/v1/key/create/my-key2", "", is_empty),
    ("GET", "/v1/key/list/my-key*", "", |answer| {
        answer.body == "{\"name\":\"my-key\"}\n{\"name\":\"my-key1\"}\n{\"name\":\"my-key2\"}\n"
    }),
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
    ("PUT", "/v1/key/generate/my-key", "{}", sealed),
    (
        "PUT",
        "/v1/key/encrypt/my-key",
        r#"{"plaintext":"SGVsbG8gV29ybGQhCg=="}"#,
        |answer| has(answer, &["ciphertext"]),
    ),
    ("DELETE", "/v1/key/delete/my-key", "", is_empty),
    (
        "POST",
        "/v1/policy/write/my-policy",
        r#"{"allow":{"/v1/key/generate/my-key":{},"/v1/key/decrypt/my-key":{}},"deny":{"/v1/key/decrypt/my-key-internal*":{}}}"#,
        is_empty,
    ),
    ("POST", "/v1/policy/write/my-policy-2", "{}", is_empty),
    (
        "POST",
        "/v1/policy/assign/my-policy",
        r#"{"identity":"413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc"}"#,
        is_empty,
    ),
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
    (
        "GET",
        "/v1/identity/describe/413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc",
        "",
        |answer| {
            let body = answer.ok();
            body["policy"] == "my-policy"
                && body["admin"] == false
                && body["created_by"] == KES_ADMIN
                && body.get("created_at").is_some()
        },
    ),
    ("GET", "/v1/identity/self/describe", "", |answer| {
        let body = answer.ok();
        body["identity"] == KES_ADMIN && body["admin"] == true && body.get("created_at").is_some()
    }),
    ("GET", "/v1/identity/list/", "", |answer| {
        let body = answer.ok();
        body["continue_at"] == ""
            && body["identities"]
                == json!([
                    "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22",
                    "413c35cb06a9e1aa142ccebf829c96cbfd16162131a92f5ec8c9006f6fc5c9dc"
                ])
    }),
];

#[tokio::test]
async fn every_example_of_both_documents_works() {
    for examples in [FIRST, SECOND] {
        let site = MemorySite::running().await;
        for (method, path, body, shown) in examples {
            let headers = [
                ("accept", "*/*"),
                ("content-type", "application/x-www-form-urlencoded"),
            ];
            let answer = site
                .kes_as(Some(KES_ADMIN), method, path, &headers, body)
                .await;
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
async fn what_is_generated_is_decrypted_as_the_documents_show_it() {
    let site = MemorySite::running().await;
    site.kes("PUT", "/v1/key/create/my-key", "").await;
    for method in ["PUT", "POST"] {
        let made: Value = site.kes(method, "/v1/key/generate/my-key", "{}").await.ok();
        let body = json!({ "ciphertext": made["ciphertext"] }).to_string();
        let opened = site.kes(method, "/v1/key/decrypt/my-key", &body).await.ok();
        assert_eq!(opened, json!({ "plaintext": made["plaintext"] }));
    }
}
