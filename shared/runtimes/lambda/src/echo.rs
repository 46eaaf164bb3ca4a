//! A site that answers with the request's facts, or breaks on purpose.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, SET_COOKIE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use keyway_http::{
    Call, Dialect, Mount, Operation, Proof, Rejection, Request, RequestLine, Route, Site, Trace,
};
use serde_json::{Value, json};

/// `POST /echo/facts`, `GET /echo/cookies`, `GET /echo/bytes`, `GET /echo/panic`, and `GET /echo/slow`, which never ends and
/// has a timeout of a millisecond. A path without a route that ends in `/broken` panics where the site does not catch it.
struct Echo;

impl Dialect for Echo {
    type Caller = ();
    type Action = ();
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "echo"
    }

    async fn authenticate(&self, _: &Request) -> Result<Proof<(), Infallible>, Infallible> {
        Ok(Proof::Proven(()))
    }

    fn is_known((): &()) -> bool {
        true
    }

    fn authorize(&self, (): (), (): (), _: &str) -> Result<(), Infallible> {
        Ok(())
    }

    fn operation(&self, _: &Route<Self>, _: &request::Parts) -> Operation {
        Operation::NONE
    }

    fn timeout(&self, route: &Route<Self>) -> Option<Duration> {
        (route.path == "/slow").then(|| Duration::from_millis(1))
    }

    fn trace(&self, (): &()) -> Option<Box<dyn Trace>> {
        None
    }

    fn class(error: &Infallible) -> &'static str {
        match *error {}
    }

    fn refuse(&self, refused: Rejection<Infallible>, line: &RequestLine<'_>) -> Response<Bytes> {
        assert!(!line.raw_path.ends_with("/broken"), "broken on purpose");
        let status = match refused {
            Rejection::NoRoute => StatusCode::NOT_FOUND,
            Rejection::OtherMethods(_) => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::BodyEncoded => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::Unreadable(unreadable) => unreadable.status,
            Rejection::BodyBroken | Rejection::Malformed { .. } => StatusCode::BAD_REQUEST,
            Rejection::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Rejection::Unrecorded | Rejection::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::By(never) => match never {},
        };
        answer(status, &json!({ "path": line.raw_path }))
    }
}

fn answer(status: StatusCode, value: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(value.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The request's facts, as JSON.
pub(crate) fn facts(request: &Request) -> Value {
    let headers: Vec<_> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    json!({
        "method": request.method.as_str(),
        "path": request.raw_path,
        "query": request.raw_query,
        "headers": headers,
        "body": String::from_utf8_lossy(&request.body),
        "address": request.peer.address,
        "encrypted": request.peer.encrypted,
    })
}

/// The site.
pub(crate) fn site() -> Arc<Site> {
    let route = |method, path, run: fn(Call<Echo>) -> Response<Bytes>| Route {
        method,
        path,
        body_limit: 8 << 20,
        action: (),
        run: Box::new(move |call| Box::pin(async move { Ok(run(call)) })),
    };
    let slow = Route {
        method: Method::GET,
        path: "/slow",
        body_limit: 0,
        action: (),
        run: Box::new(|_| Box::pin(std::future::pending())),
    };
    let routes = vec![
        slow,
        route(Method::POST, "/facts", |call| {
            answer(StatusCode::OK, &facts(&call.request))
        }),
        route(Method::GET, "/cookies", |_| {
            let mut response = answer(StatusCode::ACCEPTED, &json!("two"));
            let headers = response.headers_mut();
            headers.append(SET_COOKIE, HeaderValue::from_static("a=1"));
            headers.append(SET_COOKIE, HeaderValue::from_static("b=2"));
            headers.append(ALLOW, HeaderValue::from_static("GET"));
            headers.append(ALLOW, HeaderValue::from_static("PUT"));
            response
        }),
        route(Method::GET, "/bytes", |_| {
            Response::new(Bytes::from_static(b"\xff\x00\xfe"))
        }),
        route(Method::GET, "/panic", |_| panic!("panicked on purpose")),
    ];
    let mount = Mount::new(Echo, vec!["/echo"], routes).expect("the routes differ");
    Arc::new(Site::new(7, mount))
}
