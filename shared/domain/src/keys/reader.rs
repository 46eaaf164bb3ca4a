//! Reads keys for data-key operations. States and unwrapped material are cached.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keyway_crypto::{Key256, SecretBytes};

use super::{Alias, AliasName, KeyId, MasterKey, NamedKey, aliases};
use crate::cache::{Cache, CacheStats};
use crate::error::{Fault, KmsError};
use crate::keyring::{Binding, Wrapped};
use crate::ports::{Clock, Kind, Revision, TableChange, TableReader};
use crate::repository::load;
use crate::service::{CacheSettings, ServiceConfig};
use crate::wrappers::Wrappers;

/// Reads keys for data-key operations: their states, at most the state TTL old, and their unwrapped material.
pub struct KeyReader {
    table: Arc<dyn TableReader>,
    wrappers: Arc<Wrappers>,
    clock: Arc<dyn Clock>,
    state_ttl: Duration,
    states: Cache<KeyId, MasterKey>,
    aliases: Cache<AliasName, Alias>,
    /// The names of which no alias is stored. They have a cache of their own, because any caller can fill it.
    unused_names: Cache<AliasName, ()>,
    material: Cache<(KeyId, Part), Material>,
    /// The material of MAC keys.
    mac_material: Cache<KeyId, Material<SecretBytes>>,
    /// The cache epoch and settings that were last applied from the configuration.
    obeyed: Mutex<Option<(u64, CacheSettings)>>,
}

/// Which secret of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Version(u32),
    Hmac,
}

/// Unwrapped material. A request in progress may hold it a little longer than the cache.
pub(crate) struct Material<K = Key256> {
    pub(crate) key: K,
    /// The wrapped form. A key that was deleted and made again under its name has other material at the same version.
    wrapped: Wrapped,
}

/// Unwrapped material as operations use it.
pub(crate) trait OfBytes: Sized {
    fn of(bytes: SecretBytes) -> Result<Self, KmsError>;
}

impl OfBytes for Key256 {
    fn of(bytes: SecretBytes) -> Result<Self, KmsError> {
        Self::try_from(bytes.expose())
            .map_err(|_| Fault::plain("a master key's material is not 32 bytes long").into())
    }
}

impl OfBytes for SecretBytes {
    fn of(bytes: SecretBytes) -> Result<Self, KmsError> {
        Ok(bytes)
    }
}

const STATE_CAPACITY: NonZeroUsize = NonZeroUsize::new(4096).unwrap();
const UNUSED_CAPACITY: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

impl KeyReader {
    /// `state_ttl`: how long an instance may use a state that another one has changed. Zero reads the table each time.
    pub fn new(
        table: Arc<dyn TableReader>,
        wrappers: Arc<Wrappers>,
        clock: Arc<dyn Clock>,
        state_ttl: Duration,
    ) -> Self {
        let (states, material) = (Cache::new(STATE_CAPACITY), Cache::new(NonZeroUsize::MIN));
        let mac_material = Cache::new(NonZeroUsize::MIN);
        Self {
            table,
            wrappers,
            clock,
            state_ttl,
            states,
            aliases: Cache::new(STATE_CAPACITY),
            unused_names: Cache::new(UNUSED_CAPACITY),
            material,
            mac_material,
            obeyed: Mutex::default(),
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

    /// The key that was created at this time, if one is given. As [`KeyReader::find`], but a key that was made later under
    /// the same id is not found.
    pub(crate) async fn find_named(
        &self,
        named: &NamedKey,
    ) -> Result<Option<Arc<MasterKey>>, KmsError> {
        match self.find(&named.id).await? {
            // The alias may be newer than the cached key.
            Some(key) if !named.is(&key) => {
                let key = self.find_anew(&named.id).await?;
                Ok(key.filter(|key| named.is(key)))
            }
            found => Ok(found),
        }
    }

    /// The key that the alias stood for at most the state TTL ago. While no alias of this name is stored, that is the key
    /// whose id is the name. It need not exist.
    pub(crate) async fn resolve(&self, alias: &AliasName) -> Result<NamedKey, KmsError> {
        let (now, ttl) = (self.clock.monotonic(), self.state_ttl);
        if let Some(alias) = self.aliases.get(alias, now, ttl) {
            return Ok(alias.named_key());
        }
        if self.unused_names.get(alias, now, ttl).is_some() {
            return Ok(alias.implicit_key().into());
        }
        let (ticket, unused) = (self.aliases.begin(now), self.unused_names.begin(now));
        let Some((stored, _)) = aliases::find(self.table.as_ref(), alias).await? else {
            self.unused_names
                .insert(unused, alias.clone(), Arc::new(()), ttl);
            return Ok(alias.implicit_key().into());
        };
        let named = stored.named_key();
        self.aliases
            .insert(ticket, alias.clone(), Arc::new(stored), ttl);
        Ok(named)
    }

    /// The key as it is now, for a version that the cached key does not have: another instance may have rotated it.
    pub(crate) async fn find_anew(&self, id: &KeyId) -> Result<Option<Arc<MasterKey>>, KmsError> {
        self.states.forget(id);
        self.find(id).await
    }

    /// The key as it is now.
    pub(crate) async fn read(&self, id: &KeyId) -> Result<Option<(MasterKey, Revision)>, KmsError> {
        load(self.table.as_ref(), id.as_str()).await
    }

    /// The key's material of this version, unwrapped; `None` when it has no such version.
    pub(crate) async fn material(
        &self,
        config: &ServiceConfig,
        key: &MasterKey,
        version: u32,
    ) -> Result<Option<Arc<Material>>, KmsError> {
        let Some(stored) = key.material(version) else {
            return Ok(None);
        };
        let slot = (key.id.clone(), Part::Version(version));
        self.unwrapped(config, &self.material, slot, stored, &key.binding(version))
            .await
            .map(Some)
    }

    /// The material of a MAC key, unwrapped.
    pub(crate) async fn mac_key(
        &self,
        config: &ServiceConfig,
        key: &MasterKey,
    ) -> Result<Arc<Material<SecretBytes>>, KmsError> {
        let version = key.current_version();
        let stored = key.material(version);
        let stored = stored.ok_or(Fault::plain("a key has no current version"))?;
        let (slot, binding) = (key.id.clone(), key.binding(version));
        self.unwrapped(config, &self.mac_material, slot, stored, &binding)
            .await
    }

    /// The key's HMAC key, unwrapped; `None` when it has none.
    pub(crate) async fn hmac_key(
        &self,
        config: &ServiceConfig,
        key: &MasterKey,
    ) -> Result<Option<Arc<Material>>, KmsError> {
        let Some(stored) = key.hmac_key() else {
            return Ok(None);
        };
        let slot = (key.id.clone(), Part::Hmac);
        self.unwrapped(config, &self.material, slot, stored, &key.hmac_binding())
            .await
            .map(Some)
    }

    async fn unwrapped<S, K>(
        &self,
        config: &ServiceConfig,
        cache: &Cache<S, Material<K>>,
        slot: S,
        stored: &Wrapped,
        binding: &Binding<'_>,
    ) -> Result<Arc<Material<K>>, KmsError>
    where
        S: Clone + Eq + Hash + Send,
        K: OfBytes,
    {
        self.obey(config);
        let ttl = config.cache.ttl();
        let now = self.clock.monotonic();
        if let Some(cached) = cache.get(&slot, now, ttl)
            && cached.wrapped == *stored
        {
            return Ok(cached);
        }
        let ticket = cache.begin(now);
        let opened = stored.open_by(&self.wrappers, config, binding).await?;
        let material = Arc::new(Material {
            key: K::of(opened)?,
            wrapped: stored.clone(),
        });
        cache.insert(ticket, slot, Arc::clone(&material), ttl);
        Ok(material)
    }

    /// Applies the configuration's cache settings, and drops the cache if its epoch changed.
    pub fn obey(&self, config: &ServiceConfig) {
        let wanted = Some((config.cache_epoch, config.cache));
        let mut obeyed = self.obeyed.lock().unwrap_or_else(PoisonError::into_inner);
        if *obeyed == wanted {
            return;
        }
        if obeyed.is_some_and(|(epoch, _)| epoch != config.cache_epoch) {
            self.flush();
        }
        *obeyed = wanted;
        self.tidy(config);
    }

    /// Drops expired material, so that unused keys do not stay in memory.
    pub fn tidy(&self, config: &ServiceConfig) {
        let cache = config.cache;
        let now = self.clock.monotonic();
        self.material.tidy(now, cache.ttl(), cache.capacity());
        self.mac_material.tidy(now, cache.ttl(), cache.capacity());
    }

    /// Drops everything that is cached.
    pub fn flush(&self) {
        self.states.clear();
        self.aliases.clear();
        self.unused_names.clear();
        self.material.clear();
        self.mac_material.clear();
    }

    /// Drops the cached state of what another process may have changed. Unwrapped material stays: it is used only beside
    /// a state that has its wrapped form.
    pub fn obey_change(&self, change: &TableChange) {
        match change {
            TableChange::Record(Kind::Key, id) => {
                if let Ok(id) = KeyId::parse("key_id", id) {
                    self.forget(&id);
                }
            }
            TableChange::Record(Kind::Alias, name) => {
                if let Ok(name) = AliasName::parse("alias", name) {
                    self.forget_alias(&name);
                }
            }
            TableChange::Record(..) => {}
            TableChange::Any => {
                self.states.clear();
                self.aliases.clear();
                self.unused_names.clear();
            }
        }
    }

    /// The statistics of the cache of unwrapped material.
    pub fn stats(&self) -> CacheStats {
        self.material.stats()
    }

    pub(super) fn table(&self) -> &Arc<dyn TableReader> {
        &self.table
    }

    pub(super) fn forget(&self, id: &KeyId) {
        self.states.forget(id);
    }

    pub(super) fn forget_alias(&self, alias: &AliasName) {
        self.aliases.forget(alias);
        self.unused_names.forget(alias);
    }
}
