//! A long-lived process drops cached keys and renews logins without any request.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::sync::Arc;
use std::time::Duration;

use keyway_crypto::EncryptionContext;
use keyway_deployment_assembly::{AwsCiphertext, KesSettings, Proof, Services, Settings, Writing};
use keyway_domain::access::{Caller, Grant, RootAccessKey};
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keys::{KeyId, NewKey};
use keyway_domain::ports::{Clock, Random};
use keyway_domain::service::{BackendType, Change, ConfigChanges, NewAuth};
use keyway_domain::vault::VaultAddress;
use keyway_http::Cors;
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom, signed_table,
};

const STATE_TTL: Duration = Duration::from_secs(5);

struct Deployment {
    ports: Writing,
    clock: Arc<FixedClock>,
    vault: Arc<MemoryVault>,
    settings: Settings,
}

async fn deployment() -> Deployment {
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let stored = Arc::new(MemoryTable::new(clock.clone()));
    let random: Arc<dyn Random> = Arc::new(SeededRandom::new(1));
    let secrets = Arc::new(MemorySecrets::new());
    let port: Arc<dyn Clock> = clock.clone();
    let (table, keyring) = signed_table(&stored, secrets, &port, &random)
        .await
        .unwrap();
    let vault = Arc::new(MemoryVault::new(2));
    Deployment {
        ports: Writing {
            table,
            stored,
            wrapper: keyring.clone(),
            keyring,
            vaults: Arc::new(MemoryVaults::new(vault.clone())),
            folder: None,
            changes: None,
            clock: clock.clone(),
            random,
        },
        clock,
        vault,
        settings: Settings {
            signing_region: None,
            state_ttl: Duration::from_secs(5),
            allow_immediate_deletion: false,
            cors_origins: Cors::Off,
            rustfs_spelling: String::new(),
            aws_account_id: "000000000000".parse().unwrap(),
            aws_region: None,
            aws_ciphertext: AwsCiphertext::default(),
            open_legacy_kes: false,
            audit: keyway_deployment_assembly::AuditSettings::default(),
            kes: KesSettings::default(),
        },
    }
}

impl Deployment {
    fn process(&self) -> Services {
        let proof = Proof::Signature(RootAccessKey::InTable);
        self.ports.reading().server(&self.settings, proof)
    }

    /// How many unwrapped keys the process holds.
    async fn held(&self, process: &Services) -> u64 {
        let status = self.ports.control(process).status(&root(), "r").await;
        status.unwrap().configured.unwrap().cache.entries
    }
}

fn root() -> Caller {
    Caller::new("root", Arc::new(Grant::Owner))
}

async fn use_a_key(process: &Services) {
    let id = KeyId::parse("key_id", "k").unwrap();
    let context = EncryptionContext::none();
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id, &context),
            DataKeySpec::Aes256,
        )
        .await;
    made.unwrap();
}

#[tokio::test]
async fn idle_process_drops_its_expired_keys() {
    let deployment = deployment().await;
    let (one, other) = (deployment.process(), deployment.process());
    deployment
        .ports
        .start_if_new(&one.service, None)
        .await
        .unwrap();
    let id = KeyId::parse("key_id", "k").unwrap();
    let new = NewKey {
        id: Some(id),
        ..NewKey::default()
    };
    let keys = deployment.ports.keys(&one, &deployment.settings);
    keys.create(&root(), new).await.unwrap();

    // The key's time in the cache has passed.
    use_a_key(&other).await;
    deployment.clock.advance(Duration::from_secs(599));
    other.upkeep().await.unwrap();
    assert_eq!(deployment.held(&other).await, 1);
    deployment.clock.advance(Duration::from_secs(1));
    other.upkeep().await.unwrap();
    assert_eq!(deployment.held(&other).await, 0);

    // Another process has cleared every cache.
    use_a_key(&other).await;
    let control = deployment.ports.control(&one);
    control.clear_cache(&root()).await.unwrap();
    deployment.clock.advance(STATE_TTL);
    other.upkeep().await.unwrap();
    assert_eq!(deployment.held(&other).await, 0);

    // Another process has stopped the service.
    use_a_key(&other).await;
    assert_eq!(deployment.held(&other).await, 1);
    control.stop(&root()).await.unwrap();
    deployment.clock.advance(STATE_TTL);
    other.upkeep().await.unwrap();
    assert_eq!(deployment.held(&other).await, 0);
}

#[tokio::test]
async fn idle_vault_login_is_renewed() {
    let deployment = deployment().await;
    let process = deployment.process();
    process.upkeep().await.unwrap();
    assert_eq!(deployment.vault.renewals(), 0);
    let changes = ConfigChanges {
        backend_type: Some(BackendType::Vault),
        address: Change::Set(VaultAddress::parse("address", "https://vault.example").unwrap()),
        auth: Some(NewAuth::Token(Some(b"token".to_vec().into()))),
        ..ConfigChanges::default()
    };
    let control = deployment.ports.control(&process);
    control.configure(&root(), &changes, true).await.unwrap();
    process.upkeep().await.unwrap();
    process.upkeep().await.unwrap();
    assert_eq!(deployment.vault.renewals(), 2);
    deployment.vault.set_down(true);
    assert!(process.upkeep().await.is_err());
}
