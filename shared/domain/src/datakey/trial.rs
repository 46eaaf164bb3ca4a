//! Whether a key works, by using it.

use keyway_crypto::EncryptionContext;

use super::{DataKeySpec, DataKeys};
use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::policy::Action;

/// What came of trying a key.
#[derive(Debug)]
pub struct Trial {
    /// The key.
    pub key_id: KeyId,
    /// What did not work, if anything.
    pub failure: Option<TrialFailure>,
}

/// At which step a trial failed, and why.
#[derive(Debug)]
pub enum TrialFailure {
    /// No data key could be made under it.
    CiphertextFormat(KmsError),
    /// The data key could not be opened again, or another one came out.
    Opening(KmsError),
}

/// What a trial's data key is bound to.
const CONTEXT: (&str, &str) = ("keyway", "trial");

impl DataKeys {
    /// Makes a data key under the key, or under the default key, and opens it again. Whoever asks needs the permission
    /// to describe the key and to do both. That the key does not exist or does not serve is what a trial finds out.
    ///
    /// # Errors
    /// Those that say nothing of the key: no permission, no service that runs, no default key, too many requests.
    pub async fn try_out(&self, caller: &Caller, key_id: Option<KeyId>) -> Result<Trial, KmsError> {
        let permitted = |key_id: &KeyId| {
            [
                Action::DescribeKey,
                Action::GenerateDataKey,
                Action::Decrypt,
            ]
            .into_iter()
            .try_for_each(|action| caller.may(action, key_id))
        };
        key_id.as_ref().map_or(Ok(()), permitted)?;
        let config = self.service.running().await?;
        let key_id = key_id
            .or_else(|| config.default_key_id.clone())
            .ok_or_else(|| {
                KmsError::invalid(
                    "key_id",
                    "is required, because no default key is configured",
                )
            })?;
        permitted(&key_id)?;
        let failure = self.trial(caller, &key_id).await?;
        Ok(Trial { key_id, failure })
    }

    async fn trial(
        &self,
        caller: &Caller,
        key_id: &KeyId,
    ) -> Result<Option<TrialFailure>, KmsError> {
        let (name, value) = CONTEXT;
        let context = EncryptionContext::from_pairs([(name.to_owned(), value.to_owned())])
            .map_err(|error| crate::Fault::new("the context of a trial", error))?;
        let spec = DataKeySpec::Aes256;
        let made = self
            .generate(caller, Some(key_id.clone()), spec, &context)
            .await;
        let (plaintext, sealed) = match made {
            Ok(made) => made,
            Err(error) => {
                return of_the_key(error).map(|error| Some(TrialFailure::CiphertextFormat(error)));
            }
        };
        let opened = self
            .decrypt(caller, Some(key_id), &sealed.blob, &context)
            .await;
        let error = match opened {
            Ok(opened) if opened.plaintext.ct_eq(plaintext.expose()) => return Ok(None),
            Ok(_) => KmsError::DecryptionFailed,
            Err(error) => error,
        };
        of_the_key(error).map(|error| Some(TrialFailure::Opening(error)))
    }
}

/// The failure as a finding about the key, unless it says nothing of it.
fn of_the_key(error: KmsError) -> Result<KmsError, KmsError> {
    match error {
        KmsError::NotPermitted
        | KmsError::NotConfigured
        | KmsError::NotRunning
        | KmsError::Throttled => Err(error),
        error => Ok(error),
    }
}
