//! The routes of the service itself as a function: configure, start, stop, status.

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{PREFIXES, RustFs, service_routes};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, ports) = function.writing().await?;
    let routes = service_routes(&ports.control(&server));
    let mount = Mount::new(RustFs::new(server.authenticator), PREFIXES.to_vec(), routes)?;
    let site = function.site(mount)?.with(keyway_openapi::mount()?);
    function.serve_site(site).await
}
