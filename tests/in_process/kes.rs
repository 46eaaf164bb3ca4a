//! KES's dialect: exact answers, the order of refusals, listings, and requests of real clients.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use bytes::Bytes;
use keyway_dialect_kes::{IdentityOf, Proven};
use keyway_domain::access::{Caller, Grant};
use keyway_domain::keys::{Deletion, DeletionWindow, HmacKey, KeyId, NewImport};
use keyway_domain::ports::Kind;
use keyway_domain::{Algorithm, Key256};
use keyway_http::{ClientCertificate, Peer, Request};
use keyway_tests::{Answer, KES_ADMIN, KesIdentity, MemorySite};
use serde_json::{Value, json};

/// Status, the headers that a client may read, and the exact body.
fn exact(answer: &Answer) -> String {
    let headers: Vec<String> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "x-request-id")
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    let body = String::from_utf8_lossy(&answer.body);
    format!("{}\n{}\n{body}", answer.status, headers.concat())
}

macro_rules! golden {
    ($name:expr, $answer:expr) => {
        insta::assert_snapshot!($name, exact(&$answer))
    };
}

/// Status and message of a refusal; also checks its shape.
fn refusal(answer: &Answer) -> (u16, String) {
    let body = std::str::from_utf8(&answer.body).unwrap();
    assert!(
        body.starts_with("{\"message\":\"") && body.ends_with("\"\n}"),
        "{body}"
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    (answer.status.as_u16(), answer.message())
}

fn said(status: u16, message: &str) -> (u16, String) {
    (status, message.to_owned())
}

const NOT_PERMITTED: &str = "not authorized: insufficient permissions";
const NOT_AUTHENTIC: &str = "decryption failed: ciphertext is not authentic";
const APP: &str = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";
const WINDOW: Deletion = Deletion::Scheduled(DeletionWindow::DEFAULT);

/// Makes a policy and assigns it to an identity.
async fn permit(site: &MemorySite, identity: &str, policy: &Value) {
    let name = format!("of-{}", &identity[..identity.len().min(8)]);
    let written = site
        .kes(
            "POST",
            &format!("/v1/policy/write/{name}"),
            &policy.to_string(),
        )
        .await;
    assert_eq!(exact(&written), "200 OK\n\n");
    let body = json!({ "identity": identity }).to_string();
    let assigned = site
        .kes("POST", &format!("/v1/policy/assign/{name}"), &body)
        .await;
    assert_eq!(exact(&assigned), "200 OK\n\n");
}

#[tokio::test]
async fn answers_about_keys_are_the_golden_ones() {
    let site = MemorySite::with_kes("default", Deletion::Immediate, "").await;
    golden!(
        "key_create",
        site.kes("PUT", "/v1/key/create/my-key", "").await
    );
    golden!(
        "key_create_again",
        site.kes("POST", "/v1/key/create/my-key", "").await
    );
    golden!(
        "key_create_bad_name",
        site.kes("PUT", "/v1/key/create/a%2Fb%3C%26%3E", "").await
    );
    golden!(
        "key_create_no_name",
        site.kes("PUT", "/v1/key/create/", "").await
    );
    golden!(
        "key_describe",
        site.kes("GET", "/v1/key/describe/my-key", "").await
    );
    golden!(
        "key_describe_missing",
        site.kes("GET", "/v1/key/describe/nope", "").await
    );
    site.kes("PUT", "/v1/key/create/my-key2", "").await;
    site.kes("PUT", "/v1/key/create/default", "").await;
    golden!("key_list", site.kes("GET", "/v1/key/list/", "").await);
    golden!(
        "key_list_prefix",
        site.kes("GET", "/v1/key/list/my-", "").await
    );
    golden!(
        "key_list_none",
        site.kes("GET", "/v1/key/list/zz", "").await
    );
    golden!(
        "key_list_lines",
        site.kes("GET", "/v1/key/list/my-key*", "").await
    );
    golden!(
        "key_list_no_lines",
        site.kes("GET", "/v1/key/list/zz*", "").await
    );
    golden!(
        "key_list_bad_pattern",
        site.kes("GET", "/v1/key/list/a.b", "").await
    );
    golden!(
        "key_generate",
        site.kes("PUT", "/v1/key/generate/my-key", "{}").await
    );
    golden!(
        "key_generate_missing",
        site.kes("PUT", "/v1/key/generate/nope", "").await
    );
    let body = r#"{"plaintext":"SGVsbG8gV29ybGQhCg=="}"#;
    let sealed = site.kes("PUT", "/v1/key/encrypt/my-key", body).await;
    golden!("key_encrypt", sealed);
    golden!(
        "key_encrypt_bad_body",
        site.kes("PUT", "/v1/key/encrypt/my-key", "").await
    );
    let sealed = sealed.text("ciphertext");
    let body = json!({ "ciphertext": sealed }).to_string();
    golden!(
        "key_decrypt",
        site.kes("PUT", "/v1/key/decrypt/my-key", &body).await
    );
    golden!(
        "key_decrypt_elsewhere",
        site.kes("PUT", "/v1/key/decrypt/my-key2", &body).await
    );
    golden!(
        "key_decrypt_missing",
        site.kes("PUT", "/v1/key/decrypt/nope", &body).await
    );
    let body =
        json!([{ "ciphertext": sealed }, { "ciphertext": sealed, "context": "" }]).to_string();
    golden!(
        "key_bulk_decrypt",
        site.kes("POST", "/v1/key/bulk/decrypt/my-key", &body).await
    );
    let body = json!(vec![json!({ "ciphertext": "" }); 1001]).to_string();
    golden!(
        "key_bulk_decrypt_many",
        site.kes("POST", "/v1/key/bulk/decrypt/my-key", &body).await
    );
    golden!(
        "key_delete",
        site.kes("DELETE", "/v1/key/delete/my-key", "").await
    );
    golden!(
        "key_delete_again",
        site.kes("DELETE", "/v1/key/delete/my-key", "").await
    );
    golden!(
        "key_delete_default",
        site.kes("DELETE", "/v1/key/delete/default", "").await
    );
    golden!(
        "too_large",
        site.kes("PUT", "/v1/key/encrypt/my-key2", &"x".repeat(1_000_001))
            .await
    );
}

#[tokio::test]
async fn answers_about_imports_are_the_golden_ones() {
    let site = MemorySite::running().await;
    let key = "uNta318uv2GvEmMs5U4HiIWE/GtrpADR0cYZg+nhrkI=";
    let body = json!({ "bytes": key }).to_string();
    golden!(
        "key_import",
        site.kes("POST", "/v1/key/import/my-key", &body).await
    );
    golden!(
        "key_import_again",
        site.kes("PUT", "/v1/key/import/my-key", &body).await
    );
    let latest = json!({ "key": key, "cipher": "ChaCha20" }).to_string();
    let chacha = site.kes("PUT", "/v1/key/import/chacha", &latest).await;
    assert_eq!(exact(&chacha), "200 OK\n\n");
    golden!(
        "key_import_describe",
        site.kes("GET", "/v1/key/describe/chacha", "").await
    );
    for (name, body) in [
        ("key_import_no_body", String::new()),
        (
            "key_import_bad_cipher",
            json!({"key": key, "cipher": "DES"}).to_string(),
        ),
        (
            "key_import_bad_size",
            json!({"key": "AAAA", "cipher": "AES256"}).to_string(),
        ),
        ("key_import_no_cipher", json!({ "key": key }).to_string()),
    ] {
        golden!(name, site.kes("PUT", "/v1/key/import/new", &body).await);
    }
    // An imported key behaves as any other key.
    for name in ["my-key", "chacha"] {
        let made = site
            .kes("POST", &format!("/v1/key/generate/{name}"), "{}")
            .await
            .ok();
        let body = json!({"ciphertext": made["ciphertext"]}).to_string();
        let path = format!("/v1/key/decrypt/{name}");
        let opened = site.kes("POST", &path, &body).await.ok();
        assert_eq!(opened["plaintext"], made["plaintext"]);
    }
}

#[tokio::test]
async fn ciphertext_of_kes_opens_under_the_imported_key() {
    let vectors: Value =
        serde_json::from_str(include_str!("../../vectors/kes-ciphertexts.json")).unwrap();
    let site = MemorySite::running().await;
    let mut opened = 0;
    for (number, vector) in vectors["ciphertexts"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let cipher = vector["cipher"].as_str().unwrap();
        if vector["format"] == "json-insecure-kdf" {
            continue;
        }
        let body = json!({"key": vector["key"], "cipher": cipher}).to_string();
        let name = format!("key-{number}");
        let imported = site
            .kes("POST", &format!("/v1/key/import/{name}"), &body)
            .await;
        assert_eq!(imported.status, 200, "{vector}");
        let body = json!({"ciphertext": vector["ciphertext"], "context": vector["context"]});
        let path = format!("/v1/key/decrypt/{name}");
        let answer = site.kes("POST", &path, &body.to_string()).await;
        assert_eq!(answer.ok()["plaintext"], vector["plaintext"], "{vector}");
        opened += 1;
        let elsewhere =
            json!({"ciphertext": vector["ciphertext"], "context": "ZWxzZXdoZXJl"}).to_string();
        assert_eq!(
            refusal(&site.kes("POST", &path, &elsewhere).await),
            said(400, NOT_AUTHENTIC)
        );
    }
    assert!(opened >= 12, "{opened}");
}

#[tokio::test]
async fn answers_about_hmacs_are_the_golden_ones() {
    let site = MemorySite::running().await;
    site.kes("PUT", "/v1/key/create/my-key", "").await;
    let body = r#"{"message":"cm9vdCBhY2Nlc3Mga2V5"}"#;
    let hmac = async |method, body| {
        site.kes(method, "/v1/key/hmac/my-key", body)
            .await
            .text("hmac")
    };
    let first = hmac("PUT", body).await;
    assert_eq!(STANDARD.decode(&first).unwrap().len(), 32);
    assert_eq!(hmac("POST", body).await, first);
    assert_ne!(hmac("PUT", "{}").await, first);
    // Rotation changes the key that seals, and not the HMAC key, from which clients derive credentials.
    let rotated = site
        .call("POST", "/kms/keys/rotate", r#"{"key_id":"my-key"}"#)
        .await;
    assert_eq!(rotated.status, 200);
    assert_eq!(hmac("PUT", body).await, first);
    golden!(
        "key_hmac",
        site.kes("PUT", "/v1/key/hmac/my-key", body).await
    );
    golden!(
        "key_hmac_text",
        site.kes(
            "PUT",
            "/v1/key/hmac/my-key",
            r#"{"message":"Data to use to generate the HMAC secret"}"#
        )
        .await
    );
    golden!(
        "key_hmac_missing",
        site.kes("PUT", "/v1/key/hmac/absent", "{}").await
    );
    let without = NewImport {
        id: KeyId::parse("id", "without").unwrap(),
        material: Key256::from([7; 32]),
        algorithm: Algorithm::Aes256,
        hmac_key: HmacKey::Absent,
        created_at: None,
        created_by: None,
    };
    let owner = Caller::new("owner", Arc::new(Grant::Owner));
    site.keys().import(&owner, without).await.unwrap();
    golden!(
        "key_hmac_none",
        site.kes("PUT", "/v1/key/hmac/without", "{}").await
    );
}

#[tokio::test]
async fn answers_about_policies_and_identities_are_the_golden_ones() {
    let site = MemorySite::running().await;
    let body = json!({"allow": {"/v1/key/generate/my-key": {}, "/v1/key/decrypt/my-key": {}, "/v1/policy/*": {}},
        "deny": {"/v1/key/decrypt/my-key-internal*": {}}});
    golden!(
        "policy_write",
        site.kes("POST", "/v1/policy/write/my-policy", &body.to_string())
            .await
    );
    golden!(
        "policy_write_bad_body",
        site.kes("POST", "/v1/policy/write/my-policy", "x").await
    );
    golden!(
        "policy_describe",
        site.kes("GET", "/v1/policy/describe/my-policy", "").await
    );
    golden!(
        "policy_read",
        site.kes("GET", "/v1/policy/read/my-policy", "").await
    );
    golden!(
        "policy_read_missing",
        site.kes("GET", "/v1/policy/read/nope", "").await
    );
    golden!(
        "policy_read_bad_name",
        site.kes("GET", "/v1/policy/read/a.b", "").await
    );
    site.kes("PUT", "/v1/policy/write/empty", "{}").await;
    golden!(
        "policy_read_empty",
        site.kes("GET", "/v1/policy/read/empty", "").await
    );
    golden!("policy_list", site.kes("GET", "/v1/policy/list/", "").await);
    golden!(
        "policy_list_lines",
        site.kes("GET", "/v1/policy/list/*", "").await
    );
    let any = [("accept", "*/*")];
    let whole = site
        .kes_as(Some(KES_ADMIN), "GET", "/v1/policy/list/*", &any, "")
        .await;
    golden!("policy_list_whole", whole);

    let body = json!({ "identity": APP }).to_string();
    golden!(
        "policy_assign",
        site.kes("POST", "/v1/policy/assign/my-policy", &body).await
    );
    golden!(
        "policy_assign_missing",
        site.kes("POST", "/v1/policy/assign/nope", &body).await
    );
    golden!(
        "policy_assign_nobody",
        site.kes("POST", "/v1/policy/assign/my-policy", "{}").await
    );
    let admin = json!({ "identity": KES_ADMIN }).to_string();
    golden!(
        "policy_assign_admin",
        site.kes("POST", "/v1/policy/assign/my-policy", &admin)
            .await
    );
    let answer = site
        .kes_as(Some(APP), "POST", "/v1/policy/assign/my-policy", &[], &body)
        .await;
    golden!("policy_assign_self", answer);
    let path = format!("/v1/identity/assign/my-policy/{}", "b".repeat(64));
    golden!("identity_assign", site.kes("POST", &path, "").await);
    golden!(
        "identity_describe",
        site.kes("GET", &format!("/v1/identity/describe/{APP}"), "")
            .await
    );
    golden!(
        "identity_describe_admin",
        site.kes("GET", &format!("/v1/identity/describe/{KES_ADMIN}"), "")
            .await
    );
    golden!(
        "identity_describe_missing",
        site.kes("GET", "/v1/identity/describe/nope", "").await
    );
    golden!(
        "identity_describe_bad_name",
        site.kes("GET", "/v1/identity/describe/-", "").await
    );
    golden!(
        "identity_list",
        site.kes("GET", "/v1/identity/list/", "").await
    );
    golden!(
        "identity_list_lines",
        site.kes("GET", "/v1/identity/list/*", "").await
    );
    let whole = site
        .kes_as(Some(KES_ADMIN), "GET", "/v1/identity/list/*", &any, "")
        .await;
    golden!("identity_list_whole", whole);
    golden!(
        "self_describe_admin",
        site.kes("GET", "/v1/identity/self/describe", "").await
    );
    let of_self = async |who| {
        site.kes_as(who, "GET", "/v1/identity/self/describe", &[], "")
            .await
    };
    golden!("self_describe", of_self(Some(APP)).await);
    golden!("self_describe_unknown", of_self(Some("nobody")).await);
    golden!("self_describe_no_certificate", of_self(None).await);
    golden!(
        "identity_forget",
        site.kes("DELETE", &format!("/v1/identity/forget/{APP}"), "")
            .await
    );
    golden!(
        "identity_delete_again",
        site.kes("DELETE", &format!("/v1/identity/delete/{APP}"), "")
            .await
    );
    golden!(
        "policy_delete",
        site.kes("DELETE", "/v1/policy/delete/my-policy", "").await
    );
    golden!(
        "policy_delete_again",
        site.kes("DELETE", "/v1/policy/delete/my-policy", "").await
    );
    let left = site.kes("GET", "/v1/identity/list/", "").await.ok();
    assert_eq!(left["identities"], json!([KES_ADMIN]));
}

#[tokio::test]
async fn answers_about_the_server_are_the_golden_ones() {
    let site = MemorySite::running().await;
    golden!(
        "version",
        site.kes_as(None, "GET", "/version", &[], "").await
    );
    golden!(
        "version_head",
        site.kes_as(None, "HEAD", "/version", &[], "").await
    );
    golden!("ready", site.kes("GET", "/v1/ready", "").await);
    golden!("ready_head", site.kes("HEAD", "/v1/ready", "").await);
    site.clock.advance(std::time::Duration::from_secs(724_306));
    golden!("status", site.kes("GET", "/v1/status", "").await);
    golden!("status_head", site.kes("HEAD", "/v1/status", "").await);
    golden!("api", site.kes("GET", "/v1/api", "").await);
    golden!("unknown", site.kes("GET", "/v1/nothing", "").await);
    golden!("unknown_head", site.kes("HEAD", "/nothing", "").await);
    golden!(
        "unsupported",
        site.kes("GET", "/v1/enclave/describe/x", "").await
    );
    golden!(
        "wrong_method_put",
        site.kes("GET", "/v1/key/create/x", "").await
    );
    golden!("wrong_method_get", site.kes("PUT", "/v1/status", "").await);
    golden!(
        "wrong_method_head",
        site.kes("HEAD", "/v1/key/list/", "").await
    );
    golden!(
        "wrong_method_delete",
        site.kes("GET", "/v1/key/delete/x", "").await
    );
    golden!(
        "ready_denied_head",
        site.kes_as(Some("app"), "HEAD", "/v1/ready", &[], "").await
    );
}

#[tokio::test]
async fn service_not_running_is_reported() {
    let site = MemorySite::not_configured(false).await;
    golden!(
        "not_configured",
        site.kes("PUT", "/v1/key/create/k", "").await
    );
    golden!(
        "not_configured_ready",
        site.kes("GET", "/v1/ready", "").await
    );
    golden!(
        "not_configured_status",
        site.kes("GET", "/v1/status", "").await
    );
    let site = MemorySite::running().await;
    site.kes("PUT", "/v1/key/create/k", "").await;
    site.call("POST", "/kms/stop", "").await.ok();
    golden!(
        "not_running",
        site.kes("POST", "/v1/key/generate/k", "").await
    );
    golden!("not_running_ready", site.kes("GET", "/v1/ready", "").await);
    site.call("POST", "/kms/start", "").await.ok();
    for (state, body) in [
        ("disable", json!({"key_id": "k"})),
        ("enable", json!({"key_id": "k"})),
    ] {
        site.call("POST", &format!("/kms/keys/{state}"), &body.to_string())
            .await
            .ok();
        let answer = site.kes("POST", "/v1/key/generate/k", "").await;
        if state == "disable" {
            golden!("disabled", answer);
        } else {
            assert_eq!(answer.status, 200);
        }
    }
    site.call("DELETE", "/kms/keys/delete", r#"{"key_id":"k"}"#)
        .await
        .ok();
    golden!("pending", site.kes("POST", "/v1/key/encrypt/k", "{}").await);
    golden!(
        "pending_delete",
        site.kes("DELETE", "/v1/key/delete/k", "").await
    );
}

#[tokio::test]
async fn deletion_can_be_scheduled_instead() {
    let site = MemorySite::with_kes("default", WINDOW, "").await;
    for key in ["k", "default"] {
        site.kes("PUT", &format!("/v1/key/create/{key}"), "").await;
    }
    assert_eq!(
        exact(&site.kes("DELETE", "/v1/key/delete/k", "").await),
        "200 OK\n\n"
    );
    let described = site.call("GET", "/kms/keys/k", "").await.ok().to_string();
    assert!(described.contains("PendingDeletion"), "{described}");
    let referenced = said(403, NOT_PERMITTED);
    assert_eq!(
        refusal(&site.kes("DELETE", "/v1/key/delete/default", "").await),
        referenced
    );
    let pending = said(403, NOT_PERMITTED);
    for (method, path) in [
        ("DELETE", "/v1/key/delete/k"),
        ("POST", "/v1/key/generate/k"),
    ] {
        assert_eq!(
            refusal(&site.kes(method, path, "").await),
            pending,
            "{path}"
        );
    }
    assert_eq!(
        refusal(&site.kes("PUT", "/v1/key/create/k", "").await),
        said(400, "key already exists")
    );
    // KES's dialect does not bypass RustFS's opt-in.
    let immediate = r#"{"key_id":"default","force_immediate":true,"confirm_key_id":"default"}"#;
    assert_eq!(
        site.call("DELETE", "/kms/keys/delete", immediate)
            .await
            .status,
        403
    );
}

#[tokio::test]
async fn creations_at_once_have_one_winner() {
    let site = Arc::new(MemorySite::running().await);
    let creates: Vec<_> = (0..64)
        .map(|_| {
            let site = site.clone();
            tokio::spawn(async move { site.kes("POST", "/v1/key/create/once", "").await })
        })
        .collect();
    let mut made = 0;
    for create in creates {
        let answer = create.await.unwrap();
        if answer.status == 200 {
            made += 1;
        } else {
            assert_eq!(refusal(&answer), said(400, "key already exists"));
        }
    }
    assert_eq!(made, 1);
}

#[tokio::test]
async fn route_refuses_callers_before_it_reads_name_and_body() {
    let site = MemorySite::with_kes("default", Deletion::Immediate, "").await;
    site.kes("PUT", "/v1/key/create/k", "").await;
    permit(&site, "denied", &json!({"allow": ["/v1/*"], "deny": ["*"]})).await;
    let before = (
        site.records(Kind::Key).await,
        site.records(Kind::Policy).await,
    );
    for (_, method, route) in site.kes_routes() {
        for name in ["k", "absent", "a%2Fb", "-", &"x".repeat(100)] {
            let path = route.replace("{*name}", name);
            let call = async |who, body| site.kes_as(who, method, &path, &[], body).await;
            for (who, expected) in [
                (None, said(400, "tls: client certificate is required")),
                (
                    Some("plain"),
                    said(400, "insecure connection: TLS is required"),
                ),
                (
                    Some("several"),
                    said(400, "tls: received more than one client certificate"),
                ),
                (Some("!"), said(400, "tls: client certificate is not valid")),
                (Some("stranger"), said(403, NOT_PERMITTED)),
                (Some("denied"), said(403, NOT_PERMITTED)),
            ] {
                let answer = call(who, "{").await;
                match route.as_str() {
                    "/version" => assert_eq!(answer.status, 200),
                    "/v1/identity/self/describe" if who == Some("stranger") => {
                        assert_eq!(refusal(&answer), said(404, "identity does not exist"));
                    }
                    "/v1/identity/self/describe" if who == Some("denied") => {
                        assert_eq!(answer.status, 200);
                    }
                    _ if method == "HEAD" => {
                        assert_eq!((answer.status.as_u16(), answer.body.len()), (expected.0, 0));
                    }
                    _ => assert_eq!(refusal(&answer), expected, "{method} {path} {who:?}"),
                }
            }
        }
    }
    assert_eq!(
        (
            site.records(Kind::Key).await,
            site.records(Kind::Policy).await
        ),
        before
    );
}

#[tokio::test]
async fn checks_of_a_request_have_one_order() {
    let site = MemorySite::running().await;
    site.kes("PUT", "/v1/key/create/k", "").await;
    permit(
        &site,
        APP,
        &json!({"allow": {"/v1/key/encrypt/*": {}, "/v1/key/decrypt/k": {}}}),
    )
    .await;
    let long = "x".repeat(1_000_001);
    let call = async |who, method, path, body| site.kes_as(who, method, path, &[], body).await;
    let bad_name = |name: &str| {
        said(
            400,
            &format!("key name '{name}' is empty, too long or contains invalid characters"),
        )
    };
    // Route, method and limit come before authentication.
    assert_eq!(
        call(None, "PUT", "/v1/key/nothing/k", &long).await.status,
        404
    );
    assert_eq!(
        call(None, "GET", "/v1/key/encrypt/k", &long).await.status,
        405
    );
    assert_eq!(
        refusal(&call(None, "PUT", "/v1/key/encrypt/k", &long).await),
        said(400, "invalid request body")
    );
    // Then authentication, permission, the name, the body, and the key.
    let no_certificate = said(400, "tls: client certificate is required");
    assert_eq!(
        refusal(&call(None, "PUT", "/v1/key/encrypt/a.b", "{").await),
        no_certificate
    );
    let denied = said(403, NOT_PERMITTED);
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/generate/a.b", "{").await),
        denied
    );
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/encrypt/a.b", "{").await),
        bad_name("a.b")
    );
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/encrypt/..%2Fdecrypt%2Fk", "{").await),
        bad_name("../decrypt/k")
    );
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/encrypt/nope", "{").await),
        said(400, "invalid request body")
    );
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/encrypt/nope", "{}").await),
        said(404, "key does not exist")
    );
    assert_eq!(
        call(Some(APP), "PUT", "/v1/key/encrypt/k", "{}")
            .await
            .status,
        200
    );
    let fits = format!("{{\"plaintext\":\"\"{}}}", " ".repeat(1_000_000 - 16));
    assert_eq!(fits.len(), 1_000_000);
    assert_eq!(
        call(Some(APP), "PUT", "/v1/key/encrypt/k", &fits)
            .await
            .status,
        200
    );
    // Policies match the decoded path.
    assert_eq!(
        call(Some(APP), "PUT", "/v1/key/decrypt/%6B", "{")
            .await
            .status,
        400
    );
    assert_eq!(
        refusal(&call(Some(APP), "PUT", "/v1/key/decrypt/%6Bx", "{").await),
        denied
    );
    assert_eq!(site.kes("PUT", "/v1/key/create/%ff", "").await.status, 400);
    assert_eq!(site.kes("PUT", "/v1/key/create/%zz", "").await.status, 400);
    // A ciphertext of another key is not authentic, whether or not the caller may use that key.
    site.kes("PUT", "/v1/key/create/other", "").await;
    let sealed = site
        .kes("PUT", "/v1/key/encrypt/other", "{}")
        .await
        .text("ciphertext");
    let body = json!({ "ciphertext": sealed }).to_string();
    let answer = call(Some(APP), "PUT", "/v1/key/decrypt/k", &body).await;
    assert_eq!(refusal(&answer), said(400, NOT_AUTHENTIC));
}

#[tokio::test]
async fn open_path_needs_no_identity() {
    let site = MemorySite::with_kes("default", Deletion::Immediate, "/v1/ready, /v1/api").await;
    for who in [None, Some("stranger"), Some("several")] {
        for path in ["/v1/ready", "/v1/api"] {
            assert_eq!(
                site.kes_as(who, "GET", path, &[], "").await.status,
                200,
                "{path}"
            );
        }
        assert_ne!(
            site.kes_as(who, "GET", "/v1/status", &[], "").await.status,
            200
        );
    }
    permit(&site, APP, &json!({"allow": ["/v1/status"]})).await;
    assert_eq!(
        site.kes_as(Some(APP), "GET", "/v1/status", &[], "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn name_malformed_is_refused() {
    let site = MemorySite::running().await;
    for name in ["a", "0", "_-___---_", "__", "my-key_1", &"x".repeat(80)] {
        assert_eq!(
            exact(&site.kes("PUT", &format!("/v1/key/create/{name}"), "").await),
            "200 OK\n\n",
            "{name}"
        );
        assert_eq!(
            site.kes("GET", &format!("/v1/key/describe/{name}"), "")
                .await
                .text("name"),
            *name
        );
    }
    let before = site.records(Kind::Key).await;
    let too_long = "x".repeat(81);
    for (raw, name) in [
        ("", ""),
        ("_", "_"),
        ("-a", "-a"),
        ("a-", "a-"),
        ("-", "-"),
        ("a.b", "a.b"),
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("%252F", "%2F"),
        ("a%20b", "a b"),
        ("%C3%A9", "é"),
        ("a%00", "a\0"),
        ("..", ".."),
        ("*", "*"),
        ("a~b", "a~b"),
        ("%3Cb%3E", "<b>"),
        (&too_long, &too_long),
    ] {
        for (method, route, what) in [
            ("PUT", "key/create", "key name"),
            ("GET", "key/describe", "key name"),
            ("DELETE", "key/delete", "key name"),
            ("PUT", "key/generate", "key name"),
            ("PUT", "key/encrypt", "key name"),
            ("PUT", "key/decrypt", "key name"),
            ("PUT", "key/bulk/decrypt", "key name"),
            ("PUT", "policy/write", "policy name"),
            ("GET", "policy/read", "policy name"),
            ("GET", "policy/describe", "policy name"),
            ("DELETE", "policy/delete", "policy name"),
            ("PUT", "policy/assign", "policy name"),
            ("GET", "identity/describe", "identity"),
            ("DELETE", "identity/delete", "identity"),
            ("DELETE", "identity/forget", "identity"),
        ] {
            let answer = site.kes(method, &format!("/v1/{route}/{raw}"), "{}").await;
            let expected =
                format!("{what} '{name}' is empty, too long or contains invalid characters");
            assert_eq!(
                refusal(&answer),
                said(400, &expected),
                "{method} {route}/{raw}"
            );
        }
    }
    let answer = site
        .kes("PUT", &format!("/v1/key/create/{}", "x".repeat(5000)), "")
        .await;
    assert!(
        answer.status == 400 && answer.body.len() < 2000,
        "answers are bounded"
    );
    assert_eq!(site.records(Kind::Key).await, before);
}

#[tokio::test]
async fn body_is_decoded_as_go_does() {
    let site = MemorySite::running().await;
    site.kes("PUT", "/v1/key/create/k", "a body that nobody looks at")
        .await;
    let hello = STANDARD.encode("hello?>");
    let encrypt = async |body: &str| site.kes("POST", "/v1/key/encrypt/k", body).await;
    let decrypted = async |sealed: &Answer, context: &str| {
        let body = json!({ "ciphertext": sealed.text("ciphertext"), "context": context });
        site.kes("POST", "/v1/key/decrypt/k", &body.to_string())
            .await
    };
    for (body, plaintext) in [
        (format!(r#"{{"plaintext":"{hello}"}}"#), hello.as_str()),
        (
            format!(r#"{{"PlainText":"{hello}","unknown":{{"a":[1,"x",null]}}}}"#),
            &hello,
        ),
        (
            format!(r#"{{"plaintext":"AAAA","plaintext":"{hello}"}}"#),
            &hello,
        ),
        (
            format!(r#"  {{"plaintext":"{hello}"}} trailing {{"#),
            &hello,
        ),
        (
            format!(r#"{{"plaintext":"{}"}}"#, hello.replace('/', "\\/")),
            &hello,
        ),
        (r#"{"plaintext":[104,105]}"#.to_owned(), "aGk="),
        (r#"{"plaintext":null,"context":null}"#.to_owned(), ""),
        (r#"{"plaintext":""}"#.to_owned(), ""),
        ("{}".to_owned(), ""),
        ("null".to_owned(), ""),
        ("null null".to_owned(), ""),
    ] {
        let sealed = encrypt(&body).await;
        assert_eq!(
            decrypted(&sealed, "").await.text("plaintext"),
            plaintext,
            "{body}"
        );
    }
    let bound = encrypt(r#"{"plaintext":"","Context":"eyJhIjoiYiJ9"}"#).await;
    assert_eq!(
        decrypted(&bound, "eyJhIjoiYiJ9").await.text("plaintext"),
        ""
    );
    assert_eq!(
        refusal(&decrypted(&bound, "").await),
        said(400, NOT_AUTHENTIC)
    );

    let (unpadded, url) = (
        STANDARD_NO_PAD.encode("hello?>"),
        URL_SAFE.encode("hello?>>>"),
    );
    for bad in [
        "",
        " ",
        "{",
        "[]",
        "\"x\"",
        "5",
        "true",
        "x",
        r#"{"plaintext":5}"#,
        r#"{"plaintext":{}}"#,
        r#"{"plaintext":true}"#,
        r#"{"plaintext":[256]}"#,
        r#"{"plaintext":["a"]}"#,
        r#"{"plaintext":"a"}"#,
        r#"{"plaintext":"aGk"}"#,
        r#"{"plaintext":"a Gk="}"#,
        r#"{"plaintext":"aGk=", "context":1}"#,
        r#"{"plaintext":"aGk=",}"#,
        r#"{plaintext:1}"#,
        "{\"plaintext\":\"aGk=\n\"}",
        &format!(r#"{{"plaintext":"{unpadded}"}}"#),
        &format!(r#"{{"plaintext":"{url}"}}"#),
    ] {
        for route in ["encrypt", "decrypt"] {
            let bad = bad.replace(
                "plaintext",
                if route == "encrypt" {
                    "plaintext"
                } else {
                    "ciphertext"
                },
            );
            let answer = site.kes("POST", &format!("/v1/key/{route}/k"), &bad).await;
            assert_eq!(
                refusal(&answer),
                said(400, "invalid request body"),
                "{route} {bad}"
            );
        }
        if bad.is_empty() {
            assert_eq!(
                site.kes("POST", "/v1/key/generate/k", bad).await.status,
                200
            );
        }
    }
    for bad in ["{", "[]", "x", r#"{"context":5}"#, r#"{"context":"a"}"#] {
        let answer = site.kes("POST", "/v1/key/generate/k", bad).await;
        assert_eq!(
            refusal(&answer),
            said(400, "invalid request body"),
            "generate {bad}"
        );
    }
    for bad in ["{", "{}", "x", r#"[{"ciphertext":5}]"#, "[5]"] {
        let answer = site.kes("POST", "/v1/key/bulk/decrypt/k", bad).await;
        assert_eq!(
            refusal(&answer),
            said(400, "invalid request body"),
            "bulk {bad}"
        );
    }
    for empty in ["[]", "null"] {
        assert_eq!(
            site.kes("POST", "/v1/key/bulk/decrypt/k", empty).await.ok(),
            json!([])
        );
    }
    let junk = STANDARD.encode([7; 200]);
    for sealed in ["", "AAAA", &junk, "eyJhZWFkIjoiQUVTLTI1Ni1HQ00ifQ=="] {
        let body = json!({ "ciphertext": sealed });
        let answer = site
            .kes("POST", "/v1/key/decrypt/k", &body.to_string())
            .await;
        assert_eq!(refusal(&answer), said(400, NOT_AUTHENTIC), "{sealed}");
        let answer = site
            .kes("POST", "/v1/key/bulk/decrypt/k", &json!([body]).to_string())
            .await;
        assert_eq!(refusal(&answer), said(400, NOT_AUTHENTIC), "{sealed}");
    }
    // RustFS's dialect refuses this: a plaintext of more than 64 KiB.
    let large = STANDARD.encode(vec![1; 740_000]);
    let sealed = encrypt(&json!({ "plaintext": large }).to_string()).await;
    assert_eq!(decrypted(&sealed, "").await.text("plaintext"), large);
}

#[tokio::test]
async fn policy_in_the_words_of_any_generation_is_taken() {
    let site = MemorySite::running().await;
    for (body, allow, deny) in [
        (
            r#"{"paths":["/a","/b"]}"#,
            json!({"/a": {}, "/b": {}}),
            Value::Null,
        ),
        (
            r#"{"allow":["/b","/a"],"deny":["/c"]}"#,
            json!({"/a": {}, "/b": {}}),
            json!({"/c": {}}),
        ),
        (
            r#"{"Allow":{"/a":{}},"Deny":{"/c":null,"/d":1}}"#,
            json!({"/a": {}}),
            json!({"/c": {}, "/d": {}}),
        ),
        (
            r#"{"paths":["/a"],"allow":["/b"],"x":1}"#,
            json!({"/a": {}, "/b": {}}),
            Value::Null,
        ),
        (r#"{"allow":null,"deny":null}"#, Value::Null, Value::Null),
        ("null", Value::Null, Value::Null),
    ] {
        site.kes("POST", "/v1/policy/write/p", body).await;
        let read = site.kes("GET", "/v1/policy/read/p", "").await.ok();
        assert_eq!((&read["allow"], &read["deny"]), (&allow, &deny), "{body}");
    }
    for bad in [
        "",
        "{",
        "[]",
        r#"{"allow":"/a"}"#,
        r#"{"allow":[1]}"#,
        r#"{"paths":5}"#,
    ] {
        let answer = site.kes("POST", "/v1/policy/write/p", bad).await;
        assert_eq!(refusal(&answer), said(400, "invalid request body"), "{bad}");
    }
    let many: Vec<String> = (0..2049).map(|n| format!("/{n}")).collect();
    let answer = site
        .kes(
            "POST",
            "/v1/policy/write/p",
            &json!({ "allow": many }).to_string(),
        )
        .await;
    assert_eq!(
        refusal(&answer),
        said(400, "policy must have at most 2048 patterns")
    );
}

#[tokio::test]
async fn policy_change_needs_the_permission_for_its_path() {
    let site = MemorySite::running().await;
    permit(&site, APP, &json!({"allow": ["/v1/policy/write/team-*", "/v1/identity/assign/team-a/*", "/v1/identity/forget/*"]})).await;
    let call =
        async |method, path: &str, body| site.kes_as(Some(APP), method, path, &[], body).await;
    assert_eq!(
        call("POST", "/v1/policy/write/team-a", "{}").await.status,
        200
    );
    assert_eq!(
        refusal(&call("POST", "/v1/policy/write/other", "{}").await),
        said(403, NOT_PERMITTED)
    );
    assert_eq!(
        refusal(&call("DELETE", "/v1/policy/delete/team-a", "").await),
        said(403, NOT_PERMITTED)
    );
    assert_eq!(
        call("POST", "/v1/identity/assign/team-a/somebody", "")
            .await
            .status,
        200
    );
    assert_eq!(
        refusal(&call("POST", "/v1/identity/assign/of-a4eac2d8/somebody", "").await),
        said(403, NOT_PERMITTED)
    );
    let to_self = call("POST", &format!("/v1/identity/assign/team-a/{APP}"), "").await;
    assert_eq!(
        refusal(&to_self),
        said(403, "identity cannot assign policy to itself")
    );
    let to_admin = call(
        "POST",
        &format!("/v1/identity/assign/team-a/{KES_ADMIN}"),
        "",
    )
    .await;
    assert_eq!(refusal(&to_admin), said(400, "identity is root"));
    assert_eq!(
        refusal(&call("DELETE", &format!("/v1/identity/forget/{KES_ADMIN}"), "").await),
        said(400, "identity is root")
    );
    assert_eq!(
        call("DELETE", "/v1/identity/forget/somebody", "")
            .await
            .status,
        200
    );
}

/// All names of a listing, over its pages.
async fn by_pages(site: &MemorySite, route: &str, field: &str, first: &str) -> Vec<String> {
    let (mut names, mut at, mut pages) = (Vec::new(), first.to_owned(), 0);
    loop {
        let accept = [("accept", "application/json")];
        let page = site
            .kes_as(
                Some(KES_ADMIN),
                "GET",
                &format!("/v1/{route}/{at}"),
                &accept,
                "",
            )
            .await
            .ok();
        names.extend(
            page[field]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned()),
        );
        pages += 1;
        assert!(pages < 100, "a listing ends");
        match page["continue_at"].as_str() {
            Some(next) if !next.is_empty() => at = next.to_owned(),
            _ => return names,
        }
    }
}

fn lines(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["name"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn listing_of_ten_thousand_keys_reaches_each_once() {
    let site = MemorySite::running().await;
    let mut expected = BTreeSet::new();
    for n in 0..10_000 {
        let name = format!("{}-{n}", if n % 3 == 0 { "my-key" } else { "Other_" });
        assert_eq!(
            site.kes("POST", &format!("/v1/key/create/{name}"), "")
                .await
                .status,
            200
        );
        expected.insert(name);
    }
    // The listing leaves out ids of RustFS that are no names of KES.
    for id in ["a.b", "a-", &"y".repeat(100)] {
        site.call("POST", "/kms/keys", &json!({ "key_id": id }).to_string())
            .await
            .ok();
    }
    let all: Vec<String> = expected.iter().cloned().collect();
    let mine: Vec<String> = all
        .iter()
        .filter(|name| name.starts_with("my-key-1"))
        .cloned()
        .collect();
    assert_eq!(by_pages(&site, "key/list", "names", "").await, all);
    assert_eq!(by_pages(&site, "key/list", "names", "my-key-1").await, mine);
    assert_eq!(
        by_pages(&site, "key/list", "names", "my-key-1*").await,
        mine
    );
    assert_eq!(by_pages(&site, "key/list", "names", "%2A").await, all);
    let wild: Vec<String> = all
        .iter()
        .filter(|name| name.ends_with("7"))
        .cloned()
        .collect();
    assert_eq!(by_pages(&site, "key/list", "names", "*7").await, wild);
    assert_eq!(lines(&site.kes("GET", "/v1/key/list/*", "").await), all);
    assert_eq!(lines(&site.kes("GET", "/v1/key/list/%2a7", "").await), wild);
    assert_eq!(
        site.kes("GET", "/v1/key/list", "").await.ok()["names"]
            .as_array()
            .unwrap()
            .len(),
        1000
    );
}

#[tokio::test]
async fn listing_has_pages_and_patterns() {
    let site = MemorySite::running().await;
    for name in ["a", "a1", "ab", "b-1", "b-2", "c_x"] {
        site.kes("PUT", &format!("/v1/key/create/{name}"), "").await;
        site.kes("PUT", &format!("/v1/policy/write/{name}"), "{}")
            .await;
        site.kes("PUT", &format!("/v1/identity/assign/a/{name}"), "")
            .await;
    }
    for (pattern, expected) in [
        ("*", &["a", "a1", "ab", "b-1", "b-2", "c_x"][..]),
        ("a*", &["a", "a1", "ab"]),
        ("a?", &["a1", "ab"]),
        ("?-[2-9]", &["b-2"]),
        ("[^b]?", &["a1", "ab"]),
        ("b-*", &["b-1", "b-2"]),
        ("*x", &["c_x"]),
        ("z*", &[]),
    ] {
        let raw = pattern
            .replace('?', "%3F")
            .replace('[', "%5B")
            .replace(']', "%5D")
            .replace('^', "%5E");
        assert_eq!(
            lines(&site.kes("GET", &format!("/v1/key/list/{raw}"), "").await),
            expected,
            "{pattern}"
        );
        assert_eq!(
            lines(&site.kes("GET", &format!("/v1/policy/list/{raw}"), "").await),
            expected,
            "{pattern}"
        );
        assert_eq!(
            by_pages(&site, "key/list", "names", &raw).await,
            expected,
            "{pattern}"
        );
        assert_eq!(
            by_pages(&site, "policy/list", "names", &raw).await,
            expected,
            "{pattern}"
        );
        let accept = [("accept", "*/*")];
        let whole = async |kind: &str| {
            site.kes_as(
                Some(KES_ADMIN),
                "GET",
                &format!("/v1/{kind}/list/{raw}"),
                &accept,
                "",
            )
            .await
        };
        assert_eq!(whole("policy").await.ok(), json!(expected), "{pattern}");
        let map = whole("identity").await.ok();
        assert_eq!(
            map.as_object().unwrap().keys().collect::<Vec<_>>(),
            expected,
            "{pattern}"
        );
        assert_eq!(lines(&whole("key").await), expected, "{pattern}");
    }
    for bad in [
        "a.b",
        "a/b",
        "%20",
        "a~",
        "~",
        "a~-",
        "a~b~c",
        "%5B",
        "a%5D",
        "%5E",
        "%5Ba",
        "a%5C%2A",
        &"x".repeat(81),
    ] {
        for kind in ["key", "policy", "identity"] {
            let answer = site.kes("GET", &format!("/v1/{kind}/list/{bad}"), "").await;
            let (status, message) = refusal(&answer);
            assert_eq!(status, 400, "{kind} {bad}");
            assert!(
                message.ends_with("is empty, too long or is invalid"),
                "{message}"
            );
        }
    }
    // A permission is for the pattern of the request, on later pages too.
    permit(&site, APP, &json!({"allow": ["/v1/key/list/a*"]})).await;
    for (path, status) in [
        ("/v1/key/list/a", 200),
        ("/v1/key/list/a%2A", 200),
        ("/v1/key/list/a~a1", 200),
        ("/v1/key/list/ab", 200),
        ("/v1/key/list/", 403),
        ("/v1/key/list", 403),
        ("/v1/key/list/b", 403),
        ("/v1/key/list/%2A", 403),
    ] {
        assert_eq!(
            site.kes_as(Some(APP), "GET", path, &[], "").await.status,
            status,
            "{path}"
        );
    }
    permit(&site, APP, &json!({"allow": ["/v1/key/list/"]})).await;
    assert_eq!(
        site.kes_as(Some(APP), "GET", "/v1/key/list", &[], "")
            .await
            .status,
        200
    );
}

/// A request on a connection with this chain of certificates.
fn shown(chain: &[&[u8]]) -> Request {
    let chain = chain.iter().map(|one| Bytes::copy_from_slice(one));
    let mut peer = Peer::new([127, 0, 0, 1].into(), true);
    peer.client_certificate = Some(ClientCertificate::Der(chain.collect()));
    Request {
        method: http::Method::GET,
        raw_path: "/version".to_owned(),
        raw_query: String::new(),
        headers: http::HeaderMap::new(),
        body: Bytes::new(),
        peer,
    }
}

#[test]
fn cached_certificate_is_found_by_all_of_its_bytes() {
    let proven = Proven::new(None);
    let of = |chain: &[&[u8]]| proven.identity(&shown(chain)).ok();
    let (one, two) = (KesIdentity::ecdsa(), KesIdentity::ecdsa());
    let certificate = |of: &KesIdentity| of.certificate().to_vec();
    for _ in 0..2 {
        for who in [&one, &two] {
            let found = of(&[&certificate(who)]).unwrap();
            assert_eq!(found.as_str(), who.name());
        }
        // A certificate that differs in any byte is another identity, or none.
        for at in 0..certificate(&one).len() {
            let mut other = certificate(&one);
            other[at] ^= 1;
            let kept = Proven::new(None);
            let afresh = kept.identity(&shown(&[&other])).ok();
            assert_eq!(of(&[&other]), afresh, "byte {at}");
        }
        // The rest of the chain counts too.
        assert_eq!(of(&[&certificate(&one), &certificate(&two)]), None);
        assert_eq!(of(&[&certificate(&one), b"no certificate"]), None);
        assert_eq!(of(&[]), None);
    }
    // With many certificates, each has its own identity.
    for _ in 0..1100 {
        let who = KesIdentity::ecdsa();
        assert_eq!(of(&[&certificate(&who)]).unwrap().as_str(), who.name());
    }
    assert_eq!(of(&[&certificate(&one)]).unwrap().as_str(), one.name());
}
