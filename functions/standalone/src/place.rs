//! Where the deployment is: in a folder of this machine, or on AWS.

use anyhow::Context;
use aws_config::BehaviorVersion;
use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;
use keyway_deployment_assembly::Writing;
use keyway_deployment_aws::{FirstUse, Place};
use keyway_deployment_embedded::{self as embedded, Operator};
use keyway_domain::access::RootAccessKey;
use keyway_secrets_secretsmanager::SecretsManager;

/// Where the deployment is. A table's name means AWS; without one it is the data folder.
#[derive(Clone, Args)]
pub(crate) struct Deployment {
    #[command(flatten)]
    pub(crate) operator: Operator,

    #[command(flatten)]
    pub(crate) aws: Place,
}

impl Deployment {
    /// Opens the deployment; one in a folder is made on the first start. With it comes the root access key, if a
    /// secret of the deployment holds it.
    pub(crate) async fn open(&self) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
        if self.aws.name().is_some() {
            on_aws(&self.aws, FirstUse::Makes, None).await
        } else {
            Ok((embedded::open(&self.operator).await?, None))
        }
    }

    /// Opens the deployment, which must be there: the operator's commands make none.
    pub(crate) async fn open_existing(&self, region: Option<&str>) -> anyhow::Result<Writing> {
        if self.aws.name().is_some() {
            return Ok(on_aws(&self.aws, FirstUse::IsRefused, region).await?.0);
        }
        embedded::must_exist(&self.operator)?;
        embedded::open(&self.operator).await
    }
}

/// Where the deployment is that a command works on.
#[derive(Args)]
pub(crate) struct Whereabouts {
    #[command(flatten)]
    deployment: Deployment,

    /// The AWS region of --table; else what AWS's own tools would use here
    #[arg(long, env = "AWS_REGION", value_name = "REGION")]
    region: Option<String>,
}

impl Whereabouts {
    /// Opens the deployment, which must be there.
    pub(crate) async fn open(&self) -> anyhow::Result<Writing> {
        self.deployment.open_existing(self.region.as_deref()).await
    }

    /// All secrets of the AWS account in the region, wherever the deployment is.
    pub(crate) async fn account_secrets(&self) -> anyhow::Result<SecretsManager> {
        let (region, credentials) = aws(self.region.as_deref()).await?;
        keyway_deployment_aws::account_secrets(&region, credentials)
    }
}

async fn on_aws(
    place: &Place,
    first_use: FirstUse,
    region: Option<&str>,
) -> anyhow::Result<(Writing, Option<RootAccessKey>)> {
    let (region, credentials) = aws(region).await?;
    keyway_deployment_aws::writing(place, first_use, &region, credentials)
}

/// The region and credentials that AWS's own tools would use here: variables, profiles, the instance's role.
async fn aws(region: Option<&str>) -> anyhow::Result<(String, SharedCredentialsProvider)> {
    let mut loader =
        aws_config::defaults(BehaviorVersion::latest()).http_client(keyway_aws::http_client());
    if let Some(region) = region {
        loader = loader.region(aws_config::Region::new(region.to_owned()));
    }
    let found = loader.load().await;
    let region = found
        .region()
        .context("no region: pass --region, or set AWS_REGION")?
        .to_string();
    let credentials = found
        .credentials_provider()
        .context("no AWS credentials were found")?;
    Ok((region, credentials))
}
