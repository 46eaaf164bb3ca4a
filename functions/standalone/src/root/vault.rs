//! `keyway root vault`: the transit key of the configured Vault.

use anyhow::bail;
use clap::Subcommand;
use keyway_audit::OperatorAction;
use keyway_domain::roots::Retired;
use keyway_domain::transit::{TransitRotation, TransitStatus};
use serde_json::json;

use super::{RetireVersion, Rewrap, Status, bar, pace, wait_shown};
use crate::command_log::CommandLog;
use crate::migration::{Output, moved, show};
use crate::{explain, print, tell};

#[derive(Subcommand)]
pub(crate) enum VaultCommand {
    /// Add a version to the transit key, and wrap every key under it; may be stopped, and `rewrap` goes on
    Rotate(Box<Rewrap>),
    /// Wrap under the newest version what older ones wrapped; may be stopped and run again
    Rewrap(Box<Rewrap>),
    /// Make Vault refuse this version and older ones (min_decryption_version); refused while a key needs one
    Retire(Box<RetireVersion>),
    /// List the versions of the transit key, and how many records need each
    Status(Box<Status>),
}

pub(super) async fn run(command: VaultCommand) -> anyhow::Result<()> {
    match command {
        VaultCommand::Rotate(job) => {
            let action = OperatorAction::RotateTransitKey;
            let ports = job.location.open().await?;
            let log = CommandLog::begin(&ports, action).await?;
            let transit = ports.transit();
            let rotated = transit.rotate().await.map_err(explain);
            let rotated = log.ended(action, rotated, |version, event| {
                event.of("transit", &version.to_string())
            });
            let version = rotated.await?;
            tell(&format!(
                "keyway: the newest version of the transit key is {version} now"
            ));
            rewrap(&job, &transit, &log).await
        }
        VaultCommand::Rewrap(job) => {
            let ports = job.location.open().await?;
            let log = CommandLog::begin(&ports, OperatorAction::RewrapTransitKey).await?;
            rewrap(&job, &ports.transit(), &log).await
        }
        VaultCommand::Retire(job) => retire(&job).await,
        VaultCommand::Status(job) => {
            let transit = job.location.open().await?.transit();
            report(&transit.status().await.map_err(explain)?, job.output);
            Ok(())
        }
    }
}

async fn rewrap(job: &Rewrap, transit: &TransitRotation, log: &CommandLog) -> anyhow::Result<()> {
    let (bar, mut pace) = (bar("keys")?, pace(job.rate));
    let tick = async || {
        pace.tick().await;
    };
    let outcome = transit.rewrap(tick, |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let outcome = outcome.map_err(|error| {
        explain(error)
            .context("stopped; what was done stays done, `keyway root vault rewrap` goes on")
    });
    let outcome = log.ended(OperatorAction::RewrapTransitKey, outcome, moved);
    let outcome = outcome.await?;
    let failed = outcome.failed.len();
    match job.output {
        Output::Json => print(
            &json!({
                "changed": outcome.changed,
                "unchanged": outcome.unchanged,
                "failed": outcome.failed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            })
            .to_string(),
        ),
        Output::Text => print(&format!(
            "{} records were wrapped under the newest version, {} needed no change, {failed} failed",
            outcome.changed, outcome.unchanged
        )),
    }
    for (name, error) in &outcome.failed {
        tell(&format!("{name}: {}", error.for_operator()));
    }
    if failed > 0 {
        bail!("{failed} records could not be wrapped under the newest version");
    }
    Ok(())
}

async fn retire(job: &RetireVersion) -> anyhow::Result<()> {
    let action = OperatorAction::RetireTransitKey;
    let ports = job.location.open().await?;
    let log = CommandLog::begin(&ports, action).await?;
    let version = job.version;
    let what = format!("nothing needs version {version} of the transit key");
    let wait = async |time| wait_shown(&what, time).await;
    let retired = ports.transit().retire(version, job.state_ttl, wait).await;
    let retired = retired.map_err(anyhow::Error::from);
    let retired = log.ended(action, retired, |_, event| {
        event.of("transit", &version.to_string())
    });
    let retired = retired.await?;
    match job.output {
        Output::Json => {
            print(&json!({"retired": version, "now": retired == Retired::Now}).to_string());
        }
        Output::Text => print(&match retired {
            Retired::Now => format!("Vault refuses version {version} of the transit key now"),
            Retired::Before => format!("Vault refused version {version} of the transit key before"),
        }),
    }
    Ok(())
}

fn report(status: &TransitStatus, output: Output) {
    let versions = status.versions;
    let records = |version| status.records.get(&version).copied().unwrap_or_default();
    let copies = |version| status.copies.get(&version).copied().unwrap_or_default();
    let all = versions.minimum.max(1)..=versions.newest;
    match output {
        Output::Json => {
            let each = all.map(|version| {
                json!({"version": version, "records": records(version), "copies": copies(version)})
            });
            print(
                &json!({
                    "current": versions.newest,
                    "minimum": versions.minimum,
                    "versions": each.collect::<Vec<_>>(),
                    "unreadable": status.unreadable,
                })
                .to_string(),
            );
        }
        Output::Text => {
            print(&format!(
                "{:<8} {:>10} {:>10}",
                "VERSION", "RECORDS", "COPIES"
            ));
            for version in all {
                let line = (records(version), copies(version));
                print(&format!("{version:<8} {:>10} {:>10}", line.0, line.1));
            }
        }
    }
    for name in &status.unreadable {
        tell(&format!("key/{name}: it does not verify or decode"));
    }
}
