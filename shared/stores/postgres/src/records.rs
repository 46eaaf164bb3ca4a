//! Records as rows: the table's SQL statements. Each statement is a transaction of its own.

use std::sync::LazyLock;

use jiff::Timestamp;
use keyway_domain::ports::{Kind, Page, Record, Revision, StoreError};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;

/// How many revisions of writes before the newest a row holds.
pub(crate) const PAST: usize = 16;

/// The channel on which changes are announced. A payload has at most 8000 bytes, and an id at most 256.
pub(crate) const CHANNEL: &str = "keyway";

/// What a row says of its writes.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) revision: Revision,
    pub(crate) past: Vec<Revision>,
    expires_at: Option<Timestamp>,
}

impl Found {
    pub(crate) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|expiry| expiry <= now)
    }
}

/// The statements on one SQL table. Each write returns a row for each row that it changed.
pub(crate) struct Statements {
    pub(crate) get: String,
    pub(crate) current: String,
    pub(crate) page: String,
    pub(crate) count: String,
    /// Makes a record, or replaces one that has expired and is still there.
    pub(crate) put_new: String,
    pub(crate) replace: String,
    /// Removes the record of one revision, or one that has expired.
    pub(crate) remove: String,
    /// Removes some of the records that expired before a time. Leaves out rows that another process removes at the same
    /// time, so that processes do not wait for each other.
    pub(crate) purge: String,
}

static RECORDS: LazyLock<Statements> = LazyLock::new(|| Statements::new("keyway_records", true));
static LOGS: LazyLock<Statements> = LazyLock::new(|| Statements::new("keyway_logs", false));

/// The statements on each SQL table.
pub(crate) fn all_statements() -> [&'static Statements; 2] {
    [&RECORDS, &LOGS]
}

/// The statements on the SQL table of this kind. Logs have one of their own: they are most of the data, and a dump or a
/// vacuum can treat them differently. Nothing caches them, so nothing announces them.
pub(crate) fn statements(kind: Kind) -> &'static Statements {
    match kind.part_bytes() {
        None => &RECORDS,
        Some(_) => &LOGS,
    }
}

impl Statements {
    fn new(table: &str, announces: bool) -> Self {
        let returning = |write: String| {
            if announces {
                format!(
                    "WITH changed AS ({write} RETURNING kind, id)
                     SELECT pg_notify('{CHANNEL}', kind || '/' || encode(id, 'hex')) FROM changed"
                )
            } else {
                format!("{write} RETURNING true")
            }
        };
        Self {
            get: format!(
                "SELECT id, revision, expires_at, value FROM {table}
                 WHERE kind = $1 AND id = $2 AND (expires_at IS NULL OR expires_at > $3)"
            ),
            current: format!(
                "SELECT revision, past, expires_at FROM {table} WHERE kind = $1 AND id = $2"
            ),
            page: format!(
                "SELECT id, revision, expires_at, value FROM {table}
                 WHERE kind = $1 AND id >= $2 AND id < $3 AND (expires_at IS NULL OR expires_at > $4)
                 ORDER BY id LIMIT $5"
            ),
            count: format!(
                "SELECT count(*) FROM {table}
                 WHERE kind = $1 AND id >= $2 AND id < $3 AND (expires_at IS NULL OR expires_at > $4)"
            ),
            put_new: returning(format!(
                "INSERT INTO {table} AS stored (kind, id, revision, past, expires_at, value)
                 VALUES ($1, $2, $3, '{{}}', $4, $5)
                 ON CONFLICT (kind, id) DO UPDATE
                     SET revision = excluded.revision, past = excluded.past,
                         expires_at = excluded.expires_at, value = excluded.value
                     WHERE stored.expires_at <= $6"
            )),
            replace: returning(format!(
                "UPDATE {table}
                 SET revision = $3, past = (ARRAY[revision] || past)[1:{PAST}], expires_at = $4, value = $5
                 WHERE kind = $1 AND id = $2 AND revision = $7 AND (expires_at IS NULL OR expires_at > $6)"
            )),
            remove: returning(format!(
                "DELETE FROM {table} WHERE kind = $1 AND id = $2 AND (revision = $3 OR expires_at <= $4)"
            )),
            purge: format!(
                "DELETE FROM {table} WHERE (kind, id) IN
                 (SELECT kind, id FROM {table} WHERE expires_at < $1 ORDER BY expires_at LIMIT 1000
                  FOR UPDATE SKIP LOCKED)"
            ),
        }
    }
}

/// The record that a row holds.
pub(crate) fn record(kind: Kind, row: &Row) -> Result<Record, StoreError> {
    let id: Vec<u8> = field(row, "id")?;
    Ok(Record {
        kind,
        id: String::from_utf8(id).map_err(|_| garbled("id"))?,
        revision: revision(field(row, "revision")?)?,
        value: field(row, "value")?,
        expires_at: expiry(row)?,
    })
}

pub(crate) fn page_of(kind: Kind, rows: &[Row], limit: usize) -> Page {
    let mut records = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit) {
        match record(kind, row) {
            Ok(record) => records.push(record),
            // A broken row must not hide all the others.
            Err(error) => tracing::error!(
                kind = kind.as_str(),
                %error,
                after = records.last().map(|record: &Record| record.id.as_str()),
                "a row of the table is not one that keyway writes and is left out"
            ),
        }
    }
    Page {
        records,
        more: rows.len() > limit,
        refused: Vec::new(),
    }
}

/// What a row says of its writes.
pub(crate) fn found(row: &Row) -> Result<Found, StoreError> {
    let past: Vec<Vec<u8>> = field(row, "past")?;
    Ok(Found {
        revision: revision(field(row, "revision")?)?,
        past: past.into_iter().map(revision).collect::<Result<_, _>>()?,
        expires_at: expiry(row)?,
    })
}

fn revision(bytes: Vec<u8>) -> Result<Revision, StoreError> {
    let bytes = bytes.try_into().map_err(|_| garbled("revision"))?;
    Ok(Revision(bytes))
}

fn expiry(row: &Row) -> Result<Option<Timestamp>, StoreError> {
    let expires_at: Option<i64> = field(row, "expires_at")?;
    expires_at
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|_| garbled("expires_at"))
}

fn field<'r, T: FromSql<'r>>(row: &'r Row, column: &'static str) -> Result<T, StoreError> {
    row.try_get(column).map_err(|_| garbled(column))
}

pub(crate) fn garbled(column: &'static str) -> StoreError {
    StoreError::Failed {
        what: "read a row",
        source: format!("its column `{column}` is not one that keyway writes").into(),
    }
}
