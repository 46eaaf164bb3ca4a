//! Moving ciphertexts to another key, version or context.

use super::resolution::default_key;
use super::{Ciphertext, DataKeyRequest, DataKeys, KeyChoice, Sealed, Serving};
use crate::access::Caller;
use crate::error::KmsError;
use crate::ids::KeyId;
use crate::policy::Action;

/// A ciphertext that was moved.
#[derive(Debug)]
pub struct Reencrypted {
    /// The key that the old ciphertext is under.
    pub source_key_id: KeyId,
    /// The version of that key.
    pub source_key_version: u32,
    /// The new ciphertext.
    pub sealed: Sealed,
}

impl DataKeys {
    /// Opens a ciphertext as `source` says, and seals its plaintext as `destination` says, under the current version of
    /// that key. [`KeyChoice::OfCiphertext`] as the destination's key is the source's own. The plaintext never leaves.
    ///
    /// It is a dry run if either request is one. A ciphertext that names no key, for which the source has none either,
    /// can only be the destination's own.
    ///
    /// # Errors
    /// As [`DataKeys::decrypt`] for the source and [`DataKeys::encrypt`] for the destination.
    pub async fn reencrypt(
        &self,
        caller: &Caller,
        source: &DataKeyRequest<'_>,
        ciphertext: &[u8],
        destination: &DataKeyRequest<'_>,
    ) -> Result<Reencrypted, KmsError> {
        // A refusal is logged with the context that it was about.
        caller.audit().context(source.context);
        let ciphertext = Ciphertext::parse(ciphertext);
        let named = match &destination.key {
            KeyChoice::Named(id) | KeyChoice::OfCiphertext(Some(id)) => Some(id),
            KeyChoice::Default | KeyChoice::OfCiphertext(None) => None,
        };
        let source = source_of(source, &ciphertext, named);
        if let Some(id) = named
            && ciphertext.key(&source.key).ok().flatten().as_ref() != Some(id)
        {
            // Opening asks for the permission of the source's key.
            caller.may(Action::Rewrap, id)?;
        }
        let opened = self
            .open(caller, Action::Rewrap, &source, &ciphertext)
            .await;
        // Opening noted the key that it was about, whether it succeeded or not.
        caller.audit().moves_to(named);
        let (serving, opened) = opened?;
        let mut serving = self
            .destination(caller, serving, &destination.key, named)
            .await?;
        let sealed = self
            .seal_fresh(caller, &mut serving, destination, &opened.plaintext)
            .await?;
        source.answer(())?;
        destination.answer(Reencrypted {
            source_key_id: opened.key_id,
            source_key_version: opened.key_version,
            sealed,
        })
    }

    /// The key to seal under: the source's, if it is the same, as it was found for opening.
    async fn destination(
        &self,
        caller: &Caller,
        source: Serving,
        choice: &KeyChoice,
        named: Option<&KeyId>,
    ) -> Result<Serving, KmsError> {
        let key_id = match (choice, named) {
            (KeyChoice::Default, _) => default_key(&source.config)?,
            (_, Some(id)) => id.clone(),
            (_, None) => source.key.id.clone(),
        };
        if key_id == source.key.id {
            return Ok(source);
        }
        if *choice == KeyChoice::Default {
            caller.may(Action::Rewrap, &key_id)?;
        }
        self.enabled(source.config, key_id).await
    }
}

fn source_of<'a>(
    source: &DataKeyRequest<'a>,
    ciphertext: &Ciphertext<'_>,
    destination: Option<&KeyId>,
) -> DataKeyRequest<'a> {
    let mut source = source.clone();
    if let KeyChoice::OfCiphertext(expected @ None) = &mut source.key
        && !ciphertext.names_key()
    {
        *expected = destination.cloned();
    }
    source
}
