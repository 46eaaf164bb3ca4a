//! Makes the tables and brings them up to date.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, GenericClient};

use crate::connect::ConnectError;
use crate::failure;
use crate::session::Session;

/// The migrations from each schema version to the next. Version n has the first n of them. Append only, and only what
/// the releases before can work with: nodes of two releases run at the same time during an update.
const MIGRATIONS: &[&str] = &[
    // Ids are bytes, because they compare by their bytes, whatever the database's encoding and collation are.
    "CREATE TABLE keyway_records (
         kind text COLLATE \"C\" NOT NULL,
         id bytea NOT NULL,
         revision bytea NOT NULL,
         past bytea[] NOT NULL, -- the revisions before, newest first
         expires_at bigint, -- microseconds since 1970
         value bytea NOT NULL,
         PRIMARY KEY (kind, id)
     );
     CREATE INDEX keyway_records_by_expiry ON keyway_records (expires_at) WHERE expires_at IS NOT NULL;
     CREATE TABLE keyway_logs (LIKE keyway_records INCLUDING ALL);",
];

/// Held while the schema changes: "KEYW". Locks of this kind are per database.
const LOCK: i64 = 0x4b45_5957;

/// Why the table could not be opened. Texts are for the operator: they name the server and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A newer release of Keyway wrote the tables. They were not changed.
    #[error(
        "the database at {server} has schema version {found}, and this release knows versions up to {known}; run the newer \
         release"
    )]
    Newer {
        /// The hosts.
        server: String,
        /// The database's schema version.
        found: i32,
        /// The newest schema version that this release knows.
        known: i32,
    },
    /// The database has no tables of Keyway, and none may be made.
    #[error(
        "the database at {server} holds no deployment; check the URL's database and search_path; `keyway serve --postgres` \
         makes one"
    )]
    Missing {
        /// The hosts.
        server: String,
    },
    /// An older release of Keyway wrote the tables, and they may not be changed.
    #[error(
        "the database at {server} has schema version {found}, and this release uses version {known}; start a server of this \
         release once, which brings the tables up to date"
    )]
    Older {
        /// The hosts.
        server: String,
        /// The database's schema version.
        found: i32,
        /// The schema version that this release uses.
        known: i32,
    },
    /// The user may not make the tables or use them.
    #[error(
        "the user may not make or use the tables at {server}: {told}; make the user the database's owner, or grant CREATE on \
         its schema"
    )]
    Forbidden {
        /// The hosts.
        server: String,
        /// What the server said.
        told: String,
    },
    /// The server failed.
    #[error("the schema at {server}: {told}")]
    Server {
        /// The hosts.
        server: String,
        /// What the server said.
        told: String,
    },
    /// The pool could not be made.
    #[error("the pool of connections: {0}")]
    Pool(String),
}

/// Brings the schema up to date.
pub(crate) async fn prepare(session: Session, server: &str) -> Result<(), OpenError> {
    prepare_with(session, server, MIGRATIONS).await
}

/// Refuses a database whose schema is not the newest, and changes nothing.
pub(crate) async fn must_be_newest(session: &Session, server: &str) -> Result<(), OpenError> {
    let known = newest(MIGRATIONS);
    let found = version(session.client()).await;
    match found.map_err(|error| failed(server, &error))? {
        0 => Err(OpenError::Missing {
            server: server.to_owned(),
        }),
        found if found < known => Err(OpenError::Older {
            server: server.to_owned(),
            found,
            known,
        }),
        found => check(server, found, known).map(drop),
    }
}

fn newest(migrations: &[&str]) -> i32 {
    i32::try_from(migrations.len()).unwrap_or(i32::MAX)
}

fn failed(server: &str, error: &Error) -> OpenError {
    let (server, told) = (server.to_owned(), failure::told(error));
    if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
        OpenError::Forbidden { server, told }
    } else {
        OpenError::Server { server, told }
    }
}

/// Refuses the schema of a newer release.
fn check(server: &str, found: i32, known: i32) -> Result<i32, OpenError> {
    if found > known {
        return Err(OpenError::Newer {
            server: server.to_owned(),
            found,
            known,
        });
    }
    Ok(found)
}

async fn prepare_with(
    mut session: Session,
    server: &str,
    migrations: &[&str],
) -> Result<(), OpenError> {
    let failed = |error: Error| failed(server, &error);
    let known = newest(migrations);
    let check = |found: i32| check(server, found, known);
    // Most starts find the schema as it should be. They need no lock and no right to change it.
    if check(version(session.client()).await.map_err(failed)?)? == known {
        return Ok(());
    }
    // Another node may be at it, for longer than a statement may take. The lock comes before the transaction, which could
    // otherwise look for the tables as they were at its begin. It ends with the connection.
    session
        .client()
        .batch_execute(&format!(
            "SET statement_timeout = '60s'; SET lock_timeout = '60s'; SELECT pg_advisory_lock({LOCK})"
        ))
        .await
        .map_err(failed)?;
    let transaction = session.client_mut().transaction().await.map_err(failed)?;
    let found = check(version(&transaction).await.map_err(failed)?)?;
    let steps = usize::try_from(found).unwrap_or(0);
    for step in migrations.iter().skip(steps) {
        transaction.batch_execute(step).await.map_err(failed)?;
    }
    transaction
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS keyway_schema (version integer NOT NULL);
             DELETE FROM keyway_schema;
             INSERT INTO keyway_schema VALUES ({known})"
        ))
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    tracing::info!(server, from = found, to = known, "the schema is up to date");
    Ok(())
}

/// The schema version, which is the number of its migrations; 0 for a database without Keyway's tables.
async fn version(client: &(impl GenericClient + Sync)) -> Result<i32, Error> {
    let exists = client
        .query_one("SELECT to_regclass('keyway_schema') IS NOT NULL", &[])
        .await?;
    if !exists.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let row = client
        .query_opt("SELECT version FROM keyway_schema", &[])
        .await?;
    row.map_or(Ok(0), |row| row.try_get(0))
}
