//! The root keyring, opened when it is first needed, and read again when it may have been rotated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::lock::Mutex as AsyncMutex;
use keyway_crypto::SecretBytes;

use super::{
    Binding, KEYRING_SECRET, KeyWrapper, OpenError, RootKeyring, StoredKeyring, WrapError, marked,
    parsed,
};
use crate::error::one_line;
use crate::ports::{Clock, Random, SecretStore, TableReader, TableWriter};
use crate::repository::{update, won};

/// A root keyring that is opened when it is first needed. After a failure it is tried again. Until it opens, only the
/// operations that need it are refused, with [`KmsError::Unavailable`].
///
/// The keyring is compared with the table's deployment before the first wrap, not when it is opened. What another
/// keyring wrapped does not unwrap, so a process that only unwraps need not wait for this check at every start.
///
/// It also knows whether every record of the table is signed. The keyring holds that mark, because an attacker who
/// forges records in the table could remove it there.
///
/// Another process may rotate the root at any time. This process notices:
/// - before it wraps or signs: if its last look at the table's newest root is older than the state TTL (at most
///   [`LOOK_AGAIN_AFTER`]), it looks again;
/// - when something names a root that it does not hold: it reads the keyring again, at most once a second;
/// - when something names a root that is not the newest: it reads the keyring again if its last read is older than
///   [`READ_AGAIN_AFTER`], so that a retired root is refused;
/// - in its periodic work, if it has any.
pub struct KeyringOnDemand {
    pub(super) table: TableAccess,
    pub(super) secrets: Arc<dyn SecretStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn Random>,
    opened: RwLock<Option<Held>>,
    /// Held while the keyring is read, so that concurrent requests read it once.
    opening: AsyncMutex<()>,
    is_own: OnceLock<()>,
    accepts_empty_table: bool,
    last_failure: Mutex<Option<Failure>>,
    /// How long a look at the table's newest root is believed, in milliseconds.
    look_again_after: AtomicU64,
    /// When the last successful look at the table's newest root began.
    looked_at: Mutex<Option<Duration>>,
    refused: AtomicU64,
}

/// The keyring in memory.
#[derive(Clone)]
struct Held {
    keyring: Arc<RootKeyring>,
    /// When its last read began, even if that failed; `None` if it was read elsewhere, before.
    tried_at: Option<Duration>,
    /// When its last read for an unknown root began.
    tried_for_unknown_at: Option<Duration>,
}

/// Why the keyring is read again.
#[derive(Clone, Copy)]
pub(super) enum Reread {
    /// Its last read may be older than this.
    After(Duration),
    /// Something names a root that it does not hold.
    UnknownRoot,
}

impl Held {
    fn is_due(&self, why: Reread, now: Duration) -> bool {
        let (last, age) = match why {
            Reread::After(age) => (self.tried_at, age),
            Reread::UnknownRoot => (self.tried_for_unknown_at, UNKNOWN_AGAIN_AFTER),
        };
        last.is_none_or(|at| now.saturating_sub(at) >= age)
    }
}

pub(super) enum TableAccess {
    Read(Arc<dyn TableReader>),
    Write(Arc<dyn TableWriter>),
    /// The process may not read the table's deployment, so the keyring is not compared with it.
    Unknown,
}

/// Why the keyring could not be opened, and when.
struct Failure {
    at: Duration,
    cause: String,
}

/// How long a look at the table's newest root is believed, whatever the state TTL is.
pub const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a keyring is believed when an older root than its newest is used, or while its mark is not set that every
/// record is signed.
const READ_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How often the periodic work of a process reads the keyring again.
const STORE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long the keyring is not read again for a root that it does not hold: whoever forges records can name any.
const UNKNOWN_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl TableAccess {
    pub(super) fn reader(&self) -> Option<&dyn TableReader> {
        match self {
            Self::Read(table) => Some(table.as_ref()),
            Self::Write(table) => Some(table.as_ref()),
            Self::Unknown => None,
        }
    }
}

/// How long after a failure the keyring is not tried again.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl KeyringOnDemand {
    /// Opens the keyring of an existing deployment, and never makes one.
    pub fn opening(
        table: Arc<dyn TableReader>,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::new(TableAccess::Read(table), secrets, clock, random)
    }

    /// Opens the keyring, and makes the deployment on the very first use, as [`RootKeyring::establish`] does.
    pub fn establishing(
        table: Arc<dyn TableWriter>,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::new(TableAccess::Write(table), secrets, clock, random)
    }

    /// Opens the keyring for a process that may write some kinds of records and read no others. The process signs what
    /// it writes and wraps nothing. If the keyring is another deployment's, its signatures do not verify in this table.
    pub fn signing(
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::new(TableAccess::Unknown, secrets, clock, random)
    }

    /// Takes a keyring that is already open and belongs to the table's deployment.
    pub fn opened(
        keyring: RootKeyring,
        table: Arc<dyn TableReader>,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let this = Self::opening(table, secrets, clock, random);
        this.is_own.get_or_init(|| ());
        this.hold(keyring, None);
        this
    }

    fn new(
        table: TableAccess,
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            secrets,
            clock,
            random,
            opened: RwLock::default(),
            opening: AsyncMutex::new(()),
            is_own: OnceLock::new(),
            accepts_empty_table: false,
            last_failure: Mutex::new(None),
            look_again_after: AtomicU64::new(milliseconds(LOOK_AGAIN_AFTER)),
            looked_at: Mutex::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// `accepts`: the operator allows an empty table although the keyring exists; see
    /// [`RootKeyring::adopt_empty_table`].
    #[must_use]
    pub const fn accepting_empty_table(mut self, accepts: bool) -> Self {
        self.accepts_empty_table = accepts;
        self
    }

    /// Sets how long a look at the table's newest root is believed: the state TTL, and at most [`LOOK_AGAIN_AFTER`].
    pub fn look_again_after(&self, state_ttl: Duration) {
        let time = milliseconds(state_ttl.min(LOOK_AGAIN_AFTER));
        self.look_again_after.store(time, Ordering::Relaxed);
    }

    /// Opens the keyring and compares it with the table's deployment, for a process that fails at its start instead of
    /// refusing requests later.
    ///
    /// # Errors
    /// As [`RootKeyring::establish`] or [`RootKeyring::open`].
    pub async fn must_be_own(&self) -> Result<(), OpenError> {
        let keyring = match self.held() {
            Some(held) => held.keyring,
            None => {
                let now = self.clock.monotonic();
                let keyring = self.open().await?;
                self.hold(keyring, Some(now))
            }
        };
        self.compare(keyring).await?;
        self.is_own.get_or_init(|| ());
        Ok(())
    }

    /// The keyring, opened now if it was not before.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] with the reason.
    pub async fn keyring(&self) -> Result<Arc<RootKeyring>, WrapError> {
        if let Some(held) = self.held() {
            return Ok(held.keyring);
        }
        let _opening = self.opening.lock().await;
        if let Some(held) = self.held() {
            return Ok(held.keyring);
        }
        let now = self.clock.monotonic();
        let keyring = self.attempt(self.open()).await?;
        tracing::info!("the root keyring is open");
        Ok(self.hold(keyring, Some(now)))
    }

    /// The keyring, once it is known to belong to the table's deployment.
    pub(crate) async fn own_keyring(&self) -> Result<Arc<RootKeyring>, WrapError> {
        let keyring = self.keyring().await?;
        if self.is_own.get().is_some() {
            return Ok(keyring);
        }
        let keyring = self.attempt(self.compare(keyring)).await?;
        self.is_own.get_or_init(|| ());
        Ok(keyring)
    }

    /// The keyring for a wrap or a signature: its newest root was the deployment's newest at most the state TTL ago.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] when this cannot be found out, or the keyring cannot be read.
    pub async fn newest_keyring(&self) -> Result<Arc<RootKeyring>, WrapError> {
        let keyring = self.own_keyring().await?;
        let now = self.clock.monotonic();
        let looked_at = *self.looked_at();
        let believed = Duration::from_millis(self.look_again_after.load(Ordering::Relaxed));
        if looked_at.is_some_and(|at| now.saturating_sub(at) < believed) {
            return Ok(keyring);
        }
        match self.table.reader() {
            Some(_) => {
                let compared = self.compare(keyring).await;
                compared.map_err(|error| WrapError::Unavailable(unusable(&error).into()))
            }
            // Without the table, only the secret store tells which root is the newest.
            None => self.read_again(Reread::After(believed)).await,
        }
    }

    /// The keyring for something that names this root. It may not hold the root.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`] when the keyring does not hold the root and cannot be read again.
    pub(crate) async fn keyring_for(&self, root: &str) -> Result<Arc<RootKeyring>, WrapError> {
        let keyring = self.keyring().await?;
        if keyring.newest_root() == root {
            return Ok(keyring);
        }
        if !keyring.holds(root) {
            return self.read_again(Reread::UnknownRoot).await;
        }
        // While the secret store cannot be used, the keyring in memory is the best there is.
        Ok(self
            .read_again(Reread::After(READ_AGAIN_AFTER))
            .await
            .unwrap_or(keyring))
    }

    /// Whether every record of the table is signed. While it is not, calls read the keyring again every few seconds, so
    /// that a running process notices when the table has been signed.
    ///
    /// # Errors
    /// When the keyring is unavailable.
    pub(crate) async fn all_are_signed(&self) -> Result<bool, WrapError> {
        let keyring = self.keyring().await?;
        Ok(keyring.signed
            || self
                .read_again(Reread::After(READ_AGAIN_AFTER))
                .await?
                .signed)
    }

    /// Reads the keyring again if its last read is older than a minute. For the periodic work of a process, so that a
    /// process that only reads forgets a retired root too.
    ///
    /// # Errors
    /// [`WrapError::Unavailable`]. The keyring in memory stays in use.
    pub async fn look_at_store(&self) -> Result<(), WrapError> {
        self.read_again(Reread::After(STORE_AGAIN_AFTER))
            .await
            .map(drop)
    }

    /// Reads the keyring again if that is due. Returns the keyring in memory, which stays if the stored one is missing or
    /// does not follow it.
    pub(super) async fn read_again(&self, why: Reread) -> Result<Arc<RootKeyring>, WrapError> {
        let keyring = self.keyring().await?;
        let not_due = || {
            let now = self.clock.monotonic();
            self.held().filter(|held| !held.is_due(why, now))
        };
        if let Some(held) = not_due() {
            return Ok(held.keyring);
        }
        let _opening = self.opening.lock().await;
        if let Some(held) = not_due() {
            return Ok(held.keyring);
        }
        let now = self.clock.monotonic();
        let read = self.read(keyring).await;
        // Noted after the read: requests that meet the same root meanwhile wait for its result.
        self.tried(why, now);
        read.map_err(|error| WrapError::Unavailable(unusable(&error).into()))
    }

    async fn read(&self, keyring: Arc<RootKeyring>) -> Result<Arc<RootKeyring>, OpenError> {
        let Some((value, _)) = self.secrets.get(KEYRING_SECRET).await? else {
            tracing::error!("the root keyring is missing from the secret store; restore it");
            return Ok(keyring);
        };
        let stored = RootKeyring::parse(&value, Arc::clone(&self.random))?;
        if !stored.signed {
            tracing::warn!(
                "records of the table are not signed; run `keyway table sign`, so that forged ones can be told"
            );
        }
        if !stored.follows(&keyring) {
            tracing::error!(
                root = keyring.newest_root(),
                "the stored root keyring is an older copy than the one that this process holds, or another one; put back \
                 the newest copy"
            );
            return Ok(keyring);
        }
        if stored.newest_root() != keyring.newest_root() {
            tracing::info!(root = stored.newest_root(), "the root was rotated");
        }
        Ok(self.hold(stored, None))
    }

    /// Fails if this process holds a keyring that this one cannot replace.
    pub(super) fn must_follow(&self, next: &RootKeyring) -> Result<(), OpenError> {
        match self.held() {
            Some(held) if !next.follows(&held.keyring) => {
                Err(OpenError::KeyringOld(held.keyring.newest_root().to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn held(&self) -> Option<Held> {
        // Ignore poisoning: every change is one assignment.
        let opened = self.opened.read().unwrap_or_else(PoisonError::into_inner);
        opened.clone()
    }

    fn hold(&self, keyring: RootKeyring, tried_at: Option<Duration>) -> Arc<RootKeyring> {
        let keyring = Arc::new(keyring);
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        *opened = Some(Held {
            keyring: Arc::clone(&keyring),
            tried_at,
            tried_for_unknown_at: opened.as_ref().and_then(|held| held.tried_for_unknown_at),
        });
        keyring
    }

    fn tried(&self, why: Reread, began: Duration) {
        let mut opened = self.opened.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = opened.as_mut() {
            held.tried_at = Some(began);
            if let Reread::UnknownRoot = why {
                held.tried_for_unknown_at = Some(began);
            }
        }
    }

    fn looked_at(&self) -> MutexGuard<'_, Option<Duration>> {
        self.looked_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a look that began at this time.
    fn looked(&self, began: Duration) {
        *self.looked_at() = Some(began);
    }

    /// Records in the keyring that every record of the table is signed.
    ///
    /// # Errors
    /// When the keyring cannot be read or written.
    pub(crate) async fn mark_signed(&self) -> Result<(), WrapError> {
        let failed = |error: OpenError| WrapError::Unavailable(error.into());
        let marked = || async {
            let kept = self.secrets.get(KEYRING_SECRET).await;
            let kept = kept.map_err(|error| failed(error.into()))?;
            let (value, seen) = kept.ok_or_else(|| failed(OpenError::KeyringMissing))?;
            let mut stored = StoredKeyring::parse(&value).map_err(failed)?;
            if !stored.signed {
                stored.signed = true;
                let value = stored.encode().map_err(failed)?;
                let written = self.secrets.put(KEYRING_SECRET, &value, Some(&seen)).await;
                if !won(written).map_err(|error| failed(error.into()))? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        let contended = || {
            WrapError::Unavailable("others changed the keyring all the time; run it again".into())
        };
        update(contended, marked).await?;
        self.read_again(Reread::After(Duration::ZERO))
            .await
            .map(drop)
    }

    /// The root keyring as the secret store has it now, for a backup.
    ///
    /// # Errors
    /// When it cannot be read, or there is none.
    pub async fn stored_value(&self) -> Result<SecretBytes, OpenError> {
        let kept = self.secrets.get(KEYRING_SECRET).await?;
        let (value, _) = kept.ok_or(OpenError::KeyringMissing)?;
        Ok(value)
    }

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records were refused since this process started.
    pub fn refused_records(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<RootKeyring, OpenError> {
        let random = Arc::clone(&self.random);
        let (secrets, clock) = (self.secrets.as_ref(), self.clock.as_ref());
        if let Some((value, _)) = secrets.get(KEYRING_SECRET).await? {
            return RootKeyring::parse(&value, random);
        }
        // The table tells whether the keyring is lost or was never made.
        match &self.table {
            TableAccess::Unknown => Err(OpenError::NotEstablished),
            TableAccess::Read(table) => RootKeyring::open(table.as_ref(), secrets, random).await,
            TableAccess::Write(table) => {
                RootKeyring::establish(table.as_ref(), secrets, clock, random).await
            }
        }
    }

    /// Compares the keyring with the table's deployment, and returns the keyring that belongs to it: if the table names a
    /// newer root, the keyring is read again.
    async fn compare(&self, mut keyring: Arc<RootKeyring>) -> Result<Arc<RootKeyring>, OpenError> {
        let began = self.clock.monotonic();
        let Some(table) = self.table.reader() else {
            return Ok(keyring);
        };
        let mut marked = marked(table).await?;
        if let TableAccess::Write(table) = &self.table
            && marked.is_none()
            && self.accepts_empty_table
        {
            keyring.adopt(table.as_ref(), self.clock.as_ref()).await?;
            marked = self::marked(table.as_ref()).await?;
        }
        let marked = marked.ok_or(OpenError::TableEmpty)?;
        if let Err(OpenError::KeyringOld(_)) = keyring.must_be_of(&marked) {
            keyring = (self.read_again(Reread::UnknownRoot).await)
                .map_err(|error| OpenError::Operation(super::kms_error("the keyring", error)))?;
        }
        keyring.must_be_of(&marked)?;
        if let TableAccess::Write(table) = &self.table {
            marked
                .finish(&keyring, table.as_ref(), &*self.clock, &*self.random)
                .await?;
        }
        self.looked(began);
        Ok(keyring)
    }

    /// Runs `what`, unless the last attempt failed a moment ago: then returns that failure again.
    async fn attempt<T>(
        &self,
        what: impl Future<Output = Result<T, OpenError>>,
    ) -> Result<T, WrapError> {
        let now = self.clock.monotonic();
        let failed = {
            let last = self.last_failure();
            last.as_ref()
                .filter(|failure| now.saturating_sub(failure.at) < OPEN_AGAIN_AFTER)
                .map(|failure| failure.cause.clone())
        };
        if let Some(cause) = failed {
            return Err(WrapError::Unavailable(cause.into()));
        }
        what.await.map_err(|error| {
            let cause = unusable(&error);
            *self.last_failure() = Some(Failure {
                at: now,
                cause: cause.clone(),
            });
            WrapError::Unavailable(cause.into())
        })
    }

    fn last_failure(&self) -> MutexGuard<'_, Option<Failure>> {
        // Ignore poisoning: a stored failure is always complete.
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn unusable(error: &OpenError) -> String {
    format!("the root keyring cannot be used: {}", one_line(error))
}

#[async_trait]
impl KeyWrapper for KeyringOnDemand {
    fn name(&self) -> &'static str {
        RootKeyring::NAME
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.newest_keyring().await?.wrap(binding, material).await
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let unwrapped = match parsed(wrapped) {
            Ok(blob) => {
                let keyring = self.keyring_for(blob.key_id()).await?;
                keyring.unwrap(binding, wrapped).await
            }
            Err(error) => Err(error),
        };
        if let Err(WrapError::NotAuthentic | WrapError::UnknownRoot) = &unwrapped {
            // Another deployment's keyring unwraps nothing. The operator must then see that error, not this one.
            self.own_keyring().await?;
        }
        unwrapped
    }
}
