//! KES's API over mutual TLS, against a bare server that speaks the same TLS; the cost of a policy; memory with many
//! connections.

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::identity::{PathRules, Rules};
use keyway_performance::{Bound, Comparison, Measure};
use keyway_tests::{KesClient, KesIdentity};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ClientConfig, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::load::{Until, run_loader, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;
use crate::turns::{Loaded, What, in_turns};
use crate::{BARE, Fallible, OWN, ROUNDS, beside};

const ADMIN_KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
pub(crate) const ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const CONNECTIONS: [usize; 2] = [1, 32];
const PROTOCOLS: [&str; 2] = ["h1", "h2"];
/// Different contexts, so that no answer comes from a cache that a real caller would miss.
const REQUESTS: usize = 64;
const TARGET: f64 = 0.5;
/// The operations that object stores ask for most, which have targets.
const HOT: [&str; 2] = ["generate", "decrypt"];
/// Their processor time should be at most so many times the bare server's.
const PROCESSOR_TARGET: f64 = 1.9;
const KES: &str = "KES";
const RULES: usize = 1_000;
const RULES_TARGET: f64 = 5.0;
const OPEN: usize = 1_000;
const OPEN_TARGET: f64 = 40.0;

/// What each transport is called.
pub(crate) fn transport(protocol: &str) -> &'static str {
    match protocol {
        "h2" => "HTTP/2, mutual TLS",
        _ => "HTTP/1.1, mutual TLS",
    }
}

/// The bodies of all operations under the key `bench`.
#[derive(Default)]
pub(crate) struct Bodies {
    generate: Vec<Value>,
    decrypt: Vec<Value>,
    encrypt: Vec<Value>,
    hmac: Vec<Value>,
}

impl Bodies {
    /// Creates the key, unless it exists, and generates the data keys that are then decrypted.
    pub(crate) fn make(address: &str, folder: &Path) -> Fallible<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let client = Pki(folder.to_owned()).client(address.parse()?)?;
        runtime.block_on(client.call("POST", "/v1/key/create/bench", None));
        let mut all = Self::default();
        for n in 0..REQUESTS {
            let context = STANDARD.encode(format!(r#"{{"bucket":"bucket/object-{n:04}"}}"#));
            let generate = json!({ "context": context });
            let answer = client.call("POST", "/v1/key/generate/bench", Some(&generate));
            let answer = runtime.block_on(answer);
            if answer.status != 200 {
                return Err(format!("{address}: {answer:?}").into());
            }
            let made: Value = serde_json::from_slice(&answer.body)?;
            let (ciphertext, plaintext) = (made.get("ciphertext"), made.get("plaintext"));
            all.generate.push(generate);
            all.decrypt
                .push(json!({"ciphertext": ciphertext, "context": context}));
            all.encrypt
                .push(json!({"plaintext": plaintext, "context": context}));
            all.hmac.push(json!({ "message": context }));
        }
        Ok(all)
    }

    pub(crate) fn operations(&self) -> [(&'static str, &[Value]); 4] {
        [
            ("generate", &self.generate),
            ("decrypt", &self.decrypt),
            ("encrypt", &self.encrypt),
            ("hmac", &self.hmac),
        ]
    }
}

/// Requests as the loader reads them: a path and a body.
pub(crate) fn requests(operation: &str, bodies: &[Value]) -> Vec<Vec<u8>> {
    let request = |body| format!("/v1/key/{operation}/bench\n{body}").into_bytes();
    bodies.iter().map(request).collect()
}

/// Starts a bare server that answers as `address` answers the first of these bodies.
pub(crate) fn prepare(
    address: &str,
    folder: &Path,
    operation: &str,
    bodies: &[Value],
    answer: &Path,
) -> Fallible<Server> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = Pki(folder.to_owned()).client(address.parse()?)?;
    let path = format!("/v1/key/{operation}/bench");
    let answered = runtime.block_on(client.call("POST", &path, bodies.first()));
    if answered.status != 200 {
        return Err(format!("{path}: {answered:?}").into());
    }
    std::fs::write(answer, &answered.body)?;
    Server::reference_over_tls(answer, folder)
}

/// The servers of one operation: Keyway, the bare one and, where it is installed, KES, with the requests for each.
struct Servers<'a> {
    keyway: (&'a Server, &'a str, PathBuf),
    bare: Server,
    kes: Option<(&'a Server, PathBuf)>,
    /// The folder with the certificate of all of them.
    pki: &'a Path,
}

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data");
    let (keyway, address) = start(&data_dir)?;
    let address = address.to_string();
    let bodies = Bodies::make(&address, &data_dir)?;
    let kes = beside::kes(&data_dir)?;
    let kes_bodies = match &kes {
        Some(kes) => Bodies::make(&kes.address, &data_dir)?,
        None => Bodies::default(),
    };
    println!(
        "\nKES's API: mutual TLS, kept alive, key warm; the reference is a bare hyper server on the same TLS, which reads \
         the same requests and answers the same bytes. Keyway's log goes to a file. Medians of {ROUNDS} turns of {turn:?}."
    );
    if kes.is_none() {
        println!("KES_BINARY names no KES server, so none is measured.");
    }
    let operations = bodies.operations().into_iter();
    for ((operation, bodies), (_, of_kes)) in operations.zip(kes_bodies.operations()) {
        let (own, other) = (folder.path().join("own"), folder.path().join("other"));
        write_requests(&own, &requests(operation, bodies))?;
        write_requests(&other, &requests(operation, of_kes))?;
        let answer = folder.path().join("answer");
        // KES takes HMACs with PUT alone, and encryption is not what object stores ask for.
        let kes = kes.as_ref().filter(|_| HOT.contains(&operation));
        let servers = Servers {
            keyway: (&keyway, &address, own),
            bare: prepare(&address, &data_dir, operation, bodies, &answer)?,
            kes: kes.map(|kes| (kes, other)),
            pki: &data_dir,
        };
        for protocol in PROTOCOLS {
            for connections in CONNECTIONS {
                // The operations that are not hot are measured once over each transport.
                if HOT.contains(&operation) || connections > 1 {
                    let compared = servers.compare(operation, protocol, connections, turn)?;
                    report.comparison(compared);
                }
            }
        }
    }
    policy(report)?;
    keyway.stop()?;
    for protocol in PROTOCOLS {
        many_connections(report, &folder.path().join(protocol), protocol)?;
    }
    Ok(())
}

impl Servers<'_> {
    fn compare(
        &self,
        operation: &str,
        protocol: &str,
        connections: usize,
        turn: Duration,
    ) -> Fallible<Comparison> {
        let how = ["load-tls", protocol, path_text(self.pki)?];
        let until = Until::Passed(turn);
        let run = |address: &str, server: &Server, file: &Path| {
            let done = run_loader(&how, address, server.pid(), connections, until, file);
            server.forget_log()?;
            done
        };
        let (keyway, address, file) = &self.keyway;
        let own = || run(address, keyway, file);
        let bare = || run(&self.bare.address, &self.bare, file);
        let kes = || {
            let (server, file) = self.kes.as_ref().ok_or("no KES")?;
            run(&server.address, server, file)
        };
        let mut sides: Vec<Loaded<'_>> = vec![(OWN, &own), (BARE, &bare)];
        if self.kes.is_some() {
            sides.push((KES, &kes));
        }
        let what = What {
            operation,
            transport: transport(protocol),
            connections,
        };
        let mut comparison = in_turns(what, ROUNDS, &sides)?;
        comparison.compare(Measure::Rate, BARE, Some((Bound::AtLeast, TARGET)))?;
        let is_hot = HOT.contains(&operation);
        let most = is_hot.then_some((Bound::AtMost, PROCESSOR_TARGET));
        comparison.compare(Measure::Processor, BARE, most)?;
        comparison.compare(Measure::P99, BARE, None)?;
        if self.kes.is_some() {
            let least = match (protocol, connections) {
                ("h2", _) => 1.8,
                (_, 1) => 1.5,
                _ => 1.25,
            };
            comparison.compare(Measure::Rate, KES, Some((Bound::AtLeast, least)))?;
            comparison.compare(Measure::Processor, KES, None)?;
            comparison.compare(Measure::P99, KES, None)?;
        }
        Ok(comparison)
    }
}

pub(crate) fn start(data_dir: &Path) -> Fallible<(Server, SocketAddr)> {
    let keyway = Keyway::start_with(
        data_dir,
        &["--kes-listen", "127.0.0.1:0", "--kes-admin-identity", ADMIN],
        Log::File,
    )?;
    let address = keyway.said("kes")?.parse()?;
    Ok((keyway, address))
}

pub(crate) fn path_text(path: &Path) -> Fallible<&str> {
    path.to_str().ok_or_else(|| "a path is not UTF-8".into())
}

/// The cost of a policy of many rules for each request, measured in this process. The last rule decides.
fn policy(report: &mut Report) -> Fallible<()> {
    const TIMES: u32 = 200_000;
    type Rule = fn(usize) -> String;
    println!("\nA policy of {RULES} rules: what a decision costs, in microseconds");
    let shapes: [(&str, Rule); 3] = [
        ("exact", |n| format!("/v1/key/generate/app-{n:04}")),
        ("prefixes", |n| format!("/v1/key/generate/app-{n:04}*")),
        ("globs", |n| format!("/v1/key/*/app-{n:04}")),
    ];
    for (what, rule) in shapes {
        let rules = Rules::parse((0..RULES).map(rule), []).map_err(|_| "the rules do not fit")?;
        let caller = Caller::new(
            "app",
            Arc::new(Grant::Paths(Arc::new(PathRules::compile(rules)))),
        );
        let path = format!("/v1/key/generate/app-{:04}", RULES - 1);
        let begun = Instant::now();
        for _ in 0..TIMES {
            std::hint::black_box(caller.may_call(std::hint::black_box(&path)))
                .map_err(|_| "the last rule does not permit")?;
        }
        let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(TIMES);
        let name = format!("a decision over a policy of {RULES} rules, {what}");
        report.figure(name, vec![each], "µs", Bound::AtMost, RULES_TARGET);
    }
    Ok(())
}

/// Memory of a server whose clients have each sent a request and stay connected.
fn many_connections(report: &mut Report, data_dir: &Path, protocol: &str) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (keyway, address) = start(data_dir)?;
    let pki = Pki(data_dir.to_owned());
    let before = keyway.memory()?;
    let open = LocalSet::new().block_on(&runtime, async {
        let connector = pki.connector(protocol)?;
        let mut open = Vec::with_capacity(OPEN);
        for n in 0..OPEN {
            let stream = connect(&connector, address).await?;
            let mut sender = Sender::over(stream, protocol).await?;
            let path = match n {
                0 => "/v1/key/create/bench",
                _ => "/v1/key/generate/bench",
            };
            sender.send(path, Bytes::new()).await?;
            open.push(sender);
        }
        Fallible::Ok(open)
    })?;
    let after = keyway.memory()?;
    println!(
        "\nMemory with {OPEN} open connections, each used once: {:.1} MB before, of which {:.1} no page of a file",
        before.whole, before.own
    );
    let name = format!(
        "memory with {OPEN} open connections, {}",
        transport(protocol)
    );
    report.memory(&name, &[after], OPEN_TARGET);
    drop(open);
    keyway.stop()
}

/// The folder with the certificate and key that the server made for itself.
pub(crate) struct Pki(pub(crate) PathBuf);

impl Pki {
    fn certificate(&self) -> Fallible<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(
            self.0.join("kes-listener.crt"),
        )?)
    }

    pub(crate) fn client(&self, address: SocketAddr) -> Fallible<KesClient> {
        let admin = KesIdentity::of_api_key(ADMIN_KEY);
        Ok(KesClient::new(address, self.certificate()?, &admin))
    }

    pub(crate) fn connector(&self, protocol: &str) -> Fallible<TlsConnector> {
        Ok(Arc::new(self.config(protocol)?).into())
    }

    /// The client's side of TLS for this protocol.
    pub(crate) fn config(&self, protocol: &str) -> Fallible<ClientConfig> {
        let mut config = KesIdentity::of_api_key(ADMIN_KEY).tls(self.certificate()?);
        let protocol = if protocol == "h2" { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(config)
    }
}

pub(crate) async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
) -> Fallible<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")?;
    Ok(connector.connect(name, stream).await?)
}

/// The sending side of one connection.
pub(crate) enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    pub(crate) async fn over(stream: TlsStream<TcpStream>, protocol: &str) -> Fallible<Self> {
        let stream = TokioIo::new(stream);
        // The sender sees every end of a connection.
        if protocol == "h2" {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::task::spawn_local(async { drop(connection.await) });
            Ok(Self::Two(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            tokio::task::spawn_local(async { drop(connection.await) });
            Ok(Self::One(sender))
        }
    }

    /// Every answer must be 200, and is read to its end.
    pub(crate) async fn send(&mut self, path: &str, body: Bytes) -> Fallible<()> {
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                let request = Request::post(path).header("host", "localhost");
                sender.send_request(request.body(Full::new(body))?).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                let request = Request::post(format!("https://localhost{path}"));
                let request = request.version(Version::HTTP_2).body(Full::new(body))?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status == 200 {
            Ok(())
        } else {
            Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)).into())
        }
    }
}

/// The loader's work: `PROTOCOL FOLDER ADDRESS CONNECTIONS (COUNT | TIMEms) FILE`.
pub(crate) fn load(arguments: &[&str]) -> Fallible<()> {
    let &[protocol, folder, address, connections, until, file] = arguments else {
        return Err("six arguments are needed".into());
    };
    let plan = Rc::new(crate::load::Plan::read(until, file)?);
    let address: SocketAddr = address.parse()?;
    let connector = Pki(folder.into()).connector(protocol)?;
    let protocol: Rc<str> = protocol.into();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = LocalSet::new();
    let running: Vec<_> = (0..connections.parse::<usize>()?)
        .map(|_| {
            let (plan, connector, protocol) =
                (Rc::clone(&plan), connector.clone(), Rc::clone(&protocol));
            local.spawn_local(async move {
                let stream = connect(&connector, address).await?;
                let mut sender = Sender::over(stream, &protocol).await?;
                while let Some((request, begun)) = plan.next()? {
                    let (path, body) = split(request)?;
                    sender.send(path, body).await?;
                    plan.answered(begun);
                }
                Fallible::Ok(())
            })
        })
        .collect();
    runtime.block_on(local.run_until(async {
        for connection in running {
            connection.await?.map_err(|error| error.to_string())?;
        }
        Fallible::Ok(())
    }))?;
    plan.tell()
}

/// A request's path and body.
pub(crate) fn split(request: &[u8]) -> Fallible<(&str, Bytes)> {
    let text = str::from_utf8(request)?;
    let (path, body) = text.split_once('\n').ok_or("a request without a path")?;
    Ok((path, Bytes::copy_from_slice(body.as_bytes())))
}

/// The bare server, a process of its own: `FILE FOLDER`, the body to answer and the certificate to show.
pub(crate) fn reference(arguments: &[&str]) -> Fallible<()> {
    let &[file, folder] = arguments else {
        return Err("two arguments are needed".into());
    };
    let body = Bytes::from(std::fs::read(file)?);
    let pki = Pki(folder.into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::from_pem_file(pki.0.join("kes-listener.key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Anybody(provider)))
        .with_single_cert(vec![pki.certificate()?], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let line = json!({ "listen": listener.local_addr()?.to_string() });
        writeln!(std::io::stdout(), "{line}")?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let (acceptor, body) = (acceptor.clone(), body.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request: Request<Incoming>| {
                    let body = body.clone();
                    async move {
                        drop(request.into_body().collect().await);
                        let mut response = Response::new(Full::new(body));
                        let kind = http::HeaderValue::from_static("application/json");
                        response.headers_mut().insert("content-type", kind);
                        Ok::<_, Infallible>(response)
                    }
                });
                let builder = auto::Builder::new(TokioExecutor::new());
                drop(
                    builder
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
            });
        }
    })
}

/// Accepts every client certificate whose key the client proves to have.
#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::server::danger::ClientCertVerified, rustls::Error> {
        Ok(rustls::server::danger::ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
