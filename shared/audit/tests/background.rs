//! Background changes are in the log before the next change is made.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod faults;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faults::FaultyTable;
use keyway_audit::{
    AuditTable, AuditWriter, AuditWriterSettings, Contexts, Flushing, Strictness, Verifier,
};
use keyway_domain::audit::BackgroundAudit;
use keyway_domain::keys::KeyId;
use keyway_domain::ports::{Kind, TableReader};
use keyway_testkit::{FixedClock, SeededRandom};

struct Scene {
    clock: Arc<FixedClock>,
    table: Arc<FaultyTable>,
    audit_writer: AuditWriter,
}

fn scene(strictness: Strictness) -> Scene {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    clock.advance(Duration::from_secs(1));
    let table = Arc::new(faults::table(clock.clone()));
    let audit_writer = AuditWriter::new(
        Box::new(io::sink()),
        AuditTable::new(table.clone()),
        clock.clone(),
        Arc::new(SeededRandom::new(8)),
        AuditWriterSettings {
            strictness,
            contexts: Contexts::Names,
            retention_days: 90,
            flushing: Flushing::ByRequest,
            batch_age: Duration::from_millis(250),
        },
    );
    Scene {
        clock,
        table,
        audit_writer: audit_writer.unwrap(),
    }
}

impl Scene {
    /// Every line of the log in the table.
    async fn kept(&self) -> Vec<String> {
        let page = self.table.page(Kind::Audit, "20260102T03", None, 100).await;
        faults::lines(&page.unwrap().records)
    }
}

fn key() -> KeyId {
    KeyId::parse("key_id", "gone").unwrap()
}

#[tokio::test]
async fn destroyed_key_is_in_the_table_at_once() {
    let scene = scene(Strictness::Required);
    scene.audit_writer.may_proceed().await.unwrap();
    scene.audit_writer.destroyed(&key(), None).await.unwrap();
    scene
        .audit_writer
        .destroyed(&key(), Some("backend"))
        .await
        .unwrap();
    let kept = scene.kept().await;
    let event =
        r#""dialect":"janitor","operation":"kms:DestroyKey","class":"mutation","key_id":"gone","#;
    assert_eq!(kept.len(), 3, "with the event that proves the table");
    assert_eq!(scene.table.interceptor().writes(), 3);
    assert!(
        kept[1].contains(&format!(r#"{event}"hash":"#)),
        "{}",
        kept[1]
    );
    let failed = format!(r#"{event}"error":"backend","hash":"#);
    assert!(kept[2].contains(&failed), "{}", kept[2]);
    let mut verifier = Verifier::new(false);
    kept.iter().for_each(|line| verifier.line(line));
    assert_eq!(verifier.finish().findings, []);
}

#[tokio::test]
async fn act_while_the_table_fails_is_refused() {
    let scene = scene(Strictness::Required);
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    assert!(scene.audit_writer.may_proceed().await.is_err());
    // What was under way by then is there later.
    assert!(scene.audit_writer.destroyed(&key(), None).await.is_err());
    scene
        .table
        .interceptor()
        .fails
        .store(false, Ordering::Relaxed);
    scene.clock.advance(Duration::from_secs(1));
    scene.audit_writer.may_proceed().await.unwrap();
    let kept = scene.kept().await;
    assert!(kept.iter().any(|line| line.contains("kms:DestroyKey")));

    let scene = self::scene(Strictness::BestEffort);
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    scene.audit_writer.may_proceed().await.unwrap();
    scene.audit_writer.destroyed(&key(), None).await.unwrap();
}
