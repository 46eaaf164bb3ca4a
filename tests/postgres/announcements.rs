//! A change by one process reaches the others at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyway_domain::ports::{ChangeFeed, Kind, Record, TableChange, TableWriter};
use keyway_store_postgres::PostgresTable;
use keyway_tests::{Link, LinkState};
use tokio::task::JoinHandle;

use crate::{open, record, shared, through};

/// What a process is told.
struct Told {
    changes: Arc<Mutex<Vec<TableChange>>>,
    task: JoinHandle<()>,
}

impl Told {
    fn by(table: Arc<PostgresTable>) -> Self {
        let changes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&changes);
        let task = tokio::spawn(async move {
            table
                .follow(Arc::new(move |change| sink.lock().unwrap().push(change)))
                .await;
        });
        Self { changes, task }
    }

    /// Waits for this change, and forgets what came until then.
    async fn hears(&self, wanted: &TableChange) {
        let hearing = async {
            loop {
                {
                    let mut changes = self.changes.lock().unwrap();
                    if changes.contains(wanted) {
                        changes.clear();
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let limit = Duration::from_secs(20);
        let heard = tokio::time::timeout(limit, hearing).await;
        assert!(heard.is_ok(), "{wanted:?} was never announced");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_cached_record_is_announced_and_none_of_a_log() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let writer = open(&url).await;
    let told = Told::by(open(&url).await);
    told.hears(&TableChange::Any).await;
    let change = TableChange::Record(Kind::Key, "clé/1".to_owned());
    let made = record("clé/1", "made");
    let log = Record {
        kind: Kind::Audit,
        ..record("20260102T03:1", "line")
    };
    writer.put_new(&log).await.unwrap();
    writer.put_new(&made).await.unwrap();
    told.hears(&change).await;
    let next = record("clé/1", "next");
    writer.replace(&next, made.revision).await.unwrap();
    told.hears(&change).await;
    // A write that changes nothing announces nothing.
    writer.put_new(&made).await.unwrap();
    writer
        .replace(&record("clé/1", "late"), made.revision)
        .await
        .unwrap_err();
    writer
        .remove(Kind::Key, "clé/1", next.revision)
        .await
        .unwrap();
    told.hears(&change).await;
    writer.put_new(&record("last", "")).await.unwrap();
    told.hears(&TableChange::Record(Kind::Key, "last".to_owned()))
        .await;
    assert!(told.changes.lock().unwrap().is_empty());
    told.task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn interruption_counts_as_a_change_of_everything() {
    let Some(postgres) = shared().await else {
        return;
    };
    let url = postgres.database();
    let link = Link::to(postgres.socket()).await;
    let told = Told::by(open(&through(&link, &url)).await);
    for fault in [LinkState::Cut, LinkState::Frozen] {
        told.hears(&TableChange::Any).await;
        link.set(fault);
        tokio::time::sleep(Duration::from_secs(5)).await;
        link.set(LinkState::Up);
    }
    told.hears(&TableChange::Any).await;
    told.task.abort();
}
