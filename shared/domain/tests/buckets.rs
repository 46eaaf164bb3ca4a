//! The rules of buckets and their default encryption.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use fixture::{Fixture, Process, STATE_TTL, id, named, root, with_policy};
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::buckets::{
    Algorithm, Bucket, BucketError, BucketName, Buckets, DefaultEncryption, TableBuckets,
    TrackedBuckets, WantedEncryption,
};
use keyway_domain::keys::{DeletionWindow, KeyReader, Keys, Reference};
use keyway_domain::ports::{Clock, Consistency, Kind, StoreError, TableReader};
use keyway_domain::{InvalidId, KmsError};
use keyway_testkit::{MemoryTable, SeededRandom};

fn bucket(name: &str) -> BucketName {
    BucketName::parse(name).unwrap()
}

fn wanted(algorithm: &str, key: Option<&str>) -> WantedEncryption {
    WantedEncryption::parse(algorithm, key, false).unwrap()
}

fn table_buckets(fixture: &Fixture) -> Arc<dyn Buckets> {
    Arc::new(TableBuckets::new(
        fixture.table.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    ))
}

fn operations(fixture: &Fixture, process: &Process, buckets: Arc<dyn Buckets>) -> BucketOperations {
    let reader = KeyReader::new(
        fixture.table.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        STATE_TTL,
    );
    BucketOperations::new(buckets, Arc::new(reader), process.service.clone())
}

#[test]
fn bucket_name_outside_the_rules_of_s3_is_refused() {
    let longest = "a".repeat(63);
    for name in [
        "abc",
        "0ab",
        "a-b",
        "a.b.c",
        "my-bucket.2026",
        "1.2.3.4.5",
        "192.168.5.4a",
        "a--b",
        longest.as_str(),
    ] {
        assert_eq!(BucketName::parse(name).unwrap().as_str(), name);
    }
    let too_long = "a".repeat(64);
    for name in [
        "",
        "ab",
        too_long.as_str(),
        "Abc",
        "a_b",
        "a b",
        "a/b",
        "a%2fb",
        "käse",
        "-ab",
        "ab-",
        ".ab",
        "ab.",
        "a..b",
        "a.-b",
        "a-.b",
        "192.168.5.4",
        "999.999.999.999",
        "xn--abc",
        "sthree-abc",
        "amzn-s3-demo-abc",
        "abc-s3alias",
        "abc--ol-s3",
        "abc.mrap",
        "abc--x-s3",
        "abc--table-s3",
        "abc\n",
        "..\0",
    ] {
        let refused = BucketName::parse(name);
        assert!(
            matches!(
                &refused,
                Err(InvalidId {
                    field: "bucket",
                    ..
                })
            ),
            "{name}: {refused:?}"
        );
    }
}

#[test]
fn key_is_named_by_id_or_arn() {
    for key in [
        "k",
        "arn:aws:kms:::key/k",
        "arn:aws:kms:us-east-1:123456789012:key/k",
        "arn:aws-cn:kms:cn-north-1:123456789012:key/k",
    ] {
        let found = DefaultEncryption::found("aws:kms", Some(key), false);
        assert_eq!(found.key_id(), Some(&id("k")));
        assert_eq!(found.key(), Some(key));
    }
    for (algorithm, key) in [
        ("AES256", Some("k")),
        ("AES256", Some("")),
        ("aws:kms", Some("")),
        ("aws:kms", Some("alias/k")),
        ("aws:kms", Some("arn:aws:kms:::alias/k")),
        ("aws:kms", Some("arn:aws:s3:::key/k")),
        ("aws:kms", Some("arn:aws:kms:::key/../k")),
        ("aws:kms", Some("arn:aws:kms:key/k")),
        ("aws:kms", Some("arn:other:kms:::key/k")),
        ("aws:kms:dsse", Some("k")),
        ("aes256", None),
        ("", None),
    ] {
        let refused = WantedEncryption::parse(algorithm, key, false);
        assert!(
            matches!(refused, Err(KmsError::Invalid { .. })),
            "{algorithm} {key:?}"
        );
    }
    // A setting that another client wrote is shown as it is, and refers to no key of ours.
    for (algorithm, key) in [
        ("aws:kms", None),
        ("aws:kms:dsse", Some("k")),
        ("aws:kms", Some("arn:aws:kms:us-east-1:1:alias/aws/s3")),
    ] {
        let found = DefaultEncryption::found(algorithm, key, true);
        assert_eq!((found.algorithm_name(), found.key()), (algorithm, key));
        assert_eq!(found.key_id(), None);
    }
}

#[tokio::test]
async fn key_missing_or_disabled_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let buckets = operations(&fixture, &process, table_buckets(&fixture));
    let name = bucket("photos");
    buckets.create(&root(), &name).await.unwrap();
    for key in ["k", "off", "doomed"] {
        process.keys.create(&root(), named(key)).await.unwrap();
    }
    process.keys.disable(&root(), &id("off")).await.unwrap();
    process
        .keys
        .schedule_deletion(&root(), &id("doomed"), DeletionWindow::DEFAULT)
        .await
        .unwrap();
    let set = async |key| {
        buckets
            .set_encryption(&root(), &name, &wanted("aws:kms", key))
            .await
    };
    assert!(
        matches!(set(Some("absent")).await, Err(KmsError::KeyNotFound(key)) if key == id("absent"))
    );
    for key in ["off", "doomed"] {
        assert!(
            matches!(set(Some(key)).await, Err(KmsError::KeyState { key_id, .. }) if key_id == id(key))
        );
    }
    // There is no default key.
    assert!(matches!(set(None).await, Err(KmsError::Invalid { .. })));
    assert!(matches!(
        buckets.encryption(&root(), &name).await,
        Err(KmsError::NoBucketEncryption(_))
    ));
    let stored = set(Some("arn:aws:kms:::key/k")).await.unwrap();
    assert_eq!(stored.key_id(), Some(&id("k")));
    assert_eq!(stored.key(), Some("arn:aws:kms:::key/k"));
    assert_eq!(buckets.encryption(&root(), &name).await.unwrap(), stored);
    buckets.clear_encryption(&root(), &name).await.unwrap();
    buckets.clear_encryption(&root(), &name).await.unwrap();
    let absent = bucket("absent");
    let refusals = [
        buckets.encryption(&root(), &absent).await.map(drop),
        buckets.find(&root(), &absent).await,
        buckets.clear_encryption(&root(), &absent).await,
        buckets
            .set_encryption(&root(), &absent, &wanted("AES256", None))
            .await
            .map(drop),
        buckets
            .set_encryption(&root(), &absent, &wanted("aws:kms", Some("k")))
            .await
            .map(drop),
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(KmsError::BucketNotFound(_))));
    }
    assert!(matches!(
        buckets.create(&root(), &name).await,
        Err(KmsError::BucketExists(_))
    ));
}

#[tokio::test]
async fn default_key_is_stored_by_its_name() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    let buckets = operations(&fixture, &process, table_buckets(&fixture));
    let name = bucket("photos");
    buckets.create(&root(), &name).await.unwrap();
    // Settings without a key need no running service.
    buckets
        .set_encryption(&root(), &name, &wanted("AES256", None))
        .await
        .unwrap();
    assert_eq!(buckets.list(&root()).await.unwrap().len(), 1);
    let by_default = wanted("aws:kms", None);
    assert!(matches!(
        buckets.set_encryption(&root(), &name, &by_default).await,
        Err(KmsError::NotConfigured)
    ));
    process
        .service
        .start_if_new(
            fixture.table.as_ref(),
            fixture.random.as_ref(),
            Some(id("main")),
        )
        .await
        .unwrap();
    assert!(matches!(
        buckets.set_encryption(&root(), &name, &by_default).await,
        Err(KmsError::KeyNotFound(_))
    ));
    process.keys.create(&root(), named("main")).await.unwrap();
    let stored = buckets
        .set_encryption(&root(), &name, &by_default)
        .await
        .unwrap();
    assert_eq!(stored.algorithm, Algorithm::Kms(id("main")));
    let references = process.keys.references(&id("main")).await.unwrap();
    assert_eq!(
        references,
        [Reference::ServiceDefaultKey, Reference::Bucket(name)]
    );
}

#[tokio::test]
async fn permission_for_one_bucket_is_none_for_another() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let buckets = operations(&fixture, &process, table_buckets(&fixture));
    process.keys.create(&root(), named("k")).await.unwrap();
    let (mine, theirs) = (bucket("app-photos"), bucket("bills"));
    for name in [&mine, &theirs] {
        buckets.create(&root(), name).await.unwrap();
    }
    let caller = with_policy(
        r#"{"Statement":[
            {"Effect":"Allow","Action":["s3:Get*","s3:PutBucketEncryption","s3:List*","s3:CreateBucket"],"Resource":"arn:aws:s3:::app-*"},
            {"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::app-secret"},
            {"Effect":"Allow","Action":"kms:DescribeKey","Resource":"arn:aws:kms:::key/k"}]}"#,
    );
    let aes = wanted("AES256", None);
    let outcomes = async |name: &BucketName| {
        [
            buckets.find(&caller, name).await,
            buckets.set_encryption(&caller, name, &aes).await.map(drop),
            buckets.encryption(&caller, name).await.map(drop),
            buckets.clear_encryption(&caller, name).await,
        ]
    };
    assert!(outcomes(&mine).await.iter().all(Result::is_ok));
    for name in [&theirs, &bucket("absent"), &bucket("app-secret")] {
        for outcome in outcomes(name).await {
            assert!(
                matches!(outcome, Err(KmsError::NotPermitted)),
                "{outcome:?}"
            );
        }
        assert!(matches!(
            buckets.create(&caller, name).await,
            Err(KmsError::NotPermitted)
        ));
    }
    let listed = buckets.list(&caller).await.unwrap();
    assert_eq!(
        listed
            .into_iter()
            .map(|bucket| bucket.name)
            .collect::<Vec<_>>(),
        std::slice::from_ref(&mine)
    );
    // The answer does not tell whether a key exists that the caller may not describe.
    buckets
        .set_encryption(&caller, &mine, &wanted("aws:kms", Some("k")))
        .await
        .unwrap();
    process.keys.create(&root(), named("other")).await.unwrap();
    for key in ["other", "absent"] {
        let refused = buckets
            .set_encryption(&caller, &mine, &wanted("aws:kms", Some(key)))
            .await;
        assert!(matches!(refused, Err(KmsError::NotPermitted)), "{key}");
    }
    for keys_only in [
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*"}}"#,
        r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:kms:::*"}}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"admin:ServerInfo"},{"Effect":"Deny","Action":"s3:*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"*"},{"Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::*"}]}"#,
    ] {
        let caller = with_policy(keys_only);
        assert!(buckets.list(&caller).await.is_err(), "{keys_only}");
        assert!(buckets.find(&caller, &mine).await.is_err(), "{keys_only}");
    }
    let umbrella = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"admin:ServerInfo"}}"#);
    assert_eq!(buckets.list(&umbrella).await.unwrap().len(), 2);
    buckets
        .set_encryption(&umbrella, &theirs, &wanted("aws:kms", Some("other")))
        .await
        .unwrap();
}

#[tokio::test]
async fn key_used_by_a_bucket_is_not_destroyed() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let destroyer = fixture.process(true);
    let store = MemoryTable::new(fixture.clock.clone());
    let random = Arc::new(SeededRandom::new(9));
    let elsewhere = TableBuckets::new(Arc::new(store), fixture.clock.clone(), random.clone());
    let tracked = Arc::new(TrackedBuckets::new(
        elsewhere,
        fixture.table.clone(),
        random,
    ));
    let clock: &dyn Clock = fixture.clock.as_ref();
    let janitor = keyway_domain::janitor::Janitor::new(
        fixture.table.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
        None,
    );
    for (n, port) in [table_buckets(&fixture), tracked].into_iter().enumerate() {
        let buckets = operations(&fixture, &process, port);
        let key = format!("k{n}");
        let (used, one, two) = (id(&key), bucket("one-bucket"), bucket("two-buckets"));
        process.keys.create(&root(), named(&key)).await.unwrap();
        process
            .keys
            .create(&root(), named(&format!("spare{n}")))
            .await
            .unwrap();
        for name in [&one, &two] {
            buckets.create(&root(), name).await.unwrap();
            buckets
                .set_encryption(&root(), name, &wanted("aws:kms", Some(&key)))
                .await
                .unwrap();
        }
        let references = vec![
            Reference::Bucket(one.clone()),
            Reference::Bucket(two.clone()),
        ];
        assert_eq!(process.keys.references(&used).await.unwrap(), references);
        let refused = destroyer.keys.destroy(&root(), &used).await;
        assert!(
            matches!(&refused, Err(KmsError::StillReferenced(_, found)) if *found == references),
            "{refused:?}"
        );
        process
            .keys
            .schedule_deletion(&root(), &used, DeletionWindow::DEFAULT)
            .await
            .unwrap();
        fixture
            .clock
            .advance(std::time::Duration::from_secs(8 * 24 * 3600));
        assert!(clock.now() > "2026-01-09T00:00:00Z".parse().unwrap());
        let swept = janitor.sweep().await.unwrap();
        assert_eq!(
            (swept.destroyed, swept.referenced),
            (vec![], vec![used.clone()])
        );
        // Another key, another algorithm and none at all each take the reference away.
        buckets
            .set_encryption(
                &root(),
                &one,
                &wanted("aws:kms", Some(&format!("spare{n}"))),
            )
            .await
            .unwrap();
        assert_eq!(
            process.keys.references(&used).await.unwrap(),
            [Reference::Bucket(two.clone())]
        );
        buckets
            .set_encryption(&root(), &two, &wanted("AES256", None))
            .await
            .unwrap();
        buckets.clear_encryption(&root(), &one).await.unwrap();
        assert_eq!(process.keys.references(&used).await.unwrap(), []);
        fixture.clock.advance(std::time::Duration::from_secs(3600));
        let swept = janitor.sweep().await.unwrap();
        assert_eq!((swept.destroyed, swept.referenced), (vec![used], vec![]));
    }
}

/// Buckets at whose change something else happens first or fails.
struct Meddled<F> {
    buckets: Arc<dyn Buckets>,
    meddle: F,
    done: AtomicBool,
}

#[async_trait]
impl<F> Buckets for Meddled<F>
where
    F: AsyncMeddle,
{
    async fn list(&self) -> Result<Vec<Bucket>, BucketError> {
        self.buckets.list().await
    }

    async fn create(&self, name: &BucketName) -> Result<(), BucketError> {
        self.buckets.create(name).await
    }

    async fn remove(&self, name: &BucketName) -> Result<(), BucketError> {
        self.buckets.remove(name).await
    }

    async fn exists(&self, name: &BucketName) -> Result<bool, BucketError> {
        self.buckets.exists(name).await
    }

    async fn encryption(
        &self,
        name: &BucketName,
    ) -> Result<Option<DefaultEncryption>, BucketError> {
        self.buckets.encryption(name).await
    }

    async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: &DefaultEncryption,
    ) -> Result<(), BucketError> {
        if !self.done.swap(true, Ordering::SeqCst) {
            self.meddle.before().await?;
        }
        self.buckets.set_encryption(name, encryption).await
    }

    async fn clear_encryption(&self, name: &BucketName) -> Result<(), BucketError> {
        self.buckets.clear_encryption(name).await
    }
}

#[async_trait]
trait AsyncMeddle: Send + Sync {
    async fn before(&self) -> Result<(), BucketError>;
}

/// Another caller schedules the key's deletion, or destroys it, right after the check of the key.
struct KeyGoes {
    keys: Keys,
    at_once: bool,
}

#[async_trait]
impl AsyncMeddle for KeyGoes {
    async fn before(&self) -> Result<(), BucketError> {
        if self.at_once {
            self.keys.destroy(&root(), &id("k")).await.unwrap();
        } else {
            let window = DeletionWindow::DEFAULT;
            self.keys
                .schedule_deletion(&root(), &id("k"), window)
                .await
                .unwrap();
        }
        Ok(())
    }
}

#[tokio::test]
async fn key_deleted_at_the_same_moment_is_not_left_to_the_bucket() {
    for at_once in [false, true] {
        for before in [None, Some("AES256")] {
            let fixture = Fixture::build().await;
            let process = fixture.running().await;
            let name = bucket("photos");
            let buckets = table_buckets(&fixture);
            let plain = operations(&fixture, &process, buckets.clone());
            plain.create(&root(), &name).await.unwrap();
            process.keys.create(&root(), named("k")).await.unwrap();
            if let Some(before) = before {
                plain
                    .set_encryption(&root(), &name, &wanted(before, None))
                    .await
                    .unwrap();
            }
            let meddle = KeyGoes {
                keys: fixture.process(true).keys,
                at_once,
            };
            let meddled = Arc::new(Meddled {
                buckets,
                meddle,
                done: AtomicBool::new(false),
            });
            let refused = operations(&fixture, &process, meddled)
                .set_encryption(&root(), &name, &wanted("aws:kms", Some("k")))
                .await;
            assert!(
                matches!(
                    refused,
                    Err(KmsError::KeyNotFound(_) | KmsError::KeyState { .. })
                ),
                "{refused:?}"
            );
            let after = plain.encryption(&root(), &name).await.ok();
            assert_eq!(
                after.as_ref().map(DefaultEncryption::algorithm_name),
                before
            );
            assert_eq!(process.keys.references(&id("k")).await.unwrap(), []);
        }
    }
}

/// The object store does not answer.
struct Fails;

#[async_trait]
impl AsyncMeddle for Fails {
    async fn before(&self) -> Result<(), BucketError> {
        Err(StoreError::Throttled.into())
    }
}

#[tokio::test]
async fn note_of_a_bucket_names_a_key_too_many_rather_than_too_few() {
    let fixture = Fixture::build().await;
    let name = bucket("photos");
    let store = Arc::new(MemoryTable::new(fixture.clock.clone()));
    let elsewhere: Arc<dyn Buckets> = Arc::new(TableBuckets::new(
        store,
        fixture.clock.clone(),
        fixture.random.clone(),
    ));
    elsewhere.create(&name).await.unwrap();
    let process = fixture.running().await;
    for key in ["old", "new"] {
        process.keys.create(&root(), named(key)).await.unwrap();
    }
    let tracked = |buckets| {
        let tracked = TrackedBuckets::new(buckets, fixture.table.clone(), fixture.random.clone());
        operations(&fixture, &process, Arc::new(tracked))
    };
    let sound = || Meddled {
        buckets: elsewhere.clone(),
        meddle: Fails,
        done: AtomicBool::new(true),
    };
    tracked(sound())
        .set_encryption(&root(), &name, &wanted("aws:kms", Some("old")))
        .await
        .unwrap();
    let failing = Meddled {
        done: AtomicBool::new(false),
        ..sound()
    };
    let failed = tracked(failing)
        .set_encryption(&root(), &name, &wanted("aws:kms", Some("new")))
        .await;
    assert!(matches!(failed, Err(KmsError::Throttled)), "{failed:?}");
    // The store still uses the old key, so the note names that one.
    let uses = async |key| !process.keys.references(&id(key)).await.unwrap().is_empty();
    assert_eq!((uses("old").await, uses("new").await), (true, false));
    // The notes made no bucket in the table.
    assert_eq!(table_buckets(&fixture).list().await.unwrap(), []);
    let record = fixture
        .table
        .get(Kind::Bucket, "photos", Consistency::Strong)
        .await
        .unwrap();
    assert!(record.is_some());
}

#[tokio::test]
async fn listing_of_buckets_reads_no_record_outside_of_the_permission() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let hidden = ["app", "appx", "bbb", "one-more", "zzz"];
    let shown = ["app-1", "app-2", "one"];
    let all = table_buckets(&fixture);
    for name in hidden.iter().chain(&shown) {
        all.create(&bucket(name)).await.unwrap();
    }
    let watched = fixture::watched(&fixture, Kind::Bucket);
    let buckets = TableBuckets::new(
        watched.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    );
    let buckets = operations(&fixture, &process, Arc::new(buckets));
    let caller = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"s3:ListAllMyBuckets","Resource":["arn:aws:s3:::app-*","arn:aws:s3:::one"]}}"#,
    );
    let listed = buckets.list(&caller).await.unwrap();
    let names: Vec<&str> = listed.iter().map(|bucket| bucket.name.as_str()).collect();
    assert_eq!(names, shown);
    assert_eq!(watched.interceptor().ids(), shown);
    assert_eq!(buckets.list(&root()).await.unwrap().len(), 8);
}
