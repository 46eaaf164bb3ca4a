//! The policy of a key. Policies of access keys decide permissions here, so each key has AWS's default policy and accepts
//! no other than one that means the same: storing a policy without evaluating it would mislead about who may decrypt.

use keyway_domain::keys::Keys;
use keyway_domain::policy::Action;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ErrorResponse;
use crate::answers::{empty, ok};
use crate::constraints::{Faults, Input, Pattern};
use crate::error_response::{
    invalid_marker, limit_exceeded, malformed_policy, not_found, unsupported,
};
use crate::members::{ListBody, decode, given};
use crate::names::Names;
use crate::operations::{Asked, Outcome};

/// The only name of a key's policy.
const NAME: &str = "default";

/// The longest policy, in bytes.
const LONGEST: usize = 32 << 10;

/// The longest policy without white space that a key's record holds, in bytes.
const LONGEST_STORED: usize = 2 << 10;

/// The longest policy by AWS's model, in characters.
const LONGEST_OF_MODEL: usize = 131_072;

const TEXT: Pattern = Pattern {
    shown: r"[\u0009\u000A\u000D\u0020-\u00FF]+",
    matches: |text| {
        let is_legal = |c| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{ff}');
        !text.is_empty() && text.chars().all(is_legal)
    },
};

const WORD: Pattern = Pattern {
    shown: r"[\w]+",
    matches: |text| {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !text.is_empty() && text.bytes().all(is_legal)
    },
};

/// Checks a policy by AWS's model.
pub(crate) fn check(faults: &mut Faults, policy: Option<&str>) {
    faults.text("policy", policy, 1..=LONGEST_OF_MODEL);
    faults.pattern("policy", policy, &TEXT);
}

fn check_name(faults: &mut Faults, name: Option<&str>) {
    faults.text("policyName", name, 1..=128);
    faults.pattern("policyName", name, &WORD);
}

/// The default policy, as AWS writes it.
fn text(names: &Names<'_>) -> String {
    let root = names.root();
    format!(
        r#"{{
  "Version" : "2012-10-17",
  "Id" : "key-default-1",
  "Statement" : [ {{
    "Sid" : "Enable IAM User Permissions",
    "Effect" : "Allow",
    "Principal" : {{
      "AWS" : "{root}"
    }},
    "Action" : "kms:*",
    "Resource" : "*"
  }} ]
}}"#
    )
}

/// Accepts only a policy that is equivalent to the default one. Returns it without white space.
pub(crate) fn accept(policy: &str, names: &Names<'_>) -> Result<String, ErrorResponse> {
    if policy.len() > LONGEST {
        return Err(malformed_policy("the policy is longer than 32 KiB"));
    }
    let policy: Value =
        serde_json::from_str(policy).map_err(|_| malformed_policy("the policy is not JSON"))?;
    if !policy.is_object() {
        return Err(malformed_policy("the policy is not a JSON object"));
    }
    let stored = policy.to_string();
    if is_default(policy, names) {
        // It differs from the default one in its ids. A key's record holds it, and is bounded.
        return match stored.len() > LONGEST_STORED {
            true => Err(limit_exceeded("the policy's ids are too long")),
            false => Ok(stored),
        };
    }
    Err(unsupported(
        "of key policies, only the default one is supported here; policies of access keys say who may use a key",
    ))
}

/// Whether the policy means what the default one does.
fn is_default(policy: Value, names: &Names<'_>) -> bool {
    let default = serde_json::from_str(&text(names)).unwrap_or(Value::Null);
    let (account, root) = (names.account().as_str(), names.root());
    let meaning = |policy| meaning(policy, account, &root);
    meaning(policy) == meaning(default)
}

/// Normalizes a policy: removes its ids, and turns single values into lists where AWS allows either.
fn meaning(mut policy: Value, account: &str, root: &str) -> Value {
    fn listed(value: &mut Value) {
        if !value.is_array() && !value.is_null() {
            *value = json!([value.take()]);
        }
    }
    let Some(document) = policy.as_object_mut() else {
        return policy;
    };
    document.remove("Id");
    if let Some(statements) = document.get_mut("Statement") {
        listed(statements);
        for statement in statements.as_array_mut().into_iter().flatten() {
            let Some(statement) = statement.as_object_mut() else {
                continue;
            };
            statement.remove("Sid");
            for member in ["Action", "Resource"] {
                statement.get_mut(member).into_iter().for_each(listed);
            }
            let principal = statement.get_mut("Principal");
            if let Some(aws) = principal.and_then(|principal| principal.get_mut("AWS")) {
                listed(aws);
                // An account's id stands for its root.
                for one in aws.as_array_mut().into_iter().flatten() {
                    if one.as_str() == Some(account) {
                        *one = root.into();
                    }
                }
            }
        }
    }
    policy
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetBody {
    key_id: Option<String>,
    policy_name: Option<String>,
}

impl Input for GetBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        check_name(faults, self.policy_name.as_deref());
    }
}

pub(crate) async fn get(asked: &Asked<'_>) -> Outcome {
    let body: GetBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let key = asked.served.directory.describe(asked.caller, &id).await?;
    if body.policy_name.is_some_and(|name| name != NAME) {
        return Err(not_found("No such policy exists").into());
    }
    // The account's id may have changed since the policy was put on the key.
    let is_in_force = |policy: &String| {
        serde_json::from_str(policy).is_ok_and(|policy| is_default(policy, asked.names))
    };
    let policy = key.policy.filter(is_in_force);
    let policy = policy.unwrap_or_else(|| text(asked.names));
    Ok(ok(&json!({"Policy": policy, "PolicyName": NAME}))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutBody {
    key_id: Option<String>,
    policy_name: Option<String>,
    policy: Option<String>,
}

impl Input for PutBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        check_name(faults, self.policy_name.as_deref());
        faults.required("policy", self.policy.as_ref());
        check(faults, self.policy.as_deref());
    }
}

pub(crate) async fn put(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: PutBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    asked.caller.may(Action::PutKeyPolicy, &id)?;
    if body.policy_name.is_some_and(|name| name != NAME) {
        return Err(unsupported("the only name of a key's policy is default").into());
    }
    let policy = accept(&given(body.policy)?, asked.names)?;
    keys.put_policy(asked.caller, &id, Some(policy)).await?;
    Ok(empty())
}

pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody<1000> = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    asked.served.directory.describe(asked.caller, &id).await?;
    // There is one page only, so every marker is another list's.
    if body.marker.is_some() {
        return Err(invalid_marker().into());
    }
    Ok(ok(&json!({"PolicyNames": [NAME], "Truncated": false}))?)
}
