//! The operations on the service itself: configure, start, stop, clear the cache.

mod readiness;
mod status;

use std::sync::Arc;

use crate::access::Caller;
use crate::error::KmsError;
use crate::keyring::{Binding, Wrapped};
use crate::keys::{KeyReader, MasterKey};
use crate::policy::Action;
use crate::ports::{KeyringFolder, KeyringMove, Kind, Random, Revision, TableWriter};
use crate::repository::{self, Noun, update};
use crate::scan::{Found, Scan};
use crate::service::{
    BackendType, Change, ConfigChanges, Service, ServiceConfig, ServiceState, VaultConfig,
    config_id, key_directory,
};
use crate::vault::{TransitKey, VAULT_WRAPPER, VaultAuth};
use crate::wrappers::Wrappers;

pub use readiness::Readiness;
pub use status::{Configured, Status};

/// The operations on the service.
pub struct ServiceControl {
    table: Arc<dyn TableWriter>,
    service: Arc<Service>,
    reader: Arc<KeyReader>,
    wrappers: Arc<Wrappers>,
    folder: Option<Arc<dyn KeyringFolder>>,
    random: Arc<dyn Random>,
}

/// The effect of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// The service was stopped, and runs now.
    Started,
    /// The service ran already. Every instance drops its cache.
    Restarted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Replaces a stopped service's configuration, or makes the first one. Settings that are not given get defaults.
    Configure { start: bool },
    /// Changes the present configuration.
    Reconfigure,
}

/// The binding of Vault's probe.
pub(crate) const PROBE: Binding<'static> = Binding {
    id: "service",
    version: 1,
    origin: "service/vault-probe",
};

impl ServiceControl {
    /// `service` and `reader` are those that serve this process's requests, so that the process obeys every change made
    /// here at once. `folder`: the folder of the root keyring's file, on a deployment that has one.
    pub fn new(
        table: Arc<dyn TableWriter>,
        service: Arc<Service>,
        reader: Arc<KeyReader>,
        wrappers: Arc<Wrappers>,
        folder: Option<Arc<dyn KeyringFolder>>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            service,
            reader,
            wrappers,
            folder,
            random,
        }
    }

    /// Configures the service, which then is stopped, or runs if `start` is set. Replaces the configuration of a
    /// stopped service, except for a Vault that still wraps keys, and its credential if no other one is given.
    ///
    /// The backend is checked first. If it does not work, nothing is stored.
    ///
    /// # Errors
    /// [`KmsError::Conflict`] while the service runs; [`KmsError::Invalid`]; [`KmsError::Unavailable`] when the backend
    /// fails.
    pub async fn configure(
        &self,
        caller: &Caller,
        changes: &ConfigChanges,
        start: bool,
    ) -> Result<Arc<ServiceConfig>, KmsError> {
        caller.may_on_service(Action::Configure)?;
        self.apply(How::Configure { start }, changes).await
    }

    /// Changes the configuration and starts the service with it. Settings that are not given stay as they are.
    ///
    /// A changed backend is checked first. If it does not work, everything stays as it was.
    ///
    /// # Errors
    /// As [`ServiceControl::configure`], without the conflict with a running service.
    pub async fn reconfigure(
        &self,
        caller: &Caller,
        changes: &ConfigChanges,
    ) -> Result<Arc<ServiceConfig>, KmsError> {
        caller.may_on_service(Action::Configure)?;
        self.apply(How::Reconfigure, changes).await
    }

    /// Starts the service, or restarts it with `force`.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`]; [`KmsError::Conflict`] when it runs and `force` is not set;
    /// [`KmsError::Unavailable`] when its backend does not work.
    pub async fn start(&self, caller: &Caller, force: bool) -> Result<Started, KmsError> {
        caller.may_on_service(Action::ServiceControl)?;
        let started = || async {
            let (mut config, seen) = self.stored().await?.ok_or(KmsError::NotConfigured)?;
            let done = match config.state {
                ServiceState::Configured => Started::Started,
                ServiceState::Running if force => Started::Restarted,
                ServiceState::Running => {
                    return Err(KmsError::Conflict(
                        "the KMS service is already running; use `force` to restart it",
                    ));
                }
            };
            self.wrappers.check(&config).await?;
            config.state = ServiceState::Running;
            config.cache_epoch += 1;
            Ok(self.replaced(&config, seen).await?.then_some(done))
        };
        update(contended, started).await
    }

    /// Stops the service everywhere: within the state TTL every instance refuses key and data-key operations, and drops
    /// its keys. Returns whether the service is configured.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn stop(&self, caller: &Caller) -> Result<bool, KmsError> {
        caller.may_on_service(Action::ServiceControl)?;
        let stopped = || async {
            let Some((mut config, seen)) = self.stored().await? else {
                return Ok(Some(false));
            };
            if config.state == ServiceState::Configured {
                return Ok(Some(true));
            }
            config.state = ServiceState::Configured;
            config.cache_epoch += 1;
            Ok(self.replaced(&config, seen).await?.then_some(true))
        };
        update(contended, stopped).await
    }

    /// Makes every instance drop its cache within the state TTL.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`].
    pub async fn clear_cache(&self, caller: &Caller) -> Result<(), KmsError> {
        caller.may_on_service(Action::ClearCache)?;
        let cleared = || async {
            let (mut config, seen) = self.stored().await?.ok_or(KmsError::NotConfigured)?;
            config.cache_epoch += 1;
            Ok(self.replaced(&config, seen).await?.then_some(()))
        };
        update(contended, cleared).await
    }

    /// The configuration as it is now.
    ///
    /// # Errors
    /// [`KmsError::NotConfigured`].
    pub async fn config(&self, caller: &Caller) -> Result<ServiceConfig, KmsError> {
        caller.may_on_service(Action::Configure)?;
        let (config, _) = self.stored().await?.ok_or(KmsError::NotConfigured)?;
        Ok(config)
    }

    async fn apply(
        &self,
        how: How,
        changes: &ConfigChanges,
    ) -> Result<Arc<ServiceConfig>, KmsError> {
        let applied = || async {
            let stored = self.stored().await?;
            let before = stored.as_ref().map(|(config, _)| config);
            if let How::Configure { .. } = how
                && before.is_some_and(|before| before.state == ServiceState::Running)
            {
                return Err(KmsError::Conflict("KMS already running"));
            }
            let mut config = self.changed(how, changes, before).await?;
            self.work(before, &config).await?;
            let was = before.and_then(|before| before.key_directory.as_deref());
            let is = config.key_directory.as_deref();
            // Both folders stay locked until the record is written and the file in the old folder is put aside.
            let moving = match &self.folder {
                Some(folder) if was != is => match folder.begin_move(was, is).await {
                    Ok(moving) => moving,
                    Err(error) => {
                        let now = self.stored().await?;
                        let revision = |(_, seen): &(_, Revision)| *seen;
                        if now.as_ref().map(revision) == stored.as_ref().map(revision) {
                            return Err(error);
                        }
                        // Another process moved the keyring meanwhile, so it must be moved from another folder.
                        return Ok(None);
                    }
                },
                _ => None,
            };
            // A Vault may have been slow to try. The root that wrapped the credential may be an old one by now.
            if let Some(vault) = &mut config.vault
                && let Some(secret) = changes.auth.as_ref().and_then(|auth| auth.secret())
            {
                let credential = self.wrappers.wrap_credential(&vault.settings, secret).await;
                vault.credential = Some(credential?);
            }
            let seen = stored.as_ref().map(|(_, seen)| *seen);
            let written = self.written(&config, seen).await;
            // If nothing was written, the keyring is in both folders, which does no harm. The record says which one is
            // used.
            if !written? {
                return Ok(None);
            }
            if let Some(moving) = moving {
                self.leave(moving.as_ref()).await;
            }
            Ok(Some(Arc::new(config)))
        };
        update(contended, applied).await
    }

    /// Puts the file aside in the folder that it was moved from. On a failure the keyring stays in both folders.
    async fn leave(&self, moving: &dyn KeyringMove) {
        let left = match key_directory(self.table.as_ref()).await {
            Ok(named) => moving.leave(named.as_deref()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = left {
            tracing::warn!(
                error = error.for_operator(),
                "the root keyring is also where it was before, and should be put aside there"
            );
        }
    }

    /// The configuration after the changes to `before`.
    async fn changed(
        &self,
        how: How,
        changes: &ConfigChanges,
        before: Option<&ServiceConfig>,
    ) -> Result<ServiceConfig, KmsError> {
        let random = self.random.as_ref();
        let mut base = match before {
            Some(before) => before.clone(),
            None => ServiceConfig::fresh(random)?,
        };
        base.config_id = config_id(random)?;
        base.cache_epoch += 1;
        base.state = match how {
            How::Configure { start: false } => ServiceState::Configured,
            How::Configure { start: true } | How::Reconfigure => ServiceState::Running,
        };
        let merged = before.filter(|_| how == How::Reconfigure);
        let mut config = changes.on(merged, base)?;
        config.vault = self.vault(how, changes, before, &config).await?;
        Ok(config)
    }

    async fn vault(
        &self,
        how: How,
        changes: &ConfigChanges,
        before: Option<&ServiceConfig>,
        config: &ServiceConfig,
    ) -> Result<Option<VaultConfig>, KmsError> {
        let old = before.and_then(|before| before.vault.as_ref());
        let is_backend = config.backend_type == BackendType::Vault;
        if changes.address == Change::Clear && !is_backend {
            if old.is_some() && self.keys_in_vault().await? {
                return Err(KmsError::Conflict(
                    "keys are still wrapped by Vault, and could not be read without it; move them first",
                ));
            }
            return Ok(None);
        }
        if !is_backend && !changes.speak_of_vault() {
            return Ok(old.cloned());
        }
        let merged = old
            .filter(|_| how == How::Reconfigure)
            .map(|old| &old.settings);
        let settings = changes.vault_settings(merged, old.map(|old| &old.settings.auth))?;
        // Checked before anything is sent: the client that names the file also names the address that gets it.
        if let VaultAuth::TokenFile { path } = &settings.auth
            && (changes.auth.is_some() || old.is_none_or(|old| old.settings != settings))
        {
            self.wrappers.token_file(path).await?;
        }
        let given = changes.auth.as_ref().and_then(|auth| auth.secret());
        let is_moved = old.is_some_and(|old| !settings.is_same_place(&old.settings));
        if is_moved && given.is_none() && (changes.auth.is_none() || settings.auth.has_credential())
        {
            return Err(KmsError::invalid(
                "auth_method",
                "must be given again, with its credential, when address, namespace, mount_path or kv_mount change",
            ));
        }
        let credential = match (given, &settings.auth, old) {
            (Some(secret), ..) => Some(self.wrappers.wrap_credential(&settings, secret).await?),
            (None, VaultAuth::TokenFile { .. }, _) => None,
            (None, auth, Some(old)) if *auth == old.settings.auth => {
                self.wrappers.kept_credential(old).await?
            }
            (None, ..) => {
                return Err(KmsError::invalid(
                    "auth_method",
                    "Vault token is required when no existing KMS credentials are available",
                ));
            }
        };
        let unchanged = old.filter(|old| old.settings == settings && given.is_none());
        let probe = match unchanged {
            Some(old) => old.probe.clone(),
            None => None,
        };
        let mut vault = VaultConfig {
            settings,
            credential,
            probe,
        };
        if vault.probe.is_none() || (is_backend && how != How::Reconfigure) {
            vault.probe = Some(self.probed(&vault, old, config).await?);
        }
        Ok(Some(vault))
    }

    /// Tries a Vault, and returns a probe that it wrapped. While the old Vault still wraps keys, its replacement must
    /// hold the same transit key.
    async fn probed(
        &self,
        vault: &VaultConfig,
        old: Option<&VaultConfig>,
        config: &ServiceConfig,
    ) -> Result<Wrapped, KmsError> {
        let client = self.wrappers.reach(vault, config.retry_policy()).await?;
        let failed = |error| crate::keyring::kms_error("trying the Vault", error);
        let old_probe = old.and_then(|old| old.probe.as_ref());
        if let Some(probe) = old_probe
            && self.keys_in_vault().await?
        {
            client.check(TransitKey::MustExist).await.map_err(failed)?;
            return match probe.open(client.as_ref(), &PROBE).await {
                Ok(_) => Ok(probe.clone()),
                Err(KmsError::Backend(_)) => Err(KmsError::Conflict(
                    "this Vault does not hold the transit key that keys are wrapped by; move them to another backend first",
                )),
                Err(error) => Err(error),
            };
        }
        client
            .check(TransitKey::MadeIfMissing)
            .await
            .map_err(failed)?;
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes)?;
        Wrapped::seal(client.as_ref(), &PROBE, &bytes).await
    }

    /// Checks that the backend works before it replaces another one. Other settings can be changed while the backend is
    /// down.
    async fn work(
        &self,
        before: Option<&ServiceConfig>,
        config: &ServiceConfig,
    ) -> Result<(), KmsError> {
        let same = before.is_some_and(|before| {
            before.state == ServiceState::Running
                && before.backend_type == config.backend_type
                && before.vault == config.vault
        });
        // A Vault with a new configuration was already tried by `probed`.
        let probed = config.backend_type == BackendType::Vault
            && before.is_none_or(|before| before.vault != config.vault);
        if same || probed {
            return Ok(());
        }
        self.wrappers.check(config).await
    }

    /// Whether only Vault can unwrap some key. A key whose record does not decode may be one.
    async fn keys_in_vault(&self) -> Result<bool, KmsError> {
        let mut scan = Scan::all(self.table.as_ref(), Kind::Key);
        while let Some(found) = scan.found().await? {
            // A refused record may be repaired later, and may need Vault then.
            let Found::Record(record) = found else {
                return Ok(true);
            };
            if MasterKey::readable(&record).is_none_or(|key| key.is_wrapped_by(VAULT_WRAPPER)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn stored(&self) -> Result<Option<(ServiceConfig, Revision)>, KmsError> {
        self.service.current().await
    }

    async fn replaced(&self, config: &ServiceConfig, seen: Revision) -> Result<bool, KmsError> {
        self.written(config, Some(seen)).await
    }

    async fn written(
        &self,
        config: &ServiceConfig,
        seen: Option<Revision>,
    ) -> Result<bool, KmsError> {
        let record = config.service_record(self.random.as_ref())?;
        let written = repository::write(self.table.as_ref(), &record, seen).await;
        // So that this process obeys at once. Also after a failure: the write may have taken place.
        self.service.forget();
        self.reader.flush();
        Ok(written?)
    }
}

/// Other writers were always faster.
fn contended() -> KmsError {
    KmsError::Conflict("the configuration is being changed by others at the same time; try again")
}
