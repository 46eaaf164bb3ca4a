//! The table of all routes. `/v1/api` lists them too.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryFutureExt;
use http::Method;
use keyway_domain::Fault;
use keyway_domain::audit::{AuditReading, LogFollowing};
use keyway_domain::datakey::{CiphertextFormat, DataKeys};
use keyway_domain::identity::{Identities, IdentityControl};
use keyway_domain::keys::{Deletion, Keys};
use keyway_domain::machine::Machine;
use keyway_domain::policy::Action;
use keyway_domain::ports::Clock;
use keyway_domain::service::Service;
use keyway_http::{
    Call, Group, Handler, HandlerResult, Listed, Route, RouteEntry, listed, routes_on,
};

use crate::error_response::failing_to;
use crate::generation::Generation;
use crate::server::Api;
use crate::{BODY_LIMIT, Kes, Needs, Permission, access, datakey, hmac, import, keys, log, server};

/// The dependencies of the routes of master keys.
pub(crate) struct OnKeys {
    pub(crate) keys: Arc<Keys>,
    pub(crate) deletion: Deletion,
    pub(crate) generation: Generation,
}

/// The dependencies of the routes of data keys.
pub(crate) struct OnDataKeys {
    pub(crate) data_keys: Arc<DataKeys>,
    pub(crate) sealing: CiphertextFormat,
}

/// The dependencies of the routes of the server itself.
pub(crate) struct OnServer {
    pub(crate) service: Arc<Service>,
    pub(crate) machine: Arc<dyn Machine>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: MetricsSource,
    pub(crate) generation: Generation,
}

/// Returns the metrics in Prometheus's text format, by KES's names.
pub type MetricsSource = Arc<dyn Fn() -> Result<String, Fault> + Send + Sync>;

/// The dependencies of the routes of policies and identities.
pub(crate) struct OnAccess {
    pub(crate) identities: Arc<Identities>,
    pub(crate) control: Arc<IdentityControl>,
    pub(crate) generation: Generation,
}

/// The dependencies of the routes of logs.
pub(crate) struct OnLog {
    /// `None` where an answer cannot be a stream.
    pub(crate) following: Option<Arc<dyn LogFollowing>>,
    pub(crate) reading: Arc<AuditReading>,
}

/// One of KES's routes, with all methods and spellings of its path.
struct Endpoint<S> {
    /// `/v1/api` lists the first.
    methods: &'static [Method],
    /// `/v1/api` lists the first, except as [`Generation::path`] says.
    paths: &'static [&'static str],
    max_body: usize,
    /// The longest time that a call may take, in seconds; 0 for no limit.
    timeout: u64,
    permission: Permission,
    /// The message when the table fails; empty for the general one.
    failing: &'static str,
    handler: fn(Arc<S>, &'static str) -> Handler<Kes>,
}

/// The three spellings of a path that ends in a name. A missing name gets the error for names, and a client that lists
/// everything leaves out the slash too.
macro_rules! named {
    ($path:literal) => {
        &[
            concat!($path, "/"),
            concat!($path, "/{*name}"),
            concat!($path),
        ]
    };
}

macro_rules! handler {
    ($run:path) => {
        |on, failing| {
            Box::new(
                move |call: Call<Kes>| -> Pin<Box<dyn Future<Output = HandlerResult<Kes>> + Send>> {
                    let run = $run(Arc::clone(&on), call);
                    Box::pin(run.map_err(move |refusal| failing_to(failing, refusal)))
                },
            )
        }
    };
}

const GET: &[Method] = &[Method::GET];
/// Liveness probes use both.
const GET_HEAD: &[Method] = &[Method::GET, Method::HEAD];
/// KES's documents say PUT, but all of its clients send POST.
const PUT: &[Method] = &[Method::PUT, Method::POST];
const DELETE: &[Method] = &[Method::DELETE];
/// An example in an older document deletes a key by POST.
const DELETE_POST: &[Method] = &[Method::DELETE, Method::POST];

const READ_KEY: &str = "failed to read key";
const ACCESS_POLICY: &str = "failed to access policy";
const ACCESS_IDENTITY: &str = "failed to access identity";

impl<S> Endpoint<S> {
    const fn new(
        methods: &'static [Method],
        paths: &'static [&'static str],
        permission: Permission,
        failing: &'static str,
        handler: fn(Arc<S>, &'static str) -> Handler<Kes>,
    ) -> Self {
        Self {
            methods,
            paths,
            max_body: 0,
            timeout: 15,
            permission,
            failing,
            handler,
        }
    }

    /// The route takes a body.
    const fn with_body(mut self) -> Self {
        self.max_body = BODY_LIMIT;
        self
    }

    /// Replaces the timeout of 15 seconds.
    const fn within(mut self, seconds: u64) -> Self {
        self.timeout = seconds;
        self
    }

    fn api(&self, generation: Generation) -> Option<Api> {
        if !generation.has(self.paths.first()?) {
            return None;
        }
        let method = generation.method(match *self.methods.first()? {
            Method::PUT => "PUT",
            Method::DELETE => "DELETE",
            _ => "GET",
        });
        Some(Api {
            method,
            path: generation.path(self.paths)?,
            max_body: self.max_body,
            timeout: self.timeout,
        })
    }
}

/// The routes of master keys.
fn of_keys() -> Vec<Endpoint<OnKeys>> {
    let key = |methods, paths, action, failing, handler| {
        Endpoint::new(methods, paths, Permission::Call(action), failing, handler)
    };
    vec![
        key(
            PUT,
            named!("/v1/key/create"),
            Action::CreateKey,
            "failed to create key",
            handler!(keys::create),
        ),
        key(
            PUT,
            named!("/v1/key/import"),
            Action::ImportKeyMaterial,
            "failed to create key",
            handler!(import::import),
        )
        .with_body(),
        key(
            GET,
            named!("/v1/key/describe"),
            Action::DescribeKey,
            READ_KEY,
            handler!(keys::describe),
        ),
        key(
            DELETE_POST,
            named!("/v1/key/delete"),
            Action::DeleteKey,
            "failed to delete key",
            handler!(keys::delete),
        ),
        key(
            GET,
            named!("/v1/key/list"),
            Action::ListKeys,
            "failed to list keys",
            handler!(keys::list),
        ),
    ]
}

/// The routes of data keys.
fn of_data_keys() -> Vec<Endpoint<OnDataKeys>> {
    let key = |methods, paths, action, failing, handler| {
        Endpoint::new(methods, paths, Permission::Call(action), failing, handler)
    };
    vec![
        key(
            PUT,
            named!("/v1/key/generate"),
            Action::GenerateDataKey,
            READ_KEY,
            handler!(datakey::generate),
        )
        .with_body(),
        key(
            PUT,
            named!("/v1/key/encrypt"),
            Action::Encrypt,
            READ_KEY,
            handler!(datakey::encrypt),
        )
        .with_body(),
        key(
            PUT,
            named!("/v1/key/decrypt"),
            Action::Decrypt,
            READ_KEY,
            handler!(datakey::decrypt),
        )
        .with_body(),
        key(
            PUT,
            named!("/v1/key/hmac"),
            Action::GenerateMac,
            READ_KEY,
            handler!(hmac::hmac),
        )
        .with_body(),
        key(
            PUT,
            named!("/v1/key/bulk/decrypt"),
            Action::Decrypt,
            READ_KEY,
            handler!(datakey::bulk_decrypt),
        )
        .with_body(),
    ]
}

/// The routes of policies and identities. Those of the latest generation come first, then those of older ones only.
fn of_access() -> Vec<Endpoint<OnAccess>> {
    let read = Permission::Call(Action::ReadAccess);
    let manage = Permission::Call(Action::ManageAccess);
    let reading = |paths, failing, handler| Endpoint::new(GET, paths, read, failing, handler);
    let managing =
        |methods, paths, failing, handler| Endpoint::new(methods, paths, manage, failing, handler);
    vec![
        reading(
            named!("/v1/policy/describe"),
            ACCESS_POLICY,
            handler!(access::describe_policy),
        ),
        reading(
            named!("/v1/policy/read"),
            ACCESS_POLICY,
            handler!(access::read_policy),
        ),
        reading(
            named!("/v1/policy/list"),
            "failed to list policies",
            handler!(access::list_policies),
        ),
        reading(
            named!("/v1/identity/describe"),
            ACCESS_IDENTITY,
            handler!(access::describe_identity),
        ),
        Endpoint::new(
            GET,
            &["/v1/identity/self/describe"],
            Permission::Identity,
            ACCESS_IDENTITY,
            handler!(access::describe_self),
        ),
        reading(
            named!("/v1/identity/list"),
            "failed to list identities",
            handler!(access::list_identities),
        ),
        managing(
            PUT,
            named!("/v1/policy/write"),
            ACCESS_POLICY,
            handler!(access::write_policy),
        )
        .with_body(),
        managing(
            PUT,
            named!("/v1/policy/assign"),
            ACCESS_POLICY,
            handler!(access::assign_policy),
        )
        .with_body(),
        managing(
            DELETE,
            named!("/v1/policy/delete"),
            ACCESS_POLICY,
            handler!(access::delete_policy),
        ),
        managing(
            PUT,
            named!("/v1/identity/assign"),
            ACCESS_IDENTITY,
            handler!(access::assign_identity),
        ),
        managing(
            DELETE,
            named!("/v1/identity/forget"),
            ACCESS_IDENTITY,
            handler!(access::delete_identity),
        ),
        managing(
            DELETE,
            named!("/v1/identity/delete"),
            ACCESS_IDENTITY,
            handler!(access::delete_identity),
        ),
    ]
}

/// The routes of the server itself.
fn of_server() -> Vec<Endpoint<OnServer>> {
    let (open, path) = (Permission::None, Permission::Path);
    vec![
        Endpoint::new(GET_HEAD, &["/version"], open, "", handler!(server::version)).within(10),
        Endpoint::new(GET_HEAD, &["/v1/ready"], path, "", handler!(server::ready)),
        Endpoint::new(
            GET_HEAD,
            &["/v1/status"],
            path,
            "",
            handler!(server::status),
        ),
        Endpoint::new(GET, &["/v1/metrics"], path, "", handler!(server::metrics)),
        Endpoint::new(GET, &["/v1/api"], path, "", handler!(server::api)).within(10),
    ]
}

/// The routes of logs. Older generations end them in `/trace`, and an example in KES's documents in a slash.
fn of_log() -> Vec<Endpoint<OnLog>> {
    let log = |paths, handler| {
        let permission = Permission::Call(Action::ReadAudit);
        Endpoint::new(GET, paths, permission, "failed to read log", handler).within(0)
    };
    vec![
        log(
            &["/v1/log/error", "/v1/log/error/", "/v1/log/error/trace"],
            handler!(log::error),
        ),
        log(
            &["/v1/log/audit", "/v1/log/audit/", "/v1/log/audit/trace"],
            handler!(log::audit),
        ),
    ]
}

/// The APIs of a release as `/v1/api` lists them, whichever process serves them. The latest release has 22.
pub(crate) fn apis(generation: Generation) -> Vec<Api> {
    let mut apis: Vec<Api> = of_server()
        .iter()
        .filter_map(|endpoint| endpoint.api(generation))
        .collect();
    apis.extend(
        of_keys()
            .iter()
            .filter_map(|endpoint| endpoint.api(generation)),
    );
    apis.extend(
        of_data_keys()
            .iter()
            .filter_map(|endpoint| endpoint.api(generation)),
    );
    apis.extend(
        of_access()
            .iter()
            .filter_map(|endpoint| endpoint.api(generation)),
    );
    apis.extend(
        of_log()
            .iter()
            .filter_map(|endpoint| endpoint.api(generation)),
    );
    apis
}

/// The methods and paths of the endpoint whose first path is this one.
#[cfg(feature = "openapi")]
pub(crate) fn spellings(path: &str) -> (&'static [Method], &'static [&'static str]) {
    fn of<S>(
        endpoints: &[Endpoint<S>],
    ) -> impl Iterator<Item = (&'static [Method], &'static [&'static str])> {
        endpoints
            .iter()
            .map(|endpoint| (endpoint.methods, endpoint.paths))
    }
    let (server, keys, data_keys) = (of_server(), of_keys(), of_data_keys());
    let (access, log) = (of_access(), of_log());
    of(&server)
        .chain(of(&keys))
        .chain(of(&data_keys))
        .chain(of(&access))
        .chain(of(&log))
        .find(|(_, paths)| paths.first() == Some(&path))
        .unwrap_or_default()
}

/// The routes of master keys. KES deletes a key at once, as [`Deletion::Immediate`] does.
pub fn key_routes(keys: &Arc<Keys>, deletion: Deletion, generation: Generation) -> Vec<Route<Kes>> {
    let on = OnKeys {
        keys: Arc::clone(keys),
        deletion,
        generation,
    };
    routes_on(entries(of_keys()), &Arc::new(on))
}

/// The routes of data keys. `sealing` is the format of new ciphertexts. These routes write nothing.
pub fn datakey_routes(data_keys: &Arc<DataKeys>, sealing: CiphertextFormat) -> Vec<Route<Kes>> {
    let data_keys = Arc::clone(data_keys);
    let on = Arc::new(OnDataKeys { data_keys, sealing });
    routes_on(entries(of_data_keys()), &on)
}

/// The routes of policies and identities.
pub fn access_routes(
    identities: &Arc<Identities>,
    control: &Arc<IdentityControl>,
    generation: Generation,
) -> Vec<Route<Kes>> {
    let (identities, control) = (Arc::clone(identities), Arc::clone(control));
    let on = OnAccess {
        identities,
        control,
        generation,
    };
    routes_on(entries(of_access()), &Arc::new(on))
}

/// The routes of the server itself. They write nothing.
pub fn service_routes(
    service: &Arc<Service>,
    machine: &Arc<dyn Machine>,
    clock: &Arc<dyn Clock>,
    metrics: &MetricsSource,
    generation: Generation,
) -> Vec<Route<Kes>> {
    let (service, machine) = (Arc::clone(service), Arc::clone(machine));
    let on = OnServer {
        service,
        machine,
        clock: Arc::clone(clock),
        metrics: Arc::clone(metrics),
        generation,
    };
    routes_on(entries(of_server()), &Arc::new(on))
}

/// The routes of logs. `following` needs a runtime that can stream answers. Without it, only the events in the table can be
/// read.
pub fn log_routes(
    reading: &Arc<AuditReading>,
    following: Option<&Arc<dyn LogFollowing>>,
) -> Vec<Route<Kes>> {
    let (reading, following) = (Arc::clone(reading), following.map(Arc::clone));
    routes_on(entries(of_log()), &Arc::new(OnLog { following, reading }))
}

/// Every route, with all methods and spellings, whichever process serves it.
pub fn inventory() -> Vec<Listed> {
    [
        listed(Group::Keys, &entries(of_keys())),
        listed(Group::DataKeys, &entries(of_data_keys())),
        listed(Group::Access, &entries(of_access())),
        listed(Group::Service, &entries(of_server())),
        listed(Group::Log, &entries(of_log())),
    ]
    .concat()
}

fn entries<S: Send + Sync + 'static>(endpoints: Vec<Endpoint<S>>) -> Vec<RouteEntry<Kes, S>> {
    let mut entries = Vec::new();
    for endpoint in endpoints {
        let timeout = (endpoint.timeout > 0).then(|| Duration::from_secs(endpoint.timeout));
        let takes_name = endpoint.paths.iter().any(|path| path.contains('{'));
        let (failing, handler) = (endpoint.failing, endpoint.handler);
        for &path in endpoint.paths {
            for method in endpoint.methods {
                let needs = Needs {
                    permission: endpoint.permission,
                    lacks_slash: takes_name && !path.ends_with(['/', '}']),
                    timeout,
                };
                let bind = move |on| handler(on, failing);
                let limit = endpoint.max_body;
                entries.push(RouteEntry::handled(
                    method.clone(),
                    path,
                    limit,
                    needs,
                    bind,
                ));
            }
        }
    }
    entries
}
