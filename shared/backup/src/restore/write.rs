//! Decides what becomes of a record, and writes it.

use std::sync::Arc;

use keyway_domain::keyring::{KeyringOnDemand, RootKeyring};
use keyway_domain::ports::{
    Consistency, Kind, RandomError, Record, Revision, StoreError, TableReader, TableWriter,
};
use keyway_domain::records::{SignedTable, content};

use super::{Destination, RestoreError, RestoreOptions, Target};
use crate::merge::Name;

/// How often a write is tried while other writers are faster.
pub(super) const ATTEMPTS: usize = 16;

/// How a record of the bundle compares with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The table does not have it.
    New,
    /// It gives access that the table does not have, or gives otherwise, and nobody named it.
    KeptOut,
    /// The table has the same.
    Equal,
    /// The table has another.
    Changed,
    /// The table has one that does not verify.
    Repaired,
    /// It belongs to a log.
    OfLog,
}

/// A record of the bundle, and what is to become of it.
pub(super) struct Wish {
    pub(super) class: Class,
    record: Record,
    seen: Option<Revision>,
    is_named: bool,
    overwrites: bool,
}

impl Wish {
    pub(super) const fn of_log(record: Record) -> Self {
        Self {
            class: Class::OfLog,
            record,
            seen: None,
            is_named: true,
            overwrites: false,
        }
    }

    pub(super) fn name(&self) -> Name {
        Name::of(&self.record)
    }

    /// Whether the table is written for it.
    pub(super) const fn is_write(&self) -> bool {
        match self.class {
            Class::New | Class::Repaired | Class::OfLog => true,
            Class::Changed => self.overwrites,
            Class::KeptOut | Class::Equal => false,
        }
    }
}

/// Whether a record of this kind gives somebody access, so that its removal is a revocation and its change may be one.
const fn gives_access(kind: Kind) -> bool {
    match kind {
        Kind::AccessKey | Kind::AccessKeyUse | Kind::Identity | Kind::Policy => true,
        Kind::Key | Kind::Alias | Kind::Config | Kind::Bucket | Kind::Audit | Kind::ErrorLog => {
            false
        }
    }
}

/// The present record of the same name.
pub(super) async fn current(
    table: &dyn TableReader,
    record: &Record,
) -> Result<Option<Record>, StoreError> {
    table
        .get(record.kind, &record.id, Consistency::Strong)
        .await
}

/// The table that is restored, and what the operator asks for.
pub(super) struct Writes<'a> {
    pub(super) target: &'a Target,
    pub(super) options: &'a RestoreOptions,
    pub(super) destination: Destination,
    keyring: RootKeyring,
    /// Signs what is written under a new revision.
    pub(super) signed: SignedTable<dyn TableWriter>,
}

impl<'a> Writes<'a> {
    pub(super) fn new(
        target: &'a Target,
        keyring: RootKeyring,
        options: &'a RestoreOptions,
        destination: Destination,
    ) -> Self {
        let secrets = Arc::clone(&target.secrets);
        let (clock, random) = (Arc::clone(&target.clock), Arc::clone(&target.random));
        let on_demand = match destination {
            // The table does not say yet whose it is.
            Destination::Empty => KeyringOnDemand::signing(secrets, clock, random),
            Destination::SameDeployment => {
                let table = Arc::clone(&target.table) as _;
                KeyringOnDemand::opening(table, secrets, clock, random)
            }
        };
        Self {
            target,
            options,
            destination,
            keyring,
            signed: SignedTable::new(Arc::clone(&target.table), Arc::new(on_demand)),
        }
    }

    pub(super) const fn table(&self) -> &Arc<dyn TableWriter> {
        &self.target.table
    }

    pub(super) const fn keyring(&self) -> &RootKeyring {
        &self.keyring
    }

    pub(super) fn wish(&self, record: Record, current: Option<&Record>, is_named: bool) -> Wish {
        let is_same_deployment = self.destination == Destination::SameDeployment;
        let class = match current {
            None if is_same_deployment && gives_access(record.kind) && !is_named => Class::KeptOut,
            None => Class::New,
            Some(current) if self.is_damaged(current) => Class::Repaired,
            Some(current)
                if content(current) == content(&record)
                    && current.expires_at == record.expires_at =>
            {
                Class::Equal
            }
            Some(_) if self.options.overwrite && gives_access(record.kind) && !is_named => {
                Class::KeptOut
            }
            Some(_) => Class::Changed,
        };
        Wish {
            class,
            record,
            seen: current.map(|current| current.revision),
            is_named,
            overwrites: self.options.overwrite,
        }
    }

    /// Whether the table's record does not verify. A root that was added meanwhile is unknown here, and no damage; one that
    /// was given up is lost for good.
    pub(super) fn is_damaged(&self, current: &Record) -> bool {
        self.keyring.refuses_for_good(current)
    }

    /// Writes the record, unless another writer makes that needless meanwhile.
    pub(super) async fn apply(&self, mut wish: Wish) -> Result<(Name, Class), RestoreError> {
        for _ in 0..ATTEMPTS {
            if !wish.is_write() {
                return Ok((wish.name(), wish.class));
            }
            match self.write(&wish).await {
                Ok(()) => return Ok((wish.name(), wish.class)),
                Err(RestoreError::Store(StoreError::Conflict)) => {}
                Err(error) => return Err(error),
            }
            if wish.class == Class::OfLog {
                // A log's record is never changed: the table has one of this name.
                return Ok((wish.name(), Class::Equal));
            }
            let current = current(self.table().as_ref(), &wish.record).await?;
            let is_named = wish.is_named;
            wish = self.wish(wish.record, current.as_ref(), is_named);
        }
        Err(RestoreError::Contended(wish.name()))
    }

    async fn write(&self, wish: &Wish) -> Result<(), RestoreError> {
        let record = &wish.record;
        let is_verbatim = self.destination == Destination::Empty || wish.class == Class::OfLog;
        match wish.seen {
            None if is_verbatim => self.table().put_new(record).await?,
            None => self.signed.put_new(&self.renewed(record)?).await?,
            Some(seen) => self.signed.replace(&self.renewed(record)?, seen).await?,
        }
        Ok(())
    }

    /// The record's content under a new revision. The record was verified.
    fn renewed(&self, record: &Record) -> Result<Record, RandomError> {
        Ok(Record {
            revision: self.revision()?,
            value: content(record).to_vec(),
            ..record.clone()
        })
    }

    pub(super) fn revision(&self) -> Result<Revision, RandomError> {
        let mut bytes = [0; 16];
        self.target.random.fill(&mut bytes)?;
        Ok(Revision(bytes))
    }
}
