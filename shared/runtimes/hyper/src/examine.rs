//! Asks another server whether it answers, and for its date and certificate.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, DATE, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::Empty;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::probe::exchange;

/// The longest time for one server.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server told of itself.
#[derive(Debug)]
pub struct Answered {
    /// The status of its answer.
    pub status: StatusCode,
    /// The answer's `Date`.
    pub date: Option<String>,
    /// Its certificate in DER, if it speaks TLS. It was not verified.
    pub certificate: Option<Vec<u8>>,
}

/// Why a server did not answer.
#[derive(Debug, thiserror::Error)]
pub enum ExamineError {
    /// The address is not `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    #[error("it is not http://HOST[:PORT] or https://HOST[:PORT]")]
    Address,
    /// There is no connection, or it broke.
    #[error("there is no connection: {0}")]
    Connection(#[from] io::Error),
    /// What answers does not speak HTTP.
    #[error("what answers does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// It takes too long.
    #[error("there is no answer within 5 seconds")]
    Timeout,
}

/// Asks the server for this page. The request holds nothing secret. The certificate is not verified, because an expired
/// one shall be seen, so nothing of the answer proves who gave it.
///
/// # Errors
/// [`ExamineError`].
pub async fn examine(server: &Uri, page: &str) -> Result<Answered, ExamineError> {
    let asked = tokio::time::timeout(TIMEOUT, ask(server, page));
    asked.await.map_err(|_| ExamineError::Timeout)?
}

async fn ask(server: &Uri, page: &str) -> Result<Answered, ExamineError> {
    let host = server.host().ok_or(ExamineError::Address)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let (is_tls, usual) = match server.scheme_str() {
        Some("https") => (true, 443),
        Some("http") => (false, 80),
        _ => return Err(ExamineError::Address),
    };
    let port = server.port_u16().unwrap_or(usual);
    let connection = TcpStream::connect((host, port)).await?;
    let authority = server.authority().ok_or(ExamineError::Address)?.as_str();
    let request = Request::get(page)
        .header(HOST, authority)
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(|_| ExamineError::Address)?;
    if !is_tls {
        return answered(connection, request, None).await;
    }
    let name = match host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|_| ExamineError::Address)?,
    };
    let stream = connector()?.connect(name, connection).await?;
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    let certificate = certificate.map(|certificate| certificate.as_ref().to_vec());
    answered(stream, request, certificate).await
}

async fn answered(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    certificate: Option<Vec<u8>>,
) -> Result<Answered, ExamineError> {
    let answer = exchange(stream, request).await?;
    let date = answer.headers.get(DATE);
    Ok(Answered {
        status: answer.status,
        date: date.and_then(|date| date.to_str().ok()).map(str::to_owned),
        certificate,
    })
}

fn connector() -> Result<TlsConnector, ExamineError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts every certificate whose key the server has.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
