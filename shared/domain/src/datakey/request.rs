//! The input of a data-key operation.

use jiff::Timestamp;
use keyway_crypto::EncryptionContext;

use super::CiphertextFormat;
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::keys::NamedKey;

/// Which key a request uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChoice {
    /// This key. It opens no other key's ciphertexts, even if the caller may use those keys.
    Named(KeyId),
    /// The default key of the service's configuration.
    Default,
    /// The key that the ciphertext names. If an id is given, the ciphertext must name that key or none. Sealing has
    /// no ciphertext, so it requires an id.
    OfCiphertext(Option<KeyId>),
}

impl KeyChoice {
    /// The key of an operation without a ciphertext; `None` for the default key.
    pub(super) fn id(&self) -> Result<Option<KeyId>, KmsError> {
        match self {
            Self::Named(id) | Self::OfCiphertext(Some(id)) => Ok(Some(id.clone())),
            Self::Default => Ok(None),
            Self::OfCiphertext(None) => Err(KmsError::invalid("key_id", "is required")),
        }
    }
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

/// An operation's key, and the context and format of its ciphertext.
#[derive(Debug, Clone)]
pub struct DataKeyRequest<'a> {
    pub(super) key: KeyChoice,
    /// See [`NamedKey::created_at`].
    created_at: Option<Timestamp>,
    pub(super) context: &'a EncryptionContext,
    pub(super) format: CiphertextFormat,
    dry_run: bool,
}

impl<'a> DataKeyRequest<'a> {
    /// A request under this key and context, in format 1.
    pub fn new(key: impl Into<KeyChoice>, context: &'a EncryptionContext) -> Self {
        Self {
            key: key.into(),
            created_at: None,
            context,
            format: CiphertextFormat::Keyway,
            dry_run: false,
        }
    }

    /// A request under the key that is named by its id or by an alias, and this context, in format 1.
    pub fn of(key: NamedKey, context: &'a EncryptionContext) -> Self {
        Self {
            created_at: key.created_at,
            ..Self::new(key.id, context)
        }
    }

    /// As [`DataKeyRequest::of_ciphertext`], for a key that is named by its id or by an alias.
    pub fn of_ciphertext_as(expected: Option<NamedKey>, context: &'a EncryptionContext) -> Self {
        let created_at = expected.as_ref().and_then(|key| key.created_at);
        Self {
            created_at,
            ..Self::of_ciphertext(expected.map(|key| key.id), context)
        }
    }

    /// The key of this id, as the request names it.
    pub(super) fn named(&self, id: KeyId) -> NamedKey {
        NamedKey {
            id,
            created_at: self.created_at,
        }
    }

    /// A request under the key that the ciphertext names, which must be `expected` if that is given.
    pub fn of_ciphertext(expected: Option<KeyId>, context: &'a EncryptionContext) -> Self {
        Self::new(KeyChoice::OfCiphertext(expected), context)
    }

    /// The same request, with new ciphertexts in this format.
    #[must_use]
    pub fn sealed_as(self, format: CiphertextFormat) -> Self {
        Self { format, ..self }
    }

    /// The same request, as a dry run if `dry_run`: every step runs as usual, including decryption, but success becomes
    /// [`KmsError::DryRun`] and the result is discarded.
    #[must_use]
    pub fn dry_run(self, dry_run: bool) -> Self {
        Self { dry_run, ..self }
    }

    /// Returns the result, unless the request is a dry run.
    pub(super) fn answer<T>(&self, made: T) -> Result<T, KmsError> {
        if self.dry_run {
            Err(KmsError::DryRun)
        } else {
            Ok(made)
        }
    }
}
