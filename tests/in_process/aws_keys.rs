//! AWS KMS's API: policies, descriptions, contexts and tags of keys, with limits that are wider than those of the other dialects.

use keyway_tests::MemorySite;
use serde_json::{Value, json};

use crate::aws::{kms, kms_as, refusal, refused, site_with};

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
