//! `keyway root`.

mod vault;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use keyway_audit::OperatorAction;
use keyway_deployment_assembly::duration;
use keyway_deployment_embedded::{Operator, must_exist, save_keyring};
use keyway_domain::migration::Outcome;
use keyway_domain::roots::{Retired, RootStatus, Roots};
use keyway_settings::SettingsFile;
use serde_json::json;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::migration::{Output, moved, show};
use crate::{print, tell};

#[derive(Subcommand)]
pub(crate) enum RootCommand {
    /// Add a root to the keyring, and put every record under it; may be stopped, and `keyway root rewrap` goes on
    Rotate(Box<Rewrap>),
    /// Put every record that refers to an older root under the newest one; may be stopped and run again
    Rewrap(Box<Rewrap>),
    /// Take an older root out of the keyring; refused while a record refers to it
    Retire(Box<Retire>),
    /// Go on without a root whose keyring is lost; what only that root opens stays closed for ever
    GiveUp(Box<GiveUp>),
    /// List the roots, and how many records refer to each
    Status(Box<Status>),
    /// Rotate the transit key of the Vault that wraps the keys
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Write another copy of the root keyring's file, as it is; no passphrase is asked for
    Save(Save),
}

#[derive(Args)]
pub(crate) struct Rewrap {
    #[command(flatten)]
    location: DeploymentLocation,

    /// The most records that are written in a second
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Retire {
    /// The root, as `keyway root status` prints it
    root: String,

    #[command(flatten)]
    location: DeploymentLocation,

    /// The longest state TTL of the deployment's servers and functions
    #[arg(long, env = "KEYWAY_STATE_TTL_SECONDS", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    state_ttl: Duration,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct RetireVersion {
    /// The version of the transit key; older ones are refused as well
    version: u64,

    #[command(flatten)]
    location: DeploymentLocation,

    /// The longest state TTL of the deployment's servers and functions
    #[arg(long, env = "KEYWAY_STATE_TTL_SECONDS", value_name = "DURATION", default_value = "5s", value_parser = duration)]
    state_ttl: Duration,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct GiveUp {
    /// The lost root, as the error of a start names it
    root: String,

    #[command(flatten)]
    location: DeploymentLocation,
}

#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    location: DeploymentLocation,

    /// How to print the roots
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Save {
    #[command(flatten)]
    settings_file: SettingsFile,
    #[command(flatten)]
    operator: Operator,

    /// The folder of the copy; made with mode 0700 if it is missing
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

pub(crate) async fn run(command: RootCommand) -> anyhow::Result<()> {
    match command {
        RootCommand::Rotate(job) => {
            let action = OperatorAction::RotateRoot;
            let ports = job.location.open().await?;
            let log = CommandLog::begin(&ports, action).await?;
            let roots = ports.roots();
            let rotated = roots.rotate().await.map_err(anyhow::Error::from);
            let rotated = log.ended(action, rotated, |root, event| event.of("root", root));
            let root = rotated.await?;
            tell(&format!("keyway: the newest root is {root} now"));
            rewrap(&job, &roots, &log).await?;
            if matches!(job.output, Output::Text) && job.location.keeps_keyring_in_file() {
                print(
                    "the copies of the keyring's file are out of date: save another one with `keyway root save`",
                );
            }
            Ok(())
        }
        RootCommand::Rewrap(job) => {
            let ports = job.location.open().await?;
            let log = CommandLog::begin(&ports, OperatorAction::RewrapRoot).await?;
            rewrap(&job, &ports.roots(), &log).await
        }
        RootCommand::Retire(job) => retire(&job).await,
        RootCommand::GiveUp(job) => {
            let root = &job.root;
            let action = OperatorAction::GiveUpRoot;
            let log = job.location.begin_unopened(action).await?;
            let given_up = job.location.give_up_root(root).await;
            let given_up = log.ended(action, given_up, |(), event| event.of("root", root));
            given_up.await?;
            print(&format!(
                "the root {root} is given up; `keyway table verify` lists what it signed, and `keyway restore --from BACKUP` writes these records again"
            ));
            Ok(())
        }
        RootCommand::Vault(command) => vault::run(command).await,
        RootCommand::Status(job) => {
            let status = job.location.open().await?.roots().status().await?;
            report(&status, job.output);
            Ok(())
        }
        RootCommand::Save(Save { operator, to, .. }) => {
            must_exist(&operator)?;
            let action = OperatorAction::SaveRootKeyring;
            let log = CommandLog::begin_in_folder(&operator, action).await?;
            let saved = save_keyring(&operator, &to).await;
            let saved = log.ended(action, saved, |_, event| event).await?;
            print(&saved.display().to_string());
            Ok(())
        }
    }
}

async fn rewrap(job: &Rewrap, roots: &Roots, log: &CommandLog) -> anyhow::Result<()> {
    let (bar, mut pace) = (bar("records")?, pace(job.rate));
    let outcome = roots
        .rewrap(
            async || {
                pace.tick().await;
            },
            sleep,
            |progress| show(&bar, progress),
        )
        .await;
    bar.finish_and_clear();
    let outcome = outcome.map_err(|error| {
        anyhow::Error::from(error)
            .context("stopped; what was done stays done, `keyway root rewrap` goes on")
    });
    let outcome = log.ended(OperatorAction::RewrapRoot, outcome, moved);
    let outcome = outcome.await?;
    let status = roots.status().await?;
    finish(&outcome, &status, job.output)
}

/// It is shown only on a terminal.
fn bar(of: &str) -> anyhow::Result<ProgressBar> {
    let template = format!("{{bar:40}} {{pos}}/{{len}} {of}, {{elapsed}} gone, {{eta}} left");
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(&template)?))
}

/// Ticks this many times a second.
fn pace(rate: u32) -> Interval {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Waits until no server can write under what is retired.
async fn wait_shown(what: &str, time: Duration) {
    let seconds = time.as_secs();
    tell(&format!(
        "keyway: {what}; waiting {seconds} seconds, until no server can write under it any more"
    ));
    // The clock of the check may run a little behind this one.
    sleep(time + Duration::from_millis(50)).await;
}

fn finish(outcome: &Outcome, status: &RootStatus, output: Output) -> anyhow::Result<()> {
    let failed = outcome.failed.len();
    match output {
        Output::Json => print(
            &json!({
                "current": status.current,
                "changed": outcome.changed,
                "unchanged": outcome.unchanged,
                "failed": outcome.failed.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            })
            .to_string(),
        ),
        Output::Text => {
            print(&format!(
                "{} records were put under the root {}, {} needed no change, {failed} failed",
                outcome.changed, status.current, outcome.unchanged
            ));
            let unused = |id: &str, records| records == 0 && id != status.current;
            for root in &status.roots {
                if unused(&root.id, root.records) {
                    print(&format!(
                        "nothing refers to the root {0}; `keyway root retire {0}` takes it out",
                        root.id
                    ));
                }
            }
        }
    }
    for (name, error) in &outcome.failed {
        tell(&format!("{name}: {}", error.for_operator()));
    }
    if failed > 0 {
        bail!("{failed} records could not be put under the newest root");
    }
    Ok(())
}

async fn retire(job: &Retire) -> anyhow::Result<()> {
    let action = OperatorAction::RetireRoot;
    let ports = job.location.open().await?;
    let log = CommandLog::begin(&ports, action).await?;
    let what = format!("nothing refers to {}", job.root);
    let wait = async |time| wait_shown(&what, time).await;
    let retired = ports.roots().retire(&job.root, job.state_ttl, wait).await;
    let retired = retired.map_err(anyhow::Error::from);
    let retired = log.ended(action, retired, |_, event| event.of("root", &job.root));
    let retired = retired.await?;
    match job.output {
        Output::Json => {
            print(&json!({"retired": job.root, "now": retired == Retired::Now}).to_string())
        }
        Output::Text => print(&match retired {
            Retired::Now => format!("the root {} is retired", job.root),
            Retired::Before => format!("the root {} was retired before", job.root),
        }),
    }
    Ok(())
}

fn report(status: &RootStatus, output: Output) {
    match output {
        Output::Json => {
            let roots = status.roots.iter().map(|root| {
                json!({
                    "id": root.id,
                    "created_at": root.created_at.to_string(),
                    "records": root.records,
                })
            });
            print(
                &json!({
                    "current": status.current,
                    "roots": roots.collect::<Vec<_>>(),
                    "lost": status.lost,
                    "unreadable": status.unreadable,
                })
                .to_string(),
            );
        }
        Output::Text => {
            print(&format!(
                "{:<8} {:<32} {:>10}",
                "ROOT", "CREATED", "RECORDS"
            ));
            for root in &status.roots {
                let mark = if root.id == status.current {
                    "  newest"
                } else {
                    ""
                };
                print(&format!(
                    "{:<8} {:<32} {:>10}{mark}",
                    root.id,
                    root.created_at.to_string(),
                    root.records
                ));
            }
        }
    }
    for name in &status.lost {
        tell(&format!(
            "{name}: it refers to a root that the keyring does not hold"
        ));
    }
    for name in &status.unreadable {
        tell(&format!("{name}: it does not decode"));
    }
}
