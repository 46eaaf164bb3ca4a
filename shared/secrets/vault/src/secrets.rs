//! The SecretStore port on a KV v2 engine.

use std::fmt;

use async_trait::async_trait;
use keyway_crypto::SecretBytes;
use keyway_domain::ports::{SecretStore, SecretVersion, StoreError};
use keyway_domain::vault::{VaultAddress, VaultAuth, VaultPath};

use crate::connection::Connection;
use crate::failure::Failure;
use crate::http::Limits;
use crate::kv::{Found, Kv, OverDeleted};

/// Where secrets are kept in a Vault, and how Keyway authenticates there.
#[derive(Debug, Clone)]
pub struct SecretsPlace {
    /// Vault's address.
    pub address: VaultAddress,
    /// The namespace, sent as `X-Vault-Namespace`.
    pub namespace: Option<VaultPath>,
    /// How Keyway authenticates.
    pub auth: VaultAuth,
    /// Where the KV v2 engine is mounted.
    pub mount: VaultPath,
    /// The path below which the engine keeps the secrets, each under its name.
    pub path: VaultPath,
}

/// Secrets in the KV v2 engine of a Vault. The version of a secret is the engine's.
pub struct VaultSecrets {
    pub(crate) connection: Connection,
    pub(crate) place: SecretsPlace,
}

impl VaultSecrets {
    fn kv(&self) -> Kv<'_> {
        Kv {
            connection: &self.connection,
            mount: &self.place.mount,
            prefix: &self.place.path,
        }
    }

    async fn within<T>(
        &self,
        what: &'static str,
        limits: Limits,
        operation: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let done = limits.end(operation).await;
        done.map_err(|failure| self.failed(what, failure))
    }

    fn failed(&self, what: &'static str, failure: Failure) -> StoreError {
        let is_away = failure.is_away();
        let at = self.connection.at(failure);
        match is_away {
            true => StoreError::Away(format!("could not {what}: {at}")),
            false => StoreError::Failed {
                what,
                source: Box::new(at),
            },
        }
    }

    /// The refusal of a secret whose newest version an operator deleted. A missing root keyring could be made anew, and a
    /// deleted one can be restored.
    fn deleted(&self, what: &'static str, name: &str) -> StoreError {
        let path = format!(
            "{}/{}/{name}",
            self.place.mount.as_str(),
            self.place.path.as_str()
        );
        self.failed(what, Failure::SecretDeleted(path))
    }
}

#[async_trait]
impl SecretStore for VaultSecrets {
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError> {
        const WHAT: &str = "read a secret";
        let limits = self.connection.limits();
        match self
            .within(WHAT, limits, self.kv().find(limits, name))
            .await?
        {
            Found::Value(value, version) => Ok(Some((value, SecretVersion(version.to_string())))),
            Found::Deleted(_) => Err(self.deleted(WHAT, name)),
            Found::Nothing => Ok(None),
        }
    }

    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError> {
        let seen = match seen {
            None => 0,
            // A version of another form is none that this store gave out.
            Some(version) => version.0.parse().map_err(|_| StoreError::Conflict)?,
        };
        let limits = self.connection.limits();
        let kv = self.kv();
        let write = kv.write(limits, name, value.expose(), seen, OverDeleted::Loses);
        let written = self.within("write a secret", limits, write).await?;
        let version = written.ok_or(StoreError::Conflict)?;
        Ok(SecretVersion(version.to_string()))
    }
}

impl fmt::Debug for VaultSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultSecrets")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}
