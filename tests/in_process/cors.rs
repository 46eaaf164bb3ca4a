//! A console of another origin.

use bytes::Bytes;
use http::Request;
use keyway_http::Cors;
use keyway_tests::{Answer, MemorySite};

const CONSOLE: &str = "https://console.example.com";
const STATUS: &str = "/rustfs/admin/v3/kms/status";

fn preflight(origin: &str) -> Request<Bytes> {
    Request::builder()
        .method("OPTIONS")
        .uri(STATUS)
        .header("host", "keyway.test")
        .header("origin", origin)
        .header("access-control-request-method", "GET")
        .header("access-control-request-headers", "authorization,x-amz-date")
        .body(Bytes::new())
        .unwrap()
}

async fn call(site: &MemorySite, origin: &str) -> Answer {
    let mut request = site.root_request("GET", STATUS, b"");
    request
        .headers_mut()
        .insert("origin", origin.parse().unwrap());
    site.send(request).await
}

#[tokio::test]
async fn origin_is_refused_unless_the_operator_lists_it() {
    let site = MemorySite::not_configured(false).await;
    let answer = site.send(preflight(CONSOLE)).await;
    assert_eq!(answer.refusal(), (405, "MethodNotAllowed".to_owned()));
    for answer in [answer, call(&site, CONSOLE).await] {
        assert!(
            answer
                .headers
                .keys()
                .all(|name| !name.as_str().starts_with("access-control"))
        );
    }
}

#[tokio::test]
async fn listed_origin_reads_every_answer_without_credentials() {
    let site = MemorySite::with_cors(Cors::parse(CONSOLE).unwrap()).await;
    let answer = site.send(preflight(CONSOLE)).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", CONSOLE),
        (
            "access-control-allow-methods",
            "GET, POST, PUT, DELETE, HEAD",
        ),
        ("access-control-allow-headers", "authorization,x-amz-date"),
        ("access-control-max-age", "600"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let read = call(&site, CONSOLE).await;
    read.ok();
    assert_eq!(read.header("access-control-allow-origin"), Some(CONSOLE));
    assert!(
        read.header("access-control-expose-headers")
            .unwrap()
            .contains("x-request-id")
    );
    assert_eq!(read.header("access-control-allow-credentials"), None);

    // The console must read refusals too, to show them.
    let mut unsigned = site.root_request("GET", STATUS, b"");
    unsigned.headers_mut().remove("authorization");
    unsigned
        .headers_mut()
        .insert("origin", CONSOLE.parse().unwrap());
    let refused = site.send(unsigned).await;
    assert_eq!(refused.refusal(), (401, "AccessDenied".to_owned()));
    assert_eq!(refused.header("access-control-allow-origin"), Some(CONSOLE));
}

#[tokio::test]
async fn origin_that_resembles_a_listed_one_is_refused() {
    let site = MemorySite::with_cors(Cors::parse(CONSOLE).unwrap()).await;
    for origin in [
        "https://console.example.com.evil.example",
        "https://evil.example",
        "http://console.example.com",
        "https://console.example.com:8443",
        "null",
        "*",
    ] {
        let answer = site.send(preflight(origin)).await;
        assert_eq!(answer.status, 405, "{origin}");
        for answer in [answer, call(&site, origin).await] {
            assert_eq!(
                answer.header("access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
    }
    let any = MemorySite::with_cors(Cors::parse("*").unwrap()).await;
    let answer = any.send(preflight("https://evil.example")).await;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://evil.example")
    );
}
