use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};

/// `Cache-Control: no-store`. Answers hold keys, and permissions change.
pub const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A 200 answer that no cache may store.
pub fn uncached(content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, NO_STORE);
    response
}
