//! Clients that are slow, silent or many.

use std::time::Duration;

use futures_util::future::join_all;
use keyway_runtime_hyper::{Bounds, Clients};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Server;
use crate::certificates::credentials;
use crate::client::Client;

/// As short as lets a test end soon; whoever is in order needs less even on a machine that is busy.
fn impatient() -> Bounds {
    Bounds {
        handshake: Duration::from_secs(2),
        head: Duration::from_secs(2),
        ..Bounds::default()
    }
}

/// Sends these bytes and then one at a time for ever, until the server has had enough.
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
async fn who_is_slow_is_hung_up_on() {
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
    // Hellos that never end: one of 16 KiB that comes in bytes, and none at all.
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
        tokio::join!(http, handshakes);
    };
    tokio::time::timeout(Duration::from_secs(60), hung_up)
        .await
        .expect("every one of them is");
    server.stop().await;
}

#[tokio::test]
async fn no_more_connections_are_served_than_there_are_places() {
    let bounds = Bounds {
        connections: 3,
        handshake: Duration::from_secs(60),
        ..Bounds::default()
    };
    let server = Server::start(Clients::Asked, bounds).await;
    let client = Client::new(&server.authority, None);
    let mut held = vec![client.connect(server.tls).await.unwrap()];
    held.push(client.connect(server.tls).await.unwrap());
    // One that has not come to its handshake has a place as well.
    let silent = TcpStream::connect(server.tls).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = tokio::spawn({
        let (client, address) = (client.clone(), server.tls);
        async move { client.whoami(address).await.unwrap() }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "there is no place for it");
    // Nor does the other listener wait for this one.
    let mut plain = TcpStream::connect(server.plain).await.unwrap();
    plain
        .write_all(b"POST /encrypted HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("false"), "{answer}");
    drop(silent);
    assert_eq!(waiting.await.unwrap(), "By(Missing)");
    drop(held);
    server.stop().await;
}

#[tokio::test]
async fn a_stop_waits_for_requests_and_for_nobody_else() {
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
        // It is read: the server asks for the body.
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
async fn a_thousand_idle_connections() {
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
