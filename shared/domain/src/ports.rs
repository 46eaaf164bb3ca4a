//! What the domain needs of the outside, split by privilege: a function that only reads keys is built
//! with a [`TableReader`], and its deployment grants it no more than that.
//!
//! Every port has one contract suite in `keyway-testkit`, which every implementation passes.

mod intercepted;

use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::SecretBytes;

use crate::error::{Fault, KmsError};

pub use intercepted::{InterceptedTable, TableCall, TableInterceptor};

/// What a record is. Deployments grant access by kind, so each kind is a partition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A master key: state, metadata and wrapped versions.
    Key,
    /// An access key: wrapped secret, policy, expiry.
    AccessKey,
    /// The service's configuration: one record.
    Config,
    /// A bucket, or the keys that a bucket in an object store uses.
    Bucket,
    /// A policy of paths, as KES has them.
    Policy,
    /// An identity and the policy that it has.
    Identity,
    /// Events of the audit log, some of one writer in one record. Their ids begin with the hour.
    Audit,
    /// Lines of the error log, likewise.
    ErrorLog,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Key,
        Self::AccessKey,
        Self::Config,
        Self::Bucket,
        Self::Policy,
        Self::Identity,
        Self::Audit,
        Self::ErrorLog,
    ];

    /// The name under which stores keep this kind; never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::AccessKey => "access-key",
            Self::Config => "config",
            Self::Bucket => "bucket",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Audit => "audit",
            Self::ErrorLog => "error-log",
        }
    }

    /// Of a kind that grows without end: how many bytes at the beginning of an id say which part of it the record is in.
    /// A store may keep each part by itself, so whoever asks for records of this kind names the part: a prefix has at
    /// least so many bytes.
    pub const fn part_bytes(self) -> Option<usize> {
        match self {
            // `20260102T03`
            Self::Audit | Self::ErrorLog => Some(11),
            Self::Key
            | Self::AccessKey
            | Self::Config
            | Self::Bucket
            | Self::Policy
            | Self::Identity => None,
        }
    }
}

/// Names one write of one record: 128 random bits, chosen by the writer before its first attempt.
///
/// A record carries the revision of the write that made it. Because revisions are never reused, a writer
/// that saw a record which was since removed and made anew cannot overwrite it, and a store that meets the
/// very revision it was about to write knows that an earlier attempt of the same write already won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(pub [u8; 16]);

impl Revision {
    /// One for a write of a record.
    pub(crate) fn random(random: &dyn Random) -> Result<Self, RandomError> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// One record of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: Kind,
    /// Its name within the kind, 1 to 128 bytes. Pages are ordered by its bytes.
    pub id: String,
    /// The write that made it.
    pub revision: Revision,
    /// The noun, encoded by the domain; at most 300 KiB (a DynamoDB item holds 400 KB).
    pub value: Vec<u8>,
    /// When it may vanish by itself. Stores filter expired records out of every answer.
    pub expires_at: Option<Timestamp>,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began.
    Strong,
    /// May lag behind by a moment where that is cheaper.
    Eventual,
}

/// One page of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In ascending byte order of their ids.
    pub records: Vec<Record>,
    /// Whether more records of the asked range follow.
    pub more: bool,
    /// Records of the range that were refused, because nobody who may have written them did: as they are stored, and not
    /// to be obeyed.
    pub refused: Vec<Record>,
}

/// A store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record was not as the writer had seen it. Nothing was changed.
    #[error("the record changed or exists already")]
    Conflict,
    /// The store asks for fewer requests. Nothing was changed.
    #[error("the store is throttling")]
    Throttled,
    /// Another process keeps the store locked. Nothing was changed. Says what and where, for the log.
    #[error("{0}")]
    Busy(String),
    /// A record was read that does not verify. It must not be obeyed, and nothing was changed.
    #[error("the record {}/{id} of the table was refused: {}", kind.as_str(), why.as_str())]
    Refused {
        /// The record's kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// What is wrong with it.
        why: Forgery,
    },
    /// What signs and verifies records cannot be had at present. Nothing was changed.
    #[error("records cannot be verified at present")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The store cannot be used at present: it could not be reached, did not answer, or what it keeps its records in was
    /// removed, replaced or cannot be written. Whether a write took place is unknown. Says what, where and why, for the log.
    #[error("{0}")]
    Away(String),
    /// The store refused or failed; whether a write took place is unknown.
    #[error("could not {what}")]
    Failed {
        /// What was attempted; for the log, never for a client.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a record was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// It was never signed, in a table whose records all are.
    Unsigned,
    /// Its MAC is not that of its kind, id, revision and content.
    Altered,
    /// It was signed under a root key that the keyring does not hold.
    UnknownRoot,
    /// It is neither signed nor what an older release wrote.
    Damaged,
}

impl Forgery {
    /// What is wrong, for the operator.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "it has no signature",
            Self::Altered => "its signature is not that of its content",
            Self::UnknownRoot => "it was signed under a root key that the keyring does not hold",
            Self::Damaged => "it is not a record that keyway writes",
        }
    }
}

impl From<StoreError> for KmsError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Throttled => Self::Throttled,
            StoreError::Busy(what) | StoreError::Away(what) => {
                Self::Unavailable(Fault::new("a store cannot be used", what))
            }
            // Every operation handles the conflicts that it can meet; one that arrives here is unforeseen.
            StoreError::Conflict => {
                Self::Backend(Fault::plain("a write met an unforeseen conflict"))
            }
            StoreError::Failed { what, source } => Self::Backend(Fault::new(what, source)),
            StoreError::Refused { .. } => Self::Backend(Fault::new("reading a record", error)),
            StoreError::Unavailable(source) => {
                Self::Unavailable(Fault::new("verifying a record", source))
            }
        }
    }
}

/// Reads the table.
#[async_trait]
pub trait TableReader: Send + Sync {
    /// The record of this kind and id, if there is one that has not expired.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError>;

    /// How many records of the kind have ids that begin with `prefix` (as [`TableReader::page`] takes it), expired ones left out. May lag behind by a
    /// moment, and may cost as much as reading them.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError>;

    /// Up to `limit` (1 to 1000) records of the kind whose ids begin with `prefix` and sort after `after`
    /// by their bytes; `after` need not name a record. Of a kind with [parts](Kind::part_bytes), the prefix names one of
    /// them, and a shorter one may find nothing. The cost depends on `limit`, not on the size of the table.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError>;
}

/// Writes the table. Every write is conditional, and durable once acknowledged; the same write, made again
/// because its answer was lost, succeeds without acting twice.
#[async_trait]
pub trait TableWriter: TableReader {
    /// Makes the record if and only if none of its kind and id exists, or it exists with this very revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another one exists, else as [`TableReader::get`].
    async fn put_new(&self, record: &Record) -> Result<(), StoreError>;

    /// Replaces the record if and only if its revision is `seen`, or already the new record's.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is another or there is none, else as [`TableReader::get`].
    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError>;

    /// Removes the record if and only if its revision is `seen`. One that is absent counts as removed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when its revision is another, else as [`TableReader::get`].
    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError>;
}

/// A version of one secret; opaque to all but its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion(pub String);

/// Keeps a few small secrets (at most 64 KiB each), such as the root keyring.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The newest version of the secret, if there is one. Names are 1 to 64 of `[a-z0-9-]`.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be read or is not fit to be used (wrong passphrase, loose mode).
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError>;

    /// Writes the secret if and only if its newest version is `seen` (`None`: there is none yet).
    /// Durable once acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when somebody else was first, else [`StoreError::Failed`].
    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError>;
}

/// The folder of the root keyring's file, on a deployment that keeps it in one. `None` is the deployment's own folder.
/// Texts that name the same folder in different ways mean the same folder.
#[async_trait]
pub trait KeyringFolder: Send + Sync {
    /// Locks both folders and has `to` hold the root keyring as `from` does. It is made, for its owner alone, if it is
    /// missing. `None`: both are the same folder, and nothing is to be moved.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming `key_directory` when the folder is not fit for it, or holds another keyring.
    async fn begin_move(
        &self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Box<dyn KeyringMove>>, KmsError>;

    /// The absolute path of the folder, for people to read.
    fn path(&self, folder: Option<&str>) -> String;

    /// Whether the folder holds the root keyring's file. What it holds is kept in memory, for [`LockedKeyring::restore`].
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when there is a file that cannot be used.
    async fn holds(&self, folder: Option<&str>) -> Result<bool, KmsError>;

    /// Locks the folder against moves, until what this gives is dropped.
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when it cannot be locked.
    async fn lock(&self, folder: Option<&str>) -> Result<Box<dyn LockedKeyring>, KmsError>;
}

/// A root keyring that two folders hold. Both are locked until this is dropped.
#[async_trait]
pub trait KeyringMove: Send + Sync {
    /// Puts the file aside in the folder that the move comes from, if `named`, where the root keyring is looked for now,
    /// is another folder and holds the very same file. It is renamed and never removed.
    ///
    /// # Errors
    /// When `named` does not hold it, or it cannot be renamed. It is then as it was.
    async fn leave(&self, named: Option<&str>) -> Result<(), KmsError>;
}

/// A folder from which and to which no root keyring moves at present.
#[async_trait]
pub trait LockedKeyring: Send + Sync {
    /// Writes the root keyring's file as this process last saw it, if there is none. It is written over no other.
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when it cannot be written.
    async fn restore(&self) -> Result<(), KmsError>;
}

/// Time. The only one that the domain knows.
pub trait Clock: Send + Sync {
    /// Wall-clock time, for dates that are kept or compared with what a client sent.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start that never runs backwards, for ages of cached things.
    fn monotonic(&self) -> Duration;
}

/// Cryptographically secure random bytes.
pub trait Random: Send + Sync {
    /// Fills the whole buffer.
    ///
    /// # Errors
    /// When the system's generator fails; nothing may then be made from the buffer.
    fn fill(&self, buffer: &mut [u8]) -> Result<(), RandomError>;
}

/// The system's random generator failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the random generator failed")]
pub struct RandomError;

impl From<RandomError> for KmsError {
    fn from(error: RandomError) -> Self {
        Self::Backend(Fault::new("random bytes", error))
    }
}
