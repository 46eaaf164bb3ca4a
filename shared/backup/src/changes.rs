//! The records that changed while a bundle was made, in memory and bounded.

use std::collections::BTreeMap;

use keyway_domain::ports::{Kind, Record};

use crate::format::place;

/// The most changes of a bundle.
pub(crate) const MOST: usize = 20_000;
/// The most bytes of a bundle's changes.
const MOST_BYTES: usize = 64 << 20;

/// The newest state of each record that changed: `None` for one that is gone.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    records: BTreeMap<(u8, String), Option<Record>>,
    bytes: usize,
}

/// There are more changes than a bundle may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Changes {
    pub(crate) fn note(
        &mut self,
        kind: Kind,
        id: &str,
        record: Option<Record>,
    ) -> Result<(), TooMany> {
        self.bytes += id.len() + record.as_ref().map_or(0, |record| record.value.len());
        self.records.insert((place(kind), id.to_owned()), record);
        if self.records.len() > MOST || self.bytes > MOST_BYTES {
            return Err(TooMany);
        }
        Ok(())
    }

    pub(crate) const fn records(&self) -> &BTreeMap<(u8, String), Option<Record>> {
        &self.records
    }
}
