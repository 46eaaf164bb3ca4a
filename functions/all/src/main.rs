//! Every route as one function, for a function URL: the cheapest front.

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{PREFIXES, RustFs, datakey_routes, key_routes, service_routes};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, ports) = function.writing().await?;
    let keys = ports.keys(&server, function.settings());
    let mut routes = key_routes(&keys);
    routes.extend(datakey_routes(&server.data_keys));
    routes.extend(service_routes(&ports.control(&server)));
    let mount = Mount::new(RustFs::new(server.authenticator), PREFIXES.to_vec(), routes)?;
    let site = function.site(mount)?.with(keyway_openapi::mount()?);
    function.serve_site(site).await
}
