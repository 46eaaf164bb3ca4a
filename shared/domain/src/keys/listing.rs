//! Pages of keys, and the markers that lead from one to the next.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyway_crypto::{Key256, mac_sha256, verify_mac_sha256};

use super::{KeyDirectory, KeyId, KeyStatus, KeyUsage, MasterKey};
use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::glob;
use crate::policy::Action;
use crate::ports::{Kind, Record, TableReader};
use crate::repository::Noun;
use crate::scan::Scan;
use crate::service::ServiceConfig;

/// Which keys to list.
#[derive(Debug, Clone, Default)]
pub struct KeyQuery {
    /// The most keys of a page, clamped to 1..=1000.
    pub limit: usize,
    /// Where the previous page ended: its `next_marker`.
    pub marker: Option<String>,
    /// Only ids that begin with this.
    pub prefix: Option<String>,
    /// Only ids that match this pattern of `*` and `?`.
    pub pattern: Option<String>,
    /// Only keys of this status.
    pub status: Option<KeyStatus>,
    /// Only keys for this.
    pub usage: Option<KeyUsage>,
}

/// A page of keys, in the byte order of their ids.
#[derive(Debug, Clone)]
pub struct KeyPage {
    pub keys: Vec<MasterKey>,
    /// The marker of the next page, if there is one.
    pub next_marker: Option<String>,
}

impl KeyDirectory {
    /// All keys that the caller may list and whose ids match the pattern, read page by page. For APIs without pages.
    ///
    /// # Errors
    /// As [`Self::list`].
    pub async fn list_all(
        &self,
        caller: &Caller,
        pattern: Option<String>,
    ) -> Result<Vec<MasterKey>, KmsError> {
        let mut query = KeyQuery {
            limit: PAGE,
            pattern,
            ..KeyQuery::default()
        };
        let mut found = Vec::new();
        loop {
            let page = self.list(caller, &query).await?;
            found.extend(page.keys);
            query.marker = page.next_marker;
            if query.marker.is_none() {
                return Ok(found);
            }
        }
    }

    /// A page of the keys that the caller may list. A key whose record does not decode is left out.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a marker that Keyway did not make.
    pub async fn list(&self, caller: &Caller, query: &KeyQuery) -> Result<KeyPage, KmsError> {
        caller.may_ever(Action::ListKeys)?;
        let config = self.service.running().await?;
        let limit = query.limit.clamp(1, 1000);
        let after = query
            .marker
            .as_deref()
            .map(|marker| read_key_marker(&config, marker))
            .transpose()?;
        let prefix = narrower(
            query.prefix.as_deref(),
            query.pattern.as_deref().map(glob::literal_prefix),
        );
        let mut keys: Vec<MasterKey> = Vec::new();
        let Some(prefix) = prefix else {
            return Ok(KeyPage {
                keys,
                next_marker: None,
            });
        };
        // One key more than wanted tells whether this page is the last.
        let mut scan = self.listed(caller, prefix, after).by((limit + 1).min(PAGE));
        while let Some(record) = scan.record().await? {
            let wanted = query
                .pattern
                .as_deref()
                .is_none_or(|pattern| glob::matches(pattern, &record.id));
            // Records that the caller may not see are not even decoded.
            if !wanted || !may_list(caller, &record.id) {
                continue;
            }
            let Some(key) = MasterKey::readable(&record) else {
                continue;
            };
            if query
                .status
                .is_some_and(|status| status != key.state.into())
                || query.usage.is_some_and(|usage| usage != key.spec.usage())
            {
                continue;
            }
            if keys.len() == limit {
                let next_marker = keys
                    .last()
                    .map(|last| write_marker(&config, last.id.as_str()))
                    .transpose()?;
                return Ok(KeyPage { keys, next_marker });
            }
            keys.push(key);
        }
        Ok(KeyPage {
            keys,
            next_marker: None,
        })
    }

    /// Reads the keys that begin with `prefix`, sort after `after`, and may be permitted to the caller.
    fn listed(
        &self,
        caller: &Caller,
        prefix: &str,
        after: Option<String>,
    ) -> Scan<'_, dyn TableReader> {
        let ranges = caller.may_be_permitted(Action::ListKeys);
        Scan::within(self.table().as_ref(), Kind::Key, ranges, prefix, after)
    }
}

fn may_list(caller: &Caller, id: &str) -> bool {
    KeyId::parse("key_id", id).is_ok_and(|id| caller.may(Action::ListKeys, &id).is_ok())
}

/// A page of the ids of keys, in byte order.
#[derive(Debug, Clone)]
pub struct IdPage {
    pub ids: Vec<String>,
    /// Whether more follow.
    pub more: bool,
}

impl KeyDirectory {
    /// Up to `limit` ids of keys in any state that begin with `prefix`, sort after `after` and pass `wanted`. For APIs
    /// whose pages continue after a name.
    ///
    /// # Errors
    /// When the service does not run, or the table fails.
    pub async fn ids(
        &self,
        caller: &Caller,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&str) -> bool + Send,
    ) -> Result<IdPage, KmsError> {
        caller.may_ever(Action::ListKeys)?;
        self.service.running().await?;
        let mut ids: Vec<String> = Vec::new();
        let after = after.map(str::to_owned);
        let mut scan = self.listed(caller, prefix, after).by(PAGE);
        while let Some(Record { id, .. }) = scan.record().await? {
            if !wanted(&id) || !may_list(caller, &id) {
                continue;
            }
            if ids.len() == limit {
                return Ok(IdPage { ids, more: true });
            }
            ids.push(id);
        }
        Ok(IdPage { ids, more: false })
    }
}

impl KeyDirectory {
    /// The marker of the page after `last` in this list, for lists that are no records of the table.
    ///
    /// # Errors
    /// When the service does not run.
    pub async fn marker_after(&self, list: &str, last: &str) -> Result<String, KmsError> {
        let config = self.service.running().await?;
        write_marker(&config, &format!("{list}\0{last}"))
    }

    /// Where the page begins that the marker leads to: after this entry of the list.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] for a marker that is not one of this list.
    pub async fn after_marker(&self, list: &str, marker: &str) -> Result<String, KmsError> {
        let config = self.service.running().await?;
        let text = read_marker(&config, marker)?;
        match text.split_once('\0') {
            Some((of, last)) if of == list => Ok(last.to_owned()),
            _ => Err(unknown_marker()),
        }
    }
}

/// The key's id that a marker of a list of keys has. Markers of other lists name their list, with a character that is in
/// no id.
fn read_key_marker(config: &ServiceConfig, marker: &str) -> Result<String, KmsError> {
    let id = read_marker(config, marker)?;
    if id.contains('\0') {
        return Err(unknown_marker());
    }
    Ok(id)
}

fn unknown_marker() -> KmsError {
    KmsError::invalid("marker", "is not one that this service gave out")
}

/// The most records that a table returns at a time.
const PAGE: usize = 1000;

/// The narrower of two prefixes; `None` when no id can begin with both.
fn narrower<'a>(a: Option<&'a str>, b: Option<&'a str>) -> Option<&'a str> {
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    if a.starts_with(b) {
        Some(a)
    } else if b.starts_with(a) {
        Some(b)
    } else {
        None
    }
}

const MARKER_LABEL: &[u8] = b"keyway/v1/list-marker\0";
const MARKER_TAG_BYTES: usize = 32;

/// A marker is the base64url of a MAC and the page's last id.
fn write_marker(config: &ServiceConfig, id: &str) -> Result<String, KmsError> {
    let tag = mac_sha256(&marker_key(config)?, &[MARKER_LABEL, id.as_bytes()]);
    Ok(URL_SAFE_NO_PAD.encode([&tag, id.as_bytes()].concat()))
}

fn read_marker(config: &ServiceConfig, marker: &str) -> Result<String, KmsError> {
    let unknown = unknown_marker;
    let bytes = URL_SAFE_NO_PAD.decode(marker).map_err(|_| unknown())?;
    let (tag, id) = bytes
        .split_at_checked(MARKER_TAG_BYTES)
        .ok_or_else(unknown)?;
    let id = std::str::from_utf8(id).map_err(|_| unknown())?;
    if verify_mac_sha256(&marker_key(config)?, &[MARKER_LABEL, id.as_bytes()], tag) {
        Ok(id.to_owned())
    } else {
        Err(unknown())
    }
}

fn marker_key(config: &ServiceConfig) -> Result<Key256, KmsError> {
    Key256::try_from(config.marker_key.as_slice())
        .map_err(|_| Fault::plain("the configuration's marker key is not 32 bytes long").into())
}
