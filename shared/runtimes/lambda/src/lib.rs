//! Lambda events to requests and back: API Gateway (HTTP and REST APIs), load balancers, function URLs, and schedules.
//!
//! Which kind of event a function answers is pinned by its configuration and never guessed from the event: a guess
//! could be steered by whoever may send one. An event of any other kind is answered 400.

mod alb;
mod answer;
mod event;
mod http_api;
mod ingress;
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

/// Answers the events of `front` until Lambda ends the process.
///
/// A panic ends one invocation: Lambda counts it as an error and the next one is served.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its protocol; the process can only end then.
///
/// # Panics
/// When Lambda's own environment variables are not there.
pub async fn serve(site: Arc<Site>, ingress: Ingress) -> Result<(), Error> {
    let ingress = Arc::new(ingress);
    let service = service_fn(move |event: LambdaEvent<Box<RawValue>>| {
        let (site, ingress) = (Arc::clone(&site), Arc::clone(&ingress));
        async move { Ok::<_, Infallible>(respond(&site, &ingress, event.payload.get()).await) }
    });
    // Without the runtime's tracing layer: a request has an id and a log line of its own.
    Runtime::new(service).run().await
}

/// Runs `job` at each event, whatever is in it, until Lambda ends the process. What the job returns is the
/// invocation's answer, and its error fails the invocation, so that the errors metric counts it.
///
/// # Errors
/// When the Runtime API cannot be reached or breaks its protocol; the process can only end then.
///
/// # Panics
/// When Lambda's own environment variables are not there.
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
            // No client can bring this about, save by a header or target that the gateway should not have let through.
            tracing::warn!(source = %ingress.source, %refusal, "an event was refused");
            answer::refuse(&refusal)
        }
    };
    answer::encode(ingress, shape, response)
}
