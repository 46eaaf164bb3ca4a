//! Reading keys to serve data keys from: states and unwrapped material, both cached.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use keyway_crypto::Key256;

use super::{KeyId, MasterKey, decode};
use crate::cache::Cache;
use crate::error::{Fault, KmsError};
use crate::keyring::{KeyWrapper, Wrapped};
use crate::ports::{Clock, Consistency, Kind, Revision, TableReader};

/// Reads keys for data-key operations: their states, at most the state TTL old, and their unwrapped material.
pub struct KeyReader {
    table: Arc<dyn TableReader>,
    wrapper: Arc<dyn KeyWrapper>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    states: Cache<KeyId, MasterKey>,
    material: Cache<(KeyId, u32), Material>,
}

struct Material {
    key: Key256,
    /// What it was unwrapped from. A name that was deleted and given again has other material at the same version.
    wrapped: Wrapped,
}

/// How long unwrapped material is served from memory.
pub const MATERIAL_TTL: Duration = Duration::from_secs(600);
/// How many versions' material is held at most.
pub const MATERIAL_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const STATE_CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

impl KeyReader {
    /// `state_ttl`: how long an instance may act on a state that another instance has changed since; zero reads each time.
    pub fn new(
        table: Arc<dyn TableReader>,
        wrapper: Arc<dyn KeyWrapper>,
        clock: Arc<dyn Clock>,
        state_ttl: Duration,
    ) -> Self {
        let (states, material) = (Cache::new(STATE_CAPACITY), Cache::new(MATERIAL_CAPACITY));
        Self {
            table,
            wrapper,
            clock,
            state_ttl,
            states,
            material,
        }
    }

    /// The key as it was at most the state TTL ago.
    pub(crate) async fn find(&self, id: &KeyId) -> Result<Option<Arc<MasterKey>>, KmsError> {
        let now = self.clock.monotonic();
        if let Some(key) = self.states.get(id, now, self.state_ttl) {
            return Ok(Some(key));
        }
        let ticket = self.states.begin(now);
        let Some((key, _)) = self.read(id).await? else {
            return Ok(None);
        };
        let key = Arc::new(key);
        self.states
            .insert(ticket, id.clone(), Arc::clone(&key), self.state_ttl);
        Ok(Some(key))
    }

    /// The key as it is now, for whoever met a version that the key as it was does not have:
    /// another instance may have rotated it since.
    pub(crate) async fn find_anew(&self, id: &KeyId) -> Result<Option<Arc<MasterKey>>, KmsError> {
        self.states.forget(id);
        self.find(id).await
    }

    /// The key as it is now.
    pub(crate) async fn read(&self, id: &KeyId) -> Result<Option<(MasterKey, Revision)>, KmsError> {
        match self
            .table
            .get(Kind::Key, id.as_str(), Consistency::Strong)
            .await?
        {
            Some(record) => Ok(Some((decode(&record)?, record.revision))),
            None => Ok(None),
        }
    }

    /// Runs `use_it` on the key's material of this version; `None` when it has no such version.
    pub(crate) async fn with_material<T>(
        &self,
        key: &MasterKey,
        version: u32,
        use_it: impl FnOnce(&Key256) -> T + Send,
    ) -> Result<Option<T>, KmsError> {
        let Some(stored) = key
            .versions
            .iter()
            .rev()
            .find(|stored| stored.version == version)
        else {
            return Ok(None);
        };
        let slot = (key.id.clone(), version);
        let now = self.clock.monotonic();
        if let Some(cached) = self.material.get(&slot, now, MATERIAL_TTL)
            && cached.wrapped == stored.material
        {
            return Ok(Some(use_it(&cached.key)));
        }
        let ticket = self.material.begin(now);
        let material = stored
            .material
            .open(self.wrapper.as_ref(), &key.binding(version))
            .await?;
        let unwrapped = Key256::try_from(material.expose())
            .map_err(|_| Fault::plain("a master key's material is not 32 bytes long"))?;
        let material = Arc::new(Material {
            key: unwrapped,
            wrapped: stored.material.clone(),
        });
        self.material
            .insert(ticket, slot, Arc::clone(&material), MATERIAL_TTL);
        Ok(Some(use_it(&material.key)))
    }

    pub(super) fn forget(&self, id: &KeyId) {
        self.states.forget(id);
    }
}
