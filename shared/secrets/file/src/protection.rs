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

/// Names the key inside a sealed value, for whoever looks at one. What the value is bound to is its context.
const KEY_ID: &str = "passphrase";
const KEY_VERSION: u32 = 1;

/// More keys than a deployment has secrets; a folder in which salts change all the time must not fill the memory.
const MAX_KEYS: usize = 16;

pub(crate) struct Protection {
    passphrase: Option<Passphrase>,
    /// Keys that were derived before. Locked while one is derived, so that tasks which need the same one wait for
    /// it rather than each take the time and memory.
    keys: Mutex<Vec<(Reading, Settings, Arc<Key256>)>>,
}

/// How the passphrase is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// Without what is no part of it.
    Usable,
    /// As it was given.
    Exact,
}

/// A secret as its file held it.
pub(crate) struct Opened {
    pub(crate) value: SecretBytes,
    pub(crate) version: String,
    /// None when it is in the clear.
    pub(crate) settings: Option<Settings>,
}

impl Protection {
    pub(crate) fn new(passphrase: Option<Passphrase>) -> Self {
        Self {
            passphrase,
            keys: Mutex::default(),
        }
    }

    /// Opens the text of the secret's file at `path`, which only errors name.
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

    /// What is sealed under the passphrase; else under the text as it was given, which earlier releases took for it.
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

    /// The text of the secret's file, under the key of `settings` if that is no weaker than a new one.
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
        // Every change to the list is one push or one clear.
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

/// All that a file says besides the value: none of it can be changed, nor the file take another's name.
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
