//! Data keys: decode, operate, encode.

#[cfg(feature = "openapi")]
pub(crate) mod openapi;

use std::sync::Arc;

use http::Method;
use keyway_auth::Coded;
use keyway_domain::SecretBytes;
use keyway_domain::access::Caller;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec, DataKeys, MAX_PLAINTEXT_BYTES, Sealed};
use keyway_domain::keys::KeyId;
use keyway_domain::policy::Action;
use keyway_http::{Call, HandlerResult, Pairs, RouteEntry};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error_response::invalid_field;
use crate::wire;
use crate::{ErrorResponse, RustFs, route};

pub(crate) fn entries() -> Vec<RouteEntry<RustFs, DataKeys>> {
    vec![
        route(
            Method::POST,
            "/kms/generate-data-key",
            Action::GenerateDataKey,
            generate,
        ),
        route(Method::POST, "/kms/encrypt", Action::Encrypt, encrypt),
        route(Method::POST, "/kms/decrypt", Action::Decrypt, decrypt),
        route(Method::POST, "/kms/rewrap", Action::Rewrap, rewrap),
    ]
}

#[derive(Deserialize)]
enum KeySpec {
    #[serde(rename = "AES_256", alias = "Aes256")]
    Aes256,
    #[serde(rename = "AES_128", alias = "Aes128")]
    Aes128,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerateBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "keySpec", alias = "KeySpec")]
    key_spec: Option<KeySpec>,
    #[serde(alias = "encryptionContext", alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct GenerateAnswer<'a> {
    key_id: &'a str,
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    plaintext_key: Zeroizing<String>,
    ciphertext_blob: String,
    key_version: u32,
}

async fn generate(data_keys: Arc<DataKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: GenerateBody = wire::json_or_empty(&call.request.body)?;
    let key_id = key_id(body.key_id.as_deref())?;
    let context = wire::new_context("encryption_context", body.encryption_context)?;
    let spec = match body.key_spec {
        None | Some(KeySpec::Aes256) => DataKeySpec::Aes256,
        Some(KeySpec::Aes128) => DataKeySpec::Aes128,
    };
    let request = DataKeyRequest::new(key_id, &context);
    let (plaintext, sealed) = data_keys.generate(&call.caller, &request, spec).await?;
    wire::ok(&GenerateAnswer {
        key_id: sealed.key_id.as_str(),
        plaintext_key: secret_base64(&plaintext),
        ciphertext_blob: wire::to_base64(&sealed.blob),
        key_version: sealed.key_version,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncryptBody {
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
    #[serde(alias = "Plaintext")]
    plaintext: Zeroizing<String>,
    #[serde(alias = "encryptionContext", alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct SealedAnswer {
    ciphertext_blob: String,
    key_id: String,
    key_version: u32,
}

impl From<Sealed> for SealedAnswer {
    fn from(sealed: Sealed) -> Self {
        Self {
            ciphertext_blob: wire::to_base64(&sealed.blob),
            key_id: sealed.key_id.as_str().to_owned(),
            key_version: sealed.key_version,
        }
    }
}

async fn encrypt(data_keys: Arc<DataKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: EncryptBody = wire::json(&call.request.body)?;
    let key_id = key_id(body.key_id.as_deref())?;
    let plaintext = wire::base64("plaintext", &body.plaintext)?;
    let context = wire::new_context("encryption_context", body.encryption_context)?;
    let request = DataKeyRequest::new(key_id, &context);
    let sealed = data_keys
        .encrypt(&call.caller, &request, &plaintext, MAX_PLAINTEXT_BYTES)
        .await?;
    wire::ok(&SealedAnswer::from(sealed))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecryptBody {
    #[serde(alias = "ciphertextBlob", alias = "CiphertextBlob")]
    ciphertext_blob: String,
    #[serde(alias = "encryptionContext", alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
    #[serde(alias = "keyId", alias = "KeyId")]
    key_id: Option<String>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct DecryptAnswer<'a> {
    key_id: &'a str,
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    plaintext: Zeroizing<String>,
    key_version: u32,
}

async fn decrypt(data_keys: Arc<DataKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let body: DecryptBody = wire::json(&call.request.body)?;
    let key_id = key_id(body.key_id.as_deref())?;
    let blob = wire::base64("ciphertext_blob", &body.ciphertext_blob)?;
    let context = wire::context("encryption_context", body.encryption_context)?;
    let request = DataKeyRequest::of_ciphertext(key_id, &context);
    let opened = data_keys
        .decrypt(&call.caller, &request, blob.expose())
        .await?;
    wire::ok(&DecryptAnswer {
        key_id: opened.key_id.as_str(),
        plaintext: secret_base64(&opened.plaintext),
        key_version: opened.key_version,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewrapBody {
    #[serde(alias = "ciphertextBlob", alias = "CiphertextBlob")]
    ciphertext_blob: Option<String>,
    #[serde(alias = "encryptionContext", alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
    #[serde(alias = "destinationKeyId")]
    destination_key_id: Option<String>,
    #[serde(alias = "destinationEncryptionContext")]
    destination_encryption_context: Option<Pairs>,
    items: Option<Vec<RewrapItem>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewrapItem {
    #[serde(alias = "ciphertextBlob", alias = "CiphertextBlob")]
    ciphertext_blob: String,
    #[serde(alias = "encryptionContext", alias = "EncryptionContext")]
    encryption_context: Option<Pairs>,
    #[serde(alias = "destinationKeyId")]
    destination_key_id: Option<String>,
    #[serde(alias = "destinationEncryptionContext")]
    destination_encryption_context: Option<Pairs>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
#[serde(untagged)]
enum RewrapOutcome {
    Done(SealedAnswer),
    Refused { code: &'static str, message: String },
}

#[derive(Serialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
struct RewrapAnswer {
    items: Vec<RewrapOutcome>,
}

const MAX_ITEMS: usize = 1000;

async fn rewrap(data_keys: Arc<DataKeys>, call: Call<RustFs>) -> HandlerResult<RustFs> {
    let RewrapBody {
        ciphertext_blob,
        encryption_context,
        destination_key_id,
        destination_encryption_context,
        items,
    } = wire::json(&call.request.body)?;
    match (ciphertext_blob, items) {
        (Some(ciphertext_blob), None) => {
            let item = RewrapItem {
                ciphertext_blob,
                encryption_context,
                destination_key_id,
                destination_encryption_context,
            };
            wire::ok(&rewrap_one(&data_keys, &call.caller, item).await?)
        }
        (None, Some(items)) => {
            if encryption_context.is_some()
                || destination_key_id.is_some()
                || destination_encryption_context.is_some()
            {
                return Err(invalid_field(
                    "items",
                    "each item carries its own contexts and destination",
                ));
            }
            if items.len() > MAX_ITEMS {
                return Err(invalid_field(
                    "items",
                    format!("must be at most {MAX_ITEMS}"),
                ));
            }
            let mut outcomes = Vec::with_capacity(items.len());
            for item in items {
                let caller = call.caller.for_item();
                outcomes.push(match rewrap_one(&data_keys, &caller, item).await {
                    Ok(done) => RewrapOutcome::Done(done),
                    Err(refusal) => {
                        let item = refusal.into_item(&caller, &call.request_id);
                        let Coded { code, message } = item;
                        RewrapOutcome::Refused { code, message }
                    }
                });
            }
            wire::ok(&RewrapAnswer { items: outcomes })
        }
        (Some(_), Some(_)) => Err(invalid_field(
            "items",
            "cannot be combined with `ciphertext_blob`",
        )),
        (None, None) => Err(invalid_field("ciphertext_blob", "is required")),
    }
}

async fn rewrap_one(
    data_keys: &DataKeys,
    caller: &Caller,
    item: RewrapItem,
) -> Result<SealedAnswer, ErrorResponse> {
    let blob = wire::base64("ciphertext_blob", &item.ciphertext_blob)?;
    let context = wire::context("encryption_context", item.encryption_context)?;
    let destination = item
        .destination_key_id
        .map(|id| KeyId::parse("destination_key_id", &id))
        .transpose()?;
    let destination_context = item
        .destination_encryption_context
        .map(|pairs| wire::new_context("destination_encryption_context", Some(pairs)))
        .transpose()?;
    let source = DataKeyRequest::of_ciphertext(None, &context);
    // Without a destination, the ciphertext stays with its key.
    let destination = DataKeyRequest::of_ciphertext(
        destination,
        destination_context.as_ref().unwrap_or(&context),
    );
    let moved = data_keys
        .reencrypt(caller, &source, blob.expose(), &destination)
        .await?;
    Ok(moved.sealed.into())
}

fn key_id(text: Option<&str>) -> Result<Option<KeyId>, ErrorResponse> {
    Ok(text.map(|text| KeyId::parse("key_id", text)).transpose()?)
}

fn secret_base64(bytes: &SecretBytes) -> Zeroizing<String> {
    Zeroizing::new(wire::to_base64(bytes.expose()))
}
