//! The three operations, by calls of a server.

use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyway_client::{Class, Client, Context, Encrypted, Error};
use keyway_domain::SecretBytes;
use keyway_domain::keys::KeyId;
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::key_id::VersionedKey;
use crate::messages::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusResponse,
};

/// The version of the API. API servers also take `v2beta1`, its name in earlier releases.
const VERSION: &str = "v2";
const HEALTHY: &str = "ok";
/// The longest ciphertext that API servers store, in bytes.
const LONGEST_CIPHERTEXT: usize = 1024;
/// The longest text about a failure, in characters: a server's answer may be far longer.
const LONGEST_TEXT: usize = 500;
/// The longest `uid` in the log, in characters. API servers send 36.
const LONGEST_UID: usize = 64;
/// What `status` encrypts and decrypts. It is not secret.
const PROBE: &[u8] = b"keyway kms-plugin status";
/// What a request may take beyond the timeout of a call: a `Status` makes three calls.
const OVERTIME: Duration = Duration::from_millis(500);

/// Encrypts and decrypts under one key of a server.
pub struct Plugin {
    client: Client,
    key: KeyId,
    context: Context,
    limit: Duration,
    /// The last `healthz`, so that the log tells each change once.
    health: Mutex<String>,
}

impl Plugin {
    /// A plugin that encrypts under this key, in this encryption context. `timeout` is that of one call of the client.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when the client's API does not say which version of a key encrypted.
    pub fn new(
        client: Client,
        key: KeyId,
        context: Context,
        timeout: Duration,
    ) -> Result<Self, Error> {
        if !client.tells_versions() {
            return Err(Error::Unsupported(
                "KES's API does not tell versions of keys, by which Kubernetes sees a rotation",
            ));
        }
        Ok(Self {
            client,
            key,
            context,
            limit: timeout.saturating_add(OVERTIME),
            health: Mutex::default(),
        })
    }

    /// Whether the server encrypts and decrypts under the key, and the key id of now. A failure is in the response, as
    /// the API has it.
    pub(crate) async fn status(&self) -> StatusResponse {
        let (healthz, key_id) = match self.within(self.probe()).await {
            Ok(key_id) => (HEALTHY.to_owned(), key_id.to_string()),
            // The API server acts on a key id even if the plugin is not healthy. The former id would let it write for ever
            // with a seed that may be lost; another one would make it ask for a new seed. None lets it do neither.
            Err(failure) => (failure.message().to_owned(), String::new()),
        };
        self.log_change(&healthz);
        StatusResponse {
            version: VERSION.to_owned(),
            healthz,
            key_id,
        }
    }

    pub(crate) async fn encrypt(
        &self,
        mut request: EncryptRequest,
    ) -> Result<EncryptResponse, Status> {
        let plaintext = SecretBytes::from(take(&mut request.plaintext));
        let done = self.within(self.seal(&plaintext)).await;
        log(
            "encrypt",
            &request.uid,
            done.as_ref().map(|(_, key_id)| key_id),
        );
        let (ciphertext, key_id) = done?;
        Ok(EncryptResponse {
            ciphertext,
            key_id: key_id.to_string(),
        })
    }

    pub(crate) async fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        let done = self.within(self.open(&request)).await;
        log(
            "decrypt",
            &request.uid,
            done.as_ref().map(|(_, key_id)| key_id),
        );
        let (plaintext, _) = done?;
        Ok(DecryptResponse {
            plaintext: plaintext.expose().to_vec(),
        })
    }

    /// Encrypts and decrypts: a key that is disabled, a caller without a permission and a backend that is away show
    /// before the API server needs them.
    async fn probe(&self) -> Result<VersionedKey, Status> {
        let probe = SecretBytes::from(PROBE.to_vec());
        let (ciphertext, key_id) = self.seal(&probe).await?;
        let opened = self
            .client
            .decrypt(Some(&self.key), &ciphertext, &self.context);
        let opened = opened.await.map_err(|error| refused(&error))?;
        match opened.plaintext.ct_eq(PROBE) {
            true => Ok(key_id),
            false => Err(Status::internal(
                "the server does not decrypt what it encrypts",
            )),
        }
    }

    async fn seal(&self, plaintext: &SecretBytes) -> Result<(Vec<u8>, VersionedKey), Status> {
        // A ciphertext is longer than its plaintext.
        if plaintext.is_empty() || plaintext.len() >= LONGEST_CIPHERTEXT {
            return Err(Status::invalid_argument(format!(
                "plaintext: it has {} bytes, and must have 1 to {}",
                plaintext.len(),
                LONGEST_CIPHERTEXT - 1
            )));
        }
        let described = self.client.describe(&self.key).await;
        let created_at = described.map_err(|error| refused(&error))?.created_at;
        let sealed = self
            .client
            .encrypt(Some(&self.key), plaintext, &self.context);
        let Encrypted {
            ciphertext,
            key_version,
            ..
        } = sealed.await.map_err(|error| refused(&error))?;
        if ciphertext.is_empty() || ciphertext.len() > LONGEST_CIPHERTEXT {
            return Err(Status::invalid_argument(format!(
                "plaintext: its ciphertext has {} bytes, and Kubernetes stores at most {LONGEST_CIPHERTEXT}",
                ciphertext.len()
            )));
        }
        let key_id = key_version
            .zip(created_at)
            .and_then(|(version, created_at)| {
                VersionedKey::new(self.key.clone(), version, &created_at)
            });
        let key_id = key_id.ok_or_else(|| {
            Status::failed_precondition(
                "the server does not tell the version and the creation time of the key; is it a server of Keyway?",
            )
        })?;
        Ok((ciphertext, key_id))
    }

    async fn open(&self, request: &DecryptRequest) -> Result<(SecretBytes, VersionedKey), Status> {
        let DecryptRequest {
            ciphertext, key_id, ..
        } = request;
        if ciphertext.is_empty() || ciphertext.len() > LONGEST_CIPHERTEXT {
            return Err(Status::invalid_argument(format!(
                "ciphertext: it has {} bytes, and must have 1 to {LONGEST_CIPHERTEXT}",
                ciphertext.len()
            )));
        }
        let key_id = VersionedKey::parse(key_id).ok_or_else(|| {
            Status::invalid_argument("key_id: it must be KEY/VERSION/TIME, as this plugin gave it")
        })?;
        // The key id of then names the key, which may be another than the one that encrypts now.
        let opened = self
            .client
            .decrypt(Some(&key_id.key), ciphertext, &self.context);
        let opened = opened.await.map_err(|error| refused(&error))?;
        match opened.key_version {
            Some(version) if version != key_id.version => Err(Status::invalid_argument(format!(
                "key_id: it names version {} of the key, and version {version} encrypted the ciphertext",
                key_id.version
            ))),
            _ => Ok((opened.plaintext, key_id)),
        }
    }

    /// The API server gives up a request after its own timeout. An earlier answer can tell why.
    async fn within<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        timeout(self.limit, work).await.unwrap_or_else(|_| {
            Err(Status::unavailable(
                "the calls of the server have not ended in time",
            ))
        })
    }

    fn log_change(&self, healthz: &str) {
        let mut last = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == healthz {
            return;
        }
        healthz.clone_into(&mut last);
        match healthz {
            HEALTHY => tracing::info!(key = %self.key, "the server encrypts and decrypts"),
            reason => {
                tracing::warn!(key = %self.key, reason, "the server does not encrypt and decrypt")
            }
        }
    }
}

fn log(operation: &'static str, uid: &str, done: Result<&VersionedKey, &Status>) {
    let uid: String = uid.escape_default().take(LONGEST_UID).collect();
    match done {
        Ok(key_id) => tracing::info!(operation, uid, %key_id, "done"),
        Err(failure) => {
            let (code, reason) = (failure.code() as i32, failure.message());
            tracing::warn!(operation, uid, code, reason, "failed");
        }
    }
}

/// What the API server learns of a failed call. It writes this text to its own log and to its health page.
fn refused(error: &Error) -> Status {
    let code = match error {
        Error::Refused {
            class: Class::Failed,
            refusal,
        } if refusal.status < 500 => Code::InvalidArgument,
        _ => match error.class() {
            Class::Failed => Code::Internal,
            Class::Usage | Class::Conflict => Code::FailedPrecondition,
            Class::NotFound => Code::NotFound,
            Class::NotAllowed => Code::PermissionDenied,
            Class::Unreachable => Code::Unavailable,
        },
    };
    Status::new(
        code,
        error
            .to_string()
            .chars()
            .take(LONGEST_TEXT)
            .collect::<String>(),
    )
}
