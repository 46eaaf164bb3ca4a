//! Answers to addresses that carry their own signature.

use std::time::Duration;

use aws_smithy_async::rt::sleep::TokioSleep;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorSettings};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;

use crate::CONNECT_TIMEOUT;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why [`put_presigned`] failed.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Only loopback may be reached without TLS.
    #[error("the address to answer at is neither https:// nor on loopback")]
    Address,
    /// The request could not be made or sent.
    #[error("the answer could not be sent: {0}")]
    Sending(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Another status than 2xx.
    #[error("the answer was refused with status {0}")]
    Status(u16),
}

/// Puts `body` at a presigned address, such as the one at which CloudFormation expects a custom resource's answer. S3
/// signs for an empty content type. The address is a secret as long as it is valid: no error quotes it.
///
/// # Errors
/// When the address is not `https://` (`http://` to 127.0.0.1 is allowed, for stand-ins), when it cannot be reached, or
/// when it does not answer 2xx.
pub async fn put_presigned(url: &str, body: String) -> Result<(), PutError> {
    let connector = Connector::builder()
        .sleep_impl(TokioSleep::new())
        .connector_settings(
            HttpConnectorSettings::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .read_timeout(ANSWER_TIMEOUT)
                .build(),
        );
    let connector = if url.starts_with("http://127.0.0.1:") {
        connector.build_http()
    } else if url.starts_with("https://") {
        connector
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .build()
    } else {
        return Err(PutError::Address);
    };
    let length = body.len().to_string();
    let mut request = HttpRequest::new(SdkBody::from(body));
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| PutError::Sending(error);
    request
        .set_method("PUT")
        .map_err(|error| failed(error.into()))?;
    // The error would quote the address.
    request.set_uri(url).map_err(|_| PutError::Address)?;
    for (name, value) in [("content-type", String::new()), ("content-length", length)] {
        let set = request.headers_mut().try_insert(name, value);
        set.map_err(|error| failed(error.into()))?;
    }
    let response = connector.call(request).await;
    let status = response.map_err(|error| failed(error.into()))?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(PutError::Status(status.as_u16()))
    }
}
