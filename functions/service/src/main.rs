//! The routes of the service itself as a function: configure, start, stop, status and the audit log. KES's only read.

use std::process::ExitCode;

use keyway_deployment_aws::Function;
use keyway_sites::Composition;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start(option_env!("KEYWAY_COMMIT"))?;
    let (services, ports) = function.writing().await?;
    let log = ports.reading().audit_reading();
    let following = function.following()?;
    let process = function.process()?;
    let composition = Composition::of(&services, &process).with_kes()?;
    let composition = composition.service(&ports.control(&services))?;
    let composition = composition.log(&log, following.as_ref()).pages()?;
    let site = composition.mounts()?.site(function.instance()?)?;
    function.serve(site).await
}
