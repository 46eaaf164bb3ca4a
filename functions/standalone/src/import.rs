//! `keyway import`: keys of KES, kept in files or in AWS Secrets Manager, and the key that MinIO is given itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use keyway_audit::{OperatorAction, OperatorEvent};
use keyway_deployment_assembly::{Writing, environment};
use keyway_domain::migration::Progress;
use keyway_import::{ImportError, KeyImport, KeyReport, NotImported};
use zeroize::Zeroizing;

use crate::command_log::CommandLog;
use crate::kes_config::{self, FromConfig};
use crate::location::DeploymentLocation;
use crate::migration::{Output, bar, show};
use crate::{print, tell};

#[derive(Subcommand)]
pub(crate) enum Import {
    /// Keys that KES keeps, with their HMAC keys: from its folder, or from AWS Secrets Manager
    Kes(Box<FromKes>),
    /// The key that MinIO is given as MINIO_KMS_SECRET_KEY, from that variable or a file
    MinioStatic(Box<FromMinio>),
    /// The policies and identities of a KES server's configuration
    KesConfig(Box<FromConfig>),
}

#[derive(Args)]
pub(crate) struct FromKes {
    /// Folder of KES's file system store: a file for each key, named as the key is
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "from_secrets_manager",
        conflicts_with = "from_secrets_manager"
    )]
    from_dir: Option<PathBuf>,

    /// Secrets of this AWS account and region that are keys of KES
    #[arg(long)]
    from_secrets_manager: bool,

    /// Only keys whose names begin so; other secrets are not even read
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    prefix: String,

    #[command(flatten)]
    how: How,
}

#[derive(Args)]
pub(crate) struct FromMinio {
    /// File that holds NAME:BASE64 (or set MINIO_KMS_SECRET_KEY)
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    #[command(flatten)]
    how: How,
}

#[derive(Args)]
struct How {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,

    /// How to print what was done
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(import: Import) -> anyhow::Result<()> {
    match import {
        Import::KesConfig(from) => kes_config::run(*from).await,
        Import::Kes(from) => {
            let location = &from.how.location;
            let ports = match &from.from_dir {
                Some(_) => location.open().await?,
                None => location.open_beside_account().await?,
            };
            let mut job = Job::begin(&ports, &from.how).await?;
            let ended = match &from.from_dir {
                Some(folder) => job.import.folder(folder, &from.prefix).await,
                None => {
                    let secrets = from.how.location.account_secrets().await?;
                    let names = secrets.names(&from.prefix).await;
                    let names =
                        names.map_err(|error| anyhow!(error).context("AWS Secrets Manager"))?;
                    job.import.secrets(&secrets, names).await
                }
            };
            job.finish(ended, &from.how).await
        }
        Import::MinioStatic(from) => {
            let value = static_value(from.file.as_deref())?;
            let new = keyway_import::static_key(&value).map_err(|error| {
                anyhow!(error).context("the key is not NAME:BASE64 with 32 bytes in base64")
            })?;
            let ports = from.how.location.open().await?;
            let mut job = Job::begin(&ports, &from.how).await?;
            let ended = job.import.key(new).await;
            job.finish(ended, &from.how).await
        }
    }
}

/// An import that shows its progress.
struct Job {
    import: KeyImport<Box<dyn FnMut(Progress) + Send>>,
    bar: indicatif::ProgressBar,
    /// `None` when nothing is changed.
    log: Option<CommandLog>,
}

impl Job {
    async fn begin(ports: &Writing, how: &How) -> anyhow::Result<Self> {
        let log = if how.dry_run {
            None
        } else {
            Some(CommandLog::begin(ports, OperatorAction::ImportKeys).await?)
        };
        let keys = ports.operated_keys();
        let bar = bar()?;
        let shown = bar.clone();
        let on_progress: Box<dyn FnMut(Progress) + Send> =
            Box::new(move |progress| show(&shown, progress));
        Ok(Self {
            import: KeyImport::new(keys, how.dry_run, on_progress),
            bar,
            log,
        })
    }

    async fn finish(self, ended: Result<(), ImportError>, how: &How) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        let report = self.import.into_report();
        let recorded = match &self.log {
            Some(log) => log.record(&event(&report, ended.is_ok())).await,
            None => Ok(()),
        };
        ended?;
        recorded?;
        match how.output {
            Output::Json => print(&serde_json::to_string(&report)?),
            Output::Text => print_text(&report),
        }
        let (conflicts, refused) = (report.conflicts.len(), report.refused.len());
        for (what, left) in [
            ("conflict", &report.conflicts),
            ("refused", &report.refused),
            ("skipped", &report.skipped),
        ] {
            for NotImported { name, reason } in left {
                tell(&format!("{what}: {name}: {reason}"));
            }
        }
        if conflicts + refused > 0 {
            bail!(
                "{conflicts} keys are in conflict with keys that are here, and {refused} were refused; those here were left as they are"
            );
        }
        Ok(())
    }
}

/// The event that says what was imported. An import that stopped has one too.
fn event(report: &KeyReport, is_complete: bool) -> OperatorEvent {
    let action = OperatorAction::ImportKeys;
    let event = if is_complete {
        OperatorEvent::new(action)
    } else {
        OperatorEvent::failed(action)
    };
    let count = |names: usize| u64::try_from(names).unwrap_or(u64::MAX);
    event
        .on_keys(report.imported.iter().cloned())
        .counted("imported", count(report.imported.len()))
        .counted("already_there", count(report.already_there.len()))
        .counted("conflicts", count(report.conflicts.len()))
        .counted("refused", count(report.refused.len()))
}

fn print_text(report: &KeyReport) {
    if report.dry_run {
        for key in &report.details {
            let hmac = if key.has_hmac_key {
                "with its HMAC key"
            } else {
                "without an HMAC key"
            };
            print(&format!(
                "would import {}, {}, {hmac}",
                key.name, key.algorithm
            ));
        }
    }
    print(&format!(
        "{} keys {}, {} already there, {} in conflict, {} refused, {} skipped",
        report.imported.len(),
        if report.dry_run {
            "to be imported"
        } else {
            "imported"
        },
        report.already_there.len(),
        report.conflicts.len(),
        report.refused.len(),
        report.skipped.len(),
    ));
}

const STATIC_KEY: &str = "MINIO_KMS_SECRET_KEY";

fn static_value(file: Option<&Path>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match (file, environment(STATIC_KEY)?) {
        (Some(_), Some(_)) => bail!("both {STATIC_KEY} and a file are given; give one of them"),
        (None, None) => bail!("no key: set {STATIC_KEY}, or pass --file"),
        (None, Some(text)) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        (Some(path), None) => keyway_import::read_static_key_file(path)
            .with_context(|| format!("the file {} cannot be read", path.display())),
    }
}
