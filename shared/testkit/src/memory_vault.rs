use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keyway_crypto::{Blob, EncryptionContext, Key256, Purpose, SecretBytes, seal};
use keyway_domain::Fault;
use keyway_domain::keyring::{Binding, KeyWrapper, WrapError};
use keyway_domain::ports::Random;
use keyway_domain::vault::{
    CopyError, CopyVersion, KeyCopy, TransitKey, TransitVersions, VAULT_WRAPPER, Vault,
    VaultRetryPolicy, VaultSettings, Vaults,
};

use crate::{FixedClock, SeededRandom};

/// **For tests only.** A Vault in memory, with fault injection.
pub struct MemoryVault {
    random: SeededRandom,
    down: AtomicBool,
    refusing: AtomicBool,
    checks: AtomicU32,
    renewals: AtomicU32,
    /// How long a check takes, and by which clock.
    slowness: Mutex<Option<(Arc<FixedClock>, Duration)>>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The versions of the transit key.
    keys: Vec<Key256>,
    /// The oldest version that unwraps.
    minimum: u64,
    copies: BTreeMap<String, KeyCopy>,
}

impl MemoryVault {
    /// A Vault without a transit key and copies.
    pub fn new(seed: u64) -> Self {
        Self {
            random: SeededRandom::new(seed),
            down: AtomicBool::default(),
            refusing: AtomicBool::default(),
            checks: AtomicU32::default(),
            renewals: AtomicU32::default(),
            slowness: Mutex::default(),
            held: Mutex::default(),
        }
    }

    /// Makes it unreachable from now on, or reachable again.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Ordering::SeqCst);
    }

    /// Makes a check take this long from now on, by this clock. Other tasks run meanwhile.
    pub fn set_slow(&self, clock: &Arc<FixedClock>, time: Duration) {
        let mut slowness = self.slowness.lock().unwrap_or_else(PoisonError::into_inner);
        *slowness = Some((Arc::clone(clock), time));
    }

    async fn wait(&self) {
        let slowness = self
            .slowness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        if let Some((clock, time)) = slowness {
            tokio::task::yield_now().await;
            clock.advance(time);
        }
    }

    /// Makes it refuse all calls from now on, as if the token were revoked, or accept them again.
    pub fn set_refusing(&self, refusing: bool) {
        self.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Removes the transit key. A check may make another one, which unwraps nothing from before.
    pub fn lose_transit_key(&self) {
        self.held().keys.clear();
    }

    /// The number of checks.
    pub fn checks(&self) -> u32 {
        self.checks.load(Ordering::SeqCst)
    }

    /// The number of requests to renew the token.
    pub fn renewals(&self) -> u32 {
        self.renewals.load(Ordering::SeqCst)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Ignore poisoning: no change in here panics half-way.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) -> Result<(), WrapError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(unavailable("Vault could not be reached"));
        }
        if self.refusing.load(Ordering::SeqCst) {
            return Err(unavailable("permission denied"));
        }
        Ok(())
    }

    fn new_key(&self) -> Result<Key256, WrapError> {
        let mut key = [0; 32];
        self.random.fill(&mut key)?;
        Key256::try_from(key.as_slice()).map_err(|error| WrapError::Failed(error.into()))
    }
}

fn unavailable(what: &'static str) -> WrapError {
    WrapError::Unavailable(what.into())
}

/// The version of the transit key that made the blob.
fn version(blob: &Blob<'_>) -> Option<u64> {
    blob.key_id().strip_prefix("transit-")?.parse().ok()
}

fn missing() -> WrapError {
    unavailable("the transit key is missing")
}

fn context(binding: &Binding<'_>) -> Result<EncryptionContext, WrapError> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    EncryptionContext::from_pairs([
        pair("key_id", binding.id),
        pair("key_version", &binding.version.to_string()),
        pair("origin", binding.origin),
    ])
    .map_err(|error| WrapError::Failed(error.into()))
}

#[async_trait]
impl KeyWrapper for MemoryVault {
    fn name(&self) -> &'static str {
        VAULT_WRAPPER
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.reached()?;
        let mut fresh = [0; 32];
        self.random.fill(&mut fresh)?;
        let held = self.held();
        let key = held.keys.last().ok_or_else(missing)?;
        seal(
            Purpose::Wrap,
            key,
            &format!("transit-{}", held.keys.len()),
            1,
            &context(binding)?,
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
        self.reached()?;
        let held = self.held();
        if held.keys.is_empty() {
            return Err(missing());
        }
        let blob = Blob::parse(Purpose::Wrap, wrapped).map_err(|_| WrapError::NotAuthentic)?;
        let version = version(&blob).ok_or(WrapError::NotAuthentic)?;
        if version < held.minimum {
            return Err(unavailable("the version is disallowed by policy"));
        }
        let place = usize::try_from(version).unwrap_or_default().checked_sub(1);
        let key = place.and_then(|place| held.keys.get(place));
        let key = key.ok_or(WrapError::UnknownRoot)?;
        blob.open(key, &context(binding)?)
            .map_err(|_| WrapError::NotAuthentic)
    }
}

#[async_trait]
impl Vault for MemoryVault {
    async fn check(&self, key: TransitKey) -> Result<(), WrapError> {
        self.checks.fetch_add(1, Ordering::SeqCst);
        self.wait().await;
        self.reached()?;
        let mut held = self.held();
        match key {
            _ if !held.keys.is_empty() => Ok(()),
            TransitKey::MadeIfMissing => {
                held.keys.push(self.new_key()?);
                Ok(())
            }
            TransitKey::MustExist => Err(missing()),
        }
    }

    async fn renew(&self) -> Result<(), WrapError> {
        self.renewals.fetch_add(1, Ordering::SeqCst);
        self.reached()
    }

    async fn copy(&self, id: &str) -> Result<Option<KeyCopy>, WrapError> {
        self.reached()?;
        Ok(self.held().copies.get(id).cloned())
    }

    async fn put_copy(&self, id: &str, value: &[u8], seen: CopyVersion) -> Result<(), CopyError> {
        self.reached()?;
        let mut held = self.held();
        let found = held.copies.get(id);
        let version = found.map_or(CopyVersion(0), |copy| copy.version);
        let next = CopyVersion(seen.0 + 1);
        if version == seen {
            let copy = KeyCopy {
                value: value.to_vec(),
                version: next,
            };
            held.copies.insert(id.to_owned(), copy);
            return Ok(());
        }
        match found.is_some_and(|copy| copy.version == next && copy.value == value) {
            true => Ok(()),
            false => Err(CopyError::Conflict),
        }
    }

    async fn remove_copy(&self, id: &str) -> Result<(), WrapError> {
        self.reached()?;
        self.held().copies.remove(id);
        Ok(())
    }

    async fn copies(&self) -> Result<Vec<String>, WrapError> {
        self.reached()?;
        Ok(self.held().copies.keys().cloned().collect())
    }

    async fn transit_versions(&self) -> Result<TransitVersions, WrapError> {
        self.reached()?;
        let held = self.held();
        Ok(TransitVersions {
            newest: held.keys.len() as u64,
            minimum: held.minimum,
        })
    }

    async fn rotate_transit(&self) -> Result<(), WrapError> {
        self.reached()?;
        let key = self.new_key()?;
        self.held().keys.push(key);
        Ok(())
    }

    async fn rewrap(&self, binding: &Binding<'_>, wrapped: &[u8]) -> Result<Vec<u8>, WrapError> {
        let material = self.unwrap(binding, wrapped).await?;
        self.wrap(binding, material.expose()).await
    }

    fn version_of(&self, wrapped: &[u8]) -> Option<u64> {
        version(&Blob::parse(Purpose::Wrap, wrapped).ok()?)
    }

    async fn refuse_below(&self, version: u64) -> Result<(), WrapError> {
        self.reached()?;
        self.held().minimum = version;
        Ok(())
    }
}

/// **For tests only.** Opens one Vault in memory, whatever the settings.
pub struct MemoryVaults {
    vault: Arc<MemoryVault>,
    opened: Mutex<Vec<Opened>>,
}

/// The arguments that a Vault was opened with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub settings: VaultSettings,
    /// The token or secret id.
    pub credential: Option<Vec<u8>>,
    /// The timeout and the retries.
    pub retry_policy: VaultRetryPolicy,
}

impl MemoryVaults {
    /// Opens this Vault.
    pub fn new(vault: Arc<MemoryVault>) -> Self {
        Self {
            vault,
            opened: Mutex::default(),
        }
    }

    /// The arguments of every Vault opened so far.
    pub fn opened(&self) -> Vec<Opened> {
        let opened = self.opened.lock();
        opened.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Vaults for MemoryVaults {
    async fn token_file(&self, _path: &str) -> Result<(), String> {
        Ok(())
    }

    fn open(
        &self,
        settings: &VaultSettings,
        credential: Option<&SecretBytes>,
        retry_policy: VaultRetryPolicy,
    ) -> Result<Arc<dyn Vault>, Fault> {
        let opened = Opened {
            settings: settings.clone(),
            credential: credential.map(|secret| secret.expose().to_vec()),
            retry_policy,
        };
        let mut all = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(opened);
        Ok(Arc::clone(&self.vault) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault_contract;

    #[tokio::test(flavor = "multi_thread")]
    async fn memory_vault_keeps_the_contract() {
        let vault = Arc::new(MemoryVault::new(1)) as _;
        vault_contract::run_all(&vault, &SeededRandom::new(2)).await;
    }

    #[tokio::test]
    async fn switches_of_the_memory_vault_work() {
        let vault = MemoryVault::new(1);
        vault.check(TransitKey::MadeIfMissing).await.unwrap();
        vault.set_down(true);
        assert!(vault.copies().await.is_err());
        vault.set_down(false);
        vault.set_refusing(true);
        assert!(vault.check(TransitKey::MustExist).await.is_err());
        vault.set_refusing(false);
        vault.lose_transit_key();
        assert!(vault.check(TransitKey::MustExist).await.is_err());
        assert_eq!((vault.checks(), vault.renewals()), (3, 0));
    }
}
