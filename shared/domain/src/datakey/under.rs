//! Data keys of an API that names the key in every request, and whose ciphertexts are that key's.

use keyway_crypto::{Blob, EncryptionContext, Purpose, SecretBytes};

use super::{CiphertextFormat, DataKeys, Opened, Sealed};
use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::policy::Action;

impl DataKeys {
    /// Seals a plaintext under the key, in this format. How long it may be is for the API to say.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`] or [`KmsError::KeyState`].
    pub async fn encrypt_under(
        &self,
        caller: &Caller,
        key_id: KeyId,
        context: &EncryptionContext,
        plaintext: &SecretBytes,
        sealing: CiphertextFormat,
    ) -> Result<Sealed, KmsError> {
        caller.audit().context(context);
        let serving = self.key(caller, Action::Encrypt, Some(key_id)).await?;
        self.seal_fresh(caller, &serving, context, plaintext, sealing)
            .await
    }

    /// Opens a ciphertext of the key. Unlike [`DataKeys::decrypt`] it says so when there is no such key, for the
    /// caller named it and may use it; and what another key sealed is not authentic, whoever may use that one.
    ///
    /// # Errors
    /// [`KmsError::KeyNotFound`], [`KmsError::KeyState`], or [`KmsError::DecryptionFailed`] for everything that does
    /// not open.
    pub async fn decrypt_under(
        &self,
        caller: &Caller,
        key_id: KeyId,
        blob: &[u8],
        context: &EncryptionContext,
    ) -> Result<Opened, KmsError> {
        caller.audit().context(context);
        let serving = self.key(caller, Action::Decrypt, Some(key_id)).await?;
        let key_id = &serving.key.id;
        if Blob::parse(Purpose::Seal, blob).is_ok_and(|blob| blob.key_id() != key_id.as_str()) {
            return Err(KmsError::DecryptionFailed);
        }
        self.open(caller, Action::Decrypt, Some(key_id), blob, context)
            .await
    }
}
