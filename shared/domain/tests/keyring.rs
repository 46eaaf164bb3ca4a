//! A keyring that is opened on demand: it fails closed, reports that, and recovers.

mod fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use fixture::Fixture;
use keyway_domain::keyring::{
    Binding, KEYRING_SECRET, KeyWrapper, KeyringOnDemand, RootKeyring, WrapError,
    beginning_of_logs, extend_logs_to,
};
use keyway_domain::ports::{
    Clock, Consistency, InterceptedTable, Kind, Record, Revision, SecretStore, SecretVersion,
    StoreError, TableCall, TableInterceptor, TableReader, TableWriter,
};
use keyway_domain::{OpenError, SecretBytes};
use keyway_testkit::{MemorySecrets, MemoryTable};

const BINDING: Binding<'_> = Binding {
    id: "k",
    version: 1,
    origin: "test",
};

struct Empty {
    fixture: Fixture,
    table: Arc<MemoryTable>,
    secrets: Arc<MemorySecrets>,
}

impl Empty {
    async fn build() -> Self {
        let fixture = Fixture::build().await;
        Self {
            table: Arc::new(MemoryTable::new(fixture.clock.clone())),
            secrets: Arc::new(MemorySecrets::new()),
            fixture,
        }
    }

    fn opening(&self) -> KeyringOnDemand {
        let (clock, random) = (self.fixture.clock.clone(), self.fixture.random.clone());
        KeyringOnDemand::opening(self.table.clone(), self.secrets.clone(), clock, random)
    }

    fn establishing(&self) -> KeyringOnDemand {
        let (clock, random) = (self.fixture.clock.clone(), self.fixture.random.clone());
        KeyringOnDemand::establishing(self.table.clone(), self.secrets.clone(), clock, random)
    }
}

fn unavailable<T>(result: &Result<T, WrapError>) -> bool {
    matches!(result, Err(WrapError::Unavailable(_)))
}

#[tokio::test]
async fn reader_waits_for_a_deployment_and_makes_none() {
    let empty = Empty::build().await;
    let reader = empty.opening();
    assert!(unavailable(&reader.wrap(&BINDING, b"secret").await));
    assert!(empty.secrets.get(KEYRING_SECRET).await.unwrap().is_none());
    let writer = empty.establishing();
    let wrapped = writer.wrap(&BINDING, b"secret").await.unwrap();
    assert!(
        unavailable(&reader.unwrap(&BINDING, &wrapped).await),
        "not again at once"
    );
    empty.fixture.clock.advance(Duration::from_secs(1));
    let unwrapped = reader.unwrap(&BINDING, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), b"secret");
}

#[tokio::test]
async fn first_users_at_once_hold_one_keyring() {
    let empty = Empty::build().await;
    let users: Vec<_> = (0..8).map(|_| Arc::new(empty.establishing())).collect();
    let wraps = users
        .iter()
        .cloned()
        .map(|user| tokio::spawn(async move { user.wrap(&BINDING, b"secret").await.unwrap() }));
    for wrapped in wraps.collect::<Vec<_>>() {
        let wrapped = wrapped.await.unwrap();
        for user in &users {
            let unwrapped = user.unwrap(&BINDING, &wrapped).await.unwrap();
            assert_eq!(unwrapped.expose(), b"secret");
        }
    }
}

#[tokio::test]
async fn keyring_missing_damaged_or_foreign_is_refused_and_not_replaced() {
    let empty = Empty::build().await;
    let wrapped = empty.establishing().wrap(&BINDING, b"secret").await;
    let wrapped = wrapped.unwrap();
    let deployment = empty
        .table
        .get(Kind::Config, "deployment", Consistency::Strong)
        .await;
    let deployment = deployment.unwrap().unwrap();
    for kept in [None, Some("{"), Some("foreign")] {
        let other = Empty::build().await;
        if kept == Some("foreign") {
            // The houses' generators are seeded alike; this one goes on elsewhere.
            other.fixture.random.fill(&mut [0; 5]).unwrap();
            other
                .establishing()
                .wrap(&BINDING, b"secret")
                .await
                .unwrap();
            let own = other
                .table
                .get(Kind::Config, "deployment", Consistency::Strong)
                .await;
            let seen = own.unwrap().unwrap().revision;
            other.table.replace(&deployment, seen).await.unwrap();
        } else {
            other.table.put_new(&deployment).await.unwrap();
        }
        if kept == Some("{") {
            let garbage = b"{".to_vec().into();
            other
                .secrets
                .put(KEYRING_SECRET, &garbage, None)
                .await
                .unwrap();
        }
        let before = other
            .secrets
            .get(KEYRING_SECRET)
            .await
            .unwrap()
            .map(|(_, version)| version);
        for keyring in [other.opening(), other.establishing()] {
            let wrap = keyring.wrap(&BINDING, b"secret").await;
            assert!(unavailable(&wrap), "{kept:?}");
        }
        for keyring in [other.opening(), other.establishing()] {
            let unwrap = keyring.unwrap(&BINDING, &wrapped).await;
            assert!(unavailable(&unwrap), "{kept:?}");
        }
        let after = other
            .secrets
            .get(KEYRING_SECRET)
            .await
            .unwrap()
            .map(|(_, version)| version);
        assert_eq!(before, after, "{kept:?}");
    }
}

/// A start waits only for the records that it needs.
#[tokio::test]
async fn unwrapping_does_not_read_the_table() {
    let empty = Empty::build().await;
    let wrapped = empty.establishing().wrap(&BINDING, b"secret").await;
    let wrapped = wrapped.unwrap();
    let nothing = Arc::new(MemoryTable::new(empty.fixture.clock.clone()));
    let elsewhere = Empty {
        table: nothing.clone(),
        ..empty
    };
    let reader = elsewhere.opening();
    let unwrapped = reader.unwrap(&BINDING, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), b"secret");
    let other = Binding { id: "j", ..BINDING };
    assert!(
        unavailable(&reader.unwrap(&other, &wrapped).await),
        "what does not open is looked into: this table holds no deployment"
    );
    assert!(unavailable(&reader.wrap(&BINDING, b"secret").await));

    // A writer of the table does not become the keyring's owner by that.
    let writer = elsewhere.establishing();
    writer.unwrap(&BINDING, &wrapped).await.unwrap();
    assert!(unavailable(&writer.wrap(&BINDING, b"secret").await));
    let marked = || nothing.get(Kind::Config, "deployment", Consistency::Strong);
    assert!(marked().await.unwrap().is_none());
    // But it does with the operator's consent, which asks for no more than the first wrap.
    let writer = elsewhere.establishing().accepting_empty_table(true);
    writer.unwrap(&BINDING, &wrapped).await.unwrap();
    assert!(marked().await.unwrap().is_none());
    writer.wrap(&BINDING, b"secret").await.unwrap();
    assert!(marked().await.unwrap().is_some());
    let refused = writer.unwrap(&other, &wrapped).await;
    assert!(matches!(refused, Err(WrapError::NotAuthentic)));
}

impl Empty {
    async fn establish(&self) -> Result<RootKeyring, OpenError> {
        let random = self.fixture.random.clone();
        let clock = self.fixture.clock.as_ref();
        RootKeyring::establish(self.table.as_ref(), self.secrets.as_ref(), clock, random).await
    }

    /// The same keyring over another table, which is empty.
    fn over_nothing(&self) -> Self {
        Self {
            table: Arc::new(MemoryTable::new(self.fixture.clock.clone())),
            secrets: self.secrets.clone(),
            fixture: Fixture {
                table: self.fixture.table.clone(),
                secrets: self.fixture.secrets.clone(),
                wrapper: self.fixture.wrapper.clone(),
                vault: self.fixture.vault.clone(),
                vaults: self.fixture.vaults.clone(),
                clock: self.fixture.clock.clone(),
                random: self.fixture.random.clone(),
            },
        }
    }
}

#[tokio::test]
async fn keyring_over_an_empty_table_is_refused_until_the_operator_consents() {
    let empty = Empty::build().await;
    let wrapped = empty.establishing().wrap(&BINDING, b"secret").await;
    let wrapped = wrapped.unwrap();
    let lost = empty.over_nothing();
    for _ in 0..2 {
        assert!(matches!(lost.establish().await, Err(OpenError::TableEmpty)));
        for keyring in [lost.opening(), lost.establishing()] {
            let asked = keyring.must_be_own().await;
            assert!(matches!(asked, Err(OpenError::TableEmpty)));
            assert!(unavailable(&keyring.wrap(&BINDING, b"secret").await));
        }
        assert_eq!(lost.table.count(Kind::Config, "").await.unwrap(), 0);
    }
    let adopt = async |of: &Empty| {
        let (clock, random) = (of.fixture.clock.as_ref(), of.fixture.random.clone());
        RootKeyring::adopt_empty_table(of.table.as_ref(), of.secrets.as_ref(), clock, random)
            .await
            .unwrap();
    };
    adopt(&lost).await;
    for keyring in [lost.opening(), lost.establishing()] {
        keyring.must_be_own().await.unwrap();
        let unwrapped = keyring.unwrap(&BINDING, &wrapped).await.unwrap();
        assert_eq!(unwrapped.expose(), b"secret");
    }
    // Consent makes no keyring, and takes no other deployment's table.
    let nothing = Empty::build().await;
    adopt(&nothing).await;
    assert_eq!(nothing.table.count(Kind::Config, "").await.unwrap(), 0);
    nothing.fixture.random.fill(&mut [0; 5]).unwrap();
    nothing
        .establishing()
        .wrap(&BINDING, b"secret")
        .await
        .unwrap();
    let foreign = Empty {
        table: nothing.table.clone(),
        ..empty.over_nothing()
    };
    adopt(&foreign).await;
    let keyring = foreign.establishing().accepting_empty_table(true);
    assert!(matches!(
        keyring.must_be_own().await,
        Err(OpenError::KeyringForeign)
    ));
    assert!(matches!(
        foreign.establish().await,
        Err(OpenError::KeyringForeign)
    ));
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Empty {
    /// How many hours ago the logs begin.
    async fn hours_of_logs(&self) -> Result<i64, OpenError> {
        let clock = self.fixture.clock.as_ref();
        let beginning = beginning_of_logs(self.table.as_ref(), clock).await?;
        Ok(clock.now().duration_since(beginning).as_hours())
    }
}

#[tokio::test]
async fn logs_begin_a_day_before_the_deployment_was_made() {
    let empty = Empty::build().await;
    assert_eq!(
        empty.hours_of_logs().await.unwrap(),
        366 * 24,
        "nothing tells"
    );
    empty.establish().await.unwrap();
    assert_eq!(empty.hours_of_logs().await.unwrap(), 25);
    empty.fixture.clock.advance(800 * DAY);
    empty.establish().await.unwrap();
    assert_eq!(empty.hours_of_logs().await.unwrap(), 800 * 24 + 25);
    // The same deployment in a table that was emptied.
    let lost = empty.over_nothing();
    let writer = lost.establishing().accepting_empty_table(true);
    writer.must_be_own().await.unwrap();
    assert_eq!(lost.hours_of_logs().await.unwrap(), 800 * 24 + 25);
}

#[tokio::test]
async fn logs_of_a_deployment_whose_clock_was_ahead_begin_when_a_right_clock_opens_it() {
    let empty = Empty::build().await;
    let right = empty.fixture.clock.now();
    empty.fixture.clock.advance(400 * DAY);
    empty.establish().await.unwrap();
    empty.fixture.clock.set(right);
    assert_eq!(
        empty.hours_of_logs().await.unwrap(),
        366 * 24,
        "its date is to come"
    );
    for open in ["a start", "an open keyring"] {
        if open == "a start" {
            empty.establish().await.unwrap();
        } else {
            empty.establishing().must_be_own().await.unwrap();
        }
        empty.fixture.clock.set(right);
        empty.fixture.clock.advance(500 * DAY);
        assert_eq!(
            empty.hours_of_logs().await.unwrap(),
            500 * 24 + 25,
            "{open}"
        );
        empty.fixture.clock.set(right);
    }
}

#[tokio::test]
async fn logs_extended_to_an_older_record_of_the_deployment_never_shrink() {
    let empty = Empty::build().await;
    empty.establish().await.unwrap();
    let record = async || {
        let kind = Kind::Config;
        let read = empty.table.get(kind, "deployment", Consistency::Strong);
        read.await.unwrap().unwrap()
    };
    let older = record().await;
    let text = String::from_utf8(older.value.clone()).unwrap();
    assert!(text.contains(r#""created_at":"2026-01-02T"#), "{text}");
    let younger = Record {
        value: text
            .replace(":\"2026-01-02T", ":\"2026-03-02T")
            .into_bytes(),
        revision: Revision([9; 16]),
        ..older.clone()
    };
    empty.table.replace(&younger, older.revision).await.unwrap();
    empty.fixture.clock.advance(100 * DAY);
    let random = empty.fixture.random.as_ref();
    let before = empty.hours_of_logs().await.unwrap();
    extend_logs_to(&younger, empty.table.as_ref(), random)
        .await
        .unwrap();
    assert_eq!(record().await, younger, "nothing is written in vain");
    extend_logs_to(&older, empty.table.as_ref(), random)
        .await
        .unwrap();
    assert_eq!(empty.hours_of_logs().await.unwrap(), before + 59 * 24);
    assert_eq!(record().await.value, older.value);
    extend_logs_to(&younger, empty.table.as_ref(), random)
        .await
        .unwrap();
    assert_eq!(record().await.value, older.value);
}

/// A process that is killed at one of its calls of both stores: before the call acts, or before its answer. Later calls
/// do nothing.
struct Dying {
    calls_left: AtomicUsize,
    answered: bool,
}

impl Dying {
    async fn call<T>(
        &self,
        done: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let dead = || StoreError::Failed {
            what: "live",
            source: "the process was killed".into(),
        };
        let take = |left: usize| left.checked_sub(1);
        let left = self
            .calls_left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
            .map_err(|_| dead())?;
        match left {
            1 if self.answered => {
                done.await?;
                Err(dead())
            }
            1 => Err(dead()),
            _ => done.await,
        }
    }
}

impl TableInterceptor for &Dying {
    async fn intercept<T: Send>(
        &self,
        _: TableCall<'_>,
        run: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.call(run).await
    }
}

struct DyingSecrets<'a> {
    secrets: &'a MemorySecrets,
    dying: &'a Dying,
}

#[async_trait]
impl SecretStore for DyingSecrets<'_> {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        self.dying.call(self.secrets.get(name)).await
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        self.dying.call(self.secrets.put(name, value, seen)).await
    }
}

#[tokio::test]
async fn first_start_that_is_killed_at_any_call_is_completed_by_the_next() {
    let mut killed = 0;
    for call in 1..=20 {
        let mut survived = false;
        for answered in [false, true] {
            let empty = Empty::build().await;
            let dying = &Dying {
                calls_left: AtomicUsize::new(call),
                answered,
            };
            let table = InterceptedTable::new(empty.table.clone(), dying);
            let secrets = DyingSecrets {
                secrets: &empty.secrets,
                dying,
            };
            let (clock, random) = (empty.fixture.clock.as_ref(), empty.fixture.random.clone());
            let first = RootKeyring::establish(&table, &secrets, clock, random).await;
            survived = first.is_ok();
            killed += usize::from(!survived);
            let kept = empty.secrets.get(KEYRING_SECRET).await.unwrap();
            // Whichever kind of process comes next.
            if call % 2 == 0 {
                empty.establish().await.unwrap();
            }
            let keyring = empty.establishing();
            keyring.must_be_own().await.unwrap();
            let wrapped = keyring.wrap(&BINDING, b"secret").await.unwrap();
            let reader = empty.opening();
            reader.must_be_own().await.unwrap();
            assert_eq!(
                reader.unwrap(&BINDING, &wrapped).await.unwrap().expose(),
                b"secret"
            );
            // A keyring once made stays.
            if let Some((_, version)) = kept {
                let now = empty.secrets.get(KEYRING_SECRET).await.unwrap();
                assert_eq!(now.unwrap().1, version);
            }
            // From here on a missing keyring is an error.
            let record = empty
                .table
                .get(Kind::Config, "deployment", Consistency::Strong)
                .await;
            let text = String::from_utf8(record.unwrap().unwrap().value).unwrap();
            assert!(!text.contains("establishing"), "{text}");
        }
        if survived {
            assert!(killed >= 10, "{killed} calls were killed");
            return;
        }
    }
    panic!("it never survived");
}

#[tokio::test]
async fn first_starts_at_once_all_open_one_keyring() {
    for _ in 0..50 {
        let empty = Arc::new(Empty::build().await);
        let starts: Vec<_> = (0..8)
            .map(|_| {
                let empty = Arc::clone(&empty);
                tokio::spawn(async move { empty.establish().await.unwrap() })
            })
            .collect();
        let mut wrapped: Option<Vec<u8>> = None;
        for start in starts {
            let keyring = start.await.unwrap();
            if let Some(wrapped) = &wrapped {
                keyring.unwrap(&BINDING, wrapped).await.unwrap();
            }
            wrapped = Some(keyring.wrap(&BINDING, b"secret").await.unwrap());
        }
    }
}

#[tokio::test]
async fn deployment_record_of_an_older_release_is_established() {
    let empty = Empty::build().await;
    let record = Record {
        kind: Kind::Config,
        id: "deployment".to_owned(),
        revision: Revision([1; 16]),
        value: br#"{"format":1,"deployment":"d","created_at":"2026-01-02T03:04:05Z"}"#.to_vec(),
        expires_at: None,
    };
    empty.table.put_new(&record).await.unwrap();
    assert!(matches!(
        empty.establish().await,
        Err(OpenError::KeyringMissing)
    ));
    let found = empty
        .table
        .get(Kind::Config, "deployment", Consistency::Strong)
        .await;
    assert_eq!(found.unwrap().unwrap(), record);
}

#[tokio::test]
async fn table_of_a_newer_format_is_refused_and_not_changed() {
    let empty = Empty::build().await;
    let first = empty.establishing();
    let wrapped = first.wrap(&BINDING, b"secret").await.unwrap();
    let id = "deployment";
    let record = empty.table.get(Kind::Config, id, Consistency::Strong).await;
    let record = record.unwrap().unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!(value["needs"]["format"], 1);
    value["needs"] = serde_json::json!({"format": 2, "release": "9.8.7"});
    let later = Record {
        revision: Revision([7; 16]),
        value: value.to_string().into_bytes(),
        ..record.clone()
    };
    empty.table.replace(&later, record.revision).await.unwrap();
    for keyring in [empty.opening(), empty.establishing()] {
        let Err(error) = keyring.must_be_own().await else {
            panic!("the table is newer");
        };
        assert!(matches!(error, OpenError::TableNewer { .. }), "{error}");
        assert!(
            error.to_string().contains("keyway 9.8.7 or later"),
            "{error}"
        );
    }
    let keyring = empty.establishing();
    assert!(unavailable(&keyring.wrap(&BINDING, b"secret").await));
    // What only unwraps need not read the table.
    assert!(empty.opening().unwrap(&BINDING, &wrapped).await.is_ok());
    let kept = empty.table.get(Kind::Config, id, Consistency::Strong).await;
    assert_eq!(kept.unwrap().unwrap(), later);
}

#[tokio::test]
async fn table_without_a_format_gets_it_from_a_start_that_writes() {
    let empty = Empty::build().await;
    empty.establishing().must_be_own().await.unwrap();
    let id = "deployment";
    let record = empty.table.get(Kind::Config, id, Consistency::Strong).await;
    let record = record.unwrap().unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    value.as_object_mut().unwrap().remove("needs").unwrap();
    let former = Record {
        revision: Revision([7; 16]),
        value: value.to_string().into_bytes(),
        ..record.clone()
    };
    empty.table.replace(&former, record.revision).await.unwrap();
    empty.opening().must_be_own().await.unwrap();
    let kept = empty.table.get(Kind::Config, id, Consistency::Strong).await;
    assert_eq!(kept.unwrap().unwrap(), former);
    empty.establishing().must_be_own().await.unwrap();
    let kept = empty.table.get(Kind::Config, id, Consistency::Strong).await;
    assert_eq!(kept.unwrap().unwrap().value, record.value);
}
