//! Aliases: decode, operate, encode.

use keyway_domain::keys::{Alias, AliasName, KeyId, Keys};
use serde::{Deserialize, Serialize};

use crate::ErrorResponse;
use crate::answers::{More, Seconds, empty, ok};
use crate::error_response::{Failure, length, not_authorized, null, pattern, validation};
use crate::members::{ListBody, decode, limit, marker};
use crate::names::{Name, Names};
use crate::operations::{Asked, Outcome};

/// The longest name, in characters.
const LONGEST: usize = 256;
/// The names that AWS keeps for itself begin with this.
const RESERVED: &str = "alias/aws/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AliasBody {
    alias_name: Option<String>,
    target_key_id: Option<String>,
}

impl AliasBody {
    fn name(&self) -> Result<AliasName, ErrorResponse> {
        let member = "aliasName";
        let text = self.alias_name.as_deref().ok_or_else(|| null(member))?;
        length(member, Some(text), text.chars().count(), 1, LONGEST)?;
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'/' | b'_' | b'-');
        if !text.bytes().all(is_legal) {
            return Err(pattern(member, text, "^[a-zA-Z0-9:/_-]+$"));
        }
        if !text.starts_with(AliasName::PREFIX) {
            return Err(validation(
                "Alias must start with the prefix \"alias/\". Please see \
                 https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html",
            ));
        }
        if text.starts_with(RESERVED) {
            return Err(not_authorized());
        }
        let unfit = || validation(format!("{text} contains invalid characters for an alias"));
        AliasName::parse(member, text).map_err(|_| unfit())
    }

    fn target(&mut self, names: &Names<'_>) -> Result<KeyId, ErrorResponse> {
        match names.name("targetKeyId", self.target_key_id.take())? {
            Name::Key(id) => Ok(id),
            Name::Alias(_) => Err(validation("Aliases must refer to keys. Not aliases")),
        }
    }
}

pub(crate) async fn create(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let mut body: AliasBody = decode(asked.body)?;
    let (name, target) = (body.name()?, body.target(asked.names)?);
    keys.create_alias(asked.caller, &name, &target).await?;
    Ok(empty())
}

pub(crate) async fn update(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let mut body: AliasBody = decode(asked.body)?;
    let (name, target) = (body.name()?, body.target(asked.names)?);
    keys.update_alias(asked.caller, &name, &target).await?;
    Ok(empty())
}

pub(crate) async fn delete(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: AliasBody = decode(asked.body)?;
    let name = body.name()?;
    keys.delete_alias(asked.caller, &name).await?;
    Ok(empty())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedAlias<'a> {
    alias_arn: String,
    alias_name: &'a str,
    creation_date: Seconds,
    last_updated_date: Seconds,
    target_key_id: &'a str,
}

impl<'a> ListedAlias<'a> {
    fn of(alias: &'a Alias, names: &Names<'_>) -> Self {
        let name = alias.name.as_str();
        Self {
            alias_arn: names.arn_of(name),
            alias_name: name,
            creation_date: alias.created_at.into(),
            last_updated_date: alias.updated_at.into(),
            target_key_id: alias.key_id.as_str(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AliasList<'a> {
    aliases: Vec<ListedAlias<'a>>,
    #[serde(flatten)]
    more: More,
}

pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody = decode(asked.body)?;
    let of = asked.names.some_key("keyId", body.key_id)?;
    let limit = limit(body.limit, 100, 50)?;
    let marker = marker(body.marker)?;
    let page = asked
        .served
        .directory
        .list_aliases(asked.caller, of.as_ref(), limit, marker.as_deref())
        .await
        .map_err(Failure::from)?;
    let listed = page.aliases.iter();
    Ok(ok(&AliasList {
        aliases: listed
            .map(|alias| ListedAlias::of(alias, asked.names))
            .collect(),
        more: page.next_marker.into(),
    })?)
}
