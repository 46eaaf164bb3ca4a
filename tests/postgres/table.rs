//! The contract of every table.

use std::sync::Arc;
use std::time::Duration;

use keyway_deployment_assembly::SystemRandom;
use keyway_domain::ports::{Clock, Consistency, Kind, Record, TableReader, TableWriter};
use keyway_store_postgres::PostgresTable;
use keyway_testkit::{FixedClock, table_contract};

use crate::{open, record, server, shared};

#[tokio::test(flavor = "multi_thread")]
async fn table_keeps_the_contract() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    table_contract::run_all(
        async |clock| Arc::new(PostgresTable::open(server(&url), 16, clock).await.unwrap()) as _,
        &SystemRandom::default(),
    )
    .await;
}

#[tokio::test]
async fn ids_sort_by_their_bytes_in_a_database_of_any_encoding() {
    let Some(postgres) = shared().await else {
        return;
    };
    let sql =
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'";
    postgres.sql("postgres", sql);
    let table = open(&postgres.url("latin")).await;
    for id in ["a", "B", "é", "\u{10000}", "\u{FFFF}"] {
        table.put_new(&record(id, "")).await.unwrap();
    }
    let page = table.page(Kind::Key, "", None, 10).await.unwrap();
    let ids: Vec<&str> = page.records.iter().map(|one| one.id.as_str()).collect();
    assert_eq!(ids, ["B", "a", "é", "\u{FFFF}", "\u{10000}"]);
}

#[tokio::test]
async fn rows_of_records_that_expired_a_day_ago_are_removed() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let port = Arc::clone(&clock) as Arc<dyn Clock>;
    let table = PostgresTable::open(server(&url), 4, port).await.unwrap();
    for kind in [Kind::Key, Kind::ErrorLog] {
        let expiring = Record {
            kind,
            expires_at: Some(clock.now() + Duration::from_secs(1)),
            ..record("20260102T03:expiring", "")
        };
        table.put_new(&expiring).await.unwrap();
    }
    let rows = || {
        let sql =
            "SELECT (SELECT count(*) FROM keyway_records) + (SELECT count(*) FROM keyway_logs)";
        postgres.sql(database, sql)
    };
    clock.advance(Duration::from_secs(3600));
    table.put_new(&record("lasting", "")).await.unwrap();
    assert_eq!(
        rows(),
        "3",
        "a clock that is ahead for an hour removes nothing"
    );
    clock.advance(Duration::from_secs(24 * 3600));
    table.put_new(&record("another", "")).await.unwrap();
    let begun = tokio::time::Instant::now();
    while rows() != "2" {
        assert!(begun.elapsed() < Duration::from_secs(20), "{} rows", rows());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn snapshot_shows_nothing_that_is_written_later_and_blocks_no_writer() {
    let Some(postgres) = shared().await else {
        return;
    };
    let table = open(&postgres.database()).await;
    let first = record("a", "first");
    table.put_new(&first).await.unwrap();
    let snapshot = table.snapshot().await.unwrap().unwrap();
    let next = record("a", "next");
    table.replace(&next, first.revision).await.unwrap();
    table.put_new(&record("b", "")).await.unwrap();
    let strong = Consistency::Strong;
    let seen = snapshot.get(Kind::Key, "a", strong).await.unwrap();
    assert_eq!(seen, Some(first.clone()));
    assert_eq!(snapshot.count(Kind::Key, "").await.unwrap(), 1);
    let page = snapshot.page(Kind::Key, "", None, 10).await.unwrap();
    assert_eq!((page.records, page.more), (vec![first], false));
    assert_eq!(table.count(Kind::Key, "").await.unwrap(), 2);
}
