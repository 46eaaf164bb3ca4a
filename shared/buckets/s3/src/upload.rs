//! An object that is written part by part, and exists when it is complete.

use std::mem;
use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_types::SdkConfig;
use keyway_aws::Service;
use keyway_domain::ports::StoreError;

/// The size of a part. S3 takes at least 5 MiB, and at most 10,000 parts: 156 GiB together.
const PART: usize = 16 << 20;
/// How long one attempt to send a part may take: at 450 kbit/s, a part takes five minutes.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a part may take with all attempts.
const PART_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// S3's limit for the parts of an object.
const MOST_PARTS: i32 = 10_000;

/// An object that is being written. It never replaces an existing one where the service knows conditional writes.
pub struct S3Upload {
    client: Client,
    service: Service,
    bucket: String,
    key: String,
    /// What waits for the next part.
    waiting: Vec<u8>,
    /// The id of the upload, once its first part was full.
    id: Option<String>,
    parts: Vec<CompletedPart>,
}

impl S3Upload {
    /// Begins an object. Nothing is sent yet.
    pub fn new(config: &SdkConfig, bucket: &str, key: &str) -> Self {
        let is_aws = config.endpoint_url().is_none();
        let service = Service::new(&format!("S3's bucket `{bucket}`"), config);
        let config = Builder::from(config)
            .force_path_style(!is_aws)
            // The timeouts of other requests are too short for so many bytes.
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(keyway_aws::CONNECT_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .operation_timeout(PART_TIMEOUT)
                    .build(),
            )
            .retry_partition(keyway_aws::retry_partition("s3"))
            .interceptor(keyway_aws::CountRetries)
            .build();
        Self {
            client: Client::from_conf(config),
            service,
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            waiting: Vec::new(),
            id: None,
            parts: Vec::new(),
        }
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// When the service refuses a part.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PART {
            self.send_part().await?;
        }
        Ok(())
    }

    async fn begun(&mut self) -> Result<String, StoreError> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let begun = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(&self.key)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .send()
            .await
            .map_err(|error| self.service.failed("begin an object", &error))?;
        let id = begun.upload_id.ok_or(StoreError::Failed {
            what: "begin an object",
            source: "the answer has no upload id".into(),
        })?;
        self.id = Some(id.clone());
        Ok(id)
    }

    async fn send_part(&mut self) -> Result<(), StoreError> {
        let id = self.begun().await?;
        let number = i32::try_from(self.parts.len()).unwrap_or(i32::MAX);
        let number = number.saturating_add(1);
        if number > MOST_PARTS {
            return Err(StoreError::Failed {
                what: "write an object",
                source: "it is larger than S3 accepts in parts of 16 MiB".into(),
            });
        }
        let sent = self
            .client
            .upload_part()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(ByteStream::from(mem::take(&mut self.waiting)))
            .send()
            .await
            .map_err(|error| self.service.failed("write a part of an object", &error))?;
        let part = CompletedPart::builder()
            .part_number(number)
            .set_e_tag(sent.e_tag)
            .set_checksum_crc32(sent.checksum_crc32);
        self.parts.push(part.build());
        Ok(())
    }

    /// Makes the object.
    ///
    /// # Errors
    /// When the service refuses it, or has such an object already.
    pub async fn finish(&mut self) -> Result<(), StoreError> {
        if self.id.is_none() {
            self.client
                .put_object()
                .bucket(&self.bucket)
                .key(&self.key)
                .if_none_match("*")
                .body(ByteStream::from(mem::take(&mut self.waiting)))
                .send()
                .await
                .map_err(|error| self.service.failed("write an object", &error))?;
            return Ok(());
        }
        if !self.waiting.is_empty() {
            self.send_part().await?;
        }
        let parts = CompletedMultipartUpload::builder()
            .set_parts(Some(mem::take(&mut self.parts)))
            .build();
        self.client
            .complete_multipart_upload()
            .bucket(&self.bucket)
            .key(&self.key)
            .set_upload_id(self.id.clone())
            .if_none_match("*")
            .multipart_upload(parts)
            .send()
            .await
            .map_err(|error| self.service.failed("finish an object", &error))?;
        self.id = None;
        Ok(())
    }

    /// Removes the parts that were sent. S3 charges for them as long as they are there.
    ///
    /// # Errors
    /// When the service fails.
    pub async fn abandon(&mut self) -> Result<(), StoreError> {
        let Some(id) = self.id.take() else {
            return Ok(());
        };
        self.client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(&self.key)
            .upload_id(id)
            .send()
            .await
            .map_err(|error| self.service.failed("remove the parts of an object", &error))?;
        Ok(())
    }
}
