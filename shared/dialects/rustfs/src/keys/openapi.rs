//! The OpenAPI description of master keys.

use http::Method;
use keyway_openapi::{Operation, Parameter, RequestBody, Schema};
use serde_json::json;

use super::{
    CreateBody, DeleteAnswer, DeleteBody, DescribeAnswer, DescriptionBody, KeyAnswer, KeyBody,
    ListAnswer, TagBody, UntagBody,
};
use crate::openapi::{EXAMPLE, Refusals as _, key_in_query, ok, one_of};

pub(crate) fn operations() -> Vec<Operation> {
    let metadata = |text: &str| ok(text, Schema::encoded::<KeyAnswer<'_>>("KeyAnswer"));
    let create = |path, id, summary| {
        Operation::new(Method::POST, path, id, summary)
            .text("Without a name, in the body, its tag `name` or the query, the key gets a random one.")
            .parameters(key_in_query())
            .body(create_body())
            .answer(200, metadata("The new key."))
            .refuses(&[409])
    };
    let list = |path, id, summary| {
        Operation::new(Method::GET, path, id, summary)
            .text("In the order of their ids. A key that is made or deleted while pages are read neither hides nor repeats another.")
            .parameters(filters())
            .answer(200, ok("A page of keys.", Schema::encoded::<ListAnswer<'_>>("KeyList")
                .fact("keys[].algorithm", json!({"enum": ["AES_256", "HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512"]}))
                .fact("keys[].status", json!({"enum": ["Active", "Disabled", "PendingDeletion"]}))))
            .refuses(&[])
    };
    let described = || {
        ok("The key.", Schema::encoded::<DescribeAnswer<'_>>("KeyDescription")
        .fact("impact", json!({"description": "Where `impact=true` asks for it: what the service itself knows to name the key."})))
    };
    let on_key = |method, path, id, summary| {
        Operation::new(method, path, id, summary)
            .parameters(key_in_query())
            .answer(200, metadata("The key as it is now."))
            .refuses(&[404, 409])
    };
    let change = |path, id, summary| {
        on_key(Method::POST, path, id, summary).body(
            RequestBody::json_or_none(Schema::decoded::<KeyBody>("KeyReference"))
                .example("key", json!({"key_id": EXAMPLE})),
        )
    };
    vec![
        create("/kms/keys", "createKey", "Make a key"),
        create("/kms/create-key", "createKeyLegacy", "Make a key, for old clients").deprecated(),
        list("/kms/keys", "listKeys", "List keys"),
        list("/kms/list-keys", "listKeysLegacy", "List keys, for old clients").deprecated(),
        Operation::new(Method::GET, "/kms/keys/{key_id}", "describeKey", "Describe a key")
            .parameters([key_in_path(), impact()])
            .answer(200, described())
            .refuses(&[404]),
        Operation::new(Method::GET, "/kms/describe-key", "describeKeyLegacy", "Describe a key, for old clients")
            .deprecated()
            .text("The query must name the key.")
            .parameters(key_in_query())
            .parameters([impact()])
            .answer(200, described())
            .refuses(&[404]),
        Operation::new(Method::DELETE, "/kms/keys/delete", "deleteKey", "Schedule a key's deletion, or delete it at once")
            .text("At once only where the server allows it, with the id repeated in `confirm_key_id`, and never while something \
                   names the key. What the body says goes before the query.")
            .parameters(key_in_query())
            .parameters(deletion())
            .body(delete_body())
            .answer(200, ok("The key, with the date of its deletion; or, deleted at once, neither.",
                Schema::encoded::<DeleteAnswer<'_>>("KeyDeletion")))
            .refuses(&[404, 409]),
        change("/kms/keys/cancel-deletion", "cancelKeyDeletion", "Spare a key that is to be deleted"),
        change("/kms/keys/enable", "enableKey", "Enable a key"),
        change("/kms/keys/disable", "disableKey", "Disable a key"),
        change("/kms/keys/rotate", "rotateKey", "Add a version to a key, which encrypts from now on"),
        on_key(Method::POST, "/kms/keys/update-description", "updateKeyDescription", "Describe a key anew").body(
            RequestBody::json(Schema::decoded::<DescriptionBody>("KeyDescriptionChange").required(&["description"]))
                .example("description", json!({"key_id": EXAMPLE, "description": "project-alpha"})),
        ),
        on_key(Method::POST, "/kms/keys/tag", "tagKey", "Set tags of a key").body(
            RequestBody::json(Schema::decoded::<TagBody>("KeyTags").required(&["tags"]))
                .example("tags", json!({"key_id": EXAMPLE, "tags": {"env": "prod"}})),
        ),
        on_key(Method::POST, "/kms/keys/untag", "untagKey", "Remove tags from a key").body(
            RequestBody::json(Schema::decoded::<UntagBody>("KeyTagNames").required(&["tag_keys"]))
                .example("tags", json!({"key_id": EXAMPLE, "tag_keys": ["env"]})),
        ),
    ]
}

pub(crate) fn create_body() -> RequestBody {
    let schema = Schema::decoded::<CreateBody>("KeyCreation").fact(
        "key_usage",
        json!({"enum": ["ENCRYPT_DECRYPT", "EncryptDecrypt"]}),
    );
    RequestBody::json_or_none(schema).example(
        "described",
        json!({"description": "project-alpha", "key_usage": "ENCRYPT_DECRYPT", "tags": {"owner": "security"}}),
    )
}

fn delete_body() -> RequestBody {
    let schema = Schema::decoded::<DeleteBody>("KeyDeletionRequest").fact(
        "pending_window_in_days",
        json!({"minimum": 7, "maximum": 30, "description": "7 when nothing is said."}),
    );
    RequestBody::json_or_none(schema).example(
        "scheduled",
        json!({"key_id": EXAMPLE, "pending_window_in_days": 30}),
    )
}

fn key_in_path() -> Parameter {
    let schema = json!({"type": "string", "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$"});
    Parameter::path("key_id", "The key.", schema).example(EXAMPLE.into())
}

fn impact() -> Parameter {
    one_of(
        "impact",
        "Whether to tell what names the key.",
        &["true", "false"],
    )
}

fn deletion() -> [Parameter; 3] {
    [
        Parameter::query(
            "pending_window_in_days",
            "How long the key can still be spared.",
            json!({"type": "integer", "minimum": 7, "maximum": 30}),
        ),
        one_of(
            "force_immediate",
            "Whether to delete the key at once.",
            &["true", "false"],
        ),
        Parameter::query(
            "confirm_key_id",
            "The key's id again, to delete it at once.",
            json!({"type": "string"}),
        ),
    ]
}

fn filters() -> [Parameter; 6] {
    let text = json!({"type": "string"});
    [
        Parameter::query(
            "limit",
            "How many at most: 100 when nothing is said, and never more than 1,000.",
            json!({"type": "integer", "minimum": 1, "default": 100}),
        ),
        Parameter::query(
            "marker",
            "The `next_marker` of the page before; empty for the first.",
            text.clone(),
        ),
        Parameter::query("prefix", "Only keys whose ids begin so.", text.clone()),
        Parameter::query(
            "pattern",
            "Only keys whose ids match; `*` is any run of characters and `?` any one.",
            text,
        ),
        one_of(
            "status",
            "Only keys in this state. Letters of either case, `_` and `-` between words.",
            &[
                "Active",
                "active",
                "ACTIVE",
                "Enabled",
                "enabled",
                "ENABLED",
                "Disabled",
                "disabled",
                "DISABLED",
                "PendingDeletion",
                "pending-deletion",
                "pending_deletion",
                "PENDING_DELETION",
            ],
        ),
        one_of(
            "usage",
            "What the keys are for.",
            &[
                "ENCRYPT_DECRYPT",
                "EncryptDecrypt",
                "encrypt-decrypt",
                "encrypt_decrypt",
                "GENERATE_VERIFY_MAC",
            ],
        ),
    ]
}
