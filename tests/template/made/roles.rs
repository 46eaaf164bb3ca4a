//! The permissions and the log of each function: the table of grants, and the role and log group that each row makes. The
//! policies of the secrets follow from the same table.
//!
//! `policies.rs` checks the deployed roles by rules of its own, without this table.

use std::fmt::Write as _;

/// Something that a role may act on.
#[derive(Clone, Copy)]
enum What {
    /// Records of a kind: kinds are partition keys. The name of the statement, and the kind.
    Records(&'static str, &'static str),
    /// The table itself.
    Table,
    /// A secret of the stack, or an adopted one.
    Secret(&'static str),
    /// The account's own buckets, where the deployment serves them.
    BucketsOfAws,
}

/// The allowed actions.
type Actions = &'static [&'static str];

struct Grant {
    what: What,
    actions: Actions,
    /// The condition of the template for this grant; none if it always applies.
    condition: Option<&'static str>,
}

struct Role {
    /// The name of its resources.
    resource: &'static str,
    /// The function's name.
    name: &'static str,
    /// The condition of the function.
    condition: Option<&'static str>,
    comment: &'static [&'static str],
    grants: Vec<Grant>,
}

const READ: Actions = &["dynamodb:GetItem"];
const LIST: Actions = &["dynamodb:Query"];
const READ_AND_LIST: Actions = &["dynamodb:GetItem", "dynamodb:Query"];
const CHANGE: Actions = &[
    "dynamodb:GetItem",
    "dynamodb:Query",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
];
/// The configuration is one record.
const CHANGE_ONE: Actions = &[
    "dynamodb:GetItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
];
/// The janitor claims a key by an update before it removes it, and rotates a key by an update.
const REMOVE: Actions = &[
    "dynamodb:GetItem",
    "dynamodb:Query",
    "dynamodb:UpdateItem",
    "dynamodb:DeleteItem",
];
/// The janitor removes the aliases of keys that are gone.
const CLEAR: Actions = &["dynamodb:GetItem", "dynamodb:Query", "dynamodb:DeleteItem"];
/// Sessions are access keys; behind IAM there are none.
const BEGIN_SESSIONS: Actions = &[
    "dynamodb:GetItem",
    "!If [IamAuth, !Ref \"AWS::NoValue\", dynamodb:PutItem]",
];
/// Audit records are written and never changed.
const APPEND: Actions = &["dynamodb:GetItem", "dynamodb:PutItem"];
const APPEND_AND_LIST: Actions = &["dynamodb:GetItem", "dynamodb:Query", "dynamodb:PutItem"];
const OPEN: Actions = &["secretsmanager:GetSecretValue"];
const PROTECT: Actions = &["dynamodb:DescribeTable", "dynamodb:UpdateTable"];
/// The setup function makes the root keyring.
const MAKE: Actions = &[
    "secretsmanager:GetSecretValue",
    "secretsmanager:PutSecretValue",
];
const SERVE_BUCKETS: Actions = &[
    "s3:ListAllMyBuckets",
    "s3:CreateBucket",
    "s3:DeleteBucket",
    "s3:ListBucket",
    "s3:GetEncryptionConfiguration",
    "s3:PutEncryptionConfiguration",
];

const KEYS: What = What::Records("Keys", "key");
const ALIASES: What = What::Records("Aliases", "alias");
const BUCKETS: What = What::Records("Buckets", "bucket");
const CONFIG: What = What::Records("Config", "config");
const ACCESS_KEYS: What = What::Records("AccessKeys", "access-key");
const POLICIES: What = What::Records("KesPolicies", "policy");
const IDENTITIES: What = What::Records("KesIdentities", "identity");
/// The audit log has a partition for each hour.
const AUDIT: What = What::Records("Audit", "audit#*");
const KEYRING: What = What::Secret("RootKeyring");
const ROOT: What = What::Secret("RootAccessKey");

fn may(what: What, actions: Actions) -> Grant {
    Grant {
        what,
        actions,
        condition: None,
    }
}

fn may_where(condition: &'static str, what: What, actions: Actions) -> Grant {
    Grant {
        condition: Some(condition),
        ..may(what, actions)
    }
}

/// The additional grants for serving KES's API, where it is served.
fn reads_access() -> [Grant; 2] {
    [
        may_where("KesApiFront", POLICIES, READ),
        may_where("KesApiFront", IDENTITIES, READ),
    ]
}

fn changes_access() -> [Grant; 2] {
    [may(POLICIES, CHANGE), may(IDENTITIES, CHANGE)]
}

fn behind_the_http_api() -> Vec<Role> {
    let condition = Some("HttpApiFront");
    let mut keys = vec![
        may(KEYS, CHANGE),
        may(ALIASES, CHANGE),
        may(BUCKETS, LIST),
        may(CONFIG, CHANGE_ONE),
    ];
    keys.push(may(ACCESS_KEYS, READ));
    keys.extend(reads_access());
    keys.extend([
        may(KEYRING, OPEN),
        may_where("HasRootAccessKey", ROOT, OPEN),
        may(AUDIT, APPEND),
    ]);
    // AWS KMS's API lists keys and aliases there.
    let mut datakey = vec![
        may(KEYS, READ_AND_LIST),
        may(ALIASES, READ_AND_LIST),
        may(CONFIG, READ),
        may(ACCESS_KEYS, READ),
    ];
    datakey.extend(reads_access());
    datakey.extend([
        may(KEYRING, OPEN),
        may_where("HasRootAccessKey", ROOT, OPEN),
        may(AUDIT, APPEND),
    ]);
    let mut service = vec![
        may(KEYS, READ_AND_LIST),
        may(CONFIG, CHANGE_ONE),
        may(ACCESS_KEYS, READ),
    ];
    service.extend(reads_access());
    service.extend([
        may(KEYRING, OPEN),
        may_where("HasRootAccessKey", ROOT, OPEN),
        may(AUDIT, APPEND_AND_LIST),
    ]);
    let buckets = vec![
        may(BUCKETS, CHANGE),
        may(KEYS, READ),
        may(CONFIG, READ),
        may(ACCESS_KEYS, READ),
        may_where("BucketsOfAws", What::BucketsOfAws, SERVE_BUCKETS),
        may(KEYRING, OPEN),
        may_where("HasRootAccessKey", ROOT, OPEN),
        may(AUDIT, APPEND),
    ];
    let role = |resource, name, comment, grants| Role {
        resource,
        name,
        condition,
        comment,
        grants,
    };
    vec![
        role(
            "Keys",
            "keys",
            &[
                "What each role may do is what its function's ports do, and for the kinds of records that it touches: kinds are",
                "partition keys. ForAllValues holds of requests that name no key at all, hence the second condition.",
            ],
            keys,
        ),
        role("Datakey", "datakey", &[], datakey),
        role("Service", "service", &[], service),
        role(
            "Buckets",
            "buckets",
            &["It writes the records of buckets; keys it only looks at."],
            buckets,
        ),
    ]
}

fn others() -> Vec<Role> {
    let mut access: Vec<Grant> = changes_access().into();
    access.extend([may(KEYRING, OPEN), may(AUDIT, APPEND)]);
    let mut all = vec![
        may(KEYS, CHANGE),
        may(ALIASES, CHANGE),
        may(BUCKETS, CHANGE),
        may_where("BucketsOfAws", What::BucketsOfAws, SERVE_BUCKETS),
        may(CONFIG, CHANGE_ONE),
        may(ACCESS_KEYS, BEGIN_SESSIONS),
    ];
    all.extend(changes_access());
    all.extend([
        may(KEYRING, OPEN),
        may_where("HasRootAccessKey", ROOT, OPEN),
        may(AUDIT, APPEND_AND_LIST),
    ]);
    let janitor = vec![
        may(KEYS, REMOVE),
        may(ALIASES, CLEAR),
        may(BUCKETS, LIST),
        may(CONFIG, READ),
        may(KEYRING, OPEN),
        may(AUDIT, APPEND),
    ];
    let setup = vec![
        may(CONFIG, CHANGE_ONE),
        may(What::Table, PROTECT),
        may(KEYRING, MAKE),
    ];
    vec![
        Role {
            resource: "Setup",
            name: "setup",
            condition: None,
            comment: &[
                "Only CloudFormation's custom resource calls it. No role of a function that serves requests may write a secret.",
            ],
            grants: setup,
        },
        Role {
            resource: "Access",
            name: "access",
            condition: Some("KesApiFront"),
            comment: &[
                "It signs policies and identities by the root keyring, and may read no record that the keyring could open.",
            ],
            grants: access,
        },
        Role {
            resource: "All",
            name: "all",
            condition: Some("OneFunction"),
            comment: &["Sessions are access keys; behind IAM there are none."],
            grants: all,
        },
        Role {
            resource: "Janitor",
            name: "janitor",
            condition: None,
            comment: &[
                "It claims a key by writing it as it is, so that of two janitors one destroys it, and writes new versions of keys that",
                "rotate. By the root keyring it tells a true record from a forged one, wraps those versions, and logs in to a Vault.",
            ],
            grants: janitor,
        },
    ]
}

const TABLE_ARN: &str = "!If
    - NewTable
    - !GetAtt Table.Arn
    - !Sub \"arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/${ExistingTable}\"";

fn secret(name: &str) -> String {
    format!("!If [Adopted{name}, !Ref Existing{name}, !Ref {name}]")
}

/// Statements that depend on parameters, whatever the function: the use of the customer's key through the two services
/// that encrypt with it, and network interfaces, which Lambda makes and the function's own code may not.
const ENCRYPTION: &str = "- !If
  - KmsKeyGiven
  - Sid: Encryption
    Effect: Allow
    Action:
      - kms:Decrypt
      - kms:DescribeKey
      - kms:Encrypt
      - kms:GenerateDataKey
    Resource: !Ref KmsKeyArn
    Condition:
      StringEquals:
        kms:ViaService:
          - !Sub \"dynamodb.${AWS::Region}.${AWS::URLSuffix}\"
          - !Sub \"secretsmanager.${AWS::Region}.${AWS::URLSuffix}\"
  - !Ref \"AWS::NoValue\"";
const NETWORK: &str = "- !If
  - InVpc
  - Sid: Network
    Effect: Allow
    Action:
      - ec2:AssignPrivateIpAddresses
      - ec2:CreateNetworkInterface
      - ec2:DeleteNetworkInterface
      - ec2:DescribeNetworkInterfaces
      - ec2:DescribeSubnets
      - ec2:UnassignPrivateIpAddresses
    Resource: \"*\"
    Condition:
      \"Null\": {\"lambda:SourceFunctionArn\": \"true\"}
  - !Ref \"AWS::NoValue\"";

/// A statement of a policy, its lines indented as in a list of statements.
fn statement(grant: &Grant) -> String {
    let (name, resource) = match grant.what {
        What::Records(name, _) => (name, TABLE_ARN.to_owned()),
        What::Table => ("Table", TABLE_ARN.to_owned()),
        What::Secret(name) => (name, secret(name)),
        What::BucketsOfAws => ("BucketsOfAws", "\"*\"".to_owned()),
    };
    let mut lines = vec![
        format!("Sid: {name}"),
        "Effect: Allow".to_owned(),
        "Action:".to_owned(),
    ];
    lines.extend(grant.actions.iter().map(|action| format!("  - {action}")));
    lines.push(format!("Resource: {resource}"));
    if let What::Records(_, kind) = grant.what {
        let is_pattern = kind.contains('*');
        let (operator, kind) = if is_pattern {
            ("StringLike", format!("\"{kind}\""))
        } else {
            ("StringEquals", kind.to_owned())
        };
        lines.extend([
            "Condition:".to_owned(),
            format!("  ForAllValues:{operator}: {{\"dynamodb:LeadingKeys\": [{kind}]}}"),
            "  \"Null\": {\"dynamodb:LeadingKeys\": \"false\"}".to_owned(),
        ]);
    }
    let lines = lines.join("\n");
    match grant.condition {
        None => format!("- {}", lines.replace('\n', "\n  ")),
        Some(condition) => format!(
            "- !If\n  - {condition}\n  - {}\n  - !Ref \"AWS::NoValue\"",
            lines.replace('\n', "\n    ")
        ),
    }
}

fn block(role: &Role) -> String {
    let Role { resource, name, .. } = role;
    let condition = (role.condition)
        .map(|condition| format!("\n    Condition: {condition}"))
        .unwrap_or_default();
    let mut text = String::from("\n");
    for line in role.comment {
        writeln!(text, "  # {line}").unwrap();
    }
    write!(
        text,
        "  {resource}Role:
    Type: AWS::IAM::Role{condition}
    Properties:
      Description: !Sub \"${{AWS::StackName}}: what its {name} function may do\"
      Path: !Ref RolePath
      PermissionsBoundary: !If [BoundaryGiven, !Ref PermissionsBoundaryArn, !Ref \"AWS::NoValue\"]
      AssumeRolePolicyDocument:
        Version: \"2012-10-17\"
        Statement:
          - Effect: Allow
            Principal: {{Service: lambda.amazonaws.com}}
            Action: sts:AssumeRole
      Policies:
        - PolicyName: ports
          PolicyDocument:
            Version: \"2012-10-17\"
            Statement:
"
    )
    .unwrap();
    for grant in &role.grants {
        let indent = " ".repeat(14);
        let statement = statement(grant).replace('\n', &format!("\n{indent}"));
        writeln!(text, "{indent}{statement}").unwrap();
    }
    // The setup function is in no VPC.
    let by_parameters = match role.name {
        "setup" => &[ENCRYPTION][..],
        _ => &[ENCRYPTION, NETWORK],
    };
    for statement in by_parameters {
        let indent = " ".repeat(14);
        let statement = statement.replace('\n', &format!("\n{indent}"));
        writeln!(text, "{indent}{statement}").unwrap();
    }
    write!(
        text,
        "              - Sid: Log
                Effect: Allow
                Action:
                  - logs:CreateLogStream
                  - logs:PutLogEvents
                Resource: !GetAtt {resource}Log.Arn

  {resource}Log:
    Type: AWS::Logs::LogGroup{condition}
    DeletionPolicy: RetainExceptOnCreate
    UpdateReplacePolicy: Retain
    Properties:
      RetentionInDays: !Ref LogRetentionDays
      LogGroupClass: !Ref LogClass
      KmsKeyId: !If [KmsKeyGiven, !Ref KmsKeyArn, !Ref \"AWS::NoValue\"]
"
    )
    .unwrap();
    text
}

/// The policy of each secret. It denies its value to all but the functions that have a grant on it, the principals that
/// the operator names, and the account's root user. It denies no change of the policy itself: whoever may change it by
/// IAM can undo it, so that nobody is locked out for good.
pub(super) fn policies_of_secrets() -> String {
    let mut text = String::new();
    for (name, condition) in [
        ("RootKeyring", "SecretReadersGiven"),
        ("RootAccessKey", "RootAccessKeyReaders"),
    ] {
        let is_of = |grant: &Grant| matches!(grant.what, What::Secret(secret) if secret == name);
        let roles = behind_the_http_api().into_iter().chain(others());
        let readers: String = roles
            .filter(|role| role.grants.iter().any(is_of))
            .map(
                |Role {
                     resource,
                     condition: of_role,
                     ..
                 }| {
                    let arn = format!("!GetAtt {resource}Role.Arn");
                    match of_role {
                        None => format!("                  - {arn}\n"),
                        Some(condition) => format!(
                            "                  - !If [{condition}, {arn}, !Ref \"AWS::NoValue\"]\n"
                        ),
                    }
                },
            )
            .collect();
        let secret = secret(name);
        write!(
            text,
            "
  {name}Policy:
    Type: AWS::SecretsManager::ResourcePolicy
    Condition: {condition}
    Properties:
      SecretId: {secret}
      BlockPublicPolicy: true
      ResourcePolicy:
        Version: \"2012-10-17\"
        Statement:
          - Sid: ValueForTheseAlone
            Effect: Deny
            Principal: \"*\"
            Action:
              - secretsmanager:GetSecretValue
              - secretsmanager:PutSecretValue
              - secretsmanager:RotateSecret
              - secretsmanager:UpdateSecret
              - secretsmanager:UpdateSecretVersionStage
            Resource: \"*\"
            Condition:
              ArnNotEquals:
                aws:PrincipalArn:
                  - !Sub \"arn:${{AWS::Partition}}:iam::${{AWS::AccountId}}:root\"
{readers}              ArnNotLike:
                aws:PrincipalArn: !Split [\",\", !Ref SecretReaders]
"
        )
        .unwrap();
    }
    text
}

/// The role and the log of each function.
pub(super) fn blocks() -> Vec<(String, String)> {
    let roles = behind_the_http_api().into_iter().chain(others());
    let named = |role: Role| {
        let name = format!("role and log of the {} function", role.name);
        (name, block(&role))
    };
    roles.map(named).collect()
}
