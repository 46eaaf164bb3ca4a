//! MinIO's KMS API on a real process.

use keyway_tests::{Answer, Server, ServerOptions, Signer};
use serde_json::json;

use crate::{access_key, create, data_dir, eventually, folder, signer, wall_clock};

/// As root, signed as `mc` signs.
async fn call(server: &Server, method: &str, path: &str) -> Answer {
    let path = format!("/minio/kms/v1{path}");
    let signer = server.root().clone().for_service("s3");
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let address = &server.address;
    let request = signer.declared_request(method, address, &path, b"", Some(empty), wall_clock());
    server.send(request).await.unwrap()
}

#[tokio::test]
async fn status_has_endpoints_and_state() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    let first = call(&server, "GET", "/status").await.ok();
    let own = format!("http://{}", server.address);
    assert_eq!(first["endpoints"], json!({own: "online"}));
    let state = &first["state"];
    assert_eq!(state["Version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        state["Arch"],
        if cfg!(target_arch = "x86_64") {
            "amd64"
        } else {
            "arm64"
        }
    );
    assert!(state["KeyStoreLatency"].as_u64() > Some(0), "{state}");
    if cfg!(target_os = "linux") {
        assert_eq!(state["OS"], "linux");
        assert!(state["UsableCPUs"].as_u64() >= Some(1), "{state}");
        assert!(
            state["CPUs"].as_u64() >= state["UsableCPUs"].as_u64(),
            "{state}"
        );
        assert!(
            state["HeapAlloc"].as_u64() > state["StackAlloc"].as_u64(),
            "{state}"
        );
    }
    let up = state["UpTime"].as_u64();
    eventually("time passes", async || {
        let later = call(&server, "GET", "/status").await.ok();
        (later["state"]["UpTime"].as_u64() > up).then_some(())
    })
    .await;
}

#[tokio::test]
async fn key_status_finds_a_key_that_fails() {
    let folder = folder();
    let server = ServerOptions::default().start(&data_dir(&folder)).await;
    create(&server, "k").await;
    let works = call(&server, "GET", "/key/status?key-id=k").await.ok();
    assert_eq!(works, json!({"key-id": "k"}));

    server
        .call("POST", "/kms/keys", r#"{"key_id":"broken"}"#)
        .await
        .ok();
    let table = rusqlite::Connection::open(data_dir(&folder).join("keyway.db")).unwrap();
    let changed = table.execute(
        "UPDATE records SET value = CAST('{' AS BLOB) WHERE kind = 'key' AND id = CAST('broken' AS BLOB)",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    let broken = call(&server, "GET", "/key/status?key-id=broken").await.ok();
    assert_eq!(
        broken,
        json!({"key-id": "broken", "encryption-error": "a backend of the KMS failed"})
    );
    // Only the log has the cause.
    assert!(server.log().contains("\"ERROR\""), "{}", server.log());
}

/// `mc alias set` without `--api` asks for a bucket that cannot exist, as minio-go does first. `NoSuchBucket` tells it
/// that the signature is right. `AccessDenied` does too, if a request for the bucket itself is answered with 403.
#[tokio::test]
async fn probe_of_mc_alias_set_tells_whether_the_access_key_works() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = ServerOptions::default().start(&data_dir).await;
    let probe = "/probe-bsign-w3yb60v4mxxjfh1rqkz2s5tcd9l3e6gn1ouaqp2iw3yb60v4/";
    let ask = async |signer: &Signer, method: &str, query: &str| {
        let signer = signer.clone().for_service("s3");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let (address, target) = (&server.address, format!("{probe}{query}"));
        let mut request =
            signer.declared_request(method, address, &target, b"", Some(empty), wall_clock());
        let agent = "MinIO (linux; amd64) minio-go/v7.0.90 mc/DEVELOPMENT.GOGET";
        let headers = request.headers_mut();
        headers.insert("user-agent", agent.parse().unwrap());
        let answer = server.send(request).await.unwrap();
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        (answer.status.as_u16(), body)
    };
    let (status, body) = ask(server.root(), "GET", "?location=").await;
    assert_eq!(status, 404, "{body}");
    assert!(body.contains("<Error><Code>NoSuchBucket</Code>"), "{body}");

    let key = access_key(&data_dir, &["--policy", "kms-key-user"]).await;
    let limited = signer(&key);
    let (status, body) = ask(&limited, "GET", "?location=").await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("<Error><Code>AccessDenied</Code>"), "{body}");
    let (status, _) = ask(&limited, "HEAD", "").await;
    assert_eq!(status, 403);

    let wrong = Signer::new("test-root", "wrong");
    let (status, body) = ask(&wrong, "GET", "?location=").await;
    assert_eq!(status, 403, "{body}");
    assert!(
        body.contains("<Error><Code>SignatureDoesNotMatch</Code>"),
        "{body}"
    );
}
