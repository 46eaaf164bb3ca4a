//! The routes of buckets' encryption as a function, in JSON and in S3's own protocol. It writes only the records of
//! buckets and the audit log to the table.

use std::process::ExitCode;

use keyway_deployment_aws::Function;
use keyway_sites::Composition;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start(option_env!("KEYWAY_COMMIT"))?;
    let services = function.reading().await?;
    let buckets = function.buckets(&services)?;
    let process = function.process()?;
    let composition = Composition::of(&services, &process);
    let mounts = composition.buckets(&buckets)?.mounts()?;
    let site = mounts.site(function.instance()?)?;
    function.serve(site).await
}
