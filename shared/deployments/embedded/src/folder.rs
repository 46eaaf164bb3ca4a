//! Where the root keyring's file is.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use keyway_domain::keyring::KEYRING_SECRET;
use keyway_domain::ports::{KeyringFolder, Random, StoreError};
use keyway_domain::{Fault, KmsError};
use keyway_secrets_file::{FileError, copy_secret, remove_secret};
use tokio::task;

use crate::{Operator, SECRETS_FOLDER};

/// The deployment's own folder, and those that the service's configuration names instead.
pub(crate) struct DataFolder {
    own: PathBuf,
    random: Arc<dyn Random>,
}

impl DataFolder {
    pub(crate) fn new(operator: &Operator, random: Arc<dyn Random>) -> Self {
        Self {
            own: operator.data_dir.join(SECRETS_FOLDER),
            random,
        }
    }

    fn path(&self, folder: Option<&str>) -> PathBuf {
        folder.map_or_else(|| self.own.clone(), PathBuf::from)
    }
}

#[async_trait]
impl KeyringFolder for DataFolder {
    async fn copy(&self, from: Option<&str>, to: Option<&str>) -> Result<(), KmsError> {
        let (from, to) = (self.path(from), self.path(to));
        let random = Arc::clone(&self.random);
        blocking(move || copy_secret(KEYRING_SECRET, &from, &to, random.as_ref())).await
    }

    async fn leave(&self, folder: Option<&str>) -> Result<(), KmsError> {
        let folder = self.path(folder);
        blocking(move || remove_secret(KEYRING_SECRET, &folder)).await
    }
}

/// Whoever names a folder is told what is wrong with it: nothing of a file's content is in these texts.
async fn blocking(
    work: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> Result<(), KmsError> {
    let invalid = |reason: String| KmsError::Invalid {
        field: "key_directory",
        reason,
    };
    match task::spawn_blocking(work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(StoreError::Conflict)) => Err(invalid(
            "holds another deployment's root keyring".to_owned(),
        )),
        Ok(Err(StoreError::Failed { what, source })) => match source.downcast::<FileError>() {
            Ok(error) => Err(invalid(format!("cannot keep the root keyring: {error}"))),
            Err(source) => Err(StoreError::Failed { what, source }.into()),
        },
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(Fault::new("moving the root keyring", error).into()),
    }
}
