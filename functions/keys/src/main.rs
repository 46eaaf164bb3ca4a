//! The master-key routes as a function. It is the one that makes the deployment on its very first start.

use std::process::ExitCode;

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
    let keys = ports.keys(&server, function.settings());
    let settings = &function.settings().kes;
    let routes = rustfs::key_routes(&keys, &server.data_keys);
    let mount = rustfs::mount(&server.authenticator, routes)?;
    let minio = minio::mount(&server.authenticator, minio::key_routes(&keys))?;
    let kes = Kes::configured(
        function.trusted_proxy()?,
        server.identities,
        &settings.open,
        &settings.generation,
    )?;
    let of_kes = kes::key_routes(&keys, settings.deletion(), kes.generation());
    let kes = kes::mount(kes, of_kes)?;
    let site = function.site(mount)?.with(minio).with(kes);
    function.serve_site(site).await
}
