//! Compares the speed of this build with an older one, which `KEYWAY_BENCH_BEFORE` names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyway_performance::{Bound, Measure};
use serde_json::{Value, json};

use crate::client::{call, signed};
use crate::kes::{ADMIN, path_text, transport};
use crate::load::{Load, Until, load, run_loader, write_requests};
use crate::process::{Keyway, Log, Server};
use crate::report::Report;
use crate::turns::{Loaded, What, in_turns};
use crate::{Fallible, OWN, ROUNDS};

const CONNECTIONS: [usize; 2] = [1, 32];
const REQUESTS: usize = 64;
/// No figure may be slower by more than 3 %.
const TARGET: f64 = 0.97;
const OLD: &str = "older build";
/// At least this many short turns: with 25, the ratio of the same two builds differed by 9 % from run to run.
const FEWEST: u32 = 40;
/// A shorter turn measures how a loader starts.
const SHORTEST: Duration = Duration::from_millis(200);

/// A build, with a key and an audit log in a file.
struct Side {
    server: Server,
    folder: PathBuf,
    data_dir: PathBuf,
    decrypt: Vec<Value>,
}

fn generate(n: usize) -> Value {
    let context = json!({"bucket": "backups", "object": format!("2026/03/{n:04}")});
    json!({"key_id": "bench", "key_spec": "AES_256", "encryption_context": context})
}

impl Side {
    fn start(program: &Path, folder: PathBuf) -> Fallible<Self> {
        std::fs::create_dir(&folder)?;
        let data_dir = folder.join("data");
        let kes = ["--kes-listen", "127.0.0.1:0", "--kes-admin-identity", ADMIN];
        let server = Keyway::start_build(program, &data_dir, &kes, Log::File)?;
        call(&server.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
        let mut decrypt = Vec::new();
        for request in (0..REQUESTS).map(generate) {
            let text = request.to_string();
            let made = call(&server.address, "POST", "/generate-data-key", &text)?;
            decrypt.push(json!({
                "ciphertext_blob": made.get("ciphertext_blob"),
                "encryption_context": request.get("encryption_context"),
            }));
        }
        Ok(Self {
            server,
            folder,
            data_dir,
            decrypt,
        })
    }

    /// Signs the requests again: a signature is valid only for minutes.
    fn prepare(&self, operation: &str) -> Fallible<()> {
        let bodies: Vec<Value> = match operation {
            "decrypt" => self.decrypt.clone(),
            _ => (0..REQUESTS).map(generate).collect(),
        };
        let path = format!("/{operation}");
        let requests = bodies
            .iter()
            .map(|body| signed(&self.server.address, "POST", &path, &body.to_string()))
            .collect::<Fallible<Vec<_>>>()?;
        write_requests(&self.folder.join("requests"), &requests)?;
        let kes = br#"/v1/key/generate/bench
{"context":"eyJhIjoiYiJ9"}"#;
        write_requests(&self.folder.join("kes"), &[kes.to_vec()])
    }

    fn load(&self, how: How, connections: usize, until: Until) -> Fallible<Load> {
        let pid = self.server.pid();
        let done = match how {
            How::Signed => {
                let requests = self.folder.join("requests");
                load(&self.server.address, pid, connections, until, &requests)?
            }
            How::Kes(protocol) => {
                let how = ["load-tls", protocol, path_text(&self.data_dir)?];
                let address = self.server.said("kes")?;
                let requests = self.folder.join("kes");
                run_loader(&how, &address, pid, connections, until, &requests)?
            }
        };
        self.server.forget_log()?;
        Ok(done)
    }
}

#[derive(Clone, Copy)]
enum How {
    Signed,
    Kes(&'static str),
}

pub(crate) fn measure(report: &mut Report, turn: Duration, before: &Path) -> Fallible<()> {
    // Many short turns show a small difference better than a few long ones.
    let whole = turn * ROUNDS;
    let turns = u32::try_from(whole.as_millis() / SHORTEST.as_millis())
        .unwrap_or(u32::MAX)
        .max(FEWEST);
    let turn = (whole / turns).max(SHORTEST);
    let folder = tempfile::tempdir()?;
    let old = Side::start(before, folder.path().join("before"))?;
    let new = Side::start(&Keyway::binary()?, folder.path().join("now"))?;
    println!(
        "\nThis build and {}, in turns: medians of {turns} turns of {turn:?}.",
        before.display()
    );
    for (name, operation, transport, how) in [
        (
            "generate-data-key",
            "generate-data-key",
            "HTTP/1.1",
            How::Signed,
        ),
        ("decrypt", "decrypt", "HTTP/1.1", How::Signed),
        ("KES generate", "", transport("h1"), How::Kes("h1")),
        ("KES generate", "", transport("h2"), How::Kes("h2")),
    ] {
        for connections in CONNECTIONS {
            for side in [&old, &new] {
                side.prepare(operation)?;
                side.load(how, connections, Until::Passed(turn))?;
            }
            let what = What {
                operation: name,
                transport,
                connections,
            };
            let run = |side: &Side| side.load(how, connections, Until::Passed(turn));
            let sides: [Loaded<'_>; 2] = [(OWN, &|| run(&new)), (OLD, &|| run(&old))];
            let mut comparison = in_turns(what, turns, &sides)?;
            comparison.compare(Measure::Rate, OLD, Some((Bound::AtLeast, TARGET)))?;
            comparison.compare(Measure::Processor, OLD, None)?;
            report.comparison(comparison);
        }
    }
    old.server.stop()?;
    new.server.stop()
}
