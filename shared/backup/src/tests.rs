//! Bundles of tables in memory.

use std::io::{self, Cursor};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{BundleForgery, KEYRING_SECRET, KeyringOnDemand};
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

#[tokio::test]
async fn bundle_has_every_record_as_it_is_stored() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    let mut bundle = open(&bytes).unwrap();
    let header = bundle.header().clone();
    assert_eq!(header.created_at, NOW.parse::<Timestamp>().unwrap());
    assert_eq!(header.root, None);
    assert!(bundle.summary().is_one_moment);
    let last = bundle.summary().last_audit_record.as_deref();
    assert_eq!(last, Some("20260102T030405.100000Z.w.000000000000"));
    assert_eq!(bundle.summary().records["key"], 2);
    let mut records = bundle.records().unwrap();
    let mut count = 0;
    while let Some(record) = records.next().unwrap() {
        assert_eq!(from.stored(record.kind, &record.id).await, Some(record));
        count += 1;
    }
    assert_eq!(count, 12, "with the deployment and the configuration");
}

#[tokio::test]
async fn bundle_is_authentic_under_its_own_keyring_alone() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    let bundle = open(&bytes).unwrap();
    let keyring = from.keyring.keyring().await.unwrap();
    assert_eq!(bundle.must_be_authentic(&keyring), Ok(()));
    let other = deployment(2).await;
    let keyring = other.keyring.keyring().await.unwrap();
    let judged = bundle.must_be_authentic(&keyring);
    assert_eq!(judged, Err(BundleForgery::Altered));
}

#[tokio::test]
async fn bundle_forged_with_a_right_checksum_is_refused_by_restore() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    // Another deployment's keyring makes the checksum and the MAC.
    let other = deployment(2).await.bundle().await;
    let trailer = |bytes: &[u8]| {
        let at = bytes
            .windows(9)
            .rposition(|window| window == b"{\"sha256\"");
        at.unwrap()
    };
    let digest = open(&bytes).unwrap();
    let digest = hex::encode(digest.digest());
    let mut forged = bytes.get(..trailer(&bytes)).unwrap().to_vec();
    let end = String::from_utf8(other.get(trailer(&other)..).unwrap().to_vec()).unwrap();
    let told = hex::encode(open(&other).unwrap().digest());
    forged.extend_from_slice(end.replace(&told, &digest).as_bytes());
    assert!(open(&forged).is_ok(), "its checksum is right");
    let refused = restored(&from.place, &forged, None, &RestoreOptions::default()).await;
    assert!(matches!(
        refused,
        Err(RestoreError::NotAuthentic(BundleForgery::Altered))
    ));
}

#[tokio::test]
async fn bundle_cut_or_changed_anywhere_is_refused() {
    let bytes = deployment(1).await.bundle().await;
    for end in 0..bytes.len() {
        assert!(open(bytes.get(..end).unwrap()).is_err(), "{end}");
    }
    for position in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[position] ^= 1;
        let judged = open(&changed);
        // The MAC and the root key's id are judged with the keyring.
        let is_in_trailer = position > bytes.len() - 100;
        assert!(judged.is_err() || is_in_trailer, "{position}");
    }
    let longer = [&bytes[..], b"x"].concat();
    assert!(matches!(open(&longer), Err(BundleError::Malformed(_))));
}

#[tokio::test]
async fn bundle_of_a_later_version_says_so() {
    let mut bytes = deployment(1).await.bundle().await;
    bytes[14] = b'2';
    assert!(matches!(open(&bytes), Err(BundleError::Newer)));
    assert!(matches!(open(b"KW1 "), Err(BundleError::NotABundle)));
    assert!(matches!(open(b""), Err(BundleError::NotABundle)));
}

#[test]
fn frame_that_claims_more_than_it_may_have_takes_no_memory() {
    for kind in b"HKRCDEZ?" {
        let mut bytes = b"keyway-backup 1\n".to_vec();
        bytes.push(*kind);
        bytes.extend_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(
            open(&bytes),
            Err(BundleError::Malformed("a part is too long"))
        ));
    }
}

#[tokio::test]
async fn output_that_fails_is_abandoned() {
    let from = deployment(1).await;
    let mut output = Memory {
        is_full: true,
        ..Memory::default()
    };
    let source = Source {
        table: from.place.table.as_ref(),
        keyring: &from.keyring,
        clock: from.place.clock.as_ref(),
        random: &from.place.random,
    };
    let made = create(&source, Logs::All, None, &mut output, &mut |_| {}).await;
    assert!(matches!(made, Err(CreateError::Output(_))));
    assert!(output.is_abandoned && !output.is_finished);
}

/// A table in which something is done at the beginning of a pass.
struct Moving<'a> {
    from: &'a Deployment,
    pages: AtomicUsize,
    done: Mutex<Vec<&'static str>>,
    always: bool,
}

#[async_trait]
impl TableReader for Moving<'_> {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        self.from.place.table.get(kind, id, consistency).await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        self.from.place.table.count(kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        // The kinds after keys are read when keys were read already.
        if kind == Kind::Alias && self.pages.fetch_add(1, Ordering::Relaxed) == 0 {
            self.from.put(Kind::Key, "late", "{}").await;
            self.from.put(Kind::Alias, "late", "{}").await;
            self.from.put(Kind::Key, "a", "{\"second\":2}").await;
            self.from.remove(Kind::Key, "b").await;
            self.done.lock().unwrap().push("changed");
        } else if kind == Kind::Bucket && self.always {
            self.from.put(Kind::Bucket, "bucket", "{\"n\":3}").await;
        }
        self.from.place.table.page(kind, prefix, after, limit).await
    }
}

async fn moving(always: bool) -> (Deployment, Vec<u8>) {
    let from = deployment(1).await;
    let table = Moving {
        from: &from,
        pages: AtomicUsize::new(0),
        done: Mutex::default(),
        always,
    };
    let (bytes, _) = from.bundle_of(&table, None).await;
    assert_eq!(*table.done.lock().unwrap(), ["changed"]);
    (from, bytes)
}

#[tokio::test]
async fn table_without_snapshots_is_read_until_nothing_changes() {
    let (from, bytes) = moving(false).await;
    let mut bundle = open(&bytes).unwrap();
    assert!(bundle.summary().is_one_moment);
    assert_eq!(bundle.summary().records["key"], 2);
    let mut records = bundle.records().unwrap();
    while let Some(record) = records.next().unwrap() {
        assert_eq!(from.stored(record.kind, &record.id).await, Some(record));
    }
    let names = ids(&bytes);
    for name in ["key/a", "key/late", "alias/late"] {
        assert!(names.contains(&name.to_owned()), "{name}: {names:?}");
    }
    assert!(!names.contains(&"key/b".to_owned()));
}

#[tokio::test]
async fn table_that_always_changes_gives_a_bundle_that_says_so() {
    let (_, bytes) = moving(true).await;
    assert!(!open(&bytes).unwrap().summary().is_one_moment);
    let names = ids(&bytes);
    assert!(names.contains(&"key/late".to_owned()) && names.contains(&"alias/late".to_owned()));
}

#[tokio::test]
async fn restore_into_an_empty_table_makes_the_same_records() {
    let from = deployment(1).await;
    let wish = RootWish::Passphrase(Zeroizing::new("a passphrase".to_owned()));
    let (bytes, _) = from.bundle_of(from.place.table.as_ref(), Some(wish)).await;
    let bundle = open(&bytes).unwrap();
    assert_eq!(bundle.header().root, Some(RootProtection::Passphrase));
    let age = bundle.root().unwrap();
    assert!(matches!(open_root(age, "another"), Err(RootError::Wrong)));
    let root = open_root(age, "a passphrase").unwrap();

    let to = place(7);
    let nothing = restored(&to, &bytes, None, &RestoreOptions::default()).await;
    assert!(matches!(nothing, Err(RestoreError::NoRoot)));
    let would = restored(&to, &bytes, Some(&root), &dry()).await.unwrap();
    assert_eq!(to.table.count(Kind::Key, "").await.unwrap(), 0);
    assert!(to.secrets.get(KEYRING_SECRET).await.unwrap().is_none());
    let done = restored(&to, &bytes, Some(&root), &RestoreOptions::default()).await;
    let done = done.unwrap();
    assert_eq!(done, would);
    assert_eq!(done.destination, Destination::Empty);
    assert!(done.makes_keyring);
    assert_eq!(done.new.len(), 10, "{:?}", done.new);
    assert_eq!(done.log_records, 2);

    let to = opened(to).await;
    let epoch = from.epoch().await;
    assert!(to.epoch().await > epoch, "caches are dropped");
    let mut bundle = open(&bytes).unwrap();
    let mut records = bundle.records().unwrap();
    while let Some(record) = records.next().unwrap() {
        if record.id != SERVICE_RECORD {
            assert_eq!(to.stored(record.kind, &record.id).await, Some(record));
        }
    }
    assert_eq!(to.value(Kind::Key, "a").await.unwrap(), "{\"first\":1}");
    // A second time, nothing differs.
    let again = to.restore(&bytes, &RestoreOptions::default()).await;
    assert_eq!(again.destination, Destination::SameDeployment);
    assert!(
        again.new.is_empty() && again.changed.is_empty(),
        "{again:?}"
    );
    assert_eq!(again.log_records, 0);
}

#[tokio::test]
async fn restore_cut_off_anywhere_is_finished_by_the_next() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    let (root, _) = from
        .place
        .secrets
        .get(KEYRING_SECRET)
        .await
        .unwrap()
        .unwrap();
    let mut all = Vec::new();
    let mut bundle = open(&bytes).unwrap();
    let mut records = bundle.records().unwrap();
    while let Some(record) = records.next().unwrap() {
        all.push(record);
    }
    for written in 0..all.len() {
        let to = place(9);
        to.secrets.put(KEYRING_SECRET, &root, None).await.unwrap();
        for record in all.iter().take(written) {
            // The configuration and the deployment come last.
            if record.kind != Kind::Config {
                to.table.put_new(record).await.unwrap();
            }
        }
        let done = restored(&to, &bytes, None, &RestoreOptions::default()).await;
        let done = done.unwrap();
        assert_eq!(done.destination, Destination::Empty, "{written}");
        let to = opened(to).await;
        for record in &all {
            let value = to.stored(record.kind, &record.id).await;
            assert!(value.is_some(), "{written}: {}", record.id);
        }
    }
}

#[tokio::test]
async fn restore_into_the_same_deployment_keeps_what_is_newer_unless_asked() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    from.put(Kind::Key, "a", "{\"second\":2}").await;
    from.put(Kind::Key, "only", "{}").await;
    from.remove(Kind::Key, "b").await;
    let (epoch, before) = (from.epoch().await, from.stored(Kind::Key, "a").await);

    let would = from.restore(&bytes, &dry()).await;
    assert_eq!(from.epoch().await, epoch, "a dry run writes nothing");
    assert_eq!(names(&would.new), ["key/b"]);
    assert_eq!(names(&would.changed), ["key/a"]);
    assert_eq!(names(&would.only_here), ["key/only"]);
    assert_eq!(
        would,
        from.restore(&bytes, &RestoreOptions::default()).await
    );
    assert_eq!(from.stored(Kind::Key, "a").await, before, "it stays");
    assert_eq!(from.value(Kind::Key, "b").await.unwrap(), "{\"first\":1}");
    assert!(from.value(Kind::Key, "only").await.is_some());
    assert!(from.epoch().await > epoch);

    let options = RestoreOptions {
        overwrite: true,
        ..RestoreOptions::default()
    };
    let done = from.restore(&bytes, &options).await;
    assert_eq!(names(&done.changed), ["key/a"]);
    assert_eq!(from.value(Kind::Key, "a").await.unwrap(), "{\"first\":1}");
    let written = from.stored(Kind::Key, "a").await.unwrap().revision;
    let mut bundle = open(&bytes).unwrap();
    let first = bundle.records().unwrap().next().unwrap().unwrap();
    assert_ne!(written, first.revision, "revisions are never reused");
}

#[tokio::test]
async fn restore_leaves_revoked_access_out_unless_it_is_named() {
    let from = deployment(1).await;
    let bytes = from.bundle().await;
    for (kind, id) in [
        (Kind::AccessKey, "AKIA"),
        (Kind::Identity, "identity"),
        (Kind::Policy, "policy"),
        (Kind::Key, "a"),
    ] {
        from.remove(kind, id).await;
    }
    let done = from.restore(&bytes, &RestoreOptions::default()).await;
    assert_eq!(names(&done.new), ["key/a"]);
    let kept_out = ["policy/policy", "identity/identity", "access-key/AKIA"];
    assert_eq!(names(&done.kept_out), kept_out);
    assert_eq!(from.value(Kind::AccessKey, "AKIA").await, None);
    let options = RestoreOptions {
        only: vec![(Kind::AccessKey, EVERY_ID.to_owned())],
        ..RestoreOptions::default()
    };
    let done = from.restore(&bytes, &options).await;
    assert_eq!(names(&done.new), ["access-key/AKIA"]);
    assert!(done.kept_out.is_empty());
    assert!(from.value(Kind::AccessKey, "AKIA").await.is_some());
    assert_eq!(from.value(Kind::Identity, "identity").await, None);

    // A rotated secret does not come back with the others.
    from.put(Kind::AccessKey, "AKIA", "{\"second\":2}").await;
    let mut options = RestoreOptions {
        overwrite: true,
        ..RestoreOptions::default()
    };
    let done = from.restore(&bytes, &options).await;
    assert!(names(&done.kept_out).contains(&"access-key/AKIA".to_owned()));
    let kept = from.value(Kind::AccessKey, "AKIA").await;
    assert_eq!(kept.unwrap(), "{\"second\":2}");
    options.only = vec![(Kind::AccessKey, "AKIA".to_owned())];
    let done = from.restore(&bytes, &options).await;
    assert_eq!(names(&done.changed), ["access-key/AKIA"]);
    let back = from.value(Kind::AccessKey, "AKIA").await;
    assert_eq!(back.unwrap(), "{\"first\":1}");
}

#[tokio::test]
async fn restore_repairs_records_that_do_not_verify_and_writes_none_such() {
    let from = deployment(1).await;
    let good = from.bundle().await;
    let mut forged = from.stored(Kind::Key, "a").await.unwrap();
    let seen = forged.revision;
    forged.revision = from.revision();
    from.place.table.replace(&forged, seen).await.unwrap();
    let (bad, created) = from.bundle_of(from.place.table.as_ref(), None).await;
    let refused: Vec<Name> = created.refused.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names(&refused), ["key/a"]);

    let done = from.restore(&bad, &RestoreOptions::default()).await;
    assert_eq!(done.refused.len(), 1);
    assert!(done.repaired.is_empty());
    let done = from.restore(&good, &RestoreOptions::default()).await;
    assert_eq!(names(&done.repaired), ["key/a"]);
    assert_eq!(from.value(Kind::Key, "a").await.unwrap(), "{\"first\":1}");
}

#[tokio::test]
async fn restore_into_another_deployment_is_refused_and_changes_nothing() {
    let bytes = deployment(1).await.bundle().await;
    let (other, before) = (deployment(2).await, deployment(2).await);
    let refused = restored(&other.place, &bytes, None, &RestoreOptions::default()).await;
    assert!(matches!(refused, Err(RestoreError::ForeignKeyring)));
    assert_eq!(other.epoch().await, before.epoch().await);
    // The keyring is the bundle's, and the table is another's.
    let from = deployment(1).await;
    let (root, _) = from
        .place
        .secrets
        .get(KEYRING_SECRET)
        .await
        .unwrap()
        .unwrap();
    let mixed = Place {
        secrets: Arc::new(MemorySecrets::new()),
        ..other.place
    };
    let refused = restored(&mixed, &bytes, Some(&root), &RestoreOptions::default()).await;
    assert!(matches!(refused, Err(RestoreError::ForeignTable)));
    assert!(mixed.secrets.get(KEYRING_SECRET).await.unwrap().is_none());
}

#[tokio::test]
async fn expired_records_are_left_out_of_a_restore() {
    let from = deployment(1).await;
    let record = Record {
        kind: Kind::AccessKey,
        id: "short".to_owned(),
        revision: from.revision(),
        value: b"{}".to_vec(),
        expires_at: Some("2026-01-02T04:00:00Z".parse().unwrap()),
    };
    from.signed.put_new(&record).await.unwrap();
    let bytes = from.bundle().await;
    let (root, _) = from
        .place
        .secrets
        .get(KEYRING_SECRET)
        .await
        .unwrap()
        .unwrap();
    let mut to = place(3);
    let later = "2026-01-02T04:00:00Z".parse().unwrap();
    to.clock = Arc::new(FixedClock::new(later));
    let done = restored(&to, &bytes, Some(&root), &RestoreOptions::default()).await;
    assert_eq!(done.unwrap().expired, 1);
}

#[tokio::test]
async fn shares_open_the_root_when_there_are_enough_of_this_bundle() {
    let from = deployment(1).await;
    let count: ShareCount = "3/5".parse().unwrap();
    let wish = || Some(RootWish::Shares(count));
    let (bytes, created) = from.bundle_of(from.place.table.as_ref(), wish()).await;
    let bundle = open(&bytes).unwrap();
    let id = bundle.header().bundle.clone();
    let lines: Vec<_> = created.shares.iter().map(Share::line).collect();
    assert_eq!(lines.len(), 5);
    let some = |which: &[usize]| {
        let parsed = which.iter().map(|n| Share::parse(&lines[*n]).unwrap());
        combine(&parsed.collect::<Vec<_>>(), &id)
    };
    for which in [&[0, 1, 2][..], &[4, 2, 0], &[0, 1, 2, 3, 4], &[1, 1, 3, 4]] {
        let secret = some(which).unwrap();
        let keyring = open_root(bundle.root().unwrap(), &secret).unwrap();
        let (root, _) = from
            .place
            .secrets
            .get(KEYRING_SECRET)
            .await
            .unwrap()
            .unwrap();
        assert!(keyring.ct_eq(root.expose()));
    }
    for which in [&[0, 1][..], &[0, 1, 1, 0]] {
        let given = 2;
        let too_few = ShareError::TooFew { given, needed: 3 };
        assert_eq!(some(which).err(), Some(too_few));
    }
    let mut mistyped = lines[0].to_string();
    let digit = mistyped.len() - 20;
    let other = if &mistyped[digit..=digit] == "0" {
        "1"
    } else {
        "0"
    };
    mistyped.replace_range(digit..=digit, other);
    assert_eq!(Share::parse(&mistyped).err(), Some(ShareError::Mistyped));
    let shouted = Share::parse(&format!(" {} \n", lines[0].to_uppercase()));
    assert!(shouted.is_ok());
    let (_, second) = from.bundle_of(from.place.table.as_ref(), wish()).await;
    assert_eq!(
        combine(&second.shares, &id).err(),
        Some(ShareError::Foreign)
    );
    let mixed: Vec<_> = created.shares.into_iter().chain(second.shares).collect();
    assert_eq!(combine(&mixed, &id).err(), Some(ShareError::Mixed));
}

#[test]
fn share_counts_need_at_least_two() {
    for text in ["3/5", "2/2", "255/255"] {
        assert_eq!(text.parse::<ShareCount>().unwrap().to_string(), text);
    }
    for text in ["1/5", "0/3", "6/5", "3/256", "3", "", "a/b", "-2/3"] {
        assert_eq!(text.parse::<ShareCount>(), Err(ShareError::Count), "{text}");
    }
    for line in [
        "",
        "kwshare1",
        "kwshare2-3of5-1-x-00-00",
        "AGE-SECRET-KEY-1",
    ] {
        assert_eq!(Share::parse(line).err(), Some(ShareError::NotAShare));
    }
}

#[tokio::test]
async fn file_has_its_name_when_it_is_complete_and_never_replaces_one() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bundle");
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    let mut output = FileOutput::create(&path, [1; 8]).unwrap();
    output.write(b"content").await.unwrap();
    assert!(!path.exists());
    output.finish().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    let mode = path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode, entries()), (0o600, 1));
    assert!(FileOutput::create(&path, [2; 8]).is_err());
    let other = folder.path().join("other");
    let mut output = FileOutput::create(&other, [3; 8]).unwrap();
    output.write(b"more").await.unwrap();
    std::fs::write(&other, "made meanwhile").unwrap();
    assert!(output.finish().await.is_err());
    output.abandon().await;
    assert_eq!(std::fs::read(&other).unwrap(), b"made meanwhile");
    assert_eq!(entries(), 2);
}

proptest! {
    #[test]
    fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(open(&bytes).is_err());
        let framed = [b"keyway-backup 1\n", &bytes[..]].concat();
        prop_assert!(open(&framed).is_err());
    }

    #[test]
    fn records_come_back_as_they_were(
        ids in proptest::collection::btree_set("[a-zA-Z0-9é/*.]{1,40}", 0..20),
        value in proptest::collection::vec(any::<u8>(), 0..2000),
        expiry in proptest::option::of(253_000_000_000_i64..253_400_000_000),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let written = runtime.block_on(async {
            let from = opened(place(5)).await;
            for id in &ids {
                let record = Record {
                    kind: Kind::Key,
                    id: id.clone(),
                    revision: from.revision(),
                    value: value.clone(),
                    expires_at: expiry.map(|at| Timestamp::from_second(at).unwrap()),
                };
                from.signed.put_new(&record).await.unwrap();
            }
            let table = from.place.table.as_ref();
            let (bytes, _) = from.bundle_with(table, None, Logs::Without).await;
            let mut bundle = open(&bytes).unwrap();
            let mut records = bundle.records().unwrap();
            let mut count = 0;
            while let Some(record) = records.next().unwrap() {
                assert_eq!(from.stored(record.kind, &record.id).await, Some(record));
                count += 1;
            }
            count
        });
        prop_assert_eq!(written, ids.len() + 1);
    }
}
