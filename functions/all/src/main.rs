//! Every route as one function, for a function URL: the cheapest front.

use std::sync::Arc;

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{
    BUCKET_PREFIXES, PREFIXES, RustFs, bucket_routes, datakey_routes, key_routes,
};
use keyway_dialect_s3::{self as s3, S3};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, keys) = function.writing().await?;
    let mut routes = key_routes(&keys);
    routes.extend(datakey_routes(&server.data_keys));
    let buckets = function.buckets(&server)?;
    let rustfs = || RustFs::new(Arc::clone(&server.authenticator));
    let keys = Mount::new(rustfs(), PREFIXES.to_vec(), routes)?;
    let buckets_in_json = Mount::new(rustfs(), BUCKET_PREFIXES.to_vec(), bucket_routes(&buckets))?;
    let s3 = Mount::new(
        S3::new(Arc::clone(&server.authenticator)),
        s3::PREFIXES.to_vec(),
        s3::bucket_routes(&buckets),
    )?;
    let site = function.site(keys)?.with(buckets_in_json).with(s3);
    function.serve_site(site).await
}
