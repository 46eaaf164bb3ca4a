//! Every route as one function, for a function URL, the cheapest front, or a load balancer.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use keyway_deployment_assembly::{figures_of_kes, figures_of_minio};
use keyway_deployment_aws::Function;
use keyway_dialect_kes::{self as kes, Kes};
use keyway_dialect_minio::{self as minio, Minio};
use keyway_dialect_rustfs::{
    BUCKET_PREFIXES, PREFIXES, RustFs, account_routes, audit_routes, bucket_routes, datakey_routes,
    key_routes, service_routes,
};
use keyway_dialect_s3::{self as s3, S3};
use keyway_dialect_sts::{self as sts, Sts};
use keyway_http::Mount;

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
    let mut routes = key_routes(&keys, &server.data_keys);
    routes.extend(datakey_routes(&server.data_keys));
    let spelling = function.settings().rustfs_spelling.parse();
    let spelling = spelling.context("KEYWAY_RUSTFS_SPELLING")?;
    routes.extend(service_routes(&control, spelling));
    let log = ports.reading().audit_reading(&function.settings().audit);
    routes.extend(audit_routes(&log));
    let mut of_minio = minio::key_routes(&keys);
    of_minio.extend(minio::datakey_routes(&server.data_keys));
    of_minio.extend(minio::service_routes(
        &control,
        function.machine(),
        &figures_of_minio(function.metrics()),
    ));
    let kes = Kes::configured(
        function.front()?,
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
        &figures_of_kes(function.metrics()),
        generation,
    ));
    of_kes.extend(kes::log_routes(&log, function.following()?.as_ref()));
    let buckets = function.buckets(&server)?;
    routes.extend(account_routes(&buckets));
    let rustfs = || RustFs::new(Arc::clone(&server.authenticator));
    let mount = Mount::new(rustfs(), PREFIXES.to_vec(), routes)?;
    let minio = Minio::new(Arc::clone(&server.authenticator));
    let minio = Mount::new(minio, minio::PREFIXES.to_vec(), of_minio)?;
    let kes = Mount::new(kes, kes::PREFIXES.to_vec(), of_kes)?;
    let buckets_in_json = Mount::new(rustfs(), BUCKET_PREFIXES.to_vec(), bucket_routes(&buckets))?;
    let s3 = Mount::new(
        S3::new(Arc::clone(&server.authenticator)),
        s3::PREFIXES.to_vec(),
        s3::bucket_routes(&buckets, server.authenticator.region()),
    )?;
    let sts = Mount::new(
        Sts::new(Arc::clone(&server.authenticator)),
        sts::PREFIXES.to_vec(),
        sts::routes(
            ports.sessions(&server),
            function.settings().aws_account_id.clone(),
        ),
    )?;
    let site = function.site(mount)?.with(minio).with(kes);
    let site = site
        .with(buckets_in_json)
        .with(keyway_health::mount(&server.readiness())?)
        .with(keyway_openapi::mount()?)
        .with_remaining(s3)
        // After S3, which says what it says of the root by other methods.
        .with(sts);
    function.serve_site(site).await
}
