//! `keyway healthcheck`: for containers, which have no other HTTP client.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use keyway_deployment_assembly::duration;
use keyway_runtime_hyper::{Address, probe};
use keyway_settings::SettingsFile;
use tokio::time::timeout;

/// It takes the variables and the settings file of the server, so that it needs no arguments where they set the server up.
#[derive(Args)]
pub(crate) struct Healthcheck {
    #[command(flatten)]
    settings_file: SettingsFile,

    /// Where the server listens; :9000 is asked at loopback
    #[arg(
        long,
        env = "KEYWAY_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9000"
    )]
    listen: Address,

    /// The server speaks TLS, and must have the certificate in this file
    #[arg(long, env = "KEYWAY_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,

    /// Ask only whether the process answers, not whether its table, backend and audit log work
    #[arg(long)]
    live: bool,

    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    timeout: Duration,
}

pub(crate) async fn run(check: &Healthcheck) -> anyhow::Result<()> {
    let Healthcheck {
        listen, tls_cert, ..
    } = check;
    let path = match check.live {
        true => "/health/live",
        false => "/health/ready",
    };
    let answered = timeout(check.timeout, probe(listen, tls_cert.as_deref(), path));
    let status = answered
        .await
        .with_context(|| format!("{listen} has not answered in time"))?
        .with_context(|| format!("{listen} cannot be asked"))?;
    if !status.is_success() {
        bail!("{listen} is not ready: {path} answers {}", status.as_u16());
    }
    Ok(())
}
