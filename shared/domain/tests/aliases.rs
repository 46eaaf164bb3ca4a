//! Aliases: they name one key at a time, and never a key that was made later under the same id.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, Process, id, named, root, watched, with_policy};
use futures_util::future::join_all;
use keyway_domain::access::Caller;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::janitor::Janitor;
use keyway_domain::keys::{
    AliasName, DeletionWindow, KeyId, KeyReader, KeyState, Keys, MAX_ALIASES, NamedKey,
};
use keyway_domain::ports::{
    InterceptedTable, Kind, StoreError, TableCall, TableInterceptor, TableReader, TableWriter,
};
use keyway_domain::{EncryptionContext, KmsError};

fn alias(text: &str) -> AliasName {
    AliasName::parse("alias", text).unwrap()
}

async fn with_keys(ids: &[&str]) -> (Fixture, Process) {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for id in ids {
        process.keys.create(&root(), named(id)).await.unwrap();
    }
    (fixture, process)
}

/// Lets other tasks run before each call of the table.
struct Yielding;

impl TableInterceptor for Yielding {
    async fn intercept<T: Send>(
        &self,
        _: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        tokio::task::yield_now().await;
        run.await
    }
}

/// A process whose calls of the table and those of others happen in turn.
fn interleaved(fixture: &Fixture) -> Process {
    let mut process = fixture.process(false);
    process.keys = Keys::new(
        Arc::new(InterceptedTable::new(fixture.table.clone(), Yielding)),
        process.reader.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
        false,
    );
    process
}

async fn create(process: &Process, name: &str, key: &str) -> Result<(), KmsError> {
    let made = process
        .keys
        .create_alias(&root(), &alias(name), &id(key))
        .await;
    made.map(drop)
}

/// The key that makes a data key when this alias names it.
async fn used(process: &Process, name: &str) -> Result<KeyId, KmsError> {
    used_by(process, &root(), name).await
}

async fn used_by(process: &Process, caller: &Caller, name: &str) -> Result<KeyId, KmsError> {
    let named = process.data_keys.resolve(&alias(name)).await?;
    let context = EncryptionContext::none();
    let request = DataKeyRequest::of(named, &context);
    let made = process
        .data_keys
        .generate(caller, &request, DataKeySpec::Aes256)
        .await?;
    Ok(made.1.key_id)
}

async fn names(process: &Process, of: Option<&str>) -> Vec<String> {
    let of = of.map(id);
    let mut found = Vec::new();
    let mut marker = None;
    loop {
        let page = process
            .keys
            .list_aliases(&root(), of.as_ref(), 2, marker.as_deref())
            .await
            .unwrap();
        assert!(page.aliases.len() <= 2);
        found.extend(page.aliases.iter().map(|alias| alias.name.to_string()));
        marker = page.next_marker;
        if marker.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn alias_names_its_key_until_it_is_moved_or_deleted() {
    let (fixture, process) = with_keys(&["a", "b"]).await;
    create(&process, "alias/app/one", "a").await.unwrap();
    assert_eq!(used(&process, "alias/app/one").await.unwrap(), id("a"));
    let again = create(&process, "alias/app/one", "b").await;
    assert!(matches!(again, Err(KmsError::AliasExists(_))));

    fixture.clock.advance(Duration::from_secs(60));
    let moved = process
        .keys
        .update_alias(&root(), &alias("alias/app/one"), &id("b"))
        .await
        .unwrap();
    assert!(moved.updated_at > moved.created_at);
    assert_eq!(used(&process, "alias/app/one").await.unwrap(), id("b"));
    assert!(names(&process, Some("a")).await.is_empty());
    assert_eq!(names(&process, Some("b")).await, ["alias/app/one"]);

    let deleted = process
        .keys
        .delete_alias(&root(), &alias("alias/app/one"))
        .await;
    deleted.unwrap();
    let missing = used(&process, "alias/app/one").await;
    assert!(matches!(missing, Err(KmsError::KeyNotFound(_))));
    for kind in [Kind::Alias] {
        assert_eq!(fixture.table.count(kind, "").await.unwrap(), 0);
    }
    let gone = process
        .keys
        .delete_alias(&root(), &alias("alias/app/one"))
        .await;
    assert!(matches!(gone, Err(KmsError::AliasNotFound(_))));
    let gone = process
        .keys
        .update_alias(&root(), &alias("alias/x"), &id("b"))
        .await;
    assert!(matches!(gone, Err(KmsError::AliasNotFound(_))));
}

#[tokio::test]
async fn alias_that_is_not_stored_names_the_key_of_that_id() {
    let (_fixture, process) = with_keys(&["photos", "other"]).await;
    assert_eq!(used(&process, "alias/photos").await.unwrap(), id("photos"));
    // The process that stores the alias obeys it at once.
    create(&process, "alias/photos", "other").await.unwrap();
    assert_eq!(used(&process, "alias/photos").await.unwrap(), id("other"));
}

#[tokio::test]
async fn alias_of_another_process_is_obeyed_after_the_state_ttl() {
    let (fixture, process) = with_keys(&["a", "b"]).await;
    create(&process, "alias/x", "a").await.unwrap();
    let other = fixture.process(false);
    assert_eq!(used(&other, "alias/x").await.unwrap(), id("a"));
    let moved = process
        .keys
        .update_alias(&root(), &alias("alias/x"), &id("b"))
        .await;
    moved.unwrap();
    assert_eq!(used(&other, "alias/x").await.unwrap(), id("a"));
    fixture.clock.advance(fixture::STATE_TTL);
    assert_eq!(used(&other, "alias/x").await.unwrap(), id("b"));
}

#[tokio::test]
async fn warm_alias_reads_no_record() {
    let (fixture, process) = with_keys(&["a"]).await;
    create(&process, "alias/x", "a").await.unwrap();
    let table = watched(&fixture, Kind::Alias);
    let reader = KeyReader::new(
        table.clone(),
        process.wrappers.clone(),
        fixture.clock.clone(),
        fixture::STATE_TTL,
    );
    let data_keys = keyway_domain::datakey::DataKeys::new(
        reader.into(),
        process.service.clone(),
        fixture.random.clone(),
    );
    for _ in 0..3 {
        let stored = data_keys.resolve(&alias("alias/x")).await.unwrap();
        assert_eq!(stored.id, id("a"));
        let implicit = data_keys.resolve(&alias("alias/a")).await.unwrap();
        assert_eq!(implicit, NamedKey::from(id("a")));
    }
    assert_eq!(table.interceptor().ids(), ["alias/x", "alias/a"]);
}

#[tokio::test]
async fn alias_of_a_destroyed_key_does_not_name_its_successor() {
    let fixture = Fixture::build().await;
    fixture.running().await;
    let process = fixture.process(true);
    process.keys.create(&root(), named("a")).await.unwrap();
    create(&process, "alias/x", "a").await.unwrap();
    let other = fixture.process(true);
    assert_eq!(used(&other, "alias/x").await.unwrap(), id("a"));
    let alias_record = stored(&fixture, "alias/x").await.unwrap();
    let list_record = stored(&fixture, "key/a").await.unwrap();

    process.keys.destroy(&root(), &id("a")).await.unwrap();
    assert_eq!(fixture.table.count(Kind::Alias, "").await.unwrap(), 0);
    fixture.clock.advance(Duration::from_secs(1));
    process.keys.create(&root(), named("a")).await.unwrap();
    // As if the process had ended before it removed them.
    fixture.table.put_new(&alias_record).await.unwrap();
    fixture.table.put_new(&list_record).await.unwrap();
    fixture.clock.advance(fixture::STATE_TTL);

    for process in [&process, &other] {
        let refused = used(process, "alias/x").await;
        assert!(matches!(refused, Err(KmsError::KeyNotFound(_))));
        let resolved = process.data_keys.resolve(&alias("alias/x")).await.unwrap();
        let described = process.keys.describe_named(&root(), &resolved).await;
        assert!(matches!(described, Err(KmsError::KeyNotFound(_))));
    }
    assert!(names(&process, Some("a")).await.is_empty());
    // Its name is free.
    create(&process, "alias/x", "a").await.unwrap();
    assert_eq!(used(&process, "alias/x").await.unwrap(), id("a"));
    assert_eq!(names(&process, Some("a")).await, ["alias/x"]);
}

async fn stored(fixture: &Fixture, name: &str) -> Option<keyway_domain::ports::Record> {
    let page = fixture
        .table
        .page(Kind::Alias, name, None, 1)
        .await
        .unwrap();
    page.records.into_iter().next()
}

#[tokio::test]
async fn janitor_removes_the_aliases_of_keys_that_are_gone_and_no_others() {
    let (fixture, process) = with_keys(&["a", "b"]).await;
    create(&process, "alias/x", "a").await.unwrap();
    create(&process, "alias/y", "b").await.unwrap();
    let window = DeletionWindow::days(7).unwrap();
    let scheduled = process
        .keys
        .schedule_deletion(&root(), &id("a"), window)
        .await;
    scheduled.unwrap();
    let other = fixture.process(false);
    let janitor = Janitor::new(
        fixture.table.clone(),
        other.service,
        other.wrappers,
        fixture.clock.clone(),
        fixture.random.clone(),
        None,
    );
    let (alias_record, list_record) = (
        stored(&fixture, "alias/x").await.unwrap(),
        stored(&fixture, "key/a").await.unwrap(),
    );
    fixture.clock.advance(Duration::from_secs(7 * 24 * 3600));
    janitor.sweep().await.unwrap();
    assert_eq!(names(&process, None).await, ["alias/x", "alias/y"]);
    fixture.clock.advance(Duration::from_secs(3600));
    let swept = janitor.sweep().await.unwrap();
    assert_eq!((swept.destroyed, swept.aliases), (vec![id("a")], 0));
    assert_eq!(names(&process, None).await, ["alias/y"]);

    // As if the janitor had ended before it removed them.
    fixture.table.put_new(&alias_record).await.unwrap();
    fixture.table.put_new(&list_record).await.unwrap();
    assert_eq!(janitor.sweep().await.unwrap().aliases, 2);
    assert_eq!(names(&process, None).await, ["alias/y"]);
    assert_eq!(used(&process, "alias/y").await.unwrap(), id("b"));
}

#[tokio::test]
async fn key_pending_deletion_gets_no_alias() {
    let (_fixture, process) = with_keys(&["a", "b"]).await;
    create(&process, "alias/x", "b").await.unwrap();
    let window = DeletionWindow::days(7).unwrap();
    let scheduled = process
        .keys
        .schedule_deletion(&root(), &id("a"), window)
        .await;
    scheduled.unwrap();
    let is_pending = |refused: Result<(), KmsError>| {
        let expected = |state| matches!(state, KeyState::PendingDeletion { .. });
        assert!(matches!(refused, Err(KmsError::KeyState { state, .. }) if expected(state)));
    };
    is_pending(create(&process, "alias/y", "a").await);
    let keys = &process.keys;
    let moved = keys
        .update_alias(&root(), &alias("alias/x"), &id("a"))
        .await;
    is_pending(moved.map(drop));
    let missing = create(&process, "alias/y", "none").await;
    assert!(matches!(missing, Err(KmsError::KeyNotFound(_))));
}

#[tokio::test]
async fn key_has_at_most_fifty_aliases_whatever_two_processes_do_at_once() {
    let (fixture, _) = with_keys(&["a", "b"]).await;
    let (one, two) = (interleaved(&fixture), interleaved(&fixture));
    let wanted = MAX_ALIASES + 10;
    let tries = (0..wanted).flat_map(|number| {
        let name = format!("alias/n{number:02}");
        [&one, &two].map(|process| {
            let name = name.clone();
            async move {
                // As a client whose request was answered with "try again".
                loop {
                    match create(process, &name, "a").await {
                        Err(KmsError::Contended(_)) => {}
                        outcome => return outcome,
                    }
                }
            }
        })
    });
    let outcomes = join_all(tries).await;
    let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let full = |outcome: &&Result<_, _>| matches!(outcome, Err(KmsError::TooManyAliases(_)));
    assert_eq!(made, MAX_ALIASES);
    assert!(outcomes.iter().any(|outcome| full(&outcome)));
    assert_eq!(names(&one, Some("a")).await.len(), MAX_ALIASES);
    assert_eq!(names(&one, None).await.len(), MAX_ALIASES);

    // The place of an alias that was moved away is free.
    let all = names(&one, Some("a")).await;
    let first = alias(&all[0]);
    two.keys
        .update_alias(&root(), &first, &id("b"))
        .await
        .unwrap();
    create(&one, "alias/late", "a").await.unwrap();
    let back = two.keys.update_alias(&root(), &first, &id("a")).await;
    assert!(matches!(back, Err(KmsError::TooManyAliases(_))));
    assert_eq!(names(&one, Some("b")).await, [first.to_string()]);
}

#[tokio::test]
async fn alias_made_and_moved_by_many_at_once_names_one_key_that_lists_it() {
    let (fixture, _) = with_keys(&["a", "b"]).await;
    let (one, two) = (interleaved(&fixture), interleaved(&fixture));
    let made = join_all([("a", &one), ("b", &two)].map(|(key, process)| {
        let name = "alias/x";
        create(process, name, key)
    }));
    assert_eq!(made.await.iter().filter(|made| made.is_ok()).count(), 1);
    let moves = (0..20).map(|number| {
        let (process, key) = if number % 2 == 0 {
            (&one, "a")
        } else {
            (&two, "b")
        };
        async move {
            let name = alias("alias/x");
            process.keys.update_alias(&root(), &name, &id(key)).await
        }
    });
    for moved in join_all(moves).await {
        assert!(matches!(moved, Ok(_) | Err(KmsError::Contended(_))));
    }
    let of = [names(&one, Some("a")).await, names(&one, Some("b")).await];
    assert_eq!(of.concat(), ["alias/x"]);
}

#[tokio::test]
async fn alias_needs_the_permission_on_itself_and_on_its_keys() {
    let (_fixture, process) = with_keys(&["a", "b", "secret"]).await;
    create(&process, "alias/app-x", "a").await.unwrap();
    create(&process, "alias/app-s", "secret").await.unwrap();
    let caller = with_policy(
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*",
            "Resource":["arn:aws:kms:::alias/app-*","arn:aws:kms:::key/a","arn:aws:kms:::key/b"]}]}"#,
    );
    let (keys, denied) = (&process.keys, |outcome: Result<(), KmsError>| {
        assert!(matches!(outcome, Err(KmsError::NotPermitted)));
    });
    let creates = async |name: &str, key: &str| {
        let made = keys.create_alias(&caller, &alias(name), &id(key)).await;
        made.map(drop)
    };
    let updates = async |name: &str, key: &str| {
        let moved = keys.update_alias(&caller, &alias(name), &id(key)).await;
        moved.map(drop)
    };
    creates("alias/app-y", "b").await.unwrap();
    denied(creates("alias/other", "b").await);
    denied(creates("alias/app-z", "secret").await);
    updates("alias/app-x", "b").await.unwrap();
    denied(updates("alias/app-x", "secret").await);
    // The key that it names now is not the caller's.
    denied(updates("alias/app-s", "b").await);
    denied(keys.delete_alias(&caller, &alias("alias/app-s")).await);
    // An alias that does not exist gives the same answer: the caller may not use a key of that name.
    denied(keys.delete_alias(&caller, &alias("alias/app-none")).await);
    denied(updates("alias/app-none", "b").await);
    keys.delete_alias(&caller, &alias("alias/app-x"))
        .await
        .unwrap();

    for name in ["alias/app-s", "alias/secret", "alias/none", "alias/no/ne"] {
        let refused = used_by(&process, &caller, name).await;
        assert!(matches!(refused, Err(KmsError::NotPermitted)), "{name}");
    }
    let page = keys.list_aliases(&caller, None, 50, None).await.unwrap();
    let seen: Vec<&str> = page.aliases.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(seen, ["alias/app-y"]);
    let of_other = keys
        .list_aliases(&caller, Some(&id("secret")), 50, None)
        .await;
    denied(of_other.map(drop));
}

#[tokio::test]
async fn marker_of_another_list_is_refused() {
    let (_fixture, process) = with_keys(&["a"]).await;
    for name in ["alias/x", "alias/y"] {
        create(&process, name, "a").await.unwrap();
    }
    let of = Some(id("a"));
    for of in [None, of.as_ref()] {
        let refused = process
            .keys
            .list_aliases(&root(), of, 1, Some("alias/x"))
            .await;
        assert!(matches!(
            refused,
            Err(KmsError::Invalid {
                field: "marker",
                ..
            })
        ));
    }
}
