//! Bad input gets a clear 4xx that names the field, and changes nothing.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use keyway_domain::ports::Kind;
use keyway_tests::MemorySite;
use serde_json::json;

/// Sends each request: the answer is `InvalidRequest` with the word in its message, and no record changes.
async fn refused(site: &MemorySite, cases: &[(&str, &str, String, &str)]) {
    let before = (
        site.records(Kind::Key).await,
        site.records(Kind::Config).await,
    );
    for (method, path, body, word) in cases {
        let answer = site.call(method, path, body).await;
        let shown: String = body.chars().take(120).collect();
        assert_eq!(
            answer.refusal(),
            (400, "InvalidRequest".to_owned()),
            "{method} {path} {shown}"
        );
        assert!(
            answer.message().contains(word),
            "{method} {path} {shown}: {}",
            answer.message()
        );
        assert!(answer.body.len() < 2000, "answers are bounded as well");
    }
    assert_eq!(
        (
            site.records(Kind::Key).await,
            site.records(Kind::Config).await
        ),
        before
    );
}

#[tokio::test]
async fn key_id_malformed_is_refused() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let long = "x".repeat(5 * 1024);
    let names = [
        "../x",
        "a/b",
        "..",
        ".hidden",
        "-dash",
        "a b",
        "a\0b",
        "*",
        "a*",
        "käse",
        "a\nb",
        "%2e%2e",
        long.as_str(),
    ];
    let mut cases = Vec::new();
    for name in names {
        let text = json!(name).to_string();
        for route in ["/kms/keys", "/kms/create-key"] {
            cases.push(("POST", route, format!(r#"{{"key_id":{text}}}"#), "key_id"));
            cases.push((
                "POST",
                route,
                format!(r#"{{"tags":{{"name":{text}}}}}"#),
                "tags",
            ));
        }
        for route in [
            "/kms/keys/enable",
            "/kms/keys/disable",
            "/kms/keys/rotate",
            "/kms/keys/cancel-deletion",
        ] {
            cases.push(("POST", route, format!(r#"{{"key_id":{text}}}"#), "key_id"));
        }
        cases.push((
            "DELETE",
            "/kms/keys/delete",
            format!(r#"{{"key_id":{text}}}"#),
            "key_id",
        ));
        cases.push((
            "POST",
            "/kms/generate-data-key",
            format!(r#"{{"key_id":{text}}}"#),
            "key_id",
        ));
        cases.push((
            "POST",
            "/kms/encrypt",
            format!(r#"{{"key_id":{text},"plaintext":""}}"#),
            "key_id",
        ));
    }
    cases.push((
        "POST",
        "/kms/generate-data-key",
        r#"{"key_id":""}"#.to_owned(),
        "key_id",
    ));
    cases.push(("POST", "/kms/keys", r#"{"key_id":""}"#.to_owned(), "key_id"));
    cases.push((
        "POST",
        "/kms/keys",
        r#"{"key_id":"a","tags":{"name":"b"}}"#.to_owned(),
        "key_id",
    ));
    cases.push((
        "POST",
        "/kms/keys?keyName=a&key-id=b",
        String::new(),
        "keyId",
    ));
    cases.push((
        "POST",
        "/kms/keys?keyName=a&keyName=a",
        String::new(),
        "keyName",
    ));
    cases.push((
        "POST",
        "/kms/keys/enable?keyId=k",
        r#"{"key_id":"other"}"#.to_owned(),
        "key_id",
    ));
    cases.push(("POST", "/kms/keys/enable", String::new(), "key_id"));
    cases.push(("DELETE", "/kms/keys/delete", "{}".to_owned(), "key_id"));
    cases.push(("GET", "/kms/describe-key", String::new(), "keyId"));
    for raw in [
        "%2e%2e",
        "a%2Fb",
        "%00",
        "a%20b",
        "%2A",
        "%2e%2e%2fx",
        "%252e",
        "%C3%A9",
        "-x",
    ] {
        cases.push((
            "GET",
            Box::leak(format!("/kms/keys/{raw}").into_boxed_str()),
            String::new(),
            "key_id",
        ));
        cases.push((
            "GET",
            Box::leak(format!("/kms/describe-key?keyId={raw}").into_boxed_str()),
            String::new(),
            "keyId",
        ));
    }
    cases.push((
        "GET",
        Box::leak(format!("/kms/keys/{long}").into_boxed_str()),
        String::new(),
        "key_id",
    ));
    refused(&site, &cases).await;
    assert_eq!(
        site.call("GET", "/kms/keys/%ff", "").await.refusal(),
        (400, "InvalidRequest".to_owned())
    );
}

#[tokio::test]
async fn body_malformed_is_refused() {
    let site = MemorySite::running().await;
    let deep = format!("{{\"tags\":{}{}}}", "[".repeat(200), "]".repeat(200));
    let deep_object = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    let long_name = format!("{{\"{}\":1}}", "n".repeat(100_000));
    let mut cases: Vec<(&str, &str, String, &str)> = Vec::new();
    for (body, word) in [
        ("{", "JSON"),
        ("[]", "JSON"),
        ("null", "JSON"),
        ("\"x\"", "JSON"),
        ("{} {}", "JSON"),
        ("{}x", "JSON"),
        (r#"{"key_id":"\ud800"}"#, "JSON"),
        (r#"{"key_id":5}"#, "key_id"),
        (r#"{"key_id":["a"]}"#, "key_id"),
        (r#"{"key_id":"a","key_id":"a"}"#, "key_id"),
        (r#"{"key_id":"a","keyId":"a"}"#, "key_id"),
        (r#"{"Description":"a","description":"b"}"#, "description"),
        (r#"{"description":{}}"#, "description"),
        (r#"{"colour":"red"}"#, "colour"),
        (r#"{"tags":{"a":1}}"#, "tags.a"),
        (r#"{"tags":{"a":null}}"#, "tags.a"),
        (r#"{"tags":[]}"#, "tags"),
        (r#"{"tags":{"a":"1","a":"1"}}"#, "tags"),
        (r#"{"tags":{"":"1"}}"#, "tags"),
        (r#"{"key_usage":"SIGN_VERIFY"}"#, "key_usage"),
        (r#"{"KeyUsage":"encrypt"}"#, "ENCRYPT_DECRYPT"),
        (&deep, "tags"),
        (&deep_object, "a"),
        (&long_name, "unknown field"),
    ] {
        cases.push(("POST", "/kms/keys", body.to_owned(), word));
    }
    let characters = |count: usize| "é".repeat(count);
    cases.push((
        "POST",
        "/kms/keys",
        json!({"description": characters(257)}).to_string(),
        "description",
    ));
    cases.push((
        "POST",
        "/kms/keys",
        json!({"tags": {characters(129): ""}}).to_string(),
        "tags",
    ));
    cases.push((
        "POST",
        "/kms/keys",
        json!({"tags": {"a": characters(257)}}).to_string(),
        "tags",
    ));
    let many: serde_json::Map<_, _> = (0..51).map(|n| (n.to_string(), json!(""))).collect();
    cases.push((
        "POST",
        "/kms/keys",
        json!({"tags": many}).to_string(),
        "tags",
    ));
    refused(&site, &cases).await;
    let fit = json!({"description": characters(256), "tags": {characters(128): characters(256)}})
        .to_string();
    site.call("POST", "/kms/keys", &fit).await.ok();
}

#[tokio::test]
async fn error_repeats_no_value() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    for body in [
        r#"{"key_id":"k","plaintext":{"CANARY":"CANARY"}}"#,
        r#"{"key_id":"k","plaintext":"CANARY!"}"#,
        r#"{"key_id":"k","plaintext":"","encryption_context":"CANARY"}"#,
        r#"{"key_id":"k","plaintext":"","encryption_context":["CANARY"]}"#,
        r#"{"key_id":"k","plaintext":"","encryption_context":{"a":"CANARY","a":"CANARY"}}"#,
    ] {
        let answer = site.call("POST", "/kms/encrypt", body).await;
        assert_eq!(answer.refusal().0, 400);
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("CANARY"),
            "{}",
            answer.message()
        );
    }
    let answer = site
        .call(
            "POST",
            "/kms/generate-data-key",
            r#"{"key_id":"k","key_spec":"CANARY"}"#,
        )
        .await;
    assert_eq!(answer.refusal().0, 400);
    assert!(
        answer.message().contains("AES_256") && !answer.message().contains("CANARY"),
        "{}",
        answer.message()
    );
}

#[tokio::test]
async fn list_parameter_malformed_is_refused() {
    let site = MemorySite::running().await;
    let mut cases = Vec::new();
    for query in [
        "limit=0",
        "limit=-1",
        "limit=abc",
        "limit=",
        "limit",
        "limit=1.5",
        "limit=+1",
        "limit=00",
        "limit=%20",
    ] {
        cases.push((
            "GET",
            Box::leak(format!("/kms/keys?{query}").into_boxed_str()) as &str,
            String::new(),
            "limit",
        ));
    }
    cases.push(("GET", "/kms/keys?limit=1&limit=2", String::new(), "limit"));
    for query in ["marker=nope", "marker=k", "marker=AAAA", "marker=%00"] {
        cases.push((
            "GET",
            Box::leak(format!("/kms/list-keys?{query}").into_boxed_str()),
            String::new(),
            "marker",
        ));
    }
    for query in ["status=", "status=Deleted", "status=x"] {
        cases.push((
            "GET",
            Box::leak(format!("/kms/keys?{query}").into_boxed_str()),
            String::new(),
            "status",
        ));
    }
    cases.push(("GET", "/kms/keys?usage=SIGN_VERIFY", String::new(), "usage"));
    refused(&site, &cases).await;
    for query in [
        "limit=1000",
        "limit=1001",
        "limit=99999999999999999999999",
        "marker=",
        "status=PENDING_DELETION",
    ] {
        site.call("GET", &format!("/kms/keys?{query}"), "")
            .await
            .ok();
    }
}

#[tokio::test]
async fn deletion_malformed_is_refused() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let mut cases = Vec::new();
    for days in ["6", "31", "0", "-1", "\"7\"", "7.5", "99999999999999999999"] {
        let body = format!(r#"{{"key_id":"k","pending_window_in_days":{days}}}"#);
        cases.push(("DELETE", "/kms/keys/delete", body, "pending_window_in_days"));
    }
    for days in ["6", "31", "x", ""] {
        let path = format!("/kms/keys/delete?keyId=k&pending_window_in_days={days}");
        cases.push((
            "DELETE",
            Box::leak(path.into_boxed_str()) as &str,
            String::new(),
            "pending_window_in_days",
        ));
    }
    for (path, body) in [
        (
            "/kms/keys/delete",
            r#"{"key_id":"k","force_immediate":true}"#,
        ),
        (
            "/kms/keys/delete",
            r#"{"key_id":"k","force_immediate":true,"confirm_key_id":"K"}"#,
        ),
        ("/kms/keys/delete?keyId=k&force_immediate=true", ""),
    ] {
        cases.push(("DELETE", path, body.to_owned(), "confirm_key_id"));
    }
    cases.push((
        "DELETE",
        "/kms/keys/delete?keyId=k&force_immediate=1",
        String::new(),
        "force_immediate",
    ));
    cases.push((
        "DELETE",
        "/kms/keys/delete",
        r#"{"key_id":"k","force_immediate":"yes"}"#.to_owned(),
        "force_immediate",
    ));
    refused(&site, &cases).await;
    let confirmed = r#"{"key_id":"k","force_immediate":true,"confirm_key_id":"k"}"#;
    let answer = site.call("DELETE", "/kms/keys/delete", confirmed).await;
    assert_eq!(
        answer.refusal(),
        (403, "AccessDenied".to_owned()),
        "the server's opt-in is off by default"
    );
    site.call("GET", "/kms/keys/k", "").await.ok();
}

#[tokio::test]
async fn data_key_request_malformed_is_refused() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let mut cases: Vec<(&str, &str, String, &str)> = Vec::new();
    for text in [
        "aGVsbG8",
        "aGVsbG8=\n",
        " aGVsbG8=",
        "aGVsbG9=",
        "aGVs_G8=",
        "aGVsbG8==",
        "====",
        "a",
    ] {
        let body = json!({"key_id": "k", "plaintext": text}).to_string();
        cases.push(("POST", "/kms/encrypt", body, "plaintext"));
        cases.push((
            "POST",
            "/kms/decrypt",
            json!({"ciphertext_blob": text}).to_string(),
            "ciphertext_blob",
        ));
        cases.push((
            "POST",
            "/kms/rewrap",
            json!({"ciphertext_blob": text}).to_string(),
            "ciphertext_blob",
        ));
    }
    let bytes = [0xfb_u8; 31];
    for text in [STANDARD_NO_PAD.encode(bytes), URL_SAFE.encode(bytes)] {
        cases.push((
            "POST",
            "/kms/encrypt",
            json!({"key_id": "k", "plaintext": text}).to_string(),
            "plaintext",
        ));
    }
    let too_long = STANDARD.encode(vec![0; 64 * 1024 + 1]);
    cases.push((
        "POST",
        "/kms/encrypt",
        json!({"key_id": "k", "plaintext": too_long}).to_string(),
        "plaintext",
    ));
    cases.push((
        "POST",
        "/kms/encrypt",
        json!({"key_id": "k"}).to_string(),
        "plaintext",
    ));
    cases.push((
        "POST",
        "/kms/encrypt",
        json!({"key_id": "k", "plaintext": null}).to_string(),
        "plaintext",
    ));
    cases.push(("POST", "/kms/decrypt", "{}".to_owned(), "ciphertext_blob"));
    cases.push(("POST", "/kms/rewrap", "{}".to_owned(), "ciphertext_blob"));
    cases.push((
        "POST",
        "/kms/rewrap",
        json!({"ciphertext_blob": "", "items": []}).to_string(),
        "items",
    ));
    cases.push((
        "POST",
        "/kms/rewrap",
        json!({"items": [], "destination_key_id": "k"}).to_string(),
        "items",
    ));
    let items = vec![json!({"ciphertext_blob": ""}); 1001];
    cases.push((
        "POST",
        "/kms/rewrap",
        json!({"items": items}).to_string(),
        "items",
    ));
    cases.push((
        "POST",
        "/kms/rewrap",
        json!({"items": [{"ciphertext_blob": 5}]}).to_string(),
        "items[0].ciphertext_blob",
    ));
    for spec in ["AES_512", "aes_256", "", "ChaCha20"] {
        let body = json!({"key_id": "k", "key_spec": spec}).to_string();
        cases.push(("POST", "/kms/generate-data-key", body, "key_spec"));
    }
    let context = |context: serde_json::Value| {
        json!({"key_id": "k", "encryption_context": context}).to_string()
    };
    let pairs = |count: usize| {
        json!(
            (0..count)
                .map(|n| (n.to_string(), json!("v")))
                .collect::<serde_json::Map<_, _>>()
        )
    };
    for bad in [
        json!("x"),
        json!([]),
        json!({"a": 1}),
        json!({"a": {"b": "c"}}),
        json!({"a": null}),
        pairs(65),
        json!({"k".repeat(129): "v"}),
        json!({"k": "v".repeat(4097)}),
        json!({"a": "v".repeat(4096), "b": "v".repeat(4096)}),
    ] {
        cases.push((
            "POST",
            "/kms/generate-data-key",
            context(bad),
            "encryption_context",
        ));
    }
    let twice = r#"{"key_id":"k","encryption_context":{"a":"1","a":"1"}}"#;
    cases.push((
        "POST",
        "/kms/generate-data-key",
        twice.to_owned(),
        "encryption_context",
    ));
    refused(&site, &cases).await;
    for fit in [
        pairs(64),
        json!({"k".repeat(128): "v".repeat(4096)}),
        json!({}),
        json!(null),
    ] {
        site.call("POST", "/kms/generate-data-key", &context(fit))
            .await
            .ok();
    }
    let longest = STANDARD.encode(vec![0; 64 * 1024]);
    site.call(
        "POST",
        "/kms/encrypt",
        &json!({"key_id": "k", "plaintext": longest}).to_string(),
    )
    .await
    .ok();
}

#[tokio::test]
async fn ciphertext_changed_does_not_open() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    site.call("POST", "/kms/keys", r#"{"key_id":"other"}"#)
        .await
        .ok();
    let generated = site
        .call(
            "POST",
            "/kms/generate-data-key",
            r#"{"key_id":"k","encryption_context":{"a":"b"}}"#,
        )
        .await
        .text("ciphertext_blob");
    let blob = STANDARD.decode(&generated).unwrap();
    let mut attempts: Vec<Vec<u8>> = (0..blob.len())
        .map(|length| blob[..length].to_vec())
        .collect();
    attempts.push([blob.as_slice(), &[0]].concat());
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut flipped = blob.clone();
            flipped[at] ^= 1 << bit;
            attempts.push(flipped);
        }
    }
    let failed = (400, "DecryptionFailed".to_owned());
    let before = site.records(Kind::Key).await;
    for attempt in attempts {
        let body =
            json!({"ciphertext_blob": STANDARD.encode(&attempt), "encryption_context": {"a": "b"}})
                .to_string();
        assert_eq!(
            site.call("POST", "/kms/decrypt", &body).await.refusal(),
            failed,
            "{}",
            hex::encode(&attempt)
        );
    }
    for body in [
        json!({"ciphertext_blob": generated}),
        json!({"ciphertext_blob": generated, "encryption_context": {"a": "c"}}),
        json!({"ciphertext_blob": generated, "encryption_context": {"a": "b", "c": "d"}}),
        json!({"ciphertext_blob": generated, "encryption_context": {"a": "b"}, "key_id": "other"}),
    ] {
        assert_eq!(
            site.call("POST", "/kms/decrypt", &body.to_string())
                .await
                .refusal(),
            failed,
            "{body}"
        );
        if body.get("key_id").is_none() {
            assert_eq!(
                site.call("POST", "/kms/rewrap", &body.to_string())
                    .await
                    .refusal(),
                failed,
                "{body}"
            );
        }
    }
    assert_eq!(site.records(Kind::Key).await, before);
}
