//! Master keys: decode, operate, encode.

use keyway_domain::keys::{
    DeletionWindow, Description, KeyId, KeyQuery, KeySpec, KeyUsage, Keys, MAX_DESCRIPTION, NewKey,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ErrorResponse;
use crate::answers::{KeyMetadata, More, OWN_ORIGIN, Seconds, empty, ok, state};
use crate::constraints::{Faults, Input, Pattern};
use crate::error_response::{unsupported, validation};
use crate::members::{absent, decode, given, limit};
use crate::operations::{Asked, Outcome};
use crate::policy;
use crate::tags::{self, Tag};

const KEY_SPECS: [&str; 12] = [
    "RSA_2048",
    "ECC_NIST_P384",
    "ECC_NIST_P256",
    "ECC_NIST_P521",
    "HMAC_384",
    "RSA_3072",
    "ECC_SECG_P256K1",
    "RSA_4096",
    KeySpec::SymmetricDefault.as_str(),
    "HMAC_256",
    "HMAC_224",
    "HMAC_512",
];
const KEY_USAGES: [&str; 3] = [
    KeyUsage::EncryptDecrypt.as_str(),
    "SIGN_VERIFY",
    KeyUsage::GenerateVerifyMac.as_str(),
];

/// The kinds of keys that are made.
const SERVED_SPECS: [KeySpec; 5] = [
    KeySpec::SymmetricDefault,
    KeySpec::Hmac224,
    KeySpec::Hmac256,
    KeySpec::Hmac384,
    KeySpec::Hmac512,
];
const ORIGINS: [&str; 4] = [OWN_ORIGIN, "EXTERNAL", "AWS_CLOUDHSM", "EXTERNAL_KEY_STORE"];

/// Values that newer models of AWS have, besides.
const NEWER: [&str; 6] = [
    "SM2",
    "ECC_NIST_EDWARDS25519",
    "ML_DSA_44",
    "ML_DSA_65",
    "ML_DSA_87",
    "KEY_AGREEMENT",
];

/// The body of an operation on a key without other parameters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct KeyBody {
    key_id: Option<String>,
}

impl Input for KeyBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
    }
}

/// The key that the body of such an operation names.
pub(crate) fn key_of(asked: &Asked<'_>) -> Result<KeyId, ErrorResponse> {
    let body: KeyBody = decode(asked.body)?;
    asked.names.key("keyId", body.key_id)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CreateBody {
    policy: Option<String>,
    description: Option<String>,
    key_usage: Option<String>,
    customer_master_key_spec: Option<String>,
    key_spec: Option<String>,
    origin: Option<String>,
    custom_key_store_id: Option<String>,
    tags: Option<Vec<Tag>>,
    multi_region: Option<bool>,
    xks_key_id: Option<String>,
}

const XKS_KEY_ID: Pattern = Pattern {
    shown: "^[a-zA-Z0-9-_.]+$",
    matches: |text| {
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !text.is_empty() && text.bytes().all(is_legal)
    },
};

impl Input for CreateBody {
    fn check(&self, faults: &mut Faults) {
        policy::check(faults, self.policy.as_deref());
        check_description(faults, self.description.as_deref());
        let older = |text: &&str| !NEWER.contains(text);
        let usage = self.key_usage.as_deref().filter(older);
        faults.word("keyUsage", usage, &KEY_USAGES);
        let spec = self.customer_master_key_spec.as_deref().filter(older);
        faults.word("customerMasterKeySpec", spec, &KEY_SPECS);
        let spec = self.key_spec.as_deref().filter(older);
        faults.word("keySpec", spec, &KEY_SPECS);
        faults.word("origin", self.origin.as_deref(), &ORIGINS);
        let store = self.custom_key_store_id.as_deref();
        faults.text("customKeyStoreId", store, 1..=64);
        tags::check(faults, self.tags.as_deref());
        let key = self.xks_key_id.as_deref();
        faults.text("xksKeyId", key, 1..=128);
        faults.pattern("xksKeyId", key, &XKS_KEY_ID);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described<'a> {
    key_metadata: KeyMetadata<'a>,
}

pub(crate) async fn create(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: CreateBody = decode(asked.body)?;
    let spec = supported(&body)?;
    let policy = body.policy.as_deref();
    let policy = policy.map(|text| policy::accept(text, asked.names));
    let new = NewKey {
        id: None,
        spec,
        policy: policy.transpose()?,
        description: Description::parse(body.description.unwrap_or_default())?,
        tags: tags::parse(body.tags.unwrap_or_default())?,
    };
    let key = keys.create(asked.caller, new).await?;
    let key_metadata = KeyMetadata::of(&key, asked.names);
    Ok(ok(&Described { key_metadata })?)
}

/// The kind of the new key, if it is supported.
fn supported(body: &CreateBody) -> Result<KeySpec, ErrorResponse> {
    absent("CustomKeyStoreId", body.custom_key_store_id.as_ref())?;
    absent("XksKeyId", body.xks_key_id.as_ref())?;
    if body.multi_region == Some(true) {
        return Err(unsupported(
            "keys of several regions are not supported here",
        ));
    }
    let named = [
        &body.key_spec,
        &body.customer_master_key_spec,
        &body.key_usage,
    ];
    if let Some(newer) = named
        .into_iter()
        .flatten()
        .find(|text| NEWER.contains(&text.as_str()))
    {
        return Err(unsupported(format!("{newer} is not supported here")));
    }
    let spec = match (&body.key_spec, &body.customer_master_key_spec) {
        (Some(_), Some(_)) => {
            return Err(validation(
                "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. \
                 CustomerMasterKeySpec is deprecated.",
            ));
        }
        (Some(spec), None) | (None, Some(spec)) => spec,
        (None, None) => KeySpec::SymmetricDefault.as_str(),
    };
    let served = SERVED_SPECS.into_iter().find(|kind| kind.as_str() == spec);
    let usage = match &body.key_usage {
        Some(usage) => usage,
        None if served == Some(KeySpec::SymmetricDefault) => KeyUsage::EncryptDecrypt.as_str(),
        None => {
            return Err(validation(
                "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.",
            ));
        }
    };
    let Some(served) = served else {
        return Err(unsupported(format!("KeySpec {spec} is not supported here")));
    };
    if usage != served.usage().as_str() {
        let text = format!("KeyUsage {usage} is not compatible with KeySpec {spec}");
        return Err(validation(text));
    }
    match body.origin.as_deref() {
        None | Some(OWN_ORIGIN) => Ok(served),
        Some(origin) => Err(unsupported(format!(
            "Origin {origin} is not supported here"
        ))),
    }
}

fn check_description(faults: &mut Faults, text: Option<&str>) {
    faults.text("description", text, 0..=MAX_DESCRIPTION);
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeBody {
    key_id: Option<String>,
    grant_tokens: Option<Vec<String>>,
}

impl Input for DescribeBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.grant_tokens(self.grant_tokens.as_deref());
    }
}

pub(crate) async fn describe(asked: &Asked<'_>) -> Outcome {
    let body: DescribeBody = decode(asked.body)?;
    let named = asked.named("keyId", body.key_id).await?;
    let directory = &asked.served.directory;
    let key = directory.describe_named(asked.caller, &named).await?;
    let key_metadata = KeyMetadata::of(&key, asked.names);
    Ok(ok(&Described { key_metadata })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBody {
    limit: Option<i64>,
    marker: Option<String>,
}

impl Input for ListBody {
    fn check(&self, faults: &mut Faults) {
        faults.page(self.limit, 1000, self.marker.as_deref());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedKey<'a> {
    key_arn: String,
    key_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyList<'a> {
    keys: Vec<ListedKey<'a>>,
    #[serde(flatten)]
    more: More,
}

pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody = decode(asked.body)?;
    let query = KeyQuery {
        limit: limit(body.limit, 100),
        marker: body.marker,
        ..KeyQuery::default()
    };
    let page = asked.served.directory.list(asked.caller, &query).await?;
    let listed = page.keys.iter().map(|key| ListedKey {
        key_arn: asked.names.arn(&key.id),
        key_id: key.id.as_str(),
    });
    Ok(ok(&KeyList {
        keys: listed.collect(),
        more: page.next_marker.into(),
    })?)
}

pub(crate) async fn enable(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let id = key_of(asked)?;
    keys.enable(asked.caller, &id).await?;
    Ok(empty())
}

pub(crate) async fn disable(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let id = key_of(asked)?;
    keys.disable(asked.caller, &id).await?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ScheduleBody {
    key_id: Option<String>,
    pending_window_in_days: Option<i64>,
}

impl Input for ScheduleBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.number("pendingWindowInDays", self.pending_window_in_days, 7..=30);
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Scheduled {
    deletion_date: Option<Seconds>,
    key_id: String,
    key_state: &'static str,
    pending_window_in_days: i64,
}

pub(crate) async fn schedule_deletion(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: ScheduleBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let days = body.pending_window_in_days.unwrap_or(30);
    let window = DeletionWindow::days(days)?;
    let key = keys.schedule_deletion(asked.caller, &id, window).await?;
    Ok(ok(&Scheduled {
        deletion_date: key.deletion_date().map(Seconds::from),
        key_id: asked.names.arn(&id),
        key_state: state(key.state),
        pending_window_in_days: days,
    })?)
}

pub(crate) async fn cancel_deletion(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let id = key_of(asked)?;
    keys.cancel_deletion_and_disable(asked.caller, &id).await?;
    Ok(ok(&json!({"KeyId": asked.names.arn(&id)}))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescriptionBody {
    key_id: Option<String>,
    description: Option<String>,
}

impl Input for DescriptionBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.required("description", self.description.as_ref());
        check_description(faults, self.description.as_deref());
    }
}

pub(crate) async fn update_description(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: DescriptionBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let new = Description::parse(given(body.description)?)?;
    keys.describe_as(asked.caller, &id, new).await?;
    Ok(empty())
}
