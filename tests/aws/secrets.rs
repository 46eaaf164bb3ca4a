//! The SecretStore port on Secrets Manager: the contract, stages, and a keyring that is made once.

use std::sync::Arc;

use keyway_crypto::SecretBytes;
use keyway_deployment_assembly::{SystemClock, SystemRandom};
use keyway_domain::keyring::{Binding, KEYRING_SECRET, KeyWrapper, KeyringOnDemand};
use keyway_domain::ports::{Clock, Random, SecretStore, StoreError};
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;
use keyway_testkit::secret_store_contract;
use keyway_tests::{Aws, Fate, Proxy};
use tokio::task::JoinSet;

fn secret(text: &str) -> SecretBytes {
    SecretBytes::from(text.as_bytes().to_vec())
}

async fn held(store: &dyn SecretStore) -> String {
    let (value, _) = store.get("s").await.unwrap().unwrap();
    String::from_utf8(value.expose().to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_store_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    secret_store_contract::run_all(
        async || Arc::new(SecretsManager::new(&aws.config())) as _,
        &SystemRandom::default(),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_store_under_faults_keeps_the_contract() {
    let Some(aws) = Aws::here() else { return };
    let proxy = Proxy::before(&aws.endpoint).await;
    // The contract tolerates no failure, so there are no more faults than the SDK's retries can absorb.
    proxy.judge(|number, _| match number % 41 {
        2 => Fate::LoseAnswer,
        5 => Fate::Throttle,
        8 => Fate::LoseRequest,
        _ => Fate::Pass,
    });
    secret_store_contract::run_all(
        async || Arc::new(SecretsManager::new(&aws.config_at(&proxy.endpoint))) as _,
        &SystemRandom::default(),
    )
    .await;
}

/// The template makes the keyring's secret without a value.
#[tokio::test(flavor = "multi_thread")]
async fn secret_without_a_value_is_none_and_takes_its_first() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.secret(None).await;
    let store = SecretsManager::new(&aws.config()).with("s", &name);
    assert!(store.get("s").await.unwrap().is_none());
    store.put("s", &secret("first"), None).await.unwrap();
    assert_eq!(held(&store).await, "first");
    let again = store.put("s", &secret("second"), None).await;
    assert!(matches!(again, Err(StoreError::Conflict)));
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_version_is_current_and_the_one_before_is_previous() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.secret(None).await;
    let store = SecretsManager::new(&aws.config()).with("s", &name);
    let one = store.put("s", &secret("one"), None).await.unwrap();
    let two = store.put("s", &secret("two"), Some(&one)).await.unwrap();
    let client = aws_sdk_secretsmanager::Client::new(&aws.config());
    for (stage, version, text) in [("AWSCURRENT", &two, "two"), ("AWSPREVIOUS", &one, "one")] {
        let found = client
            .get_secret_value()
            .secret_id(&name)
            .version_stage(stage)
            .send()
            .await;
        let found = found.unwrap();
        assert_eq!(found.version_id(), Some(version.0.as_str()), "{stage}");
        assert_eq!(found.secret_binary().unwrap().as_ref(), text.as_bytes());
    }
    if aws.backend == "moto" {
        return; // It cannot move AWSCURRENT to another version.
    }
    // An operator reverts to version one.
    let moved = client
        .update_secret_version_stage()
        .secret_id(&name)
        .version_stage("AWSCURRENT")
        .move_to_version_id(&one.0)
        .remove_from_version_id(&two.0)
        .send()
        .await;
    moved.unwrap();
    assert_eq!(held(&store).await, "one");
    assert!(matches!(
        store.put("s", &secret("x"), Some(&two)).await,
        Err(StoreError::Conflict)
    ));
    store.put("s", &secret("three"), Some(&one)).await.unwrap();
    assert_eq!(held(&store).await, "three");
}

/// The process ends after it has made the pending version.
#[tokio::test(flavor = "multi_thread")]
async fn write_cut_off_before_its_version_is_current_is_completed_by_the_next() {
    let Some(aws) = Aws::here() else { return };
    let name = aws.secret(None).await;
    let store = SecretsManager::new(&aws.config()).with("s", &name);
    let one = store.put("s", &secret("one"), None).await.unwrap();
    let proxy = Proxy::before(&aws.endpoint).await;
    proxy.judge(
        |_, operation| match operation.ends_with("UpdateSecretVersionStage") {
            true => Fate::LoseRequest,
            false => Fate::Pass,
        },
    );
    let mortal = SecretsManager::new(&aws.config_at(&proxy.endpoint)).with("s", &name);
    let cut_off = mortal.put("s", &secret("two"), Some(&one)).await;
    assert!(matches!(
        cut_off,
        Err(StoreError::Failed { .. } | StoreError::Away(_))
    ));
    assert_eq!(held(&store).await, "one", "readers get no pending version");
    match store.put("s", &secret("three"), Some(&one)).await {
        // The pending version is completed.
        Err(StoreError::Conflict) => assert_eq!(held(&store).await, "two"),
        // Unlike AWS, stand-ins replace a pending version.
        next => assert!(next.is_ok(), "{next:?}"),
    }
    let (_, seen) = store.get("s").await.unwrap().unwrap();
    store.put("s", &secret("four"), Some(&seen)).await.unwrap();
    assert_eq!(held(&store).await, "four");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_keyring_is_made_exactly_once() {
    let Some(aws) = Aws::here() else { return };
    for round in 0..4 {
        let name = aws.table().await;
        let kept = aws.secret(None).await;
        let mut users = JoinSet::new();
        for _ in 0..8 {
            let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
            let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
            let table = Arc::new(DynamoTable::new(
                &aws.config(),
                name.as_str(),
                clock.clone(),
            ));
            let secrets = Arc::new(SecretsManager::new(&aws.config()).with(KEYRING_SECRET, &kept));
            users.spawn(async move {
                let user = KeyringOnDemand::establishing(table, secrets, clock, random);
                let binding = Binding {
                    id: "k",
                    version: 1,
                    origin: "test",
                };
                let wrapped = user.wrap(&binding, b"secret").await.unwrap();
                (user, wrapped)
            });
        }
        let users = users.join_all().await;
        for (user, _) in &users {
            for (_, wrapped) in &users {
                let binding = Binding {
                    id: "k",
                    version: 1,
                    origin: "test",
                };
                let unwrapped = user.unwrap(&binding, wrapped).await.unwrap();
                assert_eq!(unwrapped.expose(), b"secret", "round {round}");
            }
        }
        let client = aws_sdk_secretsmanager::Client::new(&aws.config());
        let versions = client
            .list_secret_version_ids()
            .secret_id(&kept)
            .include_deprecated(true);
        let versions = versions.send().await.unwrap();
        assert_eq!(versions.versions().len(), 1);
    }
}
