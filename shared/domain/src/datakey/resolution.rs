//! The one way from a request to its key. The permission, the configuration and the record are each looked up once.

use std::sync::Arc;

use keyway_crypto::kes;
use keyway_crypto::{Blob, Purpose};

use super::{DataKeyRequest, DataKeys, KeyChoice, Opened};
use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::{KeyId, KeyUsage};
use crate::keys::{IMPORTED_VERSION, KeyReader, MasterKey, Material, NamedKey};
use crate::policy::Action;
use crate::service::ServiceConfig;

/// A request's key, and the configuration that it is used under.
pub(super) struct Serving {
    pub(super) config: Arc<ServiceConfig>,
    pub(super) key: Arc<MasterKey>,
    /// The version and material that were used last: opening and sealing may need the same.
    held: Option<(u32, Arc<Material>)>,
}

impl Serving {
    fn new(config: Arc<ServiceConfig>, key: Arc<MasterKey>) -> Self {
        Self {
            config,
            key,
            held: None,
        }
    }

    /// The key, and its material of this version; `None` when it has no such version.
    pub(super) async fn material(
        &mut self,
        keys: &KeyReader,
        version: u32,
    ) -> Result<Option<(&MasterKey, &Material)>, KmsError> {
        if self.held.as_ref().is_none_or(|(held, _)| *held != version) {
            let material = keys.material(&self.config, &self.key, version).await?;
            self.held = material.map(|material| (version, material));
        }
        let (key, held) = (&self.key, self.held.as_ref());
        Ok(held.map(|(_, material)| (key.as_ref(), material.as_ref())))
    }
}

/// A ciphertext: of format 1, or another system's, which names no key.
pub(super) struct Ciphertext<'a> {
    bytes: &'a [u8],
    blob: Option<Blob<'a>>,
}

impl<'a> Ciphertext<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Self {
        let blob = Blob::parse(Purpose::Seal, bytes).ok();
        Self { bytes, blob }
    }

    pub(super) fn names_key(&self) -> bool {
        self.blob.is_some()
    }

    /// The key that must open the ciphertext; `None` for the default key.
    pub(super) fn key(&self, choice: &KeyChoice) -> Result<Option<KeyId>, KmsError> {
        match (choice, &self.blob) {
            (KeyChoice::Named(id), _) => Ok(Some(id.clone())),
            (KeyChoice::Default, _) => Ok(None),
            (KeyChoice::OfCiphertext(_), Some(blob)) => KeyId::parse("key_id", blob.key_id())
                .map(Some)
                .map_err(|_| KmsError::DecryptionFailed),
            (KeyChoice::OfCiphertext(expected), None) => {
                expected.clone().map(Some).ok_or(KmsError::DecryptionFailed)
            }
        }
    }
}

pub(super) fn default_key(config: &ServiceConfig) -> Result<KeyId, KmsError> {
    config.default_key_id.clone().ok_or_else(|| {
        KmsError::invalid(
            "key_id",
            "is required, because no default key is configured",
        )
    })
}

impl DataKeys {
    /// Checks the permissions, then reads the configuration; without a key id, checks them for the default key. The
    /// key's record is not read before, so a refusal does not say whether the key exists.
    pub(super) async fn authorize(
        &self,
        caller: &Caller,
        actions: &[Action],
        key_id: Option<KeyId>,
    ) -> Result<(Arc<ServiceConfig>, KeyId), KmsError> {
        let permitted = |id: &KeyId| {
            actions
                .iter()
                .try_for_each(|action| caller.may(*action, id))
        };
        if let Some(key_id) = key_id {
            permitted(&key_id)?;
            return Ok((self.service.running().await?, key_id));
        }
        let config = self.service.running().await?;
        let key_id = default_key(&config)?;
        permitted(&key_id)?;
        Ok((config, key_id))
    }

    /// The key, which must exist, be enabled, and encrypt.
    pub(super) async fn enabled(
        &self,
        config: Arc<ServiceConfig>,
        named: NamedKey,
    ) -> Result<Serving, KmsError> {
        let serving = self.enabled_for_any(config, named).await?;
        serving.key.must_be_for(KeyUsage::EncryptDecrypt)?;
        Ok(serving)
    }

    /// The key, which must exist and be enabled.
    async fn enabled_for_any(
        &self,
        config: Arc<ServiceConfig>,
        named: NamedKey,
    ) -> Result<Serving, KmsError> {
        let key = self
            .keys
            .find_named(&named)
            .await?
            .ok_or(KmsError::KeyNotFound(named.id))?;
        key.must_be_enabled()?;
        Ok(Serving::new(config, key))
    }

    /// The key that a request seals under.
    pub(super) async fn to_seal(
        &self,
        caller: &Caller,
        action: Action,
        request: &DataKeyRequest<'_>,
    ) -> Result<Serving, KmsError> {
        let serving = self.to_use(caller, action, request).await?;
        serving.key.must_be_for(KeyUsage::EncryptDecrypt)?;
        Ok(serving)
    }

    /// The key that a request uses. What it is for is not checked yet.
    pub(super) async fn to_use(
        &self,
        caller: &Caller,
        action: Action,
        request: &DataKeyRequest<'_>,
    ) -> Result<Serving, KmsError> {
        let (config, key_id) = self.authorize(caller, &[action], request.key.id()?).await?;
        self.enabled_for_any(config, request.named(key_id)).await
    }

    /// Opens a ciphertext, and returns the key that opened it.
    pub(super) async fn open(
        &self,
        caller: &Caller,
        actions: &[Action],
        request: &DataKeyRequest<'_>,
        ciphertext: &Ciphertext<'_>,
    ) -> Result<(Serving, Opened), KmsError> {
        caller.audit().context(request.context);
        let key_id = ciphertext.key(&request.key)?;
        let serving = match &request.key {
            KeyChoice::Named(_) | KeyChoice::Default => {
                let (config, key_id) = self.authorize(caller, actions, key_id).await?;
                // The caller named the key and may use it, so the error may say that it is missing or not enabled.
                self.enabled(config, request.named(key_id)).await?
            }
            KeyChoice::OfCiphertext(expected) => {
                if let (Some(key_id), Some(blob)) = (&key_id, &ciphertext.blob) {
                    // So that the audit log has the version of a refused ciphertext too.
                    caller.audit().key(key_id);
                    caller.audit().version(blob.key_version());
                }
                let (config, key_id) = self.authorize(caller, actions, key_id).await?;
                if expected.as_ref().is_some_and(|wanted| *wanted != key_id) {
                    return Err(KmsError::IncorrectKey);
                }
                let key = self.keys.find_named(&request.named(key_id)).await?;
                let key = key.ok_or(KmsError::DecryptionFailed)?;
                Serving::new(config, key)
            }
        };
        self.open_by(caller, serving, request, ciphertext).await
    }

    /// Opens a ciphertext by this key.
    pub(super) async fn open_by(
        &self,
        caller: &Caller,
        serving: Serving,
        request: &DataKeyRequest<'_>,
        ciphertext: &Ciphertext<'_>,
    ) -> Result<(Serving, Opened), KmsError> {
        match &ciphertext.blob {
            Some(blob) => self.open_blob(caller, serving, request, blob).await,
            None => {
                self.open_imported(caller, serving, request, ciphertext.bytes)
                    .await
            }
        }
    }

    async fn open_blob(
        &self,
        caller: &Caller,
        mut serving: Serving,
        request: &DataKeyRequest<'_>,
        blob: &Blob<'_>,
    ) -> Result<(Serving, Opened), KmsError> {
        if blob.key_id() != serving.key.id.as_str() {
            return Err(KmsError::IncorrectKey);
        }
        let key_version = blob.key_version();
        caller.audit().version(key_version);
        if !serving.key.has_version(key_version) {
            // Another process may have rotated the key since.
            serving.key = self
                .keys
                .find_anew(&serving.key.id)
                .await?
                .ok_or(KmsError::DecryptionFailed)?;
        }
        serving.key.must_be_enabled()?;
        serving.key.must_be_for(KeyUsage::EncryptDecrypt)?;
        let material = serving.material(&self.keys, key_version).await?;
        let plaintext = material
            .and_then(|(_, material)| blob.open(&material.key, request.context).ok())
            .ok_or(KmsError::DecryptionFailed)?;
        let opened = Opened {
            key_id: serving.key.id.clone(),
            key_version,
            plaintext,
        };
        Ok((serving, opened))
    }

    /// Opens a ciphertext that is not format 1, under an imported key.
    async fn open_imported(
        &self,
        caller: &Caller,
        mut serving: Serving,
        request: &DataKeyRequest<'_>,
        ciphertext: &[u8],
    ) -> Result<(Serving, Opened), KmsError> {
        let algorithm = serving.key.imported_algorithm();
        let algorithm = algorithm.ok_or(KmsError::DecryptionFailed)?;
        caller.audit().version(IMPORTED_VERSION);
        serving.key.must_be_enabled()?;
        serving.key.must_be_for(KeyUsage::EncryptDecrypt)?;
        let (legacy, context) = (self.legacy, kes::context_bytes(request.context));
        let material = serving.material(&self.keys, IMPORTED_VERSION).await?;
        let plaintext = material
            .and_then(|(_, material)| {
                kes::open(&material.key, algorithm, legacy, ciphertext, &context).ok()
            })
            .ok_or(KmsError::DecryptionFailed)?;
        let opened = Opened {
            key_id: serving.key.id.clone(),
            key_version: IMPORTED_VERSION,
            plaintext,
        };
        Ok((serving, opened))
    }
}
