//! Serves sites on sockets, with limits on time and on numbers, and with graceful shutdown.

mod address;
mod body_timeout;
mod bounds;
mod cores;
mod examine;
mod handshakes;
mod limiter;
mod probe;
mod timed;
mod tls;
mod unreadable;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use http::header::{CONNECTION, EXPECT, HOST, TE, TRAILER};
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use keyway_http::{Body, Peer, Site, Tail, TimedOut, Trailers, kept_alive};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};

use body_timeout::{BodyTimeout, Pace, Rest};
use handshakes::Handshakes;
use limiter::{ConnectionLimiter, ConnectionSlot, Held, Open};
use timed::Timed;
use unreadable::Explained;

pub use address::{Address, AddressError, Resolved};
pub use bounds::Bounds;
pub use cores::Cores;
pub use examine::{Answered, ExamineError, examine};
pub use handshakes::HandshakeFailure;
pub use limiter::{Crowded, open_connections};
pub use probe::probe;
pub use tls::{Clients, Tls, TlsError};

/// How long the last answers may take to reach the network once they are made.
const FLUSH: Duration = Duration::from_secs(1);

/// How much of the request bodies one HTTP/2 connection buffers until they are read, in bytes.
/// Every connection may use that much memory, authenticated or not.
const WINDOW: u32 = 64 << 10;
/// How much of each answer HTTP/2 buffers until it can be sent, in bytes.
const SEND_BUFFER: usize = 64 << 10;

/// A listening socket, with or without TLS.
pub struct Listener {
    socket: TcpListener,
    /// The TLS configuration, and the SIGHUP that makes it read its files again.
    tls: Option<(Tls, Signal)>,
}

impl Listener {
    /// The address it listens on.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// A listener on `address` for plain HTTP. That is for loopback only: its requests and answers carry data keys.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] for an address that is not loopback, unless `insecure`; or the error of
/// resolving or binding.
pub async fn listen(address: impl Into<Address>, insecure: bool) -> io::Result<Listener> {
    let address = address.into();
    let resolved = address.resolve().await?;
    if !resolved.is_loopback() && !insecure {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{address} is not loopback, and plain HTTP would show data keys to the network; pass --tls-cert and --tls-key, put a TLS proxy in front, or pass --insecure-http"
            ),
        ));
    }
    Ok(Listener {
        socket: resolved.bind().await?,
        tls: None,
    })
}

/// A listener on `address` for TLS.
///
/// # Errors
/// The error of resolving or binding, or of listening to SIGHUP.
pub async fn listen_tls(address: impl Into<Address>, tls: Tls) -> io::Result<Listener> {
    Ok(Listener {
        socket: address.into().resolve().await?.bind().await?,
        tls: Some((tls, signal(SignalKind::hangup())?)),
    })
}

/// Resolves at SIGTERM or SIGINT. After this call SIGHUP no longer ends the process, with TLS or without: it only makes
/// TLS listeners read their files again.
///
/// # Errors
/// When the signals cannot be listened to.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // tokio's handler stays installed after its stream is dropped.
    drop(signal(SignalKind::hangup())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// Serves the site until `stop` resolves, then lets requests in flight finish. Connections are served by the caller's
/// runtime.
pub async fn serve(listener: Listener, site: Arc<Site>, stop: impl Future<Output = ()>) {
    let here = Cores::here();
    serve_all(vec![(listener, site)], &Bounds::default(), &here, stop).await;
}

/// Serves each site on its listener until `stop` resolves, then lets requests in flight finish, on all of them at once.
/// Connections are served by `cores`.
pub async fn serve_all(
    listeners: Vec<(Listener, Arc<Site>)>,
    bounds: &Bounds,
    cores: &Cores,
    stop: impl Future<Output = ()>,
) {
    let stop = stop.shared();
    join_all(listeners.into_iter().map(|(listener, site)| {
        let server = Arc::new(Server::new(site, bounds));
        serve_one(listener, server, cores, stop.clone())
    }))
    .await;
}

async fn serve_one(
    Listener { socket, tls }: Listener,
    server: Arc<Server>,
    cores: &Cores,
    stop: impl Future<Output = ()>,
) {
    let limiter = ConnectionLimiter::new(&server.bounds);
    let mut stop = pin!(stop);
    let (tls, hangup) = tls.unzip();
    let mut keeping_up = pin!(async {
        match tls.as_ref().zip(hangup) {
            Some((tls, hangup)) => tls.keep_up(server.bounds.reload, hangup).await,
            None => std::future::pending().await,
        }
    });
    let mut watching = pin!(limiter.watch());
    loop {
        let accepted = tokio::select! {
            () = &mut stop => break,
            () = &mut keeping_up => continue,
            () = &mut watching => continue,
            accepted = accept(&socket, &limiter) => accepted,
        };
        let (stream, address, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The process has no file descriptor left, or the client went away. Try again after a pause.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let tls = tls.as_ref().map(Tls::current);
        let (server, number) = (Arc::clone(&server), place.number());
        let task = cores.choose().spawn(async move {
            let ended = server.connection(stream, address, tls, &place).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
        limiter.runs_as(number, task.abort_handle());
    }
    drop(socket);
    limiter.end_all();
    // Shutdown does not wait for a connection that has sent only part of a request's head.
    let requests = async {
        limiter.all_answered().await;
        tokio::time::sleep(FLUSH).await;
    };
    tokio::select! {
        () = limiter.emptied() => {}
        () = requests => {}
        () = tokio::time::sleep(server.bounds.grace) => tracing::warn!("requests were still in flight when the grace period ended"),
    }
}

/// State that the connections of one listener share.
struct Server {
    site: Arc<Site>,
    http: auto::Builder<TokioExecutor>,
    bounds: Bounds,
    handshakes: Handshakes,
    /// The timeouts of bodies and answers.
    pace: Pace,
}

/// The body of an answer that is sent in parts: a stream, or a body with trailers.
type GoesOn = StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

/// An answer's body.
struct Answer {
    body: Either<Full<Bytes>, GoesOn>,
    /// Counts the request as open until this is dropped.
    _open: Open,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

impl Server {
    fn new(site: Arc<Site>, bounds: &Bounds) -> Self {
        let mut http = auto::Builder::new(TokioExecutor::new());
        http.http1()
            .timer(TokioTimer::new())
            // The limiter looks for slow heads at each tick. hyper's own timer would be set and unset for each request.
            .header_read_timeout(None)
            .max_buf_size(bounds.head_size as usize)
            // MongoDB's clients of AWS KMS find no other spelling of `Content-Length`.
            .title_case_headers(true)
            .max_headers(128);
        http.http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(bounds.streams)
            .keep_alive_interval(Some(bounds.head))
            .max_header_list_size(bounds.head_size)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(SEND_BUFFER);
        Self {
            site,
            http,
            bounds: bounds.clone(),
            handshakes: Handshakes::default(),
            pace: Pace {
                pause: bounds.pause,
                whole: bounds.whole,
                rate: bounds.rate,
            },
        }
    }

    async fn connection(
        self: Arc<Self>,
        stream: std::net::TcpStream,
        address: SocketAddr,
        tls: Option<Arc<ServerConfig>>,
        place: &ConnectionSlot,
    ) -> Ended {
        let stream = TcpStream::from_std(stream)?;
        let held = Arc::clone(place.held());
        let mut peer = Peer::new(address.ip(), tls.is_some());
        peer.connection = held.connection().clone();
        // Each step is boxed, so that its memory is freed when it ends. A single future would reserve room for all
        // steps, also in the thousands of connections that are idle in the last one.
        let Some(config) = tls else {
            return Box::pin(self.requests(stream, peer, held)).await;
        };
        let shaken = Box::pin(tokio::time::timeout(
            self.bounds.handshake,
            tls::handshake(stream, config),
        ));
        let stream = match shaken.await {
            Ok(Ok(Some(stream))) => stream,
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => {
                self.handshakes.failed(address.ip(), &error);
                return Err(error.into());
            }
            Err(elapsed) => {
                self.handshakes.timed_out(address.ip());
                return Err(elapsed.into());
            }
        };
        peer.client_certificate = tls::shown(stream.get_ref().1);
        Box::pin(self.requests(Box::new(stream), peer, held)).await
    }

    async fn requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        self: Arc<Self>,
        stream: S,
        peer: Peer,
        held: Arc<Held>,
    ) -> Ended {
        held.opened();
        // Each request takes part in one shared value, and not in several that every core writes to.
        let shared = Arc::new(Served {
            server: Arc::clone(&self),
            peer,
            held: Arc::clone(&held),
        });
        // Boxed, or every idle connection would reserve room for a request.
        let service = service_fn(|request| Box::pin(respond(Arc::clone(&shared), request)));
        let stream = Timed::new(stream, self.bounds.head, self.pace);
        let stream = Explained::new(stream, Arc::clone(&self.site));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        tokio::select! {
            // A fixed order saves a random number at each poll.
            biased;
            ended = connection.as_mut() => return ended,
            () = held.ends() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    }
}

/// What the requests of one connection share.
struct Served {
    server: Arc<Server>,
    peer: Peer,
    held: Arc<Held>,
}

impl Served {
    /// Begins to answer a request, and returns whether its client takes trailers.
    fn begin(
        &self,
        request: Request<Incoming>,
    ) -> (bool, impl Future<Output = Response<Bytes>> + Send) {
        let Self { server, held, .. } = self;
        let (mut parts, body) = request.into_parts();
        // HTTP/2 carries the host in the target, but signatures cover the Host header.
        if !parts.headers.contains_key(HOST)
            && let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            parts.headers.insert(HOST, host);
        }
        let rest = match parts.version {
            Version::HTTP_2 => Rest::Reset,
            _ if parts.headers.contains_key(EXPECT) => Rest::Unasked(Arc::clone(held)),
            _ => Rest::Drain(Arc::clone(held)),
        };
        let takes_trailers = takes_trailers(&parts);
        let body: Body = Box::pin(BodyTimeout::new(body, server.pace, rest));
        let request = Request::from_parts(parts, body);
        let answer = server.site.respond(request, self.peer.clone());
        (takes_trailers, answer)
    }
}

/// Answers a request. The future is small, because the connection moves it.
async fn respond(
    shared: Arc<Served>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, TimedOut> {
    let Served { server, held, .. } = &*shared;
    let mut open = held.begin_request();
    let (takes_trailers, answer) = shared.begin(request);
    let mut response = answer.await;
    open.answered();
    // On an error hyper sends no answer: it closes the connection, or resets the stream.
    if let Some(timed_out) = response.extensions_mut().remove::<TimedOut>() {
        return Err(timed_out);
    }
    if held.was_left_unread() {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
    let tail = response.extensions_mut().remove::<Tail>();
    let tail = tail.and_then(|tail| tail.take());
    if tail.is_none() {
        open.answer();
    }
    let trailers = response.extensions_mut().remove::<Trailers>();
    let trailers = trailers.filter(|_| takes_trailers && tail.is_none());
    if let Some(Trailers(fields)) = &trailers {
        announce(fields, response.headers_mut());
    }
    let keep_alive = server.bounds.keep_alive;
    Ok(response.map(|whole| Answer {
        body: match (tail, trailers) {
            (None, None) => Either::Left(Full::new(whole)),
            (None, Some(Trailers(fields))) => {
                let frames = [Frame::data(whole), Frame::trailers(fields)];
                Either::Right(StreamBody::new(stream::iter(frames).map(Ok).boxed()))
            }
            (Some(lines), _) => {
                let lines = stream::iter([whole]).chain(kept_alive(lines, keep_alive));
                Either::Right(StreamBody::new(
                    lines.map(|data| Ok(Frame::data(data))).boxed(),
                ))
            }
        },
        _open: open,
    }))
}

/// Whether trailers may follow the answer's body. HTTP/2 has a frame for them; over HTTP/1.1 the client must say that it
/// reads them, with `TE: trailers` (RFC 9110, section 6.5.1).
fn takes_trailers(request: &http::request::Parts) -> bool {
    let says_so = || {
        request.headers.get_all(TE).iter().any(|value| {
            let mut codings = value.as_bytes().split(|byte| *byte == b',');
            codings.any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
        })
    };
    match request.version {
        Version::HTTP_2 => true,
        Version::HTTP_11 => says_so(),
        _ => false,
    }
}

/// Names the trailers in the `Trailer` header, as HTTP/1.1 requires.
fn announce(fields: &HeaderMap, headers: &mut HeaderMap) {
    let names: Vec<&str> = fields.keys().map(http::HeaderName::as_str).collect();
    if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
        headers.insert(TRAILER, names);
    }
}

/// The next connection. It belongs to no runtime yet: the one that serves it takes it.
async fn accept(
    listener: &TcpListener,
    limiter: &Arc<ConnectionLimiter>,
) -> io::Result<(std::net::TcpStream, SocketAddr, ConnectionSlot)> {
    let (stream, address) = listener.accept().await?;
    limiter.available().await;
    let place = limiter.take(address.ip());
    // An answer is one small write, which Nagle's algorithm would only delay.
    stream.set_nodelay(true)?;
    Ok((stream.into_std()?, address, place))
}
