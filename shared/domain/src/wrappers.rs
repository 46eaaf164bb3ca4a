//! The wrappers of master keys: the deployment's root keyring, and the Vault of the service's configuration.

use std::sync::{Arc, Mutex, PoisonError};

use keyway_crypto::{SecretBytes, sha256};

use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::keyring::{Binding, KeyWrapper, WrapError, Wrapped, kms_error};
use crate::ports::{Consistency, Kind, Record, Revision, TableReader, TableWriter};
use crate::repository;
use crate::service::{BackendType, ServiceConfig, VaultConfig};
use crate::vault::{
    CopyError, CopyVersion, TransitKey, VAULT_WRAPPER, Vault, VaultRetryPolicy, VaultSettings,
    Vaults,
};

/// The binding of a Vault credential: where it is sent and how it is used. A configuration with another address cannot
/// unwrap the credential, so the credential is never sent there.
pub(crate) struct CredentialOrigin(String);

impl CredentialOrigin {
    /// The binding of older releases, which did not name a place.
    const ANY_PLACE: &'static str = "service/vault-credential";

    fn of(settings: &VaultSettings) -> Result<Self, KmsError> {
        let VaultSettings {
            address,
            namespace,
            auth,
            mount_path,
            kv_mount,
            key_path_prefix: _,
        } = settings;
        let place = encoding::encode(&(address, namespace, mount_path, kv_mount, auth))?;
        let mut origin = format!("{}/", Self::ANY_PLACE);
        for byte in sha256(&[&place]) {
            origin.push_str(&format!("{byte:02x}"));
        }
        Ok(Self(origin))
    }

    fn binding(origin: &str) -> Binding<'_> {
        Binding {
            id: "service",
            version: 1,
            origin,
        }
    }
}

/// Whether a credential is bound to the place that it is sent to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CredentialBinding {
    Place,
    AnyPlace,
}

/// Every wrapper of one deployment. The configured backend wraps new material. Material that was wrapped before a
/// change of backend stays readable while its wrapper is configured.
pub struct Wrappers {
    root: Arc<dyn KeyWrapper>,
    vaults: Arc<dyn Vaults>,
    /// The client of the last used Vault, with its connections and login.
    open: Mutex<Option<OpenVault>>,
}

struct OpenVault {
    config: VaultConfig,
    retry_policy: VaultRetryPolicy,
    vault: Arc<dyn Vault>,
}

impl Wrappers {
    /// Uses the root keyring, and `vaults` to reach Vaults.
    pub fn new(root: Arc<dyn KeyWrapper>, vaults: Arc<dyn Vaults>) -> Self {
        Self {
            root,
            vaults,
            open: Mutex::default(),
        }
    }

    /// The wrapper of new material.
    pub(crate) async fn current(
        &self,
        config: &ServiceConfig,
    ) -> Result<Arc<dyn KeyWrapper>, KmsError> {
        let name = match config.backend_type {
            BackendType::Local => self.root.name(),
            BackendType::Vault => VAULT_WRAPPER,
        };
        self.named(config, name).await
    }

    /// The wrapper that a record names.
    pub(crate) async fn named(
        &self,
        config: &ServiceConfig,
        name: &str,
    ) -> Result<Arc<dyn KeyWrapper>, KmsError> {
        if name == self.root.name() {
            return Ok(Arc::clone(&self.root));
        }
        match self.vault(config).await? {
            Some(vault) if name == VAULT_WRAPPER => Ok(vault),
            _ => Err(Fault::plain("a key was wrapped by a backend that is not configured").into()),
        }
    }

    /// The configured Vault, whether or not it is the backend.
    pub(crate) async fn vault(
        &self,
        config: &ServiceConfig,
    ) -> Result<Option<Arc<dyn Vault>>, KmsError> {
        let Some(wanted) = &config.vault else {
            return Ok(None);
        };
        let retry_policy = config.retry_policy();
        {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = open.as_ref()
                && open.config == *wanted
                && open.retry_policy == retry_policy
            {
                return Ok(Some(Arc::clone(&open.vault)));
            }
        }
        let vault = self.reach(wanted, retry_policy).await?;
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(OpenVault {
            config: wanted.clone(),
            retry_policy,
            vault: Arc::clone(&vault),
        });
        Ok(Some(vault))
    }

    /// Checks that a token can be read from this file.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming the field.
    pub(crate) async fn token_file(&self, path: &str) -> Result<(), KmsError> {
        let fit = self.vaults.token_file(path).await;
        fit.map_err(|reason| KmsError::invalid("auth_method.TokenFile.path", reason))
    }

    /// A client of this Vault, whether or not it is the configured one.
    pub(crate) async fn reach(
        &self,
        config: &VaultConfig,
        retry_policy: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, KmsError> {
        let credential = self.credential(config).await?;
        let credential = credential.map(|(credential, _)| credential);
        self.vaults
            .open(&config.settings, credential.as_ref(), retry_policy)
            .map_err(KmsError::Unavailable)
    }

    /// Wraps the credential for this Vault alone.
    pub(crate) async fn wrap_credential(
        &self,
        settings: &VaultSettings,
        credential: &SecretBytes,
    ) -> Result<Wrapped, KmsError> {
        let origin = CredentialOrigin::of(settings)?;
        let binding = CredentialOrigin::binding(&origin.0);
        Wrapped::seal(self.root.as_ref(), &binding, credential.expose()).await
    }

    /// The credential of this Vault as it is stored from now on, bound to its place.
    pub(crate) async fn kept_credential(
        &self,
        config: &VaultConfig,
    ) -> Result<Option<Wrapped>, KmsError> {
        Ok(match self.credential(config).await? {
            Some((credential, CredentialBinding::AnyPlace)) => {
                Some(self.wrap_credential(&config.settings, &credential).await?)
            }
            Some((_, CredentialBinding::Place)) | None => config.credential.clone(),
        })
    }

    /// The credential of this Vault under the keyring's newest root; `None` if it needs no change.
    pub(crate) async fn renewed_credential(
        &self,
        config: &VaultConfig,
        newest_root: &str,
    ) -> Result<Option<Wrapped>, KmsError> {
        let root = config.credential.as_ref().map(Wrapped::root).transpose()?;
        match (root.flatten(), self.credential(config).await?) {
            (Some(root), Some((credential, _))) if root != newest_root => {
                let renewed = self.wrap_credential(&config.settings, &credential).await?;
                Ok(Some(renewed))
            }
            _ => Ok(None),
        }
    }

    async fn credential(
        &self,
        config: &VaultConfig,
    ) -> Result<Option<(SecretBytes, CredentialBinding)>, KmsError> {
        let Some(wrapped) = &config.credential else {
            return Ok(None);
        };
        let root = self.root.as_ref();
        let origin = CredentialOrigin::of(&config.settings)?;
        let opened = wrapped
            .open(root, &CredentialOrigin::binding(&origin.0))
            .await;
        match opened {
            Ok(credential) => Ok(Some((credential, CredentialBinding::Place))),
            // A credential of an older release. The configuration that holds it names its address, and is signed.
            Err(KmsError::Backend(_)) => {
                let binding = CredentialOrigin::binding(CredentialOrigin::ANY_PLACE);
                let credential = wrapped.open(root, &binding).await?;
                Ok(Some((credential, CredentialBinding::AnyPlace)))
            }
            Err(error) => Err(error),
        }
    }

    /// Checks that the configured backend wraps and unwraps now.
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] or [`KmsError::Backend`] when it does not.
    pub(crate) async fn check(&self, config: &ServiceConfig) -> Result<(), KmsError> {
        match config.backend_type {
            BackendType::Local => {
                const PROBE: Binding<'_> = Binding {
                    id: "service",
                    version: 1,
                    origin: "service/probe",
                };
                let root = self.root.as_ref();
                let wrapped = Wrapped::seal(root, &PROBE, b"probe").await?;
                wrapped.open(root, &PROBE).await.map(drop)
            }
            BackendType::Vault => match self.vault(config).await? {
                Some(vault) => vault
                    .check(TransitKey::MustExist)
                    .await
                    .map_err(|error| kms_error("the Vault", error)),
                None => Err(Fault::plain("the backend is Vault, and none is configured").into()),
            },
        }
    }

    /// Renews the login to the configured Vault if it is due.
    ///
    /// # Errors
    /// When Vault refuses or is unreachable.
    pub async fn renew(&self, config: &ServiceConfig) -> Result<(), KmsError> {
        match self.vault(config).await? {
            Some(vault) => {
                let renewed = vault.renew().await;
                renewed.map_err(|error| kms_error("renewing the login to Vault", error))
            }
            None => Ok(()),
        }
    }

    /// The Vault that keeps sealed copies of keys' records, if Vault is the backend.
    async fn keeper(&self, config: &ServiceConfig) -> Result<Option<Arc<dyn Vault>>, KmsError> {
        match config.backend_type {
            BackendType::Local => Ok(None),
            BackendType::Vault => self.vault(config).await,
        }
    }

    /// Writes the sealed copy of a new record, before the record. `false`: Vault holds a copy of that name.
    pub(crate) async fn copy_new(
        &self,
        config: &ServiceConfig,
        record: &Record,
    ) -> Result<bool, KmsError> {
        let Some(vault) = self.keeper(config).await? else {
            return Ok(true);
        };
        written(
            vault
                .put_copy(&record.id, &record.value, CopyVersion::default())
                .await,
        )
    }

    /// Writes the sealed copy of a changed record, before the record. `false`: another writer was faster.
    pub(crate) async fn copy(
        &self,
        config: &ServiceConfig,
        record: &Record,
    ) -> Result<bool, KmsError> {
        let Some(vault) = self.keeper(config).await? else {
            return Ok(true);
        };
        let kept = vault.copy(&record.id).await.map_err(copying)?;
        match kept {
            Some(kept) if kept.value == record.value => Ok(true),
            kept => {
                let seen = kept.map(|kept| kept.version).unwrap_or_default();
                written(vault.put_copy(&record.id, &record.value, seen).await)
            }
        }
    }

    /// Replaces a key's record, and its sealed copy before that. `false`: another writer was faster.
    pub(crate) async fn replace(
        &self,
        config: &ServiceConfig,
        table: &dyn TableWriter,
        record: &Record,
        seen: Revision,
    ) -> Result<bool, KmsError> {
        if !self.copy(config, record).await? {
            return Ok(false);
        }
        let is_replaced = repository::write(table, record, Some(seen)).await?;
        if !is_replaced {
            self.copy_again(config, table, &record.id).await?;
        }
        Ok(is_replaced)
    }

    /// Whether the sealed copy matches the record.
    pub(crate) async fn is_copied(
        &self,
        config: &ServiceConfig,
        record: &Record,
    ) -> Result<bool, KmsError> {
        let Some(vault) = self.keeper(config).await? else {
            return Ok(true);
        };
        let kept = vault.copy(&record.id).await.map_err(copying)?;
        Ok(kept.is_some_and(|kept| kept.value == record.value))
    }

    /// Writes the sealed copy again from the table's record, after a writer changed the copy and then lost the race.
    pub(crate) async fn copy_again(
        &self,
        config: &ServiceConfig,
        table: &dyn TableReader,
        id: &str,
    ) -> Result<(), KmsError> {
        if config.backend_type == BackendType::Vault
            && let Some(record) = table.get(Kind::Key, id, Consistency::Strong).await?
        {
            // If another writer is faster again, it writes its own copy.
            self.copy(config, &record).await?;
        }
        Ok(())
    }

    /// Removes the sealed copy of a key that is being destroyed, if a Vault is configured.
    pub(crate) async fn remove_copy(
        &self,
        config: Option<&ServiceConfig>,
        id: &str,
    ) -> Result<(), KmsError> {
        let vault = match config {
            Some(config) => self.vault(config).await?,
            None => None,
        };
        match vault {
            Some(vault) => vault.remove_copy(id).await.map_err(copying),
            None => Ok(()),
        }
    }
}

impl Wrapped {
    /// Unwraps it with the wrapper that it names.
    pub(crate) async fn open_by(
        &self,
        wrappers: &Wrappers,
        config: &ServiceConfig,
        binding: &Binding<'_>,
    ) -> Result<SecretBytes, KmsError> {
        let wrapper = wrappers.named(config, self.wrapper()).await?;
        self.open(wrapper.as_ref(), binding).await
    }
}

fn written(result: Result<(), CopyError>) -> Result<bool, KmsError> {
    match result {
        Ok(()) => Ok(true),
        Err(CopyError::Conflict) => Ok(false),
        Err(CopyError::Vault(error)) => Err(copying(error)),
    }
}

fn copying(error: WrapError) -> KmsError {
    kms_error("the sealed copy of a key", error)
}
