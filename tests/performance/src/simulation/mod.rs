//! A simulation of the deployment on AWS: what many requests a second cost, how long they take, and which limit they meet
//! first. Requests come at random times from a seed; an event is a request.
//!
//! What is not measured is a constant here, and docs/performance.md names it.

mod events;
mod quotas;
mod report;

use std::path::Path;

use serde_json::Value;

use crate::{Fallible, Results};
use events::{Behaviour, Load, Outcome, run};

/// The time for which Lambda bills a warm call, as docs/cost.md assumes it. Most of it is Lambda's own.
const HELD_SECONDS: f64 = 0.005;
/// The same for a new environment, with INIT.
const START_SECONDS: f64 = 0.2;
/// One read of DynamoDB, and one write.
const READ_SECONDS: f64 = 0.004;
const WRITE_SECONDS: f64 = 0.006;
/// One call of so many waits for a new environment in the costs, as docs/cost.md assumes it.
const CALLS_A_START: f64 = 1000.0;
const MEMORY_GB: f64 = 0.5;
const MEMORY_MB: f64 = 512.0;
/// CloudWatch adds these bytes to each event, DynamoDB these to each item.
const LOG_EVENT_BYTES: f64 = 26.0;
const ITEM_BYTES: f64 = 100.0;
/// The requests a second that are simulated, for tables and plots.
const RATES: [f64; 9] = [
    10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0,
];
/// The other number of keys that is simulated at the highest rate.
const MANY_KEYS: usize = 1000;
/// The time that counts, after the time until caches, batches and environments are as they stay.
const STEADY_SECONDS: f64 = 20.0;
const SETTLING_SECONDS: f64 = 12.0;
const BURST_SECONDS: f64 = 10.0;

/// What the simulation knows: prices, and what was measured.
pub(crate) struct Inputs {
    prices: Value,
    costs: Value,
    /// Keyway's processor time of a data key in a function of this memory, in milliseconds, if it is measured.
    own_ms: Option<f64>,
    ttl: f64,
    batch_age: f64,
    audit_days: f64,
    log_days: f64,
}

/// One rate of requests, simulated.
struct Simulated {
    rate: f64,
    steady: Outcome,
    burst: Outcome,
}

/// What the pages show of it.
pub(crate) struct Made {
    pub(crate) blocks: Vec<(&'static str, String)>,
    pub(crate) plots: Vec<(&'static str, String)>,
}

impl Inputs {
    /// Reads prices, what `make cost` measured, and the template's defaults below `project`.
    pub(crate) fn read(project: &Path, results: &Results) -> Fallible<Self> {
        let read = |path: &str| {
            let text = std::fs::read_to_string(project.join(path));
            text.map_err(|error| format!("{path}: {error}"))
        };
        let template = read("template.yaml")?;
        let default = |name: &str| -> Fallible<f64> {
            let (_, parameter) = (template.split_once(&format!("\n  {name}:\n")))
                .ok_or_else(|| format!("the template has no parameter {name}"))?;
            let (_, value) = parameter
                .split_once("\n    Default: ")
                .ok_or("a parameter has no default")?;
            let value = value.lines().next().unwrap_or_default();
            Ok(value.trim_matches('"').parse()?)
        };
        Ok(Self {
            prices: serde_json::from_str(&read("docs/cost/prices.json")?)?,
            costs: serde_json::from_str(&read("docs/cost/measured.json")?)?,
            own_ms: own_ms(results),
            ttl: default("StateTtlSeconds")?,
            batch_age: default("AuditBatchMilliseconds")? / 1e3,
            audit_days: default("AuditRetentionDays")?,
            log_days: default("LogRetentionDays")?,
        })
    }

    fn price(&self, name: &str) -> f64 {
        self.prices
            .get(name)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    }

    fn measured(&self, path: &str) -> f64 {
        self.costs
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    }

    fn behaviour(&self) -> Behaviour {
        // A record's bytes grow with its events: two sizes were measured.
        let size = |traffic: &str| {
            let of = |figure: &str| self.measured(&format!("/{traffic}/{figure}"));
            let events = 1.0 / of("records_a_call");
            (events, events * of("record_bytes_a_call"))
        };
        let ((many, large), (few, small)) = (size("busy"), size("sparse"));
        let event = (large - small) / (many - few);
        Behaviour {
            held: HELD_SECONDS.max(self.own_ms.unwrap_or_default() / 1e3),
            start: START_SECONDS,
            read: READ_SECONDS,
            write: WRITE_SECONDS,
            ttl: self.ttl,
            batch_age: self.batch_age,
            record: small - event * few,
            event,
        }
    }

    /// Requests that come for so long already that caches, batches and environments are as they stay.
    fn steady(behaviour: &Behaviour, rate: f64, keys: usize) -> Outcome {
        let warm = (rate * behaviour.held).ceil();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most some hundred"
        )]
        let warm = warm as usize;
        let load = Load {
            rate,
            seconds: SETTLING_SECONDS + STEADY_SECONDS,
            counted_from: SETTLING_SECONDS,
            keys,
            warm,
            is_burst: false,
            concurrency: f64::INFINITY,
        };
        run(behaviour, &load)
    }

    /// Requests that begin at once, where nobody called before.
    fn burst(behaviour: &Behaviour, rate: f64) -> Outcome {
        let load = Load {
            rate,
            seconds: BURST_SECONDS,
            counted_from: 0.0,
            keys: 1,
            warm: 0,
            is_burst: true,
            concurrency: f64::INFINITY,
        };
        run(behaviour, &load)
    }

    /// Dollars of a million requests behind the front, at what this outcome reads and writes for each.
    fn behind(&self, outcome: &Outcome, dialect: &str) -> f64 {
        let million = |units: f64| units / outcome.requests;
        let (reads, writes) = (million(outcome.read_units), million(outcome.write_units));
        let held = HELD_SECONDS * MEMORY_GB * 1e6 * self.price("lambda_gb_second_arm64");
        let line = self.measured(&format!("/lines/{dialect}/log_bytes")) + LOG_EVENT_BYTES;
        let logs = self.logs(line * 1e6);
        let bytes = million(outcome.record_bytes) + million(outcome.records) * ITEM_BYTES;
        let month = self.price("dynamodb_gb_month") + self.price("dynamodb_recovery_gb_month");
        let kept = bytes * 1e6 / 1e9 * month * self.audit_days / 30.0;
        let starts = 1e6 / CALLS_A_START;
        let of_start = |figure: &str| starts * self.measured(&format!("/start/{figure}"));
        let starting = starts * START_SECONDS * MEMORY_GB * self.price("lambda_gb_second_arm64")
            + of_start("read_units") / 1e6 * self.price("dynamodb_million_read_units")
            + of_start("write_units") / 1e6 * self.price("dynamodb_million_write_units")
            + of_start("secret_calls") / 1e4 * self.price("secrets_manager_10000_calls")
            + self.logs(of_start("log_bytes"));
        self.price("lambda_million_requests")
            + held
            + reads * self.price("dynamodb_million_read_units")
            + writes * self.price("dynamodb_million_write_units")
            + logs
            + kept
            + starting
    }

    /// Log lines of these bytes, taken in and kept.
    fn logs(&self, bytes: f64) -> f64 {
        let kept = self.price("cloudwatch_logs_compressed_to") * self.log_days / 30.0;
        let gb = self.price("cloudwatch_logs_gb") + kept * self.price("cloudwatch_logs_gb_month");
        bytes / 1e9 * gb
    }
}

/// The processor time of a data key over RustFS's API, for the share of a core that a function has.
fn own_ms(results: &Results) -> Option<f64> {
    let comparisons = &results.part("speed")?.comparisons;
    let measured = comparisons.iter().find(|comparison| {
        comparison.operation == "generate-data-key" && comparison.connections > 1
    })?;
    let share = MEMORY_MB / quotas::MEMORY_OF_A_CORE;
    Some(measured.sides.first()?.processor_us() / 1e3 / share)
}

/// Simulates all rates, and makes the tables and plots.
pub(crate) fn simulate(inputs: &Inputs) -> Made {
    let behaviour = inputs.behaviour();
    let all: Vec<Simulated> = RATES
        .into_iter()
        .map(|rate| Simulated {
            rate,
            steady: Inputs::steady(&behaviour, rate, 1),
            burst: Inputs::burst(&behaviour, rate),
        })
        .collect();
    let many = RATES.last();
    let many = many.map(|rate| Inputs::steady(&behaviour, *rate, MANY_KEYS));
    report::made(inputs, &all, &many.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs() -> Inputs {
        let project = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        Inputs::read(project, &Results::default()).unwrap()
    }

    /// `make cost` measures one environment, which takes its requests one after another.
    #[test]
    fn reads_and_writes_of_one_environment_are_those_that_are_measured() {
        let inputs = inputs();
        let behaviour = Behaviour {
            held: 1e-6,
            read: 0.0,
            write: 0.0,
            ..inputs.behaviour()
        };
        let rate = inputs.measured("/busy/calls_a_second");
        let outcome = Inputs::steady(&behaviour, rate, 1);
        for (units, path) in [
            (outcome.read_units, "/busy/read_units_a_call"),
            (outcome.write_units, "/busy/write_units_a_call"),
        ] {
            let ratio = units / outcome.requests / inputs.measured(path);
            assert!((0.8..1.25).contains(&ratio), "{path}: {ratio}");
        }
    }

    #[test]
    fn prices_and_measured_figures_are_all_there() {
        let inputs = inputs();
        let outcome = Inputs::steady(&inputs.behaviour(), 100.0, 1);
        for dialect in ["rustfs", "aws", "kes"] {
            let dollars = inputs.behind(&outcome, dialect);
            assert!((0.3..1.0).contains(&dollars), "{dialect}: {dollars}");
        }
    }
}
