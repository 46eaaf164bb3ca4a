//! The plots that the results give.

use crate::numbers::{milliseconds, two};
use crate::results::{Comparison, Measure, Results, Side};
use crate::svg::{Axes, Bar, Curve, Group, bars, curves};

/// The parts whose comparisons have a bare server, in the order of the plots.
const PARTS: [&str; 2] = ["speed", "kes"];

/// Each plot's file name below docs/performance, and its text.
pub(crate) fn plots(results: &Results) -> Vec<(&'static str, String)> {
    vec![
        ("rates.svg", rates(results)),
        ("processor.svg", processor(results)),
        ("latency.svg", latency(results)),
    ]
}

fn compared(results: &Results) -> impl Iterator<Item = (&'static str, &Comparison)> {
    PARTS.into_iter().flat_map(|name| {
        let api = if name == "kes" { "KES" } else { "RustFS" };
        let part = results.part(name);
        part.into_iter()
            .flat_map(|part| &part.comparisons)
            .map(move |comparison| (api, comparison))
    })
}

/// `RustFS decrypt, HTTP/1.1, 32`: a label has no room for more.
fn label(api: &str, comparison: &Comparison) -> String {
    let (operation, connections) = (&comparison.operation, comparison.connections);
    let transport = comparison.transport.replace(", mutual TLS", "");
    format!("{api} {operation}, {transport}, {connections}")
}

/// The names of all sides, in the order in which they are first met.
fn sides(results: &Results) -> Vec<String> {
    let mut names = Vec::new();
    for (_, comparison) in compared(results) {
        for side in &comparison.sides {
            if !names.contains(&side.name) {
                names.push(side.name.clone());
            }
        }
    }
    names
}

fn rates(results: &Results) -> String {
    let legend = sides(results);
    let groups: Vec<Group> = compared(results)
        .map(|(api, comparison)| {
            let bare = comparison.sides.iter().find(|side| side.name == BARE);
            let bare = bare.map_or(1.0, |bare| bare.rate.median);
            Group {
                label: label(api, comparison),
                bars: (comparison.sides.iter())
                    .filter(|side| side.name != BARE)
                    .map(|side| {
                        // Ratios of turns if there are some, because neighbouring turns can be compared best.
                        let own = comparison.sides.first().is_some_and(|own| own == side);
                        let ratio = comparison
                            .ratios
                            .iter()
                            .find(|ratio| own && ratio.of == Measure::Rate && ratio.to == BARE)
                            .map_or(side.rate.median / bare, |ratio| ratio.ratio.median);
                        Bar {
                            colour: legend
                                .iter()
                                .position(|name| *name == side.name)
                                .unwrap_or(0),
                            parts: vec![ratio],
                            text: two(ratio),
                        }
                    })
                    .collect(),
            }
        })
        .collect();
    let title = "Requests a second, as a share of those of a bare hyper server";
    bars(title, &legend, &groups, Some(1.0))
}

/// The name of the server that reads the same requests and answers without doing anything.
pub const BARE: &str = "bare server";

fn processor(results: &Results) -> String {
    let legend: Vec<String> = (sides(results).into_iter())
        .flat_map(|name| [name.clone(), format!("{name}, kernel")])
        .collect();
    let groups: Vec<Group> = compared(results)
        .map(|(api, comparison)| {
            let bar = |side: &Side| Bar {
                colour: legend
                    .iter()
                    .position(|name| *name == side.name)
                    .unwrap_or(0),
                parts: vec![side.user_us.median, side.system_us.median],
                text: format!("{:.1}", side.processor_us()),
            };
            Group {
                label: label(api, comparison),
                bars: comparison.sides.iter().map(bar).collect(),
            }
        })
        .collect();
    let title = "The server's processor time of a request, in microseconds";
    bars(title, &legend, &groups, None)
}

fn latency(results: &Results) -> String {
    let place = |percentile: f64| -(1.0 - percentile / 100.0).log10();
    let measured = results.part("open").map_or(&[][..], |part| &part.open_loop);
    let all: Vec<Curve> = measured
        .iter()
        .flat_map(|open| {
            let transport = open.transport.replace("HTTP/1.1, ", "");
            open.sides.iter().map(move |side| Curve {
                name: format!("{} {} ({transport})", side.name, open.operation),
                points: side
                    .percentiles
                    .iter()
                    .zip(&side.milliseconds)
                    .map(|(percentile, value)| (place(*percentile), *value))
                    .collect(),
            })
        })
        .collect();
    let axes = Axes {
        places: &[
            (place(50.0), "p50"),
            (place(90.0), "p90"),
            (place(99.0), "p99"),
            (place(99.9), "p99.9"),
            (place(99.99), "p99.99"),
        ],
        across: "percentile",
        up: "ms",
    };
    curves(
        "Latency at a fixed rate, from the time at which a request is due",
        &axes,
        &all,
        None,
    )
}

/// `p50 0.123 ms`-like texts share this form with the tables.
pub(crate) fn of_latency(values: [f64; 3]) -> String {
    values.map(milliseconds).join("; ")
}
