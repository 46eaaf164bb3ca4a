//! The object store whose buckets are served instead of the table's own.

use std::sync::Arc;

use anyhow::bail;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use clap::Args;
use keyway_buckets_s3::{S3Buckets, S3Upload};
use keyway_deployment_assembly::{environment, secret};
use keyway_domain::buckets::{Buckets, TrackedBuckets};
use keyway_domain::ports::{Random, TableWriter};

/// The endpoint that stands for AWS's own.
const AWS: &str = "aws";

/// The object store whose buckets are served. Without one, buckets are records of the table.
#[derive(Debug, Clone, Args)]
pub struct ObjectStore {
    /// The S3 endpoint whose buckets are served: a URL, or `aws`; without one, buckets are kept in the table
    #[arg(long, env = "KEYWAY_S3_ENDPOINT", value_name = "URL|aws")]
    pub s3_endpoint: Option<String>,

    /// The region of the S3 endpoint
    #[arg(
        long,
        env = "KEYWAY_S3_REGION",
        value_name = "REGION",
        requires = "s3_endpoint"
    )]
    pub s3_region: Option<String>,
}

/// A client of the object store.
pub struct OpenStore(S3Buckets);

impl OpenStore {
    /// Its buckets, with the keys that they use recorded in the table.
    pub fn tracked(self, table: Arc<dyn TableWriter>, random: Arc<dyn Random>) -> Arc<dyn Buckets> {
        Arc::new(TrackedBuckets::new(self.0, table, random))
    }
}

impl ObjectStore {
    fn endpoint(&self) -> Option<&str> {
        // A template passes an empty text for a parameter that was left out.
        let endpoint = self.s3_endpoint.as_deref();
        endpoint.filter(|endpoint| !endpoint.is_empty())
    }

    /// Whether AWS credentials are needed to write an object: the settings have no access key for the object store.
    ///
    /// # Errors
    /// When only half of an access key is set.
    pub fn needs_credentials_to_upload(&self) -> anyhow::Result<bool> {
        Ok(own_credentials()?.is_none())
    }

    /// Whether AWS credentials are needed: the settings name an object store, and no access key for it.
    ///
    /// # Errors
    /// When only half of an access key is set.
    pub fn needs_credentials(&self) -> anyhow::Result<bool> {
        Ok(self.endpoint().is_some() && own_credentials()?.is_none())
    }

    /// The object store that the settings name, if they name one. `aws` holds the process's own region and credentials.
    ///
    /// # Errors
    /// When the settings do not say how to reach it.
    pub fn open(&self, aws: Option<&SdkConfig>) -> anyhow::Result<Option<OpenStore>> {
        let Some(endpoint) = self.endpoint() else {
            if own_credentials()?.is_some() {
                bail!(
                    "KEYWAY_S3_ACCESS_KEY_ID is set, and KEYWAY_S3_ENDPOINT (--s3-endpoint) is not"
                );
            }
            return Ok(None);
        };
        let config = self.reached(endpoint, aws)?;
        Ok(Some(OpenStore(S3Buckets::new(&config))))
    }

    /// Begins an object in this bucket of the object store that the settings name, or of AWS's.
    ///
    /// # Errors
    /// When the settings do not say how to reach it.
    pub fn upload(
        &self,
        aws: Option<&SdkConfig>,
        bucket: &str,
        key: &str,
    ) -> anyhow::Result<S3Upload> {
        let config = self.reached(self.endpoint().unwrap_or(AWS), aws)?;
        Ok(S3Upload::new(&config, bucket, key))
    }

    /// How this endpoint is reached.
    fn reached(&self, endpoint: &str, aws: Option<&SdkConfig>) -> anyhow::Result<SdkConfig> {
        let url = match endpoint {
            // The variables that redirect AWS's own tools apply here as well.
            AWS => match environment("AWS_ENDPOINT_URL_S3")? {
                Some(url) => Some(url),
                None => environment("AWS_ENDPOINT_URL")?,
            }
            .map(|url| url.as_str().to_owned()),
            url if url.starts_with("https://") || url.starts_with("http://") => {
                Some(url.to_owned())
            }
            _ => bail!("--s3-endpoint (KEYWAY_S3_ENDPOINT) is neither `aws` nor a URL"),
        };
        let own = own_credentials()?;
        let of_process = aws.and_then(SdkConfig::credentials_provider);
        let Some(credentials) = own.or(of_process) else {
            bail!(
                "no credentials for the S3 endpoint: set KEYWAY_S3_ACCESS_KEY_ID and KEYWAY_S3_SECRET_ACCESS_KEY"
            );
        };
        let region = self
            .s3_region
            .clone()
            .filter(|region| !region.is_empty())
            .or_else(|| aws?.region().map(ToString::to_string))
            .unwrap_or_else(|| "us-east-1".to_owned());
        Ok(keyway_aws::config(&region, url, credentials))
    }
}

/// The access key that is set for the S3 endpoint alone.
fn own_credentials() -> anyhow::Result<Option<SharedCredentialsProvider>> {
    match (
        secret("KEYWAY_S3_ACCESS_KEY_ID")?,
        secret("KEYWAY_S3_SECRET_ACCESS_KEY")?,
    ) {
        (None, None) => Ok(None),
        (Some(id), Some(secret)) => {
            let token = environment("KEYWAY_S3_SESSION_TOKEN")?.map(|token| token.to_string());
            Ok(Some(SharedCredentialsProvider::new(Credentials::new(
                id.as_str(),
                secret.as_str(),
                token,
                None,
                "environment",
            ))))
        }
        _ => bail!(
            "KEYWAY_S3_ACCESS_KEY_ID and KEYWAY_S3_SECRET_ACCESS_KEY must be set together, or neither of them"
        ),
    }
}
