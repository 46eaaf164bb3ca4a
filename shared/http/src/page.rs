//! Pages that belong to no dialect: nobody has to say who they are, and a refusal is a status alone.

use bytes::Bytes;
use http::{Response, StatusCode, request};

use crate::observer::{Class, Operation, Trace};
use crate::pipeline::{Dialect, Mount, Proof, Rejection, RequestLine};
use crate::request::{Peer, Request};
use crate::route::{Route, RouteError};

/// The dialect of such pages.
pub struct Page {
    name: &'static str,
    admits: fn(&Peer) -> bool,
}

/// Why a page is not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageError {
    /// It is not for the one who asks.
    NotAdmitted,
    /// It could not be made. Whoever failed has told the log.
    Failed,
}

impl Mount<Page> {
    /// Pages below these prefixes, for those whom `admits` lets in; others are told that there is no such page.
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
            PageError::Failed => "failed",
        }
    }

    fn refuse(&self, refused: Rejection<PageError>, _: &RequestLine<'_>) -> Response<Bytes> {
        refused.bare().unwrap_or_else(|error| {
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = match error {
                PageError::NotAdmitted => StatusCode::NOT_FOUND,
                PageError::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            };
            response
        })
    }
}
