//! Where a deployment on AWS is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use clap::Args;
use keyway_deployment_assembly::{
    Stores, SystemClock, SystemRandom, VaultFiles, Writing, environment, vaults,
};
use keyway_domain::OpenError;
use keyway_domain::access::{ROOT_ACCESS_KEY_SECRET, RootAccessKey};
use keyway_domain::keyring::{KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::ports::{Clock, Random, SecretStore, TableReader};
use keyway_domain::records::SignedTable;
use keyway_metrics::{CountedSecrets, Metrics};
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;

/// Where the deployment's table and secrets are.
#[derive(Debug, Clone, Args)]
pub struct Location {
    /// The deployment's DynamoDB table
    #[arg(long, env = "KEYWAY_TABLE", value_name = "NAME")]
    pub table: Option<String>,

    /// The AWS region of --table; else the one of AWS_REGION, or that AWS's own tools would use here
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,

    /// Name or ARN of the secret that holds the root keyring
    #[arg(long, env = "KEYWAY_ROOT_KEYRING_SECRET", value_name = "NAME|ARN")]
    pub root_keyring_secret: Option<String>,

    /// Name or ARN of the secret that holds the root access key
    #[arg(long, env = "KEYWAY_ROOT_ACCESS_KEY_SECRET", value_name = "NAME|ARN")]
    pub root_access_key_secret: Option<String>,
}

impl Location {
    /// The table's name. An empty variable counts as not set, here and below.
    pub fn name(&self) -> Option<&str> {
        self.table.as_deref().filter(|name| !name.is_empty())
    }

    fn root_access_key_id(&self) -> Option<&str> {
        let id = self.root_access_key_secret.as_deref();
        id.filter(|id| !id.is_empty())
    }

    pub(crate) fn table(
        &self,
        config: &SdkConfig,
        clock: &Arc<dyn Clock>,
    ) -> anyhow::Result<DynamoTable> {
        let name = self
            .name()
            .context("KEYWAY_TABLE does not name the deployment's table")?;
        let config = at_endpoint(config, "AWS_ENDPOINT_URL_DYNAMODB")?;
        Ok(DynamoTable::new(&config, name, Arc::clone(clock)))
    }

    /// The root access key, if a secret holds it.
    pub(crate) fn root_access_key(
        &self,
        config: &SdkConfig,
    ) -> anyhow::Result<Option<RootAccessKey>> {
        match self.root_access_key_id() {
            Some(_) => Ok(Some(RootAccessKey::InSecretStore(self.secrets(config)?))),
            None => Ok(None),
        }
    }

    /// The variables that a function needs and does not have: of its deployment, of its AWS credentials, and on Lambda of
    /// the runtime, which panics without them.
    pub(crate) fn missing_variables(&self, on_lambda: bool) -> anyhow::Result<Vec<&'static str>> {
        let mut missing = Vec::new();
        for (name, is_given) in [
            ("KEYWAY_TABLE", self.name().is_some()),
            ("KEYWAY_ROOT_KEYRING_SECRET", self.keyring_id().is_some()),
            ("AWS_REGION", self.region.is_some()),
            ("AWS_ACCESS_KEY_ID", false),
            ("AWS_SECRET_ACCESS_KEY", false),
            ("AWS_LAMBDA_FUNCTION_NAME", !on_lambda),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", !on_lambda),
            ("AWS_LAMBDA_FUNCTION_VERSION", !on_lambda),
        ] {
            if !is_given && environment(name)?.is_none() {
                missing.push(name);
            }
        }
        Ok(missing)
    }

    fn keyring_id(&self) -> Option<&str> {
        let id = self.root_keyring_secret.as_deref();
        id.filter(|id| !id.is_empty())
    }

    pub(crate) fn secrets(&self, config: &SdkConfig) -> anyhow::Result<Arc<dyn SecretStore>> {
        let keyring = self
            .keyring_id()
            .context("KEYWAY_ROOT_KEYRING_SECRET does not name the root keyring's secret")?;
        let config = at_endpoint(config, "AWS_ENDPOINT_URL_SECRETS_MANAGER")?;
        let mut secrets = SecretsManager::new(&config).with(KEYRING_SECRET, keyring);
        if let Some(root) = self.root_access_key_id() {
            secrets = secrets.with(ROOT_ACCESS_KEY_SECRET, root);
        }
        Ok(Arc::new(secrets))
    }
}

/// The configuration, with the endpoint that this variable names if it is set.
fn at_endpoint(config: &SdkConfig, variable: &'static str) -> anyhow::Result<SdkConfig> {
    Ok(match environment(variable)? {
        Some(endpoint) => keyway_aws::at_endpoint(config, Some(endpoint.as_str().to_owned())),
        None => config.clone(),
    })
}

/// The AWS configuration from a function's variables, in this region if there is one. Lambda puts the role's credentials into the environment for the
/// instance's whole life; looking anywhere else would only cost time and code size.
pub(crate) fn from_environment(region: Option<&str>) -> anyhow::Result<SdkConfig> {
    let needed =
        |name: &'static str| environment(name)?.with_context(|| format!("{name} is not set"));
    let token = environment("AWS_SESSION_TOKEN")?.map(|token| token.as_str().to_owned());
    let credentials = Credentials::new(
        needed("AWS_ACCESS_KEY_ID")?.as_str(),
        needed("AWS_SECRET_ACCESS_KEY")?.as_str(),
        token,
        None,
        "environment",
    );
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    let region = match region {
        Some(region) => region.to_owned(),
        None => needed("AWS_REGION")?.to_string(),
    };
    Ok(keyway_aws::config(
        region,
        endpoint,
        SharedCredentialsProvider::new(credentials),
    ))
}

/// The ports of a process that writes the deployment's table, reached in this region with these credentials; and the
/// root access key, if `location` says that a secret holds it. With `metrics`, all calls are counted.
///
/// A process that may make the deployment checks at once that the root keyring and the table belong together.
///
/// # Errors
/// When `location` does not say where the deployment is. If the process may make the deployment, also when there is a
/// root keyring and the table is empty or another deployment's, and when the table or the secret store cannot be used.
pub async fn writing(
    location: &Location,
    vault: &VaultFiles,
    first_use: FirstUse,
    region: &str,
    credentials: SharedCredentialsProvider,
    metrics: Option<&Arc<Metrics>>,
) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    let config = keyway_aws::config(region, endpoint, credentials);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let random: Arc<dyn Random> = Arc::new(SystemRandom::default());
    let (ports, keyring) = open(
        location, vault, first_use, &config, &clock, &random, metrics,
    )?;
    if let FirstUse::Makes { .. } = first_use {
        fits(&keyring).await?;
    }
    Ok((ports, location.root_access_key(&config)?))
}

/// The deployment's table, to be read without the root keyring, and the time. So records that it signs are not verified.
///
/// # Errors
/// When `location` names no table.
pub fn unverified_table(
    location: &Location,
    region: &str,
    credentials: SharedCredentialsProvider,
) -> anyhow::Result<(Arc<dyn TableReader>, Arc<dyn Clock>)> {
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    let config = keyway_aws::config(region, endpoint, credentials);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    Ok((Arc::new(location.table(&config, &clock)?), clock))
}

/// The deployment's table and secrets for a restore. The table must exist; the root keyring's secret is made if it is
/// missing.
///
/// # Errors
/// When `location` does not say where they are.
pub fn stores(
    location: &Location,
    region: &str,
    credentials: SharedCredentialsProvider,
) -> anyhow::Result<Stores> {
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    let config = keyway_aws::config(region, endpoint, credentials);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    Ok(Stores {
        table: Some(Arc::new(location.table(&config, &clock)?)),
        secrets: Some(location.secrets(&config)?),
        key_directory: None,
        clock,
        random: Arc::new(SystemRandom::default()),
    })
}

/// The addresses of DynamoDB and Secrets Manager, as the deployment's clients reach them.
///
/// # Errors
/// When a variable that names an endpoint is not UTF-8.
pub fn service_addresses(region: &str) -> anyhow::Result<Vec<String>> {
    let suffix = match region.starts_with("cn-") {
        true => "amazonaws.com.cn",
        false => "amazonaws.com",
    };
    let everywhere = environment("AWS_ENDPOINT_URL")?;
    let mut addresses = Vec::new();
    for (variable, service) in [
        ("AWS_ENDPOINT_URL_DYNAMODB", "dynamodb"),
        ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "secretsmanager"),
    ] {
        let named = environment(variable)?;
        let named = named.as_ref().or(everywhere.as_ref());
        addresses.push(match named {
            Some(address) => address.as_str().to_owned(),
            None => format!("https://{service}.{region}.{suffix}"),
        });
    }
    addresses.dedup();
    Ok(addresses)
}

/// All secrets of the account in this region, whether or not they are a deployment's.
///
/// # Errors
/// When a variable that names an endpoint is not UTF-8.
pub fn account_secrets(
    region: &str,
    credentials: SharedCredentialsProvider,
) -> anyhow::Result<SecretsManager> {
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    let config = keyway_aws::config(region, endpoint, credentials);
    let config = at_endpoint(&config, "AWS_ENDPOINT_URL_SECRETS_MANAGER")?;
    Ok(SecretsManager::new(&config))
}

/// A function's request ends after 15 seconds, and must report before then what it waited for.
pub(crate) const VAULT_TIMEOUT: Duration = Duration::from_secs(8);

/// What happens if the table holds no deployment yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstUse {
    /// It is made.
    Makes {
        /// Whether an existing root keyring may be used with an empty table, in which everything is lost.
        accept_empty_table: bool,
    },
    /// It is refused: a mistyped name must not make a new deployment.
    IsRefused,
}

/// The ports of a process that writes, and its keyring.
pub(crate) fn open(
    location: &Location,
    vault: &VaultFiles,
    first_use: FirstUse,
    config: &SdkConfig,
    clock: &Arc<dyn Clock>,
    random: &Arc<dyn Random>,
    metrics: Option<&Arc<Metrics>>,
) -> anyhow::Result<(Writing, Arc<KeyringOnDemand>)> {
    let table = Arc::new(location.table(config, clock)?);
    let secrets = counted(location.secrets(config)?, metrics);
    let (clock_of_keyring, random_of_keyring) = (Arc::clone(clock), Arc::clone(random));
    let keyring = Arc::new(match first_use {
        FirstUse::Makes { accept_empty_table } => KeyringOnDemand::establishing(
            Arc::clone(&table) as _,
            secrets,
            clock_of_keyring,
            random_of_keyring,
        )
        .accepting_empty_table(accept_empty_table),
        FirstUse::IsRefused => KeyringOnDemand::opening(
            Arc::clone(&table) as _,
            secrets,
            clock_of_keyring,
            random_of_keyring,
        ),
    });
    let ports = Writing {
        table: Arc::new(SignedTable::new(Arc::clone(&table), Arc::clone(&keyring))),
        stored: table,
        keyring: Arc::clone(&keyring),
        wrapper: Arc::clone(&keyring) as _,
        vaults: vaults(clock, VAULT_TIMEOUT, vault, vault.token_folders())?,
        folder: None,
        clock: Arc::clone(clock),
        random: Arc::clone(random),
    };
    let ports = match metrics {
        Some(metrics) => ports.counted(metrics),
        None => ports,
    };
    Ok((ports, keyring))
}

/// Refuses a root keyring and a table that do not belong together, and stores that cannot be used.
pub(crate) async fn fits(keyring: &KeyringOnDemand) -> anyhow::Result<()> {
    match keyring.must_be_own().await {
        // The error's text names the table or the secret itself.
        Err(OpenError::Store(error)) => Err(error.into()),
        judged => judged.context("the root keyring"),
    }
}

/// The store of secrets, with its calls counted if there are metrics.
pub(crate) fn counted(
    secrets: Arc<dyn SecretStore>,
    metrics: Option<&Arc<Metrics>>,
) -> Arc<dyn SecretStore> {
    match metrics {
        Some(metrics) => {
            metrics.look_at(|metrics| metrics.retries(keyway_aws::retries()));
            Arc::new(CountedSecrets::new(secrets, metrics))
        }
        None => secrets,
    }
}
