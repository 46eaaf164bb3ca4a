//! Records as rows: the table's SQL statements. The caller begins the transaction.

use jiff::Timestamp;
use keyway_domain::ports::{IdRange, Kind, Page, Record, Revision};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Whether a conditional write was done, or found another record than its writer had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Conflict,
}

/// The SQL table of this kind. Logs have one of their own, because their many long records would slow all lookups.
const fn table(kind: Kind) -> &'static str {
    match kind.part_bytes() {
        None => RECORDS,
        Some(_) => LOGS,
    }
}

const RECORDS: &str = "records";
const LOGS: &str = "logs";

/// The record of this id, unless it has expired.
pub(crate) fn get(
    connection: &Connection,
    kind: Kind,
    id: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Record>> {
    connection
        .prepare_cached(&format!(
            "SELECT id, revision, expires_at, value FROM {}
             WHERE kind = ?1 AND id = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
            table(kind)
        ))?
        .query_row(
            params![kind.as_str(), id.as_bytes(), now.as_microsecond()],
            |row| record(kind, row),
        )
        .optional()
}

/// Up to `limit` records of the range.
pub(crate) fn page(
    connection: &Connection,
    kind: Kind,
    range: &IdRange,
    limit: usize,
    now: Timestamp,
) -> rusqlite::Result<Page> {
    let limit = limit.clamp(1, 1000);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, revision, expires_at, value FROM {}
         WHERE kind = ?1 AND id >= ?2 AND id < ?3 AND (expires_at IS NULL OR expires_at > ?4)
         ORDER BY id",
        table(kind)
    ))?;
    let rows = statement.query_map(
        params![kind.as_str(), range.first, range.end, now.as_microsecond()],
        |row| Ok(record(kind, row)),
    )?;
    let mut records = Vec::new();
    for row in rows {
        match row? {
            Ok(record) => records.push(record),
            // A broken row must not hide all the others.
            Err(error) => tracing::error!(
                kind = kind.as_str(),
                %error,
                after = records.last().map(|record: &Record| record.id.as_str()),
                "a row of the table is not one that keyway writes and is left out"
            ),
        }
        // Read one more than asked for, to learn whether more follow.
        if records.len() > limit {
            break;
        }
    }
    let more = records.len() > limit;
    records.truncate(limit);
    Ok(Page {
        records,
        more,
        refused: Vec::new(),
    })
}

/// How many records are in the range.
pub(crate) fn count(
    connection: &Connection,
    kind: Kind,
    range: &IdRange,
    now: Timestamp,
) -> rusqlite::Result<u64> {
    connection
        .prepare_cached(&format!(
            "SELECT COUNT(*) FROM {}
             WHERE kind = ?1 AND id >= ?2 AND id < ?3 AND (expires_at IS NULL OR expires_at > ?4)",
            table(kind)
        ))?
        .query_row(
            params![kind.as_str(), range.first, range.end, now.as_microsecond()],
            |row| row.get::<_, i64>(0),
        )
        .map(i64::unsigned_abs)
}

/// Makes the record if there is none.
pub(crate) fn put_new(
    connection: &Connection,
    record: &Record,
    now: Timestamp,
) -> rusqlite::Result<Outcome> {
    match current(connection, record.kind, &record.id, now)? {
        Some(revision) if revision == record.revision => Ok(Outcome::Done),
        Some(_) => Ok(Outcome::Conflict),
        // `write` replaces an expired record that is still there.
        None => write(connection, record),
    }
}

/// Replaces the record that has the revision `seen`.
pub(crate) fn replace(
    connection: &Connection,
    record: &Record,
    seen: Revision,
    now: Timestamp,
) -> rusqlite::Result<Outcome> {
    match current(connection, record.kind, &record.id, now)? {
        Some(revision) if revision == record.revision => Ok(Outcome::Done),
        Some(revision) if revision == seen => write(connection, record),
        _ => Ok(Outcome::Conflict),
    }
}

/// Removes the record that has the revision `seen`.
pub(crate) fn remove(
    connection: &Connection,
    kind: Kind,
    id: &str,
    seen: Revision,
    now: Timestamp,
) -> rusqlite::Result<Outcome> {
    match current(connection, kind, id, now)? {
        Some(revision) if revision != seen => Ok(Outcome::Conflict),
        Some(_) => {
            connection
                .prepare_cached(&format!(
                    "DELETE FROM {} WHERE kind = ?1 AND id = ?2",
                    table(kind)
                ))?
                .execute(params![kind.as_str(), id.as_bytes()])?;
            Ok(Outcome::Done)
        }
        None => Ok(Outcome::Done),
    }
}

/// Deletes some of the records that expired before this time.
pub(crate) fn purge(connection: &Connection, expired_before: Timestamp) -> rusqlite::Result<usize> {
    let mut purged = 0;
    for table in [RECORDS, LOGS] {
        purged += connection
            .prepare_cached(&format!(
                "DELETE FROM {table} WHERE (kind, id) IN
                 (SELECT kind, id FROM {table} WHERE expires_at < ?1 ORDER BY expires_at LIMIT 100)"
            ))?
            .execute([expired_before.as_microsecond()])?;
    }
    Ok(purged)
}

fn current(
    connection: &Connection,
    kind: Kind,
    id: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<Revision>> {
    connection
        .prepare_cached(&format!(
            "SELECT revision FROM {}
             WHERE kind = ?1 AND id = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
            table(kind)
        ))?
        .query_row(
            params![kind.as_str(), id.as_bytes(), now.as_microsecond()],
            |row| row.get(0).map(Revision),
        )
        .optional()
}

fn write(connection: &Connection, record: &Record) -> rusqlite::Result<Outcome> {
    connection
        .prepare_cached(&format!(
            "REPLACE INTO {} (kind, id, revision, expires_at, value) VALUES (?1, ?2, ?3, ?4, ?5)",
            table(record.kind)
        ))?
        .execute(params![
            record.kind.as_str(),
            record.id.as_bytes(),
            record.revision.0,
            record.expires_at.map(Timestamp::as_microsecond),
            record.value,
        ])?;
    Ok(Outcome::Done)
}

fn record(kind: Kind, row: &Row<'_>) -> rusqlite::Result<Record> {
    let id = String::from_utf8(row.get(0)?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, Box::new(error))
    })?;
    let expires_at = row
        .get::<_, Option<i64>>(2)?
        .map(Timestamp::from_microsecond)
        .transpose()
        .map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(2, Type::Integer, Box::new(error))
        })?;
    Ok(Record {
        kind,
        id,
        revision: Revision(row.get(1)?),
        value: row.get(3)?,
        expires_at,
    })
}
