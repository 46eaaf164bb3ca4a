//! `GET /metrics`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response};
use keyway_domain::Fault;
use keyway_http::{Mount, Page, PageError, Peer, Route, RouteError};

use crate::Metrics;

/// The path of Keyway's own metrics.
pub const PATH: &str = "/metrics";

/// The media type of Prometheus's text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who may read metrics. They name no key and no caller, but show how busy the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Clients on this machine. Behind a proxy on it, every client is one of them.
    ToLoopback,
    /// Every client that can connect.
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
