//! The bare server, a process of its own: the same library and connection settings as Keyway's, on tokio's usual runtime
//! of several threads, reading the whole body and answering the same bytes every time.

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;

use crate::Fallible;
use crate::client::answer_length;

/// The process: `FILE`, which holds the whole answer to give.
pub(crate) fn run(file: &str) -> Fallible<()> {
    let answer = std::fs::read(file)?;
    let (head, _) = answer_length(&answer).ok_or("the answer is cut short")?;
    let mut headers = HeaderMap::new();
    for line in str::from_utf8(answer.get(..head).unwrap_or_default())?
        .lines()
        .skip(1)
    {
        if let Some((name, value)) = line.split_once(": ") {
            headers.append(
                HeaderName::from_bytes(name.as_bytes())?,
                HeaderValue::from_str(value)?,
            );
        }
    }
    // The library writes these two headers itself, as it does for Keyway.
    headers.remove(CONTENT_LENGTH);
    headers.remove(DATE);
    let body = Bytes::copy_from_slice(answer.get(head..).unwrap_or_default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(headers, body))
}

async fn serve(headers: HeaderMap, body: Bytes) -> Fallible<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(
        std::io::stdout(),
        "{}",
        serde_json::json!({ "listen": listener.local_addr()?.to_string() })
    )?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30))
        .max_headers(128);
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (headers, body) = (headers.clone(), body.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (headers, body) = (headers.clone(), body.clone());
            async move {
                let read = request
                    .into_body()
                    .collect()
                    .await
                    .map(|whole| whole.to_bytes());
                let mut response =
                    Response::new(Full::new(if read.is_ok() { body } else { Bytes::new() }));
                *response.headers_mut() = headers;
                Ok::<_, Infallible>(response)
            }
        });
        let connection = graceful.watch(
            builder
                .serve_connection(TokioIo::new(stream), service)
                .into_owned(),
        );
        // The loader sees every end of a connection.
        tokio::spawn(async move { drop(connection.await) });
    }
}
