//! `keyway policy check`.

use std::fs;

use keyway_tests::ServerOptions;
use serde_json::{Value, json};

use crate::folder;

async fn check(arguments: &[&str]) -> (Option<i32>, String, String) {
    let all = [&["policy", "check"], arguments].concat();
    ServerOptions::default().run(&all).await
}

#[tokio::test]
async fn decision_is_explained_by_its_statement() {
    let folder = folder();
    let path = folder.path().join("policy.json");
    let policy = json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "kms:*", "Resource": "arn:aws:kms:::key/reports-*"},
        {"Sid": "NotThatOne", "Effect": "Deny", "Action": ["kms:Decrypt"], "Resource": "arn:aws:kms:::key/reports-secret"},
        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::logs-*"},
    ]});
    fs::write(&path, policy.to_string()).unwrap();
    let file = path.to_str().unwrap();
    let (code, stdout, _) = check(&["--policy", file]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), "valid: 3 statements\n"));
    for (policy, action, resource, allowed, statement, sid) in [
        (
            file,
            "kms:Decrypt",
            "reports-1",
            true,
            json!(1),
            Value::Null,
        ),
        (
            file,
            "KMS:decrypt",
            "arn:aws:kms:::key/reports-1",
            true,
            json!(1),
            Value::Null,
        ),
        (
            file,
            "kms:Decrypt",
            "reports-secret",
            false,
            json!(2),
            json!("NotThatOne"),
        ),
        (
            file,
            "kms:Decrypt",
            "other",
            false,
            Value::Null,
            Value::Null,
        ),
        (
            file,
            "s3:ListBucket",
            "logs-eu",
            true,
            json!(3),
            Value::Null,
        ),
        (
            file,
            "s3:ListBucket",
            "arn:aws:s3:::logs-eu",
            true,
            json!(3),
            Value::Null,
        ),
        (file, "kms:Configure", "*", false, Value::Null, Value::Null),
        (
            "kms-admin",
            "kms:Configure",
            "*",
            true,
            json!(1),
            Value::Null,
        ),
        (
            "kms-key-user",
            "kms:RotateKey",
            "k",
            false,
            Value::Null,
            Value::Null,
        ),
    ] {
        let asked = [
            "--policy",
            policy,
            "--action",
            action,
            "--resource",
            resource,
        ];
        let (code, stdout, stderr) = check(&asked).await;
        assert_eq!(
            code,
            Some(i32::from(!allowed)),
            "{asked:?}: {stdout}{stderr}"
        );
        let word = if allowed { "allowed" } else { "denied" };
        assert!(stdout.starts_with(word), "{stdout}");
        let asked = [&asked[..], &["--output", "json"]].concat();
        let (_, stdout, _) = check(&asked).await;
        let told: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(told["valid"], true);
        let decision = &told["decision"];
        assert_eq!(decision["allowed"], allowed, "{told}");
        assert_eq!(
            (&decision["statement"], &decision["sid"]),
            (&statement, &sid),
            "{told}"
        );
    }
    // Asks whether the action is allowed on any key.
    let (code, _, _) = check(&["--policy", file, "--action", "kms:Decrypt"]).await;
    assert_eq!(code, Some(0));
    let (code, _, _) = check(&["--policy", file, "--action", "s3:CreateBucket"]).await;
    assert_eq!(code, Some(1));
}

#[tokio::test]
async fn policy_invalid_is_reported_with_place_and_reason() {
    let folder = folder();
    let path = folder.path().join("policy.json");
    let file = path.to_str().unwrap();
    let deny = |resource: &str| {
        json!({"Statement": [
            {"Effect": "Allow", "Action": "kms:*"},
            {"Effect": "Deny", "Action": "kms:*", "Resource": ["*", resource]},
        ]})
    };
    for resource in [
        "arn:aws:kms:::reports",
        "arn:aws:kms:::key/",
        "arn:aws:kms:::key:x",
        "arn:aws:kms:::keys/x",
        "arn:aws:kms:::Key/x",
        "arn:aws:kms:::key/x ",
        "arn:aws:kms:::key/x/",
        "arn:aws:kms:::alias/",
        "arn:aws:kms:::key/${aws:username}",
        "arn:aws:s3:::bucket/*",
    ] {
        fs::write(&path, deny(resource).to_string()).unwrap();
        let (code, stdout, _) = check(&["--policy", file]).await;
        assert_eq!(code, Some(1), "{resource}");
        assert!(
            stdout.starts_with("invalid: policy: statement 2: Resource 2 "),
            "{stdout}"
        );
        let (code, stdout, _) = check(&["--policy", file, "--output", "json"]).await;
        assert_eq!(code, Some(1), "{resource}");
        let told: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(told["valid"], false);
        assert!(
            told["reason"].as_str().unwrap().contains("statement 2"),
            "{told}"
        );
    }
    for (asked, words) in [
        (
            &["--policy", "kms-admin", "--action", "kms:Fly"][..],
            "no such action",
        ),
        (
            &["--policy", "kms-admin", "--action", "kms:*"],
            "no such action",
        ),
        (
            &[
                "--policy",
                "kms-admin",
                "--action",
                "kms:Decrypt",
                "--resource",
                "a/b",
            ],
            "resource:",
        ),
        (
            &[
                "--policy",
                "kms-admin",
                "--action",
                "kms:Configure",
                "--resource",
                "k",
            ],
            "resource:",
        ),
        (&["--policy", "kms-nobody"], "`kms-nobody` is neither"),
    ] {
        let (code, _, stderr) = check(asked).await;
        assert_eq!(code, Some(1), "{asked:?}");
        assert!(stderr.contains(words), "{asked:?}: {stderr}");
    }
    let (code, _, _) = check(&["--policy", "kms-admin", "--resource", "k"]).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn resources_count_in_the_account_and_region_that_are_given() {
    let folder = folder();
    let path = folder.path().join("policy.json");
    let key = "arn:aws:kms:eu-west-1:111122223333:key/reports";
    let policy = |effect| json!({"Version": "2012-10-17", "Statement": [{"Effect": effect, "Action": "kms:Decrypt", "Resource": key}]});
    fs::write(&path, policy("Allow").to_string()).unwrap();
    let file = path.to_str().unwrap();
    let asked = [
        "--policy",
        file,
        "--action",
        "kms:Decrypt",
        "--resource",
        "reports",
    ];
    for (place, allowed) in [
        (&["--aws-account-id", "111122223333"][..], true),
        (
            &[
                "--aws-account-id",
                "111122223333",
                "--aws-region",
                "eu-west-1",
            ],
            true,
        ),
        (
            &[
                "--aws-account-id",
                "111122223333",
                "--aws-region",
                "eu-west-2",
            ],
            false,
        ),
        (&["--aws-account-id", "444455556666"], false),
        (&["--aws-region", "eu-west-1"], false),
    ] {
        let (code, stdout, _) = check(&[&asked[..], place].concat()).await;
        assert_eq!(code, Some(i32::from(!allowed)), "{place:?}");
        let word = if allowed { "allowed" } else { "denied" };
        assert!(stdout.starts_with(word), "{place:?}: {stdout}");
    }
    fs::write(&path, policy("Deny").to_string()).unwrap();
    let elsewhere = ["--policy", file, "--aws-account-id", "444455556666"];
    let (code, stdout, _) = check(&elsewhere).await;
    assert_eq!(code, Some(1));
    assert!(stdout.contains("denies nothing"), "{stdout}");
}
