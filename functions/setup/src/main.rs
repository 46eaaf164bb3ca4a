//! Makes the root keyring when the stack is deployed, so that no function that serves requests may write it. If the
//! stack adopts a table and a keyring, checks that they belong together.

use std::process::ExitCode;

use keyway_deployment_aws::Function;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    Function::start(option_env!("KEYWAY_COMMIT"))?
        .serve_deployment()
        .await
}
