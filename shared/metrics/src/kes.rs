//! The metrics of KES, by its names. Keyway's own are not among them: KES's clients refuse a family with more than one
//! series, except the three counters of requests.

use std::sync::Arc;

use keyway_domain::machine::MachineFacts;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::answers::{Answers, Durations};
use crate::{added, signed};

pub(crate) const SECONDS: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 3.0, 5.0, 10.0];

pub(crate) struct OfKes {
    pub(crate) registry: Registry,
    pub(crate) success: IntCounterVec,
    pub(crate) error: IntCounterVec,
    pub(crate) failure: IntCounterVec,
    pub(crate) active: IntGauge,
    pub(crate) audit_events: IntCounter,
    pub(crate) error_events: IntCounter,
    up_time: Gauge,
    cpus: IntGauge,
    cpus_used: IntGauge,
    threads: IntGauge,
    heap: IntGauge,
    objects: IntGauge,
    stack: IntGauge,
}

impl OfKes {
    pub(crate) fn new(answers: &Arc<Answers>) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge = |name: &str, help: &str| added(&registry, IntGauge::new(name, help));
        let counter = |name: &str, help: &str| added(&registry, IntCounter::new(name, help));
        // Present from the start, as KES's documents show them, and not only after the first request.
        let by_code = |name: &str, help: &str, first: &str| {
            let counters = added(
                &registry,
                IntCounterVec::new(Opts::new(name, help), &["code"]),
            )?;
            counters.with_label_values(&[first]);
            prometheus::Result::Ok(counters)
        };
        let time = "kes_http_response_time";
        let help = "Histogram of request response times spawning from 10ms to 10s.";
        Durations::of_kes(&registry, answers, (time, help), &SECONDS)?;
        Ok(Self {
            success: by_code(
                "kes_http_request_success",
                "Number of requests that have been served successfully.",
                "200",
            )?,
            error: by_code(
                "kes_http_request_error",
                "Number of request that failed due to some error. (HTTP 4xx status code)",
                "400",
            )?,
            failure: by_code(
                "kes_http_request_failure",
                "Number of request that failed due to some internal failure. (HTTP 5xx status code)",
                "500",
            )?,
            active: gauge(
                "kes_http_request_active",
                "Number of active requests that are not finished, yet.",
            )?,
            audit_events: counter(
                "kes_log_audit_events",
                "Number of audit log events written to the audit log targets.",
            )?,
            error_events: counter(
                "kes_log_error_events",
                "Number of error log events written to the error log targets.",
            )?,
            up_time: added(
                &registry,
                Gauge::new(
                    "kes_system_up_time",
                    "The time the server has been up and running in seconds.",
                ),
            )?,
            cpus: gauge("kes_system_num_cpu", "Processors of the machine.")?,
            cpus_used: gauge(
                "kes_system_num_cpu_used",
                "Processors that this process may use.",
            )?,
            threads: gauge("kes_system_num_threads", "Threads of this process.")?,
            heap: gauge(
                "kes_system_mem_heap_used",
                "Bytes of memory that are this process's own.",
            )?,
            objects: gauge(
                "kes_system_mem_heap_objects",
                "Areas that the memory has that is this process's own.",
            )?,
            stack: gauge(
                "kes_system_mem_stack_used",
                "Bytes of memory of the main thread's stack.",
            )?,
            registry,
        })
    }

    pub(crate) fn machine(&self, facts: &MachineFacts) {
        // KES's own figure has steps of ten milliseconds.
        self.up_time
            .set((facts.up.as_secs_f64() * 100.0).round() / 100.0);
        for (gauge, figure) in [
            (&self.cpus, facts.cpus),
            (&self.cpus_used, facts.usable_cpus),
            (&self.threads, facts.threads),
            (&self.heap, facts.heap_bytes),
            (&self.objects, facts.heap_areas),
            (&self.stack, facts.stack_bytes),
        ] {
            if let Some(figure) = figure {
                gauge.set(signed(figure));
            }
        }
    }
}
