//! Wraps the deployment's secrets: the [`KeyWrapper`] port, and the root keyring that implements it.

mod bundle;
mod deployment;
mod on_demand;
mod rotation;
mod stored;
mod table_format;
mod wrapped;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::{EncryptionContext, Key256, Purpose, SecretBytes, mac_sha256, seal};

use crate::error::KmsError;
use crate::ports::{
    Clock, Kind, Random, RandomError, SecretStore, StoreError, TableReader, TableWriter,
};
use crate::repository::{self, won};

pub use bundle::BundleForgery;
use deployment::{Marked, deployment_record, mark, marked};
pub use deployment::{
    beginning_of_logs, deployment_in, deployment_of, extend_logs_to, holds_deployment,
};
pub use on_demand::{KeyringOnDemand, LOOK_AGAIN_AFTER};
pub(crate) use rotation::WRITE_MARGIN;
pub use rotation::{Retired, RootError};
use stored::StoredKeyring;
use wrapped::parsed;
pub use wrapped::{Binding, KeyWrapper, WrapError, Wrapped};
pub(crate) use wrapped::{HoldsSecrets, kms_error};

/// The name of the root keyring in the secret store.
pub const KEYRING_SECRET: &str = "root-keyring";
/// The id of the deployment's record, of the kind [`Kind::Config`].
pub const DEPLOYMENT_RECORD: &str = "deployment";

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
        marked
            .finish(&keyring, table, clock, random.as_ref())
            .await?;
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
        // Only records of a deployment may be lost, and its logs be there.
        let made = self
            .roots()
            .map(|(_, made)| made)
            .fold(clock.now(), Ord::min);
        let record = deployment_record(&self.deployment, made, false, newest, random)?;
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

    /// Whether the root of this id was taken out or given up.
    pub(crate) fn has_retired(&self, root: &str) -> bool {
        self.retired.iter().any(|retired| retired == root)
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
