//! MinIO's KMS API on a real process.

use keyway_tests::{Answer, Server, ServerOptions};
use serde_json::json;

use crate::{create, data_dir, eventually, folder, wall_clock};

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
async fn a_status_tells_what_is_so() {
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
async fn a_key_that_does_not_work_is_found_out() {
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
    // Why, only the log knows.
    assert!(server.log().contains("\"ERROR\""), "{}", server.log());
}
