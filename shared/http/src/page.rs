//! Pages that belong to no dialect. They need no authentication, and an error response is a status without a body.

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode, request};

use crate::observer::{Class, Operation, Trace};
use crate::pipeline::{Dialect, Mount, Proof, Rejection, RequestLine};
use crate::request::{Peer, Request};
use crate::route::{Route, RouteError};

/// The dialect of such pages.
pub struct Page {
    name: &'static str,
    admits: fn(&Peer) -> bool,
}

/// Why a page is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// The page is not for this peer.
    NotAdmitted,
    /// The page was sent too often; it may be asked for again after this many seconds.
    TooOften(u32),
    /// The page could not be made. The code that failed has logged the cause.
    Failed,
}

impl Mount<Page> {
    /// Pages below these prefixes, for the peers that `admits` accepts. Other peers get a 404.
    ///
    /// # Errors
    /// [`RouteError`] when two routes cannot be told apart.
    pub fn page(
        name: &'static str,
        prefixes: &[&'static str],
        admits: fn(&Peer) -> bool,
        routes: Vec<Route<Page>>,
    ) -> Result<Self, RouteError> {
        Self::new(Page { name, admits }, prefixes.to_vec(), routes)
    }
}

impl Dialect for Page {
    type Caller = ();
    type Action = ();
    type Error = PageError;

    fn name(&self) -> &'static str {
        self.name
    }

    async fn authenticate(&self, request: &Request) -> Result<Proof<(), PageError>, PageError> {
        if (self.admits)(&request.peer) {
            Ok(Proof::Proven(()))
        } else {
            Err(PageError::NotAdmitted)
        }
    }

    fn is_known((): &()) -> bool {
        false
    }

    fn authorize(&self, (): (), (): (), _: &str) -> Result<(), PageError> {
        Ok(())
    }

    fn operation(&self, _: &Route<Self>, _: &request::Parts) -> Operation {
        Operation {
            name: self.name,
            class: Class::Read,
        }
    }

    fn trace(&self, (): &()) -> Option<Box<dyn Trace>> {
        None
    }

    fn class(error: &PageError) -> &'static str {
        match error {
            PageError::NotAdmitted => "not_found",
            PageError::TooOften(_) => "throttled",
            PageError::Failed => "failed",
        }
    }

    fn refuse(&self, refused: Rejection<PageError>, _: &RequestLine<'_>) -> Response<Bytes> {
        refused.bare().unwrap_or_else(|error| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = match error {
                PageError::NotAdmitted => StatusCode::NOT_FOUND,
                PageError::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
                PageError::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            };
            if let PageError::TooOften(seconds) = error {
                let seconds = HeaderValue::from(seconds);
                response.headers_mut().insert(RETRY_AFTER, seconds);
            }
            response
        })
    }
}
