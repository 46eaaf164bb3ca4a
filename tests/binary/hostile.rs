//! Clients that attack memory, connections or the process, beside authenticated callers.

use std::convert::Infallible;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use http::Request;
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keyway_deployment_assembly::raise_open_files;
use keyway_tests::{KesClient, KesIdentity, Server, ServerOptions};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::raw::{Connection, head, signed};
use crate::{create, data_dir, folder, is_set, kes, now, on, wall_clock};

/// The bound on the growth of the server's memory, in KiB: 64 MiB of bodies, and the connections. A release build starts
/// with less than 34 MiB, which gives a bound of 150 MiB.
const MORE_MEMORY: u64 = 116 << 10;

/// The addresses and requests of a hostile client.
struct Target {
    plain: SocketAddr,
    kes: SocketAddr,
    tls: Arc<ClientConfig>,
    /// A head whose signature covers another body.
    unprovable: String,
    /// Requests at once on a connection of HTTP/2.
    streams: usize,
    over: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Large bodies over HTTP/2, without a signature.
    Bodies,
    /// Large bodies over HTTP/2 and TLS, without a certificate.
    KesBodies,
    /// Large bodies over HTTP/2, with a signature that the body must prove.
    UnprovableBodies,
    /// A head, byte by byte.
    DripsHead,
    /// A body, byte by byte.
    DripsBody,
    /// A connection to a TLS listener, without a byte.
    Silent,
    /// Sends requests and reads no answer.
    NeverReads,
    /// HTTP/2 without a request.
    Idle,
}

const KINDS: [Kind; 8] = [
    Kind::Bodies,
    Kind::KesBodies,
    Kind::UnprovableBodies,
    Kind::DripsHead,
    Kind::DripsBody,
    Kind::Silent,
    Kind::NeverReads,
    Kind::Idle,
];

/// The length that is sent of each body, which never ends.
const BODY: usize = 900 << 10;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Target {
    async fn connect(&self, from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(to).await
    }

    async fn connect_tls(&self, from: IpAddr) -> std::io::Result<impl Stream + 'static> {
        let stream = self.connect(from, self.kes).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
    }

    /// Sends until the server disconnects it or the test ends.
    async fn attack(&self, kind: Kind, from: IpAddr) -> std::io::Result<()> {
        let over = async {
            while !self.over.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        };
        tokio::select! {
            ended = self.attack_on(kind, from) => ended,
            ended = over => ended,
        }
    }

    async fn attack_on(&self, kind: Kind, from: IpAddr) -> std::io::Result<()> {
        match kind {
            Kind::Bodies => {
                let request = Request::post("http://localhost/rustfs/admin/v3/kms/encrypt");
                let stream = self.connect(from, self.plain).await?;
                flood(Box::new(stream), &request.body(()).unwrap(), self.streams).await
            }
            Kind::UnprovableBodies => {
                let mut lines = self.unprovable.lines();
                let path = lines.next().and_then(|line| line.split(' ').nth(1));
                let mut request = Request::post(format!("http://localhost{}", path.unwrap()));
                for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
                    if !["host", "content-length"].contains(&name) {
                        request = request.header(name, value);
                    }
                }
                let stream = self.connect(from, self.plain).await?;
                flood(Box::new(stream), &request.body(()).unwrap(), self.streams).await
            }
            Kind::KesBodies => {
                let request = Request::put("https://localhost/v1/key/encrypt/k");
                let stream = self.connect_tls(from).await?;
                flood(Box::new(stream), &request.body(()).unwrap(), self.streams).await
            }
            Kind::DripsHead => {
                let stream = self.connect(from, self.plain).await?;
                drip(stream, b"GET /rustfs/admin/v3/kms/keys HTTP/1.1\r\nx: ").await
            }
            Kind::DripsBody => {
                let stream = self.connect(from, self.plain).await?;
                drip(stream, self.unprovable.as_bytes()).await
            }
            Kind::Silent => {
                let mut stream = self.connect(from, self.kes).await?;
                stream.read_u8().await.map(drop)
            }
            Kind::NeverReads => {
                let mut stream = self.connect(from, self.plain).await?;
                let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(16);
                loop {
                    stream.write_all(&request).await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Kind::Idle => {
                let stream = self.connect(from, self.plain).await?;
                let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
                let (_send, connection): (http2::SendRequest<http_body_util::Empty<Bytes>>, _) =
                    connected.map_err(std::io::Error::other)?;
                connection.await.map_err(std::io::Error::other)
            }
        }
    }
}

async fn flood(stream: Box<dyn Stream>, like: &Request<()>, streams: usize) -> std::io::Result<()> {
    let connected = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut send, connection) = connected.map_err(std::io::Error::other)?;
    let driver = tokio::spawn(connection);
    let answers = async {
        let mut answers = JoinSet::new();
        for _ in 0..streams {
            let chunk = Bytes::from_static(&[b' '; 16 << 10]);
            let chunks = stream::repeat(chunk).take(BODY / (16 << 10));
            let body = chunks
                .chain(stream::pending())
                .map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
            let request = like.clone().map(|()| StreamBody::new(body.boxed()));
            if send.ready().await.is_err() {
                break;
            }
            answers.spawn(send.send_request(request));
        }
        while answers.join_next().await.is_some() {}
    };
    answers.await;
    driver.abort();
    Ok(())
}

async fn drip(mut stream: TcpStream, begin: &[u8]) -> std::io::Result<()> {
    stream.write_all(begin).await?;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stream.write_all(b"x").await?;
    }
}

fn certificate(data_dir: &std::path::Path) -> CertificateDer<'static> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::from_pem_file(data_dir.join("kes-listener.crt")).unwrap()
}

/// A field of a process's status, in KiB.
fn memory(server: &Server, figure: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(figure));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flood_leaves_memory_and_connections_for_authenticated_callers() {
    let is_long = is_set("KEYWAY_TORTURE");
    // The time of a debug build has no meaning.
    let is_release = is_set("KEYWAY_TEST_KEYWAY");
    // Connections are held, not opened as fast as possible: the number of refusals per second is another question, and a
    // debug build manages few.
    let (of_each, rounds, streams, rest) = if is_long {
        (1000, 100, 4, Duration::from_secs(5))
    } else {
        (100, 3, 16, Duration::from_secs(5))
    };
    let open_files = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    let of_each = of_each.min(open_files.saturating_sub(200));
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = kes::options().start(&data_dir).await;
    create(&server, "k").await;
    let certificate = certificate(&data_dir);
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    // Signed for another body than the one that follows.
    let other = " ".repeat(1_000_000);
    let unprovable = signed(&server, "POST", "/kms/encrypt", &other);
    assert!(!unprovable.headers().contains_key("x-amz-content-sha256"));
    let target = Arc::new(Target {
        plain: server.address.parse().unwrap(),
        kes: server.kes(),
        tls: Arc::new(tls),
        unprovable: head(&unprovable, ""),
        streams,
        over: AtomicBool::new(false),
    });
    let admin = KesIdentity::of_api_key(kes::ADMIN_KEY);
    let before = memory(&server, "VmRSS:");
    let mut took = Vec::new();
    for (kind_number, kind) in KINDS.into_iter().enumerate() {
        target.over.store(false, Ordering::Relaxed);
        let made = Arc::new(AtomicUsize::new(0));
        let mut hostile = JoinSet::new();
        for number in 0..of_each {
            let (target, made) = (Arc::clone(&target), Arc::clone(&made));
            // Each address stays below its own bound, so that bound does not decide.
            let subnet = u8::try_from(1 + kind_number).unwrap();
            let last = u8::try_from(1 + number / 50).unwrap();
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, subnet, last));
            let begins = rest * u32::try_from(number).unwrap() / u32::try_from(of_each).unwrap();
            hostile.spawn(async move {
                tokio::time::sleep(begins).await;
                while !target.over.load(Ordering::Relaxed) {
                    made.fetch_add(1, Ordering::Relaxed);
                    // The client reconnects after every end.
                    target.attack(kind, from).await.ok();
                    tokio::time::sleep(rest).await;
                }
            });
        }
        let mut most = 0;
        let mut round = 0;
        while round < rounds || made.load(Ordering::Relaxed) < of_each {
            round += 1;
            assert!(round < 1000, "{kind:?}: they are not made");
            let begun = now();
            // Each over its own connection, so that each needs a free slot.
            ask_anew(&server).await;
            took.push(begun.elapsed());
            if round % 10 == 1 {
                let client = KesClient::new(target.kes, certificate.clone(), &admin);
                let answer = client.call("GET", "/v1/key/describe/k", None).await;
                assert_eq!(answer.status, 200, "{kind:?} {round}: {answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            most = most.max(memory(&server, "VmRSS:"));
        }
        target.over.store(true, Ordering::Relaxed);
        while hostile.join_next().await.is_some() {}
        let made = made.load(Ordering::Relaxed);
        eprintln!("{kind:?}, {made} connections: {before} KiB before, {most} KiB at most");
        assert!(
            most.saturating_sub(before) < MORE_MEMORY,
            "{kind:?}: {most} KiB, {before} before"
        );
    }
    took.sort();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    eprintln!("honest callers: p50 {p50:?}, p99 {p99:?}");
    if is_release {
        assert!(p99 < Duration::from_millis(50), "{p99:?}");
    }
    assert_eq!(server.stop().await.0, Some(0));
}

#[tokio::test]
async fn slow_connections_of_one_address_leave_room_for_others() {
    let count = if is_set("KEYWAY_TORTURE") { 4096 } else { 600 };
    let open_files = usize::try_from(raise_open_files()).unwrap_or(usize::MAX);
    let count = count.min(open_files.saturating_sub(300));
    let folder = folder();
    let server = ServerOptions::default().start(folder.path()).await;
    create(&server, "k").await;
    let connected = (0..count).map(async |_| {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        // The server may have closed it.
        stream.write_all(b"GET / HT").await.ok();
        stream
    });
    let mut dripping = join_all(connected).await;
    // An old client and a new one, both from the same address.
    for _ in 0..20 {
        crate::generate(&server, "k").await.ok();
        ask_anew(&server).await;
        for stream in &mut dripping {
            stream.write_all(b"x").await.ok();
        }
    }
    assert_eq!(server.stop().await.0, Some(0));
}

/// A data key over a new connection.
async fn ask_anew(server: &Server) {
    let request = signed(server, "POST", "/kms/generate-data-key", &on("k"));
    let mut connection = Connection::open(server).await;
    connection
        .send(head(&request, "connection: close\r\n"))
        .await;
    connection.send(request.body()).await;
    let answer = connection.read_to_end().await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn head_refused_is_answered_before_the_body_arrives() {
    let folder = folder();
    let data_dir = data_dir(&folder);
    let server = kes::options().start(&data_dir).await;
    let path = "/rustfs/admin/v3/kms/encrypt";
    let mut declared = keyway_tests::Signer::new("test-root", "another-secret").declared_request(
        "POST",
        &server.address,
        path,
        b"",
        Some(&"0".repeat(64)),
        wall_clock(),
    );
    *declared.body_mut() = Bytes::from_static(&[b' '; 1000]);
    for (request, status) in [
        ("POST /rustfs/admin/v3/kms/encrypt HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".to_owned(), 401),
        (head(&declared, ""), 401),
        ("PUT /photos?encryption HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".to_owned(), 403),
        ("POST /minio/kms/v1/key/create?key-id=k HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n".to_owned(), 403),
        ("GET /openapi.json HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n".to_owned(), 200),
    ] {
        let mut connection = Connection::open(&server).await;
        // No byte of the body is sent.
        connection.send(&request).await;
        let answer = connection.read_until("\r\n").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}{answer}");
    }
    // KES's API refuses without a body, too.
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&data_dir)).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.kes()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connected = TlsConnector::from(Arc::new(tls))
        .connect(name, stream)
        .await;
    let mut stream = connected.unwrap();
    let request = b"PUT /v1/key/encrypt/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut answer))
        .await
        .expect("it is answered without a body")
        .unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    server.stop().await;
}

/// The kernel protects only a process that is not root's, so the server runs as another user.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn server_writes_no_core_file_and_its_memory_is_unreadable() {
    use std::os::unix::fs::MetadataExt;

    let folder = folder();
    let data_dir = data_dir(&folder);
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let options = if is_root {
        // The other user owns the folder, and can read the binary.
        ServerOptions::default().as_user(65534, folder.path())
    } else {
        ServerOptions::default()
    };
    let server = options.start(&data_dir).await;
    let pid = server.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let of = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let numbers = line.trim_start_matches(name).split_whitespace();
        numbers.take(2).map(str::to_owned).collect()
    };
    assert_eq!(of("Max core file size"), ["0", "0"]);
    let open_files = of("Max open files");
    assert_eq!(open_files[0], open_files[1], "raised as far as it goes");
    // The kernel gives the files of a process that cannot be dumped to root, so its own user cannot attach.
    let owner = fs::metadata(format!("/proc/{pid}/status")).unwrap().uid();
    assert_eq!(owner, 0, "it can be dumped");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let user = status
        .lines()
        .find(|line| line.starts_with("Uid:"))
        .unwrap();
    assert!(!user.split_whitespace().any(|id| id == "0"), "{user}");
    // The server still logs: it opens the pipe again.
    create(&server, "k").await;
    let (code, log, stderr) = server.stop().await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(log.contains("kms:CreateKey"), "{log}");
}
