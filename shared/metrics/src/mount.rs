//! `GET /metrics`.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Response, StatusCode};
use keyway_domain::Fault;
use keyway_http::{
    Class, Dialect, Mount, Operation, Place, Proof, Refused, Request, Route, RouteError, Trace,
};

use crate::Metrics;

/// Where our own figures are.
pub const PATH: &str = "/metrics";

/// What Prometheus calls its text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Who may see figures. They name no key and no caller, and say how much is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// Whoever connects from this machine. A proxy on it makes everybody one of them.
    ToLoopback,
    /// Everybody who can connect.
    ToEverybody,
}

/// The dialect of one page.
pub struct Page(Open);

/// The figures are not for whoever asks, or could not be made.
pub enum No {
    /// It is not for the one who asks.
    NotHere,
    /// It failed.
    Failed(Fault),
}

impl Dialect for Page {
    const NAME: &'static str = "metrics";
    type Caller = ();
    type Action = ();
    type Error = No;

    fn operation(_: &Route<Self>, _: &str) -> Operation {
        Operation {
            name: "metrics",
            class: Class::Read,
        }
    }

    async fn authenticate(&self, request: &Request) -> Result<Proof<(), No>, No> {
        match self.0 {
            Open::ToEverybody => Ok(Proof::Proven(())),
            Open::ToLoopback if request.peer.address.is_loopback() => Ok(Proof::Proven(())),
            // As if there were no such page.
            Open::ToLoopback => Err(No::NotHere),
        }
    }

    fn is_known((): &()) -> bool {
        false
    }

    fn trace(&self, (): &()) -> Option<Box<dyn Trace>> {
        None
    }

    fn class(error: &No) -> &'static str {
        match error {
            No::NotHere => "not_found",
            No::Failed(_) => "failed",
        }
    }

    fn authorize(&self, (): (), (): (), _: &str) -> Result<(), No> {
        Ok(())
    }

    fn refuse(&self, refused: Refused<No>, place: &Place<'_>) -> Response<Bytes> {
        refused.bare().unwrap_or_else(|no| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = match no {
                No::NotHere => StatusCode::NOT_FOUND,
                No::Failed(fault) => {
                    fault.log(place.request_id);
                    StatusCode::INTERNAL_SERVER_ERROR
                }
            };
            response
        })
    }
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
        run: Box::new(move |_| {
            let answer = answer(&metrics);
            Box::pin(async move { answer })
        }),
    };
    Mount::new(Page(open), vec![PATH], vec![route])
}

fn answer(metrics: &Metrics) -> Result<Response<Bytes>, No> {
    let text = metrics
        .text()
        .map_err(|error| No::Failed(Fault::new("telling figures", error)))?;
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    Ok(response)
}
