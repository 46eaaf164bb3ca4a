//! Data keys against the bare server.

use std::path::Path;
use std::time::Duration;

use keyway_performance::{Bound, Measure};
use serde_json::{Value, json};

use crate::client::{call, exchange, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, Server};
use crate::report::Report;
use crate::turns::{Loaded, What, in_turns};
use crate::{BARE, Fallible, OWN, ROUNDS};

/// Different contexts, so that no answer comes from a cache that a real caller would miss.
const REQUESTS: usize = 64;
const CONNECTIONS: [usize; 2] = [1, 32];
const TARGET: f64 = 0.5;
/// With many connections, `generate-data-key` should have this share of the bare server's rate.
const GENERATE_TARGET: f64 = 0.6;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let keyway = Keyway::start(&folder.path().join("data"))?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    let (generate, decrypt) = bodies(&keyway.address)?;
    println!(
        "Speed: HTTP/1.1, kept alive, signed (SigV4), context of two pairs, key warm; the reference is a bare hyper server."
    );
    println!(
        "The reference reads the same requests and answers the same bytes. Medians of {ROUNDS} turns of {turn:?}."
    );
    for (operation, bodies) in [("generate-data-key", generate), ("decrypt", decrypt)] {
        for connections in CONNECTIONS {
            let what = What {
                operation,
                transport: "HTTP/1.1",
                connections,
            };
            compare(report, &keyway, folder.path(), what, &bodies, turn)?;
        }
    }
    keyway.stop()
}

/// The bodies of requests that generate data keys under the key `bench`, which exists, and of those that decrypt them.
pub(crate) fn bodies(address: &str) -> Fallible<(Vec<Value>, Vec<Value>)> {
    let generate: Vec<Value> = (0..REQUESTS)
        .map(|n| {
            let context = json!({ "bucket": "backups", "object": format!("2026/03/{n:04}") });
            json!({ "key_id": "bench", "key_spec": "AES_256", "encryption_context": context })
        })
        .collect();
    let mut decrypt = Vec::new();
    for request in &generate {
        let answer = call(address, "POST", "/generate-data-key", &request.to_string())?;
        let blob = answer.get("ciphertext_blob").ok_or("no ciphertext")?;
        let context = request.get("encryption_context");
        decrypt.push(json!({ "ciphertext_blob": blob, "encryption_context": context }));
    }
    Ok((generate, decrypt))
}

/// Signs the requests and writes them to `file`: a signature is valid only for minutes. Starts a bare server that gives the
/// first one's answer, which is written to `answer`.
pub(crate) fn prepare(
    address: &str,
    operation: &str,
    bodies: &[Value],
    file: &Path,
    answer: &Path,
) -> Fallible<Server> {
    let path = format!("/{operation}");
    let sign = |body: &Value| signed(address, "POST", &path, &body.to_string());
    let requests: Vec<Vec<u8>> = bodies.iter().map(sign).collect::<Fallible<_>>()?;
    write_requests(file, &requests)?;
    let first = requests.first().ok_or("no requests")?;
    std::fs::write(answer, exchange(address, first)?)?;
    Server::reference(answer)
}

fn compare(
    report: &mut Report,
    keyway: &Server,
    folder: &Path,
    what: What<'_>,
    bodies: &[Value],
    turn: Duration,
) -> Fallible<()> {
    let (file, answer) = (folder.join("requests"), folder.join("answer"));
    let reference = prepare(&keyway.address, what.operation, bodies, &file, &answer)?;
    let run = |server: &Server| {
        let until = Until::Passed(turn);
        let done = load(
            &server.address,
            server.pid(),
            what.connections,
            until,
            &file,
        );
        server.forget_log()?;
        done
    };
    let sides: [Loaded<'_>; 2] = [(OWN, &|| run(keyway)), (BARE, &|| run(&reference))];
    let mut comparison = in_turns(what, ROUNDS, &sides)?;
    let is_generate = what.operation == "generate-data-key";
    let least = if is_generate && what.connections > 1 {
        GENERATE_TARGET
    } else {
        TARGET
    };
    comparison.compare(Measure::Rate, BARE, Some((Bound::AtLeast, least)))?;
    comparison.compare(Measure::Processor, BARE, None)?;
    comparison.compare(Measure::P99, BARE, None)?;
    report.comparison(comparison);
    Ok(())
}
