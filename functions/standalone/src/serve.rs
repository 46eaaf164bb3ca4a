//! `keyway serve`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use keyway_deployment_assembly::{
    Proof, Services, Settings, SystemMachine, conceal_memory, default_key_id, instance, metrics,
    minio_metrics, places, raise_open_files, root_access_key,
};
use keyway_deployment_aws::ObjectStore;
use keyway_dialect_kes as kes;
use keyway_dialect_minio as minio;
use keyway_dialect_rustfs as rustfs;
use keyway_dialect_s3 as s3;
use keyway_dialect_sts as sts;
use keyway_domain::access::{NewAccessKey, RootAccessKey};
use keyway_domain::janitor::Janitor;
use keyway_domain::machine::Machine;
use keyway_domain::ports::TableReader;
use keyway_domain::service::ServiceState;
use keyway_http::{BodyMemory, Site, Stopwatch};
use keyway_logging::{LogFormat, start_log};
use keyway_metrics::{Metrics, Open};
use keyway_runtime_hyper::{
    Address, Bounds, Clients, Crowded, HandshakeFailure, Tls, listen, listen_tls, open_connections,
    serve_all, stop_signal,
};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::access_key::text;
use crate::kes_listener::{self, KesListener};
use crate::location::{Deployment, buckets};
use crate::tell;
use crate::traces::Spans;

#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    deployment: Deployment,

    #[command(flatten)]
    object_store: ObjectStore,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    kes: KesListener,

    /// Address to listen on; :9000 is every address of this machine; port 0 takes a free one and the log says which
    #[arg(
        long,
        env = "KEYWAY_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9000"
    )]
    listen: Address,

    /// Configure the local backend with its defaults and start it, if nothing is configured yet
    #[arg(long, env = "KEYWAY_START", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    start: bool,

    /// With --start: the key of data-key requests that name none
    #[arg(long, env = "KEYWAY_DEFAULT_KEY_ID", value_name = "KEY_ID")]
    default_key_id: Option<String>,

    /// Begin anew where there is a root keyring and the table is empty: everything that was in it is lost
    #[arg(long, env = "KEYWAY_ACCEPT_EMPTY_TABLE", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    accept_empty_table: bool,

    /// Serve TLS with this certificate, and its chain after it, in PEM; read again when it changes
    #[arg(
        long,
        env = "KEYWAY_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,

    /// The key of --tls-cert in PEM
    #[arg(
        long,
        env = "KEYWAY_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,

    /// Serve plain HTTP on an address that is not loopback; data keys are then readable on the network
    #[arg(long, env = "KEYWAY_INSECURE_HTTP", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    insecure_http: bool,

    /// Who may see metrics at /metrics; a proxy on this machine makes everybody loopback
    #[arg(long, env = "KEYWAY_METRICS", value_enum, default_value_t = Metering::Loopback)]
    metrics: Metering,

    /// How the log's lines look
    #[arg(long, env = "KEYWAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "KEYWAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Metering {
    /// Whoever connects from this machine
    Loopback,
    /// Everybody who can connect
    Open,
    /// Nobody: there is no such page
    Off,
}

pub(crate) async fn run(serve: Serve) -> anyhow::Result<()> {
    start_log(serve.log_format, &serve.log)
        .map_err(anyhow::Error::from_boxed)
        .context("--log (KEYWAY_LOG)")?;
    // Before anything secret is read.
    if let Err(error) = conceal_memory() {
        tracing::warn!(%error, "memory may end up in a core file: turn core files off");
    }
    let open_files = raise_open_files();
    let stop = stop_signal()?;
    let machine: Arc<dyn Machine> = Arc::new(SystemMachine::start());
    let default_key_id = default_key_id(serve.default_key_id.as_deref())?;
    let metrics = metrics(&machine)?;
    let (ports, kept) = serve
        .deployment
        .open(&metrics, serve.accept_empty_table)
        .await?;
    let (ports, table_health) = ports.watched();
    let root = match kept {
        Some(kept) => kept,
        None => root_access_key()?,
    };
    let generated = matches!(root, RootAccessKey::InTable);
    let server = ports
        .reading()
        .server(&serve.settings, Proof::Signature(root));
    if generated {
        let made = ports.access_keys().create_root_if_new().await;
        let made = made.map_err(|error| {
            anyhow!(
                "the root access key could not be made: {}",
                error.for_operator()
            )
        })?;
        if let Some(key) = made {
            tell_root_access_key(&key);
        }
    }
    if serve.start {
        ports
            .start_if_new(&server.service, default_key_id)
            .await
            .map_err(|error| {
                anyhow!(
                    "the service could not be configured: {}",
                    error.for_operator()
                )
            })?;
    }
    let errors = Arc::new(keyway_logging::errors);
    let audit = ports.audit(&serve.settings.audit, errors)?;
    server.service.check_also(table_health);
    audit.checked_by(&server.service);
    let config = server
        .service
        .config()
        .await
        .map_err(|error| anyhow!("the configuration: {}", error.for_operator()))?;
    let status = match config.map(|config| config.state) {
        None => "NotConfigured",
        Some(ServiceState::Configured) => "Configured",
        Some(ServiceState::Running) => "Running",
    };

    let keys = ports.keys(&server, &serve.settings);
    let control = ports.control(&server);
    let mut routes = rustfs::key_routes(&keys, &server.data_keys);
    routes.extend(rustfs::datakey_routes(&server.data_keys));
    let spelling = serve
        .settings
        .rustfs_spelling
        .parse()
        .context("--rustfs-spelling")?;
    routes.extend(rustfs::service_routes(&control, spelling));
    let log = ports.reading().audit_reading(&serve.settings.audit);
    routes.extend(rustfs::audit_routes(&log));
    let buckets = server.buckets(buckets(&serve.object_store, &ports).await?);
    routes.extend(rustfs::account_routes(&buckets));
    let authenticator = &server.authenticator;
    let mut of_minio = minio::key_routes(&keys);
    of_minio.extend(minio::datakey_routes(&server.data_keys));
    of_minio.extend(minio::service_routes(
        &control,
        &machine,
        &minio_metrics(&metrics),
    ));
    let sessions = ports.sessions(&server);
    let account = serve.settings.aws_account_id.clone();
    let mount = rustfs::mount(authenticator, routes)?;
    let site = Site::new(instance(ports.random.as_ref())?, mount)
        .with(minio::mount(authenticator, of_minio)?)
        .with(rustfs::bucket_mount(authenticator, &buckets)?)
        .with(s3::mount(authenticator, &buckets)?)
        .with(sts::mount(authenticator, sessions, account)?)
        .with(keyway_openapi::mount()?)
        .with(keyway_health::mount(&server.readiness())?);
    let site = match serve.metrics {
        Metering::Off => site,
        Metering::Loopback => site.with(keyway_metrics::mount(&metrics, Open::ToLoopback)?),
        Metering::Open => site.with(keyway_metrics::mount(&metrics, Open::ToEverybody)?),
    };
    let stopwatch: Stopwatch = {
        let clock = Arc::clone(&ports.clock);
        Arc::new(move || clock.monotonic())
    };
    let spans = Spans::start(&ports.clock)?;
    // Audit first: what it refuses is counted, and traced, as it was answered.
    let watched = |site: Site| {
        let site = audit.observer(site);
        let site = site.observed_by(Arc::clone(&metrics) as _, Arc::clone(&stopwatch));
        spans.observer(site, &stopwatch)
    };
    server.measured_by(&metrics);
    audit.measured_by(&metrics);
    metrics.look_at(|metrics| metrics.error_events(keyway_logging::error_count()));
    metrics.look_at(|metrics| {
        let crowded = Crowded::ALL.map(|reason| (reason.as_str(), reason.count()));
        metrics.connections(open_connections(), crowded);
        let failed = HandshakeFailure::ALL.map(|reason| (reason.as_str(), reason.count()));
        metrics.handshakes(failed);
    });
    // One memory for the bodies of both listeners.
    let body_memory = Arc::new(BodyMemory::default());
    let site = site.with_body_memory(&body_memory);
    let site = Arc::new(watched(site.with_cors(serve.settings.cors_origins.clone())));
    let tls = match (&serve.tls_cert, &serve.tls_key) {
        (Some(certificate), Some(key)) => Some(
            Tls::from_files(certificate, key, Clients::Anonymous)
                .context("--tls-cert and --tls-key")?,
        ),
        _ => None,
    };
    let encrypted = tls.is_some();
    let listener = match tls {
        Some(tls) => listen_tls(serve.listen.clone(), tls).await,
        None => listen(serve.listen.clone(), serve.insecure_http).await,
    };
    let listener = listener.with_context(|| format!("--listen {}", serve.listen))?;
    let address = listener.local_addr()?;
    let mut listeners = vec![(listener, site)];
    let on_aws = serve.deployment.aws.name().is_some();
    let folder = (!on_aws).then_some(serve.deployment.operator.data_dir.as_path());
    let (mut kes_address, mut kes_certificate) = (None, None);
    if let Some((listener, made)) = serve.kes.open(folder).await? {
        kes_address = Some(listener.local_addr()?);
        kes_certificate = made;
        let settings = &serve.settings.kes;
        let table: Arc<dyn TableReader> = Arc::clone(&ports.table) as _;
        let following = audit.following(&table, &ports.clock);
        let mount = kes_listener::mount(
            settings,
            &server,
            &ports,
            &keys,
            &machine,
            &metrics,
            kes::log_routes(&log, following.as_ref()),
        )?;
        let site =
            Site::new(instance(ports.random.as_ref())?, mount).with_body_memory(&body_memory);
        listeners.push((listener, Arc::new(watched(site))));
    }
    let (stop_sweeping, stopped) = oneshot::channel();
    let janitor = ports.janitor(&server, &audit);
    let janitor = tokio::spawn(sweep(janitor, Arc::clone(&metrics), stopped));
    tracing::info!(
        healthy = true,
        status,
        listen = %address,
        tls = encrypted.then_some(true),
        kes = kes_address.map(display),
        kes_certificate = kes_certificate.as_ref().and_then(|made| Some(display(made.path.as_ref()?.display()))),
        kes_sha256 = kes_certificate.as_ref().map(|made| made.sha256.as_str()),
        version = env!("CARGO_PKG_VERSION"),
        data_dir = folder.map(|folder| display(folder.display())),
        table = serve.deployment.aws.name(),
        "keyway is serving"
    );
    let upkeep = tokio::spawn(keep_up(server));
    let bounds = Bounds {
        connections: places(open_files, listeners.len()),
        ..Bounds::default()
    };
    serve_all(listeners, &bounds, stop).await;
    upkeep.abort();
    // Nobody hears it only if a sweep has panicked.
    stop_sweeping.send(()).ok();
    if tokio::time::timeout(SWEEP_GRACE, janitor).await.is_err() {
        tracing::warn!("the janitor was still at work");
    }
    audit.finish().await;
    spans.finish().await;
    tracing::info!("keyway has stopped");
    Ok(())
}

/// Deletion waits for days, so how often it is looked for matters little; a sweep reads every key.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// So long one is waited for at the end: a key that is destroyed is also to be in the audit log.
const SWEEP_GRACE: Duration = Duration::from_secs(10);

async fn sweep(janitor: Janitor, metrics: Arc<Metrics>, mut stopped: oneshot::Receiver<()>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            _ = &mut stopped => return,
        }
        match janitor.sweep().await {
            Ok(swept) => {
                metrics.keys(swept.keys);
                swept.log();
            }
            Err(error) => tracing::error!(
                error = error.for_operator(),
                "keys that are due could not be destroyed; the next sweep tries again"
            ),
        }
    }
}

/// Keys that nobody asks for, and logins that nobody uses, are looked after this often.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

async fn keep_up(server: Services) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failed = false;
    loop {
        interval.tick().await;
        let done = server.upkeep().await;
        if let Err(error) = &done
            && !failed
        {
            tracing::warn!(
                error = error.for_operator(),
                "upkeep failed; it is tried again every ten seconds"
            );
        }
        failed = done.is_err();
    }
}

fn tell_root_access_key(key: &NewAccessKey) {
    tell(&format!(
        "\nThe root access key of this deployment. It is shown this once; keep it safe.\n\n  \
         AWS_ACCESS_KEY_ID={}\n  AWS_SECRET_ACCESS_KEY={}\n",
        key.id.as_str(),
        text(&key.secret)
    ));
}
