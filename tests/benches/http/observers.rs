//! The cost of auditing and counting every request, and the memory over a million requests.

use std::path::Path;
use std::time::Duration;

use keyway_performance::{Bound, Measure};
use serde_json::json;

use crate::client::{call, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;
use crate::turns::{Loaded, What, in_turns};
use crate::{Fallible, OWN, ROUNDS, median};

const CONNECTIONS: [usize; 2] = [1, 32];
/// The audit log and metrics together may cost 15 % of the requests.
const TARGET: f64 = 0.85;
/// The difference is smaller than the changes of a shared machine from one second to the next, so the sides take many
/// short turns.
const TURNS: u32 = 20;
const REQUESTS: usize = 64;
/// The memory is read ten times, each after this many requests.
const SOME: usize = 100_000;
const WITHOUT: &str = "without audit log and metrics";
const GROWTH_TARGET: f64 = 1.1;

/// A server with a key, and requests to it.
struct Side {
    server: Server,
    requests: std::path::PathBuf,
}

impl Side {
    fn start(folder: &Path, name: &str, settings: &[&str], log: Log) -> Fallible<Self> {
        let server = Keyway::start_with(&folder.join(name), settings, log)?;
        call(&server.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
        let requests = folder.join(format!("{name}.requests"));
        let side = Self { server, requests };
        side.sign()?;
        Ok(side)
    }

    /// Signs the requests again: a signature is valid only for minutes.
    fn sign(&self) -> Fallible<()> {
        let requests = (0..REQUESTS)
            .map(|n| {
                let context = json!({"bucket": "backups", "object": format!("2026/03/{n:04}")});
                let body = json!({"key_id": "bench", "key_spec": "AES_256", "encryption_context": context});
                signed(&self.server.address, "POST", "/generate-data-key", &body.to_string())
            })
            .collect::<Fallible<Vec<_>>>()?;
        write_requests(&self.requests, &requests)
    }

    fn load(&self, connections: usize, until: Until) -> Fallible<crate::load::Load> {
        let (address, pid) = (&self.server.address, self.server.pid());
        let load = load(address, pid, connections, until, &self.requests)?;
        self.server.forget_log()?;
        Ok(load)
    }
}

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let turn = turn * ROUNDS / TURNS;
    let folder = tempfile::tempdir()?;
    let with = [
        ("HTTP/1.1, log to a file", Log::File, "to-a-file"),
        (
            "HTTP/1.1, log to a pipe that is read",
            Log::Pipe,
            "to-a-pipe",
        ),
    ];
    let with = with
        .into_iter()
        .map(|(to, log, name)| Ok((to, Side::start(folder.path(), name, &[], log)?)))
        .collect::<Fallible<Vec<_>>>()?;
    let off = ["--audit", "off", "--metrics", "off"];
    let without = Side::start(folder.path(), "without", &off, Log::File)?;
    println!(
        "\nAudit and figures: generate-data-key with both as they are by default, and with both off. Medians of {TURNS} \
         turns of {turn:?}."
    );
    for connections in CONNECTIONS {
        without.sign()?;
        for (_, side) in &with {
            side.sign()?;
        }
        for (to, side) in &with {
            let what = What {
                operation: "generate-data-key",
                transport: to,
                connections,
            };
            let run = |side: &Side| side.load(connections, Until::Passed(turn));
            let sides: [Loaded<'_>; 2] = [(OWN, &|| run(side)), (WITHOUT, &|| run(&without))];
            let mut comparison = in_turns(what, TURNS, &sides)?;
            comparison.compare(Measure::Rate, WITHOUT, Some((Bound::AtLeast, TARGET)))?;
            comparison.compare(Measure::Processor, WITHOUT, None)?;
            report.comparison(comparison);
        }
    }
    without.server.stop()?;
    let (_, with) = with.into_iter().next().ok_or("nothing was audited")?;
    memory(report, &with)?;
    with.server.stop()
}

/// The memory over a million requests.
fn memory(report: &mut Report, with: &Side) -> Fallible<()> {
    let [_, many] = CONNECTIONS;
    let mut memory = Vec::new();
    for _ in 0..10 {
        with.sign()?;
        with.load(many, Until::Sent(SOME))?;
        memory.push(with.server.memory()?.whole);
    }
    let seen: Vec<_> = memory.iter().map(|mb| format!("{mb:.1}")).collect();
    // The allocator returns memory at irregular times, so the median of three readings stands for each end.
    let after = median(memory.split_off(memory.len() - 3))?;
    memory.truncate(3);
    let growth = after / median(memory)?;
    println!(
        "\nMemory after each {SOME} requests, in MB: {}",
        seen.join(" ")
    );
    let name = "memory after 1,000,000 requests, of that after 200,000";
    report.figure(name, vec![growth], "", Bound::AtMost, GROWTH_TARGET);
    Ok(())
}
