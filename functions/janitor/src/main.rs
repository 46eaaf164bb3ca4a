//! Destroys keys whose deletion date has passed, and rotates keys whose rotation is due, on a schedule.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::anyhow;
use keyway_deployment_aws::Function;
use keyway_domain::janitor::Janitor;
use serde_json::{Value, json};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start(option_env!("KEYWAY_COMMIT"))?;
    let janitor = Arc::new(function.janitor()?);
    let job = move || sweep(Arc::clone(&janitor));
    function.serve_schedule(job).await
}

async fn sweep(janitor: Arc<Janitor>) -> anyhow::Result<Value> {
    let swept = janitor.sweep().await.map_err(|error| {
        anyhow!(
            "keys that are due could not be destroyed or rotated: {}",
            error.for_operator()
        )
    })?;
    swept.log();
    let keys = swept.keys;
    Ok(json!({
        "enabled": keys.enabled,
        "disabled": keys.disabled,
        "pending_deletion": keys.pending_deletion,
        "destroyed": swept.destroyed.len(),
        "referenced": swept.referenced.len(),
        "awaiting": swept.awaiting.len(),
        "rotated": swept.rotated.len(),
        "clock_doubted": swept.doubted.is_some(),
    }))
}
