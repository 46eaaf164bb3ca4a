//! Describes the probes for the OpenAPI document.

use http::Method;
use keyway_http::Page;
use keyway_openapi::{Answer, Description, Operation, Schema};
use serde_json::json;

use crate::PREFIXES;

/// The description of the probes.
pub fn description() -> Description<Page> {
    let description = Description::new(
        "health",
        "Whether the process lives and can do its work, for load balancers and clients.",
    )
    .anonymous()
    .suffix(PREFIXES[1], "UnderMinio");
    description.operations(
        [
            ("", "health", "headHealth", false),
            ("/live", "healthLive", "headHealthLive", false),
            ("/ready", "healthReady", "headHealthReady", true),
            ("/cluster", "healthCluster", "headHealthCluster", true),
            (
                "/cluster/read",
                "healthClusterRead",
                "headHealthClusterRead",
                true,
            ),
        ]
        .into_iter()
        .flat_map(|(path, get, head, asks)| {
            [
                operation(Method::GET, path, get, asks),
                operation(Method::HEAD, path, head, asks),
            ]
        }),
    )
}

/// `asks` marks a readiness probe; the others are liveness probes.
fn operation(method: Method, path: &'static str, id: &'static str, asks: bool) -> Operation {
    let has_body = method == Method::GET;
    let answer = |text: &str, status: &str| {
        if has_body {
            let schema = Schema::of(json!({
                "type": "object",
                "required": ["status", "service"],
                "properties": {"status": {"const": status}, "service": {"const": "keyway"}},
            }));
            Answer::json(text, schema)
        } else {
            Answer::empty(text)
        }
    };
    let summary = if asks {
        "Whether the service can do its work"
    } else {
        "Whether the process answers"
    };
    let operation = Operation::new(method, path, id, summary)
        .answer(200, answer("It is so.", "ok"))
        .answer(400, Answer::empty("The query cannot be decoded."))
        .answer(413, Answer::empty("The request has a long body."));
    if asks {
        operation.answer(
            503,
            answer(
                "The service is stopped or not configured, or its table or backend cannot be had.",
                "unavailable",
            ),
        )
    } else {
        operation
    }
}
