//! How soon a server answers, and the memory that it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{call, exchange, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Server};
use crate::report::Report;
use crate::{Fallible, median};

const STARTS: usize = 20;
const FIRST_STARTS: usize = 5;
const START_TARGET: f64 = 200.0;
const IDLE_TARGET: f64 = 20.0;
const REQUESTS: usize = 10_000;
const CONNECTIONS: usize = 32;
/// Long enough for threads and caches of the start to settle.
const SETTLED: Duration = Duration::from_millis(500);

pub(crate) fn measure(report: &mut Report) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let mut first = Vec::new();
    for n in 0..FIRST_STARTS {
        let (milliseconds, server) = start(&folder.path().join(format!("new-{n}")))?;
        server.stop()?;
        first.push(milliseconds);
    }
    let data_dir = folder.path().join("new-0");
    let mut again = Vec::new();
    for _ in 0..STARTS {
        let (milliseconds, server) = start(&data_dir)?;
        server.stop()?;
        again.push(milliseconds);
    }
    let (first, again) = (median(first)?, median(again)?);
    println!("\nStart: from spawning the process to its first answer (401, unsigned), in ms");
    println!(
        "on an existing folder, median of {STARTS}: {again:.1} (target <= {START_TARGET}, ratio {:.2})",
        again / START_TARGET
    );
    println!(
        "on an empty folder, median of {FIRST_STARTS}: {first:.1} (target <= {START_TARGET}, ratio {:.2})",
        first / START_TARGET
    );
    report.at_most(
        "start to first answer, existing folder",
        again,
        START_TARGET,
        " ms",
    );
    report.at_most(
        "start to first answer, empty folder",
        first,
        START_TARGET,
        " ms",
    );

    let (_, server) = start(&data_dir)?;
    std::thread::sleep(SETTLED);
    let idle = server.memory("VmRSS")?;
    call(&server.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    let body = r#"{"key_id":"bench","encryption_context":{"bucket":"backups","object":"a"}}"#;
    let file = folder.path().join("requests");
    write_requests(
        &file,
        &[signed(&server.address, "POST", "/generate-data-key", body)?],
    )?;
    load(
        &server.address,
        server.pid(),
        CONNECTIONS,
        Until::Sent(REQUESTS),
        &file,
    )?;
    std::thread::sleep(SETTLED);
    let (after, peak) = (server.memory("VmRSS")?, server.memory("VmHWM")?);
    println!("\nMemory: resident, in MB");
    println!(
        "idle after start: {idle:.1} (target <= {IDLE_TARGET}, ratio {:.2})",
        idle / IDLE_TARGET
    );
    println!(
        "after {REQUESTS} data keys over {CONNECTIONS} connections: {after:.1} (ratio to idle {:.2}; peak {peak:.1})",
        after / idle
    );
    report.at_most("memory, idle after start", idle, IDLE_TARGET, " MB");
    report.at_most(
        format!("memory after {REQUESTS} requests"),
        after,
        IDLE_TARGET,
        " MB",
    );
    server.stop()
}

/// Starts a server; returns the milliseconds until its first answer.
fn start(data_dir: &Path) -> Fallible<(f64, Server)> {
    let begun = Instant::now();
    let server = Keyway::start(data_dir)?;
    let request = format!(
        "GET /rustfs/admin/v3/kms/keys HTTP/1.1\r\nhost: {}\r\n\r\n",
        server.address
    );
    let answer = exchange(&server.address, request.as_bytes())?;
    let took = begun.elapsed();
    if !answer.starts_with(b"HTTP/1.1 401 ") {
        return Err(format!(
            "an unsigned request was answered: {}",
            String::from_utf8_lossy(&answer)
        )
        .into());
    }
    Ok((took.as_secs_f64() * 1e3, server))
}
