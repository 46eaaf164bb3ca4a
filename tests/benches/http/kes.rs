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
use keyway_tests::{KesClient, KesIdentity};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::load::{Load, Until, run_loader, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;
use crate::{Fallible, ROUNDS, median};

const ADMIN_KEY: &str = "kes:v1:AD9E7FSYWrMD+VjhI6q545cYT9YOyFxZb7UnjEepYDRc";
pub(crate) const ADMIN: &str = "3ecfcdf38fcbe141ae26a1030f81e96b753365a46760ae6b578698a97c59fd22";
const CONNECTIONS: [usize; 2] = [1, 32];
const PROTOCOLS: [&str; 2] = ["h1", "h2"];
/// Different contexts, so that no answer comes from a cache that a real caller would miss.
const REQUESTS: usize = 64;
const TARGET: f64 = 0.5;
const RULES: usize = 1_000;
const RULES_TARGET: f64 = 5.0;
const OPEN: usize = 1_000;
const OPEN_TARGET: f64 = 40.0;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let data_dir = folder.path().join("data");
    let (keyway, address) = start(&data_dir)?;
    let pki = Pki(data_dir);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = pki.client(address)?;
    let call = |path: &str, body: Option<&Value>| -> Fallible<Value> {
        let answer = runtime.block_on(client.call("POST", path, body));
        if answer.status != 200 {
            return Err(format!("{path}: {answer:?}").into());
        }
        Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
    };
    call("/v1/key/create/bench", None)?;
    let mut operations = [
        ("generate", Vec::new()),
        ("decrypt", Vec::new()),
        ("encrypt", Vec::new()),
        ("hmac", Vec::new()),
    ];
    for n in 0..REQUESTS {
        let context = STANDARD.encode(format!(r#"{{"bucket":"bucket/object-{n:04}"}}"#));
        let generate = json!({ "context": context });
        let made = call("/v1/key/generate/bench", Some(&generate))?;
        let bodies = [
            generate,
            json!({"ciphertext": made.get("ciphertext"), "context": context}),
            json!({"plaintext": made.get("plaintext"), "context": context}),
            json!({"message": context}),
        ];
        for ((_, all), body) in operations.iter_mut().zip(bodies) {
            all.push(body);
        }
    }
    println!(
        "\nKES's API: mutual TLS, kept alive, key warm; the reference is a bare hyper server on the same TLS, which reads \
         the same requests and answers the same bytes. Keyway's log goes to a file. Medians of {ROUNDS} turns of {turn:?}."
    );
    for (operation, bodies) in &operations {
        let path = format!("/v1/key/{operation}/bench");
        let answer = call(&path, bodies.first())?;
        let file = folder.path().join("answer");
        std::fs::write(&file, format!("{answer}\n"))?;
        let reference = Server::reference_over_tls(&file, &pki.0)?;
        let requests: Vec<Vec<u8>> = bodies
            .iter()
            .map(|body| format!("{path}\n{body}").into_bytes())
            .collect();
        let file = folder.path().join("requests");
        write_requests(&file, &requests)?;
        for protocol in PROTOCOLS {
            for connections in CONNECTIONS {
                let side = |address: &str, pid: u32| {
                    let how = ["load-tls", protocol, path_text(&pki.0)?];
                    run_loader(&how, address, pid, connections, Until::Passed(turn), &file)
                };
                let (mut ours, mut bare) = (Vec::new(), Vec::new());
                for _ in 0..ROUNDS {
                    ours.push(side(&address.to_string(), keyway.pid())?);
                    keyway.forget_log()?;
                    bare.push(side(&reference.address, reference.pid())?);
                }
                tell(report, operation, protocol, connections, &ours, &bare)?;
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

fn start(data_dir: &Path) -> Fallible<(Server, SocketAddr)> {
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

fn tell(
    report: &mut Report,
    operation: &str,
    protocol: &str,
    connections: usize,
    ours: &[Load],
    bare: &[Load],
) -> Fallible<()> {
    println!("\n{operation} over {protocol}, connections: {connections}");
    println!(
        "{:<12}{:>14}{:>12}{:>12}{:>18}",
        "", "requests/s", "p50 ms", "p99 ms", "server CPU us"
    );
    crate::speed::line("keyway", ours)?;
    crate::speed::line("reference", bare)?;
    let ratios = ours
        .iter()
        .zip(bare)
        .map(|(ours, bare)| ours.per_second / bare.per_second);
    let ratio = median(ratios.collect())?;
    println!("ratio of requests/s {ratio:.2} (target >= {TARGET})");
    report.at_least(
        format!("KES {operation}, {protocol}, connections {connections}: speed ratio"),
        ratio,
        TARGET,
    );
    Ok(())
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
        println!(
            "{what:<12}{each:>8.3} (target <= {RULES_TARGET}, ratio {:.3})",
            each / RULES_TARGET
        );
        report.at_most(
            format!("a decision over {RULES} rules, {what}"),
            each,
            RULES_TARGET,
            " us",
        );
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
    let before = keyway.memory("VmRSS")?;
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
    let after = keyway.memory("VmRSS")?;
    println!(
        "\nMemory with {OPEN} open connections (mutual TLS, {protocol}, each used once): {after:.1} MB, {before:.1} MB before \
         (target <= {OPEN_TARGET}, ratio {:.2})",
        after / OPEN_TARGET
    );
    report.at_most(
        format!("memory with {OPEN} open connections, {protocol}"),
        after,
        OPEN_TARGET,
        " MB",
    );
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
        let mut config = KesIdentity::of_api_key(ADMIN_KEY).tls(self.certificate()?);
        let protocol = if protocol == "h2" { "h2" } else { "http/1.1" };
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        Ok(Arc::new(config).into())
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
