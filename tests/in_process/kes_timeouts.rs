//! KES's timeouts, over a table that never returns.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use keyway_domain::keys::Deletion;
use keyway_http::{ClientCertificate, Peer, TimedOut};
use keyway_runtime_hyper::{listen, serve};
use keyway_tests::MemorySite;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An identity that the table has to be asked for.
const UNKNOWN: &str = "a4eac2d875d60ef25b068965c4e850aac074028dc576f3699276c6ea0ae1828f";

async fn get(site: &MemorySite, path: &str) -> Response<Bytes> {
    let body = Empty::new().map_err(|never| match never {});
    let body: keyway_http::Body = Box::pin(body);
    let peer = Peer {
        client_certificate: Some(ClientCertificate::Pem(UNKNOWN.into())),
        ..Peer::new(Ipv4Addr::LOCALHOST.into(), true)
    };
    let request = http::Request::get(path).body(body).unwrap();
    site.kes_site().respond(request, peer).await
}

/// Everything that comes over a connection of its own.
async fn get_over_socket(address: SocketAddr, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    read
}

/// `/v1/api` has 10 seconds, `/v1/ready` 15, and streams of logs have no timeout.
#[tokio::test]
async fn kes_call_over_a_hanging_table_ends_with_its_timeout() {
    let site = MemorySite::with_kes("default", Deletion::Immediate, "/v1/ready").await;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = listen(address, false).await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, site.kes_site(), std::future::pending()));
    site.set_table_hanging(true);

    let mut log = pin!(get(&site, "/v1/log/error"));
    let mut ready = pin!(get_over_socket(address, "/v1/ready"));
    let api = tokio::select! {
        api = get(&site, "/v1/api") => api,
        _ = &mut ready => panic!("/v1/ready ended first"),
        _ = &mut log => panic!("/v1/log/error ended first"),
    };
    assert_eq!(api.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(api.extensions().get::<TimedOut>().is_some());
    let ready = tokio::select! {
        ready = &mut ready => ready,
        _ = &mut log => panic!("/v1/log/error ended first"),
    };
    assert!(ready.is_empty(), "{}", String::from_utf8_lossy(&ready));

    let told: Vec<_> = site
        .audited()
        .iter()
        .filter(|event| event["error"] == "timed_out")
        .map(|event| (event["path"].clone(), event["status"].clone()))
        .collect();
    let expected = ["/v1/api", "/v1/ready"].map(|path| (json!(path), json!(504)));
    assert_eq!(told, expected, "{:?}", site.audited());
    server.abort();
}
