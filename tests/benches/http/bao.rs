//! A data key of RustFS's API beside one of OpenBao's transit engine, both over plain HTTP/1.1.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_performance::{Bound, Measure};
use serde_json::json;

use crate::beside::{bao, bao_request};
use crate::client::{call, signed};
use crate::load::{Until, load, write_requests};
use crate::process::Keyway;
use crate::report::Report;
use crate::turns::{What, in_turns};
use crate::{Fallible, ROUNDS};

const CONNECTIONS: [usize; 2] = [1, 32];
const REQUESTS: usize = 64;
const TARGET: f64 = 5.0;

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let Some(bao) = bao()? else {
        println!("\nOpenBao is not installed (scripts/bao), and is not measured.");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let keyway = Keyway::start(&folder.path().join("data"))?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    println!(
        "\nOpenBao: transit/datakey/plaintext with a derived key and a context, data in memory, no audit device; Keyway's \
         audit log and metrics are on. Medians of {ROUNDS} turns of {turn:?}."
    );
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    for connections in CONNECTIONS {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for n in 0..REQUESTS {
            let object = format!("2026/03/{n:04}");
            let context = json!({"bucket": "backups", "object": object});
            let body =
                json!({"key_id": "bench", "key_spec": "AES_256", "encryption_context": context});
            let path = "/generate-data-key";
            own.push(signed(&keyway.address, "POST", path, &body.to_string())?);
            let context = STANDARD.encode(context.to_string());
            let body = json!({ "context": context });
            other.push(bao_request("transit/datakey/plaintext/bench", &body));
        }
        write_requests(&ours, &own)?;
        write_requests(&theirs, &other)?;
        let until = Until::Passed(turn);
        let what = What {
            operation: "generate-data-key",
            transport: "HTTP/1.1",
            connections,
        };
        let mut comparison = in_turns(
            what,
            ROUNDS,
            &[
                ("Keyway", &|| {
                    let done = load(&keyway.address, keyway.pid(), connections, until, &ours);
                    keyway.forget_log()?;
                    done
                }),
                ("OpenBao", &|| {
                    load(&bao.address, bao.pid(), connections, until, &theirs)
                }),
            ],
        )?;
        comparison.compare(Measure::Rate, "OpenBao", Some((Bound::AtLeast, TARGET)))?;
        comparison.compare(Measure::Processor, "OpenBao", None)?;
        report.comparison(comparison);
    }
    keyway.stop()
}
