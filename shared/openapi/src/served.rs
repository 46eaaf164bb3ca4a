//! Serves the document to every caller: it holds nothing that the source does not.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use keyway_http::{
    Call, Group, Listed, Mount, Page, PageError, RouteEntry, RouteError, listed, routes_on,
};

use crate::{DOCUMENT, PATH};

/// The document's own mount, to be put beside those of the dialects.
///
/// # Errors
/// None: one path by two methods can always be told apart.
pub fn mount() -> Result<Mount<Page>, RouteError> {
    let routes = routes_on(entries(), &Arc::new(()));
    Mount::page("openapi", &[PATH], |_| true, routes)
}

fn entries() -> Vec<RouteEntry<Page, ()>> {
    let entry = |method| RouteEntry::new(method, "", 0, (), document);
    vec![entry(Method::GET), entry(Method::HEAD)]
}

/// Every route, below [`PATH`].
pub fn inventory() -> Vec<Listed> {
    listed(Group::Document, &entries())
}

async fn document(_: Arc<()>, call: Call<Page>) -> Result<Response<Bytes>, PageError> {
    Ok(answer(&call))
}

fn answer(call: &Call<Page>) -> Response<Bytes> {
    let mut response = Response::new(if call.request.method == Method::HEAD {
        Bytes::new()
    } else {
        Bytes::from_static(DOCUMENT)
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("public, max-age=300"),
    );
    headers.insert(CONTENT_LENGTH, HeaderValue::from(DOCUMENT.len()));
    response
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use http::header::ALLOW;
    use http_body_util::{BodyExt, Full};
    use keyway_http::{Peer, Site};

    use super::*;

    async fn call(method: &str, path: &str) -> Response<Bytes> {
        let site = Site::new(1, mount().unwrap());
        let body: keyway_http::Body =
            Box::pin(Full::new(Bytes::new()).map_err(|never| match never {}));
        let request = http::Request::builder().method(method).uri(path);
        let peer = Peer::new(IpAddr::V4(Ipv4Addr::LOCALHOST), false);
        site.respond(request.body(body).unwrap(), peer).await
    }

    #[tokio::test]
    async fn document_is_served_to_unauthenticated_callers() {
        let answer = call("GET", "/openapi.json").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers()[CACHE_CONTROL], "public, max-age=300");
        assert_eq!(answer.body(), DOCUMENT);
        let head = call("HEAD", "/openapi.json?x").await;
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()[CONTENT_LENGTH], DOCUMENT.len().to_string());
        assert!(head.body().is_empty());
    }

    #[tokio::test]
    async fn other_methods_are_405_and_other_paths_404() {
        let answer = call("POST", "/openapi.json").await;
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers()[ALLOW], "GET, HEAD");
        for path in ["/openapi.json/", "/openapi.jsonx", "/openapi.json/x"] {
            assert_eq!(call("GET", path).await.status(), 404, "{path}");
        }
    }
}
