//! Builds services and operations from a deployment's ports, on AWS or on one machine.
//!
//! Code that only reads the table is built from [`Reading`], whose ports cannot write it; code that writes is built
//! from [`Writing`].

mod apart;
mod audit;
mod kes;
mod keyring_vault;
mod machine;
mod output;
mod process;
mod settings;
mod system;
mod upkeep;
mod variables;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use keyway_auth::Authenticator;
use keyway_auth::certificate::TrustedProxy;
use keyway_auth::sigv4::Rules;
use keyway_domain::access::{AccessKeys, Credentials, RootAccessKey, Sessions, UseRecorder};
use keyway_domain::bucket_operations::BucketOperations;
use keyway_domain::buckets::{Buckets, TableBuckets};
use keyway_domain::control::{Readiness, ServiceControl};
use keyway_domain::datakey::DataKeys;
use keyway_domain::doctor::Doctor;
use keyway_domain::identity::{Identities, Identity, IdentityControl};
use keyway_domain::janitor::Janitor;
use keyway_domain::keyring::{KeyWrapper, KeyringOnDemand};
use keyway_domain::keys::{KeyDirectory, KeyId, KeyReader, Keys};
use keyway_domain::machine::Machine;
use keyway_domain::migration::KeyMigration;
use keyway_domain::policy::Policy;
use keyway_domain::ports::{
    ChangeFeed, Clock, KeyringFolder, Obey, Random, SecretStore, TableReader, TableWriter,
};
use keyway_domain::records::SignedRecords;
use keyway_domain::roots::Roots;
use keyway_domain::service::{
    HealthCheck, Service, ServiceState, WatchedTable, WriteFailure, keep_keyring,
};
use keyway_domain::transit::TransitRotation;
use keyway_domain::vault::Vaults;
use keyway_domain::wrappers::Wrappers;
use keyway_domain::{Fault, KmsError};
use keyway_metrics::{CountedTable, CountedVaults, CountedWrapper, Metrics, TableCalls};
use keyway_secrets_vault::VaultsOverHttp;

pub use apart::{Apart, FirstUse, must_fit};
pub use audit::{Audit, AuditSettings, Auditing, Told};
pub use kes::{Ciphertext, KesSettings, OnDelete};
pub use keyring_vault::KeyringVault;
pub use keyway_secrets_vault::TokenFolders;
pub use machine::SystemMachine;
pub use process::{conceal_memory, places, raise_open_files};
pub use settings::{
    AwsCiphertext, Settings, VaultFiles, default_key_id, duration, root_access_key,
};
pub use system::{SystemClock, SystemRandom};
pub use upkeep::{Sweeping, Upkeep, follow_changes};
pub use variables::{
    SECRETS, arguments, command, environment, secret, secret_line, unread_variables, variable,
};

/// The ports of one deployment.
#[derive(Clone)]
pub struct Ports<T: ?Sized> {
    /// The table, whose records are signed and verified by the root keyring.
    pub table: Arc<T>,
    /// The table as it is stored, for the operator's jobs on its signatures.
    pub stored: Arc<T>,
    /// The root keyring.
    pub keyring: Arc<KeyringOnDemand>,
    /// Wraps secrets under the root keyring.
    pub wrapper: Arc<dyn KeyWrapper>,
    /// Connects to Vaults.
    pub vaults: Arc<dyn Vaults>,
    /// The folder of the root keyring's file, on a deployment that has one.
    pub folder: Option<Arc<dyn KeyringFolder>>,
    /// Announces other processes' changes of the table, if the store does.
    pub changes: Option<Arc<dyn ChangeFeed>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
}

/// The stores of a deployment that a restore fills. They may be empty yet.
pub struct Stores {
    /// The table as it is stored; `None` if there is none yet and none may be made.
    pub table: Option<Arc<dyn TableWriter>>,
    /// The store of the root keyring; `None` if there is none yet and none may be made.
    pub secrets: Option<Arc<dyn SecretStore>>,
    /// The folder of the root keyring's file, if it is not the deployment's own.
    pub key_directory: Option<String>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
}

/// The ports of a process that reads the table.
pub type Reading = Ports<dyn TableReader>;
/// The ports of a process that writes the table.
pub type Writing = Ports<dyn TableWriter>;

/// How a caller's identity is proved.
pub enum Proof {
    /// The caller's own signature, made with an access key.
    Signature(RootAccessKey),
    /// A gateway that verifies IAM callers. They may do what the policy says.
    Gateway(Policy),
}

/// A process and its settings, from which its site is composed.
pub struct Process<'a> {
    /// How requests are served.
    pub settings: &'a Settings,
    /// The machine that the process runs on.
    pub machine: &'a Arc<dyn Machine>,
    /// Time.
    pub clock: &'a Arc<dyn Clock>,
    /// The metrics of the process.
    pub metrics: &'a Arc<Metrics>,
    /// The proxy whose header about a client's certificate KES's API believes.
    pub kes_proxy: Option<TrustedProxy>,
    /// Whether the operator pays for each byte that is sent, so that unauthenticated callers get no long answer often.
    pub pays_for_transfer: bool,
}

/// The operations that serve requests and only read the table.
pub struct Services {
    /// Authenticates callers.
    pub authenticator: Arc<Authenticator>,
    /// The operations on data keys.
    pub data_keys: Arc<DataKeys>,
    /// The service's state.
    pub service: Arc<Service>,
    /// The identities of KES's API and their policies.
    pub identities: Arc<Identities>,
    wrappers: Arc<Wrappers>,
    reader: Arc<KeyReader>,
    table: Arc<dyn TableReader>,
    folder: Option<Arc<dyn KeyringFolder>>,
    keyring: Arc<KeyringOnDemand>,
}

impl Services {
    /// Adds the metrics of the cache of keys.
    pub fn measured_by(&self, metrics: &Metrics) {
        metrics.of_cache(&self.reader);
    }

    /// Says whether this process can do its work.
    pub fn readiness(&self) -> Arc<Readiness> {
        Arc::new(Readiness::new(
            Arc::clone(&self.service),
            Arc::clone(&self.wrappers),
        ))
    }

    /// Describes and lists master keys.
    pub fn directory(&self) -> Arc<KeyDirectory> {
        let (reader, service) = (Arc::clone(&self.reader), Arc::clone(&self.service));
        Arc::new(KeyDirectory::new(reader, service))
    }

    /// The operations on these buckets.
    pub fn buckets(&self, buckets: Arc<dyn Buckets>) -> Arc<BucketOperations> {
        Arc::new(BucketOperations::new(
            buckets,
            Arc::clone(&self.reader),
            Arc::clone(&self.service),
        ))
    }
}

impl Reading {
    /// The operations that serve requests and only read the table.
    pub fn server(&self, settings: &Settings, proof: Proof) -> Services {
        let (table, clock) = (&self.table, &self.clock);
        let state_ttl = settings.state_ttl;
        self.keyring.look_again_after(state_ttl);
        let authenticator = match proof {
            Proof::Signature(root) => Authenticator::new(
                Arc::new(
                    Credentials::new(
                        Arc::clone(table),
                        Arc::clone(&self.wrapper),
                        Arc::clone(clock),
                        state_ttl,
                        root,
                    )
                    .at(settings.aws_account_id.clone(), settings.aws_region.clone()),
                ),
                Arc::clone(clock),
                Rules {
                    region: settings.signing_region.clone(),
                    ..Rules::default()
                },
            ),
            Proof::Gateway(policy) => Authenticator::by_gateway(policy),
        };
        let service = Arc::new(Service::new(
            Arc::clone(table),
            Arc::clone(clock),
            state_ttl,
        ));
        let wrappers = self.wrappers();
        let reader = Arc::new(KeyReader::new(
            Arc::clone(table),
            Arc::clone(&wrappers),
            Arc::clone(clock),
            state_ttl,
        ));
        Services {
            authenticator: Arc::new(authenticator),
            data_keys: Arc::new(
                DataKeys::new(
                    Arc::clone(&reader),
                    Arc::clone(&service),
                    Arc::clone(&self.random),
                )
                .with_legacy_kes(settings.open_legacy_kes),
            ),
            service,
            identities: Arc::new(Identities::new(
                Arc::clone(table),
                Arc::clone(clock),
                state_ttl,
                settings.kes.admin.clone(),
            )),
            wrappers,
            reader,
            table: Arc::clone(table),
            folder: self.folder.clone(),
            keyring: Arc::clone(&self.keyring),
        }
    }
}

impl Reading {
    /// The same ports, with their calls counted.
    #[must_use]
    pub fn counted(mut self, metrics: &Arc<Metrics>) -> Self {
        self.table = Arc::new(CountedTable::new(
            self.table,
            TableCalls::new(metrics, &self.clock),
        ));
        self.count_rest(metrics);
        self
    }
}

impl<T: ?Sized> Ports<T> {
    fn count_rest(&mut self, metrics: &Arc<Metrics>) {
        count_refused(&self.keyring, metrics);
        self.wrapper = Arc::new(CountedWrapper::new(Arc::clone(&self.wrapper), metrics));
        self.vaults = Arc::new(CountedVaults::new(Arc::clone(&self.vaults), metrics));
    }

    /// Everything that wraps master keys.
    pub fn wrappers(&self) -> Arc<Wrappers> {
        let (root, vaults) = (Arc::clone(&self.wrapper), Arc::clone(&self.vaults));
        Arc::new(Wrappers::new(root, vaults))
    }
}

impl Reading {
    /// Examines the deployment. What the ports read is not cached.
    pub fn doctor(&self) -> Doctor {
        let clock = Arc::clone(&self.clock);
        Doctor {
            table: Arc::clone(&self.table),
            stored: Arc::clone(&self.stored),
            keyring: Arc::clone(&self.keyring),
            wrappers: self.wrappers(),
            service: Arc::new(Service::new(
                Arc::clone(&self.table),
                Arc::clone(&clock),
                Duration::ZERO,
            )),
            clock,
        }
    }
}

impl Services {
    /// The periodic work of a long-lived process. It drops cached keys that have expired, or all of them when the
    /// service is stopped; renews the login to Vault; writes a missing root keyring file again; and reads the root
    /// keyring again, which may have been rotated.
    ///
    /// # Errors
    /// When the table or Vault fails, or the root keyring's file cannot be used.
    pub async fn upkeep(&self) -> Result<(), KmsError> {
        let kept = self.keep_keyring().await;
        if let Err(error) = self.keyring.look_at_store().await {
            tracing::warn!(%error, "the root keyring cannot be read again; this process goes on with the one that it holds");
        }
        self.keep_up().await.and(kept)
    }

    /// Drops what the caches of these services hold of a record that another process has changed.
    pub fn obey_changes(&self) -> Obey {
        let (reader, service) = (Arc::clone(&self.reader), Arc::clone(&self.service));
        let identities = Arc::clone(&self.identities);
        let credentials = self.authenticator.credentials().cloned();
        Arc::new(move |change| {
            reader.obey_change(&change);
            service.obey_change(&change);
            identities.obey_change(&change);
            if let Some(credentials) = &credentials {
                credentials.obey_change(&change);
            }
        })
    }

    async fn keep_keyring(&self) -> Result<(), KmsError> {
        match &self.folder {
            Some(folder) => keep_keyring(folder.as_ref(), self.table.as_ref())
                .await
                .map(drop),
            None => Ok(()),
        }
    }

    async fn keep_up(&self) -> Result<(), KmsError> {
        match self.service.config().await? {
            Some(config) if config.state == ServiceState::Running => {
                self.reader.obey(&config);
                self.reader.tidy(&config);
                self.wrappers.renew(&config).await
            }
            _ => {
                self.reader.flush();
                Ok(())
            }
        }
    }
}

/// How long an operator's command may act on what it read of the table.
const OPERATED_STATE_TTL: Duration = Duration::from_secs(5);

impl Writing {
    /// The same ports, with their calls counted.
    #[must_use]
    pub fn counted(mut self, metrics: &Arc<Metrics>) -> Self {
        self.table = Arc::new(CountedTable::new(
            self.table,
            TableCalls::new(metrics, &self.clock),
        ));
        self.count_rest(metrics);
        self
    }

    /// The same ports, and a health check that fails when the table's last write failed.
    #[must_use]
    pub fn watched(mut self) -> (Self, Arc<dyn HealthCheck>) {
        let watched = Arc::new(WatchedTable::new(self.table, WriteFailure::default()));
        self.table = Arc::clone(&watched) as _;
        (self, watched)
    }

    /// The same ports without the privilege to write.
    pub fn reading(&self) -> Reading {
        Ports {
            table: Arc::clone(&self.table) as Arc<dyn TableReader>,
            stored: Arc::clone(&self.stored) as Arc<dyn TableReader>,
            keyring: Arc::clone(&self.keyring),
            wrapper: Arc::clone(&self.wrapper),
            vaults: Arc::clone(&self.vaults),
            folder: self.folder.clone(),
            changes: self.changes.clone(),
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        }
    }

    /// The operations on master keys, of the process that `server` serves.
    pub fn keys(&self, server: &Services, settings: &Settings) -> Arc<Keys> {
        Arc::new(Keys::new(
            Arc::clone(&self.table),
            Arc::clone(&server.reader),
            Arc::clone(&server.service),
            Arc::clone(&server.wrappers),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            settings.allow_immediate_deletion,
        ))
    }

    /// The operations on the service, of the process that `server` serves.
    pub fn control(&self, server: &Services) -> Arc<ServiceControl> {
        Arc::new(ServiceControl::new(
            Arc::clone(&self.table),
            Arc::clone(&server.service),
            Arc::clone(&server.reader),
            Arc::clone(&server.wrappers),
            self.folder.clone(),
            Arc::clone(&self.random),
        ))
    }

    /// The buckets of the table, for a deployment without an object store.
    pub fn table_buckets(&self) -> Arc<dyn Buckets> {
        Arc::new(TableBuckets::new(
            Arc::clone(&self.table),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        ))
    }

    /// The operations on identities and their policies, of the process that `server` serves.
    pub fn identity_control(&self, server: &Services) -> Arc<IdentityControl> {
        self.control_of(&server.identities)
    }

    fn control_of(&self, identities: &Arc<Identities>) -> Arc<IdentityControl> {
        Arc::new(IdentityControl::new(
            Arc::clone(&self.table),
            Arc::clone(identities),
            Arc::clone(&self.random),
        ))
    }

    /// The operator's side of identities and their policies, which reads the table each time.
    pub fn identities_of(
        &self,
        admin: Option<Identity>,
    ) -> (Arc<Identities>, Arc<IdentityControl>) {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let clock = Arc::clone(&self.clock);
        let identities = Arc::new(Identities::new(table, clock, Duration::ZERO, admin));
        let control = self.control_of(&identities);
        (identities, control)
    }

    /// The operator's jobs on all keys.
    pub fn moving(&self) -> KeyMigration {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let service = Service::new(table, Arc::clone(&self.clock), Duration::ZERO);
        KeyMigration::new(
            Arc::clone(&self.table),
            Arc::new(service),
            self.wrappers(),
            Arc::clone(&self.random),
        )
    }

    /// The operations on master keys for an operator's command. They serve no requests and cache nothing.
    pub fn operated_keys(&self) -> Keys {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let (wrappers, clock) = (self.wrappers(), Arc::clone(&self.clock));
        let ttl = Duration::ZERO;
        let reader = KeyReader::new(
            Arc::clone(&table),
            Arc::clone(&wrappers),
            Arc::clone(&clock),
            ttl,
        );
        Keys::new(
            Arc::clone(&self.table),
            Arc::new(reader),
            Arc::new(Service::new(table, Arc::clone(&clock), ttl)),
            wrappers,
            clock,
            Arc::clone(&self.random),
            false,
        )
    }

    /// The operations on data keys for an operator's command. They serve no requests, and what they read of the table
    /// is at most as old as in a server with the default settings.
    pub fn operated_data_keys(&self) -> DataKeys {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let clock = Arc::clone(&self.clock);
        let reader = KeyReader::new(
            Arc::clone(&table),
            self.wrappers(),
            Arc::clone(&clock),
            OPERATED_STATE_TTL,
        );
        DataKeys::new(
            Arc::new(reader),
            Arc::new(Service::new(table, clock, OPERATED_STATE_TTL)),
            Arc::clone(&self.random),
        )
    }

    /// The operator's jobs on the signatures of records.
    pub fn signed_records(&self) -> SignedRecords {
        SignedRecords::new(
            Arc::clone(&self.stored),
            Arc::clone(&self.keyring),
            Arc::clone(&self.random),
        )
    }

    /// The operator's jobs on the transit key of the configured Vault.
    pub fn transit(&self) -> TransitRotation {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let service = Service::new(table, Arc::clone(&self.clock), Duration::ZERO);
        TransitRotation::new(
            Arc::clone(&self.table),
            Arc::new(service),
            self.wrappers(),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
    }

    /// The operator's jobs on the root.
    pub fn roots(&self) -> Roots {
        let table = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let service = Service::new(table, Arc::clone(&self.clock), Duration::ZERO);
        Roots::new(
            Arc::clone(&self.stored),
            Arc::clone(&self.table),
            Arc::clone(&self.keyring),
            Arc::new(service),
            self.wrappers(),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
    }

    /// The operator's side of access keys.
    pub fn access_keys(&self) -> AccessKeys {
        AccessKeys::new(
            Arc::clone(&self.table),
            Arc::clone(&self.wrapper),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
        )
    }

    /// The operations on sessions, of the process that `server` serves. There are none when callers have no access keys.
    pub fn sessions(&self, server: &Services) -> Option<Arc<Sessions>> {
        let credentials = Arc::clone(server.authenticator.credentials()?);
        Some(Arc::new(Sessions::new(self.access_keys(), credentials)))
    }

    /// Records when access keys are used, in the process that `server` serves. There is nothing to record when callers
    /// have no access keys.
    pub fn use_recorder(&self, server: &Services) -> Option<UseRecorder> {
        let credentials = server.authenticator.credentials()?;
        Some(credentials.record_uses(Arc::clone(&self.table), Arc::clone(&self.random)))
    }

    /// Destroys and rotates the keys that are due, and records each one in the audit log.
    pub fn janitor(&self, server: &Services, audit: &Audit) -> Janitor {
        Janitor::new(
            Arc::clone(&self.table),
            Arc::clone(&server.service),
            Arc::clone(&server.wrappers),
            Arc::clone(&self.clock),
            Arc::clone(&self.random),
            audit.background(),
        )
    }

    /// Configures and starts the service if nothing is configured yet.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn start_if_new(
        &self,
        service: &Service,
        default_key_id: Option<KeyId>,
    ) -> Result<(), KmsError> {
        service
            .start_if_new(self.table.as_ref(), self.random.as_ref(), default_key_id)
            .await
    }
}

/// Connects to Vaults. No operation takes longer than `longest`. Tokens are read only from files in `token_folders`.
///
/// # Errors
/// When the file of authorities cannot be read or holds no certificate.
pub fn vaults(
    clock: &Arc<dyn Clock>,
    longest: Duration,
    files: &VaultFiles,
    token_folders: TokenFolders,
) -> anyhow::Result<Arc<dyn Vaults>> {
    Ok(Arc::new(vaults_over_http(
        clock,
        longest,
        files,
        token_folders,
    )?))
}

fn vaults_over_http(
    clock: &Arc<dyn Clock>,
    longest: Duration,
    files: &VaultFiles,
    token_folders: TokenFolders,
) -> anyhow::Result<VaultsOverHttp> {
    let file = files.vault_ca_file.as_deref();
    let authorities = match file {
        Some(path) => Some(std::fs::read(path).with_context(|| named(path))?),
        None => None,
    };
    match VaultsOverHttp::new(authorities.as_deref(), longest, Arc::clone(clock)) {
        Ok(vaults) => Ok(vaults.reading_tokens(token_folders)),
        Err(fault) => bail!("{}: {fault:?}", file.map(named).unwrap_or_default()),
    }
}

fn named(authorities: &std::path::Path) -> String {
    format!(
        "--vault-ca-file (KEYWAY_VAULT_CA_FILE) {}",
        authorities.display()
    )
}

/// Adds to the metrics how many records this keyring refused.
pub fn count_refused(keyring: &Arc<KeyringOnDemand>, metrics: &Metrics) {
    let keyring = Arc::downgrade(keyring);
    metrics.look_at(move |metrics| {
        if let Some(keyring) = keyring.upgrade() {
            metrics.refused_records(keyring.refused_records());
        }
    });
}

/// A random number that distinguishes this process from others.
///
/// # Errors
/// When the generator fails.
pub fn instance(random: &dyn Random) -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    random.fill(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// The metrics of this process.
///
/// # Errors
/// None: a test of `keyway-metrics` rules them out.
pub fn metrics(machine: &Arc<dyn Machine>) -> anyhow::Result<Arc<Metrics>> {
    let commit = machine.commit();
    let machine = Arc::clone(machine);
    Ok(Metrics::new(machine, env!("CARGO_PKG_VERSION"), commit)?)
}

/// The metrics that MinIO's API serves.
pub fn minio_metrics(metrics: &Arc<Metrics>) -> keyway_http::MetricsSource {
    let metrics = Arc::clone(metrics);
    Arc::new(move || metrics.served())
}

/// The metrics that KES's API serves.
pub fn kes_metrics(metrics: &Arc<Metrics>) -> Arc<dyn Fn() -> Result<String, Fault> + Send + Sync> {
    let metrics = Arc::clone(metrics);
    Arc::new(move || {
        metrics
            .text_of_kes()
            .map_err(|error| Fault::new("telling figures", error))
    })
}
