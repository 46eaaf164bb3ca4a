//! Import of keys whose material comes from elsewhere: KES, or MinIO's built-in key.

use jiff::Timestamp;
use keyway_crypto::Key256;
use keyway_crypto::kes::Algorithm;

use super::{
    HMAC_KEY_BYTES, IMPORTED_VERSION, KeyId, KeySpec, KeyState, Keys, MasterKey, Origin, Tags,
    drawn,
};
use crate::access::Caller;
use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::policy::Action;
use crate::service::ServiceConfig;

/// A key to import.
pub struct NewImport {
    pub id: KeyId,
    pub material: Key256,
    /// The algorithm of the ciphertexts that it made there.
    pub algorithm: Algorithm,
    pub hmac_key: HmacKey,
    /// When it was made there; `None` for the time of the import.
    pub created_at: Option<Timestamp>,
    /// Who made it there: 1 to 256 characters, none of them a control character. `None` for the caller.
    pub created_by: Option<String>,
}

/// The HMAC key of an imported key.
pub enum HmacKey {
    /// The HMAC key that it had there.
    Given(Key256),
    /// A new HMAC key.
    Fresh,
    /// No HMAC key: the key makes no MACs.
    Absent,
}

/// How a key to import compares with the deployment's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// No key had its name. The key is imported now, unless this is a dry run.
    New,
    /// The same key exists already.
    Same,
    /// Another key has its name, and was not changed. The text says what is different.
    Different(&'static str),
}

impl Keys {
    /// Imports a key. Never overwrites an existing one.
    ///
    /// # Errors
    /// [`KmsError::KeyExists`]. The existing key is not changed.
    pub async fn import(&self, caller: &Caller, new: NewImport) -> Result<MasterKey, KmsError> {
        caller.may(Action::ImportKeyMaterial, &new.id)?;
        let config = self.service.running().await?;
        self.bring(caller, &config, &new).await
    }

    /// Imports a key, or with `dry_run` only says whether it would. If a key of its name exists, compares the two. For
    /// the operator: the service need not run.
    ///
    /// # Errors
    /// As [`Keys::import`]. [`KmsError::KeyExists`] only if Vault has a sealed copy of that name and the table no record.
    pub async fn import_or_compare(
        &self,
        caller: &Caller,
        new: &NewImport,
        dry_run: bool,
    ) -> Result<Compared, KmsError> {
        caller.may(Action::ImportKeyMaterial, &new.id)?;
        let config = self.service.config().await?;
        let config = config.ok_or(KmsError::NotConfigured)?;
        if let Some(compared) = self.compared(&config, new).await? {
            return Ok(compared);
        }
        if dry_run {
            checked(new.created_by.as_deref())?;
            return Ok(Compared::New);
        }
        match self.bring(caller, &config, new).await {
            Ok(_) => Ok(Compared::New),
            // Another process was faster.
            Err(KmsError::KeyExists(id)) => self
                .compared(&config, new)
                .await?
                .ok_or(KmsError::KeyExists(id)),
            Err(error) => Err(error),
        }
    }

    async fn bring(
        &self,
        caller: &Caller,
        config: &ServiceConfig,
        new: &NewImport,
    ) -> Result<MasterKey, KmsError> {
        let created_by = checked(new.created_by.as_deref())?;
        let fresh;
        let hmac: Option<&[u8]> = match &new.hmac_key {
            HmacKey::Given(key) => Some(key.expose()),
            HmacKey::Absent => None,
            HmacKey::Fresh => {
                fresh = drawn(self.random.as_ref(), HMAC_KEY_BYTES)?;
                Some(fresh.expose())
            }
        };
        let mut key = MasterKey {
            format: encoding::FORMAT,
            id: new.id.clone(),
            spec: KeySpec::SymmetricDefault,
            state: KeyState::Enabled,
            description: None,
            tags: Tags::default(),
            origin: Origin::External {
                algorithm: new.algorithm,
            },
            created_at: match new.created_at {
                Some(created_at) => created_at,
                None => self.now()?,
            },
            created_by: created_by.unwrap_or(caller.principal()).to_owned(),
            versions: Vec::new(),
            hmac: None,
            rotation: None,
            policy: None,
        };
        let wrapper = self.wrappers.current(config).await?;
        key.begin(wrapper.as_ref(), new.material.expose(), hmac)
            .await?;
        self.insert(config, key).await
    }

    /// Compares the key with the one of its name; `None` if there is none.
    async fn compared(
        &self,
        config: &ServiceConfig,
        new: &NewImport,
    ) -> Result<Option<Compared>, KmsError> {
        let Some((key, _)) = self.reader.read(&new.id).await? else {
            return Ok(None);
        };
        let Some(algorithm) = key.imported_algorithm() else {
            return Ok(Some(Compared::Different(
                "a key of this name was made here",
            )));
        };
        let material = key.material(IMPORTED_VERSION).ok_or(Fault::plain(
            "an imported key lacks the version that was imported",
        ))?;
        let binding = key.binding(IMPORTED_VERSION);
        let material = material.open_by(&self.wrappers, config, &binding).await?;
        if !new.material.ct_eq(material.expose()) {
            return Ok(Some(Compared::Different("its material is another")));
        }
        if algorithm != new.algorithm {
            return Ok(Some(Compared::Different("its algorithm is another")));
        }
        let hmac = match key.hmac_key() {
            Some(hmac) => Some(
                hmac.open_by(&self.wrappers, config, &key.hmac_binding())
                    .await?,
            ),
            None => None,
        };
        let same = match (&new.hmac_key, hmac) {
            (HmacKey::Given(new), Some(hmac)) => new.ct_eq(hmac.expose()),
            (HmacKey::Given(_), None) | (HmacKey::Absent, Some(_)) => false,
            (HmacKey::Absent, None) | (HmacKey::Fresh, _) => true,
        };
        Ok(Some(if same {
            Compared::Same
        } else {
            Compared::Different("its HMAC key is another")
        }))
    }
}

fn checked(created_by: Option<&str>) -> Result<Option<&str>, KmsError> {
    let Some(text) = created_by else {
        return Ok(None);
    };
    if (1..=256).contains(&text.chars().count()) && !text.contains(char::is_control) {
        Ok(Some(text))
    } else {
        Err(KmsError::invalid(
            "created_by",
            "must be 1 to 256 characters, none of them a control character",
        ))
    }
}
