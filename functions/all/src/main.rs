//! Every route as one function, for a function URL, the cheapest front, or a load balancer.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use keyway_deployment_assembly::{kes_metrics, minio_metrics};
use keyway_deployment_aws::Function;
use keyway_dialect_kes::{self as kes, Kes};
use keyway_dialect_minio as minio;
use keyway_dialect_rustfs as rustfs;
use keyway_dialect_s3 as s3;
use keyway_dialect_sts as sts;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, ports) = function.writing().await?;
    let keys = ports.keys(&server, function.settings());
    let control = ports.control(&server);
    let settings = &function.settings().kes;
    let mut routes = rustfs::key_routes(&keys, &server.data_keys);
    routes.extend(rustfs::datakey_routes(&server.data_keys));
    let spelling = function.settings().rustfs_spelling.parse();
    let spelling = spelling.context("KEYWAY_RUSTFS_SPELLING")?;
    routes.extend(rustfs::service_routes(&control, spelling));
    let log = ports.reading().audit_reading(&function.settings().audit);
    routes.extend(rustfs::audit_routes(&log));
    let mut of_minio = minio::key_routes(&keys);
    of_minio.extend(minio::datakey_routes(&server.data_keys));
    of_minio.extend(minio::service_routes(
        &control,
        function.machine(),
        &minio_metrics(function.metrics()),
    ));
    let kes = Kes::configured(
        function.trusted_proxy()?,
        Arc::clone(&server.identities),
        &settings.open,
        &settings.generation,
    )?;
    let generation = kes.generation();
    let mut of_kes = kes::key_routes(&keys, settings.deletion(), generation);
    of_kes.extend(kes::datakey_routes(&server.data_keys, settings.sealing()));
    let identities = &server.identities;
    of_kes.extend(kes::access_routes(
        identities,
        &ports.identity_control(&server),
        generation,
    ));
    of_kes.extend(kes::service_routes(
        &server.service,
        function.machine(),
        function.clock(),
        &kes_metrics(function.metrics()),
        generation,
    ));
    of_kes.extend(kes::log_routes(&log, function.following()?.as_ref()));
    let buckets = function.buckets(&server)?;
    routes.extend(rustfs::account_routes(&buckets));
    let authenticator = &server.authenticator;
    let sessions = ports.sessions(&server);
    let account = function.settings().aws_account_id.clone();
    let site = function
        .site(rustfs::mount(authenticator, routes)?)?
        .with(minio::mount(authenticator, of_minio)?)
        .with(kes::mount(kes, of_kes)?)
        .with(rustfs::bucket_mount(authenticator, &buckets)?)
        .with(s3::mount(authenticator, &buckets)?)
        .with(sts::mount(authenticator, sessions, account)?)
        .with(keyway_health::mount(&server.readiness())?)
        .with(keyway_openapi::mount()?);
    function.serve_site(site).await
}
