//! The OpenAPI description of this dialect's paths. AWS's own model describes the bodies.

use http::Method;
use keyway_openapi::{Answer, Description, Operation, Parameter, RequestBody, Schema};
use serde_json::json;

use crate::Aws;

const JSON: &str = "application/x-amz-json-1.1";

/// The description of the path for every operation.
pub fn keys_description() -> Description<Aws> {
    let text = "AWS KMS's API in a path of its own; at the root it is `POST /` with the header `X-Amz-Target`.";
    described(
        "aws-kms",
        text,
        "awsKms",
        "Any operation of AWS KMS, by `X-Amz-Target`",
    )
}

/// The description of the path for the operations that change no key.
pub fn data_description() -> Description<Aws> {
    described(
        "aws-kms-data",
        "The operations of AWS KMS's API that change no key.",
        "awsKmsData",
        "An operation of AWS KMS that changes no key, by `X-Amz-Target`",
    )
}

fn described(
    tag: &'static str,
    text: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Description<Aws> {
    let body = Schema::of(json!({
        "type": "object",
        "description": "The members of the operation's input in AWS's model. Unknown members are ignored.",
    }));
    let operation = Operation::new(Method::POST, "", id, summary)
        .other_paths(["/"])
        .parameters([Parameter::header(
            "X-Amz-Target",
            "The operation. The signature must cover the header.",
            json!({"type": "string", "pattern": "^TrentService\\.[A-Za-z]+$"}),
        )
        .required()
        .example(json!("TrentService.GenerateDataKey"))])
        .body(RequestBody::json_or_none(body).media_type(JSON))
        .answer(
            200,
            answer("The operation's output in AWS's model; some have none."),
        );
    let operation = [400, 500, 503]
        .into_iter()
        .fold(operation, |operation, status| {
            operation.answer(status, refusal())
        });
    Description::new(tag, text)
        .security(
            "SigV4OfKms",
            json!({
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "AWS Signature Version 4 for the service `kms`.",
            }),
        )
        .operation(operation)
}

fn answer(text: &str) -> Answer {
    let output = Schema::of(json!({"type": "object"}));
    with_id(Answer::with(text, JSON, output))
}

fn refusal() -> Answer {
    let error = Schema::named(
        "AwsKmsError",
        json!({
            "type": "object",
            "properties": {"__type": {"type": "string"}, "message": {"type": "string"}},
            "required": ["__type"],
            "additionalProperties": false,
        }),
    );
    with_id(Answer::with(
        "It is refused; `__type` says why.",
        JSON,
        error,
    ))
}

fn with_id(answer: Answer) -> Answer {
    let schema = json!({"type": "string", "pattern": "^[0-9a-f]{32}$"});
    answer.header("x-amzn-requestid", "The same as `x-request-id`.", &schema)
}
