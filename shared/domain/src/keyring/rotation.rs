//! Changes of the stored root keyring: adds a root, takes one out, and tells the table which root is the newest.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;

use super::on_demand::{KeyringOnDemand, Reread};
use super::{KEYRING_SECRET, OpenError, RootKeyring, StoredKeyring, marked};
use crate::error::KmsError;
use crate::ports::{SecretVersion, TableWriter};
use crate::repository::{tried, won};

/// How long after a look at the newest root a process may still finish a write that it wrapped or signed under that
/// root. A call of a store ends earlier.
pub(crate) const WRITE_MARGIN: Duration = Duration::from_secs(10);
/// How long after a rotation another one is refused: every process notices the first one in this time.
const BETWEEN_ROTATIONS: SignedDuration = SignedDuration::from_secs(10);

/// Why the root was not rotated or retired.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// Another process changed the keyring at the same time.
    #[error(
        "another process changed the root keyring at the same time, and this one changed nothing; see `keyway root status`, \
         then run it again if that is still wanted"
    )]
    Overtaken,
    /// The last rotation was a moment ago.
    #[error(
        "the root was rotated to {root} a moment ago, perhaps by somebody else, and this run changed nothing; wait {} \
         seconds if another rotation is wanted",
        BETWEEN_ROTATIONS.as_secs()
    )]
    JustRotated {
        /// The newest root.
        root: String,
    },
    /// The keyring holds as many roots as it may.
    #[error("the root keyring holds as many roots as it may; retire old ones first")]
    TooMany,
    /// The keyring does not hold the root.
    #[error("the root keyring holds no root {root}; `keyway root status` lists its roots")]
    Unknown {
        /// The root.
        root: String,
    },
    /// The keyring holds the root.
    #[error("the root keyring holds the root {root}; `keyway root retire` takes it out")]
    Held {
        /// The root.
        root: String,
    },
    /// The root wraps and signs.
    #[error("{root} is the newest root, which wraps and signs; rotate the root first")]
    Newest {
        /// The root.
        root: String,
    },
    /// Something refers to the root.
    #[error(
        "{records} records and {copies} sealed copies in Vault still refer to the root {root}, and nobody could read them \
         without it; run `keyway root rewrap` first"
    )]
    InUse {
        /// The root.
        root: String,
        /// How many records refer to it.
        records: u64,
        /// How many sealed copies of keys in Vault do.
        copies: u64,
    },
    /// Some records could not be read.
    #[error(
        "{} records do not decode, so nobody can tell which roots they need; the first one is {}",
        .0.len(),
        .0.first().map_or("", String::as_str)
    )]
    Unreadable(Vec<String>),
    /// The wait for other processes was too short.
    #[error("the wait for the other processes was too short, and nothing was changed")]
    NotWaited,
    /// The keyring cannot be used.
    #[error("the root keyring")]
    Keyring(#[from] OpenError),
    /// A port failed.
    #[error("{}", .0.for_operator())]
    Failed(KmsError),
}

impl From<KmsError> for RootError {
    fn from(error: KmsError) -> Self {
        Self::Failed(error)
    }
}

/// The result of retiring a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retired {
    /// It was taken out now.
    Now,
    /// It was taken out before.
    Before,
}

impl KeyringOnDemand {
    /// The keyring as it is stored now. Also completes what the table says of it, after a rotation that was cut off.
    ///
    /// # Errors
    /// [`OpenError::KeyringOld`] when the table names a newer root than the keyring holds.
    pub(crate) async fn announced(
        &self,
        table: &dyn TableWriter,
    ) -> Result<Arc<RootKeyring>, RootError> {
        self.must_be_own().await?;
        let unavailable = |error| crate::keyring::kms_error("reading the root keyring", error);
        let keyring = self.read_again(Reread::After(Duration::ZERO)).await;
        let keyring = keyring.map_err(unavailable)?;
        let announced = || async {
            let marked = marked(table).await?.ok_or(OpenError::TableEmpty)?;
            keyring.must_be_of(&marked)?;
            if marked.names_newest_of(&keyring) {
                return Ok(Some(()));
            }
            let finished = marked.finish(&keyring, table, &*self.clock, &*self.random);
            finished.await.map(|()| None)
        };
        match tried(announced).await {
            Ok(Some(())) => Ok(keyring),
            Ok(None) => Err(RootError::Overtaken),
            Err(error) => Err(RootError::Keyring(error)),
        }
    }

    /// Adds a root to the stored keyring. This process uses it at once, and the others when they notice.
    pub(crate) async fn add_root(&self) -> Result<Arc<RootKeyring>, RootError> {
        let (mut stored, seen) = self.stored().await?;
        if let Some(newest) = stored.roots.last()
            && stored.roots.len() + stored.retired.len() > 1
            && self.clock.now().duration_since(newest.created_at).abs() < BETWEEN_ROTATIONS
        {
            return Err(RootError::JustRotated {
                root: newest.id.clone(),
            });
        }
        let added = stored.add_root(self.clock.as_ref(), self.random.as_ref())?;
        if added.is_none() {
            return Err(RootError::TooMany);
        }
        self.put(&stored, &seen).await
    }

    /// Takes the root out of the stored keyring. The caller has checked that nothing refers to it.
    pub(crate) async fn take_out(&self, root: &str) -> Result<(), RootError> {
        let (mut stored, seen) = self.stored().await?;
        must_be_older(&stored, root)?;
        stored.retire(root);
        self.put(&stored, &seen).await.map(drop)
    }

    /// Goes on without a root that the table names as the newest and whose keyring is lost: the keyring notes its id, so
    /// that the id is never used again, and the table names the newest root that is left. What only the lost root opens
    /// stays closed.
    ///
    /// # Errors
    /// [`RootError::Held`] when the keyring holds the root; [`RootError::Unknown`] when the table does not name it.
    pub async fn give_up(&self, table: &dyn TableWriter, root: &str) -> Result<(), RootError> {
        let root = root.to_owned();
        let (mut stored, seen) = self.stored().await?;
        if stored.roots.iter().any(|held| held.id == root) {
            return Err(RootError::Held { root });
        }
        if !stored.retired.contains(&root) {
            let marked = marked(table).await?.ok_or(OpenError::TableEmpty)?;
            if marked.deployment.root.as_ref() != Some(&root) {
                return Err(RootError::Unknown { root });
            }
            stored.retire(&root);
            self.keyring().await.map_err(|error| {
                RootError::Failed(crate::keyring::kms_error("the root keyring", error))
            })?;
            self.put(&stored, &seen).await?;
        }
        self.announced(table).await.map(drop)
    }

    /// Whether the stored keyring holds the root as an older one, or held it before.
    pub(crate) async fn older_root(&self, root: &str) -> Result<Retired, RootError> {
        let (stored, _) = self.stored().await?;
        if stored.retired.iter().any(|retired| retired == root) {
            return Ok(Retired::Before);
        }
        must_be_older(&stored, root).map(|()| Retired::Now)
    }

    async fn stored(&self) -> Result<(StoredKeyring, SecretVersion), RootError> {
        let kept = self.secrets.get(KEYRING_SECRET).await;
        let kept = kept.map_err(OpenError::Store)?;
        let (value, seen) = kept.ok_or(OpenError::KeyringMissing)?;
        Ok((StoredKeyring::parse(&value)?, seen))
    }

    async fn put(
        &self,
        stored: &StoredKeyring,
        seen: &SecretVersion,
    ) -> Result<Arc<RootKeyring>, RootError> {
        let value = stored.encode()?;
        // It must follow the keyring in memory, or this process would go on with an older root than the others.
        let next = RootKeyring::parse(&value, Arc::clone(&self.random))?;
        self.must_follow(&next)?;
        let written = self.secrets.put(KEYRING_SECRET, &value, Some(seen)).await;
        if !won(written).map_err(OpenError::Store)? {
            return Err(RootError::Overtaken);
        }
        let keyring = self.read_again(Reread::After(Duration::ZERO)).await;
        let unavailable = |error| crate::keyring::kms_error("reading the root keyring", error);
        let keyring = keyring.map_err(unavailable)?;
        // The file may have been replaced meanwhile, by an older copy of it.
        if keyring.holds(next.newest_root()) {
            Ok(keyring)
        } else {
            Err(RootError::Overtaken)
        }
    }
}

fn must_be_older(stored: &StoredKeyring, root: &str) -> Result<(), RootError> {
    let root = root.to_owned();
    if stored.roots.last().is_some_and(|newest| newest.id == root) {
        return Err(RootError::Newest { root });
    }
    if !stored.roots.iter().any(|held| held.id == root) {
        return Err(RootError::Unknown { root });
    }
    Ok(())
}
