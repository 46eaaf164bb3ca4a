//! MinIO's KMS API, as `mc admin kms` and madmin call it: its paths, formats and errors.
//!
//! A MinIO server answers for the KMS behind it. Keyway has nothing behind it: the answers about the KMS are about Keyway
//! itself.

mod datakey;
mod error_response;
mod keys;
#[cfg(feature = "openapi")]
mod openapi;
mod service;
mod wire;

use std::sync::Arc;

use http::{Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi, operation};
use keyway_domain::access::Caller;
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::Keys;
use keyway_domain::machine::Machine;
use keyway_domain::policy::Action;
use keyway_http::{
    Call, Class, Group, HandlerResult, Listed, MetricsSource, Mount, NO_BODY, Operation, Route,
    RouteEntry, RouteError, listed, routes_on,
};

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::description;

/// This API's prefix.
pub const PREFIXES: [&str; 1] = ["/minio/kms/v1"];

/// The dialect of this API.
pub type Minio = Signed<Api>;

/// MinIO's KMS API.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "minio";

    type Caller = Caller;
    type Action = Action;

    fn authorize(caller: &Caller, action: Action) -> Result<(), ErrorResponse> {
        Ok(caller.may_ever(action)?)
    }

    fn operation(route: &Route<Minio>, _: &request::Parts) -> Operation {
        let operation = operation(route.action);
        let class = match route.path {
            // It makes a data key and decrypts it.
            datakey::STATUS => Class::DataKey,
            // Reading the service's state needs the permission to change it.
            _ if route.method == Method::GET => Class::Read,
            _ => operation.class,
        };
        Operation { class, ..operation }
    }
}

/// Mounts these routes.
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
    routes_on(keys::entries(), keys)
}

/// The route that tests a key. It changes nothing.
pub fn datakey_routes(data_keys: &Arc<DataKeys>) -> Vec<Route<Minio>> {
    routes_on(datakey::entries(), data_keys)
}

/// The routes of the service itself.
pub fn service_routes(
    control: &Arc<ServiceControl>,
    machine: &Arc<dyn Machine>,
    metrics: &MetricsSource,
) -> Vec<Route<Minio>> {
    let on = Arc::new(service::OnService {
        control: Arc::clone(control),
        machine: Arc::clone(machine),
        metrics_source: Arc::clone(metrics),
    });
    routes_on(service::entries(), &on)
}

/// Every route of this API, in whatever process.
pub fn inventory() -> Vec<Listed> {
    [
        listed(Group::Service, &service::entries()),
        listed(Group::Keys, &keys::entries()),
        listed(Group::DataKeys, &datakey::entries()),
    ]
    .concat()
}

/// An entry whose handler is `run`.
fn route<O, F>(
    method: Method,
    path: &'static str,
    action: Action,
    run: fn(Arc<O>, Call<Minio>) -> F,
) -> RouteEntry<Minio, O>
where
    O: Send + Sync + 'static,
    F: Future<Output = HandlerResult<Minio>> + Send + 'static,
{
    // No route takes a body.
    RouteEntry::new(method, path, NO_BODY, action, run)
}
