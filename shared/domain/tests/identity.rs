//! Identities and policies of paths over memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

use std::sync::Arc;
use std::time::Duration;

use keyway_domain::KmsError;
use keyway_domain::access::{Caller, Grant};
use keyway_domain::identity::{
    Identities, Identity, IdentityControl, MAX_RULES, NameQuery, PathRules, PolicyName, Rules,
    Written,
};
use keyway_domain::keys::KeyId;
use keyway_domain::policy::Action;
use keyway_testkit::{FixedClock, MemoryTable, SeededRandom};

const TTL: Duration = Duration::from_secs(5);

struct Fixture {
    clock: Arc<FixedClock>,
    table: Arc<MemoryTable>,
    random: Arc<SeededRandom>,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(FixedClock::new("2026-01-02T03:04:05Z".parse().unwrap()));
        Self {
            table: Arc::new(MemoryTable::new(clock.clone())),
            clock,
            random: Arc::new(SeededRandom::new(3)),
        }
    }

    /// What one process has.
    fn process(&self) -> (Arc<Identities>, IdentityControl) {
        let identities = Arc::new(Identities::new(
            self.table.clone(),
            self.clock.clone(),
            TTL,
            Some(identity("admin")),
        ));
        let control =
            IdentityControl::new(self.table.clone(), identities.clone(), self.random.clone());
        (identities, control)
    }
}

fn identity(text: &str) -> Identity {
    Identity::parse(text).unwrap()
}

fn name(text: &str) -> PolicyName {
    PolicyName::parse(text).unwrap()
}

fn rules(allow: &[&str], deny: &[&str]) -> Rules {
    let owned = |patterns: &[&str]| patterns.iter().map(|&p| p.to_owned()).collect::<Vec<_>>();
    Rules::parse(owned(allow), owned(deny)).unwrap()
}

async fn may(identities: &Identities, who: &str, path: &str) -> bool {
    let caller = identities.caller(&identity(who)).await.unwrap();
    caller.may_call(path).is_ok()
}

#[tokio::test]
async fn policy_change_holds_here_at_once_and_elsewhere_within_the_ttl() {
    let place = Fixture::new();
    let (here, control) = place.process();
    let (elsewhere, _) = place.process();
    let admin = here.caller(&identity("admin")).await.unwrap();
    let path = "/v1/key/create/a";
    assert!(!may(&here, "app", path).await);
    let written = control
        .write(&admin, &name("p"), &rules(&["/v1/key/create/*"], &[]))
        .await;
    assert_eq!(written.unwrap(), Written::Created);
    let app = identity("app");
    assert_eq!(
        control.assign(&admin, &name("p"), &app).await.unwrap(),
        Written::Created
    );
    assert_eq!(
        control.assign(&admin, &name("p"), &app).await.unwrap(),
        Written::Unchanged
    );
    assert!(may(&here, "app", path).await && may(&elsewhere, "app", path).await);

    let narrower = rules(&["/v1/key/create/*"], &["/v1/key/create/a"]);
    assert_eq!(
        control.write(&admin, &name("p"), &narrower).await.unwrap(),
        Written::Replaced
    );
    assert_eq!(
        control.write(&admin, &name("p"), &narrower).await.unwrap(),
        Written::Unchanged
    );
    assert!(!may(&here, "app", path).await);
    assert!(
        may(&elsewhere, "app", path).await,
        "a cached policy is obeyed"
    );
    place.clock.advance(TTL);
    assert!(
        !may(&elsewhere, "app", path).await,
        "and no longer than that"
    );
    assert!(may(&elsewhere, "app", "/v1/key/create/b").await);

    control.forget(&admin, &app).await.unwrap();
    assert!(!may(&here, "app", "/v1/key/create/b").await);
    assert!(matches!(
        control.forget(&admin, &app).await,
        Err(KmsError::IdentityNotFound(_))
    ));
}

#[tokio::test]
async fn identity_of_a_deleted_policy_does_not_get_a_later_one_of_its_name() {
    let place = Fixture::new();
    let (here, control) = place.process();
    let admin = here.caller(&identity("admin")).await.unwrap();
    let everything = rules(&["*"], &[]);
    control
        .write(&admin, &name("p"), &everything)
        .await
        .unwrap();
    for n in 0..5 {
        control
            .assign(&admin, &name("p"), &identity(&format!("app{n}")))
            .await
            .unwrap();
    }
    control.delete(&admin, &name("p")).await.unwrap();
    assert!(!may(&here, "app1", "/v1/status").await);
    control
        .write(&admin, &name("p"), &everything)
        .await
        .unwrap();
    place.clock.advance(TTL);
    assert!(!may(&here, "app1", "/v1/status").await);
    let listed = here
        .list(
            &admin,
            NameQuery {
                limit: 10,
                ..NameQuery::default()
            },
        )
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1, "the admin is left");
    assert!(matches!(
        control.delete(&admin, &name("q")).await,
        Err(KmsError::PolicyNotFound(_))
    ));
}

#[tokio::test]
async fn assignment_to_oneself_or_the_admin_is_refused() {
    let place = Fixture::new();
    let (here, control) = place.process();
    let admin = here.caller(&identity("admin")).await.unwrap();
    control
        .write(&admin, &name("p"), &rules(&["/v1/policy/assign/*"], &[]))
        .await
        .unwrap();
    control
        .assign(&admin, &name("p"), &identity("app"))
        .await
        .unwrap();
    let app = || async {
        let app = here.caller(&identity("app")).await.unwrap();
        app.for_call(Action::ManageAccess, "/v1/policy/assign/p")
            .unwrap()
    };
    let refused = control
        .assign(&app().await, &name("p"), &identity("app"))
        .await;
    assert!(matches!(refused, Err(KmsError::IdentityIsCaller)));
    let refused = control
        .assign(&app().await, &name("p"), &identity("admin"))
        .await;
    assert!(matches!(refused, Err(KmsError::IdentityIsAdmin)));
    let refused = control.assign(&admin, &name("p"), &identity("admin")).await;
    assert!(matches!(refused, Err(KmsError::IdentityIsAdmin)));
    let refused = control.forget(&admin, &identity("admin")).await;
    assert!(matches!(refused, Err(KmsError::IdentityIsAdmin)));
    // The end of the path is the subject.
    let refused = control
        .assign(&app().await, &name("q"), &identity("other"))
        .await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
    control
        .assign(&app().await, &name("p"), &identity("other"))
        .await
        .unwrap();
}

#[tokio::test]
async fn admin_is_in_its_place_on_every_page() {
    let place = Fixture::new();
    let (here, control) = place.process();
    let admin = here.caller(&identity("admin")).await.unwrap();
    control
        .write(&admin, &name("p"), &rules(&["*"], &[]))
        .await
        .unwrap();
    for other in ["a0", "a1", "b0", "b1", "zz"] {
        control
            .assign(&admin, &name("p"), &identity(other))
            .await
            .unwrap();
    }
    for limit in 1..8 {
        let (mut seen, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        loop {
            let query = NameQuery {
                after: after.as_deref(),
                limit,
                ..NameQuery::default()
            };
            let page = here.list(&admin, query).await.unwrap();
            assert!(page.items.len() <= limit);
            seen.extend(page.items.iter().map(|known| known.identity.to_string()));
            after = seen.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, ["a0", "a1", "admin", "b0", "b1", "zz"], "{limit}");
    }
    let query = NameQuery {
        prefix: "b",
        limit: 9,
        ..NameQuery::default()
    };
    assert_eq!(here.list(&admin, query).await.unwrap().items.len(), 2);
}

#[test]
fn path_permission_covers_what_its_path_names_only() {
    let policy = || {
        Arc::new(PathRules::compile(rules(
            &["/v1/key/*"],
            &["/v1/key/delete/*"],
        )))
    };
    let caller = || Caller::new("app", Arc::new(Grant::Paths(policy())));
    let key = |id: &str| KeyId::parse("key_id", id).unwrap();
    assert!(
        caller().may_ever(Action::Decrypt).is_err(),
        "before a path was judged"
    );
    assert!(
        caller()
            .for_call(Action::DeleteKey, "/v1/key/delete/a")
            .is_err()
    );
    let call = caller()
        .for_call(Action::Decrypt, "/v1/key/decrypt/my-a")
        .unwrap();
    assert!(
        call.may(Action::Decrypt, &key("my-a")).is_ok() && call.may_ever(Action::Decrypt).is_ok()
    );
    for (action, id) in [
        (Action::Decrypt, "a"),
        (Action::Decrypt, "decrypt"),
        (Action::Decrypt, "my-b"),
        (Action::Encrypt, "my-a"),
        (Action::DeleteKey, "my-a"),
    ] {
        assert!(call.may(action, &key(id)).is_err(), "{action:?} {id}");
    }
    assert!(
        call.may_call("/v1/key/decrypt/my-a").is_err(),
        "a call is not a policy"
    );
    let list = caller()
        .for_call(Action::ListKeys, "/v1/key/list/my-*")
        .unwrap();
    assert!(list.may(Action::ListKeys, &key("my-a")).is_ok());
    let owner = Caller::new("admin", Arc::new(Grant::Owner));
    let owner = owner
        .for_call(Action::Decrypt, "/v1/key/decrypt/a")
        .unwrap();
    assert!(owner.may(Action::DeleteKey, &key("b")).is_ok());
}

#[test]
fn policy_out_of_bounds_is_refused() {
    let many = |count: usize| (0..count).map(|n| format!("/v1/key/create/{n}"));
    assert!(Rules::parse(many(MAX_RULES), []).is_ok());
    assert!(Rules::parse(many(MAX_RULES), ["/x".to_owned()]).is_err());
    assert!(Rules::parse(["/".repeat(513)], []).is_err());
    assert!(Rules::parse(["/a\n".to_owned()], []).is_err());
    assert!(Rules::parse((0..300).map(|n| format!("{n:0>512}")), []).is_err());
}
