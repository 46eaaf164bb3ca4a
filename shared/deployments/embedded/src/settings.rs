//! What an operator sets. Secrets come from the environment or a file only: arguments are visible to every user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use keyway_crypto::SecretBytes;
use keyway_domain::access::AccessKeyId;
use zeroize::Zeroizing;

/// Where the deployment is, and how its root keyring opens.
#[derive(Debug, Clone, Args)]
pub struct Operator {
    /// Folder of the table and the root keyring; made on the first start, readable by its owner only
    #[arg(
        long,
        env = "KEYWAY_DATA_DIR",
        value_name = "DIR",
        default_value = "./data"
    )]
    pub data_dir: PathBuf,

    /// File whose first line is the passphrase of the root keyring (or set KEYWAY_PASSPHRASE)
    #[arg(long, env = "KEYWAY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// How requests are served.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Where the deployment is
    #[command(flatten)]
    pub operator: Operator,

    /// Only accept signatures for this region; any region when not given
    #[arg(long, env = "KEYWAY_REGION", value_name = "REGION")]
    pub region: Option<String>,

    /// How long another process may act on a state that was changed here, in seconds; 0 reads it for every request
    #[arg(long, env = "KEYWAY_STATE_TTL_SECONDS", value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(0..=3600))]
    pub state_ttl_seconds: u32,

    /// Allow keys to be destroyed without a waiting time, when a request confirms it
    #[arg(long, env = "KEYWAY_ALLOW_IMMEDIATE_DELETION", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allow_immediate_deletion: bool,
}

impl Settings {
    /// How long a process may act on a state that another one has changed since.
    pub fn state_ttl(&self) -> Duration {
        Duration::from_secs(self.state_ttl_seconds.into())
    }
}

impl Operator {
    /// The passphrase of the root keyring.
    pub(crate) fn passphrase(&self) -> anyhow::Result<Option<SecretBytes>> {
        passphrase("KEYWAY_PASSPHRASE", self.passphrase_file.as_deref())
    }
}

/// The new passphrase of the root keyring.
#[derive(Debug, Clone, Args)]
pub struct NewPassphrase {
    /// File whose first line is the new passphrase (or set KEYWAY_NEW_PASSPHRASE)
    #[arg(long, env = "KEYWAY_NEW_PASSPHRASE_FILE", value_name = "FILE")]
    pub new_passphrase_file: Option<PathBuf>,

    /// Keep the root keyring without a passphrase from now on
    #[arg(long, conflicts_with = "new_passphrase_file")]
    pub remove: bool,
}

impl NewPassphrase {
    pub(crate) fn passphrase(&self) -> anyhow::Result<Option<SecretBytes>> {
        match (
            passphrase("KEYWAY_NEW_PASSPHRASE", self.new_passphrase_file.as_deref())?,
            self.remove,
        ) {
            (Some(_), true) => bail!("a new passphrase is given together with --remove"),
            (None, false) => {
                bail!(
                    "no new passphrase: set KEYWAY_NEW_PASSPHRASE, or pass --new-passphrase-file or --remove"
                )
            }
            (passphrase, _) => Ok(passphrase),
        }
    }
}

/// A passphrase from the variable or the file's first line.
fn passphrase(variable: &'static str, file: Option<&Path>) -> anyhow::Result<Option<SecretBytes>> {
    let from_environment = environment(variable)?;
    let Some(file) = file else {
        return Ok(from_environment.map(|text| secret(&text)));
    };
    if from_environment.is_some() {
        bail!("both {variable} and a file are given; give one of them");
    }
    let text = Zeroizing::new(
        std::fs::read_to_string(file)
            .with_context(|| format!("the passphrase file {} cannot be read", file.display()))?,
    );
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Some(secret(line))),
        _ => bail!("the passphrase file {} is empty", file.display()),
    }
}

/// The root access key that `KEYWAY_ROOT_ACCESS_KEY` and `KEYWAY_ROOT_SECRET_KEY` give.
pub(crate) fn root_access_key() -> anyhow::Result<Option<(AccessKeyId, SecretBytes)>> {
    match (
        environment("KEYWAY_ROOT_ACCESS_KEY")?,
        environment("KEYWAY_ROOT_SECRET_KEY")?,
    ) {
        (None, None) => Ok(None),
        (Some(id), Some(key)) => {
            let Ok(id) = AccessKeyId::parse(&id) else {
                bail!("KEYWAY_ROOT_ACCESS_KEY must be 3 to 128 of A-Z, a-z, 0-9, `.`, `_`, `-`");
            };
            if !(8..=256).contains(&key.len()) {
                bail!("KEYWAY_ROOT_SECRET_KEY must be 8 to 256 bytes long");
            }
            Ok(Some((id, secret(&key))))
        }
        _ => bail!(
            "KEYWAY_ROOT_ACCESS_KEY and KEYWAY_ROOT_SECRET_KEY must be set together, or neither of them"
        ),
    }
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

/// A variable that is set and not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "this room is part of every composition root of one machine"
)]
fn environment(name: &'static str) -> anyhow::Result<Option<Zeroizing<String>>> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(Zeroizing::new(value))),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => bail!("{name} is not UTF-8"),
    }
}
