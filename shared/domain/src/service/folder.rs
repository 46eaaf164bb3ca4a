//! Watches the root keyring's file while the service runs.

use super::key_directory;
use crate::error::{Fault, KmsError};
use crate::ports::{KeyringFolder, TableReader};
use crate::repository::update;

/// What [`keep_keyring`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyringFile {
    /// The file is in the folder that the configuration names.
    InPlace,
    /// The file was missing, and was written again.
    Restored,
}

/// Looks for the root keyring's file in the folder that the configuration names. If it is missing, writes it again as
/// this process last saw it.
///
/// # Errors
/// [`KmsError::Unavailable`] when the file cannot be used or cannot be written again, or when the table failed.
pub async fn keep_keyring(
    folder: &dyn KeyringFolder,
    table: &dyn TableReader,
) -> Result<KeyringFile, KmsError> {
    let kept = || async {
        let named = key_directory(table).await?;
        if folder.holds(named.as_deref()).await? {
            return Ok(Some(KeyringFile::InPlace));
        }
        // While the lock is held nothing moves: if the configuration still names the folder, the file is lost.
        let locked = folder.lock(named.as_deref()).await?;
        if key_directory(table).await? != named {
            return Ok(None);
        }
        if folder.holds(named.as_deref()).await? {
            return Ok(Some(KeyringFile::InPlace));
        }
        locked.restore().await?;
        tracing::warn!(
            folder = named.as_deref().unwrap_or("the deployment's own"),
            "the root keyring's file was gone and has been written again; find out what removed it"
        );
        Ok(Some(KeyringFile::Restored))
    };
    let contended = || {
        KmsError::Unavailable(Fault::plain(
            "the root keyring's file was moved again and again while it was looked for",
        ))
    };
    update(contended, kept).await
}
