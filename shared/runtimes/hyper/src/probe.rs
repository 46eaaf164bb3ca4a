//! Asks a listener of this machine one question, as a health check does.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, StatusCode, response};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{Address, tls};

/// The status that the listener at `address` answers to `GET path`. With a `certificate`, the listener speaks TLS and must
/// have this one; its names do not matter, for they are seldom those of loopback.
///
/// # Errors
/// When the certificate cannot be read, the listener cannot be reached or has another certificate, or it does not answer.
pub async fn probe(
    address: &Address,
    certificate: Option<&Path>,
    path: &str,
) -> io::Result<StatusCode> {
    let tls = certificate.map(tls::pinned::client).transpose();
    let tls = tls.map_err(io::Error::other)?;
    let addresses = address.resolve().await?.as_this_machine_reaches_them();
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    match tls {
        None => ask(stream, address, path).await,
        Some(tls) => {
            let name = ServerName::from(stream.peer_addr()?.ip());
            let stream = TlsConnector::from(Arc::new(tls))
                .connect(name, stream)
                .await?;
            ask(stream, address, path).await
        }
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: &Address,
    path: &str,
) -> io::Result<StatusCode> {
    let request = Request::get(path)
        .header(HOST, address.to_string())
        .body(Empty::new())
        .map_err(io::Error::other)?;
    let answer = exchange(stream, request).await;
    Ok(answer.map_err(io::Error::other)?.status)
}

/// The head of the answer to a request that is the only one of its connection.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<response::Parts> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    connection.abort();
    Ok(answer?.into_parts().0)
}
