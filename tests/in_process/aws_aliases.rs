//! Aliases in AWS KMS's API, ARNs, AWS's names in policies, and the services that each API's requests are signed for.

use keyway_domain::ports::{Clock as _, Kind};
use keyway_tests::{Answer, MemorySite, Signer};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

use crate::aws::{create, kms, kms_as, refused, shown, site_with};

const ACCOUNT: &str = "arn:aws:kms:us-east-1:000000000000";

async fn alias(site: &MemorySite, name: &str, key: &str) {
    let body = json!({"AliasName": name, "TargetKeyId": key});
    let made = kms(site, "CreateAlias", body).await;
    assert_eq!(made.status, 200);
    assert!(made.body.is_empty());
}

/// A signer whose access key has this policy.
async fn with_policy(site: &MemorySite, statements: Value) -> Signer {
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    site.signer(&policy.to_string()).await
}

fn denied(answer: &Answer, action: &str, resource: &str) {
    let (code, text) = refused(answer);
    assert_eq!(code, "AccessDeniedException");
    let end = format!(" is not authorized to perform: {action} on resource: {ACCOUNT}:{resource}");
    assert!(text.ends_with(&end), "{text}");
}

#[tokio::test]
async fn answers_about_aliases_are_the_golden_ones() {
    let site = site_with(&["app-1", "app-2"]).await;
    alias(&site, "alias/app/one", "app-1").await;
    alias(&site, "alias/app/two", &format!("{ACCOUNT}:key/app-1")).await;
    alias(&site, "alias/other", "app-2").await;
    site.clock.advance(Duration::from_millis(1500));
    let moved = json!({"AliasName": "alias/app/two", "TargetKeyId": "app-2"});
    assert_eq!(shown(&kms(&site, "UpdateAlias", moved).await), "200 OK\n");
    let all = kms(&site, "ListAliases", json!({})).await;
    insta::assert_snapshot!("list_aliases", shown(&all));

    let mut names = Vec::new();
    let mut body = json!({"Limit": 1, "KeyId": format!("{ACCOUNT}:key/app-2")});
    loop {
        let page = kms(&site, "ListAliases", body.clone()).await.ok();
        names.push(page["Aliases"][0]["AliasName"].clone());
        assert_eq!(page["Truncated"], page.get("NextMarker").is_some());
        match page.get("NextMarker") {
            Some(marker) => body["Marker"] = marker.clone(),
            None => break,
        }
    }
    assert_eq!(names, ["alias/app/two", "alias/other"]);
    let gone = kms(&site, "DeleteAlias", json!({"AliasName": "alias/other"})).await;
    assert_eq!(shown(&gone), "200 OK\n");
    let left = kms(&site, "ListAliases", json!({"KeyId": "app-2"}))
        .await
        .ok();
    assert_eq!(left["Aliases"].as_array().unwrap().len(), 1);
    assert_eq!(left["Truncated"], false);
}

#[tokio::test]
async fn alias_names_a_key_wherever_aws_allows_it() {
    let site = site_with(&["app-1", "app-2"]).await;
    alias(&site, "alias/one", "app-1").await;
    alias(&site, "alias/two", "app-2").await;
    let key = format!("{ACCOUNT}:key/app-1");
    for name in [
        "alias/one".to_owned(),
        format!("{ACCOUNT}:alias/one"),
        // No alias of this name is stored, so it is the key of that id.
        "alias/app-1".to_owned(),
    ] {
        let described = kms(&site, "DescribeKey", json!({"KeyId": name})).await.ok();
        assert_eq!(described["KeyMetadata"]["Arn"], key);
        for (target, size) in [
            ("GenerateDataKey", "KeySpec"),
            ("GenerateDataKeyWithoutPlaintext", "KeySpec"),
        ] {
            let made = kms(&site, target, json!({"KeyId": name, size: "AES_256"})).await;
            assert_eq!(made.ok()["KeyId"], key, "{target}");
        }
        let body = json!({"KeyId": name, "Plaintext": "aGVsbG8="});
        let sealed = kms(&site, "Encrypt", body).await.ok();
        assert_eq!(sealed["KeyId"], key);
        let body = json!({"CiphertextBlob": sealed["CiphertextBlob"], "KeyId": name});
        let opened = kms(&site, "Decrypt", body).await.ok();
        assert_eq!(opened["Plaintext"], "aGVsbG8=");
        let body = json!({
            "CiphertextBlob": sealed["CiphertextBlob"], "SourceKeyId": name,
            "DestinationKeyId": "alias/two",
        });
        let moved = kms(&site, "ReEncrypt", body).await.ok();
        assert_eq!(moved["SourceKeyId"], key);
        assert_eq!(moved["KeyId"], format!("{ACCOUNT}:key/app-2"));
        let body = json!({"CiphertextBlob": sealed["CiphertextBlob"], "KeyId": "alias/two"});
        let other = kms(&site, "Decrypt", body).await;
        assert_eq!(refused(&other).0, "IncorrectKeyException");
    }
    for target in [
        "EnableKey",
        "DisableKey",
        "ScheduleKeyDeletion",
        "CancelKeyDeletion",
        "RotateKeyOnDemand",
        "GetKeyRotationStatus",
        "GetKeyPolicy",
        "ListKeyPolicies",
        "ListResourceTags",
        "ListAliases",
    ] {
        let answer = kms(&site, target, json!({"KeyId": "alias/one"})).await;
        let expected = "Invalid keyId 'alias/one'";
        assert_eq!(
            refused(&answer),
            ("NotFoundException".to_owned(), expected.to_owned())
        );
        let arn = format!("{ACCOUNT}:alias/one");
        let answer = kms(&site, target, json!({"KeyId": arn})).await;
        let expected = format!("Invalid arn {arn}");
        assert_eq!(
            refused(&answer),
            ("InvalidArnException".to_owned(), expected)
        );
    }
}

/// Operation, body, code and text, separated by bars.
const REFUSALS: &str = r#"
CreateAlias|{"TargetKeyId": "app-1"}|ValidationException|1 validation error detected: Value null at 'aliasName' failed to satisfy constraint: Member must not be null
CreateAlias|{"AliasName": "alias/n"}|ValidationException|1 validation error detected: Value null at 'targetKeyId' failed to satisfy constraint: Member must not be null
CreateAlias|{"AliasName": "mine", "TargetKeyId": "app-1"}|ValidationException|Alias must start with the prefix "alias/". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html
CreateAlias|{"AliasName": "alias/a b", "TargetKeyId": "app-1"}|ValidationException|1 validation error detected: Value 'alias/a b' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$
CreateAlias|{"AliasName": "alias/a:b", "TargetKeyId": "app-1"}|ValidationException|alias/a:b contains invalid characters for an alias
CreateAlias|{"AliasName": "alias/", "TargetKeyId": "app-1"}|ValidationException|alias/ contains invalid characters for an alias
CreateAlias|{"AliasName": "", "TargetKeyId": "app-1"}|ValidationException|2 validation errors detected: Value '' at 'aliasName' failed to satisfy constraint: Member must have length greater than or equal to 1; Value '' at 'aliasName' failed to satisfy constraint: Member must satisfy regular expression pattern: ^[a-zA-Z0-9:/_-]+$
CreateAlias|{"AliasName": "alias/aws/s3", "TargetKeyId": "app-1"}|NotAuthorizedException|
DeleteAlias|{"AliasName": "alias/aws/s3"}|NotAuthorizedException|
CreateAlias|{"AliasName": "alias/n", "TargetKeyId": "alias/one"}|ValidationException|Aliases must refer to keys. Not aliases
CreateAlias|{"AliasName": "alias/n", "TargetKeyId": "none"}|NotFoundException|Key 'arn:aws:kms:us-east-1:000000000000:key/none' does not exist
CreateAlias|{"AliasName": "alias/n", "TargetKeyId": "gone"}|KMSInvalidStateException|arn:aws:kms:us-east-1:000000000000:key/gone is pending deletion.
CreateAlias|{"AliasName": "alias/one", "TargetKeyId": "app-1"}|AlreadyExistsException|An alias with the name arn:aws:kms:us-east-1:000000000000:alias/one already exists
UpdateAlias|{"AliasName": "alias/none", "TargetKeyId": "app-1"}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/none is not found.
DeleteAlias|{"AliasName": "alias/none"}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/none is not found.
Encrypt|{"KeyId": "alias/none", "Plaintext": "YQ=="}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/none is not found.
Encrypt|{"KeyId": "alias/no/ne", "Plaintext": "YQ=="}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/no/ne is not found.
Encrypt|{"KeyId": "alias/no:ne", "Plaintext": "YQ=="}|NotFoundException|Alias arn:aws:kms:us-east-1:000000000000:alias/no:ne is not found.
Encrypt|{"KeyId": "arn:aws:kms:eu-west-1:000000000000:alias/one", "Plaintext": "YQ=="}|NotFoundException|Invalid arn eu-west-1
Encrypt|{"KeyId": "arn:aws:kms:us-east-1:111111111111:alias/one", "Plaintext": "YQ=="}|NotFoundException|Alias arn:aws:kms:us-east-1:111111111111:alias/one is not found.
Encrypt|{"KeyId": "arn:aws-cn:kms:us-east-1:000000000000:alias/one", "Plaintext": "YQ=="}|InvalidArnException|Invalid arn arn:aws-cn:kms:us-east-1:000000000000:alias/one
Encrypt|{"KeyId": "arn:aws:kms:us-east-1:000000000000:key/alias/one", "Plaintext": "YQ=="}|InvalidArnException|Invalid arn arn:aws:kms:us-east-1:000000000000:key/alias/one
ListAliases|{"KeyId": "none"}|NotFoundException|Key 'arn:aws:kms:us-east-1:000000000000:key/none' does not exist
ListAliases|{"Limit": 101}|ValidationException|1 validation error detected: Value '101' at 'limit' failed to satisfy constraint: Member must have value less than or equal to 100
ListAliases|{"Marker": "x"}|InvalidMarkerException|Marker is not one that this service gave out
ListKeys|{"Marker": "x"}|InvalidMarkerException|Marker is not one that this service gave out
ListResourceTags|{"KeyId": "app-1", "Marker": "a"}|InvalidMarkerException|Marker is not one that this service gave out
ListKeyPolicies|{"KeyId": "app-1", "Marker": "a"}|InvalidMarkerException|Marker is not one that this service gave out
UntagResource|{"KeyId": "app-1", "TagKeys": ["a", ""]}|ValidationException|1 validation error detected: Value '[a, ]' at 'tagKeys' failed to satisfy constraint: Member must satisfy constraint: [Member must have length less than or equal to 128, Member must have length greater than or equal to 1]
"#;

#[tokio::test]
async fn refusals_of_aliases_have_the_codes_and_texts_of_aws() {
    let site = site_with(&["app-1", "gone"]).await;
    alias(&site, "alias/one", "app-1").await;
    kms(&site, "ScheduleKeyDeletion", json!({"KeyId": "gone"})).await;
    for line in REFUSALS.trim().lines() {
        let [target, body, code, message] = *line.split('|').collect::<Vec<_>>() else {
            panic!("{line}");
        };
        let answer = kms_as(&site, site.root(), target, body).await;
        let expected = (code.to_owned(), message.to_owned());
        assert_eq!(refused(&answer), expected, "{line}");
    }
    let long = json!({"AliasName": format!("alias/{}", "x".repeat(251)), "TargetKeyId": "app-1"});
    let (code, text) = refused(&kms(&site, "CreateAlias", long).await);
    assert_eq!(code, "ValidationException");
    assert!(text.ends_with("length less than or equal to 256"), "{text}");
    let longest = format!("alias/{}", "x".repeat(250));
    alias(&site, &longest, "app-1").await;
    let described = kms(&site, "DescribeKey", json!({"KeyId": longest})).await;
    assert_eq!(described.ok()["KeyMetadata"]["KeyId"], "app-1");
}

#[tokio::test]
async fn marker_of_a_tag_list_leads_to_the_next_page_of_that_key_only() {
    let site = site_with(&["app-1", "app-2"]).await;
    for key in ["app-1", "app-2"] {
        let tags: Vec<Value> = ["a", "b", "c"]
            .map(|tag| json!({"TagKey": tag, "TagValue": ""}))
            .into();
        kms(&site, "TagResource", json!({"KeyId": key, "Tags": tags})).await;
    }
    let first = kms(
        &site,
        "ListResourceTags",
        json!({"KeyId": "app-1", "Limit": 2}),
    );
    let marker = first.await.ok()["NextMarker"].clone();
    let page = async |key: &str| {
        let body = json!({"KeyId": key, "Limit": 2, "Marker": marker});
        kms(&site, "ListResourceTags", body).await
    };
    let second = page("app-1").await.ok();
    assert_eq!(second["Tags"], json!([{"TagKey": "c", "TagValue": ""}]));
    assert_eq!(refused(&page("app-2").await).0, "InvalidMarkerException");
}

#[tokio::test]
async fn marker_of_a_list_leads_nowhere_in_the_others() {
    let site = site_with(&["app-1", "app-2"]).await;
    for (name, key) in [
        ("alias/a", "app-1"),
        ("alias/b", "app-1"),
        ("alias/c", "app-2"),
    ] {
        alias(&site, name, key).await;
    }
    let tags = json!([{"TagKey": "a", "TagValue": ""}, {"TagKey": "b", "TagValue": ""}]);
    kms(
        &site,
        "TagResource",
        json!({"KeyId": "app-1", "Tags": tags}),
    )
    .await;
    let lists = [
        ("ListKeys", json!({"Limit": 1})),
        ("ListAliases", json!({"Limit": 1})),
        ("ListAliases", json!({"KeyId": "app-1", "Limit": 1})),
        ("ListResourceTags", json!({"KeyId": "app-1", "Limit": 1})),
    ];
    for (from, (target, body)) in lists.iter().enumerate() {
        let marker = kms(&site, target, body.clone()).await.ok()["NextMarker"].clone();
        assert!(marker.is_string(), "{target}");
        for (to, (target, body)) in lists.iter().enumerate() {
            let mut body = body.clone();
            body["Marker"] = marker.clone();
            let answer = kms(&site, target, body).await;
            if to == from {
                assert_eq!(answer.status, 200, "{target}");
            } else {
                assert_eq!(refused(&answer).0, "InvalidMarkerException", "{target}");
            }
        }
    }
}

#[tokio::test]
async fn refusal_names_what_the_caller_named_whether_or_not_it_exists() {
    let site = site_with(&["app-1", "secret"]).await;
    alias(&site, "alias/app", "app-1").await;
    alias(&site, "alias/hidden", "secret").await;
    let statement = json!([{"Effect": "Allow", "Action": "kms:*", "Resource": [
        "arn:aws:kms:*:*:key/app-*", "arn:aws:kms:us-east-1:000000000000:alias/app*"
    ]}]);
    let caller = with_policy(&site, statement).await;
    let call =
        async |target: &str, body: Value| kms_as(&site, &caller, target, &body.to_string()).await;
    let used = json!({"KeyId": "alias/app", "KeySpec": "AES_256"});
    assert_eq!(call("GenerateDataKey", used).await.status, 200);
    for name in ["alias/hidden", "alias/secret", "alias/none", "alias/no/ne"] {
        let body = json!({"KeyId": name, "Plaintext": "YQ=="});
        denied(&call("Encrypt", body).await, "kms:Encrypt", name);
        let body = json!({"KeyId": name});
        denied(&call("DescribeKey", body).await, "kms:DescribeKey", name);
    }
    // The caller has the ciphertext, so the key in it is named, whatever `KeyId` says.
    let sealed = json!({"KeyId": "secret", "Plaintext": "YQ=="});
    let sealed = kms(&site, "Encrypt", sealed).await.ok()["CiphertextBlob"].clone();
    for key in [
        None,
        Some("alias/hidden"),
        Some("alias/none"),
        Some("app-1"),
    ] {
        let body = json!({"CiphertextBlob": sealed, "KeyId": key});
        denied(&call("Decrypt", body).await, "kms:Decrypt", "key/secret");
        let body =
            json!({"CiphertextBlob": sealed, "SourceKeyId": key, "DestinationKeyId": "app-1"});
        let answer = call("ReEncrypt", body).await;
        denied(&answer, "kms:ReEncryptFrom", "key/secret");
    }
    let own = json!({"KeyId": "app-1", "Plaintext": "YQ=="});
    let own = call("Encrypt", own).await.ok()["CiphertextBlob"].clone();
    for (destination, named) in [("secret", "key/secret"), ("alias/hidden", "alias/hidden")] {
        let body = json!({"CiphertextBlob": own, "DestinationKeyId": destination});
        let answer = call("ReEncrypt", body).await;
        denied(&answer, "kms:ReEncryptTo", named);
    }
    let (code, text) = refused(&call("CreateKey", json!({})).await);
    assert_eq!(code, "AccessDeniedException");
    assert!(text.ends_with("perform: kms:CreateKey"), "{text}");

    for (target, name, on) in [
        ("CreateAlias", "alias/other", "alias/other"),
        ("UpdateAlias", "alias/other", "alias/other"),
        ("DeleteAlias", "alias/hidden", "alias/hidden"),
    ] {
        let body = json!({"AliasName": name, "TargetKeyId": "app-1"});
        denied(&call(target, body).await, &format!("kms:{target}"), on);
    }
    for target in ["CreateAlias", "UpdateAlias"] {
        let body = json!({"AliasName": "alias/app", "TargetKeyId": "secret"});
        denied(
            &call(target, body).await,
            &format!("kms:{target}"),
            "key/secret",
        );
    }
}

#[tokio::test]
async fn policy_names_operations_as_aws_does() {
    let site = site_with(&["app-1"]).await;
    let sealed = json!({"KeyId": "app-1", "Plaintext": "YQ=="});
    let sealed = kms(&site, "Encrypt", sealed).await.ok()["CiphertextBlob"].clone();
    let rewrap = json!({"CiphertextBlob": sealed, "DestinationKeyId": "app-1", "DryRun": true});
    let generate = json!({"KeyId": "app-1", "KeySpec": "AES_256", "DryRun": true});
    let key = json!({"KeyId": "app-1"});
    let all = [
        ("ReEncrypt", &rewrap),
        ("GenerateDataKeyWithoutPlaintext", &generate),
        ("GenerateDataKey", &generate),
        ("DescribeKey", &key),
        ("GetKeyPolicy", &key),
        ("ListKeyPolicies", &key),
        ("GetKeyRotationStatus", &key),
        ("ListResourceTags", &key),
        ("ListAliases", &key),
        ("RotateKeyOnDemand", &key),
    ];
    let details = [
        "DescribeKey",
        "GetKeyPolicy",
        "ListKeyPolicies",
        "GetKeyRotationStatus",
        "ListResourceTags",
    ];
    let cases: [(&str, &[&str]); 14] = [
        ("kms:ReEncrypt*", &["ReEncrypt"]),
        ("kms:ReEncryptTo", &[]),
        ("kms:ReEncryptFrom", &[]),
        ("kms:Rewrap", &["ReEncrypt"]),
        (
            "kms:GenerateDataKey*",
            &["GenerateDataKeyWithoutPlaintext", "GenerateDataKey"],
        ),
        (
            "kms:GenerateDataKey",
            &["GenerateDataKeyWithoutPlaintext", "GenerateDataKey"],
        ),
        (
            "kms:GenerateDataKeyWithoutPlaintext",
            &["GenerateDataKeyWithoutPlaintext"],
        ),
        ("kms:DescribeKey", &details),
        ("kms:Get*", &["GetKeyPolicy", "GetKeyRotationStatus"]),
        (
            "kms:List*",
            &["ListKeyPolicies", "ListResourceTags", "ListAliases"],
        ),
        ("kms:ListResourceTags", &["ListResourceTags"]),
        ("kms:RotateKey", &["RotateKeyOnDemand"]),
        ("kms:RotateKeyOnDemand", &["RotateKeyOnDemand"]),
        ("kms:ScheduleKeyDeletion", &[]),
    ];
    for (action, expected) in cases {
        let resource = format!("{ACCOUNT}:key/app-1");
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": resource});
        let caller = with_policy(&site, json!([statement])).await;
        let everything = json!({"Effect": "Allow", "Action": "*"});
        let statement = json!({"Effect": "Deny", "Action": action, "Resource": resource});
        let but = with_policy(&site, json!([everything, statement])).await;
        for (target, body) in all {
            let allowed = async |signer: &Signer| {
                let answer = kms_as(&site, signer, target, &body.to_string()).await;
                answer.status == 200 || refused(&answer).0 == "DryRunOperationException"
            };
            let is_named = expected.contains(&target);
            assert_eq!(allowed(&caller).await, is_named, "{action} {target}");
            // What is denied by one of two names is denied.
            let is_denied =
                is_named || (target == "ReEncrypt" && action.starts_with("kms:ReEncrypt"));
            assert_eq!(allowed(&but).await, !is_denied, "no {action} {target}");
        }
    }
}

#[tokio::test]
async fn policy_of_another_account_or_region_is_none_of_here() {
    let site = site_with(&["app-1"]).await;
    let body = json!({"KeyId": "app-1", "Plaintext": "YQ=="}).to_string();
    let allows = |arn: &str| json!({"Effect": "Allow", "Action": "kms:Encrypt", "Resource": arn});
    for (arn, is_here) in [
        ("arn:aws:kms:us-east-1:000000000000:key/app-1", true),
        // The deployment is in no region of its own: a request's region is what its signature says.
        ("arn:aws:kms:eu-west-1:000000000000:key/app-*", true),
        ("arn:aws:kms:*:*:key/*", true),
        ("arn:aws:kms:::key/app-1", true),
        ("arn:aws:kms:us-east-1:111111111111:key/app-1", false),
    ] {
        let caller = with_policy(&site, json!([allows(arn)])).await;
        let answer = kms_as(&site, &caller, "Encrypt", &body).await;
        assert_eq!(answer.status == 200, is_here, "{arn}");
        // A `Deny` that denies nothing here makes the whole policy invalid.
        let denial = json!({"Effect": "Deny", "Action": "kms:Encrypt", "Resource": arn});
        let all = json!({"Effect": "Allow", "Action": "kms:*"});
        let caller = with_policy(&site, json!([all, denial])).await;
        assert_eq!(
            refused(&kms_as(&site, &caller, "Encrypt", &body).await).0,
            "AccessDeniedException"
        );
        let described = kms_as(&site, &caller, "DescribeKey", r#"{"KeyId":"app-1"}"#).await;
        assert_eq!(described.status == 200, is_here, "{arn}");
    }
}

#[tokio::test]
async fn bare_account_id_is_the_root_in_the_default_policy() {
    let site = MemorySite::running().await;
    let create = async |principal: Value| {
        let policy = json!({"Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": principal}, "Action": "kms:*", "Resource": "*"
        }]});
        kms(&site, "CreateKey", json!({"Policy": policy.to_string()})).await
    };
    for principal in [json!("000000000000"), json!(["000000000000"])] {
        assert_eq!(create(principal).await.status, 200);
    }
    let other = create(json!("111111111111")).await;
    assert_eq!(refused(&other).0, "UnsupportedOperationException");
}

#[tokio::test]
async fn partition_of_arns_is_the_one_of_the_region() {
    let site = site_with(&["app-1"]).await;
    for (region, partition) in [
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
    ] {
        let signer = site.root().clone().for_region(region);
        let described = kms_as(&site, &signer, "DescribeKey", r#"{"KeyId":"app-1"}"#).await;
        let arn = described.ok()["KeyMetadata"]["Arn"].clone();
        let expected = format!("arn:{partition}:kms:{region}:000000000000:key/app-1");
        assert_eq!(arn, expected);
        let body = json!({"KeyId": expected}).to_string();
        let again = kms_as(&site, &signer, "DescribeKey", &body).await;
        assert_eq!(again.status, 200, "{expected}");
    }
}

#[tokio::test]
async fn region_of_the_settings_is_the_one_of_arns_and_policies() {
    let here = |it: &mut keyway_deployment_assembly::Settings| {
        it.aws_region = Some("eu-west-1".to_owned());
    };
    let site = MemorySite::running_as(here).await;
    create(&site, "app-1").await;
    let own = "arn:aws:kms:eu-west-1:000000000000:key/app-1";
    // Requests are signed for us-east-1.
    for (name, status) in [
        ("app-1", 200),
        (own, 200),
        ("arn:aws:kms:us-east-1:000000000000:key/app-1", 400),
    ] {
        let answer = kms(&site, "DescribeKey", json!({"KeyId": name})).await;
        assert_eq!(answer.status, status, "{name}");
        if status == 200 {
            assert_eq!(answer.json()["KeyMetadata"]["Arn"], own);
        }
    }
    for (region, is_here) in [("eu-west-1", true), ("eu-*", true), ("us-east-1", false)] {
        let resource = format!("arn:aws:kms:{region}:*:key/app-1");
        let statement =
            json!({"Effect": "Allow", "Action": "kms:DescribeKey", "Resource": resource});
        let caller = with_policy(&site, statement).await;
        let answer = kms_as(&site, &caller, "DescribeKey", r#"{"KeyId":"app-1"}"#).await;
        assert_eq!(answer.status == 200, is_here, "{region}");
    }
}

#[tokio::test]
async fn signature_for_one_api_opens_no_other() {
    let site = MemorySite::running().await;
    create(&site, "app-1").await;
    let time = || SystemTime::from(site.clock.now());
    let status = async |service: &'static str, method: &str, path: &str, body: &str| {
        let signer = site.root().clone().for_service(service).declaring_hash();
        site.call_at(&signer, method, path, body).await.status
    };
    for (service, s3, sts, admin) in [
        ("s3", 200, 403, 200),
        ("sts", 400, 200, 200),
        ("kms", 400, 403, 200),
        ("execute-api", 200, 200, 200),
    ] {
        assert_eq!(status(service, "GET", "/", "").await, s3, "{service}");
        let identity = "Action=GetCallerIdentity&Version=2011-06-15";
        assert_eq!(
            status(service, "POST", "/", identity).await,
            sts,
            "{service}"
        );
        let keys = "/rustfs/admin/v3/kms/keys";
        assert_eq!(status(service, "GET", keys, "").await, admin, "{service}");
        let minio = "/minio/kms/v1/key/status?key-id=app-1";
        assert_eq!(status(service, "GET", minio, "").await, admin, "{service}");
    }
    for service in ["s3", "sts", "execute-api"] {
        let signer = site.root().clone().for_service(service);
        let signer = signer.with_target("TrentService.ListKeys");
        let request = signer.request("POST", "keyway.test", "/", b"{}", time());
        let answer = site.send(request).await;
        assert_eq!(refused(&answer).0, "InvalidSignatureException", "{service}");
    }
    assert_eq!(site.records(Kind::Key).await.len(), 1);
}

#[tokio::test]
async fn audit_log_names_the_alias_and_its_key() {
    let site = site_with(&["app-1"]).await;
    alias(&site, "alias/one", "app-1").await;
    let body = json!({"KeyId": "alias/one", "KeySpec": "AES_256"});
    kms(&site, "GenerateDataKey", body).await;
    kms(&site, "ListAliases", json!({})).await;
    let events = site.audited();
    let [made, used, listed] = &events[events.len() - 3..] else {
        panic!("three events");
    };
    let told = |event: &Value| {
        let of = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        [of("operation"), of("class"), of("key_id"), of("resource")]
    };
    let expected = ["kms:CreateAlias", "mutation", "app-1", "alias/one"];
    assert_eq!(told(made), expected);
    assert_eq!(told(used), ["kms:GenerateDataKey", "data_key", "app-1", ""]);
    assert_eq!(told(listed), ["kms:ListAliases", "read", "", ""]);
}
