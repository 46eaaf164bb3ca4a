//! MAC keys: what they make, what they refuse, and their records.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use fixture::{Fixture, id, move_to, named, root, with_policy};
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec, MacHash};
use keyway_domain::keys::{KeyQuery, KeySpec, KeyUsage, Keys, NewKey, RotationPeriod};
use keyway_domain::ports::{Consistency, Kind, TableReader as _};
use keyway_domain::service::BackendType;
use keyway_domain::{EncryptionContext, KmsError, SecretBytes};
use serde_json::Value;

const HASHES: [(&str, KeySpec, MacHash, usize); 4] = [
    ("mac-224", KeySpec::Hmac224, MacHash::Sha224, 28),
    ("mac-256", KeySpec::Hmac256, MacHash::Sha256, 32),
    ("mac-384", KeySpec::Hmac384, MacHash::Sha384, 48),
    ("mac-512", KeySpec::Hmac512, MacHash::Sha512, 64),
];

async fn make(keys: &Keys, name: &str, spec: KeySpec) {
    let new = NewKey {
        spec,
        ..named(name)
    };
    keys.create(&root(), new).await.unwrap();
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the callers have no other use for the result"
)]
fn is_of_spec<T>(result: Result<T, KmsError>, expected: KeySpec) -> bool {
    matches!(result, Err(KmsError::KeySpec { spec, .. }) if spec == expected)
}

#[tokio::test]
async fn mac_verifies_under_its_key_hash_and_message_alone() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let none = EncryptionContext::none();
    for (name, spec, ..) in HASHES {
        make(&process.keys, name, spec).await;
        make(&process.keys, &format!("other-{name}"), spec).await;
    }
    for (name, _, hash, bytes) in HASHES {
        let request = DataKeyRequest::new(id(name), &none);
        let data_keys = &process.data_keys;
        let made = data_keys.generate_mac(&root(), &request, hash, b"m").await;
        let mac = made.unwrap();
        assert_eq!(mac.len(), bytes);
        // Another process, without this one's caches.
        let process = fixture.process(false);
        let verified = async |name: &str, hash, message: &[u8], mac: &[u8]| {
            let request = DataKeyRequest::new(id(name), &none);
            let data_keys = &process.data_keys;
            data_keys
                .verify_mac(&root(), &request, hash, message, mac)
                .await
        };
        verified(name, hash, b"m", &mac).await.unwrap();
        let other = format!("other-{name}");
        let short = mac.get(..bytes - 1).unwrap();
        for (name, message, mac) in [
            (name, b"n", &mac[..]),
            (&other, b"m", &mac),
            (name, b"m", short),
        ] {
            let refused = verified(name, hash, message, mac).await;
            assert!(matches!(refused, Err(KmsError::InvalidMac)));
        }
        for (_, spec, another, _) in HASHES {
            if another != hash {
                let refused = verified(name, another, b"m", &mac).await;
                assert!(!is_of_spec(refused, spec));
            }
        }
        let dry = request.clone().dry_run(true);
        let made = process
            .data_keys
            .generate_mac(&root(), &dry, hash, b"m")
            .await;
        assert!(matches!(made, Err(KmsError::DryRun)));
    }
}

#[tokio::test]
async fn mac_key_refuses_everything_else_and_other_keys_refuse_macs() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let (keys, data_keys) = (&process.keys, &process.data_keys);
    make(keys, "mac", KeySpec::Hmac256).await;
    make(keys, "data", KeySpec::SymmetricDefault).await;
    let none = EncryptionContext::none();
    let on = |name: &str| DataKeyRequest::new(id(name), &none);
    let (caller, hmac) = (root(), KeySpec::Hmac256);
    let plaintext = SecretBytes::from(b"secret".to_vec());
    let encrypted = data_keys
        .encrypt(&caller, &on("data"), &plaintext, 64)
        .await;
    let blob = encrypted.unwrap().blob;

    let refused = data_keys
        .generate(&caller, &on("mac"), DataKeySpec::Aes256)
        .await;
    assert!(is_of_spec(refused, hmac));
    let refused = data_keys.encrypt(&caller, &on("mac"), &plaintext, 64).await;
    assert!(is_of_spec(refused, hmac));
    assert!(is_of_spec(
        data_keys.decrypt(&caller, &on("mac"), &blob).await,
        hmac
    ));
    let source = DataKeyRequest::of_ciphertext(None, &none);
    let refused = data_keys
        .reencrypt(&caller, &source, &blob, &on("mac"))
        .await;
    assert!(is_of_spec(refused, hmac));
    let trial = data_keys.try_out(&caller, Some(id("mac"))).await.unwrap();
    assert!(trial.failure.is_some());
    // KES's HMACs are made with another key, which a MAC key does not have.
    let refused = data_keys.hmac(&caller, &on("mac"), b"m").await;
    assert!(matches!(refused, Err(KmsError::NoHmacKey(_))));
    assert!(data_keys.hmac(&caller, &on("data"), b"m").await.is_ok());

    assert!(is_of_spec(keys.rotate(&caller, &id("mac")).await, hmac));
    let period = RotationPeriod::DEFAULT;
    let refused = keys.enable_rotation(&caller, &id("mac"), period).await;
    assert!(is_of_spec(refused, hmac));
    assert!(is_of_spec(
        keys.disable_rotation(&caller, &id("mac")).await,
        hmac
    ));

    let default = KeySpec::SymmetricDefault;
    let refused = data_keys
        .generate_mac(&caller, &on("data"), MacHash::Sha256, b"m")
        .await;
    assert!(is_of_spec(refused, default));
    let refused = data_keys
        .verify_mac(&caller, &on("data"), MacHash::Sha256, b"m", b"t")
        .await;
    assert!(is_of_spec(refused, default));

    keys.disable(&caller, &id("mac")).await.unwrap();
    let refused = process
        .data_keys
        .generate_mac(&caller, &on("mac"), MacHash::Sha256, b"m")
        .await;
    assert!(matches!(refused, Err(KmsError::KeyState { .. })));
}

#[tokio::test]
async fn permissions_to_make_and_to_verify_macs_are_separate() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    make(&process.keys, "mac", KeySpec::Hmac256).await;
    let (none, hash) = (EncryptionContext::none(), MacHash::Sha256);
    let request = DataKeyRequest::new(id("mac"), &none);
    let may = |action: &str| {
        with_policy(&format!(
            r#"{{"Statement":{{"Effect":"Allow","Action":"{action}"}}}}"#
        ))
    };
    let data_keys = &process.data_keys;
    for (action, generates, verifies) in [
        ("kms:GenerateMac", true, false),
        ("kms:VerifyMac", false, true),
        ("kms:Generate*", true, false),
        ("kms:*Mac", true, true),
        ("kms:*", true, true),
        ("kms:Encrypt", false, false),
    ] {
        let made = data_keys
            .generate_mac(&may(action), &request, hash, b"m")
            .await;
        assert_eq!(made.is_ok(), generates, "{action}");
        let mac = data_keys
            .generate_mac(&root(), &request, hash, b"m")
            .await
            .unwrap();
        let verified = data_keys
            .verify_mac(&may(action), &request, hash, b"m", &mac)
            .await;
        assert_eq!(verified.is_ok(), verifies, "{action}");
        if !verifies {
            assert!(matches!(verified, Err(KmsError::NotPermitted)), "{action}");
        }
    }
}

#[tokio::test]
async fn mac_keys_move_between_backends() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let (none, hash) = (EncryptionContext::none(), MacHash::Sha512);
    make(&process.keys, "mac", KeySpec::Hmac512).await;
    let request = DataKeyRequest::new(id("mac"), &none);
    let made = process
        .data_keys
        .generate_mac(&root(), &request, hash, b"m")
        .await;
    let mac = made.unwrap();
    move_to(&process, BackendType::Vault).await;
    let migration = keyway_domain::migration::KeyMigration::new(
        fixture.table.clone(),
        process.service.clone(),
        process.wrappers.clone(),
        fixture.random.clone(),
    );
    assert_eq!(migration.rewrap(|_| ()).await.unwrap().changed, 1);
    let process = fixture.process(false);
    process
        .data_keys
        .verify_mac(&root(), &request, hash, b"m", &mac)
        .await
        .unwrap();
}

#[tokio::test]
async fn list_has_the_keys_of_the_wanted_usage() {
    let fixture = Fixture::build().await;
    let keys = fixture.running().await.keys;
    make(&keys, "data", KeySpec::SymmetricDefault).await;
    make(&keys, "mac", KeySpec::Hmac224).await;
    for (usage, expected) in [
        (Some(KeyUsage::EncryptDecrypt), vec!["data"]),
        (Some(KeyUsage::GenerateVerifyMac), vec!["mac"]),
        (None, vec!["data", "mac"]),
    ] {
        let query = KeyQuery {
            limit: 10,
            usage,
            ..KeyQuery::default()
        };
        let page = keys.list(&root(), &query).await.unwrap();
        let found: Vec<_> = page.keys.iter().map(|key| key.id.as_str()).collect();
        assert_eq!(found, expected);
    }
}

/// The record of this key as JSON.
async fn record(fixture: &Fixture, name: &str) -> Value {
    let found = fixture
        .table
        .get(Kind::Key, name, Consistency::Strong)
        .await;
    serde_json::from_slice(&found.unwrap().unwrap().value).unwrap()
}

#[tokio::test]
async fn record_of_a_mac_key_has_a_format_that_older_releases_leave_alone() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    make(&process.keys, "data", KeySpec::SymmetricDefault).await;
    make(&process.keys, "mac", KeySpec::Hmac256).await;
    let data = record(&fixture, "data").await;
    assert_eq!((data["format"].as_u64(), data.get("spec")), (Some(1), None));
    for absent in ["rotation", "policy"] {
        assert!(data.get(absent).is_none(), "older records lack {absent}");
    }
    let mac = record(&fixture, "mac").await;
    assert_eq!(mac["format"], 2);
    assert_eq!(mac["spec"], "hmac256");
    assert!(mac.get("hmac").is_none());

    // A record whose format is not its kind's is refused.
    for (name, format) in [("data", 2), ("mac", 1)] {
        fixture
            .rewrite(name, |record| record["format"] = format.into())
            .await;
        let described = process.keys.describe(&root(), &id(name)).await;
        assert!(matches!(described, Err(KmsError::Backend(_))), "{name}");
    }
}

#[tokio::test]
async fn material_of_one_kind_does_not_open_as_another() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    make(&process.keys, "mac", KeySpec::Hmac256).await;
    let none = EncryptionContext::none();
    fixture
        .rewrite("mac", |record| {
            record["format"] = 1.into();
            record.as_object_mut().unwrap().remove("spec");
        })
        .await;
    let process_of_forger = fixture.process(false);
    let request = DataKeyRequest::new(id("mac"), &none);
    let made = process_of_forger
        .data_keys
        .generate(&root(), &request, DataKeySpec::Aes256)
        .await;
    assert!(matches!(made, Err(KmsError::Backend(_))));
    drop(process);
}
