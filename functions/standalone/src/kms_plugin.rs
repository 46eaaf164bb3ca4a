//! `keyway kms-plugin`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use futures_util::FutureExt;
use keyway_client::Context;
use keyway_deployment_assembly::conceal_memory;
use keyway_domain::keys::KeyId;
use keyway_kms_plugin::{Plugin, Socket, serve};
use keyway_logging::{LogFormat, start_log};
use keyway_runtime_hyper::stop_signal;

use crate::client::{Server, key_id, no_repeats, pair};
use crate::service_manager;

/// API servers give up a request after 3 seconds, unless they are configured otherwise. The answer must come before.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) const AFTER_HELP: &str = "Without --timeout, a call takes at most 2s, whatever the profile says: Kubernetes' API server waits for 3s, or for the
`timeout` of its EncryptionConfiguration. Exit codes:
  0  stopped by a signal
  1  failed; for example, another process listens on the socket
  2  the options, the variables or the profile are wrong";

#[derive(Args)]
pub(crate) struct KmsPlugin {
    #[command(flatten)]
    server: Server,

    /// The Unix socket of the service, to which only this user and root may connect
    #[arg(long, env = "KEYWAY_KMS_PLUGIN_SOCKET", value_name = "PATH")]
    socket: PathBuf,

    /// The key that encrypts; what other keys encrypted is still decrypted
    #[arg(long, env = "KEYWAY_KMS_PLUGIN_KEY", value_name = "ID", value_parser = key_id)]
    key: KeyId,

    /// A name and a value of the encryption context, without which nothing is decrypted; may be given more than once
    #[arg(
        long = "context",
        value_name = "NAME=VALUE",
        value_parser = pair,
        default_value = "kms=kubernetes"
    )]
    pairs: Vec<(String, String)>,

    /// How the log's lines look
    #[arg(long, env = "KEYWAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "KEYWAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
}

pub(crate) async fn run(asked: KmsPlugin) -> anyhow::Result<()> {
    start_log(asked.log_format, &asked.log)
        .map_err(anyhow::Error::from_boxed)
        .context("--log (KEYWAY_LOG)")?;
    // This comes before any secret is read.
    if let Err(error) = conceal_memory() {
        tracing::warn!(%error, "memory may end up in a core file: turn core files off");
    }
    let stop = stop_signal()?;
    let context: Context = no_repeats(asked.pairs)?;
    let (client, timeout) = asked.server.connect_within(CALL_TIMEOUT)?;
    let plugin = Plugin::new(client, asked.key, context, timeout)?;
    let socket = Socket::listen(&asked.socket).context("--socket")?;
    let place = asked.socket.display();
    tracing::info!(listen = %place, "keyway is serving Kubernetes' KMS v2");
    let watchdog = service_manager::ready(place);
    let stop = stop.inspect(|()| service_manager::stopping());
    serve(socket, plugin, stop).await?;
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    tracing::info!("keyway has stopped");
    Ok(())
}
