//! The rotation of Vault's transit key.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, STATE_TTL, id, move_to, named, root};
use keyway_crypto::EncryptionContext;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keyring::KeyWrapper;
use keyway_domain::roots::Retired;
use keyway_domain::service::BackendType;
use keyway_domain::transit::{TransitError, TransitRotation};
use keyway_domain::vault::Vault;

fn rotation(fixture: &Fixture) -> TransitRotation {
    let process = fixture.process(false);
    TransitRotation::new(
        fixture.table.clone(),
        process.service,
        process.wrappers,
        fixture.clock.clone(),
        fixture.random.clone(),
    )
}

async fn retire(fixture: &Fixture, version: u64) -> Result<Retired, TransitError> {
    let clock = fixture.clock.clone();
    let wait = async |time| clock.advance(time);
    rotation(fixture).retire(version, STATE_TTL, wait).await
}

async fn rewrap(fixture: &Fixture) -> (u64, u64) {
    let outcome = rotation(fixture).rewrap(async || {}, |_| {}).await.unwrap();
    assert!(outcome.failed.is_empty());
    (outcome.changed, outcome.unchanged)
}

#[tokio::test]
async fn transit_key_rotated_then_rewrapped_then_retired_opens_everything() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    for name in ["k1", "k2"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    process.keys.rotate(&root(), &id("k1")).await.unwrap();
    let (caller, context) = (root(), EncryptionContext::default());
    let request = DataKeyRequest::new(id("k1"), &context);
    let made = process
        .data_keys
        .generate(&caller, &request, DataKeySpec::Aes256);
    let blob = made.await.unwrap().1.blob;

    assert_eq!(rotation(&fixture).rotate().await.unwrap(), 2);
    process.keys.create(&root(), named("k3")).await.unwrap();
    let status = rotation(&fixture).status().await.unwrap();
    let records: Vec<_> = status.records.into_iter().collect();
    assert_eq!(
        (status.versions.newest, &*records),
        (2, &[(1, 3), (2, 1)][..])
    );
    let refused = retire(&fixture, 1).await;
    assert!(
        matches!(
            refused,
            Err(TransitError::InUse {
                records: 3,
                copies: 2,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(matches!(
        retire(&fixture, 2).await,
        Err(TransitError::Newest(2))
    ));

    assert_eq!(rewrap(&fixture).await, (3, 1));
    assert_eq!(rewrap(&fixture).await, (0, 4));
    let not_waited = rotation(&fixture).retire(1, STATE_TTL, async |_| {}).await;
    assert!(matches!(not_waited, Err(TransitError::NotWaited)));
    assert_eq!(retire(&fixture, 1).await.unwrap(), Retired::Now);
    assert_eq!(retire(&fixture, 1).await.unwrap(), Retired::Before);
    assert_eq!(fixture.vault.transit_versions().await.unwrap().minimum, 2);

    let fresh = fixture.process(false);
    let request = DataKeyRequest::of_ciphertext(None, &context);
    fresh
        .data_keys
        .decrypt(&caller, &request, &blob)
        .await
        .unwrap();
    // A copy restores what the table had.
    for key in ["k1", "k2", "k3"] {
        let copy = fixture.vault.copy(key).await.unwrap().unwrap();
        let stored = fixture.value(key).await;
        assert_eq!(copy.value, stored);
    }
}

#[tokio::test]
async fn rotation_of_the_transit_key_stopped_by_an_outage_goes_on() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    process.keys.create(&root(), named("k1")).await.unwrap();
    rotation(&fixture).rotate().await.unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    let stopped = rotation(&fixture)
        .rewrap(async || fixture.vault.set_down(true), |_| {})
        .await;
    assert!(stopped.is_err());
    fixture.vault.set_down(false);
    assert_eq!(rewrap(&fixture).await, (2, 0));
    assert_eq!(fixture.vault.name(), "vault-transit");
}
