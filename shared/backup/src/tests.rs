//! Bundles of tables in memory.

mod creating;
mod reading;
mod restoring;
mod sharing;

use std::io::{self, Cursor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{BundleForgery, DEPLOYMENT_RECORD, KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Random, Record, Revision, SecretStore, StoreError, TableReader,
    TableWriter,
};
use keyway_domain::records::EVERY_ID;
use keyway_domain::service::{RestoredConfig, SERVICE_RECORD, Service};
use keyway_testkit::{FixedClock, MemorySecrets, MemoryTable, SeededRandom, signed_table};
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::*;

const NOW: &str = "2026-01-02T03:04:05.5Z";

/// A deployment in memory.
struct Place {
    table: Arc<MemoryTable>,
    secrets: Arc<MemorySecrets>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// A deployment, the table that signs, and its keyring.
struct Deployment {
    place: Place,
    signed: Arc<dyn TableWriter>,
    keyring: Arc<KeyringOnDemand>,
}

fn place(seed: u64) -> Place {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(NOW.parse().unwrap()));
    Place {
        table: Arc::new(MemoryTable::new(Arc::clone(&clock))),
        secrets: Arc::new(MemorySecrets::new()),
        clock,
        random: Arc::new(SeededRandom::new(seed)),
    }
}

async fn opened(place: Place) -> Deployment {
    let secrets = Arc::clone(&place.secrets) as Arc<dyn SecretStore>;
    let made = signed_table(&place.table, secrets, &place.clock, &place.random).await;
    let (signed, keyring) = made.unwrap();
    Deployment {
        place,
        signed,
        keyring,
    }
}

/// A started deployment with records of each kind.
async fn deployment(seed: u64) -> Deployment {
    let made = opened(place(seed)).await;
    made.start().await;
    for (kind, id) in [
        (Kind::Key, "a"),
        (Kind::Key, "b"),
        (Kind::Alias, "alias"),
        (Kind::Alias, "key/a"),
        (Kind::Policy, "policy"),
        (Kind::Identity, "identity"),
        (Kind::AccessKey, "AKIA"),
        (Kind::Bucket, "bucket"),
        (Kind::Audit, "20260102T030405.100000Z.w.000000000000"),
        (Kind::ErrorLog, "20260102T030405.100000Z.w.000000000000"),
    ] {
        made.put(kind, id, "{\"first\":1}").await;
    }
    made
}

impl Deployment {
    async fn start(&self) {
        let reader = Arc::clone(&self.signed) as Arc<dyn TableReader>;
        let service = Service::new(
            reader,
            Arc::clone(&self.place.clock),
            std::time::Duration::ZERO,
        );
        let random = self.place.random.as_ref();
        let started = service.start_if_new(self.signed.as_ref(), random, None);
        started.await.unwrap();
    }

    fn revision(&self) -> Revision {
        let mut bytes = [0; 16];
        self.place.random.fill(&mut bytes).unwrap();
        Revision(bytes)
    }

    /// Writes the record, over the present one if there is one.
    async fn put(&self, kind: Kind, id: &str, value: &str) {
        let record = Record {
            kind,
            id: id.to_owned(),
            revision: self.revision(),
            value: value.as_bytes().to_vec(),
            expires_at: None,
        };
        match self.stored(kind, id).await {
            None => self.signed.put_new(&record).await.unwrap(),
            Some(seen) => self.signed.replace(&record, seen.revision).await.unwrap(),
        }
    }

    async fn remove(&self, kind: Kind, id: &str) {
        let seen = self.stored(kind, id).await.unwrap();
        self.signed.remove(kind, id, seen.revision).await.unwrap();
    }

    async fn stored(&self, kind: Kind, id: &str) -> Option<Record> {
        let table = &self.place.table;
        table.get(kind, id, Consistency::Strong).await.unwrap()
    }

    /// The content that Keyway obeys.
    async fn value(&self, kind: Kind, id: &str) -> Option<String> {
        let read = self.signed.get(kind, id, Consistency::Strong).await;
        read.unwrap()
            .map(|record| String::from_utf8(record.value).unwrap())
    }

    async fn epoch(&self) -> u64 {
        let record = self.stored(Kind::Config, SERVICE_RECORD).await.unwrap();
        let content = keyway_domain::records::content(&record);
        RestoredConfig::decode(content).unwrap().epoch()
    }

    async fn bundle_of(
        &self,
        table: &dyn TableReader,
        root: Option<RootWish>,
    ) -> (Vec<u8>, Created) {
        self.bundle_with(table, root, Logs::All).await
    }

    async fn bundle_with(
        &self,
        table: &dyn TableReader,
        root: Option<RootWish>,
        logs: Logs,
    ) -> (Vec<u8>, Created) {
        let mut output = Memory::default();
        let source = Source {
            table,
            keyring: &self.keyring,
            clock: self.place.clock.as_ref(),
            random: &self.place.random,
        };
        let created = create(&source, logs, root, &mut output, &mut |_| {}).await;
        let created = created.unwrap();
        assert!(output.is_finished);
        assert_eq!(output.bytes.len() as u64, created.bytes);
        (output.bytes, created)
    }

    async fn bundle(&self) -> Vec<u8> {
        self.bundle_of(self.place.table.as_ref(), None).await.0
    }

    async fn restore(&self, bundle: &[u8], options: &RestoreOptions) -> Restored {
        restored(&self.place, bundle, None, options).await.unwrap()
    }
}

#[derive(Default)]
struct Memory {
    bytes: Vec<u8>,
    is_finished: bool,
    is_abandoned: bool,
    is_full: bool,
}

#[async_trait]
impl Output for Memory {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        self.is_finished = true;
        Ok(())
    }

    async fn abandon(&mut self) {
        self.is_abandoned = true;
    }
}

fn open(bytes: &[u8]) -> Result<Bundle<Cursor<Vec<u8>>>, BundleError> {
    Bundle::open(Cursor::new(bytes.to_vec()))
}

async fn restored(
    place: &Place,
    bundle: &[u8],
    root: Option<&SecretBytes>,
    options: &RestoreOptions,
) -> Result<Restored, RestoreError> {
    let target = Target {
        table: Arc::clone(&place.table) as _,
        secrets: Arc::clone(&place.secrets) as _,
        key_directory: None,
        clock: Arc::clone(&place.clock),
        random: Arc::clone(&place.random),
    };
    let mut bundle = open(bundle).unwrap();
    restore(&mut bundle, &target, root, options, &mut |_| {}).await
}

fn names(of: &[Name]) -> Vec<String> {
    of.iter()
        .map(|name| format!("{}/{}", name.kind.as_str(), name.id))
        .collect()
}

fn ids(bytes: &[u8]) -> Vec<String> {
    let mut bundle = open(bytes).unwrap();
    let mut records = bundle.records().unwrap();
    let mut names = Vec::new();
    while let Some(record) = records.next().unwrap() {
        names.push(format!("{}/{}", record.kind.as_str(), record.id));
    }
    names
}

fn dry() -> RestoreOptions {
    RestoreOptions {
        dry_run: true,
        ..RestoreOptions::default()
    }
}
