//! The data-key routes as a function, and the one that tries a key out. Of the table it writes the audit log alone.

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
    let server = function.reading().await?;
    let data_keys = &server.data_keys;
    let settings = &function.settings().kes;
    let mount = rustfs::mount(&server.authenticator, rustfs::datakey_routes(data_keys))?;
    let minio = minio::mount(&server.authenticator, minio::datakey_routes(data_keys))?;
    let kes = Kes::configured(
        function.trusted_proxy()?,
        server.identities,
        &settings.open,
        &settings.generation,
    )?;
    let of_kes = kes::datakey_routes(data_keys, settings.sealing());
    let kes = kes::mount(kes, of_kes)?;
    let site = function.site(mount)?.with(minio).with(kes);
    function.serve_site(site).await
}
