//! The OpenAPI description of this dialect. S3's own documentation describes its XML.

use http::Method;
use keyway_openapi::{Answer, Description, Operation, Parameter, RequestBody, Schema};
use serde_json::json;

use crate::S3;

const XML: &str = "application/xml";

/// The description of this dialect's routes.
pub fn description() -> Description<S3> {
    let description = Description::new(
        "s3",
        "S3's own protocol, as far as the default encryption of buckets needs it.",
    )
    .security(
        "SigV4OfS3",
        json!({
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4 for the service `s3`.",
        }),
    )
    .operation(refusing(
        Operation::new(Method::GET, "/", "s3ListBuckets", "ListBuckets")
            .parameters([
                x_id(),
                Parameter::query(
                    "prefix",
                    "Only names that begin so.",
                    json!({"type": "string"}),
                ),
                Parameter::query(
                    "max-buckets",
                    "How many at most.",
                    json!({"type": "string"}),
                ),
                Parameter::query(
                    "continuation-token",
                    "Where the page before ended.",
                    json!({"type": "string"}),
                ),
            ])
            .answer(200, xml("The buckets that the caller may list.")),
        false,
    ));
    description.operations(
        [("/{bucket}", ""), ("/{bucket}/", "Slash")]
            .into_iter()
            .flat_map(|(path, suffix)| of_bucket(path, suffix.is_empty())),
    )
}

fn of_bucket(path: &'static str, plain: bool) -> [Operation; 4] {
    let id = |one: &'static str, other: &'static str| if plain { one } else { other };
    let operation = |method: Method, id, summary| {
        let head = method == Method::HEAD;
        let bucket = Parameter::path("bucket", "The bucket.", json!({"type": "string"}));
        refusing(
            Operation::new(method, path, id, summary).parameters([
                bucket.example("photos".into()),
                Parameter::query(
                    "encryption",
                    "Names what is asked for: the bucket's default encryption.",
                    json!({"type": "string"}),
                ),
                Parameter::query(
                    "location",
                    "Names what is asked for: where the bucket is.",
                    json!({"type": "string"}),
                ),
                x_id(),
            ]),
            head,
        )
    };
    [
        operation(
            Method::GET,
            id("s3GetBucket", "s3GetBucketSlash"),
            "GetBucketEncryption, with `encryption` in the query, or GetBucketLocation with `location`",
        )
        .answer(200, xml("The default encryption, or the location.")),
        operation(
            Method::HEAD,
            id("s3HeadBucket", "s3HeadBucketSlash"),
            "HeadBucket",
        )
        .answer(200, Answer::empty("The bucket exists.")),
        operation(
            Method::PUT,
            id("s3PutBucket", "s3PutBucketSlash"),
            "CreateBucket, or PutBucketEncryption with `encryption` in the query",
        )
        .body(RequestBody::json_or_none(Schema::of(json!({"type": "string"}))).media_type(XML))
        .answer(200, Answer::empty("It is done.")),
        operation(
            Method::DELETE,
            id("s3DeleteBucket", "s3DeleteBucketSlash"),
            "DeleteBucket, or DeleteBucketEncryption with `encryption` in the query",
        )
        .answer(204, Answer::empty("It is gone.")),
    ]
}

/// The operation's name, which some SDKs send. It has no effect.
fn x_id() -> Parameter {
    Parameter::query("x-id", "The operation's name.", json!({"type": "string"}))
}

fn xml(text: &str) -> Answer {
    Answer::with(text, XML, Schema::of(json!({"type": "string"})))
}

/// Adds the refusals of every route, in S3's XML. The refusal of a HEAD is its status alone.
fn refusing(operation: Operation, head: bool) -> Operation {
    const TEXT: &str = "It is refused; `Code` says why.";
    [400, 403, 404, 409, 413, 415, 500, 501, 503]
        .into_iter()
        .fold(operation, |operation, status| {
            let answer = if head { Answer::empty(TEXT) } else { xml(TEXT) };
            operation.answer(status, answer)
        })
}
