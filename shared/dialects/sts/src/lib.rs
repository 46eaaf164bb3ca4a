//! The part of AWS's Security Token Service for temporary credentials: `AssumeRole` and `GetCallerIdentity`, in the query
//! protocol by `POST /`. There are no roles: a session has at most the permissions of the access key that created it.
//!
//! The body names the operation. The handler records it for the audit log and the metrics.

mod answers;
mod error_response;
mod form;
#[cfg(feature = "openapi")]
mod openapi;
mod operations;

use std::borrow::Borrow;
use std::sync::{Arc, OnceLock};

use http::{Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi, trace};
use keyway_domain::access::{AccountId, Caller, Sessions};
use keyway_http::{
    Class, Group, Listed, Mount, Operation, Route, RouteEntry, RouteError, Subject, Trace, listed,
    routes_on,
};

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::description;

/// The body limit in bytes: a policy of maximum length with every byte percent-encoded fits.
const BODY_LIMIT: usize = 64 << 10;

/// The operation of a request whose body was not read. It may have been meant to create a session.
const UNREAD: Operation = Operation {
    name: "sts",
    class: Class::Mutation,
};

/// The dialect of STS.
pub type Sts = Signed<Api>;

/// STS's API.
#[derive(Debug)]
pub struct Api;

/// The caller, and the operation once the body is decoded.
#[derive(Clone)]
pub struct Asking {
    caller: Caller,
    operation: Arc<OnceLock<Operation>>,
}

impl From<Caller> for Asking {
    fn from(caller: Caller) -> Self {
        Self {
            caller,
            operation: Arc::default(),
        }
    }
}

impl Borrow<Caller> for Asking {
    fn borrow(&self) -> &Caller {
        &self.caller
    }
}

impl SignedApi for Api {
    const NAME: &'static str = "sts";
    const SERVICES: &'static [&'static str] = &["sts", "execute-api"];

    type Caller = Asking;
    /// Every access key may create a session with fewer permissions.
    type Action = ();

    fn authorize(_: &Caller, (): ()) -> Result<(), ErrorResponse> {
        Ok(())
    }

    fn operation(_: &Route<Sts>, _: &request::Parts) -> Operation {
        UNREAD
    }

    fn trace(asking: &Asking) -> Option<Box<dyn Trace>> {
        Some(Box::new(Traced {
            operation: Arc::clone(&asking.operation),
            of_caller: trace(&asking.caller)?,
        }))
    }
}

struct Traced {
    operation: Arc<OnceLock<Operation>>,
    of_caller: Box<dyn Trace>,
}

impl Trace for Traced {
    fn subject(self: Box<Self>) -> Subject {
        Subject {
            operation: self.operation.get().copied(),
            ..self.of_caller.subject()
        }
    }
}

/// Mounts the only route of STS. Without `sessions`, a gateway names the callers, and none can create a session.
///
/// # Errors
/// None: there is one route.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    sessions: Option<Arc<Sessions>>,
    account: AccountId,
) -> Result<Mount<Sts>, RouteError> {
    let served = Arc::new(operations::Served { sessions, account });
    let routes = routes_on(entries(), &served);
    Mount::new(Sts::new(Arc::clone(authenticator)), vec![""], routes)
}

fn entries() -> Vec<RouteEntry<Sts, operations::Served>> {
    let run = operations::run;
    vec![RouteEntry::new(Method::POST, "/", BODY_LIMIT, (), run)]
}

/// Every route of this API.
pub fn inventory() -> Vec<Listed> {
    listed(Group::Sessions, &entries())
}
