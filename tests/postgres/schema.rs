//! The schema is made once, and moved forward by one process at a time.

use std::sync::Arc;

use keyway_deployment_assembly::SystemClock;
use keyway_domain::ports::{Consistency, Kind, TableReader, TableWriter};
use keyway_store_postgres::{OpenError, PostgresTable};
use tokio::task::JoinSet;

use crate::{open, record, server, shared, try_open};

#[tokio::test(flavor = "multi_thread")]
async fn tables_of_many_first_starts_are_made_once() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let mut starts = JoinSet::new();
    for n in 0..16 {
        let url = url.clone();
        starts.spawn(async move {
            let table = open(&url).await;
            table.put_new(&record(&format!("k{n}"), "")).await.unwrap();
        });
    }
    while let Some(started) = starts.join_next().await {
        started.unwrap();
    }
    assert_eq!(open(&url).await.count(Kind::Key, "k").await.unwrap(), 16);
}

#[tokio::test]
async fn schema_of_a_newer_release_is_refused_and_left_as_it_is() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    drop(open(&url).await);
    postgres.sql(database, "UPDATE keyway_schema SET version = version + 1");
    let newer = postgres.sql(database, "SELECT version FROM keyway_schema");
    let error = try_open(&url).await.unwrap_err().to_string();
    assert!(error.contains("run the newer release"), "{error}");
    assert_eq!(
        postgres.sql(database, "SELECT version FROM keyway_schema"),
        newer
    );
}

#[tokio::test]
async fn existing_tables_open_without_a_change_and_missing_older_or_newer_ones_are_refused() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    let existing = async || {
        let clock = Arc::new(SystemClock::start());
        PostgresTable::open_existing(server(&url), 4, clock).await
    };
    let missing = existing().await.unwrap_err();
    assert!(matches!(missing, OpenError::Missing { .. }), "{missing}");
    let made = "SELECT to_regclass('keyway_schema') IS NULL";
    assert_eq!(postgres.sql(database, made), "t", "nothing was made");

    open(&url).await.put_new(&record("k", "v")).await.unwrap();
    let table = existing().await.unwrap();
    let read = table.get(Kind::Key, "k", Consistency::Strong).await;
    assert!(read.unwrap().is_some());

    let version = |sql: &str| postgres.sql(database, &format!("UPDATE keyway_schema SET {sql}"));
    version("version = version + 1");
    let newer = existing().await.unwrap_err();
    assert!(matches!(newer, OpenError::Newer { .. }), "{newer}");
    // No release has an older schema than the first one: this stands for one.
    version("version = -1");
    let older = existing().await.unwrap_err();
    assert!(matches!(older, OpenError::Older { .. }), "{older}");
    let stored = postgres.sql(database, "SELECT version FROM keyway_schema");
    assert_eq!(stored, "-1", "it was left as it is");
}

#[tokio::test]
async fn user_without_rights_is_told_what_to_grant_and_needs_none_once_tables_exist() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let database = url.rsplit('/').next().unwrap();
    let limited = format!("limited_{database}");
    postgres.sql(database, &format!("CREATE ROLE {limited} LOGIN"));
    let as_limited = url.replace("keyway@", &format!("{limited}@"));
    let error = try_open(&as_limited).await.unwrap_err().to_string();
    assert!(error.contains("grant CREATE"), "{error}");

    drop(open(&url).await);
    let grant = format!(
        "GRANT SELECT, INSERT, UPDATE, DELETE ON keyway_records, keyway_logs TO {limited};
         GRANT SELECT ON keyway_schema TO {limited}"
    );
    postgres.sql(database, &grant);
    let table = open(&as_limited).await;
    let made = record("k", "v");
    table.put_new(&made).await.unwrap();
    let read = table.get(Kind::Key, "k", Consistency::Strong).await;
    assert_eq!(read.unwrap(), Some(made));
}
