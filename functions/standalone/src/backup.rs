//! `keyway backup create|verify|list`.

mod destination;
mod restore;
mod secrets;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use keyway_audit::OperatorAction;
use keyway_backup::{
    Bundle, Created, Header, Logs, Name, RootProtection, RootWish, Share, ShareCount, Source,
    Summary, create,
};
use keyway_deployment_assembly::{KeyringVault, VaultFiles};
use keyway_deployment_aws::{Location, ObjectStore};
use keyway_deployment_embedded::Operator;
use keyway_deployment_postgres::PostgresLocation;
use keyway_domain::keyring::RootKeyring;
use keyway_settings::SettingsFile;
use serde_json::{Value, json};

use crate::command_log::CommandLog;
use crate::location::DeploymentLocation;
use crate::migration::Output;
use crate::{print, tell};
use destination::Destination;
pub(crate) use restore::{Restore, run as run_restore};
use secrets::{BundleSecret, Passphrase};

#[derive(Subcommand)]
pub(crate) enum BackupCommand {
    /// Write the table's records into one file, also while servers run
    Create(Box<Create>),
    /// Check that a backup is complete and as it was written, and with a deployment's root keyring that it is authentic
    Verify(Box<Verify>),
    /// Print what a backup has
    List(List),
}

#[derive(Args)]
pub(crate) struct Create {
    #[command(flatten)]
    location: DeploymentLocation,

    /// Where the backup is written to: a file that is not there yet, or an object
    #[arg(long, value_name = "FILE|s3://BUCKET/KEY")]
    to: Destination,

    #[command(flatten)]
    store: ObjectStore,

    /// Put the root keyring into the backup, under KEYWAY_BACKUP_PASSPHRASE, --backup-passphrase-file or --shares. Who has
    /// both can open everything
    #[arg(long)]
    with_root: bool,

    /// Encrypt the root keyring under a drawn secret, and print its shares, such as 3/5: five, of which three open it
    #[arg(
        long,
        value_name = "NEEDED/MADE",
        requires = "with_root",
        conflicts_with = "backup_passphrase_file"
    )]
    shares: Option<ShareCount>,

    #[command(flatten)]
    passphrase: Passphrase,

    /// Leave the audit log and the error log out
    #[arg(long)]
    without_audit: bool,

    /// Leave events out that are before the hour of this time; else all are in it
    #[arg(long, value_name = "TIME", conflicts_with = "without_audit")]
    audit_since: Option<Timestamp>,

    /// How to print what was written
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct Verify {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    settings_file: SettingsFile,

    #[command(flatten)]
    operator: Option<Operator>,

    #[command(flatten)]
    aws: Option<Location>,

    #[command(flatten)]
    postgres: Option<PostgresLocation>,

    #[command(flatten)]
    keyring_vault: Option<KeyringVault>,

    #[command(flatten)]
    vault: VaultFiles,

    #[command(flatten)]
    secret: BundleSecret,

    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Args)]
pub(crate) struct List {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// How to print it
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(crate) async fn run(command: BackupCommand) -> anyhow::Result<()> {
    match command {
        BackupCommand::Create(create) => run_create(*create).await,
        BackupCommand::Verify(verify) => run_verify(*verify).await,
        BackupCommand::List(list) => run_list(&list),
    }
}

/// The bundle in this file, checked.
fn opened(path: &Path) -> anyhow::Result<Bundle<File>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    Bundle::open(file).map_err(|error| anyhow!("{}: {error}", path.display()))
}

async fn run_create(asked: Create) -> anyhow::Result<()> {
    let root = root_wish(&asked)?;
    let ports = asked.location.open().await?;
    let action = OperatorAction::CreateBackup;
    let log = CommandLog::begin(&ports, action).await?;
    let mut drawn = [0; 8];
    ports.random.fill(&mut drawn)?;
    let mut output = asked.to.open(&asked.store, drawn).await?;
    let source = Source {
        table: ports.stored.as_ref(),
        keyring: &ports.keyring,
        clock: ports.clock.as_ref(),
        random: &ports.random,
    };
    let logs = match (asked.without_audit, asked.audit_since) {
        (true, _) => Logs::Without,
        (false, Some(since)) => Logs::Since(since),
        (false, None) => Logs::All,
    };
    let spinner = counter();
    let created = create(&source, logs, root, output.as_mut(), &mut |count| {
        spinner.set_position(count);
    })
    .await;
    spinner.finish_and_clear();
    let created = created.with_context(|| asked.to.to_string());
    // The shares are printed only if the event is written.
    let created = log.ended(action, created, |created, event| {
        let header = &created.header;
        event
            .of("backup", &header.bundle)
            .counted("records", created.summary.records.values().sum())
            .counted("root_keyrings", header.root.is_some().into())
    });
    let created = created.await?;
    print_created(&asked, &created);
    for (name, why) in &created.refused {
        tell(&format!(
            "warning: {}: {}; it is in the backup as it is, and no restore writes it",
            shown(name),
            why.as_str()
        ));
    }
    Ok(())
}

/// It is shown only on a terminal.
fn counter() -> indicatif::ProgressBar {
    indicatif::ProgressBar::new_spinner().with_message("records")
}

fn root_wish(asked: &Create) -> anyhow::Result<Option<RootWish>> {
    if !asked.with_root {
        return Ok(None);
    }
    match (asked.shares, asked.passphrase.read()?) {
        (Some(count), None) => Ok(Some(RootWish::Shares(count))),
        (None, Some(passphrase)) => Ok(Some(RootWish::Passphrase(passphrase))),
        (Some(_), Some(_)) => {
            bail!("--shares is given together with KEYWAY_BACKUP_PASSPHRASE; unset one of them")
        }
        (None, None) => bail!(
            "--with-root needs a passphrase or shares: set KEYWAY_BACKUP_PASSPHRASE, or pass --backup-passphrase-file or --shares"
        ),
    }
}

fn print_created(asked: &Create, created: &Created) {
    let lines: Vec<_> = created.shares.iter().map(Share::line).collect();
    match asked.output {
        Output::Json => {
            let mut told = described(&created.header, &created.summary);
            let shares: Vec<&str> = lines.iter().map(|line| line.as_str()).collect();
            let refused = created.refused.iter();
            let refused = refused.map(|(name, why)| named(name, Some(why.as_str())));
            insert(&mut told, "to", json!(asked.to.to_string()));
            insert(&mut told, "bytes", json!(created.bytes));
            insert(&mut told, "shares", json!(shares));
            insert(&mut told, "refused", refused.collect());
            print(&told.to_string());
        }
        Output::Text => {
            let count: u64 = created.summary.records.values().sum();
            let said = format!(
                "{}: backup {} with {count} records, {} bytes",
                asked.to, created.header.bundle, created.bytes
            );
            if lines.is_empty() {
                print(&said);
                return;
            }
            tell(&said);
            tell("give each of these shares to another person; they are not shown again");
            lines.iter().for_each(|line| print(line));
        }
    }
}

fn insert(value: &mut Value, name: &str, what: Value) {
    if let Value::Object(fields) = value {
        fields.insert(name.to_owned(), what);
    }
}

/// A bundle's header and summary as JSON.
fn described(header: &Header, summary: &Summary) -> Value {
    let (root, shares) = match header.root {
        None => ("none", None),
        Some(RootProtection::Passphrase) => ("passphrase", None),
        Some(RootProtection::Shares { needed, made }) => {
            ("shares", Some(json!({"needed": needed, "made": made})))
        }
    };
    json!({
        "backup": header.bundle,
        "created_at": header.created_at,
        "deployment": header.deployment,
        "release": header.release,
        "root": root,
        "root_shares": shares,
        "one_moment": summary.is_one_moment,
        "audit": summary.has_logs,
        "last_audit_record": summary.last_audit_record,
        "records": summary.records,
    })
}

/// A record's name as JSON.
fn named(name: &Name, reason: Option<&str>) -> Value {
    match reason {
        Some(reason) => json!({"kind": name.kind.as_str(), "id": name.id, "reason": reason}),
        None => json!({"kind": name.kind.as_str(), "id": name.id}),
    }
}

fn shown(name: &Name) -> String {
    format!("{}/{}", name.kind.as_str(), name.id)
}

async fn run_verify(asked: Verify) -> anyhow::Result<()> {
    let mut bundle = opened(&asked.file)?;
    let location = DeploymentLocation::named(
        asked.settings_file,
        asked.operator,
        asked.aws,
        asked.postgres,
        asked.keyring_vault,
        asked.vault,
    );
    let root = asked.secret.open(&bundle)?;
    let mut refused = Vec::new();
    let mut is_authentic = false;
    let refuse = |error| anyhow!("{} is refused: {error}", asked.file.display());
    if let Some(root) = &root {
        let random = keyway_deployment_assembly::SystemRandom::default();
        let keyring = RootKeyring::parse(root, std::sync::Arc::new(random))?;
        bundle.must_be_authentic(&keyring).map_err(refuse)?;
        refused = refused_records(&mut bundle, &keyring)?;
        is_authentic = true;
    }
    if let Some(location) = location {
        let ports = location.open().await?;
        let keyring = ports.keyring.keyring().await?;
        bundle.must_be_authentic(&keyring).map_err(refuse)?;
        refused = refused_records(&mut bundle, &keyring)?;
        is_authentic = true;
    }
    match asked.output {
        Output::Json => {
            let mut told = described(bundle.header(), bundle.summary());
            insert(&mut told, "complete", json!(true));
            insert(&mut told, "authentic", json!(is_authentic.then_some(true)));
            insert(
                &mut told,
                "refused",
                refused
                    .iter()
                    .map(|(name, why)| named(name, Some(why)))
                    .collect(),
            );
            print(&told.to_string());
        }
        Output::Text => {
            let count: u64 = bundle.summary().records.values().sum();
            let header = bundle.header();
            print(&format!(
                "backup {} of {}: {count} records, complete and as they were written",
                header.bundle, header.created_at
            ));
            print(if is_authentic {
                "it was made with this root keyring and not changed since"
            } else {
                "who made it was not checked; --data-dir or --table names the deployment whose root keyring tells"
            });
            for (name, why) in &refused {
                tell(&format!("{}: {why}", shown(name)));
            }
        }
    }
    if !refused.is_empty() {
        bail!("the backup has records that no restore writes");
    }
    Ok(())
}

/// The records that do not verify, and why.
fn refused_records(
    bundle: &mut Bundle<File>,
    keyring: &RootKeyring,
) -> anyhow::Result<Vec<(Name, &'static str)>> {
    let mut refused = Vec::new();
    let mut records = bundle.records()?;
    while let Some(record) = records.next()? {
        if let Err(why) = keyring.must_open(&record) {
            let (kind, id) = (record.kind, record.id);
            refused.push((Name { kind, id }, why.as_str()));
        }
    }
    Ok(refused)
}

fn run_list(asked: &List) -> anyhow::Result<()> {
    let mut bundle = opened(&asked.file)?;
    let (header, summary) = (bundle.header().clone(), bundle.summary().clone());
    let mut names = Vec::new();
    let mut records = bundle.records()?;
    while let Some(record) = records.next()? {
        if record.kind.part_bytes().is_none() {
            let (kind, id) = (record.kind, record.id);
            names.push(Name { kind, id });
        }
    }
    match asked.output {
        Output::Json => {
            let mut told = described(&header, &summary);
            let names = names.iter().map(|name| named(name, None)).collect();
            insert(&mut told, "names", names);
            print(&told.to_string());
        }
        Output::Text => {
            let root = match header.root {
                None => "not in it".to_owned(),
                Some(RootProtection::Passphrase) => "under a passphrase".to_owned(),
                Some(RootProtection::Shares { needed, made }) => {
                    format!("under {needed} of {made} shares")
                }
            };
            print(&format!("backup      {}", header.bundle));
            print(&format!("created at  {}", header.created_at));
            print(&format!("deployment  {}", header.deployment));
            print(&format!("release     {}", header.release));
            print(&format!("root        {root}"));
            for (kind, count) in &summary.records {
                print(&format!("{kind:<11} {count}"));
            }
            for name in &names {
                print(&shown(name));
            }
        }
    }
    Ok(())
}
