//! Keys whose date has passed are destroyed, and no others.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fixture::{Fixture, id, move_to, named, root};
use keyway_domain::audit::BackgroundAudit;
use keyway_domain::janitor::{Janitor, KeyCounts, Swept};
use keyway_domain::keys::{DeletionWindow, KeyId};
use keyway_domain::ports::Clock as _;
use keyway_domain::service::BackendType;
use keyway_domain::{Fault, KmsError};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn janitor(fixture: &Fixture) -> Janitor {
    janitor_with(fixture, None)
}

fn janitor_with(fixture: &Fixture, log: Option<Arc<dyn BackgroundAudit>>) -> Janitor {
    let process = fixture.process(false);
    Janitor::new(
        fixture.table.clone(),
        process.service,
        process.wrappers,
        fixture.clock.clone(),
        fixture.random.clone(),
        log,
    )
}

const HOUR: Duration = Duration::from_secs(3600);

/// The result of a second sweep, an hour after one that finds the due keys.
async fn confirmed(fixture: &Fixture, janitor: &Janitor) -> Swept {
    janitor.sweep().await.unwrap();
    fixture.clock.advance(HOUR);
    janitor.sweep().await.unwrap()
}

#[tokio::test]
async fn key_is_destroyed_after_its_date_and_not_before() {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    for (name, days) in [
        ("soon", Some(7)),
        ("later", Some(30)),
        ("spared", Some(7)),
        ("kept", None),
    ] {
        keys.create(&root(), named(name)).await.unwrap();
        if let Some(days) = days {
            let window = DeletionWindow::days(days).unwrap();
            keys.schedule_deletion(&root(), &id(name), window)
                .await
                .unwrap();
        }
    }
    let janitor = janitor(&fixture);
    fixture.clock.advance(7 * DAY - Duration::from_millis(1));
    let nothing = |enabled, pending_deletion| Swept {
        keys: KeyCounts {
            enabled,
            disabled: 0,
            pending_deletion,
        },
        ..Swept::default()
    };
    assert_eq!(janitor.sweep().await.unwrap(), nothing(1, 3));
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(
        janitor.sweep().await.unwrap().awaiting,
        [id("soon"), id("spared")]
    );
    keys.cancel_deletion(&root(), &id("spared")).await.unwrap();
    fixture.clock.advance(HOUR - Duration::from_millis(1));
    let swept = janitor.sweep().await.unwrap();
    assert_eq!(
        (swept.destroyed, swept.awaiting),
        (vec![], vec![id("soon")])
    );
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("soon")]);
    assert_eq!(janitor.sweep().await.unwrap(), nothing(2, 1));
    assert!(matches!(
        keys.describe(&root(), &id("soon")).await,
        Err(KmsError::KeyNotFound(_))
    ));
    fixture.clock.advance(23 * DAY);
    assert_eq!(confirmed(&fixture, &janitor).await.destroyed, [id("later")]);
    for name in ["spared", "kept"] {
        keys.describe(&root(), &id(name)).await.unwrap();
    }
}

#[tokio::test]
async fn key_in_use_is_not_destroyed() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    let default = Some(id("default"));
    process
        .service
        .start_if_new(fixture.table.as_ref(), fixture.random.as_ref(), default)
        .await
        .unwrap();
    process
        .keys
        .create(&root(), named("default"))
        .await
        .unwrap();
    process
        .keys
        .schedule_deletion(&root(), &id("default"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    fixture.clock.advance(8 * DAY);
    assert_eq!(
        janitor(&fixture).sweep().await.unwrap().referenced,
        [id("default")]
    );
    process
        .keys
        .cancel_deletion(&root(), &id("default"))
        .await
        .unwrap();
}

#[tokio::test]
async fn cancellation_during_a_sweep_leaves_a_whole_key_or_none() {
    let fixture = Arc::new(Fixture::build().await);
    let keys = fixture.running().await.keys;
    for n in 0..50 {
        let key = id(&format!("k{n}"));
        keys.create(&root(), named(key.as_str())).await.unwrap();
        keys.schedule_deletion(&root(), &key, DeletionWindow::DEFAULT)
            .await
            .unwrap();
    }
    fixture.clock.advance(7 * DAY);
    let janitors: Vec<_> = (0..3).map(|_| Arc::new(janitor(&fixture))).collect();
    for janitor in &janitors {
        assert_eq!(janitor.sweep().await.unwrap().awaiting.len(), 50);
    }
    fixture.clock.advance(HOUR);
    let sweeps: Vec<_> = (janitors.into_iter())
        .map(|janitor| tokio::spawn(async move { janitor.sweep().await.unwrap() }))
        .collect();
    let mut spared = Vec::new();
    let mut destroyed = Vec::new();
    for n in (0..50).rev() {
        let key = id(&format!("k{n}"));
        match keys.cancel_deletion(&root(), &key).await {
            Ok(_) => spared.push(key),
            Err(KmsError::KeyNotFound(_)) => {}
            Err(other) => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    for sweep in sweeps {
        for gone in sweep.await.unwrap().destroyed {
            assert!(!spared.contains(&gone), "{gone} was spared and destroyed");
            assert!(!destroyed.contains(&gone), "{gone} was destroyed twice");
            destroyed.push(gone);
        }
    }
    assert_eq!(spared.len() + destroyed.len(), 50);
    for key in &spared {
        keys.describe(&root(), key).await.unwrap();
    }
}

/// A log that can fail.
#[derive(Default)]
struct Log {
    fails: AtomicBool,
    told: Mutex<Vec<(String, Option<&'static str>)>>,
}

#[async_trait]
impl BackgroundAudit for Log {
    async fn may_proceed(&self) -> Result<(), KmsError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(KmsError::Unavailable(Fault::plain("no log"))),
            false => Ok(()),
        }
    }

    async fn destroyed(&self, key: &KeyId, error: Option<&'static str>) -> Result<(), KmsError> {
        let mut told = self.told.lock().unwrap();
        told.push((key.to_string(), error));
        Ok(())
    }

    async fn rotated(
        &self,
        key: &KeyId,
        version: u32,
        error: Option<&'static str>,
    ) -> Result<(), KmsError> {
        let mut told = self.told.lock().unwrap();
        told.push((format!("{key} has version {version}"), error));
        Ok(())
    }
}

#[tokio::test]
async fn key_is_not_destroyed_while_the_audit_log_fails() {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    for name in ["due", "kept"] {
        keys.create(&root(), named(name)).await.unwrap();
    }
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    fixture.clock.advance(30 * DAY);
    let log = Arc::new(Log::default());
    let janitor = janitor_with(&fixture, Some(log.clone()));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    fixture.clock.advance(HOUR);
    log.fails.store(true, Ordering::Relaxed);
    assert!(matches!(
        janitor.sweep().await,
        Err(KmsError::Unavailable(_))
    ));
    keys.describe(&root(), &id("due")).await.unwrap();
    assert_eq!(*log.told.lock().unwrap(), []);
    log.fails.store(false, Ordering::Relaxed);
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
    assert_eq!(*log.told.lock().unwrap(), [("due".to_owned(), None)]);
    janitor.sweep().await.unwrap();
    assert_eq!(log.told.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn failed_destruction_is_in_the_audit_log() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    let keys = &process.keys;
    keys.create(&root(), named("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    fixture.clock.advance(30 * DAY);
    let log = Arc::new(Log::default());
    let janitor = janitor_with(&fixture, Some(log.clone()));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    fixture.clock.advance(HOUR);
    // Its copy is removed first, and cannot be.
    fixture.vault.set_down(true);
    janitor.sweep().await.unwrap_err();
    fixture.vault.set_down(false);
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
    let told = log.told.lock().unwrap().clone();
    let due = |error| ("due".to_owned(), error);
    assert_eq!(told, [due(Some("unavailable")), due(None)]);
}

/// A running deployment with a key that is due in seven days.
async fn with_pending_key() -> Fixture {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    keys.create(&root(), named("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    fixture
}

async fn exists(fixture: &Fixture, key: &str) -> bool {
    let keys = fixture.process(false).keys;
    keys.describe(&root(), &id(key)).await.is_ok()
}

fn in_table(fixture: &Fixture) -> Janitor {
    janitor(fixture).remembering_in_table()
}

#[tokio::test]
async fn clock_ahead_for_less_than_an_hour_destroys_nothing() {
    for remembers in [false, true] {
        let fixture = with_pending_key().await;
        let right = fixture.clock.now();
        let janitor = || {
            if remembers {
                in_table(&fixture)
            } else {
                janitor(&fixture)
            }
        };
        let standing = janitor();
        let sweep = async || match remembers {
            // Each process makes one sweep.
            true => janitor().sweep().await.unwrap(),
            false => standing.sweep().await.unwrap(),
        };
        let year = right + 365 * DAY;
        fixture.clock.set(year);
        for _ in 0..5 {
            assert_eq!(sweep().await.awaiting, [id("due")]);
            fixture.clock.advance(HOUR / 6);
        }
        // The clock is set right, and nothing happens for the rest of the seven days.
        fixture.clock.set(right);
        for _ in 0..20 {
            let swept = sweep().await;
            assert_eq!((swept.destroyed, swept.awaiting), (vec![], vec![]));
            fixture.clock.advance(HOUR / 6);
        }
        // When the clock is ahead again, the hour starts anew.
        fixture.clock.set(year + DAY);
        for _ in 0..5 {
            assert_eq!(sweep().await.awaiting, [id("due")]);
            fixture.clock.advance(HOUR / 6);
        }
        fixture.clock.set(right + DAY);
        sweep().await;
        assert!(exists(&fixture, "due").await);
        fixture.clock.set(right);
        fixture.clock.advance(7 * DAY);
        assert_eq!(sweep().await.awaiting, [id("due")]);
        fixture.clock.advance(HOUR);
        assert_eq!(sweep().await.destroyed, [id("due")]);
    }
}

#[tokio::test]
async fn clock_set_forward_does_not_shorten_the_hour() {
    let fixture = with_pending_key().await;
    let janitor = janitor(&fixture);
    fixture.clock.advance(7 * DAY);
    janitor.sweep().await.unwrap();
    // Only the monotonic clock counts, and a clock that was set has the hour begin anew.
    fixture.clock.set(fixture.clock.now() + 2 * HOUR);
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    fixture.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    fixture.clock.advance(Duration::from_secs(1));
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
}

#[tokio::test]
async fn new_process_waits_its_own_hour() {
    let fixture = with_pending_key().await;
    fixture.clock.advance(8 * DAY);
    for _ in 0..10 {
        // Neither what another process found nor a mark in the record counts for one that remembers by itself.
        assert_eq!(in_table(&fixture).sweep().await.unwrap().destroyed, []);
        let janitor = janitor(&fixture);
        assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
        fixture.clock.advance(Duration::from_secs(300));
    }
    assert!(exists(&fixture, "due").await);
}

#[tokio::test]
async fn janitor_of_one_sweep_reads_what_an_earlier_one_wrote() {
    let fixture = with_pending_key().await;
    fixture.clock.advance(7 * DAY);
    assert_eq!(
        in_table(&fixture).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    // A failed invocation is repeated like this.
    fixture.clock.advance(Duration::from_secs(54 * 60));
    assert_eq!(
        in_table(&fixture).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    fixture.clock.advance(Duration::from_secs(60));
    assert_eq!(
        in_table(&fixture).sweep().await.unwrap().destroyed,
        [id("due")]
    );
    assert!(!exists(&fixture, "due").await);
}

#[tokio::test]
async fn mark_goes_with_its_deletion() {
    let fixture = with_pending_key().await;
    let keys = fixture.process(false).keys;
    fixture.clock.advance(8 * DAY);
    in_table(&fixture).sweep().await.unwrap();
    keys.cancel_deletion(&root(), &id("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    fixture.clock.advance(8 * DAY);
    assert_eq!(
        in_table(&fixture).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    assert!(exists(&fixture, "due").await);
}

#[tokio::test]
async fn clock_contradicted_by_a_date_destroys_nothing() {
    let fixture = with_pending_key().await;
    let keys = fixture.process(false).keys;
    let right = fixture.clock.now();
    let janitors = [janitor(&fixture), in_table(&fixture)];
    fixture.clock.set(right + 40 * DAY);
    keys.create(&root(), named("later")).await.unwrap();
    fixture.clock.set(right);
    fixture.clock.advance(8 * DAY);
    for _ in 0..3 {
        for janitor in &janitors {
            let swept = janitor.sweep().await.unwrap();
            assert_eq!(swept.doubted.map(|(key, _)| key), Some(id("later")));
            assert_eq!((swept.destroyed, swept.awaiting), (vec![], vec![]));
        }
        fixture.clock.advance(HOUR);
    }
    fixture.clock.advance(32 * DAY);
    assert_eq!(
        confirmed(&fixture, &janitors[0]).await.destroyed,
        [id("due")]
    );
}
