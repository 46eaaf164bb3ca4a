//! The names of AWS's operations in policies: patterns that meant something before mean the same, and a little more that is
//! listed here.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod fixture;

use std::collections::BTreeSet;

use fixture::{id, with_policy};
use keyway_domain::KmsError;
use keyway_domain::keys::AliasName;
use keyway_domain::policy::{Action, Policy};

/// The actions that policies could name before they could name AWS's operations.
const BEFORE: [&str; 23] = [
    "kms:Configure",
    "kms:ServiceControl",
    "kms:ClearCache",
    "kms:CreateKey",
    "kms:DescribeKey",
    "kms:ListKeys",
    "kms:EnableKey",
    "kms:DisableKey",
    "kms:RotateKey",
    "kms:DeleteKey",
    "kms:TagResource",
    "kms:UntagResource",
    "kms:UpdateKeyDescription",
    "kms:GenerateDataKey",
    "kms:Encrypt",
    "kms:Decrypt",
    "kms:Rewrap",
    "kms:GenerateMac",
    "kms:GenerateRandom",
    "kms:ImportKeyMaterial",
    "kms:ReadAccess",
    "kms:ManageAccess",
    "kms:ReadAudit",
];

fn statement(effect: &str, action: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Action":"{action}"}}"#)
}

/// The actions of KMS that a caller with this policy may perform.
fn allowed(statements: &str) -> BTreeSet<&'static str> {
    let caller = with_policy(&format!(r#"{{"Statement":[{statements}]}}"#));
    let is_of_kms = |action: &Action| action.as_str().starts_with("kms:");
    let (key, alias) = (id("k"), AliasName::parse("alias", "alias/k").unwrap());
    let may = |action: &Action| {
        let on_service = caller.may_on_service(*action).is_ok();
        let on_alias = caller.may_on_alias(*action, &alias).is_ok();
        on_service && on_alias && caller.may(*action, &key).is_ok()
    };
    let of_kms = Action::ALL.into_iter().filter(is_of_kms);
    of_kms.filter(may).map(Action::as_str).collect()
}

/// Every pattern of one wildcard at the end, at the beginning, or in place of one letter, that matched something before.
fn patterns() -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for name in BEFORE {
        let short = name.strip_prefix("kms:").unwrap();
        all.insert(name.to_owned());
        for (at, _) in short.char_indices() {
            let (start, end) = short.split_at(at);
            all.insert(format!("kms:{start}*"));
            all.insert(format!("kms:*{end}"));
            all.insert(format!("kms:{start}?{}", &end[1..]));
        }
    }
    all
}

fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    match (pattern.strip_suffix('*'), pattern.split_once('*')) {
        (Some(start), _) => name.starts_with(start),
        (None, Some((start, end))) => name.starts_with(start) && name.ends_with(end),
        (None, None) => {
            let same = |(a, b): (char, char)| a == '?' || a == b;
            pattern.len() == name.len() && pattern.chars().zip(name.chars()).all(same)
        }
    }
}

#[test]
fn pattern_that_meant_something_before_decides_the_same_about_every_permission() {
    for pattern in patterns() {
        let before: BTreeSet<&str> = BEFORE
            .into_iter()
            .filter(|name| matches(&pattern, name))
            .collect();
        let is_old = |name: &&&str| BEFORE.contains(*name);
        let allowing = allowed(&statement("Allow", &pattern));
        let old: BTreeSet<&str> = allowing.iter().filter(is_old).copied().collect();
        assert_eq!(old, before, "{pattern}");
        let all = statement("Allow", "kms:*");
        let denying = allowed(&format!("{all},{}", statement("Deny", &pattern)));
        for name in BEFORE {
            assert_eq!(denying.contains(name), !before.contains(name), "{pattern}");
        }
        // Whatever an operation's permission allows or denies, it allows or denies of the operation.
        for action in Action::ALL {
            let permission = action.permission().as_str();
            if BEFORE.contains(&permission) && before.contains(permission) {
                assert!(allowing.contains(action.as_str()), "{pattern} {action:?}");
                assert!(!denying.contains(action.as_str()), "{pattern} {action:?}");
            }
        }
    }
}

#[test]
fn pattern_gains_only_operations_that_it_names() {
    for pattern in patterns() {
        let before: BTreeSet<&str> = BEFORE
            .into_iter()
            .filter(|name| matches(&pattern, name))
            .collect();
        for action in allowed(&statement("Allow", &pattern)) {
            let covered = Action::named(action).unwrap().permission().as_str();
            let is_named = matches(&pattern, action);
            assert!(before.contains(covered) || is_named, "{pattern} {action}");
        }
    }
    // What wildcards of earlier policies gain, as docs/policies.md says.
    let gained = |pattern: &str, before: &[&str]| -> Vec<&str> {
        let covered =
            |action: &&str| before.contains(&Action::named(action).unwrap().permission().as_str());
        let all = allowed(&statement("Allow", pattern));
        all.into_iter().filter(|action| !covered(action)).collect()
    };
    assert_eq!(
        gained("kms:List*", &["kms:ListKeys"]),
        [
            "kms:ListAliases",
            "kms:ListKeyPolicies",
            "kms:ListKeyRotations",
            "kms:ListResourceTags"
        ]
    );
    assert_eq!(
        gained("kms:Create*", &["kms:CreateKey"]),
        ["kms:CreateAlias"]
    );
    assert_eq!(
        gained("kms:Delete*", &["kms:DeleteKey"]),
        ["kms:DeleteAlias"]
    );
    assert_eq!(
        gained("kms:Update*", &["kms:UpdateKeyDescription"]),
        ["kms:UpdateAlias"]
    );
    assert_eq!(
        gained("kms:Enable*", &["kms:EnableKey"]),
        ["kms:EnableKeyRotation"]
    );
    assert_eq!(
        gained("kms:Disable*", &["kms:DisableKey"]),
        ["kms:DisableKeyRotation"]
    );
    let generated = [
        "kms:GenerateDataKey",
        "kms:GenerateMac",
        "kms:GenerateRandom",
    ];
    assert!(gained("kms:Generate*", &generated).is_empty());
    for whole in BEFORE {
        assert!(gained(whole, &[whole]).is_empty(), "{whole}");
    }
}

#[test]
fn name_of_an_operation_grants_that_operation_alone() {
    let of =
        |action: &str| -> Vec<&str> { allowed(&statement("Allow", action)).into_iter().collect() };
    for action in [
        "kms:GetKeyPolicy",
        "kms:ListResourceTags",
        "kms:ScheduleKeyDeletion",
        "kms:CancelKeyDeletion",
        "kms:RotateKeyOnDemand",
        "kms:EnableKeyRotation",
        "kms:GenerateDataKeyWithoutPlaintext",
        "kms:ReEncryptTo",
        "kms:CreateAlias",
    ] {
        assert_eq!(of(action), [action]);
    }
    assert_eq!(
        of("kms:ReEncrypt*"),
        ["kms:ReEncryptFrom", "kms:ReEncryptTo"]
    );
    assert_eq!(of("KMS:scheduleKEYdeletion"), ["kms:ScheduleKeyDeletion"]);
    // No operation of one key has this name, so a `Deny` of it would deny nothing.
    let unknown = format!(r#"{{"Statement":{}}}"#, statement("Deny", "kms:ReEncrypt"));
    assert!(matches!(
        Policy::parse(&unknown),
        Err(KmsError::Invalid { .. })
    ));
}

#[test]
fn resource_of_keys_does_not_cover_aliases() {
    let alias = AliasName::parse("alias", "alias/app/x").unwrap();
    for (resource, on_key, on_alias) in [
        ("*", true, true),
        ("arn:aws:kms:::*", true, true),
        ("arn:aws:kms:*:*:*", true, true),
        ("arn:aws:kms:::key/*", true, false),
        ("arn:aws:kms:::alias/*", false, true),
        (
            "arn:aws:kms:eu-west-1:123456789012:alias/app/?",
            false,
            true,
        ),
        ("arn:aws:kms:::alias/app", false, false),
    ] {
        let caller = with_policy(&format!(
            r#"{{"Statement":{{"Effect":"Allow","Action":"kms:*","Resource":"{resource}"}}}}"#
        ));
        let action = Action::CreateAlias;
        assert_eq!(caller.may(action, &id("k")).is_ok(), on_key, "{resource}");
        let granted = caller.may_on_alias(action, &alias).is_ok();
        assert_eq!(granted, on_alias, "{resource}");
        assert_eq!(caller.may(Action::Decrypt, &id("k")).is_ok(), on_key);
    }
    // A `Deny` on an alias can only deny what is about aliases.
    let nothing = r#"{"Statement":{"Effect":"Deny","Action":"kms:Decrypt","Resource":"arn:aws:kms:::alias/x"}}"#;
    assert!(Policy::parse(nothing).is_err());
}
