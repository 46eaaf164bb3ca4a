//! The service over gRPC: which method a path names, and the limits of messages and connections.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, MapOk};
use futures_util::{FutureExt, Stream, TryFutureExt, stream};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::sleep;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::{self, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::messages::StatusRequest;
use crate::{Plugin, Socket};

/// The longest message in bytes. The API server stores at most 32 kB of annotations beside a ciphertext.
const LONGEST_MESSAGE: usize = 64 << 10;
/// The longest head of a request in bytes.
const LONGEST_HEAD: u32 = 16 << 10;
/// How many requests one connection may have open.
const OPEN_REQUESTS: u32 = 64;
/// A connection whose other end has gone without a word is closed after so long.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How long requests and connections may last after the stop.
const GRACE: Duration = Duration::from_secs(5);
/// The pause after a connection that could not be accepted, such as with too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves, lets requests in flight finish, and removes the socket.
///
/// # Errors
/// When connections cannot be served at all.
pub async fn serve(
    socket: Socket,
    plugin: Plugin,
    stop: impl Future<Output = ()>,
) -> Result<(), transport::Error> {
    let (listener, _file) = socket.into_parts();
    let stop = stop.shared();
    let served = Server::builder()
        .max_concurrent_streams(OPEN_REQUESTS)
        .http2_max_header_list_size(LONGEST_HEAD)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .serve_with_incoming_shutdown(
            KeyManagement(Arc::new(plugin)),
            connections(listener),
            stop.clone(),
        );
    let late = async {
        stop.await;
        sleep(GRACE).await;
    };
    tokio::select! {
        served = served => served,
        () = late => Ok(()),
    }
}

fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    stream::unfold(listener, async |listener| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), listener)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

/// `v2.KeyManagementService`.
#[derive(Clone)]
struct KeyManagement(Arc<Plugin>);

impl Service<http::Request<Body>> for KeyManagement {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let plugin = Arc::clone(&self.0);
        async move {
            Ok(match request.uri().path() {
                "/v2.KeyManagementService/Status" => {
                    let status = |_: StatusRequest| plugin.status().map(Ok);
                    unary(request, status).await
                }
                "/v2.KeyManagementService/Encrypt" => {
                    unary(request, |request| plugin.encrypt(request)).await
                }
                "/v2.KeyManagementService/Decrypt" => {
                    unary(request, |request| plugin.decrypt(request)).await
                }
                _ => Status::unimplemented(
                    "there are Status, Encrypt and Decrypt of v2.KeyManagementService",
                )
                .into_http(),
            })
        }
        .boxed()
    }
}

/// Decodes the request's one message, carries out the operation, and encodes what it returns.
async fn unary<M1, M2, R>(
    request: http::Request<Body>,
    operation: impl FnMut(M1) -> R,
) -> http::Response<Body>
where
    M1: Message + Default + 'static,
    M2: Message + Default + 'static,
    R: Future<Output = Result<M2, Status>>,
{
    Grpc::new(ProstCodec::default())
        .max_decoding_message_size(LONGEST_MESSAGE)
        .unary(Operation(operation), request)
        .await
}

struct Operation<F>(F);

impl<F, R, M1, M2> UnaryService<M1> for Operation<F>
where
    F: FnMut(M1) -> R,
    R: Future<Output = Result<M2, Status>>,
{
    type Response = M2;
    type Future = MapOk<R, fn(M2) -> Response<M2>>;

    fn call(&mut self, request: Request<M1>) -> Self::Future {
        (self.0)(request.into_inner()).map_ok(Response::new)
    }
}
