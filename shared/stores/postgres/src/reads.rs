//! The reads of a table, as it is now or in a snapshot.

use jiff::Timestamp;
use keyway_domain::ports::{IdRange, Kind, Page, Record, StoreError};
use tokio_postgres::Row;

use crate::Parameters;
use crate::records::{self, statements};

/// Asks the server for rows.
pub(crate) trait Asks: Sync {
    fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> impl Future<Output = Result<Vec<Row>, StoreError>> + Send;

    /// The time by which records have expired or not.
    fn now(&self) -> Timestamp;
}

pub(crate) async fn get(
    asks: &impl Asks,
    kind: Kind,
    id: &str,
) -> Result<Option<Record>, StoreError> {
    let now = asks.now().as_microsecond();
    let parameters: Parameters<'_> = &[&kind.as_str(), &id.as_bytes(), &now];
    let rows = asks.rows("read a record", &statements(kind).get, parameters);
    let row = rows.await?.into_iter().next();
    row.map(|row| records::record(kind, &row)).transpose()
}

pub(crate) async fn count(asks: &impl Asks, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
    let (range, now) = (IdRange::new(prefix, None), asks.now().as_microsecond());
    let parameters: Parameters<'_> = &[&kind.as_str(), &range.first, &range.end, &now];
    let rows = asks.rows("count records", &statements(kind).count, parameters);
    let rows = rows.await?;
    let counted = rows.first().map(|row| row.try_get::<_, i64>(0));
    match counted {
        Some(Ok(counted)) => Ok(counted.unsigned_abs()),
        _ => Err(records::garbled("count")),
    }
}

pub(crate) async fn page(
    asks: &impl Asks,
    kind: Kind,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Page, StoreError> {
    let (range, now) = (IdRange::new(prefix, after), asks.now().as_microsecond());
    let limit = limit.clamp(1, 1000);
    // Read one more than asked for, to learn whether more follow.
    let wanted = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
    let parameters: Parameters<'_> = &[&kind.as_str(), &range.first, &range.end, &now, &wanted];
    let rows = asks.rows("read a page", &statements(kind).page, parameters);
    Ok(records::page_of(kind, &rows.await?, limit))
}
