//! AWS KMS's API: MAC keys.

use keyway_tests::MemorySite;
use serde_json::{Value, json};

use crate::aws::{ARN, golden, kms, refusal, refused, site_with};

const SPECS: [(&str, &str, usize); 4] = [
    ("HMAC_224", "HMAC_SHA_224", 40),
    ("HMAC_256", "HMAC_SHA_256", 44),
    ("HMAC_384", "HMAC_SHA_384", 64),
    ("HMAC_512", "HMAC_SHA_512", 88),
];

/// Makes a MAC key, and returns its id.
async fn mac_key(site: &MemorySite, spec: &str) -> String {
    let body = json!({"KeySpec": spec, "KeyUsage": "GENERATE_VERIFY_MAC"});
    let made = kms(site, "CreateKey", body).await.ok();
    made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned()
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
            constraint("at 'message'", "not be null"),
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
