//! A deployment whose root is rotated: its records are signed, and each process opens the stored keyring.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::allow_attributes,
    reason = "each test binary uses another part; a test that cannot go on must stop"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keyway_domain::access::{AccessKeys, Credentials, RootAccessKey};
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::DataKeys;
use keyway_domain::identity::{Identities, IdentityControl, PolicyName, Rules};
use keyway_domain::keyring::{Binding, KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::keys::{AliasName, KeyReader, Keys};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    Clock, Consistency, InterceptedTable, Kind, Random, Record, SecretStore, SecretVersion,
    StoreError, TableCall, TableInterceptor, TableReader, TableWriter,
};
use keyway_domain::records::SignedTable;
use keyway_domain::roots::Roots;
use keyway_domain::service::{BackendType, Change, ConfigChanges, NewAuth, Service};
use keyway_domain::vault::VaultAddress;
use keyway_domain::wrappers::Wrappers;
use keyway_domain::{OpenError, SecretBytes};
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom,
};

use crate::fixture::{id, named, root};

pub(crate) const STATE_TTL: Duration = Duration::from_secs(5);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const BINDING: Binding<'_> = Binding {
    id: "k",
    version: 1,
    origin: "test",
};

/// What all processes share.
pub(crate) struct Deployment {
    pub(crate) stored: Arc<MemoryTable>,
    pub(crate) secrets: Arc<CountedReads>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) vault: Arc<MemoryVault>,
    pub(crate) vaults: Arc<MemoryVaults>,
    /// The id of an access key.
    pub(crate) access_key: String,
}

/// What one process holds.
pub(crate) struct Process {
    pub(crate) table: Arc<dyn TableWriter>,
    pub(crate) keyring: Arc<KeyringOnDemand>,
    pub(crate) keys: Keys,
    pub(crate) data_keys: DataKeys,
    pub(crate) control: ServiceControl,
    pub(crate) credentials: Credentials,
    pub(crate) access_keys: AccessKeys,
    pub(crate) roots: Roots,
    service: Arc<Service>,
    wrappers: Arc<Wrappers>,
}

impl Deployment {
    /// A deployment with a record of every kind that is signed.
    pub(crate) async fn with_records() -> Self {
        let start = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Arc::new(FixedClock::new(start));
        let vault = Arc::new(MemoryVault::new(9));
        let mut deployment = Self {
            stored: Arc::new(MemoryTable::new(clock.clone())),
            secrets: Arc::new(CountedReads::default()),
            clock,
            random: Arc::new(SeededRandom::new(7)),
            vaults: Arc::new(MemoryVaults::new(vault.clone())),
            vault,
            access_key: String::new(),
        };
        let process = deployment.process().await;
        let (table, random) = (process.table.as_ref(), deployment.random.as_ref());
        process
            .service
            .start_if_new(table, random, None)
            .await
            .unwrap();
        let keys = &process.keys;
        for name in ["k1", "k2"] {
            keys.create(&root(), named(name)).await.unwrap();
        }
        keys.rotate(&root(), &id("k1")).await.unwrap();
        let alias = AliasName::parse("alias", "alias/a").unwrap();
        keys.create_alias(&root(), &alias, &id("k1")).await.unwrap();
        let policy = Policy::canned("kms-admin").unwrap();
        let access_key = process.access_keys.create(policy, None).await.unwrap();
        let reader: Arc<dyn TableReader> = process.table.clone();
        let clock: Arc<dyn Clock> = deployment.clock.clone();
        let identities = Arc::new(Identities::new(reader, clock, STATE_TTL, None));
        let control =
            IdentityControl::new(process.table.clone(), identities, deployment.random.clone());
        let rules = Rules::parse(vec!["/v1/*".to_owned()], Vec::new()).unwrap();
        control
            .write(&root(), &PolicyName::parse("p").unwrap(), &rules)
            .await
            .unwrap();
        deployment.access_key = access_key.id.as_str().to_owned();
        deployment
    }

    /// A process that starts now.
    pub(crate) async fn process(&self) -> Process {
        self.try_process().await.unwrap()
    }

    pub(crate) async fn try_process(&self) -> Result<Process, OpenError> {
        let process = self.process_over(self.stored.clone(), self.secrets.clone());
        process.keyring.must_be_own().await?;
        Ok(process)
    }

    /// A process that reaches the deployment through these ports.
    pub(crate) fn process_over(
        &self,
        stored: Arc<dyn TableWriter>,
        secrets: Arc<dyn SecretStore>,
    ) -> Process {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let keyring = Arc::new(KeyringOnDemand::establishing(
            stored.clone(),
            secrets,
            clock.clone(),
            self.random.clone(),
        ));
        let signed = SignedTable::new(stored.clone(), keyring.clone());
        let table: Arc<dyn TableWriter> = Arc::new(signed);
        let reader: Arc<dyn TableReader> = table.clone();
        let service = Arc::new(Service::new(reader.clone(), clock.clone(), Duration::ZERO));
        let wrappers = Arc::new(Wrappers::new(keyring.clone(), self.vaults.clone()));
        let ttl = Duration::ZERO;
        let keys = KeyReader::new(reader.clone(), wrappers.clone(), clock.clone(), ttl);
        let keys = Arc::new(keys);
        Process {
            data_keys: DataKeys::new(keys.clone(), service.clone(), self.random.clone()),
            control: ServiceControl::new(
                table.clone(),
                service.clone(),
                keys.clone(),
                wrappers.clone(),
                None,
                self.random.clone(),
            ),
            keys: Keys::new(
                table.clone(),
                keys,
                service.clone(),
                wrappers.clone(),
                clock.clone(),
                self.random.clone(),
                false,
            ),
            credentials: Credentials::new(
                reader,
                keyring.clone(),
                clock.clone(),
                ttl,
                RootAccessKey::InTable,
            ),
            access_keys: AccessKeys::new(
                table.clone(),
                keyring.clone(),
                clock.clone(),
                self.random.clone(),
            ),
            roots: Roots::new(
                stored,
                table.clone(),
                keyring.clone(),
                service.clone(),
                wrappers.clone(),
                clock,
                self.random.clone(),
            ),
            service,
            wrappers,
            table,
            keyring,
        }
    }

    /// Makes Vault the backend. The keys stay wrapped by the root.
    pub(crate) async fn use_vault(&self, process: &Process) {
        let token = SecretBytes::from(b"token".to_vec());
        let changes = ConfigChanges {
            backend_type: Some(BackendType::Vault),
            address: Change::Set(VaultAddress::parse("address", "https://vault.example").unwrap()),
            auth: Some(NewAuth::Token(Some(token))),
            ..ConfigChanges::default()
        };
        process
            .control
            .reconfigure(&root(), &changes)
            .await
            .unwrap();
    }

    /// The record as it is stored.
    pub(crate) async fn record(&self, kind: Kind, id: &str) -> Record {
        let found = self.stored.get(kind, id, Consistency::Strong).await;
        found.unwrap().unwrap()
    }

    /// The root under which the stored record is signed.
    pub(crate) async fn root_of(&self, kind: Kind, id: &str) -> String {
        let value = String::from_utf8(self.record(kind, id).await.value).unwrap();
        value.split(' ').nth(1).unwrap().to_owned()
    }

    /// The values of all stored records.
    pub(crate) async fn all_records(&self) -> Vec<u8> {
        let mut values = Vec::new();
        for kind in Kind::ALL {
            let page = self.stored.page(kind, "", None, 1000).await.unwrap();
            for record in page.records {
                values.extend(record.value);
            }
        }
        values
    }

    /// The stored keyring.
    pub(crate) async fn keyring(&self) -> SecretBytes {
        let found = self.secrets.get(KEYRING_SECRET).await.unwrap();
        found.unwrap().0
    }

    pub(crate) async fn put_keyring(&self, value: &SecretBytes) {
        let (_, seen) = self.secrets.get(KEYRING_SECRET).await.unwrap().unwrap();
        let put = self.secrets.put(KEYRING_SECRET, value, Some(&seen)).await;
        put.unwrap();
    }
}

impl Process {
    /// The token with which it logs in to the configured Vault.
    pub(crate) async fn renew_vault(&self) {
        let config = self.service.config().await.unwrap().unwrap();
        self.wrappers.renew(&config).await.unwrap();
    }
}

/// Secrets that count how often they are read.
#[derive(Default)]
pub(crate) struct CountedReads {
    secrets: MemorySecrets,
    reads: AtomicUsize,
}

impl CountedReads {
    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl SecretStore for CountedReads {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.secrets.get(name).await
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        self.secrets.put(name, value, seen).await
    }
}

/// Kills its process at one of its writes: from then on, no call of the process reaches a store.
pub(crate) struct Killer {
    writes_left: AtomicI64,
    /// Whether the last write takes place.
    is_after: bool,
    is_dead: AtomicBool,
}

impl Killer {
    /// Kills the process before or after the write of this number, counted from 0.
    pub(crate) fn at(write: i64, is_after: bool) -> Arc<Self> {
        Arc::new(Self {
            writes_left: AtomicI64::new(write),
            is_after,
            is_dead: AtomicBool::new(false),
        })
    }

    pub(crate) fn has_killed(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    async fn run<T>(
        &self,
        is_write: bool,
        run: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let dead = || StoreError::Away("the process is dead".to_owned());
        if self.has_killed() {
            return Err(dead());
        }
        if is_write && self.writes_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            if self.is_after {
                drop(run.await);
            }
            self.is_dead.store(true, Ordering::SeqCst);
            return Err(dead());
        }
        run.await
    }
}

/// Ports of a process that a [`Killer`] may kill.
pub(crate) fn mortal(
    deployment: &Deployment,
    killer: &Arc<Killer>,
) -> (Arc<dyn TableWriter>, Arc<dyn SecretStore>) {
    let table = InterceptedTable::new(deployment.stored.clone(), Mortal(killer.clone()));
    let secrets = MortalSecrets(deployment.secrets.clone(), killer.clone());
    (Arc::new(table), Arc::new(secrets))
}

struct Mortal(Arc<Killer>);

impl TableInterceptor for Mortal {
    async fn intercept<T: Send>(
        &self,
        call: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.0.run(call.is_write(), run).await
    }
}

struct MortalSecrets(Arc<CountedReads>, Arc<Killer>);

#[async_trait]
impl SecretStore for MortalSecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        self.1.run(false, self.0.get(name)).await
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        self.1.run(true, self.0.put(name, value, seen)).await
    }
}
