//! The Table port on PostgreSQL, and deployments over it: a real server, its standby, and their faults.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod announcements;
mod failover;
mod faults;
mod nodes;
mod schema;
mod table;
mod upgrade;

use std::sync::Arc;

use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::ports::{Clock, Kind, Random, Record, Revision};
use keyway_store_postgres::{OpenError, PostgresTable, Server};
use keyway_tests::{Link, Postgres};
use tokio::sync::OnceCell;

/// The server that tests share if they do not stop it. It ends with this process.
async fn shared() -> Option<&'static Postgres> {
    static POSTGRES: OnceCell<Option<Postgres>> = OnceCell::const_new();
    POSTGRES.get_or_init(Postgres::start).await.as_ref()
}

fn server(url: &str) -> Server {
    Server::new(url.parse().unwrap()).unwrap()
}

async fn try_open(url: &str) -> Result<Arc<PostgresTable>, OpenError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let table = PostgresTable::open(server(url), 4, clock).await?;
    Ok(Arc::new(table))
}

async fn open(url: &str) -> Arc<PostgresTable> {
    try_open(url).await.unwrap()
}

/// The URL of the database at the end of a link.
fn through(link: &Link, url: &str) -> String {
    let database = url.rsplit('/').next().unwrap();
    format!("postgres://keyway@127.0.0.1:{}/{database}", link.port)
}

fn record(id: &str, value: &str) -> Record {
    let mut revision = [0; 16];
    SystemRandom::default().fill(&mut revision).unwrap();
    Record {
        kind: Kind::Key,
        id: id.to_owned(),
        revision: Revision(revision),
        value: value.as_bytes().to_vec(),
        expires_at: None,
    }
}
