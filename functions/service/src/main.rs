//! The routes of the service itself as a function: configure, start, stop, status, and the audit log.

use std::sync::Arc;

use keyway_deployment_assembly::SystemMachine;
use keyway_deployment_aws::Function;
use keyway_dialect_minio::{self as minio, Minio};
use keyway_dialect_rustfs::{PREFIXES, RustFs, audit_routes, service_routes};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let machine = Arc::new(SystemMachine::start()) as _;
    let (server, ports) = function.writing().await?;
    let control = ports.control(&server);
    let rustfs = RustFs::new(Arc::clone(&server.authenticator));
    let mut routes = service_routes(&control);
    let log = ports.reading().audit_reading(&function.settings().audit);
    routes.extend(audit_routes(&log));
    let mount = Mount::new(rustfs, PREFIXES.to_vec(), routes)?;
    let minio = Mount::new(
        Minio::new(server.authenticator),
        minio::PREFIXES.to_vec(),
        minio::service_routes(&control, &machine),
    )?;
    let site = function
        .site(mount)?
        .with(minio)
        .with(keyway_openapi::mount()?);
    function.serve_site(site).await
}
