//! Rotation of access keys, and the dates of their last use.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, STATE_TTL};
use keyway_domain::access::{
    AccessKeyId, AccessKeyName, AccessKeys, Credentials, Envelope, NewAccessKey, RootAccessKey,
    Session, Sessions, UseRecorder, WantedAccessKey, WantedSession,
};
use keyway_domain::access::{Lifetime, SessionName};
use keyway_domain::policy::{Action, Policy};
use keyway_domain::ports::{Consistency, Kind, Record, Revision, TableReader, TableWriter};
use keyway_domain::{KmsError, SecretBytes};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn access_keys(fixture: &Fixture) -> AccessKeys {
    AccessKeys::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    )
}

fn credentials(fixture: &Fixture) -> Arc<Credentials> {
    Arc::new(Credentials::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        STATE_TTL,
        RootAccessKey::InTable,
    ))
}

async fn create(fixture: &Fixture) -> NewAccessKey {
    let policy = Policy::canned("kms-key-user").unwrap();
    let wanted = WantedAccessKey {
        envelope: Some(Envelope::RustFs),
        name: Some(AccessKeyName::parse("rustfs-node-1").unwrap()),
        ..WantedAccessKey::new(policy)
    };
    access_keys(fixture).create_with(wanted).await.unwrap()
}

async fn stored(fixture: &Fixture, kind: Kind, id: &str) -> Option<Record> {
    let found = fixture.table.get(kind, id, Consistency::Strong).await;
    found.unwrap()
}

fn refusal<T>(result: Result<T, KmsError>) -> String {
    match result {
        Err(KmsError::Invalid { field, reason }) => format!("{field}: {reason}"),
        Err(other) => other.for_operator(),
        Ok(_) => "it was accepted".to_owned(),
    }
}

#[test]
fn name_of_other_characters_or_length_is_refused() {
    for name in ["a", "rustfs-node_1@site=a,b+c.d", &"x".repeat(64)] {
        assert_eq!(AccessKeyName::parse(name).unwrap().as_str(), name);
    }
    for name in ["", "a b", "a\n", "ä", "a/b", &"x".repeat(65)] {
        assert!(AccessKeyName::parse(name).is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn rotated_access_key_works_beside_the_new_one_until_the_overlap_ends() {
    let fixture = Fixture::build().await;
    let (keys, old) = (access_keys(&fixture), create(&fixture).await);
    let credentials = credentials(&fixture);
    assert!(credentials.find(old.id.as_str()).await.unwrap().is_some());
    let rotated = keys.rotate(&old.id, DAY).await.unwrap();
    let new = &rotated.new;
    assert_ne!(new.id, old.id);
    assert_ne!(new.secret.expose(), old.secret.expose());
    assert!(new.session_token.is_none() && new.expires_at.is_none());

    let found = credentials.find(new.id.as_str()).await.unwrap().unwrap();
    assert!(found.caller.may_ever(Action::Decrypt).is_ok());
    assert!(found.caller.may_ever(Action::Configure).is_err());
    assert_eq!(found.caller.envelope(), Some(Envelope::RustFs));
    let listed = keys.list().await.unwrap();
    for key in &listed {
        assert_eq!(key.name.as_ref().unwrap().as_str(), "rustfs-node-1");
        let is_old = key.id == old.id;
        assert_eq!(key.expires_at, is_old.then_some(rotated.old_expires_at));
        assert_eq!(key.replaced_by, is_old.then(|| new.id.clone()));
    }
    assert_eq!(listed.len(), 2);

    fixture.clock.advance(DAY - Duration::from_secs(1));
    assert!(credentials.find(old.id.as_str()).await.unwrap().is_some());
    fixture.clock.advance(Duration::from_secs(1));
    assert!(credentials.find(old.id.as_str()).await.unwrap().is_none());
    assert!(credentials.find(new.id.as_str()).await.unwrap().is_some());
    // Its holder still learns that it expired, for a day.
    let expired = credentials.find_even_expired(old.id.as_str()).await;
    assert!(credentials.is_expired(&expired.unwrap().unwrap()));
    fixture.clock.advance(DAY);
    assert!(
        stored(&fixture, Kind::AccessKey, old.id.as_str())
            .await
            .is_none()
    );
}

#[tokio::test]
async fn rotation_without_an_overlap_ends_the_old_key_within_the_state_ttl() {
    let fixture = Fixture::build().await;
    let (keys, old) = (access_keys(&fixture), create(&fixture).await);
    let credentials = credentials(&fixture);
    assert!(credentials.find(old.id.as_str()).await.unwrap().is_some());
    keys.rotate(&old.id, Duration::ZERO).await.unwrap();
    fixture.clock.advance(STATE_TTL);
    assert!(credentials.find(old.id.as_str()).await.unwrap().is_none());
}

#[tokio::test]
async fn root_access_key_of_the_table_is_rotated_as_any_other() {
    let fixture = Fixture::build().await;
    let keys = access_keys(&fixture);
    let root = keys.create_root_if_new().await.unwrap().unwrap();
    let rotated = keys.rotate(&root.id, HOUR).await.unwrap();
    let found = credentials(&fixture).find(rotated.new.id.as_str()).await;
    let caller = &found.unwrap().unwrap().caller;
    assert!(caller.may_on_service(Action::Configure).is_ok());
    assert!(keys.create_root_if_new().await.unwrap().is_none());
}

#[tokio::test]
async fn access_key_that_cannot_be_rotated_is_refused_and_stays() {
    let fixture = Fixture::build().await;
    let (keys, old) = (access_keys(&fixture), create(&fixture).await);
    let credentials = credentials(&fixture);
    let policy = || Policy::canned("kms-key-user").unwrap();
    let brief = keys.create(policy(), Some(DAY)).await.unwrap();
    let caller = credentials.find(old.id.as_str()).await.unwrap().unwrap();
    let wanted = WantedSession {
        name: SessionName::parse("console").unwrap(),
        lifetime: Lifetime::default(),
        policy: None,
    };
    let sessions = Sessions::new(access_keys(&fixture), Arc::clone(&credentials));
    let session = sessions.begin(&caller.caller, &wanted).await.unwrap();
    let rotated = keys.rotate(&old.id, DAY).await.unwrap();
    let absent = AccessKeyId::parse("KWABSENT").unwrap();
    let count = keys.list().await.unwrap().len();
    for (id, words) in [
        (&brief.id, "expires at 2026-01-03T03:04:05Z anyway"),
        (&session.id, "belongs to a session"),
        (&old.id, rotated.new.id.as_str()),
        (&absent, "there is no access key KWABSENT"),
    ] {
        let text = refusal(keys.rotate(id, DAY).await);
        assert!(text.contains(words), "{words}: {text}");
    }
    let long = Duration::from_secs(366 * 24 * 3600 + 1);
    let text = refusal(keys.rotate(&rotated.new.id, long).await);
    assert_eq!(text, "overlap: must be at most 366 days");
    assert_eq!(keys.list().await.unwrap().len(), count, "nothing was made");
}

#[tokio::test]
async fn session_of_a_rotated_access_key_ends_with_the_overlap() {
    let fixture = Fixture::build().await;
    let (keys, old) = (access_keys(&fixture), create(&fixture).await);
    let credentials = credentials(&fixture);
    let caller = credentials.find(old.id.as_str()).await.unwrap().unwrap();
    let wanted = WantedSession {
        name: SessionName::parse("console").unwrap(),
        lifetime: Lifetime::seconds(43_200).unwrap(),
        policy: None,
    };
    let sessions = Sessions::new(access_keys(&fixture), Arc::clone(&credentials));
    let session = sessions.begin(&caller.caller, &wanted).await.unwrap();
    keys.rotate(&old.id, HOUR).await.unwrap();
    fixture.clock.advance(HOUR - Duration::from_secs(1));
    assert!(
        credentials
            .find(session.id.as_str())
            .await
            .unwrap()
            .is_some()
    );
    fixture.clock.advance(Duration::from_secs(1));
    assert!(
        credentials
            .find(session.id.as_str())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn rotations_at_once_leave_one_new_access_key() {
    let fixture = Fixture::build().await;
    let old = create(&fixture).await;
    let (one, other) = (access_keys(&fixture), access_keys(&fixture));
    let (first, second) = tokio::join!(one.rotate(&old.id, DAY), other.rotate(&old.id, DAY));
    let won = [first.is_ok(), second.is_ok()];
    assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
    assert_eq!(one.list().await.unwrap().len(), 2);
}

#[tokio::test]
async fn rotation_that_fails_in_the_middle_leaves_the_old_key_as_it_was() {
    let fixture = Fixture::build().await;
    let (keys, old) = (access_keys(&fixture), create(&fixture).await);
    let before = stored(&fixture, Kind::AccessKey, old.id.as_str()).await;
    fixture.table.fail_writes(true);
    assert!(keys.rotate(&old.id, DAY).await.is_err());
    fixture.table.fail_writes(false);
    let after = stored(&fixture, Kind::AccessKey, old.id.as_str()).await;
    assert_eq!(before, after);
    assert!(keys.rotate(&old.id, DAY).await.is_ok());
}

/// A process that records the uses of access keys.
struct Process {
    credentials: Arc<Credentials>,
    recorder: UseRecorder,
}

fn process(fixture: &Fixture) -> Process {
    let credentials = credentials(fixture);
    let recorder = credentials.record_uses(fixture.table.clone(), fixture.random.clone());
    Process {
        credentials,
        recorder,
    }
}

impl Process {
    async fn request(&self, id: &AccessKeyId) {
        let found = self.credentials.find(id.as_str()).await.unwrap();
        self.credentials.used(&found.unwrap());
    }
}

async fn revision_of_use(fixture: &Fixture, id: &AccessKeyId) -> Option<Revision> {
    let found = stored(fixture, Kind::AccessKeyUse, id.as_str()).await;
    found.map(|record| record.revision)
}

async fn last_used(fixture: &Fixture, id: &AccessKeyId) -> Option<jiff::Timestamp> {
    let listed = access_keys(fixture).list().await.unwrap();
    let key = listed.into_iter().find(|key| key.id == *id);
    key.unwrap().last_used_at
}

#[tokio::test]
async fn use_is_recorded_once_an_hour_by_all_processes_together() {
    let fixture = Fixture::build().await;
    let key = create(&fixture).await;
    let record_before = stored(&fixture, Kind::AccessKey, key.id.as_str()).await;
    let (one, other) = (process(&fixture), process(&fixture));
    one.request(&key.id).await;
    assert_eq!(last_used(&fixture, &key.id).await, None, "only noted");
    one.recorder.record().await.unwrap();
    let begun = fixture.clock.as_ref();
    let first = keyway_domain::ports::Clock::now(begun);
    assert_eq!(last_used(&fixture, &key.id).await, Some(first));
    let revision = revision_of_use(&fixture, &key.id).await;

    for minutes in [0, 10, 49] {
        fixture.clock.advance(Duration::from_secs(minutes * 60));
        for process in [&one, &other] {
            process.request(&key.id).await;
            process.recorder.record().await.unwrap();
        }
        assert_eq!(revision_of_use(&fixture, &key.id).await, revision);
    }
    fixture.clock.advance(Duration::from_secs(60));
    one.request(&key.id).await;
    other.request(&key.id).await;
    let (a, b) = tokio::join!(one.recorder.record(), other.recorder.record());
    a.and(b).unwrap();
    let later = first.checked_add(jiff::SignedDuration::from_mins(60));
    assert_eq!(last_used(&fixture, &key.id).await, later.ok());
    let record_after = stored(&fixture, Kind::AccessKey, key.id.as_str()).await;
    assert_eq!(record_before, record_after, "its own record never changes");
}

#[tokio::test]
async fn use_that_could_not_be_recorded_is_recorded_later() {
    let fixture = Fixture::build().await;
    let key = create(&fixture).await;
    let process = process(&fixture);
    process.request(&key.id).await;
    fixture.table.fail_writes(true);
    assert!(process.recorder.record().await.is_err());
    fixture.table.fail_writes(false);
    process.recorder.record().await.unwrap();
    assert!(last_used(&fixture, &key.id).await.is_some());
}

#[tokio::test]
async fn use_of_a_session_is_its_access_keys() {
    let fixture = Fixture::build().await;
    let key = create(&fixture).await;
    let process = process(&fixture);
    let caller = process.credentials.find(key.id.as_str()).await.unwrap();
    let wanted = WantedSession {
        name: SessionName::parse("console").unwrap(),
        lifetime: Lifetime::default(),
        policy: None,
    };
    let sessions = Sessions::new(access_keys(&fixture), Arc::clone(&process.credentials));
    let session = sessions.begin(&caller.unwrap().caller, &wanted).await;
    let session = session.unwrap();
    process.request(&session.id).await;
    process.recorder.record().await.unwrap();
    assert!(last_used(&fixture, &key.id).await.is_some());
    assert_eq!(last_used(&fixture, &session.id).await, None);
    let listed = access_keys(&fixture).list().await.unwrap();
    let of = |key: &Option<Session>| key.as_ref().map(|session| session.parent.clone());
    assert!(
        listed
            .iter()
            .any(|listed| of(&listed.session) == Some(key.id.clone()))
    );
}

#[tokio::test]
async fn process_without_a_recorder_notes_nothing() {
    let fixture = Fixture::build().await;
    let key = create(&fixture).await;
    let credentials = credentials(&fixture);
    let found = credentials.find(key.id.as_str()).await.unwrap().unwrap();
    credentials.used(&found);
    let recorder = credentials.record_uses(fixture.table.clone(), fixture.random.clone());
    recorder.record().await.unwrap();
    assert_eq!(last_used(&fixture, &key.id).await, None);
    let since = access_keys(&fixture).list_even_expired().await.unwrap();
    assert!(since.uses_since.is_some());
}

#[tokio::test]
async fn given_root_access_key_has_no_date() {
    let fixture = Fixture::build().await;
    let id = AccessKeyId::parse("root").unwrap();
    let secret = SecretBytes::from(b"root-secret".to_vec());
    let credentials = Credentials::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        STATE_TTL,
        RootAccessKey::Given(id.clone(), secret),
    );
    let recorder = credentials.record_uses(fixture.table.clone(), fixture.random.clone());
    let found = credentials.find("root").await.unwrap().unwrap();
    credentials.used(&found);
    recorder.record().await.unwrap();
    assert_eq!(revision_of_use(&fixture, &id).await, None);
}

#[tokio::test]
async fn revocation_removes_the_date_of_the_last_use() {
    let fixture = Fixture::build().await;
    let key = create(&fixture).await;
    let process = process(&fixture);
    process.request(&key.id).await;
    process.recorder.record().await.unwrap();
    assert!(revision_of_use(&fixture, &key.id).await.is_some());
    access_keys(&fixture).revoke(&key.id).await.unwrap();
    assert_eq!(revision_of_use(&fixture, &key.id).await, None);
}

/// The record of an access key as an older release reads it: without the fields that it does not know.
#[tokio::test]
async fn record_of_a_rotated_key_keeps_the_fields_that_older_releases_obey() {
    let fixture = Fixture::build().await;
    let old = create(&fixture).await;
    access_keys(&fixture).rotate(&old.id, DAY).await.unwrap();
    let record = stored(&fixture, Kind::AccessKey, old.id.as_str()).await;
    let record = record.unwrap();
    let value: serde_json::Value = serde_json::from_slice(&record.value).unwrap();
    let fields: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        fields,
        [
            "created_at",
            "envelope",
            "expires_at",
            "format",
            "grant",
            "name",
            "replaced_by",
            "secret",
            "session_token"
        ]
    );
    assert!(value.get("format").unwrap() == 1 && value.get("expires_at").unwrap().is_string());
    // A record of an older release has neither name nor successor.
    let mut former = value.clone();
    let fields = former.as_object_mut().unwrap();
    fields.remove("name");
    fields.remove("replaced_by");
    fields.insert("expires_at".to_owned(), serde_json::Value::Null);
    let record = Record {
        revision: Revision([7; 16]),
        value: serde_json::to_vec(&former).unwrap(),
        expires_at: None,
        ..record.clone()
    };
    let seen = stored(&fixture, Kind::AccessKey, old.id.as_str()).await;
    let seen = seen.unwrap().revision;
    fixture.table.replace(&record, seen).await.unwrap();
    assert!(access_keys(&fixture).rotate(&old.id, DAY).await.is_ok());
}
