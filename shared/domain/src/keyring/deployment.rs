//! The deployment's record in the table.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::table_format::TableFormat;
use super::{DEPLOYMENT_RECORD, OpenError, RootKeyring};
use crate::encoding;
use crate::ids::uuid_v4;
use crate::ports::{
    Clock, Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::repository;

/// How far the clocks of a deployment's processes may be apart when it is made.
const CLOCKS_APART: SignedDuration = SignedDuration::from_hours(25);

/// How far back the logs may go in a table that does not tell.
const UNKNOWN_BEGINNING: SignedDuration = SignedDuration::from_hours(366 * 24);

/// The deployment's record in the table. It says that a keyring must exist, and which one.
#[derive(Serialize, Deserialize)]
pub(super) struct Deployment {
    format: u8,
    pub(super) deployment: String,
    /// The logs hold nothing older, but for [`CLOCKS_APART`]. It never moves forward.
    created_at: Timestamp,
    /// The first start is under way or was cut off, so there may be no keyring yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) establishing: bool,
    /// The id of the newest root; absent until the first rotation. The record is not signed, so this only tells a process
    /// that its keyring may be older than the stored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<String>,
    /// What a release must know to use the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<TableFormat>,
}

/// The deployment's record as it was read.
pub(super) struct Marked {
    pub(super) deployment: Deployment,
    pub(super) revision: Revision,
}

impl Marked {
    /// Whether the record names the keyring's newest root.
    pub(super) fn names_newest_of(&self, keyring: &RootKeyring) -> bool {
        self.deployment.root.as_deref() == keyring.announced_root()
    }

    /// Records that there is a keyring, which root is its newest, and the table's format. Another process that records it
    /// first writes the same. After a rotation that was cut off, this completes what the table says. If the first process's
    /// clock was ahead, this moves the deployment's date back.
    ///
    /// The keyring must hold the root that the record names, so that the record never names an older root than before.
    pub(super) async fn finish(
        &self,
        keyring: &RootKeyring,
        table: &dyn TableWriter,
        clock: &dyn Clock,
        random: &dyn Random,
    ) -> Result<(), OpenError> {
        let Deployment {
            deployment,
            created_at,
            establishing,
            needs,
            ..
        } = &self.deployment;
        let now = clock.now();
        let is_ahead = created_at.duration_since(now) > CLOCKS_APART;
        if !establishing
            && !is_ahead
            && self.names_newest_of(keyring)
            && !TableFormat::is_older(needs.as_ref())
        {
            return Ok(());
        }
        let created_at = if is_ahead { now } else { *created_at };
        let newest = keyring.announced_root();
        let record = deployment_record(deployment, created_at, false, newest, random)?;
        repository::write(table, &record, Some(self.revision)).await?;
        Ok(())
    }
}

pub(super) async fn marked(table: &dyn TableReader) -> Result<Option<Marked>, OpenError> {
    let Some(record) = table
        .get(Kind::Config, DEPLOYMENT_RECORD, Consistency::Strong)
        .await?
    else {
        return Ok(None);
    };
    Ok(Some(Marked {
        deployment: decoded(&record)?,
        revision: record.revision,
    }))
}

fn decoded(record: &Record) -> Result<Deployment, OpenError> {
    let deployment: Deployment = encoding::decode(&record.value).map_err(OpenError::Operation)?;
    TableFormat::check(deployment.needs.as_ref())?;
    Ok(deployment)
}

/// The id of the deployment whose record this is.
///
/// # Errors
/// When it does not decode, or this release does not know the format of the table that it is from.
pub fn deployment_in(record: &Record) -> Result<String, OpenError> {
    decoded(record).map(|deployment| deployment.deployment)
}

/// The id of the deployment that the table holds, even of one whose first start was cut off.
///
/// # Errors
/// When the table fails, or its record does not decode.
pub async fn deployment_of(table: &dyn TableReader) -> Result<Option<String>, OpenError> {
    let marked = marked(table).await?;
    Ok(marked.map(|marked| marked.deployment.deployment))
}

/// Whether the table holds a deployment, even one whose first start was cut off.
///
/// # Errors
/// When the table fails, or its record does not decode.
pub async fn holds_deployment(table: &dyn TableReader) -> Result<bool, OpenError> {
    Ok(marked(table).await?.is_some())
}

/// The time before which the table's logs hold nothing. Where the table does not tell, because it holds no deployment or its
/// date is still to come, it is a year ago. The deployment's record is read by a query, for an auditor is permitted no more.
///
/// # Errors
/// When the table fails, or its record does not decode.
pub async fn beginning_of_logs(
    table: &dyn TableReader,
    clock: &dyn Clock,
) -> Result<Timestamp, OpenError> {
    let page = table.page(Kind::Config, DEPLOYMENT_RECORD, None, 1).await?;
    let record = page.records.first();
    let made = match record.filter(|record| record.id == DEPLOYMENT_RECORD) {
        Some(record) => Some(decoded(record)?.created_at),
        None => None,
    };
    let now = clock.now();
    let beginning = match made.filter(|made| *made <= now) {
        Some(made) => made.saturating_sub(CLOCKS_APART),
        None => now.saturating_sub(UNKNOWN_BEGINNING),
    };
    Ok(beginning.unwrap_or(Timestamp::MIN))
}

/// Prepares the table for the logs of this earlier record of its deployment: if the deployment is older by that record, the
/// table's record gets its date.
///
/// # Errors
/// When the table fails, or a record does not decode.
pub async fn extend_logs_to(
    earlier: &Record,
    table: &dyn TableWriter,
    random: &dyn Random,
) -> Result<(), OpenError> {
    let earlier = decoded(earlier)?.created_at;
    let contended = || OpenError::Store(StoreError::Conflict);
    repository::update(contended, async || {
        let Some(Marked {
            deployment,
            revision,
        }) = marked(table).await?
        else {
            return Err(OpenError::NotEstablished);
        };
        if deployment.created_at <= earlier {
            return Ok(Some(()));
        }
        let changed = Deployment {
            created_at: earlier,
            ..deployment
        };
        let is_written = repository::write(table, &changed.record(random)?, Some(revision)).await?;
        Ok(is_written.then_some(()))
    })
    .await
}

/// Marks the table for a new deployment, before its keyring is made. If several processes mark it at once, one wins.
pub(super) async fn mark(
    table: &dyn TableWriter,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Marked, OpenError> {
    let mut id = [0; 16];
    random.fill(&mut id)?;
    let record = deployment_record(&uuid_v4(id), clock.now(), true, None, random)?;
    repository::write(table, &record, None).await?;
    marked(table).await?.ok_or(OpenError::NotEstablished)
}

pub(super) fn deployment_record(
    deployment: &str,
    created_at: Timestamp,
    establishing: bool,
    newest_root: Option<&str>,
    random: &dyn Random,
) -> Result<Record, OpenError> {
    Deployment {
        format: encoding::FORMAT,
        deployment: deployment.to_owned(),
        created_at,
        establishing,
        root: newest_root.map(str::to_owned),
        needs: Some(TableFormat::own()),
    }
    .record(random)
}

impl Deployment {
    /// A record of it under a new revision.
    fn record(&self, random: &dyn Random) -> Result<Record, OpenError> {
        Ok(Record {
            kind: Kind::Config,
            id: DEPLOYMENT_RECORD.to_owned(),
            revision: Revision::random(random)?,
            value: encoding::encode(self).map_err(OpenError::Operation)?,
            expires_at: None,
        })
    }
}
