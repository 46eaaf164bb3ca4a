//! AWS KMS's API against RustFS's: the same operation on the same key, in the same server.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_performance::{Bound, Comparison, Measure};
use keyway_tests::Signer;
use serde_json::{Value, json};

use crate::beside::moto;
use crate::client::{answer_length, call, exchange, is_ok, request_bytes, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, ROOT_ACCESS_KEY, ROOT_SECRET_KEY, Server};
use crate::report::Report;
use crate::turns::{Loaded, What, in_turns};
use crate::{Fallible, OWN, ROUNDS};

const CONNECTIONS: [usize; 2] = [1, 32];
/// AWS's operation may cost 10 % more: this share of RustFS's rate.
const TARGET: f64 = 0.91;
const RUSTFS: &str = "RustFS's API of Keyway";
const MOTO: &str = "moto, one thread of Python";
/// The difference is smaller than the changes of a shared machine from one second to the next, so the sides take many
/// short turns.
const TURNS: u32 = 15;
const REQUESTS: usize = 64;

/// A request of AWS KMS's API, signed by root as AWS's SDKs sign it.
pub(crate) fn aws_signed(address: &str, operation: &str, body: &Value) -> Fallible<Vec<u8>> {
    let signer = Signer::new(ROOT_ACCESS_KEY, ROOT_SECRET_KEY)
        .for_service("kms")
        .with_target(&format!("TrentService.{operation}"));
    let body = body.to_string();
    let request = signer.request("POST", address, "/", body.as_bytes(), SystemTime::now());
    Ok(request_bytes(&request, "/"))
}

/// The bodies of one operation in both APIs.
pub(crate) struct Bodies {
    pub(crate) generate: Value,
    pub(crate) decrypt: Value,
    rustfs_generate: Value,
    rustfs_decrypt: Value,
}

impl Bodies {
    /// The bodies of the data key number `n` under the key `bench`, which exists.
    pub(crate) fn make(address: &str, n: usize) -> Fallible<Self> {
        let context = json!({ "bucket": "backups", "object": format!("2026/03/{n:04}") });
        let generate =
            json!({ "KeyId": "bench", "KeySpec": "AES_256", "EncryptionContext": context });
        let answer = exchange(address, &aws_signed(address, "GenerateDataKey", &generate)?)?;
        let (head, _) = answer_length(&answer).ok_or("an answer without a length")?;
        if !is_ok(&answer) {
            return Err(String::from_utf8_lossy(&answer).into());
        }
        let made: Value = serde_json::from_slice(answer.get(head..).unwrap_or_default())?;
        let blob = made.get("CiphertextBlob").ok_or("no ciphertext")?;
        // Both APIs write ciphertexts in standard base64.
        STANDARD.decode(blob.as_str().unwrap_or_default())?;
        Ok(Self {
            decrypt: json!({ "CiphertextBlob": blob, "EncryptionContext": context }),
            rustfs_generate: json!({ "key_id": "bench", "key_spec": "AES_256", "encryption_context": context }),
            rustfs_decrypt: json!({ "ciphertext_blob": blob, "encryption_context": context }),
            generate,
        })
    }
}

/// Where the requests of one operation go: a file for each server.
struct Files {
    aws: PathBuf,
    rustfs: PathBuf,
    moto: PathBuf,
}

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let turn = turn * ROUNDS / TURNS;
    let folder = tempfile::tempdir()?;
    let keyway = Keyway::start(&folder.path().join("data"))?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    let bodies = (0..REQUESTS)
        .map(|n| Bodies::make(&keyway.address, n))
        .collect::<Fallible<Vec<_>>>()?;
    let moto = moto()?;
    println!(
        "\nAWS KMS's API and RustFS's, the same operation of one server in turns: medians of {TURNS} turns of {turn:?}."
    );
    let files = Files {
        aws: folder.path().join("aws"),
        rustfs: folder.path().join("rustfs"),
        moto: folder.path().join("moto"),
    };
    for operation in ["GenerateDataKey", "Decrypt"] {
        // Moto is far slower than both, and one operation shows that.
        let moto = moto.as_ref().filter(|_| operation == "GenerateDataKey");
        for connections in CONNECTIONS {
            write(&files, &keyway.address, operation, &bodies, moto)?;
            let what = What {
                operation,
                transport: "HTTP/1.1",
                connections,
            };
            report.comparison(compare(&keyway, &files, what, turn, moto)?);
        }
    }
    keyway.stop()
}

/// Signs the requests and writes them: a signature is valid only for minutes.
fn write(
    files: &Files,
    address: &str,
    operation: &str,
    bodies: &[Bodies],
    moto: Option<&(Server, String)>,
) -> Fallible<()> {
    let (path, is_generate) = match operation {
        "GenerateDataKey" => ("/generate-data-key", true),
        _ => ("/decrypt", false),
    };
    let (mut aws, mut rustfs, mut of_moto) = (Vec::new(), Vec::new(), Vec::new());
    for bodies in bodies {
        let (own, other) = if is_generate {
            (&bodies.generate, &bodies.rustfs_generate)
        } else {
            (&bodies.decrypt, &bodies.rustfs_decrypt)
        };
        aws.push(aws_signed(address, operation, own)?);
        rustfs.push(signed(address, "POST", path, &other.to_string())?);
        if let Some((server, id)) = moto {
            let body = json!({
                "KeyId": id,
                "KeySpec": "AES_256",
                "EncryptionContext": own.get("EncryptionContext"),
            });
            of_moto.push(aws_signed(&server.address, operation, &body)?);
        }
    }
    write_requests(&files.aws, &aws)?;
    write_requests(&files.rustfs, &rustfs)?;
    write_requests(&files.moto, &of_moto)
}

fn compare(
    keyway: &Server,
    files: &Files,
    what: What<'_>,
    turn: Duration,
    moto: Option<&(Server, String)>,
) -> Fallible<Comparison> {
    let until = Until::Passed(turn);
    let run = |server: &Server, file: &Path| {
        let done = load(&server.address, server.pid(), what.connections, until, file);
        server.forget_log()?;
        done
    };
    let own = || run(keyway, &files.aws);
    let rustfs = || run(keyway, &files.rustfs);
    let of_moto = || run(&moto.ok_or("no moto")?.0, &files.moto);
    let mut sides: Vec<Loaded<'_>> = vec![(OWN, &own), (RUSTFS, &rustfs)];
    if moto.is_some() {
        sides.push((MOTO, &of_moto));
    }
    let mut comparison = in_turns(what, TURNS, &sides)?;
    comparison.compare(Measure::Rate, RUSTFS, Some((Bound::AtLeast, TARGET)))?;
    if moto.is_some() {
        comparison.compare(Measure::Rate, MOTO, None)?;
    }
    Ok(comparison)
}
