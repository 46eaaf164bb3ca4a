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

#[tokio::test]
async fn keys_go_when_their_date_has_passed_and_not_before() {
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
    house.clock.advance(7 * DAY - Duration::from_millis(1));
    let nothing = |enabled, pending_deletion| Swept {
        keys: KeyCounts {
            enabled,
            disabled: 0,
            pending_deletion,
        },
        ..Swept::default()
    };
    assert_eq!(janitor(&house).sweep().await.unwrap(), nothing(1, 3));
    keys.cancel_deletion(&root(), &id("spared")).await.unwrap();
    house.clock.advance(Duration::from_millis(1));
    assert_eq!(
        janitor(&house).sweep().await.unwrap().destroyed,
        [id("soon")]
    );
    assert_eq!(janitor(&house).sweep().await.unwrap(), nothing(2, 1));
    assert!(matches!(
        keys.describe(&root(), &id("soon")).await,
        Err(KmsError::KeyNotFound(_))
    ));
    house.clock.advance(23 * DAY);
    assert_eq!(
        janitor(&house).sweep().await.unwrap().destroyed,
        [id("later")]
    );
    for name in ["spared", "kept"] {
        keys.describe(&root(), &id(name)).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_something_names_stays() {
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
async fn a_cancellation_and_a_sweep_at_once_leave_a_whole_key_or_none() {
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
    let sweeps: Vec<_> = (0..3)
        .map(|_| {
            let house = house.clone();
            tokio::spawn(async move { janitor(&house).sweep().await.unwrap() })
        })
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
async fn no_key_is_destroyed_that_the_log_could_not_be_told_of() {
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
async fn a_key_that_could_not_be_destroyed_is_told_of() {
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
    // Its copy cannot be removed, which comes first.
    house.vault.set_down(true);
    janitor.sweep().await.unwrap_err();
    house.vault.set_down(false);
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("due")]);
    let told = log.told.lock().unwrap().clone();
    let due = |error| ("due".to_owned(), error);
    assert_eq!(told, [due(Some("unavailable")), due(None)]);
}
