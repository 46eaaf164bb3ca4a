//! Bundles of tables that change or fail meanwhile, and the files that hold them.

use super::*;

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
