//! One machine's deployment: SQLite, a keyring file, the system's clock and generator.
//!
//! Every process that serves this deployment builds its ports here, so that all of them
//! understand the same settings and the same folder.

mod settings;
mod system;

use std::sync::Arc;

use anyhow::{Context, bail};
use keyway_auth::Authenticator;
use keyway_auth::sigv4::Rules;
use keyway_domain::access::{AccessKeys, Credentials, NewAccessKey};
use keyway_domain::datakey::DataKeys;
use keyway_domain::janitor::Janitor;
use keyway_domain::keyring::{KEYRING_SECRET, KeyWrapper, RootKeyring};
use keyway_domain::keys::{KeyId, KeyReader, Keys};
use keyway_domain::ports::{Clock, Random, TableReader, TableWriter};
use keyway_domain::service::Service;
use keyway_secrets_file::FileSecrets;
use keyway_store_sqlite::SqliteTable;

pub use settings::{NewPassphrase, Operator, Settings};
pub use system::{SystemClock, SystemRandom};

/// The file that holds every record.
const TABLE_FILE: &str = "keyway.db";
/// The folder that holds the root keyring.
const SECRETS_FOLDER: &str = "secrets";

/// The ports of one deployment.
pub struct Embedded {
    table: Arc<SqliteTable>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

impl Embedded {
    /// Makes sure that the data folder holds a deployment: a mistyped one must not become a new deployment.
    ///
    /// # Errors
    /// When it does not.
    pub fn must_exist(operator: &Operator) -> anyhow::Result<()> {
        if operator.data_dir.join(TABLE_FILE).exists() {
            return Ok(());
        }
        let folder = operator.data_dir.display();
        bail!("there is no deployment in {folder}; `keyway serve --data-dir {folder}` makes one")
    }

    /// Opens the deployment in the settings' data folder, and makes it on the first start.
    ///
    /// # Errors
    /// When the folder, the table or the root keyring is not fit to be used; the text says what to do.
    pub async fn open(operator: Operator) -> anyhow::Result<Self> {
        keyway_crypto::self_test().context("the cryptography of this build does not work")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        // The table first: it makes the data folder, or refuses one that others may enter.
        let table = SqliteTable::open(&operator.data_dir.join(TABLE_FILE), Arc::clone(&clock))
            .context("the table")?;
        let secrets = secrets(&operator, &random)?;
        let keyring = RootKeyring::establish(&table, &secrets, clock.as_ref(), Arc::clone(&random))
            .await
            .context("the root keyring")?;
        Ok(Self {
            table: Arc::new(table),
            wrapper: Arc::new(keyring),
            clock,
            random,
        })
    }

    /// The operator's side of access keys.
    pub fn access_keys(&self) -> AccessKeys {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        AccessKeys::new(self.writer(), Arc::clone(&self.wrapper), clock, random)
    }

    /// A random number that tells this process from others.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn instance(&self) -> anyhow::Result<u64> {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// What serves requests, with these settings.
    ///
    /// # Errors
    /// When the settings contradict each other.
    pub fn server(&self, settings: &Settings) -> anyhow::Result<Server> {
        let state_ttl = settings.state_ttl();
        let rules = Rules {
            region: settings.region.clone(),
            ..Rules::default()
        };
        let reader: Arc<dyn TableReader> = Arc::clone(&self.table) as Arc<dyn TableReader>;
        let credentials = Credentials::new(
            Arc::clone(&reader),
            Arc::clone(&self.wrapper),
            Arc::clone(&self.clock),
            state_ttl,
            settings::root_access_key()?,
        );
        let service = Arc::new(Service::new(
            Arc::clone(&reader),
            Arc::clone(&self.clock),
            state_ttl,
        ));
        let keys = Arc::new(KeyReader::new(
            reader,
            Arc::clone(&self.wrapper),
            Arc::clone(&self.clock),
            state_ttl,
        ));
        Ok(Server {
            authenticator: Arc::new(Authenticator::new(
                credentials,
                Arc::clone(&self.clock),
                rules,
            )),
            data_keys: Arc::new(DataKeys::new(
                Arc::clone(&keys),
                Arc::clone(&service),
                Arc::clone(&self.random),
            )),
            keys: Arc::new(Keys::new(
                self.writer(),
                keys,
                Arc::clone(&service),
                Arc::clone(&self.wrapper),
                Arc::clone(&self.clock),
                Arc::clone(&self.random),
                settings.allow_immediate_deletion,
            )),
            service,
        })
    }

    /// What destroys keys whose deletion date has passed.
    pub fn janitor(&self, server: &Server) -> Janitor {
        Janitor::new(
            self.writer(),
            Arc::clone(&server.keys),
            Arc::clone(&self.clock),
        )
    }

    /// Configures and starts the service where nothing is configured yet.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn start_if_new(
        &self,
        service: &Service,
        default_key_id: Option<KeyId>,
    ) -> anyhow::Result<()> {
        service
            .start_if_new(self.table.as_ref(), self.random.as_ref(), default_key_id)
            .await
            .map_err(|error| anyhow::anyhow!("the service could not be configured: {error:?}"))
    }

    /// The root access key, if it was made just now: to be shown once. None where the environment gives one.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn first_root_access_key(&self) -> anyhow::Result<Option<NewAccessKey>> {
        if settings::root_access_key()?.is_some() {
            return Ok(None);
        }
        let made = self.access_keys().create_root_if_new().await;
        made.map_err(|error| anyhow::anyhow!("the root access key could not be made: {error:?}"))
    }

    fn writer(&self) -> Arc<dyn TableWriter> {
        Arc::clone(&self.table) as Arc<dyn TableWriter>
    }
}

/// Puts the root keyring under another passphrase, or under none. Servers that run keep what they hold;
/// the next start needs the new one.
///
/// # Errors
/// When the keyring does not open with the current passphrase, or cannot be written.
pub async fn change_passphrase(operator: &Operator, new: &NewPassphrase) -> anyhow::Result<()> {
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let new = new.passphrase()?;
    secrets(operator, &random)?
        .change_passphrase(KEYRING_SECRET, new)
        .await
        .context("the root keyring")?;
    Ok(())
}

fn secrets(operator: &Operator, random: &Arc<dyn Random>) -> anyhow::Result<FileSecrets> {
    let folder = operator.data_dir.join(SECRETS_FOLDER);
    FileSecrets::open(&folder, operator.passphrase()?, Arc::clone(random))
        .context("the root keyring's folder")
}

/// What serves requests.
pub struct Server {
    /// Tells callers apart.
    pub authenticator: Arc<Authenticator>,
    /// The operations on master keys.
    pub keys: Arc<Keys>,
    /// The operations on data keys.
    pub data_keys: Arc<DataKeys>,
    /// The service's state.
    pub service: Arc<Service>,
}
