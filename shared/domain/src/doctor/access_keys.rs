//! Access keys: expired, unused, rotated and still in use, or with an invalid policy.

use jiff::{SignedDuration, Timestamp};

use super::{Code, Doctor, Finding, later, list};
use crate::access::{AccessKeySummary, ListedAccessKeys, list_access_keys};

const UNUSED: SignedDuration = SignedDuration::from_hours(90 * 24);
const SOON: SignedDuration = SignedDuration::from_hours(7 * 24);

impl Doctor {
    pub(super) async fn examine_access_keys(
        &self,
        findings: &mut Vec<Finding>,
        newest: &mut Option<Timestamp>,
    ) {
        match list_access_keys(self.table.as_ref()).await {
            Ok(listed) => {
                for key in &listed.keys {
                    later(newest, key.created_at);
                    if let Some(used_at) = key.last_used_at {
                        later(newest, used_at);
                    }
                }
                judge(&listed, self.clock.now(), findings);
            }
            Err(error) => findings.push(Finding::failed("access keys", error.for_operator())),
        }
    }
}

fn judge(listed: &ListedAccessKeys, now: Timestamp, findings: &mut Vec<Finding>) {
    // A session is temporary by its nature.
    let keys = || listed.keys.iter().filter(|key| key.session.is_none());
    let found = |code, seen: &dyn Fn(&AccessKeySummary) -> Option<String>| {
        let found = keys().filter_map(|key| seen(key).map(|seen| (named(key), seen)));
        (code, found.collect::<Vec<_>>())
    };
    let uses_since = listed.uses_since;
    let all = [
        found(Code::AccessKeyExpired, &|key| {
            let at = key.expires_at.filter(|at| *at <= now)?;
            Some(format!("it expired at {at:.0}"))
        }),
        found(Code::AccessKeyReplacedInUse, &|key| still_used(key, now)),
        found(Code::AccessKeyExpires, &|key| {
            let at = key.expires_at.filter(|at| *at > now)?;
            let is_soon = at.duration_since(now) < SOON && still_used(key, now).is_none();
            is_soon.then(|| format!("it expires at {at:.0}"))
        }),
        found(Code::AccessKeyUnused, &|key| unused(key, uses_since, now)),
        found(Code::AccessKeyPolicyInvalid, &|key| key.fault.clone()),
    ];
    let is_known = uses_since.is_some_and(|since| now.duration_since(since) >= UNUSED);
    let is_fine = all.iter().all(|(_, found)| found.is_empty());
    for (code, found) in all {
        list(findings, code, found);
    }
    if !is_known && keys().any(|key| now.duration_since(key.created_at) >= UNUSED) {
        let seen = match uses_since {
            Some(since) => format!("uses are recorded since {since:.0}"),
            None => "no server has recorded a use yet".to_owned(),
        };
        findings.push(Finding::new(
            Code::AccessKeyUsesUnknown,
            "access keys",
            seen,
        ));
    } else if is_fine {
        let seen = format!("{} access keys", keys().count());
        findings.push(Finding::new(Code::AccessKeysOk, "access keys", seen));
    }
}

fn named(key: &AccessKeySummary) -> String {
    match &key.name {
        Some(name) => format!("{} ({})", key.id.as_str(), name.as_str()),
        None => key.id.as_str().to_owned(),
    }
}

/// Why a rotated access key must not end yet. The date of its last use is precise to an hour, so an earlier one says
/// nothing.
fn still_used(key: &AccessKeySummary, now: Timestamp) -> Option<String> {
    let (new, ends_at) = (key.replaced_by.as_ref()?, key.expires_at?);
    let used_at = key.last_used_at?;
    let is_recent = now.duration_since(used_at) < SignedDuration::from_hours(2);
    (ends_at > now && is_recent).then(|| {
        let new = new.as_str();
        format!("{new} takes its place; it was used at {used_at:.0} and ends at {ends_at:.0}")
    })
}

fn unused(key: &AccessKeySummary, uses_since: Option<Timestamp>, now: Timestamp) -> Option<String> {
    if key.expires_at.is_some_and(|at| at <= now) {
        return None;
    }
    // A use before servers recorded uses is unknown.
    let known_since = key.created_at.max(uses_since?);
    let last = key.last_used_at.unwrap_or(known_since);
    (now.duration_since(last) >= UNUSED).then(|| match key.last_used_at {
        Some(used_at) => format!("it was last used at {used_at:.0}"),
        None => format!("no use is recorded since {known_since:.0}"),
    })
}
