//! CloudWatch's embedded metric format: log lines from which CloudWatch makes metrics.
//!
//! Source: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>
//!
//! CloudWatch charges for every combination of a metric and dimensions, in each hour that has a value, and for each byte of
//! these lines. So each family is summed over its labels, metrics without a change are left out, and only answers have a
//! dimension, their outcome. [`Export::Failures`] logs four metrics at most, and none while nothing fails.
//! It has none of what metric filters of `template.yaml` count in the log: writes of the audit log and unwraps that failed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::future::{FutureExt, ready};
use keyway_domain::ports::Clock;
use keyway_http::{Answered, Class, Observer, Outcome};
use prometheus::proto::{Metric, MetricFamily, MetricType};
use serde_json::{Map, Value, json};

use crate::observer::{REFUSED, SUCCESS};
use crate::{Metrics, cumulative};

/// The shortest time between two sets of lines. CloudWatch keeps one value for each minute.
const INTERVAL: Duration = Duration::from_secs(60);
/// How often requests that succeed look for failures: gathering the metrics takes longer than a data key.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most values of a metric in one line.
const MOST_VALUES: usize = 100;

/// Writes lines to the log.
pub type Say = Box<dyn Fn(&str) + Send + Sync>;

/// The metrics that CloudWatch receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Export {
    /// Those of failures, which no metric of Lambda, API Gateway or DynamoDB has, and no metric filter of the template.
    Failures,
    /// All.
    All,
}

/// A metric of failures, made from a family.
struct Failures {
    name: &'static str,
    family: &'static str,
    /// The values of a label that are no failures.
    without: (&'static str, &'static [&'static str]),
}

const FAILURES: [Failures; 4] = [
    Failures {
        name: "keyway_failed_answers_total",
        family: ANSWERS,
        without: (OUTCOME, &[SUCCESS, REFUSED]),
    },
    Failures {
        name: "keyway_store_failures_total",
        family: "keyway_store_calls_total",
        without: ("result", &["ok", "conflict"]),
    },
    Failures {
        name: "keyway_secret_store_failures_total",
        family: "keyway_secret_store_calls_total",
        without: ("result", &["ok", "conflict"]),
    },
    Failures {
        name: "keyway_refused_records_total",
        family: "keyway_refused_records_total",
        without: ("", &[]),
    },
];

impl Failures {
    fn count(&self, families: &[MetricFamily]) -> u64 {
        let (label, values) = self.without;
        let is_failure = |metric: &&Metric| {
            let mut labels = metric.get_label().iter();
            !labels.any(|pair| pair.name() == label && values.contains(&pair.value()))
        };
        let family = families.iter().filter(|one| one.name() == self.family);
        let failures = family.flat_map(MetricFamily::get_metric).filter(is_failure);
        whole(
            failures
                .map(|metric| metric.get_counter().get_value())
                .sum(),
        )
    }
}

/// Logs from time to time what has changed.
pub struct Emf {
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    export: Export,
    /// CloudWatch's namespace. It names the deployment, because the lines have no dimension that does.
    namespace: String,
    say: Say,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    told_at: Option<Duration>,
    looked_at: Option<Duration>,
    /// The last values of counters and of histograms' buckets.
    seen: BTreeMap<String, u64>,
}

impl State {
    /// The increase since the last call.
    fn more(&mut self, name: String, now: u64) -> u64 {
        let before = self.seen.insert(name, now).unwrap_or_default();
        now.saturating_sub(before)
    }
}

impl Emf {
    /// Logs these metrics through `say`, in this namespace of CloudWatch.
    pub fn new(
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        export: Export,
        namespace: impl Into<String>,
        say: Say,
    ) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            clock: Arc::clone(clock),
            export,
            namespace: namespace.into(),
            say,
            state: Mutex::default(),
        }
    }

    fn say_what_is_due(&self, told: &Answered<'_>) {
        if let Some(lines) = self.due(told.status.is_server_error()) {
            (self.say)(&lines);
        }
    }

    /// The lines to log now, if they are due. `has_failed` says whether a request has just failed.
    pub fn due(&self, has_failed: bool) -> Option<String> {
        let now = self.clock.monotonic();
        let is_within =
            |at: Option<Duration>, span| at.is_some_and(|at| now.saturating_sub(at) < span);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if is_within(state.told_at, INTERVAL)
            || !has_failed && is_within(state.looked_at, LOOK_EVERY)
        {
            return None;
        }
        state.looked_at = Some(now);
        self.metrics.look();
        let families = self.metrics.ours.gather();
        let time = milliseconds(SystemTime::from(self.clock.now()));
        let mut line = Line::default();
        for failures in &FAILURES {
            let more = state.more(
                format!("failures {}", failures.name),
                failures.count(&families),
            );
            line.put(failures.name, "Count", json!(more), more > 0);
        }
        let mut lines = String::new();
        if self.export == Export::All {
            for family in &families {
                line.add(family, &mut state);
            }
            for (outcome, count) in by_outcome(&families) {
                let more = state.more(format!("{ANSWERS} {outcome}"), count);
                let mut line = Line::default();
                line.put(ANSWERS, "Count", json!(more), more > 0);
                lines += &line.text(&self.namespace, time, &[(OUTCOME, &outcome)]);
            }
        }
        lines.insert_str(0, &line.text(&self.namespace, time, &[]));
        if lines.is_empty() {
            return None;
        }
        state.told_at = Some(now);
        Some(lines)
    }
}

/// The one family that is reported by its label.
pub(crate) const ANSWERS: &str = "keyway_answers_total";
pub(crate) const OUTCOME: &str = "outcome";

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// The value of a counter, which is a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole, and none of ours comes near 2^53"
)]
fn whole(figure: f64) -> u64 {
    figure.max(0.0) as u64
}

fn by_outcome(families: &[MetricFamily]) -> BTreeMap<String, u64> {
    let answers = families.iter().filter(|family| family.name() == ANSWERS);
    answers
        .flat_map(MetricFamily::get_metric)
        .filter_map(|metric| {
            let outcome = metric.get_label().first()?.value().to_owned();
            Some((outcome, whole(metric.get_counter().get_value())))
        })
        .collect()
}

#[derive(Default)]
struct Line {
    metrics: Vec<Value>,
    values: Map<String, Value>,
}

impl Line {
    fn put(&mut self, name: &str, unit: &str, value: Value, has_changed: bool) {
        if has_changed {
            self.metrics.push(json!({"Name": name, "Unit": unit}));
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Adds a family, summed over its labels.
    fn add(&mut self, family: &MetricFamily, state: &mut State) {
        let (name, metrics) = (family.name(), family.get_metric());
        let unit = if name.ends_with("_seconds") {
            "Seconds"
        } else if name.ends_with("_bytes") {
            "Bytes"
        } else {
            "Count"
        };
        match family.get_field_type() {
            // The first is reported by its label instead, the next ones are failures already. CloudWatch has no use for the last.
            MetricType::COUNTER if name == ANSWERS => {}
            MetricType::COUNTER if FAILURES.iter().any(|one| one.name == name) => {}
            MetricType::GAUGE if name == "keyway_build_info" => {}
            MetricType::COUNTER => {
                let now = metrics
                    .iter()
                    .map(|metric| metric.get_counter().get_value());
                let more = state.more(name.to_owned(), whole(now.sum()));
                self.put(name, unit, json!(more), more > 0);
            }
            MetricType::GAUGE => {
                let now: f64 = metrics
                    .iter()
                    .map(|metric| metric.get_gauge().get_value())
                    .sum();
                self.put(name, unit, json!(now), now > 0.0);
            }
            MetricType::HISTOGRAM => {
                // A bucket is reported as its upper bound.
                let (mut values, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
                for (bound, cumulative) in cumulative(metrics) {
                    let count = cumulative - below;
                    below = cumulative;
                    let more = state.more(format!("{name} {bound}"), count);
                    if more > 0 && values.len() < MOST_VALUES {
                        values.push(bound);
                        counts.push(more);
                    }
                }
                let has_changed = !values.is_empty();
                let value = json!({"Values": values, "Counts": counts});
                self.put(name, unit, value, has_changed);
            }
            _ => {}
        }
    }

    /// The line; empty without metrics.
    fn text(self, namespace: &str, time: u64, dimensions: &[(&str, &str)]) -> String {
        if self.metrics.is_empty() {
            return String::new();
        }
        let names: Vec<&str> = dimensions.iter().map(|(name, _)| *name).collect();
        let mut line = self.values;
        for (name, value) in dimensions {
            line.insert((*name).to_owned(), json!(value));
        }
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": time,
                "CloudWatchMetrics": [{
                    "Namespace": namespace,
                    "Dimensions": [names],
                    "Metrics": self.metrics,
                }],
            }),
        );
        format!("{}\n", Value::Object(line))
    }
}

/// Every request checks whether lines are due, because a function does not run between requests.
impl Observer for Emf {
    fn may_proceed(&self, _: Class) -> Outcome<'_> {
        ready(Ok(())).left_future()
    }

    fn answered<'a>(&'a self, told: &'a Answered<'a>) -> Outcome<'a> {
        self.say_what_is_due(told);
        ready(Ok(())).left_future()
    }

    fn abandoned(&self, told: &Answered<'_>) {
        self.say_what_is_due(told);
    }
}
