//! `keyway table`.

use anyhow::bail;
use clap::{Args, Subcommand};
use keyway_audit::{OperatorAction, OperatorEvent};
use keyway_domain::ports::Kind;
use keyway_domain::records::RecordsFound;
use serde_json::json;

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{explain, print, tell};

#[derive(Subcommand)]
pub(crate) enum TableCommand {
    /// Find records of the table that are unsigned, or were written or changed without the root keyring
    Verify(Box<Verify>),
    /// Sign the records that an older release wrote, and refuse unsigned ones from then on; may be stopped and run again
    Sign(Box<Sign>),
}

#[derive(Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    location: DeploymentLocation,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Sign {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Say what would be signed, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// In a table whose records are all signed: sign this record as it is now, although it has no signature; KIND/* for all of a kind
    #[arg(long, value_name = "KIND/ID", value_parser = record)]
    accept: Vec<(Kind, String)>,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Parses `KIND/ID`.
pub(crate) fn record(text: &str) -> Result<(Kind, String), String> {
    let (kind, id) = text
        .split_once('/')
        .filter(|(_, id)| !id.is_empty())
        .ok_or("is not KIND/ID, as `keyway table verify` prints it")?;
    Ok((
        Kind::parse(kind).ok_or("names no kind of record")?,
        id.to_owned(),
    ))
}

pub(crate) async fn run(command: TableCommand) -> anyhow::Result<()> {
    match command {
        TableCommand::Verify(verify) => {
            let records = verify.location.open().await?.signed_records();
            let found = records.verify().await.map_err(explain)?;
            report(&found, verify.output)
        }
        TableCommand::Sign(sign) => {
            let ports = sign.location.open().await?;
            let records = ports.signed_records();
            let found = if sign.dry_run {
                records.verify().await.map_err(explain)?
            } else {
                let log = CommandLog::begin(&ports, OperatorAction::SignTable).await?;
                let signed = records.sign(&sign.accept).await.map_err(explain);
                signed_with(&log, signed, &sign.accept).await?
            };
            report(&found, sign.output)
        }
    }
}

/// Records what was signed. What `--accept` names has an event each, because the operator vouches for it.
async fn signed_with(
    log: &CommandLog,
    signed: anyhow::Result<RecordsFound>,
    accepted: &[(Kind, String)],
) -> anyhow::Result<RecordsFound> {
    let action = OperatorAction::SignTable;
    let count = |names: usize| u64::try_from(names).unwrap_or(u64::MAX);
    let found = log.ended(action, signed, |found, event| {
        event
            .counted("signed", found.signed)
            .counted("unsigned", count(found.unsigned.len()))
            .counted("refused", count(found.refused.len()))
    });
    let found = found.await?;
    for (kind, id) in accepted {
        let event = OperatorEvent::new(action).of(kind.as_str(), id);
        log.record(&event).await?;
    }
    Ok(found)
}

fn report(found: &RecordsFound, output: Output) -> anyhow::Result<()> {
    let unsigned = found.unsigned.iter();
    let refused = found.refused.iter();
    match output {
        Output::Json => {
            let name = |kind: &Kind, id: &str| json!({"kind": kind.as_str(), "id": id});
            let unsigned = unsigned.map(|(kind, id)| name(kind, id));
            let refused = refused.map(
                |(kind, id, why)| json!({"kind": kind.as_str(), "id": id, "reason": why.as_str()}),
            );
            print(
                &json!({
                    "ok": found.is_clean(),
                    "all_signed": found.marked,
                    "verified": found.verified,
                    "signed": found.signed,
                    "unsigned": unsigned.collect::<Vec<_>>(),
                    "refused": refused.collect::<Vec<_>>(),
                })
                .to_string(),
            );
        }
        Output::Text => {
            for (kind, id) in unsigned {
                tell(&format!("{}/{id}: it has no signature", kind.as_str()));
            }
            for (kind, id, why) in refused {
                tell(&format!("{}/{id}: {}", kind.as_str(), why.as_str()));
            }
            print(&format!(
                "{} records verify, {} were signed now, {} have no signature, {} are refused",
                found.verified,
                found.signed,
                found.unsigned.len(),
                found.refused.len()
            ));
            print(if found.marked {
                "unsigned records of this table are refused"
            } else {
                "unsigned records of this table are still obeyed; `keyway table sign` ends that"
            });
        }
    }
    if !found.is_clean() {
        bail!("the table holds records that nobody with the root keyring wrote as they are");
    }
    Ok(())
}
