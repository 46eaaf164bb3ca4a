//! Rotation of keys: decode, operate, encode.

use keyway_domain::keys::{KeyUsage, Keys, RotationPeriod};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::answers::{More, Seconds, empty, material_id, ok};
use crate::constraints::{Faults, Input};
use crate::error_response::{Failure, invalid_marker};
use crate::keys::key_of;
use crate::members::{decode, limit};
use crate::operations::{Asked, Outcome};

pub(crate) async fn on_demand(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let id = key_of(asked)?;
    keys.rotate(asked.caller, &id).await?;
    Ok(ok(&json!({"KeyId": asked.names.arn(&id)}))?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EnableBody {
    key_id: Option<String>,
    rotation_period_in_days: Option<i64>,
}

impl Input for EnableBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        let days = RotationPeriod::SHORTEST..=RotationPeriod::LONGEST;
        faults.number("rotationPeriodInDays", self.rotation_period_in_days, days);
    }
}

pub(crate) async fn enable(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let body: EnableBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let period = match body.rotation_period_in_days {
        None => RotationPeriod::DEFAULT,
        Some(days) => RotationPeriod::days(days)?,
    };
    keys.enable_rotation(asked.caller, &id, period).await?;
    Ok(empty())
}

pub(crate) async fn disable(asked: &Asked<'_>, keys: &Keys) -> Outcome {
    let id = key_of(asked)?;
    keys.disable_rotation(asked.caller, &id).await?;
    Ok(empty())
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    key_id: String,
    key_rotation_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_date: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_period_in_days: Option<u16>,
}

pub(crate) async fn status(asked: &Asked<'_>) -> Outcome {
    let id = key_of(asked)?;
    let key = asked.served.directory.describe(asked.caller, &id).await?;
    key.must_be_for(KeyUsage::EncryptDecrypt)?;
    let schedule = key.rotation();
    Ok(ok(&Status {
        key_id: asked.names.arn(&id),
        key_rotation_enabled: schedule.is_some(),
        next_rotation_date: schedule.map(|schedule| schedule.next_at.into()),
        rotation_period_in_days: schedule.map(|schedule| schedule.period.as_days()),
    })?)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListBody {
    key_id: Option<String>,
    include_key_material: Option<String>,
    limit: Option<i64>,
    marker: Option<String>,
}

impl Input for ListBody {
    fn check(&self, faults: &mut Faults) {
        faults.required_key_id("keyId", self.key_id.as_ref());
        let which = self.include_key_material.as_deref();
        faults.word("includeKeyMaterial", which, &HISTORIES);
        faults.page(self.limit, 1000, self.marker.as_deref());
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListedRotation {
    key_id: String,
    key_material_id: String,
    key_material_state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_date: Option<Seconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotation_type: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RotationList {
    rotations: Vec<ListedRotation>,
    #[serde(flatten)]
    more: More,
}

const WHOLE_HISTORY: &str = "ALL_KEY_MATERIAL";
const HISTORIES: [&str; 2] = [WHOLE_HISTORY, "ROTATIONS_ONLY"];

/// Lists rotations, oldest first. The marker of a page names the version that its last rotation made.
pub(crate) async fn list(asked: &Asked<'_>) -> Outcome {
    let body: ListBody = decode(asked.body)?;
    let id = asked.names.key("keyId", body.key_id)?;
    let has_first = body.include_key_material.as_deref() == Some(WHOLE_HISTORY);
    let limit = limit(body.limit, 100);
    let keys = &asked.served.directory;
    let key = keys.describe(asked.caller, &id).await?;
    key.must_be_for(KeyUsage::EncryptDecrypt)?;
    let list = format!("rotations/{id}");
    let after = match &body.marker {
        Some(marker) => Some(version_of(&keys.after_marker(&list, marker).await?)?),
        None => None,
    };
    let first = if has_first { 1 } else { 2 };
    let mut made: Vec<_> = (key.history().iter())
        .filter(|made| made.version >= first && after.is_none_or(|after| made.version > after))
        .collect();
    let is_truncated = made.len() > limit;
    made.truncate(limit);
    let next = match made.last().filter(|_| is_truncated) {
        Some(last) => Some(keys.marker_after(&list, &last.version.to_string()).await?),
        None => None,
    };
    let more = next.into();
    let rotations = made.into_iter().map(|made| ListedRotation {
        key_id: asked.names.arn(&id),
        key_material_id: material_id(&id, made.version),
        key_material_state: match made.version == key.current_version() {
            true => "CURRENT",
            false => "NON_CURRENT",
        },
        rotation_date: (made.version > 1).then(|| made.created_at.into()),
        rotation_type: (made.version > 1).then_some(match made.is_automatic {
            true => "AUTOMATIC",
            false => "ON_DEMAND",
        }),
    });
    Ok(ok(&RotationList {
        rotations: rotations.collect(),
        more,
    })?)
}

/// The version that a marker names.
fn version_of(text: &str) -> Result<u32, Failure> {
    text.parse().map_err(|_| invalid_marker().into())
}
