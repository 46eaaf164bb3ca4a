//! How soon a server answers, and the memory that it takes.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::client::{call, exchange, signed};
use keyway_performance::Bound;

use crate::Fallible;
use crate::kes::ADMIN;
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;

const STARTS: usize = 20;
const FIRST_STARTS: usize = 5;
const START_TARGET: f64 = 200.0;
const IDLE_TARGET: f64 = 12.0;
const AFTER_TARGET: f64 = 20.0;
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
    println!("\nStart: from spawning the process to its first answer (401, unsigned)");
    let name = "start to first answer, existing folder";
    report.figure(name, again, "ms", Bound::AtMost, START_TARGET);
    let name = "start to first answer, empty folder";
    report.figure(name, first, "ms", Bound::AtMost, START_TARGET);
    idle(report, &folder.path().join("listeners"))?;
    let (_, server) = start(&data_dir)?;
    std::thread::sleep(SETTLED);
    let idle = server.memory()?;
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
    let after = server.memory()?;
    println!(
        "\nMemory of the RustFS API alone: {:.1} MB idle",
        idle.whole
    );
    let name = format!("memory after {REQUESTS} data keys over {CONNECTIONS} connections");
    report.memory(&name, &[after], AFTER_TARGET);
    server.stop()
}

/// The memory of a server with its listeners for all APIs, before any request.
fn idle(report: &mut Report, data_dir: &Path) -> Fallible<()> {
    let listeners = ["--kes-listen", "127.0.0.1:0", "--kes-admin-identity", ADMIN];
    // The first start also makes the folder, which takes memory that later ones do not need.
    Keyway::start_with(data_dir, &listeners, Log::File)?.stop()?;
    let mut idle = Vec::new();
    for _ in 0..FIRST_STARTS {
        let server = Keyway::start_with(data_dir, &listeners, Log::File)?;
        std::thread::sleep(SETTLED);
        idle.push(server.memory()?);
        server.stop()?;
    }
    report.memory("memory, idle with all listeners", &idle, IDLE_TARGET);
    Ok(())
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
