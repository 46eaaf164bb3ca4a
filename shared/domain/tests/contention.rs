//! Changes while other writers are faster: each is retried, acts once, and ends after the last try.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fixture::{Fixture, Process, id, move_to, named, root};
use keyway_domain::KmsError;
use keyway_domain::buckets::{BucketError, BucketName, Buckets, TableBuckets};
use keyway_domain::control::ServiceControl;
use keyway_domain::identity::{Identities, IdentityControl, PolicyName, Rules, Written};
use keyway_domain::keys::{KeyState, Keys};
use keyway_domain::migration::KeyMigration;
use keyway_domain::ports::{
    Consistency, InterceptedTable, Kind, StoreError, TableCall, TableInterceptor, TableReader,
};
use keyway_domain::service::BackendType;
use keyway_domain::vault::Vault;
use keyway_testkit::MemoryTable;

/// The number of tries of a change.
const ATTEMPTS: usize = 16;

/// Another writer is faster this many times.
struct Contended {
    losses: AtomicUsize,
}

impl Contended {
    fn lose(&self) -> Result<(), StoreError> {
        let one_less = |losses: usize| losses.checked_sub(1);
        match self
            .losses
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less)
        {
            Ok(_) => Err(StoreError::Conflict),
            Err(_) => Ok(()),
        }
    }
}

impl TableInterceptor for Contended {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        if call.is_write() {
            self.lose()?;
        }
        run.await
    }
}

/// The fixture's table, which loses so many writes to another writer.
fn contended(fixture: &Fixture, losses: usize) -> Arc<InterceptedTable<MemoryTable, Contended>> {
    let losses = AtomicUsize::new(losses);
    Arc::new(InterceptedTable::new(
        fixture.table.clone(),
        Contended { losses },
    ))
}

async fn with_key() -> (Fixture, Process) {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    (fixture, process)
}

/// Operations on keys over a table at which this many writes lose.
fn keys(fixture: &Fixture, process: &Process, losses: usize) -> Keys {
    Keys::new(
        contended(fixture, losses),
        process.reader.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
        true,
    )
}

#[tokio::test]
async fn rotation_that_loses_adds_one_version() {
    let (fixture, process) = with_key().await;
    let keys = keys(&fixture, &process, ATTEMPTS - 1);
    let rotated = keys.rotate(&root(), &id("k")).await.unwrap();
    assert_eq!(rotated.current_version(), 2);
    let stored = process.keys.describe(&root(), &id("k")).await.unwrap();
    assert_eq!(stored, rotated);
}

#[tokio::test]
async fn change_of_a_key_that_always_loses_is_contended_and_changes_nothing() {
    let (fixture, process) = with_key().await;
    let before = process.keys.describe(&root(), &id("k")).await.unwrap();
    for losing in [
        keys(&fixture, &process, ATTEMPTS)
            .disable(&root(), &id("k"))
            .await,
        keys(&fixture, &process, ATTEMPTS)
            .rotate(&root(), &id("k"))
            .await,
    ] {
        assert!(matches!(losing, Err(KmsError::Contended(key)) if key == id("k")));
    }
    let destroyed = keys(&fixture, &process, ATTEMPTS)
        .destroy(&root(), &id("k"))
        .await;
    assert!(matches!(destroyed, Err(KmsError::Contended(_))));
    let after = process.keys.describe(&root(), &id("k")).await.unwrap();
    assert_eq!(before, after);
    let disabled = keys(&fixture, &process, ATTEMPTS - 1)
        .disable(&root(), &id("k"))
        .await;
    assert_eq!(disabled.unwrap().state, KeyState::Disabled);
}

#[tokio::test]
async fn change_of_the_service_that_always_loses_is_a_conflict() {
    let (fixture, process) = with_key().await;
    let control = |losses| {
        ServiceControl::new(
            contended(&fixture, losses),
            process.service.clone(),
            process.reader.clone(),
            process.wrappers.clone(),
            None,
            fixture.random.clone(),
        )
    };
    let lost = control(ATTEMPTS).stop(&root()).await;
    assert!(matches!(lost, Err(KmsError::Conflict(_))));
    process.service.running().await.unwrap();
    assert!(control(ATTEMPTS - 1).stop(&root()).await.unwrap());
    let stopped = process.service.running().await;
    assert!(matches!(stopped, Err(KmsError::NotRunning)));
}

#[tokio::test]
async fn change_of_a_bucket_that_always_loses_is_throttled() {
    let fixture = Fixture::build().await;
    let name = BucketName::parse("photos").unwrap();
    let buckets = |losses| {
        let table = contended(&fixture, losses);
        TableBuckets::new(table, fixture.clock.clone(), fixture.random.clone())
    };
    let lost = buckets(ATTEMPTS).create(&name).await;
    assert!(matches!(
        lost,
        Err(BucketError::Store(StoreError::Throttled))
    ));
    assert!(!buckets(0).exists(&name).await.unwrap());
    buckets(ATTEMPTS - 1).create(&name).await.unwrap();
    assert!(buckets(0).exists(&name).await.unwrap());
}

#[tokio::test]
async fn policy_that_always_loses_is_a_conflict() {
    let fixture = Fixture::build().await;
    let name = PolicyName::parse("p").unwrap();
    let rules = Rules::parse(["/v1/*".to_owned()], []).unwrap();
    let control = |losses| {
        let (table, clock) = (fixture.table.clone(), fixture.clock.clone());
        let identities = Identities::new(table, clock, Duration::ZERO, None);
        let table = contended(&fixture, losses);
        IdentityControl::new(table, Arc::new(identities), fixture.random.clone())
    };
    let lost = control(ATTEMPTS).write(&root(), &name, &rules).await;
    assert!(matches!(lost, Err(KmsError::Conflict(_))));
    let written = control(ATTEMPTS - 1).write(&root(), &name, &rules).await;
    assert_eq!(written.unwrap(), Written::Created);
    let lost = control(ATTEMPTS).delete(&root(), &name).await;
    assert!(matches!(lost, Err(KmsError::Conflict(_))));
    control(ATTEMPTS - 1).delete(&root(), &name).await.unwrap();
}

#[tokio::test]
async fn key_migration_that_loses_is_retried_and_leaves_the_copy_as_the_record() {
    let (fixture, process) = with_key().await;
    move_to(&process, BackendType::Vault).await;
    let moving = |losses| {
        KeyMigration::new(
            contended(&fixture, losses),
            process.service.clone(),
            process.wrappers.clone(),
            fixture.random.clone(),
        )
    };
    // The first attempt is on the key as the scan saw it.
    let lost = moving(ATTEMPTS + 1).rewrap(|_| {}).await.unwrap();
    assert_eq!((lost.changed, lost.failed.len()), (0, 1));
    let stored = fixture.table.get(Kind::Key, "k", Consistency::Strong).await;
    let copy = fixture.vault.copy("k").await;
    assert_eq!(copy.unwrap().unwrap().value, stored.unwrap().unwrap().value);
    let moved = moving(ATTEMPTS).rewrap(|_| {}).await.unwrap();
    assert_eq!((moved.changed, moved.failed.len()), (1, 0));
}
