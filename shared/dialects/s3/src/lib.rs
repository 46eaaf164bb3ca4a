//! S3's own protocol, as far as the encryption of buckets needs it: `ListBuckets`, `HeadBucket`, `CreateBucket`,
//! `DeleteBucket`, `GetBucketLocation`, `GetBucketEncryption`, `PutBucketEncryption` and `DeleteBucketEncryption`, with the
//! bucket in the path. Everything else that S3 can do, with objects above all, is answered `NotImplemented`.
//!
//! What an operation is stands in the query, not in the path alone; so each handler first finds out what is wanted, then
//! whether the caller may do that to this bucket, and only then looks at the body.

mod buckets;
mod checksum;
mod error_response;
#[cfg(feature = "openapi")]
mod openapi;
mod xml;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, request};
use keyway_auth::{Authenticator, Signed, SignedApi, operation};
use keyway_domain::access::Caller;
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::policy::Action;
use keyway_http::{
    Call, Group, HandlerResult, Listed, Mount, NO_BODY, Operation, Query, Route, RouteEntry,
    RouteError, listed, routes_on,
};

pub use error_response::ErrorResponse;
#[cfg(feature = "openapi")]
pub use openapi::description;

/// Where S3 lives: at the root, in whatever is no other dialect's.
pub const PREFIXES: [&str; 1] = [""];

/// The longest body of a route that takes one, in bytes.
const BODY_LIMIT: usize = 1 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The dialect of S3.
pub type S3 = Signed<Api>;

/// What S3 has of its own.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "s3";

    type Caller = Caller;
    /// Handlers ask for permissions themselves.
    type Action = ();

    fn authorize(_: &Caller, (): ()) -> Result<(), ErrorResponse> {
        Ok(())
    }

    /// The query says what a handler does. A refused request is told as what it would have done.
    fn operation(route: &Route<S3>, head: &request::Parts) -> Operation {
        let raw_query = head.uri.query().unwrap_or_default();
        let query = Query::parse(raw_query).ok();
        let part = query.as_ref().and_then(buckets::part);
        operation(match (&route.method, route.path, part) {
            (&Method::PUT | &Method::DELETE, _, Some(buckets::ENCRYPTION)) => {
                Action::PutEncryptionConfiguration
            }
            (&Method::PUT, ..) => Action::CreateBucket,
            (&Method::DELETE, ..) => Action::DeleteBucket,
            (_, "/", _) => Action::ListAllMyBuckets,
            (&Method::GET, _, Some(buckets::ENCRYPTION)) => Action::GetEncryptionConfiguration,
            (&Method::GET, _, Some(buckets::LOCATION)) => Action::GetBucketLocation,
            _ => Action::ListBucket,
        })
    }
}

/// What the routes serve.
pub(crate) struct Served {
    buckets: Arc<BucketOperations>,
    /// Where each bucket is said to be: clients sign for that region.
    region: Option<String>,
}

/// S3's routes, mounted. Whatever is nobody else's is refused here: its clients may ask for any path.
///
/// # Errors
/// None: their paths and methods differ.
pub fn mount(
    authenticator: &Arc<Authenticator>,
    buckets: &Arc<BucketOperations>,
) -> Result<Mount<S3>, RouteError> {
    let served = Arc::new(Served {
        buckets: Arc::clone(buckets),
        region: authenticator.region().map(str::to_owned),
    });
    let routes = routes_on(entries(), &served);
    let dialect = S3::new(Arc::clone(authenticator));
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.owning(""))
}

/// S3's routes. Some clients end a bucket's path with a slash.
fn entries() -> Vec<RouteEntry<S3, Served>> {
    let mut entries = vec![entry(Method::GET, "/", buckets::list)];
    for path in ["/{bucket}", "/{bucket}/"] {
        entries.extend([
            entry(Method::GET, path, buckets::get),
            entry(Method::HEAD, path, buckets::head),
            entry(Method::PUT, path, buckets::put),
            entry(Method::DELETE, path, buckets::delete),
        ]);
    }
    entries
}

/// Every route of this API.
pub fn inventory() -> Vec<Listed> {
    listed(Group::Buckets, &entries())
}

/// An entry whose handler is `run`, and whose answers carry the request's id as S3's do.
fn entry<F>(
    method: Method,
    path: &'static str,
    run: fn(Arc<Served>, Call<S3>) -> F,
) -> RouteEntry<S3, Served>
where
    F: Future<Output = HandlerResult<S3>> + Send + 'static,
{
    let takes_body = method == Method::PUT;
    let body_limit = if takes_body { BODY_LIMIT } else { NO_BODY };
    RouteEntry::handled(method, path, body_limit, (), move |served| {
        Box::new(move |call| {
            let request_id = HeaderValue::from_str(&call.request_id);
            let answer = run(Arc::clone(&served), call);
            Box::pin(async move {
                let mut answer = answer.await?;
                if let Ok(id) = request_id {
                    answer.headers_mut().insert(REQUEST_ID, id);
                }
                Ok(answer)
            })
        })
    })
}
