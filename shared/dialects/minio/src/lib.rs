//! MinIO's KMS API, as `mc admin kms` and madmin call it: its paths, shapes and refusals.
//!
//! A MinIO server answers it on behalf of the KMS behind it. Here there is nothing in between: what it tells of the KMS
//! is told of this very service.

mod datakey;
mod error_response;
mod keys;
#[cfg(feature = "openapi")]
mod openapi;
mod service;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Response, request};
use keyway_auth::{Authenticator, operation, trace};
use keyway_domain::access::Caller;
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::Keys;
use keyway_domain::machine::Machine;
use keyway_domain::policy::Action;
use keyway_http::{
    Call, Class, Dialect, MetricsSource, Mount, NO_BODY, Operation, Proof, Rejection, Request,
    RequestLine, Route, RouteError, Trace,
};

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::description;

/// Where this API lives.
pub const PREFIXES: [&str; 1] = ["/minio/kms/v1"];

/// The dialect: how this API tells callers apart, and how it says no.
pub struct Minio {
    authenticator: Arc<Authenticator>,
}

impl Minio {
    /// With this authenticator.
    pub fn new(authenticator: Arc<Authenticator>) -> Self {
        Self { authenticator }
    }
}

impl Dialect for Minio {
    type Caller = Caller;
    type Action = Action;
    type Error = ErrorResponse;

    fn name(&self) -> &'static str {
        "minio"
    }

    async fn authenticate(
        &self,
        request: &Request,
    ) -> Result<Proof<Caller, ErrorResponse>, ErrorResponse> {
        Ok(self.authenticator.authenticate(request).await?)
    }

    fn is_known(caller: &Caller) -> bool {
        caller.is_known()
    }

    fn authorize(&self, caller: Caller, action: Action, _: &str) -> Result<Caller, ErrorResponse> {
        caller.may_ever(action)?;
        Ok(caller)
    }

    fn operation(&self, route: &Route<Self>, _: &request::Parts) -> Operation {
        let operation = operation(route.action);
        let class = match route.path {
            // It makes a data key and opens it again.
            datakey::STATUS => Class::DataKey,
            // What asks for the service's state needs the permission to change it.
            _ if route.method == Method::GET => Class::Read,
            _ => operation.class,
        };
        Operation { class, ..operation }
    }

    fn trace(&self, caller: &Caller) -> Option<Box<dyn Trace>> {
        trace(caller)
    }

    fn class(refusal: &ErrorResponse) -> &'static str {
        refusal.class()
    }

    fn refuse(&self, refused: Rejection<ErrorResponse>, line: &RequestLine<'_>) -> Response<Bytes> {
        ErrorResponse::from(refused).answer(line)
    }
}

/// These routes, mounted.
///
/// # Errors
/// [`RouteError`] when two routes cannot be told apart.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    routes: Vec<Route<Minio>>,
) -> Result<Mount<Minio>, RouteError> {
    let dialect = Minio::new(Arc::clone(authenticator));
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.owning("/minio/kms"))
}

/// The routes of master keys.
pub fn key_routes(keys: &Arc<Keys>) -> Vec<Route<Minio>> {
    keys::routes(keys)
}

/// The route that tries a key out. It only reads.
pub fn datakey_routes(data_keys: &Arc<DataKeys>) -> Vec<Route<Minio>> {
    datakey::routes(data_keys)
}

/// The routes of the service itself.
pub fn service_routes(
    control: &Arc<ServiceControl>,
    machine: &Arc<dyn Machine>,
    metrics: &MetricsSource,
) -> Vec<Route<Minio>> {
    service::routes(control, machine, metrics)
}

/// Every route of this API, whichever process has it.
const APIS: [(Method, &str); 7] = [
    (Method::GET, service::STATUS),
    (Method::GET, service::METRICS),
    (Method::GET, service::APIS),
    (Method::GET, service::VERSION),
    (Method::POST, keys::CREATE),
    (Method::GET, keys::LIST),
    (Method::GET, datakey::STATUS),
];

/// A route whose handler runs `run` on `operations`.
fn route<O, F>(
    method: Method,
    path: &'static str,
    action: Action,
    operations: &Arc<O>,
    run: fn(Arc<O>, Call<Minio>) -> F,
) -> Route<Minio>
where
    O: Send + Sync + 'static,
    F: Future<Output = Result<Response<Bytes>, ErrorResponse>> + Send + 'static,
{
    // No route takes a body.
    Route::over(method, path, NO_BODY, action, operations, run)
}
