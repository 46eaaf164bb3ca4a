//! The Vault port over OpenBao: a real server, real policies, and their faults.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod auth;
mod contract;
mod faults;
mod hostile;
mod keyring;
mod rotation;
mod service;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use keyway_crypto::SecretBytes;
use keyway_deployment_assembly::SystemClock;
use keyway_domain::keyring::{Binding, WrapError};
use keyway_domain::ports::Clock;
use keyway_domain::vault::{
    Vault, VaultAddress, VaultAuth, VaultPath, VaultRetryPolicy, VaultSettings, Vaults,
};
use keyway_secrets_vault::VaultsOverHttp;
use keyway_testkit::FixedClock;
use keyway_tests::{Bao, project};
use serde_json::json;
use tokio::sync::OnceCell;

const BINDING: Binding<'static> = Binding {
    id: "key-1",
    version: 1,
    origin: "KEYWAY",
};

const RETRY_POLICY: VaultRetryPolicy = VaultRetryPolicy {
    timeout: Duration::from_secs(20),
    retries: 3,
};

/// The server that tests share if they do not stop or seal it. It ends with this process.
async fn shared() -> Option<&'static Bao> {
    static BAO: OnceCell<Option<Bao>> = OnceCell::const_new();
    BAO.get_or_init(Bao::start).await.as_ref()
}

/// The mounts of one test.
#[derive(Clone)]
struct Setup {
    transit: String,
    kv: String,
}

impl Setup {
    /// New and mounted.
    async fn new(bao: &Bao) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let place = Self {
            transit: format!("transit-{count}"),
            kv: format!("team/kv-{count}"),
        };
        bao.mount(&place.transit, "transit", json!({})).await;
        bao.mount(&place.kv, "kv", json!({"version": "2"})).await;
        place
    }

    /// The policies of `docs/vault.md` for these mounts: without and with the permission to make the transit key.
    fn policies(&self) -> (String, String) {
        let text = std::fs::read_to_string(project().join("docs/vault.md")).unwrap();
        let mut blocks = text.split("```hcl\n").skip(1).map(|rest| {
            let (block, _) = rest.split_once("```").unwrap();
            block
                .replace("\"transit/", &format!("\"{}/", self.transit))
                .replace("\"secret/", &format!("\"{}/", self.kv))
        });
        let least = blocks.next().unwrap();
        let making = blocks.next().unwrap();
        let key = format!(
            "path \"{}/keys/keyway\" {{ capabilities = [\"read\"] }}\n",
            self.transit
        );
        assert!(least.contains(&key), "{least}");
        let all = least.replace(&key, &making);
        (least, all)
    }

    /// A policy of this test's own with this text, by its name.
    async fn policy(&self, bao: &Bao, hcl: &str) -> String {
        bao.policy(&self.transit, hcl).await;
        self.transit.clone()
    }

    fn settings(&self, address: &str, auth: VaultAuth) -> VaultSettings {
        VaultSettings {
            address: VaultAddress::parse("address", address).unwrap(),
            namespace: None,
            auth,
            mount_path: path(&self.transit),
            kv_mount: path(&self.kv),
            key_path_prefix: path("keyway"),
        }
    }

    fn key(&self) -> String {
        format!("{}/keys/keyway", self.transit)
    }

    /// Makes the transit key, as an operator does.
    async fn make_key(&self, bao: &Bao) {
        let key = json!({"type": "aes256-gcm96", "derived": true});
        bao.post(&self.key(), key).await;
    }

    async fn delete_key(&self, bao: &Bao) {
        let config = format!("{}/config", self.key());
        bao.post(&config, json!({"deletion_allowed": true})).await;
        let (status, answer) = bao.call(http::Method::DELETE, &self.key(), None).await;
        assert_eq!(status, 204, "{answer}");
    }
}

fn path(text: &str) -> VaultPath {
    VaultPath::parse("path", text).unwrap()
}

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::start())
}

fn set_clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::new(SystemClock::start().now()))
}

fn vaults(clock: Arc<dyn Clock>) -> VaultsOverHttp {
    VaultsOverHttp::new(None, Duration::from_secs(60), clock).unwrap()
}

/// Opens Vault with a token.
fn with_token(settings: &VaultSettings, token: &str) -> Arc<dyn Vault> {
    opened(settings, Some(token), RETRY_POLICY)
}

fn opened(
    settings: &VaultSettings,
    credential: Option<&str>,
    retry_policy: VaultRetryPolicy,
) -> Arc<dyn Vault> {
    let credential = credential.map(secret);
    vaults(system_clock())
        .open(settings, credential.as_ref(), retry_policy)
        .unwrap()
}

/// A working Vault: engines mounted, the transit key made, opened as the root.
async fn ready(bao: &Bao) -> (Setup, Arc<dyn Vault>) {
    let place = Setup::new(bao).await;
    place.make_key(bao).await;
    let settings = place.settings(&bao.address, VaultAuth::Token);
    (place, with_token(&settings, &bao.root))
}

/// The text of an unavailable Vault's error, which must contain this.
fn unavailable<T>(outcome: Result<T, WrapError>, says: &str) -> String {
    let Some(WrapError::Unavailable(cause)) = outcome.err() else {
        panic!("Vault must not be had ({says})");
    };
    let text = cause.to_string();
    assert!(text.contains(says), "`{text}` does not say `{says}`");
    text
}
