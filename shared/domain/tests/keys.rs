//! The rules of master keys.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, id, named, root, with_policy};
use keyway_domain::KmsError;
use keyway_domain::keys::{
    DeletionWindow, Description, KeyId, KeyQuery, KeyReader, KeyState, KeyStatus, Keys, NewKey,
    Reference, Tags,
};
use keyway_domain::ports::{Consistency, Kind, Record, Revision, TableReader, TableWriter};
use proptest::prelude::*;

fn query(limit: usize) -> KeyQuery {
    KeyQuery {
        limit,
        ..KeyQuery::default()
    }
}

#[tokio::test]
async fn duplicate_key_is_refused_and_changes_nothing() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let first = process.keys.create(&root(), named("k")).await.unwrap();
    let other = NewKey {
        description: Description::parse("other".to_owned()).unwrap(),
        ..named("k")
    };
    assert!(
        matches!(process.keys.create(&root(), other).await, Err(KmsError::KeyExists(key)) if key == id("k"))
    );
    assert_eq!(
        process.keys.describe(&root(), &id("k")).await.unwrap(),
        first
    );
}

#[tokio::test]
async fn creations_at_once_have_one_winner() {
    let fixture = Fixture::build().await;
    fixture.running().await;
    let attempts: Vec<_> = (0..64)
        .map(|_| {
            let process = fixture.process(false);
            tokio::spawn(async move { process.keys.create(&root(), named("k")).await.is_ok() })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        won += usize::from(attempt.await.unwrap());
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn disabled_key_can_be_described_tagged_and_scheduled_but_not_rotated() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    assert_eq!(
        process.keys.disable(&root(), &id("k")).await.unwrap().state,
        KeyState::Disabled
    );
    assert_eq!(
        process.keys.disable(&root(), &id("k")).await.unwrap().state,
        KeyState::Disabled,
        "stays so"
    );
    assert!(matches!(
        process.keys.rotate(&root(), &id("k")).await,
        Err(KmsError::KeyState { .. })
    ));
    let tags = Tags::parse(BTreeMap::from([("a".to_owned(), "1".to_owned())])).unwrap();
    assert_eq!(
        process
            .keys
            .tag(&root(), &id("k"), &tags)
            .await
            .unwrap()
            .tags
            .get("a"),
        Some("1")
    );
    assert_eq!(
        process.keys.enable(&root(), &id("k")).await.unwrap().state,
        KeyState::Enabled
    );
}

#[tokio::test]
async fn key_pending_deletion_refuses_all_but_describe_list_and_cancel() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let keys = &process.keys;
    for (name, enabled) in [("on", true), ("off", false)] {
        let key = id(name);
        keys.create(&root(), named(name)).await.unwrap();
        if !enabled {
            keys.disable(&root(), &key).await.unwrap();
        }
        let pending = keys
            .schedule_deletion(&root(), &key, DeletionWindow::DEFAULT)
            .await
            .unwrap();
        assert_eq!(
            pending.deletion_date().unwrap().to_string(),
            "2026-01-09T03:04:05.678901Z"
        );
        let is_refused =
            |result: Result<_, KmsError>| assert!(matches!(result, Err(KmsError::KeyState { .. })));
        is_refused(
            keys.schedule_deletion(&root(), &key, DeletionWindow::DEFAULT)
                .await,
        );
        is_refused(keys.enable(&root(), &key).await);
        is_refused(keys.disable(&root(), &key).await);
        is_refused(keys.rotate(&root(), &key).await);
        is_refused(keys.tag(&root(), &key, &Tags::default()).await);
        is_refused(keys.untag(&root(), &key, &[]).await);
        is_refused(keys.describe_as(&root(), &key, None).await);
        is_refused(
            fixture
                .process(true)
                .keys
                .destroy(&root(), &key)
                .await
                .map(|()| pending.clone()),
        );
        assert_eq!(
            keys.describe(&root(), &key).await.unwrap(),
            pending,
            "none of them changed it"
        );
        let spared = keys.cancel_deletion(&root(), &key).await.unwrap();
        assert_eq!(
            spared.state == KeyState::Enabled,
            enabled,
            "back to the state that it had before"
        );
        is_refused(keys.cancel_deletion(&root(), &key).await);
    }
}

#[tokio::test]
async fn immediate_deletion_needs_the_opt_in_and_spares_the_default_key() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    process
        .service
        .start_if_new(
            fixture.table.as_ref(),
            fixture.random.as_ref(),
            Some(id("default")),
        )
        .await
        .unwrap();
    process
        .keys
        .create(&root(), named("default"))
        .await
        .unwrap();
    process.keys.create(&root(), named("other")).await.unwrap();
    assert!(matches!(
        process.keys.destroy(&root(), &id("other")).await,
        Err(KmsError::Forbidden(_))
    ));
    let allowed = fixture.process(true);
    allowed.keys.destroy(&root(), &id("other")).await.unwrap();
    assert!(matches!(
        allowed.keys.destroy(&root(), &id("other")).await,
        Err(KmsError::KeyNotFound(_))
    ));
    assert!(matches!(
        allowed.keys.destroy(&root(), &id("default")).await,
        Err(KmsError::StillReferenced(_, references)) if references == [Reference::ServiceDefaultKey]
    ));
}

#[tokio::test]
async fn changes_at_once_are_all_kept() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let changes: Vec<_> = (0..8)
        .map(|n| {
            let process = fixture.process(false);
            tokio::spawn(async move {
                let tags = Tags::parse(BTreeMap::from([(n.to_string(), String::new())])).unwrap();
                process.keys.tag(&root(), &id("k"), &tags).await.unwrap();
                process.keys.rotate(&root(), &id("k")).await.unwrap();
            })
        })
        .collect();
    for change in changes {
        change.await.unwrap();
    }
    let key = process.keys.describe(&root(), &id("k")).await.unwrap();
    assert_eq!((key.tags.iter().count(), key.current_version()), (8, 9));
}

#[tokio::test]
async fn tags_are_bounded() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let tags =
        |count: usize| Tags::parse((0..count).map(|n| (n.to_string(), String::new())).collect());
    assert!(tags(51).is_err());
    process
        .keys
        .create(
            &root(),
            NewKey {
                tags: tags(50).unwrap(),
                ..named("k")
            },
        )
        .await
        .unwrap();
    let one_more = Tags::parse(BTreeMap::from([("x".to_owned(), String::new())])).unwrap();
    assert!(matches!(
        process.keys.tag(&root(), &id("k"), &one_more).await,
        Err(KmsError::TooManyTags { most: 50 })
    ));
}

#[tokio::test]
async fn name_tag_is_fixed_while_it_is_the_id_of_the_key() {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    let name =
        |text: &str| Tags::parse(BTreeMap::from([("name".to_owned(), text.to_owned())])).unwrap();
    for (key, tag) in [("named", "named"), ("other", "something")] {
        let new = NewKey {
            tags: name(tag),
            ..named(key)
        };
        keys.create(&root(), new).await.unwrap();
    }
    let untagged = ["name".to_owned()];
    assert!(matches!(
        keys.tag(&root(), &id("named"), &name("x")).await,
        Err(KmsError::Invalid { field: "tags", .. })
    ));
    assert!(matches!(
        keys.untag(&root(), &id("named"), &untagged).await,
        Err(KmsError::Invalid {
            field: "tag_keys",
            ..
        })
    ));
    keys.tag(&root(), &id("named"), &name("named"))
        .await
        .unwrap();
    let key = keys.tag(&root(), &id("other"), &name("x")).await.unwrap();
    assert_eq!(key.tags.get("name"), Some("x"));
    let key = keys.untag(&root(), &id("other"), &untagged).await.unwrap();
    assert_eq!(key.tags.get("name"), None);
}

#[tokio::test]
async fn pages_reach_every_key_once_while_keys_change() {
    let fixture = Fixture::build().await;
    fixture.running().await;
    let process = fixture.process(true);
    for n in 0..25 {
        process
            .keys
            .create(&root(), named(&format!("k{n:02}")))
            .await
            .unwrap();
    }
    let mut seen = Vec::new();
    let mut next = query(10);
    loop {
        let page = process.keys.list(&root(), &next).await.unwrap();
        seen.extend(page.keys.iter().map(|key| key.id.as_str().to_owned()));
        // The page's last key goes, and keys come before and behind the marker.
        process
            .keys
            .destroy(&root(), &page.keys.last().unwrap().id)
            .await
            .unwrap();
        process
            .keys
            .create(&root(), named(&format!("a{}", seen.len())))
            .await
            .unwrap();
        process
            .keys
            .create(&root(), named(&format!("z{}", seen.len())))
            .await
            .unwrap();
        match page.next_marker {
            Some(marker) => next.marker = Some(marker),
            None => break,
        }
        assert!(seen.len() < 100);
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len(), "none is repeated");
    assert!(
        (0..25).all(|n| unique.contains(&format!("k{n:02}"))),
        "none is hidden: {seen:?}"
    );
}

#[tokio::test]
async fn filter_applies_before_the_page_limit() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for n in 0..30 {
        let name = if n % 2 == 0 {
            format!("app-{n:02}")
        } else {
            format!("db-{n:02}")
        };
        process.keys.create(&root(), named(&name)).await.unwrap();
        if n % 10 == 0 {
            process.keys.disable(&root(), &id(&name)).await.unwrap();
        }
    }
    let ids = |query: KeyQuery| {
        let process = &process;
        async move {
            let page = process.keys.list(&root(), &query).await.unwrap();
            let ids: Vec<_> = page.keys.iter().map(|key| key.id.to_string()).collect();
            (ids, page.next_marker.is_some())
        }
    };
    let disabled = KeyQuery {
        status: Some(KeyStatus::Disabled),
        ..query(3)
    };
    assert_eq!(
        ids(disabled).await,
        (
            vec!["app-00".into(), "app-10".into(), "app-20".into()],
            false
        )
    );
    let pattern = KeyQuery {
        pattern: Some("*-1?".to_owned()),
        ..query(100)
    };
    assert_eq!(ids(pattern).await.0.len(), 10);
    let both = KeyQuery {
        prefix: Some("app-1".to_owned()),
        pattern: Some("app*".to_owned()),
        ..query(2)
    };
    assert_eq!(
        ids(both).await,
        (vec!["app-10".into(), "app-12".into()], true)
    );
    let neither = KeyQuery {
        prefix: Some("db".to_owned()),
        pattern: Some("app*".to_owned()),
        ..query(2)
    };
    assert_eq!(ids(neither).await, (vec![], false));
    let exact = KeyQuery {
        pattern: Some("db-01".to_owned()),
        ..query(2)
    };
    assert_eq!(ids(exact).await, (vec!["db-01".into()], false));
}

#[tokio::test]
async fn marker_never_given_out_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for n in 0..3 {
        process
            .keys
            .create(&root(), named(&format!("k{n}")))
            .await
            .unwrap();
    }
    let marker = process
        .keys
        .list(&root(), &query(1))
        .await
        .unwrap()
        .next_marker
        .unwrap();
    let mut forged = marker.clone();
    forged.replace_range(3..4, if &marker[3..4] == "A" { "B" } else { "A" });
    for bad in ["k1", "AAAA", "%", "", &forged, &format!("{marker}AA")] {
        let query = KeyQuery {
            marker: Some(bad.to_owned()),
            ..query(1)
        };
        let result = process.keys.list(&root(), &query).await;
        assert!(
            matches!(
                result,
                Err(KmsError::Invalid {
                    field: "marker",
                    ..
                })
            ),
            "{bad}"
        );
    }
    // Another process accepts the marker too.
    let query = KeyQuery {
        marker: Some(marker),
        ..query(5)
    };
    assert_eq!(
        fixture
            .process(false)
            .keys
            .list(&root(), &query)
            .await
            .unwrap()
            .keys
            .len(),
        2
    );
}

#[tokio::test]
async fn listing_shows_what_the_caller_may_list() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["app-1", "app-2", "db-1"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let caller = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys","Resource":"arn:aws:kms:::key/app-*"}}"#,
    );
    let page = process.keys.list(&caller, &query(1)).await.unwrap();
    assert_eq!(page.keys.first().unwrap().id, id("app-1"));
    let query = KeyQuery {
        marker: page.next_marker,
        ..query(5)
    };
    let page = process.keys.list(&caller, &query).await.unwrap();
    assert_eq!(
        page.keys
            .iter()
            .map(|key| key.id.as_str())
            .collect::<Vec<_>>(),
        ["app-2"]
    );
}

#[tokio::test]
async fn listing_reads_no_key_outside_of_the_permission() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let hidden = ["secret", "app", "app.x", "appx", "b", "zz-9", "one-more"];
    let shown = ["app-1", "app-2", "app-3", "db-1", "one"];
    for name in hidden.iter().chain(&shown) {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    // This record cannot be decoded. A caller who may not list the key does not read it.
    let damaged = Record {
        kind: Kind::Key,
        id: "app-2-denied".to_owned(),
        revision: Revision([9; 16]),
        value: b"{".to_vec(),
        expires_at: None,
    };
    fixture.table.put_new(&damaged).await.unwrap();
    let watched = fixture::watched(&fixture, Kind::Key);
    let reader = KeyReader::new(
        watched.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        Duration::ZERO,
    );
    let keys = Keys::new(
        watched.clone(),
        Arc::new(reader),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
        false,
    );
    let caller = with_policy(
        r#"{"Statement":[
            {"Effect":"Allow","Action":"kms:List*","Resource":["arn:aws:kms:::key/app-*","arn:aws:kms:::key/one"]},
            {"Effect":"Allow","Action":"*","Resource":"arn:aws:kms:::key/db-?"},
            {"Effect":"Allow","Action":"kms:DescribeKey"},
            {"Effect":"Deny","Action":"kms:ListKeys","Resource":"arn:aws:kms:::key/app-2-*"}]}"#,
    );
    for limit in 1..=6 {
        let mut found = Vec::new();
        let mut marker = None;
        loop {
            let query = KeyQuery {
                marker,
                ..query(limit)
            };
            let page = keys.list(&caller, &query).await.unwrap();
            assert!(page.keys.len() <= limit);
            found.extend(page.keys.iter().map(|key| key.id.to_string()));
            marker = page.next_marker;
            if marker.is_none() {
                break;
            }
        }
        assert_eq!(found, shown, "{limit}");
    }
    let mut ids = Vec::new();
    loop {
        let after = ids.last().cloned();
        let page = keys
            .ids(&caller, "", after.as_deref(), 2, |_| true)
            .await
            .unwrap();
        ids.extend(page.ids);
        if !page.more {
            break;
        }
    }
    assert_eq!(ids, shown);
    for (prefix, pattern, expected) in [
        (Some("app-2"), None, &["app-2"][..]),
        (Some("a"), None, &["app-1", "app-2", "app-3"]),
        (None, Some("*-1"), &["app-1", "db-1"]),
        (Some("secret"), None, &[]),
        (Some("one-"), None, &[]),
        (None, Some("z*"), &[]),
    ] {
        let query = KeyQuery {
            prefix: prefix.map(str::to_owned),
            pattern: pattern.map(str::to_owned),
            ..query(10)
        };
        let page = keys.list(&caller, &query).await.unwrap();
        let found: Vec<&str> = page.keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(found, expected, "{prefix:?} {pattern:?}");
    }
    let read = watched.interceptor().ids();
    for name in hidden {
        assert!(!read.iter().any(|read| read == name), "{name} was read");
    }
    assert!(read.iter().any(|read| read == "app-1"));
}

#[tokio::test]
async fn operation_while_the_service_is_stopped_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.process(true);
    assert!(matches!(
        process.keys.create(&root(), named("k")).await,
        Err(KmsError::NotConfigured)
    ));
    assert!(matches!(
        process.keys.describe(&root(), &id("k")).await,
        Err(KmsError::NotConfigured)
    ));
    assert!(matches!(
        process.keys.list(&root(), &query(1)).await,
        Err(KmsError::NotConfigured)
    ));
    assert!(matches!(
        process.keys.rotate(&root(), &id("k")).await,
        Err(KmsError::NotConfigured)
    ));
    assert!(matches!(
        process.keys.destroy(&root(), &id("k")).await,
        Err(KmsError::NotConfigured)
    ));
}

#[tokio::test]
async fn record_in_the_place_of_another_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("a")).await.unwrap();
    let table: Arc<dyn TableWriter> = fixture.table.clone();
    let mut record = fixture
        .table
        .get(Kind::Key, "a", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    record.id = "b".to_owned();
    table.put_new(&record).await.unwrap();
    assert!(matches!(
        process.keys.describe(&root(), &id("b")).await,
        Err(KmsError::Backend(_))
    ));
}

#[test]
fn deletion_window_outside_of_7_to_30_days_is_refused() {
    for (days, fit) in [
        (i64::MIN, false),
        (-1, false),
        (6, false),
        (7, true),
        (30, true),
        (31, false),
        (263, false),
    ] {
        assert_eq!(DeletionWindow::days(days).is_ok(), fit, "{days}");
    }
}

proptest! {
    #[test]
    fn key_id_outside_of_the_contract_is_refused(text in "[A-Za-z0-9._/ %*-]{0,4}") {
        let fit = !text.is_empty()
            && !text.starts_with(['.', '-'])
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        prop_assert_eq!(KeyId::parse("key_id", &text).is_ok(), fit);
    }
}

#[test]
fn key_id_beyond_128_bytes_is_refused() {
    assert!(KeyId::parse("key_id", &"a".repeat(128)).is_ok());
    assert!(KeyId::parse("key_id", &"a".repeat(129)).is_err());
    assert!(KeyId::parse("key_id", "a\0").is_err());
}
