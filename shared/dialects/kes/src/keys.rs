//! Master keys: decode, operate, encode.

use std::sync::Arc;

use keyway_domain::Algorithm;
use keyway_domain::keys::{KeyUsage, MasterKey, NewKey};
use keyway_http::{Call, HandlerResult};
use serde::{Serialize, Serializer};

use crate::endpoint::OnKeys;
use crate::names::{self, Listing, Shape};
use crate::{Kes, wire};

/// Does not read the body.
pub(crate) async fn create(on: Arc<OnKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let new = NewKey {
        id: Some(names::key(call.params.get("name"))?),
        ..NewKey::default()
    };
    on.keys.create(call.caller.caller()?, new).await?;
    Ok(wire::empty())
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Described<'a> {
    name: &'a str,
    /// The key's cipher. A MAC key has none, and clients refuse an empty name.
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<&'static str>,
    created_at: String,
    created_by: &'a str,
}

/// The key's cipher, if it encrypts.
fn algorithm(key: &MasterKey) -> Option<Algorithm> {
    match key.spec.usage() {
        KeyUsage::EncryptDecrypt => Some(key.imported_algorithm().unwrap_or(Algorithm::Aes256)),
        KeyUsage::GenerateVerifyMac => None,
    }
}

pub(crate) async fn describe(on: Arc<OnKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let id = names::key(call.params.get("name"))?;
    let key = on.keys.describe(call.caller.caller()?, &id).await?;
    wire::ok(&Described {
        name: key.id.as_str(),
        algorithm: algorithm(&key).map(|algorithm| on.generation.cipher(algorithm)),
        created_at: key.created_at.to_string(),
        created_by: &key.created_by,
    })
}

pub(crate) async fn delete(on: Arc<OnKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let id = names::key(call.params.get("name"))?;
    on.keys
        .delete(call.caller.caller()?, &id, on.deletion)
        .await?;
    Ok(wire::empty())
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Page {
    names: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_at: Option<String>,
}

/// A line of a listing. Its field's name differs by release.
struct Line {
    field: &'static str,
    name: String,
}

impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.field, &self.name)])
    }
}

pub(crate) async fn list(on: Arc<OnKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let listing = Listing::parse(call.params.get("name"))?;
    let shape = listing.shape(on.generation.keys(), &call.request.headers);
    let found = on
        .keys
        .ids(
            call.caller.caller()?,
            &listing.prefix(),
            listing.after(),
            shape.limit(),
            |name| listing.wants(name),
        )
        .await?;
    match shape {
        Shape::Page => {
            let last = found.ids.last().filter(|_| found.more);
            wire::ok(&Page {
                continue_at: last.map(|last| listing.continue_at(last)),
                names: found.ids,
            })
        }
        Shape::Lines | Shape::Whole => {
            let field = on.generation.key_field();
            wire::lines(found.ids.into_iter().map(|name| Line { field, name }))
        }
    }
}
