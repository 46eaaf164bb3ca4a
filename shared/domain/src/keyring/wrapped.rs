//! The port that wraps secrets, and wrapped secrets in records.

use async_trait::async_trait;
use keyway_crypto::{Blob, Purpose, SecretBytes};
use serde::{Deserialize, Serialize};

use super::RootKeyring;
use crate::encoding::{self, base64_bytes};
use crate::error::{Fault, KmsError, one_line};
use crate::ports::{RandomError, Record};
use crate::repository::Noun;

/// What a wrapped secret is bound to: it does not unwrap as another kind of secret, in another row or as another version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding<'a> {
    /// The id of the key or access key that it belongs to.
    pub id: &'a str,
    /// The version of the key; 1 where there are no versions.
    pub version: u32,
    /// Where the secret comes from. It also tells master keys and access keys apart.
    pub origin: &'a str,
}

/// Why wrapping or unwrapping failed.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The wrapped secret does not have this binding, or was tampered with.
    #[error("the wrapped secret does not open under its binding")]
    NotAuthentic,
    /// The secret was wrapped under a root key that this keyring does not hold.
    #[error("the wrapped secret names a root that the keyring does not hold")]
    UnknownRoot,
    /// The wrapper is unavailable at present.
    #[error("{}", one_line(.0.as_ref()))]
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
    /// The generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// Wrapping itself failed.
    #[error("wrapping failed: {}", one_line(.0.as_ref()))]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}

/// Wraps secrets under a key that never enters the table.
#[async_trait]
pub trait KeyWrapper: Send + Sync {
    /// The wrapper's name in records. It never changes.
    fn name(&self) -> &'static str;

    /// Wraps the material under the binding.
    ///
    /// # Errors
    /// When the wrapper fails.
    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError>;

    /// Unwraps what [`KeyWrapper::wrap`] made under the same binding.
    ///
    /// # Errors
    /// When the material was not wrapped under this binding, or the wrapper fails.
    async fn unwrap(&self, binding: &Binding<'_>, wrapped: &[u8])
    -> Result<SecretBytes, WrapError>;
}

/// A wrapped secret in a record, with the name of its wrapper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrapped {
    wrapper: String,
    #[serde(with = "base64_bytes")]
    bytes: Vec<u8>,
}

impl Wrapped {
    /// The name of the wrapper that made it.
    pub(crate) fn wrapper(&self) -> &str {
        &self.wrapper
    }

    /// What another wrapper made, of this name.
    pub(crate) fn of(wrapper: &str, bytes: Vec<u8>) -> Self {
        Self {
            wrapper: wrapper.to_owned(),
            bytes,
        }
    }

    /// The wrapped bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The id of the root under which it was wrapped; `None` if another wrapper made it.
    pub(crate) fn root(&self) -> Result<Option<&str>, KmsError> {
        if self.wrapper != RootKeyring::NAME {
            return Ok(None);
        }
        let blob = parsed(&self.bytes).map_err(|error| kms_error("a wrapped secret", error))?;
        Ok(Some(blob.key_id()))
    }

    /// The same secret under the keyring's newest root; `None` if it needs no change.
    pub(crate) async fn renewed(
        &self,
        keyring: &RootKeyring,
        binding: &Binding<'_>,
    ) -> Result<Option<Self>, KmsError> {
        match self.root()? {
            Some(root) if root != keyring.newest_root() => {
                let opened = self.open(keyring, binding).await?;
                let renewed = Self::seal(keyring, binding, opened.expose()).await?;
                Ok(Some(renewed))
            }
            _ => Ok(None),
        }
    }

    pub(crate) async fn seal(
        wrapper: &dyn KeyWrapper,
        binding: &Binding<'_>,
        material: &[u8],
    ) -> Result<Self, KmsError> {
        let bytes = wrapper
            .wrap(binding, material)
            .await
            .map_err(|error| kms_error("wrapping a secret", error))?;
        Ok(Self {
            wrapper: wrapper.name().to_owned(),
            bytes,
        })
    }

    pub(crate) async fn open(
        &self,
        wrapper: &dyn KeyWrapper,
        binding: &Binding<'_>,
    ) -> Result<SecretBytes, KmsError> {
        if self.wrapper != wrapper.name() {
            return Err(
                Fault::plain("a secret was wrapped by a wrapper that is not configured").into(),
            );
        }
        wrapper
            .unwrap(binding, &self.bytes)
            .await
            .map_err(|error| kms_error("unwrapping a secret", error))
    }
}

/// A stored type that holds secrets which the root keyring may have wrapped.
pub(crate) trait HoldsSecrets: Noun {
    /// The wrapped secrets, each with the version and the origin that it is bound to. It is also bound to the record's id.
    fn secrets(&mut self) -> Vec<(u32, &'static str, &mut Wrapped)>;

    /// The roots under which the secrets of this record are wrapped.
    fn roots(record: &Record) -> Result<Vec<String>, KmsError> {
        let mut noun = Self::of(record)?;
        let mut roots = Vec::new();
        for (_, _, wrapped) in noun.secrets() {
            roots.extend(wrapped.root()?.map(str::to_owned));
        }
        Ok(roots)
    }

    /// The record's value with every secret under the keyring's newest root.
    async fn renewed(record: &Record, keyring: &RootKeyring) -> Result<Vec<u8>, KmsError> {
        let mut noun = Self::of(record)?;
        for (version, origin, wrapped) in noun.secrets() {
            let id = record.id.as_str();
            let binding = Binding {
                id,
                version,
                origin,
            };
            if let Some(renewed) = wrapped.renewed(keyring, &binding).await? {
                *wrapped = renewed;
            }
        }
        encoding::encode(&noun)
    }
}

pub(crate) fn kms_error(what: &'static str, error: WrapError) -> KmsError {
    match error {
        WrapError::Unavailable(source) => KmsError::Unavailable(Fault::new(what, source)),
        other => KmsError::Backend(Fault::new(what, other)),
    }
}

pub(super) fn parsed(wrapped: &[u8]) -> Result<Blob<'_>, WrapError> {
    Blob::parse(Purpose::Wrap, wrapped).map_err(|_| WrapError::NotAuthentic)
}
