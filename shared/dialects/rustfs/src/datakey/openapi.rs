//! The OpenAPI description of data keys.

use http::Method;
use keyway_openapi::{Operation, RequestBody, Schema};
use serde_json::json;

use super::{
    DecryptAnswer, DecryptBody, EncryptBody, GenerateAnswer, GenerateBody, RewrapAnswer,
    RewrapBody, SealedAnswer,
};
use crate::openapi::{DATA_KEYS, EXAMPLE, Refusals as _, ok};

pub(crate) fn operations() -> Vec<Operation> {
    let post = |path, id, summary| {
        Operation::new(Method::POST, path, id, summary)
            .tag(DATA_KEYS)
            .refuses(&[404, 409])
    };
    let context = json!({"bucket": "analytics-data", "object": "2024/09/18/report.parquet"});
    let sealed = || Schema::encoded::<SealedAnswer>("Sealed");
    vec![
        post("/kms/generate-data-key", "generateDataKey", "Make a data key")
            .text("Without `key_id` under the service's default key.")
            .body(
                RequestBody::json_or_none(Schema::decoded::<GenerateBody>("DataKeyRequest")).example(
                    "of a key",
                    json!({"key_id": EXAMPLE, "key_spec": "AES_256", "encryption_context": context}),
                ),
            )
            .answer(200, ok("The data key, in the clear and sealed.", Schema::encoded::<GenerateAnswer<'_>>("DataKey"))),
        post("/kms/encrypt", "encrypt", "Encrypt some bytes")
            .text("Without `key_id` under the service's default key.")
            .body(
                RequestBody::json(Schema::decoded::<EncryptBody>("EncryptRequest"))
                    .example("bytes", json!({"key_id": EXAMPLE, "plaintext": "aGVsbG8="})),
            )
            .answer(200, ok("The bytes, sealed.", sealed())),
        post("/kms/decrypt", "decrypt", "Open what was sealed")
            .text("Where `key_id` is given, only what was sealed under this key.")
            .body(RequestBody::json(Schema::decoded::<DecryptBody>("DecryptRequest")))
            .answer(200, ok("The bytes in the clear.", Schema::encoded::<DecryptAnswer<'_>>("Opened"))),
        post("/kms/rewrap", "rewrap", "Seal anew, under the key's newest version or another key")
            .text("Nothing is seen in the clear. One blob, or up to 1,000 in `items`, each answered for itself and in order.")
            .body(RequestBody::json(rewrap_body()))
            .answer(200, ok("What is sealed anew.", Schema::any_of("RewrapAnswer", [
                sealed(),
                Schema::encoded::<RewrapAnswer>("RewrapItems"),
            ]))),
    ]
}

/// The body of a rewrap. An invalid item is refused on its own; the other items are answered.
fn rewrap_body() -> Schema {
    let any_text = || json!({"pattern": null});
    let any_pairs = || json!({"maxProperties": null, "propertyNames": null});
    Schema::decoded::<RewrapBody>("RewrapRequest")
        .needs_one_of(&["ciphertext_blob", "items"])
        .fact("items", json!({"maxItems": 1000}))
        .fact("items[].ciphertext_blob", any_text())
        .fact("items[].destination_key_id", any_text())
        .fact("items[].encryption_context", any_pairs())
        .fact("items[].destination_encryption_context", any_pairs())
}
