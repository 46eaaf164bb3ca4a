//! The part of the table that holds the log.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use keyway_domain::ports::{Kind, Record, StoreError, TableReader, TableWriter};

/// Appends to the log and reads it. It refuses records of other kinds.
#[derive(Clone)]
pub struct AuditTable(Arc<dyn TableWriter>);

impl AuditTable {
    /// The log in this table.
    pub fn new(table: Arc<dyn TableWriter>) -> Self {
        Self(table)
    }

    pub(crate) async fn append(&self, record: &Record) -> Result<(), StoreError> {
        match record.kind {
            Kind::Audit | Kind::ErrorLog => self.0.put_new(record).await,
            _ => Err(StoreError::Failed {
                what: "append to the log",
                source: "the record is of another kind".into(),
            }),
        }
    }

    /// A reader of the table.
    pub fn reading(&self) -> Arc<dyn TableReader> {
        Arc::clone(&self.0) as _
    }
}

/// The time as ids and events write it: `20260102T030405.678901Z`.
pub(crate) fn id_time(time: Timestamp) -> String {
    let zoned = time.to_zoned(TimeZone::UTC);
    format!(
        "{:04}{:02}{:02}T{:02}{:02}{:02}.{:06}Z",
        zoned.year(),
        zoned.month(),
        zoned.day(),
        zoned.hour(),
        zoned.minute(),
        zoned.second(),
        zoned.subsec_nanosecond() / 1000,
    )
}

/// The id of a record whose first event has this time.
pub(crate) fn id(time: Timestamp, writer: &str, first: u64) -> String {
    format!("{}.{writer}.{first:012}", id_time(time))
}
