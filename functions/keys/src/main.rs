//! The master-key routes as a function. It is the one that makes the deployment on its very first start.

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{PREFIXES, RustFs, key_routes};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let (server, ports) = function.writing().await?;
    let keys = ports.keys(&server, function.settings());
    let dialect = RustFs::new(server.authenticator);
    let mount = Mount::new(dialect, PREFIXES.to_vec(), key_routes(&keys))?;
    function.serve(mount).await
}
