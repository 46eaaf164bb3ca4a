//! Counts and times what a process does, and reports it to Prometheus, to KES's clients and to CloudWatch.
//!
//! Labels have few values: dialects, operations, classes. None is a key, a caller or an address, so that the number of
//! series is bounded whatever clients send.

mod answers;
mod emf;
mod families;
mod kes;
mod mount;
mod observer;
mod ports;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyway_domain::CacheStats;
use keyway_domain::janitor::KeyCounts;
use keyway_domain::keys::KeyReader;
use keyway_domain::machine::Machine;
use keyway_http::Served;
use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{IntCounter, Registry, TextEncoder};

pub use emf::{Emf, Export, Say};
pub use mount::{Open, PATH, mount};
pub use ports::{CountedSecrets, CountedTable, CountedVaults, CountedWrapper, TableCalls};

use answers::Answers;
use families::{
    AuditLog, Backends, Cache, Connections, Process, REQUEST_SECONDS, Records, Requests,
};
use kes::OfKes;

/// The figures of an audit log.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditMetrics {
    /// Events that were written.
    pub events: u64,
    /// Events that wait to be written to the table.
    pub pending: u64,
    /// Events that a reader of a stream lost because it read too slowly.
    pub dropped: u64,
    /// Writes to standard output or the table that failed.
    pub failures: u64,
}

type Source = Box<dyn Fn(&Metrics) + Send + Sync>;

/// All metrics of this process.
pub struct Metrics {
    ours: Registry,
    of_kes: OfKes,
    requests: Requests,
    answers: Arc<Answers>,
    backends: Backends,
    records: Records,
    cache: Cache,
    audit: AuditLog,
    connections: Connections,
    process: Process,
    machine: Arc<dyn Machine>,
    sources: Mutex<Vec<Source>>,
}

/// Registers a metric. This cannot fail, because every name is registered once.
fn added<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let made = made?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

impl Metrics {
    /// Metrics at zero.
    ///
    /// # Errors
    /// When two families have the same name, which a test rules out.
    pub fn new(
        machine: Arc<dyn Machine>,
        version: &str,
        commit: &str,
    ) -> prometheus::Result<Arc<Self>> {
        let ours = Registry::new();
        let answers = Answers::new(REQUEST_SECONDS.iter().chain(&kes::SECONDS));
        Ok(Arc::new(Self {
            of_kes: OfKes::new(&answers)?,
            requests: Requests::new(&ours, &answers)?,
            answers,
            backends: Backends::new(&ours)?,
            records: Records::new(&ours)?,
            cache: Cache::new(&ours)?,
            audit: AuditLog::new(&ours)?,
            connections: Connections::new(&ours)?,
            process: Process::new(&ours, version, commit)?,
            machine,
            sources: Mutex::new(Vec::new()),
            ours,
        }))
    }

    /// Calls `source` whenever metrics are read, for figures that are kept elsewhere. It must not own anything that counts
    /// with these metrics, or neither is ever dropped.
    pub fn look_at(&self, source: impl Fn(&Self) + Send + Sync + 'static) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Box::new(source));
    }

    /// Reports the metrics of this reader's cache.
    pub fn of_cache(&self, reader: &Arc<KeyReader>) {
        let reader = Arc::downgrade(reader);
        self.look_at(move |metrics| {
            if let Some(reader) = reader.upgrade() {
                metrics.cache(reader.stats());
            }
        });
    }

    fn cache(&self, stats: CacheStats) {
        catch_up(&self.cache.hits, stats.hits);
        catch_up(&self.cache.misses, stats.misses);
        catch_up(&self.cache.evictions, stats.evictions);
        self.cache.entries.set(signed(stats.entries));
    }

    /// Reports an audit log's figures.
    pub fn audit(&self, metrics: AuditMetrics) {
        catch_up(&self.audit.events, metrics.events);
        catch_up(&self.audit.dropped, metrics.dropped);
        catch_up(&self.audit.failures, metrics.failures);
        self.audit.pending.set(signed(metrics.pending));
        catch_up(&self.of_kes.audit_events, metrics.events);
    }

    /// Reports how many lines the error log has had.
    pub fn error_events(&self, events: u64) {
        catch_up(&self.of_kes.error_events, events);
    }

    /// Reports how many connections are open, and how often there were too many, by reason.
    pub fn connections(&self, open: usize, crowded: impl IntoIterator<Item = (&'static str, u64)>) {
        self.connections
            .open
            .set(i64::try_from(open).unwrap_or(i64::MAX));
        for (reason, count) in crowded {
            catch_up(
                &self.connections.crowded.with_label_values(&[reason]),
                count,
            );
        }
    }

    /// Reports how many TLS handshakes have failed, by reason.
    pub fn handshakes(&self, failed: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in failed {
            catch_up(
                &self
                    .connections
                    .handshakes_failed
                    .with_label_values(&[reason]),
                count,
            );
        }
    }

    /// Reports how many keys there are.
    pub fn keys(&self, counts: KeyCounts) {
        for (state, count) in [
            ("enabled", counts.enabled),
            ("disabled", counts.disabled),
            ("pending_deletion", counts.pending_deletion),
        ] {
            self.records
                .keys
                .with_label_values(&[state])
                .set(signed(count));
        }
    }

    /// Reports how many calls of AWS's services were retried.
    pub fn retries(&self, total: u64) {
        catch_up(&self.backends.retries, total);
    }

    /// Reports how many records of the table were refused.
    pub fn refused_records(&self, total: u64) {
        catch_up(&self.records.refused, total);
    }

    fn look(&self) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources.iter() {
            source(self);
        }
        self.answers.catch_up();
        let [of_kes, others] = self.answers.active();
        self.of_kes.active.set(signed(of_kes));
        self.requests.in_flight.set(signed(of_kes + others));
        drop(sources);
        let facts = self.machine.facts();
        self.process.up_seconds.set(facts.up.as_secs_f64());
        if let Some(bytes) = facts.heap_bytes {
            self.process.memory.set(signed(bytes));
        }
        self.of_kes.machine(&facts);
    }

    /// Keyway's own metrics, in Prometheus's text format.
    ///
    /// # Errors
    /// When a family has no series, which none here is without.
    pub fn text(&self) -> prometheus::Result<String> {
        self.look();
        TextEncoder::new().encode_to_string(&self.ours.gather())
    }

    /// The requests that were served in all dialects, for an API that reports them as numbers.
    pub fn served(&self) -> Served {
        self.look();
        let answers = |outcome| self.requests.outcomes.with_label_values(&[outcome]).get();
        let seconds = self.requests.seconds.collect();
        let mut durations = cumulative(seconds.iter().flat_map(MetricFamily::get_metric));
        if durations.is_empty() {
            durations = REQUEST_SECONDS.map(|bound| (bound, 0)).to_vec();
        }
        Served {
            succeeded: answers(observer::SUCCESS),
            refused: answers(observer::REFUSED),
            failed: answers(observer::FAILED),
            active: u64::try_from(self.requests.in_flight.get()).unwrap_or(0),
            audit_events: self.audit.events.get(),
            error_events: self.of_kes.error_events.get(),
            durations: durations
                .into_iter()
                .map(|(bound, count)| (Duration::from_secs_f64(bound), count))
                .collect(),
        }
    }

    /// The metrics that KES reports, by its names.
    ///
    /// # Errors
    /// As [`Metrics::text`].
    pub fn text_of_kes(&self) -> prometheus::Result<String> {
        self.look();
        TextEncoder::new().encode_to_string(&self.of_kes.registry.gather())
    }
}

/// For each upper bound, how many observations of these histograms do not exceed it. All have the same buckets.
fn cumulative<'m>(metrics: impl IntoIterator<Item = &'m Metric>) -> Vec<(f64, u64)> {
    let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
    for metric in metrics {
        for bucket in metric.get_histogram().get_bucket() {
            // Positive numbers and their bits sort alike.
            let bound = bucket.upper_bound().to_bits();
            *buckets.entry(bound).or_default() += bucket.cumulative_count();
        }
    }
    buckets
        .into_iter()
        .map(|(bound, count)| (f64::from_bits(bound), count))
        .collect()
}

/// Raises a counter to a total that is counted elsewhere.
fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
