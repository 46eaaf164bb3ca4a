//! A hundred keys against a hundred thousand.

use std::path::Path;
use std::time::{Duration, Instant};

use keyway_performance::Bound;
use serde_json::Value;

use crate::client::{call, signed};
use crate::load::{Load, Until, load, write_requests};
use crate::process::{Keyway, Server};
use crate::report::Report;
use crate::{Fallible, ROUNDS, median};

const SMALL: usize = 100;
const LARGE: usize = 100_000;
const CREATING_CONNECTIONS: usize = 128;
/// Keys that are described, spread over the whole table.
const DESCRIBED: usize = 2_000;
const PAGE: usize = 100;
const TARGET: f64 = 1.1;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    println!(
        "\nScale: {SMALL} keys against {LARGE}, made through the API; one connection, medians of {ROUNDS} turns of {turn:?}"
    );
    let small = filled(folder.path(), SMALL)?;
    let large = filled(folder.path(), LARGE)?;
    let markers = walk(&large)?;

    let first = vec![page_request(&small, "")?];
    let deep: Vec<Vec<u8>> = markers
        .iter()
        .map(|marker| page_request(&large, &format!("&marker={marker}")))
        .collect::<Fallible<_>>()?;
    let sides = [
        (
            "describe",
            describe_requests(&small, SMALL)?,
            describe_requests(&large, LARGE)?,
        ),
        (
            "first page of 100",
            first.clone(),
            vec![page_request(&large, "")?],
        ),
        ("page of 100 anywhere", first, deep),
    ];
    println!("{:<22}{:>24}{:>24}", "", "p50 ms", "p99 ms");
    println!("{:<22}{SMALL:>12}{LARGE:>12}{SMALL:>12}{LARGE:>12}", "");
    for (what, few, many) in sides {
        let loads = alternate(folder.path(), (&small, &few), (&large, &many), turn)?;
        compare(report, what, &loads)?;
    }
    println!(
        "memory with {LARGE} keys, after all this: {:.1} MB",
        large.memory()?.whole
    );
    small.stop()?;
    large.stop()
}

/// Requests that describe keys all over the table.
fn describe_requests(server: &Server, keys: usize) -> Fallible<Vec<Vec<u8>>> {
    let step = (keys / DESCRIBED).max(1);
    (0..keys)
        .step_by(step)
        .map(|n| signed(&server.address, "GET", &format!("/keys/{}", name(n)), ""))
        .collect()
}

fn page_request(server: &Server, marker: &str) -> Fallible<Vec<u8>> {
    signed(
        &server.address,
        "GET",
        &format!("/keys?limit={PAGE}{marker}"),
        "",
    )
}

/// A server and the requests that it gets.
type Side<'a> = (&'a Server, &'a [Vec<u8>]);

/// Loads both servers in turns, so that the machine's own changes of speed meet both.
fn alternate(
    folder: &Path,
    (small, few): Side<'_>,
    (large, many): Side<'_>,
    turn: Duration,
) -> Fallible<(Vec<Load>, Vec<Load>)> {
    let (few_file, many_file) = (folder.join("few"), folder.join("many"));
    write_requests(&few_file, few)?;
    write_requests(&many_file, many)?;
    let (mut few_loads, mut many_loads) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        few_loads.push(load(
            &small.address,
            small.pid(),
            1,
            Until::Passed(turn),
            &few_file,
        )?);
        many_loads.push(load(
            &large.address,
            large.pid(),
            1,
            Until::Passed(turn),
            &many_file,
        )?);
        small.forget_log()?;
        large.forget_log()?;
    }
    Ok((few_loads, many_loads))
}

/// Prints the medians of both servers, and reports their ratios.
fn compare(report: &mut Report, what: &str, (few, many): &(Vec<Load>, Vec<Load>)) -> Fallible<()> {
    let of = |loads: &[Load], value: fn(&Load) -> f64| median(loads.iter().map(value).collect());
    let ratios: Vec<f64> = (many.iter().zip(few))
        .map(|(many, few)| many.p50 / few.p50)
        .collect();
    println!(
        "{what:<22}{:>12.3}{:>12.3}{:>12.3}{:>12.3}",
        of(few, |load| load.p50)?,
        of(many, |load| load.p50)?,
        of(few, |load| load.p99)?,
        of(many, |load| load.p99)?,
    );
    let name = format!("{what}: p50 with {LARGE} keys, to that with {SMALL}");
    report.figure(name, ratios, "", Bound::AtMost, TARGET);
    Ok(())
}

/// An id. Ids spread evenly over the alphabet, and are not created in sorted order.
fn name(n: usize) -> String {
    let mixed = n.wrapping_mul(0x9e37_79b9) % (1 << 32);
    format!("key-{mixed:08x}")
}

fn filled(folder: &Path, keys: usize) -> Fallible<Server> {
    let server = Keyway::start(&folder.join(keys.to_string()))?;
    let create = |n| {
        signed(
            &server.address,
            "POST",
            "/keys",
            &format!(r#"{{"key_id":"{}"}}"#, name(n)),
        )
    };
    let requests: Vec<Vec<u8>> = (0..keys).map(create).collect::<Fallible<_>>()?;
    let file = folder.join("create");
    write_requests(&file, &requests)?;
    let begun = Instant::now();
    // Every answer must be 200.
    load(
        &server.address,
        server.pid(),
        CREATING_CONNECTIONS,
        Until::Sent(keys),
        &file,
    )?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{keys} keys made over {CREATING_CONNECTIONS} connections in {seconds:.1} s: {:.0} a second",
        keys as f64 / seconds
    );
    Ok(server)
}

/// Reads every page, counts the keys, and returns the markers of all pages but the last.
fn walk(server: &Server) -> Fallible<Vec<String>> {
    let (mut markers, mut count): (Vec<String>, usize) = (Vec::new(), 0);
    loop {
        let marker = markers
            .last()
            .map(|marker| format!("&marker={marker}"))
            .unwrap_or_default();
        let page = call(
            &server.address,
            "GET",
            &format!("/keys?limit=1000{marker}"),
            "",
        )?;
        count += page
            .get("keys")
            .and_then(Value::as_array)
            .ok_or("no keys")?
            .len();
        match page.get("next_marker").and_then(Value::as_str) {
            Some(marker) => markers.push(encoded(marker)),
            None if count == LARGE => return Ok(markers),
            None => return Err(format!("{count} keys were listed of {LARGE}").into()),
        }
    }
}

/// Percent-encoded, as a value of a query.
fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
