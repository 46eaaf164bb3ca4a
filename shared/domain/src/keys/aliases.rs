//! Aliases: names of keys that can be moved from one key to another.
//!
//! Each alias is a record of its own. It says which key it stands for: the key of this id that was created at this time.
//! So it never stands for a key that was made later under the same id. A second record per key lists the names of the
//! key's aliases. An alias is listed there before it stands for the key, and until it does no more. So the conditional
//! writes of that one record limit the number of a key's aliases, and the aliases of a key are found without a scan. A
//! process that ends in between leaves a name too many in the list: a reader compares each name with the alias itself.
//!
//! The limit holds whatever processes do at once, with one exception: a process ends after it wrote an alias and before
//! it listed it for the second time, while another found the list full and the alias not yet written.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{KeyDirectory, KeyId, Keys, MasterKey};
use crate::access::Caller;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::policy::Action;
use crate::ports::{
    Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::repository::{self, Noun, load, tried, update};
use crate::scan::Scan;

pub use crate::ids::AliasName;

/// The most aliases of one key.
pub const MAX_ALIASES: usize = 50;

/// A key that a request names, by its id or by an alias.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedKey {
    pub id: KeyId,
    /// When the alias's key was created. A key of this id that was created at another time is not the named one.
    pub created_at: Option<Timestamp>,
}

impl From<KeyId> for NamedKey {
    fn from(id: KeyId) -> Self {
        Self {
            id,
            created_at: None,
        }
    }
}

impl NamedKey {
    /// Whether this is the named key, as far as its id has been compared already.
    pub(crate) fn is(&self, key: &MasterKey) -> bool {
        self.created_at.is_none_or(|at| at == key.created_at)
    }
}

/// An alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    format: u8,
    pub name: AliasName,
    /// The id of the key that it stands for.
    pub key_id: KeyId,
    /// When that key was created.
    key_created_at: Timestamp,
    pub created_at: Timestamp,
    /// When it was last moved to a key.
    pub updated_at: Timestamp,
}

impl Noun for Alias {
    const KIND: Kind = Kind::Alias;

    fn of(record: &Record) -> Result<Self, KmsError> {
        let alias: Self = encoding::decode(&record.value)?;
        if alias.name.as_str() != record.id {
            return Err(Fault::plain("an alias's record is not the alias's").into());
        }
        Ok(alias)
    }
}

impl Alias {
    fn stands_for(&self, id: &KeyId, created_at: Timestamp) -> bool {
        self.key_id == *id && self.key_created_at == created_at
    }

    pub(crate) fn named_key(&self) -> NamedKey {
        NamedKey {
            id: self.key_id.clone(),
            created_at: Some(self.key_created_at),
        }
    }
}

/// The names that a key's aliases have, and maybe some more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyAliases {
    format: u8,
    key_id: KeyId,
    key_created_at: Timestamp,
    names: BTreeSet<AliasName>,
}

impl KeyAliases {
    const PREFIX: &str = "key/";

    /// The id of the record for this key. No alias has such a name.
    fn record_id(key: &KeyId) -> String {
        format!("{}{key}", Self::PREFIX)
    }

    fn none(key: &MasterKey) -> Self {
        Self {
            format: encoding::FORMAT,
            key_id: key.id.clone(),
            key_created_at: key.created_at,
            names: BTreeSet::new(),
        }
    }
}

impl Noun for KeyAliases {
    const KIND: Kind = Kind::Alias;

    fn of(record: &Record) -> Result<Self, KmsError> {
        let listed: Self = encoding::decode(&record.value)?;
        if Self::record_id(&listed.key_id) != record.id {
            return Err(Fault::plain("the record of a key's aliases is not the key's").into());
        }
        Ok(listed)
    }
}

/// The aliases of this name.
pub(super) async fn find(
    table: &dyn TableReader,
    name: &AliasName,
) -> Result<Option<(Alias, Revision)>, KmsError> {
    load(table, name.as_str()).await
}

/// The listed names of this key's aliases. A list of an earlier key of this id is empty.
async fn listed(
    table: &dyn TableReader,
    key: &MasterKey,
) -> Result<(KeyAliases, Option<Revision>), KmsError> {
    let found: Option<(KeyAliases, Revision)> =
        load(table, &KeyAliases::record_id(&key.id)).await?;
    Ok(match found {
        Some((listed, seen)) if listed.key_created_at == key.created_at => (listed, Some(seen)),
        Some((_, seen)) => (KeyAliases::none(key), Some(seen)),
        None => (KeyAliases::none(key), None),
    })
}

/// The aliases of these names that stand for this key.
async fn standing<'n>(
    table: &dyn TableReader,
    key: &MasterKey,
    names: impl Iterator<Item = &'n AliasName>,
) -> Result<Vec<Alias>, KmsError> {
    let found = try_join_all(names.map(|name| find(table, name))).await?;
    let aliases = found.into_iter().flatten().map(|(alias, _)| alias);
    Ok(aliases
        .filter(|alias| alias.stands_for(&key.id, key.created_at))
        .collect())
}

/// A page of aliases, in the byte order of their names.
#[derive(Debug, Clone)]
pub struct AliasPage {
    pub aliases: Vec<Alias>,
    /// The marker of the next page, if there is one.
    pub next_marker: Option<String>,
}

impl Keys {
    /// Makes an alias of the key. If several callers make one of this name at once, one succeeds.
    ///
    /// # Errors
    /// [`KmsError::AliasExists`], [`KmsError::TooManyAliases`], [`KmsError::KeyNotFound`], or [`KmsError::KeyState`] when
    /// the key is pending deletion.
    pub async fn create_alias(
        &self,
        caller: &Caller,
        name: &AliasName,
        target: &KeyId,
    ) -> Result<Alias, KmsError> {
        caller.may_on_alias(Action::CreateAlias, name)?;
        caller.may(Action::CreateAlias, target)?;
        self.service.running().await?;
        let (key, _) = self.existing(target).await?;
        key.must_not_be_pending()?;
        let made = || async {
            let seen = match find(self.table.as_ref(), name).await? {
                Some((alias, _)) if self.key_of(&alias).await?.is_some() => {
                    return Err(KmsError::AliasExists(name.clone()));
                }
                found => found.map(|(_, seen)| seen),
            };
            let now = self.now()?;
            let alias = Alias {
                format: encoding::FORMAT,
                name: name.clone(),
                key_id: key.id.clone(),
                key_created_at: key.created_at,
                created_at: now,
                updated_at: now,
            };
            let is_written = self.place(&key, &alias, seen, None).await?;
            Ok(is_written.then_some(alias))
        };
        update(|| KmsError::Contended(target.clone()), made).await
    }

    /// Moves an alias to another key. At every instant it stands for exactly one of the two.
    ///
    /// # Errors
    /// [`KmsError::AliasNotFound`], or [`KmsError::KeySpec`] when the two keys are of different specs; otherwise as
    /// [`Keys::create_alias`].
    pub async fn update_alias(
        &self,
        caller: &Caller,
        name: &AliasName,
        target: &KeyId,
    ) -> Result<Alias, KmsError> {
        caller.may_on_alias(Action::UpdateAlias, name)?;
        caller.may(Action::UpdateAlias, target)?;
        self.service.running().await?;
        let moved = || async {
            let (before, seen) = self.changeable(caller, Action::UpdateAlias, name).await?;
            let (key, _) = self.existing(target).await?;
            key.must_not_be_pending()?;
            // What the alias's users do must remain possible.
            if let Some(former) = self.key_of(&before).await?
                && former.spec != key.spec
            {
                let (key_id, spec) = (key.id, key.spec);
                return Err(KmsError::KeySpec { key_id, spec });
            }
            let alias = Alias {
                key_id: key.id.clone(),
                key_created_at: key.created_at,
                updated_at: self.now()?,
                ..before.clone()
            };
            if !self.place(&key, &alias, Some(seen), Some(&before)).await? {
                return Ok(None);
            }
            if before.key_id != alias.key_id {
                self.unlist(&before).await;
            }
            Ok(Some(alias))
        };
        update(|| KmsError::Contended(target.clone()), moved).await
    }

    /// Removes an alias. Its key is not changed.
    ///
    /// # Errors
    /// [`KmsError::AliasNotFound`].
    pub async fn delete_alias(&self, caller: &Caller, name: &AliasName) -> Result<(), KmsError> {
        caller.may_on_alias(Action::DeleteAlias, name)?;
        self.service.running().await?;
        let removed = || async {
            let (alias, seen) = self.changeable(caller, Action::DeleteAlias, name).await?;
            let table = self.table.as_ref();
            let removed = repository::remove(table, Kind::Alias, name.as_str(), seen).await;
            self.reader.forget_alias(name);
            if !removed? {
                return Ok(None);
            }
            self.unlist(&alias).await;
            Ok(Some(()))
        };
        update(|| KmsError::Contended(name.implicit_key()), removed).await
    }

    /// The alias, which the caller may change. The permission is checked for the key that it stands for, also if it does
    /// not exist, so that a refusal does not say whether it does.
    async fn changeable(
        &self,
        caller: &Caller,
        action: Action,
        name: &AliasName,
    ) -> Result<(Alias, Revision), KmsError> {
        let found = find(self.table.as_ref(), name).await?;
        let key = match &found {
            Some((alias, _)) => alias.key_id.clone(),
            None => name.implicit_key(),
        };
        caller.may_behind(action, name, &key)?;
        found.ok_or_else(|| KmsError::AliasNotFound(name.clone()))
    }

    /// The key that the alias stands for, if it still exists.
    async fn key_of(&self, alias: &Alias) -> Result<Option<MasterKey>, KmsError> {
        let found = self.reader.read(&alias.key_id).await?;
        Ok(found
            .map(|(key, _)| key)
            .filter(|key| alias.named_key().is(key)))
    }

    /// Lists the alias among those of its key, and writes it in place of `before`, or of the record that was `seen`.
    /// `false`: another writer of the alias was faster.
    async fn place(
        &self,
        key: &MasterKey,
        alias: &Alias,
        seen: Option<Revision>,
        before: Option<&Alias>,
    ) -> Result<bool, KmsError> {
        let (table, id) = (self.table.as_ref(), alias.name.as_str());
        self.list_at(key, &alias.name).await?;
        let record = alias.record(id, self.random.as_ref())?;
        let written = repository::write(table, &record, seen).await;
        // Also after a failure: the write may have taken place.
        self.reader.forget_alias(&alias.name);
        if !written? {
            return Ok(false);
        }
        // List it again: another process may have read the alias before this write, to remove a name that stands for
        // another key. Its change of the list now fails, or was before this one.
        let Err(error) = self.list_at(key, &alias.name).await else {
            return Ok(true);
        };
        match before {
            Some(before) => {
                let undone = before.record(id, self.random.as_ref())?;
                repository::write(table, &undone, Some(record.revision)).await?;
            }
            None => {
                repository::remove(table, Kind::Alias, id, record.revision).await?;
            }
        }
        self.reader.forget_alias(&alias.name);
        Err(error)
    }

    /// Lists the name among those of the key's aliases. Writes the list also if it has the name already.
    async fn list_at(&self, key: &MasterKey, name: &AliasName) -> Result<(), KmsError> {
        let table = self.table.as_ref();
        let noted = || async {
            let (mut listed, seen) = listed(table, key).await?;
            if !listed.names.contains(name) && listed.names.len() >= MAX_ALIASES {
                let standing = standing(table, key, listed.names.iter()).await?;
                listed.names = standing.into_iter().map(|alias| alias.name).collect();
                if listed.names.len() >= MAX_ALIASES {
                    return Err(KmsError::TooManyAliases(key.id.clone()));
                }
            }
            listed.names.insert(name.clone());
            let id = KeyAliases::record_id(&key.id);
            let record = listed.record(&id, self.random.as_ref())?;
            Ok(repository::write(table, &record, seen).await?.then_some(()))
        };
        update(|| KmsError::Contended(key.id.clone()), noted).await
    }

    /// Removes the name of an alias from the list of a key that it no longer stands for. A failure leaves a name too many
    /// in the list, which does no harm.
    async fn unlist(&self, alias: &Alias) {
        let outcome = unlist(self.table.as_ref(), self.random.as_ref(), alias).await;
        if let Err(error) = outcome {
            tracing::warn!(
                alias = %alias.name,
                error = error.for_operator(),
                "an alias stays in the list of its former key"
            );
        }
    }
}

impl KeyDirectory {
    /// A page of the aliases of keys that the caller may list aliases of; of one key, if one is given. Up to `limit` (1
    /// to 100) of them.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], or [`KmsError::Invalid`] for a marker that is not one of this list.
    pub async fn list_aliases(
        &self,
        caller: &Caller,
        of: Option<&KeyId>,
        limit: usize,
        marker: Option<&str>,
    ) -> Result<AliasPage, KmsError> {
        match of {
            Some(key) => caller.may(Action::ListAliases, key)?,
            None => caller.may_ever(Action::ListAliases)?,
        }
        let list = of.map_or_else(|| "aliases".to_owned(), |id| format!("aliases/{id}"));
        // The service must run, with a marker and without.
        self.service.running().await?;
        let after = match marker {
            Some(marker) => Some(self.after_marker(&list, marker).await?),
            None => None,
        };
        let limit = limit.clamp(1, 100);
        // One more than wanted tells whether this page is the last.
        let mut aliases = match of {
            Some(id) => self.aliases_of(id, after.as_deref()).await?,
            None => self.aliases_after(caller, after, limit + 1).await?,
        };
        let is_last = aliases.len() <= limit;
        aliases.truncate(limit);
        let next_marker = match aliases.last().filter(|_| !is_last) {
            Some(last) => Some(self.marker_after(&list, last.name.as_str()).await?),
            None => None,
        };
        Ok(AliasPage {
            aliases,
            next_marker,
        })
    }

    async fn aliases_of(&self, id: &KeyId, after: Option<&str>) -> Result<Vec<Alias>, KmsError> {
        let (key, _) = self.existing(id).await?;
        let (listed, _) = listed(self.table().as_ref(), &key).await?;
        let is_after = |name: &&AliasName| after.is_none_or(|after| name.as_str() > after);
        standing(
            self.table().as_ref(),
            &key,
            listed.names.iter().filter(is_after),
        )
        .await
    }

    async fn aliases_after(
        &self,
        caller: &Caller,
        after: Option<String>,
        wanted: usize,
    ) -> Result<Vec<Alias>, KmsError> {
        let mut found = Vec::new();
        let table = self.table().as_ref();
        let mut scan = Scan::named(table, Kind::Alias, AliasName::PREFIX, after);
        while found.len() < wanted
            && let Some(record) = scan.record().await?
        {
            let Some(alias) = Alias::readable(&record) else {
                continue;
            };
            if caller.may(Action::ListAliases, &alias.key_id).is_ok() {
                found.push(alias);
            }
        }
        Ok(found)
    }

    /// The key as a request names it.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`].
    pub async fn describe_named(
        &self,
        caller: &Caller,
        named: &NamedKey,
    ) -> Result<MasterKey, KmsError> {
        let key = self.describe(caller, &named.id).await?;
        if named.is(&key) {
            Ok(key)
        } else {
            Err(KmsError::KeyNotFound(key.id))
        }
    }
}

async fn unlist(
    table: &dyn TableWriter,
    random: &dyn Random,
    alias: &Alias,
) -> Result<(), KmsError> {
    let id = KeyAliases::record_id(&alias.key_id);
    let removed = || async {
        let Some((mut listed, seen)) = load::<KeyAliases>(table, &id).await? else {
            return Ok(Some(()));
        };
        // It may have been moved back in the same moment.
        let now = find(table, &alias.name).await?;
        let is_back =
            now.is_some_and(|(now, _)| now.stands_for(&listed.key_id, listed.key_created_at));
        if is_back || !listed.names.remove(&alias.name) {
            return Ok(Some(()));
        }
        let is_done = if listed.names.is_empty() {
            repository::remove(table, Kind::Alias, &id, seen).await?
        } else {
            repository::write(table, &listed.record(&id, random)?, Some(seen)).await?
        };
        Ok::<_, KmsError>(is_done.then_some(()))
    };
    tried(removed).await?;
    Ok(())
}

/// Removes the aliases of a key that was destroyed. They open nothing any more, so a failure is only logged: the
/// janitor removes what is left.
pub(crate) async fn remove_of(table: &dyn TableWriter, key: &MasterKey) {
    if let Err(error) = removed_of(table, key).await {
        tracing::warn!(
            key_id = %key.id,
            error = error.for_operator(),
            "aliases of a destroyed key are left; the janitor removes them"
        );
    }
}

async fn removed_of(table: &dyn TableWriter, key: &MasterKey) -> Result<(), KmsError> {
    let id = KeyAliases::record_id(&key.id);
    let Some((listed, seen)) = load::<KeyAliases>(table, &id).await? else {
        return Ok(());
    };
    if listed.key_created_at != key.created_at {
        return Ok(());
    }
    for name in &listed.names {
        if let Some((alias, seen)) = find(table, name).await?
            && alias.stands_for(&key.id, key.created_at)
        {
            repository::remove(table, Kind::Alias, name.as_str(), seen).await?;
        }
    }
    repository::remove(table, Kind::Alias, &id, seen).await?;
    Ok(())
}

/// Removes the aliases, and lists of aliases, whose key does not exist, and returns how many. `keys` are the keys that
/// were there a moment ago. A record that does not decode stays.
pub(crate) async fn sweep(
    table: &dyn TableWriter,
    keys: &BTreeMap<KeyId, Timestamp>,
) -> Result<u64, KmsError> {
    let mut removed = 0;
    let mut scan = Scan::all(table, Kind::Alias);
    while let Some(record) = scan.record().await? {
        let named = if record.id.starts_with(KeyAliases::PREFIX) {
            KeyAliases::readable(&record).map(|listed| (listed.key_id, listed.key_created_at))
        } else {
            Alias::readable(&record).map(|alias| (alias.key_id, alias.key_created_at))
        };
        let Some((id, created_at)) = named else {
            continue;
        };
        if keys.get(&id) == Some(&created_at) || !is_gone(table, &id, created_at).await? {
            continue;
        }
        if repository::remove(table, Kind::Alias, &record.id, record.revision).await? {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether no key of this id was created at this time. A key whose record is refused or does not decode may be that key.
async fn is_gone(
    table: &dyn TableWriter,
    id: &KeyId,
    created_at: Timestamp,
) -> Result<bool, KmsError> {
    match table.get(Kind::Key, id.as_str(), Consistency::Strong).await {
        Ok(None) => Ok(true),
        Ok(Some(record)) => {
            Ok(MasterKey::readable(&record).is_some_and(|key| key.created_at != created_at))
        }
        Err(StoreError::Refused { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
