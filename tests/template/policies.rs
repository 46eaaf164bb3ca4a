//! Least privilege. These rules check the deployed roles, without the table of grants that the template is made from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::deployments::{Deployment, arn_of, deployments, reference};

/// The actions that are allowed on records of a kind, a secret or a log.
type Grants = BTreeMap<String, BTreeSet<String>>;

/// What the role of this function allows.
fn allowed(deployment: &Deployment, function: &Value) -> Grants {
    let role = deployment.properties(arn_of(&function["Role"]).unwrap());
    let mut fields: BTreeSet<&str> = role
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let has_boundary = fields.remove("PermissionsBoundary");
    assert_eq!(
        has_boundary,
        !deployment.given("PermissionsBoundaryArn").is_empty()
    );
    assert_eq!(
        fields,
        [
            "AssumeRolePolicyDocument",
            "Description",
            "Path",
            "Policies"
        ]
        .into(),
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

/// As [`allowed`], without what the parameters allow every function: the use of a customer's key, and a VPC.
fn allowed_by_table(deployment: &Deployment, function: &Value) -> Grants {
    let mut grants = allowed(deployment, function);
    let is_encrypted = grants.remove("encryption").is_some();
    assert_eq!(is_encrypted, !deployment.given("KmsKeyArn").is_empty());
    let is_in_vpc = grants.remove("network").is_some();
    assert_eq!(is_in_vpc, !deployment.given("SubnetIds").is_empty());
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
    let sid = statement["Sid"].as_str().unwrap();
    if deployment.is_table_arn(resource) && sid == "Table" {
        assert_eq!(fields, ["Action", "Effect", "Resource"].into());
        return "table".to_owned();
    }
    if deployment.is_table_arn(resource) {
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
    if sid == "Encryption" {
        // The key encrypts what the two services keep, and opens nothing else for a function.
        assert_eq!(resource, deployment.given("KmsKeyArn"));
        let services = json!([
            {"Fn::Sub": "dynamodb.${AWS::Region}.${AWS::URLSuffix}"},
            {"Fn::Sub": "secretsmanager.${AWS::Region}.${AWS::URLSuffix}"},
        ]);
        let condition = json!({"StringEquals": {"kms:ViaService": services}});
        assert_eq!(statement["Condition"], condition);
        return "encryption".to_owned();
    }
    if sid == "Network" {
        // Lambda makes network interfaces for the function; the function's own code may not.
        let condition = json!({"Null": {"lambda:SourceFunctionArn": "true"}});
        assert_eq!(statement["Condition"], condition);
        return "network".to_owned();
    }
    assert_eq!(fields, ["Action", "Effect", "Resource"].into());
    if let Some(secret) = deployment.secret(resource) {
        return format!("secret {secret}");
    }
    if resource == "*" {
        // The buckets are not known in advance; only the actions on them are compared.
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

/// The packages that a deployment has.
fn packages(deployment: &Deployment) -> Vec<&'static str> {
    if !deployment.is_http_api() {
        return vec!["keyway-fn-all", "keyway-fn-janitor", "keyway-fn-setup"];
    }
    let mut packages = vec![
        "keyway-fn-bucket-encryption",
        "keyway-fn-datakey",
        "keyway-fn-janitor",
        "keyway-fn-keys",
        "keyway-fn-service",
        "keyway-fn-setup",
    ];
    if deployment.has_kes_api() {
        packages.insert(0, "keyway-fn-access");
    }
    packages
}

#[test]
fn each_function_has_a_role_of_its_own_and_nobody_else_has_one() {
    for deployment in deployments() {
        let functions = deployment.functions();
        let found: Vec<_> = functions.keys().copied().collect();
        assert_eq!(found, packages(deployment));
        let roles: BTreeSet<_> = functions
            .values()
            .map(|(_, function)| arn_of(&function["Role"]).unwrap())
            .collect();
        assert_eq!(roles.len(), functions.len());
        assert_eq!(deployment.of_type("AWS::IAM::Role").len(), functions.len());
        assert!(deployment.of_type("AWS::IAM::Policy").is_empty());
        assert!(deployment.of_type("AWS::IAM::ManagedPolicy").is_empty());
    }
}

/// The packages whose role allows this action on `what`, in every deployment that has them.
fn who_may(action: &str, what: &str, fits: impl Fn(&Deployment) -> bool) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for deployment in deployments().iter().filter(|deployment| fits(deployment)) {
        for (package, (_, function)) in deployment.functions() {
            let grants = allowed(deployment, function);
            if grants
                .get(what)
                .is_some_and(|actions| actions.contains(action))
            {
                found.insert(package.trim_start_matches("keyway-fn-").to_owned());
            }
        }
    }
    found
}

/// Checks which packages may do this, if there are any deployments.
fn only(action: &str, what: &str, expected: &[&str]) {
    if deployments().is_empty() {
        return;
    }
    let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
    assert_eq!(
        who_may(action, what, |_| true),
        expected,
        "{action} on {what}"
    );
}

const GET: &str = "dynamodb:GetItem";
const QUERY: &str = "dynamodb:Query";
const PUT: &str = "dynamodb:PutItem";
const UPDATE: &str = "dynamodb:UpdateItem";
const DELETE: &str = "dynamodb:DeleteItem";

#[test]
fn master_keys_are_written_by_the_functions_that_manage_them() {
    only(PUT, "kind key", &["keys", "all"]);
    for action in [UPDATE, DELETE] {
        only(action, "kind key", &["keys", "all", "janitor"]);
    }
    let listers = ["keys", "datakey", "service", "all", "janitor"];
    only(QUERY, "kind key", &listers);
    let readers = [
        "keys",
        "datakey",
        "service",
        "bucket-encryption",
        "all",
        "janitor",
    ];
    only(GET, "kind key", &readers);
}

#[test]
fn aliases_are_written_by_the_function_that_manages_keys_and_removed_with_them() {
    for action in [PUT, UPDATE] {
        only(action, "kind alias", &["keys", "all"]);
    }
    only(DELETE, "kind alias", &["keys", "all", "janitor"]);
    only(QUERY, "kind alias", &["keys", "datakey", "all", "janitor"]);
    only(GET, "kind alias", &["keys", "datakey", "all", "janitor"]);
}

#[test]
fn the_janitor_changes_keys_and_makes_none() {
    for deployment in deployments() {
        let Some((_, function)) = deployment.functions().remove("keyway-fn-janitor") else {
            continue;
        };
        let grants = allowed(deployment, function);
        let granted = |what: &str| grants.get(what).cloned().unwrap_or_default();
        // A rotation replaces a record, and wraps the new version by the root keyring, which it opens and never writes.
        assert_eq!(
            granted("kind key"),
            [GET, QUERY, UPDATE, DELETE].map(str::to_owned).into()
        );
        let opens = ["secretsmanager:GetSecretValue".to_owned()];
        assert_eq!(granted("secret RootKeyring"), opens.into());
        assert!(grants.keys().all(|what| what != "kind access-key"));
    }
}

#[test]
fn the_datakey_function_writes_the_audit_log_alone() {
    for deployment in deployments() {
        let Some((_, function)) = deployment.functions().remove("keyway-fn-datakey") else {
            continue;
        };
        for (what, actions) in allowed_by_table(deployment, function) {
            // AWS KMS's API lists keys and aliases; nothing else is listed there.
            let reads = match what.as_str() {
                "kind key" | "kind alias" => [GET, QUERY],
                _ => [GET, "secretsmanager:GetSecretValue"],
            };
            let is_read = actions
                .iter()
                .all(|action| reads.contains(&action.as_str()));
            assert!(is_read || what == "kind audit#*" || what == "log", "{what}");
        }
    }
}

#[test]
fn the_access_function_sees_no_key_and_no_access_key() {
    for deployment in deployments() {
        let Some((_, function)) = deployment.functions().remove("keyway-fn-access") else {
            continue;
        };
        let grants = allowed_by_table(deployment, function);
        let seen: BTreeSet<&str> = grants.keys().map(String::as_str).collect();
        let expected = [
            "kind policy",
            "kind identity",
            "kind audit#*",
            "secret RootKeyring",
            "log",
        ];
        assert_eq!(seen, expected.into());
    }
}

#[test]
fn policies_and_identities_are_written_by_the_access_function() {
    for kind in ["kind policy", "kind identity"] {
        for action in [QUERY, PUT, UPDATE, DELETE] {
            only(action, kind, &["access", "all"]);
        }
        only(GET, kind, &["access", "all", "keys", "datakey", "service"]);
        // Without KES's API, no function behind the HTTP API reads them.
        let without = |it: &Deployment| it.is_http_api() && !it.has_kes_api();
        assert!(who_may(GET, kind, without).is_empty());
    }
}

#[test]
fn access_keys_are_written_where_sessions_begin() {
    for action in [QUERY, UPDATE, DELETE] {
        only(action, "kind access-key", &[]);
    }
    only(PUT, "kind access-key", &["all"]);
    assert!(who_may(PUT, "kind access-key", Deployment::is_iam).is_empty());
    let readers = ["keys", "datakey", "service", "bucket-encryption", "all"];
    only(GET, "kind access-key", &readers);
}

#[test]
fn the_configuration_is_written_by_the_functions_that_may_make_it() {
    for action in [PUT, UPDATE] {
        only(action, "kind config", &["keys", "service", "all", "setup"]);
    }
    for action in [QUERY, DELETE] {
        only(action, "kind config", &[]);
    }
}

#[test]
fn buckets_are_written_by_the_function_that_serves_them() {
    for action in [GET, PUT, UPDATE, DELETE] {
        only(action, "kind bucket", &["bucket-encryption", "all"]);
    }
    only(
        QUERY,
        "kind bucket",
        &["bucket-encryption", "all", "keys", "janitor"],
    );
    only("s3:CreateBucket", "s3", &["bucket-encryption", "all"]);
    for action in [
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "s3:PutEncryptionConfiguration",
    ] {
        let without = |it: &Deployment| it.given("S3Endpoint").is_empty();
        assert!(who_may(action, "s3", without).is_empty(), "{action}");
    }
}

#[test]
fn audit_records_are_added_by_all_that_serve_and_changed_by_none() {
    for action in [UPDATE, DELETE] {
        only(action, "kind audit#*", &[]);
    }
    only(QUERY, "kind audit#*", &["service", "all"]);
    let everybody = [
        "access",
        "all",
        "bucket-encryption",
        "datakey",
        "janitor",
        "keys",
        "service",
    ];
    for action in [GET, PUT] {
        only(action, "kind audit#*", &everybody);
    }
}

#[test]
fn keyring_is_written_by_the_setup_function_alone() {
    let keyring = "secret RootKeyring";
    only("secretsmanager:PutSecretValue", keyring, &["setup"]);
    let readers = [
        "access",
        "all",
        "bucket-encryption",
        "datakey",
        "janitor",
        "keys",
        "service",
        "setup",
    ];
    only("secretsmanager:GetSecretValue", keyring, &readers);
    only("secretsmanager:PutSecretValue", "secret RootAccessKey", &[]);
    let verifiers = ["keys", "datakey", "service", "bucket-encryption", "all"];
    only(
        "secretsmanager:GetSecretValue",
        "secret RootAccessKey",
        &verifiers,
    );
}

#[test]
fn setup_function_writes_no_record_but_the_configuration() {
    for deployment in deployments() {
        let (name, function) = deployment.functions()["keyway-fn-setup"];
        let mut grants = allowed(deployment, function);
        grants.remove("encryption");
        let seen: BTreeSet<&str> = grants.keys().map(String::as_str).collect();
        let expected = ["kind config", "table", "secret RootKeyring", "log"];
        assert_eq!(seen, expected.into());
        let of_table = ["dynamodb:DescribeTable", "dynamodb:UpdateTable"];
        assert_eq!(grants["table"], of_table.map(str::to_owned).into());
        // It answers CloudFormation over the internet, and nobody but the stack calls it.
        assert_eq!(function.get("VpcConfig"), None);
        for (_, permission) in deployment.of_type("AWS::Lambda::Permission") {
            assert_ne!(reference(&permission["FunctionName"]), Some(name));
        }
    }
    only("dynamodb:UpdateTable", "table", &["setup"]);
}

#[test]
fn roles_are_where_the_parameters_say() {
    for deployment in deployments() {
        for role in deployment.of_type("AWS::IAM::Role").values() {
            let expected = match deployment.given("RolePath") {
                "" => "/",
                path => path,
            };
            assert_eq!(role["Path"], expected);
            match deployment.given("PermissionsBoundaryArn") {
                "" => assert_eq!(role.get("PermissionsBoundary"), None),
                boundary => assert_eq!(role["PermissionsBoundary"], boundary),
            }
        }
        for (package, (_, function)) in deployment.functions() {
            let is_inside = function.get("VpcConfig").is_some();
            let expected = !deployment.given("SubnetIds").is_empty();
            assert_eq!(
                is_inside,
                expected && package != "keyway-fn-setup",
                "{package}"
            );
        }
    }
}

/// With `SecretReaders`, the policy of a secret denies its value to all others, and locks nobody out for good.
#[test]
fn secrets_are_closed_to_all_but_functions_readers_and_the_root_user() {
    for deployment in deployments() {
        let policies = deployment.of_type("AWS::SecretsManager::ResourcePolicy");
        if deployment.given("SecretReaders").is_empty() {
            assert!(policies.is_empty());
            continue;
        }
        assert_eq!(policies.len(), 2);
        for policy in policies.values() {
            assert_eq!(policy["BlockPublicPolicy"], true);
            let secret = deployment.secret(&policy["SecretId"]).unwrap();
            let statements = policy["ResourcePolicy"]["Statement"].as_array().unwrap();
            let [statement] = statements.as_slice() else {
                panic!("{policy}");
            };
            assert_eq!(statement["Effect"], "Deny");
            assert_eq!(statement["Principal"], "*");
            for action in statement["Action"].as_array().unwrap() {
                let action = action.as_str().unwrap();
                // The policy itself, the secret's description and its deletion stay what IAM allows.
                let of_value = [
                    "SecretValue",
                    "UpdateSecret",
                    "VersionStage",
                    "RotateSecret",
                ];
                assert!(
                    of_value.iter().any(|part| action.contains(part)),
                    "{action}"
                );
            }
            let conditions = statement["Condition"].as_object().unwrap();
            assert_eq!(conditions.len(), 2);
            let spared = conditions["ArnNotEquals"]["aws:PrincipalArn"].as_array();
            let (root, roles) = spared.unwrap().split_first().unwrap();
            assert_eq!(
                root["Fn::Sub"],
                "arn:${AWS::Partition}:iam::${AWS::AccountId}:root"
            );
            let roles: BTreeSet<&str> = roles.iter().map(|role| arn_of(role).unwrap()).collect();
            let mut expected = BTreeSet::new();
            for (_, function) in deployment.functions().values() {
                let grants = allowed(deployment, function);
                if grants.contains_key(&format!("secret {secret}")) {
                    expected.insert(arn_of(&function["Role"]).unwrap());
                }
            }
            assert_eq!(roles, expected, "{secret}");
            let readers = &conditions["ArnNotLike"]["aws:PrincipalArn"]["Fn::Split"];
            assert_eq!(readers, &json!([",", deployment.given("SecretReaders")]));
        }
    }
}

/// A role may do what is listed here and nothing else, to what [`granted_on`] knows and nothing else.
#[test]
fn roles_have_no_other_action() {
    let known = [
        GET,
        QUERY,
        PUT,
        UPDATE,
        DELETE,
        "secretsmanager:GetSecretValue",
        "secretsmanager:PutSecretValue",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "s3:ListAllMyBuckets",
        "s3:CreateBucket",
        "s3:DeleteBucket",
        "s3:ListBucket",
        "s3:GetEncryptionConfiguration",
        "s3:PutEncryptionConfiguration",
        "dynamodb:DescribeTable",
        "dynamodb:UpdateTable",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:Encrypt",
        "kms:GenerateDataKey",
        "ec2:AssignPrivateIpAddresses",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:UnassignPrivateIpAddresses",
    ];
    let kinds = [
        "key",
        "alias",
        "bucket",
        "config",
        "access-key",
        "policy",
        "identity",
        "audit#*",
    ];
    for deployment in deployments() {
        for (package, (_, function)) in deployment.functions() {
            for (what, actions) in allowed(deployment, function) {
                if let Some(kind) = what.strip_prefix("kind ") {
                    assert!(kinds.contains(&kind), "{package}: {what}");
                    assert!(
                        actions.iter().all(|it| it.starts_with("dynamodb:")),
                        "{package}"
                    );
                }
                for action in actions {
                    assert!(known.contains(&action.as_str()), "{package}: {action}");
                }
            }
        }
    }
}

#[test]
fn functions_are_told_of_the_secrets_that_they_may_read() {
    for deployment in deployments() {
        for (package, (_, function)) in deployment.functions() {
            let told: BTreeMap<&str, &str> = Deployment::variables(function)
                .iter()
                // An empty variable is none.
                .filter(|(name, value)| name.ends_with("_SECRET") && *value != "")
                .map(|(name, value)| (name.as_str(), deployment.secret(value).unwrap()))
                .collect();
            let expected = [
                ("KEYWAY_ROOT_KEYRING_SECRET", "RootKeyring"),
                ("KEYWAY_ROOT_ACCESS_KEY_SECRET", "RootAccessKey"),
            ];
            let grants = allowed(deployment, function);
            let expected = expected
                .into_iter()
                .filter(|(_, secret)| grants.contains_key(&format!("secret {secret}")));
            assert_eq!(told, expected.collect(), "{package}");
        }
    }
}
