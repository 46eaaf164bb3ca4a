//! Aliases: decode, operate, encode.

use keyway_domain::keys::{Alias, AliasName, KeyId, Keys};
use serde::{Deserialize, Serialize};

use crate::ErrorResponse;
use crate::answers::{More, Seconds, empty, ok};
use crate::constraints::{Faults, Input, Pattern};
use crate::error_response::{Failure, not_authorized, validation};
use crate::members::{decode, given, limit};
use crate::names::{Name, Names};
use crate::operations::{Asked, Outcome};

/// The longest name, in characters.
const LONGEST: usize = 256;

const NAME: Pattern = Pattern {
    shown: "^[a-zA-Z0-9:/_-]+$",
    matches: |text| {
        let is_legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'/' | b'_' | b'-');
        !text.is_empty() && text.bytes().all(is_legal)
    },
};

fn check_name(faults: &mut Faults, text: Option<&String>) {
    let member = "aliasName";
    faults.required(member, text);
    let text = text.map(String::as_str);
    faults.text(member, text, 1..=LONGEST);
    faults.pattern(member, text, &NAME);
}

/// The alias that a member names, which must not be one of AWS's own.
fn parse_name(text: Option<String>) -> Result<AliasName, ErrorResponse> {
    let text = given(text)?;
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
    AliasName::parse("aliasName", &text).map_err(|_| unfit())
}

/// The names that AWS keeps for itself begin with this.
const RESERVED: &str = "alias/aws/";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AliasBody {
    alias_name: Option<String>,
    target_key_id: Option<String>,
}

impl Input for AliasBody {
    fn check(&self, faults: &mut Faults) {
        check_name(faults, self.alias_name.as_ref());
        faults.required_key_id("targetKeyId", self.target_key_id.as_ref());
    }
}

impl AliasBody {
    /// The alias, and the key that it is to stand for.
    fn parse(self, names: &Names<'_>) -> Result<(AliasName, KeyId), ErrorResponse> {
        let alias = parse_name(self.alias_name)?;
        match names.name("targetKeyId", self.target_key_id)? {
            Name::Key(id) => Ok((alias, id)),
            Name::Alias(_) => Err(validation("Aliases must refer to keys. Not aliases")),
        }
    }
}

pub(crate) async fn create(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: AliasBody = decode(asked.body)?;
    let (name, target) = body.parse(asked.names)?;
    keys.create_alias(asked.caller, &name, &target).await?;
    Ok(empty())
}

pub(crate) async fn update(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: AliasBody = decode(asked.body)?;
    let (name, target) = body.parse(asked.names)?;
    keys.update_alias(asked.caller, &name, &target).await?;
    Ok(empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DeleteBody {
    alias_name: Option<String>,
}

impl Input for DeleteBody {
    fn check(&self, faults: &mut Faults) {
        check_name(faults, self.alias_name.as_ref());
    }
}

pub(crate) async fn delete(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: DeleteBody = decode(asked.body)?;
    let name = parse_name(body.alias_name)?;
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

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBody {
    key_id: Option<String>,
    limit: Option<i64>,
    marker: Option<String>,
}

impl Input for ListBody {
    fn check(&self, faults: &mut Faults) {
        faults.key_id("keyId", self.key_id.as_deref());
        faults.page(self.limit, 100, self.marker.as_deref());
    }
}

pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody = decode(asked.body)?;
    let of = asked.names.some_key("keyId", body.key_id)?;
    let (limit, marker) = (limit(body.limit, 50), body.marker.as_deref());
    let page = asked
        .served
        .directory
        .list_aliases(asked.caller, of.as_ref(), limit, marker)
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
