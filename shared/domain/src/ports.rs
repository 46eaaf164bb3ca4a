//! What the domain needs from outside, split by privilege: a function that only reads keys is built with a
//! [`TableReader`], and its deployment grants it no more than that.
//!
//! Every port has one contract suite in `keyway-testkit`, which every implementation passes.

mod changes;
mod intercepted;
mod range;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use keyway_crypto::SecretBytes;

use crate::error::{Fault, KmsError};

pub use changes::{ChangeFeed, Obey, TableChange};
pub use intercepted::{InterceptedTable, TableCall, TableInterceptor};
pub use range::IdRange;

/// The kind of a record. Deployments grant access by kind, so each kind is a partition of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A master key: state, metadata and wrapped versions.
    Key,
    /// An access key: wrapped secret, policy, expiry.
    AccessKey,
    /// When an access key was last used, under the access key's id.
    AccessKeyUse,
    /// An alias of a key, under its name, or the names of a key's aliases.
    Alias,
    /// The service's configuration: one record.
    Config,
    /// A bucket, or the keys that a bucket in an object store uses.
    Bucket,
    /// A policy of KES: path patterns.
    Policy,
    /// An identity and its policy.
    Identity,
    /// Events of the audit log: one record holds several events of one writer. Ids begin with the hour.
    Audit,
    /// Lines of the error log, stored in the same way.
    ErrorLog,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Key,
        Self::AccessKey,
        Self::AccessKeyUse,
        Self::Alias,
        Self::Config,
        Self::Bucket,
        Self::Policy,
        Self::Identity,
        Self::Audit,
        Self::ErrorLog,
    ];

    /// The name of this kind in stores. It never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::AccessKey => "access-key",
            Self::AccessKeyUse => "access-key-use",
            Self::Alias => "alias",
            Self::Config => "config",
            Self::Bucket => "bucket",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Audit => "audit",
            Self::ErrorLog => "error-log",
        }
    }

    /// The kind of this name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// For a kind that grows without end: how many bytes at the beginning of an id name the record's part. A store may
    /// keep each part separately, so a query for this kind names the part: its prefix has at least this many bytes.
    pub const fn part_bytes(self) -> Option<usize> {
        match self {
            // `20260102T03`
            Self::Audit | Self::ErrorLog => Some(11),
            Self::Key
            | Self::AccessKey
            | Self::AccessKeyUse
            | Self::Alias
            | Self::Config
            | Self::Bucket
            | Self::Policy
            | Self::Identity => None,
        }
    }
}

/// Identifies one write of one record: 128 random bits, chosen by the writer before its first attempt.
///
/// A record carries the revision of the write that made it. Revisions are never reused. So a writer cannot overwrite a
/// record that was removed and made anew since it read it. A store that finds the revision it was about to write knows
/// that an earlier attempt of the same write already won.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision(pub [u8; 16]);

impl Revision {
    /// A new random revision.
    pub(crate) fn random(random: &dyn Random) -> Result<Self, RandomError> {
        let mut bytes = [0; 16];
        random.fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// One record of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its kind.
    pub kind: Kind,
    /// Its name within the kind, 1 to 256 bytes. Pages are in the byte order of ids.
    pub id: String,
    /// The write that made it.
    pub revision: Revision,
    /// The encoded content, at most 300 KiB (a DynamoDB item holds 400 KB).
    pub value: Vec<u8>,
    /// When the store may remove it. Stores leave expired records out of every answer.
    pub expires_at: Option<Timestamp>,
}

/// How fresh a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began.
    Strong,
    /// May lag behind by a moment if that is cheaper.
    Eventual,
}

/// One page of records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In ascending byte order of their ids.
    pub records: Vec<Record>,
    /// Whether more records of the range follow.
    pub more: bool,
    /// Records of the range that do not verify, as they are stored. They must not be obeyed.
    pub refused: Vec<Record>,
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record is not as the writer saw it. Nothing was changed.
    #[error("the record changed or exists already")]
    Conflict,
    /// The store asks for fewer requests. Nothing was changed.
    #[error("the store is throttling")]
    Throttled,
    /// Another process has locked the store. Nothing was changed. The text says what and where, for the log.
    #[error("{0}")]
    Busy(String),
    /// The record that was read does not verify. It must not be obeyed. Nothing was changed.
    #[error("the record {}/{id} of the table was refused: {}", kind.as_str(), why.as_str())]
    Refused {
        /// The record's kind.
        kind: Kind,
        /// Its id.
        id: String,
        /// What is wrong with it.
        why: Forgery,
    },
    /// The keys that sign and verify records are unavailable at present. Nothing was changed.
    #[error("records cannot be verified at present")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// The store is unavailable at present: it cannot be reached, does not answer, or its storage was removed, replaced
    /// or cannot be written. Whether a write took place is unknown. The text says what, where and why, for the log.
    #[error("{0}")]
    Away(String),
    /// The store refused or failed. Whether a write took place is unknown.
    #[error("could not {what}")]
    Failed {
        /// What was attempted; for the log, never for a client.
        what: &'static str,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a record does not verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgery {
    /// It was never signed, although the table's records all are.
    Unsigned,
    /// Its MAC does not match its kind, id, revision and content.
    Altered,
    /// It was signed under a root key that the keyring does not hold.
    UnknownRoot,
    /// It is neither signed nor in the format of older releases.
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
            // Every operation handles the conflicts that it can meet, so a conflict here is unforeseen.
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
    /// The unexpired record of this kind and id, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError>;

    /// How many unexpired records of the kind have ids that begin with `prefix` (see [`TableReader::page`]). May lag
    /// behind by a moment, and may cost as much as reading them.
    ///
    /// # Errors
    /// [`StoreError::Throttled`] or [`StoreError::Failed`].
    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError>;

    /// Up to `limit` (1 to 1000) records of the kind whose ids begin with `prefix` and sort after `after` by their
    /// bytes. `after` need not name a record. For a kind with [parts](Kind::part_bytes), the prefix names one part; a
    /// shorter prefix may find nothing. The cost depends on `limit`, not on the size of the table.
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

    /// The table as it is at this moment, for a backup: what is written later is not in it, and it does not block
    /// writers. `None` from a store that has no such view.
    ///
    /// # Errors
    /// [`StoreError::Failed`] and the others, when it cannot be read.
    async fn snapshot(&self) -> Result<Option<Arc<dyn TableReader>>, StoreError> {
        Ok(None)
    }
}

/// Writes the table. Every write is conditional, and durable once acknowledged. A write that is repeated because its
/// answer was lost succeeds without a second effect.
#[async_trait]
pub trait TableWriter: TableReader {
    /// Makes the record if none of its kind and id exists, or if the existing one has this very revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another one exists, otherwise as [`TableReader::get`].
    async fn put_new(&self, record: &Record) -> Result<(), StoreError>;

    /// Replaces the record if its revision is `seen`, or already the new record's.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when its revision is another or there is none, otherwise as [`TableReader::get`].
    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError>;

    /// Removes the record if its revision is `seen`. An absent record counts as removed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when its revision is another, otherwise as [`TableReader::get`].
    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError>;
}

/// A version of one secret, opaque to all but its store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretVersion(pub String);

/// Stores a few small secrets (at most 64 KiB each), such as the root keyring.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// The newest version of the secret, if there is one. Names are 1 to 64 of `[a-z0-9-]`.
    ///
    /// # Errors
    /// [`StoreError::Failed`] when it cannot be read or must not be used (wrong passphrase, loose mode).
    async fn get(&self, name: &str) -> Result<Option<(SecretBytes, SecretVersion)>, StoreError>;

    /// Writes the secret if its newest version is `seen` (`None`: there is none yet). Durable once acknowledged.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another writer was faster, otherwise [`StoreError::Failed`].
    async fn put(
        &self,
        name: &str,
        value: &SecretBytes,
        seen: Option<&SecretVersion>,
    ) -> Result<SecretVersion, StoreError>;
}

/// The folder of the root keyring's file, on a deployment that keeps it in a file. `None` is the deployment's own folder.
/// Different texts may name the same folder.
#[async_trait]
pub trait KeyringFolder: Send + Sync {
    /// Locks both folders and copies the root keyring of `from` to `to`. A missing `to` is made, for its owner alone.
    /// Returns `None` if both are the same folder: there is nothing to move.
    ///
    /// # Errors
    /// [`KmsError::Invalid`] naming `key_directory` when the folder cannot be used, or holds another keyring.
    async fn begin_move(
        &self,
        from: Option<&str>,
        to: Option<&str>,
    ) -> Result<Option<Box<dyn KeyringMove>>, KmsError>;

    /// The absolute path of the folder, for people to read.
    fn path(&self, folder: Option<&str>) -> String;

    /// Whether the folder holds the root keyring's file. Keeps its content in memory, for [`LockedKeyring::restore`].
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when the file exists and cannot be used.
    async fn holds(&self, folder: Option<&str>) -> Result<bool, KmsError>;

    /// Locks the folder against moves until the returned value is dropped.
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when it cannot be locked.
    async fn lock(&self, folder: Option<&str>) -> Result<Box<dyn LockedKeyring>, KmsError>;
}

/// A root keyring that two folders hold. Both are locked until this is dropped.
#[async_trait]
pub trait KeyringMove: Send + Sync {
    /// Renames the file in the folder that the move comes from, if `named`, where the root keyring is looked for now,
    /// is another folder and holds the very same file. Never removes the file.
    ///
    /// # Errors
    /// When `named` does not hold the file, or renaming fails. The file is then unchanged.
    async fn leave(&self, named: Option<&str>) -> Result<(), KmsError>;
}

/// A folder that is locked: no root keyring moves from or to it.
#[async_trait]
pub trait LockedKeyring: Send + Sync {
    /// Writes the root keyring's file as this process last saw it, if there is none. Never overwrites a file.
    ///
    /// # Errors
    /// [`KmsError::Unavailable`] when it cannot be written.
    async fn restore(&self) -> Result<(), KmsError>;
}

/// The domain's only source of time.
pub trait Clock: Send + Sync {
    /// Wall-clock time, for dates that are stored or compared with what a client sent.
    fn now(&self) -> Timestamp;
    /// Time since an arbitrary start that never runs backwards, for the age of cached entries.
    fn monotonic(&self) -> Duration;
}

/// Cryptographically secure random bytes.
pub trait Random: Send + Sync {
    /// Fills the whole buffer.
    ///
    /// # Errors
    /// When the system's generator fails. The buffer must not be used then.
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
