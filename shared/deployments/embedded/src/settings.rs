//! The operator's settings. Secrets come only from the environment or a file: arguments are visible to every user.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use keyway_deployment_assembly::secret_line;
use keyway_secrets_file::Passphrase;

use crate::KEYRING_FILE;

/// Where the deployment is, and how its root keyring opens.
#[derive(Debug, Clone, Args)]
pub struct Operator {
    /// Folder of the table, and of the root keyring unless that is elsewhere; made on the first start, readable by its owner
    /// only
    #[arg(
        long,
        env = "KEYWAY_DATA_DIR",
        value_name = "DIR",
        default_value = "./data",
        conflicts_with = "root_keyring_file"
    )]
    pub data_dir: PathBuf,

    /// Folder of the root keyring's file, or that file, for a table that is a database; made on the first start, readable
    /// by its owner only
    #[arg(long, env = "KEYWAY_ROOT_KEYRING_FILE", value_name = "PATH")]
    pub root_keyring_file: Option<PathBuf>,

    /// File whose first line is the passphrase of the root keyring (or set KEYWAY_PASSPHRASE)
    #[arg(long, env = "KEYWAY_PASSPHRASE_FILE", value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

impl Operator {
    /// The folder of the root keyring's file, where the table is elsewhere.
    pub fn keyring_folder(&self) -> Option<&Path> {
        let path = self.root_keyring_file.as_deref()?;
        match path.parent() {
            Some(folder) if path.file_name() == Some(KEYRING_FILE.as_ref()) => {
                let is_here = folder.as_os_str().is_empty();
                Some(if is_here { Path::new(".") } else { folder })
            }
            _ => Some(path),
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyring_is_named_by_its_folder_or_by_its_file() {
        for (named, folder) in [
            ("/etc/keyway/keyring", "/etc/keyway/keyring"),
            ("keyring/", "keyring/"),
            ("/etc/keyway/root-keyring.secret", "/etc/keyway"),
            ("root-keyring.secret", "."),
        ] {
            let operator = Operator {
                data_dir: PathBuf::new(),
                root_keyring_file: Some(named.into()),
                passphrase_file: None,
            };
            assert_eq!(operator.keyring_folder(), Some(Path::new(folder)));
        }
    }
}
