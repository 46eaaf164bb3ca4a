//! The contract of every table.

use std::sync::Arc;

use keyway_deployment_assembly::SystemRandom;
use keyway_domain::ports::{Kind, TableReader, TableWriter};
use keyway_store_postgres::PostgresTable;
use keyway_testkit::table_contract;

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
