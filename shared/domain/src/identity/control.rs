//! Changing identities and policies.

use std::sync::Arc;

use serde::Serialize;

use super::{Identities, Identity, PAGE, PolicyName, Rules, StoredIdentity, StoredPolicy};
use crate::access::Caller;
use crate::encoding::{self, if_readable};
use crate::error::KmsError;
use crate::policy::Action;
use crate::ports::{Kind, Random, Record, Revision, StoreError, TableWriter};
use crate::{revision, uuid_v4};

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// There was none before.
    Created,
    /// Another one was replaced.
    Replaced,
    /// It was so already.
    Unchanged,
}

/// Writes policies, and says who has them.
pub struct IdentityControl {
    table: Arc<dyn TableWriter>,
    identities: Arc<Identities>,
    random: Arc<dyn Random>,
}

/// How often a change is tried again when other writers were faster.
const ATTEMPTS: usize = 16;
const CONTENDED: KmsError =
    KmsError::Conflict("it is being changed by others at the same time; try again");

impl IdentityControl {
    /// `identities` is the one that this process tells callers apart by, so that it obeys every change made here at once.
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

    /// Makes the policy, or has it say something else. Whoever has it keeps it.
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
        for _ in 0..ATTEMPTS {
            let before = self.identities.read_policy(name).await?;
            let generation = match &before {
                Some((stored, _)) if stored.rules == *rules => return Ok(Written::Unchanged),
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
            let done = self.put(Kind::Policy, name.as_str(), &stored, seen).await;
            self.identities.policies.forget(name);
            if let Some(written) = done? {
                return Ok(written);
            }
        }
        Err(CONTENDED)
    }

    /// Removes the policy. Whoever had it may call nothing any more, also when a policy of its name is made again.
    ///
    /// # Errors
    /// [`KmsError::PolicyNotFound`], or the table failed.
    pub async fn delete(&self, caller: &Caller, name: &PolicyName) -> Result<(), KmsError> {
        caller.may_on_name(Action::ManageAccess, name.as_str())?;
        for _ in 0..ATTEMPTS {
            let Some((stored, seen)) = self.identities.read_policy(name).await? else {
                return Err(KmsError::PolicyNotFound(name.to_string()));
            };
            let removed = self.table.remove(Kind::Policy, name.as_str(), seen).await;
            self.identities.policies.forget(name);
            match removed {
                Ok(()) => return self.forget_holders(&stored.generation).await,
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CONTENDED)
    }

    /// Has an identity be the holder of a policy, and of no other one.
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
        // It is about both, whichever of them the path named.
        caller.trail().resource(&format!("{name}/{identity}"));
        permitted?;
        if self.identities.is_admin(identity) {
            return Err(KmsError::IdentityIsAdmin);
        }
        if caller.principal() == identity.as_str() {
            return Err(KmsError::IdentityIsCaller);
        }
        for _ in 0..ATTEMPTS {
            let Some((policy, _)) = self.identities.read_policy(name).await? else {
                return Err(KmsError::PolicyNotFound(name.to_string()));
            };
            let before = self.identities.read(identity).await?;
            if before.as_ref().is_some_and(|(stored, _)| {
                stored.policy == name.as_str() && stored.generation == policy.generation
            }) {
                return Ok(Written::Unchanged);
            }
            let stored = StoredIdentity {
                format: encoding::FORMAT,
                policy: name.to_string(),
                generation: policy.generation,
                created_at: self.identities.clock.now(),
                created_by: caller.principal().to_owned(),
            };
            let seen = before.map(|(_, seen)| seen);
            let done = self
                .put(Kind::Identity, identity.as_str(), &stored, seen)
                .await;
            self.identities.identities.forget(identity);
            if let Some(written) = done? {
                return Ok(written);
            }
        }
        Err(CONTENDED)
    }

    /// Takes an identity's policy away.
    ///
    /// # Errors
    /// [`KmsError::IdentityIsAdmin`], [`KmsError::IdentityNotFound`], or the table failed.
    pub async fn forget(&self, caller: &Caller, identity: &Identity) -> Result<(), KmsError> {
        caller.may_on_name(Action::ManageAccess, identity.as_str())?;
        if self.identities.is_admin(identity) {
            return Err(KmsError::IdentityIsAdmin);
        }
        for _ in 0..ATTEMPTS {
            let Some((_, seen)) = self.identities.read(identity).await? else {
                return Err(KmsError::IdentityNotFound(identity.to_string()));
            };
            if self.remove(identity, seen).await? {
                return Ok(());
            }
        }
        Err(CONTENDED)
    }

    /// Those who had a policy that is gone have nothing since; this only tidies up.
    async fn forget_holders(&self, generation: &str) -> Result<(), KmsError> {
        let mut after: Option<String> = None;
        loop {
            let page = self
                .table
                .page(Kind::Identity, "", after.as_deref(), PAGE)
                .await?;
            for record in &page.records {
                let read = encoding::decode::<StoredIdentity>(&record.value);
                if if_readable(record, read).is_some_and(|stored| stored.generation == generation) {
                    // One that was changed meanwhile has another policy now.
                    self.remove(&Identity(record.id.as_str().into()), record.revision)
                        .await?;
                }
            }
            after = page.records.into_iter().next_back().map(|record| record.id);
            if !page.more {
                return Ok(());
            }
        }
    }

    /// Whether the identity was removed; `false` when somebody changed it.
    async fn remove(&self, identity: &Identity, seen: Revision) -> Result<bool, KmsError> {
        let removed = self
            .table
            .remove(Kind::Identity, identity.as_str(), seen)
            .await;
        self.identities.identities.forget(identity);
        match removed {
            Ok(()) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What was written; `None` when somebody else was faster.
    async fn put(
        &self,
        kind: Kind,
        id: &str,
        noun: &(impl Serialize + Sync),
        seen: Option<Revision>,
    ) -> Result<Option<Written>, KmsError> {
        let record = Record {
            kind,
            id: id.to_owned(),
            revision: revision(self.random.as_ref())?,
            value: encoding::encode(noun)?,
            expires_at: None,
        };
        let (result, written) = match seen {
            Some(seen) => (self.table.replace(&record, seen).await, Written::Replaced),
            None => (self.table.put_new(&record).await, Written::Created),
        };
        match result {
            Ok(()) => Ok(Some(written)),
            Err(StoreError::Conflict) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
