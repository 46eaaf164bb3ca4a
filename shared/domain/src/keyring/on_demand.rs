//! The root keyring of a process that opens it when it is first needed.

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

/// A root keyring that is opened when it is first needed, and looked for again after a failure: until it can be had,
/// everything that needs it is refused with [`KmsError::Unavailable`], and nothing else is.
///
/// Whether it is the keyring of the table's deployment is asked before the first wrap, and not when it is opened: what
/// was wrapped under another one does not open, so who only unwraps need not wait for the answer at every start.
///
/// It also knows whether every record of the table is signed. That is in the keyring, and not in the table, where
/// whoever forges a record could take it back.
pub struct KeyringOnDemand {
    table: TableAccess,
    secrets: Arc<dyn SecretStore>,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    opened: OnceLock<RootKeyring>,
    /// Held while the keyring is opened, so that those who need it at the same time read it once.
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
    /// The table's deployment is not compared, for this process may not read which it is.
    Unknown,
}

/// Why the keyring could not be opened, and when that was found out.
struct Failure {
    at: Duration,
    cause: String,
}

/// Whether all records are signed, and when that was last looked for where they were not.
#[derive(Clone, Copy, Default)]
struct SignedMark {
    is_set: bool,
    looked_at: Option<Duration>,
}

/// While not every record is signed, how long the keyring is not looked at again for a mark that says so.
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

/// How long a keyring that could not be opened is not asked for again.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl KeyringOnDemand {
    /// Opens the keyring of a deployment that exists, and never makes one.
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

    /// Opens the keyring for a process that may write some kinds of records and read no other: it wraps and unwraps
    /// nothing, and signs what it writes. A foreign keyring verifies nothing of what is there.
    pub fn signing(
        secrets: Arc<dyn SecretStore>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::new(TableAccess::Unknown, secrets, clock, random)
    }

    /// A keyring that is open already, and known to be the one of the table's deployment.
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

    /// With the operator's consent to a table that is empty although the keyring is there; see
    /// [`RootKeyring::adopt_empty_table`].
    #[must_use]
    pub const fn accepting_empty_table(mut self, accepts: bool) -> Self {
        self.accepts_empty_table = accepts;
        self
    }

    /// Opens the keyring and asks the table whether it is its deployment's, for a process that would rather not start
    /// than refuse requests.
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
    /// [`WrapError::Unavailable`], which says why.
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

    /// The keyring, of which is known that it is the one of the table's deployment.
    pub(crate) async fn own_keyring(&self) -> Result<&RootKeyring, WrapError> {
        let keyring = self.keyring().await?;
        if self.is_own.get().is_none() {
            self.attempt(self.compare(keyring)).await?;
            self.is_own.get_or_init(|| ());
        }
        Ok(keyring)
    }

    /// Whether every record of the table is signed. While that is not so, the keyring is read again every few seconds
    /// in which somebody asks, so that a running process obeys a table that has just been signed.
    ///
    /// # Errors
    /// When the keyring cannot be had.
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

    /// Has the keyring say that every record is signed.
    ///
    /// # Errors
    /// When it cannot be read or written.
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

    pub(crate) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How many records were refused since this process began.
    pub fn refused_records(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn open(&self) -> Result<RootKeyring, OpenError> {
        let random = Arc::clone(&self.random);
        let (secrets, clock) = (self.secrets.as_ref(), self.clock.as_ref());
        if let Some((value, _)) = secrets.get(KEYRING_SECRET).await? {
            return RootKeyring::parse(&value, random);
        }
        // The table tells whether it is lost or was never made.
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

    /// Does it, unless the last attempt failed a moment ago: then the answer is that failure again.
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
        // A failure is whole whatever happens elsewhere.
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
            // Under another deployment's keyring nothing opens, and then that is what its operator has to be told.
            self.own_keyring().await?;
        }
        unwrapped
    }
}
