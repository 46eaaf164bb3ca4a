//! Where a deployment on AWS is.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use clap::Args;
use keyway_deployment_assembly::{Apart, FirstUse, VaultFiles, Writing, environment, vaults};
use keyway_domain::access::{ROOT_ACCESS_KEY_SECRET, RootAccessKey};
use keyway_domain::keyring::{KEYRING_SECRET, KeyringOnDemand};
use keyway_domain::ports::{Clock, Random, SecretStore};
use keyway_metrics::{CountedSecrets, Metrics};
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_store_dynamodb::DynamoTable;

/// Where the deployment's table and secrets are.
#[derive(Debug, Clone, Args)]
pub struct Location {
    /// The deployment's DynamoDB table
    #[arg(long, env = "KEYWAY_TABLE", value_name = "NAME")]
    pub table: Option<String>,

    /// URL of a database that speaks DynamoDB's API, instead of AWS's own
    #[arg(long, env = "KEYWAY_TABLE_ENDPOINT", value_name = "URL")]
    pub table_endpoint: Option<String>,

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

    fn endpoint(&self) -> Option<&str> {
        let endpoint = self.table_endpoint.as_deref();
        endpoint.filter(|endpoint| !endpoint.is_empty())
    }

    fn root_access_key_id(&self) -> Option<&str> {
        let id = self.root_access_key_secret.as_deref();
        id.filter(|id| !id.is_empty())
    }

    /// The table in this account, or at the endpoint that the settings name.
    ///
    /// # Errors
    /// When the settings name no table.
    pub fn table(&self, config: &SdkConfig, clock: &Arc<dyn Clock>) -> anyhow::Result<DynamoTable> {
        let name = self
            .name()
            .context("KEYWAY_TABLE does not name the deployment's table")?;
        let config = match self.endpoint() {
            Some(endpoint) => keyway_aws::at_endpoint(config, Some(endpoint.to_owned())),
            None => at_endpoint(config, "AWS_ENDPOINT_URL_DYNAMODB")?,
        };
        Ok(DynamoTable::new(&config, name, Arc::clone(clock)))
    }

    /// The root access key, if a secret holds it.
    ///
    /// # Errors
    /// When a variable that names an endpoint is not UTF-8.
    pub fn root_access_key(&self, config: &SdkConfig) -> anyhow::Result<Option<RootAccessKey>> {
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

    /// Whether a secret of the account holds the root keyring.
    pub fn names_keyring(&self) -> bool {
        self.keyring_id().is_some()
    }

    /// Whether secrets of the account hold the root keyring or the root access key.
    pub fn names_secrets(&self) -> bool {
        self.keyring_id().is_some() || self.root_access_key_id().is_some()
    }

    fn keyring_id(&self) -> Option<&str> {
        let id = self.root_keyring_secret.as_deref();
        id.filter(|id| !id.is_empty())
    }

    /// The store of the root keyring in this account.
    ///
    /// # Errors
    /// When the settings name no secret for it.
    pub fn keyring_secrets(&self, config: &SdkConfig) -> anyhow::Result<Arc<dyn SecretStore>> {
        self.keyring_id()
            .context("KEYWAY_ROOT_KEYRING_SECRET does not name the root keyring's secret")?;
        self.secrets(config)
    }

    /// The addresses in this region of the services that the deployment uses, as its clients reach them.
    ///
    /// # Errors
    /// When a variable that names an endpoint is not UTF-8.
    pub fn service_addresses(&self, region: &str) -> anyhow::Result<Vec<String>> {
        let suffix = match region.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        };
        let everywhere = environment("AWS_ENDPOINT_URL")?;
        let address = |variable, service| {
            let named = environment(variable)?;
            anyhow::Ok(match named.as_ref().or(everywhere.as_ref()) {
                Some(address) => address.as_str().to_owned(),
                None => format!("https://{service}.{region}.{suffix}"),
            })
        };
        let mut addresses = Vec::new();
        match self.endpoint() {
            Some(endpoint) => addresses.push(endpoint.to_owned()),
            None if self.name().is_some() => {
                addresses.push(address("AWS_ENDPOINT_URL_DYNAMODB", "dynamodb")?);
            }
            None => {}
        }
        if self.names_secrets() {
            let variable = "AWS_ENDPOINT_URL_SECRETS_MANAGER";
            addresses.push(address(variable, "secretsmanager")?);
        }
        addresses.dedup();
        Ok(addresses)
    }

    fn secrets(&self, config: &SdkConfig) -> anyhow::Result<Arc<dyn SecretStore>> {
        let config = at_endpoint(config, "AWS_ENDPOINT_URL_SECRETS_MANAGER")?;
        let mut secrets = SecretsManager::new(&config);
        if let Some(keyring) = self.keyring_id() {
            secrets = secrets.with(KEYRING_SECRET, keyring);
        }
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

/// The AWS account in this region with these credentials, at the endpoint that `AWS_ENDPOINT_URL` names, if it does.
///
/// # Errors
/// When the variable is not UTF-8.
pub fn account(region: &str, credentials: SharedCredentialsProvider) -> anyhow::Result<SdkConfig> {
    let endpoint = environment("AWS_ENDPOINT_URL")?.map(|url| url.as_str().to_owned());
    Ok(keyway_aws::config(region, endpoint, credentials))
}

/// All secrets of the account in this region, whether or not they are a deployment's.
///
/// # Errors
/// When a variable that names an endpoint is not UTF-8.
pub fn account_secrets(
    region: &str,
    credentials: SharedCredentialsProvider,
) -> anyhow::Result<SecretsManager> {
    let config = account(region, credentials)?;
    let config = at_endpoint(&config, "AWS_ENDPOINT_URL_SECRETS_MANAGER")?;
    Ok(SecretsManager::new(&config))
}

/// A function's request ends after 15 seconds, and must report before then what it waited for.
pub(crate) const VAULT_TIMEOUT: Duration = Duration::from_secs(8);

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
    let apart = Apart {
        secrets: counted(location.keyring_secrets(config)?, metrics),
        vaults: vaults(clock, VAULT_TIMEOUT, vault, vault.token_folders())?,
        clock: Arc::clone(clock),
        random: Arc::clone(random),
    };
    let table = Arc::new(location.table(config, clock)?);
    let ports = apart.ports(table, None, first_use);
    let keyring = Arc::clone(&ports.keyring);
    let ports = match metrics {
        Some(metrics) => ports.counted(metrics),
        None => ports,
    };
    Ok((ports, keyring))
}

/// The store of secrets, with its calls counted if there are metrics.
pub fn counted(
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
