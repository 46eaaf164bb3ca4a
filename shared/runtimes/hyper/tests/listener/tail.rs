//! Answers that go on.

use std::time::Duration;

use keyway_runtime_hyper::{Bounds, Clients};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::Server;
use crate::client::Client;

async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(end) {
            let mut chunk = [0; 256];
            let length = stream.read(&mut chunk).await.unwrap();
            assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&read));
            read.extend_from_slice(&chunk[..length]);
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reading)
        .await
        .expect("it comes");
    String::from_utf8(read).unwrap()
}

#[tokio::test]
async fn streamed_answer_arrives_in_pieces_and_does_not_delay_shutdown() {
    let server = Server::start(Clients::Anonymous, Bounds::default()).await;
    let mut stream = TcpStream::connect(server.plain).await.unwrap();
    let request = b"POST /tail HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let begin = until(&mut stream, "two\n").await;
    assert!(begin.starts_with("HTTP/1.1 200 OK"), "{begin}");
    assert!(begin.contains("Transfer-Encoding: chunked"), "{begin}");
    // Others are served meanwhile.
    let mut other = TcpStream::connect(server.plain).await.unwrap();
    let request = b"POST /encrypted HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    other.write_all(request).await.unwrap();
    until(&mut other, "false").await;
    drop(server.stop);
    tokio::time::timeout(Duration::from_secs(20), server.task)
        .await
        .expect("the server ends")
        .unwrap();
}

#[tokio::test]
async fn silent_stream_gets_empty_lines() {
    let bounds = Bounds {
        keep_alive: Duration::from_millis(20),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Anonymous, bounds).await;
    let mut stream = TcpStream::connect(server.plain).await.unwrap();
    let request = b"POST /tail HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let read = until(&mut stream, "1\r\n\n\r\n1\r\n\n\r\n").await;
    assert!(read.contains("two\n"), "{read}");
    server.stop().await;
}

/// The answer to a request for an answer that has trailers, over HTTP/1.1.
async fn with_trailers(server: &Server, te: &str) -> String {
    let mut stream = TcpStream::connect(server.plain).await.unwrap();
    let request = format!("GET /trailers HTTP/1.1\r\nhost: a\r\n{te}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    read
}

#[tokio::test]
async fn trailers_over_http1_are_sent_to_clients_that_take_them() {
    let server = Server::start(Clients::Anonymous, Bounds::default()).await;
    for te in ["te: trailers\r\n", "te: gzip, Trailers\r\n"] {
        let read = with_trailers(&server, te).await;
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Trailer: status, error"), "{read}");
        assert!(head.contains("Transfer-Encoding: chunked"), "{read}");
        let end = "4\r\none\n\r\n0\r\nStatus: 200\r\nError: \r\n\r\n";
        assert_eq!(body, end);
    }
    for te in ["", "te: gzip\r\n"] {
        let read = with_trailers(&server, te).await;
        assert!(read.contains("Content-Length: 4"), "{read}");
        assert!(!read.contains("Trailer"), "{read}");
        assert!(read.ends_with("\r\n\r\none\n"), "{read}");
    }
    server.stop().await;
}

#[tokio::test]
async fn trailers_over_http2_are_sent_to_every_client() {
    let server = Server::asking().await;
    let stream = Client::new(&server.authority, None)
        .alpn(&["h2"])
        .connect(server.tls)
        .await
        .unwrap();
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("https://localhost/trailers")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.headers()["trailer"], "status, error");
    let whole = answer.into_body().collect().await.unwrap();
    let trailers = whole.trailers().unwrap();
    assert_eq!(trailers["status"], "200");
    assert_eq!(trailers["error"], "");
    assert_eq!(whole.to_bytes(), "one\n");
    drop(sender);
    connection.abort();
    server.stop().await;
}
