//! A site that tells clients what the runtime knows of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, request};
use keyway_auth::certificate::{Identity, Unidentified};
use keyway_http::{
    Dialect, Mount, Operation, Peer, Proof, Rejection, Request, RequestLine, Route, Site, Tail,
    Trace, Trailers,
};

struct Echo;

impl Dialect for Echo {
    type Caller = Peer;
    type Action = ();
    type Error = Unidentified;

    fn name(&self) -> &'static str {
        "echo"
    }

    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<Peer, Unidentified>, Unidentified> {
        Ok(Proof::Proven(request.peer.clone()))
    }

    /// Whoever shows a certificate is.
    fn is_known(peer: &Peer) -> bool {
        peer.client_certificate.is_some()
    }

    fn authorize(&self, peer: Peer, (): (), _: &str) -> Result<Peer, Unidentified> {
        Ok(peer)
    }

    fn operation(&self, _: &Route<Self>, _: &request::Parts) -> Operation {
        Operation::NONE
    }

    fn timeout(&self, route: &Route<Self>) -> Option<Duration> {
        (route.path == "/slow").then(|| Duration::from_millis(1))
    }

    fn trace(&self, _: &Peer) -> Option<Box<dyn Trace>> {
        None
    }

    fn class(_: &Unidentified) -> &'static str {
        "unidentified"
    }

    fn refuse(&self, refused: Rejection<Unidentified>, _: &RequestLine<'_>) -> Response<Bytes> {
        let mut response = Response::new(format!("{refused:?}").into());
        *response.status_mut() = match refused {
            Rejection::Unreadable(unreadable) => unreadable.status,
            _ => StatusCode::BAD_REQUEST,
        };
        response
    }
}

/// `/slow` never ends and has a timeout of a millisecond, `/whoami` answers an identity or why there is none, `/encrypted` whether the connection is, `/large` four megabytes.
pub(crate) fn site() -> Arc<Site> {
    let route = |path, answer: fn(&Peer) -> Result<String, Unidentified>| Route {
        method: Method::POST,
        path,
        body_limit: 1 << 20,
        action: (),
        run: Box::new(move |call| {
            let answer = answer(&call.caller);
            Box::pin(async move { Ok(Response::new(answer?.into())) })
        }),
    };
    let tail = Route {
        method: Method::POST,
        path: "/tail",
        body_limit: 0,
        action: (),
        run: Box::new(|_| {
            let two = stream::iter(["one\n", "two\n"]).map(Bytes::from);
            let mut response = Response::new(Bytes::new());
            let goes_on = two.chain(stream::pending()).boxed();
            response.extensions_mut().insert(Tail::new(goes_on));
            Box::pin(async move { Ok(response) })
        }),
    };
    let slow = Route {
        method: Method::POST,
        path: "/slow",
        body_limit: 0,
        action: (),
        run: Box::new(|_| Box::pin(std::future::pending())),
    };
    let trailers = Route {
        method: Method::GET,
        path: "/trailers",
        body_limit: 0,
        action: (),
        run: Box::new(|_| {
            let mut response = Response::new(Bytes::from("one\n"));
            let mut fields = HeaderMap::new();
            fields.insert("status", HeaderValue::from_static("200"));
            fields.insert("error", HeaderValue::from_static(""));
            response.extensions_mut().insert(Trailers(fields));
            Box::pin(async move { Ok(response) })
        }),
    };
    let routes = vec![
        slow,
        tail,
        trailers,
        route("/whoami", |peer| Ok(Identity::of_peer(peer)?.to_string())),
        // No socket's buffers have room for a few of these.
        route("/large", |_| Ok("x".repeat(4 << 20))),
        route("/encrypted", |peer| Ok(peer.encrypted.to_string())),
    ];
    Arc::new(Site::new(7, Mount::new(Echo, vec![""], routes).unwrap()))
}
