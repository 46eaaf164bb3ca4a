//! A keyring that is opened when it is needed: it fails closed, says so, and recovers.

mod house;

use std::sync::Arc;
use std::time::Duration;

use house::House;
use keyway_domain::keyring::{Binding, KEYRING_SECRET, KeyWrapper, KeyringOnDemand, WrapError};
use keyway_domain::ports::{Consistency, Kind, SecretStore, TableReader, TableWriter};
use keyway_testkit::{MemorySecrets, MemoryTable};

const BINDING: Binding<'_> = Binding {
    id: "k",
    version: 1,
    origin: "test",
};

struct Empty {
    house: House,
    table: Arc<MemoryTable>,
    secrets: Arc<MemorySecrets>,
}

impl Empty {
    async fn build() -> Self {
        let house = House::build().await;
        Self {
            table: Arc::new(MemoryTable::new(house.clock.clone())),
            secrets: Arc::new(MemorySecrets::new()),
            house,
        }
    }

    fn opening(&self) -> KeyringOnDemand {
        let (clock, random) = (self.house.clock.clone(), self.house.random.clone());
        KeyringOnDemand::opening(self.table.clone(), self.secrets.clone(), clock, random)
    }

    fn establishing(&self) -> KeyringOnDemand {
        let (clock, random) = (self.house.clock.clone(), self.house.random.clone());
        KeyringOnDemand::establishing(self.table.clone(), self.secrets.clone(), clock, random)
    }
}

fn unavailable<T>(result: &Result<T, WrapError>) -> bool {
    matches!(result, Err(WrapError::Unavailable(_)))
}

#[tokio::test]
async fn who_only_reads_waits_for_a_deployment_and_never_makes_one() {
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
    empty.house.clock.advance(Duration::from_secs(1));
    let unwrapped = reader.unwrap(&BINDING, &wrapped).await.unwrap();
    assert_eq!(unwrapped.expose(), b"secret");
}

#[tokio::test]
async fn all_first_users_at_once_hold_the_same_keyring() {
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
async fn a_keyring_that_is_missing_damaged_or_foreign_is_refused_and_never_replaced() {
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
            other.house.random.fill(&mut [0; 5]).unwrap();
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

/// What every start waits for is no more than it needs.
#[tokio::test]
async fn who_only_unwraps_does_not_ask_the_table() {
    let empty = Empty::build().await;
    let wrapped = empty.establishing().wrap(&BINDING, b"secret").await;
    let wrapped = wrapped.unwrap();
    let nothing = Arc::new(MemoryTable::new(empty.house.clock.clone()));
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

    // A first start that was cut off before the table knew of the keyring is completed before anything is wrapped.
    let writer = elsewhere.establishing();
    writer.unwrap(&BINDING, &wrapped).await.unwrap();
    let marked = || nothing.get(Kind::Config, "deployment", Consistency::Strong);
    assert!(marked().await.unwrap().is_none());
    writer.wrap(&BINDING, b"secret").await.unwrap();
    assert!(marked().await.unwrap().is_some());
    let refused = writer.unwrap(&other, &wrapped).await;
    assert!(matches!(refused, Err(WrapError::NotAuthentic)));
}
