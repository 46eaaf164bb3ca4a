//! Secrets sealed under a passphrase, or in the clear.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use keyway_crypto::{
    Blob, ContextError, EncryptionContext, Key256, PassphraseParams, Purpose, SecretBytes, derive,
    seal,
};
use keyway_domain::ports::Random;
use zeroize::Zeroizing;

use crate::FileError;
use crate::format::{Body, Content, Settings, encode};
use crate::passphrase::Passphrase;

/// The key id inside a sealed value, only for information. The context binds the value.
const KEY_ID: &str = "passphrase";
const KEY_VERSION: u32 = 1;

/// How many derived keys are kept. A deployment has fewer secrets; changing salts must not fill the memory.
const MAX_KEYS: usize = 16;

pub(crate) struct Protection {
    passphrase: Option<Passphrase>,
    /// Derived keys. Locked while a key is derived, so that tasks that need the same key wait for it and do not each
    /// spend the time and memory.
    keys: Mutex<Vec<(Reading, Settings, Arc<Key256>)>>,
}

/// How the passphrase is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Without the byte order mark and the last line break.
    Usable,
    /// As it was given.
    Exact,
}

/// A secret that was read from its file.
pub(crate) struct Opened {
    pub(crate) value: SecretBytes,
    pub(crate) version: String,
    /// `None` for a secret in the clear.
    pub(crate) settings: Option<Settings>,
}

impl Protection {
    pub(crate) fn new(passphrase: Option<Passphrase>) -> Self {
        Self {
            passphrase,
            keys: Mutex::default(),
        }
    }

    /// Opens the text of the secret's file. `path` is only for errors.
    pub(crate) fn open(&self, name: &str, text: &[u8], path: &Path) -> Result<Opened, FileError> {
        let Content { version, body } = Content::parse(text, path)?;
        let path = || path.to_owned();
        let (value, settings) = match (body, &self.passphrase) {
            (Body::Clear(value), None) => (SecretBytes::from(value), None),
            (Body::Sealed(settings, sealed), Some(passphrase)) => {
                let context =
                    context(name, version, &settings).map_err(|_| FileError::Garbled {
                        path: path(),
                        what: "its version is too long",
                    })?;
                let value = self
                    .unseal(passphrase, &settings, &sealed, &context)?
                    .ok_or_else(|| FileError::DoesNotOpen { path: path() })?;
                (value, Some(settings))
            }
            (Body::Clear(_), Some(_)) => return Err(FileError::InTheClear { path: path() }),
            (Body::Sealed(..), None) => return Err(FileError::Sealed { path: path() }),
        };
        Ok(Opened {
            value,
            version: version.to_owned(),
            settings,
        })
    }

    /// Opens it under the passphrase, or else under the text as it was given, which earlier releases used.
    fn unseal(
        &self,
        passphrase: &Passphrase,
        settings: &Settings,
        sealed: &[u8],
        context: &EncryptionContext,
    ) -> Result<Option<SecretBytes>, FileError> {
        let readings = [
            (Reading::Usable, passphrase.usable()),
            (Reading::Exact, passphrase.exact()),
        ];
        for (reading, text) in readings {
            let Some(text) = text else { continue };
            let key = self.key(reading, text, settings)?;
            let opened =
                Blob::parse(Purpose::Passphrase, sealed).and_then(|blob| blob.open(&key, context));
            if let Ok(value) = opened {
                if reading == Reading::Exact {
                    tracing::warn!(
                        "the passphrase opens only with the line break, byte order mark or control character that it was \
                         first given with, and only where it is given so; put the secret under a new one with \
                         `keyway change-passphrase`"
                    );
                }
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The text of the secret's file. It reuses the key of `settings` if their parameters are today's.
    pub(crate) fn protect(
        &self,
        name: &str,
        version: &str,
        value: &SecretBytes,
        settings: Option<Settings>,
        random: &dyn Random,
    ) -> Result<Zeroizing<Vec<u8>>, FileError> {
        let body = match &self.passphrase {
            None => Body::Clear(Zeroizing::new(value.expose().to_vec())),
            Some(passphrase) => {
                let params = PassphraseParams::default();
                let settings = match settings.filter(|settings| settings.params == params) {
                    Some(settings) => settings,
                    None => Settings {
                        params,
                        salt: fresh(random)?,
                    },
                };
                let text = passphrase.usable().ok_or(FileError::ControlCharacter)?;
                let key = self.key(Reading::Usable, text, &settings)?;
                let context = context(name, version, &settings)?;
                let sealed = seal(
                    Purpose::Passphrase,
                    &key,
                    KEY_ID,
                    KEY_VERSION,
                    &context,
                    value.expose(),
                    &fresh(random)?,
                )?;
                Body::Sealed(settings, Zeroizing::new(sealed))
            }
        };
        Ok(Content { version, body }.text()?)
    }

    fn key(
        &self,
        reading: Reading,
        text: &SecretBytes,
        settings: &Settings,
    ) -> Result<Arc<Key256>, FileError> {
        // A panic cannot leave the list half changed: every change is one push or one clear.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys
            .iter()
            .find(|(how, known, _)| *how == reading && known == settings);
        if let Some((.., key)) = known {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(derive(text.expose(), &settings.salt, &settings.params)?);
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.push((reading, *settings, Arc::clone(&key)));
        Ok(key)
    }
}

/// Binds the value to everything else in the file and to the secret's name, so that none of it can be altered.
fn context(
    name: &str,
    version: &str,
    settings: &Settings,
) -> Result<EncryptionContext, ContextError> {
    let (memory_kib, passes, lanes) = settings.costs();
    let pairs = [
        ("name", name.to_owned()),
        ("version", version.to_owned()),
        ("memory_kib", memory_kib.to_string()),
        ("passes", passes.to_string()),
        ("lanes", lanes.to_string()),
        ("salt", encode(&settings.salt).to_string()),
    ];
    EncryptionContext::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value)))
}

fn fresh<const N: usize>(random: &dyn Random) -> Result<[u8; N], FileError> {
    let mut bytes = [0; N];
    random.fill(&mut bytes)?;
    Ok(bytes)
}
