//! The generated blocks of docs/cost.md and the README.

use std::fmt::Write as _;

use keyway_openapi::{DOCUMENT, SendingLimit};
use keyway_tests::project;

use super::figures::{
    Costs, Front, LOG_EVENT_BYTES, MEMORY_GB, MILLION, SECONDS_A_MONTH, Traffic, default,
};
use crate::made::routes_of_http_api;

/// Requests a second that Lambda takes at most for each reserved instance.
const REQUESTS_AN_INSTANCE: f64 = 10.0;
/// Two secrets: the root keyring and the root access key.
const SECRETS: f64 = 2.0;
/// The keys of the table of master keys.
const KEYS: f64 = 1000.0;

/// Dollars and cents, or whole dollars from a hundred on, with commas.
pub(super) fn dollars(amount: f64) -> String {
    if amount < 99.995 {
        return format!("${amount:.2}");
    }
    let digits = format!("{amount:.0}");
    let mut text = String::from("$");
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn with_commas(number: f64) -> String {
    let text = dollars(number.max(100.0));
    if number < 100.0 {
        return format!("{number:.0}");
    }
    text.trim_start_matches('$').to_owned()
}

/// From the busy to the sparse amount.
fn span(busy: f64, sparse: f64) -> String {
    let (from, to) = (dollars(busy), dollars(sparse));
    if from == to {
        from
    } else {
        format!("{from} to {to}")
    }
}

fn million(costs: &Costs, front: Front, traffic: Traffic) -> f64 {
    let dialect = if front == Front::RestApi {
        "kes"
    } else {
        "rustfs"
    };
    costs.data_keys(front, traffic, dialect, MILLION)
}

/// The alarms of the template with these conditions.
fn alarms(conditions: &[&str]) -> f64 {
    let template = std::fs::read_to_string(project().join("template.yaml")).unwrap();
    let alarms = template.split("Type: AWS::CloudWatch::Alarm").skip(1);
    let counted = alarms.filter(|alarm| {
        let (_, condition) = alarm.split_once("Condition: ").unwrap();
        let condition = condition.lines().next().unwrap();
        let is_known = [
            "AlarmsOn",
            "HttpApiAlarms",
            "OneFunctionAlarms",
            "FunctionUrlAlarms",
            "KesApiAlarms",
            "LogAlarms",
        ]
        .contains(&condition);
        assert!(
            is_known,
            "docs/cost.md does not count alarms of {condition}"
        );
        conditions.contains(&condition)
    });
    f64::from(u32::try_from(counted.count()).unwrap())
}

fn alarms_of(front: Front) -> f64 {
    match front {
        Front::FunctionUrl => alarms(&[
            "AlarmsOn",
            "LogAlarms",
            "OneFunctionAlarms",
            "FunctionUrlAlarms",
        ]),
        Front::HttpApi => alarms(&["AlarmsOn", "LogAlarms", "HttpApiAlarms"]),
        Front::RestApi => alarms(&["AlarmsOn", "LogAlarms", "HttpApiAlarms", "KesApiAlarms"]),
    }
}

/// The alarms that are charged in an account without other alarms.
fn above_free(costs: &Costs, front: Front) -> f64 {
    (alarms_of(front) - costs.price("cloudwatch_free_alarms")).max(0.0)
}

fn idle(costs: &Costs, front: Front) -> String {
    let free = costs.idle(SECRETS, above_free(costs, front), 1.0);
    let charged = costs.idle(SECRETS, alarms_of(front), 1.0);
    span(free, charged)
}

fn short(costs: &Costs) -> String {
    let row = |traffic| {
        let of = |front| dollars(million(costs, front, traffic));
        format!(
            "{} | {} | {} | {}",
            of(Front::FunctionUrl),
            of(Front::HttpApi),
            of(Front::RestApi),
            dollars(costs.kms(0.0, MILLION))
        )
    };
    let none = costs.idle(1.0, 0.0, 1.0);
    format!(
        "
| | Function URL | HTTP API | KES's API | AWS KMS |
|---|---|---|---|---|
| a million data keys, busy | {} |
| a million data keys, sparse | {} |
| 1,000 master keys, a month | {keys} | {keys} | {keys} | {} |
| no calls, a month | {} | {} | {} | {} for each key |
| no calls, one secret, no alarms | {none} | {none} | {none} | |
",
        row(Traffic::Busy),
        row(Traffic::Sparse),
        dollars(costs.kms(KEYS, 0.0)),
        idle(costs, Front::FunctionUrl),
        idle(costs, Front::HttpApi),
        idle(costs, Front::RestApi),
        dollars(costs.kms(1.0, 0.0)),
        keys = dollars(costs.idle(SECRETS, 0.0, KEYS)),
        none = dollars(none),
    )
}

fn prices(costs: &Costs) -> String {
    let price = |name| costs.price(name);
    format!(
        "
List prices of {region}, {date}, without taxes and free tiers:

| Service | Price |
|---|---|
| Lambda | ${:.2} a million requests; ${} a GB-second on arm64, ${} on x86_64 |
| API Gateway, HTTP API | ${:.2} a million requests, ${:.2} above 300 million a month |
| API Gateway, REST API | ${:.2} a million requests |
| DynamoDB, on demand | ${} a million read units, ${} a million write units; ${:.2} a GB-month, and ${:.2} for recovery (PITR) |
| Secrets Manager | ${:.2} a secret and month; ${:.2} for 10,000 calls |
| CloudWatch | logs ${:.2} a GB taken in, ${:.2} a GB-month kept; ${:.2} an alarm and month, {} free; ${:.2} a metric and month, for the hours in which it has values, {} free |
| Data transfer to the internet | ${:.2} a GB |
| AWS KMS | ${:.2} a key and month, as much again for each of its first two rotations; ${:.2} for 10,000 requests |
",
        price("lambda_million_requests"),
        price("lambda_gb_second_arm64"),
        price("lambda_gb_second_x86_64"),
        price("http_api_million_requests"),
        price("http_api_million_requests_above_300_million"),
        price("rest_api_million_requests"),
        price("dynamodb_million_read_units"),
        price("dynamodb_million_write_units"),
        price("dynamodb_gb_month"),
        price("dynamodb_recovery_gb_month"),
        price("secrets_manager_secret_month"),
        price("secrets_manager_10000_calls"),
        price("cloudwatch_logs_gb"),
        price("cloudwatch_logs_gb_month"),
        price("cloudwatch_alarm_month"),
        price("cloudwatch_free_alarms"),
        price("cloudwatch_metric_month"),
        price("cloudwatch_free_metrics"),
        price("transfer_gb"),
        price("kms_key_month"),
        price("kms_10000_requests"),
        region = costs.prices.text("/region"),
        date = costs.prices.text("/date"),
    )
}

fn data_keys(costs: &Costs) -> String {
    let busy = costs.positions(Traffic::Busy, "rustfs", MILLION);
    let sparse = costs.positions(Traffic::Sparse, "rustfs", MILLION);
    let mut text = String::from("\n| | Busy | | Sparse | |\n|---|---|---|---|---|\n");
    for (busy, sparse) in busy.iter().zip(&sparse) {
        writeln!(
            text,
            "| {} | {} | ${:.3} | {} | ${:.3} |",
            busy.name, busy.arithmetic, busy.dollars, sparse.arithmetic, sparse.dollars
        )
        .unwrap();
    }
    for (name, front) in [
        ("**function URL**", Front::FunctionUrl),
        ("**HTTP API**, $1.00 more", Front::HttpApi),
    ] {
        let of = |traffic| dollars(million(costs, front, traffic));
        let (busy, sparse) = (of(Traffic::Busy), of(Traffic::Sparse));
        writeln!(text, "| {name} | | **{busy}** | | **{sparse}** |").unwrap();
    }
    text
}

/// What one data key is through each API.
fn apis(costs: &Costs) -> String {
    let mut text = String::from(
        "\n| API | Front | Log line | Answer | A million, busy | sparse |\n|---|---|---|---|---|---|\n",
    );
    for (name, dialect, front, front_name) in [
        ("RustFS's", "rustfs", Front::FunctionUrl, "function URL"),
        ("AWS KMS's", "aws", Front::FunctionUrl, "function URL"),
        ("KES's", "kes", Front::RestApi, "REST API"),
    ] {
        let of = |traffic| dollars(costs.data_keys(front, traffic, dialect, MILLION));
        writeln!(
            text,
            "| {name} | {front_name} | {:.0} bytes | {:.0} bytes | {} | {} |",
            costs.line(dialect) - LOG_EVENT_BYTES,
            costs.measured.at(&format!("/lines/{dialect}/answer_bytes")),
            of(Traffic::Busy),
            of(Traffic::Sparse),
        )
        .unwrap();
    }
    let kms = dollars(costs.kms(0.0, MILLION));
    writeln!(text, "| AWS KMS itself | | none | | {kms} | {kms} |").unwrap();
    text
}

fn master_keys(costs: &Costs) -> String {
    let kms = dollars(costs.kms(KEYS, 0.0));
    format!(
        "
| A month | | Keyway | AWS KMS |
|---|---|---|---|
| 1,000 keys | {bytes:.0} bytes each in the table | ${:.4} | {kms} |
| the root keyring and the root access key | two secrets | {} | |
| the janitor reads the keys every hour | {:.0} units and 0.2 s | {} | |
| **together** | | **{}** | **{kms}** |
",
        costs.keys(KEYS),
        dollars(SECRETS * costs.price("secrets_manager_secret_month")),
        KEYS * bytes_of_key(costs) / 4096.0,
        dollars(costs.janitor(KEYS)),
        dollars(costs.idle(SECRETS, 0.0, KEYS)),
        bytes = bytes_of_key(costs),
    )
}

fn bytes_of_key(costs: &Costs) -> f64 {
    costs.measured.at("/created_key/bytes")
}

fn no_calls(costs: &Costs) -> String {
    let alarm = costs.price("cloudwatch_alarm_month");
    let mut text = format!(
        "
| A month | |
|---|---|
| two secrets; one with `RootAccessKeySecret=false` | {}; {} |
",
        dollars(SECRETS * costs.price("secrets_manager_secret_month")),
        dollars(costs.price("secrets_manager_secret_month")),
    );
    for (name, front) in [
        ("function URL", Front::FunctionUrl),
        ("HTTP API", Front::HttpApi),
        ("HTTP API with KES's API", Front::RestApi),
    ] {
        writeln!(
            text,
            "| {:.0} alarms of the {name} | {}, or {} if other alarms use the ten free ones |",
            alarms_of(front),
            dollars(above_free(costs, front) * alarm),
            dollars(alarms_of(front) * alarm),
        )
        .unwrap();
    }
    writeln!(
        text,
        "| the janitor's 720 runs | {} |",
        dollars(costs.janitor(1.0))
    )
    .unwrap();
    text
}

fn months(costs: &Costs) -> String {
    let mut text =
        String::from("\n| A month | Function URL | HTTP API | AWS KMS |\n|---|---|---|---|\n");
    for (name, keys, calls) in [
        ("1 key, 10,000 data keys", 1.0, 10e3),
        ("10 keys, 1 million data keys", 10.0, MILLION),
        ("1,000 keys, 10 million data keys", 1000.0, 10.0 * MILLION),
    ] {
        let of = |front| {
            let idle = costs.idle(SECRETS, 0.0, keys);
            let with = |traffic| idle + costs.data_keys(front, traffic, "rustfs", calls);
            span(with(Traffic::Busy), with(Traffic::Sparse))
        };
        writeln!(
            text,
            "| {name} | {} | {} | {} |",
            of(Front::FunctionUrl),
            of(Front::HttpApi),
            dollars(costs.kms(keys, calls))
        )
        .unwrap();
    }
    text
}

/// From or up to how many data keys a month AWS KMS is cheaper, with one key.
fn cheaper_calls(costs: &Costs, front: Front, secrets: f64, alarms: f64) -> String {
    let dialect = if front == Front::RestApi {
        "kes"
    } else {
        "aws"
    };
    let more = costs.idle(secrets, alarms, 1.0) - costs.kms(1.0, 0.0);
    let saved = costs.kms(0.0, MILLION) - costs.data_keys(front, Traffic::Busy, dialect, MILLION);
    let calls = with_commas((more / saved * MILLION / 10_000.0).round() * 10_000.0);
    match (more > 0.0, saved > 0.0) {
        (true, true) => format!("below {calls} data keys a month"),
        (false, false) => format!("above {calls} data keys a month"),
        (true, false) => "always".to_owned(),
        (false, true) => "never".to_owned(),
    }
}

fn cheaper(costs: &Costs) -> String {
    let mut text = String::from(
        "\n| With one key of your own, busy | Function URL | HTTP API | KES's API |\n|---|---|---|---|\n",
    );
    for (name, secrets, charges_alarms) in [
        ("two secrets, free alarms or none", SECRETS, false),
        ("two secrets, charged alarms", SECRETS, true),
        ("one secret, no alarms", 1.0, false),
    ] {
        let of = |front| {
            let alarms = if charges_alarms {
                alarms_of(front)
            } else {
                0.0
            };
            cheaper_calls(costs, front, secrets, alarms)
        };
        writeln!(
            text,
            "| {name} | {} | {} | {} |",
            of(Front::FunctionUrl),
            of(Front::HttpApi),
            of(Front::RestApi)
        )
        .unwrap();
    }
    text
}

fn minio(costs: &Costs) -> String {
    let calls = SECONDS_A_MONTH / 10.0;
    let sparse = costs.data_keys(Front::RestApi, Traffic::Sparse, "kes", calls);
    format!(
        "
Each MinIO server asks for its default key every ten seconds, {} times a month: {}.
",
        with_commas(calls),
        dollars(sparse)
    )
}

fn metrics(costs: &Costs) -> String {
    let bytes = costs.measured.at("/metrics_line_bytes") + LOG_EVENT_BYTES;
    let (logs, _) = costs.logged(bytes * SECONDS_A_MONTH / 60.0);
    format!(
        "
`Metrics=emf` logs {bytes:.0} bytes a minute for each instance in use, {} a month for one that is never idle, and costs
$0.30 a month for each metric above the ten free ones.
",
        dollars(logs)
    )
}

/// What requests cost that no access key proves, at most.
struct Bound {
    requests: f64,
    /// Requests that can be for the description of the API, the largest answer that needs no access key.
    described: f64,
    instances: f64,
}

impl Bound {
    /// The positions of a month, in dollars.
    fn positions(&self, costs: &Costs) -> [(&'static str, f64); 6] {
        let seconds = SECONDS_A_MONTH;
        let bytes = costs.measured.at("/refused/log_bytes") + LOG_EVENT_BYTES;
        let (logs, kept) = costs.logged(self.requests * bytes);
        let requests = self.requests / MILLION * costs.price("lambda_million_requests");
        let time = self.instances * seconds * MEMORY_GB * costs.gb_second();
        let units = costs.measured.at("/flood/write_units_a_second") * self.instances * seconds;
        let answer = f64::from(u32::try_from(DOCUMENT.len()).unwrap());
        let answers = self.described * answer / 1e9;
        let reads = self.requests * costs.measured.at("/refused/read_units_a_call");
        [
            ("Lambda, requests", requests),
            ("Lambda, every instance busy all the time", time),
            ("look-ups of unknown access keys", costs.reads(reads)),
            ("log lines, taken in and kept", logs + kept),
            ("audit records in the table", costs.writes(units)),
            (
                "transfer of `/openapi.json`",
                costs.price("transfer_gb") * answers,
            ),
        ]
    }
}

/// Instances and requests a second of the HTTP API's functions with the template's defaults.
fn behind_the_http_api() -> f64 {
    default("DataKeyConcurrency") + 2.0 * default("KeysConcurrency") + default("ServiceConcurrency")
}

fn bound(costs: &Costs) -> String {
    let url = default("DataKeyConcurrency");
    let http = behind_the_http_api();
    let [data_keys, described, others] =
        routes_of_http_api().map(|number| f64::from(u32::try_from(number).unwrap()));
    let (data_key_rate, rate) = (default("DataKeyRateLimit"), default("KeysRateLimit"));
    let admitted = data_keys * data_key_rate + described + others * rate;
    // `describing`: the instances that serve the description.
    let of = |instances: f64, describing: f64| Bound {
        requests: instances * REQUESTS_AN_INSTANCE * SECONDS_A_MONTH,
        described: describing * SECONDS_A_MONTH / SendingLimit::EVERY.as_secs_f64(),
        instances,
    };
    let of_url = of(url, url).positions(costs);
    let of_http = of(http, default("ServiceConcurrency")).positions(costs);
    let gateway = costs.front(Front::HttpApi, admitted * SECONDS_A_MONTH);
    let sum = |positions: &[(&str, f64)]| positions.iter().map(|(_, dollars)| dollars).sum::<f64>();
    let mut text = format!(
        "
{data_keys} data-key routes at {data_key_rate} a second, {described} of the description at 1 and {others} others at {rate} are {admitted} a second, {} million a month.

| At most, a month | Function URL | HTTP API |
|---|---|---|
| requests that reach a function | {:.0} a second | {:.0} a second |
| API Gateway | | {} |
",
        with_commas(admitted * SECONDS_A_MONTH / MILLION),
        url * REQUESTS_AN_INSTANCE,
        http * REQUESTS_AN_INSTANCE,
        dollars(gateway),
    );
    for ((name, url), (_, http)) in of_url.iter().zip(&of_http) {
        writeln!(text, "| {name} | {} | {} |", dollars(*url), dollars(*http)).unwrap();
    }
    let lower = of(2.0, 2.0).positions(costs);
    writeln!(
        text,
        "| **together** | **{}** | **{}** |\n| with `DataKeyConcurrency=2` | {} | |",
        dollars(sum(&of_url)),
        dollars(sum(&of_http) + gateway),
        dollars(sum(&lower)),
    )
    .unwrap();
    text
}

/// The blocks by the names of their marks.
pub(super) fn blocks() -> Vec<(&'static str, String)> {
    let costs = &Costs::read();
    let of = |front, traffic| million(costs, front, traffic);
    let (busy, sparse) = (
        of(Front::FunctionUrl, Traffic::Busy),
        of(Front::HttpApi, Traffic::Sparse),
    );
    vec![
        ("short", short(costs)),
        ("prices", prices(costs)),
        ("data keys", data_keys(costs)),
        ("apis", apis(costs)),
        ("master keys", master_keys(costs)),
        ("metrics", metrics(costs)),
        ("no calls", no_calls(costs)),
        ("minio", minio(costs)),
        ("months", months(costs)),
        ("cheaper", cheaper(costs)),
        ("bound", bound(costs)),
        (
            "idle",
            span(
                costs.idle(1.0, 0.0, KEYS),
                costs.idle(SECRETS, above_free(costs, Front::HttpApi), KEYS),
            ),
        ),
        ("thousand keys", dollars(costs.idle(SECRETS, 0.0, KEYS))),
        ("million", span(busy, sparse)),
        ("sparse seconds", seconds_of_batches()),
    ]
}

/// The batch's age, for the text.
fn seconds_of_batches() -> String {
    format!("{} seconds", default("AuditBatchMilliseconds") / 1000.0)
}
