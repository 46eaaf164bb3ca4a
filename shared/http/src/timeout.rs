//! Requests that take longer than their route allows.

use bytes::Bytes;
use http::{Response, StatusCode};

/// In a response's extensions: the request took longer than its route allows and gets no answer. A runtime that owns the
/// connection drops it, or over HTTP/2 the stream, and sends nothing. Any other runtime sends the response, which is a
/// 504 without a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request took longer than its route allows")]
pub struct TimedOut;

impl TimedOut {
    pub(crate) fn response() -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
        response.extensions_mut().insert(Self);
        response
    }
}
