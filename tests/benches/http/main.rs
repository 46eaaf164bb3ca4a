//! The release binary over HTTP, measured beside references in the same run: speed against a bare server,
//! memory, time to start, and how little the number of keys matters.
//!
//! Absolute figures depend on the machine; the ratios should hold elsewhere. A missed target is reported and is
//! no failure. A figure that cannot be measured is a failure.
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
mod before;
mod client;
mod instructions;
mod kes;
mod load;
mod observers;
mod postgres;
mod process;
mod reference;
mod report;
mod scale;
mod speed;
mod start;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use crate::process::Keyway;
use crate::report::Report;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// How long each figure is measured for, on each side.
const SECONDS: f64 = 10.0;
/// The two sides take turns, so that a machine that slows down for a while slows both.
const ROUNDS: u32 = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        // Processes of their own, started by the measurement below.
        ["load", rest @ ..] => load::run(rest),
        ["load-tls", rest @ ..] => kes::load(rest),
        ["reference", answer] => reference::run(answer),
        ["reference-tls", rest @ ..] => kes::reference(rest),
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

fn measure() -> Fallible<()> {
    let seconds = match std::env::var("KEYWAY_BENCH_SECONDS") {
        Ok(text) => text
            .parse()
            .map_err(|_| "KEYWAY_BENCH_SECONDS must be a number")?,
        Err(_) => SECONDS,
    };
    let turn = Duration::try_from_secs_f64(seconds / f64::from(ROUNDS))?;
    let mut report = Report::default();
    let wanted = std::env::var("KEYWAY_BENCH_ONLY").unwrap_or_default();
    let wants = |name: &str| wanted.is_empty() || wanted == name;
    // The store is measured without a server.
    if wanted != "postgres" {
        Keyway::build()?;
    }
    if wants("speed") {
        speed::measure(&mut report, turn)?;
    }
    if let Some(before) = std::env::var_os("KEYWAY_BENCH_BEFORE")
        && wants("before")
    {
        before::measure(&mut report, turn, before.as_ref())?;
    }
    if wants("aws") {
        aws::measure(&mut report, turn)?;
    }
    if wants("kes") {
        kes::measure(&mut report, turn)?;
    }
    if wants("observers") {
        observers::measure(&mut report, turn)?;
    }
    if wants("postgres") {
        postgres::measure(&mut report, turn)?;
    }
    if wants("start") {
        start::measure(&mut report)?;
    }
    if wants("scale") {
        scale::measure(&mut report, turn)?;
    }
    report.print();
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
