//! The service itself: decode, operate, encode.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keyway_domain::KmsError;
use keyway_domain::keys::KeyId;
use keyway_domain::machine::{Machine, MachineFacts};
use keyway_domain::policy::Action;
use keyway_domain::service::{BackendType, Configured, Degraded, ServiceControl, ServiceState};
use keyway_http::{Call, Request, Route};
use serde::Serialize;

use crate::wire::{self, Answer};
use crate::{Minio, route};

struct Facing {
    control: Arc<ServiceControl>,
    machine: Arc<dyn Machine>,
}

pub(crate) fn routes(
    control: &Arc<ServiceControl>,
    machine: &Arc<dyn Machine>,
) -> Vec<Route<Minio>> {
    let facing = Arc::new(Facing {
        control: Arc::clone(control),
        machine: Arc::clone(machine),
    });
    let action = Action::ServiceControl;
    vec![
        route(Method::GET, "/status", action, &facing, status),
        route(Method::GET, "/version", action, &facing, version),
    ]
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) struct StatusAnswer<'a> {
    name: &'static str,
    default_key_id: &'a str,
    endpoints: BTreeMap<String, &'static str>,
    state: State,
    /// Why keys cannot be used, where they cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The names are those of Go's fields. Durations are nanoseconds.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
struct State {
    version: &'static str,
    key_store_latency: u64,
    key_store_reachable: bool,
    keystore_available: bool,
    #[serde(rename = "OS")]
    os: &'static str,
    arch: &'static str,
    up_time: u64,
    #[serde(rename = "CPUs", skip_serializing_if = "Option::is_none")]
    cpus: Option<u64>,
    #[serde(rename = "UsableCPUs", skip_serializing_if = "Option::is_none")]
    usable_cpus: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    heap_alloc: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stack_alloc: Option<u64>,
}

impl State {
    fn of(configured: &Configured, machine: &MachineFacts) -> Self {
        Self {
            version: VERSION,
            key_store_latency: nanoseconds(configured.latency),
            key_store_reachable: configured.has_backend(),
            keystore_available: configured.is_healthy(),
            os: machine.os,
            arch: machine.architecture,
            up_time: nanoseconds(machine.up),
            cpus: machine.cpus,
            usable_cpus: machine.usable_cpus,
            heap_alloc: machine.heap_bytes,
            stack_alloc: machine.stack_bytes,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn status(facing: Arc<Facing>, call: Call<Minio>) -> Answer {
    let status = facing
        .control
        .status(&call.caller, &call.request_id)
        .await?;
    let configured = status.configured.ok_or(KmsError::NotConfigured)?;
    let default_key_id = configured.config.default_key_id.as_ref();
    wire::ok(&StatusAnswer {
        name: "Keyway",
        default_key_id: default_key_id.map_or("", KeyId::as_str),
        endpoints: endpoints(&call.request, &configured),
        state: State::of(&configured, &facing.machine.facts()),
        error: Degraded::texts(&configured.degraded),
    })
}

/// The address that was asked, which is online while keys can be used there; and the Vault's, if there is one.
fn endpoints(request: &Request, configured: &Configured) -> BTreeMap<String, &'static str> {
    let config = &configured.config;
    let state = |online| if online { "online" } else { "offline" };
    let mut endpoints = BTreeMap::new();
    if let Some(origin) = request.origin() {
        let serves = config.state == ServiceState::Running && configured.is_healthy();
        endpoints.insert(origin, state(serves));
    }
    if let (BackendType::Vault, Some(vault)) = (config.backend_type, &config.vault) {
        let address = vault.settings.address.as_str().to_owned();
        endpoints.insert(address, state(configured.has_backend()));
    }
    endpoints
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct VersionAnswer {
    version: &'static str,
}

async fn version(_: Arc<Facing>, call: Call<Minio>) -> Answer {
    call.caller.may_on_service(Action::ServiceControl)?;
    wire::ok(&VersionAnswer { version: VERSION })
}
