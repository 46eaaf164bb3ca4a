//! Master keys: decode, operate, encode.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use keyway_domain::keys::{
    DeletionWindow, Description, KeyId, KeyQuery, KeySpec, KeyState, KeyStatus, KeyUsage, Keys,
    MasterKey, NAME_TAG, NewKey, Reference, Tags,
};
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, Pairs, Query, RouteEntry};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use crate::error_response::{invalid_field, invalid_query};
use crate::wire;
use crate::{ErrorResponse, RustFs, route};

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, Keys>> {
    let mut entries = create_and_read_entries();
    entries.extend(change_entries());
    entries
}

fn create_and_read_entries() -> Vec<RouteEntry<RustFs, Keys>> {
    vec![
        route(Method::POST, "/kms/keys", Action::CreateKey, create),
        route(Method::POST, "/kms/create-key", Action::CreateKey, create),
        route(Method::GET, "/kms/keys", Action::ListKeys, list),
        route(Method::GET, "/kms/list-keys", Action::ListKeys, list),
        route(
            Method::GET,
            "/kms/keys/{key_id}",
            Action::DescribeKey,
            describe,
        ),
        route(
            Method::GET,
            "/kms/describe-key",
            Action::DescribeKey,
            describe_by_query,
        ),
    ]
}

fn change_entries() -> Vec<RouteEntry<RustFs, Keys>> {
    vec![
        route(
            Method::DELETE,
            "/kms/keys/delete",
            Action::DeleteKey,
            delete,
        ),
        route(
            Method::POST,
            "/kms/keys/cancel-deletion",
            Action::DeleteKey,
            cancel_deletion,
        ),
        route(Method::POST, "/kms/keys/enable", Action::EnableKey, enable),
        route(
            Method::POST,
            "/kms/keys/disable",
            Action::DisableKey,
            disable,
        ),
        route(Method::POST, "/kms/keys/rotate", Action::RotateKey, rotate),
        route(
            Method::POST,
            "/kms/keys/update-description",
            Action::UpdateKeyDescription,
            update_description,
        ),
        route(Method::POST, "/kms/keys/tag", Action::TagResource, tag),
        route(
            Method::POST,
            "/kms/keys/untag",
            Action::UntagResource,
            untag,
        ),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreateBody {
    #[serde(alias = "keyId", alias = "KeyId", alias = "keyName")]
    key_id: Option<String>,
    #[serde(alias = "keyUsage", alias = "KeyUsage")]
    #[expect(
        dead_code,
        reason = "this API makes keys of one usage: that it parses is all that it can say"
    )]
    key_usage: Option<NewUsage>,
    #[serde(alias = "Description")]
    description: Option<String>,
    #[serde(alias = "Tags")]
    tags: Option<Pairs>,
}

#[derive(Deserialize)]
enum NewUsage {
    #[serde(rename = "ENCRYPT_DECRYPT", alias = "EncryptDecrypt")]
    EncryptDecrypt,
}

/// The longest description that this API accepts, in characters. Other APIs accept longer ones.
const MAX_DESCRIPTION: usize = 256;

fn short_description(text: String) -> Result<Option<Description>, ErrorResponse> {
    if text.chars().count() > MAX_DESCRIPTION {
        let reason = format!("must be at most {MAX_DESCRIPTION} characters");
        return Err(invalid_field("description", reason));
    }
    Ok(Description::parse(text)?)
}

/// The new key that a request names in its body, its query or both.
pub(crate) fn new_key(call: &Call<RustFs>) -> Result<NewKey, ErrorResponse> {
    let CreateBody {
        key_id,
        description,
        tags,
        ..
    } = wire::json_or_empty(&call.request.body)?;
    let tags = tags_of(tags.unwrap_or_default())?;
    let tagged = tags
        .get(NAME_TAG)
        .map(|name| KeyId::parse("tags.name", name))
        .transpose()?;
    let named = wire::named_key(key_id.as_deref(), &call.query)?;
    let description = description.map(short_description).transpose()?.flatten();
    Ok(NewKey {
        id: wire::agreeing([tagged, named])?,
        description,
        tags,
        ..NewKey::default()
    })
}

async fn create(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let key = keys.create(&call.caller, new_key(&call)?).await?;
    key_answer("key created successfully", &key)
}

async fn list(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let page = keys.list(&call.caller, &key_query(&call.query)?).await?;
    wire::ok(&ListAnswer {
        success: true,
        message: "keys listed successfully",
        keys: page.keys.iter().map(ListEntry::from).collect(),
        truncated: page.next_marker.is_some(),
        next_marker: page.next_marker,
    })
}

async fn describe(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let id = KeyId::parse("key_id", call.params.get("key_id"))?;
    described(&keys, &call, &id).await
}

async fn describe_by_query(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let id = wire::query_key(&call.query)?.ok_or_else(|| invalid_field("keyId", "is required"))?;
    described(&keys, &call, &id).await
}

async fn described(keys: &Keys, call: &Call<RustFs>, id: &KeyId) -> HandlerResult<RustFs> {
    let wants_impact = query_flag(&call.query, "impact")?.unwrap_or(false);
    let key = keys.describe(&call.caller, id).await?;
    let references = if wants_impact {
        Some(keys.references(id).await?)
    } else {
        None
    };
    wire::ok(&DescribeAnswer {
        success: true,
        message: "key described successfully",
        key_metadata: KeyMetadata::from(&key),
        impact: references
            .as_deref()
            .map(|references| Impact::of(id, references)),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "pendingWindowInDays", alias = "PendingWindowInDays")]
    pending_window_in_days: Option<i64>,
    #[serde(alias = "forceImmediate")]
    force_immediate: Option<bool>,
    #[serde(alias = "confirmKeyId")]
    confirm_key_id: Option<String>,
}

async fn delete(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: DeleteBody = wire::json_or_empty(&call.request.body)?;
    let id = wire::required_key(body.key_id.as_deref(), &call.query)?;
    // The body takes precedence over the query, which must be valid all the same.
    let window_in_query = query_value(&call.query, "pending_window_in_days")?
        .map(|text| {
            text.parse().map_err(|_| {
                invalid_field(
                    "pending_window_in_days",
                    "must be a whole number between 7 and 30",
                )
            })
        })
        .transpose()?;
    let windows = [body.pending_window_in_days, window_in_query];
    let [window, window_in_query] = windows.map(|days| days.map(DeletionWindow::days).transpose());
    let window = window?.or(window_in_query?);
    let immediate_in_query = query_flag(&call.query, "force_immediate")?;
    let immediate = body.force_immediate.or(immediate_in_query).unwrap_or(false);
    if !immediate {
        let key = keys
            .schedule_deletion(&call.caller, &id, window.unwrap_or(DeletionWindow::DEFAULT))
            .await?;
        let references = keys.references(&id).await?;
        return wire::ok(&DeleteAnswer {
            success: true,
            message: "key deletion scheduled successfully",
            key_id: id.as_str(),
            deletion_date: key.deletion_date().map(wire::date),
            key_metadata: Some(KeyMetadata::from(&key)),
            impact: Impact::of(&id, &references),
        });
    }
    let confirmed = match body.confirm_key_id.as_deref() {
        Some(confirmed) => Some(confirmed),
        None => query_value(&call.query, "confirm_key_id")?,
    };
    call.caller.may(Action::DeleteKey, &id)?;
    if confirmed != Some(id.as_str()) {
        return Err(invalid_field(
            "confirm_key_id",
            "must repeat the key id to delete it immediately",
        ));
    }
    keys.destroy(&call.caller, &id).await?;
    wire::ok(&DeleteAnswer {
        success: true,
        message: "key deleted successfully",
        key_id: id.as_str(),
        deletion_date: None,
        key_metadata: None,
        impact: Impact::of(&id, &[]),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
}

/// The key that a body `{"key_id"}` or the query names. Both may name it if they agree.
fn key_of(call: &Call<RustFs>) -> Result<KeyId, ErrorResponse> {
    let body: KeyBody = wire::json_or_empty(&call.request.body)?;
    wire::required_key(body.key_id.as_deref(), &call.query)
}

async fn cancel_deletion(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let key = keys.cancel_deletion(&call.caller, &key_of(&call)?).await?;
    key_answer("key deletion cancelled successfully", &key)
}

async fn enable(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let key = keys.enable(&call.caller, &key_of(&call)?).await?;
    key_answer("key enabled successfully", &key)
}

async fn disable(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let key = keys.disable(&call.caller, &key_of(&call)?).await?;
    key_answer("key disabled successfully", &key)
}

async fn rotate(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let key = keys.rotate(&call.caller, &key_of(&call)?).await?;
    key_answer("key rotated successfully", &key)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DescriptionBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "Description")]
    description: Option<String>,
}

async fn update_description(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: DescriptionBody = wire::json(&call.request.body)?;
    let id = wire::required_key(body.key_id.as_deref(), &call.query)?;
    let text = body
        .description
        .ok_or_else(|| invalid_field("description", "is required; `\"\"` clears it"))?;
    let key = keys
        .describe_as(&call.caller, &id, short_description(text)?)
        .await?;
    key_answer("key description updated", &key)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "Tags")]
    tags: Option<Pairs>,
}

async fn tag(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: TagBody = wire::json(&call.request.body)?;
    let id = wire::required_key(body.key_id.as_deref(), &call.query)?;
    let tags = tags_of(
        body.tags
            .ok_or_else(|| invalid_field("tags", "is required"))?,
    )?;
    let key = keys.tag(&call.caller, &id, &tags).await?;
    key_answer("key tags updated", &key)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UntagBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "tagKeys", alias = "TagKeys")]
    tag_keys: Option<Vec<String>>,
}

async fn untag(keys: Arc<Keys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: UntagBody = wire::json(&call.request.body)?;
    let id = wire::required_key(body.key_id.as_deref(), &call.query)?;
    let names = body
        .tag_keys
        .ok_or_else(|| invalid_field("tag_keys", "is required"))?;
    let key = keys.untag(&call.caller, &id, &names).await?;
    key_answer("key tags removed", &key)
}

fn tags_of(pairs: Pairs) -> Result<Tags, ErrorResponse> {
    let count = pairs.0.len();
    let tags: BTreeMap<String, String> = pairs.0.into_iter().collect();
    if tags.len() != count {
        return Err(invalid_field("tags", "a key is given more than once"));
    }
    Ok(Tags::parse(tags)?)
}

pub(crate) fn query_value<'q>(
    query: &'q Query,
    name: &str,
) -> Result<Option<&'q str>, ErrorResponse> {
    query.one(name).map_err(|error| invalid_query(name, error))
}

fn query_flag(query: &Query, name: &str) -> Result<Option<bool>, ErrorResponse> {
    match query_value(query, name)? {
        None => Ok(None),
        Some("false") => Ok(Some(false)),
        Some("true") => Ok(Some(true)),
        Some(_) => Err(invalid_field(name, "must be `true` or `false`")),
    }
}

fn key_query(query: &Query) -> Result<KeyQuery, ErrorResponse> {
    let owned = |name| {
        Ok::<_, ErrorResponse>(
            query_value(query, name)?
                .filter(|value| !value.is_empty())
                .map(str::to_owned),
        )
    };
    Ok(KeyQuery {
        usage: query_value(query, "usage")?.map(usage).transpose()?,
        limit: limit(query_value(query, "limit")?)?,
        marker: owned("marker")?,
        prefix: owned("prefix")?,
        pattern: owned("pattern")?,
        status: query_value(query, "status")?.map(status).transpose()?,
    })
}

pub(crate) fn limit(text: Option<&str>) -> Result<usize, ErrorResponse> {
    let Some(text) = text else { return Ok(100) };
    let whole = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let positive = text.bytes().any(|byte| byte != b'0');
    if !(whole && positive) {
        return Err(invalid_field(
            "limit",
            "must be a whole number from 1 to 1000",
        ));
    }
    // Larger limits mean 1000, also those that overflow a number.
    Ok(text.parse().unwrap_or(1000).min(1000))
}

fn status(text: &str) -> Result<KeyStatus, ErrorResponse> {
    match plain(text).as_str() {
        "active" | "enabled" => Ok(KeyStatus::Enabled),
        "disabled" => Ok(KeyStatus::Disabled),
        "pendingdeletion" => Ok(KeyStatus::PendingDeletion),
        _ => Err(invalid_field(
            "status",
            "must be Active, Disabled or PendingDeletion",
        )),
    }
}

fn usage(text: &str) -> Result<KeyUsage, ErrorResponse> {
    let all = [KeyUsage::EncryptDecrypt, KeyUsage::GenerateVerifyMac];
    let found = all
        .into_iter()
        .find(|usage| plain(usage.as_str()) == plain(text));
    found.ok_or_else(|| invalid_field("usage", "must be ENCRYPT_DECRYPT or GENERATE_VERIFY_MAC"))
}

/// Normalizes a word: clients write `PENDING_DELETION`, `pending-deletion` and `PendingDeletion`.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !matches!(c, '_' | '-'))
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

/// A key as every answer but a list shows it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct KeyMetadata<'a> {
    key_id: &'a str,
    description: Option<&'a str>,
    enabled: bool,
    key_usage: &'static str,
    creation_date: String,
    rotation_enabled: bool,
    deletion_date: Option<String>,
    key_state: &'static str,
    key_version: u32,
    origin: &'static str,
    created_by: &'a str,
    #[cfg_attr(feature = "openapi", schemars(with = "BTreeMap<String, String>"))]
    tags: TagsOut<'a>,
}

struct TagsOut<'a>(&'a Tags);

impl Serialize for TagsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in self.0.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'a> From<&'a MasterKey> for KeyMetadata<'a> {
    fn from(key: &'a MasterKey) -> Self {
        Self {
            key_id: key.id.as_str(),
            description: key.description.as_ref().map(beginning),
            enabled: key.state == KeyState::Enabled,
            key_usage: key.spec.usage().as_str(),
            creation_date: wire::date(key.created_at),
            rotation_enabled: key.rotation().is_some(),
            deletion_date: key.deletion_date().map(wire::date),
            key_state: match key.state {
                KeyState::Enabled => "Enabled",
                KeyState::Disabled => "Disabled",
                KeyState::PendingDeletion { .. } => "PendingDeletion",
            },
            key_version: key.current_version(),
            origin: key.origin.as_str(),
            created_by: &key.created_by,
            tags: TagsOut(&key.tags),
        }
    }
}

/// The beginning of a description, as long as this API's own ones: its clients know no longer ones, and a page has up
/// to a thousand.
fn beginning(description: &Description) -> &str {
    let text = description.as_str();
    let end = text.char_indices().nth(MAX_DESCRIPTION).map(|(end, _)| end);
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

const fn algorithm(spec: KeySpec) -> &'static str {
    match spec {
        KeySpec::SymmetricDefault => "AES_256",
        mac => mac.as_str(),
    }
}

/// A key as RustFS's own lists show it. `rc` reads this and [`KeyMetadata`] with one decoder, which refuses an object that
/// has both spellings of a field: `status` and `key_state`, `usage` and `key_usage`, `created_at` and `creation_date`.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ListEntry<'a> {
    key_id: &'a str,
    description: Option<&'a str>,
    usage: &'static str,
    status: &'static str,
    algorithm: &'static str,
    version: u32,
    created_at: String,
    rotated_at: Option<String>,
    deletion_date: Option<String>,
    #[cfg_attr(feature = "openapi", schemars(with = "BTreeMap<String, String>"))]
    tags: TagsOut<'a>,
}

impl<'a> From<&'a MasterKey> for ListEntry<'a> {
    fn from(key: &'a MasterKey) -> Self {
        Self {
            key_id: key.id.as_str(),
            description: key.description.as_ref().map(beginning),
            usage: key.spec.usage().as_str(),
            status: match key.state {
                KeyState::Enabled => "Active",
                KeyState::Disabled => "Disabled",
                KeyState::PendingDeletion { .. } => "PendingDeletion",
            },
            algorithm: algorithm(key.spec),
            version: key.current_version(),
            created_at: wire::date(key.created_at),
            rotated_at: key.rotated_at().map(wire::date),
            deletion_date: key.deletion_date().map(wire::date),
            tags: TagsOut(&key.tags),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct KeyAnswer<'a> {
    success: bool,
    message: &'static str,
    key_id: &'a str,
    key_metadata: KeyMetadata<'a>,
}

fn key_answer(message: &'static str, key: &MasterKey) -> HandlerResult<RustFs> {
    wire::ok(&KeyAnswer {
        success: true,
        message,
        key_id: key.id.as_str(),
        key_metadata: key.into(),
    })
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ListAnswer<'a> {
    success: bool,
    message: &'static str,
    keys: Vec<ListEntry<'a>>,
    truncated: bool,
    next_marker: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct DescribeAnswer<'a> {
    success: bool,
    message: &'static str,
    key_metadata: KeyMetadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    impact: Option<Impact<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct DeleteAnswer<'a> {
    success: bool,
    message: &'static str,
    key_id: &'a str,
    deletion_date: Option<String>,
    key_metadata: Option<KeyMetadata<'a>>,
    impact: Impact<'a>,
}

/// What would break without the key, as far as the service itself knows.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct Impact<'a> {
    key_id: &'a str,
    completeness: &'static str,
    coverage: Coverage,
    references: Vec<ReferenceOut<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct Coverage {
    scanned: [&'static str; 2],
    not_scanned: [&'static str; 2],
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct ReferenceOut<'a> {
    kind: &'static str,
    id: &'a str,
    detail: &'static str,
}

impl<'a> Impact<'a> {
    fn of(id: &'a KeyId, references: &'a [Reference]) -> Self {
        Self {
            key_id: id.as_str(),
            completeness: "observed-only",
            coverage: Coverage {
                scanned: ["bucket-default-encryption", "service-default-key"],
                not_scanned: ["object-envelopes", "in-progress-multipart-uploads"],
            },
            references: references
                .iter()
                .map(|reference| match reference {
                    Reference::ServiceDefaultKey => ReferenceOut {
                        kind: "service-default-key",
                        id: "kms-service-default-key",
                        detail: "data-key requests that name no key use this one",
                    },
                    Reference::Bucket(bucket) => ReferenceOut {
                        kind: "bucket-default-encryption",
                        id: bucket.as_str(),
                        detail: "the bucket encrypts new objects under this key",
                    },
                })
                .collect(),
        }
    }
}
