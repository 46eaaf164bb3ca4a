//! AWS KMS's API: golden answers, the texts that AWS was recorded with, signatures, permissions, and one key space with
//! the other dialects.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::Request;

use keyway_domain::ports::{Clock, Kind};
use keyway_tests::{Answer, MemorySite, Signer, project};
use serde_json::{Value, json};

pub(crate) const ARN: &str = "arn:aws:kms:us-east-1:000000000000:key/";

/// A signer for this operation.
pub(crate) fn for_target(signer: &Signer, target: &str) -> Signer {
    let signer = signer.clone().for_service("kms");
    signer.with_target(&format!("TrentService.{target}"))
}

pub(crate) async fn kms_as(site: &MemorySite, signer: &Signer, target: &str, body: &str) -> Answer {
    let signer = for_target(signer, target);
    site.call_at(&signer, "POST", "/", body).await
}

pub(crate) async fn kms(site: &MemorySite, target: &str, body: Value) -> Answer {
    kms_as(site, site.root(), target, &body.to_string()).await
}

pub(crate) async fn create(site: &MemorySite, id: &str) {
    let body = json!({"key_id": id}).to_string();
    assert_eq!(site.call("POST", "/kms/keys", &body).await.status, 200);
}

pub(crate) async fn site_with(keys: &[&str]) -> MemorySite {
    let site = MemorySite::running().await;
    for id in keys {
        create(&site, id).await;
    }
    site
}

/// Code and message of a refusal, whose head is checked on the way.
pub(crate) fn refused(answer: &Answer) -> (String, String) {
    let body = answer.json();
    assert_eq!(answer.status, 400, "{body}");
    checked_head(answer);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("__type"), text("message"))
}

fn checked_head(answer: &Answer) {
    let content_type = answer.header("content-type");
    assert_eq!(content_type, Some("application/x-amz-json-1.1"));
    let caching = answer.header("cache-control");
    assert_eq!(caching, Some("no-cache, no-store, must-revalidate"));
    let id = answer.header("x-request-id");
    assert!(id.is_some());
    assert_eq!(answer.header("x-amzn-requestid"), id);
}

pub(crate) fn shown(answer: &Answer) -> String {
    checked_head(answer);
    let body = std::str::from_utf8(&answer.body).unwrap();
    let pretty = match body.is_empty() {
        true => String::new(),
        false => serde_json::to_string_pretty(&answer.json()).unwrap(),
    };
    format!("{}\n{pretty}", answer.status)
}

macro_rules! golden {
    ($site:expr, $name:literal, $target:literal, $body:tt) => {
        let answer = kms(&$site, $target, json!($body)).await;
        insta::assert_snapshot!($name, shown(&answer));
    };
}

#[tokio::test]
async fn answers_about_keys_are_the_golden_ones() {
    let site = site_with(&["app-1", "app-2"]).await;
    golden!(site, "create", "CreateKey", {
        "Description": "for reports", "KeySpec": "SYMMETRIC_DEFAULT", "KeyUsage": "ENCRYPT_DECRYPT",
        "Origin": "AWS_KMS", "MultiRegion": false, "NewMember": {"of": ["a new SDK"]},
        "Tags": [{"TagKey": "team", "TagValue": "data"}, {"TagKey": "name", "TagValue": "reports"}]
    });
    golden!(site, "describe", "DescribeKey", {"KeyId": "app-1", "GrantTokens": ["none"]});
    golden!(site, "list", "ListKeys", {"Limit": 1});
    golden!(site, "list_all", "ListKeys", {});
    golden!(site, "disable", "DisableKey", {"KeyId": "app-1"});
    golden!(site, "describe_disabled", "DescribeKey", {"KeyId": format!("{ARN}app-1")});
    golden!(site, "enable", "EnableKey", {"KeyId": "app-1"});
    golden!(site, "update_description", "UpdateKeyDescription", {"KeyId": "app-1", "Description": "new"});
    golden!(site, "rotate", "RotateKeyOnDemand", {"KeyId": "app-1"});
    golden!(site, "describe_rotated", "DescribeKey", {"KeyId": "app-1"});
    golden!(site, "rotation_status", "GetKeyRotationStatus", {"KeyId": "app-1"});
    golden!(site, "tag", "TagResource", {"KeyId": "app-1", "Tags": [
        {"TagKey": "a", "TagValue": "1"}, {"TagKey": "b", "TagValue": ""}, {"TagKey": "c", "TagValue": "3"}
    ]});
    golden!(site, "untag", "UntagResource", {"KeyId": "app-1", "TagKeys": ["a", "none"]});
    golden!(site, "list_tags", "ListResourceTags", {"KeyId": "app-1", "Limit": 1});
    let first = kms(
        &site,
        "ListResourceTags",
        json!({"KeyId": "app-1", "Limit": 1}),
    )
    .await;
    let marker = first.text("NextMarker");
    golden!(site, "list_tags_after", "ListResourceTags", {"KeyId": "app-1", "Marker": marker});
    golden!(site, "get_policy", "GetKeyPolicy", {"KeyId": "app-1"});
    golden!(site, "list_policies", "ListKeyPolicies", {"KeyId": "app-1"});
    golden!(site, "schedule", "ScheduleKeyDeletion", {"KeyId": "app-1", "PendingWindowInDays": 7});
    golden!(site, "describe_pending", "DescribeKey", {"KeyId": "app-1"});
    golden!(site, "cancel", "CancelKeyDeletion", {"KeyId": "app-1"});
    golden!(site, "describe_cancelled", "DescribeKey", {"KeyId": "app-1"});
}

#[tokio::test]
async fn answers_about_data_keys_are_the_golden_ones() {
    let site = site_with(&["app-1", "app-2"]).await;
    let context = json!({"bucket": "bucket/a.txt"});
    golden!(site, "generate", "GenerateDataKey", {"KeyId": "app-1", "KeySpec": "AES_256", "EncryptionContext": context});
    golden!(site, "generate_without_plaintext", "GenerateDataKeyWithoutPlaintext", {"KeyId": "app-1", "NumberOfBytes": 64});
    golden!(site, "encrypt", "Encrypt", {"KeyId": "app-1", "Plaintext": "c2VjcmV0", "EncryptionContext": context});
    golden!(site, "random", "GenerateRandom", {"NumberOfBytes": 16});
    let made = kms(
        &site,
        "Encrypt",
        json!({"KeyId": "app-1", "Plaintext": "c2VjcmV0", "EncryptionContext": context}),
    );
    let blob = made.await.text("CiphertextBlob");
    golden!(site, "decrypt", "Decrypt", {"CiphertextBlob": blob, "EncryptionContext": context});
    golden!(site, "reencrypt", "ReEncrypt", {
        "CiphertextBlob": blob, "SourceEncryptionContext": context, "DestinationKeyId": "app-2"
    });
}

#[tokio::test]
async fn blob_opens_in_the_other_dialects_and_theirs_open_here() {
    let site = site_with(&["app-1"]).await;
    let context = json!({"b": "2", "a": "1"});
    let made = kms(
        &site,
        "Encrypt",
        json!({"KeyId": "app-1", "Plaintext": "c2VjcmV0", "EncryptionContext": context}),
    );
    let body = json!({"ciphertext_blob": made.await.text("CiphertextBlob"), "encryption_context": context});
    let opened = site.call("POST", "/kms/decrypt", &body.to_string()).await;
    assert_eq!(opened.text("plaintext"), "c2VjcmV0");

    let body = json!({"key_id": "app-1", "plaintext": "c2VjcmV0", "encryption_context": context});
    let made = site.call("POST", "/kms/encrypt", &body.to_string()).await;
    let body =
        json!({"CiphertextBlob": made.text("ciphertext_blob"), "EncryptionContext": context});
    let opened = kms(&site, "Decrypt", body).await;
    assert_eq!(opened.text("Plaintext"), "c2VjcmV0");
    assert_eq!(opened.text("KeyId"), format!("{ARN}app-1"));
}

#[tokio::test]
async fn data_keys_are_as_long_as_asked_and_open_to_themselves() {
    let site = site_with(&["app-1"]).await;
    for (size, base64) in [
        (json!({"KeySpec": "AES_128"}), 24),
        (json!({"KeySpec": "AES_256"}), 44),
        (json!({"NumberOfBytes": 1}), 4),
        (json!({"NumberOfBytes": 1024}), 1368),
    ] {
        let mut body = size;
        body["KeyId"] = "app-1".into();
        let made = kms(&site, "GenerateDataKey", body).await;
        let plaintext = made.text("Plaintext");
        assert_eq!(plaintext.len(), base64);
        let opened = kms(
            &site,
            "Decrypt",
            json!({"CiphertextBlob": made.text("CiphertextBlob")}),
        )
        .await;
        assert_eq!(opened.text("Plaintext"), plaintext);
        assert_eq!(opened.text("KeyMaterialId"), made.text("KeyMaterialId"));
    }
}

#[tokio::test]
async fn pages_of_keys_have_every_key_once() {
    let site = site_with(&["a", "b", "c"]).await;
    let (mut found, mut marker) = (Vec::new(), Value::Null);
    loop {
        let page = kms(&site, "ListKeys", json!({"Limit": 2, "Marker": marker}))
            .await
            .ok();
        for key in page["Keys"].as_array().unwrap() {
            found.push(key["KeyId"].as_str().unwrap().to_owned());
        }
        assert_eq!(page["Truncated"], page.get("NextMarker").is_some());
        if page["Truncated"] == false {
            break;
        }
        marker = page["NextMarker"].clone();
    }
    assert_eq!(found, ["a", "b", "c"]);
}

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
Encrypt|{"KeyId": "on"}|ValidationException|1 validation error detected: Value null at 'plaintext' failed to satisfy constraint: Member must not be null
Encrypt|{"Plaintext": "QUJD"}|ValidationException|1 validation error detected: Value null at 'keyId' failed to satisfy constraint: Member must not be null
Encrypt|{"KeyId": "on", "Plaintext": "QUJD", "EncryptionAlgorithm": "RSAES_OAEP_SHA_1"}|InvalidKeyUsageException|Algorithm RSAES_OAEP_SHA_1 is incompatible with key spec SYMMETRIC_DEFAULT.
Encrypt|{"KeyId": 1, "Plaintext": "QUJD"}|SerializationException|a member has the wrong type, or is there twice, at line 1 column 11
Encrypt|{"KeyId": "on", "Plaintext": "?"}|SerializationException|plaintext is not base64
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
"#;

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
async fn signature_that_is_not_for_this_service_is_refused() {
    let site = site_with(&["app-1"]).await;
    let time = || SystemTime::from(site.clock.now());
    let signed = |signer: &Signer| signer.request("POST", "keyway.test", "/", b"{}", time());
    let code = |answer: Answer| refused(&answer).0;

    for service in ["s3", "sts", "execute-api"] {
        let signer = site.root().clone().for_service(service);
        let request = signed(&signer.with_target("TrentService.ListKeys"));
        assert_eq!(code(site.send(request).await), "InvalidSignatureException");
    }
    let unknown = Signer::new("nobody", "secret");
    let request = signed(&for_target(&unknown, "ListKeys"));
    assert_eq!(
        code(site.send(request).await),
        "UnrecognizedClientException"
    );
    let wrong = Signer::new("root", "another secret");
    let request = signed(&for_target(&wrong, "ListKeys"));
    assert_eq!(code(site.send(request).await), "InvalidSignatureException");

    // The name of the operation is another one than was signed, or is not signed at all.
    let mut request = signed(&for_target(site.root(), "ListKeys"));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    assert_eq!(code(site.send(request).await), "InvalidSignatureException");
    let mut request = signed(&site.root().clone().for_service("kms"));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    assert_eq!(code(site.send(request).await), "IncompleteSignature");
    let request = Request::post("/").header("host", "keyway.test");
    let request = request.header("x-amz-target", "TrentService.CreateKey");
    let answer = site.send(request.body(Bytes::new()).unwrap()).await;
    assert_eq!(code(answer), "MissingAuthenticationTokenException");
    assert_eq!(site.records(Kind::Key).await.len(), 1);
}

/// A request of root whose signature is in the query, and covers the host alone.
fn presigned(time: SystemTime) -> Request<Bytes> {
    let identity = Credentials::new("root", "root-secret", None, None, "keyway-tests").into();
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(Duration::from_secs(300));
    let params = SigningParams::builder()
        .identity(&identity)
        .region("us-east-1")
        .name("kms")
        .time(time)
        .settings(settings)
        .build()
        .unwrap()
        .into();
    let (uri, headers) = ("http://keyway.test/", [("host", "keyway.test")]);
    let body = SignableBody::Bytes(b"");
    let signable = SignableRequest::new("POST", uri, headers.into_iter(), body);
    let (instructions, _) = sign(signable.unwrap(), &params).unwrap().into_parts();
    let mut request = Request::post(uri).body(Bytes::new()).unwrap();
    instructions.apply_to_request_http1x(&mut request);
    let (mut parts, body) = request.into_parts();
    parts.uri = parts
        .uri
        .path_and_query()
        .unwrap()
        .as_str()
        .parse()
        .unwrap();
    parts.headers.insert("host", "keyway.test".parse().unwrap());
    Request::from_parts(parts, body)
}

#[tokio::test]
async fn presigned_request_is_refused_because_its_operation_is_not_signed() {
    let site = MemorySite::running().await;
    let mut request = presigned(SystemTime::from(site.clock.now()));
    let target = "TrentService.CreateKey".parse().unwrap();
    request.headers_mut().insert("x-amz-target", target);
    let (code, text) = refused(&site.send(request).await);
    assert_eq!(code, "IncompleteSignature");
    assert_eq!(text, "sign the request in the Authorization header");
    assert!(site.records(Kind::Key).await.is_empty());
}

#[tokio::test]
async fn refusal_of_a_permission_does_not_tell_whether_the_key_exists() {
    let site = site_with(&["app-1", "db"]).await;
    let policy = r#"{"Statement":{"Effect":"Allow","Action":"kms:Encrypt","Resource":"arn:aws:kms:::key/app-*"}}"#;
    let signer = site.signer(policy).await;
    let user = format!("arn:aws:iam::000000000000:user/{}", signer.access_key_id());
    for id in ["db", "none"] {
        let body = json!({"KeyId": id, "Plaintext": "QUJD"}).to_string();
        let answer = kms_as(&site, &signer, "Encrypt", &body).await;
        let text = format!(
            "User: {user} is not authorized to perform: kms:Encrypt on resource: {ARN}{id}"
        );
        assert_eq!(refused(&answer), ("AccessDeniedException".to_owned(), text));
    }
    let body = json!({"KeyId": "app-1", "Plaintext": "QUJD"}).to_string();
    assert_eq!(kms_as(&site, &signer, "Encrypt", &body).await.status, 200);
    // Who can never do it does not reach the parser.
    for target in ["ScheduleKeyDeletion", "GenerateRandom", "CreateKey"] {
        let answer = kms_as(&site, &signer, target, "no JSON").await;
        assert_eq!(refused(&answer).0, "AccessDeniedException", "{target}");
    }
    let user = site.signer("kms-key-user").await;
    let drawn = kms_as(&site, &user, "GenerateRandom", r#"{"NumberOfBytes":8}"#).await;
    assert_eq!(drawn.text("Plaintext").len(), 12);
}

#[tokio::test]
async fn path_for_data_keys_changes_no_key() {
    let site = site_with(&["app-1"]).await;
    let before = site.records(Kind::Key).await;
    for path in ["/aws", "/aws/", "/aws/data", "/aws/data/"] {
        let is_data = path.starts_with("/aws/data");
        let describe = for_target(site.root(), "DescribeKey");
        let answer = site
            .call_at(&describe, "POST", path, r#"{"KeyId":"app-1"}"#)
            .await;
        assert_eq!(answer.status, 200, "{path}");
        let disable = for_target(site.root(), "DisableKey");
        let answer = site
            .call_at(&disable, "POST", path, r#"{"KeyId":"app-1"}"#)
            .await;
        if is_data {
            let text = "kms:DisableKey is not served below this path";
            let expected = ("AccessDeniedException".to_owned(), text.to_owned());
            assert_eq!(refused(&answer), expected, "{path}");
        } else {
            assert_eq!(
                (answer.status.as_u16(), &answer.body[..]),
                (200, &b""[..]),
                "{path}"
            );
            let enable = for_target(site.root(), "EnableKey");
            site.call_at(&enable, "POST", path, r#"{"KeyId":"app-1"}"#)
                .await;
        }
    }
    assert_eq!(before.len(), site.records(Kind::Key).await.len());
}

#[tokio::test]
async fn refusal_before_the_operation_is_a_400_too() {
    let site = MemorySite::running().await;
    let signer = for_target(site.root(), "ListKeys");
    let long = "x".repeat((256 << 10) + 1);
    let answer = site.call_at(&signer, "POST", "/aws", &long).await;
    assert_eq!(refused(&answer).0, "RequestEntityTooLargeException");
    for (method, path) in [("GET", "/aws/data"), ("POST", "/aws/nothing")] {
        let answer = site.call_at(&signer, method, path, "").await;
        assert_eq!(refused(&answer).0, "UnknownOperationException", "{path}");
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
async fn request_without_target_at_the_root_is_for_sts() {
    let site = MemorySite::running().await;
    let signer = site.root().clone().for_service("sts");
    let answer = site
        .call_at(&signer, "POST", "/", "Action=GetCallerIdentity")
        .await;
    assert_eq!(answer.header("content-type"), Some("text/xml"));
}

#[tokio::test]
async fn stopped_service_is_a_dependency_that_clients_ask_again() {
    let site = MemorySite::not_configured(false).await;
    let answer = kms(&site, "ListKeys", json!({})).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["__type"], "DependencyTimeoutException");
}

#[tokio::test]
async fn cancelled_deletion_leaves_the_key_disabled() {
    let site = site_with(&["app-1"]).await;
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "app-1"})).await;
    kms(&site, "CancelKeyDeletion", json!({"KeyId": "app-1"})).await;
    let described = kms(&site, "DescribeKey", json!({"KeyId": "app-1"}))
        .await
        .ok();
    assert_eq!(described["KeyMetadata"]["KeyState"], "Disabled");
}

#[tokio::test]
async fn default_policy_is_accepted_in_any_spelling_and_answered() {
    let site = MemorySite::running().await;
    let made = kms(&site, "CreateKey", json!({})).await.ok();
    let id = &made["KeyMetadata"]["KeyId"];
    let policy = kms(
        &site,
        "GetKeyPolicy",
        json!({"KeyId": id, "PolicyName": "default"}),
    )
    .await;
    let lists = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam::000000000000:root"]},
        "Action": ["kms:*"], "Resource": ["*"]
    }});
    for policy in [policy.text("Policy"), lists.to_string()] {
        let made = kms(&site, "CreateKey", json!({"Policy": policy})).await;
        assert_eq!(made.status, 200, "{policy}");
    }
}

/// The operations of AWS's model (botocore 1.44.8), in order.
const MODEL: &str = "
    CancelKeyDeletion ConnectCustomKeyStore CreateAlias CreateCustomKeyStore CreateGrant CreateKey Decapsulate Decrypt
    DeleteAlias DeleteCustomKeyStore DeleteImportedKeyMaterial DeriveSharedSecret DescribeCustomKeyStores DescribeKey
    DisableKey DisableKeyRotation DisconnectCustomKeyStore EnableKey EnableKeyRotation Encapsulate Encrypt
    GenerateDataKey GenerateDataKeyPair GenerateDataKeyPairWithoutPlaintext GenerateDataKeyWithoutPlaintext GenerateMac
    GenerateRandom GetKeyLastUsage GetKeyPolicy GetKeyRotationStatus GetParametersForImport GetPublicKey
    ImportKeyMaterial ListAliases ListGrants ListKeyPolicies ListKeyRotations ListKeys ListResourceTags
    ListRetirableGrants PutKeyPolicy ReEncrypt ReplicateKey RetireGrant RevokeGrant RotateKeyOnDemand
    ScheduleKeyDeletion Sign TagResource UntagResource UpdateAlias UpdateCustomKeyStore UpdateKeyDescription
    UpdatePrimaryRegion Verify VerifyMac
";

/// The operations in the first column of a table of the documentation.
fn documented(header: &str) -> Vec<String> {
    let page = std::fs::read_to_string(project().join("docs/aws-kms.md")).unwrap();
    let (_, table) = page.split_once(header).unwrap();
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[tokio::test]
async fn documentation_has_every_operation_and_says_which_are_served() {
    let site = MemorySite::running().await;
    let served = documented("| Operation | Needs |");
    let others = documented("| Operations | Why |");
    let mut all = [served.clone(), others.clone()].concat();
    all.sort();
    let model: Vec<&str> = MODEL.split_whitespace().collect();
    assert_eq!(all, model);
    for (targets, is_served) in [(served, true), (others, false)] {
        for target in targets {
            let answer = kms_as(&site, site.root(), &target, "[]").await;
            let code = match is_served {
                true => "SerializationException",
                false => "UnsupportedOperationException",
            };
            assert_eq!(refused(&answer).0, code, "{target}");
        }
    }
}

#[tokio::test]
async fn audit_log_names_the_operation_and_its_key() {
    let site = site_with(&["app-1"]).await;
    let body =
        json!({"KeyId": "app-1", "KeySpec": "AES_256", "EncryptionContext": {"bucket": "b"}});
    kms(&site, "GenerateDataKey", body).await;
    kms(
        &site,
        "GenerateDataKey",
        json!({"KeyId": "app-1", "KeySpec": "AES_256", "DryRun": true}),
    )
    .await;
    let events = site.audited();
    let [made, tried] = &events[events.len() - 2..] else {
        panic!("two events");
    };
    for event in [made, tried] {
        assert_eq!(event["dialect"], "aws");
        assert_eq!(event["operation"], "kms:GenerateDataKey");
        assert_eq!(event["class"], "data_key");
        assert_eq!(event["key_id"], "app-1");
    }
    assert_eq!(made["context"], json!(["bucket"]));
    assert_eq!(
        (&made["status"], &tried["status"]),
        (&json!(200), &json!(400))
    );
    assert_eq!(tried["error"], "dry_run");
}
