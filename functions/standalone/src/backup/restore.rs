//! `keyway restore`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use keyway_audit::OperatorEvent;
use keyway_backup::{Destination, Name, Nothing, RestoreOptions, Restored, Target, restore};
use keyway_domain::ports::Kind;
use serde_json::{Value, json};

use super::secrets::BundleSecret;
use super::{counter, named, opened, shown};
use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::table::record;
use crate::{print, tell};

#[derive(Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    location: DeploymentLocation,

    /// The backup
    #[arg(long, value_name = "FILE")]
    from: PathBuf,

    #[command(flatten)]
    secret: BundleSecret,

    /// Say what differs, and change nothing
    #[arg(long)]
    dry_run: bool,

    /// Give records that differ the backup's content; else they stay as they are
    #[arg(long)]
    overwrite: bool,

    /// Restore this record alone, into a deployment that exists; KIND/* for all of a kind. May be given more than once.
    /// Access keys, identities and policies that are gone come back only so
    #[arg(long, value_name = "KIND/ID", value_parser = record)]
    only: Vec<(Kind, String)>,

    /// How to print what differs and was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(asked: Restore) -> anyhow::Result<()> {
    let mut bundle = opened(&asked.from)?;
    let root = asked.secret.open(&bundle)?;
    let stores = asked.location.stores(asked.dry_run).await?;
    let target = Target {
        table: stores.table.unwrap_or_else(|| Arc::new(Nothing)),
        secrets: stores.secrets.unwrap_or_else(|| Arc::new(Nothing)),
        key_directory: stores.key_directory,
        clock: stores.clock,
        random: stores.random,
    };
    let options = RestoreOptions {
        dry_run: asked.dry_run,
        overwrite: asked.overwrite,
        only: asked.only.clone(),
    };
    let spinner = counter();
    let restored = restore(
        &mut bundle,
        &target,
        root.as_ref(),
        &options,
        &mut |count| {
            spinner.set_position(count);
        },
    )
    .await;
    spinner.finish_and_clear();
    let restored = restored.context(if asked.dry_run {
        "nothing was changed"
    } else {
        "stopped; what was done stays done, run it again to go on"
    })?;
    let written = written(&asked, &restored);
    if !asked.dry_run && (written > 0 || restored.log_records > 0) {
        let last = bundle.summary().last_audit_record.as_deref();
        let event = OperatorEvent::restored(&bundle.header().bundle, last)
            .counted("records", written)
            .counted("log_records", restored.log_records);
        // No event says that a restore begins: an empty table stays empty until the records are in it.
        let log = CommandLog::of_table(&target.table, &target.clock, &target.random)?;
        log.record(&event).await?;
    }
    match asked.output {
        Output::Json => print(&as_json(&asked, &bundle.header().bundle, &restored).to_string()),
        Output::Text => print_text(&asked, &restored, written),
    }
    Ok(())
}

/// How many records were written, but for those of the logs.
fn written(asked: &Restore, restored: &Restored) -> u64 {
    let overwritten = if asked.overwrite {
        restored.changed.len()
    } else {
        0
    };
    let written = restored.new.len() + restored.repaired.len() + overwritten;
    u64::try_from(written).unwrap_or(u64::MAX)
}

fn as_json(asked: &Restore, bundle: &str, restored: &Restored) -> Value {
    let names = |of: &[Name]| -> Vec<Value> { of.iter().map(|name| named(name, None)).collect() };
    let refused = restored.refused.iter();
    let refused = refused.map(|(name, why)| named(name, Some(why.as_str())));
    json!({
        "backup": bundle,
        "dry_run": asked.dry_run,
        "into": match restored.destination {
            Destination::Empty => "empty",
            Destination::SameDeployment => "same_deployment",
        },
        "root_keyring": if restored.makes_keyring { "new" } else { "kept" },
        "overwritten": asked.overwrite,
        "new": names(&restored.new),
        "changed": names(&restored.changed),
        "repaired": names(&restored.repaired),
        "kept_out": names(&restored.kept_out),
        "only_here": names(&restored.only_here),
        "refused": refused.collect::<Vec<_>>(),
        "equal": restored.equal,
        "expired": restored.expired,
        "log_records": restored.log_records,
    })
}

fn print_text(asked: &Restore, restored: &Restored, written: u64) {
    // Into an empty deployment everything is new, and the counts say it shorter.
    let is_listed = asked.dry_run || restored.destination == Destination::SameDeployment;
    let changed = if asked.overwrite {
        "overwritten"
    } else {
        "differs, stays"
    };
    let lists = [
        ("new", &restored.new),
        (changed, &restored.changed),
        ("repaired", &restored.repaired),
        ("kept out", &restored.kept_out),
        ("only here", &restored.only_here),
    ];
    for (word, names) in lists.into_iter().filter(|_| is_listed) {
        for name in names {
            print(&format!("{word:<15} {}", shown(name)));
        }
    }
    for (name, why) in &restored.refused {
        tell(&format!("left out: {}: {}", shown(name), why.as_str()));
    }
    let verb = if asked.dry_run { "would be" } else { "were" };
    if restored.makes_keyring {
        print(&format!(
            "the root keyring {} written",
            if asked.dry_run { "would be" } else { "was" }
        ));
    }
    print(&format!(
        "{written} records {verb} written, {} are equal; {} records of the logs {verb} added",
        restored.equal, restored.log_records
    ));
    if !asked.overwrite && !restored.changed.is_empty() {
        tell(&format!(
            "{} records differ and stay as they are; --overwrite takes the backup's",
            restored.changed.len()
        ));
    }
    if !restored.kept_out.is_empty() {
        tell(&format!(
            "{} records that give access are gone or different here and stay so; --only KIND/ID brings one back",
            restored.kept_out.len()
        ));
    }
}
