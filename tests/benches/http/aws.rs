//! AWS KMS's API against RustFS's: the same operation on the same key, in the same server.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyway_tests::Signer;
use serde_json::{Value, json};

use crate::client::{answer_length, call, exchange, is_ok, request_bytes, signed};
use crate::load::{Until, load, write_requests};
use crate::process::{Keyway, ROOT_ACCESS_KEY, ROOT_SECRET_KEY, Server};
use crate::report::Report;
use crate::speed::line;
use crate::{Fallible, ROUNDS, median};

const CONNECTIONS: [usize; 2] = [1, 32];
/// AWS's operation may cost 10 % more: this share of RustFS's rate.
const TARGET: f64 = 1.0 / 1.1;
/// The difference is smaller than the changes of a shared machine from one second to the next, so the sides take many
/// short turns.
const TURNS: u32 = 25;
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

pub(crate) fn measure(report: &mut Report, turn: Duration) -> Fallible<()> {
    let turn = turn * ROUNDS / TURNS;
    let folder = tempfile::tempdir()?;
    let keyway = Keyway::start(&folder.path().join("data"))?;
    call(&keyway.address, "POST", "/keys", r#"{"key_id":"bench"}"#)?;
    let bodies = (0..REQUESTS)
        .map(|n| Bodies::make(&keyway.address, n))
        .collect::<Fallible<Vec<_>>>()?;
    println!(
        "\nAWS KMS's API and RustFS's, the same operation of one server in turns: medians of {TURNS} turns of {turn:?}."
    );
    for (operation, path) in [
        ("GenerateDataKey", "/generate-data-key"),
        ("Decrypt", "/decrypt"),
    ] {
        for connections in CONNECTIONS {
            let requests = |sign: &dyn Fn(&Bodies) -> Fallible<Vec<u8>>| {
                bodies.iter().map(sign).collect::<Fallible<Vec<_>>>()
            };
            let address = keyway.address.as_str();
            let is_generate = operation == "GenerateDataKey";
            let aws = requests(&|bodies| {
                let body = if is_generate {
                    &bodies.generate
                } else {
                    &bodies.decrypt
                };
                aws_signed(address, operation, body)
            })?;
            let rustfs = requests(&|bodies| {
                let body = if is_generate {
                    &bodies.rustfs_generate
                } else {
                    &bodies.rustfs_decrypt
                };
                signed(address, "POST", path, &body.to_string())
            })?;
            let name = format!("AWS {operation}, connections {connections}: to RustFS's");
            println!("\nAWS {operation}, connections: {connections}");
            let ratio = compare(&keyway, folder.path(), connections, turn, [&aws, &rustfs])?;
            report.at_least(name, ratio, TARGET);
        }
    }
    keyway.stop()
}

/// The median ratio of the rates of AWS's requests and RustFS's.
fn compare(
    keyway: &Server,
    folder: &Path,
    connections: usize,
    turn: Duration,
    requests: [&[Vec<u8>]; 2],
) -> Fallible<f64> {
    let files = ["aws", "rustfs"].map(|name| folder.join(name));
    for (file, requests) in files.iter().zip(requests) {
        write_requests(file, requests)?;
    }
    let mut loads = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        for (file, loads) in files.iter().zip(&mut loads) {
            let until = Until::Passed(turn);
            loads.push(load(
                &keyway.address,
                keyway.pid(),
                connections,
                until,
                file,
            )?);
            keyway.forget_log()?;
        }
    }
    println!(
        "{:<12}{:>14}{:>12}{:>12}{:>18}",
        "", "requests/s", "p50 ms", "p99 ms", "server CPU us"
    );
    let [aws, rustfs] = &loads;
    line("AWS KMS's", aws)?;
    line("RustFS's", rustfs)?;
    let ratios = aws.iter().zip(rustfs);
    let ratio = median(
        ratios
            .map(|(aws, rustfs)| aws.per_second / rustfs.per_second)
            .collect(),
    )?;
    println!("ratio of requests/s {ratio:.3} (target >= {TARGET:.2})");
    Ok(ratio)
}
