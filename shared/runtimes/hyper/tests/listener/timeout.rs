//! Requests that take longer than their route allows.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyway_runtime_hyper::{Bounds, Clients};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Server;
use crate::client::Client;

#[tokio::test]
async fn http1_connection_is_closed_without_an_answer() {
    let server = Server::start(Clients::Anonymous, Bounds::default()).await;
    let mut stream = TcpStream::connect(server.plain).await.unwrap();
    let request = b"POST /slow HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut read = Vec::new();
    stream.read_to_end(&mut read).await.unwrap();
    assert!(read.is_empty(), "{}", String::from_utf8_lossy(&read));
    server.stop().await;
}

#[tokio::test]
async fn http2_stream_is_reset_and_the_connection_goes_on() {
    let server = Server::asking().await;
    let stream = Client::new(&server.authority, None)
        .alpn(&["h2"])
        .connect(server.tls)
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| {
        Request::post(format!("https://localhost{path}"))
            .body(Empty::<Bytes>::new())
            .unwrap()
    };
    let error = sender.send_request(request("/slow")).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("Reset"), "{error}");
    assert!(error.contains("INTERNAL_ERROR"), "{error}");
    let answer = sender.send_request(request("/encrypted")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    drop(sender);
    connection.abort();
    server.stop().await;
}
