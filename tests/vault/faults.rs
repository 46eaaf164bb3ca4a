//! Vault sealed, stopped, silent, behind TLS: each is reported by its name within the timeout, and ends with its cause.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keyway_domain::keyring::WrapError;
use keyway_domain::vault::{
    CopyError, CopyVersion, TransitKey, Vault, VaultAuth, VaultRetryPolicy, Vaults,
};
use keyway_secrets_vault::VaultsOverHttp;
use keyway_tests::Bao;
use tokio::net::{TcpListener, TcpStream};

use crate::{
    BINDING, RETRY_POLICY, Setup, opened, ready, secret, shared, system_clock, unavailable,
    with_token,
};

/// Every operation fails with this text, and within the time limit.
async fn everything_fails(vault: &dyn Vault, wrapped: &[u8], says: &str) {
    let all = async {
        unavailable(vault.check(TransitKey::MustExist).await, says);
        unavailable(vault.check(TransitKey::MadeIfMissing).await, says);
        unavailable(vault.wrap(&BINDING, b"material").await, says);
        unavailable(vault.unwrap(&BINDING, wrapped).await, says);
        unavailable(vault.copy("key-1").await, says);
        unavailable(vault.remove_copy("key-1").await, says);
        unavailable(vault.copies().await, says);
        let put = vault.put_copy("key-1", b"value", CopyVersion(0)).await;
        let Err(CopyError::Vault(error)) = put else {
            panic!("the write cannot have taken place");
        };
        unavailable(Err::<(), WrapError>(error), says);
    };
    tokio::time::timeout(Duration::from_secs(120), all)
        .await
        .unwrap();
}

async fn everything_works(vault: &dyn Vault, wrapped: &[u8]) {
    vault.check(TransitKey::MustExist).await.unwrap();
    let unwrapped = vault.unwrap(&BINDING, wrapped).await.unwrap();
    assert!(unwrapped.ct_eq(b"material"));
    vault.copies().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_and_stopped_vaults_are_told_apart_and_recover() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let (place, vault) = ready(&bao).await;
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    everything_works(&*vault, &wrapped).await;

    bao.seal().await;
    everything_fails(&*vault, &wrapped, "it is sealed").await;
    bao.unseal().await;
    everything_works(&*vault, &wrapped).await;

    bao.stop();
    let retry_policy = VaultRetryPolicy {
        timeout: Duration::from_secs(1),
        ..RETRY_POLICY
    };
    let settings = place.settings(&bao.address, VaultAuth::Token);
    let never_reached = opened(&settings, Some(&bao.root), retry_policy);
    everything_fails(&*never_reached, &wrapped, "could not be reached").await;
    everything_fails(&*vault, &wrapped, "could not be reached").await;
    bao.start_again().await;
    everything_works(&*vault, &wrapped).await;
    everything_works(&*never_reached, &wrapped).await;
}

/// Passes connections on, or accepts them and stays silent.
struct Hole {
    address: String,
    silent: Arc<AtomicBool>,
}

impl Hole {
    async fn before(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let silent = Arc::new(AtomicBool::new(true));
        let is_silent = Arc::clone(&silent);
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if is_silent.load(Ordering::SeqCst) {
                    held.push(stream);
                    continue;
                }
                let mut onward = TcpStream::connect(&upstream).await.unwrap();
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut stream, &mut onward)
                        .await
                        .ok();
                });
            }
        });
        Self { address, silent }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_vault_times_out() {
    let Some(bao) = shared().await else { return };
    let (place, vault) = ready(bao).await;
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    let hole = Hole::before(&bao.address).await;
    let settings = place.settings(&hole.address, VaultAuth::Token);
    let retry_policy = VaultRetryPolicy {
        timeout: Duration::from_millis(1500),
        retries: 2,
    };
    let vault = opened(&settings, Some(&bao.root), retry_policy);
    everything_fails(&*vault, &wrapped, "did not answer in time").await;
    hole.silent.store(false, Ordering::SeqCst);
    everything_works(&*vault, &wrapped).await;
}

/// A function's own time limit is shorter than the timeout that an operator may configure.
#[tokio::test(flavor = "multi_thread")]
async fn call_of_vault_ends_before_the_process_must() {
    let hole = Hole::before("http://127.0.0.1:1").await;
    let place = Setup {
        transit: "transit".to_owned(),
        kv: "kv".to_owned(),
    };
    let settings = place.settings(&hole.address, VaultAuth::Token);
    let longest = Duration::from_millis(300);
    let vaults = VaultsOverHttp::new(None, longest, system_clock()).unwrap();
    let retry_policy = VaultRetryPolicy {
        timeout: Duration::from_secs(3600),
        retries: 1,
    };
    let vault = vaults
        .open(&settings, Some(&secret("s.token")), retry_policy)
        .unwrap();
    everything_fails(&*vault, b"vault:v1:AAAA", "did not answer in time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_of_another_authority_is_refused() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let (address, authority) = bao.with_tls().await;
    let (place, _) = ready(&bao).await;
    let settings = place.settings(&address, VaultAuth::Token);
    let distrusting = with_token(&settings, &bao.root);
    let refused = distrusting.check(TransitKey::MustExist).await;
    unavailable(refused, "certificate");

    let open = |authority: Option<&str>, address: &str| {
        let authority = authority.map(str::as_bytes);
        let vaults = VaultsOverHttp::new(authority, RETRY_POLICY.timeout, system_clock()).unwrap();
        let settings = place.settings(address, VaultAuth::Token);
        let token = secret(&bao.root);
        vaults.open(&settings, Some(&token), RETRY_POLICY).unwrap()
    };
    let vault = open(Some(&authority), &address);
    vault.check(TransitKey::MustExist).await.unwrap();
    let wrapped = vault.wrap(&BINDING, b"material").await.unwrap();
    everything_works(&*vault, &wrapped).await;
    let by_name = open(Some(&authority), &address.replace("127.0.0.1", "localhost"));
    everything_works(&*by_name, &wrapped).await;
    // The certificate is of 127.0.0.1 and localhost.
    let other_name = open(Some(&authority), &address.replace("127.0.0.1", "127.0.0.2"));
    assert!(other_name.check(TransitKey::MustExist).await.is_err());
    // The client speaks TLS to a plain listener.
    let plain = open(Some(&authority), &bao.address.replace("http:", "https:"));
    unavailable(
        plain.check(TransitKey::MustExist).await,
        "could not be reached",
    );

    for rubbish in ["", "rubbish", "-----BEGIN CERTIFICATE-----\n!!!\n"] {
        let refused = VaultsOverHttp::new(
            Some(rubbish.as_bytes()),
            RETRY_POLICY.timeout,
            system_clock(),
        );
        assert!(refused.is_err(), "{rubbish}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn address_without_tls_must_be_loopback() {
    let Some(bao) = shared().await else { return };
    let (place, _) = ready(bao).await;
    let by_name = bao.address.replace("127.0.0.1", "localhost");
    let vault = with_token(&place.settings(&by_name, VaultAuth::Token), &bao.root);
    vault.check(TransitKey::MustExist).await.unwrap();
}
