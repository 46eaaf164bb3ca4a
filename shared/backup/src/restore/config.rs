//! The configuration in a restore. It keeps the place of this deployment's root keyring, and its epoch only rises.

use keyway_domain::ports::{Forgery, Kind, Record, StoreError, TableWriter};
use keyway_domain::records::content;
use keyway_domain::service::{RestoredConfig, SERVICE_RECORD};

use super::write::{ATTEMPTS, Class, Writes, current};
use super::{Destination, RestoreError};
use crate::merge::Name;

/// How far the epoch of a configuration is raised whose table was lost. A server that has seen it since the backup would
/// refuse a lower one than it has seen.
const AHEAD: u64 = 1 << 20;

impl Writes<'_> {
    /// Writes the bundle's configuration, or raises the epoch of the table's if `is_raised`. Returns how both compare;
    /// `None` if the bundle has none that is wanted.
    pub(super) async fn configuration(
        &self,
        bundled: Option<Record>,
        is_raised: bool,
    ) -> Result<Option<Class>, RestoreError> {
        let wanted = match &bundled {
            Some(record) => Some(decode(record)?),
            None => None,
        };
        for _ in 0..ATTEMPTS {
            let name = named(bundled.clone());
            let now = current(self.table().as_ref(), &name).await?;
            let (class, next) = self.next(wanted.as_ref(), now.as_ref(), is_raised)?;
            let Some(next) = next.filter(|_| !self.options.dry_run) else {
                return Ok(class);
            };
            let record = Record {
                revision: self.revision()?,
                value: next.encode().map_err(RestoreError::Config)?,
                ..name
            };
            let written = match now {
                Some(now) => self.signed.replace(&record, now.revision).await,
                None => self.signed.put_new(&record).await,
            };
            match written {
                Ok(()) => return Ok(class),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(RestoreError::Contended(Name {
            kind: Kind::Config,
            id: SERVICE_RECORD.to_owned(),
        }))
    }

    /// How the configurations compare, and what is to be written.
    fn next(
        &self,
        wanted: Option<&RestoredConfig>,
        now: Option<&Record>,
        is_raised: bool,
    ) -> Result<(Option<Class>, Option<RestoredConfig>), RestoreError> {
        // Under a root that was added meanwhile it cannot be judged, so it is neither changed nor signed again.
        if let Some(now) = now
            && self.keyring().must_verify(now) == Err(Forgery::UnknownRoot)
            && !self.is_damaged(now)
        {
            return Err(RestoreError::RootRotated);
        }
        let verified = now.filter(|now| self.keyring().must_verify(now).is_ok());
        let verified = verified.map(decode).transpose()?;
        let class = wanted.map(|wanted| match (&verified, now) {
            (Some(kept), _) if kept.decides_as(wanted) => Class::Equal,
            (Some(_), _) => Class::Changed,
            (None, Some(_)) => Class::Repaired,
            (None, None) => Class::New,
        });
        let own_folder = self.target.key_directory.as_deref();
        let next = match (class, wanted, verified) {
            (Some(Class::New | Class::Repaired), Some(wanted), _) => {
                let epoch = wanted.epoch().saturating_add(AHEAD);
                Some(wanted.clone().placed(own_folder, epoch))
            }
            (Some(Class::Changed), Some(wanted), Some(kept)) if self.options.overwrite => {
                let epoch = kept.epoch().max(wanted.epoch()).saturating_add(1);
                Some(wanted.clone().placed(kept.key_directory(), epoch))
            }
            (_, _, Some(kept)) if is_raised && self.destination == Destination::SameDeployment => {
                let epoch = kept.epoch().saturating_add(1);
                let folder = kept.key_directory().map(str::to_owned);
                Some(kept.placed(folder.as_deref(), epoch))
            }
            _ => None,
        };
        Ok((class, next))
    }
}

fn decode(record: &Record) -> Result<RestoredConfig, RestoreError> {
    RestoredConfig::decode(content(record)).map_err(RestoreError::Config)
}

/// The name of the configuration's record.
fn named(bundled: Option<Record>) -> Record {
    bundled.unwrap_or_else(|| Record {
        kind: Kind::Config,
        id: SERVICE_RECORD.to_owned(),
        revision: keyway_domain::ports::Revision([0; 16]),
        value: Vec::new(),
        expires_at: None,
    })
}
