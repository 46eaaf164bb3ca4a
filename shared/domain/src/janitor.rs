//! Destroys keys whose deletion date has passed.

use std::sync::Arc;

use crate::error::KmsError;
use crate::keys::{KeyId, Keys, decode};
use crate::ports::{Clock, Kind, StoreError, TableWriter};

/// What one sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Keys that are gone now.
    pub destroyed: Vec<KeyId>,
    /// Keys whose date has passed, but which something still names: they stay until nothing does.
    pub referenced: Vec<KeyId>,
}

/// Destroys keys whose deletion date has passed. Any number may run over one table at once.
pub struct Janitor {
    table: Arc<dyn TableWriter>,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
}

const PAGE: usize = 500;

impl Janitor {
    /// Over the table that `keys` works on.
    pub fn new(table: Arc<dyn TableWriter>, keys: Arc<Keys>, clock: Arc<dyn Clock>) -> Self {
        Self { table, keys, clock }
    }

    /// Looks at every key once, and destroys those that are due.
    ///
    /// A key is removed as it was seen or not at all, so one whose deletion is cancelled in the same instant
    /// either stays whole or its cancellation finds no key.
    ///
    /// # Errors
    /// When the table fails; what was destroyed until then stays so.
    pub async fn sweep(&self) -> Result<Swept, KmsError> {
        let mut swept = Swept::default();
        let mut after: Option<String> = None;
        loop {
            let page = self
                .table
                .page(Kind::Key, "", after.as_deref(), PAGE)
                .await?;
            for record in &page.records {
                let key = decode(record)?;
                if key
                    .deletion_date()
                    .is_none_or(|date| date > self.clock.now())
                {
                    continue;
                }
                if !self.keys.references(&key.id).await?.is_empty() {
                    swept.referenced.push(key.id);
                    continue;
                }
                match self
                    .table
                    .remove(Kind::Key, &record.id, record.revision)
                    .await
                {
                    Ok(()) => {
                        self.keys.forget(&key.id);
                        swept.destroyed.push(key.id);
                    }
                    // Somebody changed it since the page was read; the next sweep looks again.
                    Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            after = page.records.into_iter().next_back().map(|record| record.id);
            if !page.more {
                return Ok(swept);
            }
        }
    }
}
