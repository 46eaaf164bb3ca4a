//! The release bootstraps under a Runtime API on loopback, measured in turn with a bare function that is built the
//! same way: INIT, first and warm invocations, and that a warm one makes no call.
//!
//! Absolute figures depend on the machine and the stand-in for AWS; the differences should hold elsewhere. A missed
//! target is reported and is no failure. A figure that cannot be measured is a failure, and so is a call of a warm
//! function.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the figures are the result"
)]
#![expect(
    clippy::disallowed_methods,
    reason = "measures real time, with settings from the environment"
)]

mod calls;
mod cold;
mod function;
mod replay;
mod report;

use std::error::Error;
use std::process::ExitCode;
use std::time::SystemTime;

use bytes::Bytes;
use http::Request;
use keyway_tests::{Aws, Deployment, Signer};

use crate::function::Function;
use crate::report::Report;

type Fallible<T> = Result<T, Box<dyn Error>>;

const DATAKEY: &str = "keyway-fn-datakey";
const KEYS: &str = "keyway-fn-keys";
const ALL: &str = "keyway-fn-all";

/// How often each function is started, and the bare one beside it.
const STARTS: usize = 20;

fn main() -> ExitCode {
    // `cargo test --all-targets` runs this too, and needs no measurement.
    if std::env::args().all(|argument| argument != "--bench") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(measure()));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("could not be measured: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Fallible<()> {
    let starts = match std::env::var("KEYWAY_BENCH_STARTS") {
        Ok(text) => text
            .parse()
            .map_err(|_| "KEYWAY_BENCH_STARTS must be a number")?,
        Err(_) => STARTS,
    };
    let Some(aws) = Aws::here() else {
        return Ok(());
    };
    function::build(&[DATAKEY, KEYS, ALL])?;
    let deployment = aws.deployment().await;
    establish(&deployment).await?;
    println!(
        "Cold start: each function {starts} times, in turn with a bare one; services on loopback ({}). In ms.",
        aws.backend
    );
    let mut report = Report::default();
    cold::measure(&mut report, &aws, &deployment, starts).await?;
    calls::measure(&mut report, &aws, &deployment).await?;
    report.print();
    report.write()
}

/// Makes the deployment, as its first start does, and a key.
async fn establish(deployment: &Deployment) -> Fallible<()> {
    let keys = Function::start(KEYS, &deployment.variables()).await?;
    keys.invoke(&signed("/keys", r#"{"key_id":"bench"}"#))
        .await?;
    keys.stop().await
}

/// A data key of the key that was made.
fn generate_data_key() -> Request<Bytes> {
    signed(
        "/generate-data-key",
        r#"{"key_id":"bench","key_spec":"AES_256","encryption_context":{"bucket":"backups","object":"2026/q4.tar"}}"#,
    )
}

fn signed(path: &str, body: &str) -> Request<Bytes> {
    let host = "a1b2c3d4e5.execute-api.us-east-1.amazonaws.com";
    let path = format!("/rustfs/admin/v3/kms{path}");
    Signer::new("test-root", "test-root-secret").request(
        "POST",
        host,
        &path,
        body.as_bytes(),
        SystemTime::now(),
    )
}
