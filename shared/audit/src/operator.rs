//! Events of the operator's commands, which work on the table and the root keyring themselves.
//!
//! A command writes two events: the first before it changes anything, which also shows that the table takes events; the
//! second when it has ended. So a command that is killed leaves an event too.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyway_domain::KmsError;
use keyway_domain::audit::{Event, EventItem};
use keyway_domain::ports::{Clock, Random, RandomError, TableWriter};
use keyway_http::Class;

use crate::background::told;
use crate::table::AuditTable;
use crate::writer::{AuditWriter, AuditWriterSettings, Contexts, Flushing, NotWritten, Strictness};

/// The dialect of the events of commands.
const OPERATOR: &str = "operator";
/// The operation of the event that a command writes before it changes anything.
const STARTED: &str = "audit:Started";
/// The most keys of one event: with the longest ids, an event stays below the 16 KiB at which log drivers cut lines.
const KEYS_OF_AN_EVENT: usize = 64;

/// An action of a command on a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorAction {
    /// A new access key.
    CreateAccessKey,
    /// An access key that takes another one's place.
    RotateAccessKey,
    /// An access key is revoked.
    RevokeAccessKey,
    /// Keys of another system are imported.
    ImportKeys,
    /// A policy of another system is imported.
    ImportPolicy,
    /// An identity of another system gets a policy.
    ImportIdentity,
    /// Ciphertexts of another system are encrypted under a key.
    Reencrypt,
    /// Records that have no signature get one.
    SignTable,
    /// The table's records, and perhaps the root keyring, leave the deployment.
    CreateBackup,
    /// A backup's records are written into the table.
    RestoreBackup,
    /// The root keyring's file gets another passphrase.
    ChangePassphrase,
    /// A new root.
    RotateRoot,
    /// Records are put under the newest root.
    RewrapRoot,
    /// A root leaves the keyring.
    RetireRoot,
    /// A lost root is given up.
    GiveUpRoot,
    /// The root keyring's file is copied.
    SaveRootKeyring,
    /// A new version of Vault's transit key.
    RotateTransitKey,
    /// Keys are wrapped under the newest version of the transit key.
    RewrapTransitKey,
    /// Vault refuses older versions of the transit key.
    RetireTransitKey,
    /// Keys move to the configured backend.
    RewrapKeys,
    /// Lost records of keys are made from their sealed copies.
    RestoreKeys,
}

impl OperatorAction {
    /// All of them.
    pub const ALL: [Self; 21] = [
        Self::CreateAccessKey,
        Self::RotateAccessKey,
        Self::RevokeAccessKey,
        Self::ImportKeys,
        Self::ImportPolicy,
        Self::ImportIdentity,
        Self::Reencrypt,
        Self::SignTable,
        Self::CreateBackup,
        Self::RestoreBackup,
        Self::ChangePassphrase,
        Self::RotateRoot,
        Self::RewrapRoot,
        Self::RetireRoot,
        Self::GiveUpRoot,
        Self::SaveRootKeyring,
        Self::RotateTransitKey,
        Self::RewrapTransitKey,
        Self::RetireTransitKey,
        Self::RewrapKeys,
        Self::RestoreKeys,
    ];

    /// The `operation` of its events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateAccessKey => "kms:CreateAccessKey",
            Self::RotateAccessKey => "kms:RotateAccessKey",
            Self::RevokeAccessKey => "kms:RevokeAccessKey",
            Self::ImportKeys => "kms:ImportKeys",
            Self::ImportPolicy => "kms:ImportPolicy",
            Self::ImportIdentity => "kms:ImportIdentity",
            Self::Reencrypt => "kms:Reencrypt",
            Self::SignTable => "kms:SignTable",
            Self::CreateBackup => "kms:CreateBackup",
            Self::RestoreBackup => "kms:RestoreBackup",
            Self::ChangePassphrase => "kms:ChangePassphrase",
            Self::RotateRoot => "kms:RotateRoot",
            Self::RewrapRoot => "kms:RewrapRoot",
            Self::RetireRoot => "kms:RetireRoot",
            Self::GiveUpRoot => "kms:GiveUpRoot",
            Self::SaveRootKeyring => "kms:SaveRootKeyring",
            Self::RotateTransitKey => "kms:RotateTransitKey",
            Self::RewrapTransitKey => "kms:RewrapTransitKey",
            Self::RetireTransitKey => "kms:RetireTransitKey",
            Self::RewrapKeys => "kms:RewrapKeys",
            Self::RestoreKeys => "kms:RestoreKeys",
        }
    }

    const fn class(self) -> Class {
        match self {
            Self::Reencrypt => Class::DataKey,
            _ => Class::Mutation,
        }
    }
}

/// One event of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorEvent {
    action: OperatorAction,
    keys: Vec<String>,
    resource: Option<String>,
    counts: BTreeMap<String, u64>,
    error: Option<&'static str>,
}

impl OperatorEvent {
    /// The action was carried out.
    pub const fn new(action: OperatorAction) -> Self {
        Self {
            action,
            keys: Vec::new(),
            resource: None,
            counts: BTreeMap::new(),
            error: None,
        }
    }

    /// The action failed or was refused. A part of it may have been carried out.
    pub const fn failed(action: OperatorAction) -> Self {
        let mut event = Self::new(action);
        event.error = Some("failed");
        event
    }

    /// A backup was restored. `last_record` is the id of the last record of the audit log in the backup: the log is
    /// continued after it.
    pub fn restored(backup: &str, last_record: Option<&str>) -> Self {
        let name = match last_record {
            Some(last) => format!("{backup}/{last}"),
            None => backup.to_owned(),
        };
        Self::new(OperatorAction::RestoreBackup).of("backup", &name)
    }

    /// Names the object, which is no key: `root/r2`.
    #[must_use]
    pub fn of(mut self, kind: &str, name: &str) -> Self {
        self.resource = Some(format!("{kind}/{name}"));
        self
    }

    /// Names the keys.
    #[must_use]
    pub fn on_keys(mut self, keys: impl IntoIterator<Item = String>) -> Self {
        self.keys.extend(keys);
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn counted(mut self, what: &str, count: u64) -> Self {
        self.counts.insert(what.to_owned(), count);
        self
    }

    fn event(&self) -> Event<'_> {
        Event {
            dialect: Cow::Borrowed(OPERATOR),
            operation: Cow::Borrowed(self.action.as_str()),
            class: Some(Cow::Borrowed(self.action.class().as_str())),
            resource: self.resource.as_deref().map(Cow::Borrowed),
            counts: (!self.counts.is_empty()).then(|| self.counts.clone()),
            error: self.error.map(Cow::Borrowed),
            ..Event::default()
        }
    }

    /// The event, or several if it has many keys.
    fn events(&self) -> Vec<Event<'_>> {
        match self.keys.as_slice() {
            [] => vec![self.event()],
            [key] => vec![Event {
                key_id: Some(Cow::Borrowed(key)),
                ..self.event()
            }],
            keys => {
                let parts = keys.chunks(KEYS_OF_AN_EVENT).enumerate();
                parts.map(|(part, keys)| self.part(part, keys)).collect()
            }
        }
    }

    fn part<'a>(&'a self, part: usize, keys: &'a [String]) -> Event<'a> {
        let number = |index| u64::try_from(index).unwrap_or(u64::MAX);
        let of_all = self.event();
        Event {
            items: Some(keys.iter().map(|key| item(key)).collect()),
            first_item: Some(number(part * KEYS_OF_AN_EVENT)),
            item_count: Some(number(self.keys.len())),
            // Only the first part has them, so that sums over events are right.
            counts: of_all.counts.clone().filter(|_| part == 0),
            ..of_all
        }
    }
}

fn item(key: &str) -> EventItem<'_> {
    EventItem {
        key_id: Some(Cow::Borrowed(key)),
        ..EventItem::default()
    }
}

/// Writes the events of one command into the table's audit log. They do not expire: they tell how the whole deployment
/// changed, and no standard output has them.
pub struct OperatorLog(AuditWriter);

impl OperatorLog {
    /// Nothing is written yet.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn new(
        table: Arc<dyn TableWriter>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, RandomError> {
        let settings = AuditWriterSettings {
            strictness: Strictness::Required,
            contexts: Contexts::Names,
            retention_days: 0,
            flushing: Flushing::ByRequest,
            batch_age: Duration::ZERO,
        };
        let (output, table) = (Box::new(io::sink()), AuditTable::new(table));
        AuditWriter::new(output, table, clock, random, settings).map(Self)
    }

    /// Records that a command begins. It must not change anything before this succeeds.
    ///
    /// # Errors
    /// When the event cannot be written.
    pub async fn begin(&self, action: OperatorAction) -> Result<(), KmsError> {
        let event = Event {
            dialect: Cow::Borrowed(OPERATOR),
            operation: Cow::Borrowed(STARTED),
            resource: Some(Cow::Borrowed(action.as_str())),
            ..Event::default()
        };
        told(self.0.record_background(&event).await)
    }

    /// Records what a command has done.
    ///
    /// # Errors
    /// When an event cannot be written.
    pub async fn record(&self, event: &OperatorEvent) -> Result<(), KmsError> {
        told(self.record_each(event).await)
    }

    async fn record_each(&self, event: &OperatorEvent) -> Result<(), NotWritten> {
        for event in event.events() {
            self.0.record_background(&event).await?;
        }
        Ok(())
    }
}
