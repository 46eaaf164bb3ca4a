//! Data keys: made, sealed, opened and moved under master keys. Only reads the table.

mod trial;
mod under;

use std::sync::Arc;

use keyway_crypto::kes::{self, LegacyDerivation};
use keyway_crypto::{Blob, EncryptionContext, Purpose, SecretBytes, mac_sha256, seal};
use zeroize::Zeroizing;

use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::keys::{IMPORTED_VERSION, KeyId, KeyReader, MasterKey};
use crate::policy::Action;
use crate::ports::Random;
use crate::service::{Service, ServiceConfig};

pub use trial::{Trial, TrialFailure};

/// How long a data key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataKeySpec {
    /// 32 bytes.
    #[default]
    Aes256,
    /// 16 bytes.
    Aes128,
}

impl DataKeySpec {
    const fn bytes(self) -> usize {
        match self {
            Self::Aes256 => 32,
            Self::Aes128 => 16,
        }
    }
}

/// What a ciphertext is to look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CiphertextFormat {
    /// Format 1.
    #[default]
    Keyway,
    /// KES's raw format, so that KES can open it: by keys that were brought from there and never rotated since, for
    /// KES has no other material. Format 1 by all other keys.
    Kes,
}

/// What a master key made of a plaintext.
#[derive(Debug)]
pub struct Sealed {
    /// The key.
    pub key_id: KeyId,
    /// The version that it is sealed under.
    pub key_version: u32,
    /// The ciphertext, in the format that was asked for.
    pub blob: Vec<u8>,
}

/// What a master key made of a ciphertext.
pub struct Opened {
    /// The key.
    pub key_id: KeyId,
    /// The version that it was sealed under.
    pub key_version: u32,
    /// The plaintext.
    pub plaintext: SecretBytes,
}

/// The longest plaintext that can be encrypted, in bytes.
pub const MAX_PLAINTEXT_BYTES: usize = 64 * 1024;

/// A key that may serve, and the configuration that says so.
struct Serving {
    config: Arc<ServiceConfig>,
    key: Arc<MasterKey>,
}

/// The operations on data keys.
pub struct DataKeys {
    keys: Arc<KeyReader>,
    service: Arc<Service>,
    random: Arc<dyn Random>,
    legacy: LegacyDerivation,
}

impl DataKeys {
    /// Over this reader of keys.
    pub fn new(keys: Arc<KeyReader>, service: Arc<Service>, random: Arc<dyn Random>) -> Self {
        Self {
            keys,
            service,
            random,
            legacy: LegacyDerivation::Refused,
        }
    }

    /// Also opens ciphertexts of KES v0.1 to v0.6.0, whose derivation is weak, by keys that were brought from there.
    #[must_use]
    pub fn with_legacy_kes(mut self, allowed: bool) -> Self {
        self.legacy = if allowed {
            LegacyDerivation::Allowed
        } else {
            LegacyDerivation::Refused
        };
        self
    }

    /// Makes a data key, sealed under the key, or under the default key when `key_id` is `None`.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::KeyState`], or [`KmsError::Invalid`] without any key.
    pub async fn generate(
        &self,
        caller: &Caller,
        key_id: Option<KeyId>,
        spec: DataKeySpec,
        context: &EncryptionContext,
    ) -> Result<(SecretBytes, Sealed), KmsError> {
        self.generate_as(caller, key_id, spec, context, CiphertextFormat::Keyway)
            .await
    }

    /// As [`DataKeys::generate`], sealed in this format.
    ///
    /// # Errors
    /// As [`DataKeys::generate`].
    pub async fn generate_as(
        &self,
        caller: &Caller,
        key_id: Option<KeyId>,
        spec: DataKeySpec,
        context: &EncryptionContext,
        sealing: CiphertextFormat,
    ) -> Result<(SecretBytes, Sealed), KmsError> {
        caller.audit().context(context);
        let mut drawn = Zeroizing::new([0; 64]);
        self.random.fill(drawn.as_mut())?;
        let (fresh, rest) = drawn.split_first_chunk().ok_or(SHORT_DRAW)?;
        let plaintext = SecretBytes::from(rest.get(..spec.bytes()).ok_or(SHORT_DRAW)?.to_vec());
        let serving = self.key(caller, Action::GenerateDataKey, key_id).await?;
        let sealed = self
            .seal(&serving, context, plaintext.expose(), fresh, sealing)
            .await?;
        caller.audit().version(sealed.key_version);
        Ok((plaintext, sealed))
    }

    /// Seals a plaintext of at most [`MAX_PLAINTEXT_BYTES`].
    ///
    /// # Errors
    /// As [`DataKeys::generate`]; [`KmsError::Invalid`] also when the plaintext is too long.
    pub async fn encrypt(
        &self,
        caller: &Caller,
        key_id: Option<KeyId>,
        context: &EncryptionContext,
        plaintext: &SecretBytes,
    ) -> Result<Sealed, KmsError> {
        caller.audit().context(context);
        if plaintext.expose().len() > MAX_PLAINTEXT_BYTES {
            return Err(KmsError::invalid(
                "plaintext",
                format!("must be at most {MAX_PLAINTEXT_BYTES} bytes"),
            ));
        }
        let serving = self.key(caller, Action::Encrypt, key_id).await?;
        self.seal_fresh(
            caller,
            &serving,
            context,
            plaintext,
            CiphertextFormat::Keyway,
        )
        .await
    }

    /// Opens a ciphertext. With `key_id`, only one of that key; if that key was brought from KES, also what KES sealed
    /// under it. Ciphertexts from there do not say which key they are of, and are never tried by a key that was not named.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] for everything that does not open; [`KmsError::KeyState`] when its key does not serve.
    pub async fn decrypt(
        &self,
        caller: &Caller,
        key_id: Option<&KeyId>,
        blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<Opened, KmsError> {
        self.open(caller, Action::Decrypt, key_id, blob, context)
            .await
    }

    /// The HMAC-SHA256 of the message under the key's HMAC key, which no rotation changes.
    ///
    /// # Errors
    /// [`KmsError::NoHmacKey`], [`KmsError::KeyNotFound`] or [`KmsError::KeyState`].
    pub async fn hmac(
        &self,
        caller: &Caller,
        key_id: &KeyId,
        message: &[u8],
    ) -> Result<[u8; 32], KmsError> {
        let Serving { config, key } = self
            .key(caller, Action::GenerateMac, Some(key_id.clone()))
            .await?;
        self.keys
            .with_hmac_key(&config, &key, |hmac| mac_sha256(hmac, &[message]))
            .await?
            .ok_or_else(|| KmsError::NoHmacKey(key_id.clone()))
    }

    /// Opens a ciphertext and seals its plaintext again, in format 1, under the current version of the same key, or of
    /// `destination`. The plaintext never leaves. A ciphertext that names no key can only be `destination`'s own.
    ///
    /// # Errors
    /// As [`DataKeys::decrypt`] for the source and [`DataKeys::encrypt`] for the destination.
    pub async fn rewrap(
        &self,
        caller: &Caller,
        blob: &[u8],
        context: &EncryptionContext,
        destination: Option<KeyId>,
        destination_context: Option<&EncryptionContext>,
    ) -> Result<Sealed, KmsError> {
        // Also of what is refused: which context it was about.
        caller.audit().context(context);
        if let Some(destination) = &destination {
            caller.may(Action::Rewrap, destination)?;
        }
        let foreign = Blob::parse(Purpose::Seal, blob).is_err();
        let named = destination.as_ref().filter(|_| foreign);
        let opened = self
            .open(caller, Action::Rewrap, named, blob, context)
            .await;
        // Opening noted the key that it was about, whether it succeeded or not.
        caller.audit().moves_to(destination.as_ref());
        let opened = opened?;
        let serving = self
            .key(
                caller,
                Action::Rewrap,
                Some(destination.unwrap_or(opened.key_id)),
            )
            .await?;
        self.seal_fresh(
            caller,
            &serving,
            destination_context.unwrap_or(context),
            &opened.plaintext,
            CiphertextFormat::Keyway,
        )
        .await
    }

    /// The key that is to serve: named or the default, permitted, existing, enabled.
    async fn key(
        &self,
        caller: &Caller,
        action: Action,
        key_id: Option<KeyId>,
    ) -> Result<Serving, KmsError> {
        if let Some(key_id) = &key_id {
            caller.may(action, key_id)?;
        }
        let config = self.service.running().await?;
        let key_id = key_id
            .or_else(|| config.default_key_id.clone())
            .ok_or_else(|| {
                KmsError::invalid(
                    "key_id",
                    "is required, because no default key is configured",
                )
            })?;
        caller.may(action, &key_id)?;
        let key = self
            .keys
            .find(&key_id)
            .await?
            .ok_or(KmsError::KeyNotFound(key_id))?;
        key.must_be_enabled()?;
        Ok(Serving { config, key })
    }

    async fn open(
        &self,
        caller: &Caller,
        action: Action,
        key_id: Option<&KeyId>,
        blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<Opened, KmsError> {
        caller.audit().context(context);
        let Ok(parsed) = Blob::parse(Purpose::Seal, blob) else {
            let key_id = key_id.ok_or(KmsError::DecryptionFailed)?;
            return self
                .open_imported(caller, action, key_id, blob, context)
                .await;
        };
        let sealed_by =
            KeyId::parse("key_id", parsed.key_id()).map_err(|_| KmsError::DecryptionFailed)?;
        let key_version = parsed.key_version();
        let permitted = caller.may(action, &sealed_by);
        caller.audit().version(key_version);
        permitted?;
        let config = self.service.running().await?;
        if key_id.is_some_and(|wanted| *wanted != sealed_by) {
            return Err(KmsError::DecryptionFailed);
        }
        let mut key = self
            .keys
            .find(&sealed_by)
            .await?
            .ok_or(KmsError::DecryptionFailed)?;
        if !key.has_version(key_version) {
            key = self
                .keys
                .find_anew(&sealed_by)
                .await?
                .ok_or(KmsError::DecryptionFailed)?;
        }
        key.must_be_enabled()?;
        let plaintext = self
            .keys
            .with_material(&config, &key, key_version, |material| {
                parsed.open(material, context)
            })
            .await?
            .and_then(Result::ok)
            .ok_or(KmsError::DecryptionFailed)?;
        Ok(Opened {
            key_id: sealed_by,
            key_version,
            plaintext,
        })
    }

    /// Opens what is not format 1 by a key that was brought from elsewhere.
    async fn open_imported(
        &self,
        caller: &Caller,
        action: Action,
        key_id: &KeyId,
        ciphertext: &[u8],
        context: &EncryptionContext,
    ) -> Result<Opened, KmsError> {
        caller.may(action, key_id)?;
        let config = self.service.running().await?;
        let key = self
            .keys
            .find(key_id)
            .await?
            .ok_or(KmsError::DecryptionFailed)?;
        let algorithm = key.imported_algorithm().ok_or(KmsError::DecryptionFailed)?;
        caller.audit().version(IMPORTED_VERSION);
        key.must_be_enabled()?;
        let (legacy, context) = (self.legacy, kes::context_bytes(context));
        let plaintext = self
            .keys
            .with_material(&config, &key, IMPORTED_VERSION, |material| {
                kes::open(material, algorithm, legacy, ciphertext, &context)
            })
            .await?
            .and_then(Result::ok)
            .ok_or(KmsError::DecryptionFailed)?;
        Ok(Opened {
            key_id: key_id.clone(),
            key_version: IMPORTED_VERSION,
            plaintext,
        })
    }

    async fn seal_fresh(
        &self,
        caller: &Caller,
        serving: &Serving,
        context: &EncryptionContext,
        plaintext: &SecretBytes,
        sealing: CiphertextFormat,
    ) -> Result<Sealed, KmsError> {
        let mut fresh = [0; 32];
        self.random.fill(&mut fresh)?;
        let sealed = self
            .seal(serving, context, plaintext.expose(), &fresh, sealing)
            .await?;
        caller.audit().version(sealed.key_version);
        Ok(sealed)
    }

    async fn seal(
        &self,
        serving: &Serving,
        context: &EncryptionContext,
        plaintext: &[u8],
        fresh: &[u8; 32],
        sealing: CiphertextFormat,
    ) -> Result<Sealed, KmsError> {
        let Serving { config, key } = serving;
        let version = key.current_version();
        let raw = match sealing {
            CiphertextFormat::Kes if version == IMPORTED_VERSION => key.imported_algorithm(),
            CiphertextFormat::Kes | CiphertextFormat::Keyway => None,
        };
        let blob = self
            .keys
            .with_material(config, key, version, |material| match raw {
                Some(algorithm) => {
                    let context = kes::context_bytes(context);
                    kes::seal(material, algorithm, &context, plaintext, fresh)
                }
                None => seal(
                    Purpose::Seal,
                    material,
                    key.id.as_str(),
                    version,
                    context,
                    plaintext,
                    fresh,
                ),
            })
            .await?
            .ok_or(Fault::plain("a key has no current version"))?
            .map_err(|error| Fault::new("sealing", error))?;
        Ok(Sealed {
            key_id: key.id.clone(),
            key_version: version,
            blob,
        })
    }
}

const SHORT_DRAW: Fault = Fault::plain("a draw of random bytes was too short");
