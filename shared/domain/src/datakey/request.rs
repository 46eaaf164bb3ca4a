//! What an operation on data keys is asked for.

use keyway_crypto::EncryptionContext;

use super::CiphertextFormat;
use crate::error::KmsError;
use crate::ids::KeyId;

/// Which key serves a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// This key. A ciphertext of another key does not open, whatever the caller may do with that one.
    Named(KeyId),
    /// The default key of the service's configuration.
    Default,
    /// The key that the ciphertext names. If an id is given, the ciphertext must be that key's; a ciphertext that names
    /// no key is taken to be that key's. What is to be sealed has no ciphertext, so there only an id serves.
    OfCiphertext(Option<KeyId>),
}

impl From<KeyId> for KeyChoice {
    fn from(key_id: KeyId) -> Self {
        Self::Named(key_id)
    }
}

/// The key that is named, or the default key.
impl From<Option<KeyId>> for KeyChoice {
    fn from(key_id: Option<KeyId>) -> Self {
        key_id.map_or(Self::Default, Self::Named)
    }
}

/// Which key an operation uses, and what its ciphertext is bound to and looks like.
#[derive(Debug, Clone)]
pub struct DataKeyRequest<'a> {
    pub(super) key: KeyChoice,
    pub(super) context: &'a EncryptionContext,
    pub(super) format: CiphertextFormat,
    dry_run: bool,
}

impl<'a> DataKeyRequest<'a> {
    /// Under this key and context, in format 1.
    pub fn new(key: impl Into<KeyChoice>, context: &'a EncryptionContext) -> Self {
        Self {
            key: key.into(),
            context,
            format: CiphertextFormat::Keyway,
            dry_run: false,
        }
    }

    /// By the key that the ciphertext names; it must be `expected`, if that is given.
    pub fn of_ciphertext(expected: Option<KeyId>, context: &'a EncryptionContext) -> Self {
        Self::new(KeyChoice::OfCiphertext(expected), context)
    }

    /// The same, with new ciphertexts in this format.
    #[must_use]
    pub fn sealed_as(self, format: CiphertextFormat) -> Self {
        Self { format, ..self }
    }

    /// The same, as a dry run if `dry_run`: everything is checked and done as ever, also the ciphertext opened, but
    /// success is [`KmsError::DryRun`] and nothing that was made leaves.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// What an operation made, unless the request is a dry run.
    pub(super) fn answer<T>(&self, made: T) -> Result<T, KmsError> {
        if self.dry_run {
            Err(KmsError::DryRun)
        } else {
            Ok(made)
        }
    }
}
