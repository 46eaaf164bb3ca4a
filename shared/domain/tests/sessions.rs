//! Sessions: at each request, their permissions follow from the access key that began them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, STATE_TTL, id};
use keyway_domain::access::{
    AccessKeyId, AccessKeys, Caller, Credentials, Lifetime, NewAccessKey, RootAccessKey,
    SessionName, Sessions, WantedSession,
};
use keyway_domain::policy::{Action, Policy};
use keyway_domain::ports::{Consistency, Kind, Revision, TableReader, TableWriter};
use keyway_domain::{KmsError, SecretBytes};

struct Held {
    fixture: Fixture,
    credentials: Arc<Credentials>,
    sessions: Sessions,
}

fn access_keys(fixture: &Fixture) -> AccessKeys {
    AccessKeys::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    )
}

fn held(fixture: Fixture, root_secret: &str) -> Held {
    let root = RootAccessKey::Given(
        AccessKeyId::parse("root").unwrap(),
        SecretBytes::from(root_secret.as_bytes().to_vec()),
    );
    let credentials = Arc::new(Credentials::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        STATE_TTL,
        root,
    ));
    let sessions = Sessions::new(access_keys(&fixture), Arc::clone(&credentials));
    Held {
        fixture,
        credentials,
        sessions,
    }
}

impl Held {
    async fn caller(&self, id: &str) -> Option<Caller> {
        let found = self.credentials.find(id).await.unwrap()?;
        Some(found.caller.of_new_request())
    }

    async fn key(&self, policy: &str, life: Option<Duration>) -> NewAccessKey {
        let policy = Policy::parse(policy).unwrap();
        access_keys(&self.fixture)
            .create(policy, life)
            .await
            .unwrap()
    }

    async fn begin(&self, parent: &str, seconds: u64, policy: Option<&str>) -> NewAccessKey {
        let caller = self.caller(parent).await.unwrap();
        let wanted = wanted(seconds, policy);
        self.sessions.begin(&caller, &wanted).await.unwrap()
    }
}

fn wanted(seconds: u64, policy: Option<&str>) -> WantedSession {
    WantedSession {
        name: SessionName::parse("console").unwrap(),
        lifetime: Lifetime::seconds(seconds).unwrap(),
        policy: policy.map(|policy| Policy::parse(policy).unwrap()),
    }
}

const APP_KEYS: &str = r#"{"Statement":{"Effect":"Allow","Action":["kms:Encrypt","kms:Decrypt","kms:ListKeys"],
    "Resource":"arn:aws:kms:::key/app-*"}}"#;
const DECRYPT_ALL: &str = r#"{"Statement":{"Effect":"Allow","Action":["kms:Decrypt","kms:RotateKey","kms:ListKeys"],
    "Resource":"arn:aws:kms:::key/*"}}"#;

#[tokio::test]
async fn session_of_the_root_access_key_may_do_everything_until_it_ends() {
    let held = held(Fixture::build().await, "root-secret");
    let key = held.begin("root", 900, None).await;
    assert!(key.session_token.is_some());
    let caller = held.caller(key.id.as_str()).await.unwrap();
    assert!(caller.may(Action::DeleteKey, &id("k")).is_ok());
    assert!(caller.may_on_service(Action::Configure).is_ok());
    let session = caller.session().unwrap();
    assert_eq!(
        (session.parent.as_str(), session.name.as_str()),
        ("root", "console")
    );
    held.fixture.clock.advance(Duration::from_secs(899));
    assert!(held.caller(key.id.as_str()).await.is_some());
    held.fixture.clock.advance(Duration::from_secs(1));
    assert!(held.caller(key.id.as_str()).await.is_none());
}

#[tokio::test]
async fn session_may_do_what_its_parent_and_its_policy_allow() {
    let held = held(Fixture::build().await, "root-secret");
    let parent = held.key(APP_KEYS, None).await;
    let whole = held.begin(parent.id.as_str(), 900, None).await;
    let narrow = held.begin(parent.id.as_str(), 900, Some(DECRYPT_ALL)).await;
    let whole = held.caller(whole.id.as_str()).await.unwrap();
    let narrow = held.caller(narrow.id.as_str()).await.unwrap();
    for (action, key, of_parent, of_both) in [
        (Action::Encrypt, "app-1", true, false),
        (Action::Decrypt, "app-1", true, true),
        (Action::Decrypt, "db", false, false),
        (Action::RotateKey, "app-1", false, false),
        (Action::ListKeys, "app-1", true, true),
        (Action::ListKeys, "db", false, false),
    ] {
        assert_eq!(whole.may(action, &id(key)).is_ok(), of_parent, "{key}");
        assert_eq!(narrow.may(action, &id(key)).is_ok(), of_both, "{key}");
    }
    assert!(narrow.may_ever(Action::RotateKey).is_err());
    assert!(narrow.may_on_service(Action::Configure).is_err());
    assert!(narrow.may_call("/v1/key/create/app-1").is_err());
}

#[tokio::test]
async fn session_ends_with_its_parent_access_key() {
    let held = held(Fixture::build().await, "root-secret");
    let parent = held.key(APP_KEYS, Some(Duration::from_secs(1200))).await;
    let key = held.begin(parent.id.as_str(), 43_200, None).await;
    assert_eq!(key.expires_at, parent.expires_at, "it lasts no longer");
    assert!(held.caller(key.id.as_str()).await.is_some());
    access_keys(&held.fixture).revoke(&parent.id).await.unwrap();
    held.fixture.clock.advance(STATE_TTL);
    assert!(held.caller(key.id.as_str()).await.is_none());
}

#[tokio::test]
async fn session_ends_when_its_parent_has_another_secret() {
    let first = held(Fixture::build().await, "root-secret");
    let key = first.begin("root", 900, None).await;
    let second = held(first.fixture, "another-secret");
    assert!(second.caller("root").await.is_some());
    assert!(second.caller(key.id.as_str()).await.is_none());
    let third = held(second.fixture, "root-secret");
    assert!(third.caller(key.id.as_str()).await.is_some());
}

#[tokio::test]
async fn session_begins_no_other_session() {
    let held = held(Fixture::build().await, "root-secret");
    let key = held.begin("root", 900, None).await;
    let caller = held.caller(key.id.as_str()).await.unwrap();
    let refused = held.sessions.begin(&caller, &wanted(900, None)).await;
    assert!(matches!(refused, Err(KmsError::Forbidden(_))));
    // A session with such a record is refused, too.
    let other = held.begin("root", 900, None).await;
    let table = &held.fixture.table;
    let get = |id: String| async move {
        let found = table.get(Kind::AccessKey, &id, Consistency::Strong).await;
        found.unwrap().unwrap()
    };
    let mut record = get(other.id.as_str().to_owned()).await;
    let before = record.revision;
    record.revision = Revision([9; 16]);
    let mut value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    value["session"]["parent"] = key.id.as_str().into();
    record.value = serde_json::to_vec(&value).unwrap();
    table.replace(&record, before).await.unwrap();
    assert!(held.caller(other.id.as_str()).await.is_none());
}

#[tokio::test]
async fn session_in_a_release_without_sessions_may_do_nothing() {
    let held = held(Fixture::build().await, "root-secret");
    let key = held.begin("root", 900, Some(DECRYPT_ALL)).await;
    let record = held
        .fixture
        .table
        .get(Kind::AccessKey, key.id.as_str(), Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    assert_eq!(value["grant"]["policy"]["Statement"], serde_json::json!([]));
    let listed = access_keys(&held.fixture).list().await.unwrap();
    let session = listed[0].session.as_ref().unwrap();
    assert_eq!(session.parent.as_str(), "root");
    assert!(listed[0].policy.is_some());
}

#[test]
fn session_name_or_lifetime_out_of_bounds_is_refused() {
    let long = "x".repeat(65);
    for name in ["", "a", "a b", "a/b", "ä1", &long] {
        assert!(SessionName::parse(name).is_err(), "{name}");
    }
    assert!(SessionName::parse("a_b+c=d,e.f@g-1").is_ok());
    for seconds in [0, 899, 43_201, u64::MAX] {
        assert!(Lifetime::seconds(seconds).is_err(), "{seconds}");
    }
}
