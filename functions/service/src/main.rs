//! The routes of the service itself as a function: configure, start, stop, status, and the audit log; KES's only read.

use std::process::ExitCode;

use anyhow::Context;
use keyway_deployment_assembly::{kes_metrics, minio_metrics};
use keyway_deployment_aws::Function;
use keyway_dialect_kes::{self as kes, Kes};
use keyway_dialect_minio as minio;
use keyway_dialect_rustfs as rustfs;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    keyway_deployment_aws::ended(run().await)
}

async fn run() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, ports) = function.writing().await?;
    let control = ports.control(&server);
    let readiness = server.readiness();
    let settings = &function.settings().kes;
    let spelling = function.settings().rustfs_spelling.parse();
    let spelling = spelling.context("KEYWAY_RUSTFS_SPELLING")?;
    let mut routes = rustfs::service_routes(&control, spelling);
    let log = ports.reading().audit_reading(&function.settings().audit);
    routes.extend(rustfs::audit_routes(&log));
    let mount = rustfs::mount(&server.authenticator, routes)?;
    let minio = minio::mount(
        &server.authenticator,
        minio::service_routes(
            &control,
            function.machine(),
            &minio_metrics(function.metrics()),
        ),
    )?;
    let kes = Kes::configured(
        function.trusted_proxy()?,
        server.identities,
        &settings.open,
        &settings.generation,
    )?;
    let mut of_kes = kes::service_routes(
        &server.service,
        function.machine(),
        function.clock(),
        &kes_metrics(function.metrics()),
        kes.generation(),
    );
    of_kes.extend(kes::log_routes(&log, function.following()?.as_ref()));
    let kes = kes::mount(kes, of_kes)?;
    let site = function
        .site(mount)?
        .with(minio)
        .with(kes)
        .with(keyway_health::mount(&readiness)?)
        .with(keyway_openapi::mount()?);
    function.serve_site(site).await
}
