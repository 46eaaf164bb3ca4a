//! The service itself: decode, operate, encode.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use keyway_domain::KmsError;
use keyway_domain::control::{Configured, ServiceControl};
use keyway_domain::keys::KeyId;
use keyway_domain::machine::{Machine, MachineFacts};
use keyway_domain::policy::Action;
use keyway_domain::service::{BackendType, Degraded, ServiceState};
use keyway_http::{Call, HandlerResult, MetricsSource, NO_BODY, Request, RouteEntry, Served};
use serde::Serialize;

use crate::wire;
use crate::{Minio, PREFIXES, inventory, route};

/// The domain services and metrics that these routes use.
pub(crate) struct OnService {
    pub(crate) control: Arc<ServiceControl>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) metrics_source: MetricsSource,
}

pub(crate) const STATUS: &str = "/status";
pub(crate) const METRICS: &str = "/metrics";
pub(crate) const APIS: &str = "/apis";
pub(crate) const VERSION: &str = "/version";

pub(crate) fn entries() -> Vec<RouteEntry<Minio, OnService>> {
    let action = Action::ServiceControl;
    vec![
        route(Method::GET, STATUS, action, status),
        route(Method::GET, METRICS, action, metrics),
        route(Method::GET, APIS, action, apis),
        route(Method::GET, VERSION, action, version),
    ]
}

const RELEASE: &str = env!("CARGO_PKG_VERSION");

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
            version: RELEASE,
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

async fn status(on: Arc<OnService>, call: Call<Minio>) -> HandlerResult<Minio> {
    let status = on.control.status(&call.caller, &call.request_id).await?;
    let configured = status.configured.ok_or(KmsError::NotConfigured)?;
    let default_key_id = configured.config.default_key_id.as_ref();
    wire::ok(&StatusAnswer {
        name: "Keyway",
        default_key_id: default_key_id.map_or("", KeyId::as_str),
        endpoints: endpoints(&call.request, &configured),
        state: State::of(&configured, &on.machine.facts()),
        error: Degraded::texts(&configured.degraded),
    })
}

/// The request's own address, which is online while keys can be used there, and the Vault's, if there is one.
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

async fn version(_: Arc<OnService>, call: Call<Minio>) -> HandlerResult<Minio> {
    call.caller.may_on_service(Action::ServiceControl)?;
    wire::ok(&VersionAnswer { version: RELEASE })
}

/// Under the names that madmin reads, which are KES's, and under those that MinIO writes since it has other services for keys
/// than KES. Times are nanoseconds.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct MetricsAnswer {
    kes_http_request_success: u64,
    kes_http_request_error: u64,
    kes_http_request_failure: u64,
    kes_http_request_active: u64,
    kes_log_audit_events: u64,
    kes_log_error_events: u64,
    kes_http_response_time: BTreeMap<u64, u64>,
    kes_system_up_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_num_cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_num_cpu_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_num_threads: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_mem_heap_used: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_mem_heap_objects: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kes_system_mem_stack_used: Option<u64>,
    kms_req_success: u64,
    kms_req_error: u64,
    kms_req_failure: u64,
    kms_resp_time: BTreeMap<u64, u64>,
}

impl MetricsAnswer {
    fn of(served: &Served, machine: &MachineFacts) -> Self {
        let durations = served.durations.iter();
        let durations: BTreeMap<u64, u64> = durations
            .map(|(bound, count)| (nanoseconds(*bound), *count))
            .collect();
        Self {
            kes_http_request_success: served.succeeded,
            kes_http_request_error: served.refused,
            kes_http_request_failure: served.failed,
            kes_http_request_active: served.active,
            kes_log_audit_events: served.audit_events,
            kes_log_error_events: served.error_events,
            kes_http_response_time: durations.clone(),
            kes_system_up_time: nanoseconds(machine.up),
            kes_system_num_cpu: machine.cpus,
            kes_system_num_cpu_used: machine.usable_cpus,
            kes_system_num_threads: machine.threads,
            kes_system_mem_heap_used: machine.heap_bytes,
            kes_system_mem_heap_objects: machine.heap_areas,
            kes_system_mem_stack_used: machine.stack_bytes,
            kms_req_success: served.succeeded,
            kms_req_error: served.refused,
            kms_req_failure: served.failed,
            kms_resp_time: durations,
        }
    }
}

async fn metrics(on: Arc<OnService>, call: Call<Minio>) -> HandlerResult<Minio> {
    call.caller.may_on_service(Action::ServiceControl)?;
    let served = (on.metrics_source)();
    wire::ok(&MetricsAnswer::of(&served, &on.machine.facts()))
}

/// One route, by the names of Go's fields.
#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Api {
    method: String,
    path: String,
    /// The longest body that it takes, in bytes.
    max_body: usize,
    /// In seconds; 0 where there is none.
    timeout: u64,
}

/// Lists Keyway's own routes. A MinIO server lists those of the KES server behind it, but Keyway has none.
async fn apis(_: Arc<OnService>, call: Call<Minio>) -> HandlerResult<Minio> {
    call.caller.may_on_service(Action::ServiceControl)?;
    let [prefix] = PREFIXES;
    let routes = inventory();
    let apis = routes.iter().map(|route| Api {
        method: route.method.to_string(),
        path: format!("{prefix}{}", route.path),
        max_body: NO_BODY,
        timeout: 0,
    });
    wire::ok(&apis.collect::<Vec<_>>())
}
