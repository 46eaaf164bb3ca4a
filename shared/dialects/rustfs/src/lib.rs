//! RustFS's KMS admin API: its paths, formats and errors.
//!
//! Three documents describe this API, and they differ. Keyway accepts the union of their spellings and of what
//! RustFS's console, `rc` and the Terraform provider send. It answers with one superset of fields that all of
//! them can read.

mod account;
mod audit;
mod buckets;
mod datakey;
mod error_response;
mod first_generation;
mod keys;
#[cfg(feature = "openapi")]
mod openapi;
mod service;
mod spelling;
mod wire;

use std::sync::Arc;

use http::{Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi, WHO_CALLS, operation};
use keyway_domain::access::Caller;
use keyway_domain::audit::AuditReading;
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::Keys;
use keyway_domain::policy::Action;
use keyway_http::{
    Call, Class, Group, HandlerResult, Listed, Mount, Operation, Query, Route, RouteEntry,
    RouteError, listed, routes_on,
};

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::{bucket_description, description};
pub use spelling::{Spelling, SpellingError};

/// This API's prefixes. The second is an alias of the first.
pub const PREFIXES: [&str; 2] = ["/rustfs/admin/v3", "/minio/admin/v3"];

/// The prefixes of the bucket routes, which also have paths of their own at the root.
pub const BUCKET_PREFIXES: [&str; 3] = ["", PREFIXES[0], PREFIXES[1]];

/// The body limit in bytes of a route with a body.
const BODY_LIMIT: usize = 1 << 20;

/// The dialect of this API.
pub type RustFs = Signed<Api>;

/// RustFS's KMS admin API.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "rustfs";

    type Caller = Caller;
    /// `None`: every authenticated caller may request their own identity.
    type Action = Option<Action>;

    fn authorize(caller: &Caller, action: Option<Action>) -> Result<(), ErrorResponse> {
        if let Some(action) = action {
            caller.may_ever(action)?;
        }
        Ok(())
    }

    fn operation(route: &Route<RustFs>, head: &request::Parts) -> Operation {
        let raw_query = head.uri.query().unwrap_or_default();
        let Some(action) = route.action else {
            return WHO_CALLS;
        };
        let operation = operation(action);
        let names_key =
            || Query::parse(raw_query).is_ok_and(|query| first_generation::names_key(&query));
        if route.path == first_generation::STATUS && !names_key() {
            // For MinIO's clients it makes a data key and decrypts it.
            return Operation {
                class: Class::DataKey,
                ..operation
            };
        }
        // Reading the service's state needs the permission to change it, and older clients read it by POST.
        if route.method == Method::GET || route.path == service::STATUS {
            return Operation {
                class: Class::Read,
                ..operation
            };
        }
        operation
    }
}

/// Mounts these routes. Also refuses every path without a route below RustFS's or MinIO's first segment, unless it is in
/// a longer area of another dialect.
///
/// # Errors
/// [`RouteError`] when two routes cannot be told apart.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    routes: Vec<Route<RustFs>>,
) -> Result<Mount<RustFs>, RouteError> {
    let dialect = RustFs::new(Arc::clone(authenticator));
    Ok(owning(Mount::new(dialect, PREFIXES.to_vec(), routes)?))
}

/// Mounts the routes of buckets.
///
/// # Errors
/// None: their paths and methods differ.
pub fn bucket_mount(
    authenticator: &Arc<Authenticator>,
    buckets: &Arc<BucketOperations>,
) -> Result<Mount<RustFs>, RouteError> {
    let dialect = RustFs::new(Arc::clone(authenticator));
    let mount = Mount::new(dialect, BUCKET_PREFIXES.to_vec(), bucket_routes(buckets))?;
    Ok(owning(mount).owning("/api"))
}

/// Adds the areas of RustFS's and MinIO's first segments.
fn owning(mount: Mount<RustFs>) -> Mount<RustFs> {
    mount.owning("/rustfs").owning("/minio")
}

/// The routes of master keys. One of them tests a key for MinIO's clients.
pub fn key_routes(keys: &Arc<Keys>, data_keys: &Arc<DataKeys>) -> Vec<Route<RustFs>> {
    let of_first = Arc::new(first_generation::OnKeys {
        keys: Arc::clone(keys),
        data_keys: Arc::clone(data_keys),
    });
    let mut routes = routes_on(keys::entries(), keys);
    routes.extend(routes_on(first_generation::entries(), &of_first));
    routes
}

/// The routes of data keys.
pub fn datakey_routes(data_keys: &Arc<DataKeys>) -> Vec<Route<RustFs>> {
    routes_on(datakey::entries(), data_keys)
}

/// The routes of the service itself.
pub fn service_routes(control: &Arc<ServiceControl>, spelling: Spelling) -> Vec<Route<RustFs>> {
    let on = Arc::new(service::OnService {
        control: Arc::clone(control),
        spelling,
    });
    routes_on(service::entries(), &on)
}

/// The routes by which RustFS's console learns who signed in.
pub fn account_routes(buckets: &Arc<BucketOperations>) -> Vec<Route<RustFs>> {
    routes_on(account::entries(), buckets)
}

/// The routes of the audit log.
pub fn audit_routes(log: &Arc<AuditReading>) -> Vec<Route<RustFs>> {
    routes_on(audit::entries(), log)
}

/// The routes of buckets.
fn bucket_routes(buckets: &Arc<BucketOperations>) -> Vec<Route<RustFs>> {
    routes_on(buckets::entries(), buckets)
}

/// Every route that [`mount`] can have below [`PREFIXES`], and the bucket routes below [`BUCKET_PREFIXES`].
pub fn inventory() -> Vec<Listed> {
    [
        listed(Group::Keys, &keys::entries()),
        listed(Group::Keys, &first_generation::entries()),
        listed(Group::DataKeys, &datakey::entries()),
        listed(Group::Service, &service::entries()),
        listed(Group::Log, &audit::entries()),
        listed(Group::Account, &account::entries()),
        listed(Group::Buckets, &buckets::entries()),
    ]
    .concat()
}

/// An entry whose handler is `run`.
fn route<O, F>(
    method: Method,
    path: &'static str,
    action: Action,
    run: fn(Arc<O>, Call<RustFs>) -> F,
) -> RouteEntry<RustFs, O>
where
    O: Send + Sync + 'static,
    F: Future<Output = HandlerResult<RustFs>> + Send + 'static,
{
    let is_get = method == Method::GET;
    let entry = RouteEntry::new(method, path, BODY_LIMIT, Some(action), run);
    if is_get { entry.without_body() } else { entry }
}
