//! One machine's deployment: SQLite and a keyring file.
//!
//! Every process that serves this deployment opens its ports here, so that all of them
//! understand the same settings and the same folder.

mod folder;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use keyway_deployment_assembly::{SystemClock, SystemRandom, VaultFiles, Writing, vaults};
use keyway_domain::keyring::{KEYRING_SECRET, RootKeyring};
use keyway_domain::ports::{Clock, Random, SecretStore};
use keyway_domain::service::key_directory;
use keyway_secrets_file::FileSecrets;
use keyway_store_sqlite::SqliteTable;

use folder::DataFolder;
pub use settings::{NewPassphrase, Operator};

/// The file that holds every record.
const TABLE_FILE: &str = "keyway.db";
/// The file that holds the root keyring.
const KEYRING_FILE: &str = "root-keyring.secret";
/// A request waits for a Vault as long as the service's configuration says, and it may say this much.
const VAULT_PATIENCE: Duration = Duration::from_secs(300);
/// The folder that holds the root keyring.
const SECRETS_FOLDER: &str = "secrets";

/// Makes sure that the data folder holds a deployment: a mistyped one must not become a new deployment.
///
/// # Errors
/// When it does not.
pub fn must_exist(operator: &Operator) -> anyhow::Result<()> {
    if operator.data_dir.join(TABLE_FILE).exists() {
        return Ok(());
    }
    let folder = operator.data_dir.display();
    bail!("there is no deployment in {folder}; `keyway serve --data-dir {folder}` makes one")
}

/// Opens the deployment in the data folder, and makes it on the first start.
///
/// # Errors
/// When the folder, the table or the root keyring is not fit to be used; the text says what to do.
pub async fn open(operator: &Operator, files: &VaultFiles) -> anyhow::Result<Writing> {
    open_with(operator, files, |secrets| secrets).await
}

/// As [`open`], with the store of secrets as `around` makes it of the one that there is.
///
/// # Errors
/// As [`open`].
pub async fn open_with(
    operator: &Operator,
    files: &VaultFiles,
    around: impl FnOnce(Arc<dyn SecretStore>) -> Arc<dyn SecretStore>,
) -> anyhow::Result<Writing> {
    keyway_crypto::self_test().context("the cryptography of this build does not work")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    // The table first: it makes the data folder, or refuses one that others may enter.
    let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(&clock))
        .context("the table")?;
    let secrets = around(Arc::new(secrets(operator, &table, &random).await?));
    let (keeper, random_of_keyring) = (secrets.as_ref(), Arc::clone(&random));
    let keyring = RootKeyring::establish(&table, keeper, clock.as_ref(), random_of_keyring)
        .await
        .context("the root keyring")?;
    // The keyring's folder is known by its file: the configuration may name another one at any time.
    let token_folders = files
        .token_folders()
        .never_below(operator.data_dir.clone())
        .never_beside(TABLE_FILE)
        .never_beside(KEYRING_FILE);
    Ok(Writing {
        table: Arc::new(table),
        wrapper: Arc::new(keyring),
        vaults: vaults(&clock, VAULT_PATIENCE, token_folders)?,
        folder: Some(Arc::new(DataFolder::new(operator, Arc::clone(&random)))),
        clock,
        random,
    })
}

/// Puts the root keyring under another passphrase, or under none. Servers that run keep what they hold;
/// the next start needs the new one.
///
/// # Errors
/// When the keyring does not open with the current passphrase, or cannot be written.
pub async fn change_passphrase(operator: &Operator, new: &NewPassphrase) -> anyhow::Result<()> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let new = new.passphrase()?;
    let table =
        SqliteTable::open(&operator.data_dir.join(TABLE_FILE), clock).context("the table")?;
    secrets(operator, &table, &random)
        .await?
        .change_passphrase(KEYRING_SECRET, new)
        .await
        .context("the root keyring")?;
    Ok(())
}

/// The secrets of the folder that the service's configuration names, or of the deployment's own.
async fn secrets(
    operator: &Operator,
    table: &SqliteTable,
    random: &Arc<dyn Random>,
) -> anyhow::Result<FileSecrets> {
    let configured = match key_directory(table).await {
        Ok(configured) => configured,
        Err(error) => bail!("the service's configuration: {error:?}"),
    };
    let folder = match configured {
        Some(folder) => folder.into(),
        None => operator.data_dir.join(SECRETS_FOLDER),
    };
    FileSecrets::open(&folder, operator.passphrase()?, Arc::clone(random))
        .context("the root keyring's folder")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyring_file_is_the_one_that_token_files_are_kept_away_from() {
        assert_eq!(format!("{KEYRING_SECRET}.secret"), KEYRING_FILE);
    }
}
