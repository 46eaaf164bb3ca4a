//! Bootstraps as they are deployed, as processes, each under a Runtime API of its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use keyway_tests::{Invocation, RuntimeApi, http_api_event, project};
use tokio::process::{Child, Command};

use crate::Fallible;

/// The reference of every comparison.
pub(crate) const HELLO: &str = "keyway-bare-hello";

/// Builds the bootstraps as they are deployed, or finds that they are up to date.
pub(crate) fn build(functions: &[&str]) -> Fallible<()> {
    let mut cargo = std::process::Command::new(project().join("scripts/for-lambda"));
    cargo.args(["cargo", "lambda", "build", "--quiet", "--locked"]);
    cargo.args(["--release", "-p", HELLO]);
    for function in functions {
        cargo.args(["-p", function]);
    }
    let built = cargo.current_dir(project()).status()?;
    if built.success() {
        Ok(())
    } else {
        Err("the bootstraps do not build".into())
    }
}

fn bootstrap(name: &str) -> Fallible<PathBuf> {
    // .../target/release/deps/this -> .../target/lambda/NAME/bootstrap
    let this = std::env::current_exe()?;
    let target = this.ancestors().nth(3).ok_or("no target folder")?;
    Ok(target.join("lambda").join(name).join("bootstrap"))
}

/// A function after its INIT. Killed when dropped.
pub(crate) struct Function {
    api: RuntimeApi,
    process: Child,
    /// From spawning the process to its asking for the first event.
    pub(crate) init: Duration,
}

impl Function {
    /// Starts it with these variables and no others.
    pub(crate) async fn start(name: &str, variables: &[(String, String)]) -> Fallible<Self> {
        let api = RuntimeApi::start().await;
        let mut command = Command::new(bootstrap(name)?);
        command
            .env_clear()
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .envs(api.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        let begun = Instant::now();
        let mut process = command.spawn()?;
        let asked = tokio::select! {
            asked = api.first_next() => asked,
            ended = process.wait() => return Err(format!("{name} has ended in its INIT: {}", ended?).into()),
        };
        Ok(Self {
            api,
            process,
            init: asked - begun,
        })
    }

    /// Sends it this request as the event of an HTTP API. The answer must be 200.
    pub(crate) async fn invoke(&self, request: &Request<Bytes>) -> Fallible<Invocation> {
        let invocation = self.api.invoke(&http_api_event(request)).await;
        let answer = invocation.http();
        if answer.status() == 200 {
            Ok(invocation)
        } else {
            Err(format!(
                "{}: {}",
                answer.status(),
                String::from_utf8_lossy(answer.body())
            )
            .into())
        }
    }

    /// Ends it as Lambda does, without asking.
    pub(crate) async fn stop(mut self) -> Fallible<()> {
        Ok(self.process.kill().await?)
    }
}
