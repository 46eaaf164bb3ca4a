//! A client of a Keyway server, of RustFS or of a KES server, for the command line: profiles, signatures, retries, and
//! typed answers.
//!
//! It speaks RustFS's KMS admin API with an access key, or KES's API with a certificate or an API key. A request that
//! changes something is sent again only if it was never sent.

mod answers;
mod error;
mod files;
mod http;
mod kes;
mod profile;
mod rustfs;
mod settings;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use keyway_domain::ports::Clock;

pub use answers::{
    AuditEvent, DataKey, DataKeySpec, Decrypted, Deletion, Encrypted, Key, KeyPage, ServiceChange,
    ServiceStatus,
};
pub use error::{Class, Error, Outcome, Refusal};
pub use files::secret as secret_from_file;
use http::Http;
use kes::Kes;
pub use profile::DEFAULT_PROFILE;
use rustfs::RustFs;
use settings::ClientProof;
pub use settings::{AccessKey, Api, Connection, Settings};
pub use tail::{AuditTail, TailQuery};

/// An encryption context: names and values that a ciphertext is bound to and does not hold.
///
/// KES's API has bytes in its place; they are the JSON of these pairs. So a ciphertext with a context opens only by the API
/// that made it.
pub type Context = BTreeMap<String, String>;

/// A new key.
pub struct NewKey<'a> {
    /// Its id; without it, the server draws one. KES's API needs it.
    pub id: Option<&'a KeyId>,
    /// A text for people.
    pub description: Option<&'a str>,
    /// Names and values for programs.
    pub tags: &'a BTreeMap<String, String>,
}

/// A state by which keys are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It can be used.
    Enabled,
    /// It cannot be used until it is enabled.
    Disabled,
    /// It will be destroyed.
    PendingDeletion,
}

impl KeyState {
    /// As RustFS's API spells it in listings.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Active",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
        }
    }
}

/// When a key is destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteWhen {
    /// After so many days, or as many as the server takes.
    After(Option<u32>),
    /// At once.
    Now,
}

/// A change of a key that needs nothing but its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    /// Permit its use.
    Enable,
    /// Refuse its use.
    Disable,
    /// Make a new version, which encrypts from now on.
    Rotate,
    /// Keep a key whose deletion is pending.
    CancelDeletion,
}

impl KeyChange {
    const fn path(self) -> &'static str {
        match self {
            Self::Enable => "/enable",
            Self::Disable => "/disable",
            Self::Rotate => "/rotate",
            Self::CancelDeletion => "/cancel-deletion",
        }
    }
}

/// A client of one server.
pub struct Client {
    inner: Inner,
    clock: Arc<dyn Clock>,
}

enum Inner {
    RustFs(RustFs),
    Kes(Kes),
}

impl Client {
    /// A client for this connection. Nothing is sent yet; `clock` has the time of signatures.
    ///
    /// # Errors
    /// [`Error::Settings`] when the certificate does not fit its key.
    pub fn connect(connection: Connection, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let is_kes = matches!(connection.proof, ClientProof::Certificate { .. });
        let clock_of_api = Arc::clone(&clock);
        let inner = match is_kes {
            true => Inner::Kes(Kes(Http::new(connection, kes::NAME, clock_of_api)?)),
            false => Inner::RustFs(RustFs(Http::new(connection, rustfs::NAME, clock_of_api)?)),
        };
        Ok(Self { inner, clock })
    }

    /// Returns whether answers name the version of a key. KES's API does not.
    pub fn tells_versions(&self) -> bool {
        matches!(self.inner, Inner::RustFs(_))
    }

    /// A new data key under this key, or under the server's default key. KES's API needs a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn generate_data_key(
        &self,
        key: Option<&KeyId>,
        spec: DataKeySpec,
        context: &Context,
    ) -> Result<DataKey, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.generate_data_key(key, spec, context).await,
            Inner::Kes(api) => api.generate_data_key(key, spec, context).await,
        }
    }

    /// Encrypts at most 64 KiB.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn encrypt(
        &self,
        key: Option<&KeyId>,
        plaintext: &SecretBytes,
        context: &Context,
    ) -> Result<Encrypted, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.encrypt(key, plaintext, context).await,
            Inner::Kes(api) => api.encrypt(key, plaintext, context).await,
        }
    }

    /// Decrypts a ciphertext, such as that of a data key. Without a key, the ciphertext names it; KES's API needs a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn decrypt(
        &self,
        key: Option<&KeyId>,
        ciphertext: &[u8],
        context: &Context,
    ) -> Result<Decrypted, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.decrypt(key, ciphertext, context).await,
            Inner::Kes(api) => api.decrypt(key, ciphertext, context).await,
        }
    }

    /// Makes a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn create(&self, new: &NewKey<'_>) -> Result<Key, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.create(new).await,
            Inner::Kes(api) => api.create(new).await,
        }
    }

    /// What the server says of a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn describe(&self, key: &KeyId) -> Result<Key, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.describe(key).await,
            Inner::Kes(api) => api.describe(key).await,
        }
    }

    /// A page of the keys whose ids begin with `prefix`, from `marker` on, which is the `next` of the page before.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn keys(
        &self,
        prefix: &str,
        state: Option<KeyState>,
        marker: Option<&str>,
    ) -> Result<KeyPage, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.keys(prefix, state, marker).await,
            Inner::Kes(_) if state.is_some() => {
                Err(Error::Unsupported("KES's API knows no states of keys"))
            }
            Inner::Kes(api) => api.keys(prefix, marker).await,
        }
    }

    /// Changes a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn change(&self, key: &KeyId, change: KeyChange) -> Result<Key, Error> {
        let api = self.rustfs("KES's API cannot change the state or the version of a key")?;
        api.change_key(change.path(), key).await
    }

    /// Adds tags to a key, or replaces their values.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn tag(&self, key: &KeyId, tags: &BTreeMap<String, String>) -> Result<Key, Error> {
        self.rustfs(NO_TAGS)?.tag(key, tags).await
    }

    /// Removes tags of these names from a key.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn untag(&self, key: &KeyId, names: &[String]) -> Result<Key, Error> {
        self.rustfs(NO_TAGS)?.untag(key, names).await
    }

    /// Destroys a key, or schedules that.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete(&self, key: &KeyId, when: DeleteWhen) -> Result<Deletion, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.delete(key, when).await,
            Inner::Kes(api) => api.delete(key, when).await,
        }
    }

    /// The state of the service.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn status(&self) -> Result<ServiceStatus, Error> {
        match &self.inner {
            Inner::RustFs(api) => api.status().await,
            Inner::Kes(api) => api.status().await,
        }
    }

    /// Configures the service with the JSON that RustFS's API documents. With `merge`, only what is in it changes, also
    /// while the service runs.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn configure(&self, body: Bytes, merge: bool) -> Result<ServiceChange, Error> {
        let operation = match merge {
            true => "reconfigure",
            false => "configure",
        };
        self.rustfs(NO_SERVICE)?.service(operation, body).await
    }

    /// Starts the service. With `restart`, also when it runs.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start(&self, restart: bool) -> Result<ServiceChange, Error> {
        let body: &[u8] = match restart {
            true => br#"{"force":true}"#,
            false => b"{}",
        };
        let body = Bytes::from_static(body);
        self.rustfs(NO_SERVICE)?.service("start", body).await
    }

    /// Stops the service. The server goes on to answer that it is stopped.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn stop(&self) -> Result<ServiceChange, Error> {
        let body = Bytes::from_static(b"{}");
        self.rustfs(NO_SERVICE)?.service("stop", body).await
    }

    /// Follows the audit log. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the API cannot choose events.
    pub fn audit_tail(&self, query: TailQuery) -> Result<AuditTail<'_>, Error> {
        match &self.inner {
            Inner::RustFs(api) => Ok(AuditTail::of_rustfs(api, query, &self.clock)),
            Inner::Kes(api) => {
                let chooses =
                    query.since.is_some() || query.key_id.is_some() || query.principal.is_some();
                match chooses {
                    true => Err(Error::Unsupported(
                        "KES's API follows all events, from now on only",
                    )),
                    false => Ok(AuditTail::of_kes(api)),
                }
            }
        }
    }

    fn rustfs(&self, unsupported: &'static str) -> Result<&RustFs, Error> {
        match &self.inner {
            Inner::RustFs(api) => Ok(api),
            Inner::Kes(_) => Err(Error::Unsupported(unsupported)),
        }
    }
}

const NO_TAGS: &str = "KES's API has no descriptions and tags";
const NO_SERVICE: &str = "KES's API cannot configure, start or stop the service";
