//! The contract of every Vault, rule by rule.
//!
//! Each rule draws random ids, so rules may share a Vault that holds other copies. The generator must not have made the
//! same ids before.
#![expect(clippy::expect_used, reason = "a rule that is broken ends the test")]

use std::sync::Arc;

use keyway_domain::keyring::{Binding, WrapError};
use keyway_domain::ports::Random;
use keyway_domain::vault::{CopyError, CopyVersion, KeyCopy, TransitKey, VAULT_WRAPPER, Vault};
use tokio::task::JoinSet;

/// The largest value that a copy must hold: the largest record of the table.
pub const LARGEST_COPY: usize = 300 * 1024;

/// Runs every rule on a Vault that is configured for the first time.
pub async fn run_all(vault: &Arc<dyn Vault>, random: &dyn Random) {
    a_check_makes_the_transit_key_only_when_told_to(&**vault).await;
    what_is_wrapped_opens_under_its_binding_only(&**vault, random).await;
    what_was_tampered_with_is_not_authentic(&**vault, random).await;
    material_of_any_size_survives(&**vault, random).await;
    absent_copies_are_none(&**vault, random).await;
    copies_are_written_over_the_seen_version_only(&**vault, random).await;
    a_write_that_is_repeated_succeeds(&**vault, random).await;
    copies_survive(&**vault, random).await;
    removed_copies_can_be_written_anew(&**vault, random).await;
    copies_are_listed(&**vault, random).await;
    one_of_many_writes_wins(vault, random, 16).await;
}

/// A check that may not make the transit key fails until another check has made it. Checks leave no copies.
pub async fn a_check_makes_the_transit_key_only_when_told_to(vault: &dyn Vault) {
    assert_eq!(vault.name(), VAULT_WRAPPER);
    let binding = Binding {
        id: "key",
        version: 1,
        origin: "contract",
    };
    assert_unavailable(vault.check(TransitKey::MustExist).await.err().as_ref());
    assert_unavailable(vault.wrap(&binding, b"material").await.err().as_ref());
    assert_unavailable(vault.check(TransitKey::MustExist).await.err().as_ref());
    let before = vault.copies().await.expect("copies");
    for key in [
        TransitKey::MadeIfMissing,
        TransitKey::MustExist,
        TransitKey::MadeIfMissing,
    ] {
        vault.check(key).await.expect("a check");
        vault.renew().await.expect("a renewal");
    }
    assert_eq!(vault.copies().await.expect("copies"), before);
}

/// A wrapped secret unwraps under its own id, version and origin, and under no others.
pub async fn what_is_wrapped_opens_under_its_binding_only(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let (start, end) = id.split_at(8);
    let of = |id, version, origin| Binding {
        id,
        version,
        origin,
    };
    let binding = of(&id, 7, "origin");
    let material = bytes(random, 32);
    let wrapped = vault.wrap(&binding, &material).await.expect("wrap");
    let again = vault.wrap(&binding, &material).await.expect("wrap");
    assert_ne!(wrapped, again, "nobody sees that two secrets are the same");
    for wrapped in [&wrapped, &again] {
        let unwrapped = vault.unwrap(&binding, wrapped).await.expect("unwrap");
        assert!(unwrapped.ct_eq(&material), "the material comes back");
    }
    let moved = format!("{end}origin");
    for other in [
        of(end, 7, "origin"),
        of(&id, 8, "origin"),
        of(&id, 7, "Origin"),
        of(&id, 7, ""),
        of(start, 7, &moved),
    ] {
        assert_not_authentic(vault.unwrap(&other, &wrapped).await.err().as_ref());
    }
}

/// Damaged bytes, or bytes that were never wrapped, do not unwrap.
pub async fn what_was_tampered_with_is_not_authentic(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let binding = Binding {
        id: &id,
        version: 1,
        origin: "origin",
    };
    let wrapped = vault.wrap(&binding, b"material").await.expect("wrap");
    let mut changed = wrapped.clone();
    let middle = wrapped.len() / 2;
    for byte in changed.iter_mut().skip(middle).take(1) {
        *byte = if *byte == b'A' { b'B' } else { b'A' };
    }
    let cut = wrapped.iter().copied().take(middle).collect();
    for broken in [
        changed,
        cut,
        Vec::new(),
        b"rubbish".to_vec(),
        vec![0xFF; 40],
    ] {
        assert_not_authentic(vault.unwrap(&binding, &broken).await.err().as_ref());
    }
}

/// Material from 1 byte to 64 KiB is returned unchanged.
pub async fn material_of_any_size_survives(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let binding = Binding {
        id: &id,
        version: u32::MAX,
        origin: "origin",
    };
    for size in [1, 16, 32, 33, 4096, 64 * 1024] {
        let material = bytes(random, size);
        let wrapped = vault.wrap(&binding, &material).await.expect("wrap");
        let unwrapped = vault.unwrap(&binding, &wrapped).await.expect("unwrap");
        assert!(unwrapped.ct_eq(&material), "{size} bytes come back");
    }
}

/// A copy that was never written is absent, cannot be replaced, and counts as removed.
pub async fn absent_copies_are_none(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    assert_eq!(vault.copy(&id).await.expect("copy"), None);
    assert_conflict(&vault.put_copy(&id, b"new", CopyVersion(1)).await);
    vault.remove_copy(&id).await.expect("a removal");
    assert_eq!(vault.copy(&id).await.expect("copy"), None);
}

/// A write needs the newest version. After it, the earlier versions are stale.
pub async fn copies_are_written_over_the_seen_version_only(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let mut stale = Vec::new();
    let mut newest = CopyVersion::default();
    for n in 0..4 {
        let value = format!("value {n}").into_bytes();
        let put = vault.put_copy(&id, &value, newest).await;
        put.expect("a write over the newest version");
        let copy = held(vault, &id).await;
        assert_eq!(copy.value, value);
        stale.push(std::mem::replace(&mut newest, copy.version));
        assert!(!stale.contains(&newest), "every write makes a new version");
        for &version in &stale {
            assert_conflict(&vault.put_copy(&id, b"late", version).await);
        }
        assert_eq!(
            held(vault, &id).await,
            KeyCopy {
                value,
                version: newest
            }
        );
    }
}

/// A write that is repeated because its answer was lost succeeds without a second effect.
pub async fn a_write_that_is_repeated_succeeds(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let mut seen = CopyVersion::default();
    for value in [b"one", b"two"] {
        vault.put_copy(&id, value, seen).await.expect("the write");
        let copy = held(vault, &id).await;
        vault
            .put_copy(&id, value, seen)
            .await
            .expect("the same write");
        assert_eq!(held(vault, &id).await, copy, "it acts once");
        seen = copy.version;
    }
}

/// Any bytes up to the largest record are returned unchanged.
pub async fn copies_survive(vault: &dyn Vault, random: &dyn Random) {
    let id = format!("{}.A_z-9", id(random));
    let mut seen = CopyVersion::default();
    for size in [0, 1, 2, 3, 4096, LARGEST_COPY] {
        let value = bytes(random, size);
        vault.put_copy(&id, &value, seen).await.expect("a write");
        let copy = held(vault, &id).await;
        assert!(copy.value == value, "{size} bytes come back");
        seen = copy.version;
    }
}

/// After a removal the copy is absent, and can be written as a new one.
pub async fn removed_copies_can_be_written_anew(vault: &dyn Vault, random: &dyn Random) {
    let id = id(random);
    let mut seen = CopyVersion::default();
    for value in [b"one", b"two", b"six"] {
        vault.put_copy(&id, value, seen).await.expect("a write");
        seen = held(vault, &id).await.version;
    }
    for _ in 0..2 {
        vault.remove_copy(&id).await.expect("a removal");
        assert_eq!(vault.copy(&id).await.expect("copy"), None);
        assert_conflict(&vault.put_copy(&id, b"late", seen).await);
    }
    let none = CopyVersion::default();
    vault.put_copy(&id, b"anew", none).await.expect("a write");
    vault.put_copy(&id, b"anew", none).await.expect("the same");
    assert_conflict(&vault.put_copy(&id, b"late", none).await);
    assert_eq!(held(vault, &id).await.value, b"anew");
}

/// The list is sorted and has exactly the ids with a copy, even if one id begins with another.
pub async fn copies_are_listed(vault: &dyn Vault, random: &dyn Random) {
    let short = id(random);
    let longest = format!("{short}{}", "x".repeat(128 - short.len()));
    let ids = [format!("{short}-1"), short, longest, id(random)];
    for id in &ids {
        let put = vault.put_copy(id, b"value", CopyVersion::default()).await;
        put.expect("a write");
    }
    let [removed, kept @ ..] = &ids;
    vault.remove_copy(removed).await.expect("a removal");
    let listed = vault.copies().await.expect("copies");
    assert!(listed.is_sorted(), "{listed:?}");
    assert!(!listed.contains(removed), "{listed:?}");
    for id in kept {
        let times = listed.iter().filter(|listed| *listed == id).count();
        assert_eq!(times, 1, "{listed:?}");
    }
}

/// If a copy is first written many times at once, exactly one write succeeds, and all then read its value.
pub async fn one_of_many_writes_wins(vault: &Arc<dyn Vault>, random: &dyn Random, tasks: usize) {
    let id = id(random);
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (vault, id) = (Arc::clone(vault), id.clone());
        running.spawn(async move {
            let value = format!("by {n}").into_bytes();
            let put = vault.put_copy(&id, &value, CopyVersion::default()).await;
            let won = put.is_ok();
            if !won {
                assert_conflict(&put);
            }
            (won.then_some(value), held(&*vault, &id).await.value)
        });
    }
    let outcomes = running.join_all().await;
    let winners: Vec<_> = outcomes.iter().filter_map(|(won, _)| won.clone()).collect();
    assert_eq!(winners.len(), 1, "exactly one wins");
    for (_, found) in &outcomes {
        assert_eq!(Some(found), winners.first(), "all read the winner's");
    }
}

async fn held(vault: &dyn Vault, id: &str) -> KeyCopy {
    vault.copy(id).await.expect("copy").expect("there is one")
}

fn id(random: &dyn Random) -> String {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).expect("random bytes");
    format!("{:016x}", u64::from_be_bytes(bytes))
}

fn bytes(random: &dyn Random, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    random.fill(&mut bytes).expect("random bytes");
    bytes
}

fn assert_conflict(result: &Result<(), CopyError>) {
    assert!(
        matches!(result, Err(CopyError::Conflict)),
        "a conflict was due: {result:?}"
    );
}

fn assert_not_authentic(error: Option<&WrapError>) {
    assert!(
        matches!(error, Some(WrapError::NotAuthentic)),
        "it must not open: {error:?}"
    );
}

fn assert_unavailable(error: Option<&WrapError>) {
    assert!(
        matches!(error, Some(WrapError::Unavailable(_))),
        "the transit key is missing: {error:?}"
    );
}
