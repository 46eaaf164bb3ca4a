//! Policies and identities of KES's API as a function. Of the table it writes those and the audit log, and signs them by
//! the root keyring. It can read no other record that the keyring opens.

use std::process::ExitCode;
use std::sync::Arc;

use keyway_deployment_aws::Function;
use keyway_dialect_kes::{self as kes, Kes};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (identities, control) = function.access()?;
    let settings = &function.settings().kes;
    let kes = Kes::configured(
        function.trusted_proxy()?,
        Arc::clone(&identities),
        &settings.open,
        &settings.generation,
    )?;
    let routes = kes::access_routes(&identities, &control, kes.generation());
    function.serve(kes::mount(kes, routes)?).await
}
