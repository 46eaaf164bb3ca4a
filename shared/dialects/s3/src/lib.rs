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
use keyway_http::{Call, HandlerResult, Mount, NO_BODY, Operation, Query, Route, RouteError};

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
    let routes = bucket_routes(buckets, authenticator.region());
    let dialect = S3::new(Arc::clone(authenticator));
    Ok(Mount::new(dialect, PREFIXES.to_vec(), routes)?.owning(""))
}

/// S3's routes. Some clients end a bucket's path with a slash. `region` is the one that requests must be signed for.
fn bucket_routes(buckets: &Arc<BucketOperations>, region: Option<&str>) -> Vec<Route<S3>> {
    let buckets = &Arc::new(Served {
        buckets: Arc::clone(buckets),
        region: region.map(str::to_owned),
    });
    let mut routes = vec![route(Method::GET, "/", buckets, buckets::list)];
    for path in ["/{bucket}", "/{bucket}/"] {
        routes.extend([
            route(Method::GET, path, buckets, buckets::get),
            route(Method::HEAD, path, buckets, buckets::head),
            route(Method::PUT, path, buckets, buckets::put),
            route(Method::DELETE, path, buckets, buckets::delete),
        ]);
    }
    routes
}

fn route<F>(
    method: Method,
    path: &'static str,
    buckets: &Arc<Served>,
    run: fn(Arc<Served>, Call<S3>) -> F,
) -> Route<S3>
where
    F: Future<Output = HandlerResult<S3>> + Send + 'static,
{
    let buckets = Arc::clone(buckets);
    let run = Box::new(
        move |call: Call<S3>| -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
            let request_id = HeaderValue::from_str(&call.request_id);
            let answer = run(Arc::clone(&buckets), call);
            Box::pin(async move {
                let mut answer = answer.await?;
                if let Ok(id) = request_id {
                    answer.headers_mut().insert(REQUEST_ID, id);
                }
                Ok(answer)
            })
        },
    );
    let takes_body = method == Method::PUT;
    Route {
        method,
        path,
        body_limit: if takes_body { BODY_LIMIT } else { NO_BODY },
        action: (),
        run,
    }
}
