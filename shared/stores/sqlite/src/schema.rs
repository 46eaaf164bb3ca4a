//! Opens connections and migrates the schema.

use std::path::Path;
use std::thread;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags, TransactionBehavior, ffi};

use crate::OpenError;

/// Marks a file as a Keyway table: "KEYW".
const APPLICATION_ID: i64 = 0x4b45_5957;

/// The migrations from each schema version to the next. Version n has the first n of them. Append only.
const MIGRATIONS: &[&str] = &[
    // Ids are BLOBs, because they compare by their bytes, and the end of a range may not be UTF-8.
    //
    // WITHOUT ROWID stores the records in the order of their ids, so that the records of a page are neighbours.
    "CREATE TABLE records (
         kind TEXT NOT NULL,
         id BLOB NOT NULL,
         revision BLOB NOT NULL,
         expires_at INTEGER, -- microseconds since 1970
         value BLOB NOT NULL,
         PRIMARY KEY (kind, id)
     ) STRICT, WITHOUT ROWID;
     CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;",
    // In a table without ROWID, a search for an id reads the whole of each record that it compares, and records of
    // logs have hundreds of kilobytes. Here, a search compares entries of the index. The columns that a write reads
    // stand before the value, so they are on no overflow page.
    "CREATE TABLE logs (
         kind TEXT NOT NULL,
         id BLOB NOT NULL,
         revision BLOB NOT NULL,
         expires_at INTEGER, -- microseconds since 1970
         value BLOB NOT NULL,
         UNIQUE (kind, id)
     ) STRICT;
     CREATE INDEX logs_by_expiry ON logs (expires_at) WHERE expires_at IS NOT NULL;
     INSERT INTO logs SELECT kind, id, revision, expires_at, value FROM records WHERE kind IN ('audit', 'error-log');
     DELETE FROM records WHERE kind IN ('audit', 'error-log');",
];

/// The page size of a new file, in bytes. A record has some 900 bytes, and the inner pages of a table without ROWID hold
/// whole records. With SQLite's 4,096 bytes, a search in 100,000 records reads three pages from the file, and a list of
/// 100 records reads 30. A file that has pages of another size keeps them.
const PAGE_BYTES: i64 = 16 << 10;

/// After how many bytes in the log SQLite copies it into the file.
const CHECKPOINT_BYTES: i64 = 4 << 20;

/// How long to wait for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens the file and brings its schema up to date.
pub(crate) fn open(path: &Path) -> Result<Connection, OpenError> {
    prepare(path, MIGRATIONS).map_err(|refusal| refused(path, refusal))
}

fn refused(path: &Path, refusal: Refusal) -> OpenError {
    let path = path.to_owned();
    match refusal {
        Refusal::NotOurs => OpenError::NotOurs { path },
        Refusal::Newer { found, known } => OpenError::Newer { path, found, known },
        Refusal::Sqlite(error) => OpenError::Sqlite { path, error },
    }
}

/// Whether the file has the newest schema. Changes nothing.
pub(crate) fn is_newest(path: &Path, connection: &Connection) -> Result<bool, OpenError> {
    let found = version(connection, MIGRATIONS).map_err(|refusal| refused(path, refusal))?;
    Ok(found == MIGRATIONS.len())
}

/// A connection for reads and writes, to a file that [`open`] has checked before.
pub(crate) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_file(path)?;
    set_up(&connection)?;
    Ok(connection)
}

fn open_file(path: &Path) -> rusqlite::Result<Connection> {
    // Without URI names and without creation: the path names this file, which exists.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    Connection::open_with_flags(path, flags)
}

fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(
        "PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA synchronous = FULL;
         PRAGMA fullfsync = ON; -- macOS: flush the drive too; nothing elsewhere",
    )
}

#[derive(Debug)]
enum Refusal {
    NotOurs,
    Newer { found: i64, known: i64 },
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::NotOurs,
            _ => Self::Sqlite(error),
        }
    }
}

fn prepare(path: &Path, migrations: &[&str]) -> Result<Connection, Refusal> {
    let mut connection = open_file(path)?;
    // SQLite opens a file that it may not write as read-only. Any query then leaves files beside it that have the file's
    // mode, and that SQLite could not write later.
    if connection.is_readonly(MAIN_DB)? {
        let refused = ffi::Error::new(ffi::SQLITE_READONLY);
        return Err(rusqlite::Error::SqliteFailure(refused, None).into());
    }
    set_up(&connection)?;
    // Check before the first change, so that a refused file is not changed.
    version(&connection, migrations)?;
    // SQLite ignores this unless the file is empty.
    connection.pragma_update(None, "page_size", PAGE_BYTES)?;
    write_ahead(&connection)?;
    limit_log(&connection)?;

    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Read the version again under the lock, which no other process can hold now.
    let current = version(&transaction, migrations)?;
    if current < migrations.len() {
        for step in migrations.iter().skip(current) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", number(migrations.len()))?;
    }
    transaction.commit()?;
    Ok(connection)
}

/// The schema version of a Keyway table or an empty file, which is the number of its migrations.
fn version(connection: &Connection, migrations: &[&str]) -> Result<usize, Refusal> {
    let (application, found, objects): (i64, i64, i64) = connection.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id),
                (SELECT user_version FROM pragma_user_version),
                (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
    )?;
    if (application, found, objects) == (0, 0, 0) {
        return Ok(0);
    }
    if application != APPLICATION_ID {
        return Err(Refusal::NotOurs);
    }
    usize::try_from(found)
        .ok()
        .filter(|found| *found <= migrations.len())
        .ok_or(Refusal::Newer {
            found,
            known: number(migrations.len()),
        })
}

/// Switches to the write-ahead log. The file keeps this mode.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    // When two connections switch at the same time, SQLite fails with busy at once, without its timeout.
    const PAUSE: Duration = Duration::from_millis(10);
    let mut attempts = BUSY_TIMEOUT.as_millis() / PAUSE.as_millis();
    loop {
        match connection
            .pragma_update_and_check(None, "journal_mode", "wal", |row| row.get::<_, String>(0))
        {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts > 0 =>
            {
                attempts -= 1;
                thread::sleep(PAUSE);
            }
            // SQLite keeps its old mode, in which readers block writers.
            Ok(mode) if mode != "wal" => {
                let text = "the file system has no shared memory, which the write-ahead log needs; use a local disk";
                return Err(rusqlite::Error::SqliteFailure(
                    ffi::Error::new(ffi::SQLITE_IOERR),
                    Some(text.to_owned()),
                ));
            }
            outcome => return outcome.map(drop),
        }
    }
}

/// Sets after how many pages in the log this connection, the one that writes, copies them into the file.
fn limit_log(connection: &Connection) -> rusqlite::Result<()> {
    let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0))?;
    let pages = CHECKPOINT_BYTES / page.max(1);
    connection.pragma_update_and_check(None, "wal_autocheckpoint", pages, |_| Ok(()))
}

fn number(versions: usize) -> i64 {
    i64::try_from(versions).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_file_has_large_pages_and_an_older_file_keeps_its_own() {
        let folder = tempfile::tempdir().unwrap();
        for (name, before, expected) in [
            ("new", None, PAGE_BYTES),
            ("older", Some(4096), 4096),
            ("oldest", Some(1024), 1024),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            if let Some(bytes) = before {
                let older = open_file(&path).unwrap();
                older.pragma_update(None, "page_size", bytes).unwrap();
                write_ahead(&older).unwrap();
            }
            let connection = prepare(&path, MIGRATIONS).unwrap();
            let of =
                |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            assert_eq!(of("page_size").unwrap(), expected, "{name}");
            // The log has the same limit in bytes, whatever the pages are.
            let pages = of("wal_autocheckpoint").unwrap();
            assert_eq!(pages * expected, CHECKPOINT_BYTES, "{name}");
        }
    }

    #[test]
    fn migrations_are_made_once_in_order_and_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        std::fs::write(&path, "").unwrap();
        let first = "CREATE TABLE a (n); INSERT INTO a VALUES (1)";
        let second = "ALTER TABLE a ADD COLUMN m; UPDATE a SET m = n + 1";
        let broken = "INSERT INTO a VALUES (7, 7); INSERT INTO none VALUES (7)";
        let state = |migrations: &[&str]| {
            let connection = prepare(&path, migrations)?;
            let rows = connection.query_row("SELECT count(*), sum(m) FROM a", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
            })?;
            Ok::<_, Refusal>((rows, version(&connection, migrations)?))
        };
        drop(prepare(&path, &[first]).unwrap());
        assert_eq!(state(&[first, second]).unwrap(), ((1, 2), 2));
        assert_eq!(state(&[first, second]).unwrap(), ((1, 2), 2));
        assert!(matches!(
            state(&[first, second, broken]),
            Err(Refusal::Sqlite(_))
        ));
        assert_eq!(state(&[first, second]).unwrap(), ((1, 2), 2));
        assert!(matches!(
            state(&[first]),
            Err(Refusal::Newer { found: 2, known: 1 })
        ));
    }
}
