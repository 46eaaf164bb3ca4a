//! RustFS's envelope around data keys in AWS KMS's API.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_deployment_assembly::AwsCiphertext;
use keyway_domain::access::Envelope;
use keyway_domain::ports::Clock;
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};

/// The user agent of AWS's SDK for Rust, which RustFS uses.
const RUST_SDK: &str = "aws-sdk-rust/1.3.15 os/linux lang/rust/1.98.1";
const BOTO: &str = "Boto3/1.44.8 md/Botocore#1.44.8";

async fn kms_by(
    site: &MemorySite,
    signer: &Signer,
    agent: &str,
    target: &str,
    body: &Value,
) -> Answer {
    let signer = signer.clone().for_service("kms");
    let signer = signer.with_target(&format!("TrentService.{target}"));
    let (body, time) = (body.to_string(), SystemTime::from(site.clock.now()));
    let mut request = signer.request("POST", "keyway.test", "/", body.as_bytes(), time);
    let agent = agent.parse().unwrap();
    request.headers_mut().insert("user-agent", agent);
    site.send(request).await
}

async fn kms(site: &MemorySite, target: &str, body: Value) -> Answer {
    kms_by(site, site.root(), BOTO, target, &body).await
}

async fn create(site: &MemorySite, id: &str) {
    let body = json!({"key_id": id}).to_string();
    assert_eq!(site.call("POST", "/kms/keys", &body).await.status, 200);
}

const UUID: &str = "11111111-1111-4111-8111-111111111111";

/// A site with one key that puts data keys into envelopes.
async fn enveloping() -> MemorySite {
    let site = MemorySite::running_as(|it| it.aws_ciphertext = AwsCiphertext::Rustfs).await;
    create(&site, UUID).await;
    site
}

fn blob(answer: &Answer) -> Vec<u8> {
    STANDARD.decode(answer.text("CiphertextBlob")).unwrap()
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

fn envelope(answer: &Answer) -> Value {
    serde_json::from_slice(&blob(answer)).unwrap()
}

fn inner(envelope: &Value) -> Vec<u8> {
    let bytes = envelope["encrypted_key"].as_array().unwrap().iter();
    bytes
        .map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap())
        .collect()
}

fn is_enveloped(answer: &Answer) -> bool {
    blob(answer).starts_with(b"{")
}

fn code(answer: &Answer) -> String {
    assert_eq!(answer.status, 400);
    answer.json()["__type"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn envelope_has_the_members_and_types_that_rustfs_reads() {
    let site = enveloping().await;
    kms(&site, "RotateKeyOnDemand", json!({"KeyId": UUID})).await;
    let made = kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": UUID, "KeySpec": "AES_256"}),
    );
    let made = made.await;
    let mut found = envelope(&made);
    assert_eq!(inner(&found).len(), 158);
    found["encrypted_key"] = json!([]);
    let id = found["key_id"].take();
    let id: Vec<usize> = id.as_str().unwrap().split('-').map(str::len).collect();
    assert_eq!(id, [8, 4, 4, 4, 12]);
    let expected = json!({
        "key_id": null,
        "master_key_id": UUID,
        "key_spec": "AES_256",
        "encrypted_key": [],
        "nonce": [],
        "encryption_context": {},
        "created_at": "2026-01-02T03:04:05+00:00[UTC]",
        "master_key_version": 2,
    });
    assert_eq!(found, expected);
    // The sample of the size: a data key of 32 bytes under a key with a UUID. Numbers have 1 to 3 digits.
    let size = blob(&made).len();
    assert!((770..=870).contains(&size), "{size}");
}

#[tokio::test]
async fn data_keys_in_envelopes_open_whole_and_taken_out() {
    let site = enveloping().await;
    for (target, size) in [
        ("GenerateDataKey", json!({"KeySpec": "AES_256"})),
        ("GenerateDataKey", json!({"KeySpec": "AES_128"})),
        ("GenerateDataKey", json!({"NumberOfBytes": 64})),
        (
            "GenerateDataKeyWithoutPlaintext",
            json!({"KeySpec": "AES_256"}),
        ),
    ] {
        let mut body = size;
        body["KeyId"] = UUID.into();
        body["EncryptionContext"] = json!({"a": "1"});
        let made = kms(&site, target, body).await;
        let envelope = envelope(&made);
        for blob in [blob(&made), inner(&envelope)] {
            let body = json!({"CiphertextBlob": base64(blob), "EncryptionContext": {"a": "1"}});
            let opened = kms(&site, "Decrypt", body).await.ok();
            assert_eq!(opened["KeyId"], made.json()["KeyId"]);
            if target == "GenerateDataKey" {
                assert_eq!(opened["Plaintext"], made.json()["Plaintext"]);
            }
        }
    }
}

#[tokio::test]
async fn envelope_is_automatic_for_objects_of_rustfs_alone() {
    let site = MemorySite::running().await;
    create(&site, "default").await;
    let object = json!({"photos": "photos/2026/a.jpg"});
    for (agent, context, expected) in [
        (RUST_SDK, &object, true),
        (RUST_SDK, &json!({"team": "a", "photos": "photos/x"}), true),
        (RUST_SDK, &json!({"photos": "photos/"}), true),
        (RUST_SDK, &json!({"photos": "photos"}), false),
        (RUST_SDK, &json!({"photos": "photos2/x"}), false),
        (RUST_SDK, &json!({"rustfs-purpose": "kms-probe"}), false),
        (RUST_SDK, &json!({}), false),
        (BOTO, &object, false),
        ("", &object, false),
    ] {
        let body = json!({"KeyId": "default", "KeySpec": "AES_256", "EncryptionContext": context});
        let made = kms_by(&site, site.root(), agent, "GenerateDataKey", &body).await;
        assert_eq!(is_enveloped(&made), expected, "{agent} {context}");
    }
    let body = json!({"KeyId": "default", "Plaintext": "QUJD", "EncryptionContext": object});
    let made = kms_by(&site, site.root(), RUST_SDK, "Encrypt", &body).await;
    assert!(!is_enveloped(&made));
}

#[tokio::test]
async fn access_key_decides_before_the_setting_and_the_setting_before_the_request() {
    let data = json!({"KeyId": "default", "KeySpec": "AES_256"});
    let mut object = data.clone();
    object["EncryptionContext"] = json!({"photos": "photos/x"});
    for (setting, of_default, of_object) in [
        (AwsCiphertext::Auto, false, true),
        (AwsCiphertext::Plain, false, false),
        (AwsCiphertext::Rustfs, true, true),
    ] {
        let site = MemorySite::running_as(|it| it.aws_ciphertext = setting).await;
        create(&site, "default").await;
        for (chosen, expected) in [
            (None, [of_default, of_object]),
            (Some(Envelope::Plain), [false, false]),
            (Some(Envelope::RustFs), [true, true]),
        ] {
            let signer = site.signer_with("kms-key-user", None, chosen).await;
            let session = session_of(&site, &signer).await;
            for signer in [signer, session] {
                for (body, expected) in [&data, &object].into_iter().zip(expected) {
                    let made = kms_by(&site, &signer, RUST_SDK, "GenerateDataKey", body).await;
                    assert_eq!(is_enveloped(&made), expected, "{setting:?} {chosen:?}");
                }
                let body = json!({"KeyId": "default", "Plaintext": "QUJD"});
                let made = kms_by(&site, &signer, RUST_SDK, "Encrypt", &body).await;
                assert!(!is_enveloped(&made), "Encrypt never does it");
            }
        }
    }
}

/// A signer of a session of this access key.
async fn session_of(site: &MemorySite, parent: &Signer) -> Signer {
    let signer = parent.clone().for_service("sts");
    let form = "Action=AssumeRole&RoleArn=a&RoleSessionName=test&Version=2011-06-15";
    let answer = site.call_at(&signer, "POST", "/", form).await;
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    let text = |name: &str| {
        let (_, rest) = body.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    Signer::new(&text("AccessKeyId"), &text("SecretAccessKey")).with_token(&text("SessionToken"))
}

#[tokio::test]
async fn only_the_ciphertext_in_an_envelope_counts() {
    let site = enveloping().await;
    create(&site, "other").await;
    let made = kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": UUID, "KeySpec": "AES_256"}),
    );
    let made = made.await;
    let plaintext = made.text("Plaintext");
    let valid = envelope(&made);
    let with = |member: &str, value: Value| {
        let mut changed = valid.clone();
        changed[member] = value;
        changed.to_string()
    };
    for changed in [
        format!(" \r\n\t{valid} "),
        with("master_key_id", json!("other")),
        with("master_key_version", json!(7)),
        with("key_id", json!(null)),
        with("encryption_context", json!({"a": "1"})),
        with("created_at", json!({"no": ["date"]})),
        with("context_binding", json!("new")),
    ] {
        let body = json!({"CiphertextBlob": base64(&changed)});
        let opened = kms(&site, "Decrypt", body).await;
        assert_eq!(opened.text("Plaintext"), plaintext, "{changed}");
        assert!(opened.text("KeyId").ends_with(UUID), "{changed}");
    }
    let body = json!({"CiphertextBlob": base64(valid.to_string()), "KeyId": "other"});
    let refused = kms(&site, "Decrypt", body).await;
    assert_eq!(code(&refused), "IncorrectKeyException");
    let body =
        json!({"CiphertextBlob": base64(valid.to_string()), "EncryptionContext": {"a": "1"}});
    let refused = kms(&site, "Decrypt", body).await;
    assert_eq!(code(&refused), "InvalidCiphertextException");
}

#[tokio::test]
async fn malformed_envelopes_are_invalid_ciphertexts() {
    let site = enveloping().await;
    let made = kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": UUID, "KeySpec": "AES_256"}),
    );
    let valid = envelope(&made.await);
    let text = valid.to_string();
    let ciphertext = valid["encrypted_key"].to_string();
    let mut wrong = Vec::new();
    for member in [
        "key_id",
        "master_key_id",
        "key_spec",
        "encrypted_key",
        "nonce",
        "encryption_context",
        "created_at",
    ] {
        let mut changed = valid.clone();
        changed.as_object_mut().unwrap().remove(member);
        wrong.push(changed.to_string());
        // A repeated member, even with the same value.
        let value = &valid[member];
        wrong.push(text.replacen('{', &format!("{{\"{member}\":{value},"), 1));
    }
    let nested: Vec<u8> = text.clone().into_bytes();
    for value in [
        json!(null),
        json!([]),
        json!([1, 2, 3]),
        json!([256]),
        json!([-1]),
        json!([1.5]),
        json!("AAAA"),
        json!({}),
        json!(nested),
    ] {
        wrong.push(text.replace(&ciphertext, &value.to_string()));
    }
    wrong.extend([
        "{}".to_owned(),
        "{".to_owned(),
        format!("[{text}]"),
        format!("{text}x"),
        format!("{text}{text}"),
        text.get(..text.len() - 1).unwrap().to_owned(),
        text.replacen('{', &format!("{{\"deep\":{}", "[".repeat(200)), 1),
    ]);
    for wrong in wrong {
        for (target, member) in [("Decrypt", "KeyId"), ("ReEncrypt", "DestinationKeyId")] {
            let body = json!({"CiphertextBlob": base64(&wrong), member: UUID});
            let refused = kms(&site, target, body).await;
            let expected = match wrong.len() {
                ..=6144 => "InvalidCiphertextException",
                _ => "ValidationException",
            };
            assert_eq!(code(&refused), expected, "{wrong}");
        }
    }
}

#[tokio::test]
async fn longest_data_key_in_an_envelope_is_as_long_as_decrypt_takes() {
    let site = enveloping().await;
    let id = "k".repeat(128);
    create(&site, &id).await;
    let made = kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": id, "NumberOfBytes": 1024}),
    );
    let made = made.await;
    let size = blob(&made).len();
    assert!(is_enveloped(&made) && size <= 6144, "{size}");
    // Even if each byte had three digits.
    let digits: usize = inner(&envelope(&made))
        .iter()
        .map(|byte| byte.to_string().len())
        .sum();
    assert!(size - digits + 3 * inner(&envelope(&made)).len() <= 6144);
    let body = json!({"CiphertextBlob": made.text("CiphertextBlob")});
    let opened = kms(&site, "Decrypt", body).await;
    assert_eq!(opened.text("Plaintext"), made.text("Plaintext"));
    let padded = [blob(&made), vec![b' '; 6145 - size]].concat();
    let refused = kms(&site, "Decrypt", json!({"CiphertextBlob": base64(padded)})).await;
    assert_eq!(code(&refused), "ValidationException");
}

#[tokio::test]
async fn reencryption_keeps_the_envelope_while_it_fits() {
    let site = enveloping().await;
    let long = "k".repeat(128);
    create(&site, &long).await;
    let made = kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": UUID, "KeySpec": "AES_256"}),
    );
    let made = made.await;
    for (blob, expected) in [(blob(&made), true), (inner(&envelope(&made)), false)] {
        let body = json!({"CiphertextBlob": base64(blob), "DestinationKeyId": long});
        let moved = kms(&site, "ReEncrypt", body).await;
        assert_eq!(is_enveloped(&moved), expected);
        let body = json!({"CiphertextBlob": moved.text("CiphertextBlob")});
        let opened = kms(&site, "Decrypt", body).await;
        assert_eq!(opened.text("Plaintext"), made.text("Plaintext"));
    }
    // A plaintext that only fits under the shorter id.
    let secret = base64(vec![7; 1430]);
    let body = json!({"KeyId": UUID, "Plaintext": secret});
    let sealed = blob(&kms(&site, "Encrypt", body).await);
    let mut by_hand = envelope(&made);
    by_hand["encrypted_key"] = json!(sealed);
    let body = json!({"CiphertextBlob": base64(by_hand.to_string()), "DestinationKeyId": long});
    let moved = kms(&site, "ReEncrypt", body).await;
    assert!(!is_enveloped(&moved));
    let opened = kms(
        &site,
        "Decrypt",
        json!({"CiphertextBlob": moved.text("CiphertextBlob")}),
    );
    assert_eq!(opened.await.text("Plaintext"), secret);
}
