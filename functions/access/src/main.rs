//! Policies and identities of KES's API as a function. It writes only these and the audit log to the table, and signs
//! them by the root keyring. It can read no other record that the keyring opens.

use std::process::ExitCode;

use keyway_deployment_aws::Function;
use keyway_sites::access_site;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start(option_env!("KEYWAY_COMMIT"))?;
    let (identities, control) = function.access()?;
    let process = function.process()?;
    let site = access_site(&process, &identities, &control, function.instance()?)?;
    function.serve(site).await
}
