//! Sockets to requests and back, with bounds on time and numbers, and graceful shutdown.

mod log;
mod patience;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use keyway_http::{Body, Peer, Site};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use patience::Patience;

pub use log::{LogFormat, start_log};

/// How long a client may take to send a request's head, or to begin the next request of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may pause within a body.
const BODY_PAUSE: Duration = Duration::from_secs(15);
/// How long requests in flight may take to finish after shutdown has begun.
const GRACE: Duration = Duration::from_secs(25);
/// How long the last answers may take to reach the network once they are made.
const FLUSH: Duration = Duration::from_secs(1);
/// Connections served at once; more wait in the listen queue.
const MAX_CONNECTIONS: usize = 4096;

/// A listener on `address`. Plain HTTP is for loopback only: its requests and answers carry data keys.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] for an address that others can reach, unless `insecure`; else as binding goes.
pub async fn listen(address: SocketAddr, insecure: bool) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() && !insecure {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{address} is not loopback, and plain HTTP would show data keys to the network; put a TLS proxy in front, or pass --insecure-http"
            ),
        ));
    }
    TcpListener::bind(address).await
}

/// Resolves when the process is asked to stop, by SIGTERM or SIGINT.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves the site until `stop` resolves, then lets requests in flight finish.
pub async fn serve(listener: TcpListener, site: Arc<Site>, stop: impl Future<Output = ()>) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(128);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(128)
        .keep_alive_interval(Some(HEAD_TIMEOUT))
        .max_header_list_size(64 << 10);
    let graceful = GracefulShutdown::new();
    let (in_flight, _) = watch::channel(());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, address, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or the client went away: others may be served again soon.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let site = Arc::clone(&site);
        let peer = Peer::new(address.ip(), false);
        let requests = in_flight.clone();
        let service = service_fn(move |request| {
            let site = Arc::clone(&site);
            let peer = peer.clone();
            let counted = requests.subscribe();
            async move {
                let response = respond(&site, request, peer).await;
                drop(counted);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    let connections = graceful.shutdown();
    // A connection on which half a request's head has come is no request: it is not waited for.
    let requests = async {
        in_flight.closed().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        () = connections => {}
        () = requests => {}
        () = tokio::time::sleep(GRACE) => tracing::warn!("requests were still in flight when the grace period ended"),
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(
    tokio::net::TcpStream,
    SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // An answer is one small write: waiting for more to send would only delay it.
    stream.set_nodelay(true)?;
    Ok((stream, address, place))
}

async fn respond(site: &Site, request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    // HTTP/2 carries the host in the target; signatures are over the header.
    if !parts.headers.contains_key(HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(HOST, host);
    }
    let body: Body = Box::pin(Patience::new(body, BODY_PAUSE));
    site.respond(Request::from_parts(parts, body), peer)
        .await
        .map(Full::new)
}
