//! The tags of a key: decode, operate, encode.

use std::collections::BTreeMap;

use keyway_domain::KmsError;
use keyway_domain::keys::{Keys, Tags};
use serde::{Deserialize, Serialize};

use crate::answers::{More, empty, ok};
use crate::constraints::{Faults, Input};
use crate::error_response::{Failure, tag as refused};
use crate::members::{ListBody, decode, given, limit};
use crate::operations::{Asked, Outcome};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Tag {
    tag_key: Option<String>,
    tag_value: Option<String>,
}

/// Checks the tags of a request.
pub(crate) fn check(faults: &mut Faults, tags: Option<&[Tag]>) {
    let tags = tags.unwrap_or_default().iter();
    let pairs = tags.map(|tag| (tag.tag_key.as_ref(), tag.tag_value.as_ref()));
    faults.tags("tags", pairs);
}

/// Parses the tags of a request by AWS's rules.
pub(crate) fn parse(tags: Vec<Tag>) -> Result<Tags, Failure> {
    if tags.len() > Tags::MOST {
        return Err(KmsError::TooManyTags { most: Tags::MOST }.into());
    }
    let mut parsed = BTreeMap::new();
    for tag in tags {
        let (key, value) = (given(tag.tag_key)?, given(tag.tag_value)?);
        let is_reserved = |start: &str| start.eq_ignore_ascii_case("aws:");
        if key.get(..4).is_some_and(is_reserved) {
            return Err(refused("Tags beginning with aws: are reserved").into());
        }
        if parsed.insert(key, value).is_some() {
            return Err(refused("Duplicate tag keys").into());
        }
    }
    Ok(Tags::parse(parsed)?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TagBody {
    key_id: Option<String>,
    tags: Option<Vec<Tag>>,
}

impl Input for TagBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.required("tags", self.tags.as_ref());
        check(faults, self.tags.as_deref());
    }
}

pub(crate) async fn tag(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: TagBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let tags = parse(given(body.tags)?)?;
    keys.tag(asked.caller, &id, &tags).await?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UntagBody {
    key_id: Option<String>,
    tag_keys: Option<Vec<String>>,
}

impl Input for UntagBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        faults.required("tagKeys", self.tag_keys.as_ref());
        faults.tag_keys("tagKeys", self.tag_keys.as_deref().unwrap_or_default());
    }
}

pub(crate) async fn untag(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: UntagBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    keys.untag(asked.caller, &id, &given(body.tag_keys)?)
        .await?;
    Ok(empty())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedTag<'a> {
    tag_key: &'a str,
    tag_value: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TagList<'a> {
    tags: Vec<ListedTag<'a>>,
    #[serde(flatten)]
    more: More,
}

/// Lists tags in the order of their keys. The marker of a page names its last tag.
pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody<50> = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let limit = limit(body.limit, 50);
    let keys = &asked.served.directory;
    let key = keys.describe(asked.caller, &id).await?;
    let list = format!("tags/{id}");
    let after = match &body.marker {
        Some(marker) => Some(keys.after_marker(&list, marker).await?),
        None => None,
    };
    let is_after = |tag_key: &str| after.as_deref().is_none_or(|after| tag_key > after);
    let rest = key.tags.iter().filter(|(tag_key, _)| is_after(tag_key));
    let mut tags: Vec<ListedTag<'_>> = rest
        .map(|(tag_key, tag_value)| ListedTag { tag_key, tag_value })
        .collect();
    let is_truncated = tags.len() > limit;
    tags.truncate(limit);
    let next = match tags.last().filter(|_| is_truncated) {
        Some(last) => Some(keys.marker_after(&list, last.tag_key).await?),
        None => None,
    };
    let more = next.into();
    Ok(ok(&TagList { tags, more })?)
}
