//! The operator's settings. Secrets come only from the environment or a file: arguments are visible to every user.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use keyway_deployment_assembly::secret_line;
use keyway_secrets_file::Passphrase;

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

impl Operator {
    /// The passphrase of the root keyring.
    pub(crate) fn passphrase(&self) -> anyhow::Result<Option<Passphrase>> {
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
    pub(crate) fn passphrase(&self) -> anyhow::Result<Option<Passphrase>> {
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
fn passphrase(variable: &'static str, file: Option<&Path>) -> anyhow::Result<Option<Passphrase>> {
    let line = secret_line(variable, file)?;
    Ok(line.map(|line| Passphrase::read(&line)))
}
