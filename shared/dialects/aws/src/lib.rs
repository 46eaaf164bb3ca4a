//! AWS KMS's API, which AWS's SDKs use: every operation is a `POST` with JSON in the body and in the answer. The header
//! `X-Amz-Target` names the operation.
//!
//! The path does not name the operation. So the handler first determines the operation, then checks that a policy can
//! permit it to the caller, and only then decodes the body.

mod aliases;
mod answers;
mod constraints;
mod datakey;
mod envelope;
mod error_response;
mod keys;
mod mac;
mod members;
mod names;
#[cfg(feature = "openapi")]
mod openapi;
mod operations;
mod policy;
mod rotation;
mod scope;
mod tags;
mod target;

use std::sync::Arc;

use http::{HeaderName, Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi};
use keyway_domain::access::{AccountId, Caller, Envelope};
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::{KeyDirectory, Keys};
use keyway_domain::ports::Clock;
use keyway_http::{
    Call, Group, HandlerResult, Listed, Mount, Operation, Route, RouteEntry, RouteError, listed,
    routes_on,
};

use operations::Managing;

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::{data_description, keys_description};

/// The prefix of every operation on keys, in a path of its own: a gateway that routes by path cannot tell the root's
/// requests apart.
pub const KEYS_PREFIX: &str = "/aws";

/// Below this prefix, only operations that change no key are served.
pub const DATA_PREFIX: &str = "/aws/data";

/// The body limit in bytes. A key policy of 32 KiB with every character escaped fits.
const BODY_LIMIT: usize = 256 << 10;

/// The header that names the operation. AWS's clients sign it. At the root, a request without it is not for this API.
pub const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// The dialect of AWS KMS.
pub type Aws = Signed<Api>;

/// AWS KMS's API.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "aws";

    type Caller = Caller;
    /// The handler checks permissions itself.
    type Action = ();

    fn authorize(_: &Caller, (): ()) -> Result<(), ErrorResponse> {
        Ok(())
    }

    fn operation(_: &Route<Aws>, head: &request::Parts) -> Operation {
        target::audited(&head.headers)
    }
}

/// What the operations use that change no key.
pub struct Serving {
    /// Describes and lists keys.
    pub directory: Arc<KeyDirectory>,
    /// The operations on data keys.
    pub data_keys: Arc<DataKeys>,
    /// The account in ARNs.
    pub account: AccountId,
    /// The region in ARNs; `None` if it is the one that the request is signed for.
    pub region: Option<String>,
    /// The envelope of new data keys for callers whose access key has none. `None` decides by the request.
    pub envelope: Option<Envelope>,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// Mounts every operation at the root, for requests that name it in `X-Amz-Target`.
///
/// # Errors
/// None: there is one route.
pub fn root_mount(
    authenticator: &Arc<Authenticator>,
    serving: &Arc<Serving>,
    keys: &Arc<Keys>,
) -> Result<Mount<Aws>, RouteError> {
    let routes = routes_on(root_entries(), &managing(serving, keys));
    Ok(mounted(authenticator, "", routes)?.for_header(TARGET))
}

/// Mounts every operation at [`KEYS_PREFIX`].
///
/// # Errors
/// None: the routes differ.
pub fn keys_mount(
    authenticator: &Arc<Authenticator>,
    serving: &Arc<Serving>,
    keys: &Arc<Keys>,
) -> Result<Mount<Aws>, RouteError> {
    let routes = routes_on(key_entries(), &managing(serving, keys));
    mounted(authenticator, KEYS_PREFIX, routes)
}

/// Mounts the operations that change no key at [`DATA_PREFIX`].
///
/// # Errors
/// None: the routes differ.
pub fn data_mount(
    authenticator: &Arc<Authenticator>,
    serving: &Arc<Serving>,
) -> Result<Mount<Aws>, RouteError> {
    let routes = routes_on(data_entries(), serving);
    mounted(authenticator, DATA_PREFIX, routes)
}

fn managing(serving: &Arc<Serving>, keys: &Arc<Keys>) -> Arc<Managing> {
    Arc::new(Managing {
        serving: Arc::clone(serving),
        keys: Arc::clone(keys),
    })
}

fn mounted(
    authenticator: &Arc<Authenticator>,
    prefix: &'static str,
    routes: Vec<Route<Aws>>,
) -> Result<Mount<Aws>, RouteError> {
    let dialect = Aws::new(Arc::clone(authenticator));
    Mount::new(dialect, vec![prefix], routes)
}

fn root_entries() -> Vec<RouteEntry<Aws, Managing>> {
    vec![entry("/", operations::run)]
}

/// Some clients end the path of an endpoint with a slash, and some do not.
fn key_entries() -> Vec<RouteEntry<Aws, Managing>> {
    ["", "/"].map(|path| entry(path, operations::run)).into()
}

fn data_entries() -> Vec<RouteEntry<Aws, Serving>> {
    let run = operations::run_data;
    ["", "/"].map(|path| entry(path, run)).into()
}

fn entry<O, F>(path: &'static str, run: fn(Arc<O>, Call<Aws>) -> F) -> RouteEntry<Aws, O>
where
    O: Send + Sync + 'static,
    F: Future<Output = HandlerResult<Aws>> + Send + 'static,
{
    RouteEntry::new(Method::POST, path, BODY_LIMIT, (), run)
}

/// Each prefix with its routes. Those of the root are only for requests with the header [`TARGET`].
pub fn inventory() -> [(&'static str, Vec<Listed>); 3] {
    [
        ("", listed(Group::AllKeys, &root_entries())),
        (KEYS_PREFIX, listed(Group::Keys, &key_entries())),
        (DATA_PREFIX, listed(Group::DataKeys, &data_entries())),
    ]
}
