//! `GET /metrics`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use keyway_domain::Fault;
use keyway_http::{Mount, Page, PageError, Peer, Route, RouteError};

use crate::Metrics;

/// Where our own metrics are.
pub const PATH: &str = "/metrics";

/// What Prometheus calls its text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who may see metrics. They name no key and no caller, and say how much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Whoever connects from this machine. A proxy on it makes everybody one of them.
    ToLoopback,
    /// Everybody who can connect.
    ToEverybody,
}

/// The page's own mount, to be put beside those of the dialects.
///
/// # Errors
/// None: one path by one method can always be told apart.
pub fn mount(metrics: &Arc<Metrics>, open: Open) -> Result<Mount<Page>, RouteError> {
    let metrics = Arc::clone(metrics);
    let route = Route {
        method: Method::GET,
        path: "",
        body_limit: 0,
        action: (),
        run: Box::new(move |call| {
            let answer = answer(&metrics).map_err(|fault| {
                fault.log(&call.request_id);
                PageError::Failed
            });
            Box::pin(async move { answer })
        }),
    };
    let admits: fn(&Peer) -> bool = match open {
        Open::ToEverybody => |_| true,
        Open::ToLoopback => |peer| peer.address.is_loopback(),
    };
    Mount::page("metrics", &[PATH], admits, vec![route])
}

fn answer(metrics: &Metrics) -> Result<Response<Bytes>, Fault> {
    let text = metrics
        .text()
        .map_err(|error| Fault::new("telling figures", error))?;
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    Ok(response)
}
