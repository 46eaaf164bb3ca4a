//! The Buckets port over an S3 endpoint: AWS's own, or that of RustFS, MinIO, LocalStack and the like.
//!
//! If S3 refuses a request because of its own settings, such as a missing permission of this service, that is a failure:
//! the caller cannot fix it, and the log says why.

mod upload;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, ServerSideEncryption,
    ServerSideEncryptionByDefault, ServerSideEncryptionConfiguration, ServerSideEncryptionRule,
};
use aws_smithy_types::error::operation::BuildError;
use aws_types::SdkConfig;
use jiff::Timestamp;
use keyway_aws::Service;
use keyway_domain::buckets::{
    Algorithm, Bucket, BucketError, BucketName, Buckets, DefaultEncryption,
};
use keyway_domain::ports::StoreError;

pub use upload::S3Upload;

/// The region whose buckets have no location. S3 refuses it as a location.
const HOME_REGION: &str = "us-east-1";

/// Buckets behind an S3 endpoint.
pub struct S3Buckets {
    client: Client,
    service: Service,
    region: Option<String>,
}

impl S3Buckets {
    /// A client with `config`. Endpoints other than AWS's get the bucket's name in the path, because their DNS may
    /// not have a name for each bucket.
    pub fn new(config: &SdkConfig) -> Self {
        let is_aws = config.endpoint_url().is_none();
        let region = config.region().map(ToString::to_string);
        let service = Service::new("S3", config);
        let config = Builder::from(config)
            .force_path_style(!is_aws)
            .retry_partition(keyway_aws::retry_partition("s3"))
            .interceptor(keyway_aws::CountRetries)
            .build();
        Self {
            client: Client::from_conf(config),
            service,
            region: region.filter(|region| region != HOME_REGION),
        }
    }

    /// The port's error for a failure of a request on a bucket.
    fn refused<E>(&self, what: &'static str, error: &SdkError<E, HttpResponse>) -> BucketError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        // An answer without a body asks only by its status to try again later.
        if status(error).is_some_and(|status| matches!(status, 429 | 503)) {
            return StoreError::Throttled.into();
        }
        match error.code() {
            Some("NoSuchBucket") => BucketError::NoSuchBucket,
            Some("BucketAlreadyOwnedByYou" | "BucketAlreadyExists") => BucketError::Exists,
            Some("BucketNotEmpty") => BucketError::NotEmpty,
            _ => self.service.failed(what, error).into(),
        }
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

fn garbled(what: &'static str, why: &'static str) -> BucketError {
    StoreError::Failed {
        what,
        source: why.into(),
    }
    .into()
}

fn incomplete(error: BuildError) -> BucketError {
    StoreError::Failed {
        what: "make a request",
        source: error.into(),
    }
    .into()
}

#[async_trait]
impl Buckets for S3Buckets {
    async fn list(&self) -> Result<Vec<Bucket>, BucketError> {
        let what = "list buckets";
        let mut found = Vec::new();
        let mut pages = self.client.list_buckets().into_paginator().send();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.refused(what, &error))?;
            for bucket in page.buckets.unwrap_or_default() {
                // A bucket with a name from before today's rules is not shown, because no request here can name it.
                let name = BucketName::parse(bucket.name.as_deref().unwrap_or_default());
                let (Ok(name), Some(created)) = (name, bucket.creation_date) else {
                    continue;
                };
                let created_at = Timestamp::from_second(created.secs())
                    .map_err(|_| garbled(what, "a bucket's date is none"))?;
                found.push(Bucket { name, created_at });
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn create(&self, name: &BucketName) -> Result<(), BucketError> {
        // In one region, AWS reports success to an owner who makes an existing bucket again.
        if self.exists(name).await? {
            return Err(BucketError::Exists);
        }
        let place = self.region.as_deref().map(|region| {
            CreateBucketConfiguration::builder()
                .location_constraint(BucketLocationConstraint::from(region))
                .build()
        });
        self.client
            .create_bucket()
            .bucket(name.as_str())
            .set_create_bucket_configuration(place)
            .send()
            .await
            .map_err(|error| self.refused("create a bucket", &error))?;
        Ok(())
    }

    async fn remove(&self, name: &BucketName) -> Result<(), BucketError> {
        self.client
            .delete_bucket()
            .bucket(name.as_str())
            .send()
            .await
            .map_err(|error| self.refused("remove a bucket", &error))?;
        Ok(())
    }

    async fn exists(&self, name: &BucketName) -> Result<bool, BucketError> {
        match self.client.head_bucket().bucket(name.as_str()).send().await {
            Ok(_) => Ok(true),
            // An answer to HEAD has no body and so no error code.
            Err(error) => match status(&error) {
                Some(404) => Ok(false),
                _ => Err(self.refused("look for a bucket", &error)),
            },
        }
    }

    async fn encryption(
        &self,
        name: &BucketName,
    ) -> Result<Option<DefaultEncryption>, BucketError> {
        let what = "read a bucket's encryption";
        let asked = self.client.get_bucket_encryption().bucket(name.as_str());
        let answer = match asked.send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.code() {
                    Some("ServerSideEncryptionConfigurationNotFoundError") => Ok(None),
                    _ => Err(self.refused(what, &error)),
                };
            }
        };
        let rules = answer.server_side_encryption_configuration;
        let Some(rule) = rules.and_then(|rules| rules.rules.into_iter().next()) else {
            return Ok(None);
        };
        Ok(rule.apply_server_side_encryption_by_default.map(|default| {
            DefaultEncryption::found(
                default.sse_algorithm.as_str(),
                default.kms_master_key_id.as_deref(),
                rule.bucket_key_enabled.unwrap_or_default(),
            )
        }))
    }

    async fn set_encryption(
        &self,
        name: &BucketName,
        encryption: &DefaultEncryption,
    ) -> Result<(), BucketError> {
        let algorithm = match &encryption.algorithm {
            Algorithm::Aes256 => ServerSideEncryption::Aes256,
            Algorithm::Kms(_) => ServerSideEncryption::AwsKms,
            Algorithm::Foreign { name, .. } => ServerSideEncryption::from(name.as_str()),
        };
        let default = ServerSideEncryptionByDefault::builder()
            .sse_algorithm(algorithm)
            .set_kms_master_key_id(encryption.key().map(str::to_owned))
            .build()
            .map_err(incomplete)?;
        let rule = ServerSideEncryptionRule::builder()
            .apply_server_side_encryption_by_default(default)
            .bucket_key_enabled(encryption.bucket_key_enabled)
            .build();
        let rules = ServerSideEncryptionConfiguration::builder()
            .rules(rule)
            .build()
            .map_err(incomplete)?;
        self.client
            .put_bucket_encryption()
            .bucket(name.as_str())
            .server_side_encryption_configuration(rules)
            .send()
            .await
            .map_err(|error| self.refused("set a bucket's encryption", &error))?;
        Ok(())
    }

    async fn clear_encryption(&self, name: &BucketName) -> Result<(), BucketError> {
        self.client
            .delete_bucket_encryption()
            .bucket(name.as_str())
            .send()
            .await
            .map_err(|error| self.refused("remove a bucket's encryption", &error))?;
        Ok(())
    }
}
