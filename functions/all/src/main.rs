//! Every route as one function, for a function URL: the cheapest front.

use std::sync::Arc;

use keyway_deployment_assembly::SystemMachine;
use keyway_deployment_aws::Function;
use keyway_dialect_minio::{self as minio, Minio};
use keyway_dialect_rustfs::{
    BUCKET_PREFIXES, PREFIXES, RustFs, audit_routes, bucket_routes, datakey_routes, key_routes,
    service_routes,
};
use keyway_dialect_s3::{self as s3, S3};
use keyway_http::Mount;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let function = Function::start()?;
    let machine = Arc::new(SystemMachine::start()) as _;
    let (server, ports) = function.writing().await?;
    let keys = ports.keys(&server, function.settings());
    let control = ports.control(&server);
    let mut routes = key_routes(&keys);
    routes.extend(datakey_routes(&server.data_keys));
    routes.extend(service_routes(&control));
    let log = ports.reading().audit_reading(&function.settings().audit);
    routes.extend(audit_routes(&log));
    let mut of_minio = minio::key_routes(&keys);
    of_minio.extend(minio::datakey_routes(&server.data_keys));
    of_minio.extend(minio::service_routes(&control, &machine));
    let buckets = function.buckets(&server)?;
    let rustfs = || RustFs::new(Arc::clone(&server.authenticator));
    let mount = Mount::new(rustfs(), PREFIXES.to_vec(), routes)?;
    let minio = Minio::new(Arc::clone(&server.authenticator));
    let minio = Mount::new(minio, minio::PREFIXES.to_vec(), of_minio)?;
    let buckets_in_json = Mount::new(rustfs(), BUCKET_PREFIXES.to_vec(), bucket_routes(&buckets))?;
    let s3 = Mount::new(
        S3::new(Arc::clone(&server.authenticator)),
        s3::PREFIXES.to_vec(),
        s3::bucket_routes(&buckets),
    )?;
    let site = function.site(mount)?.with(minio);
    let site = site
        .with(buckets_in_json)
        .with(keyway_openapi::mount()?)
        .with(s3);
    function.serve_site(site).await
}
