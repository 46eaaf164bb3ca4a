//! Every route as one function, for a function URL, the cheapest front, or a load balancer.

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
    let buckets = function.buckets(&services)?;
    let following = function.following()?;
    let process = function.process()?;
    let composition = Composition::of(&services, &process).with_kes()?;
    let composition = composition.every_group(&ports, &keys, &buckets, following.as_ref())?;
    let site = composition.mounts()?.site(function.instance()?)?;
    function.serve(site).await
}
