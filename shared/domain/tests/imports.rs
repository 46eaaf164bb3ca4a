//! Imported keys, what they open and seal, and the HMAC keys of all keys.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fixture::{Fixture, Process, id, named, root, with_policy};
use keyway_domain::datakey::{
    CiphertextFormat, DataKeyRequest, DataKeySpec, DataKeys, MAX_PLAINTEXT_BYTES,
};
use keyway_domain::keys::{Compared, HmacKey, NewImport, Origin};
use keyway_domain::migration::KeyMigration;
use keyway_domain::ports::{Consistency, Kind, Record, Revision, TableReader, TableWriter};
use keyway_domain::service::{BackendType, Change, ConfigChanges, NewAuth};
use keyway_domain::vault::{Vault, VaultAddress};
use keyway_domain::{Algorithm, EncryptionContext, Key256, KmsError, SecretBytes};
use serde_json::Value;

const MATERIAL: [u8; 32] = [0x11; 32];
const HMAC: [u8; 32] = [0x22; 32];

fn brought(name: &str) -> NewImport {
    NewImport {
        id: id(name),
        material: Key256::from(MATERIAL),
        algorithm: Algorithm::Aes256,
        hmac_key: HmacKey::Given(Key256::from(HMAC)),
        created_at: Some("2023-11-14T22:13:20.123456789Z".parse().unwrap()),
        created_by: Some("somebody".to_owned()),
    }
}

fn opaque(bytes: &[u8]) -> EncryptionContext {
    EncryptionContext::opaque(bytes.to_vec()).unwrap()
}

async fn opened(
    data_keys: &DataKeys,
    key: &str,
    blob: &[u8],
    context: &EncryptionContext,
) -> Result<Vec<u8>, KmsError> {
    let opened = data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(Some(id(key)), context),
            blob,
        )
        .await?;
    assert_eq!(opened.key_id, id(key));
    Ok(opened.plaintext.expose().to_vec())
}

async fn sealed_by_kes(process: &Process, key: &str, context: &EncryptionContext) -> Vec<u8> {
    let plaintext = SecretBytes::from(b"data".to_vec());
    let sealed = process
        .data_keys
        .encrypt(
            &root(),
            &DataKeyRequest::new(id(key), context).sealed_as(CiphertextFormat::Kes),
            &plaintext,
            MAX_PLAINTEXT_BYTES,
        )
        .await;
    sealed.unwrap().blob
}

async fn mac(process: &Process, key: &str) -> Result<[u8; 32], KmsError> {
    process
        .data_keys
        .hmac(
            &root(),
            &DataKeyRequest::new(id(key), &EncryptionContext::none()),
            b"root access key",
        )
        .await
}

async fn move_to(fixture: &Fixture, process: &Process, backend: BackendType) {
    let changes = ConfigChanges {
        backend_type: Some(backend),
        address: Change::Set(VaultAddress::parse("address", "https://vault.example").unwrap()),
        auth: Some(NewAuth::Token(Some(SecretBytes::from(b"token".to_vec())))),
        ..ConfigChanges::default()
    };
    let changed = process.control.reconfigure(&root(), &changes).await;
    changed.unwrap();
    let fresh = fixture.process(false);
    let moving = KeyMigration::new(
        fixture.table.clone(),
        fresh.service,
        fresh.wrappers,
        fixture.random.clone(),
    );
    let outcome = moving.rewrap(|_| {}).await.unwrap();
    assert!(outcome.failed.is_empty());
}

/// The key's record as JSON, changed and written back.
async fn alter(fixture: &Fixture, key: &str, change: impl FnOnce(&mut Value)) {
    let seen = fixture.table.get(Kind::Key, key, Consistency::Strong).await;
    let seen = seen.unwrap().unwrap();
    let mut value: Value = serde_json::from_slice(&seen.value).unwrap();
    change(&mut value);
    let next = Record {
        revision: Revision([9; 16]),
        value: serde_json::to_vec(&value).unwrap(),
        ..seen.clone()
    };
    fixture.table.replace(&next, seen.revision).await.unwrap();
}

#[tokio::test]
async fn ciphertext_of_kes_opens_under_the_imported_key() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let legacy = fixture.process(false).data_keys.with_legacy_kes(true);
    let vectors: Value =
        serde_json::from_str(include_str!("../../../vectors/kes-ciphertexts.json")).unwrap();
    let vectors = vectors["ciphertexts"].as_array().unwrap();
    assert!(vectors.len() >= 33);
    for (n, vector) in vectors.iter().enumerate() {
        let bytes = |name: &str| STANDARD.decode(vector[name].as_str().unwrap()).unwrap();
        let name = format!("k{n}");
        let new = NewImport {
            material: Key256::try_from(bytes("key").as_slice()).unwrap(),
            algorithm: Algorithm::parse(vector["cipher"].as_str().unwrap()).unwrap(),
            ..brought(&name)
        };
        process.keys.import(&root(), new).await.unwrap();
        let context = EncryptionContext::opaque(bytes("context")).unwrap();
        let (ciphertext, plaintext) = (bytes("ciphertext"), bytes("plaintext"));
        let found = opened(&legacy, &name, &ciphertext, &context).await;
        assert_eq!(found.unwrap(), plaintext);
        let found = opened(&process.data_keys, &name, &ciphertext, &context).await;
        if vector["format"] == "json-insecure-kdf" {
            assert!(matches!(found, Err(KmsError::DecryptionFailed)));
        } else {
            assert_eq!(found.unwrap(), plaintext);
        }
        // A map is encoded as MinIO does.
        if bytes("context") == br#"{"bucket":"bucket/object"}"# {
            let pair = ("bucket".to_owned(), "bucket/object".to_owned());
            let map = EncryptionContext::from_pairs([pair]).unwrap();
            assert_eq!(
                opened(&legacy, &name, &ciphertext, &map).await.unwrap(),
                plaintext
            );
        }
    }
}

#[tokio::test]
async fn foreign_ciphertext_is_tried_under_the_named_imported_key_only() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.import(&root(), brought("old")).await.unwrap();
    process.keys.import(&root(), brought("twin")).await.unwrap();
    process.keys.create(&root(), named("native")).await.unwrap();
    let context = opaque(b"c");
    let blob = sealed_by_kes(&process, "old", &context).await;
    assert_eq!(blob.len(), 4 + 44);
    let data_keys = &process.data_keys;
    assert_eq!(
        opened(data_keys, "old", &blob, &context).await.unwrap(),
        b"data"
    );
    // The same material under another name: the ciphertext does not name the key.
    assert!(opened(data_keys, "twin", &blob, &context).await.is_ok());

    let unnamed = data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &context),
            &blob,
        )
        .await;
    assert!(matches!(unnamed, Err(KmsError::DecryptionFailed)));
    for other in ["native", "nobody"] {
        let tried = opened(data_keys, other, &blob, &context).await;
        assert!(matches!(tried, Err(KmsError::DecryptionFailed)), "{other}");
    }
    let wrong = opened(data_keys, "old", &blob, &opaque(b"d")).await;
    assert!(matches!(wrong, Err(KmsError::DecryptionFailed)));

    let only_native = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/native"}}"#,
    );
    let key = id("old");
    let request = DataKeyRequest::of_ciphertext(Some(key), &context);
    let refused = data_keys.decrypt(&only_native, &request, &blob);
    assert!(matches!(refused.await, Err(KmsError::NotPermitted)));
    process.keys.disable(&root(), &id("old")).await.unwrap();
    let refused = opened(data_keys, "old", &blob, &context).await;
    assert!(matches!(refused, Err(KmsError::KeyState { .. })));
}

#[tokio::test]
async fn missing_key_is_named_to_apis_that_tell_of_keys() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.import(&root(), brought("k")).await.unwrap();
    let (caller, context) = (root(), EncryptionContext::none());
    let blob = sealed_by_kes(&process, "k", &context).await;
    let under = async |key: &str, blob: &[u8]| {
        let opened = process
            .data_keys
            .decrypt(&caller, &DataKeyRequest::new(id(key), &context), blob)
            .await?;
        Ok::<_, KmsError>(opened.plaintext.expose().to_vec())
    };
    assert_eq!(under("k", &blob).await.unwrap(), b"data");
    assert!(matches!(
        under("x", &blob).await,
        Err(KmsError::KeyNotFound(_))
    ));
    assert!(matches!(
        under("k", b"").await,
        Err(KmsError::DecryptionFailed)
    ));
}

#[tokio::test]
async fn format_of_kes_is_for_imported_keys_never_rotated() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.import(&root(), brought("old")).await.unwrap();
    process.keys.create(&root(), named("native")).await.unwrap();
    let context = opaque(b"c");
    let raw = sealed_by_kes(&process, "old", &context).await;
    let is_native = |blob: &[u8]| blob.starts_with(&[0xc7, 0x4b, 1, 1]);
    assert!(!is_native(&raw));
    assert!(is_native(
        &sealed_by_kes(&process, "native", &context).await
    ));
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id("old"), &context),
            DataKeySpec::Aes256,
        )
        .await;
    assert!(
        is_native(&made.unwrap().1.blob),
        "only where it is asked for"
    );
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id("old"), &context).sealed_as(CiphertextFormat::Kes),
            DataKeySpec::Aes256,
        )
        .await;
    let (key, sealed) = made.unwrap();
    assert_eq!((sealed.blob.len(), sealed.key_version), (32 + 44, 1));
    let again = opened(&process.data_keys, "old", &sealed.blob, &context).await;
    assert_eq!(again.unwrap(), key.expose());

    process.keys.rotate(&root(), &id("old")).await.unwrap();
    let second = sealed_by_kes(&process, "old", &context).await;
    assert!(is_native(&second));
    for blob in [&raw, &second] {
        assert_eq!(
            opened(&process.data_keys, "old", blob, &context)
                .await
                .unwrap(),
            b"data"
        );
    }
}

#[tokio::test]
async fn rewrap_takes_foreign_ciphertexts_of_the_destination() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.import(&root(), brought("old")).await.unwrap();
    process.keys.create(&root(), named("native")).await.unwrap();
    let context = opaque(b"c");
    let raw = sealed_by_kes(&process, "old", &context).await;
    let rewrap = async |to: Option<&str>| {
        let to = to.map(id);
        let data_keys = &process.data_keys;
        data_keys
            .reencrypt(
                &root(),
                &DataKeyRequest::of_ciphertext(None, &context),
                &raw,
                &DataKeyRequest::of_ciphertext(to, &context),
            )
            .await
    };
    for nowhere in [None, Some("native")] {
        let refused = rewrap(nowhere).await;
        assert!(matches!(refused, Err(KmsError::DecryptionFailed)));
    }
    let moved = rewrap(Some("old")).await.unwrap();
    let found = process
        .data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &context),
            &moved.sealed.blob,
        )
        .await;
    assert_eq!(found.unwrap().plaintext.expose(), b"data");
}

#[tokio::test]
async fn import_overwrites_nothing() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let key = process.keys.import(&root(), brought("k")).await.unwrap();
    let algorithm = Algorithm::Aes256;
    assert_eq!(key.origin, Origin::External { algorithm });
    assert_eq!(key.origin.as_str(), "EXTERNAL");
    assert_eq!(key.created_at.to_string(), "2023-11-14T22:13:20.123456789Z");
    assert_eq!(
        (key.created_by.as_str(), key.current_version()),
        ("somebody", 1)
    );
    assert_eq!(process.keys.describe(&root(), &key.id).await.unwrap(), key);

    process.keys.create(&root(), named("native")).await.unwrap();
    for name in ["k", "native"] {
        let again = process.keys.import(&root(), brought(name)).await;
        assert!(matches!(again, Err(KmsError::KeyExists(_))));
    }
    let unsigned = NewImport {
        created_at: None,
        created_by: None,
        ..brought("unsigned")
    };
    let key = process.keys.import(&root(), unsigned).await.unwrap();
    assert_eq!(key.created_by, "root");
    assert_eq!(key.created_at.to_string(), "2026-01-02T03:04:05.678901Z");
    for wrong in ["", "a\nb", &"x".repeat(257)] {
        let new = NewImport {
            created_by: Some(wrong.to_owned()),
            ..brought("wrong")
        };
        let refused = process.keys.import(&root(), new).await;
        assert!(matches!(
            refused,
            Err(KmsError::Invalid {
                field: "created_by",
                ..
            })
        ));
    }
    let nobody = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:CreateKey"}}"#);
    let refused = process.keys.import(&nobody, brought("other")).await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
}

#[tokio::test]
async fn import_of_an_existing_key_compares_all_its_parts() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let compare = async |new: NewImport, dry_run| {
        let compared = process.keys.import_or_compare(&root(), &new, dry_run).await;
        compared.unwrap()
    };
    assert_eq!(compare(brought("k"), true).await, Compared::New);
    assert_eq!(
        compare(brought("k"), true).await,
        Compared::New,
        "it was only looked at"
    );
    assert_eq!(compare(brought("k"), false).await, Compared::New);
    process.keys.rotate(&root(), &id("k")).await.unwrap();
    process.keys.disable(&root(), &id("k")).await.unwrap();
    for dry_run in [true, false] {
        assert_eq!(compare(brought("k"), dry_run).await, Compared::Same);
    }
    process.keys.create(&root(), named("native")).await.unwrap();
    let changes: [fn(&mut NewImport); 5] = [
        |new| new.material = Key256::from([0; 32]),
        |new| new.algorithm = Algorithm::ChaCha20,
        |new| new.hmac_key = HmacKey::Absent,
        |new| new.hmac_key = HmacKey::Given(Key256::from(MATERIAL)),
        |new| new.id = id("native"),
    ];
    for change in changes {
        let mut new = brought("k");
        change(&mut new);
        assert!(matches!(compare(new, false).await, Compared::Different(_)));
    }
    let absent = |name| NewImport {
        hmac_key: HmacKey::Absent,
        ..brought(name)
    };
    assert_eq!(compare(absent("a"), false).await, Compared::New);
    assert_eq!(compare(absent("a"), false).await, Compared::Same);
    assert!(matches!(
        compare(brought("a"), false).await,
        Compared::Different(_)
    ));

    // The operator needs a service that is configured, not one that runs.
    let empty = Fixture::build().await;
    let nothing = empty.process(false);
    let refused = nothing
        .keys
        .import_or_compare(&root(), &brought("k"), false)
        .await;
    assert!(matches!(refused, Err(KmsError::NotConfigured)));
}

#[tokio::test]
async fn mac_of_a_key_is_its_own_and_survives_rotation() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["a", "b"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let first = mac(&process, "a").await.unwrap();
    assert_ne!(first, mac(&process, "b").await.unwrap());
    process.keys.rotate(&root(), &id("a")).await.unwrap();
    assert_eq!(first, mac(&fixture.process(false), "a").await.unwrap());

    // What KES made of the same HMAC key.
    let hmac: [u8; 32] = STANDARD
        .decode("4jARjAap1/eWz6oyFaLRJInHmbFZPlwjxFDnaggCJ8Y=")
        .unwrap()
        .try_into()
        .unwrap();
    let new = NewImport {
        hmac_key: HmacKey::Given(Key256::from(hmac)),
        ..brought("kes")
    };
    process.keys.import(&root(), new).await.unwrap();
    let made = STANDARD.encode(mac(&process, "kes").await.unwrap());
    assert_eq!(made, "+au+rCoia/Eix0M8VlQ/78timxhbgSe/PIyQaw7ivUc=");

    for (hmac_key, name) in [(HmacKey::Absent, "absent"), (HmacKey::Fresh, "fresh")] {
        let new = NewImport {
            hmac_key,
            ..brought(name)
        };
        process.keys.import(&root(), new).await.unwrap();
    }
    let none = mac(&process, "absent").await;
    assert!(matches!(none, Err(KmsError::NoHmacKey(key)) if key == id("absent")));
    mac(&process, "fresh").await.unwrap();
    assert!(matches!(
        mac(&process, "x").await,
        Err(KmsError::KeyNotFound(_))
    ));
    process.keys.disable(&root(), &id("a")).await.unwrap();
    assert!(matches!(
        mac(&process, "a").await,
        Err(KmsError::KeyState { .. })
    ));
    let nobody = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:Decrypt"}}"#);
    let (kes, data_keys) = (id("kes"), &process.data_keys);
    let none = EncryptionContext::none();
    let request = DataKeyRequest::new(kes, &none);
    let refused = data_keys.hmac(&nobody, &request, b"").await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
}

#[tokio::test]
async fn record_of_an_older_release_is_read_and_makes_no_macs() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    alter(&fixture, "k", |record| {
        assert_eq!(record["origin"], "kms");
        record.as_object_mut().unwrap().remove("hmac").unwrap();
    })
    .await;
    assert!(matches!(
        mac(&process, "k").await,
        Err(KmsError::NoHmacKey(_))
    ));
    let context = EncryptionContext::none();
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id("k"), &context),
            DataKeySpec::Aes256,
        )
        .await;
    made.unwrap();
    process.keys.rotate(&root(), &id("k")).await.unwrap();
}

#[tokio::test]
async fn hmac_key_opens_under_its_own_binding_only() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["a", "b"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let context = EncryptionContext::none();
    alter(&fixture, "a", |record| {
        let (hmac, material) = (
            record["hmac"].take(),
            record["versions"][0]["material"].take(),
        );
        record["hmac"] = material;
        record["versions"][0]["material"] = hmac;
    })
    .await;
    assert!(matches!(
        mac(&process, "a").await,
        Err(KmsError::Backend(_))
    ));
    let made = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id("a"), &context),
            DataKeySpec::Aes256,
        )
        .await;
    assert!(matches!(made, Err(KmsError::Backend(_))));
}

#[tokio::test]
async fn hmac_key_migrates_with_its_key() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("native")).await.unwrap();
    process.keys.import(&root(), brought("old")).await.unwrap();
    let context = opaque(b"c");
    let raw = sealed_by_kes(&process, "old", &context).await;
    let macs = [
        mac(&process, "native").await.unwrap(),
        mac(&process, "old").await.unwrap(),
    ];
    move_to(&fixture, &process, BackendType::Vault).await;
    for name in ["native", "old"] {
        let copy = fixture.vault.copy(name).await.unwrap().unwrap();
        let record: Value = serde_json::from_slice(&copy.value).unwrap();
        assert_eq!(record["hmac"]["wrapper"], "vault-transit");
        assert_eq!(
            record["versions"][0]["material"]["wrapper"],
            "vault-transit"
        );
    }
    // Made while Vault is the backend, and moved away from it.
    process.keys.import(&root(), brought("late")).await.unwrap();
    move_to(&fixture, &process, BackendType::Local).await;
    fixture.vault.set_down(true);
    let fresh = fixture.process(false);
    assert_eq!(macs[0], mac(&fresh, "native").await.unwrap());
    assert_eq!(macs[1], mac(&fresh, "old").await.unwrap());
    assert_eq!(macs[1], mac(&fresh, "late").await.unwrap());
    let found = opened(&fresh.data_keys, "late", &raw, &context).await;
    assert_eq!(found.unwrap(), b"data");
}
