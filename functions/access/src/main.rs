//! Policies and identities of KES's API as a function. It writes those and nothing else, and signs them by the root
//! keyring; no other record that the keyring opens can it read.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use keyway_deployment_aws::Function;
use keyway_dialect_kes::{self as kes, Kes, OpenPaths, Proven};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (identities, control) = function.access()?;
    let settings = &function.settings().kes;
    let open = OpenPaths::parse(&settings.open).context("KEYWAY_KES_OPEN")?;
    let generation = settings
        .generation
        .parse()
        .context("KEYWAY_KES_GENERATION")?;
    let kes = Kes::new(
        Proven::new(function.front()?),
        Arc::clone(&identities),
        open,
        generation,
    );
    let routes = kes::access_routes(&identities, &control, generation);
    let mount = Mount::new(kes, kes::PREFIXES.to_vec(), routes)?;
    function.serve(mount).await
}
