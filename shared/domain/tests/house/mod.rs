//! A whole deployment in memory, for the tests of the rules.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test binary uses another part; a test that cannot go on must stop"
)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_domain::SecretBytes;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::DataKeys;
use keyway_domain::keyring::{KeyWrapper, RootKeyring};
use keyway_domain::keys::{KeyId, KeyReader, Keys, NewKey};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use keyway_domain::service::{BackendType, Change, ConfigChanges, NewAuth, Service};
use keyway_domain::vault::VaultAddress;
use keyway_domain::wrappers::Wrappers;
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom,
};

/// What all processes share.
pub(crate) struct House {
    pub(crate) table: Arc<MemoryTable>,
    pub(crate) secrets: Arc<MemorySecrets>,
    pub(crate) wrapper: Arc<dyn KeyWrapper>,
    pub(crate) vault: Arc<MemoryVault>,
    pub(crate) vaults: Arc<MemoryVaults>,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) random: Arc<dyn Random>,
}

/// What one process holds.
pub(crate) struct Process {
    pub(crate) keys: Keys,
    pub(crate) data_keys: DataKeys,
    pub(crate) service: Arc<Service>,
    pub(crate) control: ServiceControl,
    pub(crate) wrappers: Arc<Wrappers>,
    pub(crate) reader: Arc<KeyReader>,
}

pub(crate) const STATE_TTL: Duration = Duration::from_secs(5);

impl House {
    pub(crate) async fn build() -> Self {
        let clock = Arc::new(FixedClock::new(
            "2026-01-02T03:04:05.678901234Z"
                .parse::<Timestamp>()
                .unwrap(),
        ));
        let random: Arc<dyn Random> = Arc::new(SeededRandom::new(7));
        let table = Arc::new(MemoryTable::new(clock.clone()));
        let secrets = Arc::new(MemorySecrets::new());
        let keyring = RootKeyring::establish(
            table.as_ref(),
            secrets.as_ref(),
            clock.as_ref(),
            random.clone(),
        )
        .await;
        let vault = Arc::new(MemoryVault::new(9));
        Self {
            vaults: Arc::new(MemoryVaults::new(vault.clone())),
            vault,
            table,
            secrets,
            wrapper: Arc::new(keyring.ok().unwrap()),
            clock,
            random,
        }
    }

    /// A process over a service that is running.
    pub(crate) async fn running(&self) -> Process {
        let process = self.process(false);
        process
            .service
            .start_if_new(self.table.as_ref(), self.random.as_ref(), None)
            .await
            .unwrap();
        process
    }

    pub(crate) fn process(&self, immediate_deletion: bool) -> Process {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let reader: Arc<dyn TableReader> = self.table.clone();
        let writer: Arc<dyn TableWriter> = self.table.clone();
        let service = Arc::new(Service::new(reader.clone(), clock.clone(), STATE_TTL));
        let wrappers = Arc::new(Wrappers::new(self.wrapper.clone(), self.vaults.clone()));
        let keys = Arc::new(KeyReader::new(
            reader,
            wrappers.clone(),
            clock.clone(),
            STATE_TTL,
        ));
        Process {
            data_keys: DataKeys::new(keys.clone(), service.clone(), self.random.clone()),
            control: ServiceControl::new(
                writer.clone(),
                service.clone(),
                keys.clone(),
                wrappers.clone(),
                None,
                self.random.clone(),
            ),
            reader: keys.clone(),
            keys: Keys::new(
                writer,
                keys,
                service.clone(),
                wrappers.clone(),
                clock,
                self.random.clone(),
                immediate_deletion,
            ),
            service,
            wrappers,
        }
    }
}

pub(crate) fn root() -> Caller {
    Caller::new("root", Arc::new(Grant::Owner))
}

pub(crate) fn with_policy(document: &str) -> Caller {
    Caller::new(
        "limited",
        Arc::new(Grant::Policy(Policy::parse(document).unwrap())),
    )
}

pub(crate) fn id(text: &str) -> KeyId {
    KeyId::parse("key_id", text).unwrap()
}

pub(crate) fn named(text: &str) -> NewKey {
    NewKey {
        id: Some(id(text)),
        ..NewKey::default()
    }
}

/// Has the service wrap by this backend from now on.
pub(crate) async fn move_to(process: &Process, backend: BackendType) {
    let token = SecretBytes::from(b"token".to_vec());
    let changes = ConfigChanges {
        backend_type: Some(backend),
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

/// A table that knows which records of a kind were read of it.
pub(crate) struct Watched {
    table: Arc<MemoryTable>,
    kind: Kind,
    read: Mutex<Vec<String>>,
}

impl Watched {
    /// The table of the house.
    pub(crate) fn new(house: &House, kind: Kind) -> Self {
        Self {
            table: house.table.clone(),
            kind,
            read: Mutex::default(),
        }
    }

    /// The ids of what was read.
    pub(crate) fn read(&self) -> Vec<String> {
        self.read.lock().unwrap().clone()
    }
}

#[async_trait]
impl TableReader for Watched {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        if kind == self.kind {
            self.read.lock().unwrap().push(id.to_owned());
        }
        self.table.get(kind, id, consistency).await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        self.table.count(kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let page = self.table.page(kind, prefix, after, limit).await?;
        if kind == self.kind {
            let ids = page.records.iter().map(|record| record.id.clone());
            self.read.lock().unwrap().extend(ids);
        }
        Ok(page)
    }
}

#[async_trait]
impl TableWriter for Watched {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        self.table.put_new(record).await
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        self.table.replace(record, seen).await
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        self.table.remove(kind, id, seen).await
    }
}
