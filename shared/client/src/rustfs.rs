//! RustFS's KMS admin API.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, StatusCode};
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answers::{
    DataKey, DataKeySpec, Decrypted, Deletion, Encrypted, Key, KeyPage, ServiceChange,
    ServiceStatus,
};
use crate::error::{Refusal, printable};
use crate::http::{Answer, Call, Http, Repeat, is_unreachable, json};
use crate::{Class, Context, DeleteWhen, Error, KeyState, NewKey};

const PREFIX: &str = "/rustfs/admin/v3/kms";
pub(crate) const NAME: &str = "RustFS's KMS admin API";
/// The room for a request's JSON besides its plaintext and context.
const ROOM: usize = 4096;
/// What a segment of a path may hold as it is.
pub(crate) const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

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

#[derive(Serialize)]
struct CreateBody<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    tags: &'a Context,
}

#[derive(Serialize)]
struct KeyBody<'a> {
    key_id: &'a str,
}

#[derive(Serialize)]
struct TagBody<'a> {
    key_id: &'a str,
    tags: &'a Context,
}

#[derive(Serialize)]
struct UntagBody<'a> {
    key_id: &'a str,
    tag_keys: &'a [String],
}

#[derive(Serialize)]
struct DeleteBody<'a> {
    key_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_window_in_days: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    force_immediate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_key_id: Option<&'a str>,
}

#[derive(Deserialize)]
struct DeleteAnswer {
    key_id: String,
    deletion_date: Option<String>,
    impact: Option<Impact>,
}

#[derive(Default, Deserialize)]
struct Impact {
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    kind: String,
    id: String,
}

#[derive(Deserialize)]
struct KeyAnswer {
    key_metadata: Option<KeyFields>,
}

#[derive(Deserialize)]
struct ListAnswer {
    keys: Vec<KeyFields>,
    next_marker: Option<String>,
}

/// A key in both shapes of this API: a listing has other names for some fields.
#[derive(Deserialize)]
struct KeyFields {
    key_id: String,
    #[serde(alias = "status")]
    key_state: Option<String>,
    description: Option<String>,
    #[serde(alias = "usage")]
    key_usage: Option<String>,
    algorithm: Option<String>,
    #[serde(alias = "version")]
    key_version: Option<u32>,
    #[serde(alias = "created_at")]
    creation_date: Option<String>,
    created_by: Option<String>,
    rotated_at: Option<String>,
    rotation_enabled: Option<bool>,
    deletion_date: Option<String>,
    origin: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

impl From<KeyFields> for Key {
    fn from(fields: KeyFields) -> Self {
        let spelt = |word: Option<String>, other: &str, one: &str| {
            word.map(|word| match word == other {
                true => one.to_owned(),
                false => word,
            })
        };
        Self {
            key_id: fields.key_id,
            // Listings say this of an enabled key.
            state: spelt(fields.key_state, "Active", "Enabled"),
            description: fields.description,
            // RustFS's spelling.
            usage: spelt(fields.key_usage, "EncryptDecrypt", "ENCRYPT_DECRYPT"),
            algorithm: fields.algorithm,
            version: fields.key_version,
            created_at: fields.creation_date,
            created_by: fields.created_by,
            rotated_at: fields.rotated_at,
            rotation_enabled: fields.rotation_enabled,
            deletion_date: fields.deletion_date,
            origin: fields.origin,
            tags: fields.tags,
        }
    }
}

#[derive(Deserialize)]
struct StatusAnswer {
    status: StateWord,
    healthy: Option<bool>,
    error: Option<String>,
    backend_type: Option<String>,
    default_key_id: Option<String>,
    #[serde(rename = "keyCount")]
    key_count: Option<u64>,
    state_ttl_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum StateWord {
    Word(String),
    /// As RustFS spells it.
    Error {
        #[serde(rename = "Error")]
        error: String,
    },
}

#[derive(Deserialize)]
struct ServiceAnswer {
    message: String,
    status: StateWord,
}

/// A page of the audit log.
#[derive(Deserialize)]
pub(crate) struct EventsAnswer {
    pub(crate) events: Vec<serde_json::Value>,
    pub(crate) next_marker: Option<String>,
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
            ciphertext: self.0.decoded(&answer.ciphertext_blob)?,
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
            ciphertext: self.0.decoded(&answer.ciphertext_blob)?,
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

    pub(crate) async fn create(&self, new: &NewKey<'_>) -> Result<Key, Error> {
        let body = CreateBody {
            key_id: new.id.map(KeyId::as_str),
            description: new.description,
            tags: new.tags,
        };
        self.change("", &body).await
    }

    pub(crate) async fn describe(&self, key: &KeyId) -> Result<Key, Error> {
        let path = format!("/keys/{}", utf8_percent_encode(key.as_str(), SEGMENT));
        let answer: KeyAnswer = self
            .call(Method::GET, &path, Bytes::new(), Repeat::Safe)
            .await?;
        self.key(answer)
    }

    /// A page of the keys whose ids begin with `prefix`, and that are in this state if one is given.
    pub(crate) async fn keys(
        &self,
        prefix: &str,
        state: Option<KeyState>,
        marker: Option<&str>,
    ) -> Result<KeyPage, Error> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", "1000");
        let state = state.map(KeyState::as_str);
        for (name, value) in [
            ("prefix", Some(prefix)),
            ("status", state),
            ("marker", marker),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                query.append_pair(name, value);
            }
        }
        let path = format!("/keys?{}", query.finish());
        let page: ListAnswer = self
            .call(Method::GET, &path, Bytes::new(), Repeat::Safe)
            .await?;
        Ok(KeyPage {
            keys: page.keys.into_iter().map(Into::into).collect(),
            next: page.next_marker.filter(|marker| !marker.is_empty()),
        })
    }

    /// An operation that takes the key's id alone, such as `rotate`.
    pub(crate) async fn change_key(&self, operation: &str, key: &KeyId) -> Result<Key, Error> {
        let body = KeyBody {
            key_id: key.as_str(),
        };
        self.change(operation, &body).await
    }

    pub(crate) async fn tag(&self, key: &KeyId, tags: &Context) -> Result<Key, Error> {
        let body = TagBody {
            key_id: key.as_str(),
            tags,
        };
        self.change("/tag", &body).await
    }

    pub(crate) async fn untag(&self, key: &KeyId, names: &[String]) -> Result<Key, Error> {
        let body = UntagBody {
            key_id: key.as_str(),
            tag_keys: names,
        };
        self.change("/untag", &body).await
    }

    pub(crate) async fn delete(&self, key: &KeyId, when: DeleteWhen) -> Result<Deletion, Error> {
        let (days, now) = match when {
            DeleteWhen::After(days) => (days, None),
            DeleteWhen::Now => (None, Some(true)),
        };
        let body = DeleteBody {
            key_id: key.as_str(),
            pending_window_in_days: days,
            force_immediate: now,
            confirm_key_id: now.map(|_| key.as_str()),
        };
        let body = json(&body, 0)?;
        let answer: DeleteAnswer = self
            .call(Method::DELETE, "/keys/delete", body, Repeat::Never)
            .await?;
        let references = answer.impact.unwrap_or_default().references.into_iter();
        Ok(Deletion {
            key_id: answer.key_id,
            deletion_date: answer.deletion_date,
            references: references
                .map(|reference| format!("{} {}", reference.kind, reference.id))
                .collect(),
        })
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, Error> {
        let answer: StatusAnswer = self
            .call(Method::GET, "/service-status", Bytes::new(), Repeat::Safe)
            .await?;
        let (status, error) = match answer.status {
            StateWord::Word(word) => (word, answer.error),
            StateWord::Error { error } => ("Error".to_owned(), Some(error)),
        };
        Ok(ServiceStatus {
            status,
            healthy: answer.healthy,
            error,
            backend_type: answer.backend_type,
            default_key_id: answer.default_key_id,
            key_count: answer.key_count,
            state_ttl_seconds: answer.state_ttl_seconds,
            version: None,
            uptime_seconds: None,
        })
    }

    /// A change of the service: `configure`, `reconfigure`, `start`, `stop`. The body is JSON, and may hold a secret.
    pub(crate) async fn service(
        &self,
        operation: &str,
        body: Bytes,
    ) -> Result<ServiceChange, Error> {
        let path = format!("/{operation}");
        let answer: ServiceAnswer = self.call(Method::POST, &path, body, Repeat::Never).await?;
        Ok(ServiceChange {
            status: match answer.status {
                StateWord::Word(word) => word,
                StateWord::Error { error } => error,
            },
            message: answer.message,
        })
    }

    pub(crate) async fn events(&self, query: &str) -> Result<EventsAnswer, Error> {
        let path = format!("/audit?{query}");
        self.call(Method::GET, &path, Bytes::new(), Repeat::Safe)
            .await
    }

    /// A POST that changes a key and answers with it.
    async fn change(&self, operation: &str, body: &impl Serialize) -> Result<Key, Error> {
        let path = format!("/keys{operation}");
        let answer: KeyAnswer = self
            .call(Method::POST, &path, json(body, 0)?, Repeat::Never)
            .await?;
        self.key(answer)
    }

    fn key(&self, answer: KeyAnswer) -> Result<Key, Error> {
        let key = answer.key_metadata.map(Key::from);
        key.ok_or_else(|| self.0.foreign("it has no key_metadata"))
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
            return Err(self.refused(&answer, repeat));
        }
        // RustFS also answers some refusals with status 200.
        if let Ok(Told {
            success: Some(false),
            ..
        }) = serde_json::from_slice(&answer.body)
        {
            return Err(self.refused(&answer, repeat));
        }
        self.0.json(&answer)
    }

    fn secret(&self, text: &str) -> Result<SecretBytes, Error> {
        self.0.decoded(text).map(SecretBytes::from)
    }

    fn refused(&self, answer: &Answer, repeat: Repeat) -> Error {
        let Answer {
            status,
            headers,
            body,
        } = answer;
        let told = serde_json::from_slice::<Told>(body).unwrap_or_default();
        let inner = told.error.unwrap_or_default();
        let code = told.code.or(inner.code);
        let Some(message) = told.message.or(inner.message) else {
            return self.0.without_message(*status, repeat);
        };
        Error::Refused {
            class: class(*status, code.as_deref()),
            refusal: Refusal {
                status: status.as_u16(),
                code: code.as_deref().map(printable),
                message: printable(&message),
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
        (status, _) if is_unreachable(status) => Class::Unreachable,
        _ => Class::Failed,
    }
}
