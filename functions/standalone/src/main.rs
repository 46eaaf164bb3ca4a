//! `keyway`: every route in one process over an embedded store, and the operator's commands.

/// A request makes some fifty short-lived allocations, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod access_key;
mod audit;
mod backup;
mod identity;
mod import;
mod kes_config;
mod kes_listener;
mod location;
mod migration;
mod policy;
mod reencrypt;
mod serve;
mod table;
mod traces;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, Parser, Subcommand};
use keyway_deployment_assembly::{arguments, unread_variables};
use keyway_deployment_embedded::{
    NewPassphrase, Operator, change_passphrase, must_exist, save_keyring,
};
use keyway_domain::{KmsError, one_line};

/// A key management service for object stores
#[derive(Parser)]
#[command(
    name = "keyway",
    version,
    after_help = "Settings can also be given as the KEYWAY_* variable named beside them; an empty one counts as not set."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const SECRETS: &str = "Secrets are read from the environment, never from arguments, which every user of the machine can see:
  KEYWAY_ROOT_ACCESS_KEY, KEYWAY_ROOT_SECRET_KEY  the root access key; generated and shown once when not set
  KEYWAY_PASSPHRASE                               protects the root keyring; or use --passphrase-file";

const RESTORE: &str = "The root keyring comes from the backup, if the deployment has none: set KEYWAY_BACKUP_PASSPHRASE, or pass
--backup-passphrase-file or --share-file. KEYWAY_PASSPHRASE or --passphrase-file protects its new file.";

#[derive(Subcommand)]
enum Command {
    /// Serve RustFS's KMS admin API from this machine
    #[command(after_help = SECRETS)]
    Serve(Box<serve::Serve>),
    /// Make, list and revoke access keys, also while a server runs
    #[command(subcommand)]
    AccessKey(access_key::AccessKeyCommand),
    /// Check policies of access keys
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Make and show the identities by which clients of the KES API are known
    #[command(subcommand)]
    Identity(identity::IdentityCommand),
    /// Bring keys here from KES or MinIO, also while servers run; no key is overwritten, and it may be run again
    #[command(subcommand)]
    Import(import::Import),
    /// Move ciphertexts of AWS KMS to a key here, also while servers run; may be stopped and run again
    Reencrypt(Box<reencrypt::Reencrypt>),
    /// Verify the audit log, or print what the table has of it, also while servers run
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Verify the signatures of the table's records, or sign those of an older release, also while servers run
    #[command(subcommand)]
    Table(table::TableCommand),
    /// Write a backup of the deployment, check one, or print what one has
    #[command(subcommand)]
    Backup(backup::BackupCommand),
    /// Write a backup's records into an empty deployment or into its own; may be stopped and run again
    #[command(after_help = RESTORE)]
    Restore(Box<backup::Restore>),
    /// Put the root keyring under another passphrase, or under none
    ChangePassphrase(ChangePassphrase),
    /// Look after the root keyring's file, also while a server runs
    #[command(subcommand)]
    Root(RootCommand),
    /// Move every key to the backend that is configured now, also while servers run; may be stopped and run again
    RewrapKeys(migration::Job),
    /// Make lost records of keys again from their sealed copies in Vault; keys that are there are left as they are
    RestoreKeys(migration::Job),
}

#[derive(Subcommand)]
enum RootCommand {
    /// Write another copy of the root keyring's file, as it is; no passphrase is asked for
    Save(SaveRoot),
}

#[derive(Args)]
struct SaveRoot {
    #[command(flatten)]
    operator: Operator,

    /// The folder of the copy; made with mode 0700 if it is missing
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

async fn save_root(SaveRoot { operator, to }: &SaveRoot) -> anyhow::Result<()> {
    must_exist(operator)?;
    print(&save_keyring(operator, to).await?.display().to_string());
    Ok(())
}

#[derive(Args)]
struct ChangePassphrase {
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    new: NewPassphrase,
}

/// The commit that this program was built from.
const COMMIT: Option<&str> = option_env!("KEYWAY_COMMIT");

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Arguments = arguments(COMMIT);
    let unread = unread_variables::<Arguments>();
    if !matches!(arguments.command, Command::Serve(_)) {
        unread
            .iter()
            .for_each(|unread| tell(&format!("keyway: warning: {unread}")));
    }
    let result = match arguments.command {
        Command::Serve(serve) => serve::run(*serve, unread).await,
        Command::AccessKey(command) => access_key::run(command).await,
        Command::Policy(command) => match policy::run(command) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Identity(command) => identity::run(command),
        Command::Import(import) => import::run(import).await,
        Command::Reencrypt(job) => reencrypt::run(*job).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Table(command) => table::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        Command::Restore(asked) => backup::run_restore(*asked).await,
        Command::RewrapKeys(job) => migration::rewrap(job).await,
        Command::RestoreKeys(job) => migration::restore(job).await,
        Command::Root(RootCommand::Save(save)) => save_root(&save).await,
        Command::ChangePassphrase(ChangePassphrase { operator, new }) => {
            match must_exist(&operator) {
                Ok(()) => change_passphrase(&operator, &new).await,
                Err(error) => Err(error),
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("keyway: {}", one_line(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

/// Says something to the person at the terminal.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// Prints a command's result.
#[expect(clippy::print_stdout, reason = "this is the command line")]
fn print(text: &str) {
    println!("{text}");
}

/// What went wrong, for the person at the terminal.
fn explain(error: impl Into<KmsError>) -> anyhow::Error {
    let error = error.into();
    anyhow!(error.for_operator())
}
