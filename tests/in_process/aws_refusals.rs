//! AWS KMS's API: codes and texts of refusals, as AWS was recorded with them.

use keyway_domain::ports::Kind;
use keyway_tests::MemorySite;
use serde_json::json;

use crate::aws::{kms, kms_as, refusal, refused, site_with};

/// Requests with the code and text that AWS was recorded with, or that its model gives: operation, body, code and text
/// between bars.
const REFUSALS: &str = r#"
GenerateRandom|{}|ValidationException|NumberOfBytes is required.
GenerateRandom|{"NumberOfBytes": null}|ValidationException|NumberOfBytes is required.
GenerateRandom|{"NumberOfBytes": 0}|ValidationException|1 validation error detected: Value '0' at 'numberOfBytes' failed to satisfy constraint: Member must have value greater than or equal to 1
GenerateRandom|{"NumberOfBytes": 1025}|ValidationException|1 validation error detected: Value '1025' at 'numberOfBytes' failed to satisfy constraint: Member must have value less than or equal to 1024
GenerateDataKey|{"KeyId": "on", "KeySpec": "AES_256", "NumberOfBytes": 1}|ValidationException|Please specify either number of bytes or key spec.
GenerateDataKey|{"KeyId": "on"}|ValidationException|Please specify either number of bytes or key spec.
GenerateDataKey|{"KeyId": "on", "KeySpec": "AES_512"}|ValidationException|1 validation error detected: Value 'AES_512' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [AES_256, AES_128]
GenerateDataKey|{"KeyId": "off", "KeySpec": "AES_256"}|DisabledException|arn:aws:kms:us-east-1:000000000000:key/off is disabled.
GenerateDataKey|{"KeyId": "gone", "KeySpec": "AES_256"}|KMSInvalidStateException|arn:aws:kms:us-east-1:000000000000:key/gone is pending deletion.
GenerateDataKey|{"KeyId": "on", "KeySpec": "AES_256", "DryRun": true}|DryRunOperationException|The request would have succeeded, but the DryRun option is set.
Encrypt|{"KeyId": "on", "Plaintext": ""}|ValidationException|1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must have length greater than or equal to 1
Encrypt|{"KeyId": "on"}|ValidationException|1 validation error detected: Value at 'plaintext' failed to satisfy constraint: Member must not be null
Encrypt|{"Plaintext": "QUJD"}|ValidationException|1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null
Encrypt|{"KeyId": "on", "Plaintext": "QUJD", "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}|InvalidKeyUsageException|Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT.
Encrypt|{"KeyId": 1, "Plaintext": "QUJD"}|SerializationException|a member has the wrong type, is not base64, or is there twice, at line 1 column 11
Encrypt|{"KeyId": "on", "Plaintext": "?"}|SerializationException|a member has the wrong type, is not base64, or is there twice, at line 1 column 32
Decrypt|{"CiphertextBlob": "QUJDRA=="}|InvalidCiphertextException|
Decrypt|{"CiphertextBlob": "QUJDRA==", "Recipient": {}}|UnsupportedOperationException|Recipient is not supported here
DescribeKey|{"KeyId": "11111111-1111-4111-8111-111111111111"}|NotFoundException|Key 'arn:aws:kms:us-east-1:000000000000:key/11111111-1111-4111-8111-111111111111' does not exist
DescribeKey|{"KeyId": "no key"}|NotFoundException|Invalid keyId 'no key'
DescribeKey|{"KeyId": "alias/x"}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/x is not found.
DescribeKey|{"KeyId": "arn:aws:kms:us-east-1:000000000000:alias/x"}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/x is not found.
DescribeKey|{"KeyId": "arn:aws:kms:eu-west-1:000000000000:key/on"}|NotFoundException|Invalid arn eu-west-1
DescribeKey|{"KeyId": "arn:aws:kms:us-east-1:111111111111:key/on"}|NotFoundException|Key 'arn:aws:kms:us-east-1:111111111111:key/on' does not exist
DescribeKey|{"KeyId": "arn:aws:s3:::on"}|InvalidArnException|Invalid arn arn:aws:s3:::on
EnableKey|{"KeyId": "gone"}|KMSInvalidStateException|arn:aws:kms:us-east-1:000000000000:key/gone is pending deletion.
ScheduleKeyDeletion|{"KeyId": "gone"}|KMSInvalidStateException|arn:aws:kms:us-east-1:000000000000:key/gone is pending deletion.
ScheduleKeyDeletion|{"KeyId": "on", "PendingWindowInDays": 6}|ValidationException|1 validation error detected: Value '6' at 'pendingWindowInDays' failed to satisfy constraint: Member must have value greater than or equal to 7
CancelKeyDeletion|{"KeyId": "on"}|KMSInvalidStateException|arn:aws:kms:us-east-1:000000000000:key/on is not pending deletion.
ListKeys|{"Marker": "never issued"}|InvalidMarkerException|Marker is not one that this service gave out
CreateKey|{"KeySpec": "HMAC_random", "KeyUsage": "GENERATE_VERIFY_MAC"}|ValidationException|1 validation error detected: Value 'HMAC_random' at 'keySpec' failed to satisfy constraint: Member must satisfy enum value set: [RSA_2048, ECC_NIST_P384, ECC_NIST_P256, ECC_NIST_P521, HMAC_384, RSA_3072, ECC_SECG_P256K1, RSA_4096, SYMMETRIC_DEFAULT, HMAC_256, HMAC_224, HMAC_512]
CreateKey|{"KeySpec": "HMAC_256"}|ValidationException|You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.
CreateKey|{"KeySpec": "HMAC_256", "KeyUsage": "RANDOM"}|ValidationException|1 validation error detected: Value 'RANDOM' at 'keyUsage' failed to satisfy constraint: Member must satisfy enum value set: [ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC]
CreateKey|{"KeySpec": "RSA_2048", "KeyUsage": "SIGN_VERIFY"}|UnsupportedOperationException|KeySpec RSA_2048 is not supported here
CreateKey|{"KeySpec": "HMAC_256", "KeyUsage": "ENCRYPT_DECRYPT"}|ValidationException|KeyUsage ENCRYPT_DECRYPT is not compatible with KeySpec HMAC_256
CreateKey|{"KeyUsage": "GENERATE_VERIFY_MAC"}|ValidationException|KeyUsage GENERATE_VERIFY_MAC is not compatible with KeySpec SYMMETRIC_DEFAULT
CreateKey|{"KeyUsage": "SIGN_VERIFY"}|ValidationException|KeyUsage SIGN_VERIFY is not compatible with KeySpec SYMMETRIC_DEFAULT
CreateKey|{"Origin": "EXTERNAL"}|UnsupportedOperationException|Origin EXTERNAL is not supported here
CreateKey|{"MultiRegion": true}|UnsupportedOperationException|keys of several regions are not supported here
CreateKey|{"Policy": "no JSON"}|MalformedPolicyDocumentException|the policy is not JSON
CreateKey|{"Policy": "{}"}|UnsupportedOperationException|of key policies, only the default one is supported here; policies of access keys say who may use a key
CreateKey|{"Tags": [{"TagKey": "a", "TagValue": ""}, {"TagKey": "a", "TagValue": ""}]}|TagException|Duplicate tag keys
TagResource|{"KeyId": "on", "Tags": [{"TagKey": "AWS:a", "TagValue": ""}]}|TagException|Tags beginning with aws: are reserved
TagResource|{"KeyId": "on", "Tags": [{"TagKey": "", "TagValue": ""}]}|ValidationException|1 validation error detected: Value '' at 'tags.1.member.tagKey' failed to satisfy constraint: Member must have length greater than or equal to 1
GetKeyPolicy|{"KeyId": "on", "PolicyName": "other"}|NotFoundException|No such policy exists
DescribeKey|{"KeyId": "schlüssel"}|ValidationException|1 validation error detected: Value 'schlüssel' at 'keyId' failed to satisfy constraint: Member must satisfy regular expression pattern: ^\p{ASCII}+$
"#;

/// Requests that violate several constraints: operation, body, and the faults between bars, in the order of AWS's model.
const FAULTS: &str = r#"
Encrypt|{}|Value null at 'keyId': not be null|Value at 'plaintext': not be null
Encrypt|{"KeyId": "none", "Plaintext": "", "EncryptionAlgorithm": "AES"}|Value at 'plaintext': have length greater than or equal to 1|Value 'AES' at 'encryptionAlgorithm': satisfy enum value set: [RSAES_OAEP_SHA_1, RSAES_OAEP_SHA_256, SM2PKE, SYMMETRIC_DEFAULT]
Decrypt|{"KeyId": "", "GrantTokens": ["", "secret"]}|Value null at 'ciphertextBlob': not be null|Value at 'grantTokens': satisfy constraint: [Member must have length less than or equal to 8192, Member must have length greater than or equal to 1]|Value '' at 'keyId': have length greater than or equal to 1|Value '' at 'keyId': satisfy regular expression pattern: ^\p{ASCII}+$
GenerateDataKey|{"KeySpec": "AES_512", "NumberOfBytes": -1, "Recipient": {}}|Value null at 'keyId': not be null|Value '-1' at 'numberOfBytes': have value greater than or equal to 1|Value 'AES_512' at 'keySpec': satisfy enum value set: [AES_256, AES_128]
GenerateRandom|{"NumberOfBytes": 1025, "CustomKeyStoreId": ""}|Value '1025' at 'numberOfBytes': have value less than or equal to 1024|Value '' at 'customKeyStoreId': have length greater than or equal to 1
ReEncrypt|{"CiphertextBlob": "", "SourceKeyId": "é"}|Value at 'ciphertextBlob': have length greater than or equal to 1|Value 'é' at 'sourceKeyId': satisfy regular expression pattern: ^\p{ASCII}+$|Value null at 'destinationKeyId': not be null
VerifyMac|{}|Value at 'message': not be null|Value null at 'keyId': not be null|Value null at 'macAlgorithm': not be null|Value null at 'mac': not be null
CreateAlias|{"AliasName": ""}|Value '' at 'aliasName': have length greater than or equal to 1|Value '' at 'aliasName': satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$|Value null at 'targetKeyId': not be null
ListAliases|{"KeyId": "", "Limit": 0, "Marker": "\n"}|Value '' at 'keyId': have length greater than or equal to 1|Value '' at 'keyId': satisfy regular expression pattern: ^\p{ASCII}+$|Value '0' at 'limit': have value greater than or equal to 1|Value '\n' at 'marker': satisfy regular expression pattern: [\u0020-\u00FF]*
TagResource|{"Tags": [{}, {"TagKey": "", "TagValue": "v"}]}|Value null at 'keyId': not be null|Value null at 'tags.1.member.tagKey': not be null|Value null at 'tags.1.member.tagValue': not be null|Value '' at 'tags.2.member.tagKey': have length greater than or equal to 1
UntagResource|{"TagKeys": ["a", ""]}|Value null at 'keyId': not be null|Value '[a, ]' at 'tagKeys': satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]
CreateKey|{"Policy": "", "KeyUsage": "SEAL", "Origin": "MOON", "XksKeyId": "a b", "MultiRegion": true}|Value '' at 'policy': have length greater than or equal to 1|Value '' at 'policy': satisfy regular expression pattern: [\u0009\u000A\u000D\u0020-\u00FF]+|Value 'SEAL' at 'keyUsage': satisfy enum value set: [ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC]|Value 'MOON' at 'origin': satisfy enum value set: [AWS_KMS, EXTERNAL, AWS_CLOUDHSM, EXTERNAL_KEY_STORE]|Value 'a b' at 'xksKeyId': satisfy regular expression pattern: ^[a-zA-Z0-9-_.]+$
PutKeyPolicy|{"KeyId": "none", "PolicyName": "a b"}|Value 'a b' at 'policyName': satisfy regular expression pattern: [\w]+|Value null at 'policy': not be null
ScheduleKeyDeletion|{"PendingWindowInDays": 31}|Value null at 'keyId': not be null|Value '31' at 'pendingWindowInDays': have value less than or equal to 30
EnableKeyRotation|{"KeyId": "none", "RotationPeriodInDays": 89}|Value '89' at 'rotationPeriodInDays': have value greater than or equal to 90
ListKeyRotations|{"IncludeKeyMaterial": "NONE", "Limit": 1001}|Value null at 'keyId': not be null|Value 'NONE' at 'includeKeyMaterial': satisfy enum value set: [ALL_KEY_MATERIAL, ROTATIONS_ONLY]|Value '1001' at 'limit': have value less than or equal to 1000
UpdateKeyDescription|{}|Value null at 'keyId': not be null|Value null at 'description': not be null
"#;

#[tokio::test]
async fn refusal_has_every_fault_of_the_request_before_the_key_is_looked_up() {
    let site = MemorySite::running().await;
    for line in FAULTS.trim().lines() {
        let mut parts = line.split('|');
        let (target, body) = (parts.next().unwrap(), parts.next().unwrap());
        let faults: Vec<String> = parts
            .map(|fault| fault.replacen("': ", "' failed to satisfy constraint: Member must ", 1))
            // The table has one line for each request.
            .map(|fault| fault.replace("'\\n'", "'\n'"))
            .collect();
        let errors = match faults.len() {
            1 => "1 validation error".to_owned(),
            count => format!("{count} validation errors"),
        };
        let text = format!("{errors} detected: {}", faults.join("; "));
        let answer = kms_as(&site, site.root(), target, body).await;
        assert_eq!(refused(&answer), refusal("ValidationException", text));
    }
}

#[tokio::test]
async fn answer_to_a_long_faulty_request_is_short() {
    let site = site_with(&["on"]).await;
    let tags = vec![json!({}); 20_000];
    let answer = kms(&site, "TagResource", json!({"KeyId": "on", "Tags": tags})).await;
    let (code, text) = refused(&answer);
    assert_eq!(code, "ValidationException");
    assert!(
        text.starts_with("100 validation errors detected: "),
        "{text}"
    );
    let names = vec!["n".repeat(129); 1000];
    let body = json!({"KeyId": "k".repeat(100_000), "TagKeys": names});
    let answer = kms(&site, "UntagResource", body).await;
    assert_eq!(refused(&answer).0, "ValidationException");
    assert!(answer.body.len() < 5000, "{}", answer.body.len());
}

#[tokio::test]
async fn refusal_has_the_code_and_text_of_aws() {
    let site = site_with(&["on", "off", "gone"]).await;
    kms(&site, "DisableKey", json!({"KeyId": "off"})).await;
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "gone"})).await;
    for line in REFUSALS.lines().filter(|line| !line.is_empty()) {
        let mut parts = line.splitn(4, '|');
        let mut part = || parts.next().unwrap();
        let (target, body) = (part(), part());
        let expected = (part().to_owned(), part().to_owned());
        let answer = kms_as(&site, site.root(), target, body).await;
        assert_eq!(refused(&answer), expected, "{target} {body}");
    }
}

#[tokio::test]
async fn member_that_is_too_long_is_refused() {
    let site = site_with(&["on"]).await;
    let at = |member: &str, most: usize| {
        format!(
            "at '{member}' failed to satisfy constraint: Member must have length less than or equal to {most}"
        )
    };
    let tags = vec![json!({"TagKey": "a", "TagValue": ""}); 51];
    let tag = |key: &str, value: &str| json!([{"TagKey": key, "TagValue": value}]);
    let long = "a".repeat(6145);
    for (target, member, value, code, end) in [
        (
            "Encrypt",
            "Plaintext",
            json!("A".repeat(4 * 1366)),
            "ValidationException",
            at("plaintext", 4096),
        ),
        (
            "Decrypt",
            "CiphertextBlob",
            json!("A".repeat(4 * 2049)),
            "ValidationException",
            at("ciphertextBlob", 6144),
        ),
        (
            "DescribeKey",
            "KeyId",
            json!(long[..2049]),
            "ValidationException",
            at("keyId", 2048),
        ),
        (
            "TagResource",
            "Tags",
            json!(tags),
            "TagException",
            "Too many tags".to_owned(),
        ),
        (
            "TagResource",
            "Tags",
            tag(&long[..129], ""),
            "ValidationException",
            at("tags.1.member.tagKey", 128),
        ),
        (
            "TagResource",
            "Tags",
            tag("a", &long[..257]),
            "ValidationException",
            at("tags.1.member.tagValue", 256),
        ),
    ] {
        let mut body = json!({"KeyId": "on"});
        body[member] = value;
        let (found, message) = refused(&kms(&site, target, body).await);
        assert_eq!(found, code, "{target}");
        assert!(message.ends_with(&end), "{message}");
    }
}

#[tokio::test]
async fn tag_beyond_the_fiftieth_of_a_key_is_refused_with_aws_text() {
    let site = site_with(&["on"]).await;
    let tag = async |name: String| {
        let tags = json!([{"TagKey": name, "TagValue": ""}]);
        kms(&site, "TagResource", json!({"KeyId": "on", "Tags": tags})).await
    };
    for number in 0..50 {
        assert_eq!(tag(number.to_string()).await.status, 200);
    }
    let expected = ("TagException".to_owned(), "Too many tags".to_owned());
    assert_eq!(refused(&tag("one more".to_owned()).await), expected);
    // The value of a tag can still change.
    assert_eq!(tag("7".to_owned()).await.status, 200);
}

#[tokio::test]
async fn decryption_with_another_context_or_key_is_refused() {
    let site = site_with(&["app-1", "app-2"]).await;
    let made = kms(
        &site,
        "Encrypt",
        json!({"KeyId": "app-1", "Plaintext": "QUJD", "EncryptionContext": {"a": "1"}}),
    );
    let blob = made.await.text("CiphertextBlob");
    let other = kms(
        &site,
        "Decrypt",
        json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "2"}}),
    )
    .await;
    assert_eq!(
        other.json(),
        json!({"__type": "InvalidCiphertextException"})
    );
    let body = json!({"CiphertextBlob": blob, "EncryptionContext": {"a": "1"}, "KeyId": "app-2"});
    let (code, message) = refused(&kms(&site, "Decrypt", body).await);
    assert_eq!(code, "IncorrectKeyException");
    assert!(message.starts_with("The key ID in the request does not identify a CMK"));
}

#[tokio::test]
async fn body_that_is_no_object_is_refused_and_an_empty_one_is_an_object() {
    let site = MemorySite::running().await;
    for body in [
        "[]",
        "null",
        "\"a\"",
        "{",
        "{\"Limit\":\"1\"}",
        "{\"Limit\":1,\"Limit\":1}",
        "{\"Limit\":1.5}",
    ] {
        let answer = kms_as(&site, site.root(), "ListKeys", body).await;
        assert_eq!(refused(&answer).0, "SerializationException", "{body}");
    }
    for body in ["", " ", "{}", "{\"Limit\":null}"] {
        assert_eq!(
            kms_as(&site, site.root(), "ListKeys", body).await.status,
            200,
            "{body}"
        );
    }
}

#[tokio::test]
async fn unknown_and_unsupported_operations_are_told_apart() {
    let site = MemorySite::running().await;
    for target in [
        "TrentService.Nope",
        "TrentService.",
        "DynamoDB_20120810.GetItem",
        "Decrypt",
        "trentservice.Decrypt",
    ] {
        let signer = site.root().clone().for_service("kms").with_target(target);
        let answer = site.call_at(&signer, "POST", "/", "{}").await;
        assert_eq!(
            answer.json(),
            json!({"__type": "UnknownOperationException"}),
            "{target}"
        );
        assert_eq!(answer.status, 400);
    }
    for target in ["Sign", "GetPublicKey", "ReplicateKey", "CreateGrant"] {
        let answer = kms(&site, target, json!({})).await;
        assert_eq!(
            refused(&answer).0,
            "UnsupportedOperationException",
            "{target}"
        );
    }
}

#[tokio::test]
async fn key_specs_of_newer_models_are_unsupported() {
    let site = MemorySite::running().await;
    for body in [
        r#"{"KeySpec":"ML_DSA_44","KeyUsage":"SIGN_VERIFY"}"#,
        r#"{"KeySpec":"ECC_NIST_P256","KeyUsage":"KEY_AGREEMENT"}"#,
    ] {
        let answer = kms_as(&site, site.root(), "CreateKey", body).await;
        assert_eq!(
            refused(&answer).0,
            "UnsupportedOperationException",
            "{body}"
        );
    }
    assert!(site.records(Kind::Key).await.is_empty());
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
