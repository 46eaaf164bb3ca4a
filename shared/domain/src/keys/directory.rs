//! Describes and lists master keys. Only reads the table.

use std::sync::Arc;

use super::{KeyId, KeyReader, MasterKey};
use crate::access::Caller;
use crate::error::KmsError;
use crate::policy::Action;
use crate::ports::{Revision, TableReader};
use crate::service::Service;

/// Describes and lists master keys, for a process that must not write the table. [`super::Keys`] can do the same.
#[derive(Clone)]
pub struct KeyDirectory {
    reader: Arc<KeyReader>,
    pub(super) service: Arc<Service>,
}

impl KeyDirectory {
    /// Reads the table of this reader.
    pub const fn new(reader: Arc<KeyReader>, service: Arc<Service>) -> Self {
        Self { reader, service }
    }

    /// The key as it is now.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`].
    pub async fn describe(&self, caller: &Caller, id: &KeyId) -> Result<MasterKey, KmsError> {
        caller.may(Action::DescribeKey, id)?;
        self.service.running().await?;
        Ok(self.existing(id).await?.0)
    }

    pub(super) async fn existing(&self, id: &KeyId) -> Result<(MasterKey, Revision), KmsError> {
        self.reader
            .read(id)
            .await?
            .ok_or_else(|| KmsError::KeyNotFound(id.clone()))
    }

    pub(super) fn table(&self) -> &Arc<dyn TableReader> {
        self.reader.table()
    }
}
