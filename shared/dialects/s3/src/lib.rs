//! The part of S3's protocol for the encryption of buckets: `ListBuckets`, `HeadBucket`, `CreateBucket`, `DeleteBucket`,
//! `GetBucketLocation`, `GetBucketEncryption`, `PutBucketEncryption` and `DeleteBucketEncryption`, with the bucket in the
//! path. Every other operation of S3, above all those on objects, gets `NotImplemented`.
//!
//! The query, not only the path, determines the operation. So each handler first determines the operation, then checks
//! whether the caller may do it to this bucket, and only then decodes the body.

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

/// S3's prefix: the root, for every path of no other dialect.
pub const PREFIXES: [&str; 1] = [""];

/// The body limit in bytes of a route with a body.
const BODY_LIMIT: usize = 1 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");

/// The dialect of S3.
pub type S3 = Signed<Api>;

/// S3's API.
#[derive(Debug)]
pub struct Api;

impl SignedApi for Api {
    const NAME: &'static str = "s3";
    const SERVICES: &'static [&'static str] = &["s3", "execute-api"];

    type Caller = Caller;
    /// Handlers check permissions themselves.
    type Action = ();

    fn authorize(_: &Caller, (): ()) -> Result<(), ErrorResponse> {
        Ok(())
    }

    /// The query determines the operation. A refused request is recorded with the operation that it asked for.
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

/// The domain services that the routes use.
pub(crate) struct Served {
    buckets: Arc<BucketOperations>,
    /// The region that is reported for every bucket: clients sign for it.
    region: Option<String>,
}

/// Mounts S3's routes. Also refuses every path that no other mount has, because S3's clients may request any path.
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

/// S3's routes. Some clients append a slash to a bucket's path.
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

/// An entry whose handler is `run`. Its answers contain the request's id, as S3's do.
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
