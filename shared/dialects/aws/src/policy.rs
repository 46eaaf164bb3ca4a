//! The policy of a key. Policies of access keys decide permissions here, so each key has AWS's default policy and accepts
//! no other: storing a policy without evaluating it would mislead about who may decrypt.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ErrorResponse;
use crate::answers::ok;
use crate::error_response::{invalid_marker, length, malformed_policy, not_found, unsupported};
use crate::keys::key_of;
use crate::members::{decode, limit, marker};
use crate::names::Names;
use crate::operations::{Asked, Outcome};

/// The only name of a key's policy.
const NAME: &str = "default";

/// The longest policy, in bytes.
const LONGEST: usize = 32 << 10;

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

/// Accepts only a policy that is equivalent to the default one.
pub(crate) fn accept(policy: &str, names: &Names<'_>) -> Result<(), ErrorResponse> {
    if policy.len() > LONGEST {
        return Err(malformed_policy("the policy is longer than 32 KiB"));
    }
    let policy: Value =
        serde_json::from_str(policy).map_err(|_| malformed_policy("the policy is not JSON"))?;
    let default = serde_json::from_str(&text(names)).unwrap_or(Value::Null);
    let (account, root) = (names.account().as_str(), names.root());
    let meaning = |policy| meaning(policy, account, &root);
    if meaning(policy) == meaning(default) {
        return Ok(());
    }
    Err(unsupported(
        "of key policies, only the default one is supported here; policies of access keys say who may use a key",
    ))
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
    asked.served.keys.describe(asked.caller, &id).await?;
    if let Some(name) = body.policy_name.filter(|name| name != NAME) {
        length("policyName", Some(&name), name.chars().count(), 1, 128)?;
        return Err(not_found("No such policy exists").into());
    }
    let policy = text(asked.names);
    Ok(ok(&json!({"Policy": policy, "PolicyName": NAME}))?)
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
    asked.served.keys.describe(asked.caller, &id).await?;
    // There is one page only, so every marker is another list's.
    if marker.is_some() {
        return Err(invalid_marker().into());
    }
    Ok(ok(&json!({"PolicyNames": [NAME], "Truncated": false}))?)
}
