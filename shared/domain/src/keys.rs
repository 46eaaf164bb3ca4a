//! Master keys: the type and the rules of its states here; reading and changing keys in the modules below.

pub(crate) mod aliases;
mod deletion;
mod directory;
mod import;
mod listing;
mod operations;
mod reader;
mod rotation;
mod spec;

use std::collections::BTreeMap;

use futures_util::future::try_join;
use jiff::{SignedDuration, Timestamp};
use keyway_crypto::SecretBytes;
use keyway_crypto::kes::Algorithm;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding;
use crate::error::{Fault, KmsError};
use crate::keyring::{Binding, HoldsSecrets, KeyWrapper, Wrapped};
use crate::ports::{Kind, Random, Record};
use crate::repository::Noun;

pub use crate::ids::{KeyId, KeySpec, KeyState, KeyUsage, Reference};
pub use aliases::{Alias, AliasName, AliasPage, MAX_ALIASES, NamedKey};
pub use deletion::Deletion;
pub use directory::KeyDirectory;
pub use import::{Compared, HmacKey, NewImport};
pub use listing::{IdPage, KeyPage, KeyQuery};
pub use operations::Keys;
pub(crate) use operations::stored_time;
pub use reader::KeyReader;
pub(crate) use reader::Material;
pub use rotation::{RotationPeriod, RotationSchedule};

/// The longest description, in characters. APIs may set a lower limit.
pub const MAX_DESCRIPTION: usize = 8192;

/// A description: at most [`MAX_DESCRIPTION`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description(String);

impl Description {
    /// Parses a description; an empty one is `None`.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] when it is too long.
    pub fn parse(text: String) -> Result<Option<Self>, KmsError> {
        if text.chars().count() > MAX_DESCRIPTION {
            return Err(KmsError::invalid(
                "description",
                format!("must be at most {MAX_DESCRIPTION} characters"),
            ));
        }
        Ok((!text.is_empty()).then_some(Self(text)))
    }

    /// The description as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tag by which some APIs name a key when it is made. A tag that is the key's id cannot be changed afterwards.
pub const NAME_TAG: &str = "name";

/// Tags: at most 50, keys of 1 to 128 characters, values of at most 256.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// The most tags of a key.
    pub const MOST: usize = 50;

    /// Parses tags.
    ///
    /// # Errors
    /// [`KmsError::TooManyTags`], and [`KmsError::Invalid`] when one is too long or has an empty key.
    pub fn parse(tags: BTreeMap<String, String>) -> Result<Self, KmsError> {
        if tags.len() > Self::MOST {
            return Err(KmsError::TooManyTags { most: Self::MOST });
        }
        for (key, value) in &tags {
            if !(1..=128).contains(&key.chars().count()) {
                return Err(KmsError::invalid(
                    "tags",
                    "a tag's key must be 1 to 128 characters",
                ));
            }
            if value.chars().count() > 256 {
                return Err(KmsError::invalid(
                    "tags",
                    "a tag's value must be at most 256 characters",
                ));
            }
        }
        Ok(Self(tags))
    }

    /// The value of the tag.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All tags in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// One version of a master key's material.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVersion {
    /// Its number, from 1.
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its random bytes, wrapped.
    material: Wrapped,
    /// Whether the janitor made it, by the key's schedule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_automatic: bool,
}

/// Where a key's material comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Made by this deployment.
    Kms,
    /// Imported from KES or MinIO as the key's first version, with its algorithm there. Later versions are made here.
    External {
        /// The algorithm of the ciphertexts that it made there.
        algorithm: Algorithm,
    },
}

impl Origin {
    /// The origin's name in answers and bindings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kms => "KMS",
            Self::External { .. } => "EXTERNAL",
        }
    }
}

/// A master key. Its newest version encrypts; all versions decrypt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterKey {
    format: u8,
    pub id: KeyId,
    #[serde(default, skip_serializing_if = "KeySpec::is_default")]
    pub spec: KeySpec,
    pub state: KeyState,
    /// A description for people.
    pub description: Option<Description>,
    pub tags: Tags,
    /// Where its material comes from.
    pub origin: Origin,
    /// When it was made.
    pub created_at: Timestamp,
    /// The principal that made it.
    pub created_by: String,
    /// Oldest first, never empty.
    versions: Vec<KeyVersion>,
    /// The key of its MACs: 32 bytes, wrapped, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hmac: Option<Wrapped>,
    /// The schedule of its automatic rotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<RotationSchedule>,
    /// The policy that was put on the key through an API that has policies of keys. It decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// The imported version of an imported key's material.
pub(crate) const IMPORTED_VERSION: u32 = 1;
/// The origin to which a key's wrapped HMAC key is bound.
const HMAC_ORIGIN: &str = "master-key/hmac";
/// The length of the HMAC key of a key that encrypts.
const HMAC_KEY_BYTES: usize = 32;

/// Keeps a record below the size that a store takes: a version takes about 400 bytes.
const MAX_VERSIONS: usize = 500;

impl MasterKey {
    /// The number of the version that encrypts.
    pub fn current_version(&self) -> u32 {
        self.versions.last().map_or(0, |version| version.version)
    }

    pub(crate) fn has_version(&self, version: u32) -> bool {
        self.versions.iter().any(|stored| stored.version == version)
    }

    /// When it was last rotated.
    pub fn rotated_at(&self) -> Option<Timestamp> {
        self.versions
            .last()
            .filter(|version| version.version > 1)
            .map(|version| version.created_at)
    }

    /// When its destruction is due.
    pub fn deletion_date(&self) -> Option<Timestamp> {
        match self.state {
            KeyState::PendingDeletion { at, .. } => Some(at),
            KeyState::Enabled | KeyState::Disabled => None,
        }
    }

    /// When an operation last left a date on the key, or somewhat earlier.
    pub(crate) fn touched_at(&self) -> Timestamp {
        let scheduled = (self.deletion_date())
            .and_then(|date| date.checked_sub(DeletionWindow::LONGEST.duration()).ok());
        let counted = self.rotation.and_then(RotationSchedule::counts_from);
        let versions = self.versions.iter().map(|version| version.created_at);
        let others = versions.chain(scheduled).chain(counted);
        others.fold(self.created_at, Timestamp::max)
    }

    /// Fails unless the key may be used for cryptography.
    ///
    /// # Errors
    /// [`KmsError::KeyState`] unless it is enabled.
    pub fn must_be_enabled(&self) -> Result<(), KmsError> {
        if self.state == KeyState::Enabled {
            Ok(())
        } else {
            Err(self.state_error())
        }
    }

    /// Fails unless the key is for this.
    ///
    /// # Errors
    /// [`KmsError::KeySpec`].
    pub fn must_be_for(&self, usage: KeyUsage) -> Result<(), KmsError> {
        if self.spec.usage() == usage {
            Ok(())
        } else {
            Err(KmsError::KeySpec {
                key_id: self.id.clone(),
                spec: self.spec,
            })
        }
    }

    fn must_not_be_pending(&self) -> Result<(), KmsError> {
        if self.deletion_date().is_none() {
            Ok(())
        } else {
            Err(self.state_error())
        }
    }

    /// Whether the tag `name` is its id, as of a key that was made by that tag.
    fn is_named_by_tag(&self) -> bool {
        self.tags.get(NAME_TAG) == Some(self.id.as_str())
    }

    fn state_error(&self) -> KmsError {
        KmsError::KeyState {
            key_id: self.id.clone(),
            state: self.state,
        }
    }

    /// Its wrapped materials and its wrapped HMAC key.
    fn wrapped(&self) -> impl Iterator<Item = &Wrapped> {
        let materials = self.versions.iter().map(|version| &version.material);
        materials.chain(&self.hmac)
    }

    /// Whether any of them is wrapped by this wrapper.
    pub(crate) fn is_wrapped_by(&self, wrapper: &str) -> bool {
        self.wrapped().any(|wrapped| wrapped.wrapper() == wrapper)
    }

    /// The newest date that it holds of the past.
    pub(crate) fn newest_date(&self) -> Timestamp {
        let made = self.versions.iter().map(|version| version.created_at);
        made.fold(self.created_at, Timestamp::max)
    }

    /// Whether its material and its HMAC key are wrapped by this wrapper.
    pub(crate) fn is_wrapped_only_by(&self, wrapper: &str) -> bool {
        self.wrapped().all(|wrapped| wrapped.wrapper() == wrapper)
    }

    /// Whether it can make MACs.
    pub fn has_hmac_key(&self) -> bool {
        self.hmac.is_some()
    }

    /// The algorithm of its ciphertexts in KES's formats, if it was imported from there.
    pub fn imported_algorithm(&self) -> Option<Algorithm> {
        match self.origin {
            Origin::Kms => None,
            Origin::External { algorithm } => Some(algorithm),
        }
    }

    /// Its versions, oldest first. Each but the first was made by a rotation.
    pub fn history(&self) -> &[KeyVersion] {
        &self.versions
    }

    /// The numbers of its versions, oldest first.
    pub(crate) fn versions(&self) -> Vec<u32> {
        self.versions
            .iter()
            .map(|version| version.version)
            .collect()
    }

    /// The wrapped material of a version.
    pub(crate) fn material(&self, version: u32) -> Option<&Wrapped> {
        self.versions
            .iter()
            .rev()
            .find(|stored| stored.version == version)
            .map(|stored| &stored.material)
    }

    pub(crate) fn set_material(&mut self, version: u32, material: Wrapped) {
        for stored in &mut self.versions {
            if stored.version == version {
                stored.material = material;
                return;
            }
        }
    }

    pub(crate) fn binding(&self, version: u32) -> Binding<'_> {
        Binding {
            id: self.id.as_str(),
            version,
            origin: self.bound_origin(),
        }
    }

    fn bound_origin(&self) -> &'static str {
        (self.spec.bound_origin()).unwrap_or(self.origin.as_str())
    }

    /// The wrapped HMAC key.
    pub(crate) fn hmac_key(&self) -> Option<&Wrapped> {
        self.hmac.as_ref()
    }

    pub(crate) fn set_hmac_key(&mut self, wrapped: Wrapped) {
        self.hmac = Some(wrapped);
    }

    pub(crate) fn hmac_binding(&self) -> Binding<'_> {
        Binding {
            id: self.id.as_str(),
            version: 1,
            origin: HMAC_ORIGIN,
        }
    }

    async fn new_version(
        &self,
        wrapper: &dyn KeyWrapper,
        material: &[u8],
        now: Timestamp,
    ) -> Result<KeyVersion, KmsError> {
        let version = self.current_version() + 1;
        let binding = self.binding(version);
        let material = Wrapped::seal(wrapper, &binding, material).await?;
        Ok(KeyVersion {
            version,
            created_at: now,
            material,
            is_automatic: false,
        })
    }

    /// Adds the first version, and the HMAC key if there is one, to a key that is being made.
    async fn begin(
        &mut self,
        wrapper: &dyn KeyWrapper,
        material: &[u8],
        hmac: Option<&[u8]>,
    ) -> Result<(), KmsError> {
        let wrapped_hmac = async {
            match hmac {
                Some(hmac) => Wrapped::seal(wrapper, &self.hmac_binding(), hmac)
                    .await
                    .map(Some),
                None => Ok(None),
            }
        };
        let first = self.new_version(wrapper, material, self.created_at);
        let (first, hmac) = try_join(first, wrapped_hmac).await?;
        self.versions.push(first);
        self.hmac = hmac;
        Ok(())
    }
}

/// Random bytes for a key.
fn drawn(random: &dyn Random, bytes: usize) -> Result<SecretBytes, KmsError> {
    let mut bytes = Zeroizing::new(vec![0; bytes]);
    random.fill(&mut bytes)?;
    Ok(SecretBytes::from(bytes))
}

impl Noun for MasterKey {
    const KIND: Kind = Kind::Key;

    fn of(record: &Record) -> Result<Self, KmsError> {
        let key: Self = encoding::decode_of(&record.value, &spec::FORMATS)?;
        if key.format != key.spec.record_format() {
            return Err(
                Fault::plain("a key's record has the format of another kind of key").into(),
            );
        }
        // Otherwise a record that was moved to another key's id would pass for that key's.
        if key.id.as_str() != record.id || key.versions.is_empty() {
            return Err(Fault::plain("a key's record is not the key's").into());
        }
        Ok(key)
    }
}

impl HoldsSecrets for MasterKey {
    fn secrets(&mut self) -> Vec<(u32, &'static str, &mut Wrapped)> {
        let origin = self.bound_origin();
        let versions = self.versions.iter_mut();
        let materials = versions.map(|version| (version.version, origin, &mut version.material));
        let hmac = self.hmac.as_mut().map(|hmac| (1, HMAC_ORIGIN, hmac));
        materials.chain(hmac).collect()
    }
}

/// A key that is to be made.
#[derive(Debug, Clone, Default)]
pub struct NewKey {
    /// Its id; `None` for a random UUID.
    pub id: Option<KeyId>,
    pub spec: KeySpec,
    /// A description for people.
    pub description: Option<Description>,
    pub tags: Tags,
    /// See [`MasterKey::policy`].
    pub policy: Option<String>,
}

/// A key's state without its dates, for filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    Enabled,
    Disabled,
    PendingDeletion,
}

impl From<KeyState> for KeyStatus {
    fn from(state: KeyState) -> Self {
        match state {
            KeyState::Enabled => Self::Enabled,
            KeyState::Disabled => Self::Disabled,
            KeyState::PendingDeletion { .. } => Self::PendingDeletion,
        }
    }
}

/// The waiting time of a scheduled deletion: 7 to 30 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionWindow(u8);

impl DeletionWindow {
    /// The default.
    pub const DEFAULT: Self = Self(7);
    /// The longest.
    const LONGEST: Self = Self(30);

    /// Parses a number of days.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] outside of 7 to 30.
    pub fn days(days: i64) -> Result<Self, KmsError> {
        u8::try_from(days)
            .ok()
            .filter(|days| (7..=30).contains(days))
            .map(Self)
            .ok_or_else(|| KmsError::invalid("pending_window_in_days", "must be between 7 and 30"))
    }

    const fn duration(self) -> SignedDuration {
        SignedDuration::from_hours(24 * self.0 as i64)
    }
}
