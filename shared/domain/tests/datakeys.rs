//! The rules of data keys, and how long an old state is used.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::time::Duration;

use fixture::{Fixture, Process, STATE_TTL, id, named, root, with_policy};
use keyway_domain::access::Caller;
use keyway_domain::datakey::{
    DataKeyLength, DataKeyRequest, DataKeySpec, KeyChoice, MAX_DATA_KEY_BYTES, MAX_PLAINTEXT_BYTES,
};
use keyway_domain::keys::{DeletionWindow, KeyId};
use keyway_domain::{EncryptionContext, KmsError, SecretBytes};

fn context(value: &str) -> EncryptionContext {
    EncryptionContext::from_pairs([("bucket".to_owned(), value.to_owned())]).unwrap()
}

async fn generate(process: &Process, key: &str) -> Result<Vec<u8>, KmsError> {
    let none = EncryptionContext::none();
    let (_, sealed) = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(id(key), &none),
            DataKeySpec::Aes256,
        )
        .await?;
    Ok(sealed.blob)
}

async fn opens(process: &Process, blob: &[u8]) -> Result<Vec<u8>, KmsError> {
    let opened = process
        .data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &EncryptionContext::none()),
            blob,
        )
        .await?;
    Ok(opened.plaintext.expose().to_vec())
}

#[tokio::test]
async fn data_key_opens_under_its_context_only() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    for (spec, length) in [(DataKeySpec::Aes256, 32), (DataKeySpec::Aes128, 16)] {
        let (plaintext, sealed) = process
            .data_keys
            .generate(&root(), &DataKeyRequest::new(id("k"), &context("a")), spec)
            .await
            .unwrap();
        assert_eq!(plaintext.expose().len(), length);
        let opened = process
            .data_keys
            .decrypt(
                &root(),
                &DataKeyRequest::of_ciphertext(None, &context("a")),
                &sealed.blob,
            )
            .await
            .unwrap();
        assert_eq!(opened.plaintext.expose(), plaintext.expose());
        assert_eq!((opened.key_id, opened.key_version), (id("k"), 1));
        for wrong in [EncryptionContext::none(), context("b")] {
            let result = process
                .data_keys
                .decrypt(
                    &root(),
                    &DataKeyRequest::of_ciphertext(None, &wrong),
                    &sealed.blob,
                )
                .await;
            assert!(matches!(result, Err(KmsError::DecryptionFailed)));
        }
    }
}

#[tokio::test]
async fn failures_to_open_have_one_text() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    process.keys.create(&root(), named("other")).await.unwrap();
    let blob = generate(&process, "k").await.unwrap();
    let mut attempts = vec![
        Vec::new(),
        blob[..blob.len() - 1].to_vec(),
        [blob.clone(), vec![0]].concat(),
    ];
    attempts.extend((0..blob.len()).map(|at| {
        let mut flipped = blob.clone();
        flipped[at] ^= 1;
        flipped
    }));
    for attempt in attempts {
        assert!(matches!(
            opens(&process, &attempt).await,
            Err(KmsError::DecryptionFailed)
        ));
    }
    let none = EncryptionContext::none();
    let wrong_key = process
        .data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(Some(id("other")), &none),
            &blob,
        )
        .await;
    assert!(matches!(wrong_key, Err(KmsError::IncorrectKey)));
    assert!(opens(&process, &blob).await.is_ok());
}

#[tokio::test]
async fn old_version_opens_and_the_new_one_seals() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let old = generate(&process, "k").await.unwrap();
    process.keys.rotate(&root(), &id("k")).await.unwrap();
    let secret = opens(&process, &old).await.unwrap();
    let none = EncryptionContext::none();
    let moved = process
        .data_keys
        .reencrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &none),
            &old,
            &DataKeyRequest::of_ciphertext(None, &none),
        )
        .await
        .unwrap();
    assert_eq!(moved.sealed.key_version, 2);
    assert_eq!(opens(&process, &moved.sealed.blob).await.unwrap(), secret);
}

#[tokio::test]
async fn rewrap_changes_key_and_context() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["a", "b"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let old = generate(&process, "a").await.unwrap();
    let none = EncryptionContext::none();
    let (to, with) = (Some(id("b")), context("new"));
    let moved = process
        .data_keys
        .reencrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &none),
            &old,
            &DataKeyRequest::of_ciphertext(to, &with),
        )
        .await
        .unwrap();
    let opened = process
        .data_keys
        .decrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(Some(id("b")), &with),
            &moved.sealed.blob,
        )
        .await
        .unwrap();
    assert_eq!(
        opened.plaintext.expose(),
        opens(&process, &old).await.unwrap()
    );

    // Source and destination both need the permission, and both keys must be enabled.
    let only_a = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/a"}}"#,
    );
    let refused = process
        .data_keys
        .reencrypt(
            &only_a,
            &DataKeyRequest::of_ciphertext(None, &none),
            &old,
            &DataKeyRequest::of_ciphertext(Some(id("b")), &none),
        )
        .await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
    let refused = process
        .data_keys
        .reencrypt(
            &only_a,
            &DataKeyRequest::of_ciphertext(None, &with),
            &moved.sealed.blob,
            &DataKeyRequest::of_ciphertext(Some(id("a")), &with),
        )
        .await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
    process.keys.disable(&root(), &id("b")).await.unwrap();
    let refused = process
        .data_keys
        .reencrypt(
            &root(),
            &DataKeyRequest::of_ciphertext(None, &none),
            &old,
            &DataKeyRequest::of_ciphertext(Some(id("b")), &none),
        )
        .await;
    assert!(matches!(refused, Err(KmsError::KeyState { .. })));
}

#[tokio::test]
async fn key_that_is_not_enabled_refuses_all_use() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let blob = generate(&process, "k").await.unwrap();
    let none = EncryptionContext::none();
    process.keys.disable(&root(), &id("k")).await.unwrap();
    for _ in 0..2 {
        assert!(matches!(
            generate(&process, "k").await,
            Err(KmsError::KeyState { .. })
        ));
        assert!(matches!(
            opens(&process, &blob).await,
            Err(KmsError::KeyState { .. })
        ));
        let plaintext = SecretBytes::from(vec![1]);
        let result = process
            .data_keys
            .encrypt(
                &root(),
                &DataKeyRequest::new(id("k"), &none),
                &plaintext,
                MAX_PLAINTEXT_BYTES,
            )
            .await;
        assert!(matches!(result, Err(KmsError::KeyState { .. })));
        // In the second round the key is pending deletion.
        let scheduled = process
            .keys
            .schedule_deletion(&root(), &id("k"), DeletionWindow::DEFAULT)
            .await;
        drop(scheduled);
    }
    process
        .keys
        .cancel_deletion(&root(), &id("k"))
        .await
        .unwrap();
    process.keys.enable(&root(), &id("k")).await.unwrap();
    assert!(
        opens(&process, &blob).await.is_ok(),
        "what was sealed before opens again"
    );
}

#[tokio::test]
async fn request_without_a_key_uses_the_default_key_or_names_the_field() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let none = EncryptionContext::none();
    let result = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(KeyChoice::Default, &none),
            DataKeySpec::Aes256,
        )
        .await;
    assert!(matches!(
        result,
        Err(KmsError::Invalid {
            field: "key_id",
            ..
        })
    ));

    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    process
        .service
        .start_if_new(
            fixture.table.as_ref(),
            fixture.random.as_ref(),
            Some(id("d")),
        )
        .await
        .unwrap();
    let missing = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(KeyChoice::Default, &none),
            DataKeySpec::Aes256,
        )
        .await;
    assert!(matches!(missing, Err(KmsError::KeyNotFound(key)) if key == id("d")));
    process.keys.create(&root(), named("d")).await.unwrap();
    let (_, sealed) = process
        .data_keys
        .generate(
            &root(),
            &DataKeyRequest::new(KeyChoice::Default, &none),
            DataKeySpec::Aes256,
        )
        .await
        .unwrap();
    assert_eq!(sealed.key_id, id("d"));
    let other = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/x"}}"#,
    );
    let refused = process
        .data_keys
        .generate(
            &other,
            &DataKeyRequest::new(KeyChoice::Default, &none),
            DataKeySpec::Aes256,
        )
        .await;
    assert!(
        matches!(refused, Err(KmsError::NotPermitted)),
        "the default key needs the permission like any other"
    );
}

#[tokio::test]
async fn plaintext_out_of_bounds_is_refused() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let none = EncryptionContext::none();
    for (length, fit) in [
        (0, true),
        (MAX_PLAINTEXT_BYTES, true),
        (MAX_PLAINTEXT_BYTES + 1, false),
    ] {
        let plaintext = SecretBytes::from(vec![7; length]);
        let result = process
            .data_keys
            .encrypt(
                &root(),
                &DataKeyRequest::new(id("k"), &none),
                &plaintext,
                MAX_PLAINTEXT_BYTES,
            )
            .await;
        assert_eq!(result.is_ok(), fit, "{length}");
        if let Ok(sealed) = result {
            assert_eq!(
                opens(&process, &sealed.blob).await.unwrap(),
                plaintext.expose()
            );
        }
    }
}

#[tokio::test]
async fn state_change_holds_here_at_once_and_elsewhere_within_the_ttl() {
    let fixture = Fixture::build().await;
    let (here, there) = (fixture.running().await, fixture.process(false));
    here.keys.create(&root(), named("k")).await.unwrap();
    generate(&here, "k").await.unwrap();
    generate(&there, "k").await.unwrap();
    here.keys.disable(&root(), &id("k")).await.unwrap();
    assert!(matches!(
        generate(&here, "k").await,
        Err(KmsError::KeyState { .. })
    ));
    fixture.clock.advance(STATE_TTL - Duration::from_nanos(1));
    assert!(
        generate(&there, "k").await.is_ok(),
        "the old state may be honoured for so long"
    );
    fixture.clock.advance(Duration::from_nanos(1));
    assert!(matches!(
        generate(&there, "k").await,
        Err(KmsError::KeyState { .. })
    ));
}

#[tokio::test]
async fn version_made_by_another_process_opens_at_once() {
    let fixture = Fixture::build().await;
    let (here, there) = (fixture.running().await, fixture.process(false));
    here.keys.create(&root(), named("k")).await.unwrap();
    generate(&there, "k").await.unwrap();
    here.keys.rotate(&root(), &id("k")).await.unwrap();
    let blob = generate(&here, "k").await.unwrap();
    assert!(opens(&there, &blob).await.is_ok());
}

#[tokio::test]
async fn key_recreated_under_an_old_name_opens_nothing_of_before() {
    let fixture = Fixture::build().await;
    fixture.running().await;
    let process = fixture.process(true);
    process.keys.create(&root(), named("k")).await.unwrap();
    let old = generate(&process, "k").await.unwrap();
    process.keys.destroy(&root(), &id("k")).await.unwrap();
    assert!(matches!(
        opens(&process, &old).await,
        Err(KmsError::DecryptionFailed)
    ));
    process.keys.create(&root(), named("k")).await.unwrap();
    assert!(
        matches!(opens(&process, &old).await, Err(KmsError::DecryptionFailed)),
        "not even from a warm cache"
    );
    let new = generate(&process, "k").await.unwrap();
    assert!(opens(&process, &new).await.is_ok());
}

#[tokio::test]
async fn unknown_key_is_named() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    let missing: KeyId = id("nope");
    assert!(
        matches!(generate(&process, "nope").await, Err(KmsError::KeyNotFound(key)) if key == missing)
    );
}

#[tokio::test]
async fn data_key_has_the_requested_length() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let none = EncryptionContext::none();
    let request = DataKeyRequest::new(id("k"), &none);
    for bytes in [1, 7, 64, MAX_DATA_KEY_BYTES] {
        let spec = DataKeySpec::Bytes(DataKeyLength::parse("number_of_bytes", bytes).unwrap());
        let made = process.data_keys.generate(&root(), &request, spec).await;
        let (plaintext, sealed) = made.unwrap();
        assert_eq!(plaintext.expose().len(), bytes);
        assert_eq!(
            opens(&process, &sealed.blob).await.unwrap(),
            plaintext.expose()
        );
    }
    for bytes in [0, MAX_DATA_KEY_BYTES + 1] {
        let refused = DataKeyLength::parse("number_of_bytes", bytes);
        assert!(matches!(
            refused,
            Err(KmsError::Invalid {
                field: "number_of_bytes",
                ..
            })
        ));
    }
}

#[tokio::test]
async fn data_key_without_plaintext_opens_later() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let context = context("a");
    let request = DataKeyRequest::new(id("k"), &context);
    let sealed = process
        .data_keys
        .generate_without_plaintext(&root(), &request, DataKeySpec::Aes256)
        .await
        .unwrap();
    assert_eq!((&sealed.key_id, sealed.key_version), (&id("k"), 1));
    let opened = process
        .data_keys
        .decrypt(&root(), &request, &sealed.blob)
        .await;
    assert_eq!(opened.unwrap().plaintext.expose().len(), 32);

    let encrypt_only = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:Encrypt"}}"#);
    let refused = process
        .data_keys
        .generate_without_plaintext(&encrypt_only, &request, DataKeySpec::Aes256)
        .await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
}

#[tokio::test]
async fn ciphertext_of_another_key_than_named_is_told_apart() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    for name in ["a", "b"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let blob = generate(&process, "a").await.unwrap();
    let none = EncryptionContext::none();
    for key in [
        KeyChoice::Named(id("b")),
        KeyChoice::OfCiphertext(Some(id("b"))),
    ] {
        let request = DataKeyRequest::new(key, &none);
        let refused = process.data_keys.decrypt(&root(), &request, &blob).await;
        assert!(matches!(refused, Err(KmsError::IncorrectKey)));
        let same = DataKeyRequest::of_ciphertext(None, &none);
        let refused = process
            .data_keys
            .reencrypt(&root(), &request, &blob, &same)
            .await;
        assert!(matches!(refused, Err(KmsError::IncorrectKey)));
    }
    assert_eq!(
        KmsError::IncorrectKey.class(),
        KmsError::DecryptionFailed.class()
    );
}

#[tokio::test]
async fn reencryption_names_the_source_and_goes_to_the_default_key() {
    let fixture = Fixture::build().await;
    let process = fixture.process(false);
    process
        .service
        .start_if_new(
            fixture.table.as_ref(),
            fixture.random.as_ref(),
            Some(id("d")),
        )
        .await
        .unwrap();
    for name in ["a", "d"] {
        process.keys.create(&root(), named(name)).await.unwrap();
    }
    let blob = generate(&process, "a").await.unwrap();
    let none = EncryptionContext::none();
    let source = DataKeyRequest::new(id("a"), &none);
    let to_default = DataKeyRequest::new(KeyChoice::Default, &none);
    let moved = process
        .data_keys
        .reencrypt(&root(), &source, &blob, &to_default)
        .await
        .unwrap();
    assert_eq!(
        (moved.source_key_id, moved.source_key_version),
        (id("a"), 1)
    );
    assert_eq!(moved.sealed.key_id, id("d"));
    let only_a = with_policy(
        r#"{"Statement":{"Effect":"Allow","Action":"kms:*","Resource":"arn:aws:kms:::key/a"}}"#,
    );
    let refused = process
        .data_keys
        .reencrypt(&only_a, &source, &blob, &to_default)
        .await;
    assert!(matches!(refused, Err(KmsError::NotPermitted)));
}

#[tokio::test]
async fn dry_run_checks_everything_and_returns_nothing() {
    let fixture = Fixture::build().await;
    let process = fixture.running().await;
    process.keys.create(&root(), named("k")).await.unwrap();
    let blob = generate(&process, "k").await.unwrap();
    let none = EncryptionContext::none();
    let nobody = with_policy(r#"{"Statement":{"Effect":"Allow","Action":"kms:ListKeys"}}"#);
    let class = async |caller: &Caller, blob: &[u8]| {
        let data_keys = &process.data_keys;
        let dry = DataKeyRequest::new(id("k"), &none).dry_run(true);
        let wet = DataKeyRequest::new(id("k"), &none);
        let (spec, sent) = (DataKeySpec::Aes256, SecretBytes::from(vec![1]));
        [
            data_keys.generate(caller, &dry, spec).await.err(),
            data_keys
                .generate_without_plaintext(caller, &dry, spec)
                .await
                .err(),
            data_keys.encrypt(caller, &dry, &sent, 1).await.err(),
            data_keys.hmac(caller, &dry, b"").await.err(),
            data_keys.decrypt(caller, &dry, blob).await.err(),
            data_keys.reencrypt(caller, &dry, blob, &wet).await.err(),
            data_keys.reencrypt(caller, &wet, blob, &dry).await.err(),
        ]
        .map(|error| error.map_or("done", |error| error.class()))
    };
    assert_eq!(class(&root(), &blob).await, ["dry_run"; 7]);
    assert_eq!(class(&nobody, &blob).await, ["not_permitted"; 7]);
    let torn = class(&root(), &blob[1..]).await;
    assert_eq!(torn[..4], ["dry_run"; 4]);
    assert_eq!(torn[4..], ["decryption_failed"; 3]);
    process.keys.disable(&root(), &id("k")).await.unwrap();
    assert_eq!(class(&root(), &blob).await, ["key_state"; 7]);
}
