//! AWS KMS's API: golden answers, one key space with the other dialects, and what the documentation says of it.

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

pub(crate) fn refusal(code: &str, text: impl Into<String>) -> (String, String) {
    (code.to_owned(), text.into())
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

/// Compares an operation's answer with the golden one.
macro_rules! golden {
    ($site:expr, $name:literal, $target:literal, {$($body:tt)*}) => {
        crate::aws::golden!($site, $name, $target, serde_json::json!({$($body)*}));
    };
    ($site:expr, $name:literal, $target:literal, $body:expr) => {
        let answer = crate::aws::kms(&$site, $target, $body).await;
        insta::assert_snapshot!($name, crate::aws::shown(&answer));
    };
}
pub(crate) use golden;

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
