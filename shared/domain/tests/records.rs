//! Changes of the table by a writer without the keyring have no effect.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must stop"
)]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{id, named, root};
use keyway_domain::access::{AccessKeyId, AccessKeys, Credentials, RootAccessKey};
use keyway_domain::control::ServiceControl;
use keyway_domain::datakey::{DataKeyRequest, DataKeys};
use keyway_domain::identity::{Identities, Identity, IdentityControl, PolicyName, Rules};
use keyway_domain::keyring::{KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::keys::{KeyReader, Keys, NewKey};
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, SecretStore, StoreError, TableReader,
    TableWriter,
};
use keyway_domain::records::{Forgery, SignedRecords, SignedTable};
use keyway_domain::service::{BackendType, Change, ConfigChanges, NewAuth, Service};
use keyway_domain::vault::{VaultAddress, VaultPath};
use keyway_domain::wrappers::Wrappers;
use keyway_domain::{KmsError, SecretBytes};
use keyway_testkit::{
    FixedClock, MemorySecrets, MemoryTable, MemoryVault, MemoryVaults, SeededRandom, signed_table,
};
use serde_json::Value;

/// A deployment whose records are signed, and the table as it is stored.
struct Deployment {
    stored: Arc<MemoryTable>,
    secrets: Arc<MemorySecrets>,
    clock: Arc<FixedClock>,
    random: Arc<dyn Random>,
    vaults: Arc<MemoryVaults>,
}

/// What one process holds.
struct Process {
    table: Arc<SignedTable<MemoryTable>>,
    keyring: Arc<KeyringOnDemand>,
    keys: Keys,
    data_keys: DataKeys,
    service: Arc<Service>,
    control: ServiceControl,
    credentials: Credentials,
    access_keys: AccessKeys,
    identities: Arc<Identities>,
    identity_control: IdentityControl,
    records: SignedRecords,
}

impl Deployment {
    async fn make() -> (Self, Process) {
        let start = "2026-01-02T03:04:05Z".parse().unwrap();
        let clock = Arc::new(FixedClock::new(start));
        let deployment = Self {
            stored: Arc::new(MemoryTable::new(clock.clone())),
            secrets: Arc::new(MemorySecrets::new()),
            clock,
            random: Arc::new(SeededRandom::new(7)),
            vaults: Arc::new(MemoryVaults::new(Arc::new(MemoryVault::new(9)))),
        };
        let process = deployment.process().await;
        let table = process.table.as_ref();
        let service = &process.service;
        service
            .start_if_new(table, deployment.random.as_ref(), None)
            .await
            .unwrap();
        (deployment, process)
    }

    /// A process that starts now: it holds nothing but the keyring.
    async fn process(&self) -> Process {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let (table, keyring) =
            signed_table(&self.stored, self.secrets.clone(), &clock, &self.random)
                .await
                .unwrap();
        let ttl = Duration::ZERO;
        let reader: Arc<dyn TableReader> = table.clone();
        let writer: Arc<dyn TableWriter> = table.clone();
        let wrapper = keyring.clone();
        let service = Arc::new(Service::new(reader.clone(), clock.clone(), ttl));
        let wrappers = Arc::new(Wrappers::new(wrapper.clone(), self.vaults.clone()));
        let keys = Arc::new(KeyReader::new(
            reader.clone(),
            wrappers.clone(),
            clock.clone(),
            ttl,
        ));
        let identities = Arc::new(Identities::new(reader.clone(), clock.clone(), ttl, None));
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
            keys: Keys::new(
                writer.clone(),
                keys,
                service.clone(),
                wrappers,
                clock.clone(),
                self.random.clone(),
                false,
            ),
            service,
            credentials: Credentials::new(
                reader,
                wrapper.clone(),
                clock.clone(),
                ttl,
                RootAccessKey::InTable,
            ),
            access_keys: AccessKeys::new(
                writer.clone(),
                wrapper,
                clock.clone(),
                self.random.clone(),
            ),
            identity_control: IdentityControl::new(writer, identities.clone(), self.random.clone()),
            identities,
            records: SignedRecords::new(self.stored.clone(), keyring.clone(), self.random.clone()),
            table,
            keyring,
        }
    }

    async fn stored(&self, kind: Kind, id: &str) -> Record {
        let found = self.stored.get(kind, id, Consistency::Strong).await;
        found.unwrap().unwrap()
    }

    /// Changes the content under the signature that is there.
    async fn tamper(&self, kind: Kind, id: &str, from: &str, to: &str) {
        let seen = self.stored(kind, id).await;
        let text = String::from_utf8(seen.value.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        let record = Record {
            value: text.replace(from, to).into_bytes(),
            ..seen.clone()
        };
        self.put_in_place(&record).await;
    }

    /// Writes this record to the table, whatever the table has under its name.
    async fn put_in_place(&self, record: &Record) {
        let there = self
            .stored
            .get(record.kind, &record.id, Consistency::Strong);
        if let Some(there) = there.await.unwrap() {
            self.stored
                .remove(there.kind, &there.id, there.revision)
                .await
                .unwrap();
        }
        self.stored.put_new(record).await.unwrap();
    }

    /// The deployment of an older release: no record is signed, and the keyring does not require it.
    async fn unsign(&self) {
        for kind in Kind::ALL {
            for record in self
                .stored
                .page(kind, "", None, 1000)
                .await
                .unwrap()
                .records
            {
                let start = record.value.iter().position(|byte| *byte == b'{').unwrap();
                let unsigned = Record {
                    value: record.value[start..].to_vec(),
                    ..record.clone()
                };
                self.put_in_place(&unsigned).await;
            }
        }
        let (value, seen) = self.secrets.get(KEYRING_SECRET).await.unwrap().unwrap();
        let mut keyring: Value = serde_json::from_slice(value.expose()).unwrap();
        keyring.as_object_mut().unwrap().remove("signed").unwrap();
        let value = SecretBytes::from(serde_json::to_vec(&keyring).unwrap());
        self.secrets
            .put(KEYRING_SECRET, &value, Some(&seen))
            .await
            .unwrap();
    }
}

/// The kinds of records that decide something.
const SIGNED: [Kind; 7] = [
    Kind::Key,
    Kind::AccessKey,
    Kind::Alias,
    Kind::Config,
    Kind::Bucket,
    Kind::Policy,
    Kind::Identity,
];

fn record(kind: Kind, id: &str, content: &str) -> Record {
    Record {
        kind,
        id: id.to_owned(),
        revision: Revision([7; 16]),
        value: content.as_bytes().to_vec(),
        expires_at: None,
    }
}

fn refusal<T>(result: &Result<T, StoreError>) -> Option<Forgery> {
    match result {
        Err(StoreError::Refused { why, .. }) => Some(*why),
        _ => None,
    }
}

#[tokio::test]
async fn signed_record_changed_anywhere_is_refused() {
    let (deployment, process) = Deployment::make().await;
    for kind in SIGNED {
        let written = record(kind, "one", r#"{"format":1,"word":"true"}"#);
        process.table.put_new(&written).await.unwrap();
        let read = process.table.get(kind, "one", Consistency::Strong).await;
        assert_eq!(read.unwrap(), Some(written), "{kind:?}");
        let stored = deployment.stored(kind, "one").await;
        let line = stored.value.iter().position(|byte| *byte == b'\n').unwrap();

        let mut forged = Vec::new();
        for place in 0..stored.value.len() {
            let mut value = stored.value.clone();
            value[place] ^= 1;
            forged.push(Record {
                value,
                ..stored.clone()
            });
            forged.push(Record {
                value: stored.value[..place].to_vec(),
                ..stored.clone()
            });
        }
        let mut longer = stored.clone();
        longer.value.push(b' ');
        forged.push(longer);
        // The same record under another revision, in another row, as another kind, and without its signature.
        forged.push(Record {
            revision: Revision([8; 16]),
            ..stored.clone()
        });
        forged.push(Record {
            id: "two".to_owned(),
            ..stored.clone()
        });
        for other in SIGNED.into_iter().filter(|other| *other != kind) {
            forged.push(Record {
                kind: other,
                id: "moved".to_owned(),
                ..stored.clone()
            });
        }
        forged.push(Record {
            value: stored.value[line + 1..].to_vec(),
            ..stored.clone()
        });
        for record in forged {
            let before = process.keyring.refused_records();
            deployment.put_in_place(&record).await;
            let read = process
                .table
                .get(record.kind, &record.id, Consistency::Strong)
                .await;
            assert!(refusal(&read).is_some(), "{record:?}");
            assert_eq!(process.keyring.refused_records(), before + 1);
        }
        deployment.put_in_place(&stored).await;
        let read = process.table.get(kind, "one", Consistency::Strong).await;
        assert!(read.unwrap().is_some(), "the true one is believed again");
    }
}

#[tokio::test]
async fn page_with_refused_records_lists_the_others() {
    let (deployment, process) = Deployment::make().await;
    for n in 0..20 {
        let written = record(Kind::Bucket, &format!("b{n:02}"), r#"{"format":1}"#);
        process.table.put_new(&written).await.unwrap();
        if n % 4 != 0 {
            let id = &written.id;
            deployment
                .tamper(Kind::Bucket, id, "format", "f0rmat")
                .await;
        }
    }
    let (mut listed, mut refused, mut after) = (Vec::new(), Vec::new(), None::<String>);
    for _ in 0..40 {
        let page = process.table.page(Kind::Bucket, "", after.as_deref(), 2);
        let page = page.await.unwrap();
        after = page.records.last().map(|record| record.id.clone());
        listed.extend(page.records.into_iter().map(|record| record.id));
        refused.extend(page.refused.into_iter().map(|record| record.id));
        if !page.more {
            break;
        }
    }
    assert_eq!(listed, ["b00", "b04", "b08", "b12", "b16"]);
    refused.sort();
    refused.dedup();
    assert_eq!(refused.len(), 15);
}

#[tokio::test]
async fn access_key_with_a_wider_grant_or_a_later_expiry_is_refused() {
    let (deployment, process) = Deployment::make().await;
    let auditor = Policy::canned("kms-auditor").unwrap();
    let hour = Some(Duration::from_secs(3600));
    let key = process.access_keys.create(auditor, hour).await.unwrap();
    let id = key.id.as_str();
    assert!(process.credentials.find(id).await.unwrap().is_some());
    let true_record = deployment.stored(Kind::AccessKey, id).await;

    let grant = |from: &'static str, to: &'static str| (from, to);
    for (from, to) in [
        grant("kms:DescribeKey", "kms:*"),
        grant("2026-01-02T04:04:05Z", "2027-01-02T04:04:05Z"),
        grant("\"format\":1", "\"format\": 1"),
    ] {
        deployment.tamper(Kind::AccessKey, id, from, to).await;
        let found = process.credentials.find(id).await;
        assert!(matches!(found, Err(KmsError::Backend(_))), "{from}");
        deployment.put_in_place(&true_record).await;
    }
    // Nor does another access key's record become this one's, with whatever it may do.
    let admin = Policy::canned("kms-admin").unwrap();
    let other = process.access_keys.create(admin, None).await.unwrap();
    let mut swapped = deployment.stored(Kind::AccessKey, other.id.as_str()).await;
    swapped.id = id.to_owned();
    deployment.put_in_place(&swapped).await;
    assert!(process.credentials.find(id).await.is_err());
    // It can still be revoked: that does not rely on its content.
    let id = AccessKeyId::parse(id).unwrap();
    deployment.put_in_place(&true_record).await;
    process.access_keys.revoke(&id).await.unwrap();
}

#[tokio::test]
async fn policy_and_identity_made_without_the_keyring_give_nothing() {
    let (deployment, process) = Deployment::make().await;
    let name = PolicyName::parse("admins").unwrap();
    let rules = Rules::parse(["/v1/status".to_owned()], []).unwrap();
    process
        .identity_control
        .write(&root(), &name, &rules)
        .await
        .unwrap();
    let own = Identity::parse("c0ffee").unwrap();
    let friend = Identity::parse("f00d").unwrap();
    process
        .identity_control
        .assign(&root(), &name, &friend)
        .await
        .unwrap();
    let calls = async |identity: &Identity, path: &str| {
        let caller = process.identities.caller(identity).await;
        caller.is_ok_and(|caller| caller.may_call(path).is_ok())
    };
    assert!(calls(&friend, "/v1/status").await);

    // The friend's record under the attacker's name, as it is and without a signature.
    let mut copied = deployment.stored(Kind::Identity, friend.as_str()).await;
    copied.id = own.as_str().to_owned();
    deployment.put_in_place(&copied).await;
    assert!(!calls(&own, "/v1/status").await);
    let line = copied.value.iter().position(|byte| *byte == b'\n').unwrap();
    copied.value.drain(..=line);
    deployment.put_in_place(&copied).await;
    assert!(!calls(&own, "/v1/status").await);
    // A policy that allows more.
    let (from, to) = ("/v1/status", "/v1/key/**");
    deployment.tamper(Kind::Policy, "admins", from, to).await;
    assert!(!calls(&friend, "/v1/key/create/k").await);
    assert!(
        !calls(&friend, "/v1/status").await,
        "it is not obeyed in part"
    );
}

#[tokio::test]
async fn configuration_that_names_another_vault_is_refused_everywhere() {
    let (deployment, process) = Deployment::make().await;
    set_vault(&process, "https://vault.example").await.unwrap();
    let key = process.keys.create(&root(), named("k")).await.unwrap();
    assert_eq!(key.current_version(), 1);
    let (from, to) = ("https://vault.example", "https://evil.example");
    deployment.tamper(Kind::Config, "service", from, to).await;
    let opened = deployment.vaults.opened().len();
    let refused = |result: Result<(), KmsError>| matches!(result, Err(KmsError::Backend(_)));
    let (root, k) = (root(), id("k"));
    assert!(refused(process.service.running().await.map(drop)));
    assert!(refused(process.keys.rotate(&root, &k).await.map(drop)));
    assert!(refused(
        process
            .keys
            .create(&root, NewKey::default())
            .await
            .map(drop)
    ));
    assert!(refused(process.control.start(&root, true).await.map(drop)));
    assert!(refused(process.control.status(&root, "r").await.map(drop)));
    let fresh = deployment.process().await;
    assert!(refused(fresh.service.config().await.map(drop)));
    assert_eq!(
        deployment.vaults.opened().len(),
        opened,
        "nothing was sent anywhere"
    );
}

#[tokio::test]
async fn key_with_an_exchanged_version_is_refused_and_others_serve() {
    let (deployment, process) = Deployment::make().await;
    for name in ["a", "b"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let mine = deployment.stored(Kind::Key, "b").await;
    let text = String::from_utf8(mine.value.clone()).unwrap();
    assert!(text.contains(r#""id":"b""#));
    deployment
        .tamper(
            Kind::Key,
            "b",
            r#""wrapper":"root""#,
            r#""wrapper":"vault-transit""#,
        )
        .await;
    let refused = process.keys.describe(&root(), &id("b")).await;
    assert!(matches!(refused, Err(KmsError::Backend(_))));
    let page = process
        .keys
        .list(&root(), &Default::default())
        .await
        .unwrap();
    let listed: Vec<_> = page.keys.iter().map(|key| key.id.as_str()).collect();
    assert!(!listed.contains(&"b"));
    let context = keyway_domain::EncryptionContext::none();
    let spec = keyway_domain::datakey::DataKeySpec::Aes256;
    let made = process
        .data_keys
        .generate(&root(), &DataKeyRequest::new(id("a"), &context), spec)
        .await;
    assert!(made.is_ok());
}

/// Makes the service wrap by a Vault at this address.
async fn set_vault(process: &Process, address: &str) -> Result<(), KmsError> {
    let token = SecretBytes::from(b"hvs.token".to_vec());
    let changes = ConfigChanges {
        backend_type: Some(BackendType::Vault),
        address: Change::Set(VaultAddress::parse("address", address).unwrap()),
        auth: Some(NewAuth::Token(Some(token))),
        ..ConfigChanges::default()
    };
    process
        .control
        .reconfigure(&root(), &changes)
        .await
        .map(drop)
}

#[tokio::test]
async fn changed_place_of_a_vault_needs_its_credential_again() {
    let (_, process) = Deployment::make().await;
    set_vault(&process, "https://vault.example").await.unwrap();
    let path = |text: &str| VaultPath::parse("path", text).unwrap();
    let address = VaultAddress::parse("address", "https://other.example").unwrap();
    let elsewhere = || -> [ConfigChanges; 5] {
        [
            ConfigChanges {
                address: Change::Set(address.clone()),
                ..ConfigChanges::default()
            },
            ConfigChanges {
                namespace: Change::Set(path("team")),
                ..ConfigChanges::default()
            },
            ConfigChanges {
                mount_path: Change::Set(path("other")),
                ..ConfigChanges::default()
            },
            ConfigChanges {
                kv_mount: Change::Set(path("other")),
                ..ConfigChanges::default()
            },
            ConfigChanges {
                address: Change::Set(address.clone()),
                auth: Some(NewAuth::Token(None)),
                ..ConfigChanges::default()
            },
        ]
    };
    for changes in elsewhere() {
        let refused = process.control.reconfigure(&root(), &changes).await;
        let Err(KmsError::Invalid { field, .. }) = refused else {
            panic!("the credential was taken along")
        };
        assert_eq!(field, "auth_method");
    }
    for mut changes in elsewhere() {
        let token = SecretBytes::from(b"hvs.token".to_vec());
        changes.auth = Some(NewAuth::Token(Some(token)));
        let changed = process.control.reconfigure(&root(), &changes).await;
        assert!(changed.is_ok());
    }
    // A change that leaves the address keeps the stored credential.
    let changes = ConfigChanges {
        timeout_seconds: Change::Set(9),
        auth: Some(NewAuth::Token(None)),
        ..ConfigChanges::default()
    };
    let config = process
        .control
        .reconfigure(&root(), &changes)
        .await
        .unwrap();
    assert!(config.vault.as_ref().unwrap().has_credential());
}

#[tokio::test]
async fn credential_of_a_vault_opens_for_no_other_place() {
    let (deployment, process) = Deployment::make().await;
    set_vault(&process, "https://vault.example").await.unwrap();
    // Even signed by the keyring, a configuration cannot send the token elsewhere.
    let seen = process
        .table
        .get(Kind::Config, "service", Consistency::Strong);
    let seen = seen.await.unwrap().unwrap();
    let text = String::from_utf8(seen.value.clone()).unwrap();
    let moved = Record {
        value: text
            .replace("https://vault.example", "https://evil.example")
            .into_bytes(),
        revision: Revision([9; 16]),
        ..seen.clone()
    };
    process.table.replace(&moved, seen.revision).await.unwrap();
    let fresh = deployment.process().await;
    let opened = deployment.vaults.opened().len();
    let made = fresh.keys.create(&root(), named("k")).await;
    assert!(matches!(made, Err(KmsError::Backend(_))));
    assert_eq!(deployment.vaults.opened().len(), opened);
}

#[tokio::test]
async fn configuration_put_back_is_refused_by_a_process_that_saw_a_newer_one() {
    let (deployment, process) = Deployment::make().await;
    let old = deployment.stored(Kind::Config, "service").await;
    process.control.clear_cache(&root()).await.unwrap();
    process.service.running().await.unwrap();
    deployment.put_in_place(&old).await;
    assert!(matches!(
        process.service.running().await,
        Err(KmsError::Backend(_))
    ));
    let restarted = deployment.process().await;
    restarted.service.running().await.unwrap();
}

#[tokio::test]
async fn table_of_an_older_release_is_obeyed_until_it_is_signed() {
    let (deployment, process) = Deployment::make().await;
    for name in ["a", "b", "c"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    deployment.unsign().await;
    let process = deployment.process().await;
    process.keys.describe(&root(), &id("a")).await.unwrap();

    let dry = process.records.verify().await.unwrap();
    assert!(!dry.marked && dry.is_clean());
    assert_eq!((dry.verified, dry.unsigned.len()), (0, 4), "{dry:?}");
    let again = process.records.verify().await.unwrap();
    assert_eq!(dry, again, "a look changes nothing");

    // Every write signs its record; the job signs the others.
    process.keys.disable(&root(), &id("a")).await.unwrap();
    let other = deployment.process().await;
    let done = process.records.sign(&[]).await.unwrap();
    assert_eq!((done.signed, done.marked), (3, true), "{done:?}");
    let clean = process.records.verify().await.unwrap();
    assert_eq!((clean.verified, clean.marked), (4, true), "{clean:?}");

    // From now on a record without a signature is refused: by this process, by one that ran before once it has looked
    // again, and by new ones.
    let mut forged = deployment.stored(Kind::Key, "b").await;
    let line = forged.value.iter().position(|byte| *byte == b'\n').unwrap();
    forged.value.drain(..=line);
    deployment.put_in_place(&forged).await;
    deployment.clock.advance(Duration::from_secs(6));
    for process in [&process, &other, &deployment.process().await] {
        let refused = process.keys.describe(&root(), &id("b")).await;
        assert!(matches!(refused, Err(KmsError::Backend(_))));
        process.keys.describe(&root(), &id("c")).await.unwrap();
    }
    // No write signs it without a check.
    let found = process.records.sign(&[]).await.unwrap();
    assert_eq!(found.unsigned, [(Kind::Key, "b".to_owned())]);
    assert!(!found.is_clean());
    for (accept, signed) in [
        ((Kind::Key, "c"), 0),
        ((Kind::Bucket, "*"), 0),
        ((Kind::Key, "b"), 1),
        ((Kind::Key, "*"), 1),
    ] {
        deployment.put_in_place(&forged).await;
        let accept = [(accept.0, accept.1.to_owned())];
        let found = process.records.sign(&accept).await.unwrap();
        assert_eq!((found.signed, found.is_clean()), (signed, signed == 1));
    }
    process.keys.describe(&root(), &id("b")).await.unwrap();
}

#[tokio::test]
async fn signing_stops_at_a_forged_record_and_goes_on_without_it() {
    let (deployment, process) = Deployment::make().await;
    process.keys.create(&root(), named("a")).await.unwrap();
    deployment.unsign().await;
    let process = deployment.process().await;
    process.keys.create(&root(), named("b")).await.unwrap();
    let true_record = deployment.stored(Kind::Key, "b").await;
    deployment
        .tamper(Kind::Key, "b", "\"format\"", "\"f0rmat\"")
        .await;
    let found = process.records.sign(&[]).await.unwrap();
    assert!(!found.marked, "{found:?}");
    let expected = [(Kind::Key, "b".to_owned(), Forgery::Altered)];
    assert_eq!(found.refused, expected);
    deployment.put_in_place(&true_record).await;
    let found = process.records.sign(&[]).await.unwrap();
    assert!(found.marked && found.is_clean(), "{found:?}");
}

#[tokio::test]
async fn keyring_unavailable_makes_every_signed_record_unavailable() {
    let (deployment, _) = Deployment::make().await;
    let keyring = Arc::new(KeyringOnDemand::opening(
        deployment.stored.clone(),
        Arc::new(MemorySecrets::new()),
        deployment.clock.clone(),
        deployment.random.clone(),
    ));
    let table = SignedTable::new(deployment.stored.clone(), keyring);
    let read = table
        .get(Kind::Config, "service", Consistency::Strong)
        .await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))));
    let written = table.put_new(&record(Kind::Key, "k", "{}")).await;
    assert!(matches!(written, Err(StoreError::Unavailable(_))));
    // Unsigned records need no keyring.
    let line = record(Kind::Audit, "20260102T03-x", "line");
    table.put_new(&line).await.unwrap();
    let read = table.get(Kind::Audit, &line.id, Consistency::Strong).await;
    assert_eq!(read.unwrap(), Some(line));
}

#[tokio::test]
async fn record_signed_by_one_function_is_accepted_by_others() {
    let (deployment, process) = Deployment::make().await;
    let keyring = Arc::new(KeyringOnDemand::signing(
        deployment.secrets.clone(),
        deployment.clock.clone(),
        deployment.random.clone(),
    ));
    let table = Arc::new(SignedTable::new(deployment.stored.clone(), keyring));
    let ttl = Duration::ZERO;
    let identities = Identities::new(table.clone(), deployment.clock.clone(), ttl, None);
    let access = IdentityControl::new(table, Arc::new(identities), deployment.random.clone());
    let name = PolicyName::parse("p").unwrap();
    let rules = Rules::parse(["/v1/status".to_owned()], []).unwrap();
    access.write(&root(), &name, &rules).await.unwrap();
    let read = process.identities.policy(&root(), &name).await.unwrap();
    assert_eq!(read.rules, rules);
}

#[tokio::test]
async fn records_of_a_second_implementation_are_equal_and_verify() {
    let vectors = include_str!("../../../vectors/signed-records.json");
    let vectors: Value = serde_json::from_str(vectors).unwrap();
    let bytes = |text: &Value| -> Vec<u8> {
        let digits = text.as_str().unwrap().as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    };
    let secrets = Arc::new(MemorySecrets::new());
    let keyring = SecretBytes::from(vectors["keyring"].to_string().into_bytes());
    secrets.put(KEYRING_SECRET, &keyring, None).await.unwrap();
    let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
    let stored = Arc::new(MemoryTable::new(clock.clone()));
    let keyring = KeyringOnDemand::signing(secrets, clock, Arc::new(SeededRandom::new(1)));
    let table = SignedTable::new(stored.clone(), Arc::new(keyring));
    let records = vectors["records"].as_array().unwrap();
    assert_eq!(records.len(), SIGNED.len());
    for vector in records {
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == vector["kind"])
            .unwrap();
        let id = vector["id"].as_str().unwrap();
        let record = Record {
            kind,
            id: id.to_owned(),
            revision: Revision(bytes(&vector["revision"]).try_into().unwrap()),
            value: bytes(&vector["value"]),
            expires_at: None,
        };
        stored.put_new(&record).await.unwrap();
        let read = table.get(kind, id, Consistency::Strong).await.unwrap();
        let read = read.unwrap();
        assert_eq!(read.value, bytes(&vector["content"]), "{vector}");
        // What is written is signed under the newest root key, so only those are the same.
        stored.remove(kind, id, record.revision).await.unwrap();
        table.put_new(&read).await.unwrap();
        let made = stored.get(kind, id, Consistency::Strong).await.unwrap();
        let under_newest = record.value.starts_with(b"KW1 r2 ");
        assert_eq!(made.unwrap().value == record.value, under_newest);
    }
}
