//! Re-encrypts ciphertexts under another key, version or context.

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
    /// that key. [`KeyChoice::OfCiphertext`] as the destination's key is the source's key. The plaintext is not returned.
    ///
    /// It is a dry run if either request is one. If neither the ciphertext nor the source names a key, the ciphertext
    /// must be the destination key's own.
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
        // So that the audit log has the context of a refused request too.
        caller.audit().context(source.context);
        let ciphertext = Ciphertext::parse(ciphertext);
        let named = match &destination.key {
            KeyChoice::Named(id) | KeyChoice::OfCiphertext(Some(id)) => Some(id),
            KeyChoice::Default | KeyChoice::OfCiphertext(None) => None,
        };
        let source = source_of(source, &ciphertext, named);
        let source_key = ciphertext.key(&source.key).ok().flatten();
        let is_same = match named {
            Some(id) => source_key.as_ref() == Some(id),
            None => destination.key != KeyChoice::Default,
        };
        if let (Some(id), false) = (named, is_same) {
            caller.may(Action::ReEncryptTo, id)?;
        }
        // `open` checks the permissions for the source's key.
        let actions: &[Action] = match is_same {
            true => &[Action::ReEncryptFrom, Action::ReEncryptTo],
            false => &[Action::ReEncryptFrom],
        };
        let opened = self.open(caller, actions, &source, &ciphertext).await;
        // `open` noted its key in the audit context, whether it succeeded or not.
        caller.audit().moves_to(named);
        let (serving, opened) = opened?;
        let mut serving = self
            .destination(caller, serving, destination, named)
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

    /// The key to seal under. If it is the source's key, it is not read again.
    async fn destination(
        &self,
        caller: &Caller,
        source: Serving,
        destination: &DataKeyRequest<'_>,
        named: Option<&KeyId>,
    ) -> Result<Serving, KmsError> {
        let key_id = match (&destination.key, named) {
            (KeyChoice::Default, _) => default_key(&source.config)?,
            (_, Some(id)) => id.clone(),
            (_, None) => source.key.id.clone(),
        };
        let wanted = destination.named(key_id);
        if destination.key == KeyChoice::Default {
            caller.may(Action::ReEncryptTo, &wanted.id)?;
        }
        if wanted.id == source.key.id && wanted.is(&source.key) {
            return Ok(source);
        }
        self.enabled(source.config, wanted).await
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
