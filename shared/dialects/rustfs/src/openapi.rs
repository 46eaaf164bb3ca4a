//! The OpenAPI description of this dialect.

use keyway_domain::policy::Action;
use keyway_openapi::{Answer, Description, Operation, Parameter, Schema};
use serde_json::{Value, json};

use crate::error_response::ErrorBody;
use crate::wire::KEY_ID_QUERY;
use crate::{
    BUCKET_PREFIXES, PREFIXES, RustFs, account, audit, buckets, datakey, first_generation, keys,
    service,
};

/// The description of this dialect's routes.
pub fn description() -> Description<RustFs> {
    let [_, minio] = PREFIXES;
    common(Description::new("keys", "Master keys."))
        .tag(DATA_KEYS, "Data keys, and what is encrypted directly.")
        .tag(SERVICE, "The service itself.")
        .tag(ACCOUNT, "Who calls.")
        .tag(FIRST_GENERATION, "The API's first generation, for old clients: camelCase, error codes of its own.")
        .suffix(minio, "UnderMinio")
        .operations(keys::openapi::operations())
        .operations(datakey::openapi::operations())
        .operations(service::openapi::operations())
        .operations(audit::openapi::operations())
        .operations(account::openapi::operations())
        .operations(first_generation::openapi::operations())
        .word("key_id", key_id())
        .word("keyId", key_id())
        .word("default_key_id", key_id())
        .word("defaultKeyId", key_id())
        .word("destination_key_id", key_id())
        .word("description", json!({"maxLength": 256}))
        .word("tags", json!({
            "description": "Keys of 1 to 128 characters, values of at most 256; `name` names the key.",
            "maxProperties": 50,
            "propertyNames": {"minLength": 1, "maxLength": 128},
        }))
        .word("encryption_context", context())
        .word("destination_encryption_context", context())
        .word("plaintext", base64("At most 65,536 bytes."))
        .word("plaintext_key", base64("The data key: 32 bytes, or 16."))
        .word("ciphertext_blob", base64("The sealed bytes."))
        .word("key_version", json!({"minimum": 1}))
        .word("version", json!({"minimum": 1}))
        .word("key_state", json!({"enum": ["Enabled", "Disabled", "PendingDeletion"]}))
        .word("key_usage", json!({"enum": ["ENCRYPT_DECRYPT", "GENERATE_VERIFY_MAC"]}))
        .word("origin", json!({"enum": ["KMS"]}))
        .word("creation_date", date())
        .word("deletion_date", date())
        .word("created_at", date())
        .word("rotated_at", date())
        .word("createdAt", date())
        .word("config_id", json!({"format": "uuid"}))
}

/// The description of the bucket routes, which have their own mount.
pub fn bucket_description() -> Description<RustFs> {
    let [_, rustfs, minio] = BUCKET_PREFIXES;
    common(Description::new(
        BUCKETS,
        "The default encryption of buckets.",
    ))
    .suffix(rustfs, "UnderRustfs")
    .suffix(minio, "UnderMinio")
    .operations(buckets::openapi::operations())
}

/// Adds what every mount has in common.
fn common(description: Description<RustFs>) -> Description<RustFs> {
    description
        .permission(|action| action.map(Action::as_str))
        .security("SigV4", json!({
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "AWS Signature Version 4, in the header or presigned in the query, for the service `execute-api`, \
                            `s3`, `sts` or `kms` and any region unless one is configured. Temporary access keys come with \
                            `X-Amz-Security-Token`.",
        }))
        .schema(Schema::encoded::<ErrorBody<'_>>("Error")
            .fact("success", json!({"const": false}))
            .fact("message", json!({"minLength": 1}))
            .fact("error.resource", json!({"description": "The path, cut short where it is long."})))
        .word("success", json!({"const": true}))
        .word("request_id", json!({"pattern": "^[0-9a-f]{32}$"}))
}

pub(crate) const DATA_KEYS: &str = "data keys";
pub(crate) const SERVICE: &str = "service";
pub(crate) const ACCOUNT: &str = "account";
pub(crate) const BUCKETS: &str = "buckets";
pub(crate) const FIRST_GENERATION: &str = "first generation";

/// The key id in examples.
pub(crate) const EXAMPLE: &str = "app-key";

fn key_id() -> Value {
    json!({
        "description": "1 to 128 of `A-Z`, `a-z`, `0-9`, `.`, `_`, `-`, not beginning with `.` or `-`.",
        "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$",
    })
}

fn context() -> Value {
    json!({
        "description": "Bound to what is sealed, which opens under the same only. For a new ciphertext at most 64 pairs of 8,192 \
                        bytes in all, names of at most 128 bytes and values of at most 4,096; to open one, 8,192 characters in all.",
    })
}

fn base64(text: &str) -> Value {
    json!({
        "description": format!("{text} Standard base64 with padding."),
        "contentEncoding": "base64",
        "pattern": "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    })
}

fn date() -> Value {
    json!({
        "format": "date-time",
        "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$",
    })
}

/// The query parameters that name a key, in every spelling that clients use.
pub(crate) fn key_in_query() -> impl Iterator<Item = Parameter> {
    KEY_ID_QUERY.into_iter().enumerate().map(|(index, name)| {
        let schema = json!({"type": "string", "pattern": "^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$"});
        if index == 0 {
            let text = "The key. Whatever names it, here, under another name or in the body, must agree; an empty value names none.";
            Parameter::query(name, text, schema).example(EXAMPLE.into())
        } else {
            Parameter::query(name, "Another name of `keyId`.", schema)
        }
    })
}

/// A query parameter with one of these values.
pub(crate) fn one_of(name: &'static str, text: &str, words: &[&str]) -> Parameter {
    Parameter::query(name, text, json!({"type": "string", "enum": words}))
}

/// A 200 with JSON.
pub(crate) fn ok(text: &str, schema: Schema) -> Answer {
    Answer::json(text, schema).header(
        "cache-control",
        "Never kept.",
        &json!({"const": "no-store"}),
    )
}

/// Adds the refusals of every route, and these.
pub(crate) trait Refusals {
    /// With this generation's codes.
    fn refuses(self, besides: &[u16]) -> Self;

    /// With the first generation's codes.
    fn refuses_as_first(self, besides: &[u16]) -> Self;
}

const ALWAYS: [u16; 8] = [400, 401, 403, 413, 415, 429, 500, 503];

impl Refusals for Operation {
    fn refuses(self, besides: &[u16]) -> Self {
        let statuses = ALWAYS.iter().chain(besides);
        statuses.fold(self, |operation, &status| {
            operation.answer(status, refusal(status, false))
        })
    }

    fn refuses_as_first(self, besides: &[u16]) -> Self {
        let statuses = ALWAYS.iter().chain(besides);
        statuses.fold(self, |operation, &status| {
            operation.answer(status, refusal(status, true))
        })
    }
}

fn refusal(status: u16, first: bool) -> Answer {
    let (names, text, codes) = words(status);
    let [this, of_first] = names;
    let (name, codes) = if first {
        let mut codes: Vec<&str> = codes
            .iter()
            .map(|code| first_generation::code(code))
            .collect();
        codes.dedup();
        (of_first, codes)
    } else {
        (this, codes.to_vec())
    };
    let schema = Schema::of(json!({
        "allOf": [{"$ref": "#/components/schemas/Error"}],
        "properties": {"code": {"enum": codes}, "error": {"properties": {"code": {"enum": codes}}}},
    }));
    let answer = ok(text, schema).shared(name);
    match status {
        401 => answer.header(
            "www-authenticate",
            "How to prove it.",
            &json!({"const": "AWS4-HMAC-SHA256"}),
        ),
        429 => answer.header(
            "retry-after",
            "In seconds.",
            &json!({"type": "string", "pattern": "^[0-9]+$"}),
        ),
        _ => answer,
    }
}

/// The refusal with this status: its names in the document (the second is the first generation's), its text, and the
/// codes that it can have.
fn words(status: u16) -> ([&'static str; 2], &'static str, &'static [&'static str]) {
    match status {
        400 => (
            ["BadRequest", "BadRequestFirst"],
            "The request is not what it must be, or the ciphertext does not open.",
            &["InvalidRequest", "DecryptionFailed"],
        ),
        401 => (
            ["Unauthenticated"; 2],
            "Nobody proved to have sent this.",
            &["AccessDenied"],
        ),
        403 => (
            ["Forbidden"; 2],
            "The caller may not do this, or nobody may.",
            &["AccessDenied"],
        ),
        404 => (
            ["NotFound", "NotFoundFirst"],
            "There is no such key or bucket, or the bucket has no default encryption.",
            &[
                "KeyNotFound",
                "NotFound",
                "ServerSideEncryptionConfigurationNotFoundError",
            ],
        ),
        409 => (
            ["Conflict", "ConflictFirst"],
            "There is a key of this name, or the key or the service is in a state in which this cannot be.",
            &["KeyAlreadyExists", "InvalidKeyState", "Conflict"],
        ),
        413 => (
            ["TooLarge"; 2],
            "The body is longer than the route takes.",
            &["RequestTooLarge"],
        ),
        415 => (
            ["Encoded"; 2],
            "The body has a content coding, such as gzip.",
            &["UnsupportedMediaType"],
        ),
        429 => (
            ["Throttled"; 2],
            "A backend asks for fewer requests.",
            &["Throttled"],
        ),
        503 => (
            ["Unavailable", "UnavailableFirst"],
            "The service is not configured or not running, or a backend cannot be reached.",
            &[
                "ServiceNotConfigured",
                "ServiceNotRunning",
                "BackendError",
                "AuditUnavailable",
            ],
        ),
        _ => (
            ["Failed", "FailedFirst"],
            "Something failed here.",
            &["BackendError", "InternalError"],
        ),
    }
}
