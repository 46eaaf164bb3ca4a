//! The routes of data keys, and the one that tries a key out, as a function. It writes only the audit log to the table.

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
    let process = function.process()?;
    let composition = Composition::of(&services, &process).with_kes()?;
    let mounts = composition.data_keys().aws_data()?.mounts()?;
    let site = mounts.site(function.instance()?)?;
    function.serve(site).await
}
