//! Health probes. Any caller may ask whether a process is alive and whether it is ready, because load balancers,
//! orchestrators, `rc` and `mc` do not sign these requests. No answer says why the process is not ready.

#[cfg(feature = "openapi")]
mod openapi;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, Response, StatusCode};
use keyway_domain::control::Readiness;
use keyway_http::{
    Call, Group, Listed, Mount, Page, PageError, RouteEntry, RouteError, listed, routes_on,
};

#[cfg(feature = "openapi")]
pub use openapi::description;

/// The prefixes of the probes. RustFS's clients use the first, MinIO's the second.
pub const PREFIXES: [&str; 2] = ["/health", "/minio/health"];

/// Below the prefixes, the liveness probes. RustFS's `rc ping` uses the prefix itself.
const LIVE: [&str; 2] = ["", "/live"];
/// And the readiness probes. `mc ready` asks for the cluster's health; the cluster is this one process.
const READY: [&str; 3] = ["/ready", "/cluster", "/cluster/read"];

/// The probes' own mount, to be put beside those of the dialects.
///
/// # Errors
/// None: no two of the routes have the same path and method.
pub fn mount(readiness: &Arc<Readiness>) -> Result<Mount<Page>, RouteError> {
    let routes = routes_on(entries(), readiness);
    Mount::page("health", &PREFIXES, |_| true, routes)
}

fn entries() -> Vec<RouteEntry<Page, Readiness>> {
    let mut entries = Vec::new();
    for method in [Method::GET, Method::HEAD] {
        for path in LIVE {
            entries.push(RouteEntry::new(method.clone(), path, 0, (), live));
        }
        for path in READY {
            entries.push(RouteEntry::new(method.clone(), path, 0, (), ready));
        }
    }
    entries
}

/// Every route, below each of the prefixes.
pub fn inventory() -> Vec<Listed> {
    listed(Group::Health, &entries())
}

async fn live(_: Arc<Readiness>, call: Call<Page>) -> Result<Response<Bytes>, PageError> {
    Ok(answer(&call, true))
}

async fn ready(readiness: Arc<Readiness>, call: Call<Page>) -> Result<Response<Bytes>, PageError> {
    let ready = readiness.is_ready(&call.request_id).await;
    Ok(answer(&call, ready))
}

/// The answer has the two fields that `rc` shows.
fn answer(call: &Call<Page>, well: bool) -> Response<Bytes> {
    let (status, body): (_, &'static [u8]) = if well {
        (StatusCode::OK, br#"{"status":"ok","service":"keyway"}"#)
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            br#"{"status":"unavailable","service":"keyway"}"#,
        )
    };
    let is_head = call.request.method == Method::HEAD;
    let mut response = Response::new(if is_head {
        Bytes::new()
    } else {
        Bytes::from_static(body)
    });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if !well {
        headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}
