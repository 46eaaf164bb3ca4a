//! Policies, access keys, and the root keyring's guards.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, STATE_TTL, id, named, root, with_policy};
use keyway_domain::access::{
    AccessKeyId, AccessKeys, Credentials, ROOT_ACCESS_KEY_SECRET, ROOT_ACCESS_KEY_TTL,
    RootAccessKey,
};
use keyway_domain::keyring::{Binding, KeyWrapper, RootKeyring};
use keyway_domain::policy::{Action, Policy};

use keyway_domain::ports::{Consistency, Kind, SecretStore, SecretVersion, TableReader};
use keyway_domain::{KmsError, OpenError, SecretBytes};
use keyway_testkit::{MemorySecrets, MemoryTable};

fn access_keys(fixture: &Fixture) -> AccessKeys {
    AccessKeys::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        fixture.random.clone(),
    )
}

fn credentials(fixture: &Fixture, root: Option<(&str, &str)>) -> Credentials {
    let root = match root {
        None => RootAccessKey::InTable,
        Some((id, secret)) => RootAccessKey::Given(
            AccessKeyId::parse(id).unwrap(),
            SecretBytes::from(secret.as_bytes().to_vec()),
        ),
    };
    credentials_with(fixture, root)
}

fn credentials_with(fixture: &Fixture, root: RootAccessKey) -> Credentials {
    Credentials::new(
        fixture.table.clone(),
        fixture.wrapper.clone(),
        fixture.clock.clone(),
        STATE_TTL,
        root,
    )
}

#[test]
fn action_without_an_allow_is_denied_and_deny_wins() {
    let caller = with_policy(
        r#"{"Version":"2012-10-17","Statement":[
            {"Effect":"Allow","Action":["kms:Describe*","kms:Encrypt"],"Resource":["arn:aws:kms:::key/app-*","arn:aws:kms:::key/x"]},
            {"Effect":"Allow","Action":"kms:Decrypt"},
            {"Effect":"Deny","Action":"kms:*","Resource":"arn:aws:kms:::key/app-secret"}]}"#,
    );
    let may = |action, key: &str| caller.may(action, &id(key)).is_ok();
    assert!(
        may(Action::DescribeKey, "app-1")
            && may(Action::DescribeKey, "x")
            && may(Action::Decrypt, "anything")
    );
    assert!(
        !may(Action::DescribeKey, "db")
            && !may(Action::DescribeKey, "xx")
            && !may(Action::RotateKey, "app-1")
    );
    assert!(!may(Action::DescribeKey, "app-secret") && !may(Action::Decrypt, "app-secret"));
    assert!(
        caller.may_ever(Action::Encrypt).is_ok() && caller.may_ever(Action::RotateKey).is_err()
    );
}

#[test]
fn server_info_permits_everything_unless_denied() {
    for action in [
        "admin:ServerInfo",
        "admin:ServerInfoAdminAction",
        "admin:*",
        "*",
        "kms:*",
    ] {
        let caller = with_policy(&format!(
            r#"{{"Statement":{{"Effect":"Allow","Action":"{action}"}}}}"#
        ));
        // An action named by its service permits that service.
        let opened = |wanted: &Action| action != "kms:*" || wanted.as_str().starts_with("kms:");
        for wanted in Action::ALL.into_iter().filter(opened) {
            assert!(
                caller.may(wanted, &id("k")).is_ok() && caller.may_ever(wanted).is_ok(),
                "{action} {wanted:?}"
            );
        }
    }
    let caller = with_policy(
        r#"{"Statement":[{"Effect":"Allow","Action":"admin:*"},{"Effect":"Deny","Action":"admin:ServerInfo"},
            {"Effect":"Allow","Action":"kms:ListKeys"}]}"#,
    );
    assert!(caller.may_ever(Action::Decrypt).is_err() && caller.may_ever(Action::ListKeys).is_ok());
    let caller = with_policy(
        r#"{"Statement":[{"Effect":"Allow","Action":"admin:*"},{"Effect":"Deny","Action":"kms:Decrypt","Resource":"*"}]}"#,
    );
    assert!(
        caller.may_ever(Action::Decrypt).is_err() && caller.may(Action::Encrypt, &id("k")).is_ok()
    );
}

#[test]
fn policy_with_unknown_parts_is_refused() {
    for document in [
        "",
        "[]",
        "{}",
        r#"{"Statement":[]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":[]}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":[]}]}"#,
        r#"{"Statement":[{"Effect":"Permit","Action":"kms:*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:Decrpt"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"ec2:Run"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Resource":"key/x"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","NotAction":"kms:*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Condition":{"StringEquals":{}}}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","NotAction":["kms:Decrypt"]}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","NotResource":"arn:aws:kms:::key/x"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","NotPrincipal":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Principal":""}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*"}],"ID":"a","Id":"b"}"#,
        r#"{"Statement":[{"Effect":"Allow","Action":"kms:*","Principal":"*"}]}"#,
        r#"{"Statement":[{"Effect":"Allow","Effect":"Deny","Action":"kms:*"}]}"#,
    ] {
        assert!(
            matches!(
                Policy::parse(document),
                Err(KmsError::Invalid {
                    field: "policy",
                    ..
                })
            ),
            "{document}"
        );
    }
    assert!(
        Policy::parse(&format!(
            r#"{{"Id":"{}","Statement":[]}}"#,
            "x".repeat(30_000)
        ))
        .is_err()
    );
}

/// A statement that denies these actions on these resources.
fn deny(actions: &str, resources: &str) -> String {
    format!(
        r#"{{"Statement":[{{"Effect":"Allow","Action":"kms:*"}},{{"Effect":"Deny","Action":{actions},"Resource":{resources}}}]}}"#
    )
}

#[test]
fn deny_that_denies_nothing_is_refused() {
    for resource in [
        "arn:aws:kms:::reports",
        "arn:aws:kms:::key",
        "arn:aws:kms:::key/",
        "arn:aws:kms:::key/reports ",
        "arn:aws:kms:::key/reports/",
        "arn:aws:kms:::key/ reports",
        "arn:aws:kms:::key/re ports",
        "arn:aws:kms:::key/reports\\n",
        "arn:aws:kms:::key/x/y",
        "arn:aws:kms:::key:x",
        "arn:aws:kms:::keys/x",
        "arn:aws:kms:::Key/x",
        "arn:aws:kms:::alias/x",
        "arn:aws:kms:::key/${aws:username}",
        "arn:aws:kms:::key/-x",
        "arn:aws:kms:::key/.x*",
        "arn:aws:kms:::key/café",
        "arn:aws:kms:::key/[ab]",
        "arn:aws:kms:::* ",
        "arn:aws:kms:us-east-1:12345:key/x",
        "arn:aws:kms::: key/x",
        "ARN:aws:kms:::key/x",
        " *",
        "**",
        "key/x",
        "x",
        "",
    ] {
        let document = deny(r#""kms:Decrypt""#, &format!("\"{resource}\""));
        assert!(Policy::parse(&document).is_err(), "{resource:?}");
        // Another entry that can deny does not make the policy valid.
        let document = deny(r#""kms:Decrypt""#, &format!("[\"*\",\"{resource}\"]"));
        assert!(Policy::parse(&document).is_err(), "{resource:?}");
    }
    for resource in [
        "arn:aws:s3:::reports/*",
        "arn:aws:s3:::reports/",
        "arn:aws:s3:::Reports",
        "arn:aws:s3:::re",
        "arn:aws:s3:::reports ",
        "arn:aws:s3:::${aws:username}",
        "arn:aws:s3:::",
        "arn:aws:s3::reports",
    ] {
        let document = deny(r#""s3:ListBucket""#, &format!("\"{resource}\""));
        assert!(Policy::parse(&document).is_err(), "{resource:?}");
    }
    for action in [
        "kms:Decrpt",
        "kms:",
        "kms",
        "Decrypt",
        "kms:Decrypt ",
        " kms:Decrypt",
        "kms:Decrypt:x",
        "s3:GetObject",
        "sts:*",
        "sts:AssumeRole",
        "admin:Heal",
        "ec2:*",
        "kms:X*",
        "",
        "?",
    ] {
        let document = deny(&format!("[\"kms:Encrypt\",\"{action}\"]"), r#""*""#);
        assert!(Policy::parse(&document).is_err(), "{action:?}");
    }
    for (actions, resources) in [
        (r#""kms:Decrypt""#, r#""arn:aws:s3:::reports""#),
        (r#""s3:ListBucket""#, r#""arn:aws:kms:::key/x""#),
        (r#""s3:ListBucket""#, r#""arn:aws:kms:::*""#),
        (r#""kms:Configure""#, r#""arn:aws:kms:::key/*""#),
        (
            r#"["kms:Decrypt","s3:ListBucket"]"#,
            r#""arn:aws:s3:::reports""#,
        ),
        (
            r#""kms:Decrypt""#,
            r#"["arn:aws:kms:::key/x","arn:aws:s3:::reports"]"#,
        ),
    ] {
        let document = deny(actions, resources);
        assert!(Policy::parse(&document).is_err(), "{document}");
    }
    for (actions, resources) in [
        (r#""kms:*""#, r#""arn:aws:kms:::key/x""#),
        (r#""KMS:decrypt""#, r#"["arn:aws:kms:::key/a?c*"]"#),
        (r#""kms:Configure""#, r#""arn:aws:kms:::*""#),
        (
            r#"["kms:Decrypt","s3:List*"]"#,
            r#"["arn:aws:kms:::key/x","arn:aws:s3:::app-*"]"#,
        ),
        (r#""admin:ServerInfo""#, r#""arn:aws:kms:::key/x""#),
        (
            r#""s3:DeleteBucketEncryption""#,
            r#""arn:aws:s3:::reports""#,
        ),
    ] {
        let document = deny(actions, resources);
        assert!(Policy::parse(&document).is_ok(), "{document}");
    }
}

#[test]
fn action_to_remove_bucket_encryption_only_denies() {
    let may = |effect: &str, all: &str| {
        let policy = format!(
            r#"{{"Statement":[{all}{{"Effect":"{effect}","Action":"s3:DeleteBucketEncryption"}}]}}"#
        );
        with_policy(&policy)
            .may_ever(Action::PutEncryptionConfiguration)
            .is_ok()
    };
    assert!(!may("Allow", ""));
    assert!(!may("Deny", r#"{"Effect":"Allow","Action":"s3:*"},"#));
}

#[test]
fn fields_written_empty_by_the_console_are_absent() {
    let plain = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["kms:Decrypt"],"Resource":["arn:aws:kms:::key/x"]}]}"#;
    for nothing in [r#""""#, "[]", "{}", "null"] {
        let document = format!(
            r#"{{"ID":{nothing},"Version":"2012-10-17","Statement":[{{"Sid":{nothing},"Effect":"Deny","Action":["kms:Decrypt"],"NotAction":{nothing},"Resource":["arn:aws:kms:::key/x"],"NotResource":{nothing},"Condition":{nothing}}}]}}"#
        );
        assert_eq!(
            Policy::parse(&document).unwrap(),
            Policy::parse(plain).unwrap(),
            "{nothing}"
        );
    }
}

#[test]
fn refusal_of_a_policy_repeats_none_of_it() {
    const CANARY: &str = "cAnArY7f3";
    for document in [
        CANARY.to_owned(),
        format!("\"{CANARY}\""),
        format!("{{\"{CANARY}\":1}}"),
        format!("{{\"Statement\":\"{CANARY}\"}}"),
        format!("{{\"Statement\":[\"{CANARY}\"]}}"),
        format!(
            "{{\"Id\":[\"{CANARY}\"],\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"*\"}}}}"
        ),
        format!("{{\"Statement\":{{\"Effect\":\"{CANARY}\",\"Action\":\"*\"}}}}"),
        format!("{{\"Statement\":{{\"{CANARY}\":\"Allow\",\"Action\":\"*\"}}}}"),
        format!("{{\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"{CANARY}\"}}}}"),
        format!("{{\"Statement\":{{\"Effect\":\"Allow\",\"Action\":{{\"{CANARY}\":1}}}}}}"),
        format!(
            "{{\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"{CANARY}\"}}}}"
        ),
        format!(
            "{{\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"arn:aws:kms:::{CANARY}\"}}}}"
        ),
        format!(
            "{{\"Statement\":{{\"Effect\":\"Allow\",\"Action\":\"*\",\"Condition\":\"{CANARY}\"}}}}"
        ),
    ] {
        let text = format!("{:?}", Policy::parse(&document).unwrap_err());
        assert!(!text.contains(CANARY), "{text}");
    }
}

#[tokio::test]
async fn stored_policy_with_a_void_deny_allows_nothing_and_is_listed_as_invalid() {
    let fixture = Fixture::build().await;
    let keys = access_keys(&fixture);
    let credentials = credentials(&fixture, None);
    // As versions before accepted them; one whose Allow alone names what does not exist does no harm.
    for (statements, fault) in [
        (
            r#"[{"Effect":"Allow","Action":["kms:*"]},{"Effect":"Deny","Action":["kms:*"],"Resource":["arn:aws:kms:::reports"]}]"#,
            true,
        ),
        (
            r#"[{"Effect":"Allow","Action":["kms:*","s3:GetObject"],"Resource":["*","arn:aws:s3:::b/*"]}]"#,
            false,
        ),
    ] {
        let policy = format!(r#"{{"Statement":{statements}}}"#);
        let policy: Policy = serde_json::from_str(&policy).unwrap();
        let made = keys.create(policy, None).await.unwrap();
        let found = credentials.find(made.id.as_str()).await.unwrap().unwrap();
        let may = found.caller.may(Action::Decrypt, &id("k")).is_ok();
        assert_eq!(may, !fault, "{statements}");
        assert_eq!(found.caller.may_ever(Action::Decrypt).is_ok(), !fault);
        let listed = keys.list().await.unwrap();
        let listed = listed.iter().find(|key| key.id == made.id).unwrap();
        assert_eq!(listed.fault.is_some(), fault, "{statements}");
    }
}

#[test]
fn limit_narrows_a_policy_and_never_widens_it() {
    let keys = ["app-*".to_owned(), "one".to_owned()];
    let limited = Policy::canned("kms-key-user")
        .unwrap()
        .limited_to(&keys)
        .unwrap();
    let caller = with_policy(&serde_json::to_string(&limited).unwrap());
    assert!(
        caller.may(Action::Decrypt, &id("app-9")).is_ok()
            && caller.may(Action::Decrypt, &id("one")).is_ok()
    );
    assert!(
        caller.may(Action::Decrypt, &id("two")).is_err()
            && caller.may(Action::RotateKey, &id("one")).is_err()
    );
    let own = Policy::parse(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/x"}}"#,
    );
    assert!(own.unwrap().limited_to(&keys).is_err());
    assert!(
        Policy::canned("kms-admin")
            .unwrap()
            .limited_to(&["a?".to_owned()])
            .is_err()
    );
}

#[tokio::test]
async fn access_key_works_until_revoked_or_expired() {
    let fixture = Fixture::build().await;
    let keys = access_keys(&fixture);
    let credentials = credentials(&fixture, None);
    let policy = || Policy::canned("kms-auditor").unwrap();
    let lasting = keys.create(policy(), None).await.unwrap();
    let brief = keys
        .create(policy(), Some(Duration::from_secs(60)))
        .await
        .unwrap();
    assert!(lasting.session_token.is_none());

    let found = credentials
        .find(lasting.id.as_str())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.secret.expose(), lasting.secret.expose());
    assert!(
        found.caller.may_ever(Action::ListKeys).is_ok()
            && found.caller.may_ever(Action::Encrypt).is_err()
    );
    let found = credentials.find(brief.id.as_str()).await.unwrap().unwrap();
    assert_eq!(
        found.session_token.as_ref().unwrap().expose(),
        brief.session_token.as_ref().unwrap().expose()
    );
    assert_eq!(keys.list().await.unwrap().len(), 2);

    fixture.clock.advance(Duration::from_secs(60));
    assert!(
        credentials.find(brief.id.as_str()).await.unwrap().is_none(),
        "expired, cached or not"
    );
    assert!(
        credentials
            .find(lasting.id.as_str())
            .await
            .unwrap()
            .is_some()
    );
    keys.revoke(&lasting.id).await.unwrap();
    assert!(
        credentials
            .find(lasting.id.as_str())
            .await
            .unwrap()
            .is_some(),
        "cached for the state TTL"
    );
    fixture.clock.advance(STATE_TTL);
    assert!(
        credentials
            .find(lasting.id.as_str())
            .await
            .unwrap()
            .is_none()
    );
    assert!(matches!(
        keys.revoke(&lasting.id).await,
        Err(KmsError::AccessKeyNotFound(_))
    ));
    for unknown in ["", "nobody", "../x", "a b"] {
        assert!(credentials.find(unknown).await.unwrap().is_none());
    }
    for life in [Duration::ZERO, Duration::from_secs(400 * 24 * 3600)] {
        assert!(keys.create(policy(), Some(life)).await.is_err());
    }
}

#[tokio::test]
async fn root_access_key_is_made_once_and_yields_to_a_given_one() {
    let fixture = Fixture::build().await;
    let made = access_keys(&fixture)
        .create_root_if_new()
        .await
        .unwrap()
        .unwrap();
    assert!(
        access_keys(&fixture)
            .create_root_if_new()
            .await
            .unwrap()
            .is_none()
    );
    let own = credentials(&fixture, None)
        .find(made.id.as_str())
        .await
        .unwrap()
        .unwrap();
    assert!(own.caller.may(Action::DeleteKey, &id("k")).is_ok());
    let given = credentials(&fixture, Some(("given-root", "secret")));
    assert!(
        given
            .find("given-root")
            .await
            .unwrap()
            .unwrap()
            .caller
            .may_ever(Action::Configure)
            .is_ok()
    );
    assert!(given.find(made.id.as_str()).await.unwrap().is_none());
}

#[tokio::test]
async fn record_holds_no_secret_in_the_clear() {
    let fixture = Fixture::build().await;
    let key = access_keys(&fixture)
        .create(
            Policy::canned("kms-admin").unwrap(),
            Some(Duration::from_secs(9)),
        )
        .await;
    let key = key.unwrap();
    let record = fixture
        .table
        .get(Kind::AccessKey, key.id.as_str(), Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(record.value).unwrap();
    for secret in [&key.secret, key.session_token.as_ref().unwrap()] {
        assert!(!text.contains(std::str::from_utf8(secret.expose()).unwrap()));
    }
}

#[tokio::test]
async fn wrapped_secret_opens_under_its_own_binding_only() {
    let fixture = Fixture::build().await;
    let binding = Binding {
        id: "k",
        version: 1,
        origin: "KMS",
    };
    let wrapped = fixture.wrapper.wrap(&binding, &[9; 32]).await.unwrap();
    assert_eq!(
        fixture
            .wrapper
            .unwrap(&binding, &wrapped)
            .await
            .unwrap()
            .expose(),
        [9; 32]
    );
    for other in [
        Binding {
            id: "j",
            ..binding.clone()
        },
        Binding {
            version: 2,
            ..binding.clone()
        },
        Binding {
            origin: "access-key/secret",
            ..binding.clone()
        },
    ] {
        assert!(fixture.wrapper.unwrap(&other, &wrapped).await.is_err());
    }
    let elsewhere = Fixture::build().await;
    let table = MemoryTable::new(elsewhere.clock.clone());
    let secrets = MemorySecrets::new();
    let another = RootKeyring::establish(
        &table,
        &secrets,
        elsewhere.clock.as_ref(),
        fixture.random.clone(),
    )
    .await;
    assert!(
        another
            .ok()
            .unwrap()
            .unwrap(&binding, &wrapped)
            .await
            .is_err(),
        "another deployment"
    );
}

#[tokio::test]
async fn keyring_lost_or_foreign_stops_the_start() {
    let fixture = Fixture::build().await;
    fixture
        .running()
        .await
        .keys
        .create(&root(), named("k"))
        .await
        .unwrap();
    let establish = |table: Arc<MemoryTable>, secrets: Arc<MemorySecrets>| {
        let (clock, random) = (fixture.clock.clone(), fixture.random.clone());
        async move {
            RootKeyring::establish(table.as_ref(), secrets.as_ref(), clock.as_ref(), random)
                .await
                .err()
        }
    };
    let empty = Arc::new(MemorySecrets::new());
    assert!(matches!(
        establish(fixture.table.clone(), empty).await,
        Some(OpenError::KeyringMissing)
    ));
    let other = Arc::new(MemorySecrets::new());
    let fresh = Arc::new(MemoryTable::new(fixture.clock.clone()));
    assert!(establish(fresh, other.clone()).await.is_none());
    assert!(matches!(
        establish(fixture.table.clone(), other).await,
        Some(OpenError::KeyringForeign)
    ));
    assert!(
        establish(fixture.table.clone(), fixture.secrets.clone())
            .await
            .is_none()
    );
    // The table is marked before the keyring is made, so a blank one is one that was lost.
    let blank = Arc::new(MemoryTable::new(fixture.clock.clone()));
    assert!(matches!(
        establish(blank, fixture.secrets.clone()).await,
        Some(OpenError::TableEmpty)
    ));
}

async fn keep_root(fixture: &Fixture, seen: Option<&SecretVersion>, value: &str) -> SecretVersion {
    let value = SecretBytes::from(value.as_bytes().to_vec());
    let secrets = fixture.secrets.as_ref();
    let kept = secrets.put(ROOT_ACCESS_KEY_SECRET, &value, seen).await;
    kept.unwrap()
}

#[tokio::test]
async fn root_access_key_of_the_secret_store_and_its_replacement_work() {
    let fixture = Fixture::build().await;
    let credentials = credentials_with(
        &fixture,
        RootAccessKey::InSecretStore(fixture.secrets.clone()),
    );
    assert!(
        matches!(
            credentials.find("root-1").await,
            Err(KmsError::Unavailable(_))
        ),
        "it is not known who is root, so nobody unknown can be told off for it"
    );
    let first = r#"{"access_key_id":"root-1","secret_access_key":"the-secret"}"#;
    let version = keep_root(&fixture, None, first).await;
    assert!(
        matches!(
            credentials.find("root-1").await,
            Err(KmsError::Unavailable(_))
        ),
        "a failure is not asked after again at once"
    );
    fixture.clock.advance(Duration::from_secs(1));
    let found = credentials.find("root-1").await.unwrap().unwrap();
    assert_eq!(found.secret.expose(), b"the-secret");
    assert_eq!(found.caller.principal(), "root-1");
    assert!(credentials.find("nobody").await.unwrap().is_none());

    let made = access_keys(&fixture)
        .create_root_if_new()
        .await
        .unwrap()
        .unwrap();
    let in_table = credentials.find(made.id.as_str()).await.unwrap();
    assert!(in_table.is_none(), "there is one root access key only");

    let second = r#"{"access_key_id":"root-2","secret_access_key":"another-secret"}"#;
    keep_root(&fixture, Some(&version), second).await;
    assert!(
        credentials.find("root-1").await.unwrap().is_some(),
        "it is cached"
    );
    fixture.clock.advance(ROOT_ACCESS_KEY_TTL);
    assert!(credentials.find("root-1").await.unwrap().is_none());
    let found = credentials.find("root-2").await.unwrap().unwrap();
    assert_eq!(found.secret.expose(), b"another-secret");
}

#[tokio::test]
async fn root_access_key_malformed_is_refused() {
    for value in [
        "",
        "{}",
        "not JSON",
        r#"{"access_key_id":"root-1"}"#,
        r#"{"access_key_id":"r","secret_access_key":"long-enough"}"#,
        r#"{"access_key_id":"root-1","secret_access_key":"short"}"#,
        r#"{"access_key_id":"root 1","secret_access_key":"long-enough"}"#,
    ] {
        let fixture = Fixture::build().await;
        keep_root(&fixture, None, value).await;
        let credentials = credentials_with(
            &fixture,
            RootAccessKey::InSecretStore(fixture.secrets.clone()),
        );
        let Err(KmsError::Unavailable(fault)) = credentials.find("root-1").await else {
            panic!("{value}");
        };
        assert!(!format!("{fault:?}").contains("long-enough"));
        let key = access_keys(&fixture)
            .create(Policy::canned("kms-admin").unwrap(), None)
            .await;
        let known = credentials.find(key.unwrap().id.as_str()).await;
        assert!(known.unwrap().is_some(), "others are served all the same");
    }
}
