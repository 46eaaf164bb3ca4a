//! Serves sites on Lambda: events of API Gateway (HTTP and REST APIs), load balancers and function URLs, and schedules.
//!
//! A function's configuration says which kind of event it answers. The event itself never decides that, because its
//! sender could then choose. An event of any other kind is answered 400.

mod alb;
mod answer;
mod event;
mod http_api;
mod ingress;
mod resource;
mod rest_api;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;

use keyway_http::Site;
use lambda_runtime::streaming::Body;
use lambda_runtime::{Error, FunctionResponse, LambdaEvent, Runtime, service_fn};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use answer::Answer;
use ingress::Received;

pub use ingress::{EventSource, Ingress, UnknownEventSource};
pub use resource::{ResourceChange, serve_resource};

/// Answers the events of `ingress` until Lambda ends the process.
///
/// A panic ends one invocation: Lambda counts it as an error and the next one is served.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its protocol; the process can only end then.
///
/// # Panics
/// When Lambda's own environment variables are missing.
pub async fn serve(site: Arc<Site>, ingress: Ingress) -> Result<(), Error> {
    let ingress = Arc::new(ingress);
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let (site, ingress) = (Arc::clone(&site), Arc::clone(&ingress));
        async move { Ok::<_, Infallible>(respond(&site, &ingress, event.payload.get()).await) }
    });
    // Without the runtime's tracing layer, because the site gives each request an id and a log line.
    Runtime::new(service).run().await
}

/// Runs `job` at each event, and ignores the event's content, until Lambda ends the process. The job's result is the
/// invocation's answer. Its error fails the invocation, so that Lambda's errors metric counts it.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its protocol; the process can only end then.
///
/// # Panics
/// When Lambda's own environment variables are missing.
pub async fn serve_schedule<F, Fut>(job: F) -> Result<(), Error>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<serde_json::Value, Error>>,
{
    let service = service_fn(move |_: LambdaEvent<IgnoredAny>| job());
    Runtime::new(service).run().await
}

/// Answers one event.
async fn respond(site: &Site, ingress: &Ingress, event: &str) -> FunctionResponse<Answer, Body> {
    let Received { request, shape } = ingress.read(event);
    let response = match request {
        Ok((request, peer)) => site.respond(request, peer).await,
        Err(refusal) => {
            // A client can cause this only by a header or target that the gateway should have refused.
            tracing::warn!(source = %ingress.source, %refusal, "an event was refused");
            answer::refuse(&refusal)
        }
    };
    answer::encode(ingress, shape, response)
}
