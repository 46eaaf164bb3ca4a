//! Keys move between backends, and come back from their copies.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use fixture::{Fixture, Process, id, move_to, named, root};
use keyway_crypto::EncryptionContext;
use keyway_domain::KmsError;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keys::DeletionWindow;
use keyway_domain::migration::{KeyMigration, Progress};
use keyway_domain::ports::{Kind, TableReader, TableWriter};
use keyway_domain::service::{BackendType, Change, ConfigChanges};
use keyway_domain::vault::{CopyVersion, Vault};

fn moving(fixture: &Fixture) -> KeyMigration {
    let process = fixture.process(false);
    KeyMigration::new(
        fixture.table.clone(),
        process.service,
        process.wrappers,
        fixture.random.clone(),
    )
}

async fn blob(process: &Process, key: &str) -> Vec<u8> {
    let context = EncryptionContext::default();
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id(key), &context),
            DataKeySpec::Aes256,
        )
        .await
        .unwrap();
    made.1.blob
}

async fn opens(process: &Process, blob: &[u8]) {
    let (caller, context) = (root(), EncryptionContext::default());
    let request = DataKeyRequest::of_ciphertext(None, &context);
    let opened = process.data_keys.decrypt(&caller, &request, blob);
    opened.await.unwrap();
}

#[tokio::test]
async fn keys_migrated_there_and_back_open_what_they_sealed() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let mut blobs = Vec::new();
    for n in 0..5 {
        let name = format!("k{n}");
        process.keys.create(&root(), named(&name)).await.unwrap();
        blobs.push(blob(&process, &name).await);
        process.keys.rotate(&root(), &id(&name)).await.unwrap();
        blobs.push(blob(&process, &name).await);
    }
    let window = DeletionWindow::DEFAULT;
    process
        .keys
        .create(&root(), named("pending"))
        .await
        .unwrap();
    process
        .keys
        .schedule_deletion(&root(), &id("pending"), window)
        .await
        .unwrap();

    for (backend, copies) in [(BackendType::Vault, 6), (BackendType::Local, 0)] {
        move_to(&process, backend).await;
        let mut told = Vec::new();
        let outcome = moving(&fixture)
            .rewrap(|progress| told.push(progress))
            .await;
        let outcome = outcome.unwrap();
        assert_eq!(
            (outcome.changed, outcome.unchanged, outcome.failed.len()),
            (6, 0, 0)
        );
        assert_eq!(told.last(), Some(&Progress { done: 6, total: 6 }));
        let again = moving(&fixture).rewrap(|_| {}).await.unwrap();
        assert_eq!((again.changed, again.unchanged), (0, 6));
        assert_eq!(fixture.vault.copies().await.unwrap().len(), copies);
        let fresh = fixture.process(false);
        for blob in &blobs {
            opens(&fresh, blob).await;
        }
    }

    // Nothing is wrapped by Vault any more, so it can be let go.
    let dropped = ConfigChanges {
        address: Change::Clear,
        ..ConfigChanges::default()
    };
    let config = process
        .control
        .reconfigure(&root(), &dropped)
        .await
        .unwrap();
    assert!(config.vault.is_none());
    fixture.vault.set_down(true);
    for blob in &blobs {
        opens(&fixture.process(false), blob).await;
    }
}

#[tokio::test]
async fn migration_interrupted_is_finished_by_the_next() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for n in 0..4 {
        process
            .keys
            .create(&root(), named(&format!("k{n}")))
            .await
            .unwrap();
    }
    move_to(&process, BackendType::Vault).await;
    let cut = moving(&fixture)
        .rewrap(|progress| fixture.vault.set_down(progress.done == 2))
        .await;
    assert!(matches!(cut, Err(KmsError::Unavailable(_))), "{cut:?}");
    fixture.vault.set_down(false);
    let outcome = moving(&fixture).rewrap(|_| {}).await.unwrap();
    assert_eq!((outcome.changed, outcome.unchanged), (2, 2));
}

#[tokio::test]
async fn keys_without_records_are_restored_from_their_copies() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    for name in ["kept", "lost", "off"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    process.keys.rotate(&root(), &id("lost")).await.unwrap();
    process.keys.disable(&root(), &id("off")).await.unwrap();
    let sealed = blob(&process, "lost").await;
    let before = fixture.table.page(Kind::Key, "", None, 10).await.unwrap();
    for record in &before.records {
        if record.id != "kept" {
            fixture
                .table
                .remove(Kind::Key, &record.id, record.revision)
                .await
                .unwrap();
        }
    }
    let outcome = moving(&fixture).restore(|_| {}).await.unwrap();
    assert_eq!((outcome.changed, outcome.unchanged), (2, 1));
    let after = fixture.table.page(Kind::Key, "", None, 10).await.unwrap();
    for (before, after) in before.records.iter().zip(&after.records) {
        assert_eq!((&before.id, &before.value), (&after.id, &after.value));
    }
    let fresh = fixture.process(false);
    opens(&fresh, &sealed).await;
}

#[tokio::test]
async fn copy_that_is_no_key_is_reported_and_not_restored() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    process.keys.create(&root(), named("good")).await.unwrap();
    for (name, value) in [("broken", &b"{}"[..]), ("../etc", b"{}")] {
        fixture
            .vault
            .put_copy(name, value, CopyVersion::default())
            .await
            .unwrap();
    }
    let outcome = moving(&fixture).restore(|_| {}).await.unwrap();
    let failed: Vec<&str> = outcome.failed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(failed, ["../etc", "broken"]);
    assert_eq!(fixture.table.count(Kind::Key, "").await.unwrap(), 1);
}
