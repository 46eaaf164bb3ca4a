//! `keyway`: every route in one process over an embedded store, and the operator's commands.

/// A request makes some fifty short-lived allocations, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod access_key;
mod audit;
mod backup;
mod client;
mod command_log;
mod completions;
mod config;
mod doctor;
mod files;
mod healthcheck;
mod identity;
mod import;
mod kes_config;
mod kes_listener;
mod kms_plugin;
mod listener_files;
mod location;
mod man;
mod migration;
mod policy;
mod reencrypt;
mod root;
mod serve;
mod service_manager;
mod table;
mod traces;

use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::anyhow;
use clap::{Args, FromArgMatches, Parser, Subcommand};
use command_log::CommandLog;
use keyway_audit::OperatorAction;
use keyway_deployment_assembly::{SECRETS, command, unread_variables, variable};
use keyway_deployment_embedded::{NewPassphrase, Operator, change_passphrase, must_exist};
use keyway_domain::{KmsError, one_line};
use keyway_settings::{Parsed, Program, SettingsFile};

/// A key management service for object stores
#[derive(Parser)]
#[command(
    name = "keyway",
    version,
    after_help = after_help()
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn after_help() -> String {
    let commands = Command::augment_subcommands(clap::Command::new("keyway"));
    format!(
        "Commands that call a server over HTTP, with an access key or a certificate: {}.
The others work on this machine's deployment, or on the table that --table names.

Settings can also be given as the KEYWAY_* variable named beside them; an empty one counts as not set.",
        client::callers(&commands).join(", ")
    )
}

const ABOUT_SECRETS: &str = "Secrets are read from the environment, never from arguments, which every user of the machine can see:
  KEYWAY_ROOT_ACCESS_KEY, KEYWAY_ROOT_SECRET_KEY  the root access key; generated and shown once when not set
  KEYWAY_PASSPHRASE                               protects the root keyring; or use --passphrase-file";

const RESTORE: &str = "The root keyring comes from the backup, if the deployment has none: set KEYWAY_BACKUP_PASSPHRASE, or pass
--backup-passphrase-file or --share-file. KEYWAY_PASSPHRASE or --passphrase-file protects its new file.";

#[derive(Subcommand)]
enum Command {
    /// Serve RustFS's KMS admin API from this machine
    #[command(after_help = ABOUT_SECRETS)]
    Serve(Box<serve::Serve>),
    /// Ask the server of this machine whether it is ready; status 1 if it is not
    Healthcheck(healthcheck::Healthcheck),
    /// Check the settings of `keyway serve`, or print a settings file to begin with
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Make, list, rotate and revoke access keys, also while a server runs
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
    /// Examine the deployment, also while servers run; changes nothing
    #[command(after_help = doctor::EXIT_CODES)]
    Doctor(Box<doctor::Doctor>),
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
    /// Rotate the root that protects everything, and look after the keyring that holds it, also while servers run
    #[command(subcommand)]
    Root(root::RootCommand),
    /// Move every key to the backend that is configured now, also while servers run; may be stopped and run again
    RewrapKeys(migration::Job),
    /// Make lost records of keys again from their sealed copies in Vault; keys that are there are left as they are
    RestoreKeys(migration::Job),
    /// On a server: make, list and change master keys
    #[command(subcommand)]
    Key(client::KeyCommand),
    /// On a server: make data keys and decrypt them
    #[command(subcommand)]
    DataKey(client::DataKeyCommand),
    /// On a server: encrypt at most 64 KiB of standard input to standard output
    #[command(after_help = client::EXIT_CODES)]
    Encrypt(Box<client::Encrypt>),
    /// On a server: decrypt standard input to standard output
    #[command(after_help = client::EXIT_CODES)]
    Decrypt(Box<client::Decrypt>),
    /// On a server: see, configure, start and stop the service
    #[command(subcommand)]
    Service(client::ServiceCommand),
    /// With a data key of a server: encrypt a file of any length
    #[command(after_help = files::AFTER_HELP)]
    EncryptFile(Box<files::EncryptFile>),
    /// With a data key of a server: decrypt a file that encrypt-file made
    #[command(after_help = files::AFTER_HELP)]
    DecryptFile(Box<files::DecryptFile>),
    /// With a key of a server: serve Kubernetes' KMS v2 on a Unix socket, so that a cluster's secrets are encrypted
    #[command(after_help = kms_plugin::AFTER_HELP)]
    KmsPlugin(Box<kms_plugin::KmsPlugin>),
    /// Print a shell's completions of these commands
    Completions(completions::Completions),
    /// Write a manual page of each command
    Man(man::Man),
}

#[derive(Args)]
struct ChangePassphrase {
    #[command(flatten)]
    settings_file: SettingsFile,
    #[command(flatten)]
    operator: Operator,
    #[command(flatten)]
    new: NewPassphrase,
}

async fn run_change_passphrase(asked: &ChangePassphrase) -> anyhow::Result<()> {
    let ChangePassphrase { operator, new, .. } = asked;
    must_exist(operator)?;
    let action = OperatorAction::ChangePassphrase;
    let log = CommandLog::begin_in_folder(operator, action).await?;
    let changed = change_passphrase(operator, new).await;
    log.ended(action, changed, |(), event| event).await
}

/// The commit that this program was built from.
const COMMIT: Option<&str> = option_env!("KEYWAY_COMMIT");

/// The exit code of wrong arguments and wrong settings, as clap has it.
const WRONG_USAGE: u8 = 2;

/// The command whose options may stand in a settings file.
const SERVE: &str = "serve";

/// The command line over the settings file, if one is named.
fn parsed() -> Result<(Arguments, Parsed), clap::Error> {
    let program = Program {
        command: command::<Arguments>(COMMIT),
        owner: SERVE,
        secrets: &SECRETS,
        variable: &variable,
    };
    let parsed = program.parse(std::env::args_os().collect())?;
    let arguments = Arguments::from_arg_matches(&parsed.matches)?;
    Ok((arguments, parsed))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let (arguments, parsed) = parsed().unwrap_or_else(|error| error.exit());
    let is_check = matches!(arguments.command, Command::Config(_));
    if !is_check && !parsed.mistakes.is_empty() {
        for mistake in &parsed.mistakes {
            tell(&format!("keyway: {mistake}"));
        }
        return ExitCode::from(WRONG_USAGE);
    }
    let unread = unread_variables::<Arguments>();
    if !matches!(arguments.command, Command::Serve(_)) {
        unread
            .iter()
            .for_each(|unread| tell(&format!("keyway: warning: {unread}")));
    }
    let result = match arguments.command {
        Command::Serve(serve) => serve::run(*serve, unread).await,
        Command::Config(command) => match config::run(&command, &parsed) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::from(WRONG_USAGE),
            Err(error) => Err(error),
        },
        Command::Healthcheck(check) => healthcheck::run(&check).await,
        Command::AccessKey(command) => access_key::run(command).await,
        Command::Policy(command) => match policy::run(command) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Identity(command) => identity::run(command),
        Command::Doctor(doctor) => match doctor::run(*doctor).await {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Import(import) => Box::pin(import::run(import)).await,
        Command::Reencrypt(job) => reencrypt::run(*job).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Table(command) => table::run(command).await,
        Command::Backup(command) => backup::run(command).await,
        Command::Restore(asked) => backup::run_restore(*asked).await,
        Command::RewrapKeys(job) => migration::rewrap(job).await,
        Command::RestoreKeys(job) => migration::restore(job).await,
        Command::Key(command) => client::run(client::key(command)).await,
        Command::Service(command) => client::run(client::service(command)).await,
        Command::DataKey(command) => client::run(client::data_key(command)).await,
        Command::Encrypt(arguments) => client::run(client::encrypt(*arguments)).await,
        Command::Decrypt(arguments) => client::run(client::decrypt(*arguments)).await,
        Command::EncryptFile(arguments) => files::encrypt(*arguments).await,
        Command::DecryptFile(arguments) => files::decrypt(*arguments).await,
        Command::KmsPlugin(asked) => kms_plugin::run(*asked).await,
        Command::Completions(shell) => completions::run(&shell),
        Command::Man(pages) => man::run(&pages),
        Command::Root(command) => Box::pin(root::run(command)).await,
        Command::ChangePassphrase(asked) => run_change_passphrase(&asked).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("keyway: {}", one_line(error.as_ref())));
            files::exit_code(&error).unwrap_or_else(|| client::exit_code(&error))
        }
    }
}

/// Says something to the person at the terminal.
#[expect(clippy::print_stderr, reason = "this is the command line")]
fn tell(text: &str) {
    eprintln!("{text}");
}

/// How a command ends whose reader has gone away, as if SIGPIPE had ended it.
const NO_READER: i32 = 141;

/// Prints a command's result. A result that cannot be printed ends the command: it may be a secret that is shown once.
fn print(text: &str) {
    let mut output = io::stdout().lock();
    let printed = writeln!(output, "{text}").and_then(|()| output.flush());
    match printed {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(NO_READER),
        Err(error) => {
            tell(&format!("keyway: standard output: {error}"));
            std::process::exit(1);
        }
    }
}

/// What went wrong, for the person at the terminal.
fn explain(error: impl Into<KmsError>) -> anyhow::Error {
    let error = error.into();
    anyhow!(error.for_operator())
}
