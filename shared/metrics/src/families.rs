//! The families of metrics, grouped by subject. Each group registers its own.

use std::sync::Arc;

use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, Result,
};

use crate::answers::{Answers, Durations};
use crate::{added, emf};

/// Buckets of a request's duration, in seconds. They are fine around 50 microseconds: a data key of a cached key takes that.
pub(crate) const REQUEST_SECONDS: [f64; 20] = [
    0.000_025, 0.000_05, 0.000_075, 0.000_1, 0.000_15, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets of a store call's duration, in seconds.
const STORE_SECONDS: [f64; 12] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0,
];

/// Registers families of each type.
#[derive(Clone, Copy)]
struct Families<'a>(&'a Registry);

impl Families<'_> {
    fn counter(self, name: &str, help: &str) -> Result<IntCounter> {
        added(self.0, IntCounter::new(name, help))
    }

    fn counters(self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        added(self.0, IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(self, name: &str, help: &str) -> Result<IntGauge> {
        added(self.0, IntGauge::new(name, help))
    }

    fn gauges(self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        added(self.0, IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn histograms(
        self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        added(self.0, HistogramVec::new(options, labels))
    }
}

/// Requests of all dialects.
pub(crate) struct Requests {
    pub(crate) answered: IntCounterVec,
    pub(crate) outcomes: IntCounterVec,
    pub(crate) seconds: Durations,
    pub(crate) in_flight: IntGauge,
}

impl Requests {
    pub(crate) fn new(registry: &Registry, all: &Arc<Answers>) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            answered: families.counters(
                "keyway_requests_total",
                "Requests that were answered, by what came of them.",
                &["dialect", "operation", "class"],
            )?,
            outcomes: families.counters(
                emf::ANSWERS,
                "Answers to requests: success, refused (4xx) or failed (5xx).",
                &[emf::OUTCOME],
            )?,
            seconds: Durations::by_operation(
                registry,
                all,
                ("keyway_request_duration_seconds", "How long requests took."),
                &REQUEST_SECONDS,
            )?,
            in_flight: families.gauge(
                "keyway_requests_in_flight",
                "Requests that are being answered.",
            )?,
        })
    }
}

/// Calls of the key wrappers, the table and the store of secrets.
pub(crate) struct Backends {
    pub(crate) wraps: IntCounterVec,
    pub(crate) unwraps: IntCounterVec,
    pub(crate) table_calls: IntCounterVec,
    pub(crate) table_seconds: HistogramVec,
    pub(crate) secret_calls: IntCounterVec,
    pub(crate) retries: IntCounter,
}

impl Backends {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            wraps: families.counters(
                "keyway_wraps_total",
                "Secrets that were wrapped, by what wrapped them.",
                &["wrapper", "result"],
            )?,
            unwraps: families.counters(
                "keyway_unwraps_total",
                "Secrets that were unwrapped, by what unwrapped them.",
                &["wrapper", "result"],
            )?,
            table_calls: families.counters(
                "keyway_store_calls_total",
                "Calls of the table.",
                &["operation", "result"],
            )?,
            table_seconds: families.histograms(
                "keyway_store_call_duration_seconds",
                "How long calls of the table took, with what was tried again.",
                &["operation"],
                &STORE_SECONDS,
            )?,
            secret_calls: families.counters(
                "keyway_secret_store_calls_total",
                "Calls of the store of secrets.",
                &["operation", "result"],
            )?,
            retries: families.counter(
                "keyway_service_retries_total",
                "Calls of AWS's services that were made again.",
            )?,
        })
    }
}

/// Figures of the table's records.
pub(crate) struct Records {
    pub(crate) keys: IntGaugeVec,
    pub(crate) refused: IntCounter,
}

impl Records {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            keys: families.gauges(
                "keyway_keys",
                "Keys by state, as the last sweep found them.",
                &["state"],
            )?,
            refused: families.counter(
                "keyway_refused_records_total",
                "Records of the table that were not believed, because their signature is missing or wrong.",
            )?,
        })
    }
}

/// The cache of key material.
pub(crate) struct Cache {
    pub(crate) hits: IntCounter,
    pub(crate) misses: IntCounter,
    pub(crate) evictions: IntCounter,
    pub(crate) entries: IntGauge,
}

impl Cache {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            hits: families.counter(
                "keyway_key_cache_hits_total",
                "Key material that was in the cache.",
            )?,
            misses: families.counter(
                "keyway_key_cache_misses_total",
                "Key material that was not in the cache.",
            )?,
            evictions: families.counter(
                "keyway_key_cache_evictions_total",
                "Key material that left the cache.",
            )?,
            entries: families.gauge("keyway_key_cache_entries", "Key material in the cache.")?,
        })
    }
}

/// The audit log.
pub(crate) struct AuditLog {
    pub(crate) events: IntCounter,
    pub(crate) pending: IntGauge,
    pub(crate) dropped: IntCounter,
    pub(crate) failures: IntCounter,
}

impl AuditLog {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            events: families.counter(
                "keyway_audit_events_total",
                "Audit events that were written.",
            )?,
            pending: families.gauge(
                "keyway_audit_pending_events",
                "Audit events that wait to be written to the table.",
            )?,
            dropped: families.counter(
                "keyway_audit_stream_dropped_total",
                "Audit events that a stream's reader was too slow for.",
            )?,
            failures: families.counter(
                "keyway_audit_failures_total",
                "Writes of the audit log that failed.",
            )?,
        })
    }
}

/// Connections and their TLS handshakes.
pub(crate) struct Connections {
    pub(crate) open: IntGauge,
    pub(crate) crowded: IntCounterVec,
    pub(crate) handshakes_failed: IntCounterVec,
}

impl Connections {
    pub(crate) fn new(registry: &Registry) -> Result<Self> {
        let families = Families(registry);
        Ok(Self {
            open: families.gauge("keyway_connections", "Connections that are open.")?,
            crowded: families.counters(
                "keyway_connections_crowded_total",
                "Connections that were closed for others, or had to wait, because there were too many.",
                &["reason"],
            )?,
            handshakes_failed: families.counters(
                "keyway_tls_handshakes_failed_total",
                "TLS handshakes that failed, and why.",
                &["reason"],
            )?,
        })
    }
}

/// The process itself.
pub(crate) struct Process {
    pub(crate) up_seconds: Gauge,
    pub(crate) memory: IntGauge,
}

impl Process {
    /// `version` and `commit` identify the build.
    pub(crate) fn new(registry: &Registry, version: &str, commit: &str) -> Result<Self> {
        let families = Families(registry);
        let build = families.gauges(
            "keyway_build_info",
            "Always 1; which build this is.",
            &["version", "commit"],
        )?;
        build.with_label_values(&[version, commit]).set(1);
        Ok(Self {
            up_seconds: added(
                registry,
                Gauge::new("keyway_up_seconds", "For how long this process has run."),
            )?,
            memory: families.gauge(
                "keyway_memory_bytes",
                "The memory that is this process's own.",
            )?,
        })
    }
}
