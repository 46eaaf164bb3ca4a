//! KES's API.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Response};
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use percent_encoding::utf8_percent_encode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::answers::{
    DataKey, DataKeySpec, Decrypted, Deletion, Encrypted, Key, KeyPage, ServiceStatus,
};
use crate::error::{Refusal, printable};
use crate::http::{Answer, Call, Http, Incoming, Repeat, is_unreachable, json};
use crate::rustfs::{SEGMENT, request_id, secret_base64};
use crate::{Class, Context, DeleteWhen, Error, NO_TAGS, NewKey};

pub(crate) const NAME: &str = "KES's API";
const ROOM: usize = 4096;
/// A hundred years in seconds.
const NANOSECONDS_FROM: u64 = 3_153_600_000;

/// A client of this API.
pub(crate) struct Kes(pub(crate) Http);

#[derive(Default, Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    plaintext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ciphertext: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
}

#[derive(Deserialize)]
struct Generated {
    plaintext: Zeroizing<String>,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: Zeroizing<String>,
}

/// The key's name, which every call on a key of this API needs.
fn named(key: Option<&KeyId>) -> Result<&KeyId, Error> {
    key.ok_or(Error::Settings(
        "KES's API has no default key: name the key".to_owned(),
    ))
}

/// This API's context is bytes. MinIO's servers write theirs as JSON with sorted names, and so do these commands.
fn context(context: &Context) -> Result<Option<String>, Error> {
    if context.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(context);
    let text = text.map_err(|_| Error::settings("the context cannot be written as JSON"))?;
    Ok(Some(STANDARD.encode(text)))
}

impl Kes {
    pub(crate) async fn generate_data_key(
        &self,
        key: Option<&KeyId>,
        spec: DataKeySpec,
        context: &Context,
    ) -> Result<DataKey, Error> {
        if spec != DataKeySpec::Aes256 {
            return Err(Error::Unsupported(
                "KES's API makes data keys of 256 bits only",
            ));
        }
        let made: Generated = self
            .on_key("generate", key, Body::default(), context)
            .await?;
        Ok(DataKey {
            key_id: named(key)?.to_string(),
            key_version: None,
            plaintext: self.0.decoded(&made.plaintext)?.into(),
            ciphertext: self.0.decoded(&made.ciphertext)?,
        })
    }

    pub(crate) async fn encrypt(
        &self,
        key: Option<&KeyId>,
        plaintext: &SecretBytes,
        context: &Context,
    ) -> Result<Encrypted, Error> {
        let text = secret_base64(plaintext.expose());
        let body = Body {
            plaintext: Some(&text),
            ..Body::default()
        };
        let made: Ciphertext = self.on_key("encrypt", key, body, context).await?;
        Ok(Encrypted {
            key_id: named(key)?.to_string(),
            key_version: None,
            ciphertext: self.0.decoded(&made.ciphertext)?,
        })
    }

    pub(crate) async fn decrypt(
        &self,
        key: Option<&KeyId>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, Error> {
        let text = STANDARD.encode(ciphertext);
        let body = Body {
            ciphertext: Some(&text),
            ..Body::default()
        };
        let opened: Plaintext = self.on_key("decrypt", key, body, context).await?;
        Ok(Decrypted {
            key_id: named(key)?.to_string(),
            key_version: None,
            plaintext: self.0.decoded(&opened.plaintext)?.into(),
        })
    }

    pub(crate) async fn create(&self, new: &NewKey<'_>) -> Result<Key, Error> {
        if new.description.is_some() || !new.tags.is_empty() {
            return Err(Error::Unsupported(NO_TAGS));
        }
        let key = named(new.id)?;
        let path = format!("/v1/key/create/{key}");
        self.call(Method::POST, path, Bytes::new(), Repeat::Never)
            .await?;
        Ok(Key::named(key.to_string()))
    }

    pub(crate) async fn describe(&self, key: &KeyId) -> Result<Key, Error> {
        #[derive(Deserialize)]
        struct Described {
            name: String,
            algorithm: Option<String>,
            created_at: Option<String>,
            created_by: Option<String>,
        }
        let path = format!("/v1/key/describe/{key}");
        let answer = self
            .call(Method::GET, path, Bytes::new(), Repeat::Safe)
            .await?;
        let described: Described = self.0.json(&answer)?;
        Ok(Key {
            algorithm: described.algorithm,
            created_at: described.created_at,
            created_by: described.created_by,
            ..Key::named(described.name)
        })
    }

    /// A page of the keys whose names begin with `prefix`.
    pub(crate) async fn keys(&self, prefix: &str, marker: Option<&str>) -> Result<KeyPage, Error> {
        #[derive(Deserialize)]
        struct Page {
            names: Vec<String>,
            continue_at: Option<String>,
        }
        /// How older releases answer: a line for each key.
        #[derive(Deserialize)]
        struct Line {
            #[serde(alias = "key")]
            name: String,
        }
        let from = marker.unwrap_or(prefix);
        let path = format!("/v1/key/list/{}", utf8_percent_encode(from, SEGMENT));
        let answer = self
            .call(Method::GET, path, Bytes::new(), Repeat::Safe)
            .await?;
        let (names, next) = match serde_json::from_slice(&answer.body) {
            Ok(Page { names, continue_at }) => (names, continue_at),
            Err(_) => {
                let lines = serde_json::Deserializer::from_slice(&answer.body).into_iter::<Line>();
                let names: Result<Vec<_>, _> = lines.map(|line| Ok(line?.name)).collect();
                let names =
                    names.map_err(|_: serde_json::Error| self.0.foreign("it is no list"))?;
                (names, None)
            }
        };
        Ok(KeyPage {
            keys: names.into_iter().map(Key::named).collect(),
            next: next.filter(|next| !next.is_empty()),
        })
    }

    pub(crate) async fn delete(&self, key: &KeyId, when: DeleteWhen) -> Result<Deletion, Error> {
        if when != DeleteWhen::Now {
            return Err(Error::Unsupported("KES's API deletes keys at once only"));
        }
        let path = format!("/v1/key/delete/{key}");
        self.call(Method::DELETE, path, Bytes::new(), Repeat::Never)
            .await?;
        Ok(Deletion {
            key_id: key.to_string(),
            deletion_date: None,
            references: Vec::new(),
        })
    }

    pub(crate) async fn status(&self) -> Result<ServiceStatus, Error> {
        #[derive(Deserialize)]
        struct Status {
            version: Option<String>,
            uptime: Option<u64>,
            #[serde(default)]
            keystore_unreachable: bool,
            error: Option<String>,
        }
        let answer = self
            .call(
                Method::GET,
                "/v1/status".to_owned(),
                Bytes::new(),
                Repeat::Safe,
            )
            .await?;
        let status: Status = self.0.json(&answer)?;
        let state = match status.keystore_unreachable {
            true => "Error",
            false => "Running",
        };
        Ok(ServiceStatus {
            status: state.to_owned(),
            healthy: Some(!status.keystore_unreachable),
            error: status.error,
            version: status.version,
            // Older releases have nanoseconds here, which no server reaches in seconds.
            uptime_seconds: status.uptime.map(|time| match time > NANOSECONDS_FROM {
                true => time / 1_000_000_000,
                false => time,
            }),
            ..ServiceStatus::default()
        })
    }

    /// The stream of the audit log, from now on.
    pub(crate) async fn events(&self) -> Result<Response<Incoming>, Error> {
        let call = Call {
            method: Method::GET,
            path: "/v1/log/audit".to_owned(),
            body: Bytes::new(),
            repeat: Repeat::Safe,
        };
        let response = self.0.stream(&call).await?;
        match response.status().is_success() {
            true => Ok(response),
            false => {
                let answer = self.0.send(&call).await?;
                Err(self.refused(&answer, Repeat::Safe))
            }
        }
    }

    /// An operation with this key's material. All of them may be repeated.
    async fn on_key<T: DeserializeOwned>(
        &self,
        operation: &str,
        key: Option<&KeyId>,
        mut body: Body<'_>,
        pairs: &Context,
    ) -> Result<T, Error> {
        body.context = context(pairs)?;
        let texts = [body.plaintext, body.ciphertext, body.context.as_deref()];
        let room = ROOM + texts.into_iter().flatten().map(str::len).sum::<usize>();
        let path = format!("/v1/key/{operation}/{}", named(key)?);
        let answer = self
            .call(Method::POST, path, json(&body, room)?, Repeat::Safe)
            .await?;
        self.0.json(&answer)
    }

    /// A successful answer.
    async fn call(
        &self,
        method: Method,
        path: String,
        body: Bytes,
        repeat: Repeat,
    ) -> Result<Answer, Error> {
        let call = Call {
            method,
            path,
            body,
            repeat,
        };
        let answer = self.0.send(&call).await?;
        match answer.status.is_success() {
            true => Ok(answer),
            false => Err(self.refused(&answer, repeat)),
        }
    }

    fn refused(&self, answer: &Answer, repeat: Repeat) -> Error {
        #[derive(Deserialize)]
        struct Told {
            message: String,
            /// Keyway's reason, which other servers of this API do not give.
            reason: Option<String>,
        }
        let status = answer.status.as_u16();
        let Ok(Told { message, reason }) = serde_json::from_slice(&answer.body) else {
            return self.0.without_message(answer.status, repeat);
        };
        let class = match (status, message.as_str()) {
            (404, _) => Class::NotFound,
            (400, "key already exists") => Class::Conflict,
            (400, text) if text.starts_with("tls: ") => Class::NotAllowed,
            // A refusal with a reason is about the key, not about the caller.
            (403, _) if reason.is_some() => Class::Conflict,
            (401 | 403, _) => Class::NotAllowed,
            (503, "KMS is not running" | "KMS is not configured") => Class::Conflict,
            (status, _) if is_unreachable(status) => Class::Unreachable,
            _ => Class::Failed,
        };
        Error::Refused {
            class,
            refusal: Refusal {
                status,
                code: None,
                message: printable(&reason.unwrap_or(message)),
                request_id: request_id(&answer.headers),
            },
        }
    }
}
