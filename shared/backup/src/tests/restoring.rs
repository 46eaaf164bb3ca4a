//! Bundles restored into empty tables, their own and others.

use super::*;

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
async fn backup_of_all_logs_has_the_oldest_after_a_restore_into_an_emptied_table() {
    const YEARS: std::time::Duration = std::time::Duration::from_secs(800 * 24 * 3600);
    let clock = Arc::new(FixedClock::new(NOW.parse().unwrap()));
    let in_parts = || Arc::new(MemoryTable::in_parts(clock.clone()));
    let own = Place {
        table: in_parts(),
        clock: clock.clone(),
        ..place(1)
    };
    let from = opened(own).await;
    let name = "20260102T030405.100000Z.w.000000000000";
    from.put(Kind::Audit, name, "an event").await;
    clock.advance(YEARS);
    let bytes = from.bundle().await;
    let oldest = format!("audit/{name}");
    assert!(ids(&bytes).contains(&oldest), "{:?}", ids(&bytes));

    // The table was lost, and its successor is younger than the log.
    let emptied = Place {
        table: in_parts(),
        secrets: Arc::clone(&from.place.secrets),
        clock: clock.clone(),
        random: Arc::clone(&from.place.random),
    };
    let kind = Kind::Config;
    let young = from.stored(kind, DEPLOYMENT_RECORD).await.unwrap();
    let text = String::from_utf8(young.value.clone()).unwrap();
    assert!(text.contains("2026-01-02T"), "{text}");
    let young = Record {
        value: text.replace("2026-01-02T", "2028-01-02T").into_bytes(),
        ..young
    };
    emptied.table.put_new(&young).await.unwrap();
    let to = opened(emptied).await;
    let would = to.restore(&bytes, &dry()).await;
    assert_eq!(to.stored(kind, DEPLOYMENT_RECORD).await.unwrap(), young);
    let done = to.restore(&bytes, &RestoreOptions::default()).await;
    assert_eq!((done.log_records, would.log_records), (1, 1));
    let again = to.bundle().await;
    assert!(ids(&again).contains(&oldest), "{:?}", ids(&again));
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
