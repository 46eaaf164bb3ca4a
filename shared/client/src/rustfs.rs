//! RustFS's KMS admin API.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, StatusCode};
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answers::{DataKey, DataKeySpec, Decrypted, Encrypted};
use crate::error::Refusal;
use crate::http::{Answer, Call, Http, Repeat, json};
use crate::{Class, Context, Error};

const PREFIX: &str = "/rustfs/admin/v3/kms";
const NAME: &str = "RustFS's KMS admin API";
/// The room for a request's JSON besides its plaintext and context.
const ROOM: usize = 4096;

/// A client of this API.
pub(crate) struct RustFs(pub(crate) Http);

#[derive(Serialize)]
struct GenerateBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    key_spec: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    encryption_context: &'a Context,
}

#[derive(Deserialize)]
struct GenerateAnswer {
    key_id: String,
    key_version: Option<u32>,
    plaintext_key: Zeroizing<String>,
    ciphertext_blob: String,
}

#[derive(Serialize)]
struct EncryptBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    plaintext: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    encryption_context: &'a Context,
}

#[derive(Deserialize)]
struct EncryptAnswer {
    key_id: String,
    key_version: Option<u32>,
    ciphertext_blob: String,
}

#[derive(Serialize)]
struct DecryptBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    ciphertext_blob: &'a str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    encryption_context: &'a Context,
}

#[derive(Deserialize)]
struct DecryptAnswer {
    key_id: String,
    key_version: Option<u32>,
    plaintext: Zeroizing<String>,
}

impl RustFs {
    pub(crate) async fn generate_data_key(
        &self,
        key: Option<&KeyId>,
        spec: DataKeySpec,
        context: &Context,
    ) -> Result<DataKey, Error> {
        let body = GenerateBody {
            key_id: key.map(KeyId::as_str),
            // RustFS knows only this spelling; Keyway knows both.
            key_spec: match spec {
                DataKeySpec::Aes256 => "Aes256",
                DataKeySpec::Aes128 => "Aes128",
            },
            encryption_context: context,
        };
        let body = json(&body, room(context))?;
        let answer: GenerateAnswer = self
            .call(Method::POST, "/generate-data-key", body, Repeat::Safe)
            .await?;
        Ok(DataKey {
            plaintext: self.secret(&answer.plaintext_key)?,
            ciphertext: self.decoded(&answer.ciphertext_blob)?,
            key_id: answer.key_id,
            key_version: answer.key_version,
        })
    }

    pub(crate) async fn encrypt(
        &self,
        key: Option<&KeyId>,
        plaintext: &SecretBytes,
        context: &Context,
    ) -> Result<Encrypted, Error> {
        let plaintext = secret_base64(plaintext.expose());
        let body = EncryptBody {
            key_id: key.map(KeyId::as_str),
            plaintext: &plaintext,
            encryption_context: context,
        };
        let body = json(&body, room(context) + plaintext.len())?;
        let answer: EncryptAnswer = self
            .call(Method::POST, "/encrypt", body, Repeat::Safe)
            .await?;
        Ok(Encrypted {
            ciphertext: self.decoded(&answer.ciphertext_blob)?,
            key_id: answer.key_id,
            key_version: answer.key_version,
        })
    }

    pub(crate) async fn decrypt(
        &self,
        key: Option<&KeyId>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, Error> {
        let blob = STANDARD.encode(ciphertext);
        let body = DecryptBody {
            key_id: key.map(KeyId::as_str),
            ciphertext_blob: &blob,
            encryption_context: context,
        };
        let body = json(&body, room(context) + blob.len())?;
        let answer: DecryptAnswer = self
            .call(Method::POST, "/decrypt", body, Repeat::Safe)
            .await?;
        Ok(Decrypted {
            plaintext: self.secret(&answer.plaintext)?,
            key_id: answer.key_id,
            key_version: answer.key_version,
        })
    }

    /// The JSON of a successful answer.
    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let call = Call {
            method,
            path: format!("{PREFIX}{path}"),
            body,
            repeat,
        };
        let answer = self.0.send(&call).await?;
        if !answer.status.is_success() {
            return Err(self.refused(&answer));
        }
        // RustFS also answers some refusals with status 200.
        if let Ok(Told {
            success: Some(false),
            ..
        }) = serde_json::from_slice(&answer.body)
        {
            return Err(self.refused(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|_| self.foreign("it lacks a field"))
    }

    fn secret(&self, text: &str) -> Result<SecretBytes, Error> {
        self.decoded(text).map(SecretBytes::from)
    }

    fn decoded(&self, text: &str) -> Result<Vec<u8>, Error> {
        let decoded = STANDARD.decode(text);
        decoded.map_err(|_| self.foreign("a field is not base64"))
    }

    fn foreign(&self, what: &str) -> Error {
        Error::Foreign {
            endpoint: self.0.endpoint.to_string(),
            api: NAME,
            what: what.to_owned(),
        }
    }

    fn refused(&self, answer: &Answer) -> Error {
        let Answer {
            status,
            headers,
            body,
        } = answer;
        let told = serde_json::from_slice::<Told>(body).unwrap_or_default();
        let inner = told.error.unwrap_or_default();
        let code = told.code.or(inner.code);
        let Some(message) = told.message.or(inner.message) else {
            let what = format!("it has status {}", status.as_u16());
            return match class(*status, None) {
                Class::Unreachable => Error::Unreachable {
                    endpoint: self.0.endpoint.to_string(),
                    cause: what,
                    unknown: crate::Outcome::Unchanged,
                },
                _ => self.foreign(&what),
            };
        };
        Error::Refused {
            class: class(*status, code.as_deref()),
            refusal: Refusal {
                status: status.as_u16(),
                code,
                message,
                request_id: request_id(headers),
            },
        }
    }
}

pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("x-request-id")?.to_str().ok()?;
    Some(id.to_owned())
}

/// The room for the JSON of a request with this context. Each character may be escaped as six.
fn room(context: &Context) -> usize {
    let length = |(name, value): (&String, &String)| 6 * (name.len() + value.len()) + 8;
    ROOM + context.iter().map(length).sum::<usize>()
}

pub(crate) fn secret_base64(bytes: &[u8]) -> Zeroizing<String> {
    // The full length at once: growing would leave copies in memory.
    let mut text = Zeroizing::new(String::with_capacity(bytes.len().div_ceil(3) * 4));
    STANDARD.encode_string(bytes, &mut text);
    text
}

/// What an answer says besides its result.
#[derive(Default, Deserialize)]
struct Told {
    success: Option<bool>,
    code: Option<String>,
    message: Option<String>,
    error: Option<ToldInside>,
}

#[derive(Default, Deserialize)]
struct ToldInside {
    code: Option<String>,
    message: Option<String>,
}

fn class(status: StatusCode, code: Option<&str>) -> Class {
    match (status.as_u16(), code) {
        (_, Some("ServiceNotConfigured" | "ServiceNotRunning")) => Class::Conflict,
        (_, Some("KeyNotFound")) => Class::NotFound,
        // RustFS has no codes in its JSON. `NotFound` is a path that is none of the server's.
        (404, None) => Class::NotFound,
        (401 | 403, _) => Class::NotAllowed,
        (409, _) => Class::Conflict,
        (429 | 502..=504, _) => Class::Unreachable,
        _ => Class::Failed,
    }
}
