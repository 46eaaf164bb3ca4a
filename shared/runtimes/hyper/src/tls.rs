//! TLS: a listener's certificate and key, their files when these change, and the handshake.

mod client;
mod files;

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

/// What a listener does about its clients' certificates.
///
/// Whatever certificate is shown, the client must prove that it has the key of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// It asks for none.
    Anonymous,
    /// It asks for one and takes any, also none: who that is, is decided by whoever is asked for something.
    Asked,
    /// It asks for one, and what is shown must have been issued by an authority of this file. None may still be shown.
    IssuedBy(PathBuf),
}

/// Why a certificate and its key cannot be served with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The pair cannot be used, for example because one does not belong to the other.
    #[error("the certificate and its key cannot be used: {0}")]
    Pair(&'static str),
}

/// The library's own texts may grow to hold what was read; these cannot.
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

/// With what a listener speaks TLS, 1.2 or 1.3.
///
/// Sessions are not resumed, so that each connection's client proves anew that it has its key.
pub struct Tls {
    config: watch::Sender<Arc<ServerConfig>>,
    source: Option<(Files, Stamps)>,
}

impl Tls {
    /// With a certificate (its chain after it) and its key from PEM files. When the files change they are read again,
    /// and a SIGHUP has that happen at once; what cannot be used then leaves everything as it was.
    ///
    /// # Errors
    /// [`TlsError`] when it cannot be used now.
    pub fn from_files(certificate: &Path, key: &Path, clients: Clients) -> Result<Self, TlsError> {
        let files = Files {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            clients,
        };
        // Looked at before they are read: a change in between is then seen later, rather than missed.
        let stamps = files.stamps();
        let (config, _) = watch::channel(Arc::new(files.load()?));
        Ok(Self {
            config,
            source: Some((files, stamps)),
        })
    }

    /// With a certificate and its key (PKCS #8) in DER.
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

    /// What the next connection is served with.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// Keeps up with the files, for as long as it is polled.
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

/// Takes a connection through its handshake; `None` when it has been told that this is no plain HTTP, or was closed
/// before it sent a byte.
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
        // What is unread when a connection is closed takes the answer with it.
        tokio::io::copy(&mut stream.take(64 << 10), &mut tokio::io::sink()).await?;
        return Ok(None);
    }
    TlsAcceptor::from(config).accept(stream).await.map(Some)
}

/// As Go's servers answer, whose clients know what it means.
const NOT_PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain; charset=utf-8\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// The certificates that the client has shown and proven to be its own.
pub(crate) fn shown(connection: &ServerConnection) -> Option<ClientCertificate> {
    let chain = connection.peer_certificates()?;
    let chain = chain.iter().map(|one| Bytes::copy_from_slice(one));
    Some(ClientCertificate::Der(chain.collect()))
}
