//! The operator's settings of every deployment. Secrets come only from the environment or a file: arguments are visible
//! to every user of the machine.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::builder::{PossibleValue, PossibleValuesParser, Resettable};
use clap::{Arg, Args, Command, Parser};
use keyway_crypto::SecretBytes;
use keyway_domain::access::{AccessKeyId, AccountId, ROOT_SECRET_LENGTHS, RootAccessKey};
use keyway_domain::keys::KeyId;
use keyway_http::Cors;
use keyway_secrets_vault::TokenFolders;
use zeroize::Zeroizing;

use crate::audit::AuditSettings;
use crate::kes::KesSettings;

/// How requests are served.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Only accept signatures for this region; any region when not given
    #[arg(
        id = "signature_region",
        long = "region",
        env = "KEYWAY_REGION",
        value_name = "REGION"
    )]
    pub region: Option<String>,

    /// How long another process may act on a state that was changed here, in seconds; 0 reads it for every request
    #[arg(long, env = "KEYWAY_STATE_TTL_SECONDS", value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub state_ttl_seconds: u32,

    /// Allow keys to be destroyed without a waiting time, when a request confirms it
    #[arg(long, env = "KEYWAY_ALLOW_IMMEDIATE_DELETION", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allow_immediate_deletion: bool,

    /// Origins whose pages may call, such as https://console.example.com, with commas between them; * for any
    #[arg(long, env = "KEYWAY_CORS_ORIGINS", value_name = "ORIGINS", default_value = "", hide_default_value = true,
          value_parser = Cors::parse)]
    pub cors_origins: Cors,

    /// Spelling of backends and states in RustFS's API: documents or 1.0. By default sessions get 1.0's, which RustFS's
    /// console needs, and everybody else gets the documents'
    #[arg(long, env = "KEYWAY_RUSTFS_SPELLING", value_name = "SPELLING", default_value = "", hide_default_value = true,
          value_parser = PossibleValuesParser::new([PossibleValue::new("").hide(true), "documents".into(), "1.0".into()]))]
    pub rustfs_spelling: String,

    /// The account that ARNs name, 12 digits
    #[arg(
        long,
        env = "KEYWAY_AWS_ACCOUNT_ID",
        value_name = "ACCOUNT",
        default_value = "000000000000"
    )]
    pub aws_account_id: AccountId,

    /// The region that ARNs of keys name; the region that a request is signed for when not given
    #[arg(long, env = "KEYWAY_AWS_REGION", value_name = "REGION", value_parser = aws_region)]
    pub aws_region: Option<String>,

    /// Also open ciphertexts of KES v0.1 to v0.6.0, whose derivation is weak, by keys that were brought from there
    #[arg(long, env = "KEYWAY_OPEN_LEGACY_KES", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub open_legacy_kes: bool,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditSettings,

    /// KES's server API.
    #[command(flatten)]
    pub kes: KesSettings,
}

impl Settings {
    /// How long a process may act on a state that another one has changed since.
    pub fn state_ttl(&self) -> Duration {
        Duration::from_secs(self.state_ttl_seconds.into())
    }
}

/// Parses a region's name, such as `eu-west-1`.
fn aws_region(text: &str) -> Result<String, &'static str> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=64).contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 of a-z, 0-9 and `-`")
    }
}

/// How Vaults are reached.
#[derive(Debug, Clone, Default, Args)]
pub struct VaultFiles {
    /// Folder below which files with a token for Vault may be, when the service is configured with one; may be given
    /// more than once, or with commas between; without it there are none
    #[arg(
        long,
        env = "KEYWAY_VAULT_TOKEN_DIR",
        value_name = "DIR",
        value_delimiter = ','
    )]
    pub vault_token_dir: Vec<String>,
}

impl VaultFiles {
    /// The folders below which the operator allows files with a token.
    pub fn token_folders(&self) -> TokenFolders {
        TokenFolders::below(self.vault_token_dir.iter().map(PathBuf::from))
    }
}

/// The key that `--default-key-id` names.
///
/// # Errors
/// When it is not a key id.
pub fn default_key_id(text: Option<&str>) -> anyhow::Result<Option<KeyId>> {
    match text
        .map(|id| KeyId::parse("default_key_id", id))
        .transpose()
    {
        Ok(id) => Ok(id),
        Err(_) => bail!("--default-key-id (KEYWAY_DEFAULT_KEY_ID) is not a key id"),
    }
}

/// The arguments of this process, with variables in place of arguments that are not given. An empty variable counts as
/// not set: compose files and templates pass an empty text for what was left out.
pub fn arguments<A: Parser>() -> A {
    let mut matches = without_empty_variables(A::command()).get_matches();
    A::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut A::command()).exit())
}

fn without_empty_variables(command: Command) -> Command {
    let is_empty = |argument: &Arg| {
        let said = argument.get_env().and_then(variable);
        said.is_some_and(|said| said.is_empty())
    };
    command
        .mut_args(|argument| {
            if is_empty(&argument) {
                argument.env(Resettable::Reset)
            } else {
                argument
            }
        })
        .mut_subcommands(without_empty_variables)
}

#[expect(
    clippy::disallowed_methods,
    reason = "this crate is part of every composition root"
)]
fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

/// The root access key that `KEYWAY_ROOT_ACCESS_KEY` and `KEYWAY_ROOT_SECRET_KEY` give; else the table's.
///
/// # Errors
/// When only one of them is set, or one is invalid.
pub fn root_access_key() -> anyhow::Result<RootAccessKey> {
    match (
        secret("KEYWAY_ROOT_ACCESS_KEY")?,
        secret("KEYWAY_ROOT_SECRET_KEY")?,
    ) {
        (None, None) => Ok(RootAccessKey::InTable),
        (Some(id), Some(key)) => {
            let Ok(id) = AccessKeyId::parse(&id) else {
                bail!("KEYWAY_ROOT_ACCESS_KEY must be 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`");
            };
            if !ROOT_SECRET_LENGTHS.contains(&key.len()) {
                bail!("KEYWAY_ROOT_SECRET_KEY must be 8 to 256 bytes long");
            }
            let secret = SecretBytes::from(key.as_bytes().to_vec());
            Ok(RootAccessKey::Given(id, secret))
        }
        _ => bail!(
            "KEYWAY_ROOT_ACCESS_KEY and KEYWAY_ROOT_SECRET_KEY must be set together, or neither of them"
        ),
    }
}

/// A variable that holds a secret, or names one, if it is set. An empty one is an error: a secret that failed to be
/// injected must not lead to a deployment without it.
///
/// # Errors
/// When it is empty, or is not UTF-8.
pub fn secret(name: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    if variable(name.as_ref()).is_some_and(|value| value.is_empty()) {
        bail!("{name} is set and empty: give it a value, or unset it");
    }
    environment(name)
}

/// A variable that is set and not empty.
///
/// # Errors
/// When it is not UTF-8.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate is part of every composition root"
)]
pub fn environment(name: &str) -> anyhow::Result<Option<Zeroizing<String>>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(Zeroizing::new(value))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}
