//! The root keyring's store: the file in the folder that the service's configuration names at present.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use keyway_domain::SecretBytes;
use keyway_domain::ports::{KeyringFolder, Random, SecretStore, SecretVersion, StoreError};
use keyway_domain::service::key_directory;
use keyway_secrets_file::FileSecrets;
use keyway_store_sqlite::SqliteTable;

use crate::folder::DataFolder;
use crate::settings::Operator;
use crate::{MOVES_MET, own_folder};

/// The secrets of the folder that the service's configuration names, or of the deployment's own folder. A running server
/// reads the keyring again after a rotation, and the keyring may have moved to another folder by then.
pub(crate) struct FolderSecrets {
    operator: Operator,
    table: Arc<SqliteTable>,
    folder: Arc<DataFolder>,
    random: Arc<dyn Random>,
    open: Mutex<Option<Open>>,
}

#[derive(Clone)]
struct Open {
    named: Option<String>,
    secrets: Arc<FileSecrets>,
}

impl FolderSecrets {
    pub(crate) fn new(
        operator: Operator,
        table: Arc<SqliteTable>,
        folder: Arc<DataFolder>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            operator,
            table,
            folder,
            random,
            open: Mutex::default(),
        }
    }

    /// Uses these secrets for as long as the configuration names this folder.
    pub(crate) fn use_folder(&self, named: Option<String>, secrets: FileSecrets) {
        let secrets = Arc::new(secrets);
        *self.open() = Some(Open { named, secrets });
    }

    fn open(&self) -> MutexGuard<'_, Option<Open>> {
        // Ignore poisoning: every change is one assignment.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder that the configuration names.
    async fn named(&self) -> Result<Option<String>, StoreError> {
        let named = key_directory(self.table.as_ref()).await;
        named.map_err(|error| failed(error.for_operator().into()))
    }

    /// The secrets of the folder.
    fn secrets(&self, named: Option<&str>) -> Result<Arc<FileSecrets>, StoreError> {
        let open = self.open().clone();
        if let Some(open) = open.filter(|open| open.named.as_deref() == named) {
            return Ok(open.secrets);
        }
        // A configured folder that is missing may be on a disk that is not mounted: do not make it.
        if let Some(missing) = named.filter(|named| !PathBuf::from(named).is_dir()) {
            return Err(failed(format!("{missing} is no folder").into()));
        }
        let folder = named.map_or_else(|| own_folder(&self.operator), PathBuf::from);
        // The passphrase may have changed since the start.
        let passphrase = self.operator.passphrase();
        let passphrase = passphrase.map_err(|error| failed(format!("{error:#}").into()))?;
        let opened = FileSecrets::open_under(&folder, passphrase, Arc::clone(&self.random));
        let secrets = Arc::new(opened.map_err(|error| failed(error.into()))?);
        *self.open() = Some(Open {
            named: named.map(str::to_owned),
            secrets: Arc::clone(&secrets),
        });
        Ok(secrets)
    }

    /// Opens the folder anew next time: after a failure, the passphrase may be another one.
    fn forget(&self) {
        *self.open() = None;
    }
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    StoreError::Failed {
        what: "use the root keyring's folder",
        source,
    }
}

#[async_trait]
impl SecretStore for FolderSecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        for _ in 0..MOVES_MET {
            let named = self.named().await?;
            let found = self.secrets(named.as_deref())?.get(name).await;
            let found = found.inspect_err(|_| self.forget())?;
            if found.is_some() {
                // So that a file which is removed later is restored as it is now.
                if let Err(error) = self.folder.holds(named.as_deref()).await {
                    tracing::warn!(
                        error = error.for_operator(),
                        "the root keyring's file could not be written again if it were removed"
                    );
                }
                return Ok(found);
            }
            if self.named().await? == named {
                break;
            }
        }
        Ok(None)
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        for _ in 0..MOVES_MET {
            let named = self.named().await?;
            let written = self.secrets(named.as_deref())?.put(name, value, seen).await;
            let has_moved = self.named().await? != named;
            match written {
                // The file that counts is the one in the other folder, which still has the former content.
                Ok(_) | Err(StoreError::Conflict) if has_moved => {}
                Err(StoreError::Conflict) => break,
                written => return written.inspect_err(|_| self.forget()),
            }
        }
        Err(StoreError::Conflict)
    }
}
