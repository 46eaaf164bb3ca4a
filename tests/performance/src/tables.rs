//! The generated blocks of docs/performance.md and the README.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::numbers::{milliseconds, plain, two};
use crate::plots::{BARE, of_latency};
use crate::results::{Comparison, Figure, Measure, Part, Ratio, Results, Side, Target};

/// The crates that have a row of their own in the profile.
const PROFILED: usize = 12;
/// The operations in the profile, and how it names them.
const OPERATIONS: [(&str, &str); 3] = [
    ("rustfs generate-data-key", "RustFS `generate-data-key`"),
    ("kes generate", "KES `generate`"),
    ("kes generate, HTTP/2", "KES `generate`, HTTP/2"),
];
const NOTHING: &str = "\nNot measured.\n";

/// Instructions by operation and crate.
pub(crate) type Profile = BTreeMap<String, BTreeMap<String, f64>>;

/// The blocks by the names of their marks.
pub(crate) fn blocks(results: &Results, profile: &Profile) -> Vec<(&'static str, String)> {
    vec![
        ("machine", machine(results)),
        ("short", short(results)),
        ("missed", missed(results)),
        ("rustfs", comparisons(results, "speed", true)),
        ("kes", comparisons(results, "kes", true)),
        ("aws", comparisons(results, "aws", false)),
        ("openbao", comparisons(results, "bao", false)),
        ("observers", comparisons(results, "observers", false)),
        ("before", comparisons(results, "before", false)),
        ("open loop", open_loop(results)),
        ("figures", figures(results)),
        ("functions", functions(results)),
        ("profile", profiled(profile)),
    ]
}

fn machine(results: &Results) -> String {
    let mut machines: Vec<String> = Vec::new();
    let (mut dates, mut commits) = (Vec::new(), Vec::new());
    for part in &results.parts {
        for (all, one) in [
            (&mut machines, Some(part.machine.text())),
            (&mut dates, Some(part.date.clone())),
            (&mut commits, part.commit.clone()),
        ] {
            if let Some(one) = one.filter(|one| !all.contains(one)) {
                all.push(one);
            }
        }
    }
    dates.sort();
    let mut text = format!(
        "\n`{}` measured this on {} on {}",
        results.command,
        machines.join("; then "),
        dates.join(" and ")
    );
    if !commits.is_empty() {
        let _written = write!(text, ", of commit {}", commits.join(" and "));
    }
    text.push_str(".\n");
    if let Some(note) = &results.note {
        let _written = writeln!(text, "\n**{note}**");
    }
    text
}

fn verdict(target: &Target) -> String {
    let missed = if target.met { "" } else { ", **missed**" };
    format!("{}{missed}", target.text())
}

/// A ratio with its spread and target.
fn judged(ratio: &Ratio) -> String {
    let spread = &ratio.ratio;
    let text = format!(
        "{} ({} to {})",
        two(spread.median),
        two(spread.least),
        two(spread.most)
    );
    match &ratio.target {
        Some(target) => format!("{text}; {}", verdict(target)),
        None => text,
    }
}

/// The tables of a part: the rates and, with `all`, also processor time and latency.
fn comparisons(results: &Results, part: &str, all: bool) -> String {
    let Some(part) = results
        .part(part)
        .filter(|part| !part.comparisons.is_empty())
    else {
        return NOTHING.to_owned();
    };
    let rate: fn(&Side) -> String = |side| plain(side.rate.median);
    let mut text = table(part, "requests a second", Measure::Rate, rate);
    if all {
        text += &table(
            part,
            "processor time, user + kernel, µs",
            Measure::Processor,
            |side| format!("{:.1} + {:.1}", side.user_us.median, side.system_us.median),
        );
        text += &table(part, "p50; p99, ms", Measure::P99, |side| {
            format!(
                "{}; {}",
                milliseconds(side.p50_ms.median),
                milliseconds(side.p99_ms.median)
            )
        });
    }
    text
}

/// One table: a row for each comparison, a column for each side and for each side that the first is compared with.
fn table(part: &Part, what: &str, measure: Measure, cell: fn(&Side) -> String) -> String {
    let (mut sides, mut others) = (Vec::<&str>::new(), Vec::<&str>::new());
    for comparison in &part.comparisons {
        for side in &comparison.sides {
            if !sides.contains(&side.name.as_str()) {
                sides.push(&side.name);
            }
        }
        for ratio in comparison.ratios.iter().filter(|ratio| ratio.of == measure) {
            if !others.contains(&ratio.to.as_str()) {
                others.push(&ratio.to);
            }
        }
    }
    let mut text = format!("\n| {what} | {} |", sides.join(" | "));
    for other in &others {
        let _written = write!(text, " to {other} |");
    }
    let columns = 1 + sides.len() + others.len();
    let _written = writeln!(text, "\n|{}", "---|".repeat(columns));
    for comparison in &part.comparisons {
        let _written = write!(text, "| {} |", comparison.name());
        for name in &sides {
            let side = comparison.sides.iter().find(|side| side.name == *name);
            let _written = write!(text, " {} |", side.map(cell).unwrap_or_default());
        }
        for other in &others {
            let mut ratios = comparison.ratios.iter();
            let ratio = ratios.find(|ratio| ratio.of == measure && ratio.to == *other);
            let _written = write!(text, " {} |", ratio.map(judged).unwrap_or_default());
        }
        text.push('\n');
    }
    text
}

fn open_loop(results: &Results) -> String {
    let measured = results.part("open").map_or(&[][..], |part| &part.open_loop);
    let Some(first) = measured.first() else {
        return NOTHING.to_owned();
    };
    let names: Vec<&str> = first.sides.iter().map(|side| side.name.as_str()).collect();
    let mut text = format!(
        "\n| p50; p99; p99.9, ms | a second | {} | p99 to {} |\n|{}\n",
        names.join(" | "),
        first.ratio.to,
        "---|".repeat(names.len() + 3)
    );
    for open in measured {
        let _written = write!(text, "| {} | {} |", open.name(), plain(open.rate));
        for side in &open.sides {
            let values = [&side.p50_ms, &side.p99_ms, &side.p999_ms].map(|of| of.median);
            let _written = write!(text, " {} |", of_latency(values));
        }
        let _written = writeln!(text, " {} |", judged(&open.ratio));
    }
    text
}

fn measured(figure: &Figure) -> String {
    let value = figure.value.median;
    let number = match figure.unit.as_str() {
        "" => two(value),
        "ms" | "µs" => milliseconds(value),
        _ => plain(value),
    };
    format!("{number} {}", figure.unit).trim_end().to_owned()
}

fn row(figure: &Figure) -> String {
    let ratio = figure.ratio.map(two).unwrap_or_default();
    let reference = figure.reference.as_deref().unwrap_or_default();
    let target = figure.target.as_ref().map(verdict).unwrap_or_default();
    let (name, value) = (&figure.name, measured(figure));
    format!("| {name} | {value} | {ratio} | {reference} | {target} |\n")
}

fn rows(figures: &[&Figure]) -> String {
    if figures.is_empty() {
        return NOTHING.to_owned();
    }
    let rows: String = figures.iter().map(|figure| row(figure)).collect();
    format!("\n| | | ratio | to | target |\n|---|---|---|---|---|\n{rows}")
}

/// The figures that are no rates, of all parts but the functions'.
fn figures(results: &Results) -> String {
    let parts = results.parts.iter().filter(|part| part.name != "lambda");
    rows(&parts.flat_map(|part| &part.figures).collect::<Vec<_>>())
}

fn functions(results: &Results) -> String {
    let part = results.part("lambda");
    rows(&part.map_or(Vec::new(), |part| part.figures.iter().collect()))
}

/// All that misses its target.
fn missed(results: &Results) -> String {
    let (mut lines, mut judged) = (Vec::new(), 0);
    let mut judge = |what: String, value: String, target: Option<&Target>| {
        let Some(target) = target else { return };
        judged += 1;
        if !target.met {
            lines.push(format!("| {what} | {value} | {} |\n", target.text()));
        }
    };
    for part in &results.parts {
        let open = part.open_loop.iter().map(|open| (open.name(), &open.ratio));
        let closed = part.comparisons.iter().flat_map(|comparison| {
            let ratios = comparison.ratios.iter();
            ratios.map(move |ratio| (comparison.name(), ratio))
        });
        for (name, ratio) in closed.chain(open) {
            let of = match ratio.of {
                Measure::Rate => "rate",
                Measure::Processor => "processor time",
                Measure::P99 => "p99",
            };
            let what = format!("{}: {name}: {of} to {}", api(&part.name), ratio.to);
            judge(what, two(ratio.ratio.median), ratio.target.as_ref());
        }
        for figure in &part.figures {
            let value = figure.ratio.map_or_else(|| measured(figure), two);
            judge(figure.name.clone(), value, figure.target.as_ref());
        }
    }
    if lines.is_empty() {
        return format!("\nAll {judged} targets are met.\n");
    }
    format!(
        "\n{} of {judged} targets are missed:\n\n| | measured | target |\n|---|---|---|\n{}",
        lines.len(),
        lines.concat()
    )
}

fn api(part: &str) -> &'static str {
    match part {
        "speed" | "observers" => "RustFS",
        "kes" => "KES",
        "aws" => "AWS KMS",
        "bao" => "OpenBao",
        "before" => "older build",
        _ => "open loop",
    }
}

/// Instructions of a request by crate, for the operations that have targets.
fn profiled(profile: &Profile) -> String {
    let columns: Vec<_> = (OPERATIONS.iter())
        .filter_map(|(name, title)| Some((*title, profile.get(*name)?)))
        .collect();
    let Some((_, first)) = columns.first() else {
        return NOTHING.to_owned();
    };
    let mut crates: Vec<(&String, &f64)> = first.iter().collect();
    crates.sort_by(|(_, one), (_, two)| two.total_cmp(one));
    let named: Vec<&String> = crates
        .into_iter()
        .map(|(name, _)| name)
        .take(PROFILED)
        .collect();
    let cell =
        |count: f64, total: f64| format!(" {:.1} ({:.0} %) |", count / 1e3, 100.0 * count / total);
    let titles: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let mut text = format!(
        "\n| thousands of instructions | {} |\n|{}\n",
        titles.join(" | "),
        "---|".repeat(columns.len() + 1)
    );
    let total = |counts: &BTreeMap<String, f64>| counts.values().sum::<f64>();
    for name in &named {
        let _written = write!(text, "| {name} |");
        for (_, counts) in &columns {
            let count = counts.get(*name).copied().unwrap_or_default();
            text += &cell(count, total(counts));
        }
        text.push('\n');
    }
    text += "| others |";
    for (_, counts) in &columns {
        let known: f64 = named.iter().filter_map(|name| counts.get(*name)).sum();
        text += &cell(total(counts) - known, total(counts));
    }
    text += "\n| **together** |";
    for (_, counts) in &columns {
        let _written = write!(text, " **{:.1}** |", total(counts) / 1e3);
    }
    text + "\n"
}

/// The README's table: three rows.
fn short(results: &Results) -> String {
    let find = |part: &str, operation: &str, transport: &str| {
        let comparisons = results.part(part).map_or(&[][..], |part| &part.comparisons);
        comparisons.iter().find(|comparison| {
            comparison.operation == operation
                && comparison.transport.starts_with(transport)
                && comparison.connections == 32
        })
    };
    let row = |what: &str, comparison: Option<&Comparison>, other: &str| {
        let Some((comparison, own)) = comparison.and_then(|all| Some((all, all.sides.first()?)))
        else {
            return String::new();
        };
        let mut ratios = comparison.ratios.iter();
        let ratio = ratios.find(|ratio| ratio.of == Measure::Rate && ratio.to == other);
        let ratio = ratio.map_or_else(String::new, |ratio| {
            let named = if other == BARE {
                "a bare server"
            } else {
                other
            };
            format!("{} of {named}'s rate", two(ratio.ratio.median))
        });
        format!(
            "| {what} | {} a second | {:.0} µs | {ratio} |\n",
            plain(own.rate.median),
            own.processor_us(),
        )
    };
    let preliminary = results.note.as_ref().map_or("", |_| " (preliminary)");
    let kes = find("kes", "generate", "HTTP/1.1");
    let beside_kes = kes.is_some_and(|all| all.sides.iter().any(|side| side.name == "KES"));
    let rustfs = find("speed", "generate-data-key", "HTTP/1.1");
    let bao = find("bao", "generate-data-key", "HTTP/1.1");
    format!(
        "\n| Data keys over 32 connections{preliminary} | [rate](docs/performance.md) | processor time | beside |\n|---|---|---|---|\n{}{}{}",
        row("RustFS's API", rustfs, BARE),
        row(
            "KES's API, mutual TLS",
            kes,
            if beside_kes { "KES" } else { BARE }
        ),
        row("RustFS's API, beside OpenBao's transit", bao, "OpenBao"),
    )
}
