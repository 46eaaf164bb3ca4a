//! The events of a command in the deployment's audit log.

use std::sync::Arc;

use anyhow::Context;
use keyway_audit::{OperatorAction, OperatorEvent, OperatorLog};
use keyway_deployment_assembly::{SystemClock, SystemRandom, Writing};
use keyway_deployment_embedded::{Operator, table_of_log};
use keyway_domain::ports::{Clock, Random, TableWriter};

use crate::{explain, tell};

/// Writes the events of one command. `None` if the command does not know the table.
pub(crate) struct CommandLog(Option<OperatorLog>);

impl CommandLog {
    /// Records that the command begins. Nothing may be changed before.
    pub(crate) async fn begin(ports: &Writing, action: OperatorAction) -> anyhow::Result<Self> {
        Self::of_table(&ports.table, &ports.clock, &ports.random)?
            .begun(action)
            .await
    }

    /// As [`CommandLog::begin`], for a command on the root keyring's file, which opens no deployment. There are no events
    /// if the table is elsewhere.
    pub(crate) async fn begin_in_folder(
        operator: &Operator,
        action: OperatorAction,
    ) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        match table_of_log(operator, &clock)? {
            Some(table) => Self::of_table(&table, &clock, &random)?.begun(action).await,
            None => Ok(Self(None)),
        }
    }

    async fn begun(self, action: OperatorAction) -> anyhow::Result<Self> {
        if let Some(log) = &self.0 {
            log.begin(action).await.map_err(explain).context(
                "nothing was changed; a command needs the permission to add records of the kind `audit`",
            )?;
        }
        Ok(self)
    }

    /// The log of a table. No event says that the command begins.
    pub(crate) fn of_table(
        table: &Arc<dyn TableWriter>,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> anyhow::Result<Self> {
        let log = OperatorLog::new(Arc::clone(table), Arc::clone(clock), Arc::clone(random))?;
        Ok(Self(Some(log)))
    }

    /// Records what the command did.
    pub(crate) async fn record(&self, event: &OperatorEvent) -> anyhow::Result<()> {
        match &self.0 {
            Some(log) => (log.record(event).await.map_err(explain))
                .context("the command has ended, and its event is missing"),
            None => Ok(()),
        }
    }

    /// Records how the action ended, and returns its result. `describe` adds the details of what was done.
    pub(crate) async fn ended<T>(
        &self,
        action: OperatorAction,
        result: anyhow::Result<T>,
        describe: impl FnOnce(&T, OperatorEvent) -> OperatorEvent,
    ) -> anyhow::Result<T> {
        match &result {
            Ok(done) => {
                let event = describe(done, OperatorEvent::new(action));
                self.record(&event).await?;
            }
            Err(_) => {
                if let Err(error) = self.record(&OperatorEvent::failed(action)).await {
                    tell(&format!("warning: {error:#}"));
                }
            }
        }
        result
    }
}
