//! Stores that are not there yet, for a dry run.

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use keyway_domain::ports::{
    Consistency, Kind, Page, Record, Revision, SecretStore, SecretVersion, StoreError, TableReader,
    TableWriter,
};

/// A table without records and a secret store without secrets. Writes fail.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

fn not_there() -> StoreError {
    StoreError::Away("there is nothing to write to yet".to_owned())
}

#[async_trait]
impl TableReader for Nothing {
    async fn get(&self, _: Kind, _: &str, _: Consistency) -> Result<Option<Record>, StoreError> {
        Ok(None)
    }

    async fn count(&self, _: Kind, _: &str) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn page(&self, _: Kind, _: &str, _: Option<&str>, _: usize) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
}

#[async_trait]
impl TableWriter for Nothing {
    async fn put_new(&self, _: &Record) -> Result<(), StoreError> {
        Err(not_there())
    }

    async fn replace(&self, _: &Record, _: Revision) -> Result<(), StoreError> {
        Err(not_there())
    }

    async fn remove(&self, _: Kind, _: &str, _: Revision) -> Result<(), StoreError> {
        Err(not_there())
    }
}

#[async_trait]
impl SecretStore for Nothing {
    async fn get(&self, _: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        Ok(None)
    }

    async fn put(
        &self,
        _: &str,
        _: &SecretBytes,
        _: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        Err(not_there())
    }
}
