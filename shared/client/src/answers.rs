//! What calls return. Both APIs' answers become these; what an API does not say is `None`.

use std::collections::BTreeMap;

use keyway_domain::SecretBytes;
use serde::Serialize;

/// A new data key.
pub struct DataKey {
    /// The key that encrypts it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The data key: a secret.
    pub plaintext: SecretBytes,
    /// The data key, encrypted. It is stored beside the data.
    pub ciphertext: Vec<u8>,
}

/// A ciphertext.
pub struct Encrypted {
    /// The key that encrypted it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
}

/// A decrypted ciphertext.
pub struct Decrypted {
    /// The key that decrypted it.
    pub key_id: String,
    /// The version of that key.
    pub key_version: Option<u32>,
    /// The plaintext: a secret.
    pub plaintext: SecretBytes,
}

/// The length of a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DataKeySpec {
    /// 32 bytes.
    #[default]
    Aes256,
    /// 16 bytes.
    Aes128,
}

/// A key. The same fields for every API and call: what an answer does not say is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Key {
    /// The key's id.
    pub key_id: String,
    /// `Enabled`, `Disabled` or `PendingDeletion`.
    pub state: Option<String>,
    /// What the operator wrote about it.
    pub description: Option<String>,
    /// `ENCRYPT_DECRYPT` or `GENERATE_VERIFY_MAC`.
    pub usage: Option<String>,
    /// The kind of the key's material, in the API's own word.
    pub algorithm: Option<String>,
    /// The current version.
    pub version: Option<u32>,
    /// When it was made.
    pub created_at: Option<String>,
    /// Who made it.
    pub created_by: Option<String>,
    /// When it was rotated last.
    pub rotated_at: Option<String>,
    /// Whether it has a rotation schedule.
    pub rotation_enabled: Option<bool>,
    /// When it will be destroyed.
    pub deletion_date: Option<String>,
    /// Where its material is from.
    pub origin: Option<String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Key {
    pub(crate) fn named(key_id: String) -> Self {
        Self {
            key_id,
            state: None,
            description: None,
            usage: None,
            algorithm: None,
            version: None,
            created_at: None,
            created_by: None,
            rotated_at: None,
            rotation_enabled: None,
            deletion_date: None,
            origin: None,
            tags: BTreeMap::new(),
        }
    }
}

/// A page of a listing.
#[derive(Debug)]
pub struct KeyPage {
    /// The keys. A page may be empty without being the last.
    pub keys: Vec<Key>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<String>,
}

/// The deletion of a key.
#[derive(Debug, Serialize)]
pub struct Deletion {
    /// The key.
    pub key_id: String,
    /// When it will be destroyed; `None` if it was.
    pub deletion_date: Option<String>,
    /// What used the key, as far as the server knows, such as `bucket-default-encryption photos`.
    pub references: Vec<String>,
}

/// The state of the service. What an API does not say is `None`.
#[derive(Debug, Default, Serialize)]
pub struct ServiceStatus {
    /// `Running`, `Configured`, `NotConfigured` or `Error`.
    pub status: String,
    /// Whether it serves everything.
    pub healthy: Option<bool>,
    /// Why it does not.
    pub error: Option<String>,
    /// `local` or `vault`.
    pub backend_type: Option<String>,
    /// The key of requests that name none.
    pub default_key_id: Option<String>,
    /// How many keys there are.
    pub key_count: Option<u64>,
    /// How long another process may act on a former state.
    pub state_ttl_seconds: Option<u64>,
    /// The server's release.
    pub version: Option<String>,
    /// How long the process has run.
    pub uptime_seconds: Option<u64>,
}

/// What the service said about a change of its own.
#[derive(Debug, Serialize)]
pub struct ServiceChange {
    /// The state now.
    pub status: String,
    /// The server's text.
    pub message: String,
}

/// An event of the audit log.
#[derive(Debug)]
pub struct AuditEvent {
    /// The event in the API's own shape: one line of JSON.
    pub json: String,
    /// When it was written.
    pub time: Option<String>,
    /// The answer's status.
    pub status: Option<u16>,
    /// The operation, or the path if the API names none.
    pub operation: Option<String>,
    /// Who called.
    pub principal: Option<String>,
    /// The key, or whatever else the call was about.
    pub resource: Option<String>,
    /// Where the call came from.
    pub address: Option<String>,
    /// A word for why it was refused.
    pub error: Option<String>,
}
