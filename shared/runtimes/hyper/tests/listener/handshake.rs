//! What is spoken, and what is not.

use http::Version;
use keyway_runtime_hyper::{Clients, HandshakeFailure, Tls, TlsError};
use rustls::ProtocolVersion;
use rustls::client::Resumption;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Server;
use crate::certificates::{Authority, credentials};
use crate::client::{Client, VERSIONS};

#[tokio::test]
async fn tls_1_2_and_1_3_carry_http_1_and_2() {
    let server = Server::asking().await;
    for version in VERSIONS {
        for (offered, spoken) in [
            (&["h2", "http/1.1"][..], Version::HTTP_2),
            (&["http/1.1", "h2"], Version::HTTP_2),
            (&["http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            let client = Client::speaking(&[version], &server.authority, None).alpn(offered);
            let answer = client.ask(server.tls, "/encrypted").await.unwrap();
            assert_eq!((answer.tls, answer.http), (version.version, spoken));
            assert_eq!(answer.text, "true");
        }
    }
    let client = Client::new(&server.authority, None).alpn(&["spdy/3"]);
    client.connect(server.tls).await.unwrap_err();
    let newest = Client::new(&server.authority, None);
    let answer = newest.ask(server.tls, "/encrypted").await.unwrap();
    assert_eq!(answer.tls, ProtocolVersion::TLSv1_3);
    server.stop().await;
}

#[tokio::test]
async fn tls_session_is_not_resumed() {
    let server = Server::asking().await;
    let credential = &credentials()[1].1;
    for version in VERSIONS {
        let mut client = Client::speaking(&[version], &server.authority, Some(credential));
        client.0.resumption = Resumption::in_memory_sessions(8);
        for _ in 0..3 {
            let mut stream = client.connect(server.tls).await.unwrap();
            stream
                .write_all(b"POST /whoami HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.ends_with(&credential.identity()), "{answer}");
            let (_, connection) = stream.get_ref();
            assert_eq!(
                connection.handshake_kind(),
                Some(rustls::HandshakeKind::Full)
            );
            assert_eq!(connection.tls13_tickets_received(), 0);
        }
    }
    server.stop().await;
}

/// A client that knows no newer version than TLS 1.1.
fn hello_of_tls_1_1() -> Vec<u8> {
    let mut hello = vec![0x03, 0x02];
    hello.extend([7; 32]);
    // No session; ECDHE and RSA with AES-CBC; no compression. Its extensions are TLS 1.2's, so that it is refused for
    // its version: the curve P-256, and RSA with SHA-256.
    hello.extend([0, 0, 4, 0xc0, 0x14, 0x00, 0x2f, 1, 0, 0, 16]);
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 1]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 0x03, 0x01, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn tls_older_than_1_2_is_refused() {
    let server = Server::asking().await;
    let mut stream = TcpStream::connect(server.tls).await.unwrap();
    stream.write_all(&hello_of_tls_1_1()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A fatal alert and nothing else: protocol_version.
    let alert = (answer[0], answer.len(), answer[5], answer[6]);
    assert_eq!(alert, (21, 7, 2, 70), "{answer:?}");
    server.stop().await;
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_400() {
    let server = Server::asking().await;
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.tls).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
        assert!(
            answer.contains("HTTP request to an HTTPS server"),
            "{answer}"
        );
    }
    for garbage in [&[0; 64][..], &[0xff; 64], b"ssh-2.0"] {
        let mut stream = TcpStream::connect(server.tls).await.unwrap();
        stream.write_all(garbage).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok();
        assert!(answer.len() <= 7, "an alert at most: {answer:?}");
    }
    // And TLS is none to a plain listener.
    let client = Client::new(&server.authority, None);
    client.connect(server.plain).await.unwrap_err();
    server.stop().await;
}

#[tokio::test]
async fn certificate_pair_unusable_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = Authority::new("a").server_pem();
    let (_, other_key) = Authority::new("b").server_pem();
    let good = (file("c.pem", &certificate), file("k.pem", &key));
    Tls::from_files(&good.0, &good.1, Clients::Asked)
        .ok()
        .unwrap();
    for (certificate, key, about) in [
        (&good.0, &file("o.pem", &other_key), "cannot be used"),
        (&good.1, &good.1, "no certificate in it"),
        (&good.0, &good.0, "c.pem"),
        (&good.0, &folder.path().join("nowhere.pem"), "nowhere.pem"),
        (&folder.path().join("nowhere.pem"), &good.1, "nowhere.pem"),
        (&file("empty.pem", ""), &good.1, "empty.pem"),
        (
            &good.0,
            &file("e.pem", &key.replace(" PRIVATE", " ENCRYPTED PRIVATE")),
            "under a passphrase",
        ),
        (
            &good.0,
            &file(
                "p.pem",
                "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            ),
            "under a passphrase",
        ),
    ] {
        let error: TlsError = Tls::from_files(certificate, key, Clients::Asked)
            .err()
            .unwrap();
        assert!(error.to_string().contains(about), "{error}");
    }
    let nobody = Clients::IssuedBy(file("nobody.pem", ""));
    let error = Tls::from_files(&good.0, &good.1, nobody).err().unwrap();
    assert!(error.to_string().contains("nobody.pem"), "{error}");
}

#[tokio::test]
async fn failed_handshake_is_counted_by_its_reason() {
    let server = Server::asking().await;
    let count = |reason: HandshakeFailure| reason.count();
    let reached = async |reason: HandshakeFailure, before| {
        let wait = async {
            while count(reason) <= before {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait)
            .await
            .unwrap_or_else(|_| panic!("{reason:?} is not counted"));
    };

    let before = count(HandshakeFailure::NotTls);
    let mut stream = TcpStream::connect(server.tls).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    reached(HandshakeFailure::NotTls, before).await;

    let before = count(HandshakeFailure::Untrusted);
    let other = Authority::new("another");
    let client = Client::new(&other, None);
    client.connect(server.tls).await.unwrap_err();
    reached(HandshakeFailure::Untrusted, before).await;

    let before = count(HandshakeFailure::KeyType);
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    let credential = crate::certificates::Credential::of(&pair);
    let client = Client::new(&server.authority, Some(&credential));
    client.whoami(server.tls).await.unwrap_err();
    reached(HandshakeFailure::KeyType, before).await;

    let before = count(HandshakeFailure::Incompatible);
    let mut stream = TcpStream::connect(server.tls).await.unwrap();
    stream.write_all(&hello_of_tls_1_1()).await.unwrap();
    reached(HandshakeFailure::Incompatible, before).await;
    server.stop().await;
}
