//! Heads that no client should send, or whose content is not read.

use keyway_tests::{Server, ServerOptions};

use crate::raw::{Connection, head};
use crate::{create, folder, generate, kes};

/// The server's answer to these bytes, until it closes the connection.
async fn answered(server: &Server, bytes: &[u8]) -> String {
    let mut connection = Connection::open(server).await;
    connection.try_send(bytes).await;
    connection.read_to_end().await
}

/// An answer's head and body; the body has the declared length.
fn parts(answer: &str) -> (&str, &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "));
    assert_eq!(length, Some(body.len().to_string().as_str()), "{answer}");
    assert_eq!(
        head.to_lowercase().matches("content-length").count(),
        1,
        "{answer}"
    );
    assert!(head.contains("Connection: close"), "{answer}");
    (head, body)
}

#[tokio::test]
async fn head_that_cannot_be_read_is_answered_with_a_request_id_and_a_body() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "a".repeat(70_000)
    );
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    let mut ids = std::collections::BTreeSet::new();
    for (bytes, status) in [
        ("\0\r\n\r\n", "400 Bad Request"),
        ("GET /\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/3.1\r\nhost: a\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nhost\r\n\r\n", "400 Bad Request"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
            "400 Bad Request",
        ),
        (
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n",
            "400 Bad Request",
        ),
        (&long, "431 Request Header Fields Too Large"),
        (&many, "431 Request Header Fields Too Large"),
    ] {
        // The server may refuse a head that is too long before it reads the last byte.
        let answer = answered(&server, bytes.as_bytes()).await;
        let (head, body) = parts(&answer);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{bytes:.40} {answer}"
        );
        assert!(head.contains("content-type: application/json"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "InvalidRequest", "{answer}");
        let id = head
            .lines()
            .find_map(|line| line.strip_prefix("x-request-id: "))
            .unwrap();
        assert_eq!(body["error"]["request_id"], id, "{answer}");
        assert!(ids.insert(id.to_owned()), "{answer}");
    }
    // An answer of the service without a body stays as it is.
    let request = "GET /rustfs/admin/v3/kms/keys HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    assert!(
        answered(&server, request.as_bytes())
            .await
            .starts_with("HTTP/1.1 401")
    );
    let request = "HEAD /photos HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answer = answered(&server, request.as_bytes()).await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
    create(&server, "k").await;
    generate(&server, "k").await.ok();
}

#[tokio::test]
async fn expected_body_declared_too_long_is_refused_at_once() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    for (target, status) in [
        ("POST /rustfs/admin/v3/kms/keys", 413),
        ("GET /rustfs/admin/v3/kms/keys", 413),
        ("POST /minio/kms/v1/key/create?key-id=k", 413),
        ("PUT /photos", 413),
    ] {
        let request = format!(
            "{target} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"
        );
        // It closes the connection without a byte of the body.
        let answer = answered(&server, request.as_bytes()).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{target} {answer}"
        );
        assert!(!answer.contains("100 Continue"), "{target} {answer}");
    }
}

#[tokio::test]
async fn bucket_named_like_another_path_is_refused_as_s3_does() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    for name in [
        "metrics",
        "openapi.json",
        "minio",
        "rustfs",
        "version",
        "health",
        "ready",
    ] {
        let request = server.signed("PUT", &format!("/{name}"), "");
        let answer = server.send(request).await.unwrap();
        assert_eq!(answer.status, 400, "{name} {answer:?}");
        let body = String::from_utf8_lossy(&answer.body);
        let words =
            "<Code>InvalidBucketName</Code><Message>The specified bucket is not valid.</Message>";
        assert!(body.contains(words), "{name} {body}");
    }
}

#[tokio::test]
async fn host_with_the_default_port_is_the_host_that_was_signed() {
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    let send = async |host: &str, more: &str, request: &http::Request<bytes::Bytes>| {
        let mut request = request.clone();
        request.headers_mut().insert("host", host.parse().unwrap());
        let mut connection = Connection::open(&server).await;
        connection
            .send(head(&request, &format!("connection: close\r\n{more}")))
            .await;
        connection.read_to_end().await
    };
    let signer = server.root();
    let now = crate::wall_clock();
    let path = "/rustfs/admin/v3/kms/keys";
    let request = signer.request("GET", "kms.example.com", path, b"", now);
    for (host, more, status) in [
        ("kms.example.com", "", 200),
        ("kms.example.com:80", "", 200),
        ("kms.example.com:443", "", 401),
        ("kms.example.com:443", "x-forwarded-proto: https\r\n", 200),
        ("kms.example.com:80", "x-forwarded-proto: https\r\n", 401),
    ] {
        let answer = send(host, more, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{host} {more} {answer}"
        );
    }
}

#[tokio::test]
async fn head_that_cannot_be_read_is_refused_as_kes_does() {
    let folder = folder();
    let server = kes::options().start(folder.path()).await;
    // The bytes go through TLS, with a certificate that any client can make.
    let answer = kes::raw(&server, folder.path(), b"GET / HTTP/1.1\r\nhost\r\n\r\n").await;
    let (head, body) = parts(&answer);
    assert!(head.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(body).unwrap()["message"],
        "the request line or a header is not well-formed HTTP"
    );
}
