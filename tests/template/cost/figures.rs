//! The figures that the tables are made of: prices, what was measured, and what is assumed.

use keyway_tests::{parameter_default, project};
use serde_json::Value;

/// Lambda bills whole milliseconds, and its own overhead is most of them.
pub(super) const BILLED_SECONDS: f64 = 0.005;
/// The template's `MemorySize` in GB.
pub(super) const MEMORY_GB: f64 = 0.5;
/// One call of so many waits for a new instance.
pub(super) const CALLS_A_COLD_START: f64 = 1000.0;
pub(super) const COLD_START_SECONDS: f64 = 0.2;
/// CloudWatch adds these bytes to each event.
pub(super) const LOG_EVENT_BYTES: f64 = 26.0;
/// DynamoDB adds these bytes to each item that it keeps.
const ITEM_BYTES: f64 = 100.0;
pub(super) const SECONDS_A_MONTH: f64 = 30.0 * 24.0 * 3600.0;
const GB: f64 = 1e9;
pub(super) const MILLION: f64 = 1e6;

/// A JSON file of docs/cost.
pub(super) struct Figures(Value);

impl Figures {
    pub(super) fn of(file: &str) -> Self {
        let path = project().join("docs/cost").join(file);
        let text = std::fs::read(&path).unwrap();
        Self(serde_json::from_slice(&text).unwrap())
    }

    /// The number at this path, such as `/busy/read_units_a_call`.
    pub(super) fn at(&self, path: &str) -> f64 {
        let found = self.0.pointer(path).and_then(Value::as_f64);
        found.unwrap_or_else(|| panic!("docs/cost has no number at {path}"))
    }

    pub(super) fn text(&self, path: &str) -> &str {
        self.0.pointer(path).unwrap().as_str().unwrap()
    }
}

/// A parameter's default, as a number.
pub(super) fn default(parameter: &str) -> f64 {
    parameter_default(parameter).parse().unwrap()
}

/// How often calls come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    Busy,
    Sparse,
}

/// What receives the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Front {
    FunctionUrl,
    HttpApi,
    RestApi,
}

pub(super) struct Costs {
    pub(super) prices: Figures,
    pub(super) measured: Figures,
}

/// One position of the bill, in dollars.
pub(super) struct Position {
    pub(super) name: &'static str,
    pub(super) arithmetic: String,
    pub(super) dollars: f64,
}

impl Costs {
    pub(super) fn read() -> Self {
        Self {
            prices: Figures::of("prices.json"),
            measured: Figures::of("measured.json"),
        }
    }

    pub(super) fn price(&self, name: &str) -> f64 {
        self.prices.at(&format!("/{name}"))
    }

    pub(super) fn of_traffic(&self, traffic: Traffic, figure: &str) -> f64 {
        let name = match traffic {
            Traffic::Busy => "busy",
            Traffic::Sparse => "sparse",
        };
        self.measured.at(&format!("/{name}/{figure}"))
    }

    pub(super) fn gb_second(&self) -> f64 {
        self.price("lambda_gb_second_arm64")
    }

    /// Log lines of these bytes, taken in and kept.
    pub(super) fn logged(&self, bytes: f64) -> (f64, f64) {
        // What is kept is compressed, by this much in AWS's own calculator.
        let kept = self.price("cloudwatch_logs_compressed_to");
        let months = kept * default("LogRetentionDays") / 30.0;
        (
            bytes / GB * self.price("cloudwatch_logs_gb"),
            bytes / GB * months * self.price("cloudwatch_logs_gb_month"),
        )
    }

    pub(super) fn reads(&self, units: f64) -> f64 {
        units / MILLION * self.price("dynamodb_million_read_units")
    }

    pub(super) fn writes(&self, units: f64) -> f64 {
        units / MILLION * self.price("dynamodb_million_write_units")
    }

    /// Items of these bytes in the table, for a month.
    pub(super) fn kept(&self, bytes: f64) -> f64 {
        let month = self.price("dynamodb_gb_month") + self.price("dynamodb_recovery_gb_month");
        bytes / GB * month
    }

    fn secret_calls(&self, calls: f64) -> f64 {
        calls / 10_000.0 * self.price("secrets_manager_10000_calls")
    }

    /// Requests through a front, without what they cause behind it.
    pub(super) fn front(&self, front: Front, requests: f64) -> f64 {
        match front {
            Front::FunctionUrl => 0.0,
            Front::RestApi => requests / MILLION * self.price("rest_api_million_requests"),
            Front::HttpApi => {
                let (first, above) = (requests.min(300e6), (requests - 300e6).max(0.0));
                let price = self.price("http_api_million_requests_above_300_million");
                (first * self.price("http_api_million_requests") + above * price) / MILLION
            }
        }
    }

    /// The bytes of the line of one data key through this API, as CloudWatch counts them.
    pub(super) fn line(&self, dialect: &str) -> f64 {
        self.measured.at(&format!("/lines/{dialect}/log_bytes")) + LOG_EVENT_BYTES
    }

    /// What this many data keys through this API cost behind the front.
    pub(super) fn positions(&self, traffic: Traffic, dialect: &str, calls: f64) -> Vec<Position> {
        let position = |name, arithmetic, dollars| Position {
            name,
            arithmetic,
            dollars,
        };
        let starts = calls / CALLS_A_COLD_START;
        let started = |figure: &str| starts * self.measured.at(&format!("/start/{figure}"));
        let (start_logs, start_kept) = self.logged(started("log_bytes"));
        let starting = starts * COLD_START_SECONDS * MEMORY_GB * self.gb_second()
            + self.reads(started("read_units"))
            + self.writes(started("write_units"))
            + self.secret_calls(started("secret_calls"))
            + start_logs
            + start_kept;
        let reads = calls * self.of_traffic(traffic, "read_units_a_call");
        let writes = calls * self.of_traffic(traffic, "write_units_a_call");
        let (logs, logs_kept) = self.logged(calls * self.line(dialect));
        let records = calls * self.of_traffic(traffic, "records_a_call") * ITEM_BYTES;
        let bytes = calls * self.of_traffic(traffic, "record_bytes_a_call") + records;
        let days = default("AuditRetentionDays");
        vec![
            position(
                "Lambda, requests",
                format!("${:.2} a million", self.price("lambda_million_requests")),
                calls / MILLION * self.price("lambda_million_requests"),
            ),
            position(
                "Lambda, time",
                "5 ms at 512 MB".to_owned(),
                calls * BILLED_SECONDS * MEMORY_GB * self.gb_second(),
            ),
            position(
                "cold starts",
                "1 in 1,000: 0.2 s, reads of the table and of secrets".to_owned(),
                starting,
            ),
            position(
                "reads of the table",
                format!("{:.3} units a call", reads / calls),
                self.reads(reads),
            ),
            position(
                "audit log, CloudWatch",
                format!("{:.0} bytes a call", self.line(dialect)),
                logs,
            ),
            position(
                "audit log, kept there",
                format!("{} days", parameter_default("LogRetentionDays")),
                logs_kept,
            ),
            position(
                "audit log, writes of the table",
                format!("{:.3} units a call", writes / calls),
                self.writes(writes),
            ),
            position(
                "audit log, kept there",
                format!("{:.0} bytes a call, {days} days", bytes / calls),
                self.kept(bytes) * days / 30.0,
            ),
        ]
    }

    /// What this many data keys cost, all included.
    pub(super) fn data_keys(
        &self,
        front: Front,
        traffic: Traffic,
        dialect: &str,
        calls: f64,
    ) -> f64 {
        let positions = self.positions(traffic, dialect, calls);
        let behind: f64 = positions.iter().map(|position| position.dollars).sum();
        behind + self.front(front, calls)
    }

    pub(super) fn kms(&self, keys: f64, calls: f64) -> f64 {
        keys * self.price("kms_key_month") + calls / 10_000.0 * self.price("kms_10000_requests")
    }

    /// Secrets, alarms above the free ones, and the keys with the janitor's reads of them, for a month.
    pub(super) fn idle(&self, secrets: f64, charged_alarms: f64, keys: f64) -> f64 {
        secrets * self.price("secrets_manager_secret_month")
            + charged_alarms * self.price("cloudwatch_alarm_month")
            + self.keys(keys)
            + self.janitor(keys)
    }

    /// Keeping keys in the table.
    pub(super) fn keys(&self, keys: f64) -> f64 {
        self.kept(keys * (self.measured.at("/created_key/bytes") + ITEM_BYTES))
    }

    /// The janitor's hourly runs over these keys.
    pub(super) fn janitor(&self, keys: f64) -> f64 {
        let runs = SECONDS_A_MONTH / 3600.0;
        let units = (keys * self.measured.at("/created_key/bytes") / 4096.0).max(1.0);
        let time = COLD_START_SECONDS * MEMORY_GB * self.gb_second();
        runs * (self.reads(units) + time)
    }
}
