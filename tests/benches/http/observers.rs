//! The cost of auditing and counting every request, and the memory over a million requests.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::client::{call, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;
use crate::speed::line;
use crate::{Fallible, ROUNDS, median};

const CONNECTIONS: [usize; 2] = [1, 32];
/// The audit log and metrics together may cost 15 % of the requests.
const TARGET: f64 = 0.85;
/// The difference is smaller than the changes of a shared machine from one second to the next, so the sides take many
/// short turns.
const TURNS: u32 = 25;
const REQUESTS: usize = 64;
/// The memory is read ten times, each after this many requests.
const SOME: usize = 100_000;
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
        ("a file", Log::File, "to-a-file"),
        ("a pipe that another process reads", Log::Pipe, "to-a-pipe"),
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
        let (mut audited, mut bare) = (vec![Vec::new(); with.len()], Vec::new());
        for (_, side) in &with {
            side.sign()?;
        }
        for _ in 0..TURNS {
            for ((_, side), loads) in with.iter().zip(&mut audited) {
                loads.push(side.load(connections, Until::Passed(turn))?);
            }
            bare.push(without.load(connections, Until::Passed(turn))?);
        }
        println!("\ngenerate-data-key, connections: {connections}");
        println!(
            "{:<12}{:>14}{:>12}{:>12}{:>18}",
            "", "requests/s", "p50 ms", "p99 ms", "server CPU us"
        );
        line("without", &bare)?;
        for ((to, _), audited) in with.iter().zip(&audited) {
            line("with", audited)?;
            let ratios = audited.iter().zip(&bare);
            let ratios = ratios.map(|(ours, bare)| ours.per_second / bare.per_second);
            let ratio = median(ratios.collect())?;
            println!(
                "standard output is {to}: ratio of requests/s {ratio:.2} (target >= {TARGET})"
            );
            report.at_least(
                format!("audited to {to} and counted, connections {connections}: speed ratio"),
                ratio,
                TARGET,
            );
        }
    }
    without.server.stop()?;

    let [_, many] = CONNECTIONS;
    let (_, with) = with.into_iter().next().ok_or("nothing was audited")?;
    let mut memory = Vec::new();
    for _ in 0..10 {
        with.sign()?;
        with.load(many, Until::Sent(SOME))?;
        memory.push(with.server.memory("VmRSS")?);
    }
    let seen: Vec<_> = memory.iter().map(|mb| format!("{mb:.1}")).collect();
    // The allocator returns memory at irregular times, so the median of three readings stands for each end.
    let after = median(memory.split_off(memory.len() - 3))?;
    memory.truncate(3);
    let growth = after / median(memory)?;
    println!(
        "\nMemory after each {SOME} requests, in MB: {} (last three to first three {growth:.2}, target <= {GROWTH_TARGET})",
        seen.join(" ")
    );
    report.at_most(
        "memory after 1,000,000 requests, of that at the beginning",
        growth,
        GROWTH_TARGET,
        "",
    );
    with.server.stop()
}
