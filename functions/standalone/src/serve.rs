//! `keyway serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use futures_util::FutureExt;
use keyway_deployment_assembly::{
    Audit, Process, Proof, Services, Settings, Sweeping, SystemMachine, Upkeep, Writing,
    conceal_memory, default_key_id, follow_changes, instance, metrics, places, raise_open_files,
    root_access_key,
};
use keyway_deployment_aws::ObjectStore;
use keyway_dialect_kes::Kes;
use keyway_domain::access::{NewAccessKey, RootAccessKey};
use keyway_domain::machine::Machine;
use keyway_domain::ports::{Consistency, Forgery, Kind, TableReader};
use keyway_domain::service::{SERVICE_RECORD, ServiceState};
use keyway_domain::{KmsError, one_line};
use keyway_http::{BodyMemory, Mount, Site, Stopwatch};
use keyway_logging::{LogFormat, check_levels, start_log};
use keyway_metrics::{Metrics, Open};
use keyway_runtime_hyper::{
    Address, Bounds, Clients, Cores, Crowded, HandshakeFailure, Listener, Tls, listen, listen_tls,
    open_connections, serve_all, stop_signal,
};
use keyway_sites::{Composition, Mounted};

use crate::access_key::text;
use crate::kes_listener::{self, KesListener, Made};
use crate::listener_files::TlsFiles;
use crate::location::{Deployment, buckets};
use crate::traces::Spans;
use crate::{service_manager, tell};

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

    /// Start anew if there is a root keyring and the table is empty: everything that was in the table is lost
    #[arg(long, env = "KEYWAY_ACCEPT_EMPTY_TABLE", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    accept_empty_table: bool,

    #[command(flatten)]
    tls: TlsFiles,

    /// Serve plain HTTP on an address that is not loopback; data keys are then readable on the network
    #[arg(long, env = "KEYWAY_INSECURE_HTTP", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    insecure_http: bool,

    /// Which callers may see /metrics; behind a proxy on this machine, every caller counts as loopback
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

impl Serve {
    /// The options that would be ignored beside the others.
    pub(crate) fn options_without_effect(&self) -> Vec<String> {
        let mut found = Vec::new();
        if self.default_key_id.is_some() && !self.start {
            let text = "--default-key-id (KEYWAY_DEFAULT_KEY_ID) belongs to --start (KEYWAY_START)";
            found.push(text.to_owned());
        }
        if self.insecure_http && self.tls.tls_cert.is_some() {
            let text = "--insecure-http (KEYWAY_INSECURE_HTTP) and --tls-cert (KEYWAY_TLS_CERT) exclude each other";
            found.push(text.to_owned());
        }
        if let Some(option) = self.settings.kes.changed()
            && !self.kes.is_asked_for()
        {
            found.push(format!(
                "{option} belongs to --kes-listen (KEYWAY_KES_LISTEN)"
            ));
        }
        found
    }

    /// What is wrong with the settings, as far as it shows without opening the deployment.
    pub(crate) fn mistakes(&self) -> Vec<String> {
        let mut found = self.options_without_effect();
        let checks = [
            check_levels(&self.log).context("--log (KEYWAY_LOG)"),
            default_key_id(self.default_key_id.as_deref()).map(drop),
            root_access_key().map(drop),
            kes_listener::check(&self.settings.kes),
        ];
        let wrong = checks.into_iter().filter_map(Result::err);
        found.extend(wrong.map(|error| one_line(error.as_ref())));
        found
    }

    /// Without --table, --region was the signatures' region up to 0.1.0.
    fn take_former_region(&mut self) {
        let Deployment { aws, .. } = &mut self.deployment;
        if aws.name().is_none()
            && !aws.names_secrets()
            && self.settings.signing_region.is_none()
            && let Some(region) = aws.region.take()
        {
            tracing::warn!(
                "--region is the AWS region of --table; use --signing-region for the region of signatures"
            );
            self.settings.signing_region = Some(region);
        }
    }

    /// The data folder, unless the table is a database.
    fn folder(&self) -> Option<&Path> {
        let has_folder = self.deployment.has_table_in_folder();
        has_folder.then_some(self.deployment.operator.data_dir.as_path())
    }
}

pub(crate) async fn run(mut serve: Serve, unread: Vec<String>) -> anyhow::Result<()> {
    start_logging(&serve)?;
    for unread in unread {
        tracing::warn!("{unread}");
    }
    let without_effect = serve.options_without_effect();
    if !without_effect.is_empty() {
        bail!("{}", without_effect.join("; "));
    }
    serve.take_former_region();
    let open_files = raise_open_files();
    let stop = stop_signal()?;
    // Dropped last: what requests began on these threads must end in order.
    let cores = Cores::start()?;
    let machine: Arc<dyn Machine> = Arc::new(SystemMachine::start(crate::COMMIT));
    let metrics = metrics(&machine)?;
    let Ready {
        ports,
        server,
        audit,
        status,
        makes_root,
    } = Ready::open(&serve, &metrics).await?;

    let Sites { site, kes } = serve
        .sites(&server, &ports, &audit, &machine, &metrics)
        .await?;
    let stopwatch: Stopwatch = {
        let clock = Arc::clone(&ports.clock);
        Arc::new(move || clock.monotonic())
    };
    let spans = Spans::start(&ports.clock)?;
    // The audit log is the first observer, so that metrics and traces see its refusals.
    let watched = |site: Site| {
        let site = audit.observer(site);
        let site = site.observed_by(Arc::clone(&metrics) as _, Arc::clone(&stopwatch));
        spans.observer(site, &stopwatch)
    };
    measure(&metrics, &server, &audit);
    // Both listeners share one bound of memory for bodies.
    let body_memory = Arc::new(BodyMemory::default());
    let site = site.with_body_memory(&body_memory);
    let site = Arc::new(watched(site.with_cors(serve.settings.cors_origins.clone())));
    let (listener, encrypted) = main_listener(&serve).await?;
    let address = listener.local_addr()?;
    let mut listeners = vec![(listener, site)];
    let (mut kes_address, mut kes_certificate) = (None, None);
    if let (Some((listener, made)), Some(mount)) = (serve.kes.open(serve.folder()).await?, kes) {
        kes_address = Some(listener.local_addr()?);
        kes_certificate = made;
        let site =
            Site::new(instance(ports.random.as_ref())?, mount).with_body_memory(&body_memory);
        listeners.push((listener, Arc::new(watched(site))));
    }
    let sweeping = Sweeping::start(ports.janitor(&server, &audit), &metrics);
    let addresses = Addresses {
        main: address,
        encrypted,
        kes: kes_address,
        kes_certificate,
    };
    if makes_root {
        show_new_root(&ports).await?;
    }
    announce(&serve, status, &addresses);
    let watchdog = service_manager::ready(address);
    let stop = stop.inspect(|()| service_manager::stopping());
    let following = follow_changes(&ports, &server);
    let uses = ports.use_recorder(&server);
    let upkeep = Upkeep::start(server, uses);
    let bounds = Bounds {
        connections: places(open_files, listeners.len()),
        ..Bounds::default()
    };
    serve_all(listeners, &bounds, &cores, stop).await;
    upkeep.stop().await;
    following.abort();
    sweeping.stop().await;
    audit.finish().await;
    spans.finish().await;
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    tracing::info!("keyway has stopped");
    Ok(())
}

/// The site of the main listener, and KES's API for a listener of its own.
struct Sites {
    site: Site,
    kes: Option<Mount<Kes>>,
}

impl Serve {
    async fn sites(
        &self,
        server: &Services,
        ports: &Writing,
        audit: &Audit,
        machine: &Arc<dyn Machine>,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<Sites> {
        let keys = ports.keys(server, &self.settings);
        let buckets = server.buckets(buckets(&self.object_store, ports).await?);
        let process = Process {
            settings: &self.settings,
            machine,
            clock: &ports.clock,
            metrics,
            kes_proxy: self.settings.kes.trusted_proxy(None),
            pays_for_transfer: false,
        };
        let mut composition = Composition::of(server, &process);
        if self.kes.is_asked_for() {
            kes_listener::check(&self.settings.kes)?;
            composition = composition.with_kes()?;
        }
        let table: Arc<dyn TableReader> = Arc::clone(&ports.table) as _;
        let following = audit.following(&table, &ports.clock);
        let composition = composition.every_group(ports, &keys, &buckets, following.as_ref())?;
        let mut mounts = composition.mounts()?;
        let kes = mounts.kes.take().map(Mounted::into_mount);
        let site = mounts.site(instance(ports.random.as_ref())?)?;
        let site = match self.metrics {
            Metering::Off => site,
            Metering::Loopback => site.with(keyway_metrics::mount(metrics, Open::ToLoopback)?),
            Metering::Open => site.with(keyway_metrics::mount(metrics, Open::ToEverybody)?),
        };
        Ok(Sites { site, kes })
    }
}

fn start_logging(serve: &Serve) -> anyhow::Result<()> {
    start_log(serve.log_format, &serve.log)
        .map_err(anyhow::Error::from_boxed)
        .context("--log (KEYWAY_LOG)")?;
    // This comes before any secret is read.
    if let Err(error) = conceal_memory() {
        tracing::warn!(%error, "memory may end up in a core file: turn core files off");
    }
    Ok(())
}

/// The open deployment. Its service is configured and started if the settings ask for that.
struct Ready {
    ports: Writing,
    server: Services,
    audit: Audit,
    /// The service's status, for the log.
    status: &'static str,
    /// Whether the table holds the root access key, which the first start makes.
    makes_root: bool,
}

impl Ready {
    async fn open(serve: &Serve, metrics: &Arc<Metrics>) -> anyhow::Result<Self> {
        let default_key_id = default_key_id(serve.default_key_id.as_deref())?;
        let (ports, kept) = serve
            .deployment
            .open(metrics, serve.accept_empty_table)
            .await?;
        let (ports, table_health) = ports.watched();
        let root = match (kept, root_access_key()?) {
            (None, root) => root,
            (Some(kept), RootAccessKey::InTable) => kept,
            (Some(_), _) => bail!(
                "both KEYWAY_ROOT_ACCESS_KEY and --root-access-key-secret (KEYWAY_ROOT_ACCESS_KEY_SECRET) give a root access key; give one of them"
            ),
        };
        let makes_root = matches!(root, RootAccessKey::InTable);
        let server = ports
            .reading()
            .server(&serve.settings, Proof::Signature(root));
        if serve.start {
            let started = ports.start_if_new(&server.service, default_key_id).await;
            if let Err(error) = started {
                return Err(unusable(&ports, "the service could not be configured", &error).await);
            }
        }
        let errors = Arc::new(keyway_logging::errors);
        let audit = ports.audit(&serve.settings.audit, errors)?;
        server.service.check_also(table_health);
        audit.checked_by(&server.service);
        let config = match server.service.config().await {
            Ok(config) => config,
            Err(error) => return Err(unusable(&ports, "the configuration", &error).await),
        };
        let status = match config.map(|config| config.state) {
            None => "NotConfigured",
            Some(ServiceState::Configured) => "Configured",
            Some(ServiceState::Running) => "Running",
        };
        Ok(Self {
            ports,
            server,
            audit,
            status,
            makes_root,
        })
    }
}

/// The error of a configuration that cannot be used, and what to do if its root was given up.
async fn unusable(ports: &Writing, what: &str, error: &KmsError) -> anyhow::Error {
    let text = format!("{what}: {}", error.for_operator());
    if is_config_lost(ports).await == Some(true) {
        return anyhow!(
            "{text}; that root was given up: `keyway restore --from BACKUP` writes the records again that it signed"
        );
    }
    anyhow!(text)
}

/// Whether the configuration was signed by a root that was given up; `None` if it cannot be told.
async fn is_config_lost(ports: &Writing) -> Option<bool> {
    let read = ports
        .stored
        .get(Kind::Config, SERVICE_RECORD, Consistency::Strong);
    let record = read.await.ok()??;
    let keyring = ports.keyring.keyring().await.ok()?;
    let is_unknown = keyring.must_verify(&record) == Err(Forgery::UnknownRoot);
    Some(is_unknown && keyring.refuses_for_good(&record))
}

/// Makes the root access key if there is none, and shows it. This is the last step of a start, for a start that fails must
/// not use up the one time that the key is shown.
async fn show_new_root(ports: &Writing) -> anyhow::Result<()> {
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
    Ok(())
}

/// Adds to the metrics the counters that are kept elsewhere.
fn measure(metrics: &Arc<Metrics>, server: &Services, audit: &Audit) {
    server.measured_by(metrics);
    audit.measured_by(metrics);
    metrics.look_at(|metrics| metrics.error_events(keyway_logging::error_count()));
    metrics.look_at(|metrics| {
        let crowded = Crowded::ALL.map(|reason| (reason.as_str(), reason.count()));
        metrics.connections(open_connections(), crowded);
        let failed = HandshakeFailure::ALL.map(|reason| (reason.as_str(), reason.count()));
        metrics.handshakes(failed);
    });
}

/// The listener of every API but KES's, and whether it speaks TLS.
async fn main_listener(serve: &Serve) -> anyhow::Result<(Listener, bool)> {
    let tls = match (&serve.tls.tls_cert, &serve.tls.tls_key) {
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
    Ok((listener, encrypted))
}

/// The addresses that the process serves.
struct Addresses {
    main: SocketAddr,
    encrypted: bool,
    kes: Option<SocketAddr>,
    kes_certificate: Option<Made>,
}

/// Logs that the process serves.
fn announce(serve: &Serve, status: &str, addresses: &Addresses) {
    let certificate = addresses.kes_certificate.as_ref();
    tracing::info!(
        healthy = true,
        status,
        listen = %addresses.main,
        tls = addresses.encrypted.then_some(true),
        kes = addresses.kes.map(display),
        kes_certificate = certificate.and_then(|made| Some(display(made.path.as_ref()?.display()))),
        kes_sha256 = certificate.map(|made| made.sha256.as_str()),
        version = env!("CARGO_PKG_VERSION"),
        data_dir = serve.folder().map(|folder| display(folder.display())),
        table = serve.deployment.aws.name(),
        postgres = serve.deployment.postgres.name(),
        "keyway is serving"
    );
}

fn tell_root_access_key(key: &NewAccessKey) {
    tell(&format!(
        "\nThe root access key of this deployment. It is shown this once; keep it safe.\n\n  \
         AWS_ACCESS_KEY_ID={}\n  AWS_SECRET_ACCESS_KEY={}\n",
        key.id.as_str(),
        text(&key.secret)
    ));
}
