//! The master-key routes as a function of their own, over one machine's deployment and a local HTTP listener.

use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use keyway_deployment_embedded::{Embedded, Settings};
use keyway_dialect_rustfs::{PREFIXES, RustFs, key_routes};
use keyway_http::{Mount, Site};
use keyway_runtime_hyper::{LogFormat, listen, serve, start_log, stop_signal};

/// Keyway's master-key routes on a local HTTP listener
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Loopback address to listen on
    #[arg(long, env = "KEYWAY_LISTEN", default_value = "127.0.0.1:9001")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    start_log(LogFormat::Json, "info").map_err(anyhow::Error::from_boxed)?;
    let stop = stop_signal()?;
    let deployment = Embedded::open(arguments.settings.operator.clone()).await?;
    let server = deployment.server(&arguments.settings)?;
    let mount = Mount::new(
        RustFs::new(server.authenticator),
        PREFIXES.to_vec(),
        key_routes(&server.keys),
    )?;
    let listener = listen(arguments.listen, false).await?;
    tracing::info!(listen = %listener.local_addr()?, "serving master keys");
    serve(
        listener,
        Arc::new(Site::new(deployment.instance()?, mount)),
        stop,
    )
    .await;
    Ok(())
}
