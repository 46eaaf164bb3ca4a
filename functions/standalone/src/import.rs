//! `keyway import`: keys of KES, kept in files or in AWS Secrets Manager, and the key that MinIO is given itself.
//!
//! What is read is told by its name only, never by its content.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use keyway_deployment_assembly::environment;
use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::keys::{Compared, HmacKey, Keys, NewImport};
use keyway_domain::migration::Progress;
use keyway_domain::ports::SecretStore;
use keyway_import::{MAX_STATIC_KEY_BYTES, MAX_VALUE_BYTES, Unreadable};
use keyway_secrets_secretsmanager::SecretsManager;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::kes_config::{self, KesConfig};
use crate::location::DeploymentLocation;
use crate::migration::{Output, bar, show};
use crate::{explain, print, tell};

#[derive(Subcommand)]
pub(crate) enum Import {
    /// Keys that KES keeps, with their HMAC keys: from its folder, or from AWS Secrets Manager
    Kes(Box<FromKes>),
    /// The key that MinIO is given as MINIO_KMS_SECRET_KEY, from that variable or a file
    MinioStatic(Box<FromMinio>),
    /// The policies and identities of a KES server's configuration
    KesConfig(Box<KesConfig>),
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

    /// Only tell what would be done
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
            let mut job = Job::open(&from.how).await?;
            match &from.from_dir {
                Some(folder) => job.folder(folder, &from.prefix).await?,
                None => {
                    let secrets = from.how.location.account_secrets().await?;
                    job.secrets(&secrets, &from.prefix).await?;
                }
            }
            job.finish(&from.how)
        }
        Import::MinioStatic(from) => {
            let value = static_value(from.file.as_deref())?;
            let new = keyway_import::static_key(&value).map_err(|error| {
                anyhow!(error).context("the key is not NAME:BASE64 with 32 bytes in base64")
            })?;
            let mut job = Job::open(&from.how).await?;
            let name = new.id.as_str().to_owned();
            job.take(name, Found::Key(new)).await?;
            job.finish(&from.how)
        }
    }
}

/// One thing that was looked at.
enum Found {
    Key(NewImport),
    /// No key, and nothing that should have been one.
    Other(String),
    /// What should have been a key.
    Unfit(String),
}

/// A thing that did not become a key here, and why.
#[derive(Serialize)]
struct Left {
    name: String,
    reason: String,
}

#[derive(Default, Serialize)]
struct Report {
    dry_run: bool,
    imported: Vec<String>,
    already_there: Vec<String>,
    conflicts: Vec<Left>,
    refused: Vec<Left>,
    skipped: Vec<Left>,
}

struct Job {
    keys: Keys,
    caller: Caller,
    bar: indicatif::ProgressBar,
    progress: Progress,
    report: Report,
    /// What is told of the keys that a dry run would import.
    told: Vec<String>,
}

impl Job {
    async fn open(how: &How) -> anyhow::Result<Self> {
        Ok(Self {
            keys: how.location.open().await?.operated_keys(),
            caller: Caller::new("operator", Arc::new(Grant::Owner)),
            bar: bar()?,
            progress: Progress::default(),
            report: Report {
                dry_run: how.dry_run,
                ..Report::default()
            },
            told: Vec::new(),
        })
    }

    async fn folder(&mut self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        let cannot = || format!("the folder {} cannot be read", folder.display());
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).with_context(cannot)? {
            names.push(entry.with_context(cannot)?.file_name());
        }
        names.retain(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()));
        names.sort_unstable();
        self.progress.total = names.len() as u64;
        for name in names {
            let found = match name.to_str() {
                Some(name) => kept_in(&folder.join(name), name),
                None => Found::Unfit(Unreadable::Name.to_string()),
            };
            let name = name.to_string_lossy().escape_debug().to_string();
            self.take(name, found).await?;
        }
        Ok(())
    }

    async fn secrets(&mut self, secrets: &SecretsManager, prefix: &str) -> anyhow::Result<()> {
        let names = secrets.names(prefix).await;
        let names = names.map_err(|error| anyhow!(error).context("AWS Secrets Manager"))?;
        self.progress.total = names.len() as u64;
        for name in names {
            let found = if keyway_import::is_key_name(&name) {
                match secrets.get(&name).await {
                    Ok(Some((value, _))) => judged(&name, value.expose()),
                    Ok(None) => Found::Other("it has no value".to_owned()),
                    Err(error) => Found::Unfit(format!("{:#}", anyhow!(error))),
                }
            } else {
                Found::Other(Unreadable::Name.to_string())
            };
            self.take(name.escape_debug().to_string(), found).await?;
        }
        Ok(())
    }

    async fn take(&mut self, name: String, found: Found) -> anyhow::Result<()> {
        show(&self.bar, self.progress);
        let report = &mut self.report;
        match found {
            Found::Other(reason) => report.skipped.push(Left { name, reason }),
            Found::Unfit(reason) => report.refused.push(Left { name, reason }),
            Found::Key(new) => {
                let compared = self
                    .keys
                    .import_or_compare(&self.caller, &new, report.dry_run)
                    .await;
                match compared {
                    Ok(Compared::New) => {
                        let hmac = match new.hmac_key {
                            HmacKey::Absent => "without an HMAC key",
                            HmacKey::Given(_) | HmacKey::Fresh => "with its HMAC key",
                        };
                        let algorithm = new.algorithm.as_str();
                        self.told
                            .push(format!("would import {name}, {algorithm}, {hmac}"));
                        report.imported.push(name);
                    }
                    Ok(Compared::Same) => report.already_there.push(name),
                    Ok(Compared::Different(why)) => report.conflicts.push(Left {
                        name,
                        reason: why.to_owned(),
                    }),
                    Err(KmsError::KeyExists(_)) => report.conflicts.push(Left {
                        name,
                        reason: "Vault holds a sealed copy of a key of this name; restore it first"
                            .to_owned(),
                    }),
                    // What stands against every key ends the job.
                    Err(
                        error @ (KmsError::Unavailable(_)
                        | KmsError::Throttled
                        | KmsError::NotConfigured),
                    ) => {
                        self.bar.finish_and_clear();
                        return Err(explain(error)
                            .context("stopped; what was done stays done, run it again to go on"));
                    }
                    Err(error) => report.refused.push(Left {
                        name,
                        reason: format!("{:#}", explain(error)),
                    }),
                }
            }
        }
        self.progress.done += 1;
        show(&self.bar, self.progress);
        Ok(())
    }

    fn finish(self, how: &How) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        let report = &self.report;
        let (conflicts, refused) = (report.conflicts.len(), report.refused.len());
        match how.output {
            Output::Json => print(&serde_json::to_string(report)?),
            Output::Text => {
                if report.dry_run {
                    self.told.iter().for_each(|line| print(line));
                }
                print(&format!(
                    "{} keys {}, {} already there, {conflicts} in conflict, {refused} refused, {} skipped",
                    report.imported.len(),
                    if report.dry_run {
                        "to be imported"
                    } else {
                        "imported"
                    },
                    report.already_there.len(),
                    report.skipped.len(),
                ));
            }
        }
        for (what, left) in [
            ("conflict", &report.conflicts),
            ("refused", &report.refused),
            ("skipped", &report.skipped),
        ] {
            for Left { name, reason } in left {
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

/// What a file of KES's store holds. Whatever is in that folder should be a key.
fn kept_in(path: &Path, name: &str) -> Found {
    let found = read(path).and_then(|value| {
        keyway_import::key(name, &value).map_err(|unreadable| unreadable.to_string())
    });
    match found {
        Ok(new) => Found::Key(new),
        Err(why) => Found::Unfit(why),
    }
}

/// A plain file of at most a key's length; nothing that only leads to one.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read: {error}");
    let seen = fs::symlink_metadata(path).map_err(cannot)?;
    if !seen.is_file() {
        return Err(if seen.is_symlink() {
            "it is a symbolic link, which is not followed".to_owned()
        } else {
            "it is not a file".to_owned()
        });
    }
    if seen.len() > MAX_VALUE_BYTES as u64 {
        return Err(Unreadable::TooLong.to_string());
    }
    let file = File::open(path).map_err(cannot)?;
    let opened = file.metadata().map_err(cannot)?;
    if (opened.dev(), opened.ino()) != (seen.dev(), seen.ino()) {
        return Err("it was replaced while it was read".to_owned());
    }
    bounded(file, MAX_VALUE_BYTES).map_err(cannot)
}

/// As much as there is, and a byte more than `most` where there is more.
fn bounded(file: File, most: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    // In one piece from the beginning: a vector that grows leaves copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(most + 2));
    file.take(most as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// What a secret of the account holds. Most are not keys; what is made as a key is and cannot be read is told as such.
fn judged(name: &str, value: &[u8]) -> Found {
    match keyway_import::key(name, value) {
        Ok(new) => Found::Key(new),
        Err(why @ (Unreadable::Form | Unreadable::TooLong | Unreadable::Name)) => {
            Found::Other(why.to_string())
        }
        Err(why) => Found::Unfit(why.to_string()),
    }
}

const STATIC_KEY: &str = "MINIO_KMS_SECRET_KEY";

fn static_value(file: Option<&Path>) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    match (file, environment(STATIC_KEY)?) {
        (Some(_), Some(_)) => bail!("both {STATIC_KEY} and a file are given; give one of them"),
        (None, None) => bail!("no key: set {STATIC_KEY}, or pass --file"),
        (None, Some(text)) => Ok(Zeroizing::new(text.as_bytes().to_vec())),
        (Some(path), None) => File::open(path)
            .and_then(|file| bounded(file, MAX_STATIC_KEY_BYTES))
            .with_context(|| format!("the file {} cannot be read", path.display())),
    }
}
