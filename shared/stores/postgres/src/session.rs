//! One connection to the server.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// A connection, which ends when this is dropped.
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// The statements that the server has parsed for this connection.
    statements: Mutex<HashMap<&'static str, Statement>>,
}

impl Session {
    /// `driver`: the task that moves the connection's bytes.
    pub(crate) fn new(client: Client, driver: JoinHandle<()>) -> Self {
        Self {
            client,
            driver,
            statements: Mutex::default(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    pub(crate) async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let known = {
            let statements = self.statements.lock();
            let statements = statements.unwrap_or_else(PoisonError::into_inner);
            statements.get(sql).cloned()
        };
        let statement = match known {
            Some(statement) => statement,
            None => {
                let statement = self.client.prepare(sql).await?;
                let statements = self.statements.lock();
                let mut statements = statements.unwrap_or_else(PoisonError::into_inner);
                statements.insert(sql, statement.clone());
                statement
            }
        };
        self.client.query(&statement, parameters).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The task waits for answers that may never come.
        self.driver.abort();
    }
}
