//! A client over rustls that shows what it is told to, and can lie about it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Authority, Credential};

pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Shows its certificate whatever the server asks for, and whether or not the key is the certificate's.
#[derive(Debug)]
struct Shows(Arc<CertifiedKey>);

impl ResolvesClientCert for Shows {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Clone)]
pub(crate) struct Client(pub(crate) ClientConfig);

impl Client {
    pub(crate) fn new(servers: &Authority, credential: Option<&Credential>) -> Self {
        Self::speaking(&VERSIONS, servers, credential)
    }

    pub(crate) fn speaking(
        versions: &[&'static SupportedProtocolVersion],
        servers: &Authority,
        credential: Option<&Credential>,
    ) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(servers.certificate.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        Self(match credential {
            None => builder.with_no_client_auth(),
            Some(credential) => {
                let key = provider
                    .key_provider
                    .load_private_key(credential.key.clone_key());
                let certified = CertifiedKey::new(credential.chain.clone(), key.unwrap());
                builder.with_client_cert_resolver(Arc::new(Shows(Arc::new(certified))))
            }
        })
    }

    pub(crate) fn alpn(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.0.alpn_protocols = protocols.collect();
        self
    }

    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(self.0.clone()));
        connector.connect(name, stream).await
    }

    /// Asks once, over a connection of its own.
    pub(crate) async fn ask(&self, address: SocketAddr, path: &str) -> Result<Answer, Failed> {
        let stream = self.connect(address).await?;
        let (_, connection) = stream.get_ref();
        let version = connection.protocol_version().unwrap();
        if connection.alpn_protocol() == Some(b"h2") {
            let (mut send, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            let driver = tokio::spawn(connection);
            let request = Request::post(format!("https://localhost{path}"));
            let response = send
                .send_request(request.body(Full::<Bytes>::default())?)
                .await;
            let answer = Answer::read(response?, version).await;
            driver.abort();
            return answer;
        }
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = Request::post(path).header("host", "localhost");
        let response = send
            .send_request(request.body(Full::<Bytes>::default())?)
            .await;
        let answer = Answer::read(response?, version).await;
        driver.abort();
        answer
    }

    /// What the server answers to who the client is.
    pub(crate) async fn whoami(&self, address: SocketAddr) -> Result<String, Failed> {
        Ok(self.ask(address, "/whoami").await?.text)
    }
}

pub(crate) type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) http: Version,
    pub(crate) tls: ProtocolVersion,
}

impl Answer {
    async fn read(
        response: http::Response<hyper::body::Incoming>,
        tls: ProtocolVersion,
    ) -> Result<Self, Failed> {
        let http = response.version();
        let body = response.into_body().collect().await?.to_bytes();
        Ok(Self {
            text: String::from_utf8(body.to_vec())?,
            http,
            tls,
        })
    }
}
