//! The OpenAPI description of buckets.

use http::Method;
use keyway_openapi::{Operation, Parameter, RequestBody, Schema};
use serde_json::json;

use super::{DeleteAnswer, GetAnswer, ListAnswer, PutAnswer};
use crate::openapi::{BUCKETS, Refusals as _, ok};

pub(crate) fn operations() -> Vec<Operation> {
    let encryption = "/api/v1/bucket-encryption/{bucket}";
    let operation =
        |method, path, id, summary| Operation::new(method, path, id, summary).tag(BUCKETS);
    let bucket = || {
        Parameter::path(
            "bucket",
            "The bucket.",
            json!({"type": "string", "minLength": 3, "maxLength": 63}),
        )
        .example("photos".into())
    };
    vec![
        operation(
            Method::GET,
            "/api/v1/buckets",
            "listBuckets",
            "List buckets",
        )
        .answer(
            200,
            ok(
                "Every bucket that the caller may list.",
                Schema::encoded::<ListAnswer<'_>>("BucketList"),
            ),
        )
        .refuses(&[]),
        operation(
            Method::GET,
            encryption,
            "getBucketEncryption",
            "Tell a bucket's default encryption",
        )
        .parameters([bucket()])
        .answer(
            200,
            ok(
                "The default encryption.",
                Schema::encoded::<GetAnswer<'_>>("BucketEncryption"),
            ),
        )
        .refuses(&[404]),
        operation(
            Method::PUT,
            encryption,
            "putBucketEncryption",
            "Set a bucket's default encryption",
        )
        .parameters([bucket()])
        .body(RequestBody::json(wanted()).example("short", json!({"sse_algorithm": "AES256"})))
        .answer(
            200,
            ok(
                "What is set now.",
                Schema::encoded::<PutAnswer<'_>>("BucketEncryptionSet"),
            ),
        )
        .refuses(&[404, 409]),
        operation(
            Method::DELETE,
            encryption,
            "deleteBucketEncryption",
            "Remove a bucket's default encryption",
        )
        .parameters([bucket()])
        .answer(
            200,
            ok(
                "There is none now.",
                Schema::encoded::<DeleteAnswer<'_>>("BucketEncryptionRemoved"),
            ),
        )
        .refuses(&[404]),
    ]
}

/// The body, written by hand because it has three forms.
fn wanted() -> Schema {
    let by_default = json!({
        "type": "object",
        "properties": {
            "SSEAlgorithm": {"type": "string", "enum": ["AES256", "aws:kms"]},
            "KMSMasterKeyID": {"type": ["string", "null"]},
        },
        "required": ["SSEAlgorithm"],
        "additionalProperties": false,
    });
    let rules = json!({
        "type": "array",
        "minItems": 1,
        "maxItems": 1,
        "items": {
            "type": "object",
            "properties": {
                "ApplyServerSideEncryptionByDefault": by_default,
                "BucketKeyEnabled": {"type": ["boolean", "null"]},
            },
            "required": ["ApplyServerSideEncryptionByDefault"],
            "additionalProperties": false,
        },
    });
    let whole = json!({
        "type": "object",
        "properties": {"Rules": rules},
        "required": ["Rules"],
        "additionalProperties": false,
    });
    Schema::named(
        "WantedBucketEncryption",
        json!({
            "description": "S3's configuration, with or without its outermost name, or the short form.",
            "anyOf": [
                {
                    "type": "object",
                    "properties": {"ServerSideEncryptionConfiguration": whole},
                    "required": ["ServerSideEncryptionConfiguration"],
                    "additionalProperties": false,
                },
                whole,
                {
                    "type": "object",
                    "properties": {
                        "sse_algorithm": {"type": "string", "enum": ["AES256", "aws:kms"]},
                        "kms_master_key_id": {"type": ["string", "null"]},
                        "bucket_key_enabled": {"type": ["boolean", "null"]},
                    },
                    "required": ["sse_algorithm"],
                    "additionalProperties": false,
                },
            ],
        }),
    )
}
