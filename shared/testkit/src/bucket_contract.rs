//! The contract of every implementation of buckets, rule by rule.
//!
//! Each rule works on bucket names that it draws at random, so rules may share buckets with others.
#![expect(clippy::expect_used, reason = "a rule that is broken ends the test")]

use std::sync::Arc;

use keyway_domain::buckets::{Algorithm, BucketError, BucketName, Buckets, DefaultEncryption};
use keyway_domain::keys::KeyId;
use keyway_domain::ports::Random;
use tokio::task::JoinSet;

/// Runs every rule, each on buckets that the factory makes.
pub async fn run_all(factory: impl AsyncFn() -> Arc<dyn Buckets>, random: &dyn Random) {
    absent_buckets_are_told(&*factory().await, random).await;
    a_bucket_is_made_once(&*factory().await, random).await;
    lists_are_whole_and_sorted(&*factory().await, random).await;
    encryption_comes_back_as_it_was_set(&*factory().await, random).await;
    buckets_are_apart(&*factory().await, random).await;
    a_removed_bucket_is_gone(&*factory().await, random).await;
    a_key_comes_back_as_it_was_named(&*factory().await, random).await;
    one_of_many_creations_wins(&factory().await, random, 8).await;
    one_of_many_settings_stays(&factory().await, random, 8).await;
}

/// A bucket that was never made is absent for every operation.
pub async fn absent_buckets_are_told(buckets: &dyn Buckets, random: &dyn Random) {
    let name = name(random);
    assert!(!buckets.exists(&name).await.expect("exists"));
    let outcomes = [
        buckets.encryption(&name).await.map(drop),
        buckets.set_encryption(&name, &aes256()).await,
        buckets.clear_encryption(&name).await,
    ];
    for outcome in outcomes {
        assert!(
            matches!(outcome, Err(BucketError::NoSuchBucket)),
            "{outcome:?}"
        );
    }
    assert!(!buckets.exists(&name).await.expect("exists"));
}

/// The second creation is refused, and does not change the bucket.
pub async fn a_bucket_is_made_once(buckets: &dyn Buckets, random: &dyn Random) {
    let name = made(buckets, random).await;
    assert!(buckets.exists(&name).await.expect("exists"));
    let wanted = kms("a-key", true);
    buckets
        .set_encryption(&name, &wanted)
        .await
        .expect("a setting");
    let again = buckets.create(&name).await;
    assert!(matches!(again, Err(BucketError::Exists)), "{again:?}");
    assert_eq!(found(buckets, &name).await, Some(wanted));
}

/// Every bucket is listed once, in the order of names.
pub async fn lists_are_whole_and_sorted(buckets: &dyn Buckets, random: &dyn Random) {
    let mut expected = Vec::new();
    for _ in 0..5 {
        expected.push(made(buckets, random).await);
    }
    expected.sort();
    let listed: Vec<BucketName> = buckets
        .list()
        .await
        .expect("a list")
        .into_iter()
        .map(|bucket| bucket.name)
        .collect();
    assert!(listed.is_sorted(), "{listed:?}");
    let own: Vec<_> = listed
        .into_iter()
        .filter(|name| expected.contains(name))
        .collect();
    assert_eq!(own, expected);
}

/// The setting is returned until it is set again or removed. Removing an absent one changes nothing.
pub async fn encryption_comes_back_as_it_was_set(buckets: &dyn Buckets, random: &dyn Random) {
    let name = made(buckets, random).await;
    let before = found(buckets, &name).await;
    assert!(is_none(before.as_ref()), "{before:?}");
    for wanted in [
        aes256(),
        kms("one.Key_1-x", false),
        kms("8f14e45f-ceea-4677-9c1d-0a1b2c3d4e5f", true),
        aes256(),
    ] {
        for _ in 0..2 {
            buckets
                .set_encryption(&name, &wanted)
                .await
                .expect("a setting");
            assert_eq!(found(buckets, &name).await.as_ref(), Some(&wanted));
        }
    }
    for _ in 0..2 {
        buckets.clear_encryption(&name).await.expect("a removal");
        let after = found(buckets, &name).await;
        assert!(is_none(after.as_ref()), "{after:?}");
    }
    assert!(buckets.exists(&name).await.expect("exists"));
}

/// A removed bucket is gone with its settings. A new one of its name has none.
pub async fn a_removed_bucket_is_gone(buckets: &dyn Buckets, random: &dyn Random) {
    let absent = buckets.remove(&name(random)).await;
    assert!(
        matches!(absent, Err(BucketError::NoSuchBucket)),
        "{absent:?}"
    );
    let name = made(buckets, random).await;
    buckets
        .set_encryption(&name, &kms("a-key", true))
        .await
        .expect("a setting");
    buckets.remove(&name).await.expect("a removal");
    assert!(!buckets.exists(&name).await.expect("exists"));
    let listed = buckets.list().await.expect("a list");
    assert!(listed.iter().all(|bucket| bucket.name != name));
    for outcome in [
        buckets.remove(&name).await,
        buckets.encryption(&name).await.map(drop),
        buckets.set_encryption(&name, &aes256()).await,
    ] {
        assert!(
            matches!(outcome, Err(BucketError::NoSuchBucket)),
            "{outcome:?}"
        );
    }
    buckets.create(&name).await.expect("a creation");
    let after = found(buckets, &name).await;
    assert!(is_none(after.as_ref()), "{after:?}");
}

/// A key that was set by an ARN is read back as that ARN.
pub async fn a_key_comes_back_as_it_was_named(buckets: &dyn Buckets, random: &dyn Random) {
    let name = made(buckets, random).await;
    let wanted = DefaultEncryption {
        arn: Some("arn:aws:kms:us-east-1:123456789012:key/a-key".to_owned()),
        ..kms("a-key", false)
    };
    buckets
        .set_encryption(&name, &wanted)
        .await
        .expect("a setting");
    assert_eq!(found(buckets, &name).await, Some(wanted));
}

/// A bucket whose name begins with another bucket's name is another bucket.
pub async fn buckets_are_apart(buckets: &dyn Buckets, random: &dyn Random) {
    let short = made(buckets, random).await;
    let long = BucketName::parse(&format!("{short}-x")).expect("a name");
    assert!(!buckets.exists(&long).await.expect("exists"));
    buckets.create(&long).await.expect("a creation");
    buckets
        .set_encryption(&long, &kms("a-key", false))
        .await
        .expect("a setting");
    let other = found(buckets, &short).await;
    assert!(is_none(other.as_ref()), "{other:?}");
    buckets.clear_encryption(&short).await.expect("a removal");
    assert_eq!(found(buckets, &long).await, Some(kms("a-key", false)));
}

/// If one name is created many times at once, one creation makes the bucket. Object stores differ in their answers to
/// the others, but the bucket exists without any setting.
pub async fn one_of_many_creations_wins(
    buckets: &Arc<dyn Buckets>,
    random: &dyn Random,
    tasks: usize,
) {
    let name = name(random);
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (buckets, name) = (Arc::clone(buckets), name.clone());
        running.spawn(async move { buckets.create(&name).await });
    }
    let outcomes = running.join_all().await;
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for outcome in outcomes {
        assert!(
            matches!(outcome, Ok(()) | Err(BucketError::Exists)),
            "{outcome:?}"
        );
    }
    let after = found(buckets.as_ref(), &name).await;
    assert!(is_none(after.as_ref()), "{after:?}");
}

/// If the encryption is set many times at once, each setting is acknowledged and one of them stays.
pub async fn one_of_many_settings_stays(
    buckets: &Arc<dyn Buckets>,
    random: &dyn Random,
    tasks: usize,
) {
    let name = made(buckets.as_ref(), random).await;
    let wanted = move |n: usize| kms(&format!("key-{n}"), n.is_multiple_of(2));
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (buckets, name) = (Arc::clone(buckets), name.clone());
        running.spawn(async move { buckets.set_encryption(&name, &wanted(n)).await });
    }
    for outcome in running.join_all().await {
        outcome.expect("a setting");
    }
    let stays = found(buckets.as_ref(), &name).await.expect("a setting");
    assert!((0..tasks).any(|n| wanted(n) == stays), "{stays:?}");
}

/// Present object stores encrypt by default.
fn is_none(encryption: Option<&DefaultEncryption>) -> bool {
    encryption.is_none_or(|encryption| encryption.algorithm == Algorithm::Aes256)
}

fn aes256() -> DefaultEncryption {
    DefaultEncryption {
        algorithm: Algorithm::Aes256,
        arn: None,
        bucket_key_enabled: false,
    }
}

fn kms(key: &str, bucket_key_enabled: bool) -> DefaultEncryption {
    DefaultEncryption {
        algorithm: Algorithm::Kms(KeyId::parse("key_id", key).expect("a key id")),
        arn: None,
        bucket_key_enabled,
    }
}

fn name(random: &dyn Random) -> BucketName {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).expect("random bytes");
    BucketName::parse(&format!("b{:016x}", u64::from_be_bytes(bytes))).expect("a name")
}

async fn made(buckets: &dyn Buckets, random: &dyn Random) -> BucketName {
    let name = name(random);
    buckets.create(&name).await.expect("a creation");
    name
}

async fn found(buckets: &dyn Buckets, name: &BucketName) -> Option<DefaultEncryption> {
    buckets.encryption(name).await.expect("an encryption")
}
