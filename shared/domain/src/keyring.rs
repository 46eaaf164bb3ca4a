//! Wraps the deployment's secrets: the [`KeyWrapper`] port, and the root keyring that implements it.

mod bundle;
mod on_demand;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose, SecretBytes, mac_sha256, seal};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::encoding::{self, base64_bytes};
use crate::error::{Fault, KmsError, one_line};
use crate::ids::uuid_v4;
use crate::ports::{
    Clock, Consistency, Kind, Random, RandomError, Record, Revision, SecretStore, StoreError,
    TableReader, TableWriter,
};
use crate::repository::{self, won};

pub use bundle::BundleForgery;
pub use on_demand::KeyringOnDemand;

/// The name of the root keyring in the secret store.
pub const KEYRING_SECRET: &str = "root-keyring";
/// The id of the deployment's record, of the kind [`Kind::Config`].
pub const DEPLOYMENT_RECORD: &str = "deployment";

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

/// Why a deployment cannot be opened. For the operator who starts it, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The table holds a deployment, but the secret store has no root keyring, so its keys cannot be unwrapped.
    #[error(
        "the table holds a deployment whose root keyring is missing from the secret store; \
         restore the keyring, or start with an empty table"
    )]
    KeyringMissing,
    /// There is a root keyring, but the table holds no deployment: the table was lost, or is another one.
    #[error(
        "the root keyring is there, but the table is empty or gone: restore the table from a backup. If everything in it \
         is meant to be lost, start once with --accept-empty-table (KEYWAY_ACCEPT_EMPTY_TABLE=true)"
    )]
    TableEmpty,
    /// The table holds no deployment yet, and this process may not make one.
    #[error(
        "the table holds no deployment yet; `keyway serve` makes it when it starts, and on AWS the setup function when the \
         stack is deployed"
    )]
    NotEstablished,
    /// The root keyring and the table belong to different deployments.
    #[error(
        "the root keyring belongs to another deployment than the table; both must come from the same place"
    )]
    KeyringForeign,
    /// The root keyring was read but is damaged.
    #[error("the root keyring is damaged: {0}")]
    KeyringDamaged(&'static str),
    /// The table or the secret store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The generator failed.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// An operation failed.
    #[error("{}", .0.for_operator())]
    Operation(KmsError),
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

pub(crate) fn kms_error(what: &'static str, error: WrapError) -> KmsError {
    match error {
        WrapError::Unavailable(source) => KmsError::Unavailable(Fault::new(what, source)),
        other => KmsError::Backend(Fault::new(what, other)),
    }
}

/// The root keys of one deployment, held in memory and stored in the secret store. The last one wraps; all unwrap.
pub struct RootKeyring {
    deployment: String,
    roots: Vec<Root>,
    /// Whether every record of the table was signed when the keyring was read.
    signed: bool,
    random: Arc<dyn Random>,
}

struct Root {
    id: String,
    key: Key256,
    /// The keys that sign the records of each kind, in the order of [`Kind::ALL`].
    record_keys: [Key256; Kind::ALL.len()],
}

const RECORD_KEY_LABEL: &[u8] = b"keyway/v1/record-key\0";

/// The key, derived from this root key, that signs records of this kind.
fn record_key(root: &Key256, kind: Kind) -> Key256 {
    Key256::from(mac_sha256(
        root,
        &[RECORD_KEY_LABEL, kind.as_str().as_bytes()],
    ))
}

impl Root {
    fn new(id: String, key: Key256) -> Self {
        Self {
            id,
            record_keys: Kind::ALL.map(|kind| record_key(&key, kind)),
            key,
        }
    }

    fn record_key(&self, kind: Kind) -> Option<&Key256> {
        let place = Kind::ALL.iter().position(|other| *other == kind)?;
        self.record_keys.get(place)
    }
}

/// The deployment's record in the table. It says that a keyring must exist, and which one.
#[derive(Serialize, Deserialize)]
struct Deployment {
    format: u8,
    deployment: String,
    created_at: Timestamp,
    /// The first start is under way or was cut off, so there may be no keyring yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    establishing: bool,
}

/// The deployment's record as it was read.
struct Marked {
    deployment: Deployment,
    revision: Revision,
}

impl Marked {
    /// Records that there is a keyring. Another process that records it first writes the same.
    async fn finish(&self, table: &dyn TableWriter, random: &dyn Random) -> Result<(), OpenError> {
        let Deployment {
            deployment,
            created_at,
            establishing,
            ..
        } = &self.deployment;
        if !establishing {
            return Ok(());
        }
        let record = deployment_record(deployment, *created_at, false, random)?;
        repository::write(table, &record, Some(self.revision)).await?;
        Ok(())
    }
}

/// The keyring's JSON in the secret store.
#[derive(Serialize, Deserialize)]
struct StoredKeyring {
    format: u8,
    deployment: String,
    roots: Vec<StoredRoot>,
    /// Whether every record of the table is signed.
    #[serde(default)]
    signed: bool,
}

impl StoredKeyring {
    fn parse(value: &SecretBytes) -> Result<Self, OpenError> {
        let stored: Self = serde_json::from_slice(value.expose())
            .map_err(|_| OpenError::KeyringDamaged("it is not the JSON that keyway writes"))?;
        if stored.format != encoding::FORMAT {
            return Err(OpenError::KeyringDamaged(
                "its format is not known to this version",
            ));
        }
        Ok(stored)
    }

    fn encode(&self) -> Result<SecretBytes, OpenError> {
        encoding::encode(self)
            .map(SecretBytes::from)
            .map_err(OpenError::Operation)
    }
}

#[derive(Serialize, Deserialize)]
struct StoredRoot {
    id: String,
    created_at: Timestamp,
    #[serde(with = "base64_bytes")]
    key: Vec<u8>,
}

impl Drop for StoredRoot {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl RootKeyring {
    /// This wrapper's name in records.
    pub const NAME: &'static str = "root";

    /// Opens the deployment's keyring. The very first start makes the keyring and marks the table as this deployment's.
    /// If several processes start at once, one makes the keyring and all open the same one.
    ///
    /// The table is marked first, so a keyring without a marked table means that the table was lost.
    ///
    /// # Errors
    /// [`OpenError::KeyringMissing`], instead of a new keyring, when the table already holds a deployment;
    /// [`OpenError::TableEmpty`] when there is a keyring and the table holds no deployment;
    /// [`OpenError::KeyringForeign`] when the two belong to different deployments.
    pub async fn establish(
        table: &dyn TableWriter,
        secrets: &dyn SecretStore,
        clock: &dyn Clock,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        let (keyring, marked) = match look(table, secrets, &random).await? {
            (Some(keyring), Some(marked)) => (keyring, marked),
            (Some(_), None) => return Err(OpenError::TableEmpty),
            (None, Some(marked)) if !marked.deployment.establishing => {
                return Err(OpenError::KeyringMissing);
            }
            (None, marked) => {
                let marked = match marked {
                    Some(marked) => marked,
                    None => mark(table, clock, random.as_ref()).await?,
                };
                let id = &marked.deployment.deployment;
                let fresh = new_keyring(id, clock, random.as_ref())?;
                let is_written = won(secrets.put(KEYRING_SECRET, &fresh, None).await)?;
                let keyring = if is_written {
                    Self::parse(&fresh, Arc::clone(&random))?
                } else {
                    kept(secrets, &random)
                        .await?
                        .ok_or(OpenError::KeyringMissing)?
                };
                (keyring, marked)
            }
        };
        keyring.must_be_of(&marked)?;
        marked.finish(table, random.as_ref()).await?;
        Ok(keyring)
    }

    /// Marks a table that holds no deployment as this keyring's. For an operator who knows that the table's content is
    /// lost and starts again with the same keyring. Does nothing if there is no keyring, or if the table holds a
    /// deployment.
    ///
    /// # Errors
    /// When the table or the secret store fails.
    pub async fn adopt_empty_table(
        table: &dyn TableWriter,
        secrets: &dyn SecretStore,
        clock: &dyn Clock,
        random: Arc<dyn Random>,
    ) -> Result<(), OpenError> {
        match look(table, secrets, &random).await? {
            (Some(keyring), None) => keyring.adopt(table, clock).await,
            _ => Ok(()),
        }
    }

    async fn adopt(&self, table: &dyn TableWriter, clock: &dyn Clock) -> Result<(), OpenError> {
        let random = self.random.as_ref();
        let record = deployment_record(&self.deployment, clock.now(), false, random)?;
        if repository::write(table, &record, None).await? {
            tracing::warn!(
                "the table held no deployment and is taken as an empty one of this root keyring, as it was asked for"
            );
        }
        Ok(())
    }

    /// Opens the keyring of a deployment that exists.
    ///
    /// # Errors
    /// As [`RootKeyring::establish`]; [`OpenError::NotEstablished`] when there is neither a keyring nor a deployment.
    pub async fn open(
        table: &dyn TableReader,
        secrets: &dyn SecretStore,
        random: Arc<dyn Random>,
    ) -> Result<Self, OpenError> {
        match look(table, secrets, &random).await? {
            (Some(keyring), Some(marked)) => keyring.must_be_of(&marked).map(|()| keyring),
            (Some(_), None) => Err(OpenError::TableEmpty),
            (None, Some(marked)) if !marked.deployment.establishing => {
                Err(OpenError::KeyringMissing)
            }
            (None, _) => Err(OpenError::NotEstablished),
        }
    }

    fn must_be_of(&self, marked: &Marked) -> Result<(), OpenError> {
        if self.deployment == marked.deployment.deployment {
            Ok(())
        } else {
            Err(OpenError::KeyringForeign)
        }
    }

    /// Reads a keyring as the secret store has it.
    ///
    /// # Errors
    /// [`OpenError::KeyringDamaged`].
    pub fn parse(value: &SecretBytes, random: Arc<dyn Random>) -> Result<Self, OpenError> {
        let stored = StoredKeyring::parse(value)?;
        let roots: Vec<Root> = stored
            .roots
            .iter()
            .map(|root| {
                let key = Key256::try_from(root.key.as_slice())
                    .map_err(|_| OpenError::KeyringDamaged("a root key is not 32 bytes long"))?;
                Ok(Root::new(root.id.clone(), key))
            })
            .collect::<Result<_, OpenError>>()?;
        if roots.is_empty() {
            return Err(OpenError::KeyringDamaged("it holds no root key"));
        }
        Ok(Self {
            deployment: stored.deployment,
            roots,
            signed: stored.signed,
            random,
        })
    }

    /// The id of its deployment.
    pub fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Whether records without a signature are refused.
    pub(crate) const fn demands_signatures(&self) -> bool {
        self.signed
    }

    /// The key that signs new records of this kind, and the id of the root key that it is derived from.
    pub(crate) fn signing_key(&self, kind: Kind) -> Option<(&str, &Key256)> {
        let root = self.roots.last()?;
        Some((&root.id, root.record_key(kind)?))
    }

    /// The key that verifies records of this kind that were signed under this root key.
    pub(crate) fn verifying_key(&self, root: &str, kind: Kind) -> Option<&Key256> {
        let root = self.roots.iter().find(|kept| kept.id == root)?;
        root.record_key(kind)
    }

    fn context(&self, binding: &Binding<'_>) -> Result<EncryptionContext, WrapError> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        EncryptionContext::from_pairs([
            pair("deployment", &self.deployment),
            pair("key_id", binding.id),
            pair("key_version", &binding.version.to_string()),
            pair("origin", binding.origin),
        ])
        .map_err(|error| WrapError::Failed(error.into()))
    }
}

#[async_trait]
impl KeyWrapper for RootKeyring {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        let root = self.roots.last().ok_or(WrapError::UnknownRoot)?;
        let mut fresh = [0; 32];
        self.random.fill(&mut fresh)?;
        seal(
            Purpose::Wrap,
            &root.key,
            &root.id,
            1,
            &self.context(binding)?,
            material,
            &fresh,
        )
        .map_err(|error| WrapError::Failed(error.into()))
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let blob = Blob::parse(Purpose::Wrap, wrapped).map_err(|_| WrapError::NotAuthentic)?;
        let root = self
            .roots
            .iter()
            .find(|root| root.id == blob.key_id())
            .ok_or(WrapError::UnknownRoot)?;
        blob.open(&root.key, &self.context(binding)?)
            .map_err(|_| WrapError::NotAuthentic)
    }
}

/// Reads the keyring and the table's deployment concurrently.
async fn look(
    table: &dyn TableReader,
    secrets: &dyn SecretStore,
    random: &Arc<dyn Random>,
) -> Result<(Option<RootKeyring>, Option<Marked>), OpenError> {
    let (keyring, marked) = futures_util::future::join(kept(secrets, random), marked(table)).await;
    let (keyring, marked) = (keyring?, marked?);
    // If only one was found, another process may have made its first start between the two reads, so read again.
    match (keyring, marked) {
        (Some(keyring), None) => Ok((Some(keyring), self::marked(table).await?)),
        (None, Some(marked)) if !marked.deployment.establishing => {
            Ok((kept(secrets, random).await?, Some(marked)))
        }
        found => Ok(found),
    }
}

async fn kept(
    secrets: &dyn SecretStore,
    random: &Arc<dyn Random>,
) -> Result<Option<RootKeyring>, OpenError> {
    let kept = secrets.get(KEYRING_SECRET).await?;
    kept.map(|(value, _)| RootKeyring::parse(&value, Arc::clone(random)))
        .transpose()
}

async fn marked(table: &dyn TableReader) -> Result<Option<Marked>, OpenError> {
    let Some(record) = table
        .get(Kind::Config, DEPLOYMENT_RECORD, Consistency::Strong)
        .await?
    else {
        return Ok(None);
    };
    Ok(Some(Marked {
        deployment: encoding::decode(&record.value).map_err(OpenError::Operation)?,
        revision: record.revision,
    }))
}

/// The id of the deployment that the table holds, even of one whose first start was cut off.
///
/// # Errors
/// When the table fails, or its record does not decode.
pub async fn deployment_of(table: &dyn TableReader) -> Result<Option<String>, OpenError> {
    let marked = marked(table).await?;
    Ok(marked.map(|marked| marked.deployment.deployment))
}

/// Whether the table holds a deployment, even one whose first start was cut off.
///
/// # Errors
/// When the table fails, or its record does not decode.
pub async fn holds_deployment(table: &dyn TableReader) -> Result<bool, OpenError> {
    Ok(marked(table).await?.is_some())
}

/// Marks the table for a new deployment, before its keyring is made. If several processes mark it at once, one wins.
async fn mark(
    table: &dyn TableWriter,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<Marked, OpenError> {
    let mut id = [0; 16];
    random.fill(&mut id)?;
    let record = deployment_record(&uuid_v4(id), clock.now(), true, random)?;
    repository::write(table, &record, None).await?;
    marked(table).await?.ok_or(OpenError::NotEstablished)
}

fn deployment_record(
    deployment: &str,
    created_at: Timestamp,
    establishing: bool,
    random: &dyn Random,
) -> Result<Record, OpenError> {
    Ok(Record {
        kind: Kind::Config,
        id: DEPLOYMENT_RECORD.to_owned(),
        revision: Revision::random(random)?,
        value: encoding::encode(&Deployment {
            format: encoding::FORMAT,
            deployment: deployment.to_owned(),
            created_at,
            establishing,
        })
        .map_err(OpenError::Operation)?,
        expires_at: None,
    })
}

fn new_keyring(
    deployment: &str,
    clock: &dyn Clock,
    random: &dyn Random,
) -> Result<SecretBytes, OpenError> {
    let mut key = vec![0; 32];
    random.fill(&mut key)?;
    let keyring = StoredKeyring {
        format: encoding::FORMAT,
        deployment: deployment.to_owned(),
        roots: vec![StoredRoot {
            id: "r1".to_owned(),
            created_at: clock.now(),
            key,
        }],
        signed: true,
    };
    keyring.encode()
}
