//! The release binary over HTTP, measured beside references in the same run: speed against a bare server,
//! memory, time to start, and how little the number of keys matters.
//!
//! Absolute figures depend on the machine; the ratios should hold elsewhere. A missed target is reported and is
//! no failure. A figure that cannot be measured is a failure. Each part writes its results to a file, and `pages` makes
//! docs/performance of them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are the result"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "measures real time, with settings from the environment"
)]

mod aws;
mod bao;
mod before;
mod beside;
mod client;
mod instructions;
mod kes;
mod load;
mod observers;
mod open;
mod postgres;
mod process;
mod reference;
mod report;
mod scale;
mod speed;
mod start;
mod turns;

use std::process::ExitCode;
use std::time::Duration;

use keyway_performance::{BARE, Fallible, MEASURED, crate_figures};

use crate::process::Keyway;
use crate::report::Report;

/// The name of the server that is measured, in every comparison.
const OWN: &str = "Keyway";
/// How long each figure is measured for, on each side.
const SECONDS: f64 = 4.0;
/// The two sides take turns, so that a machine that slows down for a while slows both.
const ROUNDS: u32 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        // Processes of their own, started by the measurement below.
        ["load", rest @ ..] => load::run(rest),
        ["load-tls", rest @ ..] => kes::load(rest),
        ["load-open", rest @ ..] => open::run(rest),
        ["reference", answer] => reference::run(answer),
        ["reference-tls", rest @ ..] => kes::reference(rest),
        ["pages", ..] => write_pages(),
        ["instructions", rest @ ..] => instructions::run(rest),
        // `cargo test --all-targets` runs this too, and needs no measurement.
        others if !others.contains(&"--bench") => Ok(()),
        _ => measure(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("could not be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A part, which measures for this time in each turn.
type Measurement = fn(&mut Report, Duration) -> Fallible<()>;

/// The parts in their order, with the names by which `KEYWAY_BENCH_ONLY` chooses one.
const PARTS: [(&str, Measurement); 11] = [
    ("crates", crates),
    ("speed", speed::measure),
    ("kes", kes::measure),
    ("open", open::measure),
    ("bao", bao::measure),
    ("aws", aws::measure),
    ("observers", observers::measure),
    ("before", before),
    ("postgres", postgres::measure),
    ("start", |report, _| start::measure(report)),
    ("scale", scale::measure),
];

fn measure() -> Fallible<()> {
    let seconds = match std::env::var("KEYWAY_BENCH_SECONDS") {
        Ok(text) => text
            .parse()
            .map_err(|_| "KEYWAY_BENCH_SECONDS must be a number")?,
        Err(_) => SECONDS,
    };
    let turn = Duration::try_from_secs_f64(seconds / f64::from(ROUNDS))?;
    let wanted = std::env::var("KEYWAY_BENCH_ONLY").unwrap_or_default();
    let mut report = Report::to(&keyway_tests::project().join(MEASURED))?;
    let mut failed = Vec::new();
    // The store is measured without a server, and the crates were measured before.
    if !["postgres", "crates"].contains(&wanted.as_str()) {
        Keyway::build()?;
    }
    for (name, measure) in PARTS {
        if !wanted.is_empty() && wanted != name {
            continue;
        }
        report.begin(name)?;
        // One part that cannot be measured does not lose the others.
        match measure(&mut report, turn) {
            Ok(()) => report.end()?,
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    report.print();
    if failed.is_empty() {
        return Ok(());
    }
    Err(failed.join("; ").into())
}

/// Takes the figures of single crates from the output of their benchmarks, which the environment names.
fn crates(report: &mut Report, _: Duration) -> Fallible<()> {
    if let Some(file) = std::env::var_os("KEYWAY_BENCH_CRATES") {
        for figure in crate_figures(&std::fs::read_to_string(file)?) {
            report.keep(figure);
        }
    }
    Ok(())
}

/// Compares with an older build, if the environment names one.
fn before(report: &mut Report, turn: Duration) -> Fallible<()> {
    match std::env::var_os("KEYWAY_BENCH_BEFORE") {
        Some(binary) => before::measure(report, turn, binary.as_ref()),
        None => Ok(()),
    }
}

/// Makes the committed results, tables and plots from the measured parts. With a note, the pages say it.
fn write_pages() -> Fallible<()> {
    let note = std::env::var("KEYWAY_BENCH_NOTE").ok();
    let project = keyway_tests::project();
    let written = keyway_performance::write(project, &project.join(MEASURED), note)?;
    for path in written {
        println!("wrote {path}");
    }
    Ok(())
}

/// The median.
fn median(mut samples: Vec<f64>) -> Fallible<f64> {
    samples.sort_by(f64::total_cmp);
    samples
        .get(samples.len() / 2)
        .copied()
        .ok_or_else(|| "nothing was measured".into())
}
