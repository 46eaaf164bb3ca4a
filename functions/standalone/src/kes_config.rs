//! `keyway import kes-config`.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use keyway_audit::{OperatorAction, OperatorEvent};
use keyway_deployment_assembly::environment;
use keyway_import::{
    ConfigImport, ImportedConfig, ImportedIdentity, KesConfig, MAX_CONFIG_BYTES, UNCHANGED,
};

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{explain, print, tell};

/// Policies are made or overwritten and identities get them; what the table has besides is left as it is.
#[derive(Args)]
pub(crate) struct FromConfig {
    #[command(flatten)]
    location: DeploymentLocation,

    /// KES's configuration file
    #[arg(value_name = "SERVER-CONFIG.YAML")]
    file: PathBuf,

    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(arguments: FromConfig) -> anyhow::Result<()> {
    let shown = arguments.file.display().to_string();
    let mut text = String::new();
    std::fs::File::open(&arguments.file)
        .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text))
        .with_context(|| shown.clone())?;
    if text.len() as u64 > MAX_CONFIG_BYTES {
        bail!("{shown}: is longer than {MAX_CONFIG_BYTES} bytes");
    }
    let variable =
        |name: &str| -> anyhow::Result<_> { Ok(environment(name)?.map(|value| value.to_string())) };
    let config = KesConfig::parse(&text, variable).context(shown)?;
    let ports = arguments.location.open().await?;
    let (identities, control) = ports.identities_of(config.admin.clone());
    let import = ConfigImport {
        identities,
        control,
        dry_run: arguments.dry_run,
    };
    let run = async {
        import.run(&config).await.map_err(|error| {
            explain(error).context("stopped; what was done stays done, run it again to go on")
        })
    };
    let done = if arguments.dry_run {
        run.await?
    } else {
        let action = OperatorAction::ImportPolicy;
        let log = CommandLog::begin(&ports, action).await?;
        let done = log.ended(action, run.await, described).await?;
        record(&log, &done).await?;
        done
    };
    match arguments.output {
        Output::Json => print(&serde_json::to_string(&done)?),
        Output::Text => show(&done),
    }
    Ok(())
}

/// Adds to an event how many policies were read.
fn described(done: &ImportedConfig, event: OperatorEvent) -> OperatorEvent {
    let count = u64::try_from(done.policies.len()).unwrap_or(u64::MAX);
    event.counted("policies", count)
}

/// Each policy that was written, and each identity that got one, is an event.
async fn record(log: &CommandLog, done: &ImportedConfig) -> anyhow::Result<()> {
    for policy in &done.policies {
        if policy.result != UNCHANGED {
            let event = OperatorEvent::new(OperatorAction::ImportPolicy);
            log.record(&event.of("policy", &policy.name)).await?;
        }
        let changed = policy.identities.iter();
        for ImportedIdentity { identity, .. } in changed.filter(|one| one.result != UNCHANGED) {
            let event = OperatorEvent::new(OperatorAction::ImportIdentity);
            let name = format!("{}/{identity}", policy.name);
            log.record(&event.of("policy", &name)).await?;
        }
    }
    Ok(())
}

fn show(done: &ImportedConfig) {
    for warning in &done.warnings {
        tell(&format!("warning: {warning}"));
    }
    for policy in &done.policies {
        print(&format!(
            "policy {}: {}, allows {} and denies {} patterns",
            policy.name, policy.result, policy.allow, policy.deny
        ));
        for identity in &policy.identities {
            print(&format!("  {}: {}", identity.identity, identity.result));
        }
    }
    if let Some(admin) = &done.admin {
        print(&format!("the admin is a setting: KEYWAY_KES_ADMIN={admin}"));
    }
    if !done.open.is_empty() {
        print(&format!(
            "so is what needs no certificate: KEYWAY_KES_OPEN={}",
            done.open.join(",")
        ));
    }
    if let Some(proxy) = &done.proxy {
        print(&format!(
            "so is the proxy: KEYWAY_KES_PROXY_HEADER={} KEYWAY_KES_PROXIES={}",
            proxy.header,
            proxy.identities.join(",")
        ));
    }
    for line in &done.left_out {
        print(&format!("left out: {line}"));
    }
    if done.dry_run {
        print("nothing was changed");
    }
}
