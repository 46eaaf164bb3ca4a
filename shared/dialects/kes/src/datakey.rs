//! Data keys: decode, operate, encode.

use std::sync::Arc;

use keyway_domain::access::Caller;
use keyway_domain::datakey::{DataKeyRequest, DataKeySpec};
use keyway_domain::keys::KeyId;
use keyway_domain::{EncryptionContext, SecretBytes};
use keyway_http::{Call, HandlerResult};
use serde::de::MapAccess;

use crate::endpoint::OnDataKeys;
use crate::error_response::{bad, invalid_body};
use crate::wire::{Base64, Fields, InBase64, Object};
use crate::{BODY_LIMIT, ErrorResponse, Kes, names, wire};

/// The fields of all three requests. `version` is ignored: a key has one current version.
#[derive(Default)]
pub(crate) struct Body {
    plaintext: Base64,
    ciphertext: Base64,
    context: Base64,
}

impl Fields for Body {
    const NAMES: &[&str] = &["plaintext", "ciphertext", "context"];

    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        let field = match name {
            "plaintext" => &mut self.plaintext,
            "ciphertext" => &mut self.ciphertext,
            "context" => &mut self.context,
            _ => return Ok(false),
        };
        *field = map.next_value()?;
        Ok(true)
    }
}

/// The context is opaque bytes. An absent one, `null` and an empty one are the same.
fn context(bytes: Base64) -> Result<EncryptionContext, ErrorResponse> {
    EncryptionContext::opaque(bytes.into_vec()).map_err(|_| invalid_body())
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Generated<'a> {
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    plaintext: &'a SecretBytes,
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    ciphertext: &'a [u8],
}

impl InBase64 for Generated<'_> {
    fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])> {
        [
            ("plaintext", self.plaintext.expose()),
            ("ciphertext", self.ciphertext),
        ]
    }
}

pub(crate) async fn generate(on: Arc<OnDataKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let key = names::key(call.params.get("name"))?;
    let body = if call.request.body.is_empty() {
        Body::default()
    } else {
        wire::json::<Object<Body>>(&call.request.body)?.0
    };
    let context = context(body.context)?;
    let request = DataKeyRequest::new(key, &context).sealed_as(on.sealing);
    let (plaintext, sealed) = on
        .data_keys
        .generate(call.caller.caller()?, &request, DataKeySpec::Aes256)
        .await?;
    Ok(wire::ok_in_base64(&Generated {
        plaintext: &plaintext,
        ciphertext: &sealed.blob,
    }))
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Encrypted {
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    ciphertext: Vec<u8>,
}

impl InBase64 for Encrypted {
    fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])> {
        [("ciphertext", self.ciphertext.as_slice())]
    }
}

pub(crate) async fn encrypt(on: Arc<OnDataKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let key = names::key(call.params.get("name"))?;
    let Object(body) = wire::json::<Object<Body>>(&call.request.body)?;
    let context = context(body.context)?;
    let request = DataKeyRequest::new(key, &context).sealed_as(on.sealing);
    let sealed = on
        .data_keys
        .encrypt(
            call.caller.caller()?,
            &request,
            &body.plaintext.into_secret(),
            // KES limits the body alone, not the plaintext.
            BODY_LIMIT,
        )
        .await?;
    Ok(wire::ok_in_base64(&Encrypted {
        ciphertext: sealed.blob,
    }))
}

#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub(crate) struct Decrypted {
    #[cfg_attr(feature = "openapi", schemars(with = "String"))]
    plaintext: SecretBytes,
}

impl InBase64 for Decrypted {
    fn members(&self) -> impl IntoIterator<Item = (&'static str, &[u8])> {
        [("plaintext", self.plaintext.expose())]
    }
}

pub(crate) async fn decrypt(on: Arc<OnDataKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let key = names::key(call.params.get("name"))?;
    let Object(body) = wire::json::<Object<Body>>(&call.request.body)?;
    let context = context(body.context)?;
    let opened = on
        .data_keys
        .decrypt(
            call.caller.caller()?,
            &DataKeyRequest::new(key, &context),
            body.ciphertext.as_slice(),
        )
        .await?;
    Ok(wire::ok_in_base64(&Decrypted {
        plaintext: opened.plaintext,
    }))
}

/// How many ciphertexts one request may have.
pub(crate) const MAX_BULK: usize = 1000;

async fn decrypt_one(
    on: &OnDataKeys,
    caller: &Caller,
    key: KeyId,
    item: Body,
) -> Result<SecretBytes, ErrorResponse> {
    let context = context(item.context)?;
    let request = DataKeyRequest::new(key, &context);
    let opened = on
        .data_keys
        .decrypt(caller, &request, item.ciphertext.as_slice())
        .await?;
    Ok(opened.plaintext)
}

/// Decrypts all of them or none.
pub(crate) async fn bulk_decrypt(on: Arc<OnDataKeys>, call: Call<Kes>) -> HandlerResult<Kes> {
    let key = names::key(call.params.get("name"))?;
    let items: Option<Vec<Object<Body>>> = wire::json(&call.request.body)?;
    let items = items.unwrap_or_default();
    if items.len() > MAX_BULK {
        return Err(bad("too many ciphertexts"));
    }
    let mut opened = Vec::with_capacity(items.len());
    let asking = call.caller.caller()?;
    for Object(item) in items {
        let caller = asking.for_item();
        match decrypt_one(&on, &caller, key.clone(), item).await {
            Ok(plaintext) => opened.push(Decrypted { plaintext }),
            Err(refusal) => {
                caller.audit().refused(refusal.class());
                return Err(refusal);
            }
        }
    }
    Ok(wire::ok_all_in_base64(&opened))
}
