//! What each role may do is what its function's ports do, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::deployments::{Deployment, arn_of, deployments, reference};

/// What may be done to records of a kind, a secret or a log.
type Grants = BTreeMap<String, BTreeSet<String>>;

/// What the ports of a function need. Those that manage keys or the service write what they manage and make the keyring;
/// those that use keys read; the janitor removes what is due, and claims it first by writing it. Whoever removes keys looks for buckets that use them. Who serves buckets writes their
/// records, and reaches S3 where it is told to. Who serves KES's API reads policies and identities, and who changes those
/// does nothing else. Whoever writes a record that is signed reads the root keyring. All write the audit log, and read it where there are routes for that.
fn needed(deployment: &Deployment, package: &str) -> Grants {
    const READ: &str = "dynamodb:GetItem";
    const CHANGE: &str =
        "dynamodb:GetItem dynamodb:Query dynamodb:PutItem dynamodb:UpdateItem dynamodb:DeleteItem";
    const OF_AWS: &str = "s3:ListAllMyBuckets s3:CreateBucket s3:DeleteBucket s3:ListBucket s3:GetEncryptionConfiguration s3:PutEncryptionConfiguration";
    let manages = [
        (
            "kind key",
            "dynamodb:GetItem dynamodb:Query dynamodb:PutItem dynamodb:UpdateItem dynamodb:DeleteItem",
        ),
        (
            "kind config",
            "dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem",
        ),
        ("kind access-key", READ),
        (
            "secret RootKeyring",
            "secretsmanager:GetSecretValue secretsmanager:PutSecretValue",
        ),
        ("secret RootAccessKey", "secretsmanager:GetSecretValue"),
    ];
    let configures = [
        ("kind key", "dynamodb:GetItem dynamodb:Query"),
        (
            "kind config",
            "dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem",
        ),
        ("kind access-key", READ),
        (
            "secret RootKeyring",
            "secretsmanager:GetSecretValue secretsmanager:PutSecretValue",
        ),
        ("secret RootAccessKey", "secretsmanager:GetSecretValue"),
    ];
    let uses = [
        ("kind key", READ),
        ("kind config", READ),
        ("kind access-key", READ),
        ("secret RootKeyring", "secretsmanager:GetSecretValue"),
        ("secret RootAccessKey", "secretsmanager:GetSecretValue"),
    ];
    let removes = [
        (
            "kind key",
            "dynamodb:GetItem dynamodb:Query dynamodb:UpdateItem dynamodb:DeleteItem",
        ),
        ("kind config", READ),
        ("secret RootKeyring", "secretsmanager:GetSecretValue"),
    ];
    let signs = [("secret RootKeyring", "secretsmanager:GetSecretValue")];
    let looks = &[("kind bucket", "dynamodb:Query")][..];
    let serves = match deployment.given("S3Endpoint") {
        "" => &[("kind bucket", CHANGE)][..],
        _ => &[("kind bucket", CHANGE), ("s3", OF_AWS)],
    };
    let buckets = match package {
        "keyway-fn-keys" | "keyway-fn-janitor" => looks,
        "keyway-fn-all" | "keyway-fn-bucket-encryption" => serves,
        _ => &[],
    };
    let changes_access = &[("kind policy", CHANGE), ("kind identity", CHANGE)][..];
    let reads_access = &[("kind policy", READ), ("kind identity", READ)][..];
    let access = match package {
        "keyway-fn-access" | "keyway-fn-all" => changes_access,
        "keyway-fn-keys" | "keyway-fn-datakey" | "keyway-fn-service"
            if deployment.has_kes_api() =>
        {
            reads_access
        }
        _ => &[],
    };
    let sessions = match (package, deployment.given("Auth")) {
        ("keyway-fn-all", auth) if auth != "iam" => {
            &[("kind access-key", "dynamodb:GetItem dynamodb:PutItem")][..]
        }
        _ => &[],
    };
    let audit = match package {
        "keyway-fn-service" | "keyway-fn-all" => &[(
            "kind audit#*",
            "dynamodb:GetItem dynamodb:Query dynamodb:PutItem",
        )][..],
        _ => &[("kind audit#*", "dynamodb:GetItem dynamodb:PutItem")],
    };
    let ports = match package {
        "keyway-fn-access" => &signs[..],
        "keyway-fn-keys" | "keyway-fn-all" => &manages[..],
        "keyway-fn-datakey" | "keyway-fn-bucket-encryption" => &uses,
        "keyway-fn-service" => &configures,
        "keyway-fn-janitor" => &removes,
        other => panic!("{other} has no ports here"),
    };
    ports
        .iter()
        .chain(buckets)
        .chain(access)
        .chain(sessions)
        .chain(audit)
        .chain(&[("log", "logs:CreateLogStream logs:PutLogEvents")])
        .map(|(what, actions)| {
            (
                (*what).to_owned(),
                actions.split(' ').map(str::to_owned).collect(),
            )
        })
        .collect()
}

/// What the role of this function allows.
fn allowed(deployment: &Deployment, function: &Value) -> Grants {
    let role = deployment.properties(arn_of(&function["Role"]).unwrap());
    let fields: Vec<&str> = role
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        fields,
        ["AssumeRolePolicyDocument", "Description", "Policies"],
        "no managed policies"
    );
    let trusted = json!([{
        "Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
    }]);
    assert_eq!(role["AssumeRolePolicyDocument"]["Statement"], trusted);
    let policies = role["Policies"].as_array().unwrap();
    assert_eq!(policies.len(), 1);
    let mut grants = Grants::new();
    for statement in policies[0]["PolicyDocument"]["Statement"]
        .as_array()
        .unwrap()
    {
        let what = granted_on(deployment, function, statement);
        let actions = statement["Action"].as_array().unwrap();
        let actions = actions
            .iter()
            .map(|action| action.as_str().unwrap().to_owned());
        let again = grants.insert(what.clone(), actions.collect());
        assert!(again.is_none(), "{what} has two statements");
    }
    grants
}

fn granted_on(deployment: &Deployment, function: &Value, statement: &Value) -> String {
    assert_eq!(statement["Effect"], "Allow");
    let mut fields: BTreeSet<&str> = statement
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    fields.remove("Sid");
    let resource = &statement["Resource"];
    if arn_of(resource) == Some("Table") {
        assert_eq!(fields, ["Action", "Condition", "Effect", "Resource"].into());
        // The audit log has a partition for each hour.
        let operators = ["ForAllValues:StringEquals", "ForAllValues:StringLike"];
        let found = operators
            .iter()
            .find(|operator| statement["Condition"].get(**operator).is_some());
        let operator = *found.unwrap();
        let kind = statement["Condition"][operator]["dynamodb:LeadingKeys"][0]
            .as_str()
            .unwrap();
        assert_eq!(kind.contains('*'), operator.ends_with("Like"));
        // Without the second operator, a request that names no key at all would be allowed.
        let condition = json!({
            operator: {"dynamodb:LeadingKeys": [kind]},
            "Null": {"dynamodb:LeadingKeys": "false"},
        });
        assert_eq!(statement["Condition"], condition);
        return format!("kind {kind}");
    }
    assert_eq!(fields, ["Action", "Effect", "Resource"].into());
    if let Some(secret) = reference(resource) {
        assert!(
            deployment
                .of_type("AWS::SecretsManager::Secret")
                .contains_key(secret),
            "{secret}"
        );
        return format!("secret {secret}");
    }
    if resource == "*" {
        // Which buckets there will be nobody knows; what may be done to them is compared.
        return "s3".to_owned();
    }
    let log = arn_of(resource).unwrap_or_else(|| panic!("{statement}"));
    assert_eq!(
        reference(&function["LoggingConfig"]["LogGroup"]),
        Some(log),
        "its own log"
    );
    "log".to_owned()
}

#[test]
fn roles_allow_what_the_ports_do() {
    for deployment in deployments() {
        let functions = deployment.functions();
        let packages: Vec<_> = functions.keys().copied().collect();
        if deployment.is_http_api() {
            let mut expected = vec![
                "keyway-fn-bucket-encryption",
                "keyway-fn-datakey",
                "keyway-fn-janitor",
                "keyway-fn-keys",
                "keyway-fn-service",
            ];
            if deployment.has_kes_api() {
                expected.insert(0, "keyway-fn-access");
            }
            assert_eq!(packages, expected);
        } else {
            assert_eq!(packages, ["keyway-fn-all", "keyway-fn-janitor"]);
        }
        for (package, (_, function)) in functions {
            assert_eq!(
                allowed(deployment, function),
                needed(deployment, package),
                "{package}"
            );
        }
        let roles = deployment.of_type("AWS::IAM::Role").len();
        assert_eq!(
            roles,
            packages.len(),
            "each function has a role of its own, and nobody else has one"
        );
        assert!(deployment.of_type("AWS::IAM::Policy").is_empty());
        assert!(deployment.of_type("AWS::IAM::ManagedPolicy").is_empty());
    }
}

#[test]
fn functions_are_told_of_the_secrets_that_they_may_read() {
    for deployment in deployments() {
        for (package, (_, function)) in deployment.functions() {
            let told: BTreeMap<&str, &str> = Deployment::variables(function)
                .iter()
                .filter(|(name, _)| name.ends_with("_SECRET"))
                .map(|(name, value)| (name.as_str(), reference(value).unwrap()))
                .collect();
            let expected = [
                ("KEYWAY_ROOT_KEYRING_SECRET", "RootKeyring"),
                ("KEYWAY_ROOT_ACCESS_KEY_SECRET", "RootAccessKey"),
            ];
            let needed = needed(deployment, package);
            let expected = expected
                .into_iter()
                .filter(|(_, secret)| needed.contains_key(&format!("secret {secret}")));
            assert_eq!(told, expected.collect(), "{package}");
        }
    }
}
