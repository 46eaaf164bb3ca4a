//! The table as it was at one moment: one read transaction on a connection of its own. It does not block writers.

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_domain::ports::{Consistency, Kind, Page, Record, StoreError, TableReader};
use tokio_postgres::Row;

use crate::Parameters;
use crate::connect::Server;
use crate::failure::Failure;
use crate::reads::{self, Asks};
use crate::session::Session;

const WHAT: &str = "read the table as it is now";

/// The first read of the transaction fixes what all see. A backup takes longer than a request may.
const BEGIN: &str = "SET statement_timeout = '10min'; SET idle_in_transaction_session_timeout = 0;
    BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT 1 FROM keyway_records LIMIT 1";

pub(crate) struct Snapshot {
    session: Session,
    server: String,
    /// Records that had expired when the snapshot was taken are not in it.
    taken_at: Timestamp,
}

impl Snapshot {
    pub(crate) async fn take(server: &Server, now: Timestamp) -> Result<Self, StoreError> {
        let name = server.name();
        let connected = server.connect(None).await;
        let (session, _) = connected.map_err(|error| Failure::Connect(error).told(WHAT, name))?;
        let begun = session.client().batch_execute(BEGIN).await;
        begun.map_err(|error| Failure::Driver(error).told(WHAT, name))?;
        Ok(Self {
            session,
            server: name.to_owned(),
            taken_at: now,
        })
    }
}

impl Asks for Snapshot {
    async fn rows(
        &self,
        what: &'static str,
        sql: &'static str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        // The transaction cannot be begun again as it was, so nothing is tried twice.
        let asked = self.session.query(sql, parameters).await;
        asked.map_err(|error| Failure::Driver(error).told(what, &self.server))
    }

    fn now(&self) -> Timestamp {
        self.taken_at
    }
}

#[async_trait]
impl TableReader for Snapshot {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        _: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        reads::get(self, kind, id).await
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        reads::count(self, kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        reads::page(self, kind, prefix, after, limit).await
    }
}
