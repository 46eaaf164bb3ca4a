//! TLS: a listener's certificate and key, which it reads again when their files change, and the handshake.

mod client;
mod files;
pub(crate) mod pinned;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keyway_http::ClientCertificate;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::Signal;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use files::{Files, Stamps};

/// Which certificates a listener asks of its clients.
///
/// A client that shows a certificate must always prove that it has the certificate's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// It asks for none.
    Anonymous,
    /// It asks for one, and accepts any and none. The dialects decide who the client is.
    Asked,
    /// It asks for one that an authority in this file has issued. The client may also show none.
    IssuedBy(PathBuf),
}

/// Why a certificate and its key cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The pair cannot be used, for example because one does not belong to the other.
    #[error("the certificate and its key cannot be used: {0}")]
    Pair(&'static str),
}

/// Uses fixed texts, because the texts of a later rustls could repeat what it read.
impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Pair(match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's",
            rustls::Error::InvalidCertificate(_) => "the certificate is no X.509 certificate",
            rustls::Error::NoCertificatesPresented => "there is no certificate",
            _ => {
                "the key is no RSA, ECDSA or Ed25519 key, or the certificate is of another kind than can be served with"
            }
        })
    }
}

/// A listener's configuration of TLS 1.2 and 1.3.
///
/// Sessions are not resumed, so that the client proves on each connection that it has its key.
pub struct Tls {
    config: watch::Sender<Arc<ServerConfig>>,
    source: Option<(Files, Stamps)>,
}

impl Tls {
    /// Reads a certificate (its chain after it) and its key from PEM files. They are read again when they change, and at
    /// a SIGHUP. If the new ones cannot be used, the listener keeps those that it has.
    ///
    /// # Errors
    /// [`TlsError`] when it cannot be used now.
    pub fn from_files(certificate: &Path, key: &Path, clients: Clients) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            clients,
        };
        // Taken before the files are read, so that a change in between is noticed later.
        let stamps = files.stamps();
        let (config, _) = watch::channel(Arc::new(files.load()?));
        Ok(Self {
            config,
            source: Some((files, stamps)),
        })
    }

    /// Takes a certificate and its key (PKCS #8) in DER.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be used.
    pub fn from_der(
        certificate: Vec<u8>,
        key: Vec<u8>,
        clients: &Clients,
    ) -> Result<Self, TlsError> {
        let chain = vec![CertificateDer::from(certificate)];
        let config = config(chain, PrivateKeyDer::Pkcs8(key.into()), clients)?;
        let (config, _) = watch::channel(Arc::new(config));
        Ok(Self {
            config,
            source: None,
        })
    }

    /// The configuration for the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// Reads the files again when they change and at SIGHUP, for as long as it is polled.
    pub(crate) async fn keep_up(&self, interval: Duration, mut hangup: Signal) {
        let Some((files, stamps)) = &self.source else {
            return std::future::pending().await;
        };
        let mut stamps = stamps.clone();
        loop {
            let asked = tokio::select! {
                Some(()) = hangup.recv() => true,
                () = tokio::time::sleep(interval) => false,
            };
            let (files, before) = (files.clone(), stamps.clone());
            let loaded = tokio::task::spawn_blocking(move || {
                let now = files.stamps();
                (asked || now != before).then(|| (now, files.load()))
            });
            let Ok(Some((now, loaded))) = loaded.await else {
                continue;
            };
            stamps = now;
            match loaded {
                Ok(config) => {
                    self.config.send_replace(Arc::new(config));
                    tracing::info!("the TLS certificate was read again");
                }
                Err(error) => tracing::error!(
                    %error,
                    "the TLS certificate was changed and cannot be used; the one before stays"
                ),
            }
        }
    }
}

fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: &Clients,
) -> Result<ServerConfig, TlsError> {
    let provider = client::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match clients {
        Clients::Anonymous => builder.with_no_client_auth(),
        Clients::Asked => {
            builder.with_client_cert_verifier(Arc::new(client::AnyCertificate::new(&provider)))
        }
        Clients::IssuedBy(path) => {
            builder.with_client_cert_verifier(client::issued_by(path, provider)?)
        }
    };
    let mut config = builder.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Does the handshake. Returns `None` for a client that spoke plain HTTP, which gets an error as its answer, and for one
/// that closed the connection before it sent a byte.
pub(crate) async fn handshake(
    mut stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Ok(None);
    }
    if first.iter().all(u8::is_ascii_uppercase) {
        stream.write_all(NOT_PLAIN).await?;
        stream.shutdown().await?;
        // Closing with unread bytes resets the connection, and the client loses the answer.
        tokio::io::copy(&mut stream.take(64 << 10), &mut tokio::io::sink()).await?;
        return Ok(None);
    }
    TlsAcceptor::from(config).accept(stream).await.map(Some)
}

/// The answer of Go's servers, which Go's clients recognize.
const NOT_PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The certificates that the client has shown, with proof that it has the key.
pub(crate) fn shown(connection: &ServerConnection) -> Option<ClientCertificate> {
    let chain = connection.peer_certificates()?;
    let chain = chain.iter().map(|one| Bytes::copy_from_slice(one));
    Some(ClientCertificate::Der(chain.collect()))
}
