//! The root keyring, opened when it is first needed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::lock::Mutex as AsyncMutex;
use keyway_crypto::SecretBytes;

use super::{
    Binding, KEYRING_SECRET, KeyWrapper, OpenError, RootKeyring, StoredKeyring, WrapError, marked,
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
pub struct KeyringOnDemand {
    table: TableAccess,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    opened: OnceLock<RootKeyring>,
    /// Held while the keyring is opened, so that concurrent requests read it once.
    opening: AsyncMutex<()>,
    is_own: OnceLock<()>,
    accepts_empty_table: bool,
    last_failure: Mutex<Option<Failure>>,
    signed: Mutex<SignedMark>,
    refused: AtomicU64,
}

enum TableAccess {
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

/// Whether all records are signed, and when an unset mark was last looked up.
#[derive(Clone, Copy, Default)]
struct SignedMark {
    is_set: bool,
    looked_at: Option<Duration>,
}

/// How long an unset mark is believed before the keyring is read again.
const MARK_AGAIN_AFTER: Duration = Duration::from_secs(5);

impl TableAccess {
    fn reader(&self) -> Option<&dyn TableReader> {
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
        this.opened.get_or_init(|| keyring);
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
            opened: OnceLock::new(),
            opening: AsyncMutex::new(()),
            is_own: OnceLock::new(),
            accepts_empty_table: false,
            last_failure: Mutex::new(None),
            signed: Mutex::default(),
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

    /// Opens the keyring and compares it with the table's deployment, for a process that fails at its start instead of
    /// refusing requests later.
    ///
    /// # Errors
    /// As [`RootKeyring::establish`] or [`RootKeyring::open`].
    pub async fn must_be_own(&self) -> Result<(), OpenError> {
        let keyring = match self.opened.get() {
            Some(keyring) => keyring,
            None => {
                let keyring = self.open().await?;
                self.opened.get_or_init(|| keyring)
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
    pub async fn keyring(&self) -> Result<&RootKeyring, WrapError> {
        if let Some(keyring) = self.opened.get() {
            return Ok(keyring);
        }
        let _opening = self.opening.lock().await;
        if let Some(keyring) = self.opened.get() {
            return Ok(keyring);
        }
        let keyring = self.attempt(self.open()).await?;
        tracing::info!("the root keyring is open");
        Ok(self.opened.get_or_init(|| keyring))
    }

    /// The keyring, once it is known to belong to the table's deployment.
    pub(crate) async fn own_keyring(&self) -> Result<&RootKeyring, WrapError> {
        let keyring = self.keyring().await?;
        if self.is_own.get().is_none() {
            self.attempt(self.compare(keyring)).await?;
            self.is_own.get_or_init(|| ());
        }
        Ok(keyring)
    }

    /// Whether every record of the table is signed. While it is not, calls read the keyring again every few seconds, so
    /// that a running process notices when the table has been signed.
    ///
    /// # Errors
    /// When the keyring is unavailable.
    pub(crate) async fn all_are_signed(&self) -> Result<bool, WrapError> {
        let keyring = self.keyring().await?;
        let now = self.clock.monotonic();
        {
            let mut mark = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
            mark.is_set |= keyring.signed;
            let looked = mark.looked_at;
            if mark.is_set || looked.is_some_and(|at| now.saturating_sub(at) < MARK_AGAIN_AFTER) {
                return Ok(mark.is_set);
            }
            mark.looked_at = Some(now);
        }
        let is_set = match self.secrets.get(KEYRING_SECRET).await {
            Ok(Some((value, _))) => StoredKeyring::parse(&value).is_ok_and(|kept| kept.signed),
            Ok(None) => false,
            Err(error) => return Err(WrapError::Unavailable(error.into())),
        };
        let mut mark = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        mark.is_set |= is_set;
        if !mark.is_set {
            tracing::warn!(
                "records of the table are not signed; run `keyway table sign`, so that forged ones can be told"
            );
        }
        Ok(mark.is_set)
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
            self.signed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_set = true;
            Ok(Some(()))
        };
        let contended = || {
            WrapError::Unavailable("others changed the keyring all the time; run it again".into())
        };
        update(contended, marked).await
    }

    /// The root keyring as the secret store has it now, for a backup.
    ///
    /// # Errors
    /// When it cannot be read, or there is none.
    pub async fn stored(&self) -> Result<SecretBytes, OpenError> {
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

    async fn compare(&self, keyring: &RootKeyring) -> Result<(), OpenError> {
        let Some(table) = self.table.reader() else {
            return Ok(());
        };
        let mut marked = marked(table).await?;
        if let TableAccess::Write(table) = &self.table {
            if marked.is_none() && self.accepts_empty_table {
                keyring.adopt(table.as_ref(), self.clock.as_ref()).await?;
                marked = self::marked(table.as_ref()).await?;
            }
            if let Some(marked) = &marked {
                keyring.must_be_of(marked)?;
                marked.finish(table.as_ref(), &*self.random).await?;
            }
        }
        keyring.must_be_of(&marked.ok_or(OpenError::TableEmpty)?)
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
            let cause = format!("the root keyring cannot be used: {}", one_line(&error));
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

#[async_trait]
impl KeyWrapper for KeyringOnDemand {
    fn name(&self) -> &'static str {
        RootKeyring::NAME
    }

    async fn wrap(&self, binding: &Binding<'_>, material: &[u8]) -> Result<Vec<u8>, WrapError> {
        self.own_keyring().await?.wrap(binding, material).await
    }

    async fn unwrap(
        &self,
        binding: &Binding<'_>,
        wrapped: &[u8],
    ) -> Result<SecretBytes, WrapError> {
        let unwrapped = self.keyring().await?.unwrap(binding, wrapped).await;
        if let Err(WrapError::NotAuthentic | WrapError::UnknownRoot) = &unwrapped {
            // Another deployment's keyring unwraps nothing. The operator must then see that error, not this one.
            self.own_keyring().await?;
        }
        unwrapped
    }
}
