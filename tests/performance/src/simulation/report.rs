//! Tables and plots of the simulation.

use std::fmt::Write as _;

use super::quotas::{
    CONCURRENCY, GATEWAY, PARTITION_READS, PARTITION_WRITES, REQUESTS_AN_ENVIRONMENT, SCALING,
    SCALING_SECONDS, SECRETS, TABLE_READS, TABLE_WRITES,
};
use super::{Inputs, Made, Simulated};
use crate::numbers::{dollars, hundredths, milliseconds, plain};
use crate::simulation::events::Outcome;
use crate::svg::{Axes, Curve, curves};

/// The rates with a row in the tables.
const SHOWN: [f64; 5] = [10.0, 100.0, 1000.0, 10_000.0, 100_000.0];
const SECONDS_A_MONTH: f64 = 30.0 * 24.0 * 3600.0;

pub(super) fn made(inputs: &Inputs, all: &[Simulated], many_keys: &Outcome) -> Made {
    Made {
        blocks: vec![
            ("simulated assumptions", assumed(inputs)),
            ("simulated latency", latency(all)),
            ("simulated limits", limits(inputs, all, many_keys)),
            ("simulated cost", costs(inputs, all)),
        ],
        plots: vec![
            ("limits.svg", limits_plot(inputs, all)),
            ("cost.svg", costs_plot(inputs, all)),
        ],
    }
}

fn shown(all: &[Simulated]) -> impl Iterator<Item = &Simulated> {
    all.iter().filter(|one| SHOWN.contains(&one.rate))
}

fn assumed(inputs: &Inputs) -> String {
    let behaviour = inputs.behaviour();
    let own = inputs.own_ms.map_or_else(
        || "Keyway's own part of it is not measured".to_owned(),
        |own| {
            format!(
                "of which Keyway's own processor time is {} ms",
                milliseconds(own)
            )
        },
    );
    format!(
        "
- A call holds a warm environment for {} ms, as [the costs](cost.md) assume, {own} in a function of 512 MB.
- A new environment takes {} ms more; one call in a thousand waits for one in the costs, as [the costs](cost.md) assume.
- A read of DynamoDB takes {} ms and a write {} ms. Each environment reads three records at most once in {} s.
- An audit record has {} bytes and {} for each event, as measured; an environment writes one after {} s or 400 events.
",
        milliseconds(behaviour.held * 1e3),
        plain(behaviour.start * 1e3),
        plain(behaviour.read * 1e3).trim_end_matches(".0"),
        plain(behaviour.write * 1e3).trim_end_matches(".0"),
        inputs.ttl,
        plain(behaviour.record),
        plain(behaviour.event),
        inputs.batch_age,
    )
}

/// Seconds until a function that was idle takes this rate.
fn ramp(rate: f64) -> f64 {
    let most = SCALING * REQUESTS_AN_ENVIRONMENT;
    (rate - most).max(0.0) / (most / SCALING_SECONDS)
}

fn latency(all: &[Simulated]) -> String {
    let mut text = String::from(
        "
| Requests a second | environments at once | quota of concurrency | p50; p99; p99.9, ms | from idle: started in 10 s | refused in 10 s | p99, ms | all taken after |
|---|---|---|---|---|---|---|---|
",
    );
    for Simulated {
        rate,
        steady,
        burst,
    } in shown(all)
    {
        let quota = (rate / REQUESTS_AN_ENVIRONMENT)
            .max(steady.most_busy)
            .ceil();
        let percentiles = [0.5, 0.99, 0.999].map(|share| milliseconds(steady.percentile(share)));
        let _written = writeln!(
            text,
            "| {} | {:.0} | {} | {} | {} | {} | {} | {} s |",
            plain(*rate),
            steady.most_busy,
            plain(quota),
            percentiles.join("; "),
            plain(burst.starts),
            hundredths(burst.refused / burst.requests),
            milliseconds(burst.percentile(0.99)),
            plain(ramp(*rate)).trim_end_matches(".0"),
        );
    }
    text
}

/// The use of one limit: its name, its value, and what this rate takes of it each second.
type Limit = (&'static str, f64, fn(&Inputs, &Simulated) -> f64);

const LIMITS: [Limit; 8] = [
    (
        "Lambda: the account's concurrency of 1,000, at 10 requests a second each",
        CONCURRENCY * REQUESTS_AN_ENVIRONMENT,
        |_, one| one.rate,
    ),
    (
        "API Gateway: 10,000 requests a second of the account",
        GATEWAY,
        |_, one| one.rate,
    ),
    (
        "Secrets Manager: 10,000 `GetSecretValue` a second, from idle",
        SECRETS,
        |inputs, one| one.burst.most_starts * inputs.measured("/start/secret_calls"),
    ),
    (
        "DynamoDB: 1,000 write units of the audit log's partition of the hour",
        PARTITION_WRITES,
        |_, one| one.steady.each_second(one.steady.write_units),
    ),
    (
        "DynamoDB: 3,000 read units of the configuration's partition",
        PARTITION_READS,
        |_, one| one.steady.each_second(one.steady.configuration_reads),
    ),
    (
        "DynamoDB: 3,000 read units of the only key",
        PARTITION_READS,
        |_, one| one.steady.each_second(one.steady.hottest_reads),
    ),
    (
        "DynamoDB: 40,000 read units of the table",
        TABLE_READS,
        |_, one| one.steady.each_second(one.steady.read_units),
    ),
    (
        "DynamoDB: 40,000 write units of the table",
        TABLE_WRITES,
        |_, one| one.steady.each_second(one.steady.write_units),
    ),
];

fn limits(inputs: &Inputs, all: &[Simulated], many_keys: &Outcome) -> String {
    let mut text = String::from("\n| Used of each limit, at requests a second |");
    for rate in SHOWN {
        let _written = write!(text, " {} |", plain(rate));
    }
    let _written = writeln!(text, "\n|{}", "---|".repeat(SHOWN.len() + 1));
    for (name, limit, used) in LIMITS {
        let _written = write!(text, "| {name} |");
        for one in shown(all) {
            let share = used(inputs, one) / limit;
            let share_text = hundredths(share);
            let cell = if share > 1.0 {
                format!("**{share_text}**")
            } else {
                share_text
            };
            let _written = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    let reads = many_keys.each_second(many_keys.read_units);
    let _written = write!(
        text,
        "
With 1,000 keys, of which some are far more popular than others, 100,000 requests a second read {} units a second,
{} of the table's limit, and the most popular key has {} of its partition's.
",
        plain(reads),
        hundredths(reads / TABLE_READS),
        hundredths(many_keys.each_second(many_keys.hottest_reads) / PARTITION_READS),
    );
    text
}

/// Dollars of a million requests: through a function URL, the HTTP API and, in KES's API, the REST API; and of AWS KMS.
fn fronts(inputs: &Inputs, one: &Simulated) -> [f64; 4] {
    let behind = inputs.behind(&one.steady, "rustfs");
    let month = one.rate * SECONDS_A_MONTH;
    let (first, above) = (month.min(300e6), (month - 300e6).max(0.0));
    let http = (first * inputs.price("http_api_million_requests")
        + above * inputs.price("http_api_million_requests_above_300_million"))
        / month;
    [
        behind,
        behind + http,
        inputs.behind(&one.steady, "kes") + inputs.price("rest_api_million_requests"),
        inputs.price("kms_10000_requests") * 100.0,
    ]
}

fn costs(inputs: &Inputs, all: &[Simulated]) -> String {
    let mut text = String::from(
        "
| Requests a second, all month | Function URL: a million | a month | HTTP API: a million | a month | KES's API: a million | AWS KMS: a month |
|---|---|---|---|---|---|---|
",
    );
    for one in shown(all) {
        let [url, http, kes, kms] = fronts(inputs, one);
        let millions = one.rate * SECONDS_A_MONTH / 1e6;
        let [url_month, http_month, kms_month] =
            [url, http, kms].map(|each| dollars(each * millions));
        let [url, http, kes] = [url, http, kes].map(dollars);
        let _written = writeln!(
            text,
            "| {} | {url} | {url_month} | {http} | {http_month} | {kes} | {kms_month} |",
            plain(one.rate)
        );
    }
    text
}

fn axes() -> Axes<'static> {
    Axes {
        places: &[
            (1.0, "10"),
            (2.0, "100"),
            (3.0, "1,000"),
            (4.0, "10,000"),
            (5.0, "100,000"),
        ],
        across: "requests a second",
        up: "",
    }
}

fn limits_plot(inputs: &Inputs, all: &[Simulated]) -> String {
    let curve = |(name, limit, used): &Limit| Curve {
        name: name.replace('`', ""),
        points: (all.iter())
            .map(|one| (one.rate.log10(), 100.0 * used(inputs, one) / limit))
            .collect(),
    };
    // Limits with the same curve as another one: the first two, and those of the two records that all environments read.
    let drawn = LIMITS
        .iter()
        .skip(1)
        .filter(|(name, ..)| !name.contains("only key"));
    let drawn: Vec<Curve> = drawn.map(curve).collect();
    let axes = Axes { up: "%", ..axes() };
    let title = "Simulated: how much of each limit requests use";
    curves(title, &axes, &drawn, Some((100.0, "the limit")))
}

fn costs_plot(inputs: &Inputs, all: &[Simulated]) -> String {
    let names = [
        "Function URL",
        "HTTP API",
        "KES's API (REST API)",
        "AWS KMS",
    ];
    let drawn: Vec<Curve> = (names.iter().enumerate())
        .map(|(at, name)| Curve {
            name: (*name).to_owned(),
            points: (all.iter())
                .map(|one| {
                    let each = fronts(inputs, one).get(at).copied().unwrap_or_default();
                    let month = each * one.rate * SECONDS_A_MONTH / 1e6;
                    (one.rate.log10(), month)
                })
                .collect(),
        })
        .collect();
    let axes = Axes { up: "$", ..axes() };
    curves("Simulated: dollars a month", &axes, &drawn, None)
}
