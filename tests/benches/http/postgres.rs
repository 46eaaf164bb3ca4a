//! A creation of a record in PostgreSQL, beside one committed insert of the same size by the bare driver.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::ports::{Clock, Kind, Random, Record, Revision, TableWriter};
use keyway_performance::Bound;
use keyway_store_postgres::{PostgresTable, Server};
use keyway_tests::Postgres;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls, Statement};

use crate::report::Report;
use crate::{Fallible, ROUNDS, median};

/// About the size of a key's record.
const VALUE_BYTES: usize = 900;
const TARGET: f64 = 1.5;
const WRITERS: usize = 16;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(compare(report, turn))
}

async fn compare(report: &mut Report, turn: Duration) -> Fallible<()> {
    let postgres = Postgres::start()
        .await
        .ok_or("PostgreSQL is not installed: run scripts/postgres")?;
    let url = postgres.database();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let server = Server::new(url.parse()?)?;
    let table = Arc::new(PostgresTable::open(server, WRITERS, clock).await?);
    println!(
        "\nPostgreSQL: records of {VALUE_BYTES} bytes, committed one by one; medians of {ROUNDS} turns of {turn:?} on each side"
    );
    for writers in [1, WRITERS] {
        let mut clients = Vec::new();
        for _ in 0..writers {
            clients.push(Arc::new(bare(&url).await?));
        }
        let (mut bare, mut creations) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            bare.push(rate(turn, clients.clone(), insert).await?);
            creations.push(rate(turn, vec![Arc::clone(&table); writers], create).await?);
        }
        let ratios: Vec<f64> = (bare.iter().zip(&creations))
            .map(|(bare, created)| bare / created)
            .collect();
        let (bare, created) = (median(bare)?, median(creations)?);
        println!(
            "{writers:>3} writers: {bare:>9.0} inserts a second, {created:>9.0} creations a second"
        );
        if writers == 1 {
            let what = "PostgreSQL: the time of a creation, to that of a committed insert";
            report.figure(what, ratios, "", Bound::AtMost, TARGET);
        }
    }
    Ok(())
}

/// A connection with a prepared insert, of a table with the same key and nothing else.
async fn bare(url: &str) -> Fallible<(Client, Statement)> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE IF NOT EXISTS bare (id bytea PRIMARY KEY, value bytea NOT NULL)",
        )
        .await?;
    let statement = client.prepare("INSERT INTO bare VALUES ($1, $2)").await?;
    Ok((client, statement))
}

async fn insert(side: Arc<(Client, Statement)>, record: Record) -> Fallible<()> {
    let (client, statement) = side.as_ref();
    client
        .execute(statement, &[&record.id.as_bytes(), &record.value])
        .await?;
    Ok(())
}

async fn create(table: Arc<PostgresTable>, record: Record) -> Fallible<()> {
    Ok(table.put_new(&record).await?)
}

/// Writes for the turn by each of these sides at once; returns the writes a second.
async fn rate<S, F>(
    turn: Duration,
    sides: Vec<Arc<S>>,
    write: impl Fn(Arc<S>, Record) -> F + Copy + Send + 'static,
) -> Fallible<f64>
where
    S: Send + Sync + 'static,
    F: Future<Output = Fallible<()>> + Send + 'static,
{
    let begun = Instant::now();
    let mut writers: JoinSet<Result<u32, String>> = JoinSet::new();
    for side in sides {
        writers.spawn(async move {
            let mut done = 0;
            while begun.elapsed() < turn {
                let record = record().map_err(|error| error.to_string())?;
                let written = write(Arc::clone(&side), record).await;
                written.map_err(|error| error.to_string())?;
                done += 1;
            }
            Ok(done)
        });
    }
    let mut total = 0;
    for done in writers.join_all().await {
        total += done?;
    }
    Ok(f64::from(total) / begun.elapsed().as_secs_f64())
}

fn record() -> Fallible<Record> {
    let mut revision = [0; 16];
    SystemRandom::default().fill(&mut revision)?;
    Ok(Record {
        kind: Kind::Key,
        id: revision.iter().map(|byte| format!("{byte:02x}")).collect(),
        revision: Revision(revision),
        value: vec![b'x'; VALUE_BYTES],
        expires_at: None,
    })
}
