//! One machine's deployment: SQLite and a keyring file.
//!
//! Every process that serves this deployment opens its ports here, so that all of them
//! understand the same settings and the same folder.

mod certificate;
mod doctor;
mod folder;
mod lock;
mod secrets;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use keyway_deployment_assembly::{
    Stores, SystemClock, SystemRandom, TokenFolders, VaultFiles, Writing, vaults,
};
use keyway_domain::OpenError;
use keyway_domain::keyring::{KEYRING_SECRET, KeyringOnDemand, RootKeyring, holds_deployment};
use keyway_domain::ports::{Clock, Random, SecretStore, StoreError, TableReader, TableWriter};
use keyway_domain::records::SignedTable;
use keyway_domain::service::{keep_keyring, key_directory};
use keyway_secrets_file::{FileSecrets, moved_away, save_secret};
use keyway_store_sqlite::SqliteTable;

pub use certificate::{listener_certificate, loopback_certificate};
pub use doctor::{
    Inspected, Purpose, backup_finding, certificate_findings, endpoint_findings, inspect,
};
use folder::DataFolder;
pub use lock::lock_file;
use secrets::FolderSecrets;
pub use settings::{NewPassphrase, Operator};

/// The file that holds every record.
const TABLE_FILE: &str = "keyway.db";
/// The file that holds the root keyring.
pub const KEYRING_FILE: &str = "root-keyring.secret";
/// The longest timeout for a request to Vault that the service's configuration may set.
const VAULT_TIMEOUT: Duration = Duration::from_secs(300);
/// How many times a start tries again because the root keyring has moved meanwhile.
const MOVES_MET: u32 = 8;
/// The folder that holds the root keyring.
const SECRETS_FOLDER: &str = "secrets";

/// Checks that the data folder holds a deployment, or the folder of --root-keyring-file a root keyring: a mistyped path must not become a new deployment.
///
/// # Errors
/// When it does not.
pub fn must_exist(operator: &Operator) -> anyhow::Result<()> {
    if let Some(folder) = operator.keyring_folder() {
        if folder.join(KEYRING_FILE).exists() {
            return Ok(());
        }
        bail!("there is no root keyring in {}", folder.display());
    }
    if operator.data_dir.join(TABLE_FILE).exists() {
        return Ok(());
    }
    let folder = operator.data_dir.display();
    if own_folder(operator).exists() {
        bail!("{folder} has secrets, but its table {TABLE_FILE} is gone: restore it from a backup");
    }
    bail!("there is no deployment in {folder}; `keyway serve --data-dir {folder}` makes one")
}

/// Opens the deployment in the data folder, and makes it on the first start.
///
/// # Errors
/// When the folder, the table or the root keyring cannot be used; the text says what to do.
pub async fn open(operator: &Operator, files: &VaultFiles) -> anyhow::Result<Writing> {
    open_with(operator, files, EmptyTable::IsRefused, |secrets| secrets).await
}

/// The table of the deployment in the data folder, to be read without the root keyring, and the time. So records that it
/// signs are not verified.
///
/// # Errors
/// When there is no deployment, or its table cannot be used.
pub fn unverified_table(
    operator: &Operator,
) -> anyhow::Result<(Arc<dyn TableReader>, Arc<dyn Clock>)> {
    must_exist(operator)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(&clock));
    Ok((Arc::new(table.context("the table")?), clock))
}

/// The table of the data folder for a deployment whose root keyring is elsewhere, made if it is missing.
///
/// # Errors
/// When the folder or the table cannot be used, and when a root keyring in the folder shows that the table was lost.
pub fn table(operator: &Operator, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<SqliteTable>> {
    let path = operator.data_dir.join(TABLE_FILE);
    if !path.exists() && own_folder(operator).join(KEYRING_FILE).exists() {
        bail!(
            "{} has a root keyring of its own, but its table {TABLE_FILE} is gone: restore it from a backup, or name an \
             empty folder",
            operator.data_dir.display()
        );
    }
    let table = SqliteTable::open(&path, clock).context("the table")?;
    Ok(Arc::new(table))
}

/// As [`table`], where the table must exist.
///
/// # Errors
/// When it does not, or cannot be used.
pub fn existing_table(
    operator: &Operator,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<SqliteTable>> {
    must_exist(operator)?;
    table(operator, clock)
}

/// The table of the data folder for a restore. It is made if it is missing; a dry run makes none.
///
/// # Errors
/// When the folder or the table cannot be used.
pub fn table_to_restore(
    operator: &Operator,
    dry_run: bool,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Arc<SqliteTable>>> {
    let path = operator.data_dir.join(TABLE_FILE);
    if dry_run && !path.exists() {
        return Ok(None);
    }
    let table = SqliteTable::open(&path, Arc::clone(clock)).context("the table")?;
    Ok(Some(Arc::new(table)))
}

/// Keeps files of tokens apart from those of the data folder.
pub fn never_in_folder(folders: TokenFolders, operator: &Operator) -> TokenFolders {
    let folders = folders.never_below(operator.data_dir.clone());
    folders.never_beside(TABLE_FILE)
}

/// The table of the data folder, for the events of a command that opens no deployment. `None` if --root-keyring-file says
/// that the table is elsewhere.
///
/// # Errors
/// When the table cannot be used.
pub fn table_of_log(
    operator: &Operator,
    clock: &Arc<dyn Clock>,
) -> anyhow::Result<Option<Arc<dyn TableWriter>>> {
    if operator.keyring_folder().is_some() {
        return Ok(None);
    }
    let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(clock));
    Ok(Some(Arc::new(table.context("the table")?)))
}

/// The stores of the data folder for a restore. They are made if they are missing, unless it is a dry run.
///
/// # Errors
/// When the folder, the table or the root keyring's folder cannot be used.
pub async fn stores(operator: &Operator, dry_run: bool) -> anyhow::Result<Stores> {
    keyway_crypto::self_test().context("the cryptography of this build does not work")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let table = table_to_restore(operator, dry_run, &clock)?;
    let key_directory = match &table {
        Some(table) => configured_folder(table.as_ref()).await?,
        None => None,
    };
    let is_missing = key_directory.is_none() && !own_folder(operator).exists();
    let secrets = if dry_run && is_missing {
        None
    } else {
        let secrets = secrets(operator, key_directory.as_deref(), &random)?;
        Some(Arc::new(secrets) as Arc<dyn SecretStore>)
    };
    Ok(Stores {
        table: table.map(|table| table as _),
        secrets,
        key_directory,
        clock,
        random,
    })
}

/// What a start does if there is a root keyring but the table holds no deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyTable {
    /// The start fails: the table was lost, and old names would get new keys.
    IsRefused,
    /// The start goes on: the operator accepts that everything in the table is lost.
    IsAccepted,
}

/// Like [`open`], with the store of secrets wrapped by `around`.
///
/// # Errors
/// As [`open`].
pub async fn open_with(
    operator: &Operator,
    files: &VaultFiles,
    empty_table: EmptyTable,
    around: impl Fn(Arc<dyn SecretStore>) -> Arc<dyn SecretStore>,
) -> anyhow::Result<Writing> {
    keyway_crypto::self_test().context("the cryptography of this build does not work")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    // Open the table first: this makes the data folder, or refuses one that other users may enter.
    let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(&clock));
    let stored = Arc::new(table.context("the table")?);
    let table = stored.as_ref();
    let folder = Arc::new(DataFolder::new(
        own_folder(operator),
        Arc::clone(&clock),
        Arc::clone(&random),
    )?);
    let found = Arc::new(FolderSecrets::new(
        operator.clone(),
        Arc::clone(&stored),
        Arc::clone(&folder),
        Arc::clone(&random),
    ));
    let secrets = around(Arc::clone(&found) as _);
    let mut attempts = 0;
    let keyring = loop {
        let named = configured_folder(table).await?;
        found.use_folder(
            named.clone(),
            self::secrets(operator, named.as_deref(), &random)?,
        );
        let (keeper, random) = (secrets.as_ref(), Arc::clone(&random));
        if named.is_none() {
            must_not_have_moved(operator, table, keeper).await?;
        }
        if empty_table == EmptyTable::IsAccepted {
            let random = Arc::clone(&random);
            RootKeyring::adopt_empty_table(table, keeper, clock.as_ref(), random)
                .await
                .context("the root keyring")?;
        }
        match RootKeyring::establish(table, keeper, clock.as_ref(), random).await {
            // The keyring moved after the configuration was read and before the folder was.
            Err(OpenError::KeyringMissing)
                if attempts < MOVES_MET && configured_folder(table).await? != named =>
            {
                attempts += 1;
            }
            opened => break opened.context("the root keyring")?,
        }
    };
    // From here on the file can be written again if it is removed.
    if let Err(error) = keep_keyring(folder.as_ref(), table).await {
        bail!("the root keyring: {}", error.for_operator());
    }
    // The keyring's folder is recognized by its file: the configuration may name another folder at any time.
    let token_folders = files.token_folders().never_beside(KEYRING_FILE);
    let token_folders = never_in_folder(token_folders, operator);
    let keyring = Arc::new(KeyringOnDemand::opened(
        keyring,
        Arc::clone(&stored) as _,
        secrets,
        Arc::clone(&clock),
        Arc::clone(&random),
    ));
    Ok(Writing {
        table: Arc::new(SignedTable::new(Arc::clone(&stored), Arc::clone(&keyring))),
        stored,
        wrapper: Arc::clone(&keyring) as _,
        keyring,
        vaults: vaults(&clock, VAULT_TIMEOUT, files, token_folders)?,
        folder: Some(folder),
        changes: None,
        clock,
        random,
    })
}

/// Refuses an empty table if the root keyring was moved away, which only the file that the move left shows.
async fn must_not_have_moved(
    operator: &Operator,
    table: &SqliteTable,
    secrets: &dyn SecretStore,
) -> anyhow::Result<()> {
    let folder = own_folder(operator);
    let Some(aside) = moved_away(KEYRING_SECRET, &folder).context("the root keyring's folder")?
    else {
        return Ok(());
    };
    let established = holds_deployment(table).await.context("the table")?;
    if established || secrets.get(KEYRING_SECRET).await?.is_some() {
        return Ok(());
    }
    bail!(
        "the table is empty or gone, and the root keyring was moved to another folder before, as {} tells: restore the \
         table from a backup. If everything in it is meant to be lost, put the root keyring back into {} and start once \
         with --accept-empty-table (KEYWAY_ACCEPT_EMPTY_TABLE=true)",
        aside.display(),
        folder.display()
    )
}

/// Puts the root keyring under another passphrase, or under none. Running servers keep the keyring that they opened;
/// the next start needs the new passphrase.
///
/// # Errors
/// When the keyring does not open with the current passphrase, or cannot be written.
pub async fn change_passphrase(operator: &Operator, new: &NewPassphrase) -> anyhow::Result<()> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let new = new.passphrase()?;
    let folder = keyring_folder(operator, clock).await?;
    secrets_in(&folder, operator, &random)?
        .change_passphrase(KEYRING_SECRET, new)
        .await
        .context("the root keyring")?;
    Ok(())
}

/// Copies the root keyring's file unchanged into the folder `to`, and returns the copy's path. The copy has the same
/// passphrase, if any; it is not needed here.
///
/// # Errors
/// When there is no root keyring's file, or the folder cannot be used or holds another one; the text says what to do.
pub async fn save_keyring(operator: &Operator, to: &Path) -> anyhow::Result<PathBuf> {
    let random = SystemRandom::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let from = keyring_folder(operator, clock).await?;
    match save_secret(KEYRING_SECRET, &from, to, &random) {
        Ok(path) => Ok(path),
        Err(StoreError::Conflict) => bail!(
            "{} is the root keyring's own folder or holds another root keyring; name another folder",
            to.display()
        ),
        Err(error) => Err(anyhow::Error::from(error).context("the root keyring")),
    }
}

/// The folder that holds the root keyring's file at present.
async fn keyring_folder(operator: &Operator, clock: Arc<dyn Clock>) -> anyhow::Result<PathBuf> {
    if let Some(folder) = operator.keyring_folder() {
        return Ok(folder.to_owned());
    }
    let table =
        SqliteTable::open(&operator.data_dir.join(TABLE_FILE), clock).context("the table")?;
    let configured = configured_folder(&table).await?;
    Ok(configured.map_or_else(|| own_folder(operator), PathBuf::from))
}

/// The root keyring's file in the folder of --root-keyring-file, for a deployment whose table is elsewhere. `None` without
/// that option.
///
/// # Errors
/// When the folder cannot be used, or the passphrase cannot be read.
pub fn keyring_file(
    operator: &Operator,
    random: &Arc<dyn Random>,
) -> anyhow::Result<Option<Arc<dyn SecretStore>>> {
    let Some(folder) = operator.keyring_folder() else {
        return Ok(None);
    };
    let secrets = secrets_in(folder, operator, random)?;
    Ok(Some(Arc::new(secrets)))
}

/// As [`keyring_file`], where the folder must exist. Opening and reading change no file.
///
/// # Errors
/// As [`keyring_file`], and when the folder is missing.
pub fn existing_keyring_file(
    operator: &Operator,
    random: &Arc<dyn Random>,
) -> anyhow::Result<Option<Arc<dyn SecretStore>>> {
    let Some(folder) = operator.keyring_folder() else {
        return Ok(None);
    };
    let secrets = FileSecrets::inspect(folder, operator.passphrase()?, Arc::clone(random));
    Ok(Some(Arc::new(secrets.context("the root keyring")?)))
}

/// Goes on without a root of the keyring that is lost; see [`KeyringOnDemand::give_up`]. It opens no deployment, because
/// that is refused as long as the table names the lost root.
///
/// # Errors
/// When the keyring holds the root, or the table does not name it; or when one of them cannot be used.
pub async fn give_up_root(operator: &Operator, root: &str) -> anyhow::Result<()> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(&clock))
        .context("the table")?;
    let configured = configured_folder(&table).await?;
    let secrets = secrets(operator, configured.as_deref(), &random)?;
    let table = Arc::new(table);
    let reader = Arc::clone(&table) as Arc<dyn TableReader>;
    let keyring = KeyringOnDemand::opening(reader, Arc::new(secrets), clock, random);
    Ok(keyring.give_up(table.as_ref(), root).await?)
}

/// The folder of the root keyring, if the service's configuration names one.
async fn configured_folder(table: &dyn TableReader) -> anyhow::Result<Option<String>> {
    match key_directory(table).await {
        Ok(configured) => Ok(configured),
        Err(error) => bail!("the service's configuration: {}", error.for_operator()),
    }
}

/// The secrets of the folder that the service's configuration names, or of the deployment's own.
fn secrets(
    operator: &Operator,
    configured: Option<&str>,
    random: &Arc<dyn Random>,
) -> anyhow::Result<FileSecrets> {
    let folder = configured.map_or_else(|| own_folder(operator), PathBuf::from);
    secrets_in(&folder, operator, random)
}

fn secrets_in(
    folder: &Path,
    operator: &Operator,
    random: &Arc<dyn Random>,
) -> anyhow::Result<FileSecrets> {
    FileSecrets::open_under(folder, operator.passphrase()?, Arc::clone(random))
        .context("the root keyring's folder")
}

fn own_folder(operator: &Operator) -> PathBuf {
    operator.data_dir.join(SECRETS_FOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyring_file_is_the_one_kept_from_token_files() {
        assert_eq!(format!("{KEYRING_SECRET}.secret"), KEYRING_FILE);
    }
}
