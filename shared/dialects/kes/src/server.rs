//! Status, version, metrics and routes of the server.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use keyway_domain::service::Degraded;
use keyway_domain::{Fault, KmsError};
use keyway_http::{Call, HandlerResult};
use serde::Serialize;

use crate::endpoint::{OnServer, apis};
use crate::error_response::unreachable;
use crate::generation::StatusShape;
use crate::{Kes, wire};

const VERSION: &str = env!("CARGO_PKG_VERSION");
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Version {
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    commit: Option<&'static str>,
}

pub(crate) async fn version(on: Arc<OnServer>, call: Call<Kes>) -> HandlerResult<Kes> {
    let answer = wire::ok(&Version {
        version: VERSION,
        commit: on.generation.tells_commit().then(|| on.machine.commit()),
    })?;
    Ok(without_body_for_head(&call, answer))
}

/// Reads the table itself, because a cache does not show whether the table works now. A process that would refuse mutations
/// and data keys is not ready either.
pub(crate) async fn ready(on: Arc<OnServer>, _: Call<Kes>) -> HandlerResult<Kes> {
    on.service.probe().await.map_err(unreachable)?;
    if let Some(reason) = on.service.degraded().await.first() {
        let fault = Fault::plain(reason.text());
        return Err(unreachable(KmsError::Unavailable(fault)));
    }
    Ok(wire::empty())
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Status {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    /// In seconds; in nanoseconds up to 2023-10-03.
    uptime: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_cpu_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_heap_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_stack_used: Option<u64>,
    /// In milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    keystore_latency: u64,
    /// Clients refuse a status that says one of these without the other.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keystore_unreachable: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    keystore_unavailable: bool,
    /// Why, where that is not the store itself. KES has no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

pub(crate) async fn status(on: Arc<OnServer>, call: Call<Kes>) -> HandlerResult<Kes> {
    let begun = on.clock.monotonic();
    let probed = on.service.probe().await;
    let now = on.clock.monotonic();
    let machine = on.machine.facts();
    let degraded = on.service.degraded().await;
    let unreachable = probed.is_err() || !degraded.is_empty();
    let latency = now.saturating_sub(begun);
    let shape = on.generation.status();
    if shape == StatusShape::Kms {
        let answer = wire::ok(&OldStatus {
            version: VERSION,
            uptime: nanoseconds(machine.up),
            kms: StoreState {
                state: if unreachable {
                    "unreachable"
                } else {
                    "available"
                },
                latency: if unreachable { 0 } else { nanoseconds(latency) },
            },
        })?;
        return Ok(without_body_for_head(&call, answer));
    }
    let answer = wire::ok(&Status {
        version: VERSION,
        os: machine.os,
        arch: machine.architecture,
        uptime: match shape {
            StatusShape::Nanoseconds => nanoseconds(machine.up),
            StatusShape::Seconds | StatusShape::Kms => machine.up.as_secs(),
        },
        num_cpu: machine.cpus,
        num_cpu_used: machine.usable_cpus,
        mem_heap_used: machine.heap_bytes,
        mem_stack_used: machine.stack_bytes,
        keystore_latency: if unreachable {
            0
        } else {
            milliseconds(latency)
        },
        keystore_unreachable: unreachable,
        keystore_unavailable: unreachable,
        error: Degraded::texts(&degraded),
    })?;
    Ok(without_body_for_head(&call, answer))
}

/// As v0.17 has it.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct OldStatus {
    version: &'static str,
    /// In nanoseconds.
    uptime: u64,
    kms: StoreState,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct StoreState {
    state: &'static str,
    /// In nanoseconds.
    #[serde(skip_serializing_if = "is_zero")]
    latency: u64,
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Prometheus's text format, whatever `Accept` says. KES answers so too, except to clients that ask for protobuf.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn metrics(on: Arc<OnServer>, _: Call<Kes>) -> HandlerResult<Kes> {
    let text = (on.metrics)().map_err(KmsError::from)?;
    let mut response = Response::new(Bytes::from(text));
    let kind = HeaderValue::from_static(EXPOSITION);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}

/// One route, as KES tells of it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Api {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) max_body: usize,
    /// In seconds.
    pub(crate) timeout: u64,
}

pub(crate) async fn api(on: Arc<OnServer>, _: Call<Kes>) -> HandlerResult<Kes> {
    wire::ok(&apis(on.generation))
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
