//! Finds out whether a key works, by using it.

use std::sync::Arc;

use keyway_crypto::EncryptionContext;

use super::{Ciphertext, DataKeyRequest, DataKeySpec, DataKeys};
use crate::access::Caller;
use crate::error::{Fault, KmsError};
use crate::ids::KeyId;
use crate::policy::Action;
use crate::service::ServiceConfig;

/// The result of trying a key.
#[derive(Debug)]
pub struct Trial {
    /// The key.
    pub key_id: KeyId,
    /// What failed, if anything.
    pub failure: Option<TrialFailure>,
}

/// The step at which a trial failed, and why.
#[derive(Debug)]
pub enum TrialFailure {
    /// No data key could be made under the key.
    Encryption(KmsError),
    /// The data key could not be decrypted, or decrypted to another value.
    Decryption(KmsError),
}

/// The encryption context of a trial's data key.
const CONTEXT: (&str, &str) = ("keyway", "trial");

/// The permissions that a trial needs.
const NEEDED: [Action; 3] = [
    Action::DescribeKey,
    Action::GenerateDataKey,
    Action::Decrypt,
];

impl DataKeys {
    /// Makes a data key under the key, or under the default key, and decrypts it. The caller needs the permissions to
    /// describe the key, to generate and to decrypt. A missing or disabled key is a result of the trial, not an error.
    ///
    /// # Errors
    /// Failures that are not about the key: no permission, no running service, no default key, throttling.
    pub async fn try_out(&self, caller: &Caller, key_id: Option<KeyId>) -> Result<Trial, KmsError> {
        let (config, key_id) = self.authorize(caller, &NEEDED, key_id).await?;
        let (name, value) = CONTEXT;
        let context = EncryptionContext::from_pairs([(name.to_owned(), value.to_owned())])
            .map_err(|error| Fault::new("the context of a trial", error))?;
        caller.audit().context(&context);
        let request = DataKeyRequest::new(key_id.clone(), &context);
        let failure = match self.trial(caller, config, &request, &key_id).await {
            Ok(()) => None,
            Err(TrialFailure::Encryption(error)) => {
                Some(TrialFailure::Encryption(of_the_key(error)?))
            }
            Err(TrialFailure::Decryption(error)) => {
                Some(TrialFailure::Decryption(of_the_key(error)?))
            }
        };
        Ok(Trial { key_id, failure })
    }

    async fn trial(
        &self,
        caller: &Caller,
        config: Arc<ServiceConfig>,
        request: &DataKeyRequest<'_>,
        key_id: &KeyId,
    ) -> Result<(), TrialFailure> {
        let encryption = async {
            let mut serving = self.enabled(config, key_id.clone().into()).await?;
            let spec = DataKeySpec::Aes256;
            let (plaintext, sealed) = self.make(caller, &mut serving, request, spec).await?;
            Ok((serving, plaintext, sealed))
        };
        let (serving, plaintext, sealed) = encryption.await.map_err(TrialFailure::Encryption)?;
        let ciphertext = Ciphertext::parse(&sealed.blob);
        let opened = self.open_by(caller, serving, request, &ciphertext).await;
        let (_, opened) = opened.map_err(TrialFailure::Decryption)?;
        if opened.plaintext.ct_eq(plaintext.expose()) {
            Ok(())
        } else {
            Err(TrialFailure::Decryption(KmsError::DecryptionFailed))
        }
    }
}

/// The failure as a result of the trial, unless it is not about the key.
fn of_the_key(error: KmsError) -> Result<KmsError, KmsError> {
    match error {
        KmsError::NotPermitted
        | KmsError::NotConfigured
        | KmsError::NotRunning
        | KmsError::Throttled => Err(error),
        error => Ok(error),
    }
}
