//! Keys whose date has passed are destroyed, and no others.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod house;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use house::{House, id, move_to, named, root};
use keyway_domain::audit::DeedLog;
use keyway_domain::janitor::{Janitor, KeyCounts, Swept};
use keyway_domain::keys::{DeletionWindow, KeyId};
use keyway_domain::ports::Clock as _;
use keyway_domain::service::BackendType;
use keyway_domain::{Fault, KmsError};

const DAY: Duration = Duration::from_secs(24 * 3600);

fn janitor(house: &House) -> Janitor {
    janitor_with(house, None)
}

fn janitor_with(house: &House, log: Option<Arc<dyn DeedLog>>) -> Janitor {
    let process = house.process(false);
    Janitor::new(
        house.table.clone(),
        process.service,
        process.wrappers,
        house.clock.clone(),
        house.random.clone(),
        log,
    )
}

const HOUR: Duration = Duration::from_secs(3600);

/// What a second sweep does, an hour after one that finds what is due.
async fn confirmed(house: &House, janitor: &Janitor) -> Swept {
    janitor.sweep().await.unwrap();
    house.clock.advance(HOUR);
    janitor.sweep().await.unwrap()
}

#[tokio::test]
async fn key_is_destroyed_after_its_date_and_not_before() {
    let house = House::build().await;
    let keys = house.running().await.keys;
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
    let janitor = janitor(&house);
    house.clock.advance(7 * DAY - Duration::from_millis(1));
    let nothing = |enabled, pending_deletion| Swept {
        keys: KeyCounts {
            enabled,
            disabled: 0,
            pending_deletion,
        },
        ..Swept::default()
    };
    assert_eq!(janitor.sweep().await.unwrap(), nothing(1, 3));
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(
        janitor.sweep().await.unwrap().awaiting,
        [id("soon"), id("spared")]
    );
    keys.cancel_deletion(&root(), &id("spared")).await.unwrap();
    house.clock.advance(HOUR - Duration::from_millis(1));
    let swept = janitor.sweep().await.unwrap();
    assert_eq!(
        (swept.destroyed, swept.awaiting),
        (vec![], vec![id("soon")])
    );
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("soon")]);
    assert_eq!(janitor.sweep().await.unwrap(), nothing(2, 1));
    assert!(matches!(
        keys.describe(&root(), &id("soon")).await,
        Err(KmsError::KeyNotFound(_))
    ));
    house.clock.advance(23 * DAY);
    assert_eq!(confirmed(&house, &janitor).await.destroyed, [id("later")]);
    for name in ["spared", "kept"] {
        keys.describe(&root(), &id(name)).await.unwrap();
    }
}

#[tokio::test]
async fn key_in_use_is_not_destroyed() {
    let house = House::build().await;
    let process = house.process(false);
    let default = Some(id("default"));
    process
        .service
        .start_if_new(house.table.as_ref(), house.random.as_ref(), default)
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
    house.clock.advance(8 * DAY);
    assert_eq!(
        janitor(&house).sweep().await.unwrap().referenced,
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
    let house = Arc::new(House::build().await);
    let keys = house.running().await.keys;
    for n in 0..50 {
        let key = id(&format!("k{n}"));
        keys.create(&root(), named(key.as_str())).await.unwrap();
        keys.schedule_deletion(&root(), &key, DeletionWindow::DEFAULT)
            .await
            .unwrap();
    }
    house.clock.advance(7 * DAY);
    let janitors: Vec<_> = (0..3).map(|_| Arc::new(janitor(&house))).collect();
    for janitor in &janitors {
        assert_eq!(janitor.sweep().await.unwrap().awaiting.len(), 50);
    }
    house.clock.advance(HOUR);
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

/// A log that can be out of order.
#[derive(Default)]
struct Log {
    fails: AtomicBool,
    told: Mutex<Vec<(String, Option<&'static str>)>>,
}

#[async_trait]
impl DeedLog for Log {
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
}

#[tokio::test]
async fn key_is_not_destroyed_while_the_audit_log_fails() {
    let house = House::build().await;
    let keys = house.running().await.keys;
    for name in ["due", "kept"] {
        keys.create(&root(), named(name)).await.unwrap();
    }
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    house.clock.advance(30 * DAY);
    let log = Arc::new(Log::default());
    let janitor = janitor_with(&house, Some(log.clone()));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    house.clock.advance(HOUR);
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
    let house = House::build().await;
    let process = house.running().await;
    move_to(&process, BackendType::Vault).await;
    let keys = &process.keys;
    keys.create(&root(), named("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    house.clock.advance(30 * DAY);
    let log = Arc::new(Log::default());
    let janitor = janitor_with(&house, Some(log.clone()));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    house.clock.advance(HOUR);
    // Its copy cannot be removed, which comes first.
    house.vault.set_down(true);
    janitor.sweep().await.unwrap_err();
    house.vault.set_down(false);
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
    let told = log.told.lock().unwrap().clone();
    let due = |error| ("due".to_owned(), error);
    assert_eq!(told, [due(Some("unavailable")), due(None)]);
}

/// A running house with a key that is due in seven days.
async fn with_pending_key() -> House {
    let house = House::build().await;
    let keys = house.running().await.keys;
    keys.create(&root(), named("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    house
}

async fn exists(house: &House, key: &str) -> bool {
    let keys = house.process(false).keys;
    keys.describe(&root(), &id(key)).await.is_ok()
}

fn in_table(house: &House) -> Janitor {
    janitor(house).remembering_in_table()
}

#[tokio::test]
async fn clock_ahead_for_less_than_an_hour_destroys_nothing() {
    for remembers in [false, true] {
        let house = with_pending_key().await;
        let right = house.clock.now();
        let janitor = || {
            if remembers {
                in_table(&house)
            } else {
                janitor(&house)
            }
        };
        let standing = janitor();
        let sweep = async || match remembers {
            // Each lives for one sweep.
            true => janitor().sweep().await.unwrap(),
            false => standing.sweep().await.unwrap(),
        };
        let year = right + 365 * DAY;
        house.clock.set(year);
        for _ in 0..5 {
            assert_eq!(sweep().await.awaiting, [id("due")]);
            house.clock.advance(HOUR / 6);
        }
        // It is set, and for the rest of the seven days nothing happens.
        house.clock.set(right);
        for _ in 0..20 {
            let swept = sweep().await;
            assert_eq!((swept.destroyed, swept.awaiting), (vec![], vec![]));
            house.clock.advance(HOUR / 6);
        }
        // Nor does the hour go on when the clock is ahead once more.
        house.clock.set(year + DAY);
        for _ in 0..5 {
            assert_eq!(sweep().await.awaiting, [id("due")]);
            house.clock.advance(HOUR / 6);
        }
        house.clock.set(right + DAY);
        sweep().await;
        assert!(exists(&house, "due").await);
        house.clock.set(right);
        house.clock.advance(7 * DAY);
        assert_eq!(sweep().await.awaiting, [id("due")]);
        house.clock.advance(HOUR);
        assert_eq!(sweep().await.destroyed, [id("due")]);
    }
}

#[tokio::test]
async fn clock_set_forward_does_not_shorten_the_hour() {
    let house = with_pending_key().await;
    let janitor = janitor(&house);
    house.clock.advance(7 * DAY);
    janitor.sweep().await.unwrap();
    // Only the monotonic clock counts, and a clock that was set has the hour begin anew.
    house.clock.set(house.clock.now() + 2 * HOUR);
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    house.clock.advance(HOUR - Duration::from_secs(1));
    assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
    house.clock.advance(Duration::from_secs(1));
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
}

#[tokio::test]
async fn new_process_waits_its_own_hour() {
    let house = with_pending_key().await;
    house.clock.advance(8 * DAY);
    for _ in 0..10 {
        // Neither what another process found nor a mark in the record counts for one that remembers by itself.
        assert_eq!(in_table(&house).sweep().await.unwrap().destroyed, []);
        let janitor = janitor(&house);
        assert_eq!(janitor.sweep().await.unwrap().awaiting, [id("due")]);
        house.clock.advance(Duration::from_secs(300));
    }
    assert!(exists(&house, "due").await);
}

#[tokio::test]
async fn janitor_of_one_sweep_reads_what_an_earlier_one_wrote() {
    let house = with_pending_key().await;
    house.clock.advance(7 * DAY);
    assert_eq!(
        in_table(&house).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    // As when a failed invocation is repeated.
    house.clock.advance(Duration::from_secs(54 * 60));
    assert_eq!(
        in_table(&house).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    house.clock.advance(Duration::from_secs(60));
    assert_eq!(
        in_table(&house).sweep().await.unwrap().destroyed,
        [id("due")]
    );
    assert!(!exists(&house, "due").await);
}

#[tokio::test]
async fn mark_goes_with_its_deletion() {
    let house = with_pending_key().await;
    let keys = house.process(false).keys;
    house.clock.advance(8 * DAY);
    in_table(&house).sweep().await.unwrap();
    keys.cancel_deletion(&root(), &id("due")).await.unwrap();
    keys.schedule_deletion(&root(), &id("due"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    house.clock.advance(8 * DAY);
    assert_eq!(
        in_table(&house).sweep().await.unwrap().awaiting,
        [id("due")]
    );
    assert!(exists(&house, "due").await);
}

#[tokio::test]
async fn clock_contradicted_by_a_date_destroys_nothing() {
    let house = with_pending_key().await;
    let keys = house.process(false).keys;
    let right = house.clock.now();
    let janitors = [janitor(&house), in_table(&house)];
    house.clock.set(right + 40 * DAY);
    keys.create(&root(), named("later")).await.unwrap();
    house.clock.set(right);
    house.clock.advance(8 * DAY);
    for _ in 0..3 {
        for janitor in &janitors {
            let swept = janitor.sweep().await.unwrap();
            assert_eq!(swept.doubted.map(|(key, _)| key), Some(id("later")));
            assert_eq!((swept.destroyed, swept.awaiting), (vec![], vec![]));
        }
        house.clock.advance(HOUR);
    }
    house.clock.advance(32 * DAY);
    assert_eq!(confirmed(&house, &janitors[0]).await.destroyed, [id("due")]);
}
