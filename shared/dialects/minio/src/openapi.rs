//! The OpenAPI description of this dialect.

use http::Method;
use keyway_domain::policy::Action;
use keyway_openapi::{Answer, Description, Operation, Parameter, Schema};
use serde_json::json;

use crate::Minio;
use crate::datakey::KeyStatus;
use crate::error_response::ErrorBody;
use crate::keys::KeyOut;
use crate::service::{Api, MetricsAnswer, StatusAnswer, VersionAnswer};

/// The description of this dialect's routes.
pub fn description() -> Description<Minio> {
    Description::new("minio", "MinIO's KMS API, which `mc admin kms` calls.")
        .permission(|action: Action| Some(action.as_str()))
        .security(
            "SigV4OfMinio",
            json!({
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "AWS Signature Version 4, as `mc` makes it for the service `s3`.",
            }),
        )
        .schema(Schema::encoded::<ErrorBody<'_>>("MinioError"))
        .operations(key_operations())
        .operations(server_operations())
}

fn key_operations() -> Vec<Operation> {
    let key = |text: &str| {
        Parameter::query("key-id", text, json!({"type": "string"})).example("app-key".into())
    };
    vec![
        refusing(
            Operation::new(Method::POST, "/key/create", "mcCreateKey", "Make a key")
                .parameters([key("The key; there must be one.")])
                .answer(200, Answer::empty("It is made.")),
            &[409],
        ),
        refusing(
            Operation::new(Method::GET, "/key/list", "mcListKeys", "List keys")
                .parameters([Parameter::query(
                    "pattern",
                    "Only keys whose ids match; `*` is any run of characters and `?` any one.",
                    json!({"type": "string"}),
                )])
                .answer(
                    200,
                    answer(
                        "Every key.",
                        Schema::encoded::<Vec<KeyOut<'_>>>("MinioKeys"),
                    ),
                ),
            &[],
        ),
        refusing(
            Operation::new(Method::GET, "/key/status", "mcKeyStatus", "Try a key out")
                .text("What fails is in the answer. Without a key it is the default key.")
                .parameters([key("The key.")])
                .answer(
                    200,
                    answer(
                        "How it went.",
                        Schema::encoded::<KeyStatus<'_>>("MinioKeyStatus"),
                    ),
                ),
            &[404],
        ),
    ]
}

fn server_operations() -> Vec<Operation> {
    vec![
            refusing(
                Operation::new(
                    Method::GET,
                    "/status",
                    "mcStatus",
                    "Tell how the service does",
                )
                .answer(
                    200,
                    answer(
                        "How it does.",
                        Schema::encoded::<StatusAnswer<'_>>("MinioStatus"),
                    ),
                ),
                &[],
            ),
            refusing(
                Operation::new(
                    Method::GET,
                    "/metrics",
                    "mcMetrics",
                    "Tell what the process has counted",
                )
                .text(
                    "Of every API, since the process started. Times are nanoseconds; a histogram has how many requests took no \
                     longer than each of its times.",
                )
                .answer(
                    200,
                    answer("The figures.", Schema::encoded::<MetricsAnswer>("MinioMetrics")),
                ),
                &[],
            ),
            refusing(
                Operation::new(Method::GET, "/apis", "mcApis", "List the routes of this API")
                    .answer(
                        200,
                        answer("Every route.", Schema::encoded::<Vec<Api>>("MinioApis")),
                    ),
                &[],
            ),
            refusing(
                Operation::new(Method::GET, "/version", "mcVersion", "Tell the version").answer(
                    200,
                    answer(
                        "The version.",
                        Schema::encoded::<VersionAnswer>("MinioVersion"),
                    ),
                ),
                &[],
            ),
    ]
}

fn answer(text: &str, schema: Schema) -> Answer {
    Answer::json(text, schema).header(
        "cache-control",
        "Never kept.",
        &json!({"const": "no-store"}),
    )
}

/// Adds the refusals of every route, and these.
fn refusing(operation: Operation, besides: &[u16]) -> Operation {
    const ALWAYS: [u16; 8] = [400, 403, 413, 415, 429, 500, 501, 503];
    ALWAYS
        .iter()
        .chain(besides)
        .fold(operation, |operation, &status| {
            let error = Schema::of(json!({"$ref": "#/components/schemas/MinioError"}));
            operation.answer(status, answer("It is refused; `Code` says why.", error))
        })
}
