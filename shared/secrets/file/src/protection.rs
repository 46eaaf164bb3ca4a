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

/// Names the key inside a sealed value, for whoever looks at one. What the value is bound to is its context.
const KEY_ID: &str = "passphrase";
const KEY_VERSION: u32 = 1;

/// More keys than a deployment has secrets; a folder in which salts change all the time must not fill the memory.
const MAX_KEYS: usize = 16;

pub(crate) struct Protection {
    passphrase: Option<SecretBytes>,
    /// Keys that were derived before. Locked while one is derived, so that tasks which need the same one wait for
    /// it rather than each take the time and memory.
    keys: Mutex<Vec<(Settings, Arc<Key256>)>>,
}

/// A secret as its file held it.
pub(crate) struct Opened {
    pub(crate) value: SecretBytes,
    pub(crate) version: String,
    /// None when it is in the clear.
    pub(crate) settings: Option<Settings>,
}

impl Protection {
    pub(crate) fn new(passphrase: Option<SecretBytes>) -> Self {
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
                let key = self.key(passphrase, &settings)?;
                let context =
                    context(name, version, &settings).map_err(|_| FileError::Garbled {
                        path: path(),
                        what: "its version is too long",
                    })?;
                let value = Blob::parse(Purpose::Passphrase, &sealed)
                    .and_then(|blob| blob.open(&key, &context))
                    .map_err(|_| FileError::DoesNotOpen { path: path() })?;
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
                let key = self.key(passphrase, &settings)?;
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

    fn key(&self, passphrase: &SecretBytes, settings: &Settings) -> Result<Arc<Key256>, FileError> {
        // Every change to the list is one push or one clear.
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, key)) = keys.iter().find(|(known, _)| known == settings) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(derive(
            passphrase.expose(),
            &settings.salt,
            &settings.params,
        )?);
        if keys.len() >= MAX_KEYS {
            keys.clear();
        }
        keys.push((*settings, Arc::clone(&key)));
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
