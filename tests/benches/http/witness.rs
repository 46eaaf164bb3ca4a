//! What it costs that every request is audited and counted, and memory over a million of them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::client::{call, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Server};
use crate::report::Report;
use crate::speed::line;
use crate::{Fallible, ROUNDS, median};

const CONNECTIONS: [usize; 2] = [1, 32];
/// Audit and figures together may cost 15 of 100 requests.
const TARGET: f64 = 0.85;
const REQUESTS: usize = 64;
/// Memory is compared after so many requests and after ten times as many.
const SOME: usize = 100_000;
const GROWTH_TARGET: f64 = 1.1;

/// A server with a key, and requests to it.
struct Side {
    server: Server,
    requests: std::path::PathBuf,
}

impl Side {
    fn start(folder: &Path, name: &str, settings: &[&str]) -> Fallible<Self> {
        let server = Keyway::start_with(&folder.join(name), settings)?;
        call(&server.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
        let requests = folder.join(format!("{name}.requests"));
        let side = Self { server, requests };
        side.sign()?;
        Ok(side)
    }

    /// Signs the requests anew, for a signature is good for minutes only.
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
        load(address, pid, connections, until, &self.requests)
    }
}

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let with = Side::start(folder.path(), "with", &[])?;
    let without = Side::start(
        folder.path(),
        "without",
        &["--audit", "off", "--metrics", "off"],
    )?;
    println!(
        "\nAudit and figures: generate-data-key with both as they are by default, and with both off. Medians of {ROUNDS} \
         turns of {turn:?}. Standard output is a pipe that another process reads."
    );
    for connections in CONNECTIONS {
        with.sign()?;
        without.sign()?;
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(with.load(connections, Until::Passed(turn))?);
            bare.push(without.load(connections, Until::Passed(turn))?);
        }
        println!("\ngenerate-data-key, connections: {connections}");
        println!(
            "{:<12}{:>14}{:>12}{:>12}{:>18}",
            "", "requests/s", "p50 ms", "p99 ms", "server CPU us"
        );
        line("with", &ours)?;
        line("without", &bare)?;
        let ratios = ours.iter().zip(&bare);
        let ratios = ratios.map(|(ours, bare)| ours.per_second / bare.per_second);
        let ratio = median(ratios.collect())?;
        println!("ratio of requests/s {ratio:.2} (target >= {TARGET})");
        report.at_least(
            format!("audited and counted, connections {connections}: speed ratio"),
            ratio,
            TARGET,
        );
    }
    without.server.stop()?;

    let [_, many] = CONNECTIONS;
    with.sign()?;
    with.load(many, Until::Sent(SOME))?;
    let before = with.server.memory("VmRSS")?;
    for _ in 0..9 {
        with.sign()?;
        with.load(many, Until::Sent(SOME))?;
    }
    let after = with.server.memory("VmRSS")?;
    let growth = after / before;
    println!(
        "\nMemory after {SOME} requests {before:.1} MB, after {} {after:.1} MB (ratio {growth:.2}, target <= {GROWTH_TARGET})",
        10 * SOME
    );
    report.at_most(
        "memory after 1,000,000 requests, of that after 100,000",
        growth,
        GROWTH_TARGET,
        "",
    );
    with.server.stop()
}
