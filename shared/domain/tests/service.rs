//! The service's configuration and state, and their effect in every process.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::sync::Arc;
use std::time::Duration;

use fixture::{Fixture, Process, STATE_TTL, id, named, root, with_policy};
use keyway_crypto::EncryptionContext;
use keyway_domain::control::Started;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keys::KeyId;
use keyway_domain::ports::{Consistency, Kind, Record, Revision, TableReader, TableWriter};
use keyway_domain::service::{
    BackendType, Change, ConfigChanges, Degraded, NewAuth, ServiceState, WatchedTable, WriteFailure,
};
use keyway_domain::vault::{VaultAddress, VaultPath};
use keyway_domain::{CacheStats, KmsError, SecretBytes};

const TOKEN: &str = "hvs.canary-token";

fn local() -> ConfigChanges {
    ConfigChanges {
        backend_type: Some(BackendType::Local),
        ..ConfigChanges::default()
    }
}

fn vault() -> ConfigChanges {
    ConfigChanges {
        backend_type: Some(BackendType::Vault),
        address: Change::Set(VaultAddress::parse("address", "https://vault.example:8200").unwrap()),
        auth: Some(NewAuth::Token(Some(SecretBytes::from(
            TOKEN.as_bytes().to_vec(),
        )))),
        ..ConfigChanges::default()
    }
}

async fn generate(process: &Process, key: &KeyId) -> Result<Vec<u8>, KmsError> {
    let context = EncryptionContext::default();
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(key.clone(), &context),
            DataKeySpec::Aes256,
        )
        .await?;
    Ok(made.1.blob)
}

async fn decrypt(process: &Process, blob: &[u8]) -> Result<(), KmsError> {
    let context = EncryptionContext::default();
    let caller = root();
    let request = DataKeyRequest::of_ciphertext(None, &context);
    let opened = process.data_keys.decrypt(&caller, &request, blob);
    opened.await.map(drop)
}

async fn stats(process: &Process) -> CacheStats {
    let status = process.control.status(&root(), "r").await.unwrap();
    status.configured.unwrap().cache
}

#[tokio::test]
async fn service_is_configured_started_stopped_and_restarted() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    let control = &process.control;
    assert!(matches!(
        control.start(&root(), false).await,
        Err(KmsError::NotConfigured)
    ));
    assert!(!control.stop(&root()).await.unwrap());
    assert!(
        control
            .status(&root(), "r")
            .await
            .unwrap()
            .configured
            .is_none()
    );

    let config = control.configure(&root(), &local(), false).await.unwrap();
    assert_eq!(config.state, ServiceState::Configured);
    assert!(matches!(
        process.keys.create(&root(), named("k")).await,
        Err(KmsError::NotRunning)
    ));
    assert_eq!(
        control.start(&root(), false).await.unwrap(),
        Started::Started
    );
    process.keys.create(&root(), named("k")).await.unwrap();
    assert!(matches!(
        control.start(&root(), false).await,
        Err(KmsError::Conflict(_))
    ));
    assert_eq!(
        control.start(&root(), true).await.unwrap(),
        Started::Restarted
    );
    let again = control.configure(&root(), &local(), false).await;
    assert!(matches!(
        again,
        Err(KmsError::Conflict("KMS already running"))
    ));

    assert!(control.stop(&root()).await.unwrap());
    assert!(control.stop(&root()).await.unwrap());
    for refused in [
        generate(&process, &id("k")).await.map(drop),
        process.keys.describe(&root(), &id("k")).await.map(drop),
    ] {
        assert!(matches!(refused, Err(KmsError::NotRunning)));
    }
    control.start(&root(), false).await.unwrap();
    generate(&process, &id("k")).await.unwrap();
}

#[tokio::test]
async fn reconfigure_changes_named_fields_and_null_clears() {
    let fixture = Fixture::build().await;
    let control = &fixture.running().await.control;
    let changes = ConfigChanges {
        default_key_id: Change::Set(id("app")),
        cache_ttl_seconds: Change::Set(60),
        timeout_seconds: Change::Set(7),
        ..ConfigChanges::default()
    };
    control.reconfigure(&root(), &changes).await.unwrap();
    let changes = ConfigChanges {
        max_cached_keys: Change::Set(5),
        cache_ttl_seconds: Change::Clear,
        ..ConfigChanges::default()
    };
    let config = control.reconfigure(&root(), &changes).await.unwrap();
    assert_eq!(config.default_key_id, Some(id("app")));
    assert_eq!((config.cache.ttl_seconds, config.cache.max_keys), (600, 5));
    assert_eq!(config.timeout_seconds, 7);
    let changes = ConfigChanges {
        default_key_id: Change::Clear,
        ..ConfigChanges::default()
    };
    let config = control.reconfigure(&root(), &changes).await.unwrap();
    assert_eq!(config.default_key_id, None);
    assert_eq!(control.config(&root()).await.unwrap(), *config);
}

#[tokio::test]
async fn number_out_of_range_is_refused_and_changes_nothing() {
    let fixture = Fixture::build().await;
    let control = &fixture.running().await.control;
    let before = control.config(&root()).await.unwrap();
    let set = |value| Change::Set(value);
    for (field, changes) in [
        (
            "cache_ttl_seconds",
            ConfigChanges {
                cache_ttl_seconds: set(0),
                ..local()
            },
        ),
        (
            "cache_ttl_seconds",
            ConfigChanges {
                cache_ttl_seconds: set(86_401),
                ..local()
            },
        ),
        (
            "max_cached_keys",
            ConfigChanges {
                max_cached_keys: set(u64::MAX),
                ..local()
            },
        ),
        (
            "timeout_seconds",
            ConfigChanges {
                timeout_seconds: set(0),
                ..local()
            },
        ),
        (
            "timeout_seconds",
            ConfigChanges {
                timeout_seconds: set(301),
                ..local()
            },
        ),
        (
            "retry_attempts",
            ConfigChanges {
                retry_attempts: set(11),
                ..local()
            },
        ),
    ] {
        match control.reconfigure(&root(), &changes).await {
            Err(KmsError::Invalid { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(control.config(&root()).await.unwrap(), before);
}

#[tokio::test]
async fn stop_holds_in_every_process_within_the_ttl_and_drops_keys() {
    let fixture = Fixture::build().await;
    let (one, other) = (fixture.running().await, fixture.process(false));
    one.keys.create(&root(), named("k")).await.unwrap();
    let blob = generate(&other, &id("k")).await.unwrap();
    assert_eq!(other.reader.stats().entries, 1);

    one.control.stop(&root()).await.unwrap();
    assert!(matches!(
        decrypt(&one, &blob).await,
        Err(KmsError::NotRunning)
    ));
    fixture.clock.advance(STATE_TTL);
    assert!(matches!(
        decrypt(&other, &blob).await,
        Err(KmsError::NotRunning)
    ));

    one.control.start(&root(), false).await.unwrap();
    fixture.clock.advance(STATE_TTL);
    let misses = other.reader.stats().misses;
    decrypt(&other, &blob).await.unwrap();
    assert_eq!(other.reader.stats().misses, misses + 1, "unwrapped anew");
}

#[tokio::test]
async fn cleared_cache_is_cleared_in_every_process() {
    let fixture = Fixture::build().await;
    let (one, other) = (fixture.running().await, fixture.process(false));
    one.keys.create(&root(), named("k")).await.unwrap();
    for process in [&one, &other] {
        generate(process, &id("k")).await.unwrap();
        generate(process, &id("k")).await.unwrap();
        let CacheStats {
            hits,
            misses,
            entries,
            ..
        } = stats(process).await;
        assert_eq!((hits, misses, entries), (1, 1, 1));
    }
    one.control.clear_cache(&root()).await.unwrap();
    assert_eq!(stats(&one).await.entries, 0);
    fixture.clock.advance(STATE_TTL);
    generate(&other, &id("k")).await.unwrap();
    assert_eq!(stats(&other).await.misses, 2);
}

#[tokio::test]
async fn cache_keeps_to_its_configured_age_and_size_and_can_be_off() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["a", "b", "c"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let configure = async |changes: ConfigChanges| {
        process
            .control
            .reconfigure(&root(), &changes)
            .await
            .unwrap();
    };
    configure(ConfigChanges {
        max_cached_keys: Change::Set(2),
        cache_ttl_seconds: Change::Set(30),
        ..local()
    })
    .await;
    for name in ["a", "b", "c"] {
        generate(&process, &id(name)).await.unwrap();
    }
    let full = stats(&process).await;
    assert_eq!((full.entries, full.evictions), (2, 1));
    fixture.clock.advance(Duration::from_secs(29));
    generate(&process, &id("c")).await.unwrap();
    assert_eq!(stats(&process).await.hits, 1);
    fixture.clock.advance(Duration::from_secs(1));
    generate(&process, &id("c")).await.unwrap();
    assert_eq!(stats(&process).await.hits, 1);

    configure(ConfigChanges {
        enable_cache: Change::Set(false),
        ..local()
    })
    .await;
    generate(&process, &id("a")).await.unwrap();
    generate(&process, &id("a")).await.unwrap();
    let off = stats(&process).await;
    assert_eq!((off.hits, off.entries), (1, 0));
}

#[tokio::test]
async fn changes_of_many_writers_are_all_kept() {
    let fixture = Arc::new(Fixture::build().await);
    fixture.running().await;
    let change = |changes: ConfigChanges| {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            let process = fixture.process(false);
            process
                .control
                .reconfigure(&root(), &changes)
                .await
                .unwrap();
        })
    };
    let all = [
        ConfigChanges {
            timeout_seconds: Change::Set(11),
            ..ConfigChanges::default()
        },
        ConfigChanges {
            retry_attempts: Change::Set(2),
            ..ConfigChanges::default()
        },
        ConfigChanges {
            cache_ttl_seconds: Change::Set(33),
            ..ConfigChanges::default()
        },
        ConfigChanges {
            default_key_id: Change::Set(id("d")),
            ..ConfigChanges::default()
        },
    ]
    .map(change);
    for one in all {
        one.await.unwrap();
    }
    let config = fixture
        .process(false)
        .control
        .config(&root())
        .await
        .unwrap();
    assert_eq!((config.timeout_seconds, config.retry_attempts), (11, 2));
    assert_eq!(
        (config.cache.ttl_seconds, config.default_key_id),
        (33, Some(id("d")))
    );
}

#[tokio::test]
async fn permission_on_keys_is_none_on_the_service() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let limited = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/app-*"}}"#,
    );
    let all = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:*"}}"#);
    let control = &process.control;
    for refused in [
        control.configure(&limited, &local(), false).await.map(drop),
        control.reconfigure(&limited, &local()).await.map(drop),
        control.start(&limited, true).await.map(drop),
        control.stop(&limited).await.map(drop),
        control.clear_cache(&limited).await,
        control.config(&limited).await.map(drop),
        control.status(&limited, "r").await.map(drop),
    ] {
        assert!(matches!(refused, Err(KmsError::NotPermitted)));
    }
    control.reconfigure(&all, &local()).await.unwrap();
}

#[tokio::test]
async fn keys_are_wrapped_by_the_configured_vault_and_copied_into_it() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    let config = process
        .control
        .configure(&root(), &vault(), true)
        .await
        .unwrap();
    let settings = &config.vault.as_ref().unwrap().settings;
    assert_eq!(
        settings.mount_path,
        VaultPath::parse("m", "transit").unwrap()
    );
    assert_eq!(settings.kv_mount, VaultPath::parse("m", "secret").unwrap());
    assert_eq!(
        settings.key_path_prefix,
        VaultPath::parse("m", "rustfs/kms/keys").unwrap()
    );
    assert!(
        fixture
            .vaults
            .opened()
            .iter()
            .all(|opened| opened.credential.as_deref() == Some(TOKEN.as_bytes()))
    );

    process.keys.create(&root(), named("k")).await.unwrap();
    let blob = generate(&process, &id("k")).await.unwrap();
    process.keys.rotate(&root(), &id("k")).await.unwrap();
    process.keys.disable(&root(), &id("k")).await.unwrap();
    process.keys.enable(&root(), &id("k")).await.unwrap();
    decrypt(&process, &blob).await.unwrap();
    let record = fixture
        .table
        .get(Kind::Key, "k", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    let copy = keyway_domain::vault::Vault::copy(fixture.vault.as_ref(), "k")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(copy.value, record.value);

    // The table does not show the token.
    let record = fixture
        .table
        .get(Kind::Config, "service", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    let text = String::from_utf8(record.value).unwrap();
    assert!(!text.contains("canary") && text.contains("vault.example"));
}

#[tokio::test]
async fn cached_keys_serve_while_the_vault_is_down_until_they_expire() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    let changes = ConfigChanges {
        cache_ttl_seconds: Change::Set(60),
        ..vault()
    };
    process
        .control
        .configure(&root(), &changes, true)
        .await
        .unwrap();
    process.keys.create(&root(), named("k")).await.unwrap();
    let blob = generate(&process, &id("k")).await.unwrap();
    for switch in [
        keyway_testkit::MemoryVault::set_down,
        keyway_testkit::MemoryVault::set_refusing,
    ] {
        decrypt(&process, &blob).await.unwrap();
        switch(&fixture.vault, true);
        fixture.clock.advance(Duration::from_secs(30));
        decrypt(&process, &blob).await.unwrap();
        let status = process.control.status(&root(), "r").await.unwrap();
        assert!(!status.configured.unwrap().is_healthy());
        fixture.clock.advance(Duration::from_secs(30));
        assert!(matches!(
            decrypt(&process, &blob).await,
            Err(KmsError::Unavailable(_))
        ));
        let made = process.keys.create(&root(), named("other")).await;
        assert!(matches!(made, Err(KmsError::Unavailable(_))));
        assert!(
            fixture
                .table
                .get(Kind::Key, "other", Consistency::Strong)
                .await
                .unwrap()
                .is_none()
        );
        switch(&fixture.vault, false);
        decrypt(&process, &blob).await.unwrap();
        assert!(
            process
                .control
                .status(&root(), "r")
                .await
                .unwrap()
                .configured
                .unwrap()
                .is_healthy()
        );
        fixture.clock.advance(Duration::from_secs(60));
    }
}

#[tokio::test]
async fn backend_that_fails_its_check_is_not_stored() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let before = process.control.config(&root()).await.unwrap();
    fixture.vault.set_down(true);
    let refused = process.control.reconfigure(&root(), &vault()).await;
    assert!(matches!(refused, Err(KmsError::Unavailable(_))));
    assert_eq!(process.control.config(&root()).await.unwrap(), before);
    generate(&process, &id("k")).await.unwrap();
}

#[tokio::test]
async fn blank_token_keeps_the_stored_one_or_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let blank = ConfigChanges {
        auth: Some(NewAuth::Token(None)),
        ..vault()
    };
    match process.control.reconfigure(&root(), &blank).await {
        Err(KmsError::Invalid { field, .. }) => assert_eq!(field, "auth_method"),
        other => panic!("{other:?}"),
    }
    process
        .control
        .reconfigure(&root(), &vault())
        .await
        .unwrap();
    process.control.reconfigure(&root(), &blank).await.unwrap();
    let moved = |auth| ConfigChanges {
        namespace: Change::Set(VaultPath::parse("namespace", "team/a").unwrap()),
        auth,
        ..ConfigChanges::default()
    };
    // A stored credential is not used for another address.
    for auth in [None, Some(NewAuth::Token(None))] {
        match process.control.reconfigure(&root(), &moved(auth)).await {
            Err(KmsError::Invalid { field, .. }) => assert_eq!(field, "auth_method"),
            other => panic!("{other:?}"),
        }
    }
    let given = moved(vault().auth);
    let config = process.control.reconfigure(&root(), &given).await.unwrap();
    let vault = config.vault.as_ref().unwrap();
    assert!(vault.has_credential());
    assert_eq!(
        vault.settings.namespace.as_ref().unwrap().as_str(),
        "team/a"
    );
    let last = fixture.vaults.opened().pop().unwrap();
    assert_eq!(last.credential.as_deref(), Some(TOKEN.as_bytes()));
}

#[tokio::test]
async fn vault_that_still_wraps_keys_cannot_be_dropped() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process
        .keys
        .create(&root(), named("of-root"))
        .await
        .unwrap();
    let of_root = generate(&process, &id("of-root")).await.unwrap();
    process
        .control
        .reconfigure(&root(), &vault())
        .await
        .unwrap();
    process
        .keys
        .create(&root(), named("of-vault"))
        .await
        .unwrap();
    let of_vault = generate(&process, &id("of-vault")).await.unwrap();
    decrypt(&process, &of_root).await.unwrap();

    process
        .control
        .reconfigure(&root(), &local())
        .await
        .unwrap();
    decrypt(&process, &of_vault).await.unwrap();
    let dropped = ConfigChanges {
        address: Change::Clear,
        ..ConfigChanges::default()
    };
    let refused = process.control.reconfigure(&root(), &dropped).await;
    assert!(matches!(refused, Err(KmsError::Conflict(_))), "{refused:?}");
    decrypt(&process, &of_vault).await.unwrap();
}

#[tokio::test]
async fn transit_key_recreated_in_the_vault_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    process
        .control
        .configure(&root(), &vault(), true)
        .await
        .unwrap();
    process.keys.create(&root(), named("k")).await.unwrap();
    fixture.vault.lose_transit_key();
    let again = process.control.reconfigure(&root(), &vault()).await;
    assert!(matches!(again, Err(KmsError::Unavailable(_))), "{again:?}");
    // Another operator makes a key of the same name.
    keyway_domain::vault::Vault::check(
        fixture.vault.as_ref(),
        keyway_domain::vault::TransitKey::MadeIfMissing,
    )
    .await
    .unwrap();
    let again = process.control.reconfigure(&root(), &vault()).await;
    assert!(matches!(again, Err(KmsError::Conflict(_))), "{again:?}");
}

#[tokio::test]
async fn copy_unknown_to_the_table_is_not_overwritten() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    process
        .control
        .configure(&root(), &vault(), true)
        .await
        .unwrap();
    process.keys.create(&root(), named("k")).await.unwrap();
    let record = fixture
        .table
        .get(Kind::Key, "k", Consistency::Strong)
        .await
        .unwrap()
        .unwrap();
    fixture
        .table
        .remove(Kind::Key, "k", record.revision)
        .await
        .unwrap();
    assert!(matches!(
        process.keys.create(&root(), named("k")).await,
        Err(KmsError::KeyExists(_))
    ));
    let copy = keyway_domain::vault::Vault::copy(fixture.vault.as_ref(), "k")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(copy.value, record.value);
}

#[tokio::test]
async fn failed_write_of_the_table_is_a_reason_until_one_succeeds() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let watched = Arc::new(WatchedTable::new(
        fixture.table.clone(),
        WriteFailure::default(),
    ));
    process.service.check_also(watched.clone());
    // The same reason of two parts is listed once.
    process.service.check_also(watched.clone());
    let degraded = async || {
        let status = process.control.status(&root(), "r").await.unwrap();
        let configured = status.configured.unwrap();
        assert_eq!(configured.is_healthy(), configured.degraded.is_empty());
        assert!(configured.has_backend());
        configured.degraded
    };
    let record = |n| Record {
        kind: Kind::Policy,
        id: format!("p{n}"),
        revision: Revision([n; 16]),
        value: Vec::new(),
        expires_at: None,
    };
    watched.put_new(&record(1)).await.unwrap();
    assert_eq!(degraded().await, []);
    fixture.table.fail_writes(true);
    watched.put_new(&record(2)).await.unwrap_err();
    assert_eq!(degraded().await, [Degraded::TableWrite]);
    fixture.table.fail_writes(false);
    // A lost race does not show that writes work.
    let other = Record {
        revision: Revision([9; 16]),
        ..record(1)
    };
    watched.put_new(&other).await.unwrap_err();
    assert_eq!(degraded().await, [Degraded::TableWrite]);
    watched.put_new(&record(3)).await.unwrap();
    assert_eq!(degraded().await, []);
}
