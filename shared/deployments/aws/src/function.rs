//! One Lambda function: its settings, its ports and its server.

use std::future::Future;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};
use aws_types::SdkConfig;
use clap::{Parser, ValueEnum};
use futures_util::future::join3;
use keyway_audit::Flushing;
use keyway_auth::certificate::{TrustedProxies, TrustedProxy};
use keyway_deployment_assembly::{
    Audit, FirstUse, Process, Proof, Reading, Services, Settings, SystemClock, SystemMachine,
    SystemRandom, VaultFiles, Writing, arguments, count_refused, default_key_id, environment,
    instance, metrics, must_fit, root_access_key, unread_variables, vaults,
};
use keyway_domain::audit::LogFollowing;
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::buckets::TableBuckets;
use keyway_domain::identity::{Identities, IdentityControl};
use keyway_domain::janitor::Janitor;
use keyway_domain::keyring::{KeyWrapper, KeyringOnDemand};
use keyway_domain::machine::Machine;
use keyway_domain::one_line;
use keyway_domain::policy::Policy;
use keyway_domain::ports::{Clock, Random, TableReader};
use keyway_domain::records::SignedTable;
use keyway_domain::service::Service;
use keyway_domain::wrappers::Wrappers;
use keyway_http::{Site, Stopwatch};
use keyway_logging::{LogFormat, start_log};
use keyway_metrics::{CountedTable, Emf, Export, Metrics, Open, TableCalls};
use keyway_runtime_hyper::{Address, listen, stop_signal};
use keyway_runtime_lambda::{EventSource, Ingress, ResourceChange};
use keyway_store_dynamodb::DynamoTable;

use crate::location::{self, Location, VAULT_TIMEOUT, counted};
use crate::object_store::ObjectStore;

/// A Keyway function. On Lambda it takes its settings from the variables named here; elsewhere it serves HTTP
#[derive(Parser)]
#[command(name = "keyway", version)]
struct Arguments {
    #[command(flatten)]
    place: Location,

    #[command(flatten)]
    object_store: ObjectStore,

    #[command(flatten)]
    vault: VaultFiles,

    #[command(flatten)]
    settings: Settings,

    /// Who proves a caller's identity
    #[arg(long, env = "KEYWAY_AUTH", value_enum, default_value_t = Auth::Sigv4)]
    auth: Auth,

    /// With --auth iam: the canned policy of the callers that the gateway lets through
    #[arg(
        long,
        env = "KEYWAY_IAM_POLICY",
        value_name = "NAME",
        default_value = "kms-admin"
    )]
    iam_policy: String,

    /// What sends events on Lambda: http-api, rest-api, alb, function-url, or api-gateway for an HTTP API and a REST API
    #[arg(long, env = "KEYWAY_EVENT_SOURCE", value_name = "SOURCE")]
    event_source: Option<EventSource>,

    /// The stage that the gateway puts before every path; none for a $default stage
    #[arg(long, env = "KEYWAY_STAGE", value_name = "NAME")]
    stage: Option<String>,

    /// Answer with a response stream, as a function URL in the mode RESPONSE_STREAM wants it
    #[arg(long, env = "KEYWAY_RESPONSE_STREAMING", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    response_streaming: bool,

    /// Configure the local backend with its defaults and start it, if nothing is configured yet
    #[arg(long, env = "KEYWAY_START", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    start: bool,

    /// With --start: the key of data-key requests that name none
    #[arg(long, env = "KEYWAY_DEFAULT_KEY_ID", value_name = "KEY_ID")]
    default_key_id: Option<String>,

    /// Of the setup function: start anew if there is a root keyring and the table is empty: everything that was in the table is lost
    #[arg(long, env = "KEYWAY_ACCEPT_EMPTY_TABLE", value_name = "BOOL", default_value_t = false,
          value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    accept_empty_table: bool,

    /// Loopback address to listen on where there is no Lambda
    #[arg(
        long,
        env = "KEYWAY_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9001"
    )]
    listen: Address,

    /// How metrics are exported on Lambda; elsewhere they are at /metrics
    #[arg(long, env = "KEYWAY_METRICS", value_enum, default_value_t = Metering::Failures)]
    metrics: Metering,

    /// CloudWatch's namespace of these metrics: one for each deployment, or their sums are mixed
    #[arg(
        long,
        env = "KEYWAY_METRICS_NAMESPACE",
        value_name = "NAME",
        default_value = "Keyway"
    )]
    metrics_namespace: String,

    /// What is logged: error, warn, info, debug or trace
    #[arg(long, env = "KEYWAY_LOG", value_name = "LEVEL", default_value = "info")]
    log: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Metering {
    /// Only failures, as lines of the log from which CloudWatch makes metrics; no line while nothing fails
    Failures,
    /// All, as such lines: at most once a minute and instance
    Emf,
    /// Not at all
    Off,
}

impl Metering {
    fn export(self) -> Option<Export> {
        match self {
            Self::Failures => Some(Export::Failures),
            Self::Emf => Some(Export::All),
            Self::Off => None,
        }
    }
}

/// Writes lines for CloudWatch to standard output. A failed write is ignored: then nobody reads the output.
fn say(lines: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    drop(out.write_all(lines.as_bytes()).and_then(|()| out.flush()));
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Auth {
    /// The caller's signature, made with an access key of this deployment
    Sigv4,
    /// The gateway in front, which verifies IAM callers
    Iam,
}

/// A function that is starting.
pub struct Function {
    arguments: Arguments,
    aws: SdkConfig,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    machine: Arc<dyn Machine>,
    metrics: Arc<Metrics>,
    audit: OnceLock<Audit>,
    keyring: OnceLock<Arc<KeyringOnDemand>>,
}

impl Function {
    /// Reads the environment and starts the log. `commit` is what the function was built from.
    ///
    /// # Errors
    /// When a setting is missing or invalid; the text names it.
    pub fn start(commit: Option<&'static str>) -> anyhow::Result<Self> {
        let mut arguments: Arguments = arguments(commit);
        start_log(LogFormat::Json, &arguments.log)
            .map_err(anyhow::Error::from_boxed)
            .context("KEYWAY_LOG")?;
        for unread in unread_variables::<Arguments>() {
            tracing::warn!("{unread}");
        }
        let missing = arguments.place.missing_variables(on_lambda()?)?;
        if !missing.is_empty() {
            bail!(
                "variables that a function needs are not set: {}",
                missing.join(", ")
            );
        }
        keyway_crypto::self_test().context("the cryptography of this build does not work")?;
        let machine: Arc<dyn Machine> = Arc::new(SystemMachine::start(commit));
        let aws = location::from_environment(arguments.place.region.as_deref())?;
        let region = &mut arguments.settings.aws_region;
        if region.is_none() {
            *region = aws.region().map(ToString::to_string);
        }
        Ok(Self {
            arguments,
            aws,
            metrics: metrics(&machine)?,
            machine,
            clock: Arc::new(SystemClock::start()),
            random: Arc::new(SystemRandom::default()),
            audit: OnceLock::new(),
            keyring: OnceLock::new(),
        })
    }

    /// The services of a function that only reads the table, warmed.
    ///
    /// # Errors
    /// When the settings contradict each other. An unreachable backend is no error here: it is logged, and requests
    /// fail until it can be reached.
    pub async fn reading(&self) -> anyhow::Result<Services> {
        let table = Arc::new(self.arguments.place.table(&self.aws, &self.clock)?);
        let keyring = Arc::new(KeyringOnDemand::opening(
            Arc::clone(&table) as _,
            counted(
                self.arguments.place.keyring_secrets(&self.aws)?,
                Some(&self.metrics),
            ),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        ));
        self.keyring.get_or_init(|| Arc::clone(&keyring));
        let ports = Reading {
            table: Arc::new(SignedTable::new(Arc::clone(&table), Arc::clone(&keyring))),
            stored: table,
            keyring: Arc::clone(&keyring),
            wrapper: Arc::clone(&keyring) as _,
            vaults: vaults(
                &self.clock,
                VAULT_TIMEOUT,
                &self.arguments.vault,
                self.arguments.vault.token_folders(),
            )?,
            folder: None,
            changes: None,
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        };
        let ports = ports.counted(&self.metrics);
        let server = ports.server(&self.arguments.settings, self.proof()?);
        server.measured_by(&self.metrics);
        warm(&keyring, &server).await;
        Ok(server)
    }

    /// The services and ports of a function that writes the table, warmed. The deployment must exist: [`Function::establish`]
    /// makes it. Its service is started if the settings say so.
    ///
    /// # Errors
    /// As [`Function::reading`].
    pub async fn writing(&self) -> anyhow::Result<(Services, Writing)> {
        let arguments = &self.arguments;
        let (ports, keyring) = location::open(
            &arguments.place,
            &arguments.vault,
            FirstUse::IsRefused,
            &self.aws,
            &self.clock,
            &self.random,
            Some(&self.metrics),
        )?;
        self.keyring.get_or_init(|| Arc::clone(&keyring));
        let (ports, table_health) = ports.watched();
        let server = ports.reading().server(&arguments.settings, self.proof()?);
        server.measured_by(&self.metrics);
        server.service.check_also(table_health);
        self.audit()?.checked_by(&server.service);
        let default_key_id = default_key_id(arguments.default_key_id.as_deref())?;
        if arguments.start {
            let (table, random) = (Arc::clone(&ports.table), Arc::clone(&ports.random));
            server
                .service
                .start_when_asked(table, random, default_key_id);
        }
        warm(&keyring, &server).await;
        Ok((server, ports))
    }

    /// Makes the deployment if neither its table nor its root keyring exists. Else checks that the two belong together.
    /// Then protects the table from deletion. May run more than once.
    ///
    /// # Errors
    /// When one of the two is missing, when they belong to different deployments, and when a service fails.
    pub async fn establish(&self) -> anyhow::Result<()> {
        let arguments = &self.arguments;
        let first_use = FirstUse::Makes {
            accept_empty_table: arguments.accept_empty_table,
        };
        let (_, keyring) = location::open(
            &arguments.place,
            &arguments.vault,
            first_use,
            &self.aws,
            &self.clock,
            &self.random,
            None,
        )?;
        must_fit(&keyring).await?;
        let table = arguments.place.table(&self.aws, &self.clock)?;
        table.protect().await.context("the table")?;
        tracing::info!("the table and the root keyring belong together");
        Ok(())
    }

    /// Establishes the deployment for each event of CloudFormation's custom resource, or once where there is no Lambda. A
    /// deleted stack changes nothing.
    ///
    /// # Errors
    /// As [`Function::establish`], where there is no Lambda.
    pub async fn serve_deployment(self) -> anyhow::Result<()> {
        if !on_lambda()? {
            return self.establish().await;
        }
        let job = async |change| match change {
            ResourceChange::Delete => Ok(()),
            ResourceChange::Create | ResourceChange::Update => {
                let established = self.establish().await;
                established.map_err(|error| {
                    let reason = one_line(error.as_ref());
                    tracing::error!(error = reason, "the deployment cannot be used");
                    reason
                })
            }
        };
        let put = async |url: String, answer| {
            let sent = keyway_aws::put_presigned(&url, answer).await;
            sent.map_err(Into::into)
        };
        keyway_runtime_lambda::serve_resource(job, put)
            .await
            .map_err(anyhow::Error::from_boxed)
    }

    /// The operations on buckets for services of [`Function::reading`] or [`Function::writing`]: buckets of the object
    /// store that the settings name, else of the table. In the table, only the records of buckets are written.
    ///
    /// # Errors
    /// When the settings do not say where the table or the object store is.
    pub fn buckets(&self, server: &Services) -> anyhow::Result<Arc<BucketOperations>> {
        let arguments = &self.arguments;
        let table = self.signed_table()?;
        let random = Arc::clone(&self.random);
        let buckets = match arguments.object_store.open(Some(&self.aws))? {
            Some(store) => store.tracked(table, random),
            None => Arc::new(TableBuckets::new(table, Arc::clone(&self.clock), random)),
        };
        Ok(server.buckets(buckets))
    }

    /// The identities and policies of KES's API, and what changes them. Only these are read, written and signed.
    ///
    /// # Errors
    /// When the settings do not say where the table or the root keyring is.
    pub fn access(&self) -> anyhow::Result<(Arc<Identities>, Arc<IdentityControl>)> {
        let table = self.signed_table()?;
        let settings = &self.arguments.settings;
        let identities = Arc::new(Identities::new(
            Arc::clone(&table) as _,
            Arc::clone(&self.clock),
            settings.state_ttl,
            settings.kes.admin.clone(),
        ));
        let control =
            IdentityControl::new(table, Arc::clone(&identities), Arc::clone(&self.random));
        Ok((identities, Arc::new(control)))
    }

    /// The table, with its records signed and verified and its calls counted. It uses the keyring that the function has
    /// opened already, else one that is opened when it is first needed.
    fn signed_table(&self) -> anyhow::Result<Arc<SignedTable<CountedTable<DynamoTable>>>> {
        let keyring = match self.keyring.get() {
            Some(keyring) => keyring,
            None => {
                let secrets = self.arguments.place.keyring_secrets(&self.aws)?;
                let secrets = counted(secrets, Some(&self.metrics));
                let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
                let keyring = Arc::new(KeyringOnDemand::signing(secrets, clock, random));
                count_refused(&keyring, &self.metrics);
                self.keyring.get_or_init(|| keyring)
            }
        };
        keyring.look_again_after(self.arguments.settings.state_ttl);
        let signed = SignedTable::new(self.table()?, Arc::clone(keyring));
        Ok(Arc::new(signed))
    }

    /// The table, with its calls counted.
    fn table(&self) -> anyhow::Result<Arc<CountedTable<DynamoTable>>> {
        let table = Arc::new(self.arguments.place.table(&self.aws, &self.clock)?);
        let counted = CountedTable::new(table, TableCalls::new(&self.metrics, &self.clock));
        Ok(Arc::new(counted))
    }

    /// How requests are served.
    pub fn settings(&self) -> &Settings {
        &self.arguments.settings
    }

    /// This process and its settings.
    ///
    /// # Errors
    /// When the settings name a header about certificates, but no proxy that is trusted to send it.
    pub fn process(&self) -> anyhow::Result<Process<'_>> {
        Ok(Process {
            settings: &self.arguments.settings,
            machine: &self.machine,
            clock: &self.clock,
            metrics: &self.metrics,
            kes_proxy: self.kes_proxy()?,
            pays_for_transfer: true,
        })
    }

    /// The proxy whose header about a client's certificate KES's API believes: one that the settings name, or the load
    /// balancer if only a load balancer sends events. Gateways pass certificates in the event instead.
    fn kes_proxy(&self) -> anyhow::Result<Option<TrustedProxy>> {
        let behind_alb = on_lambda()? && self.arguments.event_source == Some(EventSource::Alb);
        let kes = &self.arguments.settings.kes;
        let proxy = kes.trusted_proxy(behind_alb.then_some(TrustedProxies::Everybody));
        if proxy.is_none() && kes.proxy_header.is_some() {
            bail!(
                "KEYWAY_KES_PROXY_HEADER needs KEYWAY_KES_PROXIES, or KEYWAY_EVENT_SOURCE=alb on Lambda"
            );
        }
        Ok(proxy)
    }

    /// Destroys and rotates the keys that are due, and records each one in the audit log at once. It needs the root
    /// keyring to tell a true record from a forged one, to wrap the new versions of keys, and to log in to a Vault.
    ///
    /// # Errors
    /// When the settings do not say where the table or the root keyring is.
    pub fn janitor(&self) -> anyhow::Result<Janitor> {
        let keyring = Arc::new(KeyringOnDemand::opening(
            self.table()? as _,
            counted(
                self.arguments.place.keyring_secrets(&self.aws)?,
                Some(&self.metrics),
            ),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        ));
        let keyring = self.keyring.get_or_init(|| keyring);
        count_refused(keyring, &self.metrics);
        let table = self.signed_table()?;
        let service = Service::new(
            Arc::clone(&table) as _,
            Arc::clone(&self.clock),
            self.arguments.settings.state_ttl,
        );
        let wrappers = Arc::new(Wrappers::new(
            Arc::clone(keyring) as Arc<dyn KeyWrapper>,
            vaults(
                &self.clock,
                VAULT_TIMEOUT,
                &self.arguments.vault,
                self.arguments.vault.token_folders(),
            )?,
        ));
        Ok(Janitor::new(
            table,
            Arc::new(service),
            wrappers,
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            self.audit()?.background(),
        )
        .remembering_in_table())
    }

    /// A random number that distinguishes this process from others, for its site.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn instance(&self) -> anyhow::Result<u64> {
        instance(self.random.as_ref())
    }

    /// Follows the logs where answers can go on: not on Lambda, unless responses are streamed.
    ///
    /// # Errors
    /// When the settings do not say where the table is.
    pub fn following(&self) -> anyhow::Result<Option<Arc<dyn LogFollowing>>> {
        if on_lambda()? && !self.arguments.response_streaming {
            return Ok(None);
        }
        let table: Arc<dyn TableReader> = self.table()?;
        Ok(self.audit()?.following(&table, &self.clock))
    }

    /// The function's audit log. In the table, only audit events are written.
    fn audit(&self) -> anyhow::Result<&Audit> {
        if let Some(audit) = self.audit.get() {
            return Ok(audit);
        }
        let table = self.table()?;
        // On Lambda nothing runs once a request is answered.
        let flushing = if on_lambda()? {
            Flushing::ByRequest
        } else {
            Flushing::ByTask
        };
        let settings = &self.arguments.settings.audit;
        let errors = Arc::new(keyway_logging::errors);
        let audit = Audit::open(settings, table, &self.clock, &self.random, flushing, errors)?;
        Ok(self.audit.get_or_init(|| audit))
    }

    /// Serves the site until Lambda ends the process, or on a local listener until it is asked to stop. Every request is
    /// audited.
    ///
    /// # Errors
    /// When the settings do not say where the table is or what sends events, or the listener cannot be bound.
    pub async fn serve(self, site: Site) -> anyhow::Result<()> {
        // The audit log is the first observer, so that metrics count the answers that it refuses.
        let site = self.audit()?.observer(site);
        let site = site.with_cors(self.arguments.settings.cors_origins.clone());
        let stopwatch: Stopwatch = {
            let clock = Arc::clone(&self.clock);
            Arc::new(move || clock.monotonic())
        };
        if let Some(audit) = self.audit.get() {
            audit.measured_by(&self.metrics);
        }
        let told = |metrics: &Metrics| metrics.error_events(keyway_logging::error_count());
        self.metrics.look_at(told);
        let mut site = site.observed_by(Arc::clone(&self.metrics) as _, Arc::clone(&stopwatch));
        if !on_lambda()? {
            site = site.with(keyway_metrics::mount(&self.metrics, Open::ToLoopback)?);
        } else if let Some(export) = self.arguments.metrics.export() {
            // It comes after the metrics that it writes.
            let namespace = self.arguments.metrics_namespace.as_str();
            let emf = Emf::new(&self.metrics, &self.clock, export, namespace, Box::new(say));
            site = site.observed_by(Arc::new(emf), stopwatch);
        }
        let site = Arc::new(site);
        if on_lambda()? {
            let Some(source) = self.arguments.event_source else {
                bail!(
                    "KEYWAY_EVENT_SOURCE must say what sends events: http-api, rest-api, alb, function-url or api-gateway"
                );
            };
            let ingress = Ingress {
                source,
                stage: self.arguments.stage,
                streaming: self.arguments.response_streaming,
            };
            return keyway_runtime_lambda::serve(site, ingress)
                .await
                .map_err(anyhow::Error::from_boxed);
        }
        let stop = stop_signal()?;
        let listener = listen(self.arguments.listen, false).await?;
        tracing::info!(listen = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "serving");
        keyway_runtime_hyper::serve(listener, site, stop).await;
        if let Some(audit) = self.audit.get() {
            audit.finish().await;
        }
        Ok(())
    }

    /// Runs the job for every event, or once where there is no Lambda. Its result and its failure are logged; a failure
    /// also fails the invocation.
    ///
    /// # Errors
    /// The job's error, where there is no Lambda.
    pub async fn serve_schedule<F, Fut>(self, job: F) -> anyhow::Result<()>
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<serde_json::Value>> + Send + 'static,
    {
        if on_lambda()? {
            return keyway_runtime_lambda::serve_schedule(move || {
                let done = job();
                async move {
                    let done = done.await;
                    match &done {
                        Ok(report) => tracing::info!(%report, "the scheduled job is done"),
                        Err(error) => {
                            let error = one_line(error.as_ref());
                            tracing::error!(error, "the scheduled job failed");
                        }
                    }
                    done.map_err(Into::into)
                }
            })
            .await
            .map_err(anyhow::Error::from_boxed);
        }
        let report = job().await?;
        if let Some(audit) = self.audit.get() {
            audit.finish().await;
        }
        tracing::info!(%report, "the scheduled job is done");
        Ok(())
    }

    fn proof(&self) -> anyhow::Result<Proof> {
        let arguments = &self.arguments;
        match arguments.auth {
            Auth::Iam => match Policy::canned(&arguments.iam_policy) {
                Some(policy) => Ok(Proof::Gateway(policy)),
                None => bail!("KEYWAY_IAM_POLICY does not name a canned policy"),
            },
            Auth::Sigv4 => Ok(Proof::Signature(
                match arguments.place.root_access_key(&self.aws)? {
                    Some(kept) => kept,
                    None => root_access_key()?,
                },
            )),
        }
    }
}

/// The exit code of a function. An error is printed in one line; Rust's own report of an error of `main` has several.
#[expect(clippy::print_stderr, reason = "the log may not be set up yet")]
pub fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keyway: {}", one_line(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Opens connections and reads what the first request would wait for, all at the same time. A failure is logged once,
/// and requests are refused while it lasts.
async fn warm(keyring: &KeyringOnDemand, server: &Services) {
    // The authenticator logs its own failure.
    let (opened, (), config) = join3(
        keyring.keyring(),
        server.authenticator.warm(),
        server.service.config(),
    )
    .await;
    if let Err(error) = opened {
        // The configuration cannot be verified without the keyring, so this is the same failure.
        tracing::error!(
            error = one_line(&error),
            "no key can be used until the root keyring can"
        );
    } else if let Err(error) = config {
        tracing::error!(
            error = error.for_operator(),
            "the service's configuration could not be read"
        );
    }
}

fn on_lambda() -> anyhow::Result<bool> {
    Ok(environment("AWS_LAMBDA_RUNTIME_API")?.is_some())
}
