//! Bodies that are compressed or begin with a byte order mark.

use http::HeaderValue;
use http::header::CONTENT_ENCODING;
use keyway_tests::{Answer, MemorySite};

/// The answer to a signed request whose body has this content coding.
async fn encoded(site: &MemorySite, target: &str, body: &[u8], coding: &str) -> Answer {
    let (method, path) = target.split_once(' ').unwrap();
    let mut request = site.root_request(method, path, body);
    let coding = HeaderValue::from_str(coding).unwrap();
    request.headers_mut().insert(CONTENT_ENCODING, coding);
    site.send(request).await
}

#[tokio::test]
async fn body_with_a_content_coding_is_refused_in_the_shape_of_its_dialect() {
    let site = MemorySite::running().await;
    let create = "POST /rustfs/admin/v3/kms/keys";
    for coding in ["gzip", "GZIP", "identity, br", "deflate"] {
        let answer = encoded(&site, create, b"{}", coding).await;
        assert_eq!(answer.refusal(), (415, "UnsupportedMediaType".to_owned()));
    }
    let answer = encoded(&site, "PUT /photos", b"<a/>", "gzip").await;
    assert_eq!(answer.status, 415);
    let xml = String::from_utf8_lossy(&answer.body);
    assert!(xml.contains("<Code>UnsupportedMediaType</Code>"), "{xml}");
    let answer = encoded(
        &site,
        "POST /minio/kms/v1/key/create?key-id=m",
        b"x",
        "gzip",
    )
    .await;
    assert_eq!(answer.status, 415, "{answer:?}");
    // KES's clients know no 415.
    let kes = MemorySite::with_kes("k", keyway_domain::keys::Deletion::Immediate, "").await;
    let headers = [("content-encoding", "gzip")];
    let answer = kes
        .kes_as(
            Some(keyway_tests::KES_ADMIN),
            "POST",
            "/v1/policy/write/p",
            &headers,
            "{}",
        )
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.message().as_str()),
        (400, "content encoding is not supported")
    );

    for (coding, status) in [
        ("identity", 200),
        ("Identity, identity", 200),
        ("", 200),
        ("aws-chunked", 400),
    ] {
        let body = format!(r#"{{"key_id":"c{}"}}"#, coding.len());
        let answer = encoded(&site, create, body.as_bytes(), coding).await;
        assert_eq!(answer.status, status, "{coding} {answer:?}");
    }
    // Without a body the header has no effect. An unauthenticated caller gets the ordinary refusal.
    let answer = encoded(&site, "GET /rustfs/admin/v3/kms/keys", b"", "gzip").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let unsigned = http::Request::post("/rustfs/admin/v3/kms/keys")
        .header(CONTENT_ENCODING, "gzip")
        .body(bytes::Bytes::from_static(b"{}"))
        .unwrap();
    assert_eq!(site.send(unsigned).await.status, 401);
}

#[tokio::test]
async fn byte_order_mark_before_json_is_skipped() {
    const BOM: &str = "\u{feff}";
    let site = MemorySite::running().await;
    let body = format!(r#"{BOM}{{"key_id":"a"}}"#);
    site.call("POST", "/kms/keys", &body).await.ok();
    site.call("GET", "/kms/keys/a", "").await.ok();
    let twice = format!("{BOM}{body}");
    let answer = site.call("POST", "/kms/keys", &twice).await;
    assert_eq!(answer.refusal(), (400, "InvalidRequest".to_owned()));

    let kes = MemorySite::with_kes("k", keyway_domain::keys::Deletion::Immediate, "").await;
    let policy = format!(r#"{BOM}{{"allow":{{"/v1/status":{{}}}}}}"#);
    let answer = kes.kes("POST", "/v1/policy/write/p", &policy).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let read = kes.kes("GET", "/v1/policy/read/p", "").await;
    assert!(
        String::from_utf8_lossy(&read.body).contains("/v1/status"),
        "{read:?}"
    );
}

#[test]
fn byte_order_mark_before_a_policy_is_skipped() {
    let document = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"*"}]}"#;
    let policy = keyway_domain::policy::Policy::parse(document).unwrap();
    let marked = keyway_domain::policy::Policy::parse(&format!("\u{feff}{document}")).unwrap();
    assert_eq!(marked, policy);
}
