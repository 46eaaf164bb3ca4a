//! Data keys: generated, sealed, opened and re-encrypted under master keys. Only reads the table.
//!
//! Every operation takes a [`DataKeyRequest`]. [`resolution`] finds its key, and checks the permission, the
//! configuration and the record once each.

mod mac;
mod reencryption;
mod request;
mod resolution;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::Arc;

use keyway_crypto::kes::{self, LegacyDerivation};
use keyway_crypto::{Purpose, SecretBytes, seal};
use zeroize::Zeroizing;

use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::keys::{AliasName, IMPORTED_VERSION, KeyId, KeyReader, NamedKey};
use crate::policy::Action;
use crate::ports::Random;
use crate::service::Service;

pub use keyway_crypto::MacHash;
use resolution::{Ciphertext, Serving};

pub use reencryption::Reencrypted;
pub use request::{DataKeyRequest, KeyChoice};
pub use trial::{Trial, TrialFailure};

/// The length of a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataKeySpec {
    /// 32 bytes.
    #[default]
    Aes256,
    /// 16 bytes.
    Aes128,
    /// This number of bytes.
    Bytes(DataKeyLength),
}

/// A number of bytes: 1 to [`MAX_DATA_KEY_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataKeyLength(usize);

/// The longest data key, in bytes.
pub const MAX_DATA_KEY_BYTES: usize = 1024;

impl DataKeyLength {
    /// Parses a number of bytes from the input `field`.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming the field.
    pub fn parse(field: &'static str, bytes: usize) -> Result<Self, KmsError> {
        if (1..=MAX_DATA_KEY_BYTES).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(KmsError::invalid(
            field,
            format!("must be 1 to {MAX_DATA_KEY_BYTES}"),
        ))
    }
}

impl DataKeySpec {
    const fn bytes(self) -> usize {
        match self {
            Self::Aes256 => 32,
            Self::Aes128 => 16,
            Self::Bytes(DataKeyLength(bytes)) => bytes,
        }
    }
}

/// The format of a new ciphertext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CiphertextFormat {
    /// Format 1.
    #[default]
    Keyway,
    /// KES's raw format, which KES can open. Only for keys that were imported from KES and never rotated since: KES has
    /// no other material. All other keys use format 1.
    Kes,
}

/// A plaintext that was sealed under a master key.
#[derive(Debug)]
pub struct Sealed {
    /// The key.
    pub key_id: KeyId,
    /// The version that sealed it.
    pub key_version: u32,
    /// The ciphertext, in the requested format.
    pub blob: Vec<u8>,
}

/// A ciphertext that was opened under a master key.
pub struct Opened {
    /// The key.
    pub key_id: KeyId,
    /// The version that sealed it.
    pub key_version: u32,
    /// The plaintext.
    pub plaintext: SecretBytes,
}

/// Whether the ciphertext says which key it is under. Those of other systems do not.
pub fn names_key(ciphertext: &[u8]) -> bool {
    Ciphertext::parse(ciphertext).names_key()
}

/// The longest plaintext, in bytes, for APIs that set no other limit.
pub const MAX_PLAINTEXT_BYTES: usize = 64 * 1024;

/// The operations on data keys.
pub struct DataKeys {
    keys: Arc<KeyReader>,
    service: Arc<Service>,
    random: Arc<dyn Random>,
    legacy: LegacyDerivation,
}

impl DataKeys {
    /// Uses this reader of keys.
    pub fn new(keys: Arc<KeyReader>, service: Arc<Service>, random: Arc<dyn Random>) -> Self {
        Self {
            keys,
            service,
            random,
            legacy: LegacyDerivation::Refused,
        }
    }

    /// Whether imported keys also open the ciphertexts of KES v0.1 to v0.6.0, whose key derivation is weak.
    #[must_use]
    pub fn with_legacy_kes(mut self, allowed: bool) -> Self {
        self.legacy = if allowed {
            LegacyDerivation::Allowed
        } else {
            LegacyDerivation::Refused
        };
        self
    }

    /// Makes a data key and seals it under the key.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`], [`KmsError::KeyNotFound`], [`KmsError::KeyState`], or [`KmsError::Invalid`] when the
    /// request names no key and there is no default key.
    pub async fn generate(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        spec: DataKeySpec,
    ) -> Result<(SecretBytes, Sealed), KmsError> {
        caller.audit().context(request.context);
        let mut serving = self
            .to_seal(caller, Action::GenerateDataKey, request)
            .await?;
        let made = self.make(caller, &mut serving, request, spec).await?;
        request.answer(made)
    }

    /// As [`DataKeys::generate`], for a caller who needs the data key later: the plaintext is not returned.
    ///
    /// # Errors
    /// As [`DataKeys::generate`].
    pub async fn generate_without_plaintext(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        spec: DataKeySpec,
    ) -> Result<Sealed, KmsError> {
        let (_, sealed) = self.generate(caller, request, spec).await?;
        Ok(sealed)
    }

    /// Seals a plaintext of at most `max_bytes`, the limit of the called API.
    ///
    /// # Errors
    /// As [`DataKeys::generate`]; [`KmsError::Invalid`] also when the plaintext is too long.
    pub async fn encrypt(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        plaintext: &SecretBytes,
        max_bytes: usize,
    ) -> Result<Sealed, KmsError> {
        caller.audit().context(request.context);
        if plaintext.expose().len() > max_bytes {
            return Err(KmsError::invalid(
                "plaintext",
                format!("must be at most {max_bytes} bytes"),
            ));
        }
        let mut serving = self.to_seal(caller, Action::Encrypt, request).await?;
        let sealed = self
            .seal_fresh(caller, &mut serving, request, plaintext)
            .await?;
        request.answer(sealed)
    }

    /// Opens a ciphertext. A key that was imported from KES also opens KES's own ciphertexts, if the request names the
    /// key: those ciphertexts name no key, and Keyway never tries keys that the request does not name.
    ///
    /// # Errors
    /// [`KmsError::DecryptionFailed`] for everything that does not open, and [`KmsError::KeyState`] when its key is not
    /// enabled. A missing key is [`KmsError::KeyNotFound`] if the request names it, and [`KmsError::DecryptionFailed`]
    /// if the ciphertext does.
    pub async fn decrypt(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        ciphertext: &[u8],
    ) -> Result<Opened, KmsError> {
        let ciphertext = Ciphertext::parse(ciphertext);
        let (_, opened) = self
            .open(caller, &[Action::Decrypt], request, &ciphertext)
            .await?;
        request.answer(opened)
    }

    /// The key that the alias stands for at present. It need not exist, and the caller's permission for it is not checked
    /// yet: the operation does that.
    ///
    /// # Errors
    /// When the table fails.
    pub async fn resolve(&self, alias: &AliasName) -> Result<NamedKey, KmsError> {
        self.keys.resolve(alias).await
    }

    /// Random bytes, without a key.
    ///
    /// # Errors
    /// [`KmsError::NotPermitted`], or when the service does not run.
    pub async fn random(
        &self,
        caller: &Caller,
        length: DataKeyLength,
    ) -> Result<SecretBytes, KmsError> {
        caller.may_on_service(Action::GenerateRandom)?;
        self.service.running().await?;
        let mut drawn = Zeroizing::new(vec![0; length.0]);
        self.random.fill(&mut drawn)?;
        Ok(SecretBytes::from(drawn))
    }

    /// Generates a data key and seals it.
    async fn make(
        &self,
        caller: &Caller,
        serving: &mut Serving,
        request: &DataKeyRequest<'_>,
        spec: DataKeySpec,
    ) -> Result<(SecretBytes, Sealed), KmsError> {
        // One call to the generator, for the sealing and for the data key.
        let mut drawn = Zeroizing::new(vec![0; FRESH_BYTES + spec.bytes()]);
        self.random.fill(&mut drawn)?;
        let fresh: [u8; FRESH_BYTES] = *drawn.first_chunk().ok_or(SHORT_DRAW)?;
        drawn.drain(..FRESH_BYTES);
        let plaintext = SecretBytes::from(drawn);
        let sealed = self
            .seal(serving, request, plaintext.expose(), &fresh)
            .await?;
        caller.audit().version(sealed.key_version);
        Ok((plaintext, sealed))
    }

    async fn seal_fresh(
        &self,
        caller: &Caller,
        serving: &mut Serving,
        request: &DataKeyRequest<'_>,
        plaintext: &SecretBytes,
    ) -> Result<Sealed, KmsError> {
        let mut fresh = [0; FRESH_BYTES];
        self.random.fill(&mut fresh)?;
        let sealed = self
            .seal(serving, request, plaintext.expose(), &fresh)
            .await?;
        caller.audit().version(sealed.key_version);
        Ok(sealed)
    }

    async fn seal(
        &self,
        serving: &mut Serving,
        request: &DataKeyRequest<'_>,
        plaintext: &[u8],
        fresh: &[u8; FRESH_BYTES],
    ) -> Result<Sealed, KmsError> {
        let version = serving.key.current_version();
        let material = serving.material(&self.keys, version).await?;
        let (key, material) = material.ok_or(Fault::plain("a key has no current version"))?;
        let raw = match request.format {
            CiphertextFormat::Kes if version == IMPORTED_VERSION => key.imported_algorithm(),
            CiphertextFormat::Kes | CiphertextFormat::Keyway => None,
        };
        let blob = match raw {
            Some(algorithm) => {
                let context = kes::context_bytes(request.context);
                kes::seal(&material.key, algorithm, &context, plaintext, fresh)
            }
            None => seal(
                Purpose::Seal,
                &material.key,
                key.id.as_str(),
                version,
                request.context,
                plaintext,
                fresh,
            ),
        };
        Ok(Sealed {
            key_id: key.id.clone(),
            key_version: version,
            blob: blob.map_err(|error| Fault::new("sealing", error))?,
        })
    }
}

/// How many random bytes each ciphertext needs.
const FRESH_BYTES: usize = 32;

const SHORT_DRAW: Fault = Fault::plain("a draw of random bytes was too short");
