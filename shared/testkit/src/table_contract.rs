//! The contract of every table, rule by rule.
//!
//! Each rule draws random ids, so rules may share a table that holds other records. The generator must not have made
//! the same ids before.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a rule that is broken ends the test"
)]

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use keyway_domain::ports::{
    Clock, Consistency, Kind, Page, Random, Record, Revision, StoreError, TableWriter,
};
use tokio::task::JoinSet;

use crate::{FixedClock, SeededRandom};

/// The largest value that a table takes, in bytes.
pub const LARGEST_VALUE: usize = 300 * 1024;

/// Runs every rule, each on a table that the factory makes over the given clock.
pub async fn run_all(
    factory: impl AsyncFn(Arc<FixedClock>) -> Arc<dyn TableWriter>,
    random: &dyn Random,
) {
    run_all_up_to(LARGEST_VALUE, factory, random).await;
}

/// As [`run_all`], for an emulator that takes smaller values than the real service.
pub async fn run_all_up_to(
    largest_value: usize,
    factory: impl AsyncFn(Arc<FixedClock>) -> Arc<dyn TableWriter>,
    random: &dyn Random,
) {
    // Far in the future, so that a store that sweeps by the real time keeps these records.
    let clock = || {
        Arc::new(FixedClock::new(
            Timestamp::from_second(4_102_444_800).expect("a valid time"),
        ))
    };

    absent_records_are_none(&*factory(clock()).await, random).await;
    put_new_creates_only_once(&*factory(clock()).await, random).await;
    put_new_repeated_succeeds_and_acts_once(&*factory(clock()).await, random).await;
    replace_needs_the_seen_revision(&*factory(clock()).await, random).await;
    replace_repeated_succeeds_and_acts_once(&*factory(clock()).await, random).await;
    replace_replaces_every_field(&*factory(clock()).await, random).await;
    a_record_made_anew_is_safe_from_stale_writers(&*factory(clock()).await, random).await;
    remove_needs_the_seen_revision(&*factory(clock()).await, random).await;
    pages_are_in_byte_order(&*factory(clock()).await, random).await;
    prefixes_are_literal(&*factory(clock()).await, random).await;
    after_need_not_name_a_record(&*factory(clock()).await, random).await;
    more_is_exact(&*factory(clock()).await, random).await;
    kinds_are_apart(&*factory(clock()).await, random).await;
    parts_are_apart(&*factory(clock()).await, random).await;
    counts_are_exact(&*factory(clock()).await, random).await;
    values_survive(&*factory(clock()).await, random, largest_value).await;
    one_of_many_creations_wins(&factory(clock()).await, random, 16).await;
    one_of_many_creations_wins(&factory(clock()).await, random, 64).await;
    no_increment_is_lost(&factory(clock()).await, random, 16, 8).await;

    let clock_of_expiry = clock();
    let table = factory(Arc::clone(&clock_of_expiry)).await;
    expired_records_are_absent(&*table, random, &clock_of_expiry).await;
    let clock_of_pages = clock();
    let table = factory(Arc::clone(&clock_of_pages)).await;
    expired_records_are_on_no_page(&*table, random, &clock_of_pages).await;
}

/// A record that was never made is absent, and an empty range is an empty last page.
pub async fn absent_records_are_none(table: &dyn TableWriter, random: &dyn Random) {
    let scope = scope(random);
    for kind in Kind::ALL {
        for consistency in [Consistency::Strong, Consistency::Eventual] {
            assert_eq!(
                table.get(kind, &scope, consistency).await.expect("get"),
                None
            );
        }
        assert_eq!(
            table.page(kind, &scope, None, 1).await.expect("page"),
            Page::default()
        );
        assert_eq!(
            table
                .page(kind, &scope, Some(&scope), 1000)
                .await
                .expect("page"),
            Page::default()
        );
    }
}

/// The second creation of an id conflicts, and does not change the first record.
pub async fn put_new_creates_only_once(table: &dyn TableWriter, random: &dyn Random) {
    let first = record(random, &scope(random), b"first");
    table.put_new(&first).await.expect("the first creation");
    let second = Record {
        value: b"second".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    assert_conflict(&table.put_new(&second).await);
    assert_eq!(strong(table, &first).await, Some(first));
}

/// A creation that is repeated because its answer was lost succeeds. After another write it has no effect: a store that
/// remembers it returns success, and one that does not returns a conflict.
pub async fn put_new_repeated_succeeds_and_acts_once(table: &dyn TableWriter, random: &dyn Random) {
    let first = record(random, &scope(random), b"first");
    table.put_new(&first).await.expect("the creation");
    table
        .put_new(&first)
        .await
        .expect("the same creation again");
    assert_eq!(strong(table, &first).await.as_ref(), Some(&first));

    let second = Record {
        value: b"second".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    table
        .replace(&second, first.revision)
        .await
        .expect("the replacement");
    acknowledged(table.put_new(&first).await);
    assert_eq!(strong(table, &first).await, Some(second));
}

/// A replacement by a writer that saw an older record, or none, conflicts and changes nothing.
pub async fn replace_needs_the_seen_revision(table: &dyn TableWriter, random: &dyn Random) {
    let first = record(random, &scope(random), b"first");
    assert_conflict(&table.replace(&first, revision(random)).await);
    assert_eq!(
        strong(table, &first).await,
        None,
        "a replacement never creates"
    );

    table.put_new(&first).await.expect("the creation");
    let second = Record {
        value: b"second".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    assert_conflict(&table.replace(&second, revision(random)).await);
    assert_eq!(strong(table, &first).await.as_ref(), Some(&first));

    table
        .replace(&second, first.revision)
        .await
        .expect("the replacement");
    assert_eq!(strong(table, &first).await.as_ref(), Some(&second));

    let late = Record {
        value: b"late".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    assert_conflict(&table.replace(&late, first.revision).await);
    assert_eq!(strong(table, &first).await, Some(second));
}

/// A replacement that is repeated because its answer was lost succeeds. After another write it has no effect: a store
/// that remembers it returns success, and one that does not returns a conflict.
pub async fn replace_repeated_succeeds_and_acts_once(table: &dyn TableWriter, random: &dyn Random) {
    let first = record(random, &scope(random), b"first");
    let second = Record {
        value: b"second".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    let third = Record {
        value: b"third".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    table.put_new(&first).await.expect("the creation");
    table
        .replace(&second, first.revision)
        .await
        .expect("the replacement");
    table
        .replace(&second, first.revision)
        .await
        .expect("the same replacement again");
    assert_eq!(strong(table, &first).await.as_ref(), Some(&second));

    table
        .replace(&third, second.revision)
        .await
        .expect("the next replacement");
    acknowledged(table.replace(&second, first.revision).await);
    assert_eq!(strong(table, &first).await, Some(third));
}

/// A replacement sets its own value and its own expiry, or none.
pub async fn replace_replaces_every_field(table: &dyn TableWriter, random: &dyn Random) {
    let later = Timestamp::from_second(5_000_000_000).expect("a valid time");
    let plain = record(random, &scope(random), b"a rather long value");
    let expiring = Record {
        value: b"x".to_vec(),
        revision: revision(random),
        expires_at: Some(later),
        ..plain.clone()
    };
    let lasting = Record {
        value: Vec::new(),
        revision: revision(random),
        expires_at: None,
        ..plain.clone()
    };
    table.put_new(&plain).await.expect("the creation");
    table
        .replace(&expiring, plain.revision)
        .await
        .expect("a replacement that expires");
    assert_eq!(strong(table, &plain).await.as_ref(), Some(&expiring));
    table
        .replace(&lasting, expiring.revision)
        .await
        .expect("a replacement that lasts");
    assert_eq!(strong(table, &plain).await, Some(lasting));
}

/// A writer that saw a record conflicts after the record was removed and made anew, equal except for its revision.
pub async fn a_record_made_anew_is_safe_from_stale_writers(
    table: &dyn TableWriter,
    random: &dyn Random,
) {
    let first = record(random, &scope(random), b"same");
    let again = Record {
        revision: revision(random),
        ..first.clone()
    };
    let stale = Record {
        value: b"stale".to_vec(),
        revision: revision(random),
        ..first.clone()
    };
    table.put_new(&first).await.expect("the creation");
    table
        .remove(first.kind, &first.id, first.revision)
        .await
        .expect("the removal");
    table.put_new(&again).await.expect("the second creation");

    assert_conflict(&table.replace(&stale, first.revision).await);
    assert_conflict(&table.remove(first.kind, &first.id, first.revision).await);
    assert_eq!(strong(table, &first).await, Some(again));
}

/// A removal needs the seen revision. An absent record counts as removed, and its id is free again.
pub async fn remove_needs_the_seen_revision(table: &dyn TableWriter, random: &dyn Random) {
    let first = record(random, &scope(random), b"first");
    table
        .remove(first.kind, &first.id, first.revision)
        .await
        .expect("the removal of what never was");

    table.put_new(&first).await.expect("the creation");
    assert_conflict(&table.remove(first.kind, &first.id, revision(random)).await);
    assert_eq!(strong(table, &first).await.as_ref(), Some(&first));

    table
        .remove(first.kind, &first.id, first.revision)
        .await
        .expect("the removal");
    assert_eq!(strong(table, &first).await, None);
    assert_eq!(
        ids(table, first.kind, &first.id).await,
        Vec::<String>::new()
    );
    table
        .remove(first.kind, &first.id, first.revision)
        .await
        .expect("the same removal again");

    let second = Record {
        revision: revision(random),
        ..first.clone()
    };
    assert_conflict(&table.replace(&second, first.revision).await);
    table.put_new(&second).await.expect("the second creation");
    assert_eq!(strong(table, &first).await, Some(second));
}

/// Pages are in the byte order of ids: not alphabetical, not UTF-16, not case-folded.
pub async fn pages_are_in_byte_order(table: &dyn TableWriter, random: &dyn Random) {
    let scope = scope(random);
    let longest = "l".repeat(256 - scope.len());
    // U+FFFF and U+10000 sort the other way round in UTF-16.
    let names = [
        "-",
        "0",
        "A",
        "B",
        "Z",
        "_",
        "a",
        "a b",
        "a'\"",
        "a-",
        "a/b",
        "a0",
        "aa",
        &longest,
        "z",
        "é",
        "\u{FFFF}",
        "\u{10000}",
        "\u{10FFFF}",
    ];
    let mut expected: Vec<String> = names.iter().map(|name| format!("{scope}{name}")).collect();
    // Neither sorted nor reversed.
    for id in expected
        .iter()
        .step_by(2)
        .chain(expected.iter().skip(1).step_by(2).rev())
    {
        table
            .put_new(&record(random, id, b""))
            .await
            .expect("a creation");
    }
    expected.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));

    assert_eq!(ids(table, Kind::Key, &scope).await, expected);
    let in_the_whole_kind = ids(table, Kind::Key, "").await;
    assert!(in_the_whole_kind.is_sorted_by(|a, b| a.as_bytes() < b.as_bytes()));
    assert_eq!(
        in_the_whole_kind
            .into_iter()
            .filter(|id| id.starts_with(&scope))
            .collect::<Vec<_>>(),
        expected
    );
    for id in &expected {
        let found = table
            .get(Kind::Key, id, Consistency::Strong)
            .await
            .expect("get")
            .expect("a record");
        assert_eq!(&found.id, id);
    }
}

/// A prefix means its own characters: no wildcards and no case folding. Any character may follow, even U+10FFFF.
pub async fn prefixes_are_literal(table: &dyn TableWriter, random: &dyn Random) {
    let scope = scope(random);
    let names = [
        "%",
        "%a",
        "A",
        "Ab",
        "\\",
        "\\a",
        "_",
        "_a",
        "a",
        "a%",
        "a*",
        "a?",
        "a[b]",
        "a_",
        "ab",
        "a\u{10FFFF}",
        "a\u{10FFFF}\u{10FFFF}b",
        "b",
        "\u{10FFFF}",
        "\u{10FFFF}\u{10FFFF}",
        "\u{10FFFF}a",
    ];
    for name in names {
        table
            .put_new(&record(random, &format!("{scope}{name}"), b""))
            .await
            .expect("a creation");
    }
    for prefix in [
        "",
        "%",
        "_",
        "a",
        "a%",
        "a_",
        "A",
        "ab",
        "a?",
        "a*",
        "a[",
        "\\",
        "a\u{10FFFF}",
        "\u{10FFFF}",
        "\u{10FFFF}\u{10FFFF}",
        "\u{10FFFF}\u{10FFFF}\u{10FFFF}",
        "none",
    ] {
        let prefix = format!("{scope}{prefix}");
        let mut expected: Vec<String> = names
            .iter()
            .map(|name| format!("{scope}{name}"))
            .filter(|id| id.starts_with(&prefix))
            .collect();
        expected.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        assert_eq!(
            ids(table, Kind::Key, &prefix).await,
            expected,
            "prefix {prefix:?}"
        );
    }
}

/// A page begins past `after`, whether it names a record or not, and wherever it sorts relative to the prefix.
pub async fn after_need_not_name_a_record(table: &dyn TableWriter, random: &dyn Random) {
    let scope = scope(random);
    let names = ["a", "m", "m-1", "m-3", "m-3-1", "m-5", "n", "z"];
    for name in names {
        table
            .put_new(&record(random, &format!("{scope}{name}"), b""))
            .await
            .expect("a creation");
    }
    for prefix in ["", "m", "m-", "m-3", "q"] {
        for after in [
            "", "a", "b", "m", "m-", "m-0", "m-1", "m-2", "m-3", "m-3-0", "m-3-1", "m-4", "m-5",
            "m-9", "n", "zz",
        ] {
            let (prefix, after) = (format!("{scope}{prefix}"), format!("{scope}{after}"));
            let expected: Vec<String> = names
                .iter()
                .map(|name| format!("{scope}{name}"))
                .filter(|id| id.starts_with(&prefix) && *id > after)
                .collect();
            let page = table
                .page(Kind::Key, &prefix, Some(&after), 1000)
                .await
                .expect("page");
            assert!(!page.more);
            let found: Vec<String> = page.records.into_iter().map(|record| record.id).collect();
            assert_eq!(found, expected, "prefix {prefix:?} after {after:?}");
        }
    }
}

/// `more` is true exactly when a record of the range follows. All pages together have each record once.
pub async fn more_is_exact(table: &dyn TableWriter, random: &dyn Random) {
    let scope = scope(random);
    let mut expected = Vec::new();
    for n in 0..6 {
        let record = record(
            random,
            &format!("{scope}/{n}"),
            format!("value {n}").as_bytes(),
        );
        table.put_new(&record).await.expect("a creation");
        expected.push(record);
    }
    // A neighbour outside the range does not set `more`.
    table
        .put_new(&record(random, &format!("{scope}0"), b""))
        .await
        .expect("a creation");

    for limit in 1..=7 {
        let mut found: Vec<Record> = Vec::new();
        loop {
            let after = found.last().map(|record| record.id.clone());
            let page = table
                .page(Kind::Key, &format!("{scope}/"), after.as_deref(), limit)
                .await
                .expect("page");
            assert!(page.records.len() <= limit);
            found.extend(page.records);
            assert_eq!(
                page.more,
                found.len() < expected.len(),
                "limit {limit}, {} records read",
                found.len()
            );
            if !page.more {
                break;
            }
        }
        assert_eq!(found, expected, "limit {limit}");
    }
}

/// Records of one kind are never found under another, whatever their ids.
pub async fn kinds_are_apart(table: &dyn TableWriter, random: &dyn Random) {
    let id = scope(random);
    let records = Kind::ALL.map(|kind| Record {
        kind,
        ..record(random, &id, format!("of {}", kind.as_str()).as_bytes())
    });
    for record in &records {
        table.put_new(record).await.expect("a creation");
    }
    for record in &records {
        assert_eq!(strong(table, record).await.as_ref(), Some(record));
        let page = table
            .page(record.kind, &id, None, 1000)
            .await
            .expect("page");
        assert_eq!(
            page,
            Page {
                records: vec![record.clone()],
                more: false,
                refused: Vec::new(),
            }
        );
    }
    let [first, others @ ..] = records;
    table
        .remove(first.kind, &id, first.revision)
        .await
        .expect("the removal");
    assert_eq!(strong(table, &first).await, None);
    for record in &others {
        assert_conflict(&table.remove(record.kind, &id, first.revision).await);
        assert_eq!(strong(table, record).await.as_ref(), Some(record));
    }
}

/// In kinds with parts, each part has its own sorted pages, whatever the other parts hold.
pub async fn parts_are_apart(table: &dyn TableWriter, random: &dyn Random) {
    for kind in Kind::ALL {
        let Some(bytes) = kind.part_bytes() else {
            continue;
        };
        let scope = scope(random);
        let hour = scope.get(..bytes - 2).expect("enough digits");
        let part = |number: u8| format!("{hour}{number:02}");
        let mut expected = Vec::new();
        for (hour, number) in [(3, 1), (4, 1), (3, 0), (4, 0), (6, 0)] {
            let id = format!("{}:{number}", part(hour));
            let record = Record {
                kind,
                ..record(random, &id, id.as_bytes())
            };
            table.put_new(&record).await.expect("a creation");
            assert_eq!(strong(table, &record).await.as_ref(), Some(&record));
            table.put_new(&record).await.expect("the same again");
            expected.push(id);
        }
        expected.sort();
        let mut found = Vec::new();
        for hour in 2..8 {
            found.extend(ids(table, kind, &part(hour)).await);
        }
        assert_eq!(found, expected);
        let (first, second) = match expected.as_slice() {
            [first, second, ..] => (first, second),
            _ => panic!("there are five"),
        };
        let page = table.page(kind, &part(3), Some(first), 1).await;
        let page = page.expect("page");
        assert_eq!((page.records.len(), page.more), (1, false));
        // `after` is beyond the part's end, and the records that follow are another part's.
        let page = table.page(kind, &part(3), Some(&part(4)), 1).await;
        assert_eq!(page.expect("page"), Page::default());
        assert_eq!(table.count(kind, &part(4)).await.expect("a count"), 2);
        let removed = table.get(kind, first, Consistency::Strong).await;
        let removed = removed.expect("get").expect("a record");
        table
            .remove(kind, first, removed.revision)
            .await
            .expect("the removal");
        assert_eq!(ids(table, kind, &part(3)).await, [second.as_str()]);
    }
}

/// A count is of one kind and prefix, without expired records.
pub async fn counts_are_exact(table: &dyn TableWriter, random: &dyn Random) {
    let (scope, other) = (scope(random), scope(random));
    let count = async |prefix: &str| table.count(Kind::Key, prefix).await.expect("a count");
    assert_eq!(count(&scope).await, 0);
    let mut last = None;
    for n in 0..7 {
        let record = record(random, &format!("{scope}{n}"), b"");
        table.put_new(&record).await.expect("a creation");
        last = Some(record);
    }
    let elsewhere = record(random, &other, b"");
    table.put_new(&elsewhere).await.expect("a creation");
    let of_another_kind = Record {
        kind: Kind::AccessKey,
        ..record(random, &format!("{scope}x"), b"")
    };
    table.put_new(&of_another_kind).await.expect("a creation");
    assert_eq!(count(&scope).await, 7);
    assert_eq!(count(&other).await, 1);
    assert!(count("").await >= 8);
    let last = last.expect("a record");
    table
        .remove(Kind::Key, &last.id, last.revision)
        .await
        .expect("the removal");
    assert_eq!(count(&scope).await, 6);
}

/// Any bytes up to the largest value are returned unchanged, by a read and in a page.
pub async fn values_survive(table: &dyn TableWriter, random: &dyn Random, largest_value: usize) {
    let scope = scope(random);
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    for (n, size) in [0, 1, 256, 4096, 65_536, largest_value]
        .into_iter()
        .enumerate()
    {
        let mut value = vec![0; size];
        random.fill(&mut value).expect("random bytes");
        value
            .iter_mut()
            .zip(&every_byte)
            .for_each(|(to, from)| *to = *from);
        let record = record(random, &format!("{scope}{n}"), &value);
        table.put_new(&record).await.expect("a creation");
        assert!(
            strong(table, &record).await.as_ref() == Some(&record),
            "a value of {size} bytes, read"
        );
        let page = table
            .page(Kind::Key, &record.id, None, 1)
            .await
            .expect("page");
        assert!(
            page.records == [record],
            "a value of {size} bytes, from a page"
        );
    }
}

/// If one id is created many times at once, exactly one creation succeeds, and all then read its record.
pub async fn one_of_many_creations_wins(
    table: &Arc<dyn TableWriter>,
    random: &dyn Random,
    tasks: usize,
) {
    let id = scope(random);
    let mut running = JoinSet::new();
    for n in 0..tasks {
        let (table, record) = (
            Arc::clone(table),
            record(random, &id, format!("by {n}").as_bytes()),
        );
        running.spawn(async move {
            loop {
                if let Some(created) = acknowledged(table.put_new(&record).await) {
                    return (record, created);
                }
                pause().await;
            }
        });
    }
    let outcomes = running.join_all().await;
    let mut winners = outcomes
        .into_iter()
        .filter_map(|(record, created)| created.then_some(record));
    let winner = winners.next().expect("one of them wins");
    assert!(winners.next().is_none(), "only one wins");
    assert_eq!(strong(&**table, &winner).await, Some(winner));
}

/// Tasks that read a count, replace it by the next and retry until they succeed lose no count.
pub async fn no_increment_is_lost(
    table: &Arc<dyn TableWriter>,
    random: &dyn Random,
    tasks: u64,
    rounds: u64,
) {
    let first = record(random, &scope(random), &0_u64.to_be_bytes());
    table.put_new(&first).await.expect("the creation");
    let mut running = JoinSet::new();
    for _ in 0..tasks {
        let (table, id, random) = (
            Arc::clone(table),
            first.id.clone(),
            SeededRandom::new(number(random)),
        );
        running.spawn(async move {
            for _ in 0..rounds {
                increment(&*table, &id, &random).await;
            }
        });
    }
    running.join_all().await;
    let last = strong(&**table, &first).await.expect("the record");
    assert_eq!(last.value, (tasks * rounds).to_be_bytes());
}

/// Adds one to the 8-byte count in the record of this id, and retries until it succeeds.
pub async fn increment(table: &dyn TableWriter, id: &str, random: &dyn Random) {
    loop {
        let current = match table.get(Kind::Key, id, Consistency::Strong).await {
            Ok(current) => current.expect("the record"),
            Err(StoreError::Throttled | StoreError::Busy(_)) => {
                pause().await;
                continue;
            }
            Err(error) => panic!("get: {error:?}"),
        };
        let count = u64::from_be_bytes(current.value.as_slice().try_into().expect("a count"));
        let next = Record {
            value: (count + 1).to_be_bytes().to_vec(),
            revision: revision(random),
            ..current.clone()
        };
        match acknowledged(table.replace(&next, current.revision).await) {
            Some(true) => return,
            Some(false) => {}
            None => pause().await,
        }
    }
}

/// From its expiry on, a record is absent for every operation, and another one may replace it.
pub async fn expired_records_are_absent(
    table: &dyn TableWriter,
    random: &dyn Random,
    clock: &FixedClock,
) {
    let id = scope(random);
    let at = clock.now() + Duration::from_secs(60);
    let expiring = Record {
        expires_at: Some(at),
        ..record(random, &id, b"expiring")
    };
    table.put_new(&expiring).await.expect("the creation");
    clock.advance(Duration::from_secs(59));
    assert_eq!(strong(table, &expiring).await.as_ref(), Some(&expiring));
    assert_eq!(ids(table, Kind::Key, &id).await, [id.as_str()]);
    let other = record(random, &id, b"other");
    assert_conflict(&table.put_new(&other).await);

    clock.advance(Duration::from_secs(1));
    assert_eq!(strong(table, &expiring).await, None);
    let eventual = table
        .get(Kind::Key, &id, Consistency::Eventual)
        .await
        .expect("get");
    assert_eq!(eventual, None);
    assert_conflict(&table.replace(&other, expiring.revision).await);
    table
        .remove(Kind::Key, &id, revision(random))
        .await
        .expect("what has expired counts as removed");

    table
        .put_new(&other)
        .await
        .expect("a creation in its place");
    assert_eq!(strong(table, &expiring).await.as_ref(), Some(&other));
    assert_conflict(&table.replace(&expiring, expiring.revision).await);
    assert_conflict(&table.remove(Kind::Key, &id, expiring.revision).await);
    assert_eq!(strong(table, &expiring).await, Some(other));
}

/// Expired records are on no page, do not count towards its limit, and do not set `more`.
pub async fn expired_records_are_on_no_page(
    table: &dyn TableWriter,
    random: &dyn Random,
    clock: &FixedClock,
) {
    let scope = scope(random);
    let at = clock.now() + Duration::from_secs(60);
    for n in 0..9 {
        let expires_at = (n % 3 != 0).then_some(at);
        let record = Record {
            expires_at,
            ..record(random, &format!("{scope}{n}"), b"")
        };
        table.put_new(&record).await.expect("a creation");
    }
    assert_eq!(ids(table, Kind::Key, &scope).await.len(), 9);
    clock.advance(Duration::from_secs(61));

    let lasting = [0, 3, 6].map(|n| format!("{scope}{n}"));
    assert_eq!(ids(table, Kind::Key, &scope).await, lasting);
    let counted = table.count(Kind::Key, &scope).await.expect("a count");
    assert_eq!(counted, 3);
    for (limit, more) in [(1, true), (2, true), (3, false), (4, false)] {
        let page = table
            .page(Kind::Key, &scope, None, limit)
            .await
            .expect("page");
        assert_eq!(
            (page.records.len(), page.more),
            (limit.min(3), more),
            "limit {limit}"
        );
    }
}

/// Sixteen hexadecimal digits with which no other rule's ids begin.
fn scope(random: &dyn Random) -> String {
    format!("{:016x}", number(random))
}

fn number(random: &dyn Random) -> u64 {
    let mut bytes = [0; 8];
    random.fill(&mut bytes).expect("random bytes");
    u64::from_be_bytes(bytes)
}

fn revision(random: &dyn Random) -> Revision {
    let mut bytes = [0; 16];
    random.fill(&mut bytes).expect("random bytes");
    Revision(bytes)
}

fn record(random: &dyn Random, id: &str, value: &[u8]) -> Record {
    Record {
        kind: Kind::Key,
        id: id.to_owned(),
        revision: revision(random),
        value: value.to_vec(),
        expires_at: None,
    }
}

async fn strong(table: &dyn TableWriter, like: &Record) -> Option<Record> {
    table
        .get(like.kind, &like.id, Consistency::Strong)
        .await
        .expect("get")
}

/// Every id with the prefix, read page by page.
async fn ids(table: &dyn TableWriter, kind: Kind, prefix: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    loop {
        let page = table
            .page(kind, prefix, found.last().map(String::as_str), 1000)
            .await
            .expect("page");
        found.extend(page.records.into_iter().map(|record| record.id));
        if !page.more {
            return found;
        }
    }
}

/// Whether a write took place, or conflicted; `None` when the store was busy and the write must be retried.
fn acknowledged(written: Result<(), StoreError>) -> Option<bool> {
    match written {
        Ok(()) => Some(true),
        Err(StoreError::Conflict) => Some(false),
        Err(StoreError::Throttled | StoreError::Busy(_)) => None,
        Err(error) => panic!("a write: {error:?}"),
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

fn assert_conflict(result: &Result<(), StoreError>) {
    assert!(
        matches!(result, Err(StoreError::Conflict)),
        "a conflict was due: {result:?}"
    );
}
