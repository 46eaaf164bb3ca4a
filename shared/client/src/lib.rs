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

use std::collections::BTreeMap;
use std::sync::Arc;

use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use keyway_domain::ports::Clock;

pub use answers::{DataKey, DataKeySpec, Decrypted, Encrypted};
pub use error::{Class, Error, Outcome, Refusal};
use http::Http;
use kes::Kes;
pub use profile::DEFAULT_PROFILE;
use rustfs::RustFs;
use settings::ClientProof;
pub use settings::{AccessKey, Api, Connection, Settings, access_key_from_file, api_key_from_file};

/// An encryption context: names and values that a ciphertext is bound to and does not hold.
///
/// KES's API has bytes in its place; they are the JSON of these pairs. So a ciphertext with a context opens only by the API
/// that made it.
pub type Context = BTreeMap<String, String>;

/// A client of one server.
pub struct Client(Inner);

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
        let http = Http::new(connection, clock)?;
        Ok(Self(match is_kes {
            true => Inner::Kes(Kes(http)),
            false => Inner::RustFs(RustFs(http)),
        }))
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
        match &self.0 {
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
        match &self.0 {
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
        match &self.0 {
            Inner::RustFs(api) => api.decrypt(key, ciphertext, context).await,
            Inner::Kes(api) => api.decrypt(key, ciphertext, context).await,
        }
    }
}
