//! The routes of buckets' encryption as a function, in JSON and in S3's own protocol. Of the table it writes the records
//! of buckets and nothing else.

use std::process::ExitCode;
use std::sync::Arc;

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{BUCKET_PREFIXES, RustFs, bucket_routes};
use keyway_dialect_s3::{self as s3, S3};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let server = function.reading().await?;
    let buckets = function.buckets(&server)?;
    let json = Mount::new(
        RustFs::new(Arc::clone(&server.authenticator)),
        BUCKET_PREFIXES.to_vec(),
        bucket_routes(&buckets),
    )?;
    let s3 = Mount::new(
        S3::new(Arc::clone(&server.authenticator)),
        s3::PREFIXES.to_vec(),
        s3::bucket_routes(&buckets, server.authenticator.region()),
    )?;
    let site = function.site(json)?.with_remaining(s3);
    function.serve_site(site).await
}
