//! `keyway service`.

use std::path::PathBuf;

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use keyway_client::{ServiceChange, secret_from_file};
use keyway_domain::keys::KeyId;
use serde::Serialize;

use super::data_key::input;
use super::printing::{self, shown};
use super::{EXIT_CODES, Server, key_id};
use crate::migration::Output;

/// The longest configuration that servers accept, in bytes.
const LONGEST_CONFIGURATION: usize = 1 << 20;

#[derive(Subcommand)]
pub(crate) enum ServiceCommand {
    /// Show the state of the service
    #[command(after_help = EXIT_CODES)]
    Status(Box<Plain>),
    /// Configure the service
    #[command(after_help = EXIT_CODES)]
    Configure(Box<Configure>),
    /// Start the service, which must be configured
    #[command(after_help = EXIT_CODES)]
    Start(Box<Start>),
    /// Stop the service: every call on keys is then refused, until it is started
    #[command(after_help = EXIT_CODES)]
    Stop(Box<Plain>),
}

#[derive(Args)]
pub(crate) struct Plain {
    #[command(flatten)]
    server: Server,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Configure {
    #[command(flatten)]
    server: Server,

    /// What wraps keys; Vault needs more settings, which --from gives
    #[arg(long, value_enum, required_unless_present_any = ["from", "change"])]
    backend: Option<Backend>,

    /// The key of requests that name none
    #[arg(long, value_name = "ID", value_parser = key_id)]
    default_key: Option<KeyId>,

    /// The file of the whole configuration, in the JSON of RustFS's API, or - for standard input; only its owner may read
    /// the file, because it may hold Vault's token
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["backend", "default_key"])]
    from: Option<PathBuf>,

    /// Change only what is given, also while the service runs
    #[arg(long)]
    change: bool,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// The root keyring of the deployment
    Local,
}

#[derive(Args)]
pub(crate) struct Start {
    #[command(flatten)]
    server: Server,

    /// Start it anew if it runs
    #[arg(long)]
    restart: bool,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Serialize)]
struct Configuration<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_key_id: Option<&'a str>,
}

pub(crate) async fn run(command: ServiceCommand) -> anyhow::Result<()> {
    match command {
        ServiceCommand::Status(arguments) => status(*arguments).await,
        ServiceCommand::Configure(arguments) => configure(*arguments).await,
        ServiceCommand::Start(arguments) => {
            let client = arguments.server.connect()?;
            print(&client.start(arguments.restart).await?, arguments.output)
        }
        ServiceCommand::Stop(arguments) => {
            let client = arguments.server.connect()?;
            print(&client.stop().await?, arguments.output)
        }
    }
}

async fn status(arguments: Plain) -> anyhow::Result<()> {
    let status = arguments.server.connect()?.status().await?;
    if let Output::Json = arguments.output {
        return printing::json(&status, 0);
    }
    let text = |value: &Option<String>| value.as_deref().map(shown);
    let seconds = |value: Option<u64>| value.map(|seconds| format!("{seconds} s"));
    let values = [
        ("status", Some(shown(&status.status))),
        (
            "healthy",
            status
                .healthy
                .map(|healthy| if healthy { "yes" } else { "no" }.to_owned()),
        ),
        ("error", text(&status.error)),
        ("backend", text(&status.backend_type)),
        ("default key", text(&status.default_key_id)),
        ("keys", status.key_count.map(|count| count.to_string())),
        ("state TTL", seconds(status.state_ttl_seconds)),
        ("version", text(&status.version)),
        ("uptime", seconds(status.uptime_seconds)),
    ];
    let pairs: Vec<_> = values
        .iter()
        .map(|(name, value)| (*name, value.as_deref()))
        .collect();
    Ok(printing::fields(&pairs)?)
}

async fn configure(arguments: Configure) -> anyhow::Result<()> {
    let client = arguments.server.connect()?;
    let body = match &arguments.from {
        Some(path) if path.as_os_str() == "-" => {
            let most = LONGEST_CONFIGURATION;
            Bytes::from_owner(input(most, "no configuration is so long")?)
        }
        Some(path) => Bytes::from_owner(secret_from_file(path)?),
        None => serde_json::to_vec(&Configuration {
            backend_type: arguments.backend.map(|Backend::Local| "local"),
            default_key_id: arguments.default_key.as_ref().map(KeyId::as_str),
        })?
        .into(),
    };
    let change = client.configure(body, arguments.change).await?;
    print(&change, arguments.output)
}

fn print(change: &ServiceChange, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => printing::json(change, 0),
        Output::Text => {
            let (message, status) = (shown(&change.message), shown(&change.status));
            Ok(printing::line(&format!("{message}; status {status}"))?)
        }
    }
}
