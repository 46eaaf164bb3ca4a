//! Wraps the deployment's secrets: the [`KeyWrapper`] port, and the root keyring that implements it.

mod bundle;
mod on_demand;
mod rotation;
mod stored;
mod table_format;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose, SecretBytes, mac_sha256, seal};
use serde::{Deserialize, Serialize};

use crate::encoding::{self, base64_bytes};
use crate::error::{Fault, KmsError, one_line};
use crate::ids::uuid_v4;
use crate::ports::{
    Clock, Consistency, Kind, Random, RandomError, Record, Revision, SecretStore, StoreError,
    TableReader, TableWriter,
};
use crate::repository::{self, Noun, won};

pub use bundle::BundleForgery;
pub use on_demand::{KeyringOnDemand, LOOK_AGAIN_AFTER};
pub(crate) use rotation::WRITE_MARGIN;
pub use rotation::{Retired, RootError};
use stored::StoredKeyring;
use table_format::TableFormat;

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
    /// The table names a newest root that the keyring does not hold.
    #[error(
        "the root keyring is an older copy: it does not hold the root {0}, which the table names as the newest one; put \
         back the newest copy of the keyring, or if there is none, see `keyway root give-up`"
    )]
    KeyringOld(String),
    /// A later release made or changed the table, and this one does not know its format.
    #[error(
        "the table is of keyway {release} or later: its format is {found}, and this release knows formats up to {known}; run \
         that release, or restore the backup from before the upgrade (docs/upgrading.md)"
    )]
    TableNewer {
        /// The release that gave the table its format.
        release: String,
        /// The table's format.
        found: u32,
        /// The newest format that this release knows.
        known: u32,
    },
    /// A later release wrote the root keyring.
    #[error(
        "the root keyring has format {found}, and this release knows formats up to {known}; run the later release that wrote \
         it, or restore the backup from before the upgrade (docs/upgrading.md)"
    )]
    KeyringNewer {
        /// The keyring's format.
        found: u64,
        /// The newest format that this release knows.
        known: u8,
    },
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

/// The root keys of one deployment, held in memory and stored in the secret store. The last one wraps; all unwrap. It
/// never changes: a rotation writes another one, and [`KeyringOnDemand`] exchanges them.
pub struct RootKeyring {
    deployment: String,
    /// Oldest first, never empty.
    roots: Vec<Root>,
    /// The ids of the roots that were taken out.
    retired: Vec<String>,
    /// Whether every record of the table was signed when the keyring was read.
    signed: bool,
    random: Arc<dyn Random>,
}

struct Root {
    id: String,
    created_at: Timestamp,
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
    fn new(id: String, created_at: Timestamp, key: Key256) -> Self {
        Self {
            id,
            created_at,
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
    /// The id of the newest root; absent until the first rotation. The record is not signed, so this only tells a process
    /// that its keyring may be older than the stored one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// What a release must know to use the table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<TableFormat>,
}

/// The deployment's record as it was read.
struct Marked {
    deployment: Deployment,
    revision: Revision,
}

impl Marked {
    /// Whether the record names the keyring's newest root.
    fn names_newest_of(&self, keyring: &RootKeyring) -> bool {
        self.deployment.root.as_deref() == keyring.announced_root()
    }

    /// Records that there is a keyring, which root is its newest, and the table's format. Another process that records it
    /// first writes the same. After a rotation that was cut off, this completes what the table says.
    ///
    /// The keyring must hold the root that the record names, so that the record never names an older root than before.
    async fn finish(
        &self,
        keyring: &RootKeyring,
        table: &dyn TableWriter,
        random: &dyn Random,
    ) -> Result<(), OpenError> {
        let Deployment {
            deployment,
            created_at,
            establishing,
            needs,
            ..
        } = &self.deployment;
        if !establishing && self.names_newest_of(keyring) && !TableFormat::is_older(needs.as_ref())
        {
            return Ok(());
        }
        let newest = keyring.announced_root();
        let record = deployment_record(deployment, *created_at, false, newest, random)?;
        repository::write(table, &record, Some(self.revision)).await?;
        Ok(())
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
                let fresh = StoredKeyring::fresh(id, clock, random.as_ref())?.encode()?;
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
        marked.finish(&keyring, table, random.as_ref()).await?;
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
        let newest = self.announced_root();
        let record = deployment_record(&self.deployment, clock.now(), false, newest, random)?;
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
        if self.deployment != marked.deployment.deployment {
            return Err(OpenError::KeyringForeign);
        }
        match &marked.deployment.root {
            Some(root) if !self.holds(root) && !self.retired.contains(root) => {
                Err(OpenError::KeyringOld(root.clone()))
            }
            _ => Ok(()),
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
                Ok(Root::new(root.id.clone(), root.created_at, key))
            })
            .collect::<Result<_, OpenError>>()?;
        if roots.is_empty() {
            return Err(OpenError::KeyringDamaged("it holds no root key"));
        }
        Ok(Self {
            deployment: stored.deployment.clone(),
            roots,
            retired: stored.retired.clone(),
            signed: stored.signed,
            random,
        })
    }

    /// The id of the root that wraps and signs.
    pub fn newest_root(&self) -> &str {
        self.roots.last().map_or("", |root| &root.id)
    }

    /// What the deployment's record names as the newest root: none before the first rotation.
    fn announced_root(&self) -> Option<&str> {
        (self.roots.len() > 1 || !self.retired.is_empty()).then(|| self.newest_root())
    }

    /// Whether every record of the table was signed when it was read.
    pub(crate) const fn all_are_signed(&self) -> bool {
        self.signed
    }

    /// Whether it holds the root of this id.
    pub(crate) fn holds(&self, root: &str) -> bool {
        self.roots.iter().any(|held| held.id == root)
    }

    /// The ids of its roots and when they were made, oldest first.
    pub fn roots(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.roots
            .iter()
            .map(|root| (root.id.as_str(), root.created_at))
    }

    /// Whether it can take the place of an earlier keyring in memory. It cannot if it lost a root that was not retired,
    /// or the mark that all records are signed: then it is an older copy, or another deployment's.
    fn follows(&self, earlier: &Self) -> bool {
        let has_root = |root: &Root| {
            let is_held = |held: &Root| held.id == root.id && held.key.ct_eq(root.key.expose());
            self.roots.iter().any(is_held) || self.retired.contains(&root.id)
        };
        self.deployment == earlier.deployment
            && (self.signed || !earlier.signed)
            && earlier.roots.iter().all(has_root)
    }

    /// The id of its deployment.
    pub fn deployment(&self) -> &str {
        &self.deployment
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
        let blob = parsed(wrapped)?;
        let root = self
            .roots
            .iter()
            .find(|root| root.id == blob.key_id())
            .ok_or(WrapError::UnknownRoot)?;
        blob.open(&root.key, &self.context(binding)?)
            .map_err(|_| WrapError::NotAuthentic)
    }
}

fn parsed(wrapped: &[u8]) -> Result<Blob<'_>, WrapError> {
    Blob::parse(Purpose::Wrap, wrapped).map_err(|_| WrapError::NotAuthentic)
}

/// Reads the keyring and the table's deployment concurrently.
async fn look(
    table: &dyn TableReader,
    secrets: &dyn SecretStore,
    random: &Arc<dyn Random>,
) -> Result<(Option<RootKeyring>, Option<Marked>), OpenError> {
    let (keyring, marked) = futures_util::future::join(kept(secrets, random), marked(table)).await;
    let (keyring, marked) = (keyring?, marked?);
    match (keyring, marked) {
        // If only one was found, another process may have made its first start between the two reads, so read again.
        (Some(keyring), None) => Ok((Some(keyring), self::marked(table).await?)),
        (None, Some(marked)) if !marked.deployment.establishing => {
            Ok((kept(secrets, random).await?, Some(marked)))
        }
        // The root may have been rotated between the two reads.
        (Some(keyring), Some(marked)) if keyring.must_be_of(&marked).is_err() => {
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
        deployment: decoded(&record)?,
        revision: record.revision,
    }))
}

fn decoded(record: &Record) -> Result<Deployment, OpenError> {
    let deployment: Deployment = encoding::decode(&record.value).map_err(OpenError::Operation)?;
    TableFormat::check(deployment.needs.as_ref())?;
    Ok(deployment)
}

/// The id of the deployment whose record this is.
///
/// # Errors
/// When it does not decode, or this release does not know the format of the table that it is from.
pub fn deployment_in(record: &Record) -> Result<String, OpenError> {
    decoded(record).map(|deployment| deployment.deployment)
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
    let record = deployment_record(&uuid_v4(id), clock.now(), true, None, random)?;
    repository::write(table, &record, None).await?;
    marked(table).await?.ok_or(OpenError::NotEstablished)
}

fn deployment_record(
    deployment: &str,
    created_at: Timestamp,
    establishing: bool,
    newest_root: Option<&str>,
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
            root: newest_root.map(str::to_owned),
            needs: Some(TableFormat::own()),
        })
        .map_err(OpenError::Operation)?,
        expires_at: None,
    })
}
