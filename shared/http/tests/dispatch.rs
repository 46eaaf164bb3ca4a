//! Which of several mounts answers a request, and which refuses it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, Method, Response, StatusCode, request};
use http_body_util::{BodyExt, Full};
use keyway_http::{
    BasePath, Body, Call, Class, Dialect, Mount, Operation, Peer, Proof, Rejection, Request,
    RequestLine, Route, Site, Trace,
};

/// Answers with its name and the path that it got.
struct Named(&'static str);

impl Dialect for Named {
    type Caller = ();
    type Action = ();
    type Error = ();

    fn name(&self) -> &'static str {
        self.0
    }

    async fn authenticate(&self, _: &Request) -> Result<Proof<(), ()>, ()> {
        Ok(Proof::Proven(()))
    }

    fn is_known((): &()) -> bool {
        true
    }

    fn authorize(&self, (): (), (): (), _: &str) -> Result<(), ()> {
        Ok(())
    }

    fn operation(&self, _: &Route<Self>, _: &request::Parts) -> Operation {
        Operation {
            name: self.0,
            class: Class::Read,
        }
    }

    fn trace(&self, (): &()) -> Option<Box<dyn Trace>> {
        None
    }

    fn class((): &()) -> &'static str {
        "refused"
    }

    fn refuse(&self, refused: Rejection<()>, line: &RequestLine<'_>) -> Response<Bytes> {
        let why = match refused {
            Rejection::NoRoute => "nothing".to_owned(),
            Rejection::OtherMethods(allow) => allow,
            _ => "else".to_owned(),
        };
        let prefix = line.prefix.unwrap_or("-");
        let said = format!("{}: {why} at {} below {prefix}", self.0, line.path);
        let mut response = Response::new(said.into());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    }
}

fn mount(
    name: &'static str,
    prefixes: &[&'static str],
    routes: &[(Method, &'static str)],
) -> Mount<Named> {
    let name = Arc::new(name);
    let answer = |name: Arc<&'static str>, call: Call<Named>| async move {
        let said = format!("{name} below {}", call.prefix);
        Ok::<_, ()>(Response::new(Bytes::from(said)))
    };
    let routes = routes
        .iter()
        .map(|(method, path)| Route::over(method.clone(), path, 0, (), &name, answer));
    Mount::new(Named(*name), prefixes.to_vec(), routes.collect()).unwrap()
}

fn site() -> Site {
    let target = HeaderName::from_static("x-target");
    Site::new(
        1,
        mount("admin", &["/a/v1", "/b/v1"], &[(Method::GET, "/keys")]).owning("/a"),
    )
    .with(
        mount(
            "rest",
            &[""],
            &[(Method::GET, "/"), (Method::PUT, "/{bucket}")],
        )
        .owning(""),
    )
    .with(mount("targeted", &[""], &[(Method::POST, "/")]).for_header(target))
    .with(mount("form", &[""], &[(Method::POST, "/")]))
    .with(mount(
        "other",
        &["/a/v1"],
        &[(Method::GET, "/buckets"), (Method::PUT, "/keys")],
    ))
    .with(
        mount(
            "versioned",
            &[""],
            &[(Method::GET, "/v1/x"), (Method::GET, "/version")],
        )
        .owning("/v1"),
    )
    .with(Mount::page("page", &["/page"], |_| true, Vec::new()).unwrap())
}

fn to_site(method: &str, path: &str, base: &str, header: Option<&str>) -> http::Request<Body> {
    let mut request = http::Request::builder()
        .method(method)
        .uri(format!("{base}{path}"))
        .extension(BasePath(base.to_owned()));
    if let Some(header) = header {
        request = request.header(header, "x");
    }
    let body: Body = Box::pin(Full::new(Bytes::new()).map_err(|never| match never {}));
    request.body(body).unwrap()
}

const PEER: Peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);

async fn ask(site: &Site, method: &str, path: &str, base: &str, header: Option<&str>) -> String {
    let request = to_site(method, path, base, header);
    let answer = site.respond(request, PEER).await;
    String::from_utf8(answer.into_body().to_vec()).unwrap()
}

/// Runtimes move and store this future.
#[test]
fn future_of_a_request_is_smaller_than_its_head() {
    let site = site();
    let request = to_site("GET", "/a/v1/keys", "", None);
    let head = size_of_val(&request);
    let answer = site.respond(request, PEER);
    assert!(size_of_val(&answer) <= head, "{}", size_of_val(&answer));
}

#[tokio::test]
async fn request_goes_to_the_mount_of_its_method_path_and_header() {
    let site = site();
    for (method, path, header, expected) in [
        ("GET", "/a/v1/keys", None, "admin below /a/v1"),
        ("GET", "/b/v1/keys", None, "admin below /b/v1"),
        ("PUT", "/a/v1/keys", None, "other below /a/v1"),
        ("GET", "/a/v1/buckets", None, "other below /a/v1"),
        ("GET", "/", None, "rest below "),
        ("PUT", "/photos", None, "rest below "),
        ("PUT", "/version", None, "rest below "),
        ("PUT", "/page", None, "rest below "),
        ("GET", "/version", None, "versioned below "),
        ("POST", "/", None, "form below "),
        ("POST", "/", Some("x-target"), "targeted below "),
        ("POST", "/", Some("x-other"), "form below "),
    ] {
        for base in ["", "/stage"] {
            let answer = ask(&site, method, path, base, header).await;
            assert_eq!(answer, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn request_without_a_route_is_refused_by_the_mount_of_its_area() {
    let site = site();
    for (method, path, expected) in [
        (
            "GET",
            "/a/v1/nothing",
            "admin: nothing at /a/v1/nothing below /a/v1",
        ),
        (
            "DELETE",
            "/a/v1/keys",
            "admin: GET at /a/v1/keys below /a/v1",
        ),
        (
            "POST",
            "/a/v1/buckets",
            "other: GET at /a/v1/buckets below /a/v1",
        ),
        ("GET", "/a/v2", "admin: nothing at /a/v2 below -"),
        ("GET", "/b/v1/x", "admin: nothing at /b/v1/x below /b/v1"),
        ("GET", "/b/v2", "rest: nothing at /b/v2 below "),
        (
            "GET",
            "/v1/nothing",
            "versioned: nothing at /v1/nothing below ",
        ),
        ("PUT", "/v1/x", "versioned: GET at /v1/x below "),
        ("DELETE", "/", "rest: GET at / below "),
        ("GET", "/a", "rest: PUT at /a below "),
        ("GET", "/page", "rest: PUT at /page below "),
        ("GET", "/photos/x", "rest: nothing at /photos/x below "),
    ] {
        for base in ["", "/stage"] {
            let answer = ask(&site, method, path, base, None).await;
            assert_eq!(answer, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn request_outside_of_all_areas_is_refused_by_the_first_mount() {
    let site = Site::new(1, mount("first", &["/a"], &[(Method::GET, "/x")])).with(mount(
        "second",
        &["/b"],
        &[(Method::GET, "/x")],
    ));
    for (path, expected) in [
        ("/c", "first: nothing at /c below -"),
        ("/a", "first: nothing at /a below /a"),
        ("/b", "second: nothing at /b below /b"),
        ("/b/y", "second: nothing at /b/y below /b"),
    ] {
        assert_eq!(ask(&site, "GET", path, "", None).await, expected, "{path}");
    }
}
