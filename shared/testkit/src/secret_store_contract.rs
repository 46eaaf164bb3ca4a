//! The contract of every secret store, rule by rule.
//!
//! Each rule draws random names, so rules may share a store that holds other secrets. The generator must not have made
//! the same names before.
#![expect(clippy::expect_used, reason = "a rule that is broken ends the test")]

use std::sync::Arc;

use keyway_crypto::SecretBytes;
use keyway_domain::ports::{Random, SecretStore, SecretVersion, StoreError};
use tokio::task::JoinSet;

/// Runs every rule, each on a store that the factory makes.
pub async fn run_all(factory: impl AsyncFn() -> Arc<dyn SecretStore>, random: &dyn Random) {
    absent_secrets_are_none(&*factory().await, random).await;
    put_creates_only_once(&*factory().await, random).await;
    put_replaces_the_seen_version_only(&*factory().await, random).await;
    names_are_apart(&*factory().await, random).await;
    values_survive(&*factory().await, random).await;
    one_of_many_creations_wins(&factory().await, random, 16).await;
    one_of_many_replacements_wins(&factory().await, random, 16).await;
}

/// A secret that was never put is absent, and cannot be replaced.
pub async fn absent_secrets_are_none(store: &dyn SecretStore, random: &dyn Random) {
    let name = name(random);
    assert!(store.get(&name).await.expect("get").is_none());
    let seen = SecretVersion("1".to_owned());
    assert_conflict(&store.put(&name, &secret(b"new"), Some(&seen)).await);
    assert!(
        store.get(&name).await.expect("get").is_none(),
        "a replacement never creates"
    );
}

/// The second creation of a name conflicts, and does not change the first value.
pub async fn put_creates_only_once(store: &dyn SecretStore, random: &dyn Random) {
    let name = name(random);
    let version = store
        .put(&name, &secret(b"first"), None)
        .await
        .expect("the creation");
    assert_conflict(&store.put(&name, &secret(b"second"), None).await);
    assert_holds(store, &name, b"first", &version).await;
}

/// A replacement needs the newest version. After it, the earlier versions are stale.
pub async fn put_replaces_the_seen_version_only(store: &dyn SecretStore, random: &dyn Random) {
    let name = name(random);
    let mut stale = Vec::new();
    let mut newest = store
        .put(&name, &secret(b"0"), None)
        .await
        .expect("the creation");
    for n in 1..4 {
        let value = format!("value {n}");
        let version = store
            .put(&name, &secret(value.as_bytes()), Some(&newest))
            .await
            .expect("a replacement");
        stale.push(std::mem::replace(&mut newest, version));
        assert!(
            !stale.contains(&newest),
            "every write makes a version of its own"
        );
        assert_holds(store, &name, value.as_bytes(), &newest).await;
        for version in &stale {
            assert_conflict(&store.put(&name, &secret(b"late"), Some(version)).await);
        }
        assert_conflict(&store.put(&name, &secret(b"late"), None).await);
        assert_holds(store, &name, value.as_bytes(), &newest).await;
    }
}

/// Secrets of different names are separate, even if one name begins with the other.
pub async fn names_are_apart(store: &dyn SecretStore, random: &dyn Random) {
    let short = name(random);
    let longest = format!("{short}-{}", "x".repeat(63 - short.len()));
    let of_short = store
        .put(&short, &secret(b"short"), None)
        .await
        .expect("a creation");
    assert!(store.get(&longest).await.expect("get").is_none());
    let of_longest = store
        .put(&longest, &secret(b"longest"), None)
        .await
        .expect("a creation");
    assert_holds(store, &short, b"short", &of_short).await;
    assert_holds(store, &longest, b"longest", &of_longest).await;
}

/// Any bytes up to 64 KiB are returned unchanged.
pub async fn values_survive(store: &dyn SecretStore, random: &dyn Random) {
    let name = name(random);
    let mut seen = None;
    for size in [1, 2, 3, 32, 256, 4096, 64 * 1024] {
        let mut value = vec![0; size];
        random.fill(&mut value).expect("random bytes");
        value
            .iter_mut()
            .zip(0..=u8::MAX)
            .for_each(|(to, from)| *to = from);
        let version = store
            .put(&name, &secret(&value), seen.as_ref())
            .await
            .expect("a write");
        assert_holds(store, &name, &value, &version).await;
        seen = Some(version);
    }
}

/// If one name is created many times at once, exactly one creation succeeds, and all then read its value.
pub async fn one_of_many_creations_wins(
    store: &Arc<dyn SecretStore>,
    random: &dyn Random,
    tasks: usize,
) {
    race(store, &name(random), tasks, None).await;
}

/// If one version is replaced many times at once, exactly one replacement succeeds, and all then read its value.
pub async fn one_of_many_replacements_wins(
    store: &Arc<dyn SecretStore>,
    random: &dyn Random,
    tasks: usize,
) {
    let name = name(random);
    let version = store
        .put(&name, &secret(b"first"), None)
        .await
        .expect("the creation");
    race(store, &name, tasks, Some(version)).await;
}

async fn race(store: &Arc<dyn SecretStore>, name: &str, tasks: usize, seen: Option<SecretVersion>) {
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (store, name, seen) = (Arc::clone(store), name.to_owned(), seen.clone());
        running.spawn(async move {
            let value = format!("by {n}");
            let put = store
                .put(&name, &secret(value.as_bytes()), seen.as_ref())
                .await;
            if put.is_err() {
                assert_conflict(&put);
            }
            let (found, version) = store.get(&name).await.expect("get").expect("a secret");
            (
                put.ok().map(|version| (value, version)),
                found.expose().to_vec(),
                version,
            )
        });
    }
    let outcomes = running.join_all().await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter_map(|(won, ..)| won.as_ref())
        .collect();
    assert_eq!(winners.len(), 1, "exactly one wins");
    for (value, version) in winners {
        for (_, found, found_version) in &outcomes {
            assert_eq!(
                (found.as_slice(), found_version),
                (value.as_bytes(), version),
                "all read the winner's"
            );
        }
    }
}

fn name(random: &dyn Random) -> String {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).expect("random bytes");
    format!("{:016x}", u64::from_be_bytes(bytes))
}

fn secret(value: &[u8]) -> SecretBytes {
    SecretBytes::from(value.to_vec())
}

async fn assert_holds(store: &dyn SecretStore, name: &str, value: &[u8], version: &SecretVersion) {
    let (found, found_version) = store.get(name).await.expect("get").expect("a secret");
    assert!(found.expose() == value, "{name} holds another value");
    assert_eq!(&found_version, version);
}

fn assert_conflict(result: &Result<SecretVersion, StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Conflict)),
        "a conflict was due: {result:?}"
    );
}
