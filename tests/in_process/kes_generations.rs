//! KES's dialect as older releases answer, read as their SDKs read it.

use std::collections::BTreeMap;

use keyway_dialect_kes::Generation;
use keyway_tests::{Answer, KES_ADMIN, MemorySite};
use serde::Deserialize;
use serde_json::{Value, json};

const FIRST: [Generation; 3] = [Generation::V0_7, Generation::V0_13, Generation::V0_17];
const OLDER: [Generation; 4] = [
    Generation::V0_7,
    Generation::V0_13,
    Generation::V0_17,
    Generation::V0_22,
];
const APP: &str = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";
const TIME: &str = "2026-01-02T03:04:05.678901234Z";

/// Two keys, a policy that allows alone and one that denies as well, and an identity.
async fn site(generation: Generation) -> MemorySite {
    let site = MemorySite::with_generation(generation).await;
    for (path, body) in [
        ("/v1/key/create/my-key", ""),
        ("/v1/key/create/other", ""),
        (
            "/v1/policy/write/app",
            r#"{"paths":["/v1/key/generate/my-*"]}"#,
        ),
        (
            "/v1/policy/write/strict",
            r#"{"allow":["/v1/key/*"],"deny":["/v1/key/delete/*"]}"#,
        ),
        (&format!("/v1/identity/assign/app/{APP}"), ""),
    ] {
        let answer = site.kes("POST", path, body).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
    site
}

/// The values of a body in sequence, as Go's decoder reads a stream.
fn values(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    serde_json::Deserializer::from_slice(&answer.body)
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

fn refused(answer: &Answer) -> (u16, String) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.body.ends_with(b"\"}"));
    (answer.status.as_u16(), answer.message())
}

fn said(status: u16, message: &str) -> (u16, String) {
    (status, message.to_owned())
}

#[tokio::test]
async fn list_has_the_shape_of_its_release() {
    for generation in OLDER {
        let site = site(generation).await;
        for accept in ["*/*", "application/json"] {
            let list = async |path| {
                let headers = [("accept", accept)];
                site.kes_as(Some(KES_ADMIN), "GET", path, &headers, "")
                    .await
            };
            let field = if generation == Generation::V0_22 {
                "name"
            } else {
                "Name"
            };
            let keys = values(&list("/v1/key/list/*").await);
            assert_eq!(
                keys,
                [json!({ field: "my-key" }), json!({ field: "other" })]
            );
            let policies = list("/v1/policy/list/*").await;
            if generation == Generation::V0_22 {
                let author =
                    |name: &str| json!({"name": name, "created_at": TIME, "created_by": KES_ADMIN});
                assert_eq!(values(&policies), [author("app"), author("strict")]);
            } else {
                assert_eq!(policies.ok(), json!(["app", "strict"]));
            }
            let identities = list("/v1/identity/list/*").await;
            match generation {
                Generation::V0_22 => {
                    let of = |who: &Value| (who["admin"] == json!(true), who["policy"].clone());
                    let told: Vec<_> = values(&identities).iter().map(of).collect();
                    assert!(told.contains(&(false, json!("app"))), "{told:?}");
                    assert!(told.iter().any(|(admin, _)| *admin), "{told:?}");
                }
                Generation::V0_17 => {
                    let told = values(&identities);
                    assert_eq!(told, [json!({"identity": APP, "policy": "app"})]);
                }
                _ => {
                    let told: BTreeMap<String, String> =
                        serde_json::from_slice(&identities.body).unwrap();
                    assert_eq!(told, BTreeMap::from([(APP.into(), "app".into())]));
                }
            }
        }
    }
}

/// As SDKs of v0.15 to v0.17 read a policy.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Rules {
    allow: Vec<String>,
    deny: Vec<String>,
}

/// As SDKs up to v0.14 read a policy.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct Paths {
    paths: Vec<String>,
}

#[tokio::test]
async fn policy_is_decoded_strictly_as_its_release_does() {
    let read = async |generation, name| {
        let site = site(generation).await;
        site.kes("GET", &format!("/v1/policy/read/{name}"), "")
            .await
    };
    let allowed = vec!["/v1/key/generate/my-*".to_owned()];
    let rules: Rules = serde_json::from_slice(&read(Generation::V0_17, "app").await.body).unwrap();
    assert_eq!((rules.allow, rules.deny.len()), (allowed.clone(), 0));
    for generation in [Generation::V0_13, Generation::V0_7] {
        let paths: Paths = serde_json::from_slice(&read(generation, "app").await.body).unwrap();
        assert_eq!(paths.paths, allowed);
        let strict = read(generation, "strict").await;
        assert_eq!(
            refused(&strict),
            said(
                501,
                "the policy denies paths, which clients of this release cannot read"
            )
        );
    }
    let strict = read(Generation::V0_22, "strict").await.ok();
    assert_eq!(
        strict,
        json!({"allow": ["/v1/key/*"], "deny": ["/v1/key/delete/*"], "created_at": TIME, "created_by": KES_ADMIN})
    );
}

#[tokio::test]
async fn description_of_v0_22_has_its_names_and_nesting() {
    let site = site(Generation::V0_22).await;
    let key = site.kes("GET", "/v1/key/describe/my-key", "").await.ok();
    assert_eq!(key["algorithm"], "AES256-GCM_SHA256");
    let policy = site.kes("GET", "/v1/policy/describe/app", "").await.ok();
    assert_eq!(policy, json!({"created_at": TIME, "created_by": KES_ADMIN}));
    let described = site
        .kes("GET", &format!("/v1/identity/describe/{APP}"), "")
        .await
        .ok();
    assert_eq!(described["policy"], "app");
    assert_eq!(described.get("admin"), None);
    let of_self = site
        .kes_as(Some(APP), "GET", "/v1/identity/self/describe", &[], "")
        .await
        .ok();
    assert_eq!(of_self["policy_name"], "app");
    assert_eq!(
        of_self["policy"],
        json!({"allow": ["/v1/key/generate/my-*"]})
    );
    let admin = site.kes("GET", "/v1/identity/self/describe", "").await.ok();
    assert_eq!(admin["admin"], true);
    assert_eq!(admin["policy"], json!({}));
}

#[tokio::test]
async fn status_and_version_have_the_shape_of_the_release() {
    let up = 724_306;
    for generation in OLDER {
        let site = site(generation).await;
        site.clock.advance(std::time::Duration::from_secs(up));
        let status = site.kes("GET", "/v1/status", "").await.ok();
        let nanoseconds = status["uptime"].as_u64().unwrap();
        assert_eq!(nanoseconds % 1_000_000_000, 0, "{status}");
        assert!(nanoseconds >= 1_000_000_000, "{status}");
        let version = site.kes("GET", "/version", "").await.ok();
        if generation == Generation::V0_22 {
            assert_eq!(status.get("kms"), None);
            assert_eq!(version["commit"], "0123abc");
        } else {
            assert_eq!(status["kms"]["state"], "available");
            assert_eq!(version.as_object().unwrap().len(), 1);
        }
    }
}

#[tokio::test]
async fn refusal_has_the_text_that_sdks_of_its_release_compare() {
    for generation in FIRST {
        let site = site(generation).await;
        let call = async |method, path, body| refused(&site.kes(method, path, body).await);
        let exists = call("POST", "/v1/key/create/my-key", "").await;
        assert_eq!(exists, said(400, "key does already exist"));
        let denied = site
            .kes_as(Some(APP), "POST", "/v1/key/create/my-new", &[], "")
            .await;
        assert_eq!(refused(&denied), said(403, "prohibited by policy"));
        let nobody = site
            .kes_as(None, "POST", "/v1/key/create/my-new", &[], "")
            .await;
        assert_eq!(
            refused(&nobody),
            said(400, "no client certificate is present")
        );
        for (method, path, body, expected) in [
            (
                "POST",
                "/v1/key/encrypt/my-key",
                "{",
                said(400, "invalid json"),
            ),
            ("POST", "/v1/key/import/new", "{", said(400, "invalid json")),
            (
                "POST",
                "/v1/key/import/new",
                r#"{"bytes":"AAAA"}"#,
                said(400, "invalid key"),
            ),
            (
                "POST",
                "/v1/key/create/a.b",
                "",
                said(400, "invalid key name"),
            ),
            (
                "GET",
                "/v1/policy/read/a.b",
                "",
                said(400, "invalid policy name"),
            ),
            (
                "GET",
                "/v1/key/create/my-key",
                "",
                said(405, "Method Not Allowed"),
            ),
            (
                "POST",
                "/v1/key/decrypt/my-key",
                r#"{"ciphertext":""}"#,
                said(400, "decryption failed: ciphertext is not authentic"),
            ),
            (
                "POST",
                "/v1/key/generate/nope",
                "{}",
                said(404, "key does not exist"),
            ),
        ] {
            assert_eq!(call(method, path, body).await, expected, "{path}");
        }
        let missing = call("GET", "/v1/policy/read/nope", "").await;
        let status = if generation == Generation::V0_7 {
            400
        } else {
            404
        };
        assert_eq!(missing, said(status, "policy does not exist"));
        // In this release, removing a missing key succeeds.
        for path in ["/v1/policy/delete/nope", "/v1/identity/forget/nope"] {
            assert_eq!(site.kes("DELETE", path, "").await.status, 200, "{path}");
        }
        let unknown = site.kes("GET", "/v1/enclave/describe/x", "").await;
        assert_eq!(unknown.status, 404);
        assert_eq!(unknown.body, "404 page not found\n");
        let method = site.kes("GET", "/v1/key/create/my-key", "").await;
        assert_eq!(method.header("accept"), Some("POST"));
    }
    let site = site(Generation::V0_22).await;
    let call = async |method, path, body| refused(&site.kes(method, path, body).await);
    for (method, path, body, expected) in [
        (
            "POST",
            "/v1/key/create/my-key",
            "",
            said(400, "key already exists"),
        ),
        (
            "POST",
            "/v1/key/create/a.b",
            "",
            said(400, "invalid argument: name contains invalid character"),
        ),
        (
            "POST",
            "/v1/key/create/",
            "",
            said(400, "invalid argument: name is empty"),
        ),
        (
            "GET",
            "/v1/key/list/a.b",
            "",
            said(400, "invalid argument: pattern contains invalid character"),
        ),
        (
            "POST",
            "/v1/key/import/new",
            r#"{"bytes":"AAAA"}"#,
            said(400, "invalid key size"),
        ),
        (
            "GET",
            "/v1/key/create/x",
            "",
            said(405, "Method Not Allowed"),
        ),
        (
            "DELETE",
            "/v1/policy/delete/nope",
            "",
            said(404, "policy does not exist"),
        ),
    ] {
        assert_eq!(call(method, path, body).await, expected, "{path}");
    }
    let unknown = site.kes("GET", "/v1/nothing", "").await;
    assert_eq!(unknown.status, 501);
    assert_eq!(unknown.body, "not implemented\n");
}

#[tokio::test]
async fn disabled_key_is_refused_in_the_words_of_its_release() {
    for (generation, message) in [
        (Generation::V0_17, "prohibited by policy"),
        (
            Generation::V0_22,
            "not authorized: insufficient permissions",
        ),
        (
            Generation::Latest,
            "not authorized: insufficient permissions",
        ),
    ] {
        let site = site(generation).await;
        let disabled = site
            .call("POST", "/kms/keys/disable", r#"{"key_id":"my-key"}"#)
            .await;
        assert_eq!(disabled.status, 200);
        let answer = site.kes("POST", "/v1/key/generate/my-key", "{}").await;
        assert_eq!(answer.status, 403);
        let told = answer.json();
        assert_eq!(
            told,
            json!({"message": message, "reason": "key is disabled"})
        );
    }
}

#[tokio::test]
async fn api_lists_the_routes_of_its_release() {
    for (generation, count) in [
        (Generation::V0_7, 15),
        (Generation::V0_13, 18),
        (Generation::V0_17, 19),
        (Generation::V0_22, 25),
        (Generation::Latest, 22),
    ] {
        let site = site(generation).await;
        let listed = site.kes("GET", "/v1/api", "").await.ok();
        let listed: Vec<(&str, &str)> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|api| {
                (
                    api["method"].as_str().unwrap(),
                    api["path"].as_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(listed.len(), count, "{generation:?}: {listed:?}");
        let has = |api| listed.contains(&api);
        let is_latest = generation == Generation::Latest;
        let create = if is_latest { "PUT" } else { "POST" };
        assert!(has((create, "/v1/key/create/")), "{listed:?}");
        assert_eq!(has(("PUT", "/v1/key/hmac/")), is_latest);
        assert_eq!(has(("POST", "/v1/policy/write/")), !is_latest);
        let log = if FIRST.contains(&generation) {
            "/v1/log/audit/trace"
        } else {
            "/v1/log/audit"
        };
        assert!(has(("GET", log)), "{listed:?}");
    }
}

#[tokio::test]
async fn older_generation_accepts_the_same_requests() {
    for generation in OLDER {
        let site = site(generation).await;
        for (method, path, body) in [
            ("PUT", "/v1/key/create/new", ""),
            ("PUT", "/v1/key/generate/new", "{}"),
            ("PUT", "/v1/key/hmac/new", "{}"),
            ("GET", "/v1/key/list/my-", ""),
            ("GET", "/v1/ready", ""),
            ("GET", "/v1/api", ""),
        ] {
            assert_eq!(site.kes(method, path, body).await.status, 200, "{path}");
        }
    }
}
