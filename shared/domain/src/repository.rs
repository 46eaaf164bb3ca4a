//! The one way from domain types to records and back: reads a record, and changes a record that other writers may
//! change at the same time. [`crate::scan`] reads many records.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::encoding;
use crate::error::KmsError;
use crate::ports::{
    Consistency, Kind, Random, Record, Revision, StoreError, TableReader, TableWriter,
};

/// A domain type that is stored, each value in its own record.
pub(crate) trait Noun: Serialize + DeserializeOwned {
    /// The kind of its records.
    const KIND: Kind;

    /// Decodes a record.
    fn of(record: &Record) -> Result<Self, KmsError> {
        encoding::decode(&record.value)
    }

    /// Decodes one record of many. A record that does not decode is logged and left out: it must not block the work on
    /// the others.
    fn readable(record: &Record) -> Option<Self> {
        if_readable(record, Self::of(record))
    }

    /// A record of this id with this value and a new revision. It does not expire.
    fn record(&self, id: &str, random: &dyn Random) -> Result<Record, KmsError> {
        Ok(Record {
            kind: Self::KIND,
            id: id.to_owned(),
            revision: Revision::random(random)?,
            value: encoding::encode(self)?,
            expires_at: None,
        })
    }
}

/// The value of one record of many: see [`Noun::readable`].
pub(crate) fn if_readable<T>(record: &Record, read: Result<T, KmsError>) -> Option<T> {
    read.inspect_err(|error| {
        tracing::error!(
            kind = record.kind.as_str(),
            id = record.id,
            error = error.for_operator(),
            "a record does not decode and is left out; restore it from a backup or remove it"
        );
    })
    .ok()
}

/// The present value of this id, and the revision that a change of it must name.
pub(crate) async fn load<T: Noun>(
    table: &dyn TableReader,
    id: &str,
) -> Result<Option<(T, Revision)>, KmsError> {
    match table.get(T::KIND, id, Consistency::Strong).await? {
        Some(record) => Ok(Some((T::of(&record)?, record.revision))),
        None => Ok(None),
    }
}

/// The record with a new revision, and with another value if one is given.
pub(crate) fn again(
    seen: &Record,
    value: Option<Vec<u8>>,
    random: &dyn Random,
) -> Result<Record, KmsError> {
    Ok(Record {
        revision: Revision::random(random)?,
        value: value.unwrap_or_else(|| seen.value.clone()),
        ..seen.clone()
    })
}

/// Makes the record, or replaces the seen one. `false`: another writer was faster, and nothing was changed.
pub(crate) async fn write(
    table: &dyn TableWriter,
    record: &Record,
    seen: Option<Revision>,
) -> Result<bool, StoreError> {
    won(match seen {
        Some(seen) => table.replace(record, seen).await,
        None => table.put_new(record).await,
    })
}

/// Removes the seen record. `false`: another writer was faster, and nothing was changed.
pub(crate) async fn remove(
    table: &dyn TableWriter,
    kind: Kind,
    id: &str,
    seen: Revision,
) -> Result<bool, StoreError> {
    won(table.remove(kind, id, seen).await)
}

/// Whether a conditional write took place; `false` when another writer was faster.
pub(crate) fn won<T>(written: Result<T, StoreError>) -> Result<bool, StoreError> {
    match written {
        Ok(_) => Ok(true),
        Err(StoreError::Conflict) => Ok(false),
        Err(error) => Err(error),
    }
}

/// How often a change is tried while other writers are faster.
const ATTEMPTS: usize = 16;

/// Changes a record that other writers may change at the same time. Each attempt reads the record and writes it only if
/// it has not changed since. An attempt returns `None` if another writer was faster; then the next one follows. When
/// all fail, the error is `contended`.
pub(crate) async fn update<T, E, A>(
    contended: impl FnOnce() -> E,
    attempt: impl Fn() -> A,
) -> Result<T, E>
where
    A: Future<Output = Result<Option<T>, E>>,
{
    tried(attempt).await?.ok_or_else(contended)
}

/// As [`update`]; `None` when other writers were always faster.
pub(crate) async fn tried<T, E, A>(attempt: impl Fn() -> A) -> Result<Option<T>, E>
where
    A: Future<Output = Result<Option<T>, E>>,
{
    for _ in 0..ATTEMPTS {
        if let Some(done) = attempt().await? {
            return Ok(Some(done));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// How often a change was tried while `others` writers were faster, and its result.
    async fn tries(others: usize) -> (usize, Result<&'static str, &'static str>) {
        let tries = AtomicUsize::new(0);
        let attempt = || async {
            let is_first = tries.fetch_add(1, Ordering::Relaxed) >= others;
            Ok(is_first.then_some("done"))
        };
        let done = update(|| "contended", attempt).await;
        (tries.into_inner(), done)
    }

    #[tokio::test]
    async fn update_other_writers_faster_tries_again_until_it_is_first() {
        assert_eq!(tries(0).await, (1, Ok("done")));
        assert_eq!(tries(15).await, (16, Ok("done")));
    }

    #[tokio::test]
    async fn update_other_writers_always_faster_is_contended() {
        assert_eq!(tries(16).await, (16, Err("contended")));
    }

    #[tokio::test]
    async fn update_failure_is_not_tried_again() {
        let tries = AtomicUsize::new(0);
        let attempt = || async {
            tries.fetch_add(1, Ordering::Relaxed);
            Err::<Option<()>, _>("failed")
        };
        assert_eq!(update(|| "contended", attempt).await, Err("failed"));
        assert_eq!(tries.into_inner(), 1);
    }

    #[test]
    fn won_conflict_is_no_failure() {
        assert!(matches!(won(Ok(())), Ok(true)));
        assert!(matches!(won::<()>(Err(StoreError::Conflict)), Ok(false)));
        let failed = won::<()>(Err(StoreError::Throttled));
        assert!(matches!(failed, Err(StoreError::Throttled)));
    }
}
