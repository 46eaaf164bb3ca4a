//! The policy of a key. Policies of access keys decide permissions here, so each key has AWS's default policy and accepts
//! no other than one that means the same: storing a policy without evaluating it would mislead about who may decrypt.

use keyway_domain::keys::Keys;
use keyway_domain::policy::Action;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ErrorResponse;
use crate::answers::{empty, ok};
use crate::error_response::{
    invalid_marker, length, limit_exceeded, malformed_policy, not_found, null, unsupported,
};
use crate::keys::key_of;
use crate::members::{decode, limit, marker};
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
    policy_name: Option<String>,
}

pub(crate) async fn get(asked: &Asked<'_>) -> Outcome {
    let body: GetBody = decode(asked.body)?;
    let id = key_of(asked)?;
    let key = asked.served.directory.describe(asked.caller, &id).await?;
    if let Some(name) = body.policy_name.filter(|name| name != NAME) {
        length("policyName", Some(&name), name.chars().count(), 1, 128)?;
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
    policy: Option<String>,
    policy_name: Option<String>,
}

pub(crate) async fn put(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: PutBody = decode(asked.body)?;
    let id = key_of(asked)?;
    asked.caller.may(Action::PutKeyPolicy, &id)?;
    if let Some(name) = body.policy_name.filter(|name| name != NAME) {
        length("policyName", Some(&name), name.chars().count(), 1, 128)?;
        return Err(unsupported("the only name of a key's policy is default").into());
    }
    let policy = body.policy.ok_or_else(|| null("policy"))?;
    length(
        "policy",
        Some(""),
        policy.chars().count(),
        1,
        LONGEST_OF_MODEL,
    )?;
    let policy = accept(&policy, asked.names)?;
    keys.put_policy(asked.caller, &id, Some(policy)).await?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBody {
    limit: Option<i64>,
    marker: Option<String>,
}

pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody = decode(asked.body)?;
    let id = key_of(asked)?;
    limit(body.limit, 1000, 100)?;
    let marker = marker(body.marker)?;
    asked.served.directory.describe(asked.caller, &id).await?;
    // There is one page only, so every marker is another list's.
    if marker.is_some() {
        return Err(invalid_marker().into());
    }
    Ok(ok(&json!({"PolicyNames": [NAME], "Truncated": false}))?)
}
