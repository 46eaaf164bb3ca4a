//! The routes of buckets' encryption as a function, in JSON and in S3's own protocol. Of the table it writes the records
//! of buckets and the audit log.

use std::process::ExitCode;

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs as rustfs;
use keyway_dialect_s3 as s3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let server = function.reading().await?;
    let buckets = function.buckets(&server)?;
    let json = rustfs::bucket_mount(&server.authenticator, &buckets)?;
    let s3 = s3::mount(&server.authenticator, &buckets)?;
    let site = function.site(json)?.with(s3);
    function.serve_site(site).await
}
