//! What is told of the server itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Response};
use keyway_http::Call;
use serde::Serialize;

use crate::endpoint::Served;
use crate::{Kes, Refusal, wire};

type Answer = Result<Response<Bytes>, Refusal>;

/// What is told of this server, in the words of Go's tools where they have some.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Its version.
    pub version: &'static str,
    /// The commit that it was built from.
    pub commit: &'static str,
    /// The operating system, such as `linux`.
    pub os: &'static str,
    /// The processor, such as `amd64` or `arm64`.
    pub arch: &'static str,
    /// How many processors there are.
    pub cpus: usize,
    /// How many of them are used.
    pub cpus_used: usize,
    /// What it holds of memory now.
    pub memory: fn() -> Memory,
}

impl About {
    /// The processor that Go calls so, of Rust's name for it.
    pub fn go_arch(arch: &'static str) -> &'static str {
        match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
    }
}

/// What a process holds of memory, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// On its heap.
    pub heap: u64,
    /// On its stacks.
    pub stack: u64,
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    commit: &'static str,
}

pub(crate) async fn version(served: Arc<Served>, call: Call<Kes>) -> Answer {
    let about = served.about;
    let answer = wire::ok(&Version {
        version: about.version,
        commit: about.commit,
    })?;
    Ok(without_body_for_head(&call, answer))
}

/// Asks the table itself: what is cached says nothing of now.
pub(crate) async fn ready(served: Arc<Served>, _: Call<Kes>) -> Answer {
    served.service.probe().await.map_err(Refusal::unreachable)?;
    Ok(wire::empty())
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    /// In seconds.
    uptime: u64,
    num_cpu: usize,
    num_cpu_used: usize,
    mem_heap_used: u64,
    mem_stack_used: u64,
    /// In milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    keystore_latency: u64,
    /// Clients refuse a status that says one of these without the other.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keystore_unreachable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keystore_unavailable: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(crate) async fn status(served: Arc<Served>, call: Call<Kes>) -> Answer {
    let begun = served.clock.monotonic();
    let probed = served.service.probe().await;
    let now = served.clock.monotonic();
    let about = served.about;
    let memory = (about.memory)();
    let unreachable = probed.is_err();
    let answer = wire::ok(&Status {
        version: about.version,
        os: about.os,
        arch: about.arch,
        uptime: now.saturating_sub(served.since).as_secs(),
        num_cpu: about.cpus,
        num_cpu_used: about.cpus_used,
        mem_heap_used: memory.heap,
        mem_stack_used: memory.stack,
        keystore_latency: if unreachable {
            0
        } else {
            milliseconds(now.saturating_sub(begun))
        },
        keystore_unreachable: unreachable,
        keystore_unavailable: unreachable,
    })?;
    Ok(without_body_for_head(&call, answer))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One route, as KES tells of it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Api {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) max_body: usize,
    /// In seconds.
    pub(crate) timeout: u64,
}

pub(crate) async fn api(served: Arc<Served>, _: Call<Kes>) -> Answer {
    wire::ok(&served.apis)
}

fn without_body_for_head(call: &Call<Kes>, answer: Response<Bytes>) -> Response<Bytes> {
    if call.request.method != Method::HEAD {
        return answer;
    }
    let length = answer.body().len();
    let mut answer = answer.map(|_| Bytes::new());
    answer.headers_mut().insert(CONTENT_LENGTH, length.into());
    answer
}
