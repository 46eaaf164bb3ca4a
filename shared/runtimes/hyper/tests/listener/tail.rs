//! Answers that go on.

use std::time::Duration;

use keyway_runtime_hyper::{Bounds, Clients};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Server;

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
async fn an_answer_goes_on_piece_by_piece_and_does_not_hold_up_the_end() {
    let server = Server::start(Clients::Anonymous, Bounds::default()).await;
    let mut stream = TcpStream::connect(server.plain).await.unwrap();
    let request = b"POST /tail HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let begin = until(&mut stream, "two\n").await;
    assert!(begin.starts_with("HTTP/1.1 200 OK"), "{begin}");
    assert!(begin.contains("transfer-encoding: chunked"), "{begin}");
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
