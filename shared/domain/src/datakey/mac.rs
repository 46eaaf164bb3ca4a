//! Message authentication codes. The request's context and format have no effect on them.

use keyway_crypto::{MacHash, mac, mac_sha256, verify_mac};

use super::resolution::Serving;
use super::{DataKeyRequest, DataKeys};
use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::KeyUsage;
use crate::policy::Action;

impl DataKeys {
    /// The HMAC-SHA256 of the message under the HMAC key that a key for encryption has beside its versions. Rotation
    /// does not change it.
    ///
    /// # Errors
    /// [`KmsError::NoHmacKey`], which MAC keys give as well, or as [`DataKeys::generate`].
    pub async fn hmac(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        message: &[u8],
    ) -> Result<[u8; 32], KmsError> {
        let action = Action::GenerateMac;
        let Serving { config, key, .. } = self.to_use(caller, action, request).await?;
        let hmac_key = self.keys.hmac_key(&config, &key).await?;
        let hmac_key = hmac_key.ok_or_else(|| KmsError::NoHmacKey(key.id.clone()))?;
        request.answer(mac_sha256(&hmac_key.key, &[message]))
    }

    /// The HMAC of the message under a MAC key.
    ///
    /// # Errors
    /// [`KmsError::KeySpec`] when the key is not for this hash, or as [`DataKeys::generate`].
    pub async fn generate_mac(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        hash: MacHash,
        message: &[u8],
    ) -> Result<Vec<u8>, KmsError> {
        let serving = self
            .to_mac(caller, Action::GenerateMac, request, hash)
            .await?;
        let key = self.keys.mac_key(&serving.config, &serving.key).await?;
        caller.audit().version(serving.key.current_version());
        request.answer(mac(hash, &key.key, message))
    }

    /// Verifies that `tag` is the HMAC of the message under a MAC key, in constant time.
    ///
    /// # Errors
    /// [`KmsError::InvalidMac`] when it is not, or as [`DataKeys::generate_mac`].
    pub async fn verify_mac(
        &self,
        caller: &Caller,
        request: &DataKeyRequest<'_>,
        hash: MacHash,
        message: &[u8],
        tag: &[u8],
    ) -> Result<(), KmsError> {
        let serving = self
            .to_mac(caller, Action::VerifyMac, request, hash)
            .await?;
        let key = self.keys.mac_key(&serving.config, &serving.key).await?;
        caller.audit().version(serving.key.current_version());
        if !verify_mac(hash, &key.key, message, tag) {
            return Err(KmsError::InvalidMac);
        }
        request.answer(())
    }

    /// The MAC key of a request, which must be for this hash.
    async fn to_mac(
        &self,
        caller: &Caller,
        action: Action,
        request: &DataKeyRequest<'_>,
        hash: MacHash,
    ) -> Result<Serving, KmsError> {
        let serving = self.to_use(caller, action, request).await?;
        serving.key.must_be_for(KeyUsage::GenerateVerifyMac)?;
        if serving.key.spec.mac_hash() != Some(hash) {
            return Err(KmsError::KeySpec {
                key_id: serving.key.id.clone(),
                spec: serving.key.spec,
            });
        }
        Ok(serving)
    }
}
