//! Replays the answers of the stand-in for AWS from memory, so that a start measures the function alone.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::Fallible;

/// An operation's name and input, which say what it reads.
type Question = (Bytes, Bytes);

struct Replay {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    known: Mutex<HashMap<Question, Response<Full<Bytes>>>>,
}

/// A proxy before the services at this endpoint, which makes each call once. Only for functions that write nothing.
pub(crate) async fn before(upstream: &str) -> Fallible<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let replay = Arc::new(Replay {
        upstream: upstream.to_owned(),
        client: Client::builder(TokioExecutor::new()).build_http(),
        known: Mutex::default(),
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let replay = Arc::clone(&replay);
            tokio::spawn(async move {
                stream.set_nodelay(true).ok();
                let service = service_fn(|request| replay.answer(request));
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    Ok(endpoint)
}

impl Replay {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let operation = parts.headers.get("x-amz-target");
        let operation = operation.map(|name| Bytes::copy_from_slice(name.as_bytes()));
        let question = (operation.unwrap_or_default(), body.clone());
        let known = self
            .known
            .lock()
            .map_err(|error| error.to_string())?
            .get(&question)
            .cloned();
        if let Some(answer) = known {
            return Ok(answer);
        }
        parts.uri = self.upstream.parse()?;
        let answer = self
            .client
            .request(Request::from_parts(parts, Full::new(body)))
            .await?;
        let (head, body) = answer.into_parts();
        let mut answer = Response::new(Full::new(body.collect().await?.to_bytes()));
        *answer.status_mut() = head.status;
        *answer.headers_mut() = without_hops(head.headers);
        let mut known = self.known.lock().map_err(|error| error.to_string())?;
        known.insert(question, answer.clone());
        Ok(answer)
    }
}

/// Headers of one connection are not replayed on another. AWS keeps connections open, whatever its stand-in does.
fn without_hops(mut headers: HeaderMap) -> HeaderMap {
    for name in [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
    ] {
        headers.remove(name);
    }
    headers
}
