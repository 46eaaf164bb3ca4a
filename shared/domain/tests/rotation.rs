//! Automatic rotation: the janitor rotates keys by their schedules, and no others.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use fixture::{Fixture, id, move_to, named, root, with_policy};
use jiff::SignedDuration;
use keyway_domain::audit::BackgroundAudit;
use keyway_domain::datakey::DataKeyRequest;
use keyway_domain::janitor::{Janitor, Swept};
use keyway_domain::keys::{DeletionWindow, KeyId, MasterKey, RotationPeriod};
use keyway_domain::ports::Clock as _;
use keyway_domain::service::BackendType;
use keyway_domain::{EncryptionContext, Fault, KmsError, SecretBytes};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

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

fn janitor(fixture: &Fixture) -> Janitor {
    janitor_with(fixture, None)
}

/// The result of a second sweep, an hour after one that finds the due keys.
async fn confirmed(fixture: &Fixture, janitor: &Janitor) -> Swept {
    janitor.sweep().await.unwrap();
    fixture.clock.advance(HOUR);
    janitor.sweep().await.unwrap()
}

fn period(days: i64) -> RotationPeriod {
    RotationPeriod::days(days).unwrap()
}

/// A running deployment with keys that rotate every 90 days.
async fn with_rotating(names: &[&str]) -> Fixture {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    for name in names {
        keys.create(&root(), named(name)).await.unwrap();
        keys.enable_rotation(&root(), &id(name), period(90))
            .await
            .unwrap();
    }
    fixture
}

async fn described(fixture: &Fixture, name: &str) -> MasterKey {
    let keys = fixture.process(false).keys;
    keys.describe(&root(), &id(name)).await.unwrap()
}

#[tokio::test]
async fn key_rotates_when_its_period_has_passed_and_keeps_its_dates() {
    let fixture = with_rotating(&["k"]).await;
    let keys = fixture.process(false).keys;
    keys.create(&root(), named("still")).await.unwrap();
    let begun = fixture.clock.now();
    let janitor = janitor(&fixture);
    fixture.clock.advance(90 * DAY - Duration::from_millis(1));
    assert!(confirmed(&fixture, &janitor).await.rotated.is_empty());
    let swept = confirmed(&fixture, &janitor).await;
    assert_eq!(swept.rotated, [id("k")]);
    assert!(janitor.sweep().await.unwrap().rotated.is_empty());

    let key = described(&fixture, "k").await;
    let automatic: Vec<bool> = key.history().iter().map(|made| made.is_automatic).collect();
    assert_eq!(automatic, [false, true]);
    // The next date counts from the last date, not from the sweep.
    let next = key.rotation().unwrap().next_at;
    let truncated = (begun + 180 * DAY).duration_since(next);
    assert!(truncated < SignedDuration::from_micros(1), "{truncated}");
    assert_eq!(described(&fixture, "still").await.current_version(), 1);

    // A rotation on demand leaves the schedule as it is.
    let key = keys.rotate(&root(), &id("k")).await.unwrap();
    assert_eq!(key.rotation().unwrap().next_at, next);
    assert!(!key.history().last().unwrap().is_automatic);
}

#[tokio::test]
async fn ciphertexts_of_before_a_rotation_open_afterwards() {
    let fixture = with_rotating(&["k"]).await;
    let none = EncryptionContext::none();
    let request = DataKeyRequest::new(id("k"), &none);
    let plaintext = SecretBytes::from(b"secret".to_vec());
    let data_keys = fixture.process(false).data_keys;
    let sealed = data_keys.encrypt(&root(), &request, &plaintext, 64).await;
    let sealed = sealed.unwrap();
    fixture.clock.advance(90 * DAY);
    confirmed(&fixture, &janitor(&fixture)).await;
    let again = data_keys.encrypt(&root(), &request, &plaintext, 64).await;
    assert_eq!((sealed.key_version, again.unwrap().key_version), (1, 2));
    let opened = data_keys.decrypt(&root(), &request, &sealed.blob).await;
    assert!(opened.unwrap().plaintext.ct_eq(b"secret"));
}

#[tokio::test]
async fn missed_dates_cost_one_rotation() {
    let fixture = with_rotating(&["k"]).await;
    let begun = described(&fixture, "k").await.rotation().unwrap().next_at - 90 * DAY;
    fixture.clock.advance(1000 * DAY);
    let janitor = janitor(&fixture);
    assert_eq!(confirmed(&fixture, &janitor).await.rotated, [id("k")]);
    assert!(confirmed(&fixture, &janitor).await.rotated.is_empty());
    let key = described(&fixture, "k").await;
    assert_eq!(key.current_version(), 2);
    assert_eq!(key.rotation().unwrap().next_at, begun + 12 * 90 * DAY);
}

#[tokio::test]
async fn several_janitors_rotate_a_key_once() {
    let names: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fixture = with_rotating(&names).await;
    fixture.clock.advance(90 * DAY);
    let janitors: Vec<Arc<Janitor>> = (0..4).map(|_| Arc::new(janitor(&fixture))).collect();
    for janitor in &janitors {
        janitor.sweep().await.unwrap();
    }
    fixture.clock.advance(HOUR);
    let sweeps: Vec<_> = janitors
        .into_iter()
        .map(|janitor| tokio::spawn(async move { janitor.sweep().await.unwrap() }))
        .collect();
    let mut rotated = Vec::new();
    for sweep in sweeps {
        rotated.extend(sweep.await.unwrap().rotated);
    }
    assert_eq!(rotated.len(), 30);
    for name in names {
        assert_eq!(described(&fixture, name).await.current_version(), 2);
    }
}

#[tokio::test]
async fn key_that_is_not_enabled_rotates_when_it_is_again() {
    let fixture = with_rotating(&["off", "gone"]).await;
    let keys = fixture.process(false).keys;
    keys.disable(&root(), &id("off")).await.unwrap();
    let window = DeletionWindow::days(30).unwrap();
    fixture.clock.advance(80 * DAY);
    let gone = keys.schedule_deletion(&root(), &id("gone"), window).await;
    assert!(gone.unwrap().rotation().is_none(), "it does not rotate");
    fixture.clock.advance(15 * DAY);
    let janitor = janitor(&fixture);
    assert!(confirmed(&fixture, &janitor).await.rotated.is_empty());
    assert!(described(&fixture, "off").await.rotation().is_some());
    for refused in [
        keys.enable_rotation(&root(), &id("off"), period(90)).await,
        keys.disable_rotation(&root(), &id("off")).await,
        keys.disable_rotation(&root(), &id("gone")).await,
    ] {
        assert!(matches!(refused, Err(KmsError::KeyState { .. })));
    }
    keys.enable(&root(), &id("off")).await.unwrap();
    let gone = keys.cancel_deletion(&root(), &id("gone")).await.unwrap();
    assert!(gone.rotation().is_some());
    let swept = confirmed(&fixture, &janitor).await;
    assert_eq!(swept.rotated, [id("gone"), id("off")]);
}

#[tokio::test]
async fn janitor_of_single_sweeps_confirms_by_the_record() {
    let fixture = with_rotating(&["k"]).await;
    let once = async || {
        let janitor = janitor(&fixture).remembering_in_table();
        janitor.sweep().await.unwrap().rotated
    };
    fixture.clock.advance(90 * DAY);
    assert!(once().await.is_empty());
    assert!(once().await.is_empty(), "an hour has not passed");
    fixture.clock.advance(HOUR);
    assert_eq!(once().await, [id("k")]);
    assert!(once().await.is_empty());
}

#[tokio::test]
async fn clock_ahead_for_less_than_an_hour_rotates_nothing() {
    for remembers in [false, true] {
        let fixture = with_rotating(&["k"]).await;
        let right = fixture.clock.now();
        let standing = janitor(&fixture);
        let sweep = async || match remembers {
            true => janitor(&fixture).remembering_in_table().sweep().await,
            false => standing.sweep().await,
        };
        fixture.clock.set(right + 400 * DAY);
        for _ in 0..5 {
            sweep().await.unwrap();
            fixture.clock.advance(HOUR / 6);
        }
        fixture.clock.set(right);
        for _ in 0..10 {
            sweep().await.unwrap();
            fixture.clock.advance(HOUR / 6);
        }
        fixture.clock.set(right + 90 * DAY);
        assert!(sweep().await.unwrap().rotated.is_empty());
        assert_eq!(described(&fixture, "k").await.current_version(), 1);
    }
}

#[tokio::test]
async fn schedule_that_begins_in_the_future_stops_the_janitor() {
    let fixture = with_rotating(&["k"]).await;
    fixture.clock.advance(90 * DAY);
    let right = fixture.clock.now();
    let keys = fixture.process(false).keys;
    keys.create(&root(), named("ahead")).await.unwrap();
    fixture.clock.set(right + 10 * DAY);
    keys.enable_rotation(&root(), &id("ahead"), period(90))
        .await
        .unwrap();
    fixture.clock.set(right);
    let swept = confirmed(&fixture, &janitor(&fixture)).await;
    assert_eq!(swept.doubted.unwrap().0, id("ahead"));
    assert!(swept.rotated.is_empty());
}

#[tokio::test]
async fn period_that_is_set_again_keeps_its_date_and_another_counts_from_now() {
    let fixture = with_rotating(&["k"]).await;
    let keys = fixture.process(false).keys;
    let first = described(&fixture, "k").await.rotation().unwrap().next_at;
    fixture.clock.advance(DAY);
    let enabled = async |days| {
        let key = keys.enable_rotation(&root(), &id("k"), period(days)).await;
        key.unwrap().rotation().unwrap().next_at
    };
    assert_eq!(enabled(90).await, first);
    assert_eq!(enabled(180).await, first + 91 * DAY);
    let key = keys.disable_rotation(&root(), &id("k")).await.unwrap();
    assert!(key.rotation().is_none());
    assert_eq!(enabled(90).await, first + DAY);
    for days in [89, 2561, -1, 1 << 40] {
        assert!(RotationPeriod::days(days).is_err(), "{days}");
    }
}

#[tokio::test]
async fn stopped_service_rotates_after_its_start() {
    let fixture = with_rotating(&["k"]).await;
    let control = fixture.process(false).control;
    control.stop(&root()).await.unwrap();
    fixture.clock.advance(90 * DAY);
    let janitor = janitor(&fixture);
    assert!(confirmed(&fixture, &janitor).await.rotated.is_empty());
    control.start(&root(), false).await.unwrap();
    fixture.clock.advance(Duration::from_secs(10));
    assert_eq!(janitor.sweep().await.unwrap().rotated, [id("k")]);
}

#[tokio::test]
async fn key_with_the_most_versions_is_reported_and_blocks_no_other() {
    let fixture = with_rotating(&["full", "k"]).await;
    fixture
        .rewrite("full", |record| {
            let versions = record["versions"].as_array_mut().unwrap();
            let one = versions.first().unwrap().clone();
            for number in 2..=500 {
                let mut version = one.clone();
                version["version"] = number.into();
                versions.push(version);
            }
        })
        .await;
    fixture.clock.advance(90 * DAY);
    let swept = confirmed(&fixture, &janitor(&fixture)).await;
    assert_eq!(
        (swept.full, swept.rotated),
        (vec![id("full")], vec![id("k")])
    );
}

#[tokio::test]
async fn rotation_over_vault_updates_the_sealed_copy() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    let keys = fixture.process(false).keys;
    keys.create(&root(), named("k")).await.unwrap();
    keys.enable_rotation(&root(), &id("k"), period(90))
        .await
        .unwrap();
    fixture.clock.advance(90 * DAY);
    let janitor = janitor(&fixture);
    janitor.sweep().await.unwrap();
    fixture.clock.advance(HOUR);
    fixture.vault.set_down(true);
    assert!(matches!(
        janitor.sweep().await,
        Err(KmsError::Unavailable(_))
    ));
    fixture.vault.set_down(false);
    assert_eq!(janitor.sweep().await.unwrap().rotated, [id("k")]);
    let migration = keyway_domain::migration::KeyMigration::new(
        fixture.table.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.random.clone(),
    );
    let outcome = migration.rewrap(|_| ()).await.unwrap();
    assert_eq!(
        (outcome.changed, outcome.unchanged),
        (0, 1),
        "the copy is right"
    );
}

#[derive(Default)]
struct Log {
    fails: AtomicBool,
    told: Mutex<Vec<(String, u32, Option<&'static str>)>>,
}

#[async_trait]
impl BackgroundAudit for Log {
    async fn may_proceed(&self) -> Result<(), KmsError> {
        match self.fails.load(Ordering::Relaxed) {
            true => Err(KmsError::Unavailable(Fault::plain("no log"))),
            false => Ok(()),
        }
    }

    async fn destroyed(&self, _: &KeyId, _: Option<&'static str>) -> Result<(), KmsError> {
        Ok(())
    }

    async fn rotated(
        &self,
        key: &KeyId,
        version: u32,
        error: Option<&'static str>,
    ) -> Result<(), KmsError> {
        let mut told = self.told.lock().unwrap();
        told.push((key.to_string(), version, error));
        Ok(())
    }
}

#[tokio::test]
async fn rotation_is_recorded_and_without_the_audit_log_nothing_rotates() {
    let fixture = with_rotating(&["k"]).await;
    fixture.clock.advance(90 * DAY);
    let log = Arc::new(Log::default());
    let janitor = janitor_with(&fixture, Some(log.clone()));
    janitor.sweep().await.unwrap();
    fixture.clock.advance(HOUR);
    log.fails.store(true, Ordering::Relaxed);
    janitor.sweep().await.unwrap_err();
    assert_eq!(described(&fixture, "k").await.current_version(), 1);
    log.fails.store(false, Ordering::Relaxed);
    janitor.sweep().await.unwrap();
    let told = log.told.lock().unwrap().clone();
    assert_eq!(told, [("k".to_owned(), 2, None)]);
}

#[tokio::test]
async fn schedule_needs_the_permission_to_rotate() {
    let fixture = with_rotating(&["k"]).await;
    let keys = fixture.process(false).keys;
    let caller = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:DescribeKey"}}"#);
    for refused in [
        keys.enable_rotation(&caller, &id("k"), period(90)).await,
        keys.disable_rotation(&caller, &id("k")).await,
        keys.disable_rotation(&caller, &id("none")).await,
    ] {
        assert!(matches!(refused, Err(KmsError::NotPermitted)));
    }
}
