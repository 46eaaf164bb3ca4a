//! The client of one Vault: deadlines, tokens and errors of all operations.

use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use keyway_domain::keyring::{Binding, KeyWrapper, WrapError};
use keyway_domain::vault::{
    CopyError, CopyVersion, KeyCopy, TransitKey, TransitVersions, VAULT_WRAPPER, Vault,
    VaultSettings,
};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::Limits;
use crate::kv::{Found, Kv, OverDeleted};
use crate::transit::{Identity, version_of};

/// The longest time for a check, where operations may take longer.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) settings: VaultSettings,
    /// The transit key that this client has seen.
    pub(crate) identity: Mutex<Option<Identity>>,
}

impl Client {
    pub(crate) fn new(connection: Connection, settings: &VaultSettings) -> Self {
        Self {
            connection,
            settings: settings.clone(),
            identity: Mutex::default(),
        }
    }

    /// The sealed copies in the KV engine.
    pub(crate) fn copies_engine(&self) -> Kv<'_> {
        Kv {
            connection: &self.connection,
            mount: &self.settings.kv_mount,
            prefix: &self.settings.key_path_prefix,
        }
    }

    /// Runs an operation until its deadline, and adds this Vault's address to a failure.
    async fn within<T, E: Into<WrapError> + From<Failure>>(
        &self,
        limits: Limits,
        operation: impl Future<Output = Result<T, E>>,
    ) -> Result<T, WrapError> {
        let done = limits.end(operation).await;
        done.map_err(|error| match error.into() {
            WrapError::Unavailable(cause) => {
                WrapError::Unavailable(Box::new(self.connection.at(cause)))
            }
            error => error,
        })
    }

    fn limits(&self) -> Limits {
        self.connection.limits()
    }
}

#[async_trait]
impl KeyWrapper for Client {
    fn name(&self) -> &'static str {
        VAULT_WRAPPER
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.encrypt(limits, binding, material))
            .await
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let limits = self.limits();
        self.within(limits, self.decrypt(limits, binding, wrapped))
            .await
    }
}

#[async_trait]
impl Vault for Client {
    async fn check(&self, key: TransitKey) -> Result<(), WrapError> {
        let limits = self.connection.limits_without_retries(CHECK_TIMEOUT);
        self.within(limits, self.examine(limits, key)).await
    }

    async fn renew(&self) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.connection.renew(limits)).await
    }

    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError> {
        let limits = self.limits();
        let engine = self.copies_engine();
        match self.within(limits, engine.find(limits, id)).await? {
            Found::Value(value, version) => Ok(Some(KeyCopy {
                // A copy's material is wrapped.
                value: value.expose().to_vec(),
                version: CopyVersion(version),
            })),
            Found::Deleted(_) | Found::Nothing => Ok(None),
        }
    }

    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError> {
        let limits = self.limits();
        let engine = self.copies_engine();
        let write = engine.write(limits, id, value, seen.0, OverDeleted::Writes);
        match self.within(limits, write).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(CopyError::Conflict),
            Err(error) => Err(error.into()),
        }
    }

    async fn remove_copy(&self, id: &str) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.copies_engine().remove(limits, id))
            .await
    }

    async fn copies(&self) -> Result<Vec<String>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.copies_engine().names(limits))
            .await
    }

    async fn transit_versions(&self) -> Result<TransitVersions, WrapError> {
        let limits = self.limits();
        self.within(limits, self.versions(limits)).await
    }

    async fn rotate_transit(&self) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.add_version(limits)).await
    }

    async fn rewrap(&self, binding: &Binding<'_>, wrapped: &[u8]) -> Result<Vec<u8>, WrapError> {
        let limits = self.limits();
        self.within(limits, self.encrypt_anew(limits, binding, wrapped))
            .await
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u64> {
        version_of(wrapped)
    }

    async fn refuse_below(&self, version: u64) -> Result<(), WrapError> {
        let limits = self.limits();
        self.within(limits, self.set_minimum(limits, version)).await
    }
}
