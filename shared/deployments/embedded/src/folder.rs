//! The folder of the root keyring's file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use keyway_domain::keyring::KEYRING_SECRET;
use keyway_domain::ports::{Clock, KeyringFolder, KeyringMove, LockedKeyring, Random, StoreError};
use keyway_domain::{Fault, KmsError};
use keyway_secrets_file::{FileError, KeptSecret, Left, LockedFolder, SecretMove};
use tokio::task;

/// The deployment's own folder, and those that the service's configuration names instead.
pub(crate) struct DataFolder {
    own: PathBuf,
    kept: Arc<KeptSecret>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl DataFolder {
    /// `own` is the root keyring's folder if the configuration names none.
    pub(crate) fn new(
        own: PathBuf,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, FileError> {
        Ok(Self {
            own,
            kept: Arc::new(KeptSecret::new(KEYRING_SECRET)?),
            clock,
            random,
        })
    }

    fn place(&self, folder: Option<&str>) -> PathBuf {
        place(&self.own, folder)
    }
}

fn place(own: &Path, folder: Option<&str>) -> PathBuf {
    folder.map_or_else(|| own.to_owned(), PathBuf::from)
}

#[async_trait]
impl KeyringFolder for DataFolder {
    async fn begin_move(
        &self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Box<dyn KeyringMove>>, KmsError> {
        let (from, to) = (self.place(from), self.place(to));
        let random = Arc::clone(&self.random);
        let begun =
            blocking(move || SecretMove::begin(KEYRING_SECRET, &from, &to, random.as_ref()));
        let Some(begun) = begun.await?.map_err(refused)? else {
            return Ok(None);
        };
        Ok(Some(Box::new(FolderMove {
            own: self.own.clone(),
            begun: Arc::new(begun),
            clock: Arc::clone(&self.clock),
        })))
    }

    fn path(&self, folder: Option<&str>) -> String {
        let path = self.place(folder);
        let whole = std::path::absolute(&path).unwrap_or(path);
        whole.display().to_string()
    }

    async fn holds(&self, folder: Option<&str>) -> Result<bool, KmsError> {
        let (kept, folder) = (Arc::clone(&self.kept), self.place(folder));
        blocking(move || kept.look(&folder))
            .await?
            .map_err(|error| unavailable(error.into()))
    }

    async fn lock(&self, folder: Option<&str>) -> Result<Box<dyn LockedKeyring>, KmsError> {
        // A configured folder that is missing may be on a disk that is not mounted: do not make it.
        let make = folder.is_none();
        let folder = self.place(folder);
        let locked = blocking(move || KeptSecret::lock(&folder, make)).await?;
        Ok(Box::new(Locked {
            kept: Arc::clone(&self.kept),
            folder: Arc::new(locked.map_err(|error| unavailable(error.into()))?),
            random: Arc::clone(&self.random),
        }))
    }
}

struct FolderMove {
    own: PathBuf,
    begun: Arc<SecretMove>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl KeyringMove for FolderMove {
    async fn leave(&self, named: Option<&str>) -> Result<(), KmsError> {
        let named = place(&self.own, named);
        let (begun, clock) = (Arc::clone(&self.begun), Arc::clone(&self.clock));
        let left = blocking(move || begun.leave(&named, clock.as_ref())).await?;
        if let Left::Renamed(path) = left? {
            tracing::info!(path = %path.display(), "the root keyring has moved, and its old file has this name");
        }
        Ok(())
    }
}

struct Locked {
    kept: Arc<KeptSecret>,
    folder: Arc<LockedFolder>,
    random: Arc<dyn Random>,
}

#[async_trait]
impl LockedKeyring for Locked {
    async fn restore(&self) -> Result<(), KmsError> {
        let (kept, folder) = (Arc::clone(&self.kept), Arc::clone(&self.folder));
        let random = Arc::clone(&self.random);
        blocking(move || kept.restore(&folder, random.as_ref()))
            .await?
            .map(drop)
            .map_err(unavailable)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, KmsError> {
    task::spawn_blocking(work)
        .await
        .map_err(|error| Fault::new("looking after the root keyring", error).into())
}

/// Tells callers what is wrong with the folder that they named. These texts hold nothing of a file's content.
fn refused(error: StoreError) -> KmsError {
    let invalid = |reason: String| KmsError::Invalid {
        field: "key_directory",
        reason,
    };
    match error {
        StoreError::Conflict => invalid(
            "holds another root keyring: one of another deployment, or this one under another passphrase".to_owned(),
        ),
        StoreError::Failed { what, source } => match source.downcast::<FileError>() {
            Ok(error) => invalid(format!("cannot keep the root keyring: {error}")),
            Err(source) => StoreError::Failed { what, source }.into(),
        },
        error => error.into(),
    }
}

fn unavailable(error: StoreError) -> KmsError {
    KmsError::Unavailable(Fault::new("the root keyring's file", error))
}
