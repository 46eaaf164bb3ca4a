//! Clients that are slow, silent or many.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyway_runtime_hyper::{Bounds, Clients, Crowded};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;

use crate::Server;
use crate::certificates::credentials;
use crate::client::Client;

/// Short, so that a test ends soon; a proper client needs less, even on a busy machine.
fn impatient() -> Bounds {
    Bounds {
        handshake: Duration::from_secs(2),
        head: Duration::from_secs(2),
        ..Bounds::default()
    }
}

/// Sends these bytes, and then one byte at a time until the server disconnects.
async fn drip(mut stream: impl AsyncReadExt + AsyncWrite + Unpin, begin: &[u8], drop: &[u8]) {
    stream.write_all(begin).await.unwrap();
    let mut buffer = [0; 1024];
    loop {
        tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                if stream.write_all(drop).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn slow_client_is_disconnected() {
    let server = Server::start(Clients::Asked, impatient()).await;
    let tcp = async |address| TcpStream::connect(address).await.unwrap();
    let tls = async || {
        let client = Client::new(&server.authority, None).alpn(&["http/1.1"]);
        client.connect(server.tls).await.unwrap()
    };
    let halves: [&[u8]; 5] = [
        b"",
        b"P",
        b"PRI * HTTP/2.0\r\n",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nhost: ",
    ];
    // ClientHellos that never end: one of 16 KiB in single bytes, and one without a byte.
    let hello = [22, 0x03, 0x01, 0x40, 0x00, 1, 0, 0x3f, 0xfc, 3, 3];
    let hellos = [&hello[..], &hello[..3], b""];
    let hung_up = async {
        let http = join_all(halves.map(async |half| {
            tokio::join!(
                drip(tcp(server.plain).await, half, b""),
                drip(tls().await, half, b""),
                drip(tcp(server.plain).await, half, b"x"),
                drip(tls().await, half, b"x"),
            );
        }));
        let handshakes = join_all(hellos.map(async |begin| {
            tokio::join!(
                drip(tcp(server.tls).await, begin, b""),
                drip(tcp(server.tls).await, begin, &[22]),
            );
        }));
        // The second head of a kept connection.
        let known = Client::new(&server.authority, Some(&credentials()[0].1)).alpn(&["http/1.1"]);
        let kept = async {
            let stream = proven(&known, server.tls).await;
            drip(stream, b"GET / HTTP/1.1\r\nhost: ", b"x").await;
        };
        tokio::join!(http, handshakes, kept);
    };
    tokio::time::timeout(Duration::from_secs(60), hung_up)
        .await
        .expect("every one of them is");
    server.stop().await;
}

/// An HTTP/1.1 connection of a proven client.
async fn proven(client: &Client, address: SocketAddr) -> TlsStream<TcpStream> {
    let mut stream = client.connect(address).await.unwrap();
    ask_again(&mut stream).await.unwrap();
    stream
}

/// Makes a request over a kept connection; returns the answer's identity.
async fn ask_again(stream: &mut TlsStream<TcpStream>) -> io::Result<()> {
    stream
        .write_all(b"POST /whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    let end = |answer: &[u8]| {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n");
        head.is_some_and(|head| answer.len() == head + 4 + 64)
    };
    while !end(&answer) {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

/// Whether the server closes this connection within half a minute.
async fn is_dropped(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut byte)).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn is_open(stream: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let mut byte = [0];
    let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
    read.is_err()
}

#[tokio::test]
async fn full_listener_drops_its_oldest_unproven_connection() {
    let bounds = Bounds {
        connections: 4,
        handshake: Duration::from_secs(60),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let known = Client::new(&server.authority, Some(&credentials()[0].1)).alpn(&["http/1.1"]);
    let mut held = proven(&known, server.tls).await;
    // Three quarters of the slots are for unproven connections. A connection before its handshake takes a slot too.
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(server.tls).await.unwrap());
    }
    let before = Crowded::Unproven.count();
    let stranger = Client::new(&server.authority, None);
    assert_eq!(stranger.whoami(server.tls).await.unwrap(), "By(Missing)");
    assert!(is_dropped(&mut silent[0]).await, "the oldest made way");
    assert!(Crowded::Unproven.count() > before, "and was counted");
    assert!(is_open(&mut silent[2]).await);
    ask_again(&mut held).await.unwrap();
    // The other listener keeps its slots.
    let mut plain = TcpStream::connect(server.plain).await.unwrap();
    plain
        .write_all(b"POST /encrypted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("false"), "{answer}");
    drop(silent);
    server.stop().await;
}

#[tokio::test]
async fn listener_full_of_proven_connections_makes_the_next_one_wait() {
    let bounds = Bounds {
        connections: 3,
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let credential = &credentials()[0].1;
    let known = Client::new(&server.authority, Some(credential)).alpn(&["http/1.1"]);
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(proven(&known, server.tls).await);
    }
    let before = Crowded::Full.count();
    let waiting = tokio::spawn({
        let (client, address) = (known.clone(), server.tls);
        async move { client.whoami(address).await.unwrap() }
    });
    while Crowded::Full.count() == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!waiting.is_finished(), "there is no place for it");
    for stream in &mut held {
        ask_again(stream).await.unwrap();
    }
    held.pop();
    assert_eq!(waiting.await.unwrap(), credential.identity());
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn unproven_connections_of_one_address_are_bounded() {
    let bounds = Bounds {
        unproven_of_address: 8,
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let known = Client::new(&server.authority, Some(&credentials()[0].1)).alpn(&["http/1.1"]);
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(proven(&known, server.tls).await);
    }
    let from = async |address: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        socket.bind(address).unwrap();
        socket.connect(server.tls).await.unwrap()
    };
    let mut other = from("127.0.0.2").await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(from("127.0.0.3").await);
    }
    for stream in &mut silent[..12] {
        assert!(is_dropped(stream).await);
    }
    for stream in &mut silent[12..] {
        assert!(is_open(stream).await);
    }
    assert!(is_open(&mut other).await);
    for stream in &mut held {
        ask_again(stream).await.unwrap();
    }
    server.stop().await;
}

#[tokio::test]
async fn idle_http2_connection_ends_and_a_busy_one_does_not() {
    let server = Server::start(Clients::Asked, impatient()).await;
    let connect = async || {
        let stream = TcpStream::connect(server.plain).await.unwrap();
        let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (send, connection) = connected.unwrap();
        (send, tokio::spawn(connection))
    };
    let (mut used, idle) = connect().await;
    let request = |path: &str| {
        let request = Request::post(format!("http://localhost{path}"));
        request.body(Full::<Bytes>::default()).unwrap()
    };
    used.send_request(request("/encrypted")).await.unwrap();
    let (_silent, unused) = connect().await;
    let (mut busy, going_on) = connect().await;
    let answer = busy.send_request(request("/tail")).await.unwrap();
    for idle in [idle, unused] {
        tokio::time::timeout(Duration::from_secs(60), idle)
            .await
            .expect("it is told to end")
            .unwrap()
            .unwrap();
    }
    assert!(!going_on.is_finished());
    drop(answer);
    drop(busy);
    drop(server.stop);
}

/// Bodies that never end, each in its own way, and their answers.
#[tokio::test]
async fn body_sent_too_slowly_is_cut_off() {
    let bounds = Bounds {
        pause: Duration::from_secs(2),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let head = b"POST /encrypted HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    let stream = TcpStream::connect(server.plain).await.unwrap();
    // Each byte comes well before the longest pause.
    tokio::time::timeout(Duration::from_secs(60), drip(stream, head, b"x"))
        .await
        .expect("it is hung up on");
    server.stop().await;
}

#[tokio::test]
async fn client_that_reads_no_answers_is_disconnected() {
    let bounds = Bounds {
        pause: Duration::from_secs(2),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.plain).await.unwrap();
    let request = b"POST /large HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".repeat(64);
    // The server may disconnect during the write.
    let sent = tokio::time::timeout(Duration::from_secs(30), stream.write_all(&request)).await;
    drop(sent);
    let gone = async {
        // The client reads nothing; it only sees the connection's error.
        while stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone)
        .await
        .expect("the server hangs up");
    server.stop().await;
}

#[tokio::test]
async fn http2_answer_without_window_ends_its_connection() {
    let bounds = Bounds {
        whole: Duration::from_secs(2),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let stream = TcpStream::connect(server.plain).await.unwrap();
    let (mut send, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::post("http://localhost/large").body(Full::<Bytes>::default());
    // Its head is taken, and none of the rest. Frames that the client sends meanwhile are no sign that it reads.
    let answer = send.send_request(request.unwrap()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), driver)
        .await
        .expect("the server hangs up")
        .unwrap()
        .ok();
    drop(answer);
    server.stop().await;
}

#[tokio::test]
async fn head_beyond_32_kib_is_refused() {
    let server = Server::start(Clients::Asked, Bounds::default()).await;
    let value = |length: usize| "x".repeat(length);
    for (length, status) in [(30 << 10, 200), (33 << 10, 431)] {
        let mut stream = TcpStream::connect(server.plain).await.unwrap();
        let value = value(length);
        let request = format!(
            "POST /encrypted HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\nx-long: {value}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes());

        let stream = TcpStream::connect(server.plain).await.unwrap();
        let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut send, connection) = connected.unwrap();
        let driver = tokio::spawn(connection);
        let request = Request::post("http://localhost/encrypted").header("x-long", value);
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = send.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status);
        driver.abort();
    }
    server.stop().await;
}

#[tokio::test]
async fn stop_waits_for_requests_only() {
    let server = Server::asking().await;
    let client = Client::new(&server.authority, None).alpn(&["http/1.1"]);
    let idle = client.connect(server.tls).await.unwrap();
    let silent = TcpStream::connect(server.tls).await.unwrap();
    let mut busy = client.connect(server.tls).await.unwrap();
    let mut plain = TcpStream::connect(server.plain).await.unwrap();
    let head =
        b"POST /encrypted HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\nexpect: 100-continue\r\n\r\n";
    let mut asked = [0; 25];
    for stream in [&mut busy as &mut (dyn Stream + Unpin), &mut plain] {
        stream.write_all(head).await.unwrap();
        // The server has read the head: it asks for the body.
        stream.read_exact(&mut asked).await.unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100"));
    }
    let (tls, address) = (server.tls, server.plain);
    let stopping = tokio::spawn(server.stop());
    for address in [tls, address] {
        while TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert!(!stopping.is_finished());
    for (stream, expected) in [
        (&mut busy as &mut (dyn Stream + Unpin), "true"),
        (&mut plain, "false"),
    ] {
        stream.write_all(b"x").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(expected), "{answer}");
    }
    stopping.await.unwrap();
    drop((idle, silent));
}

trait Stream: tokio::io::AsyncRead + AsyncWrite {}
impl<S: tokio::io::AsyncRead + AsyncWrite> Stream for S {}

/// The memory of this process, in kibibytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[tokio::test]
async fn thousand_idle_connections_are_held() {
    const MANY: u64 = 1000;
    let server = Server::asking().await;
    let credential = &credentials()[0].1;
    let client = Client::new(&server.authority, Some(credential)).alpn(&["http/1.1"]);
    // What is made once is made.
    client.whoami(server.tls).await.unwrap();
    let before = resident();
    let mut held = Vec::new();
    for _ in 0..MANY {
        let mut stream = client.connect(server.tls).await.unwrap();
        stream
            .write_all(b"POST /whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 512];
        let mut read = 0;
        while !String::from_utf8_lossy(&answer[..read]).ends_with(&credential.identity()) {
            read += stream.read(&mut answer[read..]).await.unwrap();
        }
        held.push(stream);
    }
    let per_connection = (resident() - before) as f64 / MANY as f64;
    println!("{MANY} idle connections, client and server together: {per_connection:.1} KiB each");
    let other = Client::new(&server.authority, None);
    assert_eq!(other.whoami(server.tls).await.unwrap(), "By(Missing)");
    drop(held);
    server.stop().await;
}
