//! Where the deployment is: in a folder of this machine, or on AWS.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;
use keyway_deployment_assembly::{Stores, VaultFiles, Writing, secret};
use keyway_deployment_aws::{FirstUse, Location, ObjectStore, S3Upload};
use keyway_deployment_embedded::{self as embedded, EmptyTable, Inspected, Operator};
use keyway_domain::access::RootAccessKey;
use keyway_domain::buckets::Buckets;
use keyway_domain::doctor::{Code, Finding};
use keyway_domain::ports::{Clock, TableReader};
use keyway_metrics::{CountedSecrets, Metrics};
use keyway_reencryption::AwsKms;
use keyway_secrets_secretsmanager::SecretsManager;
use keyway_settings::SettingsFile;

/// Where the deployment is. A table's name means AWS; without one it is the data folder. Options of the one place are
/// refused beside the other: an option that is ignored misleads.
#[derive(Clone, Args)]
#[command(
    mut_arg("data_dir", |option| option.conflicts_with("table")),
    mut_arg("passphrase_file", |option| option.conflicts_with("table")),
    mut_arg("root_keyring_secret", |option| option.requires("table")),
    mut_arg("root_access_key_secret", |option| option.requires("table"))
)]
pub(crate) struct Deployment {
    #[command(flatten)]
    pub(crate) settings_file: SettingsFile,

    #[command(flatten)]
    pub(crate) operator: Operator,

    #[command(flatten)]
    pub(crate) aws: Location,

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
        let (ports, root) = if self.aws.name().is_some() {
            let first_use = FirstUse::Makes { accept_empty_table };
            self.on_aws(first_use, Some(metrics)).await?
        } else {
            let counted = |secrets| Arc::new(CountedSecrets::new(secrets, metrics)) as _;
            let empty_table = if accept_empty_table {
                EmptyTable::IsAccepted
            } else {
                EmptyTable::IsRefused
            };
            let ports =
                embedded::open_with(&self.operator, &self.vault, empty_table, counted).await?;
            (ports.counted(metrics), None)
        };
        Ok((ports, root))
    }

    /// Opens the deployment, which must exist: the operator's commands do not make one.
    async fn open_existing(&self) -> anyhow::Result<Writing> {
        if self.aws.name().is_some() {
            return Ok(self.on_aws(FirstUse::IsRefused, None).await?.0);
        }
        embedded::must_exist(&self.operator)?;
        embedded::open(&self.operator, &self.vault).await
    }

    async fn on_aws(
        &self,
        first_use: FirstUse,
        metrics: Option<&Arc<Metrics>>,
    ) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
        if secret("KEYWAY_PASSPHRASE")?.is_some() {
            bail!(
                "KEYWAY_PASSPHRASE protects the root keyring of a data folder, and with --table it would protect nothing: unset it"
            );
        }
        let (region, credentials) = aws(self.aws.region.as_deref()).await?;
        let (location, vault) = (&self.aws, &self.vault);
        keyway_deployment_aws::writing(location, vault, first_use, &region, credentials, metrics)
            .await
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
        let Deployment {
            operator,
            aws,
            vault,
            ..
        } = &self.deployment;
        let Some(table) = aws.name() else {
            return Ok(embedded::inspect(operator, vault).await);
        };
        Ok(
            match self.deployment.on_aws(FirstUse::IsRefused, None).await {
                Ok((ports, _)) => {
                    let ports = ports.reading();
                    let (region, _) = self::aws(aws.region.as_deref()).await?;
                    Inspected {
                        findings: Vec::new(),
                        unverified: Some((Arc::clone(&ports.stored), Arc::clone(&ports.clock))),
                        ports: Some(ports),
                        dated: keyway_deployment_aws::service_addresses(&region)?,
                    }
                }
                Err(error) => Inspected {
                    findings: vec![Finding::new(
                        Code::TableUnavailable,
                        format!("table {table}"),
                        format!("{error:#}"),
                    )],
                    unverified: None,
                    ports: None,
                    dated: Vec::new(),
                },
            },
        )
    }

    /// The data folder, unless the deployment is on AWS.
    pub(crate) fn folder(&self) -> Option<&Path> {
        let Deployment { operator, aws, .. } = &self.deployment;
        aws.name().is_none().then_some(operator.data_dir.as_path())
    }

    /// The deployment's table, to be read without the root keyring, and the time. So records that it signs are not
    /// verified.
    pub(crate) async fn unverified_table(
        &self,
    ) -> anyhow::Result<(Arc<dyn TableReader>, Arc<dyn Clock>)> {
        self.region_is_used()?;
        let Deployment { operator, aws, .. } = &self.deployment;
        if aws.name().is_none() {
            return embedded::unverified_table(operator);
        }
        let (region, credentials) = self::aws(aws.region.as_deref()).await?;
        keyway_deployment_aws::unverified_table(aws, &region, credentials)
    }

    /// The stores of a deployment that a restore fills. A dry run makes nothing.
    pub(crate) async fn stores(&self, dry_run: bool) -> anyhow::Result<Stores> {
        self.region_is_used()?;
        let Deployment { operator, aws, .. } = &self.deployment;
        if aws.name().is_none() {
            return embedded::stores(operator, dry_run).await;
        }
        let (region, credentials) = self::aws(aws.region.as_deref()).await?;
        keyway_deployment_aws::stores(aws, &region, credentials)
    }

    /// The location that these options name; `None` if they name none.
    pub(crate) fn named(
        settings_file: SettingsFile,
        operator: Option<Operator>,
        aws: Option<Location>,
    ) -> Option<Self> {
        if operator.is_none() && aws.is_none() {
            return None;
        }
        let here = || Operator {
            data_dir: "./data".into(),
            passphrase_file: None,
        };
        let nowhere = || Location {
            table: None,
            region: None,
            root_keyring_secret: None,
            root_access_key_secret: None,
        };
        Some(Self {
            deployment: Deployment {
                settings_file,
                operator: operator.unwrap_or_else(here),
                aws: aws.unwrap_or_else(nowhere),
                vault: VaultFiles::default(),
            },
        })
    }

    /// Goes on without a root that is lost. A data folder is not opened for this, because that is refused.
    pub(crate) async fn give_up_root(&self, root: &str) -> anyhow::Result<()> {
        self.region_is_used()?;
        let Deployment { operator, aws, .. } = &self.deployment;
        if aws.name().is_none() {
            embedded::must_exist(operator)?;
            return embedded::give_up_root(operator, root).await;
        }
        let ports = self.deployment.open_existing().await?;
        Ok(ports.keyring.give_up(ports.stored.as_ref(), root).await?)
    }

    /// The deployment's table on AWS, if it is there.
    pub(crate) fn table(&self) -> Option<&str> {
        self.deployment.aws.name()
    }

    fn region_is_used(&self) -> anyhow::Result<()> {
        let aws = &self.deployment.aws;
        if aws.region.is_some() && aws.name().is_none() {
            bail!("--region is the AWS region of --table, and there is no --table");
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
