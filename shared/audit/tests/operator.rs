//! The events of the operator's commands.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod faults;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use faults::FaultyTable;
use keyway_audit::{OperatorAction, OperatorEvent, OperatorLog, Verified, Verifier};
use keyway_domain::ports::{Kind, Record, TableReader};
use keyway_testkit::{FixedClock, SeededRandom};

struct Scene {
    table: Arc<FaultyTable>,
    log: OperatorLog,
}

fn scene() -> Scene {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    clock.advance(Duration::from_secs(1));
    let table = Arc::new(faults::table(clock.clone()));
    let random = Arc::new(SeededRandom::new(8));
    let log = OperatorLog::new(table.clone(), clock, random).unwrap();
    Scene { table, log }
}

impl Scene {
    async fn records(&self) -> Vec<Record> {
        let page = self.table.page(Kind::Audit, "20260102T03", None, 100).await;
        page.unwrap().records
    }

    /// Every line of the log in the table.
    async fn lines(&self) -> Vec<String> {
        faults::lines(&self.records().await)
    }
}

fn verified(lines: &[String]) -> Verified {
    let mut verifier = Verifier::new(false);
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish()
}

#[tokio::test]
async fn command_is_in_the_table_when_it_begins_and_when_it_has_ended() {
    let scene = scene();
    let action = OperatorAction::RotateRoot;
    scene.log.begin(action).await.unwrap();
    let begun = r#""dialect":"operator","operation":"audit:Started","resource":"kms:RotateRoot","#;
    let lines = scene.lines().await;
    assert!(lines.len() == 1 && lines[0].contains(begun), "{lines:?}");
    let event = OperatorEvent::new(action)
        .of("root", "r2")
        .counted("records", 3);
    scene.log.record(&event).await.unwrap();
    scene
        .log
        .record(&OperatorEvent::failed(action))
        .await
        .unwrap();
    assert_eq!(scene.table.interceptor().writes(), 3);
    let lines = scene.lines().await;
    let ended = r#""dialect":"operator","operation":"kms:RotateRoot","class":"mutation","#;
    let done = format!(r#"{ended}"resource":"root/r2","counts":{{"records":3}},"hash":"#);
    assert!(lines[1].contains(&done), "{}", lines[1]);
    let failed = format!(r#"{ended}"error":"failed","hash":"#);
    assert!(lines[2].contains(&failed), "{}", lines[2]);
    assert_eq!(verified(&lines).findings, []);
    let records = scene.records().await;
    assert!(records.iter().all(|record| record.expires_at.is_none()));
}

#[tokio::test]
async fn event_with_many_keys_is_several_events_that_log_drivers_do_not_cut() {
    let scene = scene();
    let keys = (0..150).map(|number| format!("{number:0>128}"));
    let event = OperatorEvent::new(OperatorAction::ImportKeys).on_keys(keys);
    scene
        .log
        .record(&event.counted("imported", 150))
        .await
        .unwrap();
    let lines = scene.lines().await;
    assert!(lines.iter().all(|line| line.len() < 16 << 10));
    let firsts = [0, 64, 128].map(|first| format!(r#""first_item":{first},"item_count":150"#));
    assert_eq!(lines.len(), firsts.len());
    for (line, first) in lines.iter().zip(&firsts) {
        assert!(line.contains(first), "{first}: {line}");
    }
    let counted = lines
        .iter()
        .filter(|line| line.contains(r#""imported":150"#));
    assert_eq!(counted.count(), 1);
    assert_eq!(verified(&lines).findings, []);
}

#[tokio::test]
async fn restored_backup_is_in_the_table_and_verifying_tells_it() {
    let scene = scene();
    let last = "20260102T030405.000000Z.w.000000000000";
    for event in [
        OperatorEvent::restored("b1", Some(last)),
        OperatorEvent::restored("b2", None),
    ] {
        scene
            .log
            .record(&event.counted("records", 7))
            .await
            .unwrap();
    }
    let lines = scene.lines().await;
    let event = format!(
        r#""dialect":"operator","operation":"kms:RestoreBackup","class":"mutation","resource":"backup/b1/{last}","counts":{{"records":7}},"#
    );
    assert!(lines.iter().any(|line| line.contains(&event)), "{lines:?}");
    let verified = verified(&lines);
    assert_eq!(verified.findings, []);
    let told = verified.restores.into_iter();
    let told: Vec<_> = told.map(|one| (one.backup, one.last_record)).collect();
    let expected = [("b1", Some(last)), ("b2", None)];
    let owned = |(backup, last): (&str, Option<&str>)| (backup.to_owned(), last.map(str::to_owned));
    assert_eq!(told, expected.map(owned));
}

#[tokio::test]
async fn command_over_a_table_that_fails_is_told_so() {
    let scene = scene();
    scene
        .table
        .interceptor()
        .fails
        .store(true, Ordering::Relaxed);
    let action = OperatorAction::CreateBackup;
    assert!(scene.log.begin(action).await.is_err());
    assert!(scene.log.record(&OperatorEvent::new(action)).await.is_err());
}
