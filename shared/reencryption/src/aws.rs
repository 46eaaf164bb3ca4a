//! AWS KMS, as far as ciphertexts are moved from it: one operation.

use std::net::IpAddr;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::Builder;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::decrypt::DecryptError;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_types::SdkConfig;
use http::Uri;
use http::uri::Scheme;
use keyway_aws::Service;
use keyway_crypto::SecretBytes;

use crate::line::Ciphertext;

/// How often a decryption is tried. AWS KMS throttles all users of an account's keys together, so this job must be able to
/// wait.
const ATTEMPTS: u32 = 10;
/// How long a decryption may take with all its attempts.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// AWS KMS in one region, with the credentials that may decrypt.
pub struct AwsKms {
    client: Client,
    service: Service,
}

/// Why a ciphertext was not decrypted.
pub(crate) enum SourceError {
    /// Other ciphertexts may be decrypted.
    OfCiphertext(String),
    /// No ciphertext is decrypted at present.
    OfSource(String),
}

impl AwsKms {
    /// Uses `config`, and its endpoint if it has one.
    ///
    /// # Errors
    /// What is wrong with the endpoint: plaintexts must not travel in clear text outside of this machine.
    pub fn new(config: &SdkConfig) -> Result<Self, String> {
        if let Some(endpoint) = config.endpoint_url() {
            check_endpoint(endpoint)?;
        }
        let service = Service::new("AWS KMS", config);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(keyway_aws::CONNECT_TIMEOUT)
            .operation_attempt_timeout(keyway_aws::ATTEMPT_TIMEOUT)
            .operation_timeout(OPERATION_TIMEOUT);
        // The adaptive mode slows all tasks of the client down when AWS throttles one.
        let retries = RetryConfig::adaptive()
            .with_max_attempts(ATTEMPTS)
            .with_max_backoff(LONGEST_PAUSE);
        let config = Builder::from(config)
            .timeout_config(timeouts.build())
            .retry_config(retries)
            .build();
        Ok(Self {
            client: Client::from_conf(config),
            service,
        })
    }

    pub(crate) async fn decrypt(
        &self,
        ciphertext: &Ciphertext,
    ) -> Result<SecretBytes, SourceError> {
        let context = ciphertext.context();
        let request = self
            .client
            .decrypt()
            .ciphertext_blob(Blob::new(ciphertext.blob()))
            .set_encryption_context(Some(
                context
                    .pairs()
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            ));
        let answer = request.send().await.map_err(|error| self.failed(&error))?;
        let plaintext = answer.plaintext.ok_or_else(|| {
            SourceError::OfSource("the answer to Decrypt has no plaintext".to_owned())
        })?;
        Ok(SecretBytes::from(plaintext.into_inner()))
    }

    fn failed(&self, error: &SdkError<DecryptError, HttpResponse>) -> SourceError {
        let of_ciphertext = |reason: &str| SourceError::OfCiphertext(reason.to_owned());
        match error.as_service_error() {
            Some(DecryptError::InvalidCiphertextException(_)) => of_ciphertext(
                "AWS KMS cannot decrypt it: it is no ciphertext of this region and account, or its encryption context is another",
            ),
            Some(
                DecryptError::DisabledException(_)
                | DecryptError::KmsInvalidStateException(_)
                | DecryptError::NotFoundException(_)
                | DecryptError::InvalidKeyUsageException(_)
                | DecryptError::IncorrectKeyException(_),
            ) => of_ciphertext(&keyway_domain::one_line(
                &self.service.failed("decrypt", error),
            )),
            _ => match error.code() {
                Some("AccessDeniedException" | "ValidationException") => of_ciphertext(
                    &keyway_domain::one_line(&self.service.failed("decrypt", error)),
                ),
                _ => SourceError::OfSource(keyway_domain::one_line(
                    &self.service.failed("decrypt", error),
                )),
            },
        }
    }
}

/// Refuses plain HTTP to another machine.
fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: Uri = endpoint
        .parse()
        .map_err(|_| format!("{endpoint} is no address of a server"))?;
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    let is_loopback =
        host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback());
    if uri.scheme() == Some(&Scheme::HTTPS) || is_loopback {
        return Ok(());
    }
    Err(format!(
        "{endpoint} is not loopback, and plain HTTP would show plaintexts to the network; use https"
    ))
}
