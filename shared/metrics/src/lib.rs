//! What is counted and timed, and how it is told: to Prometheus, to KES's clients, to CloudWatch.
//!
//! Labels are words of a few: dialects, operations, classes. None is a key, a caller or an address, so that the number of
//! series is bounded whatever is asked.

mod emf;
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
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

pub use emf::{Emf, Say};
pub use mount::{Open, PATH, mount};
pub use ports::{CountedSecrets, CountedTable, CountedVaults, CountedWrapper};

use kes::OfKes;

/// How long a request took, in seconds. Fine where data keys are made of a warm key: that takes some 50 microseconds.
const REQUEST_SECONDS: [f64; 20] = [
    0.000_025, 0.000_05, 0.000_075, 0.000_1, 0.000_15, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// How long a call of a store took, in seconds.
const STORE_SECONDS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
];

/// What an audit log tells of itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditMetrics {
    /// Events that were written.
    pub events: u64,
    /// Events that wait to be written to the table.
    pub pending: u64,
    /// Events that a reader of a stream was too slow for.
    pub dropped: u64,
}

type Source = Box<dyn Fn(&Metrics) + Send + Sync>;

/// Everything that this process counts and times.
pub struct Metrics {
    ours: Registry,
    of_kes: OfKes,
    requests: IntCounterVec,
    answers: IntCounterVec,
    request_seconds: HistogramVec,
    in_flight: IntGauge,
    wraps: IntCounterVec,
    unwraps: IntCounterVec,
    table_calls: IntCounterVec,
    table_seconds: HistogramVec,
    secret_calls: IntCounterVec,
    retries: IntCounter,
    refused_records: IntCounter,
    keys: IntGaugeVec,
    cache_hits: IntCounter,
    cache_misses: IntCounter,
    cache_evictions: IntCounter,
    cache_entries: IntGauge,
    audit_events: IntCounter,
    audit_pending: IntGauge,
    audit_dropped: IntCounter,
    connections: IntGauge,
    connections_crowded: IntCounterVec,
    handshakes_failed: IntCounterVec,
    up_seconds: Gauge,
    memory: IntGauge,
    machine: Arc<dyn Machine>,
    sources: Mutex<Vec<Source>>,
}

/// The registry takes every name once, and each has its own here.
fn added<C: Collector + Clone + 'static>(
    registry: &Registry,
    made: prometheus::Result<C>,
) -> prometheus::Result<C> {
    let made = made?;
    registry.register(Box::new(made.clone()))?;
    Ok(made)
}

impl Metrics {
    /// With nothing counted yet.
    ///
    /// # Errors
    /// When two families have one name, which a test rules out.
    pub fn new(
        machine: Arc<dyn Machine>,
        version: &str,
        commit: &str,
    ) -> prometheus::Result<Arc<Self>> {
        let ours = Registry::new();
        let counter = |name: &str, help: &str| added(&ours, IntCounter::new(name, help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            added(&ours, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let gauge = |name: &str, help: &str| added(&ours, IntGauge::new(name, help));
        let histograms = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            added(&ours, HistogramVec::new(options, labels))
        };
        let build = added(
            &ours,
            IntGaugeVec::new(
                Opts::new("keyway_build_info", "Always 1; which build this is."),
                &["version", "commit"],
            ),
        )?;
        build.with_label_values(&[version, commit]).set(1);
        Ok(Arc::new(Self {
            of_kes: OfKes::new()?,
            requests: counters(
                "keyway_requests_total",
                "Requests that were answered, by what came of them.",
                &["dialect", "operation", "class"],
            )?,
            answers: counters(
                emf::ANSWERS,
                "Answers to requests: success, refused (4xx) or failed (5xx).",
                &[emf::OUTCOME],
            )?,
            request_seconds: histograms(
                "keyway_request_duration_seconds",
                "How long requests took.",
                &["dialect", "operation"],
                &REQUEST_SECONDS,
            )?,
            in_flight: gauge(
                "keyway_requests_in_flight",
                "Requests that are being answered.",
            )?,
            wraps: counters(
                "keyway_wraps_total",
                "Secrets that were wrapped, by what wrapped them.",
                &["wrapper", "result"],
            )?,
            unwraps: counters(
                "keyway_unwraps_total",
                "Secrets that were unwrapped, by what unwrapped them.",
                &["wrapper", "result"],
            )?,
            table_calls: counters(
                "keyway_store_calls_total",
                "Calls of the table.",
                &["operation", "result"],
            )?,
            table_seconds: histograms(
                "keyway_store_call_duration_seconds",
                "How long calls of the table took, with what was tried again.",
                &["operation"],
                &STORE_SECONDS,
            )?,
            secret_calls: counters(
                "keyway_secret_store_calls_total",
                "Calls of the store of secrets.",
                &["operation", "result"],
            )?,
            retries: counter(
                "keyway_service_retries_total",
                "Calls of AWS's services that were made again.",
            )?,
            refused_records: counter(
                "keyway_refused_records_total",
                "Records of the table that were not believed, because their signature is missing or wrong.",
            )?,
            keys: added(
                &ours,
                IntGaugeVec::new(
                    Opts::new(
                        "keyway_keys",
                        "Keys by state, as the last sweep found them.",
                    ),
                    &["state"],
                ),
            )?,
            cache_hits: counter(
                "keyway_key_cache_hits_total",
                "Key material that was in the cache.",
            )?,
            cache_misses: counter(
                "keyway_key_cache_misses_total",
                "Key material that was not in the cache.",
            )?,
            cache_evictions: counter(
                "keyway_key_cache_evictions_total",
                "Key material that left the cache.",
            )?,
            cache_entries: gauge("keyway_key_cache_entries", "Key material in the cache.")?,
            audit_events: counter(
                "keyway_audit_events_total",
                "Audit events that were written.",
            )?,
            audit_pending: gauge(
                "keyway_audit_pending_events",
                "Audit events that wait to be written to the table.",
            )?,
            audit_dropped: counter(
                "keyway_audit_stream_dropped_total",
                "Audit events that a stream's reader was too slow for.",
            )?,
            connections: gauge("keyway_connections", "Connections that are open.")?,
            connections_crowded: counters(
                "keyway_connections_crowded_total",
                "Connections that were closed for others, or had to wait, because there were too many.",
                &["reason"],
            )?,
            handshakes_failed: counters(
                "keyway_tls_handshakes_failed_total",
                "TLS handshakes that failed, and why.",
                &["reason"],
            )?,
            up_seconds: added(
                &ours,
                Gauge::new("keyway_up_seconds", "For how long this process has run."),
            )?,
            memory: gauge(
                "keyway_memory_bytes",
                "The memory that is this process's own.",
            )?,
            machine,
            sources: Mutex::new(Vec::new()),
            ours,
        }))
    }

    /// Has this be done whenever metrics are asked for: for what is kept elsewhere. It must not keep alive what counts with
    /// these metrics itself, or neither of them ever ends.
    pub fn look_at(&self, source: impl Fn(&Self) + Send + Sync + 'static) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.push(Box::new(source));
    }

    /// Has the metrics of this reader's cache be told.
    pub fn of_cache(&self, reader: &Arc<KeyReader>) {
        let reader = Arc::downgrade(reader);
        self.look_at(move |metrics| {
            if let Some(reader) = reader.upgrade() {
                metrics.cache(reader.stats());
            }
        });
    }

    fn cache(&self, stats: CacheStats) {
        catch_up(&self.cache_hits, stats.hits);
        catch_up(&self.cache_misses, stats.misses);
        catch_up(&self.cache_evictions, stats.evictions);
        self.cache_entries.set(signed(stats.entries));
    }

    /// Tells what an audit log tells of itself.
    pub fn audit(&self, metrics: AuditMetrics) {
        catch_up(&self.audit_events, metrics.events);
        catch_up(&self.audit_dropped, metrics.dropped);
        self.audit_pending.set(signed(metrics.pending));
        catch_up(&self.of_kes.audit_events, metrics.events);
    }

    /// Tells how many lines the error log has had.
    pub fn error_events(&self, events: u64) {
        catch_up(&self.of_kes.error_events, events);
    }

    /// Tells how many connections are open, and how often there were too many, by reason.
    pub fn connections(&self, open: usize, crowded: impl IntoIterator<Item = (&'static str, u64)>) {
        self.connections
            .set(i64::try_from(open).unwrap_or(i64::MAX));
        for (reason, count) in crowded {
            catch_up(
                &self.connections_crowded.with_label_values(&[reason]),
                count,
            );
        }
    }

    /// Tells how many TLS handshakes have failed, by reason.
    pub fn handshakes(&self, failed: impl IntoIterator<Item = (&'static str, u64)>) {
        for (reason, count) in failed {
            catch_up(&self.handshakes_failed.with_label_values(&[reason]), count);
        }
    }

    /// Tells how many keys there are.
    pub fn keys(&self, counts: KeyCounts) {
        for (state, count) in [
            ("enabled", counts.enabled),
            ("disabled", counts.disabled),
            ("pending_deletion", counts.pending_deletion),
        ] {
            self.keys.with_label_values(&[state]).set(signed(count));
        }
    }

    /// Tells how many calls of AWS's services were made again.
    pub fn retries(&self, total: u64) {
        catch_up(&self.retries, total);
    }

    /// Tells how many records of the table were refused.
    pub fn refused_records(&self, total: u64) {
        catch_up(&self.refused_records, total);
    }

    fn look(&self) {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        for source in sources.iter() {
            source(self);
        }
        drop(sources);
        let facts = self.machine.facts();
        self.up_seconds.set(facts.up.as_secs_f64());
        if let Some(bytes) = facts.heap_bytes {
            self.memory.set(signed(bytes));
        }
        self.of_kes.machine(&facts);
    }

    /// Our own metrics, as Prometheus reads them.
    ///
    /// # Errors
    /// When a family has no series, which none is without.
    pub fn text(&self) -> prometheus::Result<String> {
        self.look();
        TextEncoder::new().encode_to_string(&self.ours.gather())
    }

    /// What was served of all dialects, for an API that tells it as numbers.
    pub fn served(&self) -> Served {
        self.look();
        let answers = |outcome| self.answers.with_label_values(&[outcome]).get();
        let seconds = self.request_seconds.collect();
        let mut durations = cumulative(seconds.iter().flat_map(MetricFamily::get_metric));
        if durations.is_empty() {
            durations = REQUEST_SECONDS.map(|bound| (bound, 0)).to_vec();
        }
        Served {
            succeeded: answers(observer::SUCCESS),
            refused: answers(observer::REFUSED),
            failed: answers(observer::FAILED),
            active: u64::try_from(self.in_flight.get()).unwrap_or(0),
            audit_events: self.audit_events.get(),
            error_events: self.of_kes.error_events.get(),
            durations: durations
                .into_iter()
                .map(|(bound, count)| (Duration::from_secs_f64(bound), count))
                .collect(),
        }
    }

    /// The metrics that KES tells, by its names.
    ///
    /// # Errors
    /// As [`Metrics::text`].
    pub fn text_of_kes(&self) -> prometheus::Result<String> {
        self.look();
        TextEncoder::new().encode_to_string(&self.of_kes.registry.gather())
    }
}

/// How many observations of these histograms, which have the same buckets, are no larger than each upper bound.
fn cumulative<'m>(metrics: impl IntoIterator<Item = &'m Metric>) -> Vec<(f64, u64)> {
    let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
    for metric in metrics {
        for bucket in metric.get_histogram().get_bucket() {
            // Positive numbers sort as their bits do.
            let bound = bucket.upper_bound().to_bits();
            *buckets.entry(bound).or_default() += bucket.cumulative_count();
        }
    }
    buckets
        .into_iter()
        .map(|(bound, count)| (f64::from_bits(bound), count))
        .collect()
}

/// A counter of what is counted elsewhere already.
fn catch_up(counter: &IntCounter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
