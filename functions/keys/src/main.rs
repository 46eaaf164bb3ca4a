//! The master-key routes as a function. It makes the deployment on its first start.

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
    let keys = ports.keys(&services, function.settings());
    let process = function.process()?;
    let composition = Composition::of(&services, &process).with_kes()?;
    let mounts = composition.keys(&keys).aws_keys(&keys)?.mounts()?;
    let site = mounts.site(function.instance()?)?;
    function.serve(site).await
}
