//! The operator's settings of the audit log, and the audit log of a process.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use keyway_audit::{
    AuditTable, AuditWriter, AuditWriterSettings, Contexts, ErrorLines, ErrorLog, Flushing,
    Following, Strictness, TableLog,
};
use keyway_domain::audit::{AuditReading, BackgroundAudit, LogFollowing};
use keyway_domain::ports::{Clock, Random, TableReader, TableWriter};
use keyway_domain::service::Service;
use keyway_http::Site;
use keyway_metrics::{AuditMetrics, Metrics};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::output::Output;
use crate::settings::duration_in;
use crate::{Reading, Writing};

/// How requests are audited.
#[derive(Debug, Clone, Args)]
pub struct AuditSettings {
    /// What becomes of requests that cannot be audited
    #[arg(id = "audit", long = "audit", env = "KEYWAY_AUDIT", value_enum, default_value_t = Auditing::Required)]
    pub auditing: Auditing,

    /// What the audit log has of encryption contexts
    #[arg(id = "audit_context", long = "audit-context", env = "KEYWAY_AUDIT_CONTEXT", value_enum, default_value_t = Told::Names)]
    pub context: Told,

    /// For how long the table keeps audit events, such as 90d or 12w; a bare number is days; 0 for ever
    #[arg(id = "audit_retention_days", long = "audit-retention-days", env = "KEYWAY_AUDIT_RETENTION_DAYS",
          value_name = "DURATION", default_value = "90", value_parser = days)]
    pub retention_days: u32,

    /// How long events of data keys and reads wait for others, to be written to the table together, such as 250ms or 1s; a
    /// bare number is milliseconds
    #[arg(id = "audit_batch_milliseconds", long = "audit-batch-milliseconds", env = "KEYWAY_AUDIT_BATCH_MILLISECONDS",
          value_name = "DURATION", default_value = "250ms", value_parser = batch_age)]
    pub batch_age: Duration,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred years.
const MAX_DAYS: u32 = 36_500;
const MAX_BATCH_AGE: Duration = Duration::from_secs(60);

fn days(text: &str) -> Result<u32, String> {
    let length = duration_in(DAY, text)?.as_secs();
    let (days, rest) = (length / DAY.as_secs(), length % DAY.as_secs());
    match u32::try_from(days) {
        Ok(days) if rest == 0 && days <= MAX_DAYS => Ok(days),
        _ => Err(format!("is not a whole number of days up to {MAX_DAYS}")),
    }
}

fn batch_age(text: &str) -> Result<Duration, String> {
    match duration_in(Duration::from_millis(1), text)? {
        age if age <= MAX_BATCH_AGE => Ok(age),
        _ => Err("is longer than 1m".to_owned()),
    }
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            auditing: Auditing::default(),
            context: Told::default(),
            retention_days: 90,
            batch_age: Duration::from_millis(250),
        }
    }
}

/// Whether requests are audited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Auditing {
    /// Refuse mutations and data keys that cannot be audited
    #[default]
    Required,
    /// Audit requests as far as the log can be written, and refuse none
    BestEffort,
    /// Audit no requests
    Off,
}

/// What is told of encryption contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Told {
    /// Their names
    #[default]
    Names,
    /// Their names and values
    Values,
}

/// The audit log of a process, if it has one, and its error log for other processes.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Logs>>);

struct Logs {
    audit_writer: Arc<AuditWriter>,
    errors: ErrorLines,
    error_log: Mutex<Option<Task>>,
}

/// The channel that stops the task of the error log, and the task.
struct Task(oneshot::Sender<()>, JoinHandle<()>);

impl Audit {
    /// Opens the log that the settings ask for, on standard output and in the table. With [`Flushing::ByTask`], it also
    /// writes the process's errors to the table.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn open(
        settings: &AuditSettings,
        table: Arc<dyn TableWriter>,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
        flushing: Flushing,
        errors: ErrorLines,
    ) -> anyhow::Result<Self> {
        let strictness = match settings.auditing {
            Auditing::Required => Strictness::Required,
            Auditing::BestEffort => Strictness::BestEffort,
            Auditing::Off => return Ok(Self(None)),
        };
        let settings = AuditWriterSettings {
            strictness,
            contexts: match settings.context {
                Told::Names => Contexts::Names,
                Told::Values => Contexts::Values,
            },
            retention_days: settings.retention_days,
            flushing,
            batch_age: settings.batch_age,
        };
        let table = AuditTable::new(table);
        let audit_writer = AuditWriter::new(
            Box::new(Output::new()),
            table.clone(),
            Arc::clone(clock),
            Arc::clone(random),
            settings,
        );
        let audit_writer = Arc::new(audit_writer.context("the audit log")?);
        let error_log = (flushing == Flushing::ByTask).then(|| {
            let flushed = Arc::clone(&audit_writer);
            tokio::spawn(async move { flushed.keep_flushing().await });
            let log = ErrorLog::new(
                audit_writer.writer(),
                table,
                Arc::clone(clock),
                Arc::clone(random),
            );
            let lines = errors();
            let (stop, stopped) = oneshot::channel();
            let task = tokio::spawn(async move { log.keep_writing(lines, stopped).await });
            Task(stop, task)
        });
        Ok(Self(Some(Arc::new(Logs {
            audit_writer,
            errors,
            error_log: Mutex::new(error_log),
        }))))
    }

    /// Records all requests of the site in the log.
    #[must_use]
    pub fn observer(&self, site: Site) -> Site {
        match self.0.as_deref() {
            Some(Logs { audit_writer, .. }) => {
                site.observed_by(Arc::clone(audit_writer) as _, audit_writer.stopwatch())
            }
            None => site,
        }
    }

    /// Follows both logs, of this process and in the table.
    pub fn following(
        &self,
        table: &Arc<dyn TableReader>,
        clock: &Arc<dyn Clock>,
    ) -> Option<Arc<dyn LogFollowing>> {
        let logs = self.0.as_ref()?;
        let audit_writer = Arc::clone(&logs.audit_writer);
        let following = Following::new(audit_writer, table, clock, logs.errors.clone());
        Some(Arc::new(following))
    }

    /// Makes the service's health check report when the log cannot be written.
    pub fn checked_by(&self, service: &Service) {
        if let Some(logs) = &self.0 {
            service.check_also(Arc::clone(&logs.audit_writer) as _);
        }
    }

    /// The audit port for work without a request.
    pub fn background(&self) -> Option<Arc<dyn BackgroundAudit>> {
        let logs = self.0.as_ref()?;
        Some(Arc::clone(&logs.audit_writer) as _)
    }

    /// Adds the metrics of the log.
    pub fn measured_by(&self, metrics: &Metrics) {
        if let Some(logs) = &self.0 {
            let audit_writer = Arc::downgrade(&logs.audit_writer);
            metrics.look_at(move |metrics| {
                let Some(audit_writer) = audit_writer.upgrade() else {
                    return;
                };
                let counts = audit_writer.metrics();
                metrics.audit(AuditMetrics {
                    events: counts.events,
                    pending: counts.waiting,
                    dropped: counts.missed,
                    failures: counts.failures,
                });
            });
        }
    }

    /// Writes the rest of both logs to the table, at the end of the process.
    pub async fn finish(&self) {
        let Some(logs) = &self.0 else { return };
        logs.audit_writer.finish().await;
        let task = (logs.error_log.lock())
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Task(stop, task)) = task {
            // A task that panicked has logged that, and has ended.
            stop.send(()).ok();
            task.await.ok();
        }
    }
}

impl Writing {
    /// The audit log of a long-lived process with these errors. A task writes the events that can wait.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn audit(&self, settings: &AuditSettings, errors: ErrorLines) -> anyhow::Result<Audit> {
        let (table, by_task) = (Arc::clone(&self.table), Flushing::ByTask);
        Audit::open(settings, table, &self.clock, &self.random, by_task, errors)
    }
}

impl Reading {
    /// The table's part of the audit log, for callers who may read it.
    pub fn audit_reading(&self) -> Arc<AuditReading> {
        let log = TableLog::new(Arc::clone(&self.table), Arc::clone(&self.clock));
        Arc::new(AuditReading::new(Arc::new(log)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_is_whole_days() {
        for (text, expected) in [("0", 0), ("90", 90), ("90d", 90), ("12w", 84), ("48h", 2)] {
            assert_eq!(days(text), Ok(expected), "{text}");
        }
        for text in ["36501", "36h", "1s", "-1", "4294967296"] {
            assert!(days(text).is_err(), "{text}");
        }
    }

    #[test]
    fn batch_age_is_a_minute_at_most() {
        for (text, expected) in [
            ("0", 0),
            ("250", 250),
            ("250ms", 250),
            ("1s", 1000),
            ("1m", 60_000),
        ] {
            assert_eq!(
                batch_age(text),
                Ok(Duration::from_millis(expected)),
                "{text}"
            );
        }
        assert!(batch_age("60001").is_err() && batch_age("2m").is_err());
    }
}
