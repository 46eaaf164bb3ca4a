//! AWS's Security Token Service, as far as temporary credentials need it: `AssumeRole` and `GetCallerIdentity`, in the
//! query protocol by `POST /`. There are no roles here: a session may do at most what the access key may that began it.
//!
//! The body says which operation a request asks for. The handler notes it for the audit log and the metrics.

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

/// The longest body, in bytes: a policy of the greatest length, with every byte of it percent-encoded.
const BODY_LIMIT: usize = 64 << 10;

/// The operation of a request whose body was not read. It may have been to begin a session.
const UNREAD: Operation = Operation {
    name: "sts",
    class: Class::Mutation,
};

/// The dialect of STS.
pub type Sts = Signed<Api>;

/// What STS has of its own.
#[derive(Debug)]
pub struct Api;

/// Who calls, and what was found to be asked for.
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

    type Caller = Asking;
    /// Whoever has an access key may ask for less than that one has.
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

/// The one route of STS, mounted. Without `sessions`, callers are those whom a gateway names, and none can begin a session.
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
