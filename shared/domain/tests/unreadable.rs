//! A record that does not decode fails only the calls for that record.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, STATE_TTL, id, move_to, named, root};
use keyway_domain::KmsError;
use keyway_domain::access::{AccessKeyId, AccessKeys};
use keyway_domain::buckets::{BucketName, Buckets, DefaultEncryption, TableBuckets};
use keyway_domain::identity::{
    Identities, Identity, IdentityControl, NameQuery, PolicyName, Rules,
};
use keyway_domain::janitor::Janitor;
use keyway_domain::keys::{DeletionWindow, KeyQuery, Reference};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{Kind, Record, Revision, TableWriter};
use keyway_domain::service::{BackendType, Change, ConfigChanges};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Records that no release wrote, at the beginning, in the middle and at the end of pages.
async fn garble(fixture: &Fixture, kind: Kind, ids: &[&str]) {
    for (number, id) in ids.iter().enumerate() {
        let value = match number % 3 {
            0 => "not json",
            1 => r#"{"format":77,"uses":"mentioned"}"#,
            _ => r#"{"format":1}"#,
        };
        let record = Record {
            kind,
            id: (*id).to_owned(),
            revision: Revision([7; 16]),
            value: value.as_bytes().to_vec(),
            expires_at: None,
        };
        fixture.table.put_new(&record).await.unwrap();
    }
}

#[tokio::test]
async fn keys_beside_unreadable_ones_are_listed_and_destroyed_when_due() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["b", "d", "e"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let due = DeletionWindow::days(7).unwrap();
    for name in ["b", "e"] {
        process
            .keys
            .schedule_deletion(&root(), &id(name), due)
            .await
            .unwrap();
    }
    let unreadable = ["a", "c", "z"];
    garble(&fixture, Kind::Key, &unreadable).await;
    for limit in 1..=4 {
        let mut found = Vec::new();
        let mut marker = None;
        loop {
            let query = KeyQuery {
                limit,
                marker,
                ..KeyQuery::default()
            };
            let page = process.keys.list(&root(), &query).await.unwrap();
            found.extend(page.keys.iter().map(|key| key.id.as_str().to_owned()));
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(found, ["b", "d", "e"]);
    }
    for name in unreadable {
        let described = process.keys.describe(&root(), &id(name)).await;
        assert!(matches!(described, Err(KmsError::Backend(_))), "{name}");
    }
    let status = process.control.status(&root(), "r").await.unwrap();
    let configured = status.configured.unwrap();
    assert_eq!((configured.is_healthy(), configured.key_count), (true, 6));

    fixture.clock.advance(8 * DAY);
    let janitor = Janitor::new(
        fixture.table.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
        None,
    );
    assert!(janitor.sweep().await.unwrap().destroyed.is_empty());
    fixture.clock.advance(DAY / 24);
    assert_eq!(janitor.sweep().await.unwrap().destroyed, [id("b"), id("e")]);
    let swept = janitor.sweep().await.unwrap();
    assert!(swept.destroyed.is_empty());
    assert_eq!(swept.keys.enabled, 1);
    // A record that does not decode stays as it is.
    let status = process.control.status(&root(), "r").await.unwrap();
    assert_eq!(status.configured.unwrap().key_count, 4);
}

#[tokio::test]
async fn vault_is_not_forgotten_while_a_key_that_may_be_in_it_is_unreadable() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    move_to(&process, BackendType::Vault).await;
    process.keys.create(&root(), named("k")).await.unwrap();
    process
        .control
        .reconfigure(&root(), &local_without_vault())
        .await
        .unwrap_err();
    fixture.clock.advance(STATE_TTL);
    move_to_local(&process).await;
    let moving = keyway_domain::migration::KeyMigration::new(
        fixture.table.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.random.clone(),
    );
    garble(&fixture, Kind::Key, &["a"]).await;
    let outcome = moving.rewrap(|_| {}).await.unwrap();
    assert_eq!(outcome.changed, 1);
    assert_eq!(outcome.failed.len(), 1, "the job goes on, and tells which");
    let refused = process
        .control
        .reconfigure(&root(), &local_without_vault())
        .await;
    assert!(matches!(refused, Err(KmsError::Conflict(_))));
    let seen = Revision([7; 16]);
    fixture.table.remove(Kind::Key, "a", seen).await.unwrap();
    process
        .control
        .reconfigure(&root(), &local_without_vault())
        .await
        .unwrap();
}

fn local_without_vault() -> ConfigChanges {
    ConfigChanges {
        backend_type: Some(BackendType::Local),
        address: Change::Clear,
        ..ConfigChanges::default()
    }
}

async fn move_to_local(process: &fixture::Process) {
    let changes = ConfigChanges {
        backend_type: Some(BackendType::Local),
        ..ConfigChanges::default()
    };
    process
        .control
        .reconfigure(&root(), &changes)
        .await
        .unwrap();
}

#[tokio::test]
async fn access_keys_beside_unreadable_ones_are_listed() {
    let fixture = Fixture::build().await;
    let keys = AccessKeys::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    );
    let made = keys
        .create(Policy::canned("kms-auditor").unwrap(), None)
        .await
        .unwrap();
    garble(
        &fixture,
        Kind::AccessKey,
        &["A", "AAAA", "not an id", "zzzz"],
    )
    .await;
    let found = keys.list().await.unwrap();
    let ids: Vec<&AccessKeyId> = found.iter().map(|key| &key.id).collect();
    assert_eq!(ids, [&made.id]);
}

#[tokio::test]
async fn identities_and_policies_beside_unreadable_ones_are_listed_and_forgotten() {
    let fixture = Fixture::build().await;
    let admin = Identity::parse("admin").unwrap();
    let identities = Arc::new(Identities::new(
        fixture.table.clone(),
        fixture.clock.clone(),
        STATE_TTL,
        Some(admin.clone()),
    ));
    let control = IdentityControl::new(
        fixture.table.clone(),
        identities.clone(),
        fixture.random.clone(),
    );
    let caller = identities.caller(&admin).await.unwrap();
    let name = |text: &str| PolicyName::parse(text).unwrap();
    let rules = || Rules::parse(vec!["/v1/key/create/*".to_owned()], Vec::new()).unwrap();
    for policy in ["b", "d"] {
        control
            .write(&caller, &name(policy), &rules())
            .await
            .unwrap();
    }
    for identity in ["bb", "dd"] {
        let identity = Identity::parse(identity).unwrap();
        control
            .assign(&caller, &name("b"), &identity)
            .await
            .unwrap();
    }
    let unreadable = ["aa", "cc", "ee"];
    garble(&fixture, Kind::Policy, &unreadable).await;
    garble(&fixture, Kind::Identity, &unreadable).await;
    for limit in 1..=4 {
        let (mut policies, mut known): (Vec<String>, Vec<String>) = Default::default();
        for _ in 0..8 {
            let query = NameQuery {
                prefix: "",
                after: policies.last().map(String::as_str),
                limit,
            };
            let page = identities.list_policies(&caller, query).await.unwrap();
            let more = page.more;
            let names = page.items.iter().map(|policy| policy.name.to_string());
            policies.extend(names.collect::<Vec<_>>());
            if !more {
                break;
            }
        }
        assert_eq!(policies, ["b", "d"], "{limit}");
        for _ in 0..8 {
            let query = NameQuery {
                prefix: "",
                after: known.last().map(String::as_str),
                limit,
            };
            let page = identities.list(&caller, query).await.unwrap();
            let more = page.more;
            let names = page.items.iter().map(|known| known.identity.to_string());
            known.extend(names.collect::<Vec<_>>());
            if !more {
                break;
            }
        }
        assert_eq!(known, ["admin", "bb", "dd"], "{limit}");
    }
    let asked = identities.policy(&caller, &name("cc")).await;
    assert!(matches!(asked, Err(KmsError::Backend(_))));
    control.delete(&caller, &name("b")).await.unwrap();
    let query = NameQuery {
        prefix: "",
        after: None,
        limit: 10,
    };
    let page = identities.list(&caller, query).await.unwrap();
    assert_eq!(
        page.items.len(),
        1,
        "those who had the policy are forgotten"
    );
}

#[tokio::test]
async fn unreadable_bucket_hides_no_other_and_keeps_only_the_keys_that_it_names() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for key in ["used", "mentioned", "free"] {
        process.keys.create(&root(), named(key)).await.unwrap();
    }
    let buckets = TableBuckets::new(
        fixture.table.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    );
    let name = |text: &str| BucketName::parse(text).unwrap();
    buckets.create(&name("bucket-b")).await.unwrap();
    let encryption = DefaultEncryption::found("aws:kms", Some("used"), false);
    buckets
        .set_encryption(&name("bucket-b"), &encryption)
        .await
        .unwrap();
    garble(
        &fixture,
        Kind::Bucket,
        &["bucket-a", "bucket-c", "bucket-d"],
    )
    .await;
    let listed = buckets.list().await.unwrap();
    assert_eq!(listed.len(), 1);
    let references = async |key: &str| process.service.references(&id(key)).await.unwrap();
    assert_eq!(
        references("used").await,
        [Reference::Bucket(name("bucket-b"))]
    );
    assert_eq!(
        references("mentioned").await,
        [Reference::Bucket(name("bucket-c"))]
    );
    assert_eq!(references("free").await, []);
}
