//! `keyway rewrap-keys` and `keyway restore-keys`.

use anyhow::bail;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use keyway_audit::{OperatorAction, OperatorEvent};
use keyway_domain::KmsError;
use keyway_domain::migration::{Outcome, Progress};
use serde::Serialize;

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::{explain, print, tell};

#[derive(Args)]
pub(crate) struct Job {
    #[command(flatten)]
    location: DeploymentLocation,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON object
    Json,
}

pub(crate) async fn rewrap(job: Job) -> anyhow::Result<()> {
    let action = OperatorAction::RewrapKeys;
    let ports = job.location.open().await?;
    let log = CommandLog::begin(&ports, action).await?;
    let (moving, bar) = (ports.moving(), bar()?);
    let outcome = moving.rewrap(|progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let outcome = log.ended(action, stopped(outcome), moved).await?;
    finish(&job, "rewrapped", outcome)
}

pub(crate) async fn restore(job: Job) -> anyhow::Result<()> {
    let action = OperatorAction::RestoreKeys;
    let ports = job.location.open().await?;
    let log = CommandLog::begin(&ports, action).await?;
    let (moving, bar) = (ports.moving(), bar()?);
    let outcome = moving.restore(|progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let outcome = log.ended(action, stopped(outcome), moved).await?;
    finish(&job, "restored", outcome)
}

fn stopped(outcome: Result<Outcome, KmsError>) -> anyhow::Result<Outcome> {
    outcome.map_err(|error| {
        explain(error).context("stopped; what was done stays done, run it again to go on")
    })
}

/// Adds to an event how many records a job changed.
pub(crate) fn moved(outcome: &Outcome, event: OperatorEvent) -> OperatorEvent {
    let failed = u64::try_from(outcome.failed.len()).unwrap_or(u64::MAX);
    event
        .counted("changed", outcome.changed)
        .counted("unchanged", outcome.unchanged)
        .counted("failed", failed)
}

/// It is shown only on a terminal.
pub(crate) fn bar() -> anyhow::Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} keys, {elapsed} gone, {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

pub(crate) fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

#[derive(Serialize)]
struct Done<'a> {
    changed: u64,
    unchanged: u64,
    failed: Vec<&'a str>,
}

fn finish(job: &Job, verb: &str, outcome: Outcome) -> anyhow::Result<()> {
    let failed = outcome.failed.len();
    match job.output {
        Output::Json => print(&serde_json::to_string(&Done {
            changed: outcome.changed,
            unchanged: outcome.unchanged,
            failed: outcome.failed.iter().map(|(id, _)| id.as_str()).collect(),
        })?),
        Output::Text => print(&format!(
            "{} keys {verb}, {} were as they should be, {failed} failed",
            outcome.changed, outcome.unchanged
        )),
    }
    for (id, error) in outcome.failed {
        tell(&format!("{id}: {:#}", explain(error)));
    }
    if failed > 0 {
        bail!("{failed} keys could not be {verb}");
    }
    Ok(())
}
