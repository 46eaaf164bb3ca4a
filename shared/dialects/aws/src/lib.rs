//! AWS KMS's API, which AWS's SDKs use: every operation is a `POST` with JSON in the body and in the answer. The header
//! `X-Amz-Target` names the operation.
//!
//! The path does not name the operation. So the handler first determines the operation, then checks that a policy can
//! permit it to the caller, and only then decodes the body.

mod aliases;
mod answers;
mod datakey;
mod error_response;
mod keys;
mod mac;
mod members;
mod names;
mod operations;
mod policy;
mod rotation;
mod scope;
mod tags;
mod target;

use std::sync::Arc;

use http::{HeaderName, Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi};
use keyway_domain::access::{AccountId, Caller};
use keyway_domain::datakey::DataKeys;
use keyway_domain::keys::Keys;
use keyway_http::{Mount, Operation, Route, RouteError};

pub use error_response::ErrorResponse;

/// The API's prefixes: the root, and a path of its own for proxies that route by path.
pub const PREFIXES: [&str; 3] = ["", "/aws", DATA_PREFIX];

/// Below this prefix, only operations that change no key are served.
const DATA_PREFIX: &str = "/aws/data";

/// The body limit in bytes. A key policy of 32 KiB with every character escaped fits.
const BODY_LIMIT: usize = 256 << 10;

/// The header that names the operation. AWS's clients sign it. A request without it is not for this API.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

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

/// Mounts the operations on these keys. Their ARNs are in this region, or in the one that the request is signed for.
///
/// # Errors
/// None: the routes differ.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    keys: &Arc<Keys>,
    data_keys: &Arc<DataKeys>,
    account: AccountId,
    region: Option<String>,
) -> Result<Mount<Aws>, RouteError> {
    let served = Arc::new(operations::Served {
        keys: Arc::clone(keys),
        data_keys: Arc::clone(data_keys),
        account,
        region,
    });
    let route = |path| Route::over(Method::POST, path, BODY_LIMIT, (), &served, operations::run);
    // Some clients end the path of an endpoint with a slash, and some do not.
    let routes = vec![route("/"), route("")];
    let dialect = Aws::new(Arc::clone(authenticator));
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.for_header(TARGET))
}
