//! AWS KMS's API, which AWS's SDKs speak: one `POST` for every operation, which the header `X-Amz-Target` names, with JSON
//! in the body and in the answer.
//!
//! The header says what an operation is, not the path. So the handler first finds out what is wanted, then whether the
//! caller may ever do that, and only then looks at the body.

mod answers;
mod datakey;
mod error_response;
mod keys;
mod members;
mod names;
mod operations;
mod policy;
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

/// Where the API is: at the root, and below a path of its own for fronts that route by path.
pub const PREFIXES: [&str; 3] = ["", "/aws", DATA_PREFIX];

/// Below this prefix, only the operations are served that no key changes by.
const DATA_PREFIX: &str = "/aws/data";

/// The longest body, in bytes. A key policy of 32 KiB with every character escaped fits.
const BODY_LIMIT: usize = 256 << 10;

/// Names the operation. AWS's clients sign it, and a request without it is not for this API.
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// The dialect of AWS KMS.
pub type Aws = Signed<Api>;

/// What AWS KMS's API has of its own.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "aws";

    type Caller = Caller;
    /// The handler asks for permissions itself.
    type Action = ();

    fn authorize(_: &Caller, (): ()) -> Result<(), ErrorResponse> {
        Ok(())
    }

    fn operation(_: &Route<Aws>, head: &request::Parts) -> Operation {
        target::audited(&head.headers)
    }
}

/// The operations on these keys, mounted.
///
/// # Errors
/// None: the routes differ.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    keys: &Arc<Keys>,
    data_keys: &Arc<DataKeys>,
    account: AccountId,
) -> Result<Mount<Aws>, RouteError> {
    let served = Arc::new(operations::Served {
        keys: Arc::clone(keys),
        data_keys: Arc::clone(data_keys),
        account,
    });
    let route = |path| Route::over(Method::POST, path, BODY_LIMIT, (), &served, operations::run);
    // Some clients end the path of an endpoint with a slash, and some do not.
    let routes = vec![route("/"), route("")];
    let dialect = Aws::new(Arc::clone(authenticator));
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.for_header(TARGET))
}
