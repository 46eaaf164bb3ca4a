//! AWS KMS's API: MAC keys, rotation, policies of keys, and limits that are wider than those of the other dialects.

use std::time::Duration;

use keyway_domain::ports::Kind;
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};

use crate::aws::{ARN, for_target, kms, kms_as, refused, shown, site_with};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

const SPECS: [(&str, &str, usize); 4] = [
    ("HMAC_224", "HMAC_SHA_224", 40),
    ("HMAC_256", "HMAC_SHA_256", 44),
    ("HMAC_384", "HMAC_SHA_384", 64),
    ("HMAC_512", "HMAC_SHA_512", 88),
];

macro_rules! golden {
    ($site:expr, $name:literal, $target:literal, $body:expr) => {
        let answer = kms(&$site, $target, $body).await;
        insta::assert_snapshot!($name, shown(&answer));
    };
}

/// Makes a MAC key, and returns its id.
async fn mac_key(site: &MemorySite, spec: &str) -> String {
    let body = json!({"KeySpec": spec, "KeyUsage": "GENERATE_VERIFY_MAC"});
    let made = kms(site, "CreateKey", body).await.ok();
    made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
}

fn refusal(code: &str, text: impl Into<String>) -> (String, String) {
    (code.to_owned(), text.into())
}

#[tokio::test]
async fn answers_about_mac_keys_are_the_golden_ones() {
    let site = MemorySite::running().await;
    golden!(
        site,
        "create_mac_key",
        "CreateKey",
        json!({
            "KeySpec": "HMAC_256", "KeyUsage": "GENERATE_VERIFY_MAC", "Description": "test key"
        })
    );
    let key = mac_key(&site, "HMAC_512").await;
    golden!(
        site,
        "describe_mac_key",
        "DescribeKey",
        json!({"KeyId": key})
    );
    let body = json!({"KeyId": key, "Message": "bQ==", "MacAlgorithm": "HMAC_SHA_512"});
    golden!(site, "generate_mac", "GenerateMac", body.clone());
    let mac = kms(&site, "GenerateMac", body.clone()).await.text("Mac");
    let mut body = body;
    body["Mac"] = mac.into();
    golden!(site, "verify_mac", "VerifyMac", body);
}

#[tokio::test]
async fn macs_verify_and_their_refusals_are_those_of_aws() {
    let site = MemorySite::running().await;
    for (spec, algorithm, base64) in SPECS {
        let key = mac_key(&site, spec).await;
        let body =
            |message: &str| json!({"KeyId": key, "Message": message, "MacAlgorithm": algorithm});
        let made = kms(&site, "GenerateMac", body("bQ==")).await;
        let mac = made.text("Mac");
        assert_eq!(mac.len(), base64);
        assert_eq!(made.text("KeyId"), format!("{ARN}{key}"));
        let verify = async |mut body: Value| {
            body["Mac"] = mac.clone().into();
            kms(&site, "VerifyMac", body).await
        };
        let verified = verify(body("bQ==")).await.ok();
        assert_eq!(verified["MacValid"], true);
        let other = verify(body("bg==")).await;
        assert_eq!(other.json(), json!({"__type": "KMSInvalidMacException"}));
        for (_, another, _) in SPECS {
            let mut body = body("bQ==");
            body["MacAlgorithm"] = another.into();
            let answer = verify(body.clone()).await;
            if another == algorithm {
                body["DryRun"] = true.into();
                let tried = refused(&verify(body).await).0;
                assert_eq!(tried, "DryRunOperationException");
                continue;
            }
            let text = format!("Algorithm {another} is incompatible with key spec {spec}.");
            let expected = refusal("InvalidKeyUsageException", text);
            assert_eq!(refused(&answer), expected);
            assert_eq!(refused(&kms(&site, "GenerateMac", body).await), expected);
        }
    }
}

#[tokio::test]
async fn mac_parameters_are_checked() {
    let site = site_with(&["data"]).await;
    let key = mac_key(&site, "HMAC_256").await;
    let enumerated =
        "satisfy enum value set: [HMAC_SHA_384, HMAC_SHA_256, HMAC_SHA_224, HMAC_SHA_512]";
    let constraint = |value: &str, rule: &str| {
        format!(
            "1 validation error detected: Value {value} failed to satisfy constraint: Member must {rule}"
        )
    };
    let tokens = vec!["t"; 11];
    for (member, value, text) in [
        (
            "MacAlgorithm",
            json!("INVALID"),
            constraint("'INVALID' at 'macAlgorithm'", enumerated),
        ),
        (
            "MacAlgorithm",
            Value::Null,
            constraint("null at 'macAlgorithm'", "not be null"),
        ),
        (
            "Message",
            Value::Null,
            constraint("null at 'message'", "not be null"),
        ),
        (
            "Message",
            json!(""),
            constraint("at 'message'", "have length greater than or equal to 1"),
        ),
        (
            "Message",
            json!("A".repeat(5464)),
            constraint("at 'message'", "have length less than or equal to 4096"),
        ),
        (
            "Mac",
            Value::Null,
            constraint("null at 'mac'", "not be null"),
        ),
        (
            "GrantTokens",
            json!(tokens),
            constraint("at 'grantTokens'", "have length less than or equal to 10"),
        ),
    ] {
        let mut body =
            json!({"KeyId": key, "Message": "bQ==", "MacAlgorithm": "HMAC_SHA_256", "Mac": "bQ=="});
        body[member] = value;
        let answer = kms(&site, "VerifyMac", body).await;
        assert_eq!(
            refused(&answer),
            refusal("ValidationException", text),
            "{member}"
        );
    }
    let body = json!({"KeyId": "key id", "Message": "bQ==", "MacAlgorithm": "HMAC_SHA_256"});
    let answer = kms(&site, "GenerateMac", body).await;
    assert_eq!(
        refused(&answer),
        refusal("NotFoundException", "Invalid keyId 'key id'")
    );
}

#[tokio::test]
async fn key_is_refused_for_what_it_is_not_made_for() {
    let site = site_with(&["data"]).await;
    let key = mac_key(&site, "HMAC_256").await;
    let data = kms(
        &site,
        "Encrypt",
        json!({"KeyId": "data", "Plaintext": "QUJD"}),
    )
    .await;
    let blob = data.text("CiphertextBlob");
    for (target, body) in [
        ("Encrypt", json!({"KeyId": key, "Plaintext": "QUJD"})),
        (
            "GenerateDataKey",
            json!({"KeyId": key, "KeySpec": "AES_256"}),
        ),
        (
            "GenerateDataKeyWithoutPlaintext",
            json!({"KeyId": key, "KeySpec": "AES_256"}),
        ),
        (
            "ReEncrypt",
            json!({"CiphertextBlob": blob, "DestinationKeyId": key}),
        ),
    ] {
        let text =
            format!("{ARN}{key} key usage is GENERATE_VERIFY_MAC which is not valid for {target}.");
        let answer = kms(&site, target, body).await;
        assert_eq!(refused(&answer), refusal("InvalidKeyUsageException", text));
    }
    let body = json!({"KeyId": "data", "Message": "bQ==", "MacAlgorithm": "HMAC_SHA_256"});
    let text =
        format!("{ARN}data key usage is ENCRYPT_DECRYPT which is not valid for GenerateMac.");
    let answer = kms(&site, "GenerateMac", body).await;
    assert_eq!(refused(&answer), refusal("InvalidKeyUsageException", text));
    // MAC keys do not rotate: their MACs must verify.
    for target in [
        "RotateKeyOnDemand",
        "EnableKeyRotation",
        "DisableKeyRotation",
        "GetKeyRotationStatus",
        "ListKeyRotations",
    ] {
        let answer = kms(&site, target, json!({"KeyId": key})).await;
        assert_eq!(
            answer.json(),
            json!({"__type": "UnsupportedOperationException"}),
            "{target}"
        );
    }
    let off = kms(&site, "DisableKey", json!({"KeyId": key})).await;
    assert_eq!(off.status, 200);
    let body = json!({"KeyId": key, "Message": "bQ==", "MacAlgorithm": "HMAC_SHA_256"});
    assert_eq!(
        refused(&kms(&site, "GenerateMac", body).await).0,
        "DisabledException"
    );
}

#[tokio::test]
async fn other_dialects_refuse_to_encrypt_with_a_mac_key() {
    let site = MemorySite::running().await;
    let key = mac_key(&site, "HMAC_384").await;

    // RustFS's API shows what the key is for.
    let described = site.call("GET", &format!("/kms/keys/{key}"), "").await.ok();
    let metadata = &described["key_metadata"];
    assert_eq!(metadata["key_usage"], "GENERATE_VERIFY_MAC");
    assert_eq!(metadata["rotation_enabled"], false);
    let listed = site
        .call("GET", "/kms/keys?usage=GENERATE_VERIFY_MAC", "")
        .await
        .ok();
    assert_eq!(listed["keys"][0]["usage"], "GENERATE_VERIFY_MAC");
    assert_eq!(listed["keys"][0]["algorithm"], "HMAC_384");
    let listed = site
        .call("GET", "/kms/keys?usage=EncryptDecrypt", "")
        .await
        .ok();
    assert_eq!(listed["keys"], json!([]));
    for (path, body) in [
        ("/kms/generate-data-key", json!({"key_id": key})),
        ("/kms/encrypt", json!({"key_id": key, "plaintext": "QUJD"})),
        ("/kms/keys/rotate", json!({"key_id": key})),
    ] {
        let answer = site.call("POST", path, &body.to_string()).await;
        let body = answer.json();
        assert_eq!(
            (answer.status.as_u16(), &body["code"]),
            (409, &json!("Conflict")),
            "{path}"
        );
        let text = format!("key `{key}` is for GENERATE_VERIFY_MAC only");
        assert_eq!(body["message"], text);
    }

    let path = format!("/kms/key/status?keyName={key}");
    let status = site.call("GET", &path, "").await.ok();
    assert_eq!(status["algorithm"], "HMAC_384");

    // KES's HMACs need the separate HMAC key that a key for encryption has.
    for (path, body, status, text) in [
        (
            "generate",
            r"{}",
            403,
            "not authorized: insufficient permissions",
        ),
        (
            "encrypt",
            r#"{"plaintext":"QUJD"}"#,
            403,
            "not authorized: insufficient permissions",
        ),
        (
            "hmac",
            r#"{"message":"QUJD"}"#,
            409,
            "key does not support HMAC",
        ),
    ] {
        let answer = site
            .kes("PUT", &format!("/v1/key/{path}/{key}"), body)
            .await;
        assert_eq!(
            (answer.status.as_u16(), &answer.json()["message"]),
            (status, &json!(text))
        );
    }
    let described = site
        .kes("GET", &format!("/v1/key/describe/{key}"), "")
        .await
        .ok();
    assert_eq!(described.get("algorithm"), None);

    let path = format!("/minio/kms/v1/key/status?key-id={key}");
    let status = site.call_at(site.root(), "GET", &path, "").await.ok();
    let text = format!("key {key} is for GENERATE_VERIFY_MAC only");
    assert_eq!(status["encryption-error"], text);

    // A bucket encrypts its objects, which a MAC key cannot.
    site.call_at(
        &site.root().clone().for_service("s3"),
        "PUT",
        "/bucket-a",
        "",
    )
    .await;
    let body = json!({"sse_algorithm": "aws:kms", "kms_master_key_id": key}).to_string();
    let answer = site
        .call("PUT", "/api/v1/bucket-encryption/bucket-a", &body)
        .await;
    assert_eq!(answer.status.as_u16(), 409);
}

async fn sweep_twice(site: &MemorySite) -> Vec<String> {
    site.sweep().await;
    site.clock.advance(HOUR);
    let swept = site.sweep().await;
    swept.rotated.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn answers_about_rotation_are_the_golden_ones() {
    let site = site_with(&["k"]).await;
    let key = json!({"KeyId": "k"});
    golden!(site, "rotation_off", "GetKeyRotationStatus", key.clone());
    golden!(
        site,
        "enable_rotation",
        "EnableKeyRotation",
        json!({"KeyId": "k", "RotationPeriodInDays": 90})
    );
    golden!(site, "rotation_on", "GetKeyRotationStatus", key.clone());
    kms(&site, "RotateKeyOnDemand", key.clone()).await.ok();
    site.clock.advance(90 * DAY);
    assert_eq!(sweep_twice(&site).await, ["k"]);
    golden!(
        site,
        "rotation_on_after",
        "GetKeyRotationStatus",
        key.clone()
    );
    golden!(
        site,
        "list_rotations",
        "ListKeyRotations",
        json!({"KeyId": "k", "IncludeKeyMaterial": "ALL_KEY_MATERIAL"})
    );
    golden!(
        site,
        "list_rotations_page",
        "ListKeyRotations",
        json!({"KeyId": "k", "Limit": 1})
    );
    let first = json!({"KeyId": "k", "Limit": 1});
    let marker = kms(&site, "ListKeyRotations", first)
        .await
        .text("NextMarker");
    golden!(
        site,
        "list_rotations_rest",
        "ListKeyRotations",
        json!({"KeyId": "k", "Limit": 1, "Marker": marker})
    );
    // RustFS's API shows the rotation as it is.
    let described = site.call("GET", "/kms/keys/k", "").await.ok();
    assert_eq!(described["key_metadata"]["rotation_enabled"], true);
    assert_eq!(described["key_metadata"]["key_version"], 3);
    golden!(site, "disable_rotation", "DisableKeyRotation", key.clone());
    golden!(site, "rotation_off_again", "GetKeyRotationStatus", key);
    let event = site
        .audited()
        .into_iter()
        .find(|event| event["dialect"] == "janitor")
        .unwrap();
    assert_eq!(event["operation"], "kms:RotateKey");
    assert_eq!(
        (&event["key_id"], &event["key_version"]),
        (&json!("k"), &json!(3))
    );
}

#[tokio::test]
async fn rotation_parameters_and_states_are_checked() {
    let site = site_with(&["k", "off", "gone"]).await;
    kms(&site, "EnableKeyRotation", json!({"KeyId": "gone"})).await;
    kms(&site, "DisableKey", json!({"KeyId": "off"})).await;
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "gone"})).await;
    let days = |value: i64, rule: &str| {
        format!(
            "1 validation error detected: Value '{value}' at 'rotationPeriodInDays' failed to satisfy constraint: Member must have value {rule}"
        )
    };
    for (target, body, code, text) in [
        (
            "EnableKeyRotation",
            json!({"KeyId": "k", "RotationPeriodInDays": 89}),
            "ValidationException",
            days(89, "greater than or equal to 90"),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "k", "RotationPeriodInDays": 2561}),
            "ValidationException",
            days(2561, "less than or equal to 2560"),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "off"}),
            "DisabledException",
            format!("{ARN}off is disabled."),
        ),
        (
            "DisableKeyRotation",
            json!({"KeyId": "off"}),
            "DisabledException",
            format!("{ARN}off is disabled."),
        ),
        (
            "EnableKeyRotation",
            json!({"KeyId": "gone"}),
            "KMSInvalidStateException",
            format!("{ARN}gone is pending deletion."),
        ),
        (
            "ListKeyRotations",
            json!({"KeyId": "k", "Marker": "2"}),
            "InvalidMarkerException",
            "Marker is not one that this service gave out".to_owned(),
        ),
        (
            "ListKeyRotations",
            json!({"KeyId": "k", "Marker": "01"}),
            "InvalidMarkerException",
            "Marker is not one that this service gave out".to_owned(),
        ),
    ] {
        let answer = kms(&site, target, body).await;
        assert_eq!(refused(&answer), refusal(code, text), "{target}");
    }
    let status = kms(&site, "GetKeyRotationStatus", json!({"KeyId": "gone"}))
        .await
        .ok();
    assert_eq!(
        status,
        json!({"KeyId": format!("{ARN}gone"), "KeyRotationEnabled": false})
    );
    kms(&site, "EnableKeyRotation", json!({"KeyId": "k"})).await;
    let status = kms(&site, "GetKeyRotationStatus", json!({"KeyId": "k"}))
        .await
        .ok();
    assert_eq!(status["RotationPeriodInDays"], 365);
}

/// The default policy with these ids.
fn policy(id: &str) -> Value {
    json!({"Version": "2012-10-17", "Id": id, "Statement": {
        "Sid": "everything", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::000000000000:root"},
        "Action": "kms:*", "Resource": "*"
    }})
}

#[tokio::test]
async fn policy_that_means_the_default_one_is_put_and_answered() {
    let site = site_with(&["k"]).await;
    let default = kms(&site, "GetKeyPolicy", json!({"KeyId": "k"}))
        .await
        .text("Policy");
    let own = policy("mine");
    let pretty = serde_json::to_string_pretty(&own).unwrap();
    let body = json!({"KeyId": "k", "PolicyName": "default", "Policy": pretty, "BypassPolicyLockoutSafetyCheck": true});
    let put = kms(&site, "PutKeyPolicy", body).await;
    assert_eq!((put.status.as_u16(), &put.body[..]), (200, &b""[..]));
    let answered = kms(&site, "GetKeyPolicy", json!({"KeyId": "k"}))
        .await
        .text("Policy");
    assert_eq!(serde_json::from_str::<Value>(&answered).unwrap(), own);
    let made = kms(&site, "CreateKey", json!({"Policy": pretty}))
        .await
        .ok();
    let body = json!({"KeyId": made["KeyMetadata"]["KeyId"]});
    let answered = kms(&site, "GetKeyPolicy", body).await.text("Policy");
    assert_eq!(serde_json::from_str::<Value>(&answered).unwrap(), own);

    let mut narrower = own.clone();
    narrower["Statement"]["Action"] = "kms:Decrypt".into();
    let unsupported = "of key policies, only the default one is supported here; policies of access keys say who may use a key";
    let long = policy(&"i".repeat(2048)).to_string();
    for (policy, code, text) in [
        (
            "my policy".to_owned(),
            "MalformedPolicyDocumentException",
            "the policy is not JSON",
        ),
        (
            "[]".to_owned(),
            "MalformedPolicyDocumentException",
            "the policy is not a JSON object",
        ),
        (
            " ".repeat((32 << 10) + 1),
            "MalformedPolicyDocumentException",
            "the policy is longer than 32 KiB",
        ),
        (
            narrower.to_string(),
            "UnsupportedOperationException",
            unsupported,
        ),
        (
            "{}".to_owned(),
            "UnsupportedOperationException",
            unsupported,
        ),
        (
            long,
            "LimitExceededException",
            "the policy's ids are too long",
        ),
    ] {
        let answer = kms(
            &site,
            "PutKeyPolicy",
            json!({"KeyId": "k", "Policy": policy}),
        )
        .await;
        assert_eq!(refused(&answer), refusal(code, text));
        let answer = kms(&site, "CreateKey", json!({"Policy": policy})).await;
        assert_eq!(refused(&answer), refusal(code, text));
    }
    let answered = kms(&site, "GetKeyPolicy", json!({"KeyId": "k"}))
        .await
        .text("Policy");
    assert_eq!(
        serde_json::from_str::<Value>(&answered).unwrap(),
        own,
        "it stays"
    );
    kms(
        &site,
        "PutKeyPolicy",
        json!({"KeyId": "k", "Policy": default}),
    )
    .await;
    let answered = kms(&site, "GetKeyPolicy", json!({"KeyId": "k"}))
        .await
        .text("Policy");
    let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(parsed(&answered), parsed(&default));

    let body = json!({"KeyId": "k", "PolicyName": "other", "Policy": default});
    assert_eq!(
        refused(&kms(&site, "PutKeyPolicy", body).await).0,
        "UnsupportedOperationException"
    );
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "k"})).await;
    let body = json!({"KeyId": "k", "Policy": default});
    assert_eq!(
        refused(&kms(&site, "PutKeyPolicy", body).await).0,
        "KMSInvalidStateException"
    );
}

#[tokio::test]
async fn policy_is_put_by_callers_with_that_permission_alone() {
    let site = site_with(&["k"]).await;
    for (allowed, is_refused) in [
        ("kms:PutKeyPolicy", false),
        ("kms:Put*", false),
        ("kms:DescribeKey", true),
    ] {
        let signer = site
            .signer(&format!(
                r#"{{"Statement":{{"Effect":"Allow","Action":"{allowed}"}}}}"#
            ))
            .await;
        let body = json!({"KeyId": "k", "Policy": policy("mine").to_string()}).to_string();
        let answer = kms_as(&site, &signer, "PutKeyPolicy", &body).await;
        assert_eq!(answer.status != 200, is_refused, "{allowed}");
        // The permission is checked before the policy is looked at.
        if is_refused {
            let body = json!({"KeyId": "k", "Policy": "no JSON"}).to_string();
            let answer = kms_as(&site, &signer, "PutKeyPolicy", &body).await;
            assert_eq!(refused(&answer).0, "AccessDeniedException");
        }
    }
}

#[tokio::test]
async fn description_is_as_long_as_on_aws_and_other_dialects_show_its_beginning() {
    let site = site_with(&["k"]).await;
    let text = "é".repeat(8192);
    let body = json!({"KeyId": "k", "Description": text});
    assert_eq!(kms(&site, "UpdateKeyDescription", body).await.status, 200);
    let described = kms(&site, "DescribeKey", json!({"KeyId": "k"})).await.ok();
    assert_eq!(described["KeyMetadata"]["Description"], text);
    let body = json!({"KeyId": "k", "Description": "é".repeat(8193)});
    let answer = kms(&site, "UpdateKeyDescription", body).await;
    let (code, text) = refused(&answer);
    assert_eq!(code, "ValidationException");
    assert!(text.ends_with("at 'description' failed to satisfy constraint: Member must have length less than or equal to 8192"));

    let beginning = "é".repeat(256);
    let described = site.call("GET", "/kms/keys/k", "").await.ok();
    assert_eq!(described["key_metadata"]["description"], beginning);
    let listed = site.call("GET", "/kms/keys", "").await.ok();
    assert_eq!(listed["keys"][0]["description"], beginning);
    let long = json!({"key_id": "k", "description": "é".repeat(257)}).to_string();
    let answer = site
        .call("POST", "/kms/keys/update-description", &long)
        .await;
    assert_eq!(answer.status, 400);
}

#[tokio::test]
async fn context_as_wide_as_on_aws_opens_in_the_other_dialects() {
    let site = site_with(&["k"]).await;
    for context in [
        json!({"k".repeat(4096): "v".repeat(4096)}),
        json!({"é": "é".repeat(8191)}),
        Value::Object((0..1000).map(|n| (n.to_string(), json!("v"))).collect()),
    ] {
        let body = json!({"KeyId": "k", "Plaintext": "QUJD", "EncryptionContext": context});
        let blob = kms(&site, "Encrypt", body).await.text("CiphertextBlob");
        let body = json!({"ciphertext_blob": blob, "encryption_context": context}).to_string();
        let opened = site.call("POST", "/kms/decrypt", &body).await;
        assert_eq!(opened.text("plaintext"), "QUJD");
    }
    let body =
        json!({"KeyId": "k", "Plaintext": "QUJD", "EncryptionContext": {"k": "v".repeat(8192)}});
    let text = "encryptionContext: encryption context has 8193 characters, more than 8192";
    assert_eq!(
        refused(&kms(&site, "Encrypt", body).await),
        refusal("ValidationException", text)
    );
}

#[tokio::test]
async fn any_tag_may_be_set_unless_it_is_the_id_of_the_key() {
    let site = MemorySite::running().await;
    let named = json!({"tags": {"name": "app"}}).to_string();
    site.call("POST", "/kms/keys", &named).await.ok();
    let made = kms(
        &site,
        "CreateKey",
        json!({"Tags": [{"TagKey": "name", "TagValue": "a"}]}),
    )
    .await
    .ok();
    let id = made["KeyMetadata"]["KeyId"].clone();
    let tags = json!([{"TagKey": "name", "TagValue": "b"}]);
    let tagged = kms(&site, "TagResource", json!({"KeyId": id, "Tags": tags})).await;
    assert_eq!(tagged.status, 200);
    let untagged = kms(
        &site,
        "UntagResource",
        json!({"KeyId": id, "TagKeys": ["name"]}),
    )
    .await;
    assert_eq!(untagged.status, 200);
    for (target, body) in [
        ("TagResource", json!({"KeyId": "app", "Tags": tags})),
        (
            "UntagResource",
            json!({"KeyId": "app", "TagKeys": ["name"]}),
        ),
    ] {
        assert_eq!(
            refused(&kms(&site, target, body).await).0,
            "TagException",
            "{target}"
        );
    }
}

#[tokio::test]
async fn members_that_are_not_supported_are_refused() {
    let site = site_with(&["k"]).await;
    let recipient = json!({"AttestationDocument": "QUJD"});
    for (target, member, body) in [
        (
            "Decrypt",
            "Recipient",
            json!({"CiphertextBlob": "QUJD", "Recipient": recipient}),
        ),
        (
            "GenerateDataKey",
            "Recipient",
            json!({"KeyId": "k", "KeySpec": "AES_256", "Recipient": recipient}),
        ),
        (
            "GenerateRandom",
            "Recipient",
            json!({"NumberOfBytes": 8, "Recipient": recipient}),
        ),
        (
            "GenerateRandom",
            "CustomKeyStoreId",
            json!({"NumberOfBytes": 8, "CustomKeyStoreId": "cks-1"}),
        ),
        (
            "CreateKey",
            "CustomKeyStoreId",
            json!({"CustomKeyStoreId": "cks-1"}),
        ),
    ] {
        let expected = refusal(
            "UnsupportedOperationException",
            format!("{member} is not supported here"),
        );
        assert_eq!(
            refused(&kms(&site, target, body).await),
            expected,
            "{target}"
        );
    }
    for (target, body, text) in [
        (
            "Encrypt",
            json!({"KeyId": "k", "Plaintext": "QUJD"}),
            "encryptionAlgorithm",
        ),
        (
            "Decrypt",
            json!({"CiphertextBlob": "QUJD"}),
            "encryptionAlgorithm",
        ),
    ] {
        let mut body = body;
        body["EncryptionAlgorithm"] = "SM2PKE".into();
        let expected = "Algorithm SM2PKE is incompatible with key spec SYMMETRIC_DEFAULT.";
        let answer = kms(&site, target, body.clone()).await;
        assert_eq!(
            refused(&answer),
            refusal("InvalidKeyUsageException", expected)
        );
        body["EncryptionAlgorithm"] = "AES".into();
        let (code, message) = refused(&kms(&site, target, body).await);
        assert_eq!(code, "ValidationException");
        assert!(
            message.contains(&format!("Value 'AES' at '{text}'")),
            "{message}"
        );
    }
    for (target, body) in [
        ("DescribeKey", json!({"KeyId": "k"})),
        ("Encrypt", json!({"KeyId": "k", "Plaintext": "QUJD"})),
        ("Decrypt", json!({"CiphertextBlob": "QUJD"})),
        (
            "GenerateDataKey",
            json!({"KeyId": "k", "KeySpec": "AES_256"}),
        ),
        (
            "ReEncrypt",
            json!({"CiphertextBlob": "QUJD", "DestinationKeyId": "k"}),
        ),
    ] {
        let mut body = body;
        body["GrantTokens"] = json!(vec!["t"; 11]);
        let (code, _) = refused(&kms(&site, target, body).await);
        assert_eq!(code, "ValidationException", "{target}");
    }
}

/// The answer to a request, signed at the site's present time.
async fn list_keys(site: &MemorySite, signer: &Signer) -> Answer {
    let signer = for_target(signer, "ListKeys");
    site.call_at(&signer, "POST", "/aws", "{}").await
}

#[tokio::test]
async fn expired_access_key_is_told_so_if_its_signature_is_right() {
    let site = site_with(&["k"]).await;
    let life = Some(Duration::from_secs(900));
    let right = site.signer_for("kms-admin", life).await;
    assert_eq!(list_keys(&site, &right).await.status, 200);
    site.clock.advance(Duration::from_secs(901));
    let text = "The security token included in the request is expired";
    let expected = refusal("ExpiredTokenException", text);
    assert_eq!(refused(&list_keys(&site, &right).await), expected);
    let wrong = Signer::new(right.access_key_id(), "another secret");
    let wrong = refused(&list_keys(&site, &wrong).await);
    assert_eq!(wrong.0, "InvalidSignatureException");
    // RustFS's API refuses it as any request without valid credentials.
    let answer = site.call_as(&right, "GET", "/kms/keys", "").await;
    assert_eq!(answer.status, 401);
    // After a day, the access key is gone.
    site.clock.advance(DAY);
    let gone = refused(&list_keys(&site, &right).await);
    assert_eq!(gone.0, "UnrecognizedClientException");
    assert_eq!(site.records(Kind::Key).await.len(), 1);
}
