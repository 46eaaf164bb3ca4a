//! Where the deployment is: in a folder of this machine, or with its table, its root keyring or both elsewhere.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use aws_config::{BehaviorVersion, ConfigLoader, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use clap::{ArgGroup, Args};
use keyway_audit::OperatorAction;
use keyway_deployment_assembly::{
    Apart, FirstUse, KeyringVault, Stores, SystemClock, SystemRandom, VaultFiles, Writing,
    must_fit, secret, vaults,
};
use keyway_deployment_aws::{Location, ObjectStore, S3Upload, counted};
use keyway_deployment_embedded::{self as embedded, EmptyTable, Inspected, KEYRING_FILE, Operator};
use keyway_deployment_postgres::PostgresLocation;
use keyway_domain::access::RootAccessKey;
use keyway_domain::buckets::Buckets;
use keyway_domain::doctor::{Code, Finding};
use keyway_domain::ports::{Clock, Random, SecretStore, TableReader, TableWriter};
use keyway_metrics::{CountedSecrets, Metrics};
use keyway_reencryption::AwsKms;
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_settings::SettingsFile;

use crate::command_log::CommandLog;

/// The longest timeout for a request to Vault that the service's configuration may set.
const VAULT_TIMEOUT: Duration = Duration::from_secs(300);

/// Where the deployment is: its table in a folder of this machine or in a database, and its root keyring. Options of one
/// place are refused beside another: an option that is ignored misleads.
#[derive(Clone, Args)]
#[command(
    group = ArgGroup::new("database").args(["table", "postgres"]),
    mut_arg("data_dir", |option| option.conflicts_with_all(["table", "postgres"])),
    mut_arg("table_endpoint", |option| option.requires("table")),
    group = ArgGroup::new("keyring").args(["root_keyring_file", "root_keyring_secret", "root_keyring_vault"]),
    // A forgotten --table must not make a deployment in the default folder.
    group = ArgGroup::new("place").args(["table", "postgres", "data_dir"]).multiple(true),
    mut_arg("root_keyring_file", |option| option.requires("database")),
    mut_arg("root_keyring_secret", |option| option.requires("place")),
    mut_arg("root_keyring_vault", |option| option.requires("place")),
    mut_arg("root_access_key_secret", |option| option.requires("database"))
)]
pub(crate) struct Deployment {
    #[command(flatten)]
    pub(crate) settings_file: SettingsFile,

    #[command(flatten)]
    pub(crate) operator: Operator,

    #[command(flatten)]
    pub(crate) aws: Location,

    #[command(flatten)]
    pub(crate) postgres: PostgresLocation,

    #[command(flatten)]
    keyring_vault: KeyringVault,

    #[command(flatten)]
    vault: VaultFiles,
}

impl Deployment {
    /// Opens the deployment, and makes it on the first start. Also returns the root access key, if a secret of the
    /// deployment holds it. Calls are counted.
    pub(crate) async fn open(
        &self,
        metrics: &Arc<Metrics>,
        accept_empty_table: bool,
    ) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
        if self.is_in_folder() {
            let counted = |secrets| Arc::new(CountedSecrets::new(secrets, metrics)) as _;
            let empty_table = if accept_empty_table {
                EmptyTable::IsAccepted
            } else {
                EmptyTable::IsRefused
            };
            let ports =
                embedded::open_with(&self.operator, &self.vault, empty_table, counted).await?;
            return Ok((ports.counted(metrics), None));
        }
        let first_use = FirstUse::Makes { accept_empty_table };
        let (ports, root) = self.apart(first_use, Some(metrics)).await?;
        must_fit(&ports.keyring).await?;
        Ok((ports.counted(metrics), root))
    }

    /// Opens the deployment, which must exist: the operator's commands do not make one.
    async fn open_existing(&self) -> anyhow::Result<Writing> {
        if self.is_in_folder() {
            embedded::must_exist(&self.operator)?;
            return embedded::open(&self.operator, &self.vault).await;
        }
        Ok(self.apart(FirstUse::IsRefused, None).await?.0)
    }

    /// Whether the table is a file of the data folder.
    pub(crate) fn has_table_in_folder(&self) -> bool {
        self.aws.name().is_none() && !self.postgres.is_named()
    }

    /// Whether the table and the root keyring are files of the data folder.
    fn is_in_folder(&self) -> bool {
        self.has_table_in_folder() && self.keyring_service().is_none()
    }

    /// The option that names the service that holds the root keyring, if one does.
    fn keyring_service(&self) -> Option<&'static str> {
        if self.keyring_vault.address().is_some() {
            return Some("--root-keyring-vault");
        }
        self.aws.names_keyring().then_some("--root-keyring-secret")
    }

    /// The finding for a database that does not open.
    fn finding(&self, error: &anyhow::Error) -> Finding {
        match self.aws.name() {
            Some(table) => {
                let subject = format!("table {table}");
                Finding::new(Code::TableUnavailable, subject, format!("{error:#}"))
            }
            None => self.postgres.finding(error),
        }
    }

    /// The addresses of services whose dates the clock is compared with.
    async fn dated(&self) -> anyhow::Result<Vec<String>> {
        let mut addresses = Vec::new();
        if let Some(account) = self.account().await?
            && let Some(region) = account.region()
        {
            addresses = self.aws.service_addresses(region.as_ref())?;
        }
        addresses.extend(self.keyring_vault.address().map(str::to_owned));
        Ok(addresses)
    }

    /// Opens a deployment whose table and root keyring are apart.
    async fn apart(
        &self,
        first_use: FirstUse,
        metrics: Option<&Arc<Metrics>>,
    ) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
        self.keyring_is_named()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let account = self.account().await?;
        let keyring_must_exist = first_use == FirstUse::IsRefused;
        let secrets =
            self.keyring_secrets(account.as_ref(), keyring_must_exist, &clock, &random)?;
        let secrets = counted(secrets, metrics);
        let root = match &account {
            Some(account) => self.aws.root_access_key(account)?,
            None => None,
        };
        let mut token_folders = self.vault.token_folders().never_beside(KEYRING_FILE);
        if let Some(folder) = self.operator.keyring_folder() {
            token_folders = token_folders.never_below(folder.to_owned());
        }
        if self.has_table_in_folder() {
            token_folders = embedded::never_in_folder(token_folders, &self.operator);
        }
        let apart = Apart {
            secrets,
            vaults: vaults(&clock, VAULT_TIMEOUT, &self.vault, token_folders)?,
            clock: Arc::clone(&clock),
            random,
        };
        let ports = if self.has_table_in_folder() {
            let table = match first_use {
                FirstUse::Makes { .. } => embedded::table(&self.operator, clock)?,
                FirstUse::IsRefused => embedded::existing_table(&self.operator, clock)?,
            };
            apart.ports(table, None, first_use)
        } else if self.postgres.is_named() {
            let table = match first_use {
                FirstUse::Makes { .. } => self.postgres.table(clock).await?,
                FirstUse::IsRefused => self.postgres.existing_table(clock).await?,
            };
            let changes = Arc::clone(&table) as _;
            apart.ports(table, Some(changes), first_use)
        } else {
            let account = account.as_ref().context("no AWS account")?;
            let table = Arc::new(self.aws.table(account, &clock)?);
            apart.ports(table, None, first_use)
        };
        Ok((ports, root))
    }

    /// The store of the root keyring. It makes no folder if the keyring must exist.
    fn keyring_secrets(
        &self,
        account: Option<&SdkConfig>,
        must_exist: bool,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
    ) -> anyhow::Result<Arc<dyn SecretStore>> {
        let in_file = match must_exist {
            true => embedded::existing_keyring_file(&self.operator, random)?,
            false => embedded::keyring_file(&self.operator, random)?,
        };
        if let Some(secrets) = in_file {
            return Ok(secrets);
        }
        if let Some(secrets) = self.keyring_vault.secrets(&self.vault, clock)? {
            return Ok(secrets);
        }
        let account = account.context("nothing says where the root keyring is")?;
        self.aws.keyring_secrets(account)
    }

    /// The store of a root keyring that must exist and is no file of the data folder.
    async fn keyring_elsewhere(&self) -> anyhow::Result<Arc<dyn SecretStore>> {
        self.keyring_is_named()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let account = self.account().await?;
        self.keyring_secrets(account.as_ref(), true, &clock, &random)
    }

    /// Refuses a database without a root keyring.
    fn keyring_is_named(&self) -> anyhow::Result<()> {
        self.passphrase_is_used()?;
        if self.operator.keyring_folder().is_none() && self.keyring_service().is_none() {
            let database = self.database_option();
            bail!(
                "{database} needs a root keyring: name its folder with --root-keyring-file (KEYWAY_ROOT_KEYRING_FILE), its secret with --root-keyring-secret (KEYWAY_ROOT_KEYRING_SECRET), or its Vault with --root-keyring-vault (KEYWAY_ROOT_KEYRING_VAULT)"
            );
        }
        Ok(())
    }

    fn database_option(&self) -> &'static str {
        if self.postgres.is_named() {
            "--postgres"
        } else {
            "--table"
        }
    }

    /// Refuses a passphrase that would protect nothing.
    fn passphrase_is_used(&self) -> anyhow::Result<()> {
        if self.is_in_folder() || self.operator.keyring_folder().is_some() {
            return Ok(());
        }
        let beside = match self.keyring_service() {
            Some(option) if self.has_table_in_folder() => option.to_owned(),
            _ => format!("{} and without --root-keyring-file", self.database_option()),
        };
        if self.operator.passphrase_file.is_some() {
            bail!(
                "--passphrase-file protects the root keyring's file, and with {beside} it would protect nothing: leave it out"
            );
        }
        if secret("KEYWAY_PASSPHRASE")?.is_some() {
            bail!(
                "KEYWAY_PASSPHRASE protects the root keyring's file, and with {beside} it would protect nothing: unset it"
            );
        }
        Ok(())
    }

    /// The AWS account of the table and of secrets, if one of them is there.
    async fn account(&self) -> anyhow::Result<Option<SdkConfig>> {
        if self.aws.name().is_none() && !self.aws.names_secrets() {
            return Ok(None);
        }
        let (region, credentials) = aws(self.aws.region.as_deref()).await?;
        keyway_deployment_aws::account(&region, credentials).map(Some)
    }
}

/// Where the deployment is that a command works on.
#[derive(Args)]
pub(crate) struct DeploymentLocation {
    #[command(flatten)]
    deployment: Deployment,
}

impl DeploymentLocation {
    /// Opens the deployment, which must exist.
    pub(crate) async fn open(&self) -> anyhow::Result<Writing> {
        self.region_is_used()?;
        self.deployment.open_existing().await
    }

    /// Opens the deployment, which must exist, for a command that also uses the AWS account itself in --region.
    pub(crate) async fn open_beside_account(&self) -> anyhow::Result<Writing> {
        self.deployment.open_existing().await
    }

    /// Opens the deployment for reading, as far as it opens, and examines its files if it has any.
    pub(crate) async fn inspect(&self) -> anyhow::Result<Inspected> {
        self.region_is_used()?;
        let deployment = &self.deployment;
        if deployment.has_table_in_folder() {
            let elsewhere = match deployment.keyring_service() {
                Some(_) => Some(deployment.keyring_elsewhere().await),
                None => None,
            };
            let (operator, vault) = (&deployment.operator, &deployment.vault);
            let mut inspected = embedded::inspect(operator, vault, elsewhere).await;
            inspected.dated = deployment.dated().await?;
            return Ok(inspected);
        }
        let mut inspected = Inspected {
            findings: Vec::new(),
            unverified: None,
            ports: None,
            dated: Vec::new(),
        };
        match self.unverified_table().await {
            Ok(table) => inspected.unverified = Some(table),
            Err(error) => {
                inspected.findings.push(deployment.finding(&error));
                return Ok(inspected);
            }
        }
        match deployment.apart(FirstUse::IsRefused, None).await {
            Ok((ports, _)) => {
                inspected.ports = Some(ports.reading());
                inspected.dated = deployment.dated().await?;
            }
            Err(error) => {
                let seen = format!("{error:#}");
                let finding = Finding::new(Code::KeyringUnusable, "root keyring", seen);
                inspected.findings.push(finding);
            }
        }
        Ok(inspected)
    }

    /// The data folder, unless the table is a database.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let deployment = &self.deployment;
        let has_folder = deployment.has_table_in_folder();
        has_folder.then_some(deployment.operator.data_dir.as_path())
    }

    /// The deployment's table, to be read without the root keyring, and the time. So records that it signs are not
    /// verified.
    pub(crate) async fn unverified_table(
        &self,
    ) -> anyhow::Result<(Arc<dyn TableReader>, Arc<dyn Clock>)> {
        self.region_is_used()?;
        let deployment = &self.deployment;
        deployment.passphrase_is_used()?;
        if deployment.has_table_in_folder() {
            return embedded::unverified_table(&deployment.operator);
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        if deployment.postgres.is_named() {
            let table = deployment.postgres.existing_table(Arc::clone(&clock));
            return Ok((table.await?, clock));
        }
        let account = deployment.account().await?.context("no AWS account")?;
        Ok((Arc::new(deployment.aws.table(&account, &clock)?), clock))
    }

    /// The stores of a deployment that a restore fills. A dry run makes nothing.
    pub(crate) async fn stores(&self, dry_run: bool) -> anyhow::Result<Stores> {
        self.region_is_used()?;
        let deployment = &self.deployment;
        if deployment.is_in_folder() {
            return embedded::stores(&deployment.operator, dry_run).await;
        }
        deployment.keyring_is_named()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
        let account = deployment.account().await?;
        let folder = deployment.operator.keyring_folder();
        let is_missing = folder.is_some_and(|folder| !folder.exists());
        let secrets = if dry_run && is_missing {
            None
        } else {
            Some(deployment.keyring_secrets(account.as_ref(), dry_run, &clock, &random)?)
        };
        let table: Option<Arc<dyn TableWriter>> = if deployment.has_table_in_folder() {
            let table = embedded::table_to_restore(&deployment.operator, dry_run, &clock)?;
            table.map(|table| table as _)
        } else if deployment.postgres.is_named() {
            let (postgres, clock) = (&deployment.postgres, Arc::clone(&clock));
            match dry_run {
                true => postgres.table_if_any(clock).await?.map(|table| table as _),
                false => Some(postgres.table(clock).await?),
            }
        } else {
            let account = account.as_ref().context("no AWS account")?;
            Some(Arc::new(deployment.aws.table(account, &clock)?))
        };
        Ok(Stores {
            table,
            secrets,
            key_directory: None,
            clock,
            random,
        })
    }

    /// The location that these options name; `None` if they name none.
    pub(crate) fn named(
        settings_file: SettingsFile,
        operator: Option<Operator>,
        aws: Option<Location>,
        postgres: Option<PostgresLocation>,
        keyring_vault: Option<KeyringVault>,
        vault: VaultFiles,
    ) -> Option<Self> {
        if operator.is_none() && aws.is_none() && postgres.is_none() && keyring_vault.is_none() {
            return None;
        }
        let here = || Operator {
            data_dir: "./data".into(),
            root_keyring_file: None,
            passphrase_file: None,
        };
        let nowhere = || Location {
            table: None,
            table_endpoint: None,
            region: None,
            root_keyring_secret: None,
            root_access_key_secret: None,
        };
        Some(Self {
            deployment: Deployment {
                settings_file,
                operator: operator.unwrap_or_else(here),
                aws: aws.unwrap_or_else(nowhere),
                postgres: postgres.unwrap_or_else(PostgresLocation::nowhere),
                keyring_vault: keyring_vault.unwrap_or_else(KeyringVault::nowhere),
                vault,
            },
        })
    }

    /// Records that a command begins that must not open a data folder.
    pub(crate) async fn begin_unopened(
        &self,
        action: OperatorAction,
    ) -> anyhow::Result<CommandLog> {
        self.region_is_used()?;
        let deployment = &self.deployment;
        if deployment.is_in_folder() {
            embedded::must_exist(&deployment.operator)?;
            return CommandLog::begin_in_folder(&deployment.operator, action).await;
        }
        CommandLog::begin(&deployment.open_existing().await?, action).await
    }

    /// Goes on without a root that is lost. A data folder is not opened for this, because that is refused.
    pub(crate) async fn give_up_root(&self, root: &str) -> anyhow::Result<()> {
        self.region_is_used()?;
        let deployment = &self.deployment;
        if deployment.is_in_folder() {
            embedded::must_exist(&deployment.operator)?;
            return embedded::give_up_root(&deployment.operator, root).await;
        }
        let ports = self.deployment.open_existing().await?;
        Ok(ports.keyring.give_up(ports.stored.as_ref(), root).await?)
    }

    /// Whether the root keyring is a file, of which there may be copies.
    pub(crate) fn keeps_keyring_in_file(&self) -> bool {
        let deployment = &self.deployment;
        deployment.is_in_folder() || deployment.operator.keyring_folder().is_some()
    }

    fn region_is_used(&self) -> anyhow::Result<()> {
        let aws = &self.deployment.aws;
        if aws.region.is_some() && aws.name().is_none() && !aws.names_secrets() {
            bail!(
                "--region is the AWS region of --table and of --root-keyring-secret, and there is no --table and no secret"
            );
        }
        Ok(())
    }

    /// AWS KMS in this region, or in that of the deployment, at this endpoint or AWS's own, with the credentials that AWS's
    /// tools would use here.
    pub(crate) async fn aws_kms(
        &self,
        region: Option<&str>,
        endpoint: Option<String>,
    ) -> anyhow::Result<AwsKms> {
        let (region, credentials) = aws(region.or(self.deployment.aws.region.as_deref())).await?;
        let config = keyway_aws::config(region, endpoint, credentials);
        AwsKms::new(&config).map_err(anyhow::Error::msg)
    }

    /// All secrets of the AWS account in the region, wherever the deployment is.
    pub(crate) async fn account_secrets(&self) -> anyhow::Result<SecretsManager> {
        let (region, credentials) = aws(self.deployment.aws.region.as_deref()).await?;
        keyway_deployment_aws::account_secrets(&region, credentials)
    }
}

/// The buckets of the object store if there is one, else those of the table. Unless the settings name an access key for
/// the object store, the credentials are those that AWS's own tools would use here.
pub(crate) async fn buckets(
    store: &ObjectStore,
    ports: &Writing,
) -> anyhow::Result<Arc<dyn Buckets>> {
    let found = if store.needs_credentials()? {
        Some(loader(store.s3_region.as_deref()).load().await)
    } else {
        None
    };
    Ok(match store.open(found.as_ref())? {
        Some(store) => store.tracked(Arc::clone(&ports.table), Arc::clone(&ports.random)),
        None => ports.table_buckets(),
    })
}

/// Begins an object in a bucket of the object store. The credentials are found as for [`buckets`].
pub(crate) async fn upload(
    store: &ObjectStore,
    bucket: &str,
    key: &str,
) -> anyhow::Result<S3Upload> {
    let found = if store.needs_credentials_to_upload()? {
        Some(loader(store.s3_region.as_deref()).load().await)
    } else {
        None
    };
    store.upload(found.as_ref(), bucket, key)
}

fn loader(region: Option<&str>) -> ConfigLoader {
    let loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(keyway_aws::http_client());
    match region {
        Some(region) => loader.region(aws_config::Region::new(region.to_owned())),
        None => loader,
    }
}

/// The region and credentials that AWS's own tools would use here: variables, profiles, the instance's role.
async fn aws(region: Option<&str>) -> anyhow::Result<(String, SharedCredentialsProvider)> {
    let found = loader(region).load().await;
    let region = found
        .region()
        .context("no region: pass --region, or set AWS_REGION")?
        .to_string();
    let credentials = found
        .credentials_provider()
        .context("no AWS credentials were found")?;
    Ok((region, credentials))
}
