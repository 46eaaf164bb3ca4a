//! The OpenAPI description of the first generation.

use http::Method;
use keyway_openapi::{Operation, Parameter, Schema};
use serde_json::json;

use super::{KeyOut, ListAnswer, TriedKey};
use crate::PREFIXES;
use crate::keys::openapi::create_body;
use crate::openapi::{FIRST_GENERATION, Refusals as _, key_in_query, ok};

const STATES: [&str; 3] = ["enabled", "disabled", "pending_deletion"];

pub(crate) fn operations() -> Vec<Operation> {
    let mut operations = key_operations();
    operations.extend(minio_operations());
    operations.extend(state_operations());
    operations
}

fn operation(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
) -> Operation {
    Operation::new(method, path, id, summary).tag(FIRST_GENERATION)
}

/// The operations that make, list and describe keys below RustFS's prefix.
fn key_operations() -> Vec<Operation> {
    vec![
        operation(
            Method::POST,
            "/kms/key/create",
            "firstCreateKey",
            "Make a key",
        )
        .parameters(key_in_query())
        .body(create_body())
        .answer(200, ok("The new key.", created_key()))
        .refuses_as_first(&[409]),
        operation(
            Method::GET,
            "/kms/key/list",
            "firstListKeys",
            "List all keys",
        )
        .parameters([Parameter::query(
            "pattern",
            "Only keys whose ids match; `*` is any run of characters and `?` any one.",
            json!({"type": "string"}),
        )])
        .answer(
            200,
            ok(
                "Every key.",
                Schema::encoded::<ListAnswer<'_>>("FirstKeyList")
                    .fact("keys[].status", json!({"enum": STATES})),
            ),
        )
        .refuses_as_first(&[]),
        operation(
            Method::GET,
            "/kms/key/status",
            "firstDescribeKey",
            "Describe a key",
        )
        .text("The query must name the key.")
        .parameters(key_in_query())
        .answer(200, ok("The key.", described_key()))
        .refuses_as_first(&[404]),
    ]
}

/// The two operations that answer differently below MinIO's prefix.
fn minio_operations() -> Vec<Operation> {
    let [_, minio] = PREFIXES;
    vec![
        operation(
            Method::POST,
            "/kms/key/create",
            "firstCreateKey",
            "Make a key",
        )
        .below(minio)
        .text("Who names it by `key-id`, as MinIO's clients do, gets an empty answer.")
        .parameters(key_in_query())
        .body(create_body())
        .answer(200, ok("The new key.", created_key()).or_empty())
        .refuses_as_first(&[409]),
        operation(
            Method::GET,
            "/kms/key/status",
            "firstDescribeKey",
            "Describe a key, or try it out",
        )
        .below(minio)
        .text(
            "Who names it by `key-id`, as MinIO's clients do, or not at all has it, or the default key, tried out.",
        )
        .parameters(key_in_query())
        .answer(
            200,
            ok(
                "The key.",
                Schema::any_of(
                    "FirstKeyOrTrial",
                    [described_key(), Schema::encoded::<TriedKey<'_>>("TriedKey")],
                ),
            ),
        )
        .refuses_as_first(&[404, 409]),
    ]
}

/// The operations that enable and disable a key, with both methods.
fn state_operations() -> Vec<Operation> {
    [
        (
            Method::POST,
            "/kms/key/enable",
            "firstEnableKey",
            "Enable a key",
        ),
        (
            Method::PUT,
            "/kms/key/enable",
            "firstPutKeyEnabled",
            "Enable a key",
        ),
        (
            Method::POST,
            "/kms/key/disable",
            "firstDisableKey",
            "Disable a key",
        ),
        (
            Method::PUT,
            "/kms/key/disable",
            "firstPutKeyDisabled",
            "Disable a key",
        ),
    ]
    .map(|(method, path, id, summary)| {
        operation(method, path, id, summary)
            .text("The query must name the key.")
            .parameters(key_in_query())
            .answer(200, ok("The key as it is now.", changed_key()))
            .refuses_as_first(&[404, 409])
    })
    .into()
}

fn created_key() -> Schema {
    Schema::encoded::<KeyOut<'_>>("FirstCreatedKey")
        .required(&["createdAt"])
        .without(&["algorithm", "message"])
        .fact("status", json!({"const": "created"}))
}

fn described_key() -> Schema {
    Schema::encoded::<KeyOut<'_>>("FirstKey")
        .required(&["createdAt", "algorithm"])
        .without(&["message"])
        .fact("status", json!({"enum": STATES}))
        .fact(
            "algorithm",
            json!({"enum": ["AES256", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512"]}),
        )
}

fn changed_key() -> Schema {
    Schema::encoded::<KeyOut<'_>>("FirstChangedKey")
        .required(&["message"])
        .without(&["createdAt", "algorithm"])
        .fact("status", json!({"enum": STATES}))
}
