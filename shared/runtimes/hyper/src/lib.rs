//! Sockets to requests and back, with bounds on time and numbers, and graceful shutdown.

mod bounds;
mod log;
mod opening;
mod patience;
mod span_fields;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use keyway_http::{Body, Peer, Site, Tail};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, watch};

use opening::Opening;
use patience::Patience;

pub use bounds::Bounds;
pub use log::{LogFormat, error_count, errors, start_log};
pub use tls::{Clients, Tls, TlsError};

/// How long the last answers may take to reach the network once they are made.
const FLUSH: Duration = Duration::from_secs(1);

/// A socket that listens, and how it is spoken on.
pub struct Listener {
    socket: TcpListener,
    /// With what it speaks TLS, and what has its files read again.
    tls: Option<(Tls, Signal)>,
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// As the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listener on `address` for plain HTTP. That is for loopback only: its requests and answers carry data keys.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] for an address that others can reach, unless `insecure`; else as binding goes.
pub async fn listen(address: SocketAddr, insecure: bool) -> io::Result<Listener> {
    if !address.ip().is_loopback() && !insecure {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{address} is not loopback, and plain HTTP would show data keys to the network; pass --tls-cert and --tls-key, put a TLS proxy in front, or pass --insecure-http"
            ),
        ));
    }
    Ok(Listener {
        socket: TcpListener::bind(address).await?,
        tls: None,
    })
}

/// A listener on `address` for TLS.
///
/// # Errors
/// As binding goes, or when SIGHUP cannot be listened to.
pub async fn listen_tls(address: SocketAddr, tls: Tls) -> io::Result<Listener> {
    Ok(Listener {
        socket: TcpListener::bind(address).await?,
        // From here on a SIGHUP no longer ends the process.
        tls: Some((tls, signal(SignalKind::hangup())?)),
    })
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
pub async fn serve(listener: Listener, site: Arc<Site>, stop: impl Future<Output = ()>) {
    serve_all(vec![(listener, site)], &Bounds::default(), stop).await;
}

/// Serves each site on its listener until `stop` resolves, then lets requests in flight finish, on all of them at once.
pub async fn serve_all(
    listeners: Vec<(Listener, Arc<Site>)>,
    bounds: &Bounds,
    stop: impl Future<Output = ()>,
) {
    let stop = stop.shared();
    join_all(listeners.into_iter().map(|(listener, site)| {
        let server = Arc::new(Server::new(site, bounds));
        serve_one(listener, server, stop.clone())
    }))
    .await;
}

async fn serve_one(
    Listener { socket, tls }: Listener,
    server: Arc<Server>,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let (in_flight, _) = watch::channel(());
    let places = Arc::new(Semaphore::new(server.bounds.connections));
    let mut stop = std::pin::pin!(stop);
    let (tls, hangup) = tls.unzip();
    let mut keeping_up = std::pin::pin!(async {
        match tls.as_ref().zip(hangup) {
            Some((tls, hangup)) => tls.keep_up(server.bounds.reload, hangup).await,
            None => std::future::pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            () = &mut keeping_up => continue,
            accepted = accept(&socket, &places) => accepted,
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
        let tls = tls.as_ref().map(Tls::current);
        let watcher = graceful.watcher();
        let (server, in_flight) = (Arc::clone(&server), in_flight.clone());
        tokio::spawn(async move {
            let ended = server
                .connection(stream, address, tls, watcher, in_flight)
                .await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(socket);
    let connections = graceful.shutdown();
    // A connection on which half a request's head has come is no request: it is not waited for.
    let requests = async {
        in_flight.closed().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        () = connections => {}
        () = requests => {}
        () = tokio::time::sleep(server.bounds.grace) => tracing::warn!("requests were still in flight when the grace period ended"),
    }
}

/// What the connections of one listener share.
struct Server {
    site: Arc<Site>,
    http: auto::Builder<TokioExecutor>,
    bounds: Bounds,
}

/// An answer's body: whole, or one that goes on.
type Answer = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Server {
    fn new(site: Arc<Site>, bounds: &Bounds) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_headers(128);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(bounds.streams)
            .keep_alive_interval(Some(bounds.head))
            .max_header_list_size(64 << 10);
        Self {
            site,
            http,
            bounds: bounds.clone(),
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        watcher: Watcher,
        in_flight: watch::Sender<()>,
    ) -> Ended {
        let mut peer = Peer::new(address.ip(), tls.is_some());
        // What each step of a connection takes is on the heap for as long as that step: one future would have room for
        // all of them, and thousands of connections lie idle in the last.
        let Some(config) = tls else {
            return Box::pin(self.requests(stream, peer, watcher, in_flight)).await;
        };
        let shaken = Box::pin(tokio::time::timeout(
            self.bounds.handshake,
            tls::handshake(stream, config),
        ));
        let Some(stream) = shaken.await?? else {
            return Ok(());
        };
        peer.client_certificate = tls::shown(stream.get_ref().1);
        Box::pin(self.requests(Box::new(stream), peer, watcher, in_flight)).await
    }

    fn requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        stream: S,
        peer: Peer,
        watcher: Watcher,
        in_flight: watch::Sender<()>,
    ) -> impl Future<Output = Ended> {
        let server = Arc::clone(&self);
        let service = service_fn(move |request| {
            let server = Arc::clone(&server);
            let peer = peer.clone();
            let counted = in_flight.subscribe();
            // On the heap, or every connection would have room for one all the time.
            Box::pin(async move {
                let response = server.respond(request, peer).await;
                drop(counted);
                Ok::<_, Infallible>(response)
            })
        });
        let stream = Opening::new(stream, self.bounds.head);
        let connection = self
            .http
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        watcher.watch(connection)
    }

    async fn respond(&self, request: Request<Incoming>, peer: Peer) -> Response<Answer> {
        let (mut parts, body) = request.into_parts();
        // HTTP/2 carries the host in the target; signatures are over the header.
        if !parts.headers.contains_key(HOST)
            && let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(HOST, host);
        }
        let body: Body = Box::pin(Patience::new(body, self.bounds.body_pause));
        let mut response = self
            .site
            .respond(Request::from_parts(parts, body), peer)
            .await
            .map(Full::new)
            .map(Either::Left);
        if let Some(tail) = response.extensions_mut().remove::<Tail>()
            && let Some(stream) = tail.take()
        {
            *response.body_mut() = Either::Right(StreamBody::new(
                stream.map(|data| Ok(Frame::data(data))).boxed(),
            ));
        }
        response
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places)
        .acquire_owned()
        .await
        .map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    // An answer is one small write: waiting for more to send would only delay it.
    stream.set_nodelay(true)?;
    Ok((stream, address, place))
}
