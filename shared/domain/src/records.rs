//! Records that cannot be forged. A record that decides on permissions, or on where secrets are sent, carries a MAC
//! under a key derived from the root keyring. The table only stores records; Keyway does not trust it.
//!
//! A signed record's value is one line followed by the content:
//!
//! ```text
//! KW1 <id of the root key> <base64url of 32 bytes>\n<content>
//! ```
//!
//! The MAC is HMAC-SHA256 under `K = HMAC-SHA256(root key, "keyway/v1/record-key" || 00 || kind)`, over
//! `"keyway/v1/record" || 00 || BE32(len) || deployment || BE32(len) || kind || BE32(len) || id || revision(16) || content`.
//! The content is JSON and begins with `{`, so a value without that line is a record that was never signed.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keyway_crypto::{mac_sha256, verify_mac_sha256};

use crate::error::KmsError;
use crate::keyring::{DEPLOYMENT_RECORD, KeyringOnDemand, RootKeyring, WrapError};
use crate::ports::{
    Consistency, Kind, Page, Random, Record, Revision, StoreError, TableReader, TableWriter,
};
use crate::ranges::NameRange;
use crate::repository::{self, tried};
use crate::scan::Scan;

pub use crate::ports::Forgery;

const FORMAT: &str = "KW1 ";
const LABEL: &[u8] = b"keyway/v1/record\0";
/// Longer than any first line, because ids of root keys are short.
const LONGEST_LINE: usize = 256;

/// Whether records of this name are signed. The deployment's record is not: it says which keyring to look for, and
/// another deployment's keyring is refused.
pub(crate) const fn is_signed(kind: Kind, id: &str) -> bool {
    match kind {
        Kind::Config => !matches!(id.as_bytes(), DEPLOYMENT),
        Kind::Key
        | Kind::AccessKey
        | Kind::AccessKeyUse
        | Kind::Alias
        | Kind::Bucket
        | Kind::Policy
        | Kind::Identity => true,
        // Log lines decide nothing; audit events have a hash chain.
        Kind::Audit | Kind::ErrorLog => false,
    }
}
const DEPLOYMENT: &[u8] = DEPLOYMENT_RECORD.as_bytes();

/// A stored value, split into its parts.
struct Signed<'a> {
    root: &'a str,
    tag: [u8; 32],
    content: &'a [u8],
}

/// A value before it is verified.
enum Stored<'a> {
    Signed(Signed<'a>),
    /// Content without a MAC.
    Unsigned,
    /// Neither of the two.
    Damaged,
}

fn parse(value: &[u8]) -> Stored<'_> {
    if value.first() == Some(&b'{') {
        return Stored::Unsigned;
    }
    signed(value).map_or(Stored::Damaged, Stored::Signed)
}

fn signed(value: &[u8]) -> Option<Signed<'_>> {
    let line = value
        .iter()
        .take(LONGEST_LINE)
        .position(|byte| *byte == b'\n')?;
    let (line, content) = value.split_at_checked(line)?;
    let line = std::str::from_utf8(line).ok()?.strip_prefix(FORMAT)?;
    let (root, tag) = line.split_once(' ')?;
    Some(Signed {
        root,
        tag: URL_SAFE_NO_PAD.decode(tag).ok()?.try_into().ok()?,
        content: content.get(1..)?,
    })
}

/// The content of an unverified value, for what must be known before the keyring is opened.
pub(crate) fn unverified_content(value: &[u8]) -> &[u8] {
    match parse(value) {
        Stored::Signed(signed) => signed.content,
        Stored::Unsigned | Stored::Damaged => value,
    }
}

/// The content of a stored record, without the signature if it has one. It is not verified.
pub fn content(record: &Record) -> &[u8] {
    if is_signed(record.kind, &record.id) {
        unverified_content(&record.value)
    } else {
        &record.value
    }
}

/// The id of the root under which a stored value says that it was signed.
pub(crate) fn signing_root(value: &[u8]) -> Option<&str> {
    match parse(value) {
        Stored::Signed(signed) => Some(signed.root),
        Stored::Unsigned | Stored::Damaged => None,
    }
}

/// The result of verifying a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict<'a> {
    /// Its content, written in this form by a holder of the keyring.
    True(&'a [u8]),
    /// It has no signature.
    Unsigned,
    /// It is refused.
    Forged(Forgery),
}

impl RootKeyring {
    fn mac_parts<'a>(
        &'a self,
        record: &'a Record,
        lengths: &'a Lengths,
        content: &'a [u8],
    ) -> [&'a [u8]; 9] {
        [
            LABEL,
            &lengths.deployment,
            self.deployment().as_bytes(),
            &lengths.kind,
            record.kind.as_str().as_bytes(),
            &lengths.id,
            record.id.as_bytes(),
            &record.revision.0,
            content,
        ]
    }

    /// The record in its stored form, with the signature.
    fn signed(&self, record: &Record) -> Option<Record> {
        let (root, key) = self.signing_key(record.kind)?;
        let lengths = Lengths::of(self, record)?;
        let tag = mac_sha256(key, &self.mac_parts(record, &lengths, &record.value));
        let mut value = Vec::with_capacity(record.value.len() + FORMAT.len() + root.len() + 45);
        value.extend_from_slice(FORMAT.as_bytes());
        value.extend_from_slice(root.as_bytes());
        value.push(b' ');
        value.extend_from_slice(URL_SAFE_NO_PAD.encode(tag).as_bytes());
        value.push(b'\n');
        value.extend_from_slice(&record.value);
        Some(Record {
            value,
            ..record.clone()
        })
    }

    /// Whether a stored record would be obeyed, if all of the table's records are signed when this keyring says so.
    ///
    /// # Errors
    /// [`Forgery`] says why it would be refused.
    pub fn must_verify(&self, record: &Record) -> Result<(), Forgery> {
        if !is_signed(record.kind, &record.id) {
            return Ok(());
        }
        match self.verdict(record) {
            Verdict::True(_) => Ok(()),
            Verdict::Unsigned if !self.all_are_signed() => Ok(()),
            Verdict::Unsigned => Err(Forgery::Unsigned),
            Verdict::Forged(why) => Err(why),
        }
    }

    /// Whether a stored record can never be obeyed again: it is refused, and not only because another process has added a
    /// root that this keyring does not hold yet.
    pub fn refuses_for_good(&self, record: &Record) -> bool {
        match self.must_verify(record) {
            Ok(()) => false,
            Err(Forgery::UnknownRoot) => {
                signing_root(&record.value).is_some_and(|root| self.has_retired(root))
            }
            Err(_) => true,
        }
    }

    pub(crate) fn verdict<'a>(&self, record: &'a Record) -> Verdict<'a> {
        let signed = match parse(&record.value) {
            Stored::Signed(signed) => signed,
            Stored::Unsigned => return Verdict::Unsigned,
            Stored::Damaged => return Verdict::Forged(Forgery::Damaged),
        };
        let Some(key) = self.verifying_key(signed.root, record.kind) else {
            return Verdict::Forged(Forgery::UnknownRoot);
        };
        let Some(lengths) = Lengths::of(self, record) else {
            return Verdict::Forged(Forgery::Damaged);
        };
        let parts = self.mac_parts(record, &lengths, signed.content);
        if verify_mac_sha256(key, &parts, &signed.tag) {
            Verdict::True(signed.content)
        } else {
            Verdict::Forged(Forgery::Altered)
        }
    }
}

/// The length prefixes of the parts of variable length.
struct Lengths {
    deployment: [u8; 4],
    kind: [u8; 4],
    id: [u8; 4],
}

impl Lengths {
    fn of(keyring: &RootKeyring, record: &Record) -> Option<Self> {
        let length = |text: &str| u32::try_from(text.len()).ok().map(u32::to_be_bytes);
        Some(Self {
            deployment: length(keyring.deployment())?,
            kind: length(record.kind.as_str())?,
            id: length(&record.id)?,
        })
    }
}

/// A table that signs what is written and refuses records that do not verify.
///
/// A page leaves refused records out and lists them in [`Page::refused`], so that one forged record does not block the
/// listing of the others. Each refused record is logged, and counted by [`KeyringOnDemand::refused_records`].
pub struct SignedTable<T: ?Sized> {
    table: Arc<T>,
    keyring: Arc<KeyringOnDemand>,
}

impl<T: ?Sized> SignedTable<T> {
    /// Wraps this table, and signs with this keyring.
    pub const fn new(table: Arc<T>, keyring: Arc<KeyringOnDemand>) -> Self {
        Self { table, keyring }
    }

    /// Verifies the record, and returns where the content begins in its value.
    async fn verified(&self, record: &Record) -> Result<usize, StoreError> {
        if !is_signed(record.kind, &record.id) {
            return Ok(0);
        }
        let keyring = keyring_for(&self.keyring, record).await;
        let why = match keyring.map_err(unavailable)?.verdict(record) {
            Verdict::True(content) => return Ok(record.value.len() - content.len()),
            Verdict::Unsigned if !self.keyring.all_are_signed().await.map_err(unavailable)? => {
                return Ok(0);
            }
            Verdict::Unsigned => Forgery::Unsigned,
            Verdict::Forged(why) => why,
        };
        // Another deployment's keyring verifies nothing. The operator must then see that error, not this one.
        self.keyring.own_keyring().await.map_err(unavailable)?;
        self.keyring.count_refused();
        Err(StoreError::Refused {
            kind: record.kind,
            id: record.id.clone(),
            why,
        })
    }
}

/// The keyring that verifies the record.
async fn keyring_for(
    keyring: &KeyringOnDemand,
    record: &Record,
) -> Result<Arc<RootKeyring>, WrapError> {
    match parse(&record.value) {
        Stored::Signed(signed) => keyring.keyring_for(signed.root).await,
        Stored::Unsigned | Stored::Damaged => keyring.keyring().await,
    }
}

pub(crate) fn stripped(mut record: Record, content: usize) -> Record {
    record.value.drain(..content);
    record
}

fn unavailable(error: WrapError) -> StoreError {
    StoreError::Unavailable(error.into())
}

#[async_trait]
impl<T: TableReader + ?Sized> TableReader for SignedTable<T> {
    async fn get(
        &self,
        kind: Kind,
        id: &str,
        consistency: Consistency,
    ) -> Result<Option<Record>, StoreError> {
        match self.table.get(kind, id, consistency).await? {
            Some(record) => {
                let content = self.verified(&record).await?;
                Ok(Some(stripped(record, content)))
            }
            None => Ok(None),
        }
    }

    async fn count(&self, kind: Kind, prefix: &str) -> Result<u64, StoreError> {
        self.table.count(kind, prefix).await
    }

    async fn page(
        &self,
        kind: Kind,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (all, after) = (NameRange::all(), after.map(str::to_owned));
        let mut scan = Scan::within(self.table.as_ref(), kind, all, prefix, after);
        let mut whole = Page::default();
        // The next page is requested after the last record of this page, so this page must not be empty.
        while whole.records.is_empty()
            && let Some(page) = scan.page(limit).await?
        {
            for record in page.records {
                match self.verified(&record).await {
                    Ok(content) => whole.records.push(stripped(record, content)),
                    Err(error @ StoreError::Refused { .. }) => {
                        tracing::error!("{error}");
                        whole.refused.push(record);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        whole.more = scan.has_more();
        Ok(whole)
    }
}

#[async_trait]
impl<T: TableWriter + ?Sized> TableWriter for SignedTable<T> {
    async fn put_new(&self, record: &Record) -> Result<(), StoreError> {
        match self.signed(record).await? {
            Some(signed) => self.table.put_new(&signed).await,
            None => self.table.put_new(record).await,
        }
    }

    async fn replace(&self, record: &Record, seen: Revision) -> Result<(), StoreError> {
        match self.signed(record).await? {
            Some(signed) => self.table.replace(&signed, seen).await,
            None => self.table.replace(record, seen).await,
        }
    }

    async fn remove(&self, kind: Kind, id: &str, seen: Revision) -> Result<(), StoreError> {
        self.table.remove(kind, id, seen).await
    }
}

impl<T: ?Sized> SignedTable<T> {
    /// The record in its stored form; `None` if it is stored unchanged.
    async fn signed(&self, record: &Record) -> Result<Option<Record>, StoreError> {
        if !is_signed(record.kind, &record.id) {
            return Ok(None);
        }
        let keyring = self.keyring.newest_keyring().await.map_err(unavailable)?;
        match keyring.signed(record) {
            Some(signed) => Ok(Some(signed)),
            None => Err(unavailable(WrapError::UnknownRoot)),
        }
    }
}

/// Stands for every record of the kind, in place of an id. No id has this character.
pub const EVERY_ID: &str = "*";

/// The result of checking a table's records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordsFound {
    /// Whether the keyring has the mark that all are signed.
    pub marked: bool,
    /// How many verify.
    pub verified: u64,
    /// How many this run signed.
    pub signed: u64,
    /// Kind and id of the records without a signature.
    pub unsigned: Vec<(Kind, String)>,
    /// The records that are refused, and why.
    pub refused: Vec<(Kind, String, Forgery)>,
}

impl RecordsFound {
    /// Whether no record of the table is refused.
    pub const fn is_clean(&self) -> bool {
        self.refused.is_empty() && (self.unsigned.is_empty() || !self.marked)
    }

    fn add(&mut self, Record { kind, id, .. }: Record, looked: Option<Looked>) {
        match looked {
            Some(Looked::Verified) => self.verified += 1,
            Some(Looked::Signed) => self.signed += 1,
            Some(Looked::Refused(why)) => self.refused.push((kind, id, why)),
            Some(Looked::Unsigned) | None => self.unsigned.push((kind, id)),
            Some(Looked::Gone) => {}
        }
    }
}

/// The result of checking one record.
#[derive(Clone, Copy)]
enum Looked {
    Verified,
    Signed,
    Unsigned,
    Refused(Forgery),
    /// It was removed meanwhile.
    Gone,
}

/// The result for a record; `None` when it has no signature and must get one.
async fn judged(
    keyring: &KeyringOnDemand,
    record: &Record,
    may_sign: bool,
) -> Result<Option<Looked>, KmsError> {
    let keyring = keyring_for(keyring, record).await;
    let keyring = keyring.map_err(|error| crate::keyring::kms_error("the root keyring", error))?;
    Ok(match keyring.verdict(record) {
        Verdict::True(_) => Some(Looked::Verified),
        Verdict::Forged(why) => Some(Looked::Refused(why)),
        Verdict::Unsigned if may_sign => None,
        Verdict::Unsigned => Some(Looked::Unsigned),
    })
}

/// Verifies every record of the table below the signatures, without the privilege to write.
///
/// # Errors
/// When the table or the keyring is unavailable.
pub async fn verify_all(
    stored: &dyn TableReader,
    keyring: &KeyringOnDemand,
) -> Result<RecordsFound, KmsError> {
    let unavailable = |error| crate::keyring::kms_error("the root keyring", error);
    keyring.own_keyring().await.map_err(unavailable)?;
    let mut found = RecordsFound {
        marked: keyring.all_are_signed().await.map_err(unavailable)?,
        ..RecordsFound::default()
    };
    for kind in Kind::ALL.into_iter().filter(|kind| is_signed(*kind, "")) {
        let mut scan = Scan::all(stored, kind);
        while let Some(record) = scan.record().await? {
            if is_signed(kind, &record.id) {
                let looked = judged(keyring, &record, false).await?;
                found.add(record, looked);
            }
        }
    }
    Ok(found)
}

/// The operator's jobs on the stored records of a table, below the signatures.
pub struct SignedRecords {
    table: Arc<dyn TableWriter>,
    keyring: Arc<KeyringOnDemand>,
    random: Arc<dyn Random>,
}

impl SignedRecords {
    /// Uses the table without signatures.
    pub const fn new(
        table: Arc<dyn TableWriter>,
        keyring: Arc<KeyringOnDemand>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            table,
            keyring,
            random,
        }
    }

    /// Verifies every record.
    ///
    /// # Errors
    /// When the table or the keyring is unavailable.
    pub async fn verify(&self) -> Result<RecordsFound, KmsError> {
        verify_all(self.table.as_ref(), &self.keyring).await
    }

    /// Signs the records of older releases, and then marks in the keyring that all are signed. After that, a record
    /// without a signature is refused. It is signed only if `accept` names it; [`EVERY_ID`] names all records of a
    /// kind. Servers may run meanwhile. The job can be stopped and run again.
    ///
    /// # Errors
    /// As [`SignedRecords::verify`].
    pub async fn sign(&self, accept: &[(Kind, String)]) -> Result<RecordsFound, KmsError> {
        let mut found = self.walk(accept).await?;
        if found.marked || !found.unsigned.is_empty() || !found.refused.is_empty() {
            return Ok(found);
        }
        // A process of an older release may have written records meanwhile.
        let again = self.verify().await?;
        found.unsigned = again.unsigned;
        found.refused = again.refused;
        if found.unsigned.is_empty() && found.refused.is_empty() {
            self.keyring
                .mark_signed()
                .await
                .map_err(|error| crate::keyring::kms_error("marking the keyring", error))?;
            found.marked = true;
        }
        Ok(found)
    }

    async fn walk(&self, accept: &[(Kind, String)]) -> Result<RecordsFound, KmsError> {
        let unavailable = |error| crate::keyring::kms_error("the root keyring", error);
        self.keyring.own_keyring().await.map_err(unavailable)?;
        let mut found = RecordsFound {
            marked: self.keyring.all_are_signed().await.map_err(unavailable)?,
            ..RecordsFound::default()
        };
        for kind in Kind::ALL.into_iter().filter(|kind| is_signed(*kind, "")) {
            let mut scan = Scan::all(self.table.as_ref(), kind);
            while let Some(record) = scan.record().await? {
                if is_signed(kind, &record.id) {
                    self.look(record, accept, &mut found).await?;
                }
            }
        }
        Ok(found)
    }

    async fn look(
        &self,
        record: Record,
        accept: &[(Kind, String)],
        found: &mut RecordsFound,
    ) -> Result<(), KmsError> {
        let is_named = |(kind, id): &(Kind, String)| {
            *kind == record.kind && (*id == record.id || id == EVERY_ID)
        };
        let may_sign = !found.marked || accept.iter().any(is_named);
        let looked = match judged(&self.keyring, &record, may_sign).await? {
            Some(looked) => Some(looked),
            None if self.sign_one(&record).await? => Some(Looked::Signed),
            // Another writer changed or removed it meanwhile.
            None => tried(|| self.sign_current(&record)).await?,
        };
        found.add(record, looked);
        Ok(())
    }

    /// Signs the present record of this id, if it needs it; `None` when another writer was faster.
    async fn sign_current(&self, seen: &Record) -> Result<Option<Looked>, KmsError> {
        let table = self.table.as_ref();
        let current = table.get(seen.kind, &seen.id, Consistency::Strong).await?;
        let Some(record) = current else {
            return Ok(Some(Looked::Gone));
        };
        match judged(&self.keyring, &record, true).await? {
            Some(looked) => Ok(Some(looked)),
            None => {
                let is_signed = self.sign_one(&record).await?;
                Ok(is_signed.then_some(Looked::Signed))
            }
        }
    }

    /// Whether the record was signed. It is not if it changed since it was seen.
    async fn sign_one(&self, seen: &Record) -> Result<bool, KmsError> {
        let keyring = self.keyring.newest_keyring().await;
        let keyring =
            keyring.map_err(|error| crate::keyring::kms_error("the root keyring", error))?;
        let next = repository::again(seen, None, self.random.as_ref())?;
        let signed = keyring
            .signed(&next)
            .ok_or_else(|| crate::keyring::kms_error("signing a record", WrapError::UnknownRoot))?;
        Ok(repository::write(self.table.as_ref(), &signed, Some(seen.revision)).await?)
    }
}
