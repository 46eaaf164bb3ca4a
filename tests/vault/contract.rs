//! The contract with the documented privileges only, and the behaviour of Vault's engines.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keyway_deployment_assembly::SystemRandom;
use keyway_domain::keyring::WrapError;
use keyway_domain::vault::{CopyError, CopyVersion, TransitKey, VaultAuth, VaultRetryPolicy};
use keyway_testkit::vault_contract;
use keyway_tests::{Fate, Proxy};
use serde_json::json;

use crate::{BINDING, Setup, opened, path, ready, shared, unavailable, with_token};

#[tokio::test(flavor = "multi_thread")]
async fn vault_with_the_documented_policy_keeps_the_contract() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let (_, making) = place.policies();
    let policy = place.policy(bao, &making).await;
    let token = bao.token(&policy, json!({})).await;
    let vault = with_token(&place.settings(&bao.address, VaultAuth::Token), &token);
    vault_contract::run_all(&vault, &SystemRandom::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_under_faults_keeps_the_contract() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let proxy = Proxy::before(&bao.address).await;
    // The contract tolerates no failure; with concurrent calls, one call may meet several faults in a row.
    let retry_policy = VaultRetryPolicy {
        timeout: Duration::from_secs(60),
        retries: 9,
    };
    let settings = place.settings(&proxy.endpoint, VaultAuth::Token);
    let vault = opened(&settings, Some(&bao.root), retry_policy);
    // A check makes one attempt.
    vault_contract::a_check_makes_the_transit_key_only_when_told_to(&*vault).await;
    proxy.judge(|number, _| match number % 17 {
        2 => Fate::LoseAnswer,
        5 => Fate::Fail,
        9 => Fate::LoseRequest,
        _ => Fate::Pass,
    });
    let random = SystemRandom::default();
    vault_contract::what_is_wrapped_opens_under_its_binding_only(&*vault, &random).await;
    vault_contract::copies_are_written_over_the_seen_version_only(&*vault, &random).await;
    vault_contract::a_write_that_is_repeated_succeeds(&*vault, &random).await;
    vault_contract::removed_copies_can_be_written_anew(&*vault, &random).await;
    vault_contract::copies_are_listed(&*vault, &random).await;
    vault_contract::one_of_many_writes_wins(&vault, &random, 8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transit_key_made_by_an_operator_is_used() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    let (least, _) = place.policies();
    let policy = place.policy(bao, &least).await;
    let token = bao.token(&policy, json!({})).await;
    let vault = with_token(&place.settings(&bao.address, VaultAuth::Token), &token);

    let refused = vault.check(TransitKey::MadeIfMissing).await;
    unavailable(refused, &format!("permission denied: {}", place.key()));
    unavailable(vault.check(TransitKey::MustExist).await, "is missing");
    unavailable(vault.wrap(&BINDING, b"m").await, "is missing");

    place.make_key(bao).await;
    vault.check(TransitKey::MustExist).await.unwrap();
    vault.check(TransitKey::MadeIfMissing).await.unwrap();
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    assert!(wrapped.starts_with(b"vault:v1:"));
    let unwrapped = vault.unwrap(&BINDING, &wrapped).await.unwrap();
    assert!(unwrapped.ct_eq(b"material"));
    let put = vault.put_copy("key-1", &wrapped, CopyVersion(0)).await;
    put.unwrap();
    assert_eq!(vault.copies().await.unwrap(), ["key-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_missing_permission() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    place.make_key(bao).await;
    let (least, _) = place.policies();
    let policy = place.policy(bao, &least).await;
    let token = bao.token(&policy, json!({})).await;
    let vault = with_token(&place.settings(&bao.address, VaultAuth::Token), &token);
    vault.check(TransitKey::MustExist).await.unwrap();
    let (transit, kv) = (&place.transit, &place.kv);
    for (line, says) in [
        ("/keys/", format!("read on {transit}/keys/keyway")),
        ("/encrypt/", format!("update on {transit}/encrypt/keyway")),
        ("/decrypt/", format!("update on {transit}/decrypt/keyway")),
        ("/data/", format!("create on {kv}/data/keyway/probe")),
        (
            "/metadata/keyway/*",
            format!("delete on {kv}/metadata/keyway/probe"),
        ),
        (
            "/metadata/keyway\"",
            format!("list on {kv}/metadata/keyway"),
        ),
        ("capabilities-self", "sys/capabilities-self".to_owned()),
    ] {
        let lines = least.lines().filter(|text| !text.contains(line));
        let less = lines.collect::<Vec<_>>().join("\n");
        assert_ne!(less, least.trim_end(), "{line}");
        place.policy(bao, &less).await;
        let refused = vault.check(TransitKey::MustExist).await;
        let text = unavailable(refused, "permission denied");
        assert!(text.contains(&says), "{text}");
    }
    place.policy(bao, &least).await;
    vault.check(TransitKey::MustExist).await.unwrap();
}

/// The crate relies on this way to encrypt without making a key, even with a token that may make one.
#[tokio::test(flavor = "multi_thread")]
async fn encryption_never_makes_a_key() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    vault.check(TransitKey::MustExist).await.unwrap();
    place.delete_key(bao).await;
    unavailable(vault.wrap(&BINDING, b"m").await, "is missing");
    let (status, _) = bao.call(Method::GET, &place.key(), None).await;
    assert_eq!(status, 404);

    let path = format!("{}/encrypt/keyway", place.transit);
    let request = json!({"plaintext": "bQ==", "context": "Yw==", "type": "ecdsa-p256"});
    let (status, answer) = bao.call(Method::POST, &path, Some(request.clone())).await;
    assert_eq!(status, 400, "{answer}");
    let (status, _) = bao.call(Method::GET, &place.key(), None).await;
    assert_eq!(status, 404);
    place.make_key(bao).await;
    bao.post(&path, request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transit_key_recreated_is_not_taken_for_the_old_one() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    bao.post(&format!("{}/rotate", place.key()), json!({}))
        .await;
    let rotated = vault.wrap(&BINDING, b"material").await.unwrap();
    assert!(rotated.starts_with(b"vault:v2:"));
    vault.unwrap(&BINDING, &wrapped).await.unwrap();

    let made = |answer: &serde_json::Value| answer["data"]["keys"]["1"].clone();
    let (_, before) = bao.call(Method::GET, &place.key(), None).await;
    place.delete_key(bao).await;
    unavailable(vault.unwrap(&BINDING, &wrapped).await, "is missing");
    unavailable(vault.check(TransitKey::MustExist).await, "is missing");
    loop {
        place.make_key(bao).await;
        let (_, after) = bao.call(Method::GET, &place.key(), None).await;
        if made(&after) != made(&before) {
            break; // Vault tells keys apart by the second.
        }
        place.delete_key(bao).await;
    }
    unavailable(vault.wrap(&BINDING, b"m").await, "made anew");
    unavailable(vault.check(TransitKey::MustExist).await, "made anew");
    // To a caller who needs a key's material, both are a failure of the backend.
    let old = vault.unwrap(&BINDING, &wrapped).await;
    assert!(
        matches!(old, Err(WrapError::NotAuthentic)),
        "{:?}",
        old.err()
    );
    let newer = vault.unwrap(&BINDING, &rotated).await;
    assert!(
        matches!(newer, Err(WrapError::UnknownRoot)),
        "{:?}",
        newer.err()
    );

    // An operator may want this.
    vault.check(TransitKey::MadeIfMissing).await.unwrap();
    vault.wrap(&BINDING, b"m").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn version_that_no_longer_opens_is_named() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    bao.post(&format!("{}/rotate", place.key()), json!({}))
        .await;
    let config = format!("{}/config", place.key());
    bao.post(&config, json!({"min_decryption_version": 2}))
        .await;
    unavailable(
        vault.unwrap(&BINDING, &wrapped).await,
        "min_decryption_version",
    );
    bao.post(&config, json!({"min_decryption_version": 1}))
        .await;
    vault.unwrap(&BINDING, &wrapped).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn transit_key_unfit_is_refused() {
    let Some(bao) = shared().await else { return };
    for (key, says) in [
        (json!({"type": "aes256-gcm96"}), "not derived"),
        (
            json!({"type": "aes128-gcm96", "derived": true}),
            "another type",
        ),
        (json!({"type": "ed25519", "derived": true}), "another type"),
    ] {
        let place = Setup::new(bao).await;
        bao.post(&place.key(), key).await;
        let settings = place.settings(&bao.address, VaultAuth::Token);
        let vault = with_token(&settings, &bao.root);
        for key in [TransitKey::MadeIfMissing, TransitKey::MustExist] {
            unavailable(vault.check(key).await, says);
        }
        unavailable(vault.wrap(&BINDING, b"m").await, says);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_mount_or_namespace_is_named() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    vault.check(TransitKey::MustExist).await.unwrap();
    let right = place.settings(&bao.address, VaultAuth::Token);
    let first = format!("{}-one", place.transit);
    bao.mount(&first, "kv", json!({"version": "1"})).await;

    let mut settings = right.clone();
    settings.kv_mount = path(&first);
    let vault = with_token(&settings, &bao.root);
    unavailable(vault.check(TransitKey::MadeIfMissing).await, "KV version 2");
    let put = vault.put_copy("key-1", b"value", CopyVersion(0)).await;
    assert!(matches!(put, Err(CopyError::Vault(_))));

    for (transit, kv, says) in [
        (
            "nowhere",
            place.kv.as_str(),
            "nothing is mounted at nowhere",
        ),
        (&place.transit, "nowhere", "nothing is mounted at nowhere"),
        (&place.kv, &place.kv, "transit engine"),
        (&place.transit, &place.transit, "KV version 2"),
        (
            &place.transit,
            &format!("{}/below", place.kv),
            "nothing is mounted at",
        ),
    ] {
        let mut settings = right.clone();
        (settings.mount_path, settings.kv_mount) = (path(transit), path(kv));
        let vault = with_token(&settings, &bao.root);
        unavailable(vault.check(TransitKey::MadeIfMissing).await, says);
    }
    let mut settings = right.clone();
    settings.mount_path = path("nowhere");
    let vault = with_token(&settings, &bao.root);
    unavailable(vault.wrap(&BINDING, b"m").await, "nothing is mounted at");

    let mut settings = right;
    settings.namespace = Some(path("nobody"));
    let vault = with_token(&settings, &bao.root);
    unavailable(vault.check(TransitKey::MustExist).await, "namespace");
    unavailable(vault.wrap(&BINDING, b"m").await, "namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn vault_within_a_namespace_works() {
    let Some(bao) = shared().await else { return };
    let namespace = "keyway-team";
    bao.post(&format!("sys/namespaces/{namespace}"), json!({}))
        .await;
    for (mount, kind, options) in [
        ("transit", "transit", json!({})),
        ("kv", "kv", json!({"version": "2"})),
    ] {
        let mount = format!("{namespace}/sys/mounts/{mount}");
        let body = json!({"type": kind, "options": options});
        bao.post(&mount, body).await;
    }
    let place = Setup {
        transit: "transit".to_owned(),
        kv: "kv".to_owned(),
    };
    let mut settings = place.settings(&bao.address, VaultAuth::Token);
    settings.namespace = Some(path(namespace));
    let vault = with_token(&settings, &bao.root);
    // The engine becomes ready some time after the mount.
    while vault.put_copy("probe", b"v", CopyVersion(0)).await.is_err() {
        tokio::task::yield_now().await;
    }
    vault.remove_copy("probe").await.unwrap();
    vault_contract::run_all(&vault, &SystemRandom::default()).await;
    let (status, _) = bao.call(Method::GET, "transit/keys/keyway", None).await;
    assert_eq!(status, 404, "nothing happens outside of the namespace");
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_deleted_by_an_operator_can_be_written_again() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    for value in [b"one", b"two"] {
        let seen = vault.copy("key-1").await.unwrap();
        let seen = seen.map_or(CopyVersion(0), |copy| copy.version);
        vault.put_copy("key-1", value, seen).await.unwrap();
    }
    let data = format!("{}/data/keyway/key-1", place.kv);
    let (status, _) = bao.call(Method::DELETE, &data, None).await;
    assert_eq!(status, 204);
    assert_eq!(vault.copy("key-1").await.unwrap(), None);
    let put = vault.put_copy("key-1", b"six", CopyVersion(0)).await;
    put.unwrap();
    assert_eq!(vault.copy("key-1").await.unwrap().unwrap().value, b"six");
    // A path below a copy holds no key.
    bao.post(&format!("{data}/more"), json!({"data": {"record": ""}}))
        .await;
    assert_eq!(vault.copies().await.unwrap(), ["key-1"]);
    vault.remove_copy("key-1").await.unwrap();
    let (status, _) = bao
        .call(Method::GET, &data.replace("/data/", "/metadata/"), None)
        .await;
    assert_eq!(status, 404, "no version is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_id_reaches_nothing() {
    let Some(bao) = shared().await else { return };
    let (_, vault) = ready(bao).await;
    for id in [
        "",
        ".",
        "..",
        "a/b",
        "../other",
        "a?b",
        "a b",
        "ä",
        &"x".repeat(129),
    ] {
        unavailable(
            vault.copy(id).await,
            "the name is none that a value in the KV engine can have",
        );
        unavailable(
            vault.remove_copy(id).await,
            "the name is none that a value in the KV engine can have",
        );
        let put = vault.put_copy(id, b"v", CopyVersion(0)).await;
        assert!(matches!(put, Err(CopyError::Vault(_))), "{id}");
    }
    let all: Vec<_> = (0..4).map(|n| format!("key-{n}")).collect();
    let writes = all.iter().map(|id| {
        let (vault, id) = (Arc::clone(&vault), id.clone());
        async move { vault.put_copy(&id, b"v", CopyVersion(0)).await.unwrap() }
    });
    for write in writes {
        write.await;
    }
    assert_eq!(vault.copies().await.unwrap(), all);
}
