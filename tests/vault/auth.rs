//! Tokens: renewed, obtained by a login, read from a file; revoked and refused.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keyway_domain::vault::{TransitKey, VaultAuth, Vaults};
use keyway_secrets_vault::TokenFolders;
use keyway_tests::Bao;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    BINDING, RETRY_POLICY, Setup, secret, set_clock, shared, unavailable, vaults, with_token,
};

async fn place(bao: &Bao) -> (Setup, String) {
    let place = Setup::new(bao).await;
    place.make_key(bao).await;
    let (least, _) = place.policies();
    let policy = place.policy(bao, &least).await;
    (place, policy)
}

async fn last_renewal(bao: &Bao, token: &str) -> Value {
    let answer = bao.post("auth/token/lookup", json!({"token": token})).await;
    answer["data"]["last_renewal"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn token_is_renewed_after_two_thirds_of_its_life() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let settings = place.settings(&bao.address, VaultAuth::Token);
    for options in [json!({"period": "3600s"}), json!({"ttl": "3600s"})] {
        let token = bao.token(&policy, options).await;
        let clock = set_clock();
        let vault = vaults(clock.clone())
            .open(&settings, Some(&secret(&token)), RETRY_POLICY)
            .unwrap();
        vault.check(TransitKey::MustExist).await.unwrap();
        clock.advance(Duration::from_secs(2300));
        vault.copies().await.unwrap();
        vault.renew().await.unwrap();
        assert_eq!(last_renewal(bao, &token).await, Value::Null);
        clock.advance(Duration::from_secs(101));
        vault.copies().await.unwrap();
        let renewed = last_renewal(bao, &token).await;
        assert_ne!(renewed, Value::Null);
        // Its life starts again.
        clock.advance(Duration::from_secs(2300));
        vault.renew().await.unwrap();
        assert_eq!(last_renewal(bao, &token).await, renewed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_not_renewable_is_used_until_refused() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let options = json!({"ttl": "3600s", "renewable": false});
    let token = bao.token(&policy, options).await;
    let clock = set_clock();
    let settings = place.settings(&bao.address, VaultAuth::Token);
    let vault = vaults(clock.clone())
        .open(&settings, Some(&secret(&token)), RETRY_POLICY)
        .unwrap();
    vault.renew().await.unwrap();
    clock.advance(Duration::from_secs(7200));
    vault.copies().await.unwrap();
    vault.renew().await.unwrap();
    bao.revoke(&token).await;
    let text = unavailable(vault.copies().await, "refuses the token");
    assert!(!text.contains(&token));
    unavailable(vault.wrap(&BINDING, b"m").await, "refuses the token");
    unavailable(
        vault.check(TransitKey::MustExist).await,
        "refuses the token",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_renewal_is_logged_and_the_token_used_until_its_end() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    place.make_key(bao).await;
    let (least, _) = place.policies();
    let lines = least.lines().filter(|line| !line.contains("renew-self"));
    let less = lines.collect::<Vec<_>>().join("\n");
    let policy = place.policy(bao, &less).await;
    let token = bao.token(&policy, json!({"ttl": "3600s"})).await;
    let clock = set_clock();
    let settings = place.settings(&bao.address, VaultAuth::Token);
    let vault = vaults(clock.clone())
        .open(&settings, Some(&secret(&token)), RETRY_POLICY)
        .unwrap();
    vault.renew().await.unwrap();
    clock.advance(Duration::from_secs(3000));
    unavailable(vault.renew().await, "permission denied");
    vault.copies().await.unwrap();
    // An operator gives the permission; after a pause the renewal works.
    place.policy(bao, &least).await;
    clock.advance(Duration::from_secs(30));
    vault.renew().await.unwrap();
    assert_ne!(last_renewal(bao, &token).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_may_not_look_itself_up_is_used() {
    let Some(bao) = shared().await else { return };
    let place = Setup::new(bao).await;
    place.make_key(bao).await;
    let (least, _) = place.policies();
    let lines = least.lines().filter(|line| !line.contains("auth/token"));
    let less = lines.collect::<Vec<_>>().join("\n");
    let policy = place.policy(bao, &less).await;
    let token = bao.token(&policy, json!({"ttl": "3600s"})).await;
    let settings = place.settings(&bao.address, VaultAuth::Token);
    let vault = with_token(&settings, &token);
    vault.check(TransitKey::MustExist).await.unwrap();
    vault.renew().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn app_role_logs_in_once_and_again_when_due() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let mount = format!("approle-{}", place.transit);
    let options = json!({"token_ttl": "3600s", "secret_id_num_uses": 2});
    let (role_id, secret_id) = bao.app_role(&mount, &policy, options).await;
    let auth = VaultAuth::AppRole {
        role_id,
        mount: crate::path(&mount),
    };
    let clock = set_clock();
    let settings = place.settings(&bao.address, auth);
    let vault = vaults(clock.clone())
        .open(&settings, Some(&secret(&secret_id)), RETRY_POLICY)
        .unwrap();
    let mut users = JoinSet::new();
    for _ in 0..16 {
        let vault = Arc::clone(&vault);
        users.spawn(async move { vault.wrap(&BINDING, b"m").await.map(drop) });
    }
    for outcome in users.join_all().await {
        outcome.unwrap(); // One use of the secret id.
    }
    clock.advance(Duration::from_secs(2401));
    vault.check(TransitKey::MustExist).await.unwrap(); // The other.
    vault.copies().await.unwrap();
    clock.advance(Duration::from_secs(2401));
    vault.copies().await.unwrap(); // The token still lives.
    let text = unavailable(vault.renew().await, "refuses the login");
    assert!(!text.contains(&secret_id));
    clock.advance(Duration::from_secs(1200));
    unavailable(vault.copies().await, "refuses the login");
}

#[tokio::test(flavor = "multi_thread")]
async fn app_role_with_a_revoked_token_logs_in_again() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let mount = format!("approle-{}", place.transit);
    let (role_id, secret_id) = bao.app_role(&mount, &policy, json!({})).await;
    let auth = VaultAuth::AppRole {
        role_id,
        mount: crate::path(&mount),
    };
    let clock = set_clock();
    let settings = place.settings(&bao.address, auth);
    let vault = vaults(clock.clone())
        .open(&settings, Some(&secret(&secret_id)), RETRY_POLICY)
        .unwrap();
    vault.check(TransitKey::MustExist).await.unwrap();
    let revoke = format!("sys/leases/revoke-prefix/auth/{mount}/login");
    for _ in 0..3 {
        bao.post(&revoke, json!({})).await;
        vault.check(TransitKey::MustExist).await.unwrap();
    }
    // An action that the role may not do stays denied, and causes no login.
    place.policy(bao, "path \"nothing\" {}").await;
    unavailable(vault.copies().await, "permission denied");
    let (least, _) = place.policies();
    place.policy(bao, &least).await;
    vault.copies().await.unwrap();
    // The role is deleted and made again.
    let role = format!("auth/{mount}/role/test");
    let (_, before) = bao.call(Method::GET, &role, None).await;
    let id = format!("{role}/role-id");
    let (_, role_id) = bao.call(Method::GET, &id, None).await;
    let (status, _) = bao.call(Method::DELETE, &role, None).await;
    assert_eq!(status, 204);
    bao.post(&revoke, json!({})).await;
    unavailable(vault.copies().await, "refuses the login");
    unavailable(vault.copies().await, "refuses the login");
    let policies = before["data"]["token_policies"].clone();
    bao.post(
        &role,
        json!({"token_policies": policies, "token_no_default_policy": true}),
    )
    .await;
    bao.post(&id, json!({"role_id": role_id["data"]["role_id"]}))
        .await;
    let custom = json!({"secret_id": secret_id});
    bao.post(&format!("{role}/custom-secret-id"), custom).await;
    clock.advance(Duration::from_secs(30));
    vault.copies().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_secret_id_or_mount_is_named() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let mount = format!("approle-{}", place.transit);
    let (role_id, _) = bao.app_role(&mount, &policy, json!({})).await;
    for (mount, says) in [
        (mount.as_str(), "refuses the login"),
        ("nowhere", "auth/nowhere"),
    ] {
        let auth = VaultAuth::AppRole {
            role_id: role_id.clone(),
            mount: crate::path(mount),
        };
        let vault = with_token(&place.settings(&bao.address, auth), "canary-secret-id");
        for _ in 0..2 {
            let text = unavailable(vault.check(TransitKey::MustExist).await, says);
            assert!(!text.contains("canary"), "{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_file_changed_is_read_again() {
    let Some(bao) = shared().await else { return };
    let (place, policy) = place(bao).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let auth = VaultAuth::TokenFile {
        path: file.to_str().unwrap().to_owned(),
    };
    let clock = set_clock();
    let settings = place.settings(&bao.address, auth);
    let nowhere = vaults(clock.clone())
        .open(&settings, None, RETRY_POLICY)
        .unwrap();
    let vault = vaults(clock.clone())
        .reading_tokens(TokenFolders::below([folder.path().to_owned()]))
        .open(&settings, None, RETRY_POLICY)
        .unwrap();
    unavailable(vault.copies().await, "token file");
    let one = bao.token(&policy, json!({})).await;
    std::fs::write(&file, format!("{one}\n")).unwrap();
    vault.check(TransitKey::MustExist).await.unwrap();
    unavailable(nowhere.copies().await, "--vault-token-dir");

    // A refused token has the file read at once.
    let two = bao.token(&policy, json!({})).await;
    bao.revoke(&one).await;
    unavailable(vault.copies().await, "refuses the token");
    std::fs::write(&file, &two).unwrap();
    vault.copies().await.unwrap();

    // Otherwise the file is read after a minute.
    let three = bao.token(&policy, json!({})).await;
    std::fs::write(&file, &three).unwrap();
    clock.advance(Duration::from_secs(61));
    vault.copies().await.unwrap();
    // If the second token were still in use, it would be refused now, and the file has no other one.
    bao.revoke(&two).await;
    std::fs::remove_file(&file).unwrap();
    vault.copies().await.unwrap();
    clock.advance(Duration::from_secs(61));
    vault.copies().await.unwrap();
    unavailable(vault.renew().await, "token file");
}
