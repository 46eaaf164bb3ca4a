//! Each operation checks its permission and reads configuration, key and material once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::{EncryptionContext, SecretBytes};

use super::{DataKeyRequest, DataKeySpec, DataKeys, KeyChoice};
use crate::access::{Caller, Grant};
use crate::error::{Fault, KmsError};
use crate::ids::KeyId;
use crate::keyring::{Binding, KeyWrapper, WrapError};
use crate::keys::{KeyReader, Keys, NewKey};
use crate::ports::{
    Clock, Consistency, Kind, Page, Random, RandomError, Record, Revision, StoreError, TableReader,
    TableWriter,
};
use crate::service::Service;
use crate::vault::{Vault, VaultRetryPolicy, VaultSettings, Vaults};
use crate::wrappers::Wrappers;

/// A table that counts its reads.
#[derive(Default)]
struct CountingTable {
    records: Mutex<HashMap<(Kind, String), Record>>,
    reads: Mutex<Vec<Kind>>,
}

#[async_trait]
impl TableReader for CountingTable {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        _: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        self.reads.lock().unwrap().push(kind);
        let records = self.records.lock().unwrap();
        Ok(records.get(&(kind, id.to_owned())).cloned())
    }

    async fn count(&self, _: Kind, _: &str) -> Result<u64, StoreError> {
        unreachable!("data keys count nothing")
    }

    async fn page(&self, _: Kind, _: &str, _: Option<&str>, _: usize) -> Result<Page, StoreError> {
        unreachable!("data keys list nothing")
    }
}

#[async_trait]
impl TableWriter for CountingTable {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        let mut records = self.records.lock().unwrap();
        records.insert((record.kind, record.id.clone()), record.clone());
        Ok(())
    }

    async fn replace(&self, record: &Record, _: Revision) -> Result<(), StoreError> {
        self.put_new(record).await
    }

    async fn remove(&self, _: Kind, _: &str, _: Revision) -> Result<(), StoreError> {
        unreachable!("data keys remove nothing")
    }
}

struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

/// Fills each buffer with the next number.
#[derive(Default)]
struct Numbers(AtomicU8);

impl Random for Numbers {
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError> {
        buffer.fill(self.0.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}

/// A wrapper that leaves the material unchanged.
struct Unwrapped;

#[async_trait]
impl KeyWrapper for Unwrapped {
    fn name(&self) -> &'static str {
        "none"
    }

    async fn wrap(&self, _: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        Ok(material.to_vec())
    }

    async fn unwrap(&self, _: &Binding<'_>, wrapped: &[u8]) -> Result<SecretBytes, WrapError> {
        Ok(SecretBytes::from(wrapped.to_vec()))
    }
}

struct NoVaults;

#[async_trait]
impl Vaults for NoVaults {
    async fn token_file(&self, _: &str) -> Result<(), String> {
        unreachable!("no Vault is configured")
    }

    fn open(
        &self,
        _: &VaultSettings,
        _: Option<&SecretBytes>,
        _: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, Fault> {
        unreachable!("no Vault is configured")
    }
}

struct Deployment {
    table: Arc<CountingTable>,
    reader: Arc<KeyReader>,
    keys: Keys,
    data_keys: DataKeys,
}

/// The lookups of one operation.
#[derive(Debug, PartialEq, Eq)]
struct Lookups {
    permissions: Vec<(&'static str, String)>,
    configurations: usize,
    keys: usize,
    materials: u64,
}

impl Deployment {
    /// A running service with the keys `a` and `b`, and `a` as the default key. Nothing is cached.
    async fn build() -> Self {
        let table = Arc::new(CountingTable::default());
        let (reading, writing): (Arc<dyn TableReader>, Arc<dyn TableWriter>) =
            (table.clone(), table.clone());
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) =
            (Arc::new(StoppedClock), Arc::new(Numbers::default()));
        let service = Arc::new(Service::new(reading.clone(), clock.clone(), Duration::ZERO));
        service
            .start_if_new(table.as_ref(), random.as_ref(), Some(id("a")))
            .await
            .unwrap();
        let wrappers = Arc::new(Wrappers::new(Arc::new(Unwrapped), Arc::new(NoVaults)));
        let reader = Arc::new(KeyReader::new(
            reading,
            wrappers.clone(),
            clock.clone(),
            Duration::ZERO,
        ));
        let keys = Keys::new(
            writing,
            reader.clone(),
            service.clone(),
            wrappers,
            clock,
            random.clone(),
            false,
        );
        for name in ["a", "b"] {
            let new = NewKey {
                id: Some(id(name)),
                ..NewKey::default()
            };
            keys.create(&owner(), new).await.unwrap();
        }
        Self {
            table,
            data_keys: DataKeys::new(reader.clone(), service, random),
            reader,
            keys,
        }
    }

    /// A ciphertext of the key.
    async fn sealed(&self, key: &str) -> Vec<u8> {
        let none = EncryptionContext::none();
        let request = DataKeyRequest::new(id(key), &none);
        let made = self
            .data_keys
            .generate(&owner(), &request, DataKeySpec::Aes256)
            .await;
        made.unwrap().1.blob
    }

    /// The lookups of an operation, which must succeed.
    async fn lookups<T>(
        &self,
        operation: impl AsyncFnOnce(&DataKeys, &Caller) -> Result<T, KmsError>,
    ) -> Lookups {
        let caller = owner();
        let asked = |reader: &KeyReader| reader.stats().hits + reader.stats().misses;
        let before = asked(&self.reader);
        self.table.reads.lock().unwrap().clear();
        operation(&self.data_keys, &caller).await.unwrap();
        let reads = self.table.reads.lock().unwrap().clone();
        let of = |wanted| reads.iter().filter(|kind| **kind == wanted).count();
        Lookups {
            permissions: caller.audit().decisions(),
            configurations: of(Kind::Config),
            keys: of(Kind::Key),
            materials: asked(&self.reader) - before,
        }
    }
}

fn owner() -> Caller {
    Caller::new("owner", Arc::new(Grant::Owner))
}

fn id(text: &str) -> KeyId {
    KeyId::parse("key_id", text).unwrap()
}

/// One of each.
fn once(action: &'static str) -> Lookups {
    Lookups {
        permissions: vec![(action, "a".to_owned())],
        configurations: 1,
        keys: 1,
        materials: 1,
    }
}

#[tokio::test]
async fn sealing_looks_up_each_thing_once() {
    let deployment = Deployment::build().await;
    let none = EncryptionContext::none();
    for key in [KeyChoice::Named(id("a")), KeyChoice::Default] {
        let request = DataKeyRequest::new(key, &none);
        let generate = deployment.lookups(async |data_keys, caller| {
            data_keys
                .generate(caller, &request, DataKeySpec::Aes256)
                .await
        });
        assert_eq!(generate.await, once("kms:GenerateDataKey"));
        let plaintext = SecretBytes::from(vec![1]);
        let encrypt = deployment.lookups(async |data_keys, caller| {
            data_keys.encrypt(caller, &request, &plaintext, 1).await
        });
        assert_eq!(encrypt.await, once("kms:Encrypt"));
    }
    let hmac = deployment.lookups(async |data_keys, caller| {
        data_keys
            .hmac(caller, &DataKeyRequest::new(id("a"), &none), b"")
            .await
    });
    assert_eq!(hmac.await, once("kms:GenerateMac"));
}

#[tokio::test]
async fn opening_looks_up_each_thing_once() {
    let deployment = Deployment::build().await;
    let blob = deployment.sealed("a").await;
    let none = EncryptionContext::none();
    for key in [
        KeyChoice::Named(id("a")),
        KeyChoice::Default,
        KeyChoice::OfCiphertext(None),
        KeyChoice::OfCiphertext(Some(id("a"))),
    ] {
        let request = DataKeyRequest::new(key, &none);
        let decrypt = deployment
            .lookups(async |data_keys, caller| data_keys.decrypt(caller, &request, &blob).await);
        assert_eq!(decrypt.await, once("kms:Decrypt"));
    }
}

#[tokio::test]
async fn reencryption_looks_up_each_key_once() {
    let deployment = Deployment::build().await;
    let blob = deployment.sealed("a").await;
    let none = EncryptionContext::none();
    let source = DataKeyRequest::of_ciphertext(None, &none);
    let to = async |key: KeyChoice| {
        let destination = DataKeyRequest::new(key, &none);
        let moved = deployment.lookups(async |data_keys, caller| {
            data_keys
                .reencrypt(caller, &source, &blob, &destination)
                .await
        });
        moved.await
    };
    let both = || Lookups {
        permissions: ["kms:ReEncryptFrom", "kms:ReEncryptTo"]
            .map(|action| (action, "a".to_owned()))
            .into(),
        ..once("")
    };
    for same in [
        KeyChoice::OfCiphertext(None),
        KeyChoice::Named(id("a")),
        KeyChoice::Default,
    ] {
        assert_eq!(to(same).await, both());
    }
    let other = to(KeyChoice::Named(id("b"))).await;
    let expected = Lookups {
        permissions: [("kms:ReEncryptTo", "b"), ("kms:ReEncryptFrom", "a")]
            .map(|(action, key)| (action, key.to_owned()))
            .into(),
        configurations: 1,
        keys: 2,
        materials: 2,
    };
    assert_eq!(other, expected);

    deployment.keys.rotate(&owner(), &id("a")).await.unwrap();
    let newer = to(KeyChoice::OfCiphertext(None)).await;
    let expected = Lookups {
        materials: 2,
        ..both()
    };
    assert_eq!(newer, expected, "one material for each version");
}

#[tokio::test]
async fn trial_asks_for_three_permissions_and_looks_up_each_thing_once() {
    let deployment = Deployment::build().await;
    for key in [Some(id("a")), None] {
        let tried = deployment.lookups(async |data_keys, caller| {
            let trial = data_keys.try_out(caller, key.clone()).await?;
            assert!(trial.failure.is_none());
            Ok(())
        });
        let expected = Lookups {
            permissions: ["kms:DescribeKey", "kms:GenerateDataKey", "kms:Decrypt"]
                .map(|action| (action, "a".to_owned()))
                .into(),
            ..once("")
        };
        assert_eq!(tried.await, expected);
    }
}
