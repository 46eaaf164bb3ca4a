//! CloudFormation's events for a custom resource.
//!
//! Source: <https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html>

use lambda_runtime::{Error, LambdaEvent, Runtime, service_fn};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What CloudFormation wants of the resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ResourceChange {
    /// The stack makes the resource.
    Create,
    /// A property of the resource has changed.
    Update,
    /// The stack is deleted, or no longer has the resource.
    Delete,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ResourceEvent {
    request_type: ResourceChange,
    #[serde(rename = "ResponseURL")]
    response_url: String,
    stack_id: String,
    request_id: String,
    logical_resource_id: String,
}

/// The answer that CloudFormation waits for.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ResourceAnswer<'a> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The same for every event: another one would tell CloudFormation to delete the resource of the former one.
    physical_resource_id: &'a str,
    stack_id: &'a str,
    request_id: &'a str,
    logical_resource_id: &'a str,
}

/// The most characters of a reason. An answer may have 4096 bytes.
const LONGEST_REASON: usize = 500;

/// Runs `job` for each of CloudFormation's events, and answers with `put` at the address that the event names, until
/// Lambda ends the process. A job's error makes CloudFormation roll back. `job` may run more than once for an event.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its protocol; the process can only end then.
///
/// # Panics
/// When Lambda's own environment variables are missing.
pub async fn serve_resource<J, Done, P, Sent>(job: J, put: P) -> Result<(), Error>
where
    J: Fn(ResourceChange) -> Done,
    Done: Future<Output = Result<(), String>>,
    P: Fn(String, String) -> Sent,
    Sent: Future<Output = Result<(), Error>>,
{
    let service = service_fn(|event: LambdaEvent<Box<RawValue>>| {
        let (job, put) = (&job, &put);
        async move {
            let event: ResourceEvent = serde_json::from_str(event.payload.get())
                .map_err(|error| format!("this is no event of a custom resource: {error}"))?;
            let outcome = job(event.request_type).await;
            let answer = serde_json::to_string(&answer(&event, outcome))?;
            put(event.response_url, answer).await
        }
    });
    Runtime::new(service).run().await
}

fn answer(event: &ResourceEvent, outcome: Result<(), String>) -> ResourceAnswer<'_> {
    let reason = outcome
        .err()
        .map(|reason| reason.chars().take(LONGEST_REASON).collect());
    ResourceAnswer {
        status: match reason {
            None => "SUCCESS",
            Some(_) => "FAILED",
        },
        reason,
        physical_resource_id: "keyway-deployment",
        stack_id: &event.stack_id,
        request_id: &event.request_id,
        logical_resource_id: &event.logical_resource_id,
    }
}
