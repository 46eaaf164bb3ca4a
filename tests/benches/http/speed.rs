//! Data keys against the bare server.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::{call, exchange, signed};
use crate::load::{Load, Until, load, write_requests};
use crate::process::{Keyway, Server};
use crate::report::Report;
use crate::{Fallible, ROUNDS, median};

/// Different contexts, so that no answer comes from a cache that a real caller would miss.
const REQUESTS: usize = 64;
const CONNECTIONS: [usize; 2] = [1, 32];
const TARGET: f64 = 0.5;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let folder = tempfile::tempdir()?;
    let keyway = Keyway::start(&folder.path().join("data"))?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    let generate: Vec<Value> = (0..REQUESTS)
        .map(|n| {
            let context = json!({ "bucket": "backups", "object": format!("2026/03/{n:04}") });
            json!({ "key_id": "bench", "key_spec": "AES_256", "encryption_context": context })
        })
        .collect();
    let mut decrypt = Vec::new();
    for request in &generate {
        let answer = call(
            &keyway.address,
            "POST",
            "/generate-data-key",
            &request.to_string(),
        )?;
        let (blob, context) = (
            answer.get("ciphertext_blob"),
            request.get("encryption_context"),
        );
        decrypt.push(json!({ "ciphertext_blob": blob.ok_or("no ciphertext")?, "encryption_context": context }));
    }
    println!(
        "Speed: HTTP/1.1, kept alive, signed (SigV4), context of two pairs, key warm; the reference is a bare hyper server."
    );
    println!(
        "The reference reads the same requests and answers the same bytes. Medians of {ROUNDS} turns of {turn:?}."
    );
    for (operation, bodies) in [("generate-data-key", generate), ("decrypt", decrypt)] {
        for connections in CONNECTIONS {
            compare(
                report,
                &keyway,
                folder.path(),
                operation,
                &bodies,
                connections,
                turn,
            )?;
        }
    }
    keyway.stop()
}

fn compare(
    report: &mut Report,
    keyway: &Server,
    folder: &Path,
    operation: &str,
    bodies: &[Value],
    connections: usize,
    turn: Duration,
) -> Fallible<()> {
    // Signed again for every comparison, so that no signature is older than a few minutes.
    let path = format!("/{operation}");
    let sign = |body: &Value| signed(&keyway.address, "POST", &path, &body.to_string());
    let requests: Vec<Vec<u8>> = bodies.iter().map(sign).collect::<Fallible<_>>()?;
    let (file, answer) = (folder.join("requests"), folder.join("answer"));
    write_requests(&file, &requests)?;
    std::fs::write(
        &answer,
        exchange(&keyway.address, requests.first().ok_or("no requests")?)?,
    )?;
    let reference = Server::reference(&answer)?;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(load(
            &keyway.address,
            keyway.pid(),
            connections,
            Until::Passed(turn),
            &file,
        )?);
        keyway.forget_log()?;
        bare.push(load(
            &reference.address,
            reference.pid(),
            connections,
            Until::Passed(turn),
            &file,
        )?);
    }
    println!("\n{operation}, connections: {connections}");
    println!(
        "{:<12}{:>14}{:>12}{:>12}{:>18}",
        "", "requests/s", "p50 ms", "p99 ms", "server CPU us"
    );
    line("keyway", &ours)?;
    line("reference", &bare)?;
    // Neighbouring turns are compared, because they ran under the same load of the machine.
    let ratios: Vec<f64> = ours
        .iter()
        .zip(&bare)
        .map(|(ours, bare)| ours.per_second / bare.per_second)
        .collect();
    let (least, most) = ratios
        .iter()
        .fold((f64::MAX, 0.0_f64), |(low, high), ratio| {
            (low.min(*ratio), high.max(*ratio))
        });
    let ratio = median(ratios)?;
    println!("ratio of requests/s {ratio:.2} (turns {least:.2} to {most:.2}; target >= {TARGET})");
    report.at_least(
        format!("{operation}, connections {connections}: speed ratio"),
        ratio,
        TARGET,
    );
    Ok(())
}

pub(crate) fn line(name: &str, loads: &[Load]) -> Fallible<()> {
    let of = |value: fn(&Load) -> f64| median(loads.iter().map(value).collect());
    let (per_second, p50) = (of(|load| load.per_second)?, of(|load| load.p50)?);
    let (p99, cpu) = (of(|load| load.p99)?, of(|load| load.cpu)?);
    println!("{name:<12}{per_second:>14.0}{p50:>12.3}{p99:>12.3}{cpu:>18.1}");
    Ok(())
}
