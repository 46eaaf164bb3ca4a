//! Changes identities and policies.

use std::sync::Arc;

use super::{Identities, Identity, PolicyName, Rules, StoredIdentity, StoredPolicy};
use crate::access::Caller;
use crate::encoding;
use crate::error::KmsError;
use crate::ids::uuid_v4;
use crate::policy::Action;
use crate::ports::{Kind, Random, Revision, TableWriter};
use crate::repository::{self, Noun, update};
use crate::scan::Scan;

/// The effect of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was no policy before.
    Created,
    /// Another policy was replaced.
    Replaced,
    /// The same policy was there already.
    Unchanged,
}

/// Writes policies, and assigns them to identities.
pub struct IdentityControl {
    table: Arc<dyn TableWriter>,
    identities: Arc<Identities>,
    random: Arc<dyn Random>,
}

/// Other writers were always faster.
fn contended() -> KmsError {
    KmsError::Conflict("it is being changed by others at the same time; try again")
}

impl IdentityControl {
    /// `identities` is the one that finds this process's callers, so that it obeys every change made here at once.
    pub fn new(
        table: Arc<dyn TableWriter>,
        identities: Arc<Identities>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            identities,
            random,
        }
    }

    /// Writes the policy. Its holders keep it.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn write(
        &self,
        caller: &Caller,
        name: &PolicyName,
        rules: &Rules,
    ) -> Result<Written, KmsError> {
        caller.may_on_name(Action::ManageAccess, name.as_str())?;
        let written = || async {
            let before = self.identities.read_policy(name).await?;
            let generation = match &before {
                Some((stored, _)) if stored.rules == *rules => return Ok(Some(Written::Unchanged)),
                Some((stored, _)) => stored.generation.clone(),
                None => {
                    let mut bytes = [0; 16];
                    self.random.fill(&mut bytes)?;
                    uuid_v4(bytes)
                }
            };
            let stored = StoredPolicy {
                format: encoding::FORMAT,
                generation,
                rules: rules.clone(),
                created_at: self.identities.clock.now(),
                created_by: caller.principal().to_owned(),
            };
            let seen = before.map(|(_, seen)| seen);
            let written = self.put(name.as_str(), &stored, seen).await;
            self.identities.policies.forget(name);
            written
        };
        update(contended, written).await
    }

    /// Removes the policy. Its holders may call nothing afterwards, even if a policy of the same name is made again.
    ///
    /// # Errors
    /// [`KmsError::PolicyNotFound`], or the table failed.
    pub async fn delete(&self, caller: &Caller, name: &PolicyName) -> Result<(), KmsError> {
        caller.may_on_name(Action::ManageAccess, name.as_str())?;
        let removed = || async {
            let Some((stored, seen)) = self.identities.read_policy(name).await? else {
                return Err(KmsError::PolicyNotFound(name.to_string()));
            };
            let table = self.table.as_ref();
            let removed = repository::remove(table, Kind::Policy, name.as_str(), seen).await;
            self.identities.policies.forget(name);
            Ok(removed?.then_some(stored.generation))
        };
        let generation = update(contended, removed).await?;
        self.forget_holders(&generation).await
    }

    /// Assigns a policy to an identity, in place of any other.
    ///
    /// # Errors
    /// [`KmsError::IdentityIsAdmin`], [`KmsError::IdentityIsCaller`], [`KmsError::PolicyNotFound`], or the table failed.
    pub async fn assign(
        &self,
        caller: &Caller,
        name: &PolicyName,
        identity: &Identity,
    ) -> Result<Written, KmsError> {
        let permitted = caller
            .may_on_name(Action::ManageAccess, name.as_str())
            .or_else(|_| caller.may_on_name(Action::ManageAccess, identity.as_str()));
        // The event names both, whichever of them the path named.
        caller.audit().resource(&format!("{name}/{identity}"));
        permitted?;
        if self.identities.is_admin(identity) {
            return Err(KmsError::IdentityIsAdmin);
        }
        if caller.principal() == identity.as_str() {
            return Err(KmsError::IdentityIsCaller);
        }
        let written = || async {
            let Some((policy, _)) = self.identities.read_policy(name).await? else {
                return Err(KmsError::PolicyNotFound(name.to_string()));
            };
            let before = self.identities.read(identity).await?;
            if before.as_ref().is_some_and(|(stored, _)| {
                stored.policy == name.as_str() && stored.generation == policy.generation
            }) {
                return Ok(Some(Written::Unchanged));
            }
            let stored = StoredIdentity {
                format: encoding::FORMAT,
                policy: name.to_string(),
                generation: policy.generation,
                created_at: self.identities.clock.now(),
                created_by: caller.principal().to_owned(),
            };
            let seen = before.map(|(_, seen)| seen);
            let written = self.put(identity.as_str(), &stored, seen).await;
            self.identities.identities.forget(identity);
            written
        };
        update(contended, written).await
    }

    /// Removes an identity's policy.
    ///
    /// # Errors
    /// [`KmsError::IdentityIsAdmin`], [`KmsError::IdentityNotFound`], or the table failed.
    pub async fn forget(&self, caller: &Caller, identity: &Identity) -> Result<(), KmsError> {
        caller.may_on_name(Action::ManageAccess, identity.as_str())?;
        if self.identities.is_admin(identity) {
            return Err(KmsError::IdentityIsAdmin);
        }
        let removed = || async {
            let Some((_, seen)) = self.identities.read(identity).await? else {
                return Err(KmsError::IdentityNotFound(identity.to_string()));
            };
            Ok(self.remove(identity, seen).await?.then_some(()))
        };
        update(contended, removed).await
    }

    /// Removes the records of a deleted policy's holders, who may call nothing already.
    async fn forget_holders(&self, generation: &str) -> Result<(), KmsError> {
        let mut scan = Scan::all(self.table.as_ref(), Kind::Identity);
        while let Some(record) = scan.record().await? {
            let held = StoredIdentity::readable(&record);
            if held.is_some_and(|stored| stored.generation == generation) {
                // A holder that was changed meanwhile has another policy now.
                let identity = Identity::kept(&record.id);
                self.remove(&identity, record.revision).await?;
            }
        }
        Ok(())
    }

    /// Whether the identity was removed; `false` when another writer changed it.
    async fn remove(&self, identity: &Identity, seen: Revision) -> Result<bool, KmsError> {
        let table = self.table.as_ref();
        let removed = repository::remove(table, Kind::Identity, identity.as_str(), seen).await;
        self.identities.identities.forget(identity);
        Ok(removed?)
    }

    /// The effect of the write; `None` when another writer was faster.
    async fn put(
        &self,
        id: &str,
        noun: &(impl Noun + Sync),
        seen: Option<Revision>,
    ) -> Result<Option<Written>, KmsError> {
        let record = noun.record(id, self.random.as_ref())?;
        let is_written = repository::write(self.table.as_ref(), &record, seen).await?;
        Ok(is_written.then_some(match seen {
            Some(_) => Written::Replaced,
            None => Written::Created,
        }))
    }
}
