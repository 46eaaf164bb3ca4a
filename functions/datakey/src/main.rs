//! The data-key routes as a function. It reads the table and never writes it.

use keyway_deployment_aws::Function;
use keyway_dialect_rustfs::{PREFIXES, RustFs, datakey_routes};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let server = function.reading().await?;
    let dialect = RustFs::new(server.authenticator);
    let mount = Mount::new(
        dialect,
        PREFIXES.to_vec(),
        datakey_routes(&server.data_keys),
    )?;
    function.serve(mount).await
}
