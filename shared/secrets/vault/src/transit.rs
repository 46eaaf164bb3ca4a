//! Wraps and unwraps under one derived key of the transit engine.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{Binding, WrapError};
use keyway_domain::vault::TransitVersions;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

use crate::client::Client;
use crate::context::context;
use crate::failure::Failure;
use crate::http::{Answer, Limits, body};

/// The name of the key in the transit engine. It never changes.
pub const TRANSIT_KEY: &str = "keyway";

/// A type of transit key that cannot encrypt. If the key is missing and the token allows it, Vault's encrypt endpoint
/// makes a key of the requested type; it refuses to make one of this type. If the key exists, Vault ignores the type.
const NEVER_MADE: &str = "ecdsa-p256";

const PREFIX: &str = "vault:v";

/// The types of transit keys that are as strong as the keys that they wrap.
const KINDS: [&str; 3] = ["aes256-gcm96", "chacha20-poly1305", "xchacha20-poly1305"];

/// The creation time of each version of the transit key. A new key of the same name has others.
pub(crate) type Identity = BTreeMap<u64, Value>;

#[derive(Serialize)]
struct NewKey {
    r#type: &'static str,
    derived: bool,
    exportable: bool,
    allow_plaintext_backup: bool,
}

#[derive(Serialize)]
struct Encrypt<'a> {
    plaintext: &'a str,
    context: &'a str,
    r#type: &'static str,
}

#[derive(Serialize)]
struct Decrypt<'a> {
    ciphertext: &'a str,
    context: &'a str,
}

#[derive(Deserialize)]
struct WithData<T> {
    data: T,
}

#[derive(Deserialize)]
struct Encrypted {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Decrypted {
    plaintext: Zeroizing<String>,
}

#[derive(Deserialize)]
struct KeyData {
    r#type: String,
    derived: bool,
    supports_encryption: bool,
    supports_decryption: bool,
    #[serde(default)]
    soft_deleted: bool,
    #[serde(default)]
    min_decryption_version: u64,
    keys: BTreeMap<u64, Value>,
}

#[derive(Serialize)]
struct KeyConfig {
    min_decryption_version: u64,
}

impl Client {
    pub(crate) fn transit(&self, what: &str) -> String {
        format!("{}/{what}/{TRANSIT_KEY}", self.settings.mount_path.as_str())
    }

    /// Reads the transit key, and fails if it is missing or cannot be used.
    pub(crate) async fn transit_key(&self, limits: Limits) -> Result<Identity, Failure> {
        Ok(self.key_data(limits).await?.keys)
    }

    async fn key_data(&self, limits: Limits) -> Result<KeyData, Failure> {
        let path = self.transit("keys");
        let answer = self
            .connection
            .ask(limits, Method::GET, &path, None)
            .await?;
        let found: KeyData = match answer.status {
            StatusCode::OK => answer.json::<WithData<_>>("a transit key")?.data,
            StatusCode::NOT_FOUND => return Err(Failure::KeyMissing(path)),
            _ => return Err(answer.unforeseen(&path)),
        };
        let unfit = |why| Err(Failure::KeyUnfit { key: path, why });
        if found.soft_deleted {
            return unfit("it is deleted, and can be restored");
        }
        if !KINDS.contains(&found.r#type.as_str()) {
            return unfit("it is of another type than aes256-gcm96");
        }
        if !found.derived {
            return unfit("it is not derived, so what it wraps would not be bound to a key");
        }
        if !found.supports_encryption || !found.supports_decryption {
            return unfit("it cannot encrypt and decrypt");
        }
        Ok(found)
    }

    pub(crate) async fn versions(&self, limits: Limits) -> Result<TransitVersions, Failure> {
        let found = self.key_data(limits).await?;
        let newest = found.keys.last_key_value();
        let (newest, _) = newest.ok_or(Failure::Garbled("a transit key"))?;
        Ok(TransitVersions {
            newest: *newest,
            minimum: found.min_decryption_version,
        })
    }

    pub(crate) async fn add_version(&self, limits: Limits) -> Result<(), Failure> {
        self.same_transit_key(limits).await?;
        let path = format!("{}/rotate", self.transit("keys"));
        let answer = self
            .connection
            .ask(limits, Method::POST, &path, None)
            .await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.unforeseen(&path)),
        }
    }

    pub(crate) async fn set_minimum(&self, limits: Limits, version: u64) -> Result<(), Failure> {
        self.same_transit_key(limits).await?;
        let path = format!("{}/config", self.transit("keys"));
        let config = KeyConfig {
            min_decryption_version: version,
        };
        let body = body(&config, 64)?;
        let answer = self
            .connection
            .ask(limits, Method::POST, &path, Some(body))
            .await?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(answer.unforeseen(&path)),
        }
    }

    pub(crate) async fn encrypt_anew(
        &self,
        limits: Limits,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<Vec<u8>, WrapError> {
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| WrapError::NotAuthentic)?;
        if !ciphertext.starts_with(PREFIX) {
            return Err(WrapError::NotAuthentic);
        }
        self.same_transit_key(limits).await?;
        let context = STANDARD.encode(context(binding));
        let request = Decrypt {
            ciphertext,
            context: &context,
        };
        let room = 64 + 6 * ciphertext.len() + context.len();
        let path = self.transit("rewrap");
        let answer = self
            .connection
            .ask(limits, Method::POST, &path, Some(body(&request, room)?))
            .await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer, &path));
        }
        let sealed: Encrypted = answer.json::<WithData<_>>("a ciphertext")?.data;
        match version_of(sealed.ciphertext.as_bytes()) {
            Some(_) => Ok(sealed.ciphertext.into_bytes()),
            None => Err(Failure::Garbled("a ciphertext").into()),
        }
    }

    /// Checks that the transit key can be used and is still the one that this client has seen.
    pub(crate) async fn same_transit_key(&self, limits: Limits) -> Result<(), Failure> {
        let found = self.transit_key(limits).await?;
        let mut known = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_some_and(|known| !is_same(known, &found)) {
            return Err(Failure::KeyReplaced(self.transit("keys")));
        }
        *known = Some(found);
        Ok(())
    }

    /// Makes the transit key if it is missing, and remembers which key it is.
    pub(crate) async fn make_transit_key(&self, limits: Limits) -> Result<(), Failure> {
        let found = match self.transit_key(limits).await {
            Err(Failure::KeyMissing(path)) => {
                let key = NewKey {
                    r#type: "aes256-gcm96",
                    derived: true,
                    exportable: false,
                    allow_plaintext_backup: false,
                };
                let body = body(&key, 128)?;
                let answer = self
                    .connection
                    .ask(limits, Method::POST, &path, Some(body))
                    .await?;
                if !answer.status.is_success() {
                    return Err(answer.unforeseen(&path));
                }
                self.transit_key(limits).await?
            }
            other => other?,
        };
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    }

    pub(crate) async fn encrypt(
        &self,
        limits: Limits,
        binding: &Binding<'_>,
        material: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        // A new key that is not derived would ignore the context.
        self.same_transit_key(limits).await?;
        let plaintext = Zeroizing::new(STANDARD.encode(material));
        let context = STANDARD.encode(context(binding));
        let request = Encrypt {
            plaintext: &plaintext,
            context: &context,
            r#type: NEVER_MADE,
        };
        let room = 128 + plaintext.len() + context.len();
        let path = self.transit("encrypt");
        let answer = self
            .connection
            .ask(limits, Method::POST, &path, Some(body(&request, room)?))
            .await?;
        match answer.status {
            StatusCode::OK => {
                let sealed: Encrypted = answer.json::<WithData<_>>("a ciphertext")?.data;
                match sealed.ciphertext.starts_with(PREFIX) {
                    true => Ok(sealed.ciphertext.into_bytes()),
                    false => Err(Failure::Garbled("a ciphertext")),
                }
            }
            // It was deleted a moment ago.
            StatusCode::BAD_REQUEST if answer.says(&["not supported for", "key not found"]) => {
                Err(Failure::KeyMissing(self.transit("keys")))
            }
            _ => Err(answer.unforeseen(&path)),
        }
    }

    pub(crate) async fn decrypt(
        &self,
        limits: Limits,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let ciphertext = std::str::from_utf8(wrapped).map_err(|_| WrapError::NotAuthentic)?;
        if !ciphertext.starts_with(PREFIX) {
            return Err(WrapError::NotAuthentic);
        }
        let context = STANDARD.encode(context(binding));
        let request = Decrypt {
            ciphertext,
            context: &context,
        };
        let room = 64 + 6 * ciphertext.len() + context.len();
        let path = self.transit("decrypt");
        let answer = self
            .connection
            .ask(limits, Method::POST, &path, Some(body(&request, room)?))
            .await?;
        if answer.status != StatusCode::OK {
            return Err(self.refusal(&answer, &path));
        }
        let opened: Decrypted = answer.json::<WithData<_>>("a plaintext")?.data;
        let material = STANDARD
            .decode(opened.plaintext.as_bytes())
            .map_err(|_| Failure::Garbled("a plaintext"))?;
        Ok(SecretBytes::from(material))
    }

    /// Why Vault did not decrypt.
    fn refusal(&self, answer: &Answer, path: &str) -> WrapError {
        if answer.status != StatusCode::BAD_REQUEST {
            return answer.unforeseen(path).into();
        }
        let key = self.transit("keys");
        if answer.says(&["key not found"]) {
            Failure::KeyMissing(key).into()
        } else if answer.says(&["version is too new"]) {
            // The key never had this version, so it is not the key that wrapped this.
            WrapError::UnknownRoot
        } else if answer.says(&["disallowed by policy"]) {
            Failure::VersionTooOld(key).into()
        } else if answer.says(&["message authentication failed", "invalid ciphertext"]) {
            WrapError::NotAuthentic
        } else {
            answer.unforeseen(path).into()
        }
    }
}

/// The version of the transit key that made this ciphertext.
pub(crate) fn version_of(wrapped: &[u8]) -> Option<u64> {
    let (version, _) = std::str::from_utf8(wrapped)
        .ok()?
        .strip_prefix(PREFIX)?
        .split_once(':')?;
    version.parse().ok()
}

/// Whether `found` can be the `known` key. That may have been rotated and trimmed since.
fn is_same(known: &Identity, found: &Identity) -> bool {
    let newest = |identity: &Identity| identity.last_key_value().map(|(version, _)| *version);
    newest(found) >= newest(known)
        && found
            .iter()
            .all(|(version, made)| known.get(version).is_none_or(|known| known == made))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(versions: &[(u64, u64)]) -> Identity {
        let versions = versions.iter();
        versions
            .map(|&(version, at)| (version, at.into()))
            .collect()
    }

    #[test]
    fn transit_key_may_be_rotated_and_trimmed_only() {
        let known = identity(&[(1, 100), (2, 200)]);
        assert!(is_same(&known, &known));
        assert!(is_same(&known, &identity(&[(1, 100), (2, 200), (3, 300)])));
        assert!(is_same(&known, &identity(&[(2, 200), (3, 300)])));
        assert!(is_same(&known, &identity(&[(3, 300)])));
        assert!(!is_same(&known, &identity(&[(1, 150), (2, 200)])));
        assert!(!is_same(&known, &identity(&[(1, 100)])));
        assert!(!is_same(&known, &identity(&[])));
    }
}
