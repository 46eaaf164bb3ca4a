//! Every route refuses the callers that it must, and its checks have one order.

use std::time::Duration;

use http::header::AUTHORIZATION;
use keyway_domain::ports::Kind;
use keyway_http::{BasePath, Peer};
use keyway_tests::{Answer, MemorySite, Signer};

fn path(route: &str) -> String {
    route.replace("{key_id}", "k").replace("{bucket}", "photos")
}

#[tokio::test]
async fn route_refuses_unauthenticated_requests() {
    let site = MemorySite::running().await;
    let strangers = [
        Signer::new("root", "wrong-secret"),
        Signer::new("nobody", "root-secret"),
        Signer::new("root", "root-secret").with_token("t"),
    ];
    for (method, route) in site.routes() {
        let answer = site.call_unsigned(method, &path(route), "{").await;
        assert_eq!(
            answer.refusal(),
            (401, "AccessDenied".to_owned()),
            "{method} {route}"
        );
        for stranger in &strangers {
            let answer = site.call_as(stranger, method, &path(route), "{").await;
            assert_eq!(
                answer.refusal(),
                (401, "AccessDenied".to_owned()),
                "{method} {route}"
            );
        }
    }
}

#[tokio::test]
async fn route_refuses_callers_without_the_permission_before_the_body() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    let before = site.records(Kind::Key).await;
    let nobody = site
        .signer(r#"{"Statement":{"Effect":"Allow","Action":"s3:DeleteBucketEncryption"}}"#)
        .await;
    let denied = site
        .signer(
            r#"{"Statement":[{"Effect":"Allow","Action":"*"},{"Effect":"Deny","Action":["kms:*","s3:*"]}]}"#,
        )
        .await;
    // Every authenticated caller may ask for its own identity.
    let own = site.routes_of("all");
    for (method, route) in site.routes().iter().filter(|route| !own.contains(route)) {
        for caller in [&nobody, &denied] {
            for body in ["", "{", r#"{"key_id":"k"}"#, r#"{"key_id":"absent"}"#] {
                let answer = site.call_as(caller, method, &path(route), body).await;
                assert_eq!(
                    answer.refusal(),
                    (403, "AccessDenied".to_owned()),
                    "{method} {route} {body}"
                );
            }
        }
    }
    assert_eq!(site.records(Kind::Key).await, before);
}

#[tokio::test]
async fn permission_for_another_key_hides_whether_this_one_exists() {
    let site = MemorySite::running().await;
    for id in ["mine", "theirs"] {
        site.call("POST", "/kms/keys", &format!(r#"{{"key_id":"{id}"}}"#))
            .await
            .ok();
    }
    let theirs = site
        .call(
            "POST",
            "/kms/encrypt",
            r#"{"key_id":"theirs","plaintext":""}"#,
        )
        .await
        .text("ciphertext_blob");
    let mine = site
        .call(
            "POST",
            "/kms/encrypt",
            r#"{"key_id":"mine","plaintext":""}"#,
        )
        .await
        .text("ciphertext_blob");
    let caller =
        site.signer(r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/mine"}}"#).await;
    let before = site.records(Kind::Key).await;
    for id in ["theirs", "absent"] {
        for (method, path, body) in [
            ("POST", "/kms/keys", format!(r#"{{"key_id":"{id}"}}"#)),
            ("GET", &format!("/kms/keys/{id}"), String::new()),
            (
                "GET",
                &format!("/kms/describe-key?keyId={id}"),
                String::new(),
            ),
            (
                "DELETE",
                "/kms/keys/delete",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "DELETE",
                "/kms/keys/delete",
                format!(r#"{{"key_id":"{id}","force_immediate":true}}"#),
            ),
            (
                "POST",
                "/kms/keys/cancel-deletion",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "POST",
                "/kms/keys/enable",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "POST",
                "/kms/keys/disable",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "POST",
                "/kms/keys/rotate",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "POST",
                "/kms/keys/update-description",
                format!(r#"{{"key_id":"{id}","description":"x"}}"#),
            ),
            (
                "POST",
                "/kms/keys/tag",
                format!(r#"{{"key_id":"{id}","tags":{{"a":"b"}}}}"#),
            ),
            (
                "POST",
                "/kms/keys/untag",
                format!(r#"{{"key_id":"{id}","tag_keys":["a"]}}"#),
            ),
            (
                "POST",
                "/kms/generate-data-key",
                format!(r#"{{"key_id":"{id}"}}"#),
            ),
            (
                "POST",
                "/kms/encrypt",
                format!(r#"{{"key_id":"{id}","plaintext":""}}"#),
            ),
            (
                "POST",
                "/kms/decrypt",
                format!(r#"{{"ciphertext_blob":"{theirs}"}}"#),
            ),
            (
                "POST",
                "/kms/rewrap",
                format!(r#"{{"ciphertext_blob":"{mine}","destination_key_id":"{id}"}}"#),
            ),
        ] {
            let answer = site.call_as(&caller, method, path, &body).await;
            assert_eq!(
                answer.refusal(),
                (403, "AccessDenied".to_owned()),
                "{method} {path} {body}"
            );
        }
    }
    assert_eq!(site.records(Kind::Key).await, before);
    let listed = site.call_as(&caller, "GET", "/kms/keys", "").await.ok();
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    site.call_as(
        &caller,
        "POST",
        "/kms/decrypt",
        &format!(r#"{{"ciphertext_blob":"{mine}"}}"#),
    )
    .await
    .ok();
}

#[tokio::test]
async fn service_not_configured_answers_about_itself_only() {
    let site = MemorySite::not_configured(true).await;
    let blob = {
        let other = MemorySite::running().await;
        other
            .call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
            .await
            .ok();
        other
            .call("POST", "/kms/encrypt", r#"{"key_id":"k","plaintext":""}"#)
            .await
            .text("ciphertext_blob")
    };
    let (keys, data_keys) = (site.routes_of("keys"), site.routes_of("datakey"));
    for (method, route) in keys.iter().chain(&data_keys) {
        let body = match route.as_str() {
            "/kms/keys/update-description" => r#"{"key_id":"k","description":""}"#.to_owned(),
            "/kms/keys/tag" => r#"{"key_id":"k","tags":{}}"#.to_owned(),
            "/kms/keys/untag" => r#"{"key_id":"k","tag_keys":[]}"#.to_owned(),
            "/kms/encrypt" => r#"{"key_id":"k","plaintext":""}"#.to_owned(),
            "/kms/decrypt" | "/kms/rewrap" => format!(r#"{{"ciphertext_blob":"{blob}"}}"#),
            // Routes that use no key work without the service.
            route if route.starts_with("/api/v1/") && method != "PUT" => continue,
            route if route.starts_with("/api/v1/") => r#"{"sse_algorithm":"aws:kms"}"#.to_owned(),
            _ if method == "GET" => String::new(),
            _ => r#"{"key_id":"k"}"#.to_owned(),
        };
        let first_generation = route.starts_with("/kms/key/");
        let query = if first_generation || route.ends_with("describe-key") {
            "?keyId=k"
        } else {
            ""
        };
        let body = if first_generation { "" } else { &body };
        let answer = site
            .call(method, &format!("{}{query}", path(route)), body)
            .await;
        let code = if first_generation {
            "KMSNotConfigured"
        } else {
            "ServiceNotConfigured"
        };
        assert_eq!(answer.refusal(), (503, code.to_owned()), "{method} {route}");
    }
}

#[tokio::test]
async fn prefixes_serve_the_same_routes_and_other_paths_are_404() {
    let site = MemorySite::running().await;
    let answer = site
        .send(site.root_request("GET", "/minio/admin/v3/kms/keys", b""))
        .await;
    assert_eq!(answer.ok()["keys"], serde_json::json!([]));
    for path in [
        "/rustfs/admin/v3/nope",
        "/rustfs/admin/v4/kms/keys",
        "/rustfs/admin/v3",
        "/rustfs/admin/v3x/kms/keys",
        "/api/v1/nothing",
    ] {
        let answer = site.send(site.root_request("GET", path, b"")).await;
        assert_eq!(answer.refusal(), (404, "NotFound".to_owned()), "{path}");
    }
    // Any other path may be S3's.
    for path in ["/kms/keys", "/foo/bar", "/photos/holiday.jpg"] {
        let answer = site.send(site.root_request("GET", path, b"")).await;
        assert_eq!(answer.status, 501, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/xml"));
    }
    let answer = site.call("PATCH", "/kms/keys", "").await;
    assert_eq!(
        (answer.refusal().0, answer.header("allow")),
        (405, Some("GET, POST"))
    );
    // A word in the route of one method is a key's id for another method.
    assert_eq!(
        site.call("GET", "/kms/keys/delete", "").await.refusal().1,
        "KeyNotFound"
    );
}

#[tokio::test]
async fn route_and_limit_are_checked_before_the_signature() {
    let site = MemorySite::running().await;
    assert_eq!(
        site.call_unsigned("GET", "/kms/nothing", "")
            .await
            .refusal()
            .0,
        404
    );
    assert_eq!(
        site.call_unsigned("PUT", "/kms/keys", "").await.refusal().0,
        405
    );
    let large = " ".repeat((1 << 20) + 1);
    assert_eq!(
        site.call_unsigned("POST", "/kms/keys", &large)
            .await
            .refusal()
            .0,
        413
    );
    let fits = format!("{}{{}}", " ".repeat((1 << 20) - 2));
    site.call("POST", "/kms/keys", &fits).await.ok();
}

#[tokio::test]
async fn signature_for_another_service_is_refused() {
    let site = MemorySite::running().await;
    for service in ["execute-api", "s3", "sts", "kms"] {
        let signer = Signer::new("root", "root-secret").for_service(service);
        site.call_as(&signer, "GET", "/kms/keys", "").await.ok();
    }
    let other = Signer::new("root", "root-secret").for_service("ec2");
    assert_eq!(
        site.call_as(&other, "GET", "/kms/keys", "")
            .await
            .refusal()
            .0,
        401
    );
}

#[tokio::test]
async fn chunked_signature_is_400_and_a_stale_one_401() {
    let site = MemorySite::running().await;
    let path = "/rustfs/admin/v3/kms/keys";
    let chunked = site.declared_request("POST", path, b"{}", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
    let answer = site.send(chunked).await;
    assert_eq!(answer.refusal(), (400, "InvalidRequest".to_owned()));
    assert!(
        answer.message().contains("aws-chunked"),
        "{}",
        answer.message()
    );

    let unsigned_payload = site.declared_request("POST", path, b"{}", "UNSIGNED-PAYLOAD");
    site.send(unsigned_payload).await.ok();
    let address = "192.0.2.1".parse().unwrap();
    for (peer, status) in [
        (Peer::new(address, false), 400),
        (Peer::new(address, true), 200),
    ] {
        let unsigned_payload = site.declared_request("POST", path, b"{}", "UNSIGNED-PAYLOAD");
        assert_eq!(
            site.send_from(unsigned_payload, peer).await.status,
            status,
            "over TLS or loopback only"
        );
    }

    let request = site.root_request("GET", path, b"");
    site.clock.advance(Duration::from_secs(15 * 60 + 1));
    assert_eq!(site.send(request).await.refusal().0, 401);
}

#[tokio::test]
async fn body_changed_after_signing_is_refused() {
    let site = MemorySite::running().await;
    let signed = site.root_request("POST", "/rustfs/admin/v3/kms/keys", br#"{"key_id":"a"}"#);
    let changed = signed.map(|_| br#"{"key_id":"b"}"#.to_vec().into());
    assert!(changed.headers().contains_key(AUTHORIZATION));
    assert_eq!(site.send(changed).await.refusal().0, 401);
    assert!(site.records(Kind::Key).await.is_empty());
}

#[tokio::test]
async fn base_path_of_a_gateway_is_signed_and_not_routed() {
    let site = MemorySite::running().await;
    let staged = |path: &str| {
        let mut request = site.root_request("GET", path, b"");
        request
            .extensions_mut()
            .insert(BasePath("/prod".to_owned()));
        request
    };
    site.send(staged("/prod/rustfs/admin/v3/kms/keys"))
        .await
        .ok();
    let answer = site.send(staged("/prod/rustfs/admin/v3/kms/keys/x")).await;
    assert_eq!(answer.refusal(), (404, "KeyNotFound".to_owned()));
    // A signature for the path without the stage does not verify for the path with it.
    let (mut parts, body) = site
        .root_request("GET", "/rustfs/admin/v3/kms/keys", b"")
        .into_parts();
    parts.uri = "/prod/rustfs/admin/v3/kms/keys".parse().unwrap();
    parts.extensions.insert(BasePath("/prod".to_owned()));
    let answer = site.send(http::Request::from_parts(parts, body)).await;
    assert_eq!(answer.refusal(), (401, "AccessDenied".to_owned()));
    for elsewhere in [
        "/rustfs/admin/v3/kms/keys",
        "/other/rustfs/admin/v3/kms/keys",
    ] {
        let answer = site.send(staged(elsewhere)).await;
        assert_eq!(
            answer.refusal(),
            (404, "NotFound".to_owned()),
            "{elsewhere}"
        );
    }
}

#[tokio::test]
async fn table_that_is_away_is_503_with_retry_after_in_every_dialect() {
    let site = MemorySite::running().await;
    site.call("POST", "/kms/keys", r#"{"key_id":"k"}"#)
        .await
        .ok();
    site.set_table_away(true);
    // No cached state is answered.
    site.clock.advance(Duration::from_secs(60));
    let at = async |path: &str| site.call_at(site.root(), "GET", path, "").await;
    let read = [
        site.call("GET", "/kms/keys", "").await,
        at("/api/v1/buckets").await,
        at("/minio/admin/v3/kms/key/list").await,
        at("/minio/kms/v1/key/list?pattern=*").await,
        site.s3("GET", "/", "").await,
        site.s3("GET", "/photos?encryption", "").await,
        site.kes("GET", "/v1/key/describe/k", "").await,
    ];
    let written = [
        site.call("POST", "/kms/keys", r#"{"key_id":"l"}"#).await,
        at_post(&site, "/minio/kms/v1/key/create?key-id=l").await,
        site.s3("PUT", "/photos", "").await,
        site.kes("POST", "/v1/key/create/l", "").await,
        site.kes("POST", "/v1/key/generate/k", "{}").await,
    ];
    for (number, answer) in read.iter().chain(&written).enumerate() {
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 503, "{number}: {text}");
        assert_eq!(answer.header("retry-after"), Some("1"), "{number}: {text}");
        assert!(!text.contains("no connection"), "{number}: {text}");
    }
    site.set_table_away(false);
    site.clock.advance(Duration::from_secs(1));
    site.kes("GET", "/v1/key/describe/k", "").await.ok();
    site.call("POST", "/kms/keys", r#"{"key_id":"l"}"#)
        .await
        .ok();
}

async fn at_post(site: &MemorySite, path: &str) -> Answer {
    site.call_at(site.root(), "POST", path, "").await
}
