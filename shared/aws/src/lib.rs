//! Shared by the crates on AWS's SDK: the clients' configuration with timeouts and retries, and the conversion of errors
//! to those of the domain's ports.

mod presigned;
mod retries;

use std::error::Error;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_async::time::{SharedTimeSource, SystemTimeSource};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use keyway_domain::ports::StoreError;

pub use presigned::{PutError, put_presigned};
pub use retries::{CountRetries, retries};

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one attempt may take. These services answer in milliseconds, so a slow attempt is better repeated.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an operation may take with all its attempts. A function's own timeout must be longer.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(8);
/// How often an operation is tried, with the first attempt.
pub const ATTEMPTS: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The retry quota of a client. One retry costs 14.
const RETRY_QUOTA: usize = 2000;
const RETRY_QUOTA_A_SECOND: f32 = 100.0;

/// The configuration of AWS's clients: one HTTP client for all of them, TLS by rustls on AWS-LC, timeouts and retries.
pub fn config(
    region: impl Into<String>,
    endpoint: Option<String>,
    credentials: SharedCredentialsProvider,
) -> SdkConfig {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region.into()))
        .credentials_provider(credentials)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .time_source(SharedTimeSource::new(SystemTimeSource::new()))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        )
        .retry_config(
            RetryConfig::standard()
                .with_max_attempts(ATTEMPTS)
                .with_initial_backoff(FIRST_PAUSE)
                .with_max_backoff(LONGEST_PAUSE),
        )
        // Answers are small, and the timeouts above cover them.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    at_endpoint(&config.build(), endpoint)
}

/// The configuration for a service at this endpoint, or at AWS's own if it is `None`.
pub fn at_endpoint(config: &SdkConfig, endpoint: Option<String>) -> SdkConfig {
    let is_plain = endpoint
        .as_deref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut config = config.to_builder();
    // A client with TLS reads the system's root certificates when it is made, which plain HTTP does not need.
    config.set_http_client(Some(if is_plain {
        Builder::new().build_http()
    } else {
        http_client()
    }));
    config.set_endpoint_url(endpoint);
    config.build()
}

/// The quota of retries of one service's client. The SDK's own quota does not refill with time, so that a process
/// that runs for long ends up without retries.
pub fn retry_partition(service: &'static str) -> RetryPartition {
    let quota = TokenBucket::builder()
        .capacity(RETRY_QUOTA)
        .refill_rate(RETRY_QUOTA_A_SECOND)
        .build();
    RetryPartition::custom(service).token_bucket(quota).build()
}

/// HTTP over TLS by rustls on AWS-LC, Keyway's only cryptography library.
pub fn http_client() -> SharedHttpClient {
    Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .build_https()
}

/// The error codes by which AWS's services ask for fewer requests.
const THROTTLED: [&str; 6] = [
    "ProvisionedThroughputExceededException",
    "ThrottlingException",
    "ThrottledException",
    "Throttling",
    "RequestLimitExceeded",
    "TooManyRequestsException",
];

/// The name of a service and its address, for the log, such as "DynamoDB's table `keys` at http://127.0.0.1:8000".
#[derive(Debug, Clone)]
pub struct Service(String);

impl Service {
    /// Names this service with the endpoint and the region of `config`.
    pub fn new(what: &str, config: &SdkConfig) -> Self {
        let region = config.region().map_or("", Region::as_ref);
        Self(match config.endpoint_url() {
            Some(endpoint) => format!("{what} at {endpoint} (region {region})"),
            None => format!("{what} in region {region}"),
        })
    }

    /// Turns a failure of the service, or of the connection to it, into the error of the domain's ports.
    pub fn failed<E>(&self, what: &'static str, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        if error.code().is_some_and(|code| THROTTLED.contains(&code)) {
            return StoreError::Throttled;
        }
        let Self(service) = self;
        let told = told(error);
        match is_away(error) {
            true => StoreError::Away(format!("could not {what}: {service}: {told}")),
            false => StoreError::Failed {
                what,
                source: format!("{service}: {told}").into(),
            },
        }
    }
}

/// Returns whether another attempt may succeed: the service did not answer, or answered that it cannot for now.
fn is_away<E>(error: &SdkError<E, HttpResponse>) -> bool {
    match error {
        SdkError::DispatchFailure(_) | SdkError::TimeoutError(_) => true,
        SdkError::ConstructionFailure(_) => false,
        // A proxy or another server answered in the service's place.
        SdkError::ResponseError(_) => true,
        other => other
            .raw_response()
            .is_some_and(|answer| answer.status().is_server_error()),
    }
}

/// The error in one sentence, with what to do. The SDK's own `Debug` would show the answer's body, which can hold a
/// secret, and its `Display` names every layer of the SDK before the cause.
fn told<E>(error: &SdkError<E, HttpResponse>) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    if let Some(code) = error.code() {
        let message = error.message().unwrap_or("without a message");
        let status = error
            .raw_response()
            .map(|answer| format!("status {}, ", answer.status().as_u16()))
            .unwrap_or_default();
        return format!("{status}{code}: {message}{}", advice(code));
    }
    if let Some(answer) = error.raw_response() {
        return format!(
            "the answer, of status {}, is not one of this service: a proxy or another server gave it; check the endpoint",
            answer.status().as_u16()
        );
    }
    let cause = match error {
        SdkError::TimeoutError(_) => {
            let seconds = OPERATION_TIMEOUT.as_secs();
            return format!("no answer within {seconds} seconds");
        }
        error => root_cause(error),
    };
    match error {
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            format!("no answer in time ({cause}); check the endpoint and the network")
        }
        SdkError::DispatchFailure(failure) if failure.is_io() => {
            format!("no connection: {cause}; check the endpoint and the network")
        }
        _ => cause,
    }
}

/// What an operator can do about an error of AWS's.
fn advice(code: &str) -> &'static str {
    match code {
        "ResourceNotFoundException" => "; check the name, the region and the account",
        "AccessDeniedException" | "AccessDenied" => {
            "; give the credentials the permission that the message names"
        }
        "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch" => "; check the credentials and the region",
        "ExpiredTokenException" | "ExpiredToken" => "; get new credentials",
        _ => "",
    }
}

fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
