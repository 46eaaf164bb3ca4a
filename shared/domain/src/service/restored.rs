//! The configuration's record in a restore.

use super::ServiceConfig;
use crate::encoding;
use crate::error::KmsError;

/// A configuration that a restore compares or writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredConfig(ServiceConfig);

impl RestoredConfig {
    /// Decodes the content of a record.
    ///
    /// # Errors
    /// When it is no configuration that this release knows.
    pub fn decode(content: &[u8]) -> Result<Self, KmsError> {
        encoding::decode(content).map(Self)
    }

    /// The content of a record.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, KmsError> {
        encoding::encode(&self.0)
    }

    /// The epoch of the caches. A process does not go back to a lower one.
    pub const fn epoch(&self) -> u64 {
        self.0.cache_epoch
    }

    /// The folder of the root keyring's file, if it is not the deployment's own.
    pub fn key_directory(&self) -> Option<&str> {
        self.0.key_directory.as_deref()
    }

    /// The same configuration for a deployment whose root keyring is in this folder, with this epoch.
    #[must_use]
    pub fn placed(mut self, key_directory: Option<&str>, epoch: u64) -> Self {
        self.0.key_directory = key_directory.map(str::to_owned);
        self.0.cache_epoch = epoch;
        self
    }

    /// Whether both decide the same. The epoch and the keyring's folder belong to a table and a machine.
    pub fn decides_as(&self, other: &Self) -> bool {
        self.clone().placed(None, 0) == other.clone().placed(None, 0)
    }
}
